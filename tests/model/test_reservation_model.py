# SPDX-License-Identifier: Apache-2.0
"""The model of turns: nobody hangs, whoever waits for what, and whoever is killed; each seeded bug is found."""

import pytest

from tests.effort import by_states
from tests.model.explorer import name_of
from tests.model.reservation_model import BUGS, Config, Model, explore, main

LIMIT = 1_000_000

SOUND = [
    # configuration, states that it must reach at least
    ({}, 20_000),
    ({"kept": 1}, 10_000),
    ({"wants": (1, 2, 2), "kept": 1}, 30_000),
    ({"wants": (3, 2, 1), "blocks": 3}, 50_000),
]


@pytest.mark.parametrize(("config", "at_least"), by_states(SOUND), ids=name_of)
def test_nobody_hangs(config: dict[str, object], at_least: int) -> None:
    result = explore(limit=LIMIT, **config)
    assert not result.violation, "\n".join((result.violation, *result.trace))
    assert result.states >= at_least
    assert result.finals >= 1


@pytest.mark.parametrize("bug", BUGS)
def test_seeded_bug_is_found(bug: str) -> None:
    config: dict[str, object] = {"wants": (1, 2, 2)} if bug == "one_by_one" else {"kept": 1}
    result = explore(limit=LIMIT, bug=bug, kills=int(bug == "dead_turn"), **config)
    assert result.violation, f"{BUGS[bug]}: not found in {result.states} states"


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--kills", "0"]) == 0
    assert "no violation" in capsys.readouterr().out
    assert main(["--bug", "dead_turn"]) == 1
    assert "VIOLATION" in capsys.readouterr().out


def test_a_bug_of_no_name() -> None:
    with pytest.raises(ValueError, match="unknown bug"):
        Model(Config(bug="nonsense"))
