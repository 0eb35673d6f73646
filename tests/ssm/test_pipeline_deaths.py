# SPDX-License-Identifier: Apache-2.0
"""Pipelines whose workers, or whose supervisor, are killed, hang, or wait for each other."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import multiprocessing
import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

import ssm
from ssm.pipeline import board, books, current_worker, process, supervisor
from ssm.pipeline.board import Tally
from ssm.pipeline.outlet import Outlet
from tests.effort import seconds
from tests.processes import is_running, wait_until


@pytest.fixture
def pipe(name):
    """A pipeline whose workers die: a wake-up may get lost with them."""
    os.kill(os.getpid(), signal.SIGURG)  # tells the fixture of conftest.py; ignored otherwise
    return ssm.Pipeline(name, start="fork", shards=1)


def numbers(count, start=0):
    for number in range(start, count):
        yield number.to_bytes(8, "little")


def same(value):
    return value


def copied(packet):
    return bytes(packet)


def copies(batch):
    return [bytes(packet) for packet in batch]


class Seen:
    def __init__(self):
        self.tags = []

    def __call__(self, packet):
        assert int.from_bytes(packet[:8], "little") == packet.tag
        self.tags.append(packet.tag)

    def close(self):
        return sorted(self.tags)


def once(path):
    """Whether this is the first call, in all processes."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def segfault():
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)  # not faulthandler's, which would print
    ctypes.string_at(0)


# ---- workers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [die, segfault, lambda: os._exit(3)])
@pytest.mark.parametrize("batch", [0, 8])
def test_a_worker_that_dies_is_replaced(pipe, tmp_path, end, batch):
    a, b = pipe.ring("a"), pipe.ring("b")
    pipe.source(a)(numbers)

    @pipe.stage(a, b, workers=2, batch=batch)
    def stage(value):
        tags = value.tags.tolist() if batch else [value.tag]
        if 50 in tags and once(tmp_path / "died"):
            end()
        return value

    pipe.sink(b)(Seen)
    report = pipe.run(200)
    assert report.exact, str(report)
    assert report.results["Seen"] == [list(range(200))]
    assert report.stages["stage"].killed == 1
    assert report.stages["stage"].started == 3
    assert report.rings["a"].redelivered >= 1


def dying(items, path):
    for data in items:
        if int.from_bytes(data, "little") == 50 and once(path):
            die()
        yield data


@pytest.mark.parametrize("takes_start", [True, False])
def test_a_source_goes_on_where_its_ring_says_it_was(pipe, tmp_path, takes_start):
    """By its parameter `start`, or by skipping."""
    path, starts = tmp_path / "died", tmp_path / "starts"
    a = pipe.ring("a", 4)

    def by_start(count, start=0):
        with starts.open("a") as file:
            file.write(f"{start} ")
        yield from dying(numbers(count, start), path)

    def from_the_first(count):
        yield from dying(numbers(count), path)

    pipe.source(a, name="read")(by_start if takes_start else from_the_first)
    pipe.sink(a)(Seen)
    report = pipe.run(100)
    assert report.exact, str(report)
    assert report.results["Seen"] == [list(range(100))]
    assert report.stages["read"].killed == 1
    assert report.stages["read"].packets_out == 100
    if takes_start:
        assert starts.read_text().split() == ["0", "50"]


@pytest.mark.parametrize(
    "how", ["told not to", "two workers", "two putters", "two rings", "a ring that drops"]
)
def test_other_sources_end_the_run(pipe, how):
    a = pipe.ring("a", overflow="drop" if how == "a ring that drops" else "block")
    b = pipe.ring("b") if how == "two rings" else None

    @pipe.source((a, b) if b else a, resume=how != "told not to", workers=2 if how == "two workers" else 1)
    def read():
        yield b"12345678"
        die()

    if how == "two putters":
        pipe.source(a, name="other")(lambda: numbers(0))
    for ring in (a, b) if b else (a,):
        pipe.sink(ring, name=f"sink of {ring.name}")(lambda packet: None)
    with pytest.raises(
        ssm.PipelineError, match="SIGKILL: a source that was killed goes on only if"
    ) as caught:
        pipe.run()
    assert caught.value.report.stages["read"].killed == 1


@pytest.mark.parametrize("state", [None, "outside"])
def test_a_sink_with_state_is_not_replaced(pipe, tmp_path, state):
    a = pipe.ring("a")
    pipe.source(a)(numbers)

    @pipe.sink(a, state=state)
    class Sink:
        def __call__(self, packet):
            if packet.tag == 5 and once(tmp_path / "died"):
                die()
            with (tmp_path / "rows").open("a") as file:
                file.write(f"{packet.tag}\n")

    if state is None:
        with pytest.raises(ssm.PipelineError, match='state="outside"') as caught:
            pipe.run(20)
        assert caught.value.stage == "Sink"
        assert caught.value.report.stages["Sink"].packets_in == 5
    else:
        report = pipe.run(20)
        assert report.exact
        assert sorted(map(int, (tmp_path / "rows").read_text().split())) == list(range(20))


def test_a_sink_that_had_taken_nothing_is_replaced(pipe, tmp_path):
    a = pipe.ring("a")
    pipe.source(a)(numbers)

    @pipe.sink(a)
    class Sink(Seen):
        def __init__(self):
            if once(tmp_path / "died"):
                die()
            super().__init__()

    report = pipe.run(20)
    assert report.exact
    assert report.results["Sink"] == [list(range(20))]


# ---- packets that kill ------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [0, 8])
@pytest.mark.parametrize("on_error", ["dead", "drop"])
def test_a_packet_that_kills_is_given_up(pipe, on_error, batch):
    a, b = pipe.ring("a"), pipe.ring("b")
    pipe.source(a)(numbers)

    @pipe.stage(a, b, on_error=on_error, batch=batch)
    def stage(value):
        if 5 in (value.tags.tolist() if batch else [value.tag]):
            segfault()
        return value

    pipe.sink(b)(Seen)
    report = pipe.run(30)
    assert report.exact, str(report)
    assert report.results["Seen"] == [[tag for tag in range(30) if tag != 5]]
    assert report.stages["stage"].killed in (3, 4)
    assert [letter.tag for letter in report.dead] == ([5] if on_error == "dead" else [])
    assert report.stages["stage"].dropped == (on_error == "drop")
    for letter in report.dead:
        assert letter.stage == "stage"
        assert "SIGSEGV" in letter.reason


def test_a_worker_that_asks_for_too_much_memory_gets_an_error(pipe):
    a, b = pipe.ring("a"), pipe.ring("b")
    pipe.source(a)(numbers)

    @pipe.stage(a, b, on_error="dead", memory=2 << 30)
    def stage(packet):
        bytearray(3 << 30 if packet.tag == 5 else 1 << 20)  # nothing is touched of it
        return packet

    pipe.sink(b)(Seen)
    report = pipe.run(20)
    assert report.exact, str(report)
    assert [letter.tag for letter in report.dead] == [5]
    assert "MemoryError" in report.dead[0].reason
    assert report.stages["stage"].killed == 0


def test_too_little_memory_is_refused(pipe):
    a = pipe.ring("a")
    pipe.source(a)(numbers)
    pipe.sink(a, name="sink", memory=1000)(same)
    with pytest.raises(
        ssm.PipelineError, match=r"memory=1,000 bytes are too few: the worker has [0-9,]+ before"
    ):
        pipe.run(3)


def test_a_packet_that_kills_ends_the_run(pipe):
    a = pipe.ring("a")
    pipe.source(a)(numbers)
    pipe.sink(a, name="sink")(lambda packet: packet.tag == 5 and die())
    with pytest.raises(ssm.PipelineError, match="the packet with tag 5 killed 3 workers") as caught:
        pipe.run(30)
    assert caught.value.tag == 5
    assert caught.value.report.stages["sink"].killed == 3


def test_workers_that_all_die_end_the_run(pipe, monkeypatch):
    monkeypatch.setattr(supervisor, "BACK_OFF_S", 0.001)
    a = pipe.ring("a")
    pipe.source(a)(numbers)

    @pipe.sink(a, state="outside")
    class Sink:
        def __init__(self):
            die()

    with pytest.raises(ssm.PipelineError, match="10 workers died one after the other") as caught:
        pipe.run(3)
    assert caught.value.report.stages["Sink"].started == 10


def test_a_worker_that_hangs_is_killed(pipe, tmp_path):
    a, b = pipe.ring("a"), pipe.ring("b")
    pipe.source(a)(numbers)

    @pipe.stage(a, b, timeout=0.5)
    def stage(packet):
        while packet.tag == 5 and (tmp_path / "hung").exists() is False:
            if once(tmp_path / "first"):
                time.sleep(1000)
            (tmp_path / "hung").touch()
        return packet

    pipe.sink(b)(Seen)
    report = pipe.run(30)
    assert report.exact
    assert report.stages["stage"].hung == report.stages["stage"].killed == 1
    assert report.results["Seen"] == [list(range(30))]


def test_waiting_is_not_hanging(pipe):
    """The time-out counts work only."""
    a, b = pipe.ring("a", 1), pipe.ring("b", 1)

    @pipe.source(a)
    def read():
        for number in range(3):
            time.sleep(0.4)
            yield number.to_bytes(8, "little")

    pipe.stage(a, b, timeout=0.3)(same)
    pipe.sink(b)(Seen)
    report = pipe.run()
    assert report.exact
    assert report.stages["same"].hung == 0


# ---- the books find what is wrong -------------------------------------------------------------------


def test_a_result_that_was_sent_twice_is_found(pipe, tmp_path, monkeypatch):
    """A new packet was put, and what it was made from was not ended, as if that were two steps. The books see it."""
    a, b = pipe.ring("a"), pipe.ring("b")
    pipe.source(a)(numbers)
    pipe.stage(a, b, name="new")(lambda packet: packet[:])
    pipe.sink(b)(Seen)

    def commit(outlet, held, done, redelivers):
        outlet.send(held[0])
        if once(tmp_path / "died"):
            die()
        done.free()

    monkeypatch.setattr(Outlet, "commit", commit)
    report = pipe.run(20)
    assert not report.exact
    assert report.results["Seen"] == [[0, *range(20)]]
    assert report.findings == ("packets put into ring 'b': 21, and 20 are accounted for",)
    assert "NOT EXACT" in str(report)


def test_a_packet_that_was_lost_is_found(pipe, tmp_path):
    a = pipe.ring("a", redeliver=False)
    pipe.source(a)(numbers)
    pipe.sink(a, name="sink")(lambda packet: packet.tag == 5 and once(tmp_path / "died") and die())
    report = pipe.run(20)
    assert not report.exact
    assert report.findings == ("packets taken out of ring 'a': 20, and 19 are accounted for",)
    assert (report.rings["a"].passed_on, report.rings["a"].freed, report.rings["a"].died) == (0, 19, 1)


@pytest.mark.parametrize("work", [same, copied])
@pytest.mark.parametrize("after", [False, True])
def test_a_commit_in_doubt_is_cleared_up(pipe, tmp_path, monkeypatch, after, work):
    """A worker dies right before or right after its put, of a packet or a new one: the rings tell which."""
    a, b = pipe.ring("a"), pipe.ring("b")
    pipe.source(a)(numbers)
    pipe.stage(a, b, name="same")(work)
    pipe.sink(b)(Seen)
    put = ssm.Ring.put

    def dying(ring, packet, *args, **options):
        fatal = ring.name == "b" and packet.tag == 5 and once(tmp_path / "died")
        if fatal and not after:
            die()
        put(ring, packet, *args, **options)
        if fatal:
            die()

    monkeypatch.setattr(ssm.Ring, "put", dying)
    report = pipe.run(20)
    assert report.exact, str(report)
    assert report.results["Seen"] == [list(range(20))]
    assert (report.stages["same"].packets_in, report.stages["same"].packets_out) == (20, 20)
    assert report.rings["a"].redelivered == (not after)


def test_doubts_that_fit_no_ring_are_findings():
    """All choices are tried, and for all rings at once."""
    lines = [
        books.Line("taken", frozenset({"s"}), "taken", 0),
        books.Line("put", frozenset({"s"}), "puts", 0),
    ]
    passed, made = Tally(passed=1), Tally(made=1, made_puts=3)
    units = [("s", passed), ("s", made), ("s", passed)]
    choice = books._choice
    assert choice((0, 0), units, lines) == []
    assert choice((1, 1), units, lines) == [("s", passed)]
    assert choice((1, 3), units, lines) == [("s", made)]
    assert choice((3, 5), units, lines) == units
    for impossible in ((1, 2), (0, 1), (1, 0), (4, 6), (-1, 0), (2, 3)):
        assert choice(impossible, units, lines) is None, impossible


# ---- stuck ------------------------------------------------------------------------------------------


def test_workers_that_wait_for_each_other_are_named(name):
    """A sink keeps what it gets, until there are no blocks left."""
    pipe = ssm.Pipeline(name, start="fork", stuck=0.5, dead_letters=1, cache=0, classes={2048: 8})
    a = pipe.ring("a", 2)
    pipe.source(a)(numbers)
    kept = []
    pipe.sink(a, name="keeps")(lambda packet: kept.append(memoryview(packet)))
    with pytest.raises(ssm.PipelineError) as caught:
        pipe.run(100)
    text = str(caught.value)
    assert "nothing has moved for 0.5 s" in text
    assert "'numbers' waits for a free block" in text
    assert "'keeps' waits for packets of 'a' (0 of 2)" in text


def test_a_slow_source_is_not_stuck(name):
    pipe = ssm.Pipeline(name, start="fork", stuck=0.2)
    a = pipe.ring("a")
    pipe.source(a, name="read")(lambda: (time.sleep(0.6) or b"12345678" for _ in range(1)))
    pipe.sink(a, name="sink")(lambda packet: None)
    assert pipe.run().exact


# ---- signals and the supervisor's end ---------------------------------------------------------------


def endless(talk, name, method):
    """Run a pipeline whose source does not end, in a child."""
    may_have_children()
    pipe = ssm.Pipeline(name, start=method)
    a, b = pipe.ring("a", 8), pipe.ring("b", 8)
    pipe.source(a, name="read")(endless_numbers)
    pipe.stage(a, b, workers=2)(same)
    pipe.sink(b)(Seen)
    with pipe.start() as run:
        told = []

        def tick(run):
            if not told and run.report().rings["b"].put > 10:
                told.append(run.pids())
                talk.send(("pids", run.pids(), run.pool.name))

        report = run.wait(tick)
    return report.exact, report.interrupted, report.rings["a"].put, len(report.results["Seen"][0])


def may_have_children():
    """Children of tests are daemons, which multiprocessing lets have none."""
    multiprocessing.current_process()._config["daemon"] = False


def endless_numbers():
    number = 0
    while True:
        yield number.to_bytes(8, "little")
        number += 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_drains(children, name, number):
    child = children.start(endless, name, "fork")
    _, pids, _ = child.hear()
    os.kill(child.pid, number)
    exact, interrupted, put, seen = child.result()
    assert exact
    assert interrupted
    assert put == seen > 0
    assert not any(map(is_running, pids))


def interrupted_as_it_starts(talk, name, path):
    """Ctrl-C reaches supervisor and worker, which has not got so far as to ignore it."""
    may_have_children()
    run = process.run

    def ending(*args):
        if once(path):
            os.kill(os.getppid(), signal.SIGINT)
            os._exit(1)
        run(*args)

    process.run = ending
    pipe = ssm.Pipeline(name, start="fork")
    a = pipe.ring("a")
    pipe.source(a, name="read", workers=2)(endless_numbers)
    pipe.sink(a, name="sink")(lambda packet: None)
    report = pipe.run()
    return report.exact, report.interrupted, report.stages["read"].started


def test_a_worker_that_ctrl_c_ends_before_it_began_is_replaced(children, name, tmp_path):
    """Also one whose death ends the run otherwise: it has not sent anything."""
    child = children.start(interrupted_as_it_starts, name, tmp_path / "died")
    assert child.result() == (True, True, 3)


def stubborn(talk, name):
    """Run a pipeline that does not drain: its source does not look."""
    may_have_children()
    pipe = ssm.Pipeline(name, start="fork")
    a = pipe.ring("a")
    pipe.source(a, name="read")(lambda: (time.sleep(1000) for _ in range(1)))
    pipe.sink(a)(Seen)
    with pipe.start() as run:
        told = []

        def tick(run):
            if (run._stopping and len(told) == 1) or not told:
                told.append(1)
                talk.send(("pids", run.pids()))

        run.wait(tick)


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "SystemExit")]
)
def test_the_second_signal_stops(children, name, number, error):
    child = children.start(stubborn, name)
    _, pids = child.hear()
    os.kill(child.pid, number)
    child.hear()
    os.kill(child.pid, number)
    how, (raised, _) = child.outcome()
    assert (how, raised) == ("raised", error)
    assert not any(map(is_running, pids))


@pytest.mark.parametrize("method", ["fork", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_workers_leave_when_their_supervisor_is_killed(children, name, method):
    child = children.start(endless, name, method, method="fork" if method == "fork" else "spawn")
    _, pids, pool = child.hear()
    for pid in pids:
        children.adopt(pid)
    child.kill()
    wait_until(lambda: not any(map(is_running, pids)), "the workers gone")
    assert not Path("/dev/shm", pool.removeprefix("/")).exists()


def test_stop_and_a_look_at_the_books(pipe):
    a = pipe.ring("a", 8)
    pipe.source(a, name="read")(endless_numbers)
    pipe.sink(a)(Seen)

    def tick(run):
        report = run.report()
        assert not report.exact
        if report.stages["Seen"].packets_in > 100:
            run.stop()

    with pipe.start() as run:
        report = run.wait(tick)
    assert report.exact
    assert report.interrupted


def test_a_run_that_is_left_ends_its_workers(pipe):
    a = pipe.ring("a", 8)
    pipe.source(a, name="read")(endless_numbers)
    pipe.sink(a)(Seen)
    with pipe.start() as run:
        pids = run.pids()
        assert len(pids) == 2
    assert not any(map(is_running, pids))
    assert run.pool.closed


def test_in_a_thread(pipe):
    """There are no signals there."""
    a = pipe.ring("a")
    pipe.source(a)(numbers)
    pipe.sink(a)(Seen)
    reports = []
    thread = threading.Thread(target=lambda: reports.append(pipe.run(30)))
    thread.start()
    thread.join(60)
    assert reports[0].exact


# ---- at random --------------------------------------------------------------------------------------


def twice(packet):
    return [bytes(packet), packet] if packet.tag % 2 else (bytes(packet) for _ in range(2))


@pytest.mark.parametrize(
    ("work", "batch"), [(copied, 0), (copies, 8), (twice, 0)], ids=["one", "batches", "two results"]
)
def test_new_packets_come_once(name, work, batch):
    """Stages that return new packets are killed again and again; SSM_TEST_SECONDS makes it longer."""
    dice = random.Random(seed := random.randrange(1 << 30))
    print("seed", seed)
    pipe = ssm.Pipeline(name, start="fork", shards=1)
    a, b = pipe.ring("a", 64, size=64), pipe.ring("b", 64, size=64)
    pipe.source(a)(endless_data)
    pipe.stage(a, b, workers=3, batch=batch, name="new")(work)
    pipe.sink(b, name="Tally")(Times)
    until, kills, moved = time.monotonic() + seconds(3), 0, 0

    def tick(run):
        nonlocal kills, moved
        now = next(ring.puts for ring in run.pool.stats().rings if ring.name == "b")
        if (time.monotonic() > until and kills > 5) or time.monotonic() > until + 40:
            run.stop()
        elif now > moved:
            moved = now
            for pid in run.pids("new"):
                if dice.random() < 0.7:
                    with contextlib.suppress(ProcessLookupError):  # it has ended of the kill before
                        os.kill(pid, signal.SIGKILL)
                        kills += 1

    with pipe.start() as run:
        report = run.wait(tick)
    assert kills > 5
    assert report.exact, f"seed {seed}: {report}"
    wanted = 2 if work is twice else 1
    (found,) = report.results["Tally"]
    assert found == dict.fromkeys(range(report.rings["a"].put), wanted)


def endless_data(start=0):
    for number in itertools.count(start):
        yield number.to_bytes(8, "little")


class Times:
    """How often each number came."""

    def __init__(self):
        self.times = Counter()

    def __call__(self, packet):
        number = int.from_bytes(packet[:8], "little")
        assert packet.tag == number
        self.times[number] += 1

    def close(self):
        return dict(self.times)


@pytest.mark.parametrize("method", ["fork", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_killed_at_random(name, method):
    """Source, stages one by one and in batches: all are killed again and again, and each packet arrives once."""
    dice = random.Random(seed := random.randrange(1 << 30))
    print("seed", seed)
    pipe = ssm.Pipeline(name, start=method, shards=1)
    a, b, c = (pipe.ring(each, 32, size=64) for each in "abc")
    pipe.source(a, name="read")(slow_numbers)
    pipe.stage(a, b, workers=2)(not_each)
    pipe.stage(b, c, workers=2, batch=8, name="same")(same)
    pipe.sink(c)(Seen)
    until = None  # that long after the first packet: processes may take their time to start
    count, kills, moved = 2_000 if method == "fork" else 4_000, 0, [0]

    def tick(run):
        nonlocal kills, until
        pids = run.pids("read") + run.pids("not_each") + run.pids("same")
        now = sum(ring.put for ring in run.report().rings.values())
        until = until or (now and time.monotonic() + seconds(8))
        if pids and now != moved[0] and time.monotonic() < until:
            moved[0] = now
            os.kill(dice.choice(pids), signal.SIGKILL)
            kills += 1

    with pipe.start(count) as run:
        report = run.wait(tick)
    assert kills > 3
    assert report.exact, str(report)
    assert report.results["Seen"] == [[tag for tag in range(count) if tag % 10]]
    assert report.stages["not_each"].filtered == -(-count // 10)
    assert report.stages["same"].packets_in == report.stages["same"].packets_out == report.rings["c"].put


def slow_numbers(count, start=0):
    """So slow that there is time for kills."""
    for data in numbers(count, start):
        time.sleep(0.0005)
        yield data


def not_each(packet):
    return packet if packet.tag % 10 else None


def test_a_worker_knows_who_it_is(pipe):
    a = pipe.ring("a")
    pipe.source(a)(numbers)

    @pipe.sink(a, workers=2)
    class Who:
        def __call__(self, packet):
            pass

        def close(self):
            worker = current_worker()
            return worker.stage, worker.number, worker.workers, multiprocessing.current_process().name

    assert pipe.run(1).results["Who"] == [("Who", 0, 2, "Who-0"), ("Who", 1, 2, "Who-1")]


def test_waiting_workers_are_killed_through_no_fault_of_their_packet(pipe, tmp_path):
    """One that waits for room, packet in hand, is killed more often than a packet may kill."""
    a, b = pipe.ring("a"), pipe.ring("b", 1)
    pipe.source(a)(numbers)
    pipe.stage(a, b)(same)
    gate = tmp_path / "open"

    @pipe.sink(b)
    class Sink(Seen):
        def __call__(self, packet):
            until = time.monotonic() + 60
            while not gate.exists() and time.monotonic() < until:
                time.sleep(0.01)
            super().__call__(packet)

    killed = set()

    def tick(run):
        row = run._ledgers["same"].row(0)
        if len(killed) == 6:
            gate.touch()
        elif row[board.STATE] == board.BLOCKED and (pids := set(run.pids("same")) - killed):
            killed.update(pids)
            os.kill(pids.pop(), signal.SIGKILL)

    with pipe.start(20) as run:
        report = run.wait(tick)
    assert report.exact, str(report)
    assert report.stages["same"].killed == 6
    assert report.results["Sink"] == [list(range(20))]
