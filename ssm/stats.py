# SPDX-License-Identifier: Apache-2.0
"""What a pool tells of itself: snapshots, frozen."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ssm import late

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
    late_wakes: int
    """Waits for a block that lasted on although one had come free, until the waiter looked by itself. 0 as long as no
    process is killed or stands still; otherwise a wake-up was forgotten, which is a bug."""
    large_waiters: int
    """Calls that wait for several blocks at once now; they are served in turn, before those that want one."""
    shards: tuple[ShardStats, ...]
    """Its shards, in order."""

    @property
    def held(self) -> int:
        """Blocks that processes and rings hold now."""
        return self.blocks - self.free - self.cached


@dataclasses.dataclass(frozen=True, slots=True)
class ArenaStats:
    """The arena: memory for packets that are larger than all blocks."""

    bytes: int
    """Of its memory; of an arena that grows, the most that it can have."""
    backed: int
    """Of these, bytes that are reserved: all, unless the arena grows."""
    available: int
    """Bytes that it can still grow by, as far as /dev/shm has memory free now; 0 if it does not grow."""
    packets: int
    """Packets that it can have at once."""
    free: int
    """Of those, packets that it can still give, if there is room."""
    used: int
    """Bytes that packets have: those that processes and rings hold."""
    largest_free: int
    """Bytes of the largest range that no packet has."""
    recoveries: int
    """Times its lock was taken over from a dead process."""
    late_wakes: int
    """Waits for room that lasted on although there was some; see `ClassStats.late_wakes`."""
    shards: tuple[ShardStats, ...]
    """The shards of its packets, in order; a block of theirs is as large as its packet."""

    @property
    def held(self) -> int:
        """Packets that processes and rings hold now."""
        return self.packets - self.free


@dataclasses.dataclass(frozen=True, slots=True)
class RingStats:
    """One ring."""

    name: str
    """Its name."""
    id: int
    """Its number: the smallest that no other ring of the pool had when it was made."""
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
    redeliver: bool
    """Whether what a dead process had taken comes out once more."""
    redelivered: int
    """Of `gets`: packets that another process had taken before, and died."""
    overflow: str
    """What a put does that finds the ring full."""
    drops: int
    """Packets lost because it was full: with "drop" they are not among `puts`, with "overwrite" they are, but not among
    `gets`."""
    late_wakes: int
    """Waits for a packet, a place or the last task that lasted on although it was there: as `ClassStats.late_wakes`."""
    holder: int
    """Its slot in the holder table, see `Holder.id`."""
    users: int
    """Processes that have it open; the dead are among them until they are reaped."""
    unlinked: bool
    """Whether its name was taken away: it goes with the last of its users, and another ring may have the name."""
    serial: int
    """How many rings the pool had made before it: with the pool's generation, a number that no other ring ever has."""

    @property
    def label(self) -> str:
        """Its name, with a word where that may be another ring's by now."""
        return f"{self.name} (unlinked)" if self.unlinked else self.name


@dataclasses.dataclass(frozen=True, slots=True)
class ServiceStats:
    """One service: an allocator that processes share by name."""

    name: str
    """Its name."""
    kind: str
    """Which allocator it is: "ids", "addresses", "pids", "rmids" or "semaphore"; or "board", a table."""
    reclaim: bool
    """Whether what a process has goes back when that leaves or dies."""
    first: int
    """Of ids and addresses, the first one; of pids, the order; of rmids, the highest one; of a semaphore, its
    permits; of a board, its rows."""
    last: int
    """Of ids and addresses, the last one; of rmids, how long each rests, in nanoseconds; of a board, a number for its
    dtype; otherwise 0."""
    ranges: int
    """Of addresses, how many ranges can be allocated at once; of a board, bytes of a row; otherwise 0."""
    capacity: int
    """Values, or ranges, that can be allocated at once; of a board, its rows."""
    used: int
    """Those that are allocated now; of a board, 0."""
    allocs: int
    """Those that ever were."""
    recoveries: int
    """Times its lock was taken over from a dead process."""
    bytes: int
    """What it takes of the pool's metadata area."""

    @property
    def description(self) -> str:
        """The call that opens it, without its name."""
        return self.describe(self.kind, self.first, self.last, self.ranges, self.reclaim)

    @staticmethod
    def describe(kind: str, first: int, last: int, ranges: int, reclaim: bool) -> str:
        """Return the call that opens a service with these parameters, without its name."""
        parameters = {
            "ids": f"{first}, {last}",
            "addresses": f"{first:#x}, {last - first + 1:#x}, ranges={ranges}",
            "pids": f"order={first}",
            "rmids": f"{first}, min_free_time_ns={last}",
            "semaphore": f"{first}",
            "board": f"dtype #{last:016x} of {ranges} bytes, rows={first}",
        }[kind]
        plain = kind in ("semaphore", "board")
        return f"{kind}({parameters})" if plain else f"{kind}({parameters}, reclaim={reclaim})"


@dataclasses.dataclass(frozen=True, slots=True)
class Owner:
    """The process that allocated a value of a service."""

    id: int
    """Its slot in the holder table; if it is gone, the slot may be another's by now."""
    pid: int
    """Process id, as its own PID namespace has it; 0: not known any more, the slot has been used again."""
    name: str
    """The process's label, see `Pool.create`; empty: not known any more."""
    alive: bool
    """Whether it is still attached."""


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
    arena: ArenaStats | None
    """Its arena, if it has one."""
    rings: tuple[RingStats, ...]
    """Its rings, in the order in which they were made."""
    services: tuple[ServiceStats, ...]
    """Its services, in the order of their creation."""
    collections: int
    """Times that this process, through this Pool, ran Python's garbage collector since the pool was exhausted: packets
    in reference cycles of dead objects keep their blocks until it runs."""
    copied: int
    """Objects that this process, through this Pool, got out of queues with arrays that are copies, since too little
    memory was free; see `Queue`, copy=."""

    def to_dict(self) -> dict[str, Any]:
        """Return the statistics as plain dicts, tuples, numbers and strings, fit for json."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        """Return the text that `ssm stat` prints."""
        return "\n".join(late.load("ssm.stats_text").lines(self))

    def _repr_html_(self) -> str:
        """Return the statistics as tables, for a notebook."""
        return str(late.load("ssm.stats_text").as_html(self))


@dataclasses.dataclass(frozen=True, slots=True)
class Holder:
    """What can keep blocks: an attached process, or a ring."""

    id: int
    """Its slot in the holder table."""
    kind: Literal["process", "ring"]
    """What it is."""
    name: str
    """The process's label, see `Pool.create`; or the ring's name."""
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
    age_ns: int
    """Nanoseconds since the process attached; 0 for a ring."""


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """What one process uses of the pool, under its RMID."""

    rmid: int
    """Resource monitoring id: no other process gets it within 2 ms of the end of this one; 0 for none."""
    name: str
    """The process's label, see `Pool.create`."""
    pid: int
    """Process id, as its own PID namespace has it."""
    id: int
    """Its slot in the holder table, see `Holder.id`."""
    alive: bool
    """Whether it lives; the dead are told of until they are reaped."""
    blocks: dict[int, int]
    """Block size in bytes -> blocks that it holds; cached ones are free."""
    peak: int
    """The most bytes that it has held at once, block sizes added up."""
    arena_packets: int
    """Packets of the arena that it holds."""
    arena_bytes: int
    """What they take of the arena."""

    @property
    def bytes(self) -> dict[int, int]:
        """Block size in bytes -> bytes that it holds."""
        return {size: size * count for size, count in self.blocks.items()}

    @property
    def total(self) -> int:
        """Bytes that it holds, block sizes added up."""
        return sum(self.bytes.values()) + self.arena_bytes


class Reaped(NamedTuple):
    """What `Pool.reap` took back."""

    processes: int
    """Dead processes that were found."""
    blocks: int
    """Blocks that they held, as `Holder.blocks` counts them: without those in their private caches, which were free."""
