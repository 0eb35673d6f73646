# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks``, as ``make bench`` calls it."""

import sys

from benchmarks.bench import main

if __name__ == "__main__":
    sys.exit(main())
