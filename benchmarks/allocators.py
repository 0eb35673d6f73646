# SPDX-License-Identifier: Apache-2.0
"""How long do the allocators take: in C, through Python alone, and through Python hosted in a pool?

    python -m benchmarks.allocators [--rounds N] [--short] [--python-only] [--record | --output FILE] [--docs]

Every round measures every case once, C and Python in turn, and what stands alone beside what is hosted, case by case,
so that a slow minute of the machine falls on all of them; within a round a case is the median of many short runs. The
table shows the median of the rounds. Which id, pid or range an operation is about is random and decided before the
clock starts; the loop around the calls is part of the figure. `--docs` records, and puts the table into
docs/allocators.md.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import ssm
from allocators import AddressAllocator, AllocPolicy, IdAllocator, PidAllocator, RangeInclusive, RmidAllocator
from benchmarks.bench import PATIENCE_S, add_output, build_core, machine, note, save

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DOCS = Path(__file__).resolve().parent.parent / "docs" / "allocators.md"
BEGIN, END = "<!-- benchmarks/allocators.py: begin -->\n", "<!-- benchmarks/allocators.py: end -->"

FORMS = ("C", "Python", "hosted")
RUNS = 7
BATCH = 1000
SIZES = 3
ID_COUNTS, ORDERS, RANGE_COUNTS, RMID_COUNTS = (
    (1000, 100_000, 1_000_000),
    (8, 64, 4096),
    (100, 10_000, 100_000),
    (4, 64, 1024),
)
FULLNESS = ((0, "empty"), (50, "half full"), (99, "nearly full"))
UNIT, UNITS = 16, 16
ROOM = 1 << 40
NONE_FITS = 8 * UNITS * UNIT  # longer than any hole: neighbouring holes have merged
FIRST, LAST = AllocPolicy.FIRST_MATCH, AllocPolicy.LAST_MATCH
METADATA = (4 << 20, 24 << 20, 192 << 20)  # of the pool, for so many sizes of all allocators


class Case(NamedTuple):
    """One line of the table; as in allocators.c."""

    allocator: str
    state: str
    operation: str


# What the allocators that ours are after take on the same kind of machine, in ns: given figures, not measured here.
ORIGINALS = {
    Case("ids", "1000 in use", "free a random one + allocate"): "17",
    Case("ids", "1000000 in use, as many free below", "free a random one + allocate"): "62 .. 73",
    Case("rmids", "of 4", "alloc + free"): "2.2",
}
for _operation, _figures in {
    "FirstMatch, only the tail fits": ("1,400", "125,000", "1,370,000"),
    "LastMatch, only the head fits": ("1,300", "140,000", "4,200,000"),
    "ExactMatch, a random hole": ("73", "196", "270"),
    "free, a random one": ("180", "492", "1,026"),
}.items():
    for _count, _figure in zip(RANGE_COUNTS, _figures, strict=True):
        ORIGINALS[Case("ranges", f"{_count} live, random holes", _operation)] = _figure
for _order in ORDERS[:2]:
    for _, _how_full in FULLNESS:
        ORIGINALS[Case("pids", f"order {_order}, {_how_full}", "allocate + recycle")] = "8.7 .. 14.5"


HOSTED_GOAL = 2  # a hosted call takes at most so many times what a call of what stands alone takes


def goal_ns(case: Case) -> int | None:
    """What C is to stay below, on a machine with nothing else to do."""
    if case.allocator == "ranges":
        return 1000 if case.state == f"{RANGE_COUNTS[-1]} live, random holes" else None
    return 15 if case.allocator == "rmids" else 50


# ---- Python: the same cases for what stands alone and what is hosted -----------------------------------


class Alone:
    """Makes allocators in private memory."""

    def ids(self, count: int) -> Any:
        return IdAllocator(0, count - 1)

    def pids(self, order: int) -> Any:
        return PidAllocator(order)

    def rmids(self, max_rmid: int) -> Any:
        return RmidAllocator(max_rmid, 0)

    def addresses(self, size: int, ranges: int) -> Any:
        return AddressAllocator(0, size)


class Hosted:
    """Makes services of a pool that no other process uses."""

    def __init__(self, pool: ssm.Pool) -> None:
        self.pool = pool

    def ids(self, count: int) -> Any:
        return self.pool.ids(self.name(), 0, count - 1)

    def pids(self, order: int) -> Any:
        return self.pool.pids(self.name(), order)

    def rmids(self, max_rmid: int) -> Any:
        return self.pool.rmids(self.name(), max_rmid, 0)

    def addresses(self, size: int, ranges: int) -> Any:
        return self.pool.addresses(self.name(), 0, size, ranges=ranges)

    def name(self) -> str:
        return f"s{len(self.pool.services())}"


Maker = Alone | Hosted


def nothing() -> None:
    pass


def median(
    count: int,
    operation: Callable[[], object],
    undo: Callable[[], object] = nothing,
    prepare: Callable[[], object] = nothing,
) -> float:
    """Nanoseconds for one of the `count` things the operation does. What comes before and after is not timed."""
    times = []
    for _ in range(RUNS):
        prepare()
        start = time.perf_counter_ns()
        operation()
        times.append((time.perf_counter_ns() - start) / count)
        undo()
    return statistics.median(times)


def batch_of(in_use: int) -> int:
    return min(in_use // 2, BATCH)


def choose(live: list[Any], some: list[Any]) -> None:
    """Put what was chosen back, and move as many others, at random, from `live` to `some`."""
    live += some
    for i in range(len(some)):
        j = random.randrange(len(live))
        live[j], live[-1] = live[-1], live[j]
        some[i] = live.pop()


def ids(make: Maker, in_use: int, holes: bool) -> Iterator[tuple[Case, float]]:
    allocator = make.ids(2 * in_use)
    allocate, free = allocator.allocate_id, allocator.free_id
    live = [allocate() for _ in range(2 * in_use if holes else in_use)]
    if holes:
        random.shuffle(live)
        for i in live[in_use:]:
            free(i)
        del live[in_use:]
    some = live[: batch_of(in_use)]
    del live[: len(some)]
    batch = len(some)

    def all_free() -> None:
        for i in some:
            free(i)

    def all_allocate() -> None:
        for i in range(batch):
            some[i] = allocate()

    def choose_and_free() -> None:
        choose(live, some)
        all_free()

    def pairs() -> None:
        for i in range(batch):
            free(some[i])
            some[i] = allocate()

    state = f"{in_use} in use{', as many free below' if holes else ''}"
    yield (
        Case("ids", state, "free, a random one"),
        median(batch, all_free, all_allocate, partial(choose, live, some)),
    )
    yield Case("ids", state, "allocate"), median(batch, all_allocate, prepare=choose_and_free)
    yield (
        Case("ids", state, "free a random one + allocate"),
        median(batch, pairs, prepare=partial(choose, live, some)),
    )


def pids(make: Maker, order: int, percent: int, how_full: str) -> Iterator[tuple[Case, float]]:
    allocator = make.pids(order)
    allocate = allocator.allocate
    live = [allocate() for _ in range(allocator.capacity)]
    random.shuffle(live)
    del live[allocator.capacity * percent // 100 :]
    some = live[: batch_of(len(live))]
    del live[: len(some)]

    def lowest() -> None:
        for _ in range(BATCH):
            allocate()  # dropped at once, and so recycled

    def of_random_ones() -> None:
        for i in range(len(some)):
            some[i] = None
            some[i] = allocate()

    state = f"order {order}, {how_full}"
    yield Case("pids", state, "allocate + recycle"), median(BATCH, lowest)
    if some:
        ns = median(len(some), of_random_ones, prepare=partial(choose, live, some))
        yield Case("pids", state, "recycle a random one + allocate"), ns


def random_size() -> int:
    return UNIT * random.randint(1, UNITS)


def policy(space: Any, arguments: list[tuple[Any, ...]]) -> float:
    """Allocate, timed; free again in another order, not timed."""
    taken: list[Any] = []

    def allocate() -> None:
        for each in arguments:
            taken.append(space.allocate(*each))

    def give_back() -> None:
        random.shuffle(taken)
        for r in taken:
            space.free(r)
        taken.clear()

    return median(len(arguments), allocate, give_back)


def exact(space: Any, live: list[RangeInclusive], state: str) -> Iterator[tuple[Case, float]]:
    """Free random live ranges, take each back by its address."""
    some, places = live[: batch_of(len(live))], []
    del live[: len(some)]

    def prepare() -> None:
        choose(live, some)
        places[:] = [(r.length, 1, AllocPolicy.exact(r.start)) for r in some]

    def free_some() -> None:
        for r in some:
            space.free(r)

    def take_back() -> None:
        for each in places:
            space.allocate(*each)

    def prepare_and_free() -> None:
        prepare()
        free_some()

    ns = median(len(some), free_some, take_back, prepare)
    yield Case("ranges", state, "free, a random one"), ns
    ns = median(len(some), take_back, prepare=prepare_and_free)
    yield Case("ranges", state, "ExactMatch, a random hole"), ns


def ranges(make: Maker, count: int) -> Iterator[tuple[Case, float]]:
    batch, state = batch_of(count), f"{count} live, random holes"
    space = make.addresses(ROOM, 2 * count + BATCH + 1)
    head = space.allocate(ROOM // 2, 1)  # else there is room for everything at once
    live = [space.allocate(random_size(), 1) for _ in range(2 * count)]
    random.shuffle(live)
    for r in live[count:]:
        space.free(r)
    del live[count:]
    into_holes = [random_size() for _ in range(batch)]

    def case(operation: str, sizes: list[int], align: int, which: AllocPolicy) -> tuple[Case, float]:
        return Case("ranges", state, operation), policy(space, [(size, align, which) for size in sizes])

    yield from exact(space, live, state)
    yield case("FirstMatch, into holes", into_holes, 1, FIRST)
    yield case("FirstMatch, only the tail fits", [NONE_FITS] * batch, 1, FIRST)
    yield case("FirstMatch, alignment 4096", [UNIT] * batch, 4096, FIRST)
    space.free(head)
    (tail,) = (n.range for n in space.tree.overlapping(RangeInclusive(ROOM - 1, ROOM - 1)))
    space.allocate(tail.length, 1, AllocPolicy.exact(tail.start))
    yield case("LastMatch, into holes", into_holes, 1, LAST)
    yield case("LastMatch, only the head fits", [NONE_FITS] * batch, 1, LAST)


def misaligned(make: Maker, live: int) -> Iterator[tuple[Case, float]]:
    """Holes of 32, each long enough for 32 aligned to 32, none with room for it: the search looks at them all."""
    space = make.addresses(ROOM, 2 * live + BATCH)
    space.allocate(16, 1, AllocPolicy.exact(0))
    for i in range(1, live + 1):
        space.allocate(32, 1, AllocPolicy.exact(64 * i - 16))
    case = Case("ranges", f"{live} live, misaligned holes", "FirstMatch, alignment 32")
    yield case, policy(space, [(32, 32, FIRST)] * 4)


def rmids(make: Maker, max_rmid: int) -> Iterator[tuple[Case, float]]:
    allocator = make.rmids(max_rmid)
    alloc, free = allocator.alloc, allocator.free

    def pairs() -> None:
        for _ in range(BATCH):
            free(alloc(5), 5)

    yield Case("rmids", f"of {max_rmid}", "alloc + free"), median(BATCH, pairs)


def python(make: Maker, sizes: int) -> Iterator[tuple[Case, float]]:
    """Every case, in the order of the table."""
    for count in ID_COUNTS[:sizes]:
        yield from ids(make, count, holes=False)
        yield from ids(make, count, holes=True)
    for order in ORDERS[:sizes]:
        for percent, how_full in FULLNESS:
            yield from pids(make, order, percent, how_full)
    for live in RANGE_COUNTS[:sizes]:
        yield from ranges(make, live)
        yield from misaligned(make, live)
    for max_rmid in RMID_COUNTS[:sizes]:
        yield from rmids(make, max_rmid)


def side_by_side(sizes: int) -> Iterator[tuple[Case, dict[str, float]]]:
    """Each case for what stands alone, and at once for what is hosted."""
    name = f"ssm-bench-{os.getpid()}"
    with ssm.Pool.create(name, classes={512: 8}, metadata=METADATA[sizes - 1], ephemeral=True) as pool:
        pairs = zip(python(Alone(), sizes), python(Hosted(pool), sizes), strict=True)
        for (case, alone_ns), (_, hosted_ns) in pairs:
            yield case, {"Python": alone_ns, "hosted": hosted_ns}


# ---- C -----------------------------------------------------------------------------------------------


def core(program: Path, sizes: int) -> Iterator[tuple[Case, float]]:
    command = [program, str(sizes)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE_S)
    for line in done.stdout.splitlines():
        *case, ns = line.split("\t")
        yield Case(*case), float(ns)


# ---- the table ---------------------------------------------------------------------------------------


def measure(program: Path | None, rounds: int, sizes: int) -> dict[Case, dict[str, list[float]]]:
    """Case -> form -> nanoseconds, one figure per round."""
    figures: dict[Case, dict[str, list[float]]] = {}
    for turn in range(rounds):
        note(f"round {turn + 1} of {rounds}: C")
        measured = [(case, {"C": ns}) for case, ns in core(program, sizes)] if program else []
        note(f"round {turn + 1} of {rounds}: Python")
        measured += side_by_side(sizes)
        for case, forms in measured:
            for form, ns in forms.items():
                figures.setdefault(case, {}).setdefault(form, []).append(ns)
    note("")
    return figures


def as_document(figures: dict[Case, dict[str, list[float]]], about: dict[str, str | float]) -> dict[str, Any]:
    results = [
        {**case._asdict(), "form": form, "unit": "ns", "runs": runs, "median": statistics.median(runs)}
        for case, forms in figures.items()
        for form, runs in forms.items()
    ]
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return {"when": when, "machine": about, "results": results}


def rows(document: dict[str, Any]) -> Iterator[tuple[Case, dict[str, float]]]:
    """Case, and form -> median."""
    table: dict[Case, dict[str, float]] = {}
    for r in document["results"]:
        table.setdefault(Case(r["allocator"], r["state"], r["operation"]), {})[r["form"]] = r["median"]
    yield from table.items()


def in_words(ns: float | None) -> str:
    return "" if ns is None else f"{ns:,.1f}" if ns < 100 else f"{ns:,.0f}"


def judged(ns: float | None, goal: float | None) -> str:
    """Bold where it misses its goal."""
    return f"**{in_words(ns)}**" if ns and goal and ns > goal else in_words(ns)


def print_table(document: dict[str, Any]) -> None:
    print(" | ".join(f"{key} {value}" for key, value in document["machine"].items()))
    print(f"{'nanoseconds':<75}{'C':>12}{'Python':>12}{'hosted':>12}{'goal for C':>12}{'hosted/Python':>15}")
    for case, medians in rows(document):
        columns = "".join(f"{in_words(ns):>12}" for ns in (*map(medians.get, FORMS), goal_ns(case)))
        times = f"{medians['hosted'] / medians['Python']:.2f}"
        print(f"{case.allocator:<7}{case.state:<36}{case.operation:<32}{columns}{times:>15}")


def markdown(document: dict[str, Any]) -> str:
    """Return the table as docs/allocators.md has it."""
    about = document["machine"]
    rounds = max(len(result["runs"]) for result in document["results"])
    lines = [
        f"Measured {document['when'][:10]} on {about['cpu']}, {about['cores']} cores, load {about['load']}, Linux "
        f"{about['kernel']},",
        f"{about['compiler']}, {about['python']}: `python -m benchmarks.allocators --rounds {rounds} --docs`.",
        "",
        "| | | C | goal | Python | hosted | the original |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for case, medians in rows(document):
        goal, alone = goal_ns(case), medians.get("Python")
        figures = [judged(medians.get("C"), goal), f"{goal:,}" if goal else "", in_words(alone)]
        figures += [judged(medians.get("hosted"), alone and HOSTED_GOAL * alone), ORIGINALS.get(case, "")]
        state = re.sub(r"\d{5,}", lambda m: f"{int(m[0]):,}", case.state)
        lines.append(f"| {case.allocator}, {state} | {case.operation} | {' | '.join(figures)} |")
    return "\n".join(lines) + "\n"


def write_docs(document: dict[str, Any]) -> None:
    before, _, rest = DOCS.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCS.write_text(f"{before}{BEGIN}{markdown(document)}{END}{after}", encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7, help="runs of each case (%(default)s)")
    parser.add_argument("--short", action="store_true", help="the smallest state of each, one round, no file")
    parser.add_argument("--python-only", action="store_true", help="do not build and measure the C cores")
    add_output(parser)
    parser.add_argument(
        "--docs", action="store_true", help="--record, and put the table into docs/allocators.md"
    )
    arguments = parser.parse_args(argv)
    if arguments.docs and (arguments.short or arguments.python_only or arguments.output):
        parser.error("--docs wants the whole table, and records it")
    arguments.record |= arguments.docs
    random.seed(1)
    program = None if arguments.python_only else build_core("allocators_bench")
    about = machine(program)
    rounds, sizes = (1, 1) if arguments.short else (arguments.rounds, SIZES)
    document = as_document(measure(program, rounds, sizes), about)
    print_table(document)
    if arguments.output or not arguments.short:
        save(document, arguments, "allocators")
    if arguments.docs:
        write_docs(document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
