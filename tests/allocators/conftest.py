# SPDX-License-Identifier: Apache-2.0
"""Where the allocators under test come from: each behaviour test takes a factory, and runs once per form.

"alone": in private memory. "copied", "unpickled": alone, and another one at each call. "hosted": a service of a pool,
made by the test's first call. The models also run in the forms "fork" and "spawn": a service of which another process,
started so, makes every second call.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

import allocators
import ssm
from tests.allocators.renewed import WAYS, Renewed, RenewedPids
from tests.allocators.shared import Other, Shared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.processes import Children

    Factory = Callable[[str, type[Any]], Callable[..., Any]]

FORMS = ["alone", *WAYS, "hosted"]
SHARED_FORMS = ["fork", "spawn"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What threads share is one object: it cannot be renewed."""
    items[:] = [
        item
        for item in items
        if not isinstance(item, pytest.Function)
        or getattr(item, "callspec", None) is None
        or item.callspec.params.get("form") not in WAYS
        or item.path.name != "test_threads.py"
    ]


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Host:
    """Pools of services: a new one whenever the directory of the last one is full."""

    METADATA = 48 << 20
    SERVICES = 48

    def __init__(self, new_name: Callable[[], str], other: Other | None) -> None:
        self.new_name, self.other = new_name, other
        self.pool: ssm.Pool | None = None
        self.number = itertools.count()
        self.wrong: list[str] = []  # said at the end: not in an example that is innocent of it

    def make(self, method: str, *args: Any, **kwargs: Any) -> Any:
        number = next(self.number)
        if number % self.SERVICES == 0:
            self.end_pool()
        if self.pool is None:
            self.pool = ssm.Pool.create(self.new_name(), classes={512: 1}, metadata=self.METADATA)
        if self.other is not None:
            kwargs["reclaim"] = True
        service = getattr(self.pool, method)(f"service {number}", *args, **kwargs)
        return service if self.other is None else Shared(service, self.other)

    def end_pool(self) -> None:
        if self.other is not None:
            self.other.leave()
        if self.pool is not None:
            self.wrong += self.pool.check()
            self.pool.close()
            self.pool.unlink()
            self.pool = None

    def close(self) -> None:
        self.end_pool()
        assert self.wrong == []


def make_hosted_rmids(host: Host, *args: Any, **kwargs: Any) -> Any:
    if len(args) > 2 or "clock" in kwargs:
        pytest.skip("a shared allocator has no clock of its own")
    return host.make("rmids", *args, **kwargs)


def make_renewed(form: str, cls: type[Any], *args: Any, **kwargs: Any) -> Any:
    if form == "unpickled" and cls is allocators.RmidAllocator and (len(args) > 2 or "clock" in kwargs):
        pytest.skip("the tests' clocks cannot be pickled")
    renewed = RenewedPids if cls is allocators.PidAllocator else Renewed
    return renewed(cls(*args, **kwargs), form)


@pytest.fixture
def factory(form: str, new_name: Callable[[], str], children: Children) -> Iterator[Factory]:
    host = Host(new_name, Other(children, form) if form in SHARED_FORMS else None)
    methods = {
        allocators.IdAllocator: lambda base, end: host.make("ids", base, end),
        allocators.AddressAllocator: lambda *args, **kwargs: host.make("addresses", *args, **kwargs),
        allocators.PidAllocator: lambda order: host.make("pids", order),
        allocators.RmidAllocator: lambda *args, **kwargs: make_hosted_rmids(host, *args, **kwargs),
    }

    def choose(form: str, cls: type[Any]) -> Callable[..., Any]:
        if form in WAYS:
            return lambda *args, **kwargs: make_renewed(form, cls, *args, **kwargs)
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
