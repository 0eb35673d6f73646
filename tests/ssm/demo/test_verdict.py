# SPDX-License-Identifier: Apache-2.0
"""The verdict is "exact" for a run where everything agrees, and names whatever does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("dpkt", reason="the demo reads captures with dpkt")

from ssm.captures.admission import Admission, Oversize
from ssm.captures.survey import Survey
from ssm.demo.lab import Result
from ssm.demo.report import as_text
from ssm.pipeline import BlockReport, Report, RingReport, StageReport

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
TABLE = {
    "packets": 9,
    "bytes": 800,
    "digest": 42,
    "once": 9,
    "repeated": 0,
    "strangers": 0,
    "parsers": [{"packets": 4, "bytes": 300}, {"packets": 5, "bytes": 500}],
    "flows": 3,
    "flow_packets": 9,
    "flow_bytes": 800,
    "rows": [],
    "seconds": 2.0,
}
STAGES = {
    name: StageReport(name, "stage", 1, 9, 9, 0, 0, 0, 0, 1.0, 1.0, 0.0, 0.0, 1, 0, 0)
    for name in ("reader", "parser", "flow table")
}
RINGS = {name: RingReport(name, 1024, 9, 0, 0, 9, 0) for name in ("frames", "parsed")}
REPORT = Report(
    pipeline="ssm-demo",
    seconds=3.0,
    stages=STAGES,
    rings=RINGS,
    dead=(),
    results={},
    blocks=(BlockReport(256, 4, 4),),
    missing=0,
    findings=(),
    complete=True,
    interrupted=False,
)
GOOD = Result("/lab", Admission(200, Oversize.SKIP), FILE, TABLE, REPORT, in_shm=False)


def test_agreement_is_exact():
    assert GOOD.findings == []
    text = as_text(GOOD, 10)
    assert "9 packets in 2.000 s: 4 packets/s, 0.0 MB/s" in text
    assert "exact: 9 packets and 800 bytes, all that was admitted; each seen once" in text
    assert "1 packets of more than 200 bytes (largest 200) were skipped, 200 bytes in all" in text


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
    ],
)
def test_wrong_table(changes, finding):
    result = replace(GOOD, table=TABLE | changes)
    assert finding in result.findings
    assert f"NOT EXACT: {finding}" in as_text(result, 10)
    assert "\nexact:" not in as_text(result, 10)


def test_wrong_elsewhere():
    lost = replace(REPORT, findings=("packets taken out of ring 'frames': 9, and 8 are accounted for",))
    assert replace(GOOD, report=lost).findings == list(lost.findings)
    assert replace(GOOD, in_shm=True).findings == ["the pool is still in /dev/shm"]
