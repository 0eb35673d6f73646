# SPDX-License-Identifier: Apache-2.0
"""``ssm check``: does a pool contradict itself? Exit status 1 when it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssm.commands.output import add_json, add_pool, print_json
from ssm.terminal import say

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``ssm check``."""
    add_pool(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print what is wrong with the pool, a sentence per line."""
    from ssm import Pool

    with Pool.attach(args.pool, readonly=True) as pool:
        findings = pool.check()
    if args.json:
        print_json(findings)
    else:
        for finding in findings or ["consistent"]:
            say(finding)
    return 1 if findings else 0
