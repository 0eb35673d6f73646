# SPDX-License-Identifier: Apache-2.0
"""The chains' model: a message is got whole, once, or not at all; each seeded bug is found."""

import pytest

from tests.effort import by_states
from tests.model.chain_model import BUGS, Config, Model, explore, main
from tests.model.explorer import name_of

LIMIT = 1_000_000

SOUND = [
    # configuration, states that it must reach at least
    ({}, 4_000),
    ({"wide": True}, 5_000),
    ({"bits_first": True}, 5_000),
    ({"length": 3, "blocks": 4}, 6_000),
    ({"scripts": ("CS", "G", "G"), "kills": 2}, 100_000),
    ({"scripts": ("C", "C"), "kills": 2, "blocks": 6, "length": 3, "bits_first": True}, 100_000),
    ({"scripts": ("C", "C", "G"), "kills": 2, "blocks": 4}, 800_000),
]
DEATHS_OF_TWO = {"scripts": ("C", "C"), "kills": 2, "blocks": 4}


@pytest.mark.parametrize(("config", "at_least"), by_states(SOUND), ids=name_of)
def test_a_message_is_whole(config: dict[str, object], at_least: int) -> None:
    explore(limit=LIMIT, **config).must_be_sound(at_least)


@pytest.mark.parametrize("bug", BUGS)
def test_seeded_bug_is_found(bug: str) -> None:
    result = explore(limit=LIMIT, bug=bug, **DEATHS_OF_TWO if bug == "drop_head_first" else {})
    assert result.violation, f"{BUGS[bug]}: not found in {result.states} states"


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--wide"]) == 0
    assert "no violation" in capsys.readouterr().out
    assert main(["--bug", "take_head_first"]) == 1
    assert "VIOLATION" in capsys.readouterr().out


def test_a_bug_of_no_name() -> None:
    with pytest.raises(ValueError, match="unknown bug"):
        Model(Config(bug="nonsense"))
