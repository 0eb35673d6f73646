# SPDX-License-Identifier: Apache-2.0
"""Messages: how the object that a queue sends lies in packets.

A message is one packet, or a chain of them. Small ones are `PLAIN` and the pickle. All others begin with `HEADER` and
the length of each part: first the pickle, then the buffers that it left out (pickle protocol 5). Where the parts lie
follows from the lengths, and from the bytes that a packet of this message takes, see `layout`: what is written by that
rule is checked by it.
"""

from __future__ import annotations

import contextlib
import functools
import struct
from pickle import PickleBuffer, loads
from typing import TYPE_CHECKING, Any

from ssm import _core, late
from ssm.deadline import left_of
from ssm.errors import MessageMismatch, PacketTooLarge, PoolExhausted, StaleHandle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TypeAlias

    from ssm._core import Packet
    from ssm.pool import Pool

    _Places: TypeAlias = "list[list[tuple[int, int, int]]]"

PLAIN = b"ssm.obj\x01"  # the last byte is the version of the format
PARTS = b"ssm.obj\x02"
HEADER = struct.Struct("<8sIIQ")  # PARTS, parts, packets, bytes that a packet of this message takes
_LENGTH = 8  # behind it, for each part
_ALIGN = 64  # of each part: numpy and arrow like it so
ROOM_MIN = 256  # bytes that a packet must take

PLAIN_MAX = 16 << 10  # larger pickles are read where they lie, not copied first
_BESIDE_MIN = (
    16 << 10
)  # buffers from here on are left out of the pickle; smaller ones are copied faster than viewed

_PIECE_MIN = 4096  # bytes of the smallest packets that a message is cut into
_PIECES = 4  # into so many where it does not fit; and each of these, where that was too large still
BLOCK_LARGE = (1 << 20) + 4096  # of a pool that is advised


class _Sink:
    """What a pickler takes for a file."""

    __slots__ = ("write",)

    def __init__(self, write: Callable[[bytes | PickleBuffer], None]) -> None:
        self.write = write


class Writer:
    """A pickler for one message after the other: what it wrote, and the buffers that it left out."""

    __slots__ = ("beside", "chunks", "dump", "forget")

    def __init__(self) -> None:
        self.chunks: list[bytes | PickleBuffer] = []  # large ones as they are
        self.beside: list[memoryview] = []
        beside = self.beside

        def leave_out(buffer: PickleBuffer) -> bool:
            view = buffer.raw()
            if view.nbytes < _BESIDE_MIN:
                return True  # into the pickle
            beside.append(view)
            return False

        reduction: Any = late.load("multiprocessing.reduction")
        pickler = reduction.ForkingPickler(_Sink(self.chunks.append), 5, True, leave_out)
        self.dump = pickler.dump
        self.forget = pickler.clear_memo

    def lengths(self) -> list[int]:
        """Return the bytes of each part: first the pickle."""
        pickled = sum(len(chunk if type(chunk) is bytes else flat(chunk)) for chunk in self.chunks)
        return [pickled, *map(len, self.beside)]


def layout(start: int, lengths: Iterable[int], room: int) -> tuple[_Places, list[int]]:
    """Return the pieces of each part, as (packet, first byte, end), and the size of each packet.

    A part that fits into one packet is never cut, so that it can be viewed.
    """
    places: _Places = []
    sizes = [start]
    for length in lengths:
        first = -(-sizes[-1] // _ALIGN) * _ALIGN
        if first >= room or first + length > room >= length:
            sizes.append(0)
            first = 0
        pieces: list[tuple[int, int, int]] = []
        while first + length > room:
            pieces.append((len(sizes) - 1, first, room))
            sizes[-1] = room
            length -= room - first
            sizes.append(0)
            first = 0
        pieces.append((len(sizes) - 1, first, first + length))
        sizes[-1] = first + length
        places.append(pieces)
    return places, sizes


def whole(lengths: Sequence[int], room: int) -> tuple[list[int], int] | None:
    """Return where each part begins in one packet, and its size; None: they do not fit into one.

    What layout() says, for the commonest case, in a tenth of its time.
    """
    size = HEADER.size + _LENGTH * len(lengths)
    starts: list[int] = []
    for length in lengths:
        first = (size + _ALIGN - 1) & -_ALIGN
        starts.append(first)
        size = first + length
    return (starts, size) if size <= room and starts[-1] < room else None


@functools.cache
def _head(parts: int) -> struct.Struct:
    """HEADER, and the lengths of so many parts."""
    return struct.Struct(f"{HEADER.format}{parts}Q")


# ---- writing ----------------------------------------------------------------------------------------


def start_of(lengths: Sequence[int]) -> int:
    """Return the bytes in front of the parts."""
    return HEADER.size + _LENGTH * len(lengths)


def size_of(lengths: Sequence[int], room: int) -> list[int]:
    """Return the sizes of the packets that a message takes, where each takes so many bytes."""
    return layout(start_of(lengths), lengths, room)[1]


def _rooms(pool: Pool, lengths: Sequence[int], in_one: bool) -> Iterator[tuple[int, _Places, list[int]]]:
    """Ways to cut a message: whole, and where the pool has an arena, ever smaller."""
    start = start_of(lengths)
    yield pool.max_size, *layout(start, lengths, pool.max_size)
    smallest = max(_PIECE_MIN, start, *pool.classes)
    piece = start + sum(lengths)
    while pool.arena and not in_one and piece > 2 * smallest:
        piece = max(smallest, -(-piece // _PIECES // _PIECE_MIN) * _PIECE_MIN)
        places, sizes = layout(start, lengths, piece)
        if len(sizes) > _core.CHAIN_MAX:
            return
        yield piece, places, sizes


def _take(
    pool: Pool, lengths: Sequence[int], until: float | None, in_one: bool
) -> tuple[int, _Places, list[Packet]]:
    """Take the packets of one message, in one piece if there is such a range, or cut as far as it must be.

    Where there is no memory at all, it waits for the smallest pieces: they are what comes first.
    """
    ways = list(_rooms(pool, lengths, in_one))
    for room, places, sizes in ways[:-1]:
        with contextlib.suppress(PoolExhausted):
            return room, places, _alloc(pool, sizes, room, 0)
    room, places, sizes = ways[-1]
    return room, places, _alloc(pool, sizes, room, left_of(until))


def _alloc(pool: Pool, sizes: Sequence[int], room: int, timeout: float | None) -> list[Packet]:
    """Take the packets of one message: all or none, or two writers might wait for each other's."""
    if len(sizes) == 1:
        return [pool.alloc(sizes[0], timeout)]
    there = _packets_at_most(pool, room)
    if len(sizes) > min(there, _core.CHAIN_MAX):
        raise _too_large(pool, sizes, there)
    with pool.alloc_many(len(sizes), room, timeout) as batch:
        packets = list(batch)
    for packet, size in zip(packets, sizes, strict=True):
        packet.truncate(size)
    return packets


def _packets_at_most(pool: Pool, room: int) -> int:
    """Return how many packets of that size there can be."""
    largest = max(pool.classes)
    return pool.classes[largest] if room <= largest else min(pool.arena // room, pool.arena_packets)


def _too_large(pool: Pool, sizes: Sequence[int], there: int) -> PacketTooLarge:
    what = f"an object of {sum(sizes):,} bytes takes {len(sizes):,} packets of {pool.max_size:,} bytes"
    limit = (
        f"pool {pool.name!r} has {there:,}"
        if there <= _core.CHAIN_MAX
        else f"an object may have {_core.CHAIN_MAX:,}"
    )
    if pool.arena > pool.arena_reserved:
        return PacketTooLarge(
            f"{what}, and {limit}: create the queue with a larger max_memory= ({2 * sum(sizes):,} is enough), or its "
            "pool with a larger grow="
        )
    memory = 2 * (len(sizes) + 1) * max(BLOCK_LARGE, pool.max_size)
    return PacketTooLarge(
        f"{what}, and {limit}: create the queue with a larger memory= ({memory:,} is enough), or its pool with "
        f"{'more or ' if there < _core.CHAIN_MAX else ''}larger blocks (classes=, arena=)"
    )


def _copy(sources: Iterable[memoryview], targets: Iterable[memoryview]) -> None:
    """Fill the targets, one after the other, with the sources, one after the other."""
    remaining = iter(targets)
    target = memoryview(b"")
    for source in sources:
        rest = source
        while rest:
            target = target or next(remaining)
            count = min(len(target), len(rest))
            target[:count] = rest[:count]
            target, rest = target[count:], rest[count:]


def flat(chunk: bytes | PickleBuffer) -> memoryview:
    """Return the bytes of what a pickler wrote."""
    return chunk.raw() if isinstance(chunk, PickleBuffer) else memoryview(chunk)


def must_fit(pool: Pool, writer: Writer) -> None:
    """Refuse what takes a chain of packets: a ring that redelivers takes none."""
    sizes = size_of(writer.lengths(), pool.max_size)
    if len(sizes) > 1:
        raise PacketTooLarge(
            f"an object of {sum(sizes):,} bytes does not fit into one packet of {pool.max_size:,}, as it must in a "
            "queue with redeliver=True: create the queue with larger blocks (classes=), or in a pool with an arena="
        )


def write(pool: Pool, writer: Writer, until: float | None, in_one: bool) -> Packet:
    """Write a message into packets of its own; return the first of them. `in_one`: there is one."""
    lengths = writer.lengths()
    fits = whole(lengths, pool.max_size)
    if fits is not None:
        with contextlib.suppress(PoolExhausted):
            return _write_whole(pool, writer, lengths, *fits)
    pickled = [flat(chunk) for chunk in writer.chunks]
    room, places, packets = _take(pool, lengths, until, in_one)
    try:
        views = [memoryview(packet) for packet in packets]
        _head(len(lengths)).pack_into(views[0], 0, PARTS, len(lengths), len(packets), room, *lengths)
        for sources, pieces in zip([pickled, *([view] for view in writer.beside)], places, strict=True):
            _copy(sources, [views[packet][first:end] for packet, first, end in pieces])
        for view in views:
            view.release()
        if len(packets) > 1:
            packets[0].chain = tuple(packets[1:])
        return packets[0]
    except BaseException:
        free(packets)
        raise


def _write_whole(
    pool: Pool, writer: Writer, lengths: Sequence[int], starts: Sequence[int], size: int
) -> Packet:
    """Write it into one packet, which may not be waited for. PoolExhausted."""
    packet = pool.alloc(size, 0)
    try:
        with memoryview(packet) as view:
            _head(len(lengths)).pack_into(view, 0, PARTS, len(lengths), 1, pool.max_size, *lengths)
            at = starts[0]
            for chunk in writer.chunks:
                part = chunk if type(chunk) is bytes else flat(chunk)
                view[at : at + len(part)] = part
                at += len(part)
            for start, length, part in zip(starts[1:], lengths[1:], writer.beside, strict=True):
                view[start : start + length] = part
    except BaseException:
        free([packet])
        raise
    return packet


def free(packets: Iterable[Packet]) -> None:
    """Give the packets of a message back that was not sent."""
    for packet in packets:
        with contextlib.suppress(StaleHandle):  # Ctrl-C came when it was on its way already
            packet.free()


# ---- reading ----------------------------------------------------------------------------------------


def _expect(true: bool, packet: Packet, what: str) -> None:
    if not true:
        raise MessageMismatch(
            f"what came out of the queue was not written by Queue.put() of this version: {what}; it begins with "
            f"{packet[:16]!r}. It was freed. Put packets into rings of their own"
        )


def _lengths(head: Packet) -> tuple[tuple[int, ...], int, int]:
    """Check the head of a message; return the lengths of its parts, its packets, and the bytes that each takes."""
    size, front = len(head), head[: HEADER.size]
    if size < HEADER.size or front[:8] != PARTS:
        _expect(False, head, f"{size} bytes without its mark")
    _, count, number, room = HEADER.unpack(front)
    start = HEADER.size + _LENGTH * count  # as start_of() has it
    if not (count >= 1 and start <= size <= room):
        _expect(False, head, f"{count} parts in {size} bytes of {room}")
    if not 1 <= number <= _core.CHAIN_MAX:
        _expect(False, head, f"{number} packets")
    return struct.unpack(f"<{count}Q", head[HEADER.size : start]), number, room


def _find(head: Packet) -> tuple[list[Packet], _Places]:
    """Check a message of several packets; return these, and the pieces of its parts."""
    lengths, number, room = _lengths(head)
    start = start_of(lengths)
    _expect(sum(lengths) <= number * room, head, f"{sum(lengths)} bytes in {number} packets of {room}")
    packets = [head, *head.chain]
    places, sizes = layout(start, lengths, room)
    found = [len(packet) for packet in packets]
    _expect(sizes == found, head, f"packets of {found} bytes, not {sizes}")
    return packets, places


def read(head: Packet, lends: Callable[[Packet, int], bool] | None) -> Any:
    """Unpickle a message. Its buffers are views, each of which keeps its packet; what was cut is put together.

    `lends(head, bytes)` says whether this message may keep its packets (None: yes). Otherwise its buffers
    are copies.
    """
    found: tuple[list[Packet], _Places] = [], []
    try:
        lengths, number, room = _lengths(head)
        fits = whole(lengths, room) if number == 1 and not head.chain else None
        starts = None if fits is None or fits[1] != len(head) else fits[0]
        if starts is None:
            found = _find(head)
    except MessageMismatch:
        head.free()
        raise
    if starts is not None:
        return _read_whole(head, lengths, starts, lends)
    packets, places = found
    del found
    keeps = any(len(pieces) == 1 for pieces in places[1:]) and (
        lends is None or lends(head, sum(map(len, packets)))
    )
    views = [memoryview(packet) for packet in packets]
    parts = [[views[packet][first:end] for packet, first, end in pieces] for pieces in places]
    del head, packets, views
    pickled = parts[0][0] if len(parts[0]) == 1 else bytearray().join(parts[0])
    beside = [pieces[0] if keeps and len(pieces) == 1 else bytearray().join(pieces) for pieces in parts[1:]]
    del parts
    return loads(pickled, buffers=beside)


def _read_whole(
    head: Packet,
    lengths: Sequence[int],
    starts: Sequence[int],
    lends: Callable[[Packet, int], bool] | None,
) -> Any:
    """Unpickle a message of one packet."""
    keeps = len(lengths) > 1 and (lends is None or lends(head, len(head)))
    view = memoryview(head)
    parts = [view[start : start + length] for start, length in zip(starts, lengths, strict=True)]
    del head, view
    pickled, *beside = parts
    del parts
    return loads(pickled, buffers=beside if keeps else [bytearray(part) for part in beside])
