# SPDX-License-Identifier: Apache-2.0
"""``ssm unlink``: remove the names of pools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssm.commands.completion import completed_by, pool_names
from ssm.commands.output import add_json, print_json
from ssm.terminal import say

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``ssm unlink``."""
    completed_by(pool_names, parser.add_argument("pools", nargs="+", metavar="POOL", help="a pool's name"))
    parser.add_argument("--force", action="store_true", help="even while processes are attached to it")
    add_json(parser)


def _attached(name: str) -> int:
    """Return how many live processes are attached; 0 for what is no pool that can be attached to."""
    from ssm import Pool, SSMError

    try:
        with Pool.attach(name, readonly=True) as pool:
            return sum(holder.alive for holder in pool.holders() if holder.kind == "process")
    except SSMError:
        return 0


def run(args: argparse.Namespace) -> int:
    """Remove the names; who is attached keeps the memory. Those in use are left, unless forced."""
    from ssm import Pool

    removed: list[str] = []
    kept: dict[str, int] = {}
    for name in args.pools:
        if not args.force and (processes := _attached(name)):
            kept[name] = processes
        else:
            Pool.unlink(name)
            removed.append(name)
    if args.json:
        print_json({"removed": removed, "in_use": kept})
    for name, processes in kept.items():
        say(
            f"ssm unlink: {name!r} has {processes} processes attached (`ssm holders` names them); end them, or use "
            "--force: they keep the memory, nobody else finds it any more",
            error=True,
        )
    return 1 if kept else 0
