# SPDX-License-Identifier: Apache-2.0
"""A progress bar on a terminal: rich's where it is installed, a plain line where not, nothing in a pipe."""

from __future__ import annotations

import importlib
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

PATIENCE_S = 0.5  # what is over sooner needs no bar
WIDTH = 30


@contextmanager
def progress(label: str, total: int) -> Generator[Callable[[int], None]]:
    """Yield a function that is told how much is done."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    try:
        rich: Any = importlib.import_module("rich.progress")
        console: Any = importlib.import_module("rich.console").Console(stderr=True)
    except ModuleNotFoundError:
        with _plain(label, total) as show:
            yield show
        return
    with rich.Progress(console=console, transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def _plain(label: str, total: int) -> Generator[Callable[[int], None]]:
    started = time.monotonic()
    shown = False

    def show(done: int) -> None:
        nonlocal shown
        if time.monotonic() - started < PATIENCE_S:
            return
        shown = True
        part = min(done / total, 1.0) if total else 1.0
        bar = "#" * round(part * WIDTH)
        print(f"\r{label} [{bar:<{WIDTH}}] {part:4.0%}", end="", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        if shown:
            print("\r" + " " * (len(label) + WIDTH + 8) + "\r", end="", file=sys.stderr, flush=True)
