# SPDX-License-Identifier: Apache-2.0
"""``ssm list``: the pools on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ssm.commands.output import add_json, print_json, print_table

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``ssm list``."""
    add_json(parser)


def _look(name: str) -> dict[str, Any]:
    """Return what there is to say of a pool; what it cannot be said of has an ``error``."""
    from ssm import Pool, SSMError

    try:
        with Pool.attach(name, readonly=True) as pool:
            processes = [holder for holder in pool.holders() if holder.kind == "process"]
            return {
                "name": name,
                "size": pool.size,
                "processes": sum(holder.alive for holder in processes),
                "dead": sum(not holder.alive for holder in processes),
                "rings": len(pool.rings()),
                "services": len(pool.services()),
                "error": None,
            }
    except (OSError, SSMError) as error:
        return {"name": name, "error": str(error)}


def run(args: argparse.Namespace) -> int:
    """Print the pools."""
    from ssm import list_pools

    pools = [_look(name) for name in list_pools()]
    if args.json:
        print_json(pools)
        return 0
    columns = ["name", "size", "processes", "dead", "rings", "services"]
    rows = [
        [pool[column] for column in columns]
        if pool["error"] is None
        else [pool["name"], pool["error"], *[""] * 4]
        for pool in pools
    ]
    if rows:
        print_table(columns, rows)
    return 0
