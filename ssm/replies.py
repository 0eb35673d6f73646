# SPDX-License-Identifier: Apache-2.0
# pyright: reportPrivateUsage=false
"""What calls and replies are made of: the head of their packets, and rings of replies; see rpc.py.

A head is at the front of the headroom of its block. It has the number of a ring of replies, that of the call, and where
the payload of the request is: a worker that dies may have moved the window of the packet.

A reply in the packet of its request keeps the head of the request, and changes the kind alone. So a worker may die at
any moment before its reply is in its ring, and the next worker finds the request, whatever the kind is. If that is
FAILURE, the text of an error has taken the place of the payload.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import struct
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ssm import _core
from ssm.deadline import left_of, until_of
from ssm.errors import RpcError
from ssm.ring import Ring, end_ring

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from ssm._core import Packet, Pool

MARK = "!"  # stands before the number in the name of a ring of replies
NUMBER_DIGITS = 16
REQUEST, REPLY, FAILURE = range(1, 4)
SPARE = 16  # places for replies to calls that are over


# ---- the head of a packet -----------------------------------------------------------------------------


class Head(NamedTuple):
    """Of which call a packet is, and what."""

    ring: int  # the number in the name of the ring of replies
    call: int
    kind: int


# Magic, ring, call; where the payload of the request begins, and its length; last the kind, aligned.
_HEAD = struct.Struct("<8sQQQQQ")
_MAGIC = b"ssm rpc\x02"
_CALL = struct.Struct("<8sQQ")
_KIND = struct.Struct("<Q")
_KIND_AT = _HEAD.size - _KIND.size


def write_request(pool: Pool, pkt: Packet, head: Head, until: float | None) -> Packet:
    """Write a head in front of the payload, and return the packet; a copy, where there is no room for the head."""
    pkt = _with_room(pool, pkt, until)
    start, length = pkt.headroom, pkt.nbytes
    with pkt.prepend(start) as view:
        _HEAD.pack_into(view, 0, _MAGIC, head.ring, head.call, start, length, head.kind)
    pkt.trim_front(start).release()
    return pkt


def write_reply(pool: Pool, pkt: Packet, head: Head) -> Packet:
    """Do the same for a reply. In the packet of its request, the place of the payload stays in the head."""
    pkt = _with_room(pool, pkt, None)
    stamp(pkt, head)
    return pkt


def stamp(pkt: Packet, head: Head) -> None:
    """Say what a packet of that call is, if there is room for a head."""
    start = pkt.headroom
    if start < _HEAD.size:
        return
    with pkt.prepend(start) as view:
        call = _CALL.pack(_MAGIC, head.ring, head.call)
        if bytes(view[: _CALL.size]) != call:  # another packet
            view[: _HEAD.size] = call + bytes(_HEAD.size - _CALL.size)
        view[_KIND_AT : _HEAD.size] = _KIND.pack(head.kind)  # one store
    pkt.trim_front(start).release()


def _with_room(pool: Pool, pkt: Packet, until: float | None) -> Packet:
    if pkt.headroom >= _HEAD.size:
        return pkt
    with memoryview(pkt) as view:
        return copy_of(pool, view, until)


def copy_of(pool: Pool, data: Buffer, until: float | None) -> Packet:
    """Copy bytes into a packet with room for a head. PoolExhausted, PacketTooLarge."""
    short = max(0, _HEAD.size - pool.headroom)
    with memoryview(data) as view:
        try:
            flat: memoryview | bytes = view.cast("B")
        except TypeError:  # numpy's structures, strides, or an empty array
            flat = view.tobytes()
        pkt = pool.alloc(max(1, len(flat) + short), left_of(until))
        pkt.trim_front(short).release()
        pkt.truncate(len(flat))
        pkt[:] = flat
    return pkt


def copied_max(pool: Pool) -> int:
    """Return how many bytes copy_of() takes."""
    return pool.max_size - max(0, _HEAD.size - pool.headroom)


def read_request(pkt: Packet) -> Head | None:
    """Return the head, and set the window to the payload that was sent; None: there is no head."""
    if pkt.headroom:
        pkt.prepend(pkt.headroom).release()
    if pkt.nbytes < _HEAD.size:
        return None
    with memoryview(pkt) as view:
        magic, ring, call, start, length, kind = _HEAD.unpack_from(view)
    if (
        magic != _MAGIC
        or start < _HEAD.size
        or start > pkt.nbytes
        or length > pkt.nbytes + pkt.tailroom - start
    ):
        return None
    pkt.trim_front(start).release()
    resize(pkt, length)
    return Head(ring, call, kind)


def read_reply(pkt: Packet) -> Head | None:
    """Return the head, and leave the window as it is; None: there is no head."""
    start = pkt.headroom
    if start < _HEAD.size:
        return None
    with pkt.prepend(start) as view:
        magic, ring, call, _, _, kind = _HEAD.unpack_from(view)
    pkt.trim_front(start).release()
    return Head(ring, call, kind) if magic == _MAGIC else None


def resize(pkt: Packet, length: int) -> None:
    """Move the end of the window."""
    if length < pkt.nbytes:
        pkt.truncate(length)
    elif length > pkt.nbytes:
        pkt.append(length - pkt.nbytes).release()


# ---- rings of replies ---------------------------------------------------------------------------------


class Line:
    """A ring of replies that this process has made. It goes with the process, or when nothing refers to it."""

    __slots__ = ("_pid", "number", "numbers", "ring")

    def __init__(self, pool: Pool, rpc: str, capacity: int) -> None:
        self._pid = os.getpid()
        self.number = int.from_bytes(os.urandom(8))
        self.numbers = itertools.count(1)
        overwrite = cast("int", _core.overflow_flags("overwrite"))
        name = f"{rpc}{MARK}{self.number:0{NUMBER_DIGITS}x}"
        self.ring = Ring._open(pool, name, capacity, _core.OWNED | overwrite, 0, None, 0)

    def is_mine(self) -> bool:
        """Return whether this process has made it: a forked child has its parent's, and must not end that."""
        return self._pid == os.getpid()

    def end(self) -> None:
        """Free what is in there; what comes later is freed by those who would put it."""
        if self.is_mine() and not self.ring.closed and not self.ring.pool.closed:
            end_ring(self.ring)

    def __del__(self, _suppress: Callable[..., Any] = contextlib.suppress) -> None:
        with _suppress(Exception):
            self.end()

    def wait_for(self, call: int, timeout: float | None) -> tuple[Head, Packet]:
        """Return the reply to this call; free others. RingEmpty."""
        until = until_of(timeout)
        while True:
            pkt = self.ring.get(True, left_of(until))
            head = read_reply(pkt)
            if head is not None and head.call == call:
                return head, pkt
            pkt.free()


def result_of(head: Head, reply: Packet) -> Packet:
    """Return the reply; RpcError: it is an error of the handler."""
    if head.kind != FAILURE:
        return reply
    with reply:
        kind, _, rest = bytes(reply).decode(errors="replace").partition("\0")
    message, _, trace = rest.partition("\0")
    raise RpcError(kind, message, trace)
