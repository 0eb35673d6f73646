# SPDX-License-Identifier: Apache-2.0
"""``ssm completion``: what a shell needs to complete commands, options, and the names of pools and rings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ssm.errors import SSMError

if TYPE_CHECKING:
    import argparse

SHELLS = ("bash", "zsh", "fish")


def pool_names(**_: object) -> list[str]:
    """Return the pools that are there, as a shell asks for them."""
    from ssm import list_pools

    return [name.removeprefix("/") for name in list_pools()]


def ring_names(parsed_args: argparse.Namespace, **_: object) -> list[str]:
    """Return the rings of the pool that was typed before."""
    from ssm import Pool

    try:
        with Pool.attach(parsed_args.pool, readonly=True) as pool:
            return pool.rings()
    except (OSError, ValueError, SSMError):
        return []


def completed_by(names: Any, argument: argparse.Action) -> None:
    """Let a shell complete the argument by these names."""
    argument.completer = names  # type: ignore[attr-defined]  # where argcomplete looks for it


def answer(parser: argparse.ArgumentParser) -> None:
    """Print completions and end, if it is a shell that started this process to have some."""
    _argcomplete().autocomplete(parser)


def _argcomplete() -> Any:
    try:
        import argcomplete
    except ModuleNotFoundError as error:
        raise ValueError('completion needs argcomplete: pip install "ssm-pool[completion]"') from error
    return argcomplete


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``ssm completion``."""
    in_file = 'eval "$(ssm completion bash)" in the start file of the shell'
    parser.epilog = f"bash, zsh: {in_file}; fish: ssm completion fish | source"
    parser.add_argument("shell", choices=SHELLS, help="whose language it is in")


def run(args: argparse.Namespace) -> int:
    """Print the code."""
    print(_argcomplete().shellcode(["ssm"], shell=args.shell))
    return 0
