# SPDX-License-Identifier: Apache-2.0
"""Closing: packets go back, views stay valid, nothing is left; also when the interpreter just ends."""

import gc
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import ssm
from tests.conftest import SMALL


def free(pool):
    counted = pool.stats().classes[0]
    return counted.free + counted.cached


def held_by(pool):
    """Blocks per process, as `pool` sees it."""
    return {h.id: h.blocks for h in pool.holders() if h.kind == "process"}


@pytest.fixture
def pair(make_pool):
    """Two attachments of one pool: one to be closed, one to look."""
    watcher = make_pool()
    closed = ssm.Pool.attach(watcher.name)
    yield closed, watcher
    closed.close()


# ---- packets in hand --------------------------------------------------------------------------


def test_packets_go_back_at_once(pair):
    pool, watcher = pair
    packets = [pool.alloc(8) for _ in range(10)]
    batch = pool.alloc_many(5, 8)
    assert free(watcher) == 64 - 15
    pool.close()
    assert free(watcher) == 64
    assert len(held_by(watcher)) == 1
    for packet in packets:
        with pytest.raises(ssm.StaleHandle):
            len(packet)
        with pytest.raises(ssm.StaleHandle):
            packet.free()
    with pytest.raises(ssm.StaleHandle):
        batch.free()
    assert watcher.check() == []


def test_the_private_cache_goes_back(pair):
    pool, watcher = pair
    pool.alloc(1).free()
    pool.close()
    assert sum(watcher.free_blocks(256)) + watcher.stats().classes[0].cached == 64


def test_queued_packets_stay(pair):
    pool, watcher = pair
    pool.ring("r", capacity=4).send(b"stays")
    pool.close()
    with watcher.ring("r").get() as packet:
        assert bytes(packet) == b"stays"


def test_closing_twice(pair):
    pool, _ = pair
    pool.close()
    pool.close()
    with pytest.raises((ssm.SSMError, ValueError)), pool:
        pass
    pool.close()


def test_with_closes(make_pool):
    watcher = make_pool()
    with ssm.Pool.attach(watcher.name) as pool:
        packet = pool.alloc(1)
        assert len(held_by(watcher)) == 2
    assert len(held_by(watcher)) == 1
    with pytest.raises(ssm.StaleHandle):
        len(packet)


def test_with_closes_when_the_block_raises(make_pool):
    watcher = make_pool()
    with pytest.raises(ZeroDivisionError), ssm.Pool.attach(watcher.name) as pool, pool.alloc(1):
        _ = 1 / 0
    assert len(held_by(watcher)) == 1
    assert free(watcher) == 64


USES = {
    "alloc": lambda p, r: p.alloc(1),
    "alloc with a time-out": lambda p, r: p.alloc(1, timeout=None),
    "alloc_many": lambda p, r: p.alloc_many(2, 1),
    "packet": lambda p, r: p.packet(1 << 32),
    "ring": lambda p, r: p.ring("other"),
    "rings": lambda p, r: p.rings(),
    "stats": lambda p, r: p.stats(),
    "holders": lambda p, r: p.holders(),
    "free_blocks": lambda p, r: p.free_blocks(256),
    "reap": lambda p, r: p.reap(),
    "check": lambda p, r: p.check(),
    "put": lambda p, r: r.send(b"x"),
    "get": lambda p, r: r.get(),
    "get_many": lambda p, r: r.get_many(4),
    "qsize": lambda p, r: r.qsize(),
    "acl": lambda p, r: r.acl,
    "shutdown": lambda p, r: r.shutdown(),
    "iterate": lambda p, r: next(iter(r)),
}


@pytest.mark.parametrize("what", USES)
def test_a_closed_pool_says_so(pair, what):
    pool, watcher = pair
    ring = pool.ring("r", capacity=4)
    pool.close()
    with pytest.raises((ssm.SSMError, ValueError)):
        USES[what](pool, ring)
    assert watcher.check() == []


def test_what_is_known_stays_known(pair):
    pool, watcher = pair
    name, size = pool.name, pool.size
    pool.close()
    assert pool.name == name == watcher.name
    assert size == watcher.size
    assert repr(pool)


# ---- live views -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memoryview", "array", "added bytes"])
def test_a_view_outlives_the_pool(pair, kind):
    pool, watcher = pair
    packet, other = pool.alloc(8), pool.alloc(8)
    packet[:] = b"ABCDEFGH"
    makers = {"memoryview": memoryview, "array": ssm.Packet.asarray, "added bytes": lambda p: p.append(4)}
    view = makers[kind](packet)
    expected = bytes(view)
    pool.close()
    assert free(watcher) == 63, "only the block with the view stays"
    assert sum(held_by(watcher).values()) == 1
    with pytest.raises(ssm.StaleHandle):
        len(packet)
    with pytest.raises(ssm.StaleHandle):
        len(other)
    del pool, packet, other
    gc.collect()
    rest = [watcher.alloc(208) for _ in range(63)]
    for filler in rest:
        filler[:] = b"\xee" * 208
    assert bytes(view) == expected
    for filler in rest:
        filler.free()
    del view
    gc.collect()
    assert free(watcher) == 64
    assert len(held_by(watcher)) == 1, "the closed attachment is still a holder"
    assert watcher.check() == []


def test_several_views_of_several_packets(pair):
    pool, watcher = pair
    packets = [pool.alloc(8) for _ in range(4)]
    views = [memoryview(p) for p in packets[:3]] + [packets[0].asarray(), memoryview(packets[2])[3:]]
    pool.close()
    assert free(watcher) == 61
    packets[:] = []
    for remaining in (61, 62, 62, 63, 64):
        del views[1 if len(views) in (5, 4) else 0]
        gc.collect()
        assert free(watcher) <= remaining + 1
    assert views == []
    assert free(watcher) == 64
    assert len(held_by(watcher)) == 1


def test_a_view_keeps_an_ephemeral_pool_usable(name):
    pool = ssm.Pool.create(name, ephemeral=True, **SMALL)
    packet = pool.alloc(4)
    packet[:] = b"view"
    view = memoryview(packet)
    pool.close()
    assert bytes(view) == b"view"
    view.release()
    ssm.list_pools()
    assert not Path("/dev/shm", name).exists()


def test_views_are_not_exported_from_a_closed_pool(pair):
    pool, _ = pair
    packet = pool.alloc(8)
    pool.close()
    with pytest.raises(ssm.StaleHandle):
        memoryview(packet)
    with pytest.raises(ssm.StaleHandle):
        packet.asarray()


# ---- nothing left -----------------------------------------------------------------------------


def mappings_of(name):
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if name in line]


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_close_gives_memory_and_descriptors_back(make_pool):
    pool = make_pool()
    name = pool.name.lstrip("/")
    pool.close()
    with ssm.Pool.attach(name) as warm_up:
        warm_up.alloc(1).free()
    gc.collect()
    before = descriptors()
    assert mappings_of(name) == []
    for _ in range(20):
        with ssm.Pool.attach(name) as other:
            other.alloc(1).free()
            other.ring("r", capacity=4).send(b"x")
            other.ring("r").get().free()
            assert mappings_of(name) != []
    gc.collect()
    assert mappings_of(name) == []
    assert descriptors() == before


def test_the_mapping_goes_with_the_last_view(make_pool):
    pool = make_pool()
    name = pool.name.lstrip("/")
    packet = pool.alloc(4)
    view = memoryview(packet)
    pool.close()
    assert mappings_of(name) != []
    packet = None
    view.release()
    del view, pool
    gc.collect()
    # the fixture still has the pool object; its memory is gone all the same
    assert mappings_of(name) == []


def test_a_failed_attach_leaves_nothing(name):
    Path("/dev/shm", name).write_bytes(b"not a pool" * 10_000)
    before = descriptors()
    for _ in range(10):
        with pytest.raises(ssm.SSMError):
            ssm.Pool.attach(name)
    gc.collect()
    assert descriptors() == before
    assert mappings_of(name) == []


def test_a_pool_that_is_dropped_gives_everything_back(make_pool):
    """Not closed, only forgotten: the blocks come back with the object (a warning is allowed)."""
    watcher = make_pool()
    code = f"""
        import gc, warnings
        warnings.simplefilter("ignore", ResourceWarning)
        import ssm
        pool = ssm.Pool.attach({watcher.name!r})
        packet = pool.alloc(1)
        del pool, packet
        gc.collect()
        with ssm.Pool.attach({watcher.name!r}) as pool:
            held = [h.blocks for h in pool.holders() if h.kind == "process" and h.alive]
            assert sum(held) == 0, held
    """
    run_script(code)
    assert free(watcher) == 64


# ---- the interpreter ends ---------------------------------------------------------------------


def run_script(code, *flags):
    run = subprocess.run(
        [sys.executable, *flags, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    return run


AT_EXIT = {
    "nothing in hand": "",
    "a packet": "packet = pool.alloc(8)",
    "packets": "packets = [pool.alloc(8) for _ in range(10)]",
    "a batch": "batch = pool.alloc_many(5, 8)",
    "a view": "view = memoryview(pool.alloc(8))",
    "an array": "array = pool.alloc(8).asarray()",
    "a packet in a cycle": "box = [pool.alloc(8)]; box.append(box)",
    "a packet in a thread": "threading.Thread(target=lambda p: time.sleep(0.1), args=(pool.alloc(8),)).start()",
    "a daemon that waits": "threading.Thread(target=ring.get, daemon=True).start(); time.sleep(0.1)",
    "a daemon that allocates": """
        full = pool.alloc_many(16, 2000)
        threading.Thread(target=lambda: pool.alloc(2000, timeout=None), daemon=True).start()
        time.sleep(0.1)""",
    "a generator": "def f(): yield pool.alloc(8)\n        g = f(); keep = next(g)",
    "an atexit function": "import atexit; p = pool.alloc(8); atexit.register(lambda: p.free())",
    "an atexit close": "import atexit; p = pool.alloc(8); atexit.register(pool.close)",
    "sys.exit": "packet = pool.alloc(8); sys.exit(0)",
    "in a module": "sys.modules['kept'] = pool.alloc(8)",
    "a builtin": "import builtins; builtins.kept = (pool, pool.alloc(8), memoryview(pool.alloc(8)))",
}


@pytest.mark.parametrize("what", AT_EXIT)
def test_at_interpreter_exit(make_pool, what):
    watcher = make_pool(cache=4)
    code = f"""
        import sys, threading, time
        import ssm
        pool = ssm.Pool.attach({watcher.name!r})
        ring = pool.ring("r", capacity=4)
        {AT_EXIT[what]}
    """
    run = run_script(code, "-X", "dev", "-W", "error", "-W", "ignore::ResourceWarning")
    assert run.stderr == ""
    watcher.reap()
    assert free(watcher) == 64
    assert len(held_by(watcher)) == 1
    assert watcher.check() == []


def test_closed_properly_it_warns_of_nothing(make_pool):
    watcher = make_pool()
    code = f"""
        import ssm
        with ssm.Pool.attach({watcher.name!r}) as pool:
            packet = pool.alloc(8)
            ring = pool.ring("r", capacity=4)
            ring.send(b"x")
            ring.get().free()
            batch = pool.alloc_many(3, 8)
            view = memoryview(packet)
            packet.free()
            view.release()
            batch.free()
    """
    assert run_script(code, "-X", "dev", "-W", "error").stderr == ""
    assert free(watcher) == 64
