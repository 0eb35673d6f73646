# SPDX-License-Identifier: Apache-2.0
"""The books: whether all that was put into each ring is accounted for.

Rings know exactly how many packets were put into them, and how many are left. Workers count what they did. Both must
agree: for each group of rings that share their readers, packets taken out; for each group that share their putters,
packets put; and the dead letters. A worker that was killed between a commit and its count leaves a doubt (board.py).
The books agree if there is one choice, for each doubt, of whether it happened, that fits all rings at once. A packet
that was delivered twice, or lost, fits no choice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ssm.pipeline.board import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from ssm.pipeline.declared import Declaration, RingSpec, StageSpec
    from ssm.stats import RingStats

_CHOICES_MAX = 100_000


@dataclass(frozen=True)
class Line:
    """One sum that must agree."""

    what: str
    stages: frozenset[str]
    column: str  # of Tally
    truth: int


@dataclass(frozen=True)
class Balance:
    """What came of the books."""

    findings: list[str]
    """One sentence for each sum that does not agree; none: they all do."""
    happened: list[tuple[str, Tally]]
    """Of the doubts, by stage, what must have happened."""


def balance(
    declared: Declaration,
    rings: Mapping[str, RingStats],
    dead: int,
    tallies: Mapping[str, Tally],
    doubts: Sequence[tuple[str, Tally]],
) -> Balance:
    """Compare what rings know with what workers counted; `dead`: packets ever put among the dead letters."""
    lines = list(_lines(declared, rings, dead))
    missing = tuple(
        line.truth - sum(getattr(tallies[name], line.column) for name in line.stages) for line in lines
    )
    units = [(stage, unit) for stage, each in doubts for unit in _units(each)]
    happened = _choice(missing, units, lines)
    if happened is not None:
        return Balance([], happened)
    wrong = [
        f"{line.what}: {line.truth:,}, and {line.truth - gap:,} are accounted for"
        for line, gap in zip(lines, missing, strict=True)
        if gap
    ]
    return Balance(wrong, [])


def _lines(declared: Declaration, rings: Mapping[str, RingStats], dead: int) -> Iterator[Line]:
    for group in _groups(declared, lambda stage: stage.inputs):
        stats = [rings[name] for name in group]
        lost = sum(ring.drops for ring in stats if ring.overflow == "overwrite")
        taken = sum(ring.puts - ring.depth for ring in stats) - lost
        yield Line(
            f"packets taken out of {_words(group)}", _names(declared, group, declared.getters), "taken", taken
        )
    for group in _groups(declared, lambda stage: stage.outputs):
        stats = [rings[name] for name in group]
        refused = sum(ring.drops for ring in stats if ring.overflow == "drop")
        put = sum(ring.puts for ring in stats) + refused
        yield Line(
            f"packets put into {_words(group)}", _names(declared, group, declared.putters), "puts", put
        )
    yield Line("dead letters", frozenset(stage.name for stage in declared.stages), "dead", dead)


def _names(
    declared: Declaration, group: Iterable[str], stages: Callable[[RingSpec], list[StageSpec]]
) -> frozenset[str]:
    return frozenset(stage.name for name in group for stage in stages(declared.rings[name]))


def _groups(declared: Declaration, rings_of: Callable[[StageSpec], tuple[RingSpec, ...]]) -> list[list[str]]:
    """Return rings in groups: those that a stage has in common are in one."""
    groups: list[list[str]] = []
    for stage in declared.stages:
        own = [ring.name for ring in rings_of(stage)]
        if not own:
            continue
        for group in [group for group in groups if not set(group).isdisjoint(own)]:
            groups.remove(group)
            own += [name for name in group if name not in own]
        groups.append(own)
    return groups


def _words(names: Iterable[str]) -> str:
    return "ring " + " and ".join(map(repr, names))


def _units(doubt: Tally) -> Iterator[Tally]:
    """Yield what may have happened by itself: frees happen one by one, puts of a batch at once."""
    for column in ("finished", "dropped", "dead"):
        for _ in range(getattr(doubt, column)):
            yield Tally(**{column: 1})
    together = replace(doubt, finished=0, dropped=0, dead=0)
    if together != Tally():
        yield together


def _choice(
    missing: tuple[int, ...], units: Sequence[tuple[str, Tally]], lines: Sequence[Line]
) -> list[tuple[str, Tally]] | None:
    """Return a choice of what is in doubt that adds up to what is missing; None: there is none."""
    reached: dict[tuple[int, ...], list[tuple[str, Tally]]] = {
        missing: []
    }  # what is left to explain, and by what so far
    for stage, unit in units:
        vector = [getattr(unit, line.column) if stage in line.stages else 0 for line in lines]
        for left, chosen in list(reached.items()):
            less = tuple(a - b for a, b in zip(left, vector, strict=True))
            if min(less) >= 0 and less not in reached and len(reached) < _CHOICES_MAX:
                reached[less] = [*chosen, (stage, unit)]
    return reached.get((0,) * len(missing))
