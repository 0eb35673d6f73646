# SPDX-License-Identifier: Apache-2.0
"""What a pipeline is made of, as it was declared: rings and stages. Nothing here starts, opens or checks anything."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import DTypeLike

OnError: TypeAlias = Literal["stop", "dead", "drop"]
Kind: TypeAlias = Literal["source", "stage", "sink"]

ON_ERROR = ("stop", "dead", "drop")
OVERFLOW = ("block", "drop", "overwrite")  # "sample" mixes two of them, which no books can tell apart
DEAD_LETTERS = "dead letters"  # the ring of packets that no stage could handle


@dataclass(frozen=True, eq=False)
class RingSpec:
    """A ring of a pipeline, made by `Pipeline.ring`."""

    name: str
    capacity: int | None
    size: int | None
    dtype: DTypeLike | None
    objects: bool
    redeliver: bool
    overflow: str

    def to(self, value: object) -> Routed:
        """Return what sends a value to this ring alone, when a stage with several outputs returns it."""
        return Routed(self.name, value)


@dataclass(frozen=True)
class Routed:
    """A value and the name of the one ring that it goes to; see `RingSpec.to`."""

    ring: str
    value: object


@dataclass(frozen=True, eq=False)
class StageSpec:
    """A source, a stage or a sink, as it was declared."""

    name: str
    kind: Kind
    work: Callable[..., Any]
    inputs: tuple[RingSpec, ...]
    outputs: tuple[RingSpec, ...]
    workers: int = 1
    least: int = 1  # of workers, at first; more are started when its rings fill
    batch: int = 0  # 0: one by one
    linger: float = 0.0
    on_error: OnError = "stop"
    tries: int = 1
    timeout: float | None = None
    restart: bool = True  # a worker that was killed may be replaced
    cpus: tuple[int, ...] = ()
    memory: int | None = None  # bytes of private memory that a worker may have
    headroom: int = 0  # bytes that it puts in front of a packet
    at: str | None = None  # the role of the hosts that it runs on; None: any
    ordered: bool = False  # its results go out in the order of its packets

    @property
    def takes_turns(self) -> bool:
        """Whether its workers wait for each other to keep an order; one alone keeps it anyway."""
        return self.ordered and self.workers > 1

    @property
    def makes(self) -> bool:
        """Whether `work` makes the callable, once per worker: a class, or a partial of one."""
        return isinstance(unwrapped(self.work), type)

    @property
    def in_hand(self) -> int:
        """Packets that one worker has at a time, results included."""
        taken = 0 if self.kind == "source" else max(1, self.batch)
        return taken + (max(1, self.batch) if self.outputs else 0)


@dataclass
class Declaration:
    """All of a pipeline: what `Pipeline` collects, and everything else reads."""

    name: str
    start: str
    stuck: float | None
    dead_letters: int
    pool: dict[str, Any]
    role: str | None = None  # of this host; None: all
    bridges: dict[str, dict[str, Any]] = field(
        default_factory=dict[str, "dict[str, Any]"]
    )  # by role of the other host
    exports: dict[str, str] = field(
        default_factory=dict[str, str]
    )  # of `here`: rings, and the role they go to
    imports: dict[str, str] = field(default_factory=dict[str, str])  # likewise, and the role they come from
    rings: dict[str, RingSpec] = field(default_factory=dict[str, RingSpec])
    stages: list[StageSpec] = field(default_factory=list[StageSpec])

    def resize(self, name: str, workers: int) -> None:
        """Give a stage another number of workers; ValueError if there is no such stage."""
        for number, stage in enumerate(self.stages):
            if stage.name == name:
                self.stages[number] = replace(stage, workers=workers, least=workers)
                return
        raise ValueError(
            f"pipeline {self.name!r} has no stage {name!r}, but {', '.join(stage.name for stage in self.stages)}"
        )

    def here(self) -> Declaration:
        """Return the part that runs on a host of this role: its stages, and the rings that they use."""
        if self.role is None:
            return self
        stages = [stage for stage in self.stages if stage.at in (None, self.role)]
        used = {ring.name for stage in stages for ring in (*stage.inputs, *stage.outputs)}
        rings = {name: ring for name, ring in self.rings.items() if name in used}
        return replace(
            self,
            stages=stages,
            rings=rings,
            exports=self._beyond(rings.values(), self.getters),
            imports=self._beyond(rings.values(), self.putters),
        )

    def _beyond(
        self, rings: Iterable[RingSpec], side: Callable[[RingSpec], list[StageSpec]]
    ) -> dict[str, str]:
        """Return the rings with stages of another role on that side, and the role."""
        there = {ring.name: [stage.at for stage in side(ring)] for ring in rings}
        return {
            name: role for name, roles in there.items() for role in roles[:1] if role not in (None, self.role)
        }

    def putters(self, ring: RingSpec) -> list[StageSpec]:
        """Return the stages that put into a ring."""
        return [stage for stage in self.stages if ring in stage.outputs]

    def getters(self, ring: RingSpec) -> list[StageSpec]:
        """Return the stages that get from a ring."""
        return [stage for stage in self.stages if ring in stage.inputs]

    def replaces(self, stage: StageSpec) -> bool:
        """Whether a worker that was killed is replaced. A source needs a ring to itself, which knows what it sent."""
        if stage.kind != "source" or not stage.restart:
            return stage.restart
        alone = stage.workers == 1 and len(stage.outputs) == 1
        return alone and stage.outputs[0].overflow == "block" and self.putters(stage.outputs[0]) == [stage]


def unwrapped(work: Callable[..., Any]) -> Callable[..., Any]:
    """Return what a partial calls."""
    while isinstance(work, functools.partial):
        work = work.func
    return work


def name_of(work: Callable[..., Any]) -> str:
    """Return the name that a stage has unless it is given one."""
    inner = unwrapped(work)
    return getattr(inner, "__name__", type(inner).__name__)


def takes_start(work: Callable[..., Any]) -> bool:
    """Whether a source can begin at a number by itself: it has a parameter `start`."""
    try:
        return "start" in inspect.signature(work).parameters
    except (TypeError, ValueError):
        return False


def rings_of(given: RingSpec | Sequence[RingSpec] | None, what: str) -> tuple[RingSpec, ...]:
    """Return one or several rings as a tuple; TypeError for anything else."""
    rings = () if given is None else (given,) if isinstance(given, RingSpec) else tuple(given)
    for ring in rings:
        if not isinstance(ring, RingSpec):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"{what} must be a ring of pipe.ring(), or several, not {ring!r}")
    return rings
