# SPDX-License-Identifier: Apache-2.0
"""An allocator that is another one at each call: its copy, or what comes out of a pickle, or out of JSON."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
import weakref
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable


def _by_json(allocator: Any) -> Any:
    return type(allocator).from_dict(json.loads(json.dumps(allocator.to_dict())))


WAYS: dict[str, tuple[Callable[[Any], Any], ...]] = {
    "copied": (copy.copy, copy.deepcopy),
    "unpickled": (lambda a: pickle.loads(pickle.dumps(a)), _by_json),
}


class Renewed:
    """The allocator; what was there before a call is thrown away."""

    def __init__(self, allocator: Any, form: str) -> None:
        self.allocator = allocator
        self.ways = itertools.cycle(WAYS[form])

    def renew(self) -> Any:
        self.allocator = next(self.ways)(self.allocator)
        return self.allocator

    def __getattr__(self, name: str) -> Any:
        return getattr(self.renew(), name)

    def __repr__(self) -> str:
        return repr(self.renew())

    def __contains__(self, number: Any) -> bool:
        return number in self.renew()


class RenewedPid:
    """A Pid of the allocator of the moment."""

    def __init__(self, pids: RenewedPids, pid: Any) -> None:
        self.pids, self.pid = pids, pid
        pids.live.add(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pid, name)

    def __index__(self) -> int:
        return int(self.pid)

    def __repr__(self) -> str:
        return repr(self.pid)

    def free(self) -> None:
        self.pid.free()
        self.pids.live.discard(self)

    def __enter__(self) -> Self:
        self.pid.__enter__()
        return self

    def __exit__(self, *why: object) -> None:
        self.pid.__exit__(*why)
        self.pids.live.discard(self)


class RenewedPids(Renewed):
    """Pids: those of the copy are adopted, those of the allocator that is thrown away go back there, and only there."""

    SOME = 200  # of more, a copy takes its time: then before the first, second, fourth, eighth ... call

    def __init__(self, allocator: Any, form: str) -> None:
        super().__init__(allocator, form)
        self.live: weakref.WeakSet[RenewedPid] = weakref.WeakSet()
        self.calls = 0

    def renew(self) -> Any:
        self.calls += 1
        if len(self.live) <= self.SOME or self.calls & (self.calls - 1) == 0:
            super().renew()
            for handle in list(self.live):
                handle.pid = self.allocator.adopt(handle.pid)
        return self.allocator

    def allocate(self) -> RenewedPid | None:
        pid = self.renew().allocate()
        return None if pid is None else RenewedPid(self, pid)
