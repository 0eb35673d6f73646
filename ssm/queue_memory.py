# SPDX-License-Identifier: Apache-2.0
# pyright: reportPrivateUsage=false
"""The memory of a queue that has a pool of its own: in which blocks it is, and how much it may be.

By default the pool grows: small blocks, a few of each, and an arena for all that finds none, up to `max_memory`. So
the queue holds what the machine's memory holds, and takes none of it before it is needed. `like=` and `itemsize=` have
blocks of their own in front of it; `memory=` and `classes=` are all that there is, reserved at once.
"""

from __future__ import annotations

import errno
import math
import operator
import os
import resource
from typing import TYPE_CHECKING, Any, cast

from ssm import _core, message, names
from ssm.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHARES = {256: 1, 1024: 1, 4352: 2, 66560: 4}  # of fixed memory: block size -> sixteenths
_SMALL = {256: 64, 4096: 16}  # for what is put beside the objects that a queue is made for: None, a dict
_HELD = 8  # objects that consumers look at, while maxsize others are queued
_PAGE = 4096
_ITEM_MAX = 1 << 40
_MEMORY = 16 << 20  # of blocks for one kind of objects, unless asked otherwise

# Four sizes from each power of two to the next; a page of each, or four blocks.
_STEPS = [64, 128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280, 1536, 1792, 2048]
_GROWING = {size: max(4, _PAGE // size) for size in _STEPS}
_FLOOR = 64 << 10  # of the arena, reserved at once
_PACKETS = 65536  # that the arena can have at once: so many small objects are queued, at most
_MAX_LOW = 1 << 20  # where the process may not have more, it gets no queue
_SMALL_SHM = 8  # /dev/shm is small if it has less than one of so many parts of the machine's memory
_SHARE = 2  # of the machine's memory, or of /dev/shm: one of so many parts
_UNLIMITED = 1 << 16  # places of a queue for which no maxsize was asked
_RINGS = (1 << 20) + (128 << 10)  # two of those, with what belongs to them


def blocks(memory: int) -> dict[int, int]:
    """Divide fixed memory into blocks; the largest are such that one object may have all of them."""
    parts = {size: max(1, memory * share // 16 // size) for size, share in _SHARES.items()}
    half = memory // 2
    large = max(message.BLOCK_LARGE, -(-half // _core.CHAIN_MAX))
    parts[large] = max(1, half // large)
    return parts


def blocks_for(like: object, itemsize: int | None, maxsize: int, memory: int | None) -> dict[int, int]:
    """Return blocks in which each object fits whole: one like that, or one of so many bytes."""
    if itemsize is not None and not 1 <= operator.index(itemsize) <= _ITEM_MAX:
        raise ValueError(f"itemsize= is 1 .. 2**40 bytes of the largest object, not {itemsize!r}")
    size = itemsize or 0
    if like is not None:
        writer = message.Writer()
        writer.dump(like)
        size = max(size, sum(message.size_of(writer.lengths(), _ITEM_MAX)))
    block = -(-(size + _PAGE) // _PAGE) * _PAGE  # a page more: pickles of equal objects differ a little
    count = maxsize + _HELD if maxsize > 0 else max(2 * _HELD, (memory or _MEMORY) // block)
    return {**_SMALL, block: count + _SMALL.get(block, 0)}


def _machine() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _shm() -> int:
    """Bytes of /dev/shm, at most those of the machine; 0: there is none."""
    try:
        _, shm = names.free_bytes()
    except FileNotFoundError:
        return 0
    return min(shm or _machine(), _machine())


def _most(apart: bool) -> int:
    """Half of what the machine has, or /dev/shm, or the process may have in one file."""
    most = (_machine() if apart else _shm()) // _SHARE
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return max(_MAX_LOW, most if limit == resource.RLIM_INFINITY else min(most, limit // _SHARE))


def _open_growing(
    name: str | None, classes: Mapping[int, int], most: int, reserved: int, places: int
) -> Pool:
    """Open or make a pool that grows. Where the process may not map so much, half of it will do, and so on.

    Where /dev/shm is small, a queue without a name does without it.
    """
    apart = name is None and _shm() < _machine() // _SMALL_SHM
    make: Any = Pool._create_apart if apart else Pool.open
    most = most or _most(apart)
    while True:
        try:
            return cast(
                "Pool",
                make(
                    name or new_name(),
                    classes=classes,
                    shards=1,
                    cache=8,
                    headroom=0,
                    tailroom=0,
                    arena=min(reserved, most),
                    grow=max(most, max(classes) + 1),
                    arena_packets=_PACKETS,
                    metadata=_RINGS + 16 * places + 32 * (sum(classes.values()) + _PACKETS),
                    ephemeral=True,
                ),
            )
        except OSError as error:
            if error.errno not in {errno.EFBIG, errno.ENOMEM} or most <= _MAX_LOW:
                raise
            most = max(_MAX_LOW, most // 2)


def new_name() -> str:
    """Return a unique name."""
    return f"queue-{os.urandom(12).hex()}"


def open_pool(
    name: str | None,
    maxsize: int,
    *,
    memory: int | None,
    max_memory: int | None,
    classes: Mapping[int, int] | None,
    like: object,
    itemsize: int | None,
) -> Pool:
    """Open the pool of that name, or make it; None: make one.

    Raises
    ------
    ValueError, OSError
        As `Queue` says.
    """
    of_its_kind = like is not None or itemsize is not None
    if classes is not None and (memory is not None or max_memory is not None):
        raise ValueError("classes= says what there is: leave out memory= and max_memory=")
    if classes is None and of_its_kind:
        classes = blocks_for(like, itemsize, maxsize, memory)
    elif classes is not None or (memory is not None and max_memory is None):
        fixed: dict[str, Any] = {"classes": classes or blocks(memory or _MEMORY)}
        return Pool.open(name or new_name(), headroom=0, tailroom=0, ephemeral=True, **fixed)
    if max_memory is not None and not 1 <= operator.index(max_memory) <= _ITEM_MAX:
        raise ValueError(f"max_memory= is 1 .. 2**40 bytes, not {max_memory!r}")
    places = 1 << math.ceil(math.log2(maxsize if maxsize > 0 else _UNLIMITED))
    reserved = _FLOOR if of_its_kind else max(_FLOOR, memory or 0)
    return _open_growing(name, classes or _GROWING, max_memory or 0, reserved, places)


def places(pool: Pool) -> int:
    """Return the places of a queue for which no maxsize was asked: as many as the pool has packets."""
    return min(sum(pool.classes.values()) + pool.arena_packets, _UNLIMITED)
