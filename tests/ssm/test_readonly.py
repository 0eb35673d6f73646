# SPDX-License-Identifier: Apache-2.0
"""Views for those who only look, and DLPack: tensors that are views of a packet."""

from __future__ import annotations

import asyncio
import gc
import io
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ssm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def pool(make_pool: Callable[..., ssm.Pool]) -> ssm.Pool:
    return make_pool()


def in_use(pool: ssm.Pool) -> int:
    return sum(one.held for one in pool.stats().classes)


@pytest.fixture
def packet(pool: ssm.Pool) -> Iterator[ssm.Packet]:
    ring = pool.ring("frames")
    ring.send(b"0123456789")
    with ring.get(readonly=True) as packet:
        yield packet


# ---- read-only packets ---------------------------------------------------------------------------


def test_views_of_it_are_read_only(packet: ssm.Packet) -> None:
    assert packet.readonly
    view = memoryview(packet)
    assert view.readonly
    with pytest.raises(TypeError):
        view[0] = 1
    array = packet.asarray("u2")
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True
    assert bytes(packet) == b"0123456789"


@pytest.mark.parametrize("key", [0, -1, slice(0, 1), slice(0, 4, 2)])
def test_assignment_is_refused_with_the_remedy(packet: ssm.Packet, key: int | slice) -> None:
    with pytest.raises(TypeError, match="without readonly=True"):
        packet[key] = b"xy" if isinstance(key, slice) else 7  # type: ignore[index, assignment]
    assert bytes(packet) == b"0123456789"


def test_whoever_asks_for_a_writable_buffer_is_refused(packet: ssm.Packet) -> None:
    with pytest.raises(TypeError):
        io.BytesIO(b"abc").readinto(packet)
    with pytest.raises(TypeError):
        struct.pack_into("<I", packet, 0, 1)
    with pytest.raises(ValueError, match="WRITEABLE"):
        np.frombuffer(packet, "u1").setflags(write=True)
    assert bytes(packet) == b"0123456789"


def test_the_window_moves_and_what_it_gives_is_read_only(packet: ssm.Packet) -> None:
    views = [packet.trim_front(2), packet.trim_back(2), packet.prepend(1), packet.append(1)]
    assert all(view.readonly for view in views)
    packet.truncate(5)
    packet.tag = 7
    assert (bytes(packet), packet.tag) == (b"12345", 7)


def test_it_is_put_on_and_writable_for_whoever_takes_it_so(pool: ssm.Pool, packet: ssm.Packet) -> None:
    pool.ring("next").put(packet)
    again = pool.ring("next").get()
    again[0:1] = b"x"
    assert not again.readonly
    assert bytes(again) == b"x123456789"


def test_one_consumer_looks_while_the_other_writes(pool: ssm.Pool) -> None:
    rings = pool.ring("a"), pool.ring("b")
    packet = pool.alloc(4)
    rings[0].put(packet, keep=True)
    rings[1].put(packet)
    looks, writes = rings[0].get_nowait(readonly=True), rings[1].get_nowait()
    writes[:] = b"abcd"
    assert bytes(looks) == b"abcd"


def test_a_packet_object_is_used_again_as_a_writable_one(pool: ssm.Pool) -> None:
    ring = pool.ring("frames")
    for readonly in (True, False, True, False):  # Packets are kept for reuse
        ring.send(b"x")
        with ring.get(readonly=readonly) as packet:
            assert memoryview(packet).readonly is readonly
        del packet
        assert not pool.alloc(1).readonly


def test_a_batch_of_them(pool: ssm.Pool) -> None:
    ring = pool.ring("frames")
    ring.put_many(pool.alloc_many(3, 8))
    batch = ring.get_many(3, readonly=True)
    assert batch.readonly
    assert all(packet.readonly and memoryview(packet).readonly for packet in batch)
    with pytest.raises(TypeError, match="without readonly=True"):
        batch.scatter(np.zeros((3, 8), "u1"))
    assert batch.gather().flags.writeable  # a copy
    batch.lengths = 4
    assert not pool.alloc_many(2, 8).readonly


def test_awaited_ones_and_those_of_an_iteration(pool: ssm.Pool) -> None:
    ring = pool.ring("frames")

    async def take() -> tuple[bool, bool]:
        ring.send(b"1")
        one = await ring.aget(readonly=True)
        ring.send(b"2")
        many = await ring.aget_many(2, readonly=True)
        return one.readonly, many.readonly

    assert asyncio.run(take()) == (True, True)
    ring.send(b"3")
    assert not next(iter(ring)).readonly


def test_readonly_is_a_keyword(pool: ssm.Pool) -> None:
    ring: Any = pool.ring("frames")
    for call in (ring.get, ring.get_nowait, ring.get_many, ring.aget):
        with pytest.raises(TypeError):
            call(1, True, None, True)


# ---- DLPack --------------------------------------------------------------------------------------


def test_numpy_takes_the_packet_itself(pool: ssm.Pool) -> None:
    packet = pool.alloc(6)
    packet[:] = b"abcdef"
    tensor = np.from_dlpack(packet)
    assert (tensor.dtype, tensor.tobytes()) == (np.uint8, b"abcdef")
    packet[0:1] = b"x"
    assert tensor[0] == ord("x")  # no copy
    packet.free()
    gc.collect()
    assert (in_use(pool), tensor.tobytes()) == (1, b"xbcdef")  # the tensor keeps it
    del tensor
    gc.collect()
    assert in_use(pool) == 0


def test_the_tensor_covers_the_window_as_it_was(pool: ssm.Pool) -> None:
    packet = pool.alloc(6)
    packet.trim_front(2)
    assert np.from_dlpack(packet).nbytes == 4


def test_a_read_only_packet_is_a_read_only_tensor(packet: ssm.Packet) -> None:
    assert not np.from_dlpack(packet).flags.writeable


def test_a_consumer_that_knows_no_read_only_tensors_is_refused(packet: ssm.Packet) -> None:
    with pytest.raises(BufferError, match="readonly"):
        packet.__dlpack__()


def test_copy_device_and_stream(packet: ssm.Packet) -> None:
    assert packet.__dlpack_device__() == (1, 0)
    copied = np.from_dlpack(packet, copy=True)
    copied[0] = 0
    assert packet[0] == ord("0")
    with pytest.raises(BufferError):
        packet.__dlpack__(max_version=(1, 0), dl_device=(2, 0))
    with pytest.raises(RuntimeError):
        packet.__dlpack__(stream=1)  # type: ignore[arg-type]


def test_a_packet_that_is_gone_is_no_tensor(packet: ssm.Packet) -> None:
    packet.free()
    with pytest.raises(ssm.StaleHandle):
        packet.__dlpack__(max_version=(1, 0))
    with pytest.raises(ssm.StaleHandle):
        packet.__dlpack_device__()


def test_torch_takes_it(pool: ssm.Pool) -> None:
    torch = pytest.importorskip("torch")
    packet = pool.alloc(4)
    packet[:] = b"abcd"
    tensor = torch.from_dlpack(packet)
    tensor[0] = ord("x")
    assert bytes(packet) == b"xbcd"
    packet.free()
    del packet
    gc.collect()
    assert in_use(pool) == 1
    del tensor
    gc.collect()
    assert in_use(pool) == 0
