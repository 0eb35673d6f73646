# SPDX-License-Identifier: Apache-2.0
"""What a run came to: counts of each stage and each ring, results, dead letters, and whether the books agree."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

_LETTERS = 5  # shown in the text
_BUSY_LITTLE = 0.5  # a stage that is busy for less is not what holds the others up
_CROWDED = 0.9  # of the processors: with so many at work, more workers do not help


@dataclass(frozen=True)
class StageReport:
    """One source, stage or sink."""

    name: str
    """Its name."""
    kind: str
    """"source", "stage" or "sink"."""
    workers: int
    """How many workers it has at a time."""
    packets_in: int
    """Packets that it took out of its rings and was done with."""
    packets_out: int
    """Packets that it put into rings; one put into two rings counts twice."""
    filtered: int
    """Packets that it ended without a result. At a sink that is all of them."""
    dead: int
    """Packets that it put among the dead letters."""
    dropped: int
    """Packets that it freed since the function failed, with ``on_error="drop"``."""
    errors: int
    """Exceptions of its function, those included after which it was tried again."""
    seconds: float
    """How long its workers ran, all together."""
    busy: float
    """Share of that time in which they worked, 0 .. 1; the three shares add up to 1."""
    starved: float
    """Share in which they waited for packets."""
    blocked: float
    """Share in which they waited for room in a ring, for a free block, or in an ordered stage for their turn."""
    started: int
    """Processes that were started for it."""
    killed: int
    """Of these, processes that died before they were done, hung ones included."""
    hung: int
    """Of these, processes that were killed since they made no progress for `timeout` seconds."""


@dataclass(frozen=True)
class RingReport:
    """One ring."""

    name: str
    """Its name."""
    capacity: int
    """Packets that it takes."""
    put: int
    """Packets ever put."""
    left: int
    """Packets that are in it still."""
    redelivered: int
    """Times that a packet came out once more, since a process that had it before was killed or gave it back."""
    high_water: int
    """The most packets that were ever queued."""
    drops: int
    """Packets lost because it was full; see the `overflow` of `Pipeline.ring`."""
    passed_on: int | None = None
    """Packets taken out that ended with a put: passed on, made into others, or put among the dead letters. None, here
    and below: the run is not complete, or the ring's reader has several inputs, and does not count them apart."""
    freed: int | None = None
    """Packets taken out that ended with a free: filtered, dropped after an error, or at the end of the line."""
    died: int | None = None
    """Packets taken out that ended with the worker that had them: of a ring with ``redeliver=False``."""


@dataclass(frozen=True)
class BlockReport:
    """One size class of the pool."""

    block_size: int
    """Bytes of a block."""
    blocks: int
    """How many there are."""
    free: int
    """Those that nobody has."""


@dataclass(frozen=True)
class BridgeReport:
    """The bridge to the host of another role."""

    role: str
    """The role."""
    exports: tuple[str, ...]
    """Rings whose packets went there."""
    imports: tuple[str, ...]
    """Rings whose packets came from there."""
    started: int
    """Processes that were started for it."""
    killed: int
    """Of these, processes that died before all was over."""


@dataclass(frozen=True)
class DeadLetter:
    """A packet that a stage could not handle."""

    stage: str
    """The stage."""
    tag: int
    """Its tag."""
    reason: str
    """The traceback, or how the workers died."""
    data: bytes
    """What was in the packet."""


class Load(NamedTuple):
    """How much a stage worked in some time."""

    name: str
    """Its name."""
    kind: str
    """"source", "stage" or "sink"."""
    workers: int
    """Its workers."""
    seconds: float
    """How long they were there in that time, all together."""
    busy: float
    """Share of that in which they worked, 0 .. 1."""


def bottleneck(loads: Sequence[Load], seconds: float, cores: int) -> str:
    """Return what held the others up for so many seconds on so many processors, and what helps, in a sentence."""
    working = [stage for stage in loads if stage.seconds > 0]
    if not working or seconds <= 0:
        return "Nothing ran in processes of its own."
    load = {stage.name: stage.busy * stage.seconds / seconds for stage in working}  # busy workers, on average
    first = max(working, key=lambda stage: load[stage.name] / stage.workers)
    share = load[first.name] / first.workers
    often = f"busy {min(share, 1):.0%} of the time"
    if share < _BUSY_LITTLE:
        return (
            f"No stage is busy half of the time; the most is {first.name!r}, {often}. The hand-over is what takes "
            "the rest: larger packets or batch= help"
        )
    if sum(load.values()) > _CROWDED * cores:
        return (
            f"The {cores} processors are the bottleneck: all stages together keep them busy, "
            f"{first.name!r} most "
            f"({often}). Fewer workers, or a cheaper {first.name!r}, help"
        )
    if first.kind == "source":
        return (
            f"Source {first.name!r} is the bottleneck: {often}, and the others wait for it. A faster "
            f"source helps"
        )
    if first.kind == "sink" and first.workers == 1:
        remedy = "batch=, or a stage in front of it that does a part of its work, helps"
    else:
        remedy = f"workers={first.workers + 1}, or batch=, helps"
    workers = "worker is" if first.workers == 1 else f"{first.workers} workers are"
    return (
        f"{first.kind.capitalize()} {first.name!r} is the bottleneck: its {workers} {often}. "
        f"{remedy[0].upper()}{remedy[1:]}"
    )


@dataclass(frozen=True)
class Report:
    """One run of a pipeline."""

    pipeline: str
    """Its name."""
    seconds: float
    """How long it took, from before the first process was started."""
    stages: dict[str, StageReport]
    """By name."""
    rings: dict[str, RingReport]
    """By name."""
    dead: tuple[DeadLetter, ...]
    """Packets that no stage could handle."""
    results: dict[str, list[Any]]
    """By stage, what ``close()`` of each worker's object returned, in the order of the workers."""
    blocks: tuple[BlockReport, ...]
    """The blocks of the pool, by size class, from the smallest on."""
    missing: int
    """Blocks that did not come back."""
    findings: tuple[str, ...]
    """One sentence for each sum that does not agree, for packets and blocks that are left, and for each thing that
    `Pool.check` found."""
    complete: bool
    """Whether the run came to its end: False if it failed."""
    interrupted: bool
    """Whether the sources were told to end early: by Ctrl-C, SIGTERM, or `Run.stop`."""
    bridges: dict[str, BridgeReport] = field(default_factory=dict[str, BridgeReport])
    """By the role of the other host."""
    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    """Processors that the run could use."""

    @property
    def exact(self) -> bool:
        """Whether each packet that was put into a ring is accounted for once, and nothing is left."""
        return self.complete and not self.findings

    @property
    def redelivered(self) -> int:
        """Times that a packet of any ring came out once more; see `RingReport.redelivered`."""
        return sum(ring.redelivered for ring in self.rings.values())

    @property
    def bottleneck(self) -> str:
        """What holds the others up, in a sentence, and what helps."""
        loads = [
            Load(stage.name, stage.kind, stage.workers, stage.seconds, stage.busy)
            for stage in self.stages.values()
        ]
        return bottleneck(loads, self.seconds, self.cores)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain dicts and lists, with `exact` and `bottleneck`; results are as they were."""
        return dataclasses.asdict(dataclasses.replace(self, results={})) | {
            "results": self.results,
            "blocks": [dataclasses.asdict(each) for each in self.blocks],
            "dead": [dataclasses.asdict(letter) | {"data": letter.data.hex()} for letter in self.dead],
            "findings": list(self.findings),
            "exact": self.exact,
            "bottleneck": self.bottleneck,
        }

    def __str__(self) -> str:
        how = "exact" if self.exact else "NOT EXACT" if self.complete else "not complete"
        lines = [
            f"pipeline {self.pipeline!r}: {self.seconds:.2f} s, {how}{', ended early' if self.interrupted else ''}"
        ]
        lines += [_stage_line(stage) for stage in self.stages.values()]
        lines += [_ring_line(ring) for ring in self.rings.values()]
        lines += [_bridge_line(bridge) for bridge in self.bridges.values()]
        lines += [f"  {finding}" for finding in self.findings]
        for letter in self.dead[:_LETTERS]:
            reason = letter.reason.strip().splitlines()[-1:] or [""]
            lines.append(f"  dead letter of {letter.stage!r}, tag {letter.tag}: {reason[0]}")
        if len(self.dead) > _LETTERS:
            lines.append(f"  ... and {len(self.dead) - _LETTERS} more dead letters")
        return "\n".join([*lines, f"  {self.bottleneck}"])


def _stage_line(stage: StageReport) -> str:
    text = (
        f"  {stage.name:<14} x{stage.workers:<3} in {stage.packets_in:>11,}  out {stage.packets_out:>11,}  "
        f"busy {stage.busy:4.0%}  starved {stage.starved:4.0%}  blocked {stage.blocked:4.0%}"
    )
    more = {
        "filtered": stage.filtered if stage.kind == "stage" else 0,
        "dead": stage.dead,
        "dropped": stage.dropped,
        "errors": stage.errors,
        "killed": stage.killed,
        "hung": stage.hung,
    }
    return text + "".join(f", {name} {count:,}" for name, count in more.items() if count)


def _ring_line(ring: RingReport) -> str:
    text = (
        f"  ring {ring.name!r}: put {ring.put:,}, left {ring.left:,}, at most {ring.high_water:,} of "
        f"{ring.capacity:,}"
    )
    more = {"redelivered": ring.redelivered, "lost when full": ring.drops}
    return text + "".join(f", {name} {count:,}" for name, count in more.items() if count)


def _bridge_line(bridge: BridgeReport) -> str:
    ways = [
        f"{', '.join(map(repr, rings))} {way}"
        for rings, way in ((bridge.exports, "there"), (bridge.imports, "here"))
        if rings
    ]
    killed = f", killed {bridge.killed:,}" if bridge.killed else ""
    return f"  bridge to {bridge.role!r}: {'; '.join(ways)}{killed}"
