# SPDX-License-Identifier: Apache-2.0
"""``ssm stat``: the counters of a pool, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssm.commands.output import add_json, add_pool, print_json
from ssm.terminal import say

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``ssm stat``."""
    add_pool(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the counters."""
    from ssm import Pool
    from ssm.stats_text import lines

    with Pool.attach(args.pool, readonly=True) as pool:
        stats = pool.stats()
    if args.json:
        print_json(stats.to_dict())
        return 0
    for line in lines(stats):
        say(line)
    return 0
