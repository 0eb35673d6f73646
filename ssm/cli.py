# SPDX-License-Identifier: Apache-2.0
"""The command line: ``ssm COMMAND ...``, also ``python -m ssm COMMAND ...``.

A command is a module with two functions, ``add_arguments(parser)`` and ``run(args) -> int``; what it needs
beyond argparse it imports in ``run``, so that ``ssm --help`` is quick and needs no extras.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import sys
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Protocol, cast

from ssm.commands import completion
from ssm.errors import LayoutMismatch, SSMError
from ssm.terminal import plain, say

if TYPE_CHECKING:
    from collections.abc import Sequence


class Command(NamedTuple):
    """One line of ``ssm --help`` and the module behind it."""

    name: str
    help: str
    module: str


COMMANDS = (
    Command("list", "the pools on this machine", "ssm.commands.list"),
    Command("stat", "the counters of a pool", "ssm.commands.stat"),
    Command("top", "a live view of a pool: rates, depths, holders, the oldest packets", "ssm.commands.top"),
    Command("web", "a live page for a browser, with the graph of a pipeline", "ssm.commands.web"),
    Command("holders", "how many blocks each process and ring holds, or which", "ssm.commands.holders"),
    Command("check", "check all invariants of a pool", "ssm.commands.check"),
    Command("reap", "take back what dead processes held", "ssm.commands.reap"),
    Command("unlink", "remove the name of a pool", "ssm.commands.unlink"),
    Command("dump", "look at the packets that are queued in a ring", "ssm.commands.dump"),
    Command("record", "the packets of a ring into a file", "ssm.commands.record"),
    Command("replay", "the packets of a file into a ring", "ssm.commands.replay"),
    Command("metrics", "a pool's counters for Prometheus, or as lines of JSON", "ssm.commands.metrics"),
    Command("bridge", "rings that go on in a pool of another host", "ssm.commands.bridge"),
    Command("bench", "nanoseconds per operation on this machine", "ssm.commands.bench"),
    Command("completion", "complete commands and names in bash, zsh or fish", "ssm.commands.completion"),
    Command("run", "run a pipeline out of a file, and report", "ssm.commands.run"),
    Command("demo", "run the packets of a capture through several processes", "ssm.demo.command"),
)


class CommandModule(Protocol):
    """What the module of a command offers."""

    def add_arguments(self, parser: argparse.ArgumentParser, /) -> None:
        """Declare the command's arguments."""

    def run(self, args: argparse.Namespace, /) -> int:
        """Do it; return the exit status."""
        ...


class _Parser(argparse.ArgumentParser):
    """Quotes what was typed without obeying it."""

    def error(self, message: str) -> NoReturn:
        super().error(plain(message))


class _Version(argparse.Action):
    """``--version``; looked up when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        say(f"ssm {importlib.metadata.version('ssm-pool')}")
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = _Parser(prog="ssm", description="A packet pool for processes, in shared memory.")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        module = cast("CommandModule", importlib.import_module(command.module))
        subparser = commands.add_parser(command.name, help=command.help, description=command.help)
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run, command=command.name)
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
    parser = build_parser()
    if "_ARGCOMPLETE" in os.environ:
        completion.answer(parser)
    args = parser.parse_args(argv)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, ValueError, SSMError) as error:
        say(f"ssm {args.command}: {_sentence(error, args)}", error=True)
        return 2
    return status


def _sentence(error: Exception, args: argparse.Namespace) -> str:
    """Return what an error says, without errno's number, and with the shell's remedies in place of Python's."""
    pools: list[str] = getattr(args, "pools", None) or [getattr(args, "pool", None) or ""]
    if isinstance(error, LayoutMismatch) and len(pools) == 1:
        return (
            f"{pools[0]!r} is no pool, or one of another release of ssm; 'ssm list' shows those that are there, "
            f"'ssm unlink {pools[0].removeprefix('/')}' removes it"
        )
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    missing = [pool for pool in pools if error.filename == "/" + pool.removeprefix("/")]
    if isinstance(error, FileNotFoundError) and missing and missing[0]:
        return f"no pool of the name {missing[0]!r}; 'ssm list' shows those that are there"
    return f"{error.strerror}: {error.filename!r}" if error.filename else error.strerror
