# SPDX-License-Identifier: Apache-2.0
"""What is measured in Python, one function per line of the table. Each returns nanoseconds for all it did.

Payload of 1,500 bytes unless the name says otherwise. The loop around the calls is part of the figure, as for a user.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

import ssm

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    Loop = Callable[[ssm.Pool, int], float]  # packets -> nanoseconds for all of them

BLOCK_BYTES, BLOCKS = 2048, 4096
LARGE_BLOCK, LARGE_BLOCKS, LARGE = (1 << 20) + 4096, 128, 1 << 20
EXHAUSTED_BLOCK = 512  # a class of one block
PAYLOAD = 1500
RING = 1024
BATCH = 64
PATIENCE_S = 120  # far above what a run takes
MOST_TRIPS, MOST_ASLEEP, MOST_LARGE = 20_000, 200, 5_000
QUIET_NS = 1_000_000  # longer than any call spins before it sleeps


def timed(loop: Loop, packets: int) -> float:
    """Nanoseconds per packet, on a pool of its own."""
    classes = {EXHAUSTED_BLOCK: 1, BLOCK_BYTES: BLOCKS}
    if loop is stream_large:
        classes[LARGE_BLOCK] = LARGE_BLOCKS
    with ssm.Pool.create(f"ssm-bench-{os.getpid()}", classes=classes, ephemeral=True) as pool:
        return loop(pool, packets) / packets


# ---- one process -------------------------------------------------------------------------------------


def reference(pool: ssm.Pool, packets: int) -> float:
    """Time what the interpreter takes for calls of its own: benchmarks/check.py compares with it."""
    kept: dict[int, bytearray] = {}
    start = time.perf_counter_ns()
    for i in range(packets):
        kept[i & 63] = bytearray(64)
        kept[i & 63][0:8] = b"12345678"
    return time.perf_counter_ns() - start


def alloc_drop(pool: ssm.Pool, packets: int) -> float:
    alloc = pool.alloc
    start = time.perf_counter_ns()
    for _ in range(packets):
        alloc(PAYLOAD)
    return time.perf_counter_ns() - start


def alloc_free(pool: ssm.Pool, packets: int) -> float:
    alloc = pool.alloc
    start = time.perf_counter_ns()
    for _ in range(packets):
        alloc(PAYLOAD).free()
    return time.perf_counter_ns() - start


def alloc_free_batch(pool: ssm.Pool, packets: int) -> float:
    start = time.perf_counter_ns()
    for _ in range(packets // BATCH):
        pool.alloc_many(BATCH, PAYLOAD).free()
    return time.perf_counter_ns() - start


def put_get(pool: ssm.Pool, packets: int) -> float:
    ring = pool.ring("bench", capacity=RING)
    put, get = ring.put, ring.get
    packet = pool.alloc(PAYLOAD)
    start = time.perf_counter_ns()
    for _ in range(packets):
        put(packet)
        packet = get()
    return time.perf_counter_ns() - start


def put_get_batch(pool: ssm.Pool, packets: int) -> float:
    ring = pool.ring("bench", capacity=RING)
    batch = pool.alloc_many(BATCH, PAYLOAD)
    start = time.perf_counter_ns()
    for _ in range(packets // BATCH):
        ring.put_many(batch)
        batch = ring.get_many(BATCH)
    return time.perf_counter_ns() - start


def write_slice(pool: ssm.Pool, packets: int) -> float:
    packet = pool.alloc(PAYLOAD)
    start = time.perf_counter_ns()
    for _ in range(packets):
        packet[:8] = b"12345678"
    return time.perf_counter_ns() - start


def exhausted(pool: ssm.Pool, packets: int) -> float:
    """Ask for a block of a class that has none left, and catch that."""
    kept = pool.alloc(1)
    alloc, error = pool.alloc, ssm.PoolExhausted
    start = time.perf_counter_ns()
    for _ in range(packets):
        try:  # noqa: SIM105 - contextlib.suppress would be what is measured
            alloc(1)
        except error:
            pass
    took = time.perf_counter_ns() - start
    kept.free()
    return took


def send_get(pool: ssm.Pool, packets: int) -> float:
    """Send, receive and release, the first and the last byte written and read."""
    ring = pool.ring("bench", capacity=RING)
    alloc, put, get = pool.alloc, ring.put, ring.get
    start = time.perf_counter_ns()
    for _ in range(packets):
        packet = alloc(PAYLOAD)
        packet[0] = packet[-1] = 1
        put(packet)
        packet = get()
        packet[0], packet[-1]
    return time.perf_counter_ns() - start


# ---- two processes: from the first alloc here to the last free there ---------------------------------


def beside(
    pool: ssm.Pool, work: Callable[..., None], *args: object
) -> tuple[multiprocessing.Process, Connection]:
    """Start `work(pool, pipe, *args)` in another process, which says when it is ready."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(pool, theirs, *args), daemon=True)
    process.start()
    theirs.close()
    heard(process, ours)
    return process, ours


def heard(process: multiprocessing.Process, pipe: Connection) -> int:
    """Return what the other process sends, or raise as soon as it is dead."""
    if pipe not in wait([pipe, process.sentinel], PATIENCE_S):
        process.kill()
        raise RuntimeError(
            f"the other process ended with {process.exitcode}, or took more than {PATIENCE_S} s"
        )
    got: int = pipe.recv()
    return got


def stream(
    pool: ssm.Pool, packets: int, *, batch: int = 1, write: bool = False, size: int = PAYLOAD
) -> float:
    """One packet per call with the first and last byte touched, all of it written with `write`; batches not touched."""
    ring = pool.ring("bench", capacity=RING)
    process, pipe = beside(pool, consume, packets, batch)
    alloc, put, data = pool.alloc, ring.put, bytes(size)
    start = time.monotonic_ns()
    if batch > 1:
        for _ in range(packets // batch):
            ring.put_many(pool.alloc_many(batch, size, PATIENCE_S), True, PATIENCE_S)
    elif write:
        for _ in range(packets):
            packet = alloc(size, PATIENCE_S)
            packet[:] = data
            put(packet, True, PATIENCE_S)
    else:
        for _ in range(packets):
            packet = alloc(size, PATIENCE_S)
            packet[0] = packet[-1] = 1
            put(packet, True, PATIENCE_S)
    end = heard(process, pipe)
    process.join()
    return end - start


def consume(pool: ssm.Pool, pipe: Connection, packets: int, batch: int) -> None:
    ring = pool.ring("bench")
    get = ring.get
    pipe.send(0)
    left = packets
    while left > 0:
        if batch == 1:
            packet = get(True, PATIENCE_S)
            packet[0], packet[-1]
            packet.free()
            left -= 1
        else:
            got = ring.get_many(batch, True, PATIENCE_S)
            left -= len(got)
            got.free()
    pipe.send(time.monotonic_ns())
    pool.close()


def stream_batch(pool: ssm.Pool, packets: int) -> float:
    return stream(pool, packets, batch=BATCH)


def stream_written(pool: ssm.Pool, packets: int) -> float:
    return stream(pool, packets, write=True)


def stream_large(pool: ssm.Pool, packets: int) -> float:
    """1 MiB each."""
    count = min(packets, MOST_LARGE)
    return stream(pool, count, write=True, size=LARGE) / count * packets


# ---- round trips: the median, times the packets ------------------------------------------------------


def get_polling(ring: ssm.Ring) -> ssm.Packet:
    get, empty = ring.get_nowait, ssm.RingEmpty
    while True:
        try:
            return get()
        except empty:
            pass


def get_sleeping(ring: ssm.Ring) -> ssm.Packet:
    return ring.get(True, PATIENCE_S)


def round_trip(
    pool: ssm.Pool, packets: int, get: Callable[[ssm.Ring], ssm.Packet], quiet_ns: int = 0
) -> float:
    """With `quiet_ns`, either side waits so long before it sends that the other is asleep; that is not counted."""
    trips = min(packets, MOST_ASLEEP if quiet_ns else MOST_TRIPS)
    there, back = pool.ring("there", capacity=RING), pool.ring("back", capacity=RING)
    process, pipe = beside(pool, echo, trips, get, quiet_ns)
    packet, times, clock = pool.alloc(PAYLOAD), [], time.monotonic_ns
    for i in range(trips):
        if quiet_ns:
            rest(quiet_ns)
        elif i % 1000 == 0 and not process.is_alive():
            raise RuntimeError(f"the other process ended with {process.exitcode}")
        packet.tag = start = clock()
        there.put(packet)
        packet = get(back)
        times.append(
            clock() - start if not quiet_ns else clock() - packet.tag + int.from_bytes(packet[:8], "little")
        )
    heard(process, pipe)
    process.join()
    return statistics.median(times) * packets


def echo(
    pool: ssm.Pool, pipe: Connection, trips: int, get: Callable[[ssm.Ring], ssm.Packet], quiet_ns: int
) -> None:
    there, back = pool.ring("there"), pool.ring("back")
    clock = time.monotonic_ns
    pipe.send(0)
    for _ in range(trips):
        packet = get(there)
        if quiet_ns:
            packet[:8] = (clock() - packet.tag).to_bytes(8, "little")
            rest(quiet_ns)
            packet.tag = clock()
        back.put(packet)
    pipe.send(0)
    pool.close()


def rest(duration_ns: int) -> None:
    """Stay awake, so that what is timed is the other side's waking up."""
    until = time.monotonic_ns() + duration_ns
    while time.monotonic_ns() < until:
        pass


def round_trip_polling(pool: ssm.Pool, packets: int) -> float:
    return round_trip(pool, packets, get_polling)


def round_trip_blocking(pool: ssm.Pool, packets: int) -> float:
    return round_trip(pool, packets, get_sleeping)


def round_trip_asleep(pool: ssm.Pool, packets: int) -> float:
    return round_trip(pool, packets, get_sleeping, QUIET_NS)
