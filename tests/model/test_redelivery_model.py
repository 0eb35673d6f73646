# SPDX-License-Identifier: Apache-2.0
"""Redelivery's model: what the dead had comes back, once; each seeded bug is found.

By hand, further: python tests/model/redelivery_model.py --workers 2 --forward --sinks 1 --rounds 2 --blocks 2 --kills 2
"""

import pytest

from tests.effort import by_states
from tests.model.explorer import name_of
from tests.model.redelivery_model import BUGS, HARMLESS, Config, Model, explore, main

LIMIT = 1_500_000

FORWARD = {"forward": True, "sinks": 1}
FANOUT = {"fanout": True, "sinks": 1}
ALSO = {"fanout": True, "also": True}
MAKE = {"make": True, "blocks": 2}  # into ring 1 with FORWARD, into the old packet's ring with requeue
TWO_OLD = {"make": True, "blocks": 4, "rounds": 2}  # the block of a new one that is freed early is used again

SOUND = [
    # configuration, states that it must reach at least
    ({"kills": 2, "producer_dies": True}, 6_500),
    ({"kills": 2, "workers": 2}, 15_000),
    ({"kills": 2, "rounds": 2, "batch": 2, "blocks": 2}, 29_000),
    ({"kills": 2, **FORWARD}, 60_000),
    ({"kills": 2, **FORWARD, "both": True}, 85_000),
    ({"kills": 2, **FORWARD, "keep": True}, 100_000),
    ({"batch": 2, "blocks": 2, **FORWARD}, 40_000),
    ({"workers": 2, "rounds": 2, "blocks": 2, "requeue": True, "recoverers": 1}, 100_000),
    ({"kills": 2, "rounds": 2, "batch": 2, "blocks": 2, "requeue": True}, 65_000),
    ({"kills": 2, **FORWARD, "requeue": True}, 38_000),
    ({"kills": 2, "rounds": 2, "blocks": 2, "requeue": True}, 60_000),
    ({**MAKE, **FORWARD}, 12_000),
    ({"kills": 2, **MAKE, "requeue": True}, 9_000),
    ({**TWO_OLD, "requeue": True, "recoverers": 1}, 18_000),
    ({"kills": 2, **MAKE, **FORWARD, "both": True}, 130_000),
    ({"kills": 2, **MAKE, "requeue": True, "workers": 2}, 50_000),
    ({**TWO_OLD, **FORWARD, "recoverers": 1}, 200_000),
    ({"make": True, "blocks": 4, "batch": 2, **FORWARD}, 90_000),
    ({"kills": 2, **FANOUT}, 150_000),
    ({"workers": 2, **FANOUT}, 100_000),
    ({"kills": 2, "back": True}, 6_000),
    ({"kills": 2, "workers": 2, "back": True}, 38_000),
    ({"kills": 2, "rounds": 2, "batch": 2, "blocks": 2, "back": True}, 90_000),
    ({"kills": 2, "workers": 2, "requeue": True, "back": True, "view": True}, 75_000),
    ({"workers": 2, **FANOUT, "back": True, "recoverers": 1}, 200_000),
    ({"kills": 2, "workers": 2, "view": True}, 18_000),
    ({"kills": 2, "rounds": 2, "batch": 2, "blocks": 2, "view": True}, 20_000),
    ({"kills": 2, "requeue": True, "view": True}, 5_500),
    ({"kills": 2, "workers": 2, "requeue": True, "view": True}, 37_000),
    ({"kills": 2, **FORWARD, "view": True}, 60_000),
    ({"kills": 2, **FORWARD, "both": True, "requeue": True, "view": True}, 50_000),
    ({"kills": 2, **FORWARD, "keep": True, "view": True}, 100_000),
    ({"kills": 2, **ALSO}, 26_000),
    ({"kills": 2, **ALSO, "last": True}, 27_000),
    ({"kills": 2, **ALSO, "both": True}, 35_000),
    ({"kills": 2, **ALSO, "both": True, "last": True}, 35_000),
    ({"kills": 2, **ALSO, "both": True, "requeue": True}, 100_000),
]

# Where each seeded bug shows.
SHOWS: dict[str, dict[str, int]] = {
    "take_forgets": {"kills": 2},
    "own_before_publish": FORWARD,
    "void_first": FORWARD,
    "no_completion": FORWARD,
    "owner_of_the_lock": {"kills": 2, **MAKE, "requeue": True},
    "note_not_seen": {"rounds": 2, "blocks": 2, "requeue": True, "recoverers": 1},
    "who_first": {"kills": 2, "rounds": 2, "blocks": 2, "requeue": True},
    "no_settle": FORWARD,
    "no_skip": {"kills": 2, "requeue": True},
    "slot_of_returned": {"kills": 2, "workers": 2},
    "free_without_void": {},
    "clear_first": {"kills": 2, **FANOUT},
    "half_returned": {"kills": 2},
    "entry_once": {"kills": 2, "workers": 2},
    "own_only": {"kills": 2},
    "flag_last": {"kills": 0, "workers": 2, "rounds": 2, "blocks": 2, "back": True, "recoverers": 1},
    "no_compare": {"workers": 2, **FANOUT},
    "complete_all": {**ALSO, "both": True, "requeue": True},
    "slots_only": {**MAKE, **FORWARD},
    "done_early": {**MAKE, "requeue": True},
    "done_late": {**MAKE, **FORWARD},
    "return_unlocked": {"workers": 2, **FANOUT, "back": True, "recoverers": 1},
    "view_delays": {"view": True},
    "all_end": {**ALSO, "both": True},
}


@pytest.mark.parametrize(("config", "at_least"), by_states(SOUND), ids=name_of)
def test_nothing_is_lost_or_handed_out_twice(config: dict[str, int], at_least: int) -> None:
    explore(limit=LIMIT, **config).must_be_sound(at_least)


FAR = {"return_unlocked", "no_compare", "clear_first"}  # they take seconds


@pytest.mark.parametrize(
    "bug", [pytest.param(bug, marks=pytest.mark.slow if bug in FAR else ()) for bug in BUGS]
)
def test_seeded_bug_is_found(bug: str) -> None:
    result = explore(limit=LIMIT, bug=bug, **SHOWS[bug])
    assert result.violation, f"{BUGS[bug]}: not found in {result.states} states"


@pytest.mark.slow
@pytest.mark.parametrize("way", HARMLESS)
@pytest.mark.parametrize("config", [{"workers": 2}, FORWARD, {"requeue": True}, FANOUT], ids=name_of)
def test_another_way_is_sound_too(config: dict[str, int], way: str) -> None:
    explore(limit=LIMIT, bug=way, kills=2, **config).must_be_sound()


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--kills", "1"]) == 0
    assert "no violation" in capsys.readouterr().out
    assert main(["--bug", "free_without_void"]) == 1
    assert "VIOLATION" in capsys.readouterr().out


@pytest.mark.parametrize(
    "bad",
    [
        {"bug": "nonsense"},
        {"rounds": 9},
        {"batch": 3},
        {"forward": True, "fanout": True},
        {"make": True, "blocks": 2},
        {"make": True, "requeue": True},
        {"make": True, "requeue": True, "blocks": 2, "view": True},
    ],
)
def test_configurations_that_make_no_sense(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"unknown bug|at most 4|batch is|ring 1 is for|make "):
        Model(Config(**bad))  # type: ignore[arg-type]
