# SPDX-License-Identifier: Apache-2.0
"""Ordered stages: their results go out in the order of their packets, whatever their workers take, drop or die of."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import numpy as np
import pytest

import ssm
from ssm.pipeline import plan, supervisor
from ssm.pipeline.worker import Worker
from tests.effort import seconds

COUNT = 200


@pytest.fixture
def pipe(name):
    """A pipeline whose workers die: a wake-up may get lost with them."""
    os.kill(os.getpid(), signal.SIGURG)  # tells the fixture of conftest.py; ignored otherwise
    return ssm.Pipeline(name, start="fork", shards=1)


def number_of(packet):
    return int.from_bytes(packet[:8], "little")


def data_of(number):
    return number.to_bytes(8, "little")


def numbers(count, start=0):
    for number in range(start, count):
        yield data_of(number)


def dawdle(number):
    """Take a time that brings the order of workers into disorder."""
    time.sleep(0.003 * (number * 7 % 5 == 0))


class Seen:
    """A sink that notes what came, in its order; tags are the user's."""

    def __init__(self):
        self.numbers = []

    def __call__(self, packet):
        self.numbers.append(number_of(packet))

    def close(self):
        return self.numbers


def once(path):
    """Whether this is the first call, in all processes."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def die():
    os.kill(os.getpid(), signal.SIGKILL)


# ---- the kinds of results -------------------------------------------------------------------------


def same(packet):
    dawdle(number_of(packet))
    packet.tag = 7  # a tag is nobody's number here
    return packet


def new(packet):
    dawdle(number_of(packet))
    return bytes(packet)


def twice(packet):
    dawdle(number_of(packet))
    return [bytes(packet), bytes(packet)]


def with_itself(packet):
    dawdle(number_of(packet))
    return [bytes(packet), packet]


def third(packet):
    dawdle(number_of(packet))
    return packet if number_of(packet) % 3 == 0 else None


def batch_same(batch):
    dawdle(number_of(batch[0]))
    return batch


def batch_new(batch):
    dawdle(number_of(batch[0]))
    return [bytes(packet) for packet in batch]


def batch_third(batch):
    dawdle(number_of(batch[0]))
    return [packet for packet in batch if number_of(packet) % 3 == 0]


def batch_none(batch):
    dawdle(number_of(batch[0]))
    return None if number_of(batch[0]) % 2 else batch


ALL = list(range(COUNT))
KINDS = [
    (same, 0, ALL),
    (new, 0, ALL),
    (twice, 0, [number for number in ALL for _ in range(2)]),
    (with_itself, 0, [number for number in ALL for _ in range(2)]),
    (third, 0, ALL[::3]),
    (batch_same, 4, ALL),
    (batch_new, 4, ALL),
    (batch_third, 4, ALL[::3]),
]


@pytest.mark.parametrize(("work", "batch", "wanted"), KINDS, ids=lambda each: getattr(each, "__name__", None))
@pytest.mark.parametrize("inline", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_results_come_in_the_order_of_their_packets(pipe, work, batch, wanted, inline):
    a, b = pipe.ring("a", 32), pipe.ring("b", 8)
    pipe.source(a)(numbers)
    pipe.stage(a, b, name="work", workers=3, batch=batch, ordered=True)(work)
    pipe.sink(b)(Seen)
    report = pipe.run(COUNT, inline=inline)
    assert report.exact, str(report)
    assert report.results["Seen"] == [wanted]


def test_batches_that_end_have_their_turn(pipe):
    a, b = pipe.ring("a", 32), pipe.ring("b", 8)
    pipe.source(a)(numbers)
    pipe.stage(a, b, workers=3, batch=4, ordered=True)(batch_none)
    pipe.sink(b)(Seen)
    report = pipe.run(COUNT)
    assert report.exact, str(report)
    [seen] = report.results["Seen"]
    assert seen == sorted(seen)


def test_objects_and_records_keep_their_order(pipe):
    a, b = pipe.ring("a", objects=True), pipe.ring("b", dtype="u8")

    @pipe.source(a)
    def read():
        yield from range(COUNT)

    @pipe.stage(a, b, workers=3, ordered=True)
    def square(number):
        dawdle(number)
        return np.uint64(number * number)

    @pipe.sink(b)
    class Rows:
        def __init__(self):
            self.rows = []

        def __call__(self, row):
            self.rows.append(int(row))

        def close(self):
            return self.rows

    report = pipe.run()
    assert report.exact, str(report)
    assert report.results["Rows"] == [[number * number for number in range(COUNT)]]


def test_more_results_than_the_ring_takes_keep_their_order(pipe):
    """Results that cannot be held wait for the turn of their packet, and go out then."""
    a, b = pipe.ring("a", 16), pipe.ring("b", 4)
    pipe.source(a)(numbers)

    @pipe.stage(a, b, workers=3, ordered=True)
    def many(packet):
        number = number_of(packet)
        dawdle(number)
        for part in range(11):
            yield data_of(11 * number + part)

    pipe.sink(b)(Seen)
    report = pipe.run(40)
    assert report.exact, str(report)
    assert report.results["Seen"] == [list(range(440))]


def test_two_outputs_keep_the_order_each(pipe):
    a, b, c = pipe.ring("a", 32), pipe.ring("b", 8), pipe.ring("c", 8)
    pipe.source(a)(numbers)

    @pipe.stage(a, (b, c), workers=3, ordered=True)
    def part(packet):
        dawdle(number_of(packet))
        return b.to(packet) if number_of(packet) % 2 else packet  # odd ones into b alone

    pipe.sink(b, name="all")(Seen)
    pipe.sink(c, name="even")(Seen)
    report = pipe.run(COUNT)
    assert report.exact, str(report)
    assert report.results == {"all": [ALL], "even": [ALL[::2]]}


# ---- what does not come out -----------------------------------------------------------------------


@pytest.mark.parametrize("on_error", ["dead", "drop"])
@pytest.mark.parametrize("batch", [0, 4])
def test_a_packet_that_fails_releases_its_place(pipe, on_error, batch):
    a, b = pipe.ring("a", 32), pipe.ring("b", 8)
    pipe.source(a)(numbers)

    @pipe.stage(a, b, workers=3, ordered=True, on_error=on_error, batch=batch)
    def work(given):
        for packet in given if batch else [given]:
            dawdle(number_of(packet))
            if number_of(packet) % 50 == 5:
                raise ValueError(number_of(packet))
        return given

    pipe.sink(b)(Seen)
    report = pipe.run(COUNT)
    assert report.exact, str(report)
    assert report.results["Seen"] == [[number for number in ALL if number % 50 != 5]]
    assert len(report.dead) == (4 if on_error == "dead" else 0)


def test_a_result_that_cannot_be_sent_is_an_error_of_its_packet(pipe):
    """It fails when it has its turn, while the worker is at another packet."""
    a, b = pipe.ring("a", 32), pipe.ring("b", 8)
    pipe.source(a)(numbers)

    @pipe.stage(a, b, workers=3, ordered=True, on_error="dead")
    def work(packet):
        dawdle(number_of(packet))
        return [packet, packet] if number_of(packet) == 9 else packet  # twice in one ring

    pipe.sink(b)(Seen)
    report = pipe.run(COUNT)
    assert report.exact, str(report)
    assert report.results["Seen"] == [[number for number in ALL if number != 9]]
    assert [letter.tag for letter in report.dead] == [9]
    assert report.stages["work"].errors == 1


def test_a_packet_that_kills_releases_its_place(pipe):
    a, b = pipe.ring("a", 32), pipe.ring("b", 8)
    pipe.source(a)(numbers)

    @pipe.stage(a, b, workers=3, ordered=True, on_error="dead")
    def work(packet):
        dawdle(number_of(packet))
        if number_of(packet) == 20:
            die()
        return bytes(packet)

    pipe.sink(b)(Seen)
    report = pipe.run(COUNT)
    assert report.exact, str(report)
    assert report.results["Seen"] == [[number for number in ALL if number != 20]]
    assert [letter.tag for letter in report.dead] == [20]
    assert "SIGKILL" in report.dead[0].reason


# ---- the window -----------------------------------------------------------------------------------


def test_a_worker_holds_a_window_of_results_and_no_more(pipe, tmp_path):
    a, b = pipe.ring("a", 64), pipe.ring("b", 64)
    pipe.source(a)(numbers)

    @pipe.stage(a, b, workers=2, ordered=True)
    def work(packet):
        number = number_of(packet)
        (tmp_path / str(number)).touch()
        while number == 0 and not (tmp_path / "go").exists():
            time.sleep(0.005)
        return packet

    pipe.sink(b)(Seen)
    with pipe.start(40) as run:
        ticks = []

        def tick(_):
            begun = sum(path.name.isdigit() for path in tmp_path.iterdir())
            assert begun <= 9 or (tmp_path / "go").exists()
            ticks.append(begun)
            if ticks[-5:] == [9] * 5:  # the first one, and eight behind it that wait
                assert [stage.workers for stage in run.news().stages if stage.name == "work"]
                (tmp_path / "go").touch()

        report = run.wait(tick)
    assert report.exact, str(report)
    assert report.results["Seen"] == [list(range(40))]
    assert report.stages["work"].blocked > 0


def test_the_window_is_a_share_of_the_blocks(name):
    """A quarter of them, of which each worker gets as much as it holds at a time; but one in any case."""

    def window(blocks, workers):
        pipe = ssm.Pipeline(name, classes={512: blocks}, dead_letters=1)
        a, b = pipe.ring("a", 4), pipe.ring("b", 4)
        pipe.source(a)(numbers)
        pipe.stage(a, b, workers=workers, ordered=True)(same)
        pipe.sink(b)(Seen)
        return plan.make(pipe._declared).windows["same"]

    assert window(400, 2) == 8
    assert window(96, 4) == 3
    assert window(30, 4) == 1
    with pytest.raises(
        ssm.PipelineRefused, match=r"and results that wait for their turn.*Give the pool more"
    ):
        window(27, 4)


# ---- deaths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("work", [same, new])
@pytest.mark.parametrize("after", [False, True])
def test_a_death_around_the_commit_keeps_the_order(pipe, tmp_path, monkeypatch, work, after):
    """Before it, the packet comes again and has its turn. Behind it, nobody has said whose turn is next."""
    a, b = pipe.ring("a", 32), pipe.ring("b", 8)
    pipe.source(a)(numbers)
    pipe.stage(a, b, name="work", workers=3, ordered=True)(work)
    pipe.sink(b)(Seen)
    commit = Worker._commit

    def dying(self, held, early, done, count, redelivers):
        dies = number_of(done) % 40 == 20 and once(tmp_path / str(number_of(done)))
        if dies and not after:
            die()
        commit(self, held, early, done, count, redelivers)
        if dies:
            die()

    monkeypatch.setattr(Worker, "_commit", dying)
    report = pipe.run(COUNT)
    assert report.exact, str(report)
    assert report.results["Seen"] == [ALL]
    assert report.stages["work"].killed == 5


def test_a_worker_that_holds_all_it_may_takes_what_came_back(pipe, tmp_path):
    """The other one dies at the oldest packet, and no other worker comes before that packet is done with."""
    a, b = pipe.ring("a", 64), pipe.ring("b", 64)
    pipe.source(a)(numbers)

    def is_there(file):
        until = time.monotonic() + 20
        while not (tmp_path / file).exists() and time.monotonic() < until:
            time.sleep(0.01)
        return (tmp_path / file).exists()

    @pipe.stage(a, b, workers=2, ordered=True)
    class Work:
        def __init__(self):
            if not once(tmp_path / "first") and not once(tmp_path / "second"):
                assert is_there("taken again")

        def __call__(self, packet):
            number = number_of(packet)
            if number == 8 and once(tmp_path / "died"):
                assert is_there("16")  # the other one holds eight results
                die()
            (tmp_path / ("taken again" if number == 8 else str(number))).touch()
            return packet

    pipe.sink(b)(Seen)
    report = pipe.run(40)
    assert report.exact, str(report)
    assert report.results["Seen"] == [list(range(40))]


def test_a_batch_that_is_given_back_keeps_its_place(pipe):
    """One that fails comes again packet by packet."""
    a, b = pipe.ring("a", 64), pipe.ring("b", 64)
    pipe.source(a)(numbers)

    @pipe.stage(a, b, workers=2, batch=4, ordered=True, on_error="drop")
    def work(batch):
        dawdle(number_of(batch[0]))
        if len(batch) > 1 and number_of(batch[0]) % 3 == 0:
            raise ValueError
        return batch

    pipe.sink(b)(Seen)
    report = pipe.run(COUNT)
    assert report.exact, str(report)
    assert report.results["Seen"] == [ALL]
    assert report.stages["work"].dropped == 0


def kill_at_random(run, seed, stop):
    dice = random.Random(seed)
    while not stop.wait(dice.random() * 0.03):
        pids = run.pids("work")
        if pids:
            try:
                os.kill(dice.choice(pids), signal.SIGKILL)
            except ProcessLookupError:
                continue


@pytest.mark.parametrize(
    ("work", "batch"),
    [
        (same, 0),
        pytest.param(new, 0, marks=pytest.mark.slow),
        (twice, 0),
        pytest.param(third, 0, marks=pytest.mark.slow),
        pytest.param(batch_same, 4, marks=pytest.mark.slow),
        (batch_new, 4),
    ],
)
def test_random_kills_keep_the_order(pipe, work, batch, capsys, monkeypatch):
    monkeypatch.setattr(supervisor, "KILLS", 1 << 20)  # these packets are innocent
    monkeypatch.setattr(supervisor, "BARREN", 1 << 20)
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    until = time.monotonic() + seconds(3)
    a, b = pipe.ring("a", 32), pipe.ring("b", 16)

    @pipe.source(a, resume=False)
    def read():
        number = 0
        while time.monotonic() < until:
            yield data_of(number)
            number += 1

    pipe.stage(a, b, name="work", workers=3, batch=batch, ordered=True)(work)
    pipe.sink(b)(Seen)
    stop = threading.Event()
    with pipe.start() as run:
        killer = threading.Thread(target=kill_at_random, args=(run, seed, stop))
        killer.start()
        try:
            report = run.wait(lambda _: time.monotonic() > until and stop.set())
        finally:
            stop.set()
            killer.join()
    assert report.exact, str(report)
    [seen] = report.results["Seen"]
    times = 2 if work is twice else 1
    step = 3 if work is third else 1
    put = report.rings["a"].put
    assert seen == [number for number in range(0, put, step) for _ in range(times)]
    assert report.stages["work"].killed > 0


# ---- refused --------------------------------------------------------------------------------------


def test_orders_that_no_ring_knows_are_refused(name):
    def refused(match, inputs=1, **ring):
        pipe = ssm.Pipeline(name)
        rings = [pipe.ring(f"in {number}", **ring) for number in range(inputs)]
        out = pipe.ring("out")
        for given in rings:
            pipe.source(given, name=f"source of {given.name}")(numbers)
        pipe.stage(rings, out, workers=2, ordered=True)(same)
        pipe.sink(out)(Seen)
        if not match:
            pipe.check()
            return
        if match == "is read by":
            pipe.sink(rings[0], name="other")(Seen)
        with pytest.raises(ssm.PipelineRefused, match=match):
            pipe.check()

    refused("")
    refused("2 inputs, between which there is no order", inputs=2)
    refused("redeliver=False, so its packets have no positions", redeliver=False)
    refused("is read by")
    pipe = ssm.Pipeline(name)
    a = pipe.ring("a")
    with pytest.raises(ValueError, match="ordered=True is of results"):
        pipe.stage(a, ordered=True)
