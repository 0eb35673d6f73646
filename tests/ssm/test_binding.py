# SPDX-License-Identifier: Apache-2.0
"""The extension module as such: references, freelist, arguments, errors, sub-interpreters, closing under a call."""

import copy
import gc
import importlib
import inspect
import io
import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
import sysconfig
import textwrap
import threading
import time
import weakref
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import ssm
from ssm import _core, names
from tests.processes import wait_until

SOON_S = 30.0
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
TYPES = (ssm.Pool, ssm.Packet, ssm.PacketBatch, ssm.Ring)


@pytest.fixture(autouse=True)
def what_was_there_is_not_traversed():
    """The leak tests collect again and again: each time the collector would look at all that pytest has collected."""
    gc.freeze()
    yield
    gc.unfreeze()


def run_python(code, *, check=True):
    """In a process of its own, warnings are errors; what it printed."""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(code)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=SOON_S * 2)
    if check:
        assert run.returncode == 0, run.stderr
        assert run.stderr == ""
    return run.stdout


# ---- references -------------------------------------------------------------------------------


class Workbench:
    """What the operations below work on."""

    def __init__(self, pool):
        self.pool = pool
        self.packet = pool.alloc(64)
        self.gone = pool.alloc(64)
        self.gone.free()
        self.batch = pool.alloc_many(4, 16)
        self.rows = np.zeros((4, 16), "u1")
        self.ring = pool.ring("r", capacity=8)
        self.full = pool.ring("full", capacity=1)
        self.full.send(b"x")
        self.over = pool.ring("over", capacity=1)
        self.over.shutdown()

    def take_all(self):
        """Everything of the larger class."""
        return [self.pool.alloc(2000) for _ in range(16)]

    def put_and_get(self):
        self.ring.put(self.packet)
        self.packet = self.ring.get()

    def put_many_and_get_many(self):
        self.ring.put_many(self.batch)
        self.batch = self.ring.get_many(8)

    def put_tuple_and_iterate(self):
        self.ring.put_many([self.pool.alloc(1), self.pool.alloc(2)])
        assert [len(self.ring.get_nowait()) for _ in range(2)] == [1, 2]


def refused(error, function, *args, **kwargs):
    def run(bench):
        with pytest.raises(error):
            function(bench, *args, **kwargs)

    return run


OPERATIONS = {
    "alloc": lambda b: b.pool.alloc(10),
    "alloc and free": lambda b: b.pool.alloc(10, timeout=0).free(),
    "with": lambda b: b.pool.alloc(10).__enter__().__exit__(None, None, None),
    "alloc_many": lambda b: b.pool.alloc_many(3, 10, timeout=0.5),
    "packet": lambda b: b.pool.packet(b.packet.handle),
    "exhausted": lambda b: [b.take_all(), refused(ssm.PoolExhausted, lambda b: b.pool.alloc(2000))(b)],
    "exhausted, waiting": lambda b: [
        b.take_all(),
        refused(ssm.PoolExhausted, lambda b: b.pool.alloc(2000, timeout=1e-6))(b),
    ],
    "too many": refused(ssm.PoolExhausted, lambda b: b.pool.alloc_many(1000, 10)),
    "too large": refused(ssm.PacketTooLarge, lambda b: b.pool.alloc(10**9)),
    "size of a wrong type": refused(TypeError, lambda b: b.pool.alloc("10")),
    "unknown keyword": refused(TypeError, lambda b: b.pool.alloc(10, tiemout=1)),
    "keyword twice": refused(TypeError, lambda b: b.pool.alloc(10, size=1)),
    "bad timeout": refused(ValueError, lambda b: b.pool.alloc(10, timeout=-1)),
    "stale": refused(ssm.StaleHandle, lambda b: b.gone[0]),
    "stale handle": refused(ssm.StaleHandle, lambda b: b.pool.packet(12345)),
    "memoryview": lambda b: memoryview(b.packet)[1:5].tobytes(),
    "bytes": lambda b: bytes(b.packet),
    "iterate": lambda b: sum(b.packet),
    "item": lambda b: b.packet[3],
    "items set": lambda b: b.packet.__setitem__(0, 200),
    "slice": lambda b: b.packet[3:9],
    "slice with a step": lambda b: b.packet[::-2],
    "slice set from bytes": lambda b: b.packet.__setitem__(slice(0, 3), b"abc"),
    "slice set from a view": lambda b: b.packet.__setitem__(slice(0, 3), memoryview(b"abc")),
    "slice set from an array": lambda b: b.packet.__setitem__(
        slice(0, 16), b.rows.T[:, ::2][:8, 0:2].copy("F")
    ),
    "slice set with a step": lambda b: b.packet.__setitem__(slice(0, 6, 2), b"abc"),
    "slice of a wrong length": refused(ValueError, lambda b: b.packet.__setitem__(slice(0, 3), b"abcd")),
    "window": lambda b: [
        b.packet.prepend(4),
        b.packet.append(4),
        b.packet.trim_front(4),
        b.packet.trim_back(4),
    ],
    "no room": refused(ValueError, lambda b: b.packet.prepend(10**6)),
    "tag": lambda b: [setattr(b.packet, "tag", 2**64 - 1), b.packet.tag],
    "attributes": lambda b: [getattr(b.packet, n) for n in ("handle", "nbytes", "headroom", "block_size")],
    "repr": lambda b: [repr(b.packet), repr(b.gone), repr(b.batch), repr(b.ring), repr(b.pool)],
    "asarray": lambda b: b.packet.asarray(),
    "asarray, shaped": lambda b: b.packet.asarray("<u2", (-1, 4))[2:],
    "asarray that does not fit": refused(ValueError, lambda b: b.packet.asarray("u1", (3, 3))),
    "asarray of objects": refused(TypeError, lambda b: b.packet.asarray("O")),
    "batch": lambda b: [b.batch[0], b.batch[-1], len(b.batch), [len(p) for p in b.batch]],
    "batch out of range": refused(IndexError, lambda b: b.batch[9]),
    "columns": lambda b: [b.batch.handles, b.batch.lengths, b.batch.tags],
    "columns set": lambda b: [
        setattr(b.batch, "lengths", 16),
        setattr(b.batch, "tags", [1, 2, 3, 2**63]),
        setattr(b.batch, "tags", np.arange(4, dtype="i2")),
    ],
    "columns refused": lambda b: [
        refused(OverflowError, lambda b: setattr(b.batch, "tags", [1, 2, 3, -4]))(b),
        refused(OverflowError, lambda b: setattr(b.batch, "tags", np.arange(4) - 2))(b),
        refused(TypeError, lambda b: setattr(b.batch, "tags", np.ones(4)))(b),
        refused(ValueError, lambda b: setattr(b.batch, "lengths", [1, 2]))(b),
        refused(ValueError, lambda b: setattr(b.batch, "lengths", [1, 2, 3, 10**6]))(b),
    ],
    "scatter, gather": lambda b: [b.batch.scatter(b.rows), b.batch.gather()],
    "scatter refused": refused(ValueError, lambda b: b.batch.scatter(b.rows[:3])),
    "put, get": Workbench.put_and_get,
    "put with keep": lambda b: [b.ring.put(b.packet, keep=True), b.ring.get_nowait()],
    "put with a view": lambda b: [p := b.pool.alloc(3), memoryview(p), b.ring.put(p), b.ring.get()],
    "put_many, get_many": Workbench.put_many_and_get_many,
    "put_many of packets": Workbench.put_tuple_and_iterate,
    "put_many of too many": refused(ValueError, lambda b: b.full.put_many(b.batch)),
    "put_many of junk": refused(TypeError, lambda b: b.ring.put_many([b.packet, 7])),
    "send": lambda b: [b.ring.send(b"hello"), b.ring.send(memoryview(b"abcd")[::2]), b.ring.get_many(2)],
    "full": refused(ssm.RingFull, lambda b: b.full.put(b.packet, timeout=1e-6)),
    "full, send": refused(ssm.RingFull, lambda b: b.full.send(b"x", block=False)),
    "empty": refused(ssm.RingEmpty, lambda b: b.ring.get_nowait()),
    "empty, many": refused(ssm.RingEmpty, lambda b: b.ring.get_many(4, timeout=0)),
    "shut down": refused(ssm.RingShutDown, lambda b: b.over.put(b.packet)),
    "shut down, iterated": lambda b: list(b.over),
    "acl": lambda b: [setattr(b.ring, "acl", ssm.Acl.RDWR), b.ring.acl],
    "ring": lambda b: b.pool.ring("r", capacity=8),
    "ring, as it is": lambda b: b.pool.ring("r"),
    "another ring object": lambda b: b.pool.ring("s").close(),
    "ring refused": refused(ssm.RingMismatch, lambda b: b.pool.ring("r", capacity=9)),
    "stats": lambda b: [b.pool.stats(), b.pool.holders(), b.pool.rings(), b.pool.reap(), b.pool.check()],
    "free_blocks": lambda b: b.pool.free_blocks(256),
    "free_blocks refused": refused(ValueError, lambda b: b.pool.free_blocks(257)),
    "pool attributes": lambda b: [b.pool.classes, b.pool.name, b.pool.size, b.pool.max_size],
    "pickle": lambda b: [pickle.loads(pickle.dumps(b.pool)), copy.copy(b.ring)],
    "text of an error": lambda b: str(caught(b.full.put_nowait, b.packet)),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_references_leak(make_pool, operation):
    """Many times the same: there are as many blocks of memory as before, and as many references to what is used.

    Not in each round, for the interpreter and numpy fill caches now and then; a leak would show in all of them.
    """
    bench = Workbench(make_pool(cache=0))
    participants = (
        bench.pool,
        bench.ring,
        bench.rows,
        *TYPES,
        _core.Pool,
        ssm.RingFull,
        ssm.PoolExhausted,
        None,
    )
    run = OPERATIONS[operation]

    def measure(times):
        for _ in range(times):
            run(bench)
        gc.collect()
        return np.array([sys.getallocatedblocks(), *map(sys.getrefcount, participants)])

    measure(400)
    marks = [measure(50) for _ in range(6)]
    grown = np.diff(marks, axis=0).min(axis=0)
    assert (grown[1:] < 25).all(), grown
    assert FREE_THREADED or grown[0] < 25, grown  # mimalloc is not asked
    bench.full.get_nowait()


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_attachments_do_not_leak(make_pool):
    pool = make_pool()
    fds = descriptors()

    def measure(times):
        for _ in range(times):
            with ssm.Pool.attach(pool.name) as other:
                other.ring("r").send(b"x")
                other.ring("r").get().free()
        gc.collect()
        return sys.getallocatedblocks()

    measure(5)
    marks = [measure(50) for _ in range(4)]  # the interpreter keeps some blocks at first
    assert FREE_THREADED or min(after - before for before, after in pairwise(marks)) < 50, marks
    assert descriptors() == fds


def test_spare_packets_are_bounded(make_pool):
    pool = make_pool(classes={256: 2000}, cache=0)
    size = pool.alloc(1).__sizeof__()
    for count in (1, 300, 2000, 3):
        packets = [pool.alloc(1) for _ in range(count)]
        assert len({p.handle for p in packets}) == count
        del packets
        assert sum(pool.free_blocks(256)) == 2000
    before = sys.getallocatedblocks()
    packets = [pool.alloc(1) for _ in range(2000)]
    del packets
    assert FREE_THREADED or abs(sys.getallocatedblocks() - before) < 20
    assert FREE_THREADED or size <= 64  # one cache line


def test_reused_objects_remember_nothing(pool):
    first = pool.alloc(8)
    first.tag = 5
    view = memoryview(first)
    first.free()
    view.release()
    del first, view
    second = pool.alloc(8)
    assert (second.tag, len(second)) == (0, 8)
    second[0] = 1
    del second
    sent = pool.alloc(8)
    pool.ring("r", capacity=2).put(sent)
    del sent
    third = pool.ring("r").get()
    assert len(third) == 8
    third.free()


# ---- types ------------------------------------------------------------------------------------


def test_types_are_final_and_immutable():
    for cls in (ssm.Packet, ssm.PacketBatch, ssm.Ring):
        assert cls.__module__ == "ssm"
        assert getattr(ssm, cls.__name__) is cls
        with pytest.raises(TypeError):
            type("Derived", (cls,), {})
        with pytest.raises(TypeError):
            cls()
    for cls in (ssm.Packet, ssm.PacketBatch, _core.Ring, _core.Pool):
        with pytest.raises(TypeError):
            cls.free = None
    with pytest.raises(TypeError, match="attach"):
        ssm.Pool()


def test_everything_public_is_documented_and_has_a_signature():
    for cls in TYPES:
        assert cls.__doc__
        for name, member in inspect.getmembers(cls):
            if name.startswith("_"):
                continue
            assert inspect.getdoc(member), f"{cls.__name__}.{name}"
            if callable(member):
                inspect.signature(member)
    assert str(inspect.signature(ssm.Pool.alloc)) == "(self, /, size, timeout=0)"
    put = "(self, /, pkt, block=True, timeout=None, *, keep=False, done=None)"
    assert str(inspect.signature(ssm.Ring.put)) == put


def test_pools_and_rings_can_be_referred_to_weakly(pool):
    ring = pool.ring("r", capacity=2)
    seen = []
    reference = weakref.ref(ring, seen.append)
    assert weakref.ref(pool)() is pool
    del ring
    gc.collect()
    assert reference() is None
    assert seen == [reference]


# ---- arguments --------------------------------------------------------------------------------


def test_keywords_need_not_be_interned(pool):
    name = "".join(["time", "out"])
    pool.alloc(1, **{name: 0}).free()
    pool.alloc(**{"".join(["si", "ze"]): 1}).free()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda p: p.alloc(), "missing"),
        (lambda p: p.alloc(1, 0, 0), "at most 2"),
        (lambda p: p.alloc(1, size=1), "multiple values"),
        (lambda p: p.alloc(1, sise=1), "'sise'"),
        (lambda p: p.alloc_many(1), "'size'"),
        (lambda p: p.ring("r", capacity=2).put(p.alloc(1), True, None, True), "at most 3"),
        (lambda p: p.ring("r", capacity=2).put(b"x"), "send"),
        (lambda p: p.ring("r", capacity=2).put_many(p.alloc(1)), "put()"),
        (lambda p: p.alloc(1).prepend(1.5), "float"),
    ],
)
def test_wrong_arguments_are_named(pool, call, text):
    with pytest.raises(TypeError) as caught:
        call(pool)
    assert text in str(caught.value)


@pytest.mark.parametrize("timeout", [0, 0.0, 1e-9, False, np.float64(0), np.int64(0), 10**30, float("inf")])
def test_timeouts_of_all_kinds(pool, timeout):
    pool.alloc(1, timeout=timeout).free()
    with pytest.raises(ssm.RingEmpty):
        pool.ring("r", capacity=2).get(block=False, timeout=timeout)


def test_a_nanosecond_is_a_wait(pool):
    """A time-out above 0 is not rounded down to one that does not wait."""
    with pytest.raises(ssm.RingEmpty):
        pool.ring("r", capacity=2).get(timeout=1e-12)


# ---- buffer protocol --------------------------------------------------------------------------


def test_buffer_details(pool):
    packet = pool.alloc(12)
    view = memoryview(packet)
    assert (view.format, view.itemsize, view.ndim, view.shape, view.strides) == ("B", 1, 1, (12,), (1,))
    assert (view.readonly, view.contiguous, view.obj is packet) == (False, True, True)
    view.cast("I")[1] = 0x01020304
    assert packet[4:8] == struct.pack("I", 0x01020304)
    struct.pack_into("<H", packet, 10, 0xBEEF)
    assert packet[10:] == b"\xef\xbe"
    assert io.BytesIO(b"0123456789ab").readinto(packet) == 12
    assert bytes(packet) == b"0123456789ab"
    assert bytearray(packet) == b"0123456789ab"
    assert b"".join([packet, packet]) == b"0123456789ab" * 2
    view.release()
    packet.free()


def test_partial_views_pin_the_block(make_pool):
    pool = make_pool(cache=0)
    packet = pool.alloc(8)
    packet[:] = b"abcdefgh"
    head = packet.trim_front(3)
    tail = packet.trim_back(2)
    assert (bytes(head), bytes(packet), bytes(tail)) == (b"abc", b"def", b"gh")
    packet.free()
    assert sum(pool.free_blocks(256)) == 63
    head[0] = ord("A")
    assert (bytes(head), bytes(tail)) == (b"Abc", b"gh")
    del head
    assert sum(pool.free_blocks(256)) == 63
    del tail
    assert sum(pool.free_blocks(256)) == 64


def test_assignment_from_itself(pool):
    packet = pool.alloc(10)
    packet[:] = b"0123456789"
    packet[2:10] = memoryview(packet)[0:8]
    assert bytes(packet) == b"0101234567"
    packet[::-1] = memoryview(packet)
    assert bytes(packet) == b"7654321010"
    packet.free()


def test_array_keeps_the_block(make_pool):
    pool = make_pool(cache=0)
    packet = pool.alloc(8)
    array = packet.asarray("<u4")
    assert array.flags.writeable
    assert not array.flags.owndata
    array[:] = [1, 2]
    ring = pool.ring("r", capacity=2)
    ring.put(packet)
    assert sum(h.blocks for h in pool.holders() if h.kind == "process") == 1
    got = ring.get()
    array[1] = 7
    assert bytes(got) == struct.pack("<2I", 1, 7)
    got.free()
    assert sum(pool.free_blocks(256)) == 63
    del array
    assert sum(pool.free_blocks(256)) == 64


def test_unaligned_arrays_know_it(pool):
    packet = pool.alloc(9)
    packet.trim_front(1)
    assert not packet.asarray("u4").flags.aligned
    packet.free()


# ---- errors -----------------------------------------------------------------------------------

STANDARD = {
    ssm.PoolExhausted: MemoryError,
    ssm.PacketTooLarge: ValueError,
    ssm.StaleHandle: ValueError,
    ssm.RingFull: queue.Full,
    ssm.RingEmpty: queue.Empty,
    ssm.RingShutDown: getattr(queue, "ShutDown", Exception),
    ssm.RingBusy: OSError,
    ssm.RingMismatch: ValueError,
    ssm.PoolMismatch: ValueError,
    ssm.HoldersExhausted: OSError,
    ssm.MetadataExhausted: OSError,
    ssm.LayoutMismatch: ValueError,
    ssm.PoolAbandoned: FileNotFoundError,
    ssm.CorruptionError: RuntimeError,
    ssm.QuotaExceeded: MemoryError,
}


@pytest.mark.parametrize("cls", STANDARD, ids=lambda c: c.__name__)
def test_error_classes(cls):
    assert issubclass(cls, ssm.SSMError)
    assert issubclass(cls, STANDARD[cls])
    error = cls("said")
    assert str(error) == "said"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (cls, "said")


def caught(function, *args, **kwargs):
    with pytest.raises(ssm.SSMError) as info:
        function(*args, **kwargs)
    return info.value


def test_exhausted_says_who_holds_the_blocks(make_pool):
    pool = make_pool()
    held = [pool.alloc(2000) for _ in range(16)]
    error = caught(pool.alloc, 2000)
    text = str(error)
    for part in ("2000 bytes", "2048", "16", pool.name, f"pid {os.getpid()}", "timeout"):
        assert part in text
    assert str(pickle.loads(pickle.dumps(error))) == text
    assert "1000" in str(caught(pool.alloc_many, 1000, 2000))
    del held


def test_errors_of_rings_give_value_limit_and_remedy(pool):
    ring = pool.ring("frames", capacity=2)
    ring.send(b"a")
    ring.send(b"b")
    text = str(caught(ring.send, b"c", timeout=0.001))
    assert "'frames'" in text
    assert "2" in text
    assert "capacity=" in text
    with ring.get_many(2):
        empty = caught(ring.get_nowait)
    assert "'frames'" in str(empty)
    assert str(pickle.loads(pickle.dumps(empty))) == str(empty)
    ring.shutdown()
    assert "FLOWDOWN" in str(caught(ring.get))
    assert "'frames'" in str(caught(pool.ring, "frames", capacity=3))


def test_a_failed_put_leaves_the_packet(pool):
    other = pool.ring("other", capacity=1)
    other.send(b"x")
    packet = pool.alloc(3)
    packet[:] = b"abc"
    for timeout in (0, 0.001):
        with pytest.raises(ssm.RingFull):
            other.put(packet, timeout=timeout)
        with pytest.raises(ssm.RingFull):
            other.put_many([packet], timeout=timeout)
    assert bytes(packet) == b"abc"
    other.get().free()
    other.put(packet)
    other.get().free()


# ---- numpy is optional until it is asked for ----------------------------------------------------


def test_import_takes_neither_numpy_nor_threads():
    run_python("import sys, ssm; assert 'numpy' not in sys.modules")


def test_without_numpy_all_but_arrays_works(name):
    run_python(f"""
        import sys
        sys.modules["numpy"] = None
        import ssm
        with ssm.Pool.create({name!r}, classes={{2048: 8}}) as pool:
            pool.unlink()
            batch = pool.alloc_many(2, 4)
            batch.tags = 3
            batch.scatter(memoryview(b"abcdefgh").cast("B", (2, 4)))
            assert [bytes(p) for p in batch] == [b"abcd", b"efgh"]
            for ask in (lambda: batch[0].asarray(), batch.gather, lambda: batch.handles):
                try:
                    ask()
                except ImportError:
                    pass
                else:
                    sys.exit("no ImportError")
            batch.free()
    """)


def test_elsewhere_import_says_so_in_one_sentence():
    text = run_python("""
        import sys
        sys.platform = "darwin"
        try:
            import ssm
        except ImportError as error:
            print(error)
    """)
    assert "Linux" in text
    assert text.count("\n") == 1


# ---- closing under a call -------------------------------------------------------------------------


def blocked(function):
    """Start the call in a thread, wait until it sleeps; returns a function that waits for its error."""
    outcome = []

    def run():
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    time.sleep(0.1)
    assert not outcome, "it did not wait"

    def result():
        thread.join(SOON_S)
        assert not thread.is_alive(), "it hangs"
        return outcome[0]

    return result


@pytest.mark.parametrize(
    "what", ["get", "get_many", "iterate", "put", "put_many", "send", "alloc", "alloc_many"]
)
def test_closing_the_pool_ends_what_waits(make_pool, what):
    watcher = make_pool(classes={256: 4}, cache=0)
    pool = ssm.Pool.attach(watcher.name)
    empty, full = pool.ring("empty", capacity=2), pool.ring("full", capacity=1)
    full.send(b"x")
    held = [pool.alloc(1) for _ in range(3 if what != "alloc_many" else 1)]
    calls = {
        "get": empty.get,
        "get_many": lambda: empty.get_many(2),
        "iterate": lambda: list(empty),
        "put": lambda: full.put(held[0]),
        "put_many": lambda: full.put_many(held[:1]),
        "send": lambda: full.send(b"y"),
        "alloc": lambda: pool.alloc(1, timeout=None),
        "alloc_many": lambda: pool.alloc_many(4, 1, timeout=None),
    }
    result = blocked(calls[what])
    pool.close()
    error = result()
    assert isinstance(error, ValueError)
    assert "closed" in str(error)
    held.clear()
    assert {h.pid: h.blocks for h in watcher.holders() if h.kind == "process"} == {os.getpid(): 0}
    watcher.ring("full").get().free()


@pytest.mark.parametrize("what", ["get", "put"])
def test_closing_the_ring_ends_what_waits(pool, what):
    ring = pool.ring("r", capacity=1)
    packet = pool.alloc(3)
    if what == "put":
        ring.send(b"x")
    result = blocked(ring.get if what == "get" else lambda: ring.put(packet))
    ring.close()
    error = result()
    assert isinstance(error, ValueError)
    assert "closed" in str(error)
    assert len(packet) == 3
    packet.free()
    again = pool.ring("r")
    assert again is not ring
    if what == "put":
        again.get().free()


def test_a_packet_freed_under_a_waiting_put(pool):
    ring = pool.ring("r", capacity=1)
    ring.send(b"x")
    packet = pool.alloc(3)
    result = blocked(lambda: ring.put(packet))
    packet.free()
    assert isinstance(result(), ssm.StaleHandle)
    ring.get().free()
    assert ring.empty()


def test_a_view_made_under_a_waiting_put(make_pool):
    pool = make_pool(cache=0)
    ring = pool.ring("r", capacity=1)
    ring.send(b"x")
    packet = pool.alloc(3)
    packet[:] = b"abc"
    result = blocked(lambda: ring.put(packet))
    view = memoryview(packet)
    ring.get().free()
    assert result() is True
    with ring.get() as got:
        view[0] = ord("A")
        assert bytes(got) == b"Abc"
    with pytest.raises(ssm.StaleHandle):
        len(packet)
    assert sum(pool.free_blocks(256)) == 63
    view.release()
    assert sum(pool.free_blocks(256)) == 64


def test_a_signal_handler_may_use_the_pool(pool):
    """While the call that it interrupts sleeps."""
    ring, other = pool.ring("r", capacity=2), pool.ring("other", capacity=2)
    seen = []

    def handler(number, frame):
        with pytest.raises(ssm.RingEmpty):
            other.get(timeout=0.01)
        seen.append(number)
        ring.send(b"from the handler")

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with ring.get(timeout=SOON_S) as packet:
            assert bytes(packet) == b"from the handler"
    finally:
        signal.signal(signal.SIGALRM, before)
    assert seen == [signal.SIGALRM]


def test_an_exception_of_a_signal_handler_loses_nothing(pool):
    class HandlerError(Exception):
        pass

    def handler(number, frame):
        raise HandlerError

    ring = pool.ring("r", capacity=1)
    ring.send(b"x")
    packet = pool.alloc(3)
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(HandlerError):
            ring.put(packet)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert len(packet) == 3
    assert ring.qsize() == 1
    packet.free()
    ring.get().free()


# ---- fork ---------------------------------------------------------------------------------------------


def close_with_inherited_views(talk, pool, packet, view, array):
    """The views are the parent's pins, of which this process's core knows nothing: the memory must stay."""
    with pytest.raises(ssm.StaleHandle):
        len(packet)
    own = pool.alloc(4)
    own[:] = b"mine"
    pool.close()
    assert bytes(view) == b"parent"
    assert bytes(array) == b"parent"
    view[0] = ord("P")
    view.release()
    value = bytes(array)
    del array
    return value


def test_views_that_a_fork_left_stay_mapped(pool, children):
    packet = pool.alloc(6)
    packet[:] = b"parent"
    view, array = memoryview(packet), packet.asarray()
    child = children.start(close_with_inherited_views, pool, packet, view, array, method="fork")
    assert child.result() == b"Parent"
    assert bytes(packet) == b"Parent"
    view.release()
    del array
    packet.free()


# ---- sub-interpreters ---------------------------------------------------------------------------------

SUB_INTERPRETERS = """
    import sys, threading
    try:
        import _interpreters as interpreters
    except ImportError:
        import _xxsubinterpreters as interpreters
    import numpy, ssm

    CODE = '''
    import os, sys
    sys.path[:] = PATH
    import ssm
    assert "numpy" not in sys.modules
    pool = ssm.Pool.attach(NAME)
    ring = pool.ring("r", capacity=16)
    for k in range(3000):
        if PUTS:
            packet = pool.alloc(8, timeout=30)
            packet[:] = k.to_bytes(8, "little")
            ring.put(packet, timeout=30)
        else:
            with ring.get(timeout=30) as packet:
                assert int.from_bytes(packet, "little") < 3000
    try:
        pool.alloc(1).asarray()
    except ImportError:
        os.write(1, b"no-numpy ")
    kept = pool.alloc(9), memoryview(pool.alloc(9)), pool.alloc_many(2, 9)
    os.write(1, b"done ")
    '''

    def run(puts):
        interpreter = interpreters.create()
        head = f"PATH, NAME, PUTS = {sys.path!r}, {pool.name!r}, {puts!r}\\n"
        failure = interpreters.run_string(interpreter, head + CODE)
        if failure is not None:
            print(failure)
        interpreters.destroy(interpreter)

    with ssm.Pool.create(NAME, classes={2048: 64}) as pool:
        pool.alloc(1).asarray()  # numpy is loaded here, and not there
        threads = [threading.Thread(target=run, args=(k % 2 == 0,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        pool.unlink()
        pool.reap()
        assert pool.check() == []
        assert sum(h.blocks for h in pool.holders()) == 0, pool.holders()
"""


@pytest.mark.skipif(FREE_THREADED, reason="importing numpy in a sub-interpreter is not what this is about")
def test_sub_interpreters(name):
    """Each with a GIL of its own, where Python has that: two put, two get, and what they keep goes back."""
    code = f"NAME = {name!r}\n" + textwrap.dedent(SUB_INTERPRETERS)
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, timeout=SOON_S * 2)
    assert run.returncode == 0, run.stderr
    assert sorted(run.stdout.split()) == ["done"] * 4 + ["no-numpy"] * 4, run.stdout + run.stderr


def test_the_module_is_loaded_once_per_interpreter():
    assert importlib.import_module("ssm._core") is _core
    assert ssm.Ring.__base__ is _core.Ring


# ---- names ----------------------------------------------------------------------------------------------


def test_pools_are_known_by_their_first_bytes(pool):
    with Path(f"/dev/shm{pool.name}").open("rb") as file:
        assert file.read(len(names.MAGIC)) == names.MAGIC


def test_names_work_without_posix_ipc(monkeypatch, new_name):
    """As in a sub-interpreter, or without the GIL."""
    monkeypatch.setattr(names, "posix_ipc", None)
    name = new_name()
    with ssm.Pool.create(name, classes={2048: 8}) as pool:
        assert pool.name in ssm.list_pools()
        with pytest.raises(FileExistsError):
            ssm.Pool.create(name)
        ssm.Pool.attach(name).close()
        pool.unlink()
    with pytest.raises(FileNotFoundError):
        ssm.Pool.attach(name)
    with pytest.raises(FileNotFoundError):
        ssm.Pool.unlink(name)


def test_create_with_exist_ok_looks_at_the_parameters(make_pool):
    pool = make_pool()
    with pytest.raises(ssm.PoolMismatch, match="classes"):
        ssm.Pool.create(pool.name, exist_ok=True, classes={4096: 4}, headroom=32, tailroom=16)


def test_attach_waits_for_the_name(make_pool, new_name):
    name = new_name()
    found = blocked(lambda: ssm.Pool.attach(name, timeout=SOON_S))
    pool = make_pool(name)
    other = found()
    assert other.generation == pool.generation
    other.close()


def test_one_object_for_all_pickles(make_pool):
    pool = make_pool()
    ring = pool.ring("r", capacity=4)
    assert pickle.loads(pickle.dumps(pool)) is pool
    assert pickle.loads(pickle.dumps([ring, pool])) == [ring, pool]
    data = pickle.dumps(pool)
    pool.close()
    first, second = pickle.loads(data), pickle.loads(data)
    assert first is second
    assert first is not pool
    first.close()


def test_ephemeral_name_goes_with_the_last_view(name):
    pool = ssm.Pool.create(name, classes={2048: 8}, ephemeral=True)
    view = memoryview(pool.alloc(3))
    pool.close()
    assert Path("/dev/shm", name).exists()  # this process holds a block still
    del pool, view
    wait_until(lambda: not Path("/dev/shm", name).exists(), "the name is gone")
