# SPDX-License-Identifier: Apache-2.0
"""Attachment: a pool as this process is attached to it. Its label, its close, and what the end of the process does."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Self, cast
from weakref import ref

from ssm import _core, ending, labels, names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

_RETURN_TRIES = 100  # to give jobs back, while a process that may be stopped is in the way; and naps
_RETURN_NAP_S = 0.005


class Attachment(_core.Pool):
    """What Pool is built on: everything about it that concerns this process alone."""

    __slots__ = ("_label", "_leaves")

    _label: str
    _leaves: bool  # its close may be the end of an ephemeral pool

    def _adopt(self, quota: int | None, label: str | None) -> None:
        self._leaves = (
            self.ephemeral and not self.readonly
        )  # last: __del__ takes it for the sign that all is there
        self.label = labels.default() if label is None else label
        if quota is not None:
            self._set_quota(quota)
        _here[_Here(self, _forget)] = os.getpid()
        if self._leaves:
            _join_multiprocessing()

    def _key(self) -> tuple[str, int, bool]:
        return self.name, self.generation, self.readonly

    def close(self) -> None:
        """Leave the pool: what this process holds goes back, the pool stays for the others.

        Blocks under live memoryviews and arrays stay until the last of them is gone, and so does the memory.
        Closing twice is fine. The last close of an ephemeral pool removes its name.
        """
        gone = self._close()
        if gone and self._leaves:
            self._leaves = False
            names.retire(self.name, self)

    @property
    def label(self) -> str:
        """The name of this process in `holders`, `ssm top` and errors; can be set, up to 47 bytes of UTF-8.

        A forked child has its own one: the name of its multiprocessing.Process, or that of the script.
        """
        return self._label

    @label.setter
    def label(self, label: str) -> None:
        self._set_label(labels.encode(label))
        self._label = label

    def __enter__(self) -> Self:
        if self.closed:
            raise ValueError(f"pool is closed: {self.name!r}; attach to it again")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if ending.is_failure(error):
            self._give_back()
        self.close()

    def _give_back(self) -> None:
        """Return the jobs in hand to their rings: the block that had them did not come to its end."""
        for _ in range(_RETURN_TRIES):
            if self.closed or self._return_jobs():
                return
            time.sleep(_RETURN_NAP_S)  # another process is at the registry

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if not _is_finalizing() and hasattr(self, "_leaves"):  # globals may be gone; C closes it in any case
            self.close()

    @classmethod
    def _first_open(cls, key: tuple[str, int, bool]) -> Self | None:
        """Return the open pool of this class, and that name, generation and mode, which was attached first.

        The order decides, so that threads that attach at once agree on one.
        """
        for here in list(_here):
            pool = here()
            if pool is not None and type(pool) is cls and not pool.closed and pool._key() == key:
                return pool
        return None


# ---- the pools of this process -----------------------------------------------------------------------


class _Here(ref[Attachment]):
    """A key of `_here`: compared by itself, so that no class of a user's has a say, nor runs code."""

    __slots__ = ()
    __hash__ = object.__hash__
    __eq__ = object.__eq__


# -> the process that attached it; in the order in which they were attached. No lock: a signal handler, the collector or
# another thread comes in between two calls of dict only, and a child that is forked has it whole.
_here: dict[_Here, int] = {}


def pools_here() -> Iterator[Attachment]:
    """Yield the pools that are open in this process."""
    for here in list(_here):
        pool = here()
        if pool is not None and not pool.closed:
            yield pool


def _forget(key: ref[Attachment]) -> None:
    _here.pop(cast("_Here", key), None)


@atexit.register
def _close_all() -> None:
    """Leave the pools of this process; what a forked child has inherited is its parent's to close."""
    _core.ending()
    for here, pid in list(_here.items()):
        pool = here()
        if pool is None or pid != os.getpid() or pool._has_jobs():  # pyright: ignore[reportPrivateUsage]
            continue  # with jobs, the status of the process decides
        pool.close()
    _end_names()


def _end_names() -> None:
    """Remove the names of ephemeral pools that only this process is in: it is about to end."""
    for here in list(_here):
        pool = here()
        if pool is not None and pool._leaves:  # pyright: ignore[reportPrivateUsage]
            names.retire(pool.name, pool)


# A process that multiprocessing forks, or its fork server, ends by os._exit, without atexit. It runs finalizers, those
# that were made since the fork. Its threads may be at work still, so nothing is closed there.
_joined = False  # here, or in the process from which this one was forked
_finalized_in = 0  # the process


def _join_multiprocessing() -> None:
    """See to it that `_end_names` runs where multiprocessing ends a process: this one, and those forked from it."""
    global _joined
    util: Any = sys.modules.get("multiprocessing.util")
    if not hasattr(util, "_exit_function"):  # it is not there, or another thread imports it just now
        return
    if not _joined:
        _joined = True
        util.register_after_fork(_end_names, _begin_child)
    parent = sys.modules["multiprocessing.process"].parent_process()
    if parent is not None and _finalized_in != os.getpid():
        _finalize()


def _begin_child(_: object) -> None:
    """Run in a child that multiprocessing has forked, when that knows its name."""
    _finalize()
    _label_anew()


def _label_anew() -> None:
    """Give a forked child the label that it has by default: what its parent is called is the parent's."""
    for pool in pools_here():
        with contextlib.suppress(Exception):  # a pool that is broken says so when it is used
            pool.label = labels.default()


def _finalize() -> None:
    global _finalized_in
    util: Any = sys.modules["multiprocessing.util"]
    util.Finalize(None, _end_names, exitpriority=-1000)  # after those of others
    _finalized_in = os.getpid()


os.register_at_fork(before=_join_multiprocessing, after_in_child=_label_anew)
