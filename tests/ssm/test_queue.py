# SPDX-License-Identifier: Apache-2.0
"""ssm.Queue: any object, in order, once; nothing is left when somebody is killed, and nothing when all are gone."""

import contextlib
import gc
import os
import pickle
import queue
import random
import re
import socket
import struct
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ssm
import ssm.queue
from tests.conftest import left_in_shm
from tests.isolation import become, need_root

SOON_S = 30.0
CLASSES = {512: 64, 4096: 32, 65536: 8}


@pytest.fixture
def pool(make_pool):
    return make_pool(classes=CLASSES, headroom=0, tailroom=0)


@pytest.fixture
def make_queue(new_name):
    """Queues with a pool of their own, under names of this test."""

    def make(maxsize=0, **options):
        return ssm.Queue(maxsize, name=new_name(), **options)

    return make


def there_and_back(queue, obj):
    queue.put(obj, timeout=SOON_S)
    return queue.get(timeout=SOON_S)


def assert_all_is_free(pool):
    gc.collect()
    pool.reap()
    assert pool.check() == []
    assert [holder for holder in pool.holders() if holder.blocks] == []


# ---- what arrives ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "obj",
    [
        None,
        7,
        (1, "two", 3.0),
        {"k": [b"v", {1, 2}]},
        "x" * 5000,
        b"y" * 60_000,
        bytearray(30_000),
        len,
        ValueError("v"),
    ],
    ids=lambda obj: type(obj).__name__,
)
def test_objects(pool, obj):
    got = there_and_back(ssm.Queue(pool=pool), obj)
    assert type(got) is type(obj)
    assert repr(got) == repr(obj)
    del got
    assert_all_is_free(pool)


@pytest.mark.parametrize("count", [0, 1, 1000, 7000])
def test_arrays(pool, count):
    array = np.arange(count, dtype="f8")
    got = there_and_back(ssm.Queue(pool=pool), {"a": array, "b": 1})["a"]
    np.testing.assert_array_equal(got, array)
    assert got.dtype == array.dtype
    assert got.flags.writeable


def test_a_large_array_is_a_view_that_keeps_its_packet(pool):
    q = ssm.Queue(pool=pool)
    got = there_and_back(q, np.full((60, 1000), 7, "u1"))
    assert sum(pool.free_blocks(65536)) == 7
    address = got.__array_interface__["data"][0]
    maps = [
        line.split()[0].split("-")
        for line in Path("/proc/self/maps").read_text().splitlines()
        if pool.name in line
    ]
    assert any(int(first, 16) <= address < int(end, 16) for first, end in maps)
    q.close()
    part = got[3:5]
    del got
    assert part.sum() == 14000
    del part
    gc.collect()
    assert_all_is_free(pool)


def test_several_buffers_are_views_of_one_packet(pool):
    arrays = [np.full(20_000, i, "u1") for i in range(3)]
    got = there_and_back(ssm.Queue(pool=pool), arrays)
    assert [a.tobytes() for a in got] == [a.tobytes() for a in arrays]
    assert all(a.__array_interface__["data"][0] % 64 == 0 for a in got)
    assert sum(pool.free_blocks(65536)) == 7


def test_read_only_stays_read_only(pool):
    array = np.zeros(30_000, "u1")
    array.flags.writeable = False
    assert not there_and_back(ssm.Queue(pool=pool), array).flags.writeable


def test_pickle_buffers_arrive_as_views(pool):
    got = there_and_back(ssm.Queue(pool=pool), pickle.PickleBuffer(bytearray(b"z" * 30_000)))
    assert type(got) is memoryview
    assert got == b"z" * 30_000


def test_arrow_buffers_are_views(pool):
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"n": list(range(5000))})
    got = there_and_back(ssm.Queue(pool=pool), table)
    assert got.equals(table)
    assert sum(pool.free_blocks(65536)) == 7


@pytest.mark.parametrize(
    "obj", [b"a" * 200_000, "s" * 100_000, [b"l" * 40_000] * 4], ids=["bytes", "str", "list"]
)
def test_larger_than_any_class(pool, obj):
    q = ssm.Queue(2, pool=pool)
    q.put(obj)
    assert q.qsize() == 1
    assert q.get() == obj
    assert_all_is_free(pool)


def test_buffers_in_several_packets(pool):
    arrays = [np.full(size, i, "u1") for i, size in enumerate([40_000, 150_000, 20_000, 60_000])]
    got = there_and_back(ssm.Queue(pool=pool), arrays)
    assert [a.tobytes() for a in got] == [a.tobytes() for a in arrays]
    assert all(a.flags.writeable for a in got)
    del got
    assert_all_is_free(pool)


def test_thousands_of_buffers(make_pool):
    pool = make_pool(classes={1 << 20: 64}, headroom=0, tailroom=0)
    arrays = [np.full(16 << 10, i % 251, "u1") for i in range(2500)]
    got = there_and_back(ssm.Queue(pool=pool), arrays)
    assert all(a[0] == a[-1] == i % 251 for i, a in enumerate(got))
    assert len(got) == 2500


def test_as_many_buffers_as_small_blocks_can_list(make_pool):
    pool = make_pool(classes={256: 1024}, headroom=0, tailroom=0)
    arrays = [np.full(16 << 10, i, "u1") for i in range(15)]
    got = there_and_back(ssm.Queue(pool=pool), arrays)
    assert [a.tobytes() for a in got] == [a.tobytes() for a in arrays]
    with pytest.raises(ssm.PacketTooLarge):
        ssm.Queue(pool=pool).put([*arrays, *map(np.copy, arrays)])


def test_an_arena_keeps_large_buffers_whole(make_pool):
    pool = make_pool(classes={1024: 16}, arena=1 << 20, headroom=0, tailroom=0)
    q = ssm.Queue(pool=pool)
    got = there_and_back(q, np.arange(100_000, dtype="f4"))
    whose = got
    while isinstance(whose, np.ndarray):
        whose = whose.base
    assert type(whose.obj) is ssm.Packet  # not put together from several
    del whose
    assert got[-1] == 99_999
    for size in (2 << 20, (1 << 20) + 4096):  # three packets, and two
        with pytest.raises(ssm.PacketTooLarge, match="larger memory="):
            q.put(np.zeros(size, "u1"))
    del got
    assert_all_is_free(pool)


def test_too_large_for_the_pool(pool):
    q = ssm.Queue(pool=pool)
    with pytest.raises(ssm.PacketTooLarge, match="larger memory="):
        q.put(b"a" * 1_000_000)
    assert q.empty()
    assert_all_is_free(pool)


def advised(error: BaseException) -> int:
    """The memory= that the error says is enough."""
    found = re.search(r"larger memory= \(([\d,]+) is enough\)", str(error))
    assert found
    return int(found[1].replace(",", ""))


@pytest.mark.parametrize("memory", [16 << 20, 2 << 30, 3 << 30, 1 << 40])
def test_one_object_may_have_all_large_blocks(memory):
    blocks = ssm.queue_memory.blocks(memory)
    largest = max(blocks)
    assert blocks[largest] <= ssm._core.CHAIN_MAX
    assert memory // 2 - largest < blocks[largest] * largest <= memory // 2
    assert sum(size * count for size, count in blocks.items()) <= memory


def test_an_object_of_more_packets_than_a_message_has(make_pool):
    pool = make_pool(classes={256: 1100}, headroom=0, tailroom=0)
    q = ssm.Queue(pool=pool)
    with pytest.raises(
        ssm.PacketTooLarge,
        match=r"1,0\d\d packets of 256 bytes, and an object may have 1,024: .* pool with larger",
    ) as error:
        q.put(bytes(265_000))
    blocks = ssm.queue_memory.blocks(advised(error.value))
    assert max(blocks) * blocks[max(blocks)] > 265_000
    assert q.empty()
    assert_all_is_free(pool)


def test_the_advice_is_true(make_queue):
    data = np.ones(9_000_000, "u1")
    with pytest.raises(ssm.PacketTooLarge, match="larger memory=") as error:
        make_queue(memory=16 << 20).put(data)
    q = make_queue(memory=advised(error.value))
    q.put(data, timeout=5)
    assert q.get(timeout=5).nbytes == data.nbytes


def test_sockets_and_connections_as_multiprocessing_sends_them(pool):
    left, right = socket.socketpair()
    with left, right:
        got = there_and_back(ssm.Queue(pool=pool), left)
        with got:
            got.sendall(b"hello")
            assert right.recv(5) == b"hello"
    gc.collect()


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(max_size=3000),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(objects=st.lists(VALUES, max_size=8))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nested_objects_in_order(pool, objects):
    q = ssm.Queue(pool=pool, name="nested")
    for obj in objects:
        q.put(obj)
    assert q.qsize() == len(objects)
    assert [q.get() for _ in objects] == objects
    assert q.empty()


@given(
    lengths=st.lists(st.integers(0, 1000), min_size=1, max_size=12),
    start=st.integers(1, 90),
    room=st.integers(100, 400),
)
def test_the_layout_has_each_byte_once_and_cuts_only_what_is_too_large(lengths, start, room):
    places, sizes = ssm.message.layout(start, lengths, room)
    taken = {(0, byte) for byte in range(start)}
    for length, pieces in zip(lengths, places, strict=True):
        assert sum(end - first for _, first, end in pieces) == length
        assert len(pieces) == 1 or length > room
        for packet, first, end in pieces:
            assert first % 64 == 0 or first == start
            assert end <= sizes[packet] <= room
            new = {(packet, byte) for byte in range(first, end)}
            assert not new & taken
            taken |= new


@given(lengths=st.lists(st.integers(0, 300), min_size=1, max_size=8), room=st.integers(60, 1000))
def test_what_lies_in_one_packet_lies_as_the_layout_says(lengths, room):
    places, sizes = ssm.message.layout(ssm.message.start_of(lengths), lengths, room)
    fits = ssm.message.whole(lengths, room)
    assert (fits is None) == (len(sizes) > 1)
    if fits is not None:
        starts, size = fits
        assert [size] == sizes
        assert [[(0, at, at + n)] for at, n in zip(starts, lengths, strict=True)] == places


def test_an_array_takes_few_calls_of_python():
    """Of ours, on its way through a queue: layouts and texts of errors are made where they are needed only."""
    calls = []
    q = ssm.Queue()
    array = np.zeros(100_000, "u1")
    folder = str(Path(ssm.__file__).parent)

    def note(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(folder):
            calls.append(frame.f_code.co_name)

    for _ in range(3):  # what is made once, and the look whether it may be lent, come first
        calls.clear()
        sys.setprofile(note)
        q.put(array)
        got = q.get()
        sys.setprofile(None)
        assert got.nbytes == array.nbytes
    q.close()
    assert len(calls) <= 24, calls


# ---- errors ------------------------------------------------------------------------------------


class Unwilling:
    def __reduce__(self):
        raise AttributeError("not me")


def test_what_cannot_be_pickled_raises_in_put(pool):
    q = ssm.Queue(1, pool=pool)
    with pytest.raises(AttributeError, match="not me"):
        q.put([np.zeros(20_000, "u1"), Unwilling()])
    assert there_and_back(q, 1) == 1
    assert_all_is_free(pool)


def test_full_and_empty(pool):
    q = ssm.Queue(2, pool=pool)
    assert (q.maxsize, q.empty(), q.full(), q.qsize()) == (2, True, False, 0)
    q.put(1)
    q.put_nowait(2)
    assert (q.empty(), q.full(), q.qsize()) == (False, True, 2)
    for wait in ({"block": False}, {"timeout": 0.01}, {"timeout": -1}):
        with pytest.raises(queue.Full):
            q.put(np.zeros(30_000, "u1"), **wait)
    assert (q.get(), q.get_nowait()) == (1, 2)
    for wait in ({"block": False}, {"timeout": 0.01}, {"timeout": -1}):
        with pytest.raises(queue.Empty):
            q.get(**wait)
    assert_all_is_free(pool)


def test_a_full_queue_gives_the_memory_back_at_once(pool):
    q = ssm.Queue(1, pool=pool)
    q.put(1)
    with pytest.raises(queue.Full) as caught:
        q.put(np.zeros(50_000, "u1"), block=False)
    assert [holder.kind for holder in pool.holders() if holder.blocks] == [
        "ring"
    ]  # although the traceback is there
    del caught
    assert q.get() == 1


def fill(q, obj):
    count = 0
    with contextlib.suppress(queue.Full):
        while True:
            q.put_nowait(obj)
            count += 1
    return count


@pytest.mark.parametrize("obj", [b"small", np.zeros(50_000, "u1")], ids=["plain", "parts"])
def test_no_memory_is_full(pool, obj):
    q = ssm.Queue(pool=pool)
    count = fill(q, obj)
    with pytest.raises(queue.Full) as caught:
        q.put(obj, timeout=0.01)
    assert isinstance(caught.value, ssm.QueueExhausted)
    assert "no block came free" in str(caught.value)
    for _ in range(count):
        q.get()
    assert_all_is_free(pool)


def test_closed(pool):
    q = ssm.Queue(pool=pool)
    with pytest.raises(AssertionError, match="not closed"):
        q.join_thread()
    q.put(1)
    q.close()
    q.close()
    q.join_thread()
    q.cancel_join_thread()
    for call in (lambda: q.put(1), q.get, q.put_nowait.__get__(q), lambda: pickle.dumps(q)):
        with pytest.raises((ValueError, TypeError)):
            call()
    with pytest.raises(ValueError, match="is closed"):
        q.get()
    assert (q.qsize(), q.empty(), q.full()) == (0, True, False)


def test_shutdown(pool):
    q = ssm.Queue(pool=pool)
    q.put(1)
    assert not q.is_shutdown
    q.shutdown()
    assert q.is_shutdown
    with pytest.raises(ssm.RingShutDown):
        q.put(2)
    assert q.get() == 1
    with pytest.raises(ssm.RingShutDown):
        q.get()


def test_shutdown_immediate_drops_what_is_there(pool):
    q = ssm.Queue(pool=pool)
    q.put(np.zeros(50_000, "u1"))
    q.shutdown(immediate=True)
    with pytest.raises(ssm.RingShutDown):
        q.get()
    assert_all_is_free(pool)


def foreign_messages():
    head = ssm.message.HEADER
    mark = ssm.message.PARTS
    yield b"", "nothing"
    yield b"hello", "no mark"
    yield mark, "short"
    yield head.pack(mark, 0, 1, 65536), "no parts"
    yield head.pack(mark, 2**32 - 1, 1, 65536), "too many parts"
    yield head.pack(mark, 1, 0, 65536) + bytes(8), "no packets"
    yield head.pack(mark, 1, 2000, 65536) + bytes(8), "too many packets"
    yield head.pack(mark, 1, 1, 65536) + struct.pack("<Q", 2**63), "longer than it is"
    yield head.pack(mark, 1, 1, 65536) + struct.pack("<Q", 100) + bytes(20), "cut"
    yield head.pack(mark, 1, 1, 0) + bytes(8), "no room"
    yield head.pack(mark, 2, 1, 2**64 - 1) + struct.pack("<QQ", 2**62, 2**62), "huge"


FOREIGN = {why: data for data, why in foreign_messages()}


@pytest.mark.parametrize("data", FOREIGN.values(), ids=FOREIGN)
def test_foreign_packets_are_named_and_freed(pool, data):
    q = ssm.Queue(pool=pool, name="r")
    packet = pool.alloc(max(1, len(data)))
    packet[: len(data)] = data
    pool.ring("r").put(packet)
    with pytest.raises(ssm.MessageMismatch, match="not written by Queue") as caught:
        q.get()
    assert_all_is_free(pool)  # although the traceback is there
    del caught
    assert there_and_back(q, 1) == 1


def test_a_pickle_that_fails_costs_its_message_only(pool):
    q = ssm.Queue(pool=pool, name="r")
    pool.ring("r").send(ssm.message.PLAIN + b"garbage")
    with pytest.raises(pickle.UnpicklingError):
        q.get()
    assert there_and_back(q, 1) == 1
    assert_all_is_free(pool)


def test_a_pool_of_crumbs_is_refused(make_pool):
    pool = make_pool(classes={128: 8}, headroom=0, tailroom=0)
    with pytest.raises(ValueError, match="larger"):
        ssm.Queue(pool=pool)


# ---- names, processes ---------------------------------------------------------------------------


def echo(talk, source, sink):
    while (obj := source.get(timeout=SOON_S)) is not None:
        sink.put(obj, timeout=SOON_S)
    return source.maxsize


def test_queues_as_arguments(make_queue, children, start_method):
    source, sink = make_queue(3), make_queue()
    child = children.start(echo, source, sink, method=start_method)
    for obj in (1, "two", np.full(30_000, 3, "u1")):
        source.put(obj)
        got = sink.get(timeout=SOON_S)
        assert np.array_equal(got, obj)
    source.put(None)
    assert child.result() == 3


def test_through_a_queue(pool):
    q = ssm.Queue(3, pool=pool)
    again = there_and_back(q, q)
    q.put("x")
    assert again.get() == "x"
    assert (again.maxsize, again.name) == (3, q.name)
    again.close()
    assert there_and_back(q, 1) == 1


def test_by_name(pool, make_queue):
    ssm.Queue(4, pool=pool, name="jobs").put(1)
    assert ssm.Queue(pool=pool, name="jobs").get() == 1
    with pytest.raises(ssm.RingMismatch):
        ssm.Queue(5, pool=pool, name="jobs")
    own = make_queue()
    own.put("own")
    assert ssm.Queue(name=own.pool.name).get() == "own"


def test_its_own_pool_goes_with_it(make_queue):
    q = make_queue()
    name = q.pool.name.removeprefix("/")
    q.put(np.zeros(100_000))
    array = q.get()
    q.close()
    assert left_in_shm(name) == [name]
    assert array.sum() == 0
    del array
    gc.collect()
    assert left_in_shm(name) == []


def test_memory_and_classes(make_queue):
    assert make_queue(memory=4 << 20).pool.size < 10 << 20
    assert make_queue(classes={4096: 8}).pool.classes == {4096: 8}
    grown = make_queue(memory=1 << 20, max_memory=8 << 20).pool
    assert (grown.arena_reserved, grown.arena) == (1 << 20, 8 << 20)


def produce(talk, q, number, count):
    for i in range(count):
        q.put((number, i, np.full(20_000, i % 251, "u1") if i % 10 == 0 else b"x" * (i % 3000)))


def consume(talk, q):
    seen = []
    while (message := q.get(timeout=SOON_S)) is not None:
        number, i, payload = message
        assert len(payload) == (20_000 if i % 10 == 0 else i % 3000)
        assert payload[0] == i % 251 if i % 10 == 0 else True
        seen.append((number, i))
    return seen


@pytest.mark.usefixtures("nobody_looks")
def test_many_producers_and_consumers(make_queue, children):
    q = make_queue(8)
    consumers = [children.start(consume, q) for _ in range(2)]
    producers = [children.start(produce, q, number, 200) for number in range(3)]
    for producer in producers:
        producer.result()
    for _ in consumers:
        q.put(None)
    seen = [message for consumer in consumers for message in consumer.result()]
    assert sorted(seen) == [(number, i) for number in range(3) for i in range(200)]


def test_threads_share_a_queue(pool):
    q, seen = ssm.Queue(4, pool=pool), []

    def run():
        for i in range(100):
            q.put(i)
            seen.append(q.get())

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON_S)
    assert sorted(seen) == sorted(list(range(100)) * 4)


class PutsWhenPickled:
    def __init__(self, q):
        self.q = q

    def __reduce__(self):
        self.q.put("inner")
        return str, ("outer",)


def test_put_within_put(pool):
    q = ssm.Queue(pool=pool)
    there_and_back(q, 0)  # with what it keeps for the next put
    q.put(PutsWhenPickled(q))
    assert [q.get(), q.get()] == ["inner", "outer"]


# ---- large ones among small ones --------------------------------------------------------------------

BLOCK = 64 << 10


def put_without_pause(talk, q, nbytes):
    data = np.zeros(nbytes, "u1")
    while True:
        try:
            q.put(data, timeout=1)
        except ssm.RingShutDown:
            return
        except queue.Full:
            pass


def put_some(talk, q, nbytes, count):
    for _ in range(count):
        q.put(np.ones(nbytes, "u1"), timeout=SOON_S)


def test_a_large_object_among_small_ones(make_queue, children):
    """Each wants a block; one wants nearly all of them, again and again."""
    q = make_queue(8, classes={1024: 16, BLOCK: 7})
    small = [children.start(put_without_pause, q, BLOCK // 2) for _ in range(3)]
    large = children.start(put_some, q, 6 * BLOCK, 3)
    sizes = []
    while sizes.count(6 * BLOCK) < 3:
        sizes.append(q.get(timeout=SOON_S).nbytes)
        time.sleep(0.001)
    assert sizes.count(BLOCK // 2) > 10
    large.result()
    q.shutdown(immediate=True)
    for child in small:
        child.result()


@pytest.mark.usefixtures("nobody_looks")
def test_two_large_writers(make_queue, children):
    """Each object wants more than half of the blocks: one by one, the two would wait for each other's."""
    q = make_queue(8, classes={1024: 16, BLOCK: 7})
    writers = [children.start(put_some, q, 5 * BLOCK, 100) for _ in range(2)]
    for _ in range(200):
        assert q.get(timeout=SOON_S).nbytes == 5 * BLOCK
    for writer in writers:
        writer.result()


def test_the_time_out_counts_once(make_queue):
    """First there is no memory, for most of the time; then there is no place."""
    q = make_queue(1, classes={1024: 16, BLOCK: 1})
    kept = q.pool.alloc(BLOCK)
    q.put("small")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: time.sleep(1.5) or kept.free())
        began = time.monotonic()
        with pytest.raises(queue.Full) as caught:
            q.put(np.zeros(BLOCK // 2, "u1"), timeout=2)
    assert isinstance(caught.value, ssm.RingFull)
    assert 2 <= time.monotonic() - began < 3  # counted twice, 3.5


# ---- death --------------------------------------------------------------------------------------


def put_for_ever(talk, q):
    i = 0
    while True:
        q.put((i, np.full(20_000, i % 251, "u1") if i % 2 else bytes([i % 251]) * 1000))
        i += 1


def get_for_ever(talk, q):
    kept = []
    while True:
        kept = [*kept[-2:], q.get()]


def test_a_killed_producer(pool, children):
    q = ssm.Queue(4, pool=pool)
    for _ in range(6):
        child = children.start(put_for_ever, q)
        first = q.get(timeout=SOON_S)
        time.sleep(random.random() * 0.01)
        child.kill()
        last = first[0]
        while True:
            try:
                i, payload = q.get(timeout=0.05)
            except queue.Empty:
                break
            assert i == last + 1
            assert set(bytes(payload)) == {i % 251}
            assert len(payload) == (20_000 if i % 2 else 1000)
            last = i
        del first
    payload = None
    assert_all_is_free(pool)


def test_a_killed_consumer(pool, children):
    q = ssm.Queue(4, pool=pool)
    for _ in range(4):
        child = children.start(get_for_ever, q)
        for i in range(20):
            q.put((i, np.full(20_000, i, "u1")), timeout=SOON_S)
        child.kill()
    while not q.empty():
        i, payload = q.get()
        assert set(payload.tobytes()) == {i}
    payload = None
    assert_all_is_free(pool)


def wait_for_one(talk, q):
    q.get()


def test_killed_in_its_sleep(pool, children):
    q = ssm.Queue(4, pool=pool)
    child = children.start(wait_for_one, q)
    child.wait_asleep()
    child.kill()
    assert there_and_back(q, "x") == "x"
    assert_all_is_free(pool)


# ---- task_done, join ------------------------------------------------------------------------------


def work(talk, q):
    for _ in range(5):
        q.get(timeout=SOON_S)
        time.sleep(0.01)
        q.task_done()


def test_join_waits_for_task_done(make_queue, children):
    q = make_queue()
    q.join()
    for i in range(5):
        q.put(i)
    children.start(work, q)
    q.join()
    assert q.empty()
    with pytest.raises(ValueError, match="task_done"):
        q.task_done()


# ---- other users -------------------------------------------------------------------------------

PLAIN = b"ssm.obj\x01"


class Trap:
    """What runs when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("the code of another user was run",)


def lay_trap(talk, name, ring_name, mode):
    become()
    pool = ssm.Pool.create(name, classes=CLASSES, headroom=0, tailroom=0, mode=mode)
    pool.ring(ring_name, 8).send(PLAIN + pickle.dumps(Trap()))
    talk.send("laid")
    talk.recv()


@pytest.fixture
def trap(children, new_name):
    """Return a function that makes a pool of another user, with a message in its ring; it is there until the end."""
    need_root()
    laid = []

    def lay(name, ring_name="queue", mode=0o600):
        child = children.start(lay_trap, name, ring_name, mode)
        assert child.hear() == "laid"
        laid.append((child, name))
        return name

    yield lay
    for child, name in laid:
        child.say("enough")
        child.join()
        ssm.Pool.unlink(name)


@pytest.mark.parametrize("mode", [0o600, 0o666], ids=oct)
def test_nothing_is_unpickled_from_another_users_pool(trap, new_name, mode):
    name = trap(new_name(), mode=mode)
    with pytest.raises(PermissionError, match=r"belongs to uid 65534.*trust_other_users"):
        ssm.Queue(8, name=name)
    with ssm.Pool.attach(name) as pool:
        with pytest.raises(PermissionError, match="belongs to uid 65534"):
            ssm.Queue(8, pool=pool, name="queue")
        assert pool.ring("queue").qsize() == 1
        assert [holder.pid for holder in pool.holders()].count(os.getpid()) == 1  # the refused one left
        trusting = ssm.Queue(8, pool=pool, name="queue", trust_other_users=True)
        with pytest.raises(pytest.fail.Exception):
            trusting.get(timeout=SOON_S)
        trusting.close()


def test_a_pickled_queue_whose_name_is_another_users_by_now(trap, new_name):
    name = new_name()
    sent = pickle.dumps(ssm.Queue(8, name=name))
    gc.collect()
    with pytest.raises((OSError, ssm.SSMError)):
        pickle.loads(trap(name) and sent)


@pytest.mark.parametrize(
    ("mode", "admitted"), [(0o600, True), (0o644, True), (0o620, False), (0o602, False), (0o666, False)]
)
def test_a_pool_that_others_may_write_is_for_those_who_say_so(make_pool, mode, admitted):
    pool = make_pool(classes=CLASSES, mode=mode)
    if admitted:
        assert there_and_back(ssm.Queue(8, pool=pool, name="q"), "mine") == "mine"
        return
    with pytest.raises(PermissionError, match=f"has mode {mode:04o}.*trust_other_users=True"):
        ssm.Queue(8, pool=pool, name="q")
    assert pool.rings() == []
    queue = ssm.Queue(8, pool=pool, name="q", trust_other_users=True)
    assert there_and_back(pickle.loads(pickle.dumps(queue)), "asked for") == "asked for"
