# SPDX-License-Identifier: Apache-2.0
"""What a declaration comes to: what cannot run is refused, and the sizes of the pool and its rings follow."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ssm import _core
from ssm.pipeline import board, bulletin, crossing
from ssm.pipeline.declared import DEAD_LETTERS, Declaration, RingSpec, StageSpec
from ssm.pipeline.errors import PipelineRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

CAPACITY = 256  # packets, of a ring that does not say
SIZE = 2048  # bytes of payload, where no ring says
SPARE = 8  # holders for those who look on, and blocks beyond what can be under way
OVERHEAD = 512  # bytes of a message around the object that a ring says is so large
WINDOW = 8  # results that a worker of an ordered stage may hold, if there are blocks for so many
_WINDOW_PART = 4  # all of them hold so much of what there is room for: a quarter
_ARENA_PACKETS_MIN = 1024
_GROW_PART = 2  # the arena may take so much of /dev/shm: a half
_METADATA = 1 << 20
_TABLE_ENTRY = 16  # bytes of a redelivering ring per block
_PAGE = 4096


@dataclass(frozen=True)
class Plan:
    """A declaration that can run."""

    here: Declaration  # what runs on this host
    pool: dict[str, Any]  # arguments of Pool.create
    rings: dict[str, dict[str, Any]]  # of Pool.ring, by name
    blocks: int  # that can be under way at once
    windows: dict[str, int]  # by ordered stage: results, or batches, that a worker may hold until their turn


def make(declared: Declaration) -> Plan:
    """Check a declaration and return what it needs.

    Raises
    ------
    PipelineRefused
        It cannot run; the sentence says why and what to change.
    """
    _refuse_gaps(declared)
    _refuse_circles(declared)
    _refuse_options(declared)
    here = declared.here()
    _refuse_hosts(declared, here)
    _refuse_processors(here)
    _refuse_order(here)
    capacities = _capacities(here)
    _refuse_large_batches(here, capacities)
    blocks = _under_way(here, capacities)
    pool = _pool(declared, here, capacities, blocks)
    rings = {ring.name: _ring(here, ring, capacities) for ring in here.rings.values()}
    return Plan(here, pool, rings, blocks, _windows(here))


# ---- what cannot run --------------------------------------------------------------------------------


def _refuse_gaps(declared: Declaration) -> None:
    if not any(stage.kind == "source" for stage in declared.stages):
        raise PipelineRefused(
            f"pipeline {declared.name!r} has no source: nothing would begin; add @pipe.source(ring)"
        )
    for ring in declared.rings.values():
        if not declared.putters(ring):
            raise PipelineRefused(
                f"no stage puts into ring {ring.name!r}: add a source or a stage that does, or remove it"
            )
        if not declared.getters(ring):
            raise PipelineRefused(
                f"no stage reads ring {ring.name!r}: its putters would wait for ever; add "
                f"@pipe.sink({ring.name}), or remove it"
            )
    for stage in declared.stages:
        for ring in (*stage.inputs, *stage.outputs):
            if declared.rings.get(ring.name) is not ring:
                raise PipelineRefused(
                    f"stage {stage.name!r} uses ring {ring.name!r} of another pipeline: make it with "
                    f"pipe.ring() of this one"
                )


def _refuse_circles(declared: Declaration) -> None:
    def walk(ring: RingSpec, way: tuple[RingSpec, ...]) -> None:
        if ring in way:
            circle = " -> ".join(each.name for each in (*way[way.index(ring) :], ring))
            raise PipelineRefused(
                f"rings in a circle: {circle}; when all of them are full nothing moves, and none is ever done. Send "
                "what has to come again through a stage's own loop"
            )
        for stage in declared.getters(ring):
            for after in stage.outputs:
                walk(after, (*way, ring))

    for ring in declared.rings.values():
        walk(ring, ())


def _refuse_options(declared: Declaration) -> None:
    for ring in declared.rings.values():
        if ring.objects and declared.pool.get("mode", 0o600) & 0o022:
            raise PipelineRefused(
                f"ring {ring.name!r} has objects=True, and mode={declared.pool['mode']:#o} lets other users "
                f"write into the "
                "pool: what they write would be unpickled, which runs any code. Take a mode without 0o022"
            )


def _refuse_processors(declared: Declaration) -> None:
    here = os.sched_getaffinity(0)
    for stage in declared.stages:
        if not here.issuperset(stage.cpus):
            raise PipelineRefused(
                f"stage {stage.name!r} has cpus={list(stage.cpus)}, this process may use {sorted(here)}"
            )


def _refuse_hosts(declared: Declaration, here: Declaration) -> None:
    """Refuse roles that do not fit together, and rings between hosts without a bridge."""
    roles = {stage.at for stage in declared.stages}
    if declared.role is None:
        return
    if declared.role not in roles:
        there = ", ".join(sorted(repr(role) for role in roles if role)) or "none"
        raise PipelineRefused(f"no stage has the role {declared.role!r}: roles are {there}")
    if len(here.stages) == len(declared.stages):
        return
    for stage in declared.stages:
        if stage.at is None:
            raise PipelineRefused(
                f'stage {stage.name!r} has no role, and others have: say where it runs, by at="{declared.role}", say'
            )
    for ring in declared.rings.values():
        for side, stages in (("filled", declared.putters(ring)), ("read", declared.getters(ring))):
            if len({stage.at for stage in stages}) > 1:
                raise PipelineRefused(
                    f"ring {ring.name!r} is {side} by hosts of several roles: use a ring for each role"
                )
    for name, role in (here.exports | here.imports).items():
        if role not in declared.bridges:
            raise PipelineRefused(
                f"ring {name!r} goes between {declared.role!r} and {role!r}: say how that host is reached, by "
                f"--bridge {role}=FILE, or pipe.bridge({role!r}, ...)"
            )
        _refuse_crossing(declared, here.rings[name], declared.bridges[role])


def _refuse_crossing(declared: Declaration, ring: RingSpec, settings: dict[str, Any]) -> None:
    if not ring.redeliver or ring.overflow != "block":
        raise PipelineRefused(
            f"ring {ring.name!r} goes to another host, where a loss would not be seen: it needs redeliver=True and "
            'overflow="block"'
        )
    if ring.objects and settings.get("insecure"):
        raise PipelineRefused(
            f"ring {ring.name!r} has objects=True, and its bridge is insecure: what anybody on the network sends would "
            f"be unpickled, which runs any code. Give the bridge keys, or the ring a dtype"
        )
    crossing.settings_of(declared.role or "", settings)


def _refuse_order(declared: Declaration) -> None:
    """Refuse an order that no ring knows: the positions of a stage's packets are those of its one redelivering ring."""
    for stage in declared.stages:
        if not stage.ordered:
            continue
        who = f"stage {stage.name!r} has ordered=True"
        ring, *more = stage.inputs
        if more:
            raise PipelineRefused(
                f"{who} and {len(stage.inputs)} inputs, between which there is no order: give it one ring"
            )
        if not ring.redeliver:
            raise PipelineRefused(
                f"{who}, and ring {ring.name!r} has redeliver=False, so its packets have no positions: leave that out"
            )
        others = [each.name for each in declared.getters(ring) if each is not stage]
        if others:
            raise PipelineRefused(
                f"{who}, and ring {ring.name!r} is read by {others[0]!r} as well, which keeps no order: give each "
                "stage a ring of its own"
            )


def _refuse_large_batches(declared: Declaration, capacities: dict[str, int]) -> None:
    """Refuse batches that their ring cannot take: a batch is put in one commit."""
    for stage in declared.stages:
        for ring in stage.outputs:
            if stage.batch > capacities[ring.name]:
                raise PipelineRefused(
                    f"stage {stage.name!r} has batch={stage.batch}, and ring {ring.name!r} takes "
                    f"{capacities[ring.name]} packets: a batch is put as a whole. Give the ring a larger capacity=, or "
                    "the pool more blocks"
                )


# ---- sizes ------------------------------------------------------------------------------------------


def _windows(declared: Declaration) -> dict[str, int]:
    """Return how many results a worker of each ordered stage may hold; all together hold a share of the blocks."""
    ordered = [stage for stage in declared.stages if stage.takes_turns]
    blocks = _blocks_given(declared) or sum(ring.capacity or CAPACITY for ring in declared.rings.values())
    each = sum(stage.workers * stage.in_hand for stage in ordered)
    return {stage.name: min(WINDOW, max(1, blocks // (_WINDOW_PART * each))) for stage in ordered}


def _hands(declared: Declaration) -> int:
    """Return the packets that workers have at a time, and those that may lie among the dead letters."""
    windows = _windows(declared)
    return declared.dead_letters + sum(
        stage.workers * stage.in_hand * (1 + windows.get(stage.name, 0)) for stage in declared.stages
    )


def _blocks_given(declared: Declaration) -> int | None:
    """Return the blocks that the caller asks for; None: that is for us to say, or the arena has room for more."""
    given: dict[int, int] | None = declared.pool.get("classes") or declared.pool.get("sizes")
    if given is None or declared.pool.get("grow") or declared.pool.get("arena"):
        return None
    return sum(given.values())


def _capacities(declared: Declaration) -> dict[str, int]:
    """Return the capacity of each ring; those that do not say share the blocks that the caller gave."""
    open_ones = [ring for ring in declared.rings.values() if ring.capacity is None]
    default, blocks = CAPACITY, _blocks_given(declared)
    if blocks is not None and open_ones:
        taken = sum(ring.capacity or 0 for ring in declared.rings.values()) + _hands(declared)
        default = min(CAPACITY, max(1, (blocks - taken - 1) // len(open_ones)))
    if blocks is not None:
        return {ring.name: ring.capacity or default for ring in declared.rings.values()}
    return {
        ring.name: ring.capacity or max(default, _batch(declared, ring)) for ring in declared.rings.values()
    }


def _batch(declared: Declaration, ring: RingSpec) -> int:
    """Return the largest batch that is put into a ring or taken out."""
    return max(stage.batch for stage in (*declared.putters(ring), *declared.getters(ring)))


def _under_way(declared: Declaration, capacities: dict[str, int]) -> int:
    """Return how many packets there can be at once; refuse a pool that has not more blocks than that."""
    between = sum(_between(declared, name, capacities) for name in capacities)
    need, blocks = sum(capacities.values()) + _hands(declared) + between, _blocks_given(declared)
    if blocks is not None and blocks <= need:
        raise PipelineRefused(
            f"{blocks} blocks are too few: rings take {sum(capacities.values())}, workers "
            f"{_hands(declared) - declared.dead_letters} (workers x batch"
            f"{', and results that wait for their turn' if _windows(declared) else ''}), dead letters "
            f"{declared.dead_letters}{f', bridges {between}' * bool(between)}, together {need}. "
            "When all are under way, a stage that needs one for its result waits for itself. Give the pool more blocks "
            "(classes=, sizes=, grow=), or smaller rings (capacity=)"
        )
    return need


def _between(declared: Declaration, name: str, capacities: dict[str, int]) -> int:
    """Return the packets of a ring that a bridge may have: not acknowledged, or in its inbox and in hand."""
    window = crossing.window(capacities[name])
    return window * (name in declared.exports) + (window + capacities[name]) * (name in declared.imports)


def _payload(ring: RingSpec) -> int | None:
    if ring.size is not None:
        return ring.size + (OVERHEAD if ring.objects else 0)
    return None if ring.dtype is None else np.dtype(ring.dtype).itemsize


def _downstream(declared: Declaration, ring: RingSpec) -> Iterator[RingSpec]:
    """Yield the ring and those behind it: a packet of it may go through all of them."""
    yield ring
    for stage in declared.getters(ring):
        for after in stage.outputs:
            yield from _downstream(declared, after)


def _sizes(declared: Declaration, here: Declaration, capacities: dict[str, int]) -> dict[int, int]:
    """Return payload sizes, and how many packets of each may be under way; a packet may come from another host."""
    rings: dict[int, set[str]] = {}
    for ring in declared.rings.values():
        size = _payload(ring)
        if size is not None:
            names = {each.name for each in _downstream(declared, ring)} & here.rings.keys()
            rings.setdefault(max(1, size), set()).update(names)
    spare = _hands(here) + SPARE
    room = {name: capacity + _between(here, name, capacities) for name, capacity in capacities.items()}
    return {size: sum(room[name] for name in names) + spare for size, names in rings.items() if names} or {
        SIZE: sum(room.values()) + spare
    }


def _headroom(declared: Declaration) -> int:
    """Return the bytes that stages put in front of a packet on its longest way."""

    def behind(ring: RingSpec) -> int:
        return max(
            (stage.headroom + max(map(behind, stage.outputs), default=0) for stage in declared.getters(ring)),
            default=0,
        )

    sources = [stage for stage in declared.stages if stage.kind == "source"]
    return max(stage.headroom + max(map(behind, stage.outputs), default=0) for stage in sources)


def _pool(
    whole: Declaration, declared: Declaration, capacities: dict[str, int], blocks: int
) -> dict[str, Any]:
    """Return the arguments of the pool: those of the caller, and what follows for the others."""
    chosen: dict[str, Any] = {}
    if any(stage.headroom for stage in whole.stages):
        chosen["headroom"] = _headroom(whole)
    if not declared.pool.keys() & {"classes", "sizes"}:
        chosen["sizes"] = _sizes(whole, declared, capacities)
        if not declared.pool.keys() & {"arena", "grow"}:
            chosen |= _arena(blocks)
    workers = sum(stage.workers for stage in declared.stages)
    between = len(declared.exports) + len(declared.imports)
    chosen["holders"] = max(
        _core.defaults()["holders"], 2 * workers + len(declared.rings) + 2 * between + SPARE
    )
    pool = chosen | declared.pool
    tables = sum(ring.redeliver for ring in declared.rings.values()) + len(declared.imports)
    counted: dict[int, int] = pool.get("classes") or pool.get("sizes") or {}
    packets = sum(counted.values()) + (
        pool.get("arena_packets") or (1 << 16 if pool.get("grow") else 1 << 12)
    )
    inboxes = sum(crossing.window(capacities[name]) for name in declared.imports)
    slots = 64 * (sum(capacities.values()) + inboxes) + _PAGE * (len(capacities) + len(declared.imports) + 1)
    words = sum(board.size(stage.workers) for stage in declared.stages)
    boards = 8 * words + bulletin.SIZE + (crossing.METADATA if between else 0)
    pool.setdefault("metadata", 2 * _METADATA + (tables + 1) * _TABLE_ENTRY * packets + slots + boards)
    return pool


def _arena(blocks: int) -> dict[str, int]:
    """Return an arena for packets that are larger than was said, which has no memory until it needs some."""
    info = os.statvfs("/dev/shm")
    grow = info.f_bavail * info.f_frsize // _GROW_PART
    limit = min(1 << 16, max(_ARENA_PACKETS_MIN, 2 * blocks))
    return {"grow": grow, "arena_packets": limit} if grow > 1 << 20 else {}


def _ring(declared: Declaration, ring: RingSpec, capacities: dict[str, int]) -> dict[str, Any]:
    """Return the arguments of a ring. A side with one worker needs no lock."""

    def side(stages: list[StageSpec]) -> str:
        return "one" if sum(stage.workers for stage in stages) == 1 and ring.overflow == "block" else "many"

    return {
        "capacity": capacities[ring.name],
        "producers": "one" if ring.name in declared.imports else side(declared.putters(ring)),
        "consumers": "one" if ring.name in declared.exports else side(declared.getters(ring)),
        "redeliver": ring.redeliver,
        "overflow": ring.overflow,
        "dtype": ring.dtype,
        "peers": False,  # the supervisor starts workers again, and shuts the rings down
    }


def dead_letter_ring(declared: Declaration) -> tuple[str, int]:
    """Return the name and the capacity of the ring for dead letters."""
    return DEAD_LETTERS, max(1, declared.dead_letters)
