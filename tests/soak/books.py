# SPDX-License-Identifier: Apache-2.0
"""The books of the soak: what every thread of every worker did, in files outside the pool, and what does not add up.

A *life* is one thread, task or process; it writes a log of its own, before a call and after it. What a process had
written when it was killed is in the file, so a kill loses at most what it was just at: a call that was begun and not
ended. The books allow for those calls, one by one, and for nothing else.
"""

from __future__ import annotations

import bisect
import enum
import itertools
import os
import struct
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

RECORD = struct.Struct("<BBHIQQ")  # what, channel, count, life, serial or value, time in ns
LIVES = 12  # bits of a life's number that are its worker's to give out
PATTERN = b"".join(i.to_bytes(2, "little") for i in range(1 << 16)) * 4
HEADER = struct.Struct("<QQ")  # serial, bytes
LATE_NS = (
    2_000_000_000  # a wake-up that takes longer is a fault, whoever is killed: each sleep is bounded by 50 ms
)


class What(enum.IntEnum):
    """What a record says."""

    PUT = 1  # begun; PLACED, REFUSED or DROPPED ends it
    PLACED = 2
    REFUSED = 3
    DROPPED = 4  # by the ring, which was full
    GET = 5  # begun, for `count` packets at most; GOT_ALL ends it
    GOT = 6  # one packet; count 1: it came back from a dead process
    GOT_ALL = 7
    FREE = 8  # begun, of what came out of a redelivering ring; DONE ends it
    DONE = 9
    HAD = 10  # a value of a service
    GIVING = 11
    TORN = 12
    ENDED = 13  # the life's last record
    DOOMED = 14  # the life's first one: its process dies in the middle of a call
    TASK = 15  # begun: a packet is counted as dealt with; TASKED ends it
    TASKED = 16
    SUBSCRIBED = (
        17  # begun; count: the policy. What the life gets of the topic from here on, it gets by this one
    )
    MADE = 18  # begun: a ring of the life's own
    UNLINKING = 19
    UNLINKED = 20
    WROTE = 21  # begun: a number into the row `count` of the board


BEGINNINGS = {
    What.PUT,
    What.GET,
    What.FREE,
    What.GIVING,
    What.TASK,
    What.SUBSCRIBED,
    What.MADE,
    What.UNLINKING,
}
PUT_ENDS = {What.PLACED, What.REFUSED, What.DROPPED}


@dataclass(frozen=True, slots=True)
class Entry:
    """One record, read back."""

    what: What
    channel: int
    count: int
    life: int
    serial: int
    time_ns: int


class Log:
    """A life's log. A forked child opens its own.

    `begun` is called behind each record of a call that begins: the call is the next thing that the life does.
    """

    def __init__(self, folder: Path, life: int, begun: Callable[[], None] | None = None) -> None:
        self.life, self.begun = life, begun
        self._file = os.open(folder / f"{life}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._next = 0

    def serial(self) -> int:
        """A number that no other packet has; later ones of a life are larger."""
        self._next += 1
        return self.life << 24 | self._next

    def note(self, what: What, channel: int = 0, serials: Iterable[int] = (0,), count: int = 0) -> None:
        """Write one record for each serial, all at once."""
        now = time.monotonic_ns()
        records = [RECORD.pack(what, channel, count, self.life, serial, now) for serial in serials]
        os.write(self._file, b"".join(records))
        if self.begun is not None and what in BEGINNINGS:
            self.begun()

    def got(self, channel: int, packets: Iterable[tuple[int, bool]]) -> None:
        """What a get returned, and that it did: one write."""
        now = time.monotonic_ns()
        records = [RECORD.pack(What.GOT, channel, back, self.life, serial, now) for serial, back in packets]
        records.append(RECORD.pack(What.GOT_ALL, channel, len(records), self.life, 0, now))
        os.write(self._file, b"".join(records))

    def close(self) -> None:
        self.note(What.ENDED)
        os.close(self._file)


def fill(buffer: memoryview, serial: int) -> None:
    """A payload that tells what it is, and whether it is whole."""
    HEADER.pack_into(buffer, 0, serial, len(buffer))
    start = serial * 16 & 0xFFFF
    buffer[HEADER.size :] = PATTERN[start : start + len(buffer) - HEADER.size]


def read(buffer: memoryview) -> tuple[int, bool]:
    """The serial, and whether the payload is as it was filled."""
    serial, size = HEADER.unpack_from(buffer, 0)
    start = serial * 16 & 0xFFFF
    return serial, size == len(buffer) and buffer[HEADER.size :] == PATTERN[
        start : start + size - HEADER.size
    ]


# ---- balancing them --------------------------------------------------------------------------------


POLICIES = ("block", "drop", "overwrite")  # of subscriptions


class Kind(enum.Enum):
    """What a channel promises."""

    EXACT = "each packet once"
    AGAIN = "each packet until somebody is done with it"
    LOSSY = "what it does not count as dropped, once"


@dataclass
class Counts:
    """What a ring's statistics say, since the round began."""

    puts: int = 0
    gets: int = 0
    drops: int = 0
    redelivered: int = 0
    depth: int = 0

    def minus(self, other: Counts) -> Counts:
        return Counts(
            self.puts - other.puts,
            self.gets - other.gets,
            self.drops - other.drops,
            self.redelivered - other.redelivered,
            self.depth,
        )


@dataclass
class Balance:
    """What was done in a round, and what is wrong with it."""

    packets: int = 0
    values: int = 0
    doomed: int = 0  # processes that died in the middle of a call
    taken: int = 0  # by gets that were killed, as documented
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    counters: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    waits_ns: list[int] = field(default_factory=list)

    def wrong(self) -> list[str]:
        return [*self.lost, *self.twice, *self.torn, *self.order, *self.counters, *self.late]


class Books:
    """The logs of one round."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.by_life: dict[int, list[Entry]] = defaultdict(list)
        self.by_channel: dict[int, dict[int, list[Entry]]] = defaultdict(lambda: defaultdict(list))
        for entry in entries:
            self.by_life[entry.life].append(entry)
            self.by_channel[entry.channel][entry.life].append(entry)
        self.ended = {life for life, log in self.by_life.items() if log[-1].what is What.ENDED}
        self.doomed = {life for life, log in self.by_life.items() if log[0].what is What.DOOMED}

    @classmethod
    def of(cls, folder: Path) -> Books:
        return cls(entry for path in sorted(folder.glob("*.log")) for entry in entries_of(path.read_bytes()))

    def open_calls(self, channel: int) -> tuple[int, list[set[int]]]:
        """What processes were at when they were killed: how many packets of gets, and which ones of each put."""
        gets, puts = 0, []
        for life, mine in self.by_channel[channel].items():
            if life in self.ended:
                continue
            begun = [entry for entry in mine if entry.what is What.GET]
            if len(begun) > sum(entry.what is What.GOT_ALL for entry in mine):
                gets += begun[-1].count
            ends = {entry.serial for entry in mine if entry.what in PUT_ENDS}
            of_call: dict[int, set[int]] = defaultdict(set)  # one call's records have one time
            for entry in mine:
                if entry.what is What.PUT and entry.serial not in ends:
                    of_call[entry.time_ns].add(entry.serial)
            puts += of_call.values()
        return gets, puts

    def channel(self, channel: int, name: str, kind: Kind, counts: Counts, balance: Balance) -> None:
        """Balance what went through one ring or queue."""
        entries = [entry for log in self.by_channel[channel].values() for entry in log]
        put = {entry.serial for entry in entries if entry.what is What.PUT}
        placed = {entry.serial for entry in entries if entry.what is What.PLACED}
        dropped = {entry.serial for entry in entries if entry.what is What.DROPPED}
        got: dict[int, list[Entry]] = defaultdict(list)
        for entry in entries:
            if entry.what is What.GOT:
                got[entry.serial].append(entry)
        gets, open_puts = self.open_calls(channel)
        puts = sum(map(len, open_puts))
        balance.packets += len(got)
        balance.torn += [f"{name}: {e.serial:#x} is torn" for e in entries if e.what is What.TORN]
        balance.twice += [f"{name}: {serial:#x} was got, and nobody put it" for serial in got.keys() - put]
        missing = placed - got.keys()
        if kind is not Kind.LOSSY:  # a put that was killed has put all of its packets, or none
            missing |= {serial for group in open_puts if group & got.keys() for serial in group} - got.keys()
        if kind is Kind.AGAIN:
            self.check_again(name, channel, got, balance)
            allowed = 0  # what a killed get had comes back
        else:
            balance.twice += [f"{name}: {s:#x} was got {len(g)} times" for s, g in got.items() if len(g) > 1]
            allowed = gets + (counts.drops + puts if kind is Kind.LOSSY else 0)
            balance.taken += min(len(missing), gets)
        if len(missing) > allowed:
            some = " ".join(f"{serial:#x}" for serial in sorted(missing)[:4])
            balance.lost.append(f"{name}: {len(missing)} packets never came out, {allowed} may: {some} ...")
        self.check_order(name, channel, balance)
        check_counters(name, kind, counts, (len(placed), len(dropped), gets, puts), balance)

    def check_again(self, name: str, channel: int, got: dict[int, list[Entry]], balance: Balance) -> None:
        """Of a redelivering ring: again only after a death, and until it is done with."""
        done, begun = self.ends(channel, What.DONE), self.ends(channel, What.FREE)
        for serial, entries in got.items():
            entries.sort(key=lambda entry: entry.time_ns)
            balance.twice += [
                f"{name}: {serial:#x} came again, and life {entry.life} was done with it"
                for entry in entries[:-1]
                if entry.life in self.ended or (entry.life, serial) in done
            ]
            last = entries[-1]
            if last.life not in self.ended and (last.life, serial) not in begun:
                balance.lost.append(
                    f"{name}: {serial:#x} did not come back from life {last.life}, which was killed"
                )

    def ends(self, channel: int, what: What) -> set[tuple[int, int]]:
        """(life, serial) of the packets out of a redelivering ring that are done with, or about to be."""
        logs = self.by_channel[channel].values()
        return {(entry.life, entry.serial) for log in logs for entry in log if entry.what is what}

    def handed_over(self, channel: int, to: int, name: str, balance: Balance) -> None:
        """What was put from one redelivering ring into another one is in that one, or came back; never both."""
        got: dict[int, dict[int, int]] = {}  # the last time that each came out
        for ring in (channel, to):
            got[ring] = {}
            for log in self.by_channel[ring].values():
                for entry in log:
                    if entry.what is What.GOT:
                        got[ring][entry.serial] = max(entry.time_ns, got[ring].get(entry.serial, 0))
        last: dict[
            int, Entry
        ] = {}  # a put that was killed may be tried again, by whoever got the packet then
        for log in self.by_channel[to].values():
            for entry in log:
                known = last.get(entry.serial)
                if entry.what in (What.PUT, What.REFUSED) and (
                    known is None or known.time_ns <= entry.time_ns
                ):
                    last[entry.serial] = entry
        for serial, entry in last.items():
            if entry.what is What.REFUSED:
                continue
            there, back = serial in got[to], got[channel].get(serial, 0) > entry.time_ns
            if there and back:
                balance.twice.append(f"{name}: {serial:#x} was handed over, and came back as well")
            elif not there and not back:
                balance.lost.append(f"{name}: {serial:#x} was neither handed over nor came back")

    def check_order(self, name: str, channel: int, balance: Balance) -> None:
        """What one life put, another life gets in that order; what came back comes before.

        Who put it counts, not whose serial it is: a packet that is handed over keeps the serial of who made it.
        """
        turns = self.turns(channel)
        for life, log in self.by_channel[channel].items():
            last: dict[int, tuple[int, int]] = {}  # of each producer: the turn of its latest, and the serial
            for entry in log:
                if entry.what is not What.GOT or entry.count or entry.serial not in turns:
                    continue
                producer, turn = turns[entry.serial]
                latest, serial = last.get(producer, (-1, 0))
                if turn < latest:
                    balance.order.append(
                        f"{name}: life {life} got {entry.serial:#x} behind {serial:#x}, which was put later"
                    )
                last[producer] = turn, entry.serial

    def turns(self, channel: int) -> dict[int, tuple[int, int]]:
        """Of each serial: who put it, and as which one of its packets. What is put again was not put before."""
        turns: dict[int, tuple[int, int]] = {}
        when: dict[int, int] = {}
        for life, log in self.by_channel[channel].items():
            for turn, entry in enumerate(log):
                if entry.what is What.PUT and entry.time_ns >= when.get(entry.serial, 0):
                    turns[entry.serial], when[entry.serial] = (life, turn), entry.time_ns
        return turns

    def values(self, channel: int, name: str, ends: dict[int, int], balance: Balance) -> None:
        """Nobody has what somebody else has. `ends`: when the worker of a life was killed."""
        spans: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
        for life, log in self.by_channel[channel].items():
            had: dict[int, int] = {}
            for entry in log:
                if entry.what is What.HAD:
                    if entry.serial in had:
                        balance.twice.append(f"{name}: life {life} was given {entry.serial:#x}, which it had")
                    had[entry.serial] = entry.time_ns
                elif entry.what is What.GIVING:
                    spans[entry.serial].append((had.pop(entry.serial, entry.time_ns), entry.time_ns, life))
            for value, since in had.items():
                end = since if life in self.doomed else ends.get(life >> LIVES, since)
                spans[value].append((since, end, life))
        for value, of_it in spans.items():
            balance.values += len(of_it)
            of_it.sort()
            for (_, end, one), (start, _, other) in itertools.pairwise(of_it):
                if start < end:
                    balance.twice.append(f"{name}: life {other} was given {value:#x}, which life {one} had")

    def permits(self, channel: int, name: str, most: int, ends: dict[int, int], balance: Balance) -> None:
        """Never more than there are. `ends`: when the worker of a life was killed."""
        events: list[tuple[int, int]] = []
        for life, log in self.by_channel[channel].items():
            had = {entry.serial: entry.time_ns for entry in log if entry.what is What.HAD}
            given = {entry.serial: entry.time_ns for entry in log if entry.what is What.GIVING}
            balance.values += len(had)
            end = self.by_life[life][-1].time_ns  # so long it had them for certain
            if life not in self.ended and life not in self.doomed:
                end = max(end, ends.get(life >> LIVES, 0))
            for serial, since in had.items():
                events += [(since, 1), (given.get(serial, end), -1)]
        count = 0
        for at, change in sorted(events):  # those that are given back at a moment come first
            count += change
            if count > most:
                balance.twice.append(f"{name}: {count} of {most} permits were taken at {at}")

    def topic(self, channel: int, name: str, balance: Balance) -> None:
        """Each subscription gets each publisher's packets in order, each once, and where it blocks without a gap."""
        entries = [entry for log in self.by_channel[channel].values() for entry in log]
        put = {entry.serial for entry in entries if entry.what is What.PUT}
        placed = sorted(entry.serial for entry in entries if entry.what is What.PLACED)
        balance.torn += [f"{name}: {e.serial:#x} is torn" for e in entries if e.what is What.TORN]
        for life, log in self.by_channel[channel].items():
            policy, got = "", list[int]()
            for entry in [*log, None]:
                if entry is None or entry.what is What.SUBSCRIBED:
                    self._subscription(f"{name}: life {life}", policy, got, put, placed, balance)
                    policy, got = "" if entry is None else POLICIES[entry.count], []
                elif entry.what is What.GOT:
                    got.append(entry.serial)

    def _subscription(
        self, who: str, policy: str, got: list[int], put: set[int], placed: list[int], balance: Balance
    ) -> None:
        balance.packets += len(got)
        balance.twice += [f"{who} got {serial:#x}, and nobody published it" for serial in set(got) - put]
        of_publisher: dict[int, list[int]] = defaultdict(list)
        for serial in got:
            of_publisher[serial >> 24].append(serial)
        for mine in of_publisher.values():
            for one, next_ in itertools.pairwise(mine):
                if next_ == one:
                    balance.twice.append(f"{who} got {one:#x} twice")
                elif next_ < one:
                    balance.order.append(f"{who} got {next_:#x} behind {one:#x}, which was published later")
            if policy == "block":
                between = placed[bisect.bisect_left(placed, mine[0]) : bisect.bisect_right(placed, mine[-1])]
                missed = set(between) - set(mine)
                balance.lost += [f"{who} blocks, and missed {serial:#x}" for serial in sorted(missed)[:4]]

    def tasks(self, channel: int, name: str, undone: int, balance: Balance) -> None:
        """`undone`: as many tasks as the ring took as done when nobody was at work any more, until it refused."""
        entries = [entry for log in self.by_channel[channel].values() for entry in log]
        begun, ended = (sum(e.what is what for e in entries) for what in (What.TASK, What.TASKED))
        placed = sum(entry.what is What.PLACED for entry in entries)
        perhaps = sum(map(len, self.open_calls(channel)[1]))
        if not placed - begun <= undone <= placed + perhaps - ended:
            balance.counters.append(
                f"{name}: {placed} tasks were put, {perhaps} more perhaps, {ended} to {begun} done; {undone} are not"
            )

    def board(self, channel: int, name: str, before: list[int], now: list[int], balance: Balance) -> None:
        """Each row has what was written last; of a process that was killed, or what was there before."""
        written: dict[int, list[Entry]] = defaultdict(list)
        for log in self.by_channel[channel].values():
            for entry in log:
                written[entry.count].append(entry)
        for place, number in enumerate(now):
            of_it = sorted(written[place], key=lambda entry: entry.time_ns)
            may = [before[place], *(entry.serial for entry in of_it)][-2:]
            if not of_it or of_it[-1].life in self.ended:
                may = may[-1:]
            if number not in may:
                balance.lost.append(f"{name}: row {place} has {number:#x}, and {may} was written")

    def rings_left(self, channel: int, name: str, there: dict[int, str]) -> list[str]:
        """What is wrong with rings that are still there: of those that were killed, one each may be."""
        faults: list[str] = []
        for serial, ring in there.items():
            log = self.by_channel[channel].get(serial >> 24, [])
            what = {entry.what for entry in log if entry.serial == serial}
            if What.MADE not in what:
                faults.append(f"{name}: {ring} is there, and nobody made it")
            elif What.UNLINKED in what or serial >> 24 in self.ended:
                faults.append(f"{name}: {ring} is there although its life went on")
        return faults

    def wake_ups(
        self,
        channels: set[int],
        troubles: list[tuple[int, int]],
        starved: list[tuple[int, int]],
        balance: Balance,
    ) -> None:
        """From a put to the return of a get that waited for it.

        How long it takes is noted where nobody was stopped or killed meanwhile (`troubles`). Longer than LATE_NS it may
        not take at all, unless the machine had no time for anybody (`starved`).
        """
        put = {
            (e.channel, e.serial): e.time_ns
            for log in self.by_life.values()
            for e in log
            if e.what is What.PUT
        }
        for life, log in self.by_life.items():
            begun = 0
            for entry in log:
                if entry.what in (What.GET, What.GOT_ALL):
                    begun = entry.time_ns if entry.what is What.GET else 0
                since = put.get((entry.channel, entry.serial), 0)
                if entry.what is not What.GOT or entry.channel not in channels or not 0 < begun < since:
                    continue
                if not is_met(troubles, since, entry.time_ns):
                    balance.waits_ns.append(entry.time_ns - since)
                if entry.time_ns - since > LATE_NS and not is_met(starved, since, entry.time_ns):
                    balance.late.append(f"life {life} was woken {(entry.time_ns - since) / 1e9:.1f} s late")


def is_met(spans: list[tuple[int, int]], start: int, end: int) -> bool:
    """One of the spans, which are in order, has a moment in common with that one."""
    return bisect.bisect_left(spans, (end, 0)) != bisect.bisect_right(spans, start, key=lambda span: span[1])


def entries_of(log: bytes) -> Iterator[Entry]:
    whole = len(log) - len(log) % RECORD.size
    for what, channel, count, life, serial, time_ns in RECORD.iter_unpack(log[:whole]):
        yield Entry(What(what), channel, count, life, serial, time_ns)


def check_counters(
    name: str, kind: Kind, counts: Counts, logged: tuple[int, int, int, int], balance: Balance
) -> None:
    """The ring's own counters against the books, and against each other: puts = gets + drops + depth."""
    placed, dropped, gets, puts = logged
    if not placed <= counts.puts <= placed + puts:
        balance.counters.append(f"{name}: {placed} packets were put, {puts} perhaps; it counts {counts.puts}")
    overwritten = 0
    if kind is Kind.LOSSY and dropped == 0:
        overwritten = counts.drops
    elif not dropped <= counts.drops <= dropped + puts:
        balance.counters.append(
            f"{name}: {dropped} packets were dropped, {puts} perhaps; it counts {counts.drops}"
        )
    away = counts.puts - (counts.gets - counts.redelivered) - overwritten - counts.depth
    unsure = gets + (puts if kind is Kind.LOSSY else 0)
    if not 0 <= away <= unsure:
        balance.counters.append(
            f"{name}: puts = gets + drops + depth is out by {away}, {unsure} may be: {counts}"
        )
