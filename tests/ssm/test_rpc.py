# SPDX-License-Identifier: Apache-2.0
"""Requests and replies: each call sees one reply, whoever is killed, late or restarted meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import pickle
import signal
import sys
import threading
import time

import numpy as np
import pytest

import ssm
from ssm import replies as replies_module
from ssm import rpc as rpc_module
from tests.effort import seconds
from tests.processes import wait_until

BIG = {"classes": {512: 512}, "headroom": 96, "tailroom": 16, "holders": 128}


@pytest.fixture
def big(make_pool):
    return make_pool(**BIG)


def ask(rpc, data, timeout=60.0):
    with rpc.call(data, timeout) as reply:
        return bytes(reply)


def free_blocks(pool):
    return sum(each.free + each.cached for each in pool.stats().classes)


def check_all_is_free(pool):
    """No ring of replies is left, nor a packet anywhere."""
    wait_until(lambda: [name for name in pool.rings() if "!" in name] == [], "no ring of replies is left")
    wait_until(lambda: free_blocks(pool) == sum(pool.classes.values()), "all blocks are free")
    assert pool.check() == []


# ---- what workers do --------------------------------------------------------------------------------------


def handle(packet):
    """What the request says."""
    words = bytes(packet).split()
    if words[0] == b"none":
        packet.free()
        return None
    if words[0] == b"empty":
        return None
    if words[0] == b"bytes":
        return b"x" * int(words[1])
    if words[0] == b"raise":
        raise LookupError("not \udcff here")
    if words[0] == b"wrong":
        return {b"number": 5, b"freed": packet}[words[1]] if packet.free() is None else None
    if words[0] == b"sleep":
        time.sleep(float(words[1]))
    if words[0] == b"die" and not packet.redelivered:
        packet.prepend(9).release()  # it has moved the window
        packet.trim_back(2).release()
        os.kill(os.getpid(), signal.SIGKILL)
    if words[0] == b"exit" and not packet.redelivered:
        raise SystemExit(0)
    packet[:] = bytes(packet).upper()
    return packet


def work(talk, pool, name="upper"):
    talk.send(os.getpid())
    return pool.rpc(name).serve(handle)


def start(children, pool, count=1, **options):
    workers = [children.start(work, pool, **options) for _ in range(count)]
    for worker in workers:
        worker.hear()
    return workers


# ---- calls ------------------------------------------------------------------------------------------------


def test_call(big, children):
    (worker,) = start(children, big)
    rpc = big.rpc("upper")
    assert ask(rpc, b"hello") == b"HELLO"
    assert ask(rpc, b"none") == ask(rpc, b"empty") == b""
    assert ask(rpc, b"bytes 300") == b"x" * 300
    assert ask(rpc, memoryview(b"bytes 0")) == b""
    assert ask(rpc, np.frombuffer(b"a.r.r.a.y.", "u1")[::2]) == b"ARRAY"
    assert ask(rpc, np.frombuffer(b"records!", [("a", "u4"), ("b", "f4")])) == b"RECORDS!"
    packet = big.alloc(5)
    packet[:] = b"there"
    packet.tag = 77
    handle = packet.handle
    with rpc.call(packet, 60) as reply:
        assert bytes(reply) == b"THERE"
        assert reply.tag == 77
        assert reply.handle & 0xFFFFFFFF == handle & 0xFFFFFFFF  # the same block
    with pytest.raises(ssm.StaleHandle):
        bytes(packet)
    rpc.shutdown()
    assert worker.result() == 8
    rpc.close()
    check_all_is_free(big)


def test_what_a_handler_raises_comes_to_the_caller_as_text(big, children):
    (worker,) = start(children, big)
    rpc = big.rpc("upper")
    with pytest.raises(ssm.RpcError, match=r"LookupError: not .* here") as caught:
        rpc.call(b"raise", 60)
    assert caught.value.kind == "LookupError"
    assert 'raise LookupError("not' in caught.value.traceback
    assert "_answer" not in caught.value.traceback
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    with pytest.raises(ssm.RpcError, match="TypeError"):
        rpc.call(b"wrong number", 60)
    with pytest.raises(ssm.RpcError, match="StaleHandle"):
        rpc.call(b"wrong freed", 60)
    assert ask(rpc, b"and on") == b"AND ON"
    rpc.shutdown()
    assert worker.result() == 4
    rpc.close()
    del caught
    check_all_is_free(big)


def test_an_error_needs_no_packet_but_that_of_the_request(make_pool, children):
    pool = make_pool(classes={512: 8}, headroom=96)
    start(children, pool)
    rpc = pool.rpc("upper")
    kept = pool.alloc_many(7, 10)
    with pytest.raises(ssm.RpcError, match="LookupError"):
        rpc.call(b"raise", 60)
    kept.free()
    assert ask(rpc, b"on") == b"ON"


def test_without_room_for_a_head_the_packet_is_copied(make_pool, children):
    pool = make_pool(classes={512: 64}, headroom=0, tailroom=0)
    start(children, pool)
    rpc = pool.rpc("upper")
    packet = pool.alloc(2)
    packet[:] = b"ab"
    assert ask(rpc, packet) == b"AB"
    with pytest.raises(ssm.StaleHandle):
        bytes(packet)
    rpc.shutdown()
    rpc.close()
    check_all_is_free(pool)


def test_a_reply_that_comes_late_goes_to_nobody(big, children):
    (worker,) = start(children, big)
    rpc = big.rpc("upper")
    with pytest.raises(TimeoutError, match=r"no reply came from 'upper' .* in 0.05 s"):
        rpc.call(b"sleep 0.3", 0.05)
    assert ask(rpc, b"next") == b"NEXT"
    with pytest.raises(TimeoutError):
        rpc.call(b"sleep 0.2", 0.05)
    rpc.shutdown()
    assert worker.result() == 3
    rpc.close()
    check_all_is_free(big)


def test_no_worker(big):
    rpc = big.rpc("upper", capacity=1)
    with pytest.raises(TimeoutError, match="1 requests wait for a worker"):
        rpc.call(b"a", 0.02)
    packet = big.alloc(1)
    with pytest.raises(ssm.RingFull):
        rpc.call(packet, 0.02)
    packet.free()  # it is the caller's still
    assert rpc.serve_one(handle, 0)
    assert not rpc.serve_one(handle, 0.01)
    rpc.shutdown()
    with pytest.raises(ssm.RingShutDown):
        rpc.call(b"a", 1)
    with pytest.raises(ssm.RingShutDown):
        rpc.serve_one(handle)
    rpc.close()
    check_all_is_free(big)


def test_what_cannot_be(big):
    rpc = big.rpc("upper", capacity=4)
    with pytest.raises(ssm.RingMismatch):
        big.rpc("upper", capacity=5)
    assert "upper" in repr(rpc)
    for name in ("", "x" * 31, "a\0"):
        with pytest.raises(ValueError, match=r"name has 1 \.\. 30 bytes"):
            big.rpc(name)
    with pytest.raises(TypeError):
        rpc.call("text", 1)
    stranger = big.ring("upper?")
    stranger.send(b"no head")
    stranger.send(b"x" * 64)
    assert rpc.serve_one(handle, 1)
    assert rpc.serve_one(handle, 1)
    assert free_blocks(big) == sum(big.classes.values())


def test_it_is_sent_to_other_processes(big, children, start_method):
    start(children, big)
    rpc = big.rpc("upper")
    assert ask(rpc, b"here") == b"HERE"
    assert children.run(_call_once, rpc, method=start_method) == b"THERE"
    assert ask(rpc, b"again") == b"AGAIN"


def _call_once(talk, rpc):
    return ask(rpc, b"there")


def test_threads(big, children):
    start(children, big, 2)
    rpc = big.rpc("upper")
    wrong = []

    def call(number):
        for turn in range(50):
            text = b"%d-%d a" % (number, turn)
            with contextlib.suppress(TimeoutError):
                rpc.call(b"sleep 0.01", 0.001)
            if ask(rpc, text) != text.upper():
                wrong.append(text)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    wait_until(lambda: rpc.qsize() == 0, "all requests are answered")
    rpc.close()
    check_all_is_free(big)


def test_asyncio(big, children):
    workers = start(children, big, 2)
    rpc = big.rpc("upper")

    async def one(number):
        with await rpc.acall(b"call %d" % number, timeout=60) as reply:
            return bytes(reply)

    async def run():
        replies = await asyncio.gather(*(one(number) for number in range(1500)))
        with pytest.raises(TimeoutError, match="no reply"):
            await rpc.acall(b"sleep 0.2", timeout=0.02)
        with pytest.raises(ssm.RpcError, match="LookupError"):
            await rpc.acall(b"raise")
        given_up = asyncio.create_task(rpc.acall(b"sleep 0.1"))
        await asyncio.sleep(0.02)
        given_up.cancel()
        last = await asyncio.gather(one(1), one(2), given_up, return_exceptions=True)
        return replies, last

    replies, last = asyncio.run(run())
    assert replies == [b"CALL %d" % number for number in range(1500)]
    assert last[:2] == [b"CALL 1", b"CALL 2"]
    assert isinstance(last[2], asyncio.CancelledError)
    rpc.shutdown()
    assert sum(worker.result() for worker in workers) == 1505
    check_all_is_free(big)


def test_calls_of_two_loops_at_once(big, children):
    start(children, big)
    rpc = big.rpc("upper")
    replies = []

    async def run(letter):
        for _ in range(30):
            with await rpc.acall(letter) as reply:
                replies.append(bytes(reply))

    threads = [threading.Thread(target=asyncio.run, args=(run(letter),)) for letter in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(replies) == [b"A"] * 30 + [b"B"] * 30


# ---- deaths -----------------------------------------------------------------------------------------------


def test_a_request_of_a_killed_worker_goes_to_another_one_as_it_was(big, children):
    workers = start(children, big, 2)
    rpc = big.rpc("upper")
    assert ask(rpc, b"die here") == b"DIE HERE"
    # Its files are closed, and so its request goes to the other one, before its parent hears of its end.
    wait_until(lambda: any(worker.process.exitcode is not None for worker in workers), "the end of a worker")
    rpc.shutdown()
    living = [worker for worker in workers if worker.process.exitcode is None]
    assert sum(worker.result() for worker in living) == 1
    rpc.close()
    check_all_is_free(big)


def test_a_worker_that_exits_gives_its_request_back(big, children):
    start(children, big, 2)
    assert ask(big.rpc("upper"), b"exit now") == b"EXIT NOW"


def test_a_worker_that_dies_when_it_has_answered_has_answered(big, children):
    """Its request ended with the put of its reply: no other worker gets it, and the caller sees one reply."""
    rpc = big.rpc("upper")
    replies = []
    caller = threading.Thread(target=lambda: replies.append(ask(rpc, b"bytes 3")))
    caller.start()
    child = children.start(_answer_and_die, rpc)
    child.join()
    assert child.process.exitcode == -signal.SIGKILL
    caller.join(60)
    assert replies == [b"first"]
    big.reap()
    assert rpc.serve_one(handle, 0) is False
    second = threading.Thread(target=lambda: replies.append(ask(rpc, b"bytes 1")))
    second.start()
    assert rpc.serve_one(handle, 60)
    second.join(60)
    assert replies == [b"first", b"x"]
    rpc.close()
    check_all_is_free(big)


def _answer_and_die(talk, rpc):
    put = rpc_module._put_reply

    def put_and_die(*args):
        put(*args)
        os.kill(os.getpid(), signal.SIGKILL)

    rpc_module._put_reply = put_and_die
    rpc.serve_one(lambda _: b"first", 60)


def test_a_handler_may_free_its_request_or_put_it_on(big):
    """Then it has no delivery that the reply could end."""
    rpc, other = big.rpc("upper"), big.ring("other", 4)
    for end in (lambda packet: packet.free(), other.put, lambda packet: other.put(packet, keep=True)):
        replies = []
        caller = threading.Thread(target=lambda replies=replies: replies.append(ask(rpc, b"hello")))
        caller.start()
        assert rpc.serve_one(lambda packet, end=end: (end(packet), b"done")[1], 60)
        caller.join(60)
        assert replies == [b"done"]
        with contextlib.suppress(ssm.RingEmpty):
            other.get_nowait().free()
    rpc.close()
    check_all_is_free(big)


RAISES = "the handler raises"


@pytest.mark.parametrize(
    "what", ["the same packet", "another packet", RAISES, "the handler raises, no packet is free"]
)
@pytest.mark.parametrize("event", ["line", pytest.param("opcode", marks=pytest.mark.slow)])
def test_a_worker_may_die_at_any_step(make_pool, children, what, event):
    """At the lines of an answer, and at instructions: the next worker gets the request, and the caller one reply."""
    pool = make_pool(classes={512: 4}, headroom=96)
    rpc = pool.rpc("upper")
    step = 7 if event == "opcode" else 1 if what == "the same packet" else 3
    for at in itertools.count(1, step):
        replies, seen = [], []
        caller = threading.Thread(target=lambda replies=replies: replies.append(_ask_or_error(rpc)))
        caller.start()
        wait_until(rpc.qsize, "the request is there")
        kept = [pool.alloc(1) for _ in range(3)] if what.endswith("no packet is free") else []
        child = children.start(_answer_until, pool, what, event, at)
        child.join()
        pool.reap()
        rpc.serve_one(lambda packet, seen=seen: seen.append(bytes(packet)) or _answer_as(what, packet), 0)
        caller.join(60)
        assert seen in ([], [b"hello"]) or (seen == [b"HELLO"] and what == "the same packet"), at
        right = [RAISES] if what.startswith(RAISES) else [b"HELLO"]
        assert replies == right or (kept and replies == [rpc_module._LOST]), at
        for packet in kept:
            packet.free()
        if child.process.exitcode == 0:
            break
        assert child.process.exitcode == -signal.SIGKILL
    assert at > 25
    rpc.close()
    check_all_is_free(pool)


def _ask_or_error(rpc):
    try:
        return ask(rpc, b"hello")
    except ssm.RpcError as error:
        return str(error).splitlines()[0].partition(": ")[2]


def _answer_as(what, packet):
    if what.startswith(RAISES):
        raise LookupError(RAISES)
    if what == "another packet":
        return bytes(packet).upper()
    packet[:] = bytes(packet).upper()
    packet.trim_front(3).release()  # the window of the reply is another one
    packet.prepend(3).release()
    return packet


def _answer_until(talk, pool, what, event, left):
    """Answer one request; be killed at that line, or instruction, of rpc.py and replies.py."""
    rpc = pool.rpc("upper")

    def count(frame, seen, _):
        nonlocal left
        left -= seen == event
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return count

    def trace(frame, _event, _):
        frame.f_trace_opcodes = event == "opcode"
        return count if frame.f_code.co_filename in {rpc_module.__file__, replies_module.__file__} else None

    sys.settrace(trace)
    rpc.serve_one(functools.partial(_answer_as, what), 60)
    sys.settrace(None)


def test_a_killed_caller_leaves_nothing_and_its_worker_goes_on(big, children):
    start(children, big)
    rpc = big.rpc("upper")
    child = children.start(_call_and_wait, rpc)
    child.hear()
    wait_until(lambda: rpc.qsize() == 0, "the worker has the request")
    child.kill()
    assert ask(rpc, b"next") == b"NEXT"
    rpc.close()
    big.reap()
    check_all_is_free(big)


def _call_and_wait(talk, rpc):
    talk.send(None)
    rpc.call(b"sleep 0.3")


@pytest.mark.slow
def test_callers_and_workers_are_killed_all_the_time(big, children):
    """Each call of a survivor has its own reply, and in the end nothing is left."""
    rpc = big.rpc("upper")
    workers = start(children, big, 3)
    callers = [children.start(_call_until_told, rpc, number) for number in range(6)]
    for caller in callers:
        caller.hear()
    until = time.monotonic() + seconds(10)
    turn = 0
    while time.monotonic() < until:
        if turn % 3:
            workers.pop(0).kill()
            workers += start(children, big)
        else:
            callers.pop(0).kill()
            callers.append(children.start(_call_until_told, rpc, 10 + turn))
            callers[-1].hear()
        turn += 1
    for caller in callers:
        caller.say("stop")
    for caller in callers:
        assert caller.result() > 0
    rpc.shutdown()
    for worker in workers:
        worker.result()
    assert turn >= 4
    rpc.close()
    big.reap()
    check_all_is_free(big)


def _call_until_told(talk, rpc, number):
    count = 0
    while not talk.poll():
        text = b"c%d-%d" % (number, count)
        assert ask(rpc, text) == text.upper()
        count += 1
        if count == 1:
            talk.send(None)
    return count
