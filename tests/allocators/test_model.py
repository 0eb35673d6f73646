# SPDX-License-Identifier: Apache-2.0
"""The state machines of the allocators can be repeated: neither the state nor what an example leaves decides a draw."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest

from tests.allocators.model import Deaths, Model
from tests.allocators.test_address import AddressModel
from tests.allocators.test_id import IdModel
from tests.allocators.test_pid import PidModel
from tests.allocators.test_rmid import RmidModel

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("model", [AddressModel, IdModel, PidModel, RmidModel, Deaths])
def test_no_rule_depends_on_the_state(model: type[Model]) -> None:
    assert [rule for rule in model(make=lambda: None).rules if rule.preconditions] == []


@pytest.mark.parametrize("form", ["fork"], indirect=True)
def test_pids_left_to_the_collector_ask_for_nothing(
    make_pids: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request between another one and its answer would take that answer for its own."""
    model = PidModel(make_pids)
    model.create(1)
    model.allocate(20)
    assert model.allocator.theirs
    model.teardown()
    asked: list[Any] = []
    monkeypatch.setattr(model.allocator.other, "ask", lambda *request: asked.append(request))
    del model
    gc.collect()
    assert asked == []
