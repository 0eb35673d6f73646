# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a file of packets."""


class CaptureError(ValueError):
    """The file cannot be opened, is none, or is damaged; or the library that reads captures is missing."""
