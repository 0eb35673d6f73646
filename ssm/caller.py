# SPDX-License-Identifier: Apache-2.0
"""The line of the user's program that called into this package."""

from __future__ import annotations

import sys
from pathlib import Path

_HERE = str(Path(__file__).parent) + "/"


def site() -> tuple[str, int]:
    """Return the file and the line of the innermost frame outside of this package; "", 0: there is none."""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame.f_code.co_filename.startswith(_HERE):
        if frame.f_back is None:
            return "", 0
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno
