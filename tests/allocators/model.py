# SPDX-License-Identifier: Apache-2.0
"""What the four state machines share: an allocator, and a plain model of it beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from tests.allocators.shared import Shared
from tests.effort import times

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS = 50  # of each example, at most
EXAMPLES = {"alone": 80, "copied": 40, "unpickled": 30, "hosted": 80, "fork": 40, "spawn": 12}

in_every_form = pytest.mark.parametrize("form", EXAMPLES, indirect=True)


class Model(RuleBasedStateMachine):
    """`make` makes the allocator: alone, hosted, or hosted with another process that makes some of the calls.

    No rule has a precondition, and no strategy looks at the state: Hypothesis repeats what it drew, and takes it for
    an error of its own if another rule or value can be drawn the second time, for instance since the allocator failed.
    """

    allocator: Any = None  # until the machine's own first step

    def __init__(self, make: Callable[..., Any]) -> None:
        super().__init__()
        self.make = make

    def lose(self, key: int) -> None:
        """Let go what the other process had: it is free again."""
        raise NotImplementedError

    def teardown(self) -> None:
        if isinstance(self.allocator, Shared):
            self.allocator.end()


class Deaths(Model):
    """With another process, which may be killed before any step."""

    @rule()
    def the_other_one_is_killed(self) -> None:
        if self.allocator.is_worth_a_death:
            for key in self.allocator.kill_other():
                self.lose(key)


def run_model(machine: type[Model], make: Callable[..., Any], form: str) -> None:
    """Thousands of steps; a failure prints the fewest that lead to it."""
    if form in ("fork", "spawn"):
        machine = type(machine.__name__, (Deaths, machine), {})
    limits = settings(max_examples=times(EXAMPLES[form]), stateful_step_count=STEPS, deadline=None)
    run_state_machine_as_test(lambda: machine(make), settings=limits)
