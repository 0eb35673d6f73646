# SPDX-License-Identifier: Apache-2.0
"""The four services of a pool, for tests that do the same with each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ssm
from allocators import RangeInclusive

if TYPE_CHECKING:
    from collections.abc import Callable

OPEN: dict[str, Callable[..., Any]] = {
    "ids": lambda pool, **more: pool.ids("ids", 5, 1004, **more),
    "addresses": lambda pool, **more: pool.addresses("addresses", 0x1000, 0x10000, ranges=500, **more),
    "pids": lambda pool, **more: pool.pids("pids", order=8, **more),
    "rmids": lambda pool, **more: pool.rmids("rmids", 100, 0, **more),
}
KINDS = list(OPEN)


def take(service: Any) -> Any:
    """Allocate one; what give() takes."""
    if isinstance(service, ssm.IdService):
        return service.allocate_id()
    if isinstance(service, ssm.PidService):
        return service.allocate()
    if isinstance(service, ssm.AddressService):
        return service.allocate(16)
    rmid = service.alloc()
    while rmid == 0:  # the first free one was freed after this process looked at the clock
        rmid = service.alloc()
    return rmid


def give(service: Any, value: Any) -> None:
    if isinstance(service, ssm.IdService):
        service.free_id(value)
    elif isinstance(service, ssm.PidService):
        value.free()
    else:
        service.free(value)


def key(value: Any) -> int:
    """What stands for a value in a set: the number, or where the range starts."""
    return int(value.start if isinstance(value, RangeInclusive) else value)


def used(pool: ssm.Pool, name: str) -> int:
    return next(s.used for s in pool.stats().services if s.name == name)
