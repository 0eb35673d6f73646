# SPDX-License-Identifier: Apache-2.0
"""Where the allocators under test come from: each behaviour test takes a factory, and runs once per form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import allocators

if TYPE_CHECKING:
    from collections.abc import Callable

FORMS = ["alone"]


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def factory(form: str, cls: type[Any]) -> Callable[..., Any]:
    assert form == "alone"
    return cls


@pytest.fixture
def make_ids(form: str) -> Callable[..., allocators.IdAllocator]:
    return factory(form, allocators.IdAllocator)


@pytest.fixture
def make_addresses(form: str) -> Callable[..., allocators.AddressAllocator]:
    return factory(form, allocators.AddressAllocator)


@pytest.fixture
def make_pids(form: str) -> Callable[..., allocators.PidAllocator]:
    return factory(form, allocators.PidAllocator)


@pytest.fixture
def make_rmids(form: str) -> Callable[..., allocators.RmidAllocator]:
    return factory(form, allocators.RmidAllocator)
