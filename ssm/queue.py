# SPDX-License-Identifier: Apache-2.0
"""Queue: any picklable object from process to process, with the methods of multiprocessing.Queue.

The caller pickles, straight into packets of the pool, and the ring does the rest: there is no feeder thread, and what
holds for a ring when a process is killed holds for a queue.

A message is one packet, or a chain of them. Small ones are `_PLAIN` and the pickle. All others begin with `_HEADER` and
the length of each part: first the pickle, then the buffers that it left out (pickle protocol 5). Where the parts lie
follows from the lengths alone, see `_layout`: what is written by that rule is checked by it.
"""

from __future__ import annotations

import contextlib
import errno
import operator
import os
import stat
import struct
import time
from pickle import PickleBuffer, loads
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

from ssm import _core, late
from ssm.acl import Acl
from ssm.errors import (
    MessageMismatch,
    PacketTooLarge,
    PoolExhausted,
    QueueExhausted,
    RingShutDown,
    StaleHandle,
)
from ssm.in_hand import InHand
from ssm.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
    from types import GenericAlias

    from ssm._core import Packet
    from ssm.readiness import Reader, Readiness, Writer
    from ssm.ring import Ring

T = TypeVar("T")

_PLAIN = b"ssm.obj\x01"  # the last byte is the version of the format
_PARTS = b"ssm.obj\x02"
_HEADER = struct.Struct("<8sIIQ")  # _PARTS, parts, packets, bytes that a packet of this pool takes
_LENGTH = 8  # behind it, for each part
_ALIGN = 64  # of each part: numpy and arrow like it so
_ROOM_MIN = 256  # bytes that a packet must take

_PLAIN_MAX = 16 << 10  # larger pickles are read where they lie, not copied first
_BESIDE_MIN = (
    16 << 10
)  # buffers from here on are left out of the pickle; smaller ones are copied faster than viewed

_PAGE = 4096
_ITEM_MAX = 1 << 40

_MEMORY = 16 << 20
_SHARES = {256: 1, 1024: 1, 4352: 2, 66560: 4}  # block size -> sixteenths of the memory
_LARGE = (1 << 20) + 4096  # of the blocks that have the other half of it, at least
_UNLIMITED = 1 << 16  # places of a queue in a given pool, at most, when no maxsize is asked for


class _Sink:
    """What a pickler takes for a file."""

    __slots__ = ("write",)

    def __init__(self, write: Callable[[bytes | PickleBuffer], None]) -> None:
        self.write = write


class _Writer:
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


def _layout(
    start: int, lengths: Iterable[int], room: int
) -> tuple[list[list[tuple[int, int, int]]], list[int]]:
    """Return the pieces of each part, as (packet, first byte, end), and the size of each packet.

    A part that fits into one packet is never cut, so that it can be viewed.
    """
    places: list[list[tuple[int, int, int]]] = []
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


def _blocks(memory: int) -> dict[int, int]:
    """Divide the memory into blocks; the largest are such that one object may have all of them."""
    blocks = {size: max(1, memory * share // 16 // size) for size, share in _SHARES.items()}
    half = memory // 2
    large = max(_LARGE, -(-half // _core.CHAIN_MAX))
    blocks[large] = max(1, half // large)
    return blocks


_SMALL = {256: 64, 4096: 16}  # for what is put beside the objects that a queue is made for: None, a dict
_HELD = 8  # objects that consumers look at, while maxsize others are queued


def _blocks_for(like: object, itemsize: int | None, maxsize: int, memory: int) -> dict[int, int]:
    """Return blocks in which each object fits whole: one like that, or one of so many bytes."""
    if itemsize is not None and not 1 <= operator.index(itemsize) <= _ITEM_MAX:
        raise ValueError(f"itemsize= is 1 .. 2**40 bytes of the largest object, not {itemsize!r}")
    size = itemsize or 0
    if like is not None:
        writer = _Writer()
        writer.dump(like)
        lengths = [sum(len(_flat(chunk)) for chunk in writer.chunks), *map(len, writer.beside)]
        size = max(size, sum(_layout(_HEADER.size + _LENGTH * len(lengths), lengths, _ITEM_MAX)[1]))
    block = -(-(size + _PAGE) // _PAGE) * _PAGE  # a page more: pickles of equal objects differ a little
    count = maxsize + _HELD if maxsize > 0 else max(2 * _HELD, memory // block)
    return {**_SMALL, block: count + _SMALL.get(block, 0)}


# ---- writing ----------------------------------------------------------------------------------------


def _left(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - time.monotonic())


def _alloc(pool: Pool, sizes: Sequence[int], until: float | None) -> list[Packet]:
    """Take the packets of one message: all or none, or two writers might wait for each other's."""
    if len(sizes) == 1:
        return [pool.alloc(sizes[0], _left(until))]
    largest = max(pool.classes)
    there = pool.classes[largest] if pool.max_size <= largest else 1  # of an arena: the whole of it
    if len(sizes) > min(there, _core.CHAIN_MAX):
        limit = (
            f"pool {pool.name!r} has {there:,}"
            if there <= _core.CHAIN_MAX
            else f"an object may have {_core.CHAIN_MAX:,}"
        )
        memory = 2 * (len(sizes) + 1) * max(_LARGE, pool.max_size)
        raise PacketTooLarge(
            f"an object of {sum(sizes):,} bytes takes {len(sizes):,} packets of {pool.max_size:,} bytes, and {limit}: "
            f"create the queue with a larger memory= ({memory:,} is enough), or its pool with "
            f"{'more or ' if there < _core.CHAIN_MAX else ''}larger blocks (classes=, arena=)"
        )
    with pool.alloc_many(len(sizes), pool.max_size, _left(until)) as batch:
        packets = list(batch)
    for packet, size in zip(packets, sizes, strict=True):
        packet.truncate(size)
    return packets


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


def _flat(chunk: bytes | PickleBuffer) -> memoryview:
    return chunk.raw() if isinstance(chunk, PickleBuffer) else memoryview(chunk)


def _must_fit(pool: Pool, writer: _Writer) -> None:
    """Refuse what takes a chain of packets: a ring that redelivers takes none."""
    lengths = [sum(len(_flat(chunk)) for chunk in writer.chunks), *map(len, writer.beside)]
    _, sizes = _layout(_HEADER.size + _LENGTH * len(lengths), lengths, pool.max_size)
    if len(sizes) > 1:
        raise PacketTooLarge(
            f"an object of {sum(sizes):,} bytes does not fit into one packet of {pool.max_size:,}, as it must in a "
            "queue with redeliver=True: create the queue with larger blocks (classes=), or in a pool with an arena="
        )


def _write(
    pool: Pool, pickled: Sequence[memoryview], beside: Sequence[memoryview], until: float | None
) -> Packet:
    """Write a message into packets of its own; return the first of them."""
    lengths = [sum(map(len, pickled)), *map(len, beside)]
    start, room = _HEADER.size + _LENGTH * len(lengths), pool.max_size
    places, sizes = _layout(start, lengths, room)
    packets = _alloc(pool, sizes, until)
    try:
        views = [memoryview(packet) for packet in packets]
        _HEADER.pack_into(views[0], 0, _PARTS, len(lengths), len(packets), room)
        struct.pack_into(f"<{len(lengths)}Q", views[0], _HEADER.size, *lengths)
        for sources, pieces in zip([pickled, *([view] for view in beside)], places, strict=True):
            _copy(sources, [views[packet][first:end] for packet, first, end in pieces])
        for view in views:
            view.release()
        if len(packets) > 1:
            packets[0].chain = tuple(packets[1:])
        return packets[0]
    except BaseException:
        _free(packets)
        raise


def _free(packets: Iterable[Packet]) -> None:
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


def _find(head: Packet) -> tuple[list[Packet], list[list[tuple[int, int, int]]]]:
    """Check a message; return its packets, and the pieces of its parts."""
    size = len(head)
    _expect(size >= _HEADER.size and head[:8] == _PARTS, head, f"{size} bytes without its mark")
    _, count, number, room = _HEADER.unpack(head[: _HEADER.size])
    start = _HEADER.size + _LENGTH * count
    _expect(count >= 1 and start <= size <= room, head, f"{count} parts in {size} bytes of {room}")
    _expect(1 <= number <= _core.CHAIN_MAX, head, f"{number} packets")
    lengths = struct.unpack(f"<{count}Q", head[_HEADER.size : start])
    _expect(sum(lengths) <= number * room, head, f"{sum(lengths)} bytes in {number} packets of {room}")
    packets = [head, *head.chain]
    places, sizes = _layout(start, lengths, room)
    found = [len(packet) for packet in packets]
    _expect(sizes == found, head, f"packets of {found} bytes, not {sizes}")
    return packets, places


def _read(head: Packet) -> Any:
    """Unpickle a message. Its buffers are views, each of which keeps its packet; what was cut is put together."""
    try:
        packets, places = _find(head)
    except MessageMismatch:
        head.free()
        raise
    views = [memoryview(packet) for packet in packets]
    parts = [[views[packet][first:end] for packet, first, end in pieces] for pieces in places]
    del head, packets, views
    whole = [pieces[0] if len(pieces) == 1 else bytearray().join(pieces) for pieces in parts]
    del parts
    return loads(whole[0], buffers=whole[1:])


def _admit(pool: Pool, trust: bool) -> None:
    """Refuse a pool into which others than this process's user can write what `loads` would run.

    An access control list that lets somebody write shows in the group's bits.
    """
    uid, mode = pool._access()
    if trust or (uid == os.geteuid() and not mode & (stat.S_IWGRP | stat.S_IWOTH)):
        return
    what = f"belongs to uid {uid}" if uid != os.geteuid() else f"has mode {mode:04o}"
    raise PermissionError(
        errno.EPERM,
        f"pool {pool.name!r} {what}: other users than this process's (uid {os.geteuid()}) can write into it, and a "
        "queue unpickles what is in it, which can run any code. Use another name, or pass trust_other_users=True",
    )


def _get_in_hand(ring: Ring, in_hand: InHand, block: bool, timeout: float | None) -> Any:
    """Take a message out that stays in hand, and unpickle it; what is raised meanwhile gives it back.

    A signal handler may raise behind each call, so the packet is taken inside the try statement.
    """
    packet = None
    try:
        packet = ring.get(block, timeout)
        in_hand.add(packet)
        return loads(packet[8:]) if packet[:8] == _PLAIN else _read(packet)
    except BaseException as error:
        if packet is not None:
            in_hand.remove(packet)
            packet.__exit__(type(error), error, None)  # no effect on what is no message: that was freed
        raise


# ---- the queue --------------------------------------------------------------------------------------


class Queue(Generic[T]):
    """A queue of objects between processes; takes the place of `multiprocessing.Queue` and `JoinableQueue`.

    Any number of processes and threads put and get. A Queue can be sent to other processes at any time, by fork,
    spawn, forkserver or through another queue: they attach by name. What a killed process was at has happened or not;
    nobody waits for it.

    Buffers of numpy arrays, of arrow, and whatever else pickles itself with `pickle.PickleBuffer` arrive as views of
    the shared memory; each keeps its packet until it is gone.

    Parameters
    ----------
    maxsize : int
        Objects that it takes. Without, or with one below 1, it takes as many as there is memory for: `put` waits for
        memory, where multiprocessing would take more and more.
    pool : Pool, optional
        Whose packets it uses; the queue is a ring of it, and rings stay as long as their pool: give it a name. By
        default it has a pool of its own, whose name goes away with its last process.
    name : str, optional
        Of the ring in `pool`, or else of the pool of its own. Whoever opens a queue by the same name has the same
        queue. By default a name that nobody else has.
    memory : int
        Bytes for what is in the queue, and for what was taken out and is still looked at; in a pool of its own, and
        reserved at once.
    classes : mapping of int to int, optional
        Blocks of the pool of its own, as for `Pool.create`, instead of `memory`.
    redeliver : bool, optional
        What a process took out and did not say `task_done` of comes out once more when it dies, ends, or closes the
        queue; so `join` ends although consumers were killed. Each object that was taken keeps its memory until
        then, and fits into one packet. By default as it is, or False for a new queue.
    trust_other_users : bool
        Use a pool that other users can write into: one that belongs to another user, or whose mode lets the group
        or others write. `get` unpickles, so each of these users can run any code in this process.

    like : object, optional
        An example of what will be put, such as an array: the pool of its own has blocks in which such an object fits
        whole, so that it is copied once and arrives as a view. As many as `maxsize` and 8 more; without a maxsize,
        as many as `memory` has room for, 16 at least.
    itemsize : int, optional
        The same, by the bytes of the largest object, 1 .. 2**40.
    ctx : object, optional
        Taken and not used: multiprocessing's contexts pass themselves. A queue goes to processes of any start method.

    Raises
    ------
    RingMismatch
        A queue of that name is there, with another maxsize or redeliver.
    PermissionError
        Other users can write into the pool, and trust_other_users is not set. Nothing was read.
    OSError
        ENOSPC: not so much shared memory is left. Others as the system gives them.
    """

    __slots__ = ("__weakref__", "_in_hand", "_plain_max", "_ready", "_ring", "_trust", "_writers", "maxsize")

    if TYPE_CHECKING:

        def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...

    def __init__(
        self,
        maxsize: int = 0,
        *,
        pool: Pool | None = None,
        name: str | None = None,
        memory: int = _MEMORY,
        classes: Mapping[int, int] | None = None,
        redeliver: bool | None = None,
        trust_other_users: bool = False,
        like: object = None,
        itemsize: int | None = None,
        ctx: object = None,
    ) -> None:
        if like is not None or itemsize is not None:
            if pool is not None or classes is not None:
                raise ValueError(
                    "like= and itemsize= say what the pool of its own is: leave out pool= and classes="
                )
            classes = _blocks_for(like, itemsize, maxsize, memory)
        name = name or f"queue-{os.urandom(12).hex()}"
        if pool is None:
            pool = Pool.open(name, classes=classes or _blocks(memory), headroom=0, tailroom=0, ephemeral=True)
            name = "queue"
            try:
                _admit(pool, trust_other_users)
            except PermissionError:
                pool.close()
                raise
        _admit(pool, trust_other_users)
        places = maxsize if maxsize > 0 else min(sum(pool.classes.values()), _UNLIMITED)
        as_it_is = maxsize <= 0 and name in pool.rings()
        ring = pool.ring(name, None if as_it_is else places, redeliver=redeliver)
        self._open(ring, max(0, maxsize), trust_other_users)

    def _open(self, ring: Ring, maxsize: int, trust: bool) -> None:
        room = ring.pool.max_size
        if room < _ROOM_MIN:
            raise ValueError(
                f"pool {ring.pool.name!r} has packets of at most {room} bytes, a queue needs {_ROOM_MIN}: create "
                "it with larger blocks (classes=)"
            )
        self._ring: Ring | None = ring
        self._plain_max = min(_PLAIN_MAX, room - len(_PLAIN))
        self._ready: Readiness | None = None  # where somebody asked for a descriptor
        self._writers: list[_Writer] = []  # that nobody uses just now
        self._trust = trust
        self._in_hand = InHand() if ring.redeliver else None
        self.maxsize = maxsize

    def _incoming(self) -> Ring:
        """Return what `ssm.wait` waits for."""
        return self._opened()

    def _opened(self) -> Ring:
        if self._ring is None:
            raise ValueError(f"Queue {self!r} is closed")
        return self._ring

    def put(self, obj: T, block: bool = True, timeout: float | None = None) -> None:
        """Pickle an object and queue it.

        Parameters
        ----------
        obj : object
            What cannot be pickled raises here. (multiprocessing.Queue prints it in a thread, and loses it.)
        block : bool
            Whether to wait while the queue or its memory is full.
        timeout : float or None
            Seconds to wait; ``None`` waits for ever.

        Raises
        ------
        queue.Full
            There was no place in `timeout` (RingFull), or no memory (QueueExhausted). Nothing was queued.
        PacketTooLarge
            The object is larger than all the memory for large ones.
        RingShutDown
            The queue is shut down; a queue.ShutDown, where the queue module has it.
        ValueError
            The queue is closed.
        """
        ring = self._ring
        if ring is None:
            ring = self._opened()
        try:
            writer = self._writers.pop()
        except IndexError:
            writer = _Writer()
        if timeout is not None and timeout < 0:
            timeout = 0
        writer.dump(obj)  # after an error the writer is not used again
        data: Any = writer.chunks.pop()
        try:
            if writer.chunks or writer.beside or len(data) > self._plain_max:
                writer.chunks.append(data)
                self._put_parts(ring, writer, timeout if block else 0)
            else:
                ring.send(_PLAIN + data, block, timeout)
        except PoolExhausted as error:
            raise QueueExhausted(*error.args) from None
        writer.forget()
        self._writers.append(writer)

    def _put_parts(self, ring: Ring, writer: _Writer, timeout: float | None) -> None:
        until = None if timeout is None else time.monotonic() + timeout
        if ring.redeliver:
            _must_fit(ring.pool, writer)
        head = _write(ring.pool, [_flat(chunk) for chunk in writer.chunks], writer.beside, until)
        writer.chunks.clear()
        writer.beside.clear()
        try:
            ring.put(head, True, _left(until))
        except BaseException:
            _free([head])
            raise

    def put_nowait(self, obj: T) -> None:
        """put() that does not wait."""
        self.put(obj, False)

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take the next object out.

        Parameters
        ----------
        block : bool
            Whether to wait while the queue is empty.
        timeout : float or None
            Seconds to wait; ``None`` waits for ever.

        Raises
        ------
        queue.Empty
            Nothing came in `timeout`.
        RingShutDown
            The queue is shut down, and drained.
        MessageMismatch
            What came was not put by a Queue. It is gone.
        ValueError
            The queue is closed.
        """
        ring = self._ring
        if ring is None:
            ring = self._opened()
        if timeout is not None and timeout < 0:
            timeout = 0
        obj: T
        if self._ready is not None:
            with self._ready:
                return cast("T", self._get(ring, block, timeout))
        if self._in_hand is not None:
            obj = _get_in_hand(ring, self._in_hand, block, timeout)
            return obj
        packet = ring.get(block, timeout)
        if packet[:8] == _PLAIN:
            data = packet[8:]
            del packet  # the block is free before the object is made
            obj = loads(data)
        else:
            obj = _read(packet)
        return obj

    def _get(self, ring: Ring, block: bool, timeout: float | None) -> Any:
        if self._in_hand is not None:
            return _get_in_hand(ring, self._in_hand, block, timeout)
        packet = ring.get(block, timeout)
        return loads(packet[8:]) if packet[:8] == _PLAIN else _read(packet)

    def get_nowait(self) -> T:
        """get() that does not wait."""
        return self.get(False)

    def aget(self) -> Coroutine[Any, Any, T]:
        """get() that is awaited: the event loop goes on while the queue is empty."""
        return cast("Coroutine[Any, Any, T]", late.load("ssm.aio").get_object(self))

    def aput(self, obj: T) -> Coroutine[Any, Any, None]:
        """put() that is awaited: the event loop goes on while the queue, or its memory, is full."""
        return cast("Coroutine[Any, Any, None]", late.load("ssm.aio").put_object(self, obj))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        """get(); ends a ``for`` when the queue is shut down and drained."""
        try:
            return self.get()
        except RingShutDown:
            raise StopIteration from None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.aget()
        except RingShutDown:
            raise StopAsyncIteration from None

    def __enter__(self) -> Self:
        self._opened()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return a descriptor that is readable while there is something to get, or the queue is shut down.

        For selectors, multiprocessing.connection.wait and event loops. It is an eventfd of this process, made by the
        first call, and closed with the queue. While it is there, a thread of this process watches the queue; where
        another process takes the last object, the descriptor stays readable for up to 20 ms: use get_nowait().

        Raises
        ------
        ValueError
            The queue is closed.
        OSError
            EMFILE, ENFILE: there is no descriptor left.
        """
        ring = self._opened()
        if self._ready is None or not self._ready.is_mine():
            self._ready = cast("Readiness", late.load("ssm.readiness").Readiness(ring))
        return self._ready.fd

    @property
    def _reader(self) -> Reader:
        """What concurrent.futures and others take for the end of a pipe that objects come out of."""
        return cast("Reader", late.load("ssm.readiness").Reader(self))

    @property
    def _writer(self) -> Writer:
        return cast("Writer", late.load("ssm.readiness").Writer(self))

    def qsize(self) -> int:
        """Return how many objects are queued now; another process may change that at once."""
        return 0 if self._ring is None else self._ring.qsize()

    def empty(self) -> bool:
        """Return whether nothing is queued now."""
        return self._ring is None or self._ring.empty()

    def full(self) -> bool:
        """Return whether there is no place now. Memory may be short before."""
        return self._ring is not None and self._ring.full()

    def task_done(self) -> None:
        """Say that one of the objects that were taken out is dealt with.

        With redeliver: the one that this thread took first, of those that it has not said this of. If it took none,
        one that another thread of the process took.

        Raises
        ------
        ValueError
            It was said more often than objects were put.
        """
        ring = self._opened()
        packet = None if self._in_hand is None else self._in_hand.oldest()
        if packet is None:
            ring.task_done()
            return
        again = packet.redelivered
        with packet:  # killed or interrupted behind task_done(): the object comes out again
            try:
                ring.task_done()
            except ValueError:
                packet.free()
                if not again:  # a process that died had said it
                    raise

    def join(self) -> None:
        """Wait until as many objects are dealt with as were put."""
        self._opened().join()

    def shutdown(self, immediate: bool = False) -> None:
        """End the queue for every process, as queue.Queue.shutdown() does.

        Parameters
        ----------
        immediate : bool
            Drop what is queued; otherwise `get` drains it first.
        """
        self._opened().shutdown(immediate)

    @property
    def is_shutdown(self) -> bool:
        """Whether it is shut down, by any process."""
        return Acl.FLOWDOWN in self._opened().acl

    def close(self) -> None:
        """Leave the queue, in this process: put and get raise ValueError from now on.

        What this process has put stays. Arrays and views that came out of it stay valid. With redeliver, objects that
        `task_done` was not said of come out once more.
        """
        if self._in_hand is not None:
            self._in_hand.give_back()
        self._ring = self._ready = None
        self._writers.clear()

    def join_thread(self) -> None:
        """Do nothing: there is no thread, and what put() has queued is there. Only after close(), as elsewhere."""
        if self._ring is not None:
            raise AssertionError(f"Queue {self!r} not closed")

    def cancel_join_thread(self) -> None:
        """Do nothing: there is no thread that the end of the process could wait for."""

    @property
    def name(self) -> str:
        """The name of its ring; with that of the pool, whoever knows it can open the queue."""
        return self._opened().name

    @property
    def pool(self) -> Pool:
        """The pool whose packets it uses."""
        return self._opened().pool

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reopen, (self._opened(), self.maxsize, self._trust)

    @classmethod
    def _reopen(cls, ring: Ring, maxsize: int, trust: bool) -> Self:
        _admit(ring.pool, trust)  # it was found by its name, and the name may be another user's by now
        queue = cls.__new__(cls)
        queue._open(ring, maxsize, trust)
        return queue

    def __repr__(self) -> str:
        if self._ring is None:
            return f"<ssm.{type(self).__name__}: closed>"
        return f"<ssm.{type(self).__name__} {self.name!r} of pool {self.pool.name!r}: {self.qsize()} objects>"


JoinableQueue = Queue  # one class has the methods of all three
SimpleQueue = Queue
