# SPDX-License-Identifier: Apache-2.0
"""A publisher and its subscribers, each a process, and one that watches over them.

The watcher asks subscribers to leave, kills others, and starts a new one for each. All processes count in memory that
they share, so that what a killed one has counted stays. The watcher reads the counters when the time begins and when
it is over: a publisher that hangs ends nothing but its own figures.
"""

from __future__ import annotations

import ctypes
import itertools
import random
import time
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum, auto
from typing import TYPE_CHECKING, Any

from benchmarks.peers.ways import CONTEXT
from benchmarks.topics.ways import CHURN, VIDEO

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.process import BaseProcess

    from benchmarks.topics.ways import Way

STARTS_S, ENDS_S = 20, 5
LOOK_S = 0.005  # between two looks at the publisher
SETTLES_S = 0.1  # of packets that are not counted
LATE_S = 10  # that a run may take longer, until something was published, and one has left and one was killed
MODULES = [
    "benchmarks.topics.crowd",
    "numpy",
    *{kind.module for kind in (*CHURN, *VIDEO) if kind.module and kind.is_there()},
]


class All(IntEnum):
    """Words of the publisher and the watcher."""

    PUBLISHED = 0
    STOP = auto()  # the publisher
    OVER = auto()  # subscribers: as soon as nothing is left
    CPU_NS = auto()


class One(IntEnum):
    """Words of each subscriber."""

    READY = 0
    LEAVE = auto()
    RECEIVED = auto()
    MISSED = auto()  # numbers between two that it got
    WRONG = auto()  # torn, twice, or not in order
    DONE = auto()
    CPU_NS = auto()


def words_at(words: Any, begin: int, kind: type[IntEnum]) -> memoryview:
    return memoryview(words).cast("B").cast("Q")[begin : begin + len(kind)]


# ---- what the processes do ---------------------------------------------------------------------------


def publish(way: Way, words: Any) -> None:
    common = words_at(words, 0, All)
    send, began = way.publisher(), time.process_time_ns()
    time.sleep(way.settles_s)
    for number in itertools.count(1):
        if common[All.STOP]:
            break
        send(number)
        common[All.PUBLISHED] = number
    common[All.CPU_NS] = time.process_time_ns() - began


def subscribe(way: Way, words: Any, begin: int, place: int) -> None:
    common, mine = words_at(words, 0, All), words_at(words, begin, One)
    take, began = way.subscriber(place), time.process_time_ns()
    received = due = 0
    mine[One.READY] = 1
    while not mine[One.LEAVE]:
        over = common[All.OVER]
        number = take()
        if number is None:
            if over:
                break
            continue
        received += 1
        mine[One.RECEIVED] = received
        if number != due:
            if number < due:  # TORN is less than all
                mine[One.WRONG] += 1
            elif due:
                mine[One.MISSED] += number - due
        due = number + 1
    mine[One.CPU_NS] = time.process_time_ns() - began
    mine[One.DONE] = 1


# ---- the watcher -------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What one run gave."""

    published: float = 0.0  # packets a second
    delivered: float = 0.0  # to all subscribers together
    cpu_us: float = 0.0  # of all processes, for each packet; where none was killed
    pause_ms: float = 0.0  # the longest during which nothing was published
    received: int = 0
    missed: int = 0
    killed: int = 0
    left: int = 0
    remains: int = 0  # what all have left behind: see Way.close
    faults: list[str] = field(default_factory=list)


class Crowd:
    """The processes of one run."""

    def __init__(self, way: Way, lives: int, seed: int) -> None:
        self.way, self.most, self.dice = way, lives, random.Random(seed)
        self.words = CONTEXT.RawArray(ctypes.c_uint64, len(All) + lives * len(One))
        self.common = words_at(self.words, 0, All)
        self.there: dict[BaseProcess, memoryview] = {}
        self.gone: list[tuple[BaseProcess, memoryview]] = []  # asked to leave, or killed
        self.killed: list[BaseProcess] = []
        self.publisher = CONTEXT.Process(target=publish, args=(way, self.words), daemon=True)

    def lives(self) -> list[tuple[BaseProcess, memoryview]]:
        return [*self.there.items(), *self.gone]

    def sum(self, word: One) -> int:
        return sum(mine[word] for _, mine in self.lives())

    def come(self) -> None:
        count = len(self.lives())
        begin = len(All) + count * len(One)
        process = CONTEXT.Process(target=subscribe, args=(self.way, self.words, begin, count), daemon=True)
        process.start()
        self.there[process] = words_at(self.words, begin, One)

    def go(self) -> None:
        """Somebody that is at work leaves or is killed, in turn; another one comes."""
        ready = [process for process, mine in self.there.items() if mine[One.READY]]
        if not ready or len(self.lives()) == self.most:
            return
        victim = self.dice.choice(ready)
        if len(self.gone) % 2:
            self.there[victim][One.LEAVE] = 1
        else:
            victim.kill()
            self.killed.append(victim)
        self.gone.append((victim, self.there.pop(victim)))
        self.come()

    def start(self) -> None:
        for _ in range(self.way.subscribers):
            self.come()
        until(lambda: self.sum(One.READY) == self.way.subscribers, STARTS_S, "the subscribers do not start")
        self.publisher.start()
        until(lambda: self.common[All.PUBLISHED] > 0, STARTS_S, "nothing is published")
        time.sleep(SETTLES_S)

    def run(self, seconds: float, change_s: float) -> Outcome:
        """Let packets flow; each `change_s` seconds somebody goes and comes, or nobody with 0."""
        outcome = Outcome()
        begin, received, published = (
            time.monotonic(),
            self.sum(One.RECEIVED),
            self.common[All.PUBLISHED],
        )
        moved, last, change, end = begin, published, begin + change_s, begin + seconds
        while (now := time.monotonic()) < (end if self.has_seen(published, change_s) else end + LATE_S):
            if self.common[All.PUBLISHED] != last:
                moved, last = now, self.common[All.PUBLISHED]
            outcome.pause_ms = max(outcome.pause_ms, (now - moved) * 1e3)
            if change_s and now >= change:
                self.go()
                change = now + change_s
            time.sleep(LOOK_S)
        took = time.monotonic() - begin
        outcome.published = (self.common[All.PUBLISHED] - published) / took
        outcome.delivered = (self.sum(One.RECEIVED) - received) / took
        return outcome

    def has_seen(self, published: int, change_s: float) -> bool:
        """Return whether it is worth anything: on a busy machine the first moments may be still."""
        return self.common[All.PUBLISHED] > published and (change_s == 0 or len(self.gone) > 1)

    def end(self, outcome: Outcome) -> None:
        """Let subscribers take what is left, and say what went wrong."""
        self.common[All.STOP] = 1
        self.publisher.join(ENDS_S)
        if self.publisher.exitcode is None:
            outcome.faults.append("the publisher hangs")
        elif self.publisher.exitcode:
            outcome.faults.append(f"the publisher ended with {self.publisher.exitcode}")
        self.common[All.OVER] = 1
        deadline = time.monotonic() + ENDS_S
        for process, _ in self.lives():
            process.join(max(0, deadline - time.monotonic()))
        asked = [(process, mine) for process, mine in self.lives() if process not in self.killed]
        hung = sum(not mine[One.DONE] for _, mine in asked)
        wrong = self.sum(One.WRONG)
        outcome.received, outcome.missed = self.sum(One.RECEIVED), self.sum(One.MISSED)
        outcome.killed, outcome.left = len(self.killed), len(self.gone) - len(self.killed)
        if not self.killed and outcome.published:
            spent = self.common[All.CPU_NS] + self.sum(One.CPU_NS)
            outcome.cpu_us = spent / 1e3 / max(1, self.common[All.PUBLISHED])
        if hung:
            outcome.faults.append(f"{hung} subscribers do not end")
        if wrong:
            outcome.faults.append(f"{wrong} packets were torn, came twice, or out of order")
        if outcome.missed and self.way.lossless:
            outcome.faults.append(f"{outcome.missed} packets were missed, of which none may be")

    def kill(self) -> None:
        """End all that is still there."""
        for process in (self.publisher, *(process for process, _ in self.lives())):
            with suppress(ValueError, AttributeError, AssertionError):  # it was never started
                process.kill()
                process.join()


def until(is_so: Callable[[], bool], seconds: float, complaint: str) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{complaint} within {seconds} s")
        time.sleep(LOOK_S)


def run(
    kind: type[Way], size: int, depth: int, subscribers: int, frame: Any, seconds: float, change_s: float
) -> Outcome:
    """One run of one way, all processes of it from the start to the end."""
    CONTEXT.set_forkserver_preload(MODULES)
    lives = subscribers + (int(seconds / change_s) + 2 if change_s else 0)
    way = kind(size, depth, subscribers, frame)
    outcome = Outcome()
    try:
        crowd = Crowd(way, lives, seed=size)
        try:
            crowd.start()
            outcome = crowd.run(seconds, change_s)
            crowd.end(outcome)
        except TimeoutError as error:
            outcome.faults.append(str(error))
        finally:
            crowd.kill()
    finally:
        outcome.remains = way.close()
    return outcome
