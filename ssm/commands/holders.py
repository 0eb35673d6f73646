# SPDX-License-Identifier: Apache-2.0
"""``ssm holders``: how many blocks each process and ring holds, which ones, and in which lines they were taken."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ssm.commands.output import add_json, add_pool, print_json, print_table

if TYPE_CHECKING:
    import argparse

    from ssm import Pool
    from ssm.stats import Holder
    from ssm.tracing import Taken

_NOT_TRACED = (
    "not known: ssm.trace(True), or SSM_TRACE=1, in that process, which is of this user and PID namespace"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``ssm holders``."""
    add_pool(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--packets", action="store_true", help="each packet, and its holders")
    what.add_argument(
        "--where", action="store_true", help="the lines of the programs that took them, if they trace"
    )
    add_json(parser)


def describe(holder: Holder) -> str:
    """Return a holder in a few words: ``parser (pid 71)``, ``ring 'frames'``."""
    if holder.kind == "ring":
        return f"ring {holder.name!r}"
    return f"{holder.name} (pid {holder.pid}{'' if holder.alive else ', dead'})"


def packets_of(pool: Pool) -> list[dict[str, Any]]:
    """Return each packet that is held; those that go meanwhile are left out."""
    from ssm import StaleHandle

    packets: list[dict[str, Any]] = []
    for handle in pool._packet_list():
        try:
            peek = pool._peek_packet(handle, 0)
            holders = pool._packet_holders(handle)
        except StaleHandle:
            continue
        shown = {key: peek[key] for key in ("block_size", "length", "tag")}
        packets.append({"handle": handle, **shown, "holders": holders})
    return packets


def _seconds(row: Taken) -> str:
    return "" if row.oldest_s is None else f"{row.oldest_s:,.1f} s"


def _print_where(pool: Pool, as_json: bool) -> None:
    from ssm.tracing import taken

    rows = taken(pool)
    if as_json:
        print_json({"where": [dataclasses.asdict(row) for row in rows]})
        return
    print_table(
        ["name", "pid", "blocks", "oldest", "taken at"],
        [
            [row.holder.name, str(row.holder.pid), row.blocks, _seconds(row), row.site or _NOT_TRACED]
            for row in rows
        ],
    )


def run(args: argparse.Namespace) -> int:
    """Print the holders."""
    from ssm import Pool

    with Pool.attach(args.pool, readonly=True) as pool:
        if args.where:
            _print_where(pool, args.json)
            return 0
        holders = pool.holders()
        packets = packets_of(pool) if args.packets else []
    if args.json:
        found: dict[str, Any] = {"holders": [dataclasses.asdict(holder) for holder in holders]}
        print_json({**found, "packets": packets} if args.packets else found)
        return 0
    if args.packets:
        names = {holder.id: describe(holder) for holder in holders}
        columns = ["handle", "block size", "length", "tag", "held by"]
        rows = [
            [
                f"{packet['handle']:#018x}",
                packet["block_size"],
                packet["length"],
                packet["tag"],
                ", ".join(names.get(each, f"holder {each}, gone") for each in packet["holders"]),
            ]
            for packet in packets
        ]
        print_table(columns, rows)
        return 0
    print_table(
        ["id", "kind", "name", "pid", "alive", "rmid", "blocks", "bytes"],
        [
            [
                h.id,
                h.kind,
                h.name,
                str(h.pid or ""),
                "yes" if h.alive else "DEAD",
                h.rmid or "",
                h.blocks,
                h.bytes,
            ]
            for h in holders
        ],
    )
    return 0
