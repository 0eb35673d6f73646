# SPDX-License-Identifier: Apache-2.0
"""What a run tells those outside, what they believe of it, and where stages stand in a picture."""

from __future__ import annotations

import dataclasses
import itertools
import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ssm
from ssm.pipeline import bulletin
from ssm.pipeline.bulletin import (
    Bulletin,
    EventNews,
    LetterNews,
    News,
    Reader,
    RingNews,
    StageNews,
    WorkerNews,
)
from ssm.pipeline.layout import layout
from ssm.pipeline.pace import Pace


def stage(name="work", kind="stage", inputs=("a",), outputs=("b",), **counts):
    numbers = [field.name for field in dataclasses.fields(StageNews) if field.type == "int"]
    zero = dict.fromkeys(numbers, 0)
    return StageNews(
        name, kind, tuple(inputs), tuple(outputs), (WorkerNews(0, 7, "busy"),), **{**zero, **counts}
    )


def news(*stages, rings=(), **more):
    return dataclasses.replace(
        News("lab", 1.5, False, 2, tuple(stages) or (stage(),), tuple(rings), (), ()), **more
    )


def text_of(what):
    return json.dumps(dataclasses.asdict(what)).encode()


# ---- the bulletin ------------------------------------------------------------------------------------


@pytest.fixture
def pool(name):
    with ssm.Pool.create(name, classes={512: 4}, metadata=1 << 20, ephemeral=True) as pool:
        yield pool


def test_what_is_written_is_read(pool):
    told = news(
        events=(EventNews(1, 1e9, "start", "work", 0, "started"),),
        letters=(LetterNews(1 << 63, "work", "a reason"),),
        rings=(RingNews("a", 3),),
    )
    paper, reader = Bulletin(pool), Reader(pool)
    assert reader.read(pool.stats().services) is None  # nothing is written yet
    paper.write(told)
    assert reader.read(pool.stats().services) == told
    paper.write(dataclasses.replace(told, stopping=True))
    assert reader.read(pool.stats().services).stopping
    reader.close()
    paper.close()
    paper.write(told)  # into nothing


def test_what_is_too_long_goes_without_what_is_longest(pool):
    paper, reader = Bulletin(pool), Reader(pool)
    paper.write(news(letters=tuple(LetterNews(each, "work", "x" * 8000) for each in range(60))))
    assert reader.read(pool.stats().services) == news()
    reader.close()
    paper.close()


def test_a_reader_never_sees_half_of_a_text(pool):
    paper = Bulletin(pool)
    both = [news(stage(f"{letter * 5000}")) for letter in "ab"]
    paper.write(both[0])
    over = threading.Event()

    def write():
        while not over.is_set():
            for each in both:
                paper.write(each)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        reader = Reader(pool)
        seen = [reader.read(pool.stats().services) for _ in range(300)]
    finally:
        over.set()
        writer.join()
        reader.close()
        paper.close()
    assert any(seen)
    assert all(each is None or each in both for each in seen)


def test_a_checksum_that_does_not_fit_is_no_news(pool):
    paper, reader = Bulletin(pool), Reader(pool)
    paper.write(news())
    assert reader.read(pool.stats().services) is not None
    at = bytes(paper._board).index(b'"seconds":1.5')
    paper._board[at + len('"seconds":')] = ord("7")  # JSON as good as before
    assert reader.read(pool.stats().services) is None
    reader.close()
    paper.close()


def test_a_pool_without_room_for_it_is_not_told_of(name, caplog):
    with ssm.Pool.create(name, classes={512: 4}, metadata=1 << 16, ephemeral=True) as pool:
        paper = Bulletin(pool)
        assert "cannot be watched from outside" in caplog.text
        paper.write(news())
        paper.close()
        assert Reader(pool).read(pool.stats().services) is None


def test_another_board_of_the_name_is_none(pool):
    pool.board(bulletin.NAME, "u8", 3)
    assert Reader(pool).read(pool.stats().services) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda it: it.pop("stages"),
        lambda it: it.update(stages={}),
        lambda it: it.update(stages=[3]),
        lambda it: it.update(pipeline=None),
        lambda it: it.update(seconds="1"),
        lambda it: it.update(seconds=float("nan")),
        lambda it: it.update(seconds=1e300),
        lambda it: it.update(cores=True),
        lambda it: it.update(cores=1 << 64),
        lambda it: it["stages"][0].update(packets_in=-1),
        lambda it: it["stages"][0].update(inputs="ab"),
        lambda it: it["stages"][0]["workers"][0].update(pid=1.5),
    ],
)
def test_what_is_no_news_is_not_believed(change):
    told = json.loads(text_of(news()))
    assert bulletin.parse(json.dumps(told).encode()) == news()
    change(told)
    assert bulletin.parse(json.dumps(told).encode()) is None


@pytest.mark.parametrize("text", [b"", b"\xff", b"null", b"[]", b"[" * 100_000])
def test_no_text_breaks_the_reader(text):
    assert bulletin.parse(text) is None


def test_long_texts_are_cut():
    assert len(bulletin.parse(text_of(news(pipeline="x" * 100_000))).pipeline) == 8192


# ---- the pace ----------------------------------------------------------------------------------------


def test_rates_and_shares_are_those_of_the_last_seconds(pool, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("ssm.pipeline.pace.time.monotonic", lambda: now[0])
    ring = pool.ring("a", capacity=8)
    second = 1_000_000_000
    pace = Pace()
    slow = stage(packets_in=1000, life_ns=100 * second, starved_ns=100 * second)
    pace.look(news(slow), pool.stats().rings)
    for _ in range(4):
        ring.send(b"x")
    now[0] += 2
    quick = stage(packets_in=1400, life_ns=102 * second, starved_ns=100 * second + second // 2)
    taken = [RingNews("a", 1403)]
    progress = pace.look(news(quick, rings=taken, seconds=3.5), pool.stats().rings)
    (only,) = progress.stages
    assert only.rate == 200
    assert (only.busy, only.starved, only.blocked) == pytest.approx((0.75, 0.25, 0))
    assert [(each.stats.name, each.rate, each.in_hand) for each in progress.rings] == [("a", 2, 3)]
    assert "'work' is the bottleneck" in progress.bottleneck
    assert "busy 75%" in progress.bottleneck


def test_another_run_begins_anew(pool):
    pace = Pace()
    pace.look(news(stage(packets_in=1000, life_ns=10), seconds=50), ())
    (only,) = pace.look(news(stage(packets_in=3, life_ns=1), seconds=0.1), ()).stages
    assert only.rate == 0


def test_in_hand_is_not_known_where_readers_share(pool):
    pool.ring("a")
    two = news(stage(inputs=("a", "c")), rings=[RingNews("a", 9)])
    (ring,) = Pace().look(two, pool.stats().rings).rings
    assert ring.in_hand is None


# ---- the picture -------------------------------------------------------------------------------------


def placed(*stages):
    return {node.name: (node.column, node.row) for node in layout(stages).nodes}


def test_a_line_and_a_fork():
    assert placed(
        ("read", (), ("a",)), ("work", ("a",), ("b", "c")), ("x", ("b",), ()), ("y", ("c",), ())
    ) == {
        "read": (0, 0),
        "a": (1, 0),
        "work": (2, 0),
        "b": (3, -0.5),
        "c": (3, 0.5),
        "x": (4, -0.5),
        "y": (4, 0.5),
    }


NAMES = st.sampled_from("abcdef")


RINGS = st.lists(NAMES, max_size=3)


@given(st.lists(st.tuples(NAMES, RINGS, RINGS), max_size=6, unique_by=lambda stage: stage[0]))
def test_whatever_is_declared_nothing_lies_on_another(stages):
    """Circles included: a bulletin may be damaged."""
    drawn = layout(stages)
    places = [(node.column, node.row) for node in drawn.nodes]
    assert len({(column, round(row, 6)) for column, row in places}) == len(places)
    for column in {column for column, _ in places}:
        rows = sorted(row for at, row in places if at == column)
        assert all(b - a > 0.999 for a, b in itertools.pairwise(rows))
    assert all(0 <= a < len(places) and 0 <= b < len(places) for a, b in drawn.edges)
