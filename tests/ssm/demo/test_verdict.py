# SPDX-License-Identifier: Apache-2.0
"""The verdict is "exact" for a run where everything agrees, and names whatever does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ssm.demo.settings import CLASSES, Settings
from ssm.demo.stages import ParserReport, ReaderReport, TableReport
from ssm.demo.survey import Survey
from ssm.demo.verdict import ClassLeft, LeftOver, Result, RingLeft

FILE = Survey(
    link_type=1,
    packets=10,
    bytes=1000,
    largest=200,
    oversize_packets=1,
    expected_packets=9,  # the tenth was skipped
    expected_bytes=800,
    digest=42,
)
TABLE = TableReport(
    packets=9,
    bytes=800,
    digest=42,
    once=9,
    repeated=0,
    strangers=0,
    by_parser=(4, 5),
    flows=3,
    flow_packets=9,
    flow_bytes=800,
    talkers=(),
    ended_ns=3_000_000_000,
)
RINGS = tuple(RingLeft(name, 1024, 9, 9, 9, 0) for name in ("frames", "parsed"))
GOOD = Result(
    pool="/lab",
    settings=Settings(CLASSES),
    file=FILE,
    reader=ReaderReport(9, 2, 1_000_000_000),
    parsers=(ParserReport(4, 1), ParserReport(5, 1)),
    table=TABLE,
    left=LeftOver((ClassLeft(256, 4, 4),), RINGS, (), in_shm=False),
)


def test_a_killed_parser_is_told_by_its_marks():
    killed = replace(GOOD, parsers=(None, ParserReport(5, 1)))
    assert killed.findings == ()
    assert (killed.killed, killed.handled) == (1, (4, 5))
    assert not replace(killed, table=replace(TABLE, by_parser=(3, 5))).exact
    assert replace(killed, parsers=(None, ParserReport(5, 1), ParserReport(0, 0))).exact
    assert not replace(GOOD, table=replace(TABLE, by_parser=(4, 4, 1))).exact  # a mark that nobody has


def test_agreement_is_exact():
    assert GOOD.exact
    assert GOOD.findings == ()
    assert GOOD.seconds == 2.0


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"once": 8, "packets": 8}, "1 packets were lost"),
        ({"once": 8, "repeated": 1}, "1 packets arrived more than once"),
        ({"strangers": 2}, "2 packets arrived that should not have"),
        ({"once": 10}, "1 packets arrived that should not have"),
        ({"digest": 41}, "the contents of the packets are not those of the file"),
        ({"packets": 10}, "packets at the flow table: 10 instead of 9"),
        ({"bytes": 801}, "bytes at the flow table: 801 instead of 800"),
        ({"flow_packets": 8}, "packets in the rows of the flow table: 8 instead of 9"),
        ({"flow_bytes": 799}, "bytes in the rows of the flow table: 799 instead of 800"),
        ({"by_parser": (5, 4)}, "parser 1 handled 4 packets, 5 carry its mark"),
    ],
)
def test_wrong_table(changes, finding):
    result = replace(GOOD, table=replace(TABLE, **changes))
    assert finding in result.findings
    assert not result.exact


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"reader": ReaderReport(8, 2, 0)}, "packets at the reader: 8 instead of 9"),
        ({"parsers": (ParserReport(4, 1), ParserReport(4, 1))}, "packets at the parsers: 8 instead of 9"),
        (
            {"left": replace(GOOD.left, rings=(replace(RINGS[0], gets=8, depth=1), RINGS[1]))},
            "ring 'frames': 9 packets put, 8 got, 1 left",
        ),
        (
            {"left": replace(GOOD.left, classes=(ClassLeft(256, 4, 3),))},
            "1 blocks did not come back to the pool",
        ),
        ({"left": replace(GOOD.left, check=("shard 1 lies",))}, "check: shard 1 lies"),
        ({"left": replace(GOOD.left, in_shm=True)}, "the pool is still in /dev/shm"),
    ],
)
def test_wrong_elsewhere(changes, finding):
    result = replace(GOOD, **changes)
    assert finding in result.findings
    assert not result.exact
