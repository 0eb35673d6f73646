# SPDX-License-Identifier: Apache-2.0
"""What a pool tells of itself: snapshots, frozen."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from ssm.acl import Acl


@dataclasses.dataclass(frozen=True, slots=True)
class ShardStats:
    """One shard: a free list of one size class."""

    free: int
    """Blocks on its list now."""
    allocs: int
    """Blocks that ever left the list."""
    frees: int
    """Blocks that ever came back to it."""
    steals: int
    """Of `allocs`: taken by processes whose own shard is another."""
    recoveries: int
    """Times its lock was taken over from a dead process."""
    waiters: int
    """Processes that wait here for a block now."""


@dataclasses.dataclass(frozen=True, slots=True)
class ClassStats:
    """One size class."""

    block_size: int
    """Bytes of each block, headroom and tailroom included."""
    blocks: int
    """Blocks of this size in the pool."""
    free: int
    """Blocks on the lists of all shards now."""
    cached: int
    """Free blocks in the private caches of processes now."""
    shards: tuple[ShardStats, ...]
    """Its shards, in order."""

    @property
    def held(self) -> int:
        """Blocks that processes and rings hold now."""
        return self.blocks - self.free - self.cached


@dataclasses.dataclass(frozen=True, slots=True)
class RingStats:
    """One ring."""

    name: str
    """Its name."""
    id: int
    """Its holder id, see `Holder.id`."""
    capacity: int
    """Packets that it takes."""
    producers: Literal["many", "one"]
    """How many processes may put at a time."""
    consumers: Literal["many", "one"]
    """How many processes may get at a time."""
    acl: Acl
    """Its flags now."""
    depth: int
    """Packets queued now."""
    high_water: int
    """The most that were ever queued."""
    puts: int
    """Packets ever put."""
    gets: int
    """Packets ever taken out."""
    recoveries: int
    """Times one of its sides was taken over from a dead process."""


@dataclasses.dataclass(frozen=True, slots=True)
class PoolStats:
    """A pool; the parts are read one after the other, while others go on working."""

    name: str
    """Its POSIX name."""
    size: int
    """Bytes of shared memory."""
    generation: int
    """Random, chosen at creation."""
    classes: tuple[ClassStats, ...]
    """Its size classes, smallest first."""
    rings: tuple[RingStats, ...]
    """Its rings, in the order of their ids."""

    def to_dict(self) -> dict[str, Any]:
        """Return the same as plain dicts, tuples, numbers and strings, fit for json."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, slots=True)
class Holder:
    """Whoever can keep blocks: an attached process, or a ring."""

    id: int
    """Its slot in the holder table."""
    kind: Literal["process", "ring"]
    """What it is."""
    name: str
    """The process's name as the kernel has it, or the ring's."""
    pid: int
    """Process id, as its own PID namespace has it; 0 for a ring."""
    alive: bool
    """Whether the process lives; True for a ring."""
    rmid: int
    """Resource monitoring id; 0 for none."""
    blocks: int
    """Blocks that it holds; cached ones are free."""
    bytes: int
    """Their block sizes added up."""


class Reaped(NamedTuple):
    """What `Pool.reap` took back."""

    processes: int
    """Dead processes that were found."""
    blocks: int
    """Blocks that came free."""
