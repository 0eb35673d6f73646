# SPDX-License-Identifier: Apache-2.0
"""A result as text for people and as JSON for programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from ssm.captures.admission import Oversize
from ssm.captures.flow import describe
from ssm.captures.headers import LINKS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ssm.demo.lab import Result


def as_text(result: Result, top: int) -> str:
    """Return the result in lines of at most a terminal's width, but for long addresses; `top` flows, 0: all."""
    sections = _talkers(result, top), _stations(result), _left(result), _summary(result)
    return "\n\n".join(map("\n".join, sections))


def _talkers(result: Result, top: int) -> Iterator[str]:
    rows = result.table["rows"]
    shown = [(describe(row.flow), row) for row in rows[: top or len(rows)]]
    width = max(len(name) for name in ["flow", *(name for name, _ in shown)])
    yield f"{'flow':<{width}}  {'packets':>9}  {'bytes':>12}  {'seconds':>9}"
    for name, row in shown:
        yield f"{name:<{width}}  {row.packets:>9,}  {row.bytes:>12,}  {(row.last_ns - row.first_ns) / 1e9:>9.3f}"
    if hidden := len(rows) - len(shown):
        yield f"... and {hidden:,} more flows"
    if result.file.link_type not in LINKS:
        yield f"Link type {result.file.link_type} is not decoded here; its frames are one flow."


def _stations(result: Result) -> Iterator[str]:
    frames, parsed = (
        f"  ring {ring.name!r:<9} {ring.put:>10,} put, {ring.put - ring.left:,} got, "
        f"never more than {ring.high_water:,} of {ring.capacity:,} in it"
        for ring in result.report.rings.values()
    )
    yield "where the packets were"
    yield f"  reader         {result.report.stages['reader'].packets_out:>10,} in {result.file.expected_bytes:,} bytes"
    yield frames
    for number, parser in enumerate(result.table["parsers"], start=1):
        yield f"  parser {number:<7} {parser['packets']:>10,} in {parser['bytes']:,} bytes"
    yield parsed
    yield f"  flow table     {result.table['packets']:>10,} in {result.table['flows']:,} flows"


def _left(result: Result) -> Iterator[str]:
    yield "what was left over"
    for each in result.report.blocks:
        yield f"  {each.block_size:>7,}-byte blocks {each.free:>6,} free of {each.blocks:,}"
    yield f"  in the rings        {sum(ring.left for ring in result.report.rings.values()):>6,} packets"
    yield f"  books and checks    {len(result.report.findings):>6,} findings"
    yield f"  /dev/shm            {int(result.in_shm):>6,} pools"


def _summary(result: Result) -> Iterator[str]:
    file, table, parser = result.file, result.table, result.report.stages["parser"]
    seconds = max(table["seconds"], 1e-9)
    rates = f"{table['packets'] / seconds:,.0f} packets/s, {table['bytes'] / seconds / 1e6:,.1f} MB/s"
    yield f"{table['packets']:,} packets in {seconds:.3f} s: {rates}"
    if file.oversize_packets:
        which = f"{file.oversize_packets:,} packets of more than {result.admission.limit:,} bytes"
        cut = file.bytes - file.expected_bytes
        truncated = result.admission.oversize is Oversize.TRUNCATE
        how = f"truncated, {cut:,} bytes cut off" if truncated else f"skipped, {cut:,} bytes in all"
        yield f"oversize: {which} (largest {file.largest:,}) were {how}"
    if parser.killed:
        again = f"{result.report.redelivered:,} packets that they had were delivered once more"
        yield f"killed: {parser.killed} of {parser.started} parsers, by SIGKILL; {again}"
    if not result.findings:
        measure = "all that was admitted" if file.oversize_packets else "as in the file"
        what = f"{file.expected_packets:,} packets and {file.expected_bytes:,} bytes, {measure}"
        yield f"exact: {what}; each seen once, contents equal, nothing left"
    yield from (f"NOT EXACT: {finding}" for finding in result.findings)


def as_json(result: Result, source: str, top: int) -> str:
    """Return the result as one JSON object; with `top` flows, 0: all."""
    table, report = dict(result.table), result.report.to_dict()
    rows, parsers = table.pop("rows"), table.pop("parsers")
    table["talkers"] = [asdict(row) | {"flow": describe(row.flow)} for row in rows[: top or len(rows)]]
    document = {
        "source": source,
        "exact": not result.findings,
        "findings": result.findings,
        "seconds": table["seconds"],
        "pool": result.pool,
        "file": asdict(result.file),
        "parsers": [*parsers, *[None] * result.report.stages["parser"].killed],
        "killed": result.report.stages["parser"].killed,
        "redelivered": result.report.redelivered,
        "table": table,
        "left": {"classes": report["blocks"], "rings": report["rings"], "in_shm": result.in_shm},
        "stages": report["stages"],
    }
    return json.dumps(document, indent=2)
