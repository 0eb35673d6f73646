# SPDX-License-Identifier: Apache-2.0
"""Where the time of a test run goes: `make test ARGS="-p tests.costs"` lists the tests that cost most.

Seconds of wall time, and of processor time in user and in kernel mode, of the test's process and of the children that
it waited for. The larger of the two decides the order: a test that sleeps costs wall time only.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

LISTED = 60
KEY = "costs"
BEGAN = pytest.StashKey[tuple[float, os.times_result]]()


@pytest.hookimpl(tryfirst=True, wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    item.stash[BEGAN] = (time.monotonic(), os.times())
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Let the report of the teardown, which comes last, carry the costs to the process that prints them."""
    report = yield
    if report.when == "teardown":
        began, before = item.stash[BEGAN]
        now = os.times()
        user = now.user + now.children_user - before.user - before.children_user
        system = now.system + now.children_system - before.system - before.children_system
        report.user_properties.append((KEY, (time.monotonic() - began, user, system)))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    costs = {
        report.nodeid: value
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "teardown"
        for key, value in report.user_properties
        if key == KEY
    }
    total = [sum(column) for column in zip(*costs.values(), strict=True)]
    terminalreporter.section("seconds of wall, user and system time")
    rows = sorted(costs.items(), key=lambda row: -max(row[1][0], row[1][1] + row[1][2]))
    listed = len(rows) if terminalreporter.config.option.verbose > 0 else LISTED
    for name, row in [*rows[:listed], ("all of them", total)]:
        terminalreporter.write_line(" ".join(f"{value:8.2f}" for value in row) + f"  {name}")
