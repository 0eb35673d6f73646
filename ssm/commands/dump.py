# SPDX-License-Identifier: Apache-2.0
"""``ssm dump``: what is queued in a ring, or one packet, as it lies there; nothing is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ssm.commands.completion import completed_by, ring_names
from ssm.commands.output import add_json, add_pool, print_json
from ssm.terminal import say

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from ssm import Pool

BYTES_PER_LINE = 16
LINKS = {"ethernet": 1, "ip": 101, "sll": 113}  # as capture files number them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``ssm dump``."""
    add_pool(parser)
    what = parser.add_argument(
        "what", metavar="RING|HANDLE", help="a ring's name, or a packet's handle (0x...)"
    )
    completed_by(ring_names, what)
    parser.add_argument(
        "--count", type=int, default=8, metavar="N", help="oldest packets of a ring (%(default)s)"
    )
    parser.add_argument("--bytes", type=int, default=256, metavar="N", help="of each packet (%(default)s)")
    parser.add_argument(
        "--decode", choices=list(LINKS), help="name the flow of each frame (needs ssm-pool[demo])"
    )
    add_json(parser)


def hex_lines(data: bytes) -> Iterator[str]:
    """Yield ``0000  68 65 6c 6c 6f ...  hello...``, sixteen bytes each."""
    for start in range(0, len(data), BYTES_PER_LINE):
        line = data[start : start + BYTES_PER_LINE]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in line)
        yield f"{start:04x}  {line.hex(' '):<{3 * BYTES_PER_LINE - 1}}  {text}"


def handles_of(pool: Pool, what: str, count: int) -> list[int]:
    """Return the handles that are meant: those queued in a ring, or the one that was given."""
    for ring in pool.stats().rings:
        if ring.name == what and not ring.unlinked:
            return pool._peek_ring(ring.holder, max(0, min(count, ring.capacity)))
    try:
        return [int(what, 0)]
    except ValueError:
        rings = ", ".join(map(repr, pool.rings())) or "none"
        raise FileNotFoundError(
            f"pool {pool.name!r} has no ring {what!r} (it has {rings}), nor is that a handle"
        ) from None


def _packets(pool: Pool, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from ssm import StaleHandle
    from ssm.commands.holders import describe

    names = {holder.id: describe(holder) for holder in pool.holders()}
    for head in handles_of(pool, args.what, args.count):
        handle: int | None = head
        seen: set[int] = set()  # links may be scribbled over
        while handle is not None and handle not in seen:
            seen.add(handle)
            try:
                packet = _packet(pool, handle, args, names)
            except StaleHandle:
                if handle == head and args.what not in pool.rings():
                    raise
                break  # taken meanwhile
            yield {**packet, "head": None if handle == head else head}
            handle = packet["next"]


def _packet(pool: Pool, handle: int, args: argparse.Namespace, names: dict[int, str]) -> dict[str, Any]:
    peek = pool._peek_packet(handle, args.bytes)
    holders = pool._packet_holders(handle)
    return {
        "handle": handle,
        **peek,
        "holders": [names.get(each, f"holder {each}") for each in holders],
        "flow": _flow(peek["data"], args.decode),
    }


def _flow(data: bytes, link: str | None) -> str | None:
    if link is None:
        return None
    from ssm.captures.flow import describe
    from ssm.captures.headers import flow_of

    return describe(flow_of(memoryview(data), LINKS[link]))


def run(args: argparse.Namespace) -> int:
    """Print the packets."""
    from ssm import Pool

    with Pool.attach(args.pool, readonly=True) as pool:
        packets = list(_packets(pool, args))
    if args.json:
        print_json([{**packet, "data": packet["data"].hex()} for packet in packets])
        return 0
    for packet in packets:
        held = ", ".join(packet["holders"]) or "nobody"
        segment = "" if packet["head"] is None else f"segment of {packet['head']:#018x}: "
        say(
            f"{packet['handle']:#018x}  {segment}{packet['length']:,} bytes of a {packet['block_size']:,}-byte block, "
            f"tag {packet['tag']}, held by {held}"
        )
        if packet["flow"] is not None:
            say(packet["flow"])
        for line in hex_lines(packet["data"]):
            say(line)
        if packet["length"] > len(packet["data"]):
            say(f"... {packet['length'] - len(packet['data']):,} bytes more")
    return 0
