# SPDX-License-Identifier: Apache-2.0
"""The model of growing and giving back: no unit without memory is touched; each seeded bug is found."""

import pytest

from tests.model.explorer import name_of
from tests.model.growing_model import BUGS, Config, Model, explore

LIMIT = 1_000_000


@pytest.mark.parametrize(
    ("config", "at_least"),
    [({}, 5_000), ({"memory": 1}, 5_000), ({"kills": 2, "rounds": 1}, 5_000)],
    ids=name_of,
)
def test_memory_is_there_where_it_is_used(config: dict[str, object], at_least: int) -> None:
    explore(limit=LIMIT, **config).must_be_sound(at_least)


@pytest.mark.parametrize("bug", BUGS)
def test_seeded_bug_is_found(bug: str) -> None:
    result = explore(limit=LIMIT, bug=bug)
    assert result.violation, f"{BUGS[bug]}: not found in {result.states} states"


def test_a_bug_of_no_name() -> None:
    with pytest.raises(ValueError, match="unknown bug"):
        Model(Config(bug="nonsense"))
