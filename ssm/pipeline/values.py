# SPDX-License-Identifier: Apache-2.0
"""How the values that functions take and return lie in packets: as they are, as records of a dtype, or as objects."""

from __future__ import annotations

import inspect
import time
from pickle import loads
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from ssm import message
from ssm._core import Packet, PacketBatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ssm.pipeline.declared import RingSpec
    from ssm.pool import Pool

    # Calls a function, which takes a time-out, for memory of the pool; waits where there is none.
    Take: TypeAlias = Callable[[Callable[[float | None], Packet]], Packet]


class Packets:
    """Values are packets; anything with a buffer is copied into one."""

    same = True  # a function may return what it was given, and its packet goes on

    def one(self, packet: Packet) -> Any:
        """Return what a function gets for a packet."""
        return packet

    def many(self, batch: PacketBatch) -> Any:
        """Return what a function gets for a batch."""
        return batch

    def store(self, value: Any, batch: PacketBatch) -> None:
        """Write what `many` returned, changed by now, back into its batch."""

    def split(self, value: Any) -> Iterator[Any]:
        """Return the values that become one packet each."""
        if isinstance(value, Packet) or _has_buffer(value):
            yield value
        elif isinstance(value, str) or not hasattr(value, "__iter__"):
            raise TypeError(
                f"a {type(value).__name__} cannot be sent through a ring of packets: return a packet, something with a "
                "buffer (bytes, an array), or several of them; or declare the ring with objects=True"
            )
        else:
            for each in value:
                yield from self.split(each)

    def pack(self, value: Any, pool: Pool, take: Take) -> Packet:
        """Return a packet that has the value."""
        if isinstance(value, Packet):
            return value
        if isinstance(value, np.ndarray):
            data = np.ascontiguousarray(cast("Any", value)).reshape(-1).view(np.uint8).data
            return _copy(data, pool, take)
        with memoryview(value) as data:
            return _copy(data.cast("B") if data.c_contiguous else memoryview(data.tobytes()), pool, take)


class Records(Packets):
    """Values are records of one dtype: a view of the packet, or for a batch an array of copies."""

    def __init__(self, dtype: Any) -> None:
        self.dtype: np.dtype[Any] = np.dtype(dtype)

    def one(self, packet: Packet) -> Any:
        """Return a view of the record."""
        return packet.asarray(self.dtype, (1,))[0]

    def many(self, batch: PacketBatch) -> Any:
        """Return the records, copied into one array."""
        return batch.gather().reshape(-1).view(self.dtype)

    def store(self, value: Any, batch: PacketBatch) -> None:
        """Copy the records back."""
        batch.scatter(value.view(np.uint8).reshape(len(batch), self.dtype.itemsize).data)

    def split(self, value: Any) -> Iterator[Any]:
        """Return the records of an array, a list or a generator; a tuple is one record."""
        if isinstance(value, PacketBatch | list) or inspect.isgenerator(value):
            for each in cast("Iterable[Any]", value):
                yield from self.split(each)
        elif isinstance(value, np.ndarray) and np.ndim(cast("Any", value)):
            yield from np.asarray(value, self.dtype).reshape(-1)
        else:
            yield value

    def pack(self, value: Any, pool: Pool, take: Take) -> Packet:
        """Return a packet that has the record."""
        if isinstance(value, Packet):
            return value
        record = np.array(value, self.dtype)
        if record.shape:
            raise TypeError(f"a value of shape {record.shape} is not one record of {self.dtype}")
        return _copy(record.reshape(1).view(np.uint8).data, pool, take)


class Objects(Packets):
    """Values are Python objects, pickled into packets; large buffers in them are views of the packet."""

    same = False  # a changed object has to be pickled anew

    def one(self, packet: Packet) -> Any:
        """Return the object."""
        if packet[: len(message.PLAIN)] == message.PLAIN:
            return loads(packet[len(message.PLAIN) :])
        return message.read(packet, None)

    def many(self, batch: PacketBatch) -> Any:
        """Return a list of objects."""
        return [self.one(packet) for packet in batch]

    def split(self, value: Any) -> Iterator[Any]:
        """Return the objects of a generator; anything else is one object."""
        if inspect.isgenerator(value):
            yield from value
        else:
            yield value

    def pack(self, value: Any, pool: Pool, take: Take) -> Packet:
        """Return a packet that has the object."""
        writer = message.Writer()
        writer.dump(value)
        if not writer.beside:
            data = b"".join([message.PLAIN, *map(message.flat, writer.chunks)])
            return _copy(memoryview(data), pool, take)
        message.must_fit(pool, writer)
        return take(lambda timeout: message.write(pool, writer, _until(timeout), True))


def codec(ring: RingSpec) -> Packets:
    """Return how values lie in the packets of a ring."""
    if ring.objects:
        return Objects()
    return Packets() if ring.dtype is None else Records(ring.dtype)


def _until(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _has_buffer(value: Any) -> bool:
    if isinstance(value, bytes | bytearray | memoryview | np.ndarray):
        return True
    if isinstance(value, PacketBatch | list | tuple | str) or inspect.isgenerator(value):
        return False
    try:
        memoryview(value).release()
    except TypeError:
        return False
    return True


def _copy(data: memoryview, pool: Pool, take: Take) -> Packet:
    packet = take(lambda timeout: pool.alloc(max(1, data.nbytes), timeout))
    if data.nbytes:
        packet[:] = data
    else:
        packet.truncate(0)
    return packet
