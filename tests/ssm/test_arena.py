# SPDX-License-Identifier: Apache-2.0
"""The arena: sizes at its limits, no room, views that outlive their packet, a model, and processes that are killed."""

import os
import random
import struct
import time
import zlib

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

import ssm
from ssm.cli import main
from tests.effort import seconds, times
from tests.processes import wait_until

KIB = 1024
PAGE = 4096
ARENA = 64 * PAGE
OVERHEAD = 48  # SMALL's headroom and tailroom
LARGEST = 2048 - OVERHEAD  # a packet that a block has room for
SECONDS = seconds(3)
HEADER = struct.Struct("<II")  # checksum and length of the rest


@pytest.fixture
def pool(make_pool):
    return make_pool(arena=ARENA, arena_packets=16)


def room(size):
    """Bytes that a packet takes of the arena."""
    return -(-(size + OVERHEAD) // 64) * 64


# ---- parameters -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arena", "bytes_", "packets"),
    [(0, 0, 0), (2049, PAGE, 16), (ARENA, ARENA, 128), (ARENA + 1, ARENA + PAGE, 130), (2**24, 2**24, 4096)],
)
def test_whole_pages_and_a_number_of_packets(make_pool, arena, bytes_, packets):
    pool = make_pool(arena=arena)
    assert (pool.arena, pool.arena_packets) == (bytes_, packets)
    assert pool.max_size == (bytes_ or 2048) - OVERHEAD
    assert set(pool.classes) == {256, 2048}
    assert len(pool.stats().classes) == 2
    assert (pool.stats().arena is None) == (arena == 0)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"arena": PAGE}, "larger than the largest block size in classes, 4096 bytes, not 4096"),
        ({"arena": -1}, "arena must be 0 .. "),
        ({"arena_packets": 4}, "arena_packets=4 is of a pool with an arena"),
        ({"arena": ARENA, "arena_packets": 0}, "arena_packets must be 1 .. 65536, not 0"),
        ({"arena": ARENA, "arena_packets": 65537}, "arena_packets must be 1 .. 65536, not 65537"),
    ],
)
def test_parameters_out_of_bounds(name, arguments, text):
    with pytest.raises(ValueError, match=text):
        ssm.Pool.create(name, classes={256: 4, PAGE: 4}, **arguments)


def test_exist_ok_compares_the_arena(make_pool):
    pool = make_pool(arena=ARENA)
    same = {"classes": {256: 64, 2048: 16}, "headroom": 32, "tailroom": 16, "exist_ok": True}
    ssm.Pool.create(pool.name, arena=ARENA - 1, **same).close()
    with pytest.raises(ssm.PoolMismatch, match=f"arena={ARENA}, not {2 * ARENA}"):
        ssm.Pool.create(pool.name, arena=2 * ARENA, **same)
    with pytest.raises(ssm.PoolMismatch, match="arena_packets=128, not 7"):
        ssm.Pool.create(pool.name, arena=ARENA, arena_packets=7, **same)


# ---- sizes, and no room -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size", [LARGEST + 1, PAGE - OVERHEAD, PAGE - OVERHEAD + 1, 100_000, ARENA - OVERHEAD]
)
def test_sizes(pool, size):
    with pool.alloc(size) as packet:
        assert len(packet) == size
        assert packet.headroom == 32
        assert packet.block_size == room(size)
        packet[-3:] = b"end"
        assert pool.stats().arena.used == room(size)
        assert pool.usage()[0].arena_bytes == pool.usage()[0].total == room(size)
        assert pool.holders()[0].bytes == room(size)
    assert pool.stats().arena.used == 0
    assert pool.free_blocks(2048) == (16, 0, 0, 0)


def test_what_a_block_has_room_for_is_no_matter_of_the_arena(pool):
    with pool.alloc(LARGEST) as packet:
        assert packet.block_size == 2048
        assert pool.stats().arena.held == 0


def test_too_large_and_exhausted_say_what_to_do(pool):
    limit = rf"the limit is {ARENA - OVERHEAD} .* an arena of {ARENA} bytes .* larger arena="
    with pytest.raises(ssm.PacketTooLarge, match=limit):
        pool.alloc(ARENA)
    kept = [pool.alloc(ARENA // 2 - OVERHEAD), pool.alloc(ARENA // 4)]
    with pytest.raises(
        ssm.PoolExhausted, match=r"no room came free .* larger arena= or more arena_packets="
    ) as caught:
        pool.alloc(ARENA // 2)
    assert f"{kept[0].block_size + kept[1].block_size} are used by 2 of 16 packets" in str(caught.value)
    with pytest.raises(ssm.PoolExhausted, match="can never be had"):
        pool.alloc_many(2, ARENA // 2)
    with pytest.raises(ssm.PoolExhausted, match="can never be had"):
        pool.alloc_many(17, LARGEST + 1)
    start = time.monotonic()
    with pytest.raises(ssm.PoolExhausted):
        pool.alloc(ARENA // 2, timeout=0.1)
    assert time.monotonic() - start >= 0.1


def test_fragments_come_together(pool):
    packets = [pool.alloc(ARENA // 16 - OVERHEAD) for _ in range(16)]
    for packet in packets[::2]:
        packet.free()
    assert pool.stats().arena.largest_free == ARENA // 16
    with pytest.raises(ssm.PoolExhausted):
        pool.alloc(ARENA // 8)
    packets[1].free()
    assert pool.stats().arena.largest_free == 3 * ARENA // 16
    pool.alloc(3 * ARENA // 16 - OVERHEAD).free()


def test_batches(pool):
    batch = pool.alloc_many(4, ARENA // 4 - OVERHEAD)
    assert pool.stats().arena.largest_free == 0
    assert [len(packet) for packet in batch] == [ARENA // 4 - OVERHEAD] * 4
    batch.free()
    assert pool.stats().arena.used == 0


def test_a_quota_counts_what_is_taken(pool):
    pool.close()
    with ssm.Pool.attach(pool.name, quota=room(10_000)) as limited:
        with pytest.raises(ssm.QuotaExceeded):
            limited.alloc(10_000 + 64)
        with limited.alloc(10_000), pytest.raises(ssm.QuotaExceeded):
            limited.alloc(1)


def test_views_outlive_the_packet(pool):
    packet = pool.alloc(ARENA - OVERHEAD)
    view = memoryview(packet)
    packet.free()
    view[:5] = b"alive"
    with pytest.raises(ssm.PoolExhausted):
        pool.alloc(LARGEST + 1)
    assert bytes(view[:5]) == b"alive"
    view.release()
    pool.alloc(LARGEST + 1).free()


def test_through_a_ring_edges_and_all(pool):
    ring = pool.ring("frames", 4)
    packet = pool.alloc(50_000)
    packet.append(packet.tailroom)[:] = b"\1" * (room(50_000) - 32 - 50_000)
    packet.prepend(32)[:] = b"\2" * 32
    packet.tag = 7
    ring.put(packet)
    with ssm.Pool.attach(pool.name, readonly=True) as reader:
        assert reader.stats().arena.used == room(50_000)
    with ring.get() as got:
        assert (len(got), got.tag, got[0], got[-1]) == (room(50_000), 7, 2, 1)


def test_segments_of_a_chain(pool):
    ring = pool.ring("frames", 4)
    head = pool.alloc(10)
    head.chain = [pool.alloc(50_000), pool.alloc(60_000)]
    ring.put(head)
    with ring.get() as got:
        assert [len(segment) for segment in got.chain] == [50_000, 60_000]
        assert pool.stats().arena.held == 2
    assert pool.stats().arena.used == 0


def test_top_and_metrics_show_it(pool, capsys):
    from ssm.commands.metrics import collect

    with pool.alloc(100_000):
        assert main(["top", pool.name, "--json", "--count", "1"]) == 0
        assert f'"used": {room(100_000)}' in capsys.readouterr().out
        families = {family.name: family for family in collect([pool.name])}
        assert families["ssm_arena_used_bytes"].samples[0].value == room(100_000)
        assert families["ssm_arena_packets_held"].samples[0].value == 1


def test_the_commands_show_it(pool, capsys):
    with pool.alloc(100_000):
        assert main(["stat", pool.name]) == 0
        shown = capsys.readouterr().out
        assert "largest free" in shown
        assert f"{room(100_000)}" in shown.replace(",", "")
        assert main(["stat", pool.name, "--json"]) == 0
        assert f'"used": {room(100_000)}' in capsys.readouterr().out


# ---- a model --------------------------------------------------------------------------------------


MODEL = 40 * PAGE


def align(size):
    return 64 if room(size) < 65536 else PAGE


class Model(RuleBasedStateMachine):
    """The arena beside a list of what was allocated, by address."""

    def __init__(self, make_pool):
        super().__init__()
        self.pool = make_pool(arena=MODEL, arena_packets=6)
        self.held = []  # (packet, where its block starts, the byte that fills it)
        with self.pool.alloc(MODEL - OVERHEAD) as whole:
            self.base = whole.asarray().ctypes.data

    def has_room(self, size):
        size, step = room(size), align(size)
        return len(self.held) < 6 and any(
            all(at + size <= start or start + packet.block_size <= at for packet, start, _ in self.held)
            for at in range(0, MODEL - size + 1, step)
        )

    @rule(size=st.integers(LARGEST + 1, MODEL - OVERHEAD) | st.integers(LARGEST + 1, 3 * PAGE))
    def alloc(self, size):
        expected = self.has_room(size)
        try:
            packet = self.pool.alloc(size)
        except ssm.PoolExhausted:
            assert not expected
            return
        assert expected
        start, mark = packet.asarray().ctypes.data - self.base, bytes([len(self.held) + 1])
        assert start % align(size) == 0
        packet[:] = mark * size
        self.held.append((packet, start, mark))

    @rule(
        which=st.integers(0, 5)
    )  # no rule or value that is drawn depends on the arena: it could not be repeated
    def free(self, which):
        if self.held:
            packet, _, mark = self.held.pop(which % len(self.held))
            assert packet[:] == mark * len(packet)
            packet.free()

    @invariant()
    def books(self):
        arena = self.pool.stats().arena
        assert arena.used == sum(packet.block_size for packet, _, _ in self.held)
        assert arena.held == len(self.held)

    def teardown(self):
        while self.held:
            packet, _, mark = self.held.pop()
            assert packet[:] == mark * len(packet)
            packet.free()
        assert self.pool.stats().arena.largest_free == MODEL
        assert self.pool.check() == []
        self.pool.unlink()
        self.pool.close()


def test_model(make_pool):
    run_state_machine_as_test(
        lambda: Model(make_pool),
        settings=settings(max_examples=times(30), stateful_step_count=30, deadline=None),
    )


# ---- processes ------------------------------------------------------------------------------------


def churn(talk, name, seed):
    """Frames of random sizes go round, each with its checksum; some are kept for a while. Until it is killed."""
    chance = random.Random(seed)
    pool = ssm.Pool.attach(name)
    ring = pool.ring("frames", 4)
    kept = []
    talk.send("at work")
    while True:
        try:
            packet = pool.alloc(chance.randrange(LARGEST + 1, 40_000), timeout=0.01)
        except ssm.PoolExhausted:
            kept.clear()
        else:
            body = bytes([chance.randrange(256)]) * (len(packet) - HEADER.size)
            packet[HEADER.size :] = body
            packet[: HEADER.size] = HEADER.pack(zlib.crc32(body), len(body))
            try:
                ring.put(packet, timeout=0 if chance.random() < 0.5 else 0.01)
            except ssm.RingFull:
                kept = [*kept[-2:], packet]
        if chance.random() < 0.7:
            try:
                got = ring.get(timeout=0)
            except ssm.RingEmpty:
                continue
            check_frame(got)
            kept = [*kept[-2:], got]


def check_frame(packet):
    checksum, length = HEADER.unpack(packet[: HEADER.size])
    assert length == len(packet) - HEADER.size
    assert zlib.crc32(packet[HEADER.size :]) == checksum


def test_killed_at_any_moment(make_pool, children):
    seed = int(os.environ.get("SSM_TEST_SEED", "0")) or time.time_ns() & 0xFFFFFF
    print("SSM_TEST_SEED =", seed)
    chance = random.Random(seed)
    pool = make_pool(arena=ARENA, arena_packets=16)
    ring = pool.ring("frames", 4)

    def start():
        child = children.start(churn, pool.name, chance.random())
        assert child.hear() == "at work"
        return child

    workers = [start() for _ in range(3)]
    until, kills = time.monotonic() + SECONDS, 0
    while time.monotonic() < until or kills < 5:
        time.sleep(chance.random() * 0.05)
        victim = workers.pop(chance.randrange(3))
        victim.kill()
        kills += 1
        workers.append(start())
        assert pool.check() == []
    for worker in workers:
        worker.kill()
    pool.reap()
    while True:
        try:
            check_frame(ring.get(timeout=0))
        except ssm.RingEmpty:
            break
    assert pool.check() == []
    arena = pool.stats().arena
    assert (arena.used, arena.held, arena.largest_free) == (0, 0, ARENA)
    pool.alloc(ARENA - OVERHEAD).free()


def sleeper(talk, name):
    pool = ssm.Pool.attach(name)
    talk.send("asks")
    with pool.alloc(ARENA - OVERHEAD, timeout=30) as packet:
        return len(packet)


def test_who_waits_gets_it_when_the_last_one_goes(pool, children):
    packets = [pool.alloc(ARENA // 2 - OVERHEAD), pool.alloc(ARENA // 4)]
    child = children.start(sleeper, pool.name)
    assert child.hear() == "asks"
    wait_until(lambda: sum(s.waiters for s in pool.stats().arena.shards) == 1, "it waits for the arena")
    packets.pop().free()
    packets.pop().free()
    assert child.result() == ARENA - OVERHEAD
