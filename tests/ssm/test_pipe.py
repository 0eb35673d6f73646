# SPDX-License-Identifier: Apache-2.0
"""ssm.Pipe: two ends as multiprocessing.Pipe has them, and the end of the other side."""

import gc
import multiprocessing
import os
import pickle
import threading
import time
from multiprocessing import connection
from pathlib import Path

import numpy as np
import pytest

import ssm

SOON_S = 30.0


@pytest.fixture
def pipe():
    ends = ssm.Pipe()
    yield ends
    for end in ends:
        end.close()
    gc.collect()


def echo(talk, end, other=None):
    if other is not None:
        other.close()
    talk.send("ready")
    while True:
        try:
            end.send(end.recv())
        except EOFError:
            return "the other side went"


@pytest.fixture
def echoing(pipe, children, start_method):
    """This side's end, and the child that has the other one; nobody else has that."""
    here, there = pipe
    extra = (here,) if start_method == "fork" else ()
    child = children.start(echo, there, *extra, method=start_method)
    child.hear()
    there.close()
    return here, child


def test_objects_go_there_and_back(echoing):
    here, _ = echoing
    for obj in (1, "two", {"three": [3]}, None, b"4" * 100_000):
        here.send(obj)
        assert here.recv() == obj
    array = np.arange(300_000)
    here.send(array)
    np.testing.assert_array_equal(here.recv(), array)


def test_the_other_side_is_killed(echoing):
    here, child = echoing
    here.send("before")
    assert here.poll(SOON_S)
    child.kill()
    assert here.recv() == "before"  # what was sent is received first
    for _ in range(2):
        with pytest.raises(EOFError):
            here.recv()
        with pytest.raises(BrokenPipeError):
            here.send("after")
    assert here.poll()
    assert connection.wait([here], SOON_S) == [here]


def test_killed_while_it_is_waited_for(echoing):
    here, child = echoing
    killer = threading.Timer(0.2, child.kill)
    killer.start()
    with pytest.raises(EOFError):
        here.recv()
    killer.join()


def test_killed_while_a_send_waits_for_room(children):
    here, there = ssm.Pipe(classes={512: 4, 65536: 2})
    child = children.start(sleep, there, here)
    child.hear()
    there.close()
    killer = threading.Timer(0.3, child.kill)
    killer.start()
    here.send(np.zeros(50_000, "u1"))
    here.send(np.zeros(50_000, "u1"))
    with pytest.raises(BrokenPipeError):
        here.send(np.zeros(50_000, "u1"))
    killer.join()
    here.close()


def sleep(talk, end, other):
    other.close()
    talk.send("ready")
    time.sleep(SOON_S)


def test_this_side_closes(echoing):
    here, child = echoing
    here.close()
    assert child.result() == "the other side went"
    for call in (here.recv, here.poll, here.fileno, lambda: here.send(1), lambda: pickle.dumps(here)):
        with pytest.raises(OSError, match="handle is closed"):
            call()
    assert here.closed
    here.close()


def test_both_ends_in_one_process(pipe):
    here, there = pipe
    there.send(1)
    there.close()
    assert here.recv() == 1
    with pytest.raises(EOFError):
        here.recv()


def test_closed_while_another_thread_receives(pipe):
    here, _ = pipe
    errors = []

    def receive():
        try:
            here.recv()
        except OSError as error:
            errors.append(str(error))

    thread = threading.Thread(target=receive)
    thread.start()
    time.sleep(0.1)
    here.close()
    thread.join(SOON_S)
    assert errors == ["handle is closed"]


def test_one_way():
    receiver, sender = ssm.Pipe(duplex=False)
    assert (receiver.readable, receiver.writable, sender.readable, sender.writable) == (
        True,
        False,
        False,
        True,
    )
    sender.send(1)
    assert receiver.recv() == 1
    with pytest.raises(OSError, match="read-only"):
        receiver.send(1)
    with pytest.raises(OSError, match="write-only"):
        sender.recv()
    receiver.close()
    with pytest.raises(BrokenPipeError):
        sender.send(2)
    sender.close()


@pytest.mark.parametrize("size", [0, 1, 100, 20_000, 3_000_000])
def test_bytes(pipe, size):
    here, there = pipe
    data = os.urandom(size)
    here.send_bytes(data)
    assert there.recv_bytes() == data
    there.send_bytes(bytearray(data), size // 2)
    assert here.recv_bytes(size) == data[size // 2 :]
    here.send_bytes(np.frombuffer(data, "u1"), 0, size // 2)
    target = bytearray(size + 8)
    assert there.recv_bytes_into(target, 8) == size // 2
    assert target[8 : 8 + size // 2] == data[: size // 2]


def test_bytes_and_objects_are_the_same_messages(pipe):
    here, there = pipe
    here.send_bytes(pickle.dumps({"a": 1}))
    assert there.recv() == {"a": 1}
    here.send({"a": 1})
    assert pickle.loads(there.recv_bytes()) == {"a": 1}


def test_bytes_that_do_not_fit(pipe):
    here, there = pipe
    here.send_bytes(b"12345")
    with pytest.raises(multiprocessing.BufferTooShort) as short:
        there.recv_bytes_into(bytearray(4))
    assert short.value.args == (b"12345",)
    for arguments in ((b"123", -1), (b"123", 4), (b"123", 0, -1), (b"123", 1, 3)):
        with pytest.raises(ValueError, match=r"negative|length"):
            here.send_bytes(*arguments)
    here.send_bytes(b"12345")
    with pytest.raises(OSError, match="bad message length"):
        there.recv_bytes(4)


def test_selectable(pipe):
    here, there = pipe
    assert connection.wait([here, there], 0.05) == []
    there.send(1)
    there.send(2)
    assert connection.wait([here, there], SOON_S) == [here]
    assert here.recv() == 1
    assert connection.wait([here], 0) == [here]
    assert here.recv() == 2
    assert connection.wait([here], 0) == []
    assert not here.poll()


def send_through(talk, end):
    end.send("from far")
    end.close()


def test_an_end_goes_through_a_queue(pipe, children):
    here, there = pipe
    q = ssm.Queue()
    child = children.start(receive_an_end, q, method="spawn")
    q.put(there)
    assert here.recv() == "from far"
    child.result()


def receive_an_end(talk, q):
    q.get(timeout=SOON_S).send("from far")


def test_nothing_is_left(pipe):
    here, there = pipe
    name = here._in.pool.name
    here.fileno()
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    assert name in ssm.list_pools()
    here.close()
    there.close()
    gc.collect()
    assert name not in ssm.list_pools()
    assert len(list(Path("/proc/self/fd").iterdir())) < descriptors
