# SPDX-License-Identifier: Apache-2.0
"""Arenas that grow: what is reserved and when, a /dev/shm that is full, limits of the process, and kills meanwhile."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import ssm
from ssm.cli import main
from tests.conftest import SHM
from tests.effort import seconds
from tests.isolation import cannot_run

KIB, MIB = 1 << 10, 1 << 20
UNIT = 64 * KIB
SECONDS = seconds(4)


@pytest.fixture
def pool(make_pool):
    return make_pool(classes={2048: 16}, grow=8 * MIB, arena_packets=64)


def bytes_of_file(pool):
    return (SHM / pool.name[1:]).stat().st_blocks * 512


# ---- parameters -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arena", "grow", "there", "reserved"),
    [
        (0, 1, UNIT, 0),
        (0, UNIT + 1, 2 * UNIT, 0),
        (1, UNIT + 1, 2 * UNIT, UNIT),
        (UNIT, UNIT, UNIT, UNIT),
        (UNIT, 10, UNIT, UNIT),
        (5 * UNIT - 1, 5 * UNIT, 5 * UNIT, 5 * UNIT),
        (UNIT, 1 << 40, 1 << 40, UNIT),
    ],
)
def test_what_is_reserved_at_once(make_pool, arena, grow, there, reserved):
    pool = make_pool(classes={256: 8}, arena=arena, grow=grow, arena_packets=16)
    assert (pool.arena, pool.arena_reserved) == (there, reserved)
    assert pool.stats().arena.backed == reserved
    most = pool.size if there == reserved else reserved + 128 * KIB
    assert reserved < bytes_of_file(pool) <= most


def test_exist_ok_compares_how_it_grows(name):
    same = {"classes": {256: 4}, "exist_ok": True}
    with ssm.Pool.create(name, classes={256: 4}, arena=10, grow=MIB - 5) as pool:
        ssm.Pool.create(name, arena=UNIT, grow=MIB, **same).close()
        with pytest.raises(ssm.PoolMismatch, match=f"grow={MIB}, not {2 * MIB}"):
            ssm.Pool.create(name, arena=10, grow=2 * MIB, **same)
        with pytest.raises(ssm.PoolMismatch, match=f"arena={UNIT}, not 0, grow={MIB}, not 0"):
            ssm.Pool.create(name, **same)
        pool.unlink()


def test_grow_out_of_bounds(name):
    with pytest.raises(ValueError, match="grow must be 0 "):
        ssm.Pool.create(name, grow=-1)
    with pytest.raises(
        ValueError, match="larger than the largest block size in classes, 65536 bytes, not 65536"
    ):
        ssm.Pool.create(name, classes={UNIT: 4}, grow=UNIT)


# ---- growing -----------------------------------------------------------------------------------


def test_memory_is_reserved_as_packets_need_it(pool):
    assert pool.stats().arena.backed == 0
    pool.alloc(3000).free()  # from now on it has descriptors for all
    start = bytes_of_file(pool) - UNIT
    with pool.alloc(100_000) as packet:
        packet[-1] = 7
        assert pool.stats().arena.backed == bytes_of_file(pool) - start == 2 * UNIT
        with pool.alloc(3000):
            assert pool.stats().arena.backed == 2 * UNIT
    kept = [pool.alloc(UNIT - 48) for _ in range(4)]  # 48: headroom and tailroom
    assert pool.stats().arena.backed == bytes_of_file(pool) - start == 4 * UNIT
    del kept
    with pool.alloc(8 * MIB - 48):
        assert pool.stats().arena.backed == 8 * MIB
    assert bytes_of_file(pool) == start + 8 * MIB  # it keeps what it has
    assert pool.check() == []


def test_all_or_nothing(pool):
    with pytest.raises(ssm.PoolExhausted, match="can never be had"):
        pool.alloc_many(9, MIB)
    with (
        pool.alloc(4 * MIB),
        pytest.raises(ssm.PoolExhausted, match="or create the pool with a larger grow="),
    ):
        pool.alloc_many(5, MIB - 48)
    with pool.alloc_many(8, MIB - 48) as batch:
        batch.scatter(np.full((8, MIB - 48), 7, "u1"))
        assert pool.stats().arena.used == 8 * MIB
    assert pool.stats().arena.used == 0


def test_another_process_has_it_as_well(pool, children):
    ring = pool.ring("big", 8)
    child = children.start(fill_ring, pool.name)
    packet = ring.get(timeout=60)
    assert bytes(packet) == b"x" * 3 * MIB
    child.result()
    assert pool.check() == []


def fill_ring(talk, name):
    with ssm.Pool.attach(name) as pool:
        packet = pool.alloc(3 * MIB)
        packet[:] = b"x" * len(packet)
        pool.ring("big").put(packet)


def test_it_is_shown(pool, capsys):
    kept = pool.alloc(100_000)
    assert main(["stat", pool.name]) == 0
    text = capsys.readouterr().out
    assert "reserved" in text
    assert f"{2 * UNIT:,}" in text or str(2 * UNIT) in text
    assert main(["metrics", pool.name, "--json", "--count", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["pools"][0]["arena"]["backed"] == 2 * UNIT
    kept.free()


def test_locked_pages_are_those_that_are_there(make_pool):
    try:
        pool = make_pool(classes={256: 8}, grow=64 * MIB, arena_packets=16, mlock=True)
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        cannot_run("this process may not lock 64 MiB")
    assert bytes_of_file(pool) < 128 * KIB
    pool.alloc(MIB).free()  # from now on it has descriptors
    start = bytes_of_file(pool)
    with pool.alloc(2 * MIB) as packet:
        packet[0] = 1
    assert bytes_of_file(pool) == start + MIB


@pytest.mark.parametrize(
    ("limit", "number", "text"),
    [(resource.RLIMIT_FSIZE, errno.EFBIG, "ulimit -f"), (resource.RLIMIT_AS, errno.ENOMEM, "ulimit -v")],
)
def test_limits_of_the_process(name, children, limit, number, text):
    found, message = children.start(create_with_limit, name, limit).result()
    assert found == number
    assert f"may grow to {4 << 40:,} bytes" in message
    assert text in message
    assert not (SHM / name).exists()


def create_with_limit(talk, name, limit):
    resource.setrlimit(limit, (1 << 40, 1 << 40))
    try:
        ssm.Pool.create(name, classes={256: 8}, grow=4 << 40)
    except OSError as error:
        return error.errno, str(error)


# ---- a /dev/shm that is full ---------------------------------------------------------------------


def run_in_small_shm(program, *arguments, size="24m"):
    """Lines that the program prints in a /dev/shm of its own."""
    commands = [
        ["unshare", "--mount", "--propagation", "private"],
        ["unshare", "--user", "--map-root-user", "--mount"],
    ]
    mount = f"mount -t tmpfs -o size={size} tmpfs /dev/shm"
    if shutil.which("unshare") is None:
        cannot_run("no unshare")
    for command in commands:
        if subprocess.run([*command, "sh", "-c", mount], capture_output=True, timeout=60).returncode == 0:
            break
    else:
        cannot_run("a private mount namespace is not permitted")
    script = f'{mount} && exec "$0" -X dev -W error -c "$@"'
    run = subprocess.run(
        [*command, "sh", "-c", script, sys.executable, textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, (run.returncode, run.stdout, run.stderr)
    return run.stdout.splitlines()


FULL = """
    import os, threading, time
    import ssm
    MIB = 1 << 20
    with ssm.Pool.create("full", classes={256: 64}, grow=1 << 30, arena_packets=256, metadata=1 << 18) as pool:
        with open("/dev/shm/another", "wb") as other:
            os.posix_fallocate(other.fileno(), 0, 8 * MIB)
        kept = []
        try:
            while True:
                kept.append(pool.alloc(MIB))
                kept[-1][:] = b"x" * MIB
        except ssm.PoolExhausted as error:
            print(error)
        print(len(kept), pool.stats().arena.available < MIB, pool.check())
        try:
            pool.alloc_many(8, MIB)
        except ssm.PoolExhausted as error:
            print("may grow to" in str(error))
        small = pool.alloc(30_000)  # what is there is of use
        threading.Timer(0.3, os.unlink, ["/dev/shm/another"]).start()
        start = time.monotonic()
        with pool.alloc(4 * MIB, timeout=30) as late:
            late[:] = b"y" * len(late)
            print("waited", 0.2 < time.monotonic() - start < 10)
        print(all(bytes(packet) == b"x" * MIB for packet in kept))
        small.free()
        del kept
        print(pool.stats().arena.used, pool.check())
        pool.unlink()
"""


def test_full_dev_shm_is_a_wait_or_an_error():
    text, *rest = run_in_small_shm(FULL)
    assert "the arena of pool '/full' may grow to 1073741824 bytes" in text
    assert "/dev/shm has " in text
    assert "remount,size=" in text
    count, short, found = rest[0].split(maxsplit=2)
    assert 8 <= int(count) <= 16
    assert (short, found) == ("True", "[]")
    assert rest[1:] == ["True", "waited True", "True", "0 []"]


SOAK = """
    import errno, os, random, signal, sys, time
    import ssm
    pool = ssm.Pool.create("soak", classes={256: 512}, grow=1 << 30, arena_packets=2048, metadata=1 << 18, holders=64)
    ring = pool.ring("r", 256)

    def worker(seed):
        rnd = random.Random(seed)
        pool = None
        while pool is None:
            try:
                pool = ssm.Pool.attach("soak")
            except OSError as error:  # a holder slot that is new needs memory, too
                if error.errno != errno.ENOSPC:
                    raise
        ring = pool.ring("r")
        while True:
            try:
                if rnd.random() < 0.5:
                    size = int(300 * (4e6 / 300) ** rnd.random())
                    packet = pool.alloc(size, 0.01)
                    packet[:8] = size.to_bytes(8, "little")
                    packet[8:] = bytes([size % 251]) * (size - 8)
                    ring.put(packet, True, 0.05)
                else:
                    packet = ring.get(True, 0.05)
                    size = int.from_bytes(packet[:8], "little")
                    if len(packet) != size or bytes(packet[8:]) != bytes([size % 251]) * (size - 8):
                        os._exit(77)
                    packet.free()
            except (ssm.PoolExhausted, ssm.RingFull, ssm.RingEmpty):
                pass

    def filler():
        fd = os.open("/dev/shm/other", os.O_RDWR | os.O_CREAT)
        size = 0
        while True:
            try:
                os.posix_fallocate(fd, size, 1 << 20)
                size += 1 << 20
            except OSError:
                pass
            if size > 12 << 20:
                os.ftruncate(fd, 0)
                size = 0
            time.sleep(0.01)

    def start(what, *args):
        pid = os.fork()
        if pid:
            return pid
        try:
            what(*args)
        except BaseException as error:
            print("worker:", type(error).__name__, error, flush=True)
        os._exit(78)

    seconds, seed = float(sys.argv[1]), int(sys.argv[2])
    rnd = random.Random(seed)
    workers = [start(worker, rnd.random()) for _ in range(3)]
    other = start(filler)
    until = time.monotonic() + seconds
    ends = set()
    while time.monotonic() < until:
        time.sleep(rnd.random() * 0.06)
        i = rnd.randrange(3)
        os.kill(workers[i], signal.SIGKILL)
        ends.add(os.waitstatus_to_exitcode(os.waitpid(workers[i], 0)[1]))
        workers[i] = start(worker, rnd.random())
    for pid in [*workers, other]:
        os.kill(pid, signal.SIGKILL)
        ends.add(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    pool.reap()
    print(ends, pool.check())
    while ring.qsize():
        ring.get(False).free()
    print(pool.stats().arena.used, pool.check())
    pool.unlink()
"""


@pytest.mark.stress
def test_kills_while_others_fill_and_empty_dev_shm():
    """Nobody is killed by a signal that was not ours (SIGBUS), nothing is torn, the books balance."""
    seed = os.environ.get("SSM_TEST_SEED") or str(int.from_bytes(os.urandom(3), "little"))
    print("SSM_TEST_SEED", seed)
    assert run_in_small_shm(SOAK, str(SECONDS), seed) == ["{-9} []", "0 []"]


# ---- giving memory back --------------------------------------------------------------------------


def test_memory_is_given_back_while_somebody_waits(make_pool):
    """Packets of 60 MiB came and went; a process that waits for more finds that too much memory is there."""
    pool = make_pool(classes={256: 8}, grow=256 * MIB, arena_packets=256)
    ring = pool.ring("r", 64)
    packets = [pool.alloc(MIB) for _ in range(60)]
    keep = packets[3]
    keep[:] = b"k" * MIB
    most = bytes_of_file(pool)
    assert most > 60 * MIB
    for packet in packets:
        if packet is not keep:
            packet.free()
    until = time.monotonic() + 60
    while bytes_of_file(pool) > 16 * MIB and time.monotonic() < until:
        with pytest.raises(ssm.RingEmpty):
            ring.get(timeout=0.2)
    assert bytes_of_file(pool) <= 16 * MIB
    assert pool.stats().arena.backed < bytes_of_file(pool)
    assert bytes(keep) == b"k" * MIB
    assert pool.check() == []
    with pool.alloc_many(100, MIB) as batch:  # and it grows again
        batch.scatter(np.full((100, MIB), 9, "u1"))
    keep.free()


GIVE_AND_TAKE = textwrap.dedent("""
    import ctypes, errno, os, random, signal, sys, time
    import ssm

    MIB = 1 << 20
    seconds, name = float(sys.argv[1]), f"give-{os.getpid()}"
    pool = ssm.Pool.create(name, classes={256: 16}, grow=256 << 20, headroom=0, tailroom=0)
    ring = pool.ring("r", 1 << 14)

    def work(seed):
        rnd, mine = random.Random(seed), None
        while mine is None:
            try:
                mine = ssm.Pool.attach(name)
            except OSError as error:  # no memory for its caches just now
                if error.errno != errno.ENOSPC:
                    raise
        with mine:
            ring, kept = mine.ring("r"), []
            while True:
                try:
                    size = rnd.choice([300, 5000, 70_000, MIB])
                    packet = mine.alloc(size, 0.05)
                    packet[:] = bytes([size % 251]) * size
                    kept.append(packet)
                    if rnd.random() < 0.02:
                        while kept:
                            packet = kept.pop()
                            assert bytes(packet) == bytes([len(packet) % 251]) * len(packet)
                            if rnd.random() < 0.5:
                                ring.put(packet, timeout=0)
                            else:
                                packet.free()
                    if rnd.random() < 0.05:
                        for _ in range(100):
                            packet = ring.get(timeout=0)
                            assert bytes(packet) == bytes([len(packet) % 251]) * len(packet)
                            packet.free()
                except ssm.PoolExhausted:
                    kept.clear()
                except (ssm.RingEmpty, ssm.RingFull):
                    pass

    def fill():
        fd = os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR)
        while True:
            for size in (8 << 20, 20 << 20):
                try:
                    os.posix_fallocate(fd, 0, size)
                except OSError:
                    pass
                time.sleep(0.05)
            os.ftruncate(fd, 0)
            time.sleep(0.05)

    def start(what, *arguments):
        pid = os.fork()
        if pid == 0:
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # it ends with its parent
            try:
                what(*arguments)
            except BaseException as error:
                print(type(error).__name__, error, flush=True)
            os._exit(1)
        return pid

    def end(pid):
        os.kill(pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    until, kills, given, least = time.monotonic() + seconds, 0, 0, 0
    filler, workers = start(fill), [start(work, i) for i in range(3)]
    while time.monotonic() < until:
        time.sleep(random.random() * 0.1)
        code = end(workers.pop(random.randrange(3)))
        assert code == -signal.SIGKILL, code
        workers.append(start(work, kills))
        kills += 1
        if kills % 20 == 0:  # all of it is free, and somebody waits
            for pid in workers:
                assert end(pid) == -signal.SIGKILL
            pool.reap()
            while ring.qsize():
                try:
                    ring.get(timeout=0).free()
                except ssm.RingEmpty:
                    pass
            before = pool.stats().arena.backed
            try:
                ring.get(timeout=1.5)
            except ssm.RingEmpty:
                pass
            given += before - pool.stats().arena.backed
            assert pool.check() == []
            workers = [start(work, kills + i) for i in range(3)]
    for pid in [*workers, filler]:
        end(pid)
    pool.reap()
    found = pool.check()
    print("kills", kills, "given", given // MIB, "found", found)
    pool.unlink()
""")


@pytest.mark.stress
@pytest.mark.timeout(300)
def test_given_back_and_taken_again_while_others_fill_the_memory():
    """Processes are killed while they grow and give back, in a /dev/shm that somebody fills and empties: no SIGBUS."""
    *_, last = run_in_small_shm(GIVE_AND_TAKE, str(max(SECONDS, 12)), size="48m")
    words = last.split()
    assert words[0] == "kills"
    assert int(words[1]) > 20
    assert int(words[3]) > 0
    assert last.endswith("found []")
