# SPDX-License-Identifier: Apache-2.0
"""``python -m ssm``."""

import sys

from ssm.cli import main

if __name__ == "__main__":  # spawned children import this module under another name
    sys.exit(main())
