# SPDX-License-Identifier: Apache-2.0
"""A short run of `make kill-pipelines`: each column for a second or two, Ctrl-C a few times. And its books bite."""

from __future__ import annotations

import os
import random
import signal

import pytest

from ssm.pipeline.outlet import Outlet
from tests.effort import ALL, seconds
from tests.pipelines import __main__ as program
from tests.pipelines import interrupt, kill
from tests.pipelines.columns import COLUMNS, WORD, OrderedBook, Page, page, sealed


@pytest.fixture
def seed():
    number = random.randrange(1 << 30)
    print("seed", number)
    return number


@pytest.mark.parametrize("column", COLUMNS)
def test_killed_at_random(column, seed):
    trial = kill.trial(column, seconds(4), seed, "fork")
    assert trial.faults == []
    assert trial.sent > 0
    assert program.row(trial).count("|") == program.HEADER.splitlines()[0].count("|")


def test_control_c_at_random(seed):
    """Undisturbed once, and then at random moments; `make kill-pipelines` does it in all columns."""
    columns = list(COLUMNS) if ALL else random.Random(seed).sample(list(COLUMNS), 1)
    result = interrupt.trials(12 if ALL else 3, seed, packets=2000, columns=columns)
    assert result.faults == []
    assert result.hits >= 3


def test_a_page_says_what_is_wrong():
    times = bytes([1, 0, 2, 1, 1])
    assert page(times, 3, 4) == Page(lost=1, twice=1, unsent=1, torn=3)
    assert page(times, 0, 7) == Page(lost=3, twice=1, unsent=0, torn=0)
    assert page(bytes([1, 1, 0]), 0, 2).exact


def test_a_packet_out_of_its_turn_is_torn():
    class Packet(bytes):
        tag = property(lambda packet: int.from_bytes(packet[:WORD], "little"))

    packets = [Packet(sealed(number.to_bytes(WORD, "little"))) for number in range(4)]
    book = OrderedBook()
    book(packets[:2])
    assert book.close()[1] == 0
    book([packets[3], packets[2]])
    assert book.close()[1] == 2


def test_a_commit_in_two_steps_is_found(seed, monkeypatch):
    """New packets are put, and what they were made from is ended after that: a kill between them repeats it."""

    def commit(outlet, held, done, redelivers):
        for made in held:
            outlet.send(made)
        if random.random() < 0.01:
            os.kill(os.getpid(), signal.SIGKILL)
        done.free()

    monkeypatch.setattr(Outlet, "commit", commit)
    trial = kill.trial("new packet", 1, seed, "fork")
    assert trial.count("twice") > 0
    assert trial.faults != []
