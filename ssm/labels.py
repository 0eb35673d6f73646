# SPDX-License-Identifier: Apache-2.0
"""Names of processes, for people to read: what `ssm holders`, `ssm top` and errors call them."""

from __future__ import annotations

import sys
from pathlib import PurePath
from typing import Any

from ssm import _core

LABEL_MAX = _core.NAME_SIZE - 1  # bytes


def default() -> str:
    """Return the name that multiprocessing gave this process, or else that of its script."""
    process: Any = sys.modules.get("multiprocessing.process")
    name = str(process.current_process().name) if hasattr(process, "current_process") else "MainProcess"
    if name == "MainProcess":
        name = _script()
    return _cut(name.replace("\0", ""))


def encode(label: str) -> bytes:
    """Return the label as the holder table has it. ValueError: it cannot be."""
    encoded = label.encode("utf-8", "replace")
    if not 1 <= len(encoded) <= LABEL_MAX or b"\0" in encoded:
        raise ValueError(f"a label has 1 .. {LABEL_MAX} bytes of UTF-8 without NUL, not {label!r}")
    return encoded


def _script() -> str:
    script = PurePath(next(iter(getattr(sys, "argv", ())), ""))
    if script.name == "__main__.py":  # python -m package
        return script.parent.name or "python"
    return script.name if script.name not in {"", "-c", "-m"} else "python"


def _cut(name: str) -> str:
    """Return as much of a name as there is room for, in whole characters."""
    return name.encode("utf-8", "replace")[:LABEL_MAX].decode("utf-8", "ignore") or "python"
