# SPDX-License-Identifier: Apache-2.0
"""How much a test does that could go on for ever: a part, or all of it where SSM_TEST_ALL=1 (`make test-all`, CI).

A test that cannot be made shorter is marked as slow instead, and `make test` leaves it out. C tests ask check_all() of
tests/c/check.h. SSM_TEST_SECONDS sets the seconds themselves, for a test that is looked at.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

ALL = os.environ.get("SSM_TEST_ALL") == "1"


def seconds(most: float) -> float:
    """For how long a test repeats itself."""
    return float(os.environ.get("SSM_TEST_SECONDS") or (most if ALL else most / 4))


def times(most: int) -> int:
    """How often a test repeats itself, or how many examples Hypothesis draws."""
    return most if ALL else max(most // 5, 5)


def by_states(rows: Iterable[tuple[Any, ...]], column: int = -1, most: int = 20_000) -> list[Any]:
    """Mark the configurations of a model that have more states than that, by the number in that column, as slow."""
    return [pytest.param(*row, marks=pytest.mark.slow if row[column] > most else ()) for row in rows]


def first_one(rows: Iterable[Any]) -> list[Any]:
    """Mark all parameters as slow but the first."""
    return [pytest.param(row, marks=pytest.mark.slow if i > 0 else ()) for i, row in enumerate(rows)]
