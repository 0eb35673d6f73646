# SPDX-License-Identifier: Apache-2.0
"""Rings of records: the dtype stands with the ring, and what does not fit is refused."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
import pytest

import ssm

IMU = np.dtype([("t", "u8"), ("acc", "3f4")])
DTYPES = [
    IMU,
    np.dtype("f4"),
    np.dtype(">u2"),
    np.dtype([("a", "u1"), ("b", "f8")], align=True),
    np.dtype([("name", "S7"), ("inner", [("x", "i4"), ("when", "M8[us]")], (2, 2))]),
]


@pytest.fixture
def imu(pool):
    return pool.ring("imu", capacity=16, dtype=IMU)


def nothing_is_lost(pool):
    assert [each.free + each.cached for each in pool.stats().classes] == list(pool.classes.values())
    assert pool.check() == []


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_dtype_stands_with_the_ring(pool, dtype):
    assert pool.ring("typed", dtype=dtype).dtype == dtype
    with ssm.Pool.attach(pool.name) as other:
        assert other.ring("typed").dtype == dtype
        assert other.ring("typed", dtype=dtype).dtype.itemsize == dtype.itemsize


def test_a_ring_without(pool):
    ring = pool.ring("plain")
    assert ring.dtype is None
    for call in (lambda: ring.send_record((1,)), ring.get_record, lambda: ring.get_records(3)):
        with pytest.raises(ValueError, match="made without dtype="):
            call()
    with pytest.raises(ssm.RingMismatch, match="exists with dtype None"):
        pool.ring("plain", dtype=IMU)


def test_another_dtype_names_both(pool, imu):
    with pytest.raises(ssm.RingMismatch, match=r"exists with dtype .*acc.*, not '<f4'"):
        pool.ring("imu", dtype="f4")
    with ssm.Pool.attach(pool.name) as other, pytest.raises(ssm.RingMismatch, match="not '<f4'"):
        other.ring("imu", dtype="f4")


@pytest.mark.parametrize(
    ("dtype", "complaint"),
    [
        (object, "Python objects"),
        ([("x", "O")], "Python objects"),
        ("(2,3)f4", "no shape"),
        ("S0", "has a size"),
        ([(f"a field with a long name {i}", "f4") for i in range(50)], "the limit is 1023"),
        ([("å", "f4")], "ASCII"),
    ],
    ids=str,
)
def test_dtypes_that_cannot_be(pool, dtype, complaint):
    with pytest.raises(ValueError, match=complaint):
        pool.ring("typed", dtype=dtype)
    assert pool.rings() == []


def test_records_one_by_one(pool, imu):
    assert imu.send_record((7, (1, 2, 3))) is True
    assert imu.send_record(np.array((8, (4, 5, 6)), IMU)) is True
    first, second = imu.get_record(), imu.get_record(timeout=1)
    assert first["t"] == 7
    assert second["acc"].tolist() == [4, 5, 6]
    assert (
        sum(holder.blocks for holder in pool.holders() if holder.kind == "process") >= 2
    )  # they keep their packets
    del first, second
    nothing_is_lost(pool)


def test_records_by_many(pool):
    ring = pool.ring("many", capacity=64, dtype=IMU)
    array = np.zeros(50, IMU)
    array["t"] = np.arange(50)
    assert ring.send_records(array) == 50
    got = np.concatenate([ring.get_records(30), ring.get_records(30)])
    assert got.dtype == IMU
    assert np.array_equal(got, array)
    assert ring.send_records(np.zeros(0, IMU)) == 0
    nothing_is_lost(pool)


def test_as_many_as_fit(pool):
    ring = pool.ring("few", capacity=4, dtype="f8")
    assert ring.send_records(range(10), block=False) == 4
    with pytest.raises(ssm.RingFull):
        ring.send_records(range(10), timeout=0.01)
    assert ring.get_records(64).tolist() == [0, 1, 2, 3]
    drops = pool.ring("drops", capacity=4, overflow="drop", dtype="f8")
    assert drops.send_records(range(10)) == 4
    drops.shutdown(immediate=True)
    nothing_is_lost(pool)


@pytest.mark.parametrize("value", [(1,), "text", (1, (1, 2)), [(1, (1, 2, 3))] * 2], ids=str)
def test_values_that_do_not_fit(pool, imu, value):
    with pytest.raises((TypeError, ValueError)):
        imu.send_record(value)
    nothing_is_lost(pool)


def test_a_packet_of_another_size_is_not_lost(pool, imu):
    imu.send(b"short")
    with pytest.raises(ssm.RecordMismatch, match="a packet of 5 bytes") as raised:
        imu.get_record()
    assert bytes(raised.value.packet) == b"short"
    imu.send_record((1, (0, 0, 0)))
    imu.send(b"short")
    with pytest.raises(ssm.RecordMismatch) as many:
        imu.get_records(8)
    assert list(many.value.packet.lengths) == [IMU.itemsize, 5]
    raised.value.packet.free()
    many.value.packet.free()
    nothing_is_lost(pool)


@pytest.mark.parametrize(
    "text", [b"__import__('os').abort()", b"[('t', 'O')]", b"(" * 40, b"\xff\xfe", b"[('t', '<u8'"], ids=repr
)
def test_a_text_that_somebody_wrote_over(pool, imu, text):
    """Is not evaluated, and not believed."""
    there = imu._type.encode()
    with Path(f"/dev/shm/{pool.name.lstrip('/')}").open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        at = memory.find(there)
        memory[at : at + len(there)] = text.ljust(len(there))[: len(there)]
    with pytest.raises(ssm.CorruptionError, match="has no dtype, but"):
        _ = imu.dtype
    with pytest.raises(ssm.CorruptionError):
        imu.get_record(block=False)


def test_between_processes(pool, imu):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with ssm.Pool.attach(pool.name) as mine:
                ring = mine.ring("imu")
                for start in range(0, 64, 8):
                    array = np.zeros(8, ring.dtype)
                    array["t"] = range(start, start + 8)
                    ring.send_records(array)
                status = 0
        finally:
            os._exit(status)
    seen = []
    while len(seen) < 64:
        seen += imu.get_records(16, timeout=20)["t"].tolist()
    assert seen == list(range(64))
    assert os.waitpid(child, 0)[1] == 0
