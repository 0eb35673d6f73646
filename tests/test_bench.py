# SPDX-License-Identifier: Apache-2.0
"""The benchmark runs and writes what it should; how fast it is, no test asks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import (
    allocators,
    bench,
    callgrind,
    calls,
    cases,
    check,
    growth,
    hosted,
    in_place,
    performance,
    pipelines,
    pools,
    reference,
)
from benchmarks.peers import __main__ as peers
from benchmarks.peers import crew, ways
from benchmarks.topics import __main__ as topics

ROOT = Path(__file__).resolve().parent.parent


def run(output, module, *options):
    """What it printed, and what it wrote."""
    command = [sys.executable, "-X", "dev", "-W", "error", "-m", module, *options, "--output", output]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout, json.loads(output.read_text())


def test_bench_writes_its_results(tmp_path):
    printed, document = run(tmp_path / "results.json", "benchmarks", "--python-only", "--quick")
    assert {"cpu", "kernel", "compiler", "python", "python_build"} <= document["machine"].keys()
    assert document["packets"] == cases.BATCH
    assert len(document["results"]) == len(bench.PYTHON)
    for result in document["results"]:
        assert result["runs"] == [result["median"]]
        assert result["median"] > 0
        assert result["what"] in printed


def test_calls_writes_its_results(tmp_path):
    printed, document = run(tmp_path / "results.json", "benchmarks.calls", "--quick")
    assert {result["at_once"] for result in document["results"]} == {1, calls.AT_ONCE}
    assert len(document["results"]) == len(calls.CASES)
    for result in document["results"]:
        assert result["median"] > 0
        assert 0 < result["median_us"] <= result["p99_us"]
        assert result["what"] in printed


@pytest.mark.parametrize(
    ("program", "options", "measured", "folder"),
    [
        (bench, ["--python-only"], ("all_cases", []), "."),
        (growth, ["--python-only"], ("pool_cases", []), "growth"),
        (allocators, ["--python-only"], ("measure", {}), "allocators"),
        (peers, [], ("questions", []), "peers"),
        (calls, [], ("measure", {}), "calls"),
        (topics, [], ("measure", {"results": [], "wrong": []}), "topics"),
        (in_place, [], ("measure", {"results": [], "missing": []}), "in_place"),
        (pipelines, [], ("measure", {"overhead": [], "tasks": []}), "pipelines"),
    ],
)
def test_figures_stand_among_the_committed_ones_only_if_asked_to(
    program, options, measured, folder, monkeypatch, tmp_path
):
    """The documentation shows the committed ones: it would be wrong after a measurement on one's own machine."""
    name, nothing = measured
    monkeypatch.setattr(program, name, lambda *args: nothing)
    for root in ("RESULTS", "MEASURED"):
        monkeypatch.setattr(bench, root, tmp_path / getattr(bench, root).relative_to(ROOT))
    assert program.main(options) == 0
    assert [file.parent for file in tmp_path.rglob("*.json")] == [tmp_path / "build/results" / folder]
    assert program.main([*options, "--record"]) == 0
    recorded = tmp_path / "benchmarks/results" / folder
    assert [file.parent for file in (tmp_path / "benchmarks").rglob("*.json")] == [recorded]


def test_pipelines(tmp_path):
    printed, document = run(tmp_path / "results.json", "benchmarks.pipelines", "--rounds", "1", "--quick")
    assert [each["what"] for each in document["overhead"]] == [
        "raw, singly",
        "stage, singly",
        "raw, batches of 64",
        "stage, batches of 64",
    ]
    there = {(task.what, way) for task in pools.TASKS for way in task.there}
    assert {(each["what"], each["with"]) for each in document["tasks"]} == there
    assert {
        task.what for task in pools.TASKS if {"ssm.Pipeline", "ProcessPoolExecutor"} <= set(task.there)
    } >= {
        "1080p frames of one source, results in order",
        "lines of a log, parsed and counted",
    }
    for each in document["overhead"] + document["tasks"]:
        assert each["median"] > 0
        assert each["what"] in printed
    for each in document["tasks"]:
        assert each["lines"] > 2


def test_what_a_stage_costs_of_its_own():
    medians = {"raw, singly": 200, "stage, singly": 520, "raw, batches of 64": 30, "stage, batches of 64": 52}
    overhead = [{"what": what, "median": median} for what, median in medians.items()]
    assert pipelines.own_cost(overhead) == {"stage, singly": 320, "stage, batches of 64": 22}


def test_the_table_of_pipelines_says_how_many_times_as_fast_ours_is():
    tasks = [
        {"what": "a task", "with": way, "unit": "items/s", "lines": 7, "runs": [rate], "median": rate}
        for way, rate in (("ssm.Pipeline", 300.0), ("joblib", 200.0))
    ]
    about = dict.fromkeys(("cpu", "cores", "load", "kernel", "python", "python_build"), "x")
    document = {"when": "2026", "machine": about, "workers": 2, "overhead": [], "tasks": tasks}
    lines = pipelines.markdown(document).splitlines()
    assert lines[-2:] == [
        "| a task | ssm.Pipeline | 7 | 300 items | 300 | 300 |  |",
        "| a task | joblib | 7 | 200 items | 200 | 200 | 1.50 x |",
    ]


def test_allocators(tmp_path):
    printed, document = run(tmp_path / "results.json", "benchmarks.allocators", "--short", "--python-only")
    assert {r["form"] for r in document["results"]} == {"Python", "hosted"}
    assert len(document["results"]) == 2 * 20
    for result in document["results"]:
        assert result["operation"] in printed
        assert result["median"] > 0


def test_the_table_of_the_documentation_is_that_of_the_results():
    tables = [
        allocators.markdown(json.loads(file.read_text())) for file in (bench.RESULTS / "allocators").iterdir()
    ]
    assert any(table in allocators.DOCS.read_text() for table in tables)


def test_growth(tmp_path):
    printed, document = run(tmp_path / "results.json", "benchmarks.growth", "--short", "--python-only")
    assert {r["of"] for r in document["results"]} == {"MiB", "blocks"}
    assert all(r["median"] > 0 and r["what"] in printed for r in document["results"])


def test_in_place():
    """Both in one run; a program whose package is not there says so."""
    document = in_place.measure(["logging"], 1, quick=True)
    assert [r["with"] for r in document["results"]] == ["ssm", "multiprocessing"]
    assert all(r["median"] > 0 for r in document["results"])
    program = replace(in_place.PROGRAMS["logging"], needs=("a_package_that_nobody_has",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(in_place.PROGRAMS, "logging", program)
        document = in_place.measure(["logging"], 1, quick=True)
    assert document == {
        "results": [],
        "missing": [{"program": "logging", "reason": "a_package_that_nobody_has is not installed"}],
    }


def test_peers(tmp_path):
    """Of those that need nothing but Python; one that copies, one that polls, ours in batches."""
    kinds = "batches,hand-made,SimpleQueue,ssm.Queue"
    printed, document = run(tmp_path / "results.json", "benchmarks.peers", "--quick", "--only", kinds)
    assert document["missing"] == []
    assert document["depth"] == ways.DEPTH
    assert f"depth {ways.DEPTH}" in printed
    assert document["machine"]["python_build"] in printed
    assert all(r["reference_ns"] > 0 and r["thrown_away"] == 0 for r in document["results"])
    cells = performance.peers_table(document)
    assert cells.count("/s (") >= len(kinds.split(","))
    asked = [(r["question"], r["peer"].split(" ")[-1]) for r in document["results"]]
    assert asked.count(("64 B", "64")) == 1
    assert ("round trip, sleeping", "ssm.Queue") in asked
    assert ("round trip, polling", "ring") in asked
    assert ("round trip, sleeping", "multiprocessing.SimpleQueue") in asked
    assert all(r["median"] > 0 for r in document["results"])


def test_a_run_that_was_disturbed_is_repeated_a_few_times():
    """The loop beside it takes longer behind the first run than before; then it does so behind every run."""
    runs, values, turns = reference.Runs(), iter(range(100)), iter([100, 116, 100, 114, *[100, 200] * 9])
    for _ in range(2):
        runs.add(lambda: float(next(values)), tries=3, turn=lambda: float(next(turns)))
    assert runs.values == [1, 4]  # 0, 2 and 3 are thrown away
    assert runs.as_fields() == {
        "runs": [1, 4],
        "median": 2.5,
        "reference_ns": 128.5,
        "thrown_away": 3,
        "unsteady": 1,
    }


def test_a_run_that_fails_adds_nothing():
    runs = reference.Runs()
    with pytest.raises(ZeroDivisionError):
        runs.add(lambda: 1 / 0)
    assert runs == reference.Runs()


class Fragile(ways.MpPipe):
    """Its receiver dies, or is never done."""

    name = "fragile"

    def receiver(self):
        os._exit(self.size)


class Stuck(ways.MpPipe):
    name = "stuck"

    def receiver(self):
        return lambda: time.sleep(100)


def test_a_peer_that_dies_ends_its_case():
    with pytest.raises(ways.NotPossibleError, match="ended with 7"):
        crew.rate(Fragile, 7, 0.01)


def test_a_peer_that_hangs_ends_its_case(monkeypatch):
    monkeypatch.setattr(crew.watch, "__kwdefaults__", {"patience_s": 2})
    with pytest.raises(ways.NotPossibleError, match="not done after 2 s"):
        crew.rate(Stuck, 7, 0.01)


def test_topics(tmp_path):
    """Ours, and beside them iceoryx2's where that is installed."""
    printed, document = run(tmp_path / "results.json", "benchmarks.topics", "--quick", "--only", "ssm,events")
    assert document["wrong"] == []
    churn, more, video = topics.questions(quick=True)
    expected = [
        (question.name, kind.name)
        for question in (churn, more, video)
        for kind in question.kinds
        if kind.is_there() and ("ssm" in kind.name or "events" in kind.name)
    ]
    assert [(r["question"], r["with"]) for r in document["results"]] == expected
    for result in document["results"]:
        assert result["published"] > 0
        assert result["received"] > 0
        assert (result["killed"] > 0) == (result["left"] > 0) == (result["question"] != video.name)
        assert f"| {result['with']} |" in printed


def test_what_ours_may_not_do_ends_the_benchmark_of_topics(monkeypatch, tmp_path, capsys):
    """What others do is in the table only, but they have to be at work."""
    question, *_ = topics.questions(quick=True)
    fine = {"published": 1.0, "delivered": 1.0, "killed": 1, "left": 1}
    kinds = {kind.name: kind for kind in question.kinds}
    ours, other = kinds["ssm topic, block"], kinds["iceoryx2, retry, events"]

    def wrong(kind, **more):
        return topics.wrong_with(question, kind, [topics.Outcome(**(fine | more))])

    assert wrong(ours) == wrong(other) == []
    assert wrong(other, faults=["it is torn"], remains=1) == []
    assert wrong(ours, faults=["it is torn"]) == [f"{question.name}: {ours.name}: it is torn"]
    assert "2 blocks and rings are left" in wrong(ours, remains=2)[0]
    assert "nothing was delivered" in wrong(other, delivered=0.0)[0]
    assert "nobody was killed" in wrong(other, killed=0)[0]
    monkeypatch.setattr(topics, "measure", lambda *args: {"results": [], "wrong": ["it is torn"]})
    assert topics.main(["--output", str(tmp_path / "results.json")]) == 1
    assert "it is torn" in capsys.readouterr().err


def test_rounds_end_when_there_is_no_time_for_another():
    assert list(bench.rounds_within(3, 100)) == [0, 1, 2]
    assert list(bench.rounds_within(3, 0)) == [0]


def test_a_loss_is_found_and_a_gain_is_not():
    before = {pair: [10.0, 12.0] for pairs in check.pairs() for pair in pairs}
    table = {key: bench.Case(key[1], key[1], key[0], float, list(runs)) for key, runs in before.items()}
    assert check.losses(table, before) == []
    table["C", "put_get"].runs = [11.4, 30.0]
    table["Python", "put_get"].runs = [5.0]
    assert check.losses(table, before) == []
    table["C", "put_get"].runs = [11.6, 30.0]
    assert check.losses(table, before) == [(("C", "put_get"), ("C", "floor_loop"))]


def test_a_lucky_run_of_a_reference_in_which_two_meet_is_no_loss():
    case, reference = ("C", "hand_over"), ("C", "floor_round_trip_spin")
    before = {case: [6.0, 9.0], reference: [10.0, 10.0, 10.0]}
    now = {case: [6.0, 9.0], reference: [1.0, 10.0, 10.0]}
    assert check.ratio(now, case, reference) == check.ratio(before, case, reference)


def test_more_instructions_are_a_complaint(capsys):
    assert callgrind.compare({"a": 100, "b": 100}, {"a": 105, "b": 95}) == []
    assert callgrind.compare({"a": 100}, {"a": 105.1, "new": 1}) == ['"a": 105.1', '"new": 1']
    assert "+5.1%" in capsys.readouterr().out


def test_a_hosted_call_of_over_twice_the_instructions_is_a_complaint(capsys):
    counts = {"a": {"alone": 100.0, "hosted": 200.0}, "b": {"alone": 100.0, "hosted": 201.0}}
    assert hosted.compare(counts) == ["b"]
    assert "2.01 times" in capsys.readouterr().out


def test_the_tables_of_the_page_are_those_of_the_results():
    for page in performance.PAGES:
        assert performance.filled(page) == page.read_text()


def test_every_goal_has_its_case():
    python = {loop.__name__ for loop, _ in bench.PYTHON}
    assert {row.result for row in performance.PYTHON} <= python
    assert {row.result for row in performance.C} | {row.floor for row in performance.C} - {
        ""
    } <= bench.C.keys()
    assert {name for pair in check.pairs() for _, name in pair} <= python | bench.C.keys()
