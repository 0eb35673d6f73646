# SPDX-License-Identifier: Apache-2.0
"""How a process ends that has jobs in hand: packets of rings with redeliver=True.

A status of 0 says that they are done. An exception that ends the process says that they are not: they go back to their
rings. Where the interpreter calls exit(3), C looks at the status (binding/ending.c). A child of multiprocessing lets go
of what it has, and then ends with os._exit(): there the exception is looked at while it passes by.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from ssm import _core


def is_failure(error: BaseException | None) -> bool:
    """Return whether a process that ends with it has a status other than 0."""
    if isinstance(error, SystemExit):
        return not (error.code is None or (isinstance(error.code, int) and error.code == 0))
    return error is not None


def _look() -> None:
    """Look for what ends a child of multiprocessing: it calls this while the exception is on its way."""
    if is_failure(sys.exc_info()[1]):
        _core.ending()


class _Watch:
    """Asks multiprocessing to call `_look`, in this process and in the children that it forks."""

    def __init__(self) -> None:
        self.pid = 0

    def begin(self, _: object = None) -> None:
        util: Any = sys.modules.get("multiprocessing.util")
        if self.pid == os.getpid() or not hasattr(util, "Finalize"):  # not imported, or not all of it yet
            return
        if self.pid == 0:
            util.register_after_fork(self, _Watch.again)
        self.again()

    def again(self) -> None:
        """Register once more: a child forgets what its parent had registered."""
        self.pid = os.getpid()
        sys.modules["multiprocessing.util"].Finalize(None, _look, exitpriority=0)


_watch = _Watch()
watch = _watch.begin
watch()
os.register_at_fork(after_in_child=watch)
