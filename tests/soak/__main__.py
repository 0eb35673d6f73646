# SPDX-License-Identifier: Apache-2.0
"""Soak from Python: workers (worker.py) do random things with one pool, and are killed, stopped and replaced at random.

usage: python -m tests.soak [--seconds 60] [--seed 1] [--workers 5] [--markdown] [--calm] [--bugs lose]

Workers are killed and stopped from here; children of theirs die in the middle of some call (fuse.py). In every third
round nobody is killed or stopped: then no wait may be ended by a look only (`late_wakes`). Every few seconds the
workers come to an end, what is queued is taken out, and the books (books.py) are balanced: each packet once, whole
and in order; what a killed process had not done with comes back; no value twice; the rings' counters agree with the
books and among each other; every block is free. The pool is never made anew. The seed repeats who does what and who
is killed, not the timing. --bugs makes the workers do something wrong, which must be found.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import ssm
from tests.soak import commons, worker
from tests.soak.books import HEADER, LIVES, Balance, Books, Counts, Kind, Log, What, fill, read
from tests.soak.fuse import prepared
from tests.soak.worker import BUGS, BY_NAME, QUEUE, RINGS, SERVICES, Board, Order

ROUND_S = 3.0
CALM_ROUNDS = 3  # each such round is without kills and stops
STARVED_S = 0.3  # so much too long a sleep: the machine has no time for anybody
HANG_S = 20.0  # without doing anything, of which no call takes a second
END_S = 60.0
POOL: dict[str, Any] = {
    "classes": {256: 384, 2048: 96},
    "headroom": 16,
    "tailroom": 16,
    "shards": 2,
    "cache": 8,
    "holders": 128,
    "arena": 1 << 18,
    "grow": 1 << 21,
    "arena_packets": 24,
    "metadata": 1 << 20,
}


@dataclass
class Post:
    """One place among the workers, and who has it."""

    place: int
    number: int = 0
    process: Any = None
    counted: int = 0
    since: float = 0.0


@dataclass
class Totals:
    """Of all rounds."""

    kills: int = 0
    stops: int = 0
    rounds: int = 0
    calm: int = 0  # of them
    late_wakes: int = 0  # in calm rounds, where each one is a fault
    excused: int = 0  # in all others
    hangs: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    balance: Balance = field(default_factory=Balance)

    def wrong(self) -> list[str]:
        return [*self.hangs, *self.faults, *self.balance.wrong()]

    def row(self, seed: int, seconds: float) -> str:
        """The figures, as a row of markdown."""
        b, waits = self.balance, sorted(self.balance.waits_ns) or [0]
        columns: dict[str, object] = {
            "seed": seed,
            "seconds": round(seconds),
            "kills": self.kills,
            "of a call": b.doomed,
            "stops": self.stops,
            "rounds": self.rounds,
            "calm": self.calm,
            "packets": b.packets,
            "values": b.values,
            "taken": b.taken,
            "lost": len(b.lost),
            "twice": len(b.twice),
            "torn": len(b.torn),
            "order": len(b.order),
            "counters": len(b.counters),
            "late": len(b.late),
            "hangs": len(self.hangs),
            "faults": len(self.faults),
            "late wakes, calm": self.late_wakes,
            "late wakes, else": self.excused,
            "woken in, half / 99 % / all": " / ".join(
                f"{waits[min(len(waits) - 1, int(len(waits) * share))] / 1e6:.1f}" for share in (0.5, 0.99, 1)
            )
            + " ms",
        }
        lines = [
            " | ".join(columns),
            " | ".join("---" for _ in columns),
            " | ".join(map(str, columns.values())),
        ]
        return "\n".join(f"| {line} |" for line in lines)


def orphans() -> set[int]:
    """Children of dead workers, which die with them: this process's now."""
    here = set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))
    return here - {getattr(resource_tracker._resource_tracker, "_pid", None)}


class Supervisor:
    """Starts the workers, disturbs them, and balances their books."""

    def __init__(self, folder: Path, seed: int, workers: int, bugs: frozenset[str], calm: bool) -> None:
        self.folder, self.rng, self.bugs = folder, random.Random(seed), bugs
        self.always_calm = self.calm = calm
        library = None if calm else prepared()
        self.fuse = None if library is None else str(library)
        self.board, self.totals = Board(folder), Totals()
        self.pool = ssm.Pool.create(f"ssm-soak-{os.getpid()}", **POOL)
        self.rings, self.queue = worker.open_rings(self.pool), worker.open_queue(self.pool)
        self.services = worker.open_services(self.pool)
        self.commons = commons.Commons.open(self.pool)
        self.rows = self.numbers_of_rows()
        self.posts = [Post(place) for place in range(workers)]
        self.numbers = 0
        self.killed: dict[int, int] = {}  # workers, and when
        self.troubles: list[tuple[int, int]] = []  # from a stop to its end, and around each kill
        self.starved: list[tuple[int, int]] = []
        self.late_wakes = 0
        self.before = self.counts()
        ctypes.CDLL(None).prctl(
            36, 1
        )  # PR_SET_CHILD_SUBREAPER: the children of the dead are seen to their end

    # -- the workers

    def start(self, post: Post) -> None:
        self.numbers += 1
        order = Order(
            self.pool.name,
            str(self.folder),
            self.numbers,
            post.place,
            self.rng.getrandbits(48),
            self.bugs,
            self.fuse,
            os.getpid(),
        )
        draw = self.rng.random()
        method = "spawn" if draw < 0.1 else "fork"
        inherited = self.pool if draw > 0.5 else None
        context: Any = multiprocessing.get_context(method)
        post.number, post.since = self.numbers, time.monotonic()
        post.process = context.Process(target=worker.main, args=(order, inherited))
        post.process.start()

    def kill(self, post: Post) -> None:
        begun = time.monotonic_ns()
        self.killed[post.number] = begun
        post.process.kill()
        post.process.join()
        self.totals.kills += 1
        if post.process.exitcode not in (-signal.SIGKILL, 0):
            self.totals.faults.append(f"worker {post.number} ended with {post.process.exitcode}")
        self.troubles.append((begun, time.monotonic_ns() + 100_000_000))

    def stop(self, post: Post) -> None:
        begun = time.monotonic_ns()
        os.kill(post.process.pid, signal.SIGSTOP)
        self.totals.stops += 1
        time.sleep(self.rng.uniform(0.001, 0.06))
        if self.rng.random() < 0.3:
            self.kill(post)
            self.start(post)
        else:
            os.kill(post.process.pid, signal.SIGCONT)
        self.troubles.append((begun, time.monotonic_ns() + 100_000_000))

    def pause(self, seconds: float) -> None:
        begun, until = time.monotonic_ns(), time.monotonic() + seconds + STARVED_S
        time.sleep(seconds)
        if time.monotonic() > until:
            self.starved.append((begun, time.monotonic_ns()))

    def look(self) -> None:
        """As somebody does who looks in: consistent at any time."""
        for sentence in self.pool.check():
            self.totals.faults.append(f"check, at work: {sentence}")
        self.pool.stats()
        self.pool.holders()
        self.pool.reap()

    def disturb(self) -> None:
        self.pause(self.rng.uniform(0.005, 0.12))
        post = self.rng.choice(self.posts)
        draw = self.rng.random()
        if not post.process.is_alive():
            self.bury(post)
        elif self.calm or draw >= 0.9:
            self.look()
        elif draw < 0.5:
            self.kill(post)
            self.start(post)
        else:
            self.stop(post)
        for post in self.posts:
            self.watch(post)

    def bury(self, post: Post) -> None:
        """It ended by itself, which it does not."""
        post.process.join()
        self.killed.setdefault(post.number, time.monotonic_ns())
        self.totals.faults.append(f"worker {post.number} ended with {post.process.exitcode}")
        self.start(post)

    def watch(self, post: Post) -> None:
        counted, now = self.board.counted(post.place), time.monotonic()
        if counted != post.counted:
            post.counted, post.since = counted, now
        elif now - post.since > HANG_S:
            self.hang(post)
            self.kill(post)
            self.start(post)

    def hang(self, post: Post) -> None:
        """Where it hangs, as Python sees it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(post.process.pid, signal.SIGUSR1)
        time.sleep(0.5)
        stacks = (self.folder / f"{post.number}.stacks").read_text()
        self.totals.hangs.append(f"worker {post.number} did nothing for a long time:\n{stacks}")

    def end_all(self) -> None:
        """Each worker ends by itself, with nothing in hand."""
        self.board.say_stop(True)
        until = time.monotonic() + END_S
        self.release_the_patient()
        for post in self.posts:
            post.process.join(max(0.0, until - time.monotonic()))
            if post.process.exitcode is None:
                self.hang(post)
                self.kill(post)
            elif post.process.exitcode != 0:
                self.totals.faults.append(f"worker {post.number} ended with {post.process.exitcode}")
        for pid in orphans():
            os.waitpid(pid, 0)
        self.board.say_stop(False)

    def release_the_patient(self) -> None:
        """The one that waits for a packet gets one."""
        self.numbers += 1
        ring, log, post = (
            self.rings[BY_NAME["patient"]],
            Log(self.folder, self.numbers << LIVES),
            self.posts[0],
        )
        until = time.monotonic() + 2 * worker.LONG_S
        while post.process.is_alive() and time.monotonic() < until:
            if ring.empty():
                packet = self.pool.alloc(HEADER.size, timeout=1)
                with memoryview(packet) as view:
                    fill(view, serial := log.serial())
                log.note(What.PUT, BY_NAME["patient"], [serial])
                ring.put(packet, timeout=1)
                log.note(What.PLACED, BY_NAME["patient"], [serial])
            post.process.join(0.02)
        log.close()

    # -- the books

    def counts(self) -> dict[str, Counts]:
        return {
            ring.name: Counts(ring.puts, ring.gets, ring.drops, ring.redelivered, ring.depth)
            for ring in self.pool.stats().rings
        }

    def drain(self, log: Log) -> None:
        """What is queued, and what comes back from the dead."""
        self.pool.reap()
        for channel, ring in enumerate(self.rings):
            with contextlib.suppress(*worker.EMPTY):
                while True:
                    packet = ring.get_nowait()
                    with memoryview(packet) as view:
                        serial, whole = read(view)
                    log.got(channel, [(serial, packet.redelivered)])
                    if not whole:
                        log.note(What.TORN, channel, [serial])
                    log.note(What.FREE, channel, [serial])
                    if "keep" not in self.bugs:
                        packet.free()
                    else:
                        self.kept = packet
                    log.note(What.DONE, channel, [serial])
            ring.close()  # an exclusive side is the workers' again
        with contextlib.suppress(ssm.RingEmpty):
            while True:
                serial, data = self.queue.get_nowait()
                log.got(QUEUE, [(serial, False)])
                if read(memoryview(data)) != (serial, True):
                    log.note(What.TORN, QUEUE, [serial])
        log.close()
        self.rings = worker.open_rings(self.pool)

    def balance(self) -> None:
        self.numbers += 1
        self.drain(Log(self.folder, self.numbers << LIVES))
        books, balance, now = Books.of(self.folder), self.totals.balance, self.counts()
        for channel, (name, kind, _) in enumerate(RINGS):
            books.channel(channel, name, kind, now[name].minus(self.before[name]), balance)
        books.channel(QUEUE, "queue", Kind.EXACT, now["queue"].minus(self.before["queue"]), balance)
        self.balance_commons(books)
        books.handed_over(BY_NAME["twin"], BY_NAME["next"], "next", balance)
        balance.doomed += len(books.doomed - books.ended)
        for number, name in enumerate(SERVICES):
            books.values(QUEUE + 1 + number, name, self.killed, balance)
        books.wake_ups(
            {channel for channel, (_, kind, _) in enumerate(RINGS) if kind is Kind.EXACT},
            self.trouble_spans(books),
            self.starved,
            balance,
        )
        self.before = now
        self.find_what_is_left()
        for path in self.folder.iterdir():
            if path.suffix == ".fault":
                self.totals.faults.append(path.read_text())
            if path.suffix in (".log", ".stacks", ".fault"):
                path.unlink()
        self.killed.clear()
        self.troubles.clear()
        self.starved.clear()

    def numbers_of_rows(self) -> list[int]:
        return list(map(commons.number_of, self.commons.board.array.tolist()))

    def tasks_undone(self, ring: ssm.Ring) -> int:
        """How many tasks nobody has said to be done: says it of them, and then join() has to return."""
        undone = 0
        with contextlib.suppress(ValueError):
            while True:
                if undone == 0 and ring.join(0):
                    break
                ring.task_done()
                undone += 1
        if not ring.join(0):
            self.totals.faults.append("join() waits, and no task is left to be done")
        return undone

    def balance_commons(self, books: Books) -> None:
        """What is no ring of the workers' table, and no value."""
        balance, channel = self.totals.balance, BY_NAME["joined"]
        books.permits(commons.PERMITS, "permits", commons.MOST, self.killed, balance)
        books.topic(commons.TOPIC, "news", balance)
        books.tasks(channel, "joined", self.tasks_undone(self.rings[channel]), balance)
        rows = self.numbers_of_rows()
        books.board(commons.BOARD, "rows", self.rows, rows, balance)
        there = commons.rings_that_go(self.pool)
        self.totals.faults += books.rings_left(commons.GOING, "rings that go", there)
        for name in there.values():  # of those that were killed
            self.pool.unlink_ring(name)
        self.commons.topic.unlink()  # with its history
        self.commons, self.rows = commons.Commons.open(self.pool), rows

    def trouble_spans(self, books: Books) -> list[tuple[int, int]]:
        """Stops and kills, also of the doomed; in order, those that overlap as one."""
        deaths = [books.by_life[life][-1].time_ns for life in books.doomed - books.ended]
        spans: list[tuple[int, int]] = []
        for start, end in sorted([*self.troubles, *((t, t + 100_000_000) for t in deaths)]):
            if spans and start <= spans[-1][1]:
                spans[-1] = spans[-1][0], max(end, spans[-1][1])
            else:
                spans.append((start, end))
        return spans

    def find_what_is_left(self) -> None:
        """Nobody is at work: every block is free, every value too, and nothing contradicts itself."""
        stats, faults = self.pool.stats(), self.totals.faults
        faults += [
            f"{c.held} blocks of {c.block_size} bytes are held by nobody" for c in stats.classes if c.held
        ]
        if stats.arena is not None and stats.arena.used:
            faults.append(f"{stats.arena.used} bytes of the arena are used by nobody")
        faults += [f"{s.used} values of {s.name} are nobody's" for s in stats.services if s.used]
        counted = [*stats.classes, *stats.rings, *([stats.arena] if stats.arena is not None else [])]
        late = sum(each.late_wakes for each in counted)
        more, self.late_wakes = max(0, late - self.late_wakes), late
        if self.calm:
            self.totals.late_wakes += more
        else:
            self.totals.excused += more
        if self.calm and more:
            faults.append(f"{more} waits were ended by a look only, although nobody was stopped or killed")
        faults += [f"check, at rest: {sentence}" for sentence in self.pool.check()]
        others = [
            holder for holder in self.pool.holders() if holder.kind == "process" and holder.pid != os.getpid()
        ]
        faults += [f"still a holder: {holder}" for holder in others]

    def run(self, seconds: float, first: bool) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not (first and self.totals.wrong()):
            self.calm = self.always_calm or self.totals.rounds % CALM_ROUNDS == CALM_ROUNDS - 1
            self.board.say_calm(self.calm)
            for post in self.posts:
                self.start(post)
            pause = min(until, time.monotonic() + ROUND_S)
            while time.monotonic() < pause:
                self.disturb()
            self.end_all()
            self.balance()
            self.totals.rounds += 1
            self.totals.calm += self.calm

    def close(self) -> None:
        for post in self.posts:
            if post.process is not None and post.process.is_alive():
                post.process.kill()
                post.process.join()
        self.queue.close()
        self.pool.close()
        self.pool.unlink()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--workers", type=int, default=5)
    parser.add_argument("--markdown", action="store_true", help="print a table")
    parser.add_argument("--first", action="store_true", help="end with the first thing that is wrong")
    parser.add_argument(
        "--calm", action="store_true", help="nobody is killed or stopped: then no wake-up is late"
    )
    parser.add_argument("--bugs", choices=BUGS, nargs="+", default=(), help="what the workers do wrong")
    options = parser.parse_args()
    if not options.markdown:
        print(f"seed {options.seed}", flush=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ssm-soak-") as folder:
        supervisor = Supervisor(
            Path(folder), options.seed, options.workers, frozenset(options.bugs), options.calm
        )
        try:
            supervisor.run(options.seconds, options.first)
        finally:
            supervisor.close()
    wrong = supervisor.totals.wrong()
    for sentence in wrong[:20]:
        print(sentence, file=sys.stderr)
    print(supervisor.totals.row(options.seed, time.monotonic() - start))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
