# SPDX-License-Identifier: Apache-2.0
"""A short soak, and its books: what each kind of mistake looks like in them, and what a kill excuses.

SSM_TEST_SEED repeats the choices (not the timing), SSM_TEST_SECONDS makes it longer; `make soak` goes on for an hour.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.soak import commons
from tests.soak.books import POLICIES, Balance, Books, Counts, Kind, Log, What, entries_of, fill, read

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = os.environ.get("SSM_TEST_SECONDS", "10")
CLEAN = ("lost", "twice", "torn", "order", "counters", "late", "hangs", "faults")


def soak(*arguments: str) -> tuple[int, dict[str, str], str]:
    """Exit status, the figures by column, and what was wrong."""
    command = [sys.executable, "-m", "tests.soak", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    print(done.stdout, done.stderr)
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("|")]
    return done.returncode, dict(zip(rows[0], rows[2], strict=True)), done.stderr


@pytest.mark.slow
@pytest.mark.stress
def test_soak() -> None:
    seed = os.environ.get("SSM_TEST_SEED") or str(time.time_ns() & 0xFFFFFF)
    status, figures, wrong = soak("--seconds", SECONDS, "--seed", seed)
    assert status == 0, wrong
    assert {name: figures[name] for name in CLEAN} == dict.fromkeys(CLEAN, "0")
    assert int(figures["kills"]) > 3
    assert int(figures["packets"]) > 100
    assert int(figures["values"]) > 10


def test_nobody_is_woken_late_where_nobody_is_killed() -> None:
    status, figures, wrong = soak("--seconds", "3", "--calm")
    assert status == 0, wrong
    assert figures["late wakes, calm"] == figures["kills"] == figures["of a call"] == "0"
    assert figures["calm"] == figures["rounds"] != "0"


@pytest.mark.slow
def test_what_workers_do_wrong_is_found() -> None:
    """Nobody is killed: then nothing excuses a packet that never came out."""
    wrong = ("lose", "twice", "tear", "swap", "keep")
    status, figures, _ = soak("--seconds", "8", "--seed", "2", "--calm", "--bugs", *wrong)
    assert status == 1
    for column in ("lost", "twice", "torn", "order", "counters", "faults"):
        assert int(figures[column]) > 0, column


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bug", "column"),
    [
        ("permit", "twice"),
        ("unpublished", "lost"),
        ("task", "counters"),
        ("stay", "faults"),
        ("row", "lost"),
    ],
)
def test_what_they_do_wrong_with_what_they_share_is_found(bug: str, column: str) -> None:
    status, figures, _ = soak("--seconds", "60", "--workers", "3", "--calm", "--first", "--bugs", bug)
    assert status == 1
    assert int(figures[column]) > 0


# ---- the books, without a soak -----------------------------------------------------------------------

CHANNEL = 1


class Story:
    """What lives did, written down by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.logs = folder, {}

    def log(self, life: int) -> Log:
        return self.logs.setdefault(life, Log(self.folder, life))

    def put(self, life: int, *serials: int) -> None:
        self.log(life).note(What.PUT, CHANNEL, serials)
        self.log(life).note(What.PLACED, CHANNEL, serials)

    def get(self, life: int, *serials: int, back: bool = False) -> None:
        self.log(life).note(What.GET, CHANNEL, count=len(serials))
        self.log(life).got(CHANNEL, [(serial, back) for serial in serials])

    def done(self, life: int, serial: int) -> None:
        self.log(life).note(What.FREE, CHANNEL, [serial])
        self.log(life).note(What.DONE, CHANNEL, [serial])

    def balance(self, kind: Kind = Kind.EXACT, killed: tuple[int, ...] = (), **counts: int) -> Balance:
        for life, log in self.logs.items():
            if life not in killed:
                log.close()
        balance = Balance()
        Books.of(self.folder).channel(CHANNEL, "ring", kind, Counts(**counts), balance)
        return balance


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path)


def test_all_is_well(story: Story) -> None:
    story.put(1, 5, 6)
    story.get(2, 5, 6)
    balance = story.balance(puts=2, gets=2)
    assert not balance.wrong()
    assert balance.packets == 2


def test_lost(story: Story) -> None:
    story.put(1, 5, 6)
    story.get(2, 5)
    assert story.balance(puts=2, gets=2).lost


def test_a_get_that_was_killed_may_have_had_it(story: Story) -> None:
    story.put(1, 5, 6)
    story.get(2, 5)
    story.log(2).note(What.GET, CHANNEL, count=1)
    balance = story.balance(killed=(2,), puts=2, gets=2)
    assert not balance.wrong()
    assert balance.taken == 1


def test_a_get_that_was_killed_has_no_more_than_it_asked_for(story: Story) -> None:
    story.put(1, 5, 6, 7)
    story.get(2, 5)
    story.log(2).note(What.GET, CHANNEL, count=1)
    assert story.balance(killed=(2,), puts=3, gets=3).lost


def test_a_put_that_was_killed_may_have_put_it(story: Story) -> None:
    story.log(1).note(What.PUT, CHANNEL, [5])
    story.get(2, 5)
    assert not story.balance(killed=(1,), puts=1, gets=1).wrong()


def test_twice(story: Story) -> None:
    story.put(1, 5)
    story.get(2, 5)
    story.get(3, 5)
    assert story.balance(puts=1, gets=1).twice


def test_out_of_nothing(story: Story) -> None:
    story.get(2, 5)
    assert story.balance(puts=0, gets=0).twice


def test_order(story: Story) -> None:
    story.put(1, 5, 6)
    story.get(2, 6, 5)
    assert story.balance(puts=2, gets=2).order


def test_order_is_that_of_who_put_it(story: Story) -> None:
    """Two lives hand over what a third one made: each in its own order, and in none among them."""
    story.put(1, 6)
    story.put(2, 5)
    story.get(3, 6, 5)
    assert not story.balance(puts=2, gets=2).wrong()


def test_order_of_what_is_handed_over(story: Story) -> None:
    story.put(1, 6, 5)
    story.get(2, 5, 6)
    assert story.balance(puts=2, gets=2).order


def test_what_was_refused_is_put_later(story: Story) -> None:
    story.log(1).note(What.PUT, CHANNEL, [5])
    story.log(1).note(What.REFUSED, CHANNEL, [5])
    story.put(1, 6)
    story.put(1, 5)
    story.get(2, 6, 5)
    assert not story.balance(puts=2, gets=2).wrong()


def test_comes_again_from_the_dead(story: Story) -> None:
    story.put(1, 5)
    story.get(2, 5)
    story.get(3, 5, back=True)
    story.done(3, 5)
    assert not story.balance(Kind.AGAIN, killed=(2,), puts=1, gets=2, redelivered=1).wrong()


def test_comes_again_although_it_was_done(story: Story) -> None:
    story.put(1, 5)
    story.get(2, 5)
    story.done(2, 5)
    story.get(3, 5, back=True)
    story.done(3, 5)
    assert story.balance(Kind.AGAIN, killed=(2,), puts=1, gets=2, redelivered=1).twice


def test_does_not_come_again(story: Story) -> None:
    story.put(1, 5)
    story.get(2, 5)
    assert story.balance(Kind.AGAIN, killed=(2,), puts=1, gets=1).lost


def test_a_lossy_ring_loses_what_it_counts(story: Story) -> None:
    story.put(1, 5, 6)
    story.get(2, 6)
    assert not story.balance(Kind.LOSSY, puts=2, gets=1, drops=1).wrong()


def test_a_lossy_ring_loses_nothing_else(story: Story) -> None:
    story.put(1, 5, 6)
    story.get(2, 6)
    assert story.balance(Kind.LOSSY, puts=2, gets=1).lost


@pytest.mark.parametrize(
    "counts", [{"puts": 3, "gets": 2}, {"puts": 2, "gets": 1}, {"puts": 2, "gets": 2, "depth": 1}]
)
def test_counters(story: Story, counts: dict[str, int]) -> None:
    story.put(1, 5, 6)
    story.get(2, 5, 6)
    assert story.balance(**counts).counters


def test_a_value_that_two_have(story: Story) -> None:
    for life in (1, 2):
        story.log(life).note(What.HAD, CHANNEL, [7])
    story.log(1).note(What.GIVING, CHANNEL, [7])
    balance = Balance()
    books = Books(entry for path in story.folder.glob("*.log") for entry in entries_of(path.read_bytes()))
    books.values(CHANNEL, "ids", {0: time.monotonic_ns()}, balance)
    assert balance.twice


def in_turn(log: Log, what: What, *serials: int, count: int = 0) -> None:
    for serial in serials:
        log.note(what, CHANNEL, [serial], count)


@pytest.mark.parametrize(("most", "wrong"), [(2, False), (1, True)])
def test_permits(story: Story, most: int, wrong: bool) -> None:
    """Two lives have one each at a moment; one of them is killed with it, and it counts until then."""
    in_turn(story.log(1), What.HAD, 1)
    in_turn(story.log(2), What.HAD, 2)
    in_turn(story.log(2), What.GIVING, 2)
    balance = Balance()
    Books.of(story.folder).permits(CHANNEL, "permits", most, {0: time.monotonic_ns()}, balance)
    assert bool(balance.twice) == wrong


FIRST = 1 << 24  # serial of the first packet of life 1


@pytest.mark.parametrize(
    ("policy", "got", "column"),
    [
        ("block", (1, 2, 3), None),
        ("block", (2, 3), None),
        ("block", (1, 3), "lost"),
        ("drop", (1, 3), None),
        ("drop", (1, 1, 2), "twice"),
        ("overwrite", (2, 1), "order"),
        ("overwrite", (1, 9), "twice"),
    ],
)
def test_topic(story: Story, policy: str, got: tuple[int, ...], column: str | None) -> None:
    """What a subscription may miss, and what not."""
    serials = [FIRST + number for number in range(1, 4)]
    in_turn(story.log(1), What.PUT, *serials)
    in_turn(story.log(1), What.PLACED, *serials)
    in_turn(story.log(2), What.SUBSCRIBED, 1, count=POLICIES.index(policy))
    in_turn(story.log(2), What.GOT, *(FIRST + number for number in got))
    balance = Balance()
    Books.of(story.folder).topic(CHANNEL, "news", balance)
    assert [name for name in ("lost", "twice", "order") if getattr(balance, name)] == (
        [column] if column else []
    )


def test_a_second_subscription_may_get_it_again(story: Story) -> None:
    in_turn(story.log(1), What.PUT, FIRST)
    for number in (1, 2):
        in_turn(story.log(2), What.SUBSCRIBED, number)
        in_turn(story.log(2), What.GOT, FIRST)
    balance = Balance()
    Books.of(story.folder).topic(CHANNEL, "news", balance)
    assert not balance.wrong()


@pytest.mark.parametrize(("undone", "wrong"), [(0, True), (1, False), (2, False), (3, True)])
def test_tasks(story: Story, undone: int, wrong: bool) -> None:
    """Of three, one is done, and one perhaps: its process was killed while it said so."""
    story.put(1, 5, 6, 7)
    in_turn(story.log(2), What.TASK, 5)
    in_turn(story.log(2), What.TASKED, 5)
    in_turn(story.log(2), What.TASK, 6)
    balance = Balance()
    Books.of(story.folder).tasks(CHANNEL, "joined", undone, balance)
    assert bool(balance.counters) == wrong


@pytest.mark.parametrize(
    ("ended", "now", "wrong"),
    [(True, 8, False), (True, 7, True), (False, 7, False), (False, 8, False), (False, 3, True)],
)
def test_board(story: Story, ended: bool, now: int, wrong: bool) -> None:
    in_turn(story.log(1), What.WROTE, 7, 8, count=0)
    if ended:
        story.log(1).close()
    balance = Balance()
    Books.of(story.folder).board(CHANNEL, "rows", [3, 0], [now, 0], balance)
    assert bool(balance.lost) == wrong


def test_a_row_that_was_written_in_part() -> None:
    assert commons.number_of(commons.row_of(77)) == 77
    with pytest.raises(AssertionError, match="in part"):
        commons.number_of(commons.row_of(77) ^ 1)


@pytest.mark.parametrize(
    ("records", "ended", "wrong"),
    [
        ((What.MADE,), False, False),
        ((What.MADE, What.UNLINKING), False, False),
        ((What.MADE, What.UNLINKING, What.UNLINKED), False, True),
        ((What.MADE,), True, True),
        ((), False, True),
    ],
)
def test_rings_that_are_left(story: Story, records: tuple[What, ...], ended: bool, wrong: bool) -> None:
    """Of a life that was killed before it had unlinked its ring, and of no other one."""
    for what in records:
        in_turn(story.log(1), what, FIRST)
    if ended:
        story.log(1).close()
    assert bool(Books.of(story.folder).rings_left(CHANNEL, "rings", {FIRST: "go-1000000"})) == wrong


@pytest.mark.parametrize(("begun", "waits"), [(True, 1), (False, 0)])
def test_wake_ups(story: Story, begun: bool, waits: int) -> None:
    """Of a get that waited before the put came; not of one that came later."""
    if begun:
        story.log(2).note(What.GET, CHANNEL, count=1)
    story.put(1, 5)
    story.log(2).got(CHANNEL, [(5, False)])
    balance = Balance()
    Books.of(story.folder).wake_ups({CHANNEL}, [], [], balance)
    assert len(balance.waits_ns) == waits


def test_payloads() -> None:
    for size in (16, 17, 1900, 150_000):
        data = bytearray(size)
        fill(memoryview(data), 0x123456789)
        assert read(memoryview(data)) == (0x123456789, True)
        if size > 16:
            data[-1] ^= 1
            assert read(memoryview(data)) == (0x123456789, False)
