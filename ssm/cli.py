# SPDX-License-Identifier: Apache-2.0
"""The command line: ``ssm COMMAND ...``, also ``python -m ssm COMMAND ...``.

A command is a module with two functions, ``add_arguments(parser)`` and ``run(args) -> int``; what it needs
beyond argparse it imports in ``run``, so that ``ssm --help`` is quick and needs no extras.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Sequence


class Command(NamedTuple):
    """One line of ``ssm --help`` and the module behind it."""

    name: str
    help: str
    module: str


COMMANDS = (Command("demo", "run the packets of a capture through several processes", "ssm.demo.command"),)


class CommandModule(Protocol):
    """What the module of a command offers."""

    def add_arguments(self, parser: argparse.ArgumentParser, /) -> None:
        """Declare the command's arguments."""

    def run(self, args: argparse.Namespace, /) -> int:
        """Do it; return the exit status."""
        ...


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(prog="ssm", description="A packet pool for processes, in shared memory.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        module = cast("CommandModule", importlib.import_module(command.module))
        subparser = commands.add_parser(command.name, help=command.help, description=command.help)
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process when not given.

    Returns
    -------
    int
        Exit status: 0 done, 1 done with findings, 2 wrong usage or input, 130 interrupted.
    """
    args = build_parser().parse_args(argv)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status
