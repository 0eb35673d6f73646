# SPDX-License-Identifier: Apache-2.0
"""The model of semaphores: nothing is lost, and nobody hangs, whoever is killed; each seeded bug is found."""

import pytest

from tests.model.explorer import name_of
from tests.model.semaphore_model import BUGS, Config, Model, explore

LIMIT = 1_000_000


@pytest.mark.parametrize(
    ("config", "at_least"),
    [({}, 5_000), ({"permits": 2}, 5_000), ({"workers": 2, "rounds": 2, "kills": 2}, 1_000)],
    ids=name_of,
)
def test_no_permit_is_lost_and_nobody_hangs(config: dict[str, object], at_least: int) -> None:
    explore(limit=LIMIT, **config).must_be_sound(at_least)


@pytest.mark.parametrize("bug", BUGS)
def test_seeded_bug_is_found(bug: str) -> None:
    kills = int(bug in {"reaper_keeps", "word_first", "dead_waits"})
    result = explore(limit=LIMIT, bug=bug, kills=kills)
    assert result.violation, f"{BUGS[bug]}: not found in {result.states} states"


def test_a_bug_of_no_name() -> None:
    with pytest.raises(ValueError, match="unknown bug"):
        Model(Config(bug="nonsense"))
