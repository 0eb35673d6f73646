# SPDX-License-Identifier: Apache-2.0
"""The shards' model: migrating blocks are never lost or listed while held; each seeded bug is found."""

import pytest

from tests.effort import by_states
from tests.model.explorer import name_of
from tests.model.shard_model import BUGS, Config, Model, explore, main

LIMIT = 1_000_000

SOUND = [
    # configuration, states that it must reach at least
    ({}, 10_000),
    ({"homes": (0, 1, 1)}, 100_000),
    ({"homes": (0, 1, 0, 1), "rounds": 1}, 100_000),
    ({"blocks": 2, "kills": 2}, 100_000),
    ({"blocks": 2, "homes": (0, 1, 1), "rounds": 1}, 400_000),
]


@pytest.mark.parametrize(("config", "at_least"), by_states(SOUND), ids=name_of)
def test_no_block_is_lost_or_listed_while_held(config: dict[str, int], at_least: int) -> None:
    explore(limit=LIMIT, **config).must_be_sound(at_least)


@pytest.mark.parametrize("bug", BUGS)
def test_seeded_bug_is_found(bug: str) -> None:
    result = explore(limit=LIMIT, bug=bug, homes=(0, 1, 1), rounds=1)
    assert result.violation, f"{BUGS[bug]}: not found in {result.states} states"


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rounds", "1"]) == 0
    assert "no violation" in capsys.readouterr().out
    assert main(["--rounds", "1", "--bug", "no_rebuild"]) == 1
    assert "VIOLATION" in capsys.readouterr().out


def test_a_bug_of_no_name() -> None:
    with pytest.raises(ValueError, match="unknown bug"):
        Model(Config(bug="nonsense"))
