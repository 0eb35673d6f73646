# SPDX-License-Identifier: Apache-2.0
"""``ssm reap``: take back what dead processes held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssm.commands.output import add_json, add_pool, print_json
from ssm.terminal import say

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``ssm reap``."""
    add_pool(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Reap. Attaching does so already: who was dead before is counted, too."""
    from ssm import Pool

    with Pool.attach(args.pool, readonly=True) as pool:
        dead = [holder for holder in pool.holders() if not holder.alive]
    with Pool.attach(args.pool, label="ssm reap") as pool:
        reaped = pool.reap()
    processes = max(reaped.processes, len(dead))
    blocks = max(reaped.blocks, sum(holder.blocks for holder in dead))
    if args.json:
        print_json({"processes": processes, "blocks": blocks})
    else:
        say(f"{processes:,} dead processes, {blocks:,} blocks of theirs")
    return 0
