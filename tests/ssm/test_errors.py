# SPDX-License-Identifier: Apache-2.0
"""The texts of errors: each says what was so when it was raised, whatever has become of the pool when it is read."""

import os
import pickle
import subprocess
import sys

import pytest

import ssm
from tests.processes import PATIENCE_S, is_asleep, wait_until

BLOCKS = 4


@pytest.fixture
def pool(make_pool):
    return make_pool(classes={512: BLOCKS}, cache=0)


def caught(function, *args, **kwargs):
    with pytest.raises(ssm.SSMError) as info:
        function(*args, **kwargs)
    return info.value


def test_exhausted_names_the_holders_of_that_moment(pool):
    ring = pool.ring("frames", capacity=8)
    mine = [pool.alloc(1) for _ in range(BLOCKS)]
    first = caught(pool.alloc, 100)
    for packet in mine:
        ring.put(packet)
    second = caught(pool.alloc, 100)
    with ring.get_many(BLOCKS):
        pass
    assert f"0 are free; held are, of all sizes, {BLOCKS} by process {pool.label!r} (pid" in str(first)
    assert f"(pid {os.getpid()})" in str(first)
    assert f"0 are free; held are, of all sizes, {BLOCKS} by ring 'frames'." in str(second)


def test_a_dead_holder_is_called_dead(pool):
    """Met where another process reaps just then; otherwise the failed call has reaped it."""
    held = [(3, False, "worker", 71, False), (1, True, "frames", 0, True)]
    error = ssm.PoolExhausted(pool, 1, 1, (0, (0,), (held, True), None), 0)
    assert "3 by process 'worker' (pid 71, dead), 1 by ring 'frames', ...." in str(error)


@pytest.mark.parametrize("size", [100, 60_000], ids=["block", "arena"])
def test_exhausted_says_so_when_the_pool_is_gone(make_pool, monkeypatch, size):
    pool = make_pool(classes={512: BLOCKS}, arena=1 << 16)
    held = [pool.alloc(size)] if size > 512 else [pool.alloc(size) for _ in range(BLOCKS)]
    error = caught(pool.alloc, size)
    text = str(error)
    assert f"{len(held)} by process {pool.label!r} (pid" in text
    assert str(pickle.loads(pickle.dumps(error))) == text
    del held
    pool.close()
    for name in ("holders", "stats", "free_blocks"):
        monkeypatch.setattr(ssm.Pool, name, None)  # nothing is looked up
    assert str(error) == text


def test_an_uncaught_error_tells_who_holds_the_blocks(new_name):
    code = f"""
import ssm
from tests.processes import PATIENCE_S, is_asleep, wait_until
with ssm.Pool.create({new_name()!r}, classes={{512: 2}}, ephemeral=True) as pool:
    held = [pool.alloc(1), pool.alloc(1)]
    pool.alloc(1)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "held are, of all sizes, 2 by process" in done.stderr.splitlines()[-1]


def test_a_loop_that_polls_shares_what_was_found(make_pool):
    """A look at all blocks takes longer than the failed call: at most one part in sixteen of the time goes to it."""
    pool = make_pool(classes={512: 4000}, cache=0)
    held = pool.alloc_many(4000, 1)
    errors = []
    for _ in range(5000):
        try:
            pool.alloc(1)
        except ssm.PoolExhausted as error:
            errors.append(error)
    looks = {id(error.args[3]) for error in errors}
    assert len(looks) < len(errors) / 4
    shared = next(e for e, before in zip(errors[1:], errors, strict=False) if e.args[3] is before.args[3])
    assert " 0 are free (" in str(shared)
    assert " ms before); held are" in str(shared)
    assert " 0 are free; held are" in str(errors[0])
    held.free()


def test_rings_tell_their_state_of_that_moment(pool):
    ring = pool.ring("frames", capacity=2)
    ring.send(b"a")
    ring.send(b"b")
    full = caught(ring.send, b"c", timeout=0.001)
    ring.get_many(2).free()
    empty = caught(ring.get_nowait)
    ring.acl = ssm.Acl.FLOWPEER
    peer = caught(ring.get)
    ring.acl = ssm.Acl.FLOWDOWN
    down = caught(ring.get)
    ring.acl = ssm.Acl.RDWR
    ring.send(b"later")
    pool.close()
    assert "it takes 2 packets, 2 were queued when the call gave up" in str(full)
    assert "'frames' was empty, 0 packets were queued" in str(empty)
    assert "acl FLOWPEER), 0 packets were queued" in str(peer)
    assert "acl FLOWDOWN), 0 packets were queued" in str(down)
    for error in (full, empty, peer, down):
        assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_queue_tells_who_has_its_memory(pool):
    queue = ssm.Queue(pool=pool, name="jobs")
    for number in range(BLOCKS):
        queue.put(number)
    error = caught(queue.put_nowait, "one more")
    queue.shutdown(immediate=True)
    assert isinstance(error, ssm.QueueExhausted) or "was full" in str(error)
    assert str(BLOCKS) in str(error)


def take_all(talk, name, count):
    pool = ssm.Pool.attach(name)
    with pool.alloc_many(count, 8, timeout=PATIENCE_S) as packets:
        return len(packets)


def test_blocks_that_are_kept_for_another_call_are_named(children, make_pool):
    """A call for all blocks has its turn: most are free, and nobody else gets one."""
    pool = make_pool(classes={256: 8}, cache=0)
    held = [pool.alloc(8) for _ in range(8)]
    child = children.start(take_all, pool.name, 8)
    wait_until(lambda: is_asleep(child.pid), "the child waits")
    for packet in held[1:]:
        packet.free()

    def refused():
        try:
            pool.alloc(8, timeout=0).free()
        except ssm.PoolExhausted as error:
            return str(error)
        return None

    text = wait_until(refused, "the child has its turn")
    assert "of the 8 blocks of 256 bytes" in text
    assert "7 are free" in text
    assert "kept for a call that has waited longer for several" in text
    held[0].free()
    assert child.result() == 8


@pytest.mark.parametrize("cls", [ssm.PoolExhausted, ssm.RingFull, ssm.RingEmpty, ssm.RingShutDown])
@pytest.mark.parametrize("args", [(), ("said",), ("two", "words")], ids=len)
def test_ones_own_errors_say_what_they_were_given(cls, args):
    assert str(cls(*args)) == str(Exception(*args))
