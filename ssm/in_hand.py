# SPDX-License-Identifier: Apache-2.0
"""What a process took out of a queue with redeliver=True, and has not said task_done() of.

It goes back to the queue when the queue is closed or the process ends: task_done() alone says that it is dealt with.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections import deque
from typing import TYPE_CHECKING
from weakref import ref

if TYPE_CHECKING:
    from ssm._core import Packet


class InHand:
    """The packets of one Queue object, in the order of each thread."""

    __slots__ = ("__weakref__", "_of_thread")

    def __init__(self) -> None:
        self._of_thread: dict[int, deque[Packet]] = {}
        _note(self)

    def add(self, packet: Packet) -> None:
        """Note a packet that this thread took out."""
        self._of_thread.setdefault(threading.get_ident(), deque()).append(packet)

    def remove(self, packet: Packet) -> None:
        """Forget the packet that this thread has just noted, or was about to."""
        mine = self._of_thread.get(threading.get_ident())
        if mine and mine[-1] is packet:
            mine.pop()

    def oldest(self) -> Packet | None:
        """Forget the packet that this thread has had for the longest, or else that any has, and return it."""
        mine = self._of_thread.get(threading.get_ident())
        for packets in [mine, *self._of_thread.values()] if mine else list(self._of_thread.values()):
            try:
                return packets.popleft()
            except IndexError:
                continue
        return None

    def give_back(self) -> None:
        """Return all of them to the ring, to be delivered once more."""
        while (packet := self.oldest()) is not None:
            packet.__exit__(InterruptedError, None, None)

    def forget(self) -> None:
        """In a forked child: they are its parent's."""
        self._of_thread.clear()


_all: dict[ref[InHand], None] = {}  # no lock, and each step one call: see docs/design.md


def _note(each: InHand) -> None:
    _all[ref(each, _drop)] = None


def _drop(reference: ref[InHand]) -> None:
    _all.pop(reference, None)


def _living() -> list[InHand]:
    return [each for reference in list(_all) if (each := reference()) is not None]


@atexit.register
def _give_all_back() -> None:
    for each in _living():
        each.give_back()


def _forget_all() -> None:
    for each in _living():
        each.forget()


os.register_at_fork(after_in_child=_forget_all)
