# SPDX-License-Identifier: Apache-2.0
"""A carrier inside one process, for tests and for trying a bridge out."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

DEPTH = 64  # messages of each direction that wait for their reader


class Memory:
    """One end of a link in memory; `pair` makes both."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._arrived: deque[list[memoryview]] = deque()
        self._closed = False
        self.other = self  # until `pair` gives it one

    def send(self, parts: Sequence[Buffer], timeout: float) -> bool:
        """See `Carrier.send`; the message is copied."""
        if self._closed:
            raise ValueError("this end of the link is closed")
        other = self.other
        with other._changed:
            if not other._changed.wait_for(lambda: other._closed or len(other._arrived) < DEPTH, timeout):
                return False
            if other._closed:
                return False
            other._arrived.append([memoryview(bytes(part)) for part in parts])
            other._changed.notify_all()
        return True

    def recv(self, timeout: float) -> list[memoryview] | None:
        """See `Carrier.recv`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._arrived, timeout)
            if self._closed:
                raise ValueError("this end of the link is closed")
            if not self._arrived:
                return None
            parts = self._arrived.popleft()
            self._changed.notify_all()
            return parts

    def close(self) -> None:
        """See `Carrier.close`."""
        with self._changed:
            self._closed = True
            self._arrived.clear()
            self._changed.notify_all()


class Hub:
    """An Exchange in memory."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ports: dict[bytes, Memory] = {}
        self._closed = False

    def leaf(self, name: bytes) -> Memory:
        """Return the end of a peer; a name that was there before is that peer, started anew."""
        port, end = Memory(), Memory()
        port._changed = self._changed
        port.other, end.other = end, port
        with self._changed:
            self._ports[name] = port
        return end

    def send_to(self, peer: bytes, parts: Sequence[Buffer], timeout: float) -> bool:
        """See `Exchange.send_to`."""
        return self._ports[peer].send(parts, timeout)

    def recv_from(self, timeout: float) -> tuple[bytes, list[memoryview]] | None:
        """See `Exchange.recv_from`."""

        def waiting() -> list[bytes]:
            return [name for name, port in self._ports.items() if port._arrived]

        with self._changed:
            self._changed.wait_for(lambda: self._closed or waiting(), timeout)
            if self._closed:
                raise ValueError("this end of the link is closed")
            names = waiting()
            if not names:
                return None
            parts = self._ports[names[0]]._arrived.popleft()
            self._changed.notify_all()
            return names[0], parts

    def announce(self) -> None:
        """Do nothing: a peer says by itself that it is there."""

    def close(self) -> None:
        """See `Exchange.close`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for port in self._ports.values():
            port.close()


def pair() -> tuple[Memory, Memory]:
    """Return both ends of a link."""
    one, other = Memory(), Memory()
    one.other, other.other = other, one
    return one, other
