# SPDX-License-Identifier: Apache-2.0
"""A result as text for people and as JSON for programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ssm.captures.admission import Oversize
from ssm.captures.flow import describe
from ssm.captures.headers import LINKS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ssm.demo.table import Row
    from ssm.demo.verdict import Result

NS = 1e-9


def as_text(result: Result) -> str:
    """Return the result in lines of at most a terminal's width, but for long addresses."""
    sections = (_talkers(result), _stations(result), _left(result), _summary(result))
    return "\n\n".join("\n".join(lines) for lines in sections)


def _talkers(result: Result) -> Iterator[str]:
    table = result.table
    names = [describe(row.flow) for row in table.talkers]
    width = max(map(len, [*names, "flow"]))
    yield f"{'flow':<{width}}  {'packets':>9}  {'bytes':>12}  {'seconds':>9}"
    for name, row in zip(names, table.talkers, strict=True):
        yield f"{name:<{width}}  {row.packets:>9,}  {row.bytes:>12,}  {_duration(row):>9.3f}"
    if hidden := table.flows - len(table.talkers):
        yield f"... and {hidden:,} more flows"
    if result.file.link_type not in LINKS:
        yield f"Link type {result.file.link_type} is not decoded here; its frames are one flow."


def _duration(row: Row) -> float:
    return (row.last_ns - row.first_ns) * NS


def _stations(result: Result) -> Iterator[str]:
    rings = {ring.name: ring for ring in result.left.rings}

    def ring_line(name: str) -> str:
        ring = rings[name]
        return (
            f"  ring {name!r:<9} {ring.puts:>10,} put, {ring.gets:,} got, "
            f"never more than {ring.high_water:,} of {ring.capacity:,} in it"
        )

    yield "where the packets were"
    yield f"  reader         {result.reader.packets:>10,} in {result.reader.batches:,} batches"
    yield ring_line("frames")
    for number, (parser, handled) in enumerate(zip(result.parsers, result.handled, strict=True), start=1):
        batches = "before it was killed" if parser is None else f"in {parser.batches:,} batches"
        yield f"  parser {number:<7} {handled:>10,} {batches}"
    yield ring_line("parsed")
    yield f"  flow table     {result.table.packets:>10,} in {result.table.flows:,} flows"


def _left(result: Result) -> Iterator[str]:
    left = result.left
    yield "what was left over"
    for each in left.classes:
        yield f"  {each.block_size:>7,}-byte blocks {each.free:>6,} free of {each.blocks:,}"
    yield f"  in the rings        {sum(ring.depth for ring in left.rings):>6,} packets"
    yield f"  pool.check()        {len(left.check):>6,} findings"
    yield f"  /dev/shm            {int(left.in_shm):>6,} pools"


def _summary(result: Result) -> Iterator[str]:
    file, table = result.file, result.table
    rate = table.packets / result.seconds
    volume = table.bytes / result.seconds / 1e6
    yield f"{table.packets:,} packets in {result.seconds:.3f} s: {rate:,.0f} packets/s, {volume:,.1f} MB/s"
    yield from _oversize(result)
    if result.killed:
        yield (
            f"killed: {result.killed} of {len(result.parsers)} parsers, by SIGKILL; {result.redelivered:,} packets "
            "that they had were delivered once more"
        )
    if result.exact:
        measure = "all that was admitted" if file.oversize_packets else "as in the file"
        yield (
            f"exact: {file.expected_packets:,} packets and {file.expected_bytes:,} bytes, {measure}; "
            "each seen once, contents equal, nothing left"
        )
    for finding in result.findings:
        yield f"NOT EXACT: {finding}"


def _oversize(result: Result) -> Iterator[str]:
    file, admission = result.file, result.settings.admission
    if not file.oversize_packets:
        return
    too_large = (
        f"{file.oversize_packets:,} packets of more than {admission.limit:,} bytes (largest {file.largest:,})"
    )
    missing = file.bytes - file.expected_bytes
    if admission.oversize is Oversize.TRUNCATE:
        yield f"oversize: {too_large} were truncated, {missing:,} bytes cut off"
    else:
        yield f"oversize: {too_large} were skipped, {missing:,} bytes in all"


def as_json(result: Result, source: str) -> str:
    """Return the result as one JSON object."""
    return json.dumps(_document(result, source), indent=2)


def _document(result: Result, source: str) -> dict[str, Any]:
    table = asdict(result.table)
    table["talkers"] = [_row(row) for row in result.table.talkers]
    return {
        "source": source,
        "exact": result.exact,
        "findings": list(result.findings),
        "seconds": result.seconds,
        "packets_per_second": result.table.packets / result.seconds,
        "pool": result.pool,
        "settings": asdict(result.settings),
        "file": asdict(result.file),
        "reader": asdict(result.reader),
        "parsers": [None if parser is None else asdict(parser) for parser in result.parsers],
        "killed": result.killed,
        "redelivered": result.redelivered,
        "table": table,
        "left": asdict(result.left),
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "flow": describe(row.flow),
        "packets": row.packets,
        "bytes": row.bytes,
        "first": row.first_ns * NS,
        "last": row.last_ns * NS,
    }
