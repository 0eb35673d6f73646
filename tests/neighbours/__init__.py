# SPDX-License-Identifier: Apache-2.0
"""Programs of other projects with our queues and pipes in the place of multiprocessing's: `make neighbours`."""
