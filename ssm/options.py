# SPDX-License-Identifier: Apache-2.0
"""What pools and rings are made with: arguments looked at, defaults filled in, the core's flags in words and back."""

from __future__ import annotations

import errno
import operator
import os
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, Unpack

from ssm import _core, names
from ssm.acl import Acl
from ssm.stats import RingStats

if TYPE_CHECKING:
    from collections.abc import Mapping

_U32_MAX = 2**32 - 1
_ROOM_FOR_RINGS = 1 << 20  # bytes of the metadata area, unless asked otherwise:
_ROOM_PER_BLOCK = 2 * 24  # with these, two rings can redeliver
_BLOCK_STEP = 64  # a cache line
_ARENA_PAGE = 4096  # an arena is a multiple of it,
_GROW_UNIT = 65536  # one that grows, of this,
_ARENA_PACKETS_HIGH = 4096  # has so many packets at most, unless asked otherwise


# ---- pools ------------------------------------------------------------------------------------------


class PoolArguments(TypedDict, total=False):
    """The keyword arguments of `Pool.create` that stand with the pool."""

    classes: Mapping[int, int] | None
    sizes: Mapping[int, int] | None
    shards: int | None
    headroom: int | None
    tailroom: int | None
    cache: int | None
    holders: int | None
    metadata: int | None
    arena: int
    grow: int
    arena_packets: int | None
    ephemeral: bool


class CreateArguments(PoolArguments, total=False):
    """All of them, less `exist_ok`."""

    mode: int
    uid: int | None
    gid: int | None
    hugepages: bool
    prefault: bool
    mlock: bool
    quota: int | None
    label: str | None


class PoolOptions(NamedTuple):
    """The parameters that a pool is made with, defaults filled in and looked at."""

    classes: tuple[tuple[int, int], ...]  # (block size, blocks), smallest first
    shards: int
    headroom: int
    tailroom: int
    cache: int
    holders: int
    metadata: int
    arena: int
    grow: int  # 0: the arena does not
    arena_packets: int  # 0: the build's choice
    ephemeral: bool

    @property
    def payload(self) -> int:
        """Bytes of all blocks, and of the arena, as they are reserved when the pool is made."""
        return sum(size * count for size, count in self.classes) + self.arena


class Creation(NamedTuple):
    """All that a pool is made with, looked at."""

    options: PoolOptions
    flags: int
    mode: int
    uid: int  # -1: this process's
    gid: int
    quota: int | None
    label: str | None


def number(what: str, value: int | None, default: int, low: int, high: int) -> int:
    """Return the value, or the default for None. ValueError: it is out of bounds."""
    given = default if value is None else operator.index(value)
    if not low <= given <= high:
        raise ValueError(f"{what} must be {low} .. {high}, not {given}")
    return given


def quota_of(quota: int | None) -> int | None:
    """Bytes; None: no limit."""
    return None if quota is None else number("quota", quota, 0, 0, 2**64 - 1)


def _pairs(what: str, mapping: Mapping[int, int], meaning: str) -> list[tuple[int, int]]:
    try:
        items = mapping.items()
    except AttributeError:
        raise TypeError(f"{what} must map {meaning}, as in {{256: 1024}}, not {mapping!r}") from None
    return sorted((operator.index(size), operator.index(count)) for size, count in items)


def _classes(classes: Mapping[int, int]) -> tuple[tuple[int, int], ...]:
    pairs = tuple(_pairs("classes", classes, "block sizes to numbers of blocks"))
    if not 1 <= len(pairs) <= _core.CLASS_MAX:
        raise ValueError(f"classes must have 1 .. {_core.CLASS_MAX} block sizes, not {len(pairs)}")
    for size, count in pairs:
        number("a block size in classes", size, 0, 64, 2**62)
        number(f"the number of blocks of {size} bytes in classes", count, 0, 1, 2**31)
    return pairs


def _classes_for(sizes: Mapping[int, int], overhead: int) -> dict[int, int]:
    """Block sizes for these payloads; two that need blocks of one size share a class."""
    classes: dict[int, int] = {}
    for size, count in _pairs("sizes", sizes, "payload sizes to numbers of packets"):
        number("a payload size in sizes", size, 0, 0, 2**62 - overhead - _BLOCK_STEP)
        number(f"the number of packets of {size} bytes in sizes", count, 0, 1, 2**31)
        block = max(_round_up(size + overhead, _BLOCK_STEP), _BLOCK_STEP)
        classes[block] = classes.get(block, 0) + count
    return classes


def _round_up(size: int, to: int) -> int:
    return -(-size // to) * to


def _arena(arena: int, grow: int, packets: int | None, largest: int) -> tuple[int, int, int]:
    """Bytes reserved, bytes that it grows to, and how many packets they can be at once; 0: the build's choice."""
    size, most = number("arena", arena, 0, 0, 2**62), number("grow", grow, 0, 0, 2**62)
    if most > _round_up(size, _GROW_UNIT):
        size, most = _round_up(size, _GROW_UNIT), _round_up(most, _GROW_UNIT)
    else:
        size, most = _round_up(max(size, most), _ARENA_PAGE), 0
    if size == most == 0 and packets is not None:
        raise ValueError(
            f"arena_packets={packets} is of a pool with an arena: give its bytes, too (arena=, grow=)"
        )
    if 0 < max(size, most) <= largest:
        raise ValueError(
            f"arena must be larger than the largest block size in classes, {largest} bytes, not {max(arena, grow)}: "
            "only packets that no block is large enough for come from it"
        )
    return (
        size,
        most,
        0 if packets is None else number("arena_packets", packets, 0, 1, _core.ARENA_PACKETS_MAX),
    )


def pool_options(
    classes: Mapping[int, int] | None = None,
    sizes: Mapping[int, int] | None = None,
    shards: int | None = None,
    headroom: int | None = None,
    tailroom: int | None = None,
    cache: int | None = None,
    holders: int | None = None,
    metadata: int | None = None,
    arena: int = 0,
    grow: int = 0,
    arena_packets: int | None = None,
    ephemeral: bool = False,
) -> PoolOptions:
    """None stands for the build's choice. TypeError, ValueError: it cannot be."""
    build = _core.defaults()
    headroom = number("headroom", headroom, build["headroom"], 0, _U32_MAX)
    tailroom = number("tailroom", tailroom, build["tailroom"], 0, _U32_MAX)
    if sizes is not None:
        if classes is not None:
            raise ValueError(
                f"give classes={classes!r}, of blocks, or sizes={sizes!r}, of payloads, not both"
            )
        classes = _classes_for(sizes, headroom + tailroom)
    pairs = _classes(build["classes"] if classes is None else classes)
    arena, grow, packets = _arena(arena, grow, arena_packets, pairs[-1][0])
    most = _core.ARENA_PACKETS_MAX if grow else _ARENA_PACKETS_HIGH if arena else 0
    blocks = sum(count for _, count in pairs) + (packets or most)
    room = max(build["metadata_bytes"], _ROOM_FOR_RINGS + _ROOM_PER_BLOCK * blocks)
    return PoolOptions(
        classes=pairs,
        shards=number("shards", shards, build["shards"], 1, _core.SHARD_MAX),
        headroom=headroom,
        tailroom=tailroom,
        cache=number("cache", cache, build["cache"], 0, _core.CACHE_MAX),
        holders=number("holders", holders, build["holders"], 1, _core.HOLDER_MAX),
        metadata=number("metadata", metadata, room, 0, 2**62),
        arena=arena,
        grow=grow,
        arena_packets=packets,
        ephemeral=bool(ephemeral),
    )


def attach_flags(
    *, ephemeral: bool = False, readonly: bool = False, hugepages: bool, prefault: bool, mlock: bool
) -> int:
    """Of creating and of attaching."""
    return (
        (_core.EPHEMERAL if ephemeral else 0)
        | (_core.READONLY if readonly else 0)
        | (_core.HUGEPAGES if hugepages else 0)
        | (_core.PREFAULT if prefault else 0)
        | (_core.MLOCK if mlock else 0)
    )


def creation(
    *,
    mode: int = 0o600,
    uid: int | None = None,
    gid: int | None = None,
    hugepages: bool = False,
    prefault: bool = False,
    mlock: bool = False,
    quota: int | None = None,
    label: str | None = None,
    **parameters: Unpack[PoolArguments],
) -> Creation:
    """TypeError, ValueError: it cannot be."""
    options = pool_options(**parameters)
    return Creation(
        options,
        attach_flags(ephemeral=options.ephemeral, hugepages=hugepages, prefault=prefault, mlock=mlock),
        number("mode", mode, 0, 0, 0o777),
        -1 if uid is None else number("uid", uid, 0, 0, _U32_MAX - 1),
        -1 if gid is None else number("gid", gid, 0, 0, _U32_MAX - 1),
        quota_of(quota),
        label,
    )


def explain(error: OSError, name: str, asked: Creation) -> Exception:
    """Name the remedy, where the system's answer does not."""
    if error.errno in {errno.EINVAL, errno.EOVERFLOW}:
        return ValueError(f"these parameters are out of the bounds of a pool: {asked.options}")
    if error.errno == errno.ENOSPC:
        free, size = names.free_bytes()
        return OSError(
            errno.ENOSPC,
            f"No space for the {asked.options.payload:,} bytes of payload, and its metadata: {names.DIRECTORY} has "
            f"{free:,} bytes free of {size:,}; take fewer or smaller blocks (classes=, arena=), or enlarge it "
            f"(mount -o remount,size=... {names.DIRECTORY})",
            name,
        )
    if error.errno in {errno.EFBIG, errno.ENOMEM} and asked.options.grow and not asked.flags & _core.MLOCK:
        limit = "have in one file (ulimit -f)" if error.errno == errno.EFBIG else "map (ulimit -v)"
        text = f"an arena that may grow to {asked.options.grow:,} bytes is more than this process may {limit}"
        return OSError(error.errno, f"{text}; take a smaller grow=, or raise the limit", name)
    if error.errno == errno.EROFS:
        text = f"{names.DIRECTORY} is mounted read-only; mount it writable (mount -o remount,rw {names.DIRECTORY})"
        return OSError(errno.EROFS, text, name)
    if error.errno == errno.EACCES:
        text = f"this user may not write {names.DIRECTORY}, where POSIX shared memory is; its mode is 1777 as a rule"
        return PermissionError(errno.EACCES, text, name)
    return error


def explain_owner(error: OSError, name: str, asked: Creation) -> Exception:
    """Name the remedy for what fails when the pool gets its owner, mode and name."""
    if error.errno in {errno.EPERM, errno.EINVAL} and (asked.uid, asked.gid) != (-1, -1):
        owner = ", ".join(f"{k}={v}" for k, v in (("uid", asked.uid), ("gid", asked.gid)) if v != -1)
        text = (
            f"this process (user {os.geteuid()}) cannot give a pool to {owner}: to another user only root can "
            "(CAP_CHOWN and CAP_FOWNER), to a group its members too; in a user namespace the id has to be mapped"
        )
        return PermissionError(errno.EPERM, text, name)
    return explain(error, name, asked)


# ---- rings ------------------------------------------------------------------------------------------


def ring_stats(*, flags: int, acl: int, **figures: Any) -> RingStats:
    """From what the core answers, flags in words."""
    return RingStats(
        **figures,
        producers="one" if flags & _core.ONE_PRODUCER else "many",
        consumers="one" if flags & _core.ONE_CONSUMER else "many",
        redeliver=bool(flags & _core.REDELIVER),
        overflow=_core.overflow_words(flags),
        acl=Acl(acl),
    )
