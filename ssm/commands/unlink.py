# SPDX-License-Identifier: Apache-2.0
"""``ssm unlink``: remove the names of pools, or of rings in a pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ssm.commands.completion import completed_by, pool_names, ring_names
from ssm.commands.output import add_json, print_json
from ssm.terminal import say

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``ssm unlink``."""
    completed_by(pool_names, parser.add_argument("pools", nargs="+", metavar="POOL", help="a pool's name"))
    ring = parser.add_argument(
        "--ring",
        action="append",
        default=[],
        metavar="NAME",
        dest="rings",
        help="this ring of the pool instead",
    )
    completed_by(_rings_of, ring)
    parser.add_argument(
        "--force", action="store_true", help="even while processes are attached, or have it open"
    )
    add_json(parser)


def _rings_of(parsed_args: argparse.Namespace, **_: object) -> list[str]:
    parsed_args.pool = parsed_args.pools[0]
    return ring_names(parsed_args)


def _attached(name: str) -> int:
    """Return how many live processes are attached; 0 for what is no pool that can be attached to."""
    from ssm import Pool, SSMError

    try:
        with Pool.attach(name, readonly=True) as pool:
            return sum(holder.alive for holder in pool.holders() if holder.kind == "process")
    except SSMError:
        return 0


def _remove_pools(names: Iterable[str], force: bool) -> tuple[list[str], dict[str, int]]:
    """Return the names that were removed, and those that were kept, with their processes."""
    from ssm import Pool

    removed: list[str] = []
    kept: dict[str, int] = {}
    for name in names:
        if not force and (processes := _attached(name)):
            kept[name] = processes
        else:
            Pool.unlink(name)
            removed.append(name)
    return removed, kept


def _remove_rings(pool_name: str, names: Iterable[str], force: bool) -> tuple[list[str], dict[str, int]]:
    from ssm import Pool

    removed: list[str] = []
    kept: dict[str, int] = {}
    with Pool.attach(pool_name) as pool:
        pool.reap()  # the dead have nothing open
        for name in names:
            users = {ring.name: ring.users for ring in pool.stats().rings if not ring.unlinked}
            if not force and users.get(name, 0):
                kept[name] = users[name]
            elif pool.unlink_ring(name):
                removed.append(name)
            else:
                raise FileNotFoundError(f"pool {pool.name!r} has no ring {name!r}")
    return removed, kept


def run(args: argparse.Namespace) -> int:
    """Remove the names; who has a pool or a ring open keeps it. Those in use are left, unless forced."""
    kept: dict[str, Any]
    if args.rings and len(args.pools) > 1:
        raise ValueError(f"--ring is of one pool, not of {len(args.pools)}: call ssm unlink for each of them")
    if args.rings:
        removed, kept = _remove_rings(args.pools[0], args.rings, args.force)
        have = "processes that have it open"
    else:
        removed, kept = _remove_pools(args.pools, args.force)
        have = "processes attached"
    if args.json:
        print_json({"removed": removed, "in_use": kept})
    for name, processes in kept.items():
        say(
            f"ssm unlink: {name!r} has {processes} {have} (`ssm holders` names processes); end them, or use --force: "
            "they keep the memory; no other process finds it any more",
            error=True,
        )
    return 1 if kept else 0
