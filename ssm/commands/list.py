# SPDX-License-Identifier: Apache-2.0
"""``ssm list``: the pools on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ssm.commands.output import add_json, print_json, print_table
from ssm.errors import CorruptionError
from ssm.terminal import say

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
        return {"name": name, "error": str(error), "note": _note(name, error)}


def _note(name: str, error: Exception) -> str:
    """Return in a few words why nothing more can be said of it."""
    if isinstance(error, PermissionError):
        return "another user's"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, CorruptionError):
        return f"damaged; `ssm unlink {name[1:]}` removes it"
    return f"no pool of this release; `ssm unlink {name[1:]}` removes it"


def run(args: argparse.Namespace) -> int:
    """Print the pools."""
    from ssm import list_pools

    pools = [_look(name) for name in list_pools()]
    if args.json:
        print_json(pools)
        return 0
    columns = ["name", "size", "processes", "dead", "rings", "services"]
    rows = [[pool[column] for column in columns] for pool in pools if pool["error"] is None]
    if rows:
        print_table(columns, rows)
    for pool in pools:
        if pool["error"] is not None:
            say(f"{pool['name']}: {pool['note']}")
    return 0
