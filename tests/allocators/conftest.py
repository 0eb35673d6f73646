# SPDX-License-Identifier: Apache-2.0
"""Where the allocators under test come from: each behaviour test takes a factory, and runs once per form.

"alone": in private memory. "hosted": a service of a pool, made by the test's first call.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

import allocators
import ssm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Factory = Callable[[str, type[Any]], Callable[..., Any]]

FORMS = ["alone", "hosted"]


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Host:
    """A pool of services, there from the first one on."""

    METADATA = 24 << 20

    def __init__(self, name: str) -> None:
        self.name = name
        self.pool: ssm.Pool | None = None
        self.number = itertools.count()

    def make(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if self.pool is None:
            self.pool = ssm.Pool.create(self.name, classes={512: 1}, metadata=self.METADATA)
            self.pool.unlink()
        return getattr(self.pool, method)(f"service {next(self.number)}", *args, **kwargs)

    def close(self) -> None:
        if self.pool is not None:
            wrong = self.pool.check()
            self.pool.close()
            assert wrong == []


def make_hosted_rmids(host: Host, *args: Any, **kwargs: Any) -> Any:
    if len(args) > 2 or "clock" in kwargs:
        pytest.skip("a shared allocator has no clock of its own")
    return host.make("rmids", *args, **kwargs)


@pytest.fixture
def factory(form: str, new_name: Callable[[], str]) -> Iterator[Factory]:
    host = Host(new_name())
    methods = {
        allocators.IdAllocator: lambda base, end: host.make("ids", base, end),
        allocators.AddressAllocator: lambda base, size: host.make("addresses", base, size),
        allocators.PidAllocator: lambda order: host.make("pids", order),
        allocators.RmidAllocator: lambda *args, **kwargs: make_hosted_rmids(host, *args, **kwargs),
    }

    def choose(form: str, cls: type[Any]) -> Callable[..., Any]:
        return cls if form == "alone" else methods[cls]

    yield choose
    host.close()


@pytest.fixture
def make_ids(form: str, factory: Factory) -> Callable[..., allocators.IdAllocator]:
    return factory(form, allocators.IdAllocator)


@pytest.fixture
def make_addresses(form: str, factory: Factory) -> Callable[..., allocators.AddressAllocator]:
    return factory(form, allocators.AddressAllocator)


@pytest.fixture
def make_pids(form: str, factory: Factory) -> Callable[..., allocators.PidAllocator]:
    return factory(form, allocators.PidAllocator)


@pytest.fixture
def make_rmids(form: str, factory: Factory) -> Callable[..., allocators.RmidAllocator]:
    return factory(form, allocators.RmidAllocator)
