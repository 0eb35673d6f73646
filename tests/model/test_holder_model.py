# SPDX-License-Identifier: Apache-2.0
"""The protocol's model finds nothing wrong with the protocol, and finds each seeded bug."""

import pytest

from tests.effort import by_states
from tests.model.explorer import name_of
from tests.model.holder_model import BUGS, HARMLESS, Config, Model, explore, main

LIMIT = 2_000_000  # states; far above what any of these needs

SOUND = [
    # configuration, states that it must reach at least
    ({"rounds": 3}, 10_000),
    ({"rounds": 2, "kills": 2}, 20_000),
    ({"rounds": 2, "kills": 2, "exclusive": True}, 10_000),
    ({"rounds": 2, "batch": 2, "kills": 2}, 10_000),
    ({"rounds": 2, "batch": 2, "blocks": 3, "capacity": 3, "consumers": 2, "recoverers": 1}, 30_000),
    ({"rounds": 2, "batch": 2, "capacity": 4, "consumers": 2, "recoverers": 1}, 10_000),
    ({"rounds": 2, "rings": 2}, 20_000),
    ({"rounds": 2, "rings": 2, "batch": 2, "blocks": 3, "capacity": 3, "kills": 2}, 100_000),
    ({"rounds": 2, "rings": 2, "consumers": 2, "recoverers": 1}, 50_000),
    ({"rounds": 3, "consumers": 2, "recoverers": 1}, 100_000),
    ({"rounds": 1, "producers": 2, "recoverers": 1}, 40_000),
    ({"rounds": 1, "producers": 2, "consumers": 2, "recoverers": 1}, 200_000),
    ({"kills": 2, "fork": "consumer"}, 200_000),
    ({"kills": 2, "rounds": 1, "fork": "producer"}, 20_000),
    ({"batch": 2, "fork": "producer", "recoverers": 1}, 20_000),
]

# Where each seeded bug shows.
SHOWS = {
    "note_first": {"rounds": 3},
    "unnote_first": {},
    "no_fixprod": {},
    "fix_no_settle": {"rounds": 1, "producers": 2, "recoverers": 1},
    "swap_late": {},
    "split_swap": {},
    "blind_swap": {"rounds": 1, "rings": 2},
    "own_first": {"rounds": 1, "rings": 2},
    "get_clear_first": {},
    "no_skip": {},
    "no_generation": {"batch": 2, "capacity": 4, "consumers": 2, "recoverers": 1},
    "gen_before_bits": {"batch": 2, "capacity": 4, "consumers": 2, "recoverers": 1},
    "no_bump": {"consumers": 2, "recoverers": 1},
    "no_rebuild": {},
    "settle_unlocked": {},
    "child_keeps_file": {"fork": "consumer"},
    "child_keeps_handles": {"fork": "consumer"},
    "child_frees": {"fork": "producer"},
}


@pytest.mark.parametrize(("config", "at_least"), by_states(SOUND), ids=name_of)
def test_protocol_holds_after_every_kill(config: dict[str, int], at_least: int) -> None:
    explore(limit=LIMIT, **config).must_be_sound(at_least)


@pytest.mark.parametrize("bug", BUGS)
def test_seeded_bug_is_found(bug: str) -> None:
    result = explore(limit=LIMIT, bug=bug, **SHOWS[bug])
    assert result.violation, f"{BUGS[bug]}: not found in {result.states} states"
    assert len(result.trace) > 2


@pytest.mark.parametrize("order", HARMLESS)
def test_harmless_order_is_harmless(order: str) -> None:
    for config in ({"rounds": 2, "kills": 2}, {"rounds": 2, "consumers": 2, "recoverers": 1}):
        explore(limit=LIMIT, bug=order, **config).must_be_sound()


def test_without_kills_nothing_is_recovered() -> None:
    explore(limit=LIMIT, kills=0, rounds=3).must_be_sound()


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rounds", "1"]) == 0
    assert "no violation" in capsys.readouterr().out
    assert main(["--rounds", "1", "--bug", "no_rebuild"]) == 1
    assert "VIOLATION" in capsys.readouterr().out


@pytest.mark.parametrize(
    "bad",
    [
        {"bug": "nonsense"},
        {"rounds": 9},
        {"batch": 3},
        {"exclusive": True, "consumers": 2},
        {"fork": "reaper"},
    ],
)
def test_configurations_that_make_no_sense(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"unknown bug|at most 8|batch is|exclusive sides|who forks"):
        Model(Config(**bad))  # type: ignore[arg-type]
