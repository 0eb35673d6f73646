# SPDX-License-Identifier: Apache-2.0
"""The lock-free edges under weak memory order: nothing is wrong with them, and each seeded order is found.

Further, by hand: python -m tests.model.spin ring --scene 1 --memory-mb 14000 (a minute, 11 GB)
                  python -m tests.model.spin eventcount --scene 1 (some minutes, 6 GB)
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.effort import ALL, by_states
from tests.model import spin, weaken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Per model and scene: states that it must reach at least, the orders that are wrong, and those that are sound too.
SCENES = [
    ("litmus", 0, 1_000, [1], []),
    ("litmus", 1, 1_000, [1], []),
    ("litmus", 2, 1_000, [1], []),
    ("litmus", 3, 1_000, [1], []),
    ("litmus", 4, 5_000, [1], []),
    ("litmus", 5, 1_000, [1], []),
    ("ring", 0, 300_000, [1, 2, 3, 4, 5, 6, 7], []),
    ("settle", 0, 50_000, [1, 2, 3, 4, 5, 6, 8, 9], [7]),
    ("settle", 1, 50_000, [1, 2, 3, 4, 5, 6], [7]),
    ("moves", 0, 10_000, [1, 2, 3, 4, 5], [6, 7]),
    ("moves", 1, 10_000, [1, 2, 3, 4, 5], [6, 7]),
    ("eventcount", 0, 50_000, [1, 3, 4, 5], [2]),
    ("eventcount", 2, 50_000, [1, 2, 3, 4, 5], []),
    ("cache", 0, 100_000, [1, 2, 3, 4, 5, 6, 8], []),
    ("cache", 1, 100_000, [2, 3, 4, 5, 6, 7, 8], [1]),
    ("cache", 2, 100_000, [9, 10, 11, 12, 13], []),
    ("published", 0, 2_000, [1, 2, 3, 4, 5], [6]),
    ("published", 1, 1_000, [7, 8, 9], []),
    ("published", 2, 50_000, [10, 11, 12, 13], []),
    ("published", 3, 40_000, [14, 15, 16, 17, 18, 19], []),
    ("published", 4, 3_000, [20, 21, 22], [23]),
    ("published", 5, 100, [24, 25, 26], []),
    ("published", 6, 100, [27, 28, 29], []),
    ("flags", 0, 1_500, [1, 2, 3, 4], []),
    ("flags", 1, 100, [5, 6, 7, 8], []),
    ("flags", 2, 5_000, [9, 10, 11, 12, 13], []),
    ("flags", 3, 250, [14, 15, 16, 17, 18, 19], []),
    ("flags", 4, 100, [20, 21], []),
    ("flags", 5, 100, [22, 23, 24, 25], []),
    ("flags", 6, 100, [26, 27, 28, 29], []),
    ("delivery", 0, 60, [1, 2, 3, 4], []),
    ("delivery", 1, 90, [6, 7, 8], [5]),
    ("delivery", 2, 140, [6, 7, 9], [5]),
    ("delivery", 3, 70, [10, 11, 12, 13], []),
    ("delivery", 4, 40, [5, 7, 8], []),
    ("unlink", 0, 1_500, [1, 2, 3, 4, 5, 6, 12, 13], []),
    ("unlink", 1, 1_500, [7, 8, 9, 10, 11], []),
]


QUICK = 9_000  # states of a scene that is not slow
NAMES = [f"{model}-{scene}" for model, scene, *_ in SCENES]


@pytest.fixture(scope="session")
def explorer_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    built: dict[str, Path] = {}

    def of(model: str) -> Path:
        if model not in built:
            built[model] = spin.build(model, tmp_path_factory.mktemp(model), level="-O1" if ALL else "-O0")
        return built[model]

    if missing := spin.missing():
        if os.environ.get("SSM_CI") == "1":
            pytest.fail(f"{missing} is not installed, and SSM_CI=1 says that this runs here")
        pytest.skip(f"{missing} is not installed: weak memory order is not explored")
    return of


def grouped(rows: list[tuple[str, int, int, list[int], list[int]]]) -> list[Any]:
    """In one worker, which builds the explorer, what is of one model."""
    scenes = by_states(rows, column=2, most=QUICK)
    return [
        pytest.param(*scene.values, marks=[*scene.marks, pytest.mark.xdist_group(scene.values[0])])
        for scene in scenes
    ]


@pytest.mark.parametrize(("model", "scene", "at_least", "wrong", "sound"), grouped(SCENES), ids=NAMES)
def test_orders(
    explorer_of: Callable[[str], Path],
    model: str,
    scene: int,
    at_least: int,
    wrong: list[int],
    sound: list[int],
) -> None:
    pan = explorer_of(model)
    for order in (0, *sound):
        outcome = spin.explore(pan, scene, order)
        assert not outcome.violation, outcome.output
        assert outcome.states >= at_least, outcome.output
    for order in wrong:
        outcome = spin.explore(pan, scene, order)
        assert outcome.violation, f"seeded order {order} of {model}.pml: not found in {outcome.states} states"
        assert "max search depth" not in outcome.output, outcome.output


FIRST = {model: (scene, wrong[0]) for model, scene, _, wrong, _ in reversed(SCENES)}
SLOW = sorted(FIRST.keys() - {model for model, _, at_least, *_ in SCENES if at_least <= QUICK})


@pytest.mark.parametrize(
    "model", [pytest.param(model, marks=pytest.mark.xdist_group(model)) for model in SLOW]
)
def test_an_order_of_a_slow_model(explorer_of: Callable[[str], Path], model: str) -> None:
    """Where all scenes are slow, `make test` has one of the wrong orders, which does not take long to find."""
    scene, order = FIRST[model]
    assert spin.explore(explorer_of(model), scene, order).violation


def weakened() -> Iterator[Any]:
    for row in weaken.outcomes():
        is_slow = row.model in SLOW or row.scene is None
        marks = [pytest.mark.xdist_group(row.model), *[pytest.mark.slow] * is_slow]
        yield pytest.param(row, id=f"{row.step.label}-{row.model}-{row.step.what}", marks=marks)


@pytest.mark.parametrize("row", list(weakened()))
def test_weakened(explorer_of: Callable[[str], Path], row: weaken.Outcome) -> None:
    """The table of docs/testing.md is true: an order that is relaxed, or a fence that is gone, is found or not."""
    pan, bug = explorer_of(row.model), weaken.switch(row.model, row.step)
    scenes = [row.scene] if row.scene is not None else [n for model, n, *_ in SCENES if model == row.model]
    for scene in scenes:
        outcome = spin.explore(pan, scene, bug)
        assert bool(outcome.violation) == (row.scene is not None), f"scene {scene}: {outcome.output}"
        assert "max search depth" not in outcome.output, outcome.output


@pytest.mark.xdist_group("litmus")
def test_command_line(capsys: pytest.CaptureFixture[str], explorer_of: Callable[[str], Path]) -> None:
    assert spin.main(["litmus"]) == 0
    assert "no violation" in capsys.readouterr().out
    assert spin.main(["litmus", "--bug", "1"]) == 1
    assert "assertion violated" in capsys.readouterr().out
