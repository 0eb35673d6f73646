# SPDX-License-Identifier: Apache-2.0
"""Pipelines: what functions get and return, what a run reports, and what is refused before it starts."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
import pickle
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import ssm
from ssm.pipeline import Report, StageReport, current_worker
from tests.effort import first_one

POINT = np.dtype([("t", "u8"), ("x", "f4")])


@pytest.fixture
def pipe(name):
    return ssm.Pipeline(name, start="fork", shards=1)


@pytest.fixture(params=first_one(["fork", "inline"]))
def run(request):
    """Runs a pipeline in processes, or in this one, and expects exact books."""

    def go(pipe, *args, **kwargs):
        report = pipe.run(*args, inline=request.param == "inline", **kwargs)
        assert report.exact, str(report)
        return report

    return go


# ---- for other processes to import ------------------------------------------------------------------


def numbers(count, start=0):
    for number in range(start, count):
        yield number.to_bytes(8, "little")


def even(packet):
    return packet if packet[0] % 2 == 0 else None


class Sum:
    def __init__(self):
        self.packets = self.total = 0

    def __call__(self, packet):
        self.packets += 1
        self.total += int.from_bytes(packet[:], "little")

    def close(self):
        return self.packets, self.total


class Keep:
    """Keeps what it gets, as bytes or as it is."""

    def __init__(self, change=bytes):
        self.change, self.all = change, []

    def __call__(self, value):
        self.all.append(self.change(value))

    def close(self):
        return self.all


def keep(change):
    return functools.partial(Keep, change)


# ---- the whole of it --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", first_one(["fork", "forkserver", "spawn"]))
def test_each_packet_is_accounted_for(name, method):
    pipe = ssm.Pipeline(name, start=method)
    frames, flows = pipe.ring("frames", size=8), pipe.ring("flows", size=8)
    assert pipe.source(frames)(numbers) is numbers
    assert pipe.stage(frames, flows, workers=3)(even) is even
    assert pipe.sink(flows)(Sum) is Sum
    report = pipe.run(2000)
    assert report.exact, str(report)
    assert report.results == {"Sum": [(1000, sum(range(0, 2000, 2)))]}
    stage = report.stages["even"]
    assert (stage.packets_in, stage.packets_out, stage.filtered, stage.started, stage.killed) == (
        2000,
        1000,
        1000,
        3,
        0,
    )
    assert report.rings["frames"].put == 2000
    assert report.rings["flows"].left == 0
    assert "ring 'flows': put 1,000, left 0, at most " in str(report)
    assert " of 256" in str(report)
    for each in report.stages.values():
        assert each.busy + each.starved + each.blocked == pytest.approx(1)
        assert min(each.busy, each.starved, each.blocked) >= 0
    assert "exact" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["exact"] is True


def test_inline_gives_the_same(pipe):
    frames, flows = pipe.ring("frames"), pipe.ring("flows", capacity=2)
    pipe.source(frames)(numbers)
    pipe.stage(frames, flows, workers=3)(even)
    pipe.sink(flows)(Sum)
    before = os.getpid()
    there, here = pipe.run(500), pipe.run(500, inline=True)
    assert os.getpid() == before
    assert there.results == here.results
    assert there.exact
    assert here.exact
    for name, stage in there.stages.items():
        other = here.stages[name]
        assert (stage.packets_in, stage.packets_out, stage.filtered) == (
            other.packets_in,
            other.packets_out,
            other.filtered,
        )


def test_declaring_does_nothing(name):
    before = set(os.listdir("/dev/shm"))  # noqa: PTH208
    pipe = ssm.Pipeline(name)
    ring = pipe.ring("frames")
    pipe.source(ring)(numbers)
    pipe.sink(ring)(Sum)
    pipe.check()
    assert {each for each in set(os.listdir("/dev/shm")) - before if each.startswith(name)} == set()  # noqa: PTH208
    assert pickle.loads(pickle.dumps(numbers)) is numbers
    assert "2 stages" in repr(pipe)


def test_a_pool_without_arguments_takes_packets_of_any_size(pipe, run):
    frames = pipe.ring("frames")
    pipe.source(frames)(lambda: (bytes(size) for size in (0, 1, 2000, 100_000, 3_000_000)))
    pipe.sink(frames, name="sizes")(keep(len))
    assert run(pipe).results["sizes"] == [[0, 1, 2000, 100_000, 3_000_000]]


# ---- values -----------------------------------------------------------------------------------------


def test_the_same_packet_goes_on_without_a_copy(pipe, run):
    a, b = pipe.ring("a"), pipe.ring("b")

    @pipe.source(a)
    def read():
        yield from (b"0123", b"4567")

    @pipe.stage(a, b)
    def change(packet):
        packet[0] = ord("x")
        packet.prepend(1)[:] = b"<"
        return packet

    pipe.sink(b, name="keep")(Keep)
    report = run(pipe)
    assert report.results["keep"] == [[b"<x123", b"<x567"]]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (lambda packet: bytes(packet) * 2, [b"abab"]),
        (lambda packet: bytearray(packet), [b"ab"]),
        (lambda packet: memoryview(bytes(packet))[::-1], [b"ba"]),
        (lambda packet: np.frombuffer(bytes(packet), "u1") + 1, [b"bc"]),
        (lambda packet: [b"1", b"2"], [b"1", b"2"]),
        (lambda packet: (each for each in (b"1", packet)), [b"1", b"ab"]),
        (lambda packet: [packet, b"2"], [b"ab", b"2"]),
        (lambda packet: [], []),
        (lambda packet: None, []),
    ],
)
def test_what_a_stage_may_return(pipe, result, expected):
    a, b = pipe.ring("a"), pipe.ring("b")
    pipe.source(a)(lambda: [b"ab"])
    pipe.stage(a, b, name="stage")(result)
    pipe.sink(b, name="keep")(Keep)
    report = pipe.run(inline=True)
    assert report.exact, str(report)
    assert report.results["keep"] == [expected]


@pytest.mark.parametrize("result", ["text", 3, object()])
def test_what_a_stage_may_not_return(pipe, result):
    a, b = pipe.ring("a"), pipe.ring("b")
    pipe.source(a)(lambda: [b"ab"])
    pipe.stage(a, b, name="stage")(lambda _: result)
    pipe.sink(b, name="keep")(Keep)
    with pytest.raises(ssm.PipelineError, match="objects=True") as caught:
        pipe.run(inline=True)
    assert isinstance(caught.value.__cause__, TypeError)


def test_packets_filled_in_place(pipe, run):
    a, b = pipe.ring("a"), pipe.ring("b")

    @pipe.source(a)
    def read():
        packet = current_worker().alloc(4)
        packet[:] = b"made"
        packet.tag = 99
        yield packet

    @pipe.stage(a, b)
    def renew(packet):
        fresh = current_worker().alloc(len(packet) + 1)
        fresh[:] = packet[:] + b"!"
        fresh.tag = packet.tag + 1
        return fresh

    pipe.sink(b, name="keep")(keep(lambda packet: (packet.tag, bytes(packet))))
    assert run(pipe).results["keep"] == [[(100, b"made!")]]
    with pytest.raises(RuntimeError, match=r"pipe\.run"):
        current_worker()


def test_records(pipe, run):
    a, b = pipe.ring("a", dtype=POINT), pipe.ring("b", dtype=POINT)

    @pipe.source(a)
    def read():
        yield (1, 0.5)
        yield np.array([(2, 1.5), (3, 2.5), (4, 3.5)], POINT)

    @pipe.stage(a, b)
    def shift(record):
        if record["t"] == 4:
            return None
        if record["t"] == 3:
            return (30, record["x"])
        record["x"] += 1
        return record

    pipe.sink(b, name="keep")(keep(lambda record: (int(record["t"]), float(record["x"]))))
    assert run(pipe).results["keep"] == [[(1, 1.5), (2, 2.5), (30, 2.5)]]


def test_records_in_batches(pipe, run):
    a, b = pipe.ring("a", dtype="f8"), pipe.ring("b", dtype="f8")
    pipe.source(a, name="read")(lambda: np.arange(100.0))

    @pipe.stage(a, b, batch=16)
    def double(array):
        assert array.dtype == np.float64
        assert 1 <= len(array) <= 16
        array *= 2
        return array

    pipe.sink(b, batch=16, name="keep")(keep(lambda array: array.tolist()))
    report = run(pipe)
    assert [each for batch in report.results["keep"][0] for each in batch] == (np.arange(100.0) * 2).tolist()


def test_objects(pipe, run):
    a, b = pipe.ring("a", objects=True), pipe.ring("b", objects=True)
    pipe.source(a, name="read")(lambda: ({"n": n, "a": np.full(20_000, n)} for n in range(5)))

    @pipe.stage(a, b)
    def change(thing):
        thing["n"] *= 10
        return thing

    pipe.sink(b, name="keep")(keep(lambda thing: (thing["n"], int(thing["a"].sum()))))
    assert run(pipe).results["keep"] == [[(10 * n, 20_000 * n) for n in range(5)]]


def words(count):
    return (f"word {n}" for n in range(count))


def upper(text):
    return text.upper()


def lengths(texts):
    assert isinstance(texts, list)
    return [len(text) for text in texts]


def test_a_chain(name, run):
    pipe = ssm.Pipeline(name, start="fork").chain(words, (upper, 2), (lengths, {"batch": 8}), keep(int))
    assert sorted(run(pipe, 50).results["Keep"][0]) == sorted(len(f"word {n}") for n in range(50))


def test_batches_of_packets(pipe, run):
    a, b, c = pipe.ring("a"), pipe.ring("b"), pipe.ring("c")
    pipe.source(a)(numbers)

    @pipe.stage(a, b, batch=32, linger=0.001)
    def same(batch):
        return batch

    @pipe.stage(b, c, batch=32)
    def some(batch):
        return [packet for packet in batch if packet[0] % 2 == 0]

    pipe.sink(c)(Sum)
    report = run(pipe, 200)
    assert report.results["Sum"] == [(100, sum(range(0, 200, 2)))]
    assert report.stages["some"].filtered == 100


def test_batch_results_that_are_new_keep_their_tags(pipe, run):
    a, b = pipe.ring("a"), pipe.ring("b")
    pipe.source(a)(numbers)
    pipe.stage(a, b, batch=8, name="new")(lambda batch: [bytes(packet) for packet in batch])
    pipe.sink(b, name="keep")(keep(lambda packet: packet.tag == int.from_bytes(packet[:], "little")))
    assert run(pipe, 50).results["keep"] == [[True] * 50]


def test_to_several_rings(pipe, run):
    a, b, c = pipe.ring("a"), pipe.ring("b"), pipe.ring("c")
    pipe.source(a)(numbers)
    pipe.stage(a, (b, c), name="both")(lambda packet: packet)
    for ring in (b, c):
        pipe.sink(ring, name=f"sum of {ring.name}")(Sum)
    report = run(pipe, 100)
    assert report.results == {f"sum of {each}": [(100, sum(range(100)))] for each in "bc"}
    assert report.stages["both"].packets_out == 200


def test_to_one_of_several_rings(pipe, run):
    a, b, c = pipe.ring("a"), pipe.ring("b"), pipe.ring("c", objects=True)
    pipe.source(a)(numbers)

    @pipe.stage(a, (b, c))
    def part(packet):
        return b.to(packet) if packet[0] % 2 else c.to({"n": packet[0]})

    pipe.sink(b)(Sum)
    pipe.sink(c, name="keep")(keep(lambda thing: thing["n"]))
    report = run(pipe, 100)
    assert report.results == {"Sum": [(50, sum(range(1, 100, 2)))], "keep": [list(range(0, 100, 2))]}


def test_from_several_rings(pipe, run):
    a, b = pipe.ring("a"), pipe.ring("b")
    pipe.source(a, name="first")(numbers)
    pipe.source(b, name="second")(numbers)
    pipe.sink((a, b))(Sum)
    assert run(pipe, 300).results["Sum"] == [(600, 2 * sum(range(300)))]


def test_two_stages_may_share_a_ring(pipe, run):
    a, b = pipe.ring("a"), pipe.ring("b")
    pipe.source(a, name="first")(numbers)
    pipe.source(a, name="second")(numbers)
    pipe.stage(a, b, name="one")(lambda packet: packet)
    pipe.stage(a, b, name="other")(lambda packet: packet)
    pipe.sink(b)(Sum)
    assert run(pipe, 300).results["Sum"] == [(600, 2 * sum(range(300)))]


def test_sources_in_parts(pipe):
    a = pipe.ring("a")

    @pipe.source(a, workers=3)
    def part(count):
        worker = current_worker()
        yield from list(numbers(count))[worker.number :: worker.workers]

    pipe.sink(a)(Sum)
    for inline in (False, True):
        report = pipe.run(100, inline=inline)
        assert report.exact
        assert report.results["Sum"] == [(100, sum(range(100)))]


def test_many_results_of_one_packet_through_a_small_ring(pipe, run):
    a, b, c = pipe.ring("a", 2), pipe.ring("b", 2), pipe.ring("c", 2)
    pipe.source(a, name="read")(lambda: [b"x", b"y"])
    pipe.stage(a, b, name="many")(lambda packet: (bytes(packet) for _ in range(100)))
    pipe.stage(b, c, name="on")(lambda packet: packet)
    pipe.sink(c, name="keep")(keep(bytes))
    assert run(pipe).results["keep"] == [[b"x"] * 100 + [b"y"] * 100]


def test_a_ring_that_drops(pipe, run):
    a = pipe.ring("a", 1, overflow="drop")
    pipe.source(a)(numbers)
    pipe.sink(a)(Sum)
    report = run(pipe, 300)
    ring = report.rings["a"]
    assert ring.put + ring.drops == 300
    assert report.results["Sum"][0][0] == ring.put


def test_headroom_is_that_of_the_longest_way(pipe):
    a, b, c = pipe.ring("a"), pipe.ring("b"), pipe.ring("c")
    pipe.source(a, headroom=8)(numbers)
    pipe.stage(a, b, headroom=16, name="one")(even)
    pipe.stage(a, c, headroom=4, name="two")(even)
    pipe.sink(b, name="b")(Sum)
    pipe.sink(c, name="c")(Sum)
    with pipe.start(0) as run:
        assert run.pool.headroom == 24
        run.wait()


def test_a_side_with_one_worker_is_exclusive(pipe):
    a, b = pipe.ring("a"), pipe.ring("b")
    pipe.source(a)(numbers)
    pipe.stage(a, b, workers=2)(even)
    pipe.sink(b)(Sum)
    with pipe.start(10) as run:
        sides = {ring.name: (ring.producers, ring.consumers) for ring in run.pool.stats().rings}
        run.wait()
    assert sides["a"] == ("one", "many")
    assert sides["b"] == ("many", "one")


# ---- errors -----------------------------------------------------------------------------------------


class OddError(Exception):
    """One whose pickle cannot be loaded."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("error", [ValueError("no good"), SystemExit(3), OddError(1, 2)])
def test_an_exception_ends_the_run(pipe, error, inline):
    a, b = pipe.ring("a"), pipe.ring("b")
    pipe.source(a)(numbers)

    @pipe.stage(a, b)
    def fails(packet):
        if packet.tag == 7:
            raise error
        return packet

    pipe.sink(b)(Sum)
    with pytest.raises(ssm.PipelineError) as caught:
        pipe.run(100, inline=inline)
    raised = caught.value
    assert (raised.stage, raised.worker, raised.tag) == ("fails", 0, 7)
    assert "'fails'" in str(raised)
    assert type(error).__name__ in str(raised)
    assert raised.report.stages["fails"].errors == 1
    assert raised.report.stages["fails"].packets_out == 7
    assert not raised.report.exact
    cause = raised.__cause__
    if isinstance(error, OddError) and not inline:
        assert "OddError: 1 and 2" in str(cause)
    else:
        assert type(cause) is type(error)
        if not inline:
            assert "raise error" in str(cause.__cause__)


@pytest.mark.parametrize("where", ["source", "begin", "close"])
def test_exceptions_elsewhere(pipe, where):
    a = pipe.ring("a")

    @pipe.source(a)
    def read():
        yield b"1"
        if where == "source":
            raise KeyError("gone")

    @pipe.sink(a)
    class Sink:
        def __init__(self):
            if where == "begin":
                raise KeyError("gone")

        def __call__(self, packet):
            pass

        def close(self):
            raise KeyError("gone")

    with pytest.raises(ssm.PipelineError, match="gone") as caught:
        pipe.run()
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.stage == ("read" if where == "source" else "Sink")


def picky(packet):
    if packet.tag % 10 == 3:
        raise ValueError(f"not {packet.tag}")
    return packet


def test_dead_letters(pipe, run):
    a, b = pipe.ring("a"), pipe.ring("b")
    pipe.source(a)(numbers)
    pipe.stage(a, b, on_error="dead", tries=2)(picky)
    pipe.sink(b)(Sum)
    report = run(pipe, 40)
    assert [letter.tag for letter in report.dead] == [3, 13, 23, 33]
    first = report.dead[0]
    assert first.stage == "picky"
    assert first.data == (3).to_bytes(8, "little")
    assert "ValueError: not 3" in first.reason
    stage = report.stages["picky"]
    assert (stage.dead, stage.errors, stage.packets_in, stage.packets_out) == (4, 8, 40, 36)
    assert "dead letter of 'picky', tag 3: ValueError: not 3" in str(report)


def test_dead_letters_of_batches(pipe, run):
    """A batch that fails comes again packet by packet: the others in it go on."""
    a, b = pipe.ring("a"), pipe.ring("b")
    pipe.source(a)(numbers)

    @pipe.stage(a, b, on_error="dead", batch=16)
    def batches(batch):
        for packet in batch:
            picky(packet)
        return batch

    pipe.sink(b)(Sum)
    report = run(pipe, 40)
    assert [letter.tag for letter in report.dead] == [3, 13, 23, 33]
    assert report.results["Sum"][0][0] == 36


def test_dead_letters_are_bounded(name):
    pipe = ssm.Pipeline(name, start="fork", dead_letters=3)
    a = pipe.ring("a")
    pipe.source(a)(numbers)
    pipe.sink(a, on_error="dead")(picky)
    with pytest.raises(ssm.PipelineError, match="3 dead letters are the limit") as caught:
        pipe.run(100)
    assert len(caught.value.report.dead) == 3


def test_dropped(pipe, run):
    a, b = pipe.ring("a"), pipe.ring("b")
    pipe.source(a)(numbers)
    pipe.stage(a, b, on_error="drop")(picky)
    pipe.sink(b)(Sum)
    report = run(pipe, 40)
    assert report.stages["picky"].dropped == 4
    assert report.dead == ()


def test_tries(pipe, tmp_path):
    a = pipe.ring("a")
    pipe.source(a)(numbers)

    @pipe.sink(a, tries=3)
    def third_time(packet):
        mark = tmp_path / str(packet.tag)
        mark.touch()
        with mark.open("a") as file:
            file.write("x")
        if len(mark.read_text()) < 3:
            raise ValueError

    report = pipe.run(5)
    assert report.exact
    assert report.stages["third_time"].errors == 10


# ---- what is told -----------------------------------------------------------------------------------


def test_logging_arrives_here(pipe, caplog):
    a = pipe.ring("a")

    @pipe.source(a)
    def read():
        logging.getLogger("of.a.worker").warning("in %s", "there")
        logging.getLogger("of.a.worker").debug("not wanted")
        yield b"1"

    pipe.sink(a)(Sum)
    caplog.set_level(logging.INFO)
    assert pipe.run().exact
    records = [record for record in caplog.records if record.name == "of.a.worker"]
    assert [record.getMessage() for record in records] == ["in there"]
    assert records[0].process != os.getpid()


def stage_report(name, kind, workers, busy, starved, seconds=10.0):
    return StageReport(
        name=name,
        kind=kind,
        workers=workers,
        packets_in=0,
        packets_out=0,
        filtered=0,
        dead=0,
        dropped=0,
        errors=0,
        seconds=seconds * workers,
        busy=busy,
        starved=starved,
        blocked=1 - busy - starved,
        started=workers,
        killed=0,
        hung=0,
    )


@pytest.mark.parametrize(
    ("read", "parse", "count", "cores", "sentence"),
    [
        (0.9, 0.5, 0.1, 8, "Source 'read' is the bottleneck: busy 90% of the time"),
        (
            0.2,
            0.9,
            0.1,
            8,
            "Stage 'parse' is the bottleneck: its 2 workers are busy 90% of the time. Workers=3",
        ),
        (0.2, 0.5, 0.8, 8, "Sink 'count' is the bottleneck: its worker is busy 80% of the time. Batch="),
        (0.2, 0.3, 0.4, 8, "No stage is busy half of the time; the most is 'count'"),
        (0.9, 0.5, 0.1, 2, "The 2 processors are the bottleneck"),
    ],
)
def test_bottleneck_is_a_sentence_with_a_remedy(read, parse, count, cores, sentence):
    stages = [
        stage_report("read", "source", 1, read, 0.0),
        stage_report("parse", "stage", 2, parse, 0.0),
        stage_report("count", "sink", 1, count, 1 - count),
    ]
    report = Report(
        pipeline="p",
        seconds=10.0,
        stages={stage.name: stage for stage in stages},
        rings={},
        dead=(),
        results={},
        blocks=(),
        missing=0,
        findings=(),
        complete=True,
        interrupted=False,
        cores=cores,
    )
    assert report.bottleneck.startswith(sentence)
    assert report.bottleneck in str(report)


def test_a_stage_that_ended_early_is_no_bottleneck():
    report = Report(
        pipeline="p",
        seconds=10.0,
        stages={
            "read": stage_report("read", "source", 1, 1.0, 0.0, seconds=0.1),
            "count": stage_report("count", "sink", 1, 0.9, 0.1),
        },
        rings={},
        dead=(),
        results={},
        blocks=(),
        missing=0,
        findings=(),
        complete=True,
        interrupted=False,
        cores=2,
    )
    assert report.bottleneck.startswith("Sink 'count'")


def slow_sink(packet):
    time.sleep(0.02)


def test_more_workers_while_a_ring_is_full(pipe):
    """One at first; the source is faster than three of them."""
    ring = pipe.ring("numbers", 8, size=8)
    pipe.source(ring)(numbers)
    pipe.sink(ring, workers=(1, 3))(slow_sink)
    with pipe.start(400) as running:
        assert len(running.pids("slow_sink")) == 1
        report = running.wait()
    assert report.exact, report
    assert report.stages["slow_sink"].workers == report.stages["slow_sink"].started
    assert 2 <= report.stages["slow_sink"].started <= 3


@pytest.mark.parametrize("workers", [(0, 2), (3, 2), (1, 5000)])
def test_numbers_of_workers_that_cannot_be(pipe, workers):
    with pytest.raises(ValueError, match="workers"):
        pipe.sink(pipe.ring("numbers"), workers=workers)(slow_sink)


def test_graph(pipe):
    a, b = pipe.ring("a"), pipe.ring('b "x"')
    pipe.source(a)(numbers)
    pipe.stage(a, b, workers=2)(even)
    pipe.sink(b)(Sum)
    assert pipe.graph().splitlines() == [
        "flowchart LR",
        '  s0(["numbers"])',
        '  s1["even x2"]',
        '  s2[["Sum"]]',
        '  s0 -- "a" --> s1',
        '  s1 -- "b #quot;x#quot;" --> s2',
    ]


def test_workers_are_bound_to_processors(pipe):
    a = pipe.ring("a")
    allowed = sorted(os.sched_getaffinity(0))
    pipe.source(a)(numbers)

    @pipe.sink(a, cpus=allowed[-1:])
    class Bound:
        def __call__(self, packet):
            pass

        def close(self):
            return os.sched_getaffinity(0)

    assert pipe.run(1).results["Bound"] == [{allowed[-1]}]


# ---- what is refused --------------------------------------------------------------------------------


def refused(pipe, match):
    with pytest.raises(ssm.PipelineRefused, match=match) as caught:
        pipe.run()
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, ssm.PipelineError)


def test_a_circle_is_refused(pipe):
    a, b, c = pipe.ring("a"), pipe.ring("b"), pipe.ring("c")
    pipe.source(a)(numbers)
    pipe.stage((a, c), b, name="one")(even)
    pipe.stage(b, c, name="two")(even)
    refused(pipe, "circle: b -> c -> b")


def test_rings_without_ends_are_refused(pipe, name):
    a = pipe.ring("a")
    refused(pipe, "no source")
    pipe.source(a)(numbers)
    refused(pipe, "no stage reads ring 'a'")
    pipe.sink(a)(Sum)
    b = pipe.ring("b")
    pipe.sink(b, name="b")(Sum)
    refused(pipe, "no stage puts into ring 'b'")
    other = ssm.Pipeline(name)
    other.source(a)(numbers)
    other.sink(a)(Sum)
    refused(other, "another pipeline")


def test_too_few_blocks_are_refused(name):
    pipe = ssm.Pipeline(name, classes={2048: 64}, start="fork")
    a, b = pipe.ring("a", 32), pipe.ring("b", 32)
    pipe.source(a)(numbers)
    pipe.stage(a, b, workers=2)(even)
    pipe.sink(b)(Sum)
    refused(pipe, "64 blocks are too few: rings take 64, workers 6 .*dead letters 64, together 134")


def test_batches_that_no_ring_takes_are_refused(pipe):
    a, b, c = pipe.ring("a"), pipe.ring("b"), pipe.ring("c", 4)
    pipe.source(a)(numbers)
    pipe.stage(a, b, batch=1000)(even)
    pipe.stage(b, c, batch=5, name="other")(even)
    pipe.sink(c)(Sum)
    refused(pipe, "stage 'other' has batch=5, and ring 'c' takes 4 packets")


def test_rings_take_the_batches_of_their_stages(pipe):
    a = pipe.ring("a")
    pipe.source(a)(numbers)
    pipe.sink(a, batch=1000, name="sink")(lambda batch: None)
    assert pipe.run(3, inline=True).rings["a"].capacity == 1000


def test_rings_share_the_blocks_that_are_given(name):
    pipe = ssm.Pipeline(name, classes={2048: 100}, dead_letters=10, start="fork")
    a, b = pipe.ring("a"), pipe.ring("b")
    pipe.source(a)(numbers)
    pipe.stage(a, b, workers=2, name="new")(lambda packet: bytes(packet))
    pipe.sink(b)(Sum)
    report = pipe.run(3000)
    assert report.exact
    assert report.rings["a"].capacity == report.rings["b"].capacity == 41


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_what_cannot_be_pickled_is_named(name, method, monkeypatch):
    monkeypatch.setattr("ssm.pipeline.freight.find_spec", lambda _: None)  # no cloudpickle
    pipe = ssm.Pipeline(name, start=method)
    a = pipe.ring("a")
    pipe.source(a, name="read")(lambda: [b"1"])
    pipe.sink(a)(Sum)
    refused(pipe, f"source 'read' .* cannot be pickled, as start='{method}' needs it.*cloudpickle")
    pipe = ssm.Pipeline(name, start=method)
    a = pipe.ring("a")
    pipe.source(a)(numbers)
    pipe.sink(a)(Sum)
    with pytest.raises(ssm.PipelineRefused, match=r"the arguments of run\(\) cannot be pickled"):
        pipe.run(lambda: None)


@pytest.mark.slow
def test_cloudpickle_is_used_where_it_is_installed(name):
    pytest.importorskip("cloudpickle")
    pipe = ssm.Pipeline(name, start="forkserver")
    a = pipe.ring("a")
    pipe.source(a, name="read")(lambda: [b"1", b"2"])
    pipe.sink(a, name="keep")(keep(lambda packet: bytes(packet)))
    assert pipe.run().results["keep"] == [[b"1", b"2"]]


def test_objects_in_a_pool_of_all_users_are_refused(name):
    pipe = ssm.Pipeline(name, mode=0o666)
    a = pipe.ring("a", objects=True)
    pipe.source(a)(numbers)
    pipe.sink(a)(Sum)
    refused(pipe, "other users")


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda p, r: p.ring("a"), "already"),
        (lambda p, r: p.ring("b", overflow="sample:2"), "overflow"),
        (lambda p, r: p.ring("b", overflow="overwrite"), "redeliver=False"),
        (lambda p, r: p.ring("b", dtype="u1", objects=True), "not both"),
        (lambda p, r: p.ring("b", capacity=0), "capacity"),
        (lambda p, r: p.stage(r, r, workers=0)(even), "workers"),
        (lambda p, r: p.stage(r, r, tries=0)(even), "tries"),
        (lambda p, r: p.stage(r, r, on_error="ignore"), "on_error"),
        (lambda p, r: p.stage(r, r, state="here"), "state"),
        (lambda p, r: p.stage(r, r, timeout=0), "timeout"),
        (lambda p, r: p.stage((), r), "needs a ring"),
        (lambda p, r: p.stage("a", r), "ring of pipe.ring"),
        (lambda p, r: [p.stage(r, r)(even), p.stage(r, r)(even)], "two stages"),
        (lambda p, r: p.chain(numbers), "chain"),
        (lambda p, r: ssm.Pipeline("x", start="thread"), "start"),
        (lambda p, r: ssm.Pipeline("x", stuck=0), "stuck"),
    ],
)
def test_wrong_arguments(pipe, wrong, match):
    ring = pipe.ring("a")
    with pytest.raises((ValueError, TypeError), match=match):
        wrong(pipe, ring)


@pytest.mark.slow
def test_a_script_without_a_guard_is_told(tmp_path, name):
    """Under forkserver a worker imports the main module, and would run the pipeline again."""
    script = tmp_path / "unguarded.py"
    script.write_text(
        textwrap.dedent(f"""
            import ssm
            pipe = ssm.Pipeline({name!r}, start="spawn")
            ring = pipe.ring("a")
            @pipe.source(ring)
            def read():
                yield b"1"
            @pipe.sink(ring)
            def sink(packet):
                pass
            pipe.run()
        """)
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert "put pipe.run() below if __name__ == '__main__'" in done.stderr  # by the worker,
    assert "before it began" in done.stderr  # and by the program


def test_importing_ssm_does_not_import_multiprocessing():
    code = "import sys, ssm; sys.exit('ssm.pipeline' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path("/")).returncode == 0


def in_a_daemon(talk, name):
    pipe = ssm.Pipeline(name, start="fork")
    a = pipe.ring("a")
    pipe.source(a)(numbers)
    pipe.sink(a)(Sum)
    with pytest.raises(ssm.PipelineRefused, match="daemon") as caught:
        pipe.run(1)
    return str(caught.value)


def test_a_daemon_is_refused(children, name):
    assert "daemon=False" in children.run(in_a_daemon, name)


# ---- asyncio ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("inline", [False, True])
def test_functions_that_are_awaited(name, inline):
    """A source, a stage that awaits for all packets of a batch at once, one that yields, and a class."""
    pipe = ssm.Pipeline(name, start="fork")
    a, b, c = (pipe.ring(each, objects=True) for each in "abc")

    @pipe.source(a)
    async def read(count, start=0):
        for number in range(start, count):
            await asyncio.sleep(0)
            yield number

    async def double(number):
        await asyncio.sleep(0.001)
        return 2 * number

    @pipe.stage(a, b, batch=8, workers=2, ordered=True)
    async def ask(numbers):
        return await asyncio.gather(*map(double, numbers))

    @pipe.stage(b, c)
    async def twice(number):
        yield number
        await asyncio.sleep(0)
        yield number + 1

    @pipe.sink(c)
    class Keep:
        def __init__(self):
            self.loop = asyncio.get_running_loop()
            self.numbers = []

        async def __call__(self, number):
            assert asyncio.get_running_loop() is self.loop
            self.numbers.append(number)

        async def close(self):
            return self.numbers

    report = pipe.run(50, inline=inline)
    assert report.exact, str(report)
    assert report.results["Keep"] == [list(range(100))]


def test_an_error_in_a_function_that_is_awaited(name):
    pipe = ssm.Pipeline(name, start="fork")
    a = pipe.ring("a", objects=True)
    pipe.source(a)(lambda: iter(range(10)))

    @pipe.sink(a, on_error="dead", tries=2)
    async def sink(number):
        await asyncio.sleep(0)
        if number == 5:
            raise ValueError(number)

    report = pipe.run()
    assert report.exact, str(report)
    assert "ValueError: 5" in report.dead[0].reason
    assert report.stages["sink"].errors == 2


@pytest.mark.parametrize("inline", [False, True])
def test_a_ring_says_how_its_packets_ended(name, inline):
    pipe = ssm.Pipeline(name, start="fork")
    a, b, c = (pipe.ring(each) for each in "abc")
    pipe.source(a, name="read")(lambda: (bytes([number]) for number in range(20)))

    @pipe.stage(a, b, on_error="dead")
    def work(packet):
        if packet[0] == 7:
            raise ValueError
        return None if packet[0] % 2 else packet if packet[0] % 4 else bytes(packet)

    pipe.stage(b, c, name="on")(lambda packet: packet)
    pipe.source(c, name="more")(lambda: iter([b"x"]))
    pipe.sink((c,), name="sink")(lambda packet: None)
    report = pipe.run(inline=inline)
    assert report.exact, str(report)
    ends = {name: (ring.passed_on, ring.freed, ring.died) for name, ring in report.rings.items()}
    assert ends == {"a": (11, 9, 0), "b": (10, 0, 0), "c": (0, 11, 0)}
    assert report.to_dict()["rings"]["a"]["freed"] == 9


def test_a_reader_of_two_rings_does_not_count_them_apart(name):
    pipe = ssm.Pipeline(name, start="fork")
    a, b = pipe.ring("a"), pipe.ring("b")
    pipe.source((a, b), name="read")(lambda: iter([b"x"]))
    pipe.sink((a, b), name="sink")(lambda packet: None)
    report = pipe.run(inline=True)
    assert report.exact
    assert report.rings["a"].freed is None
