# SPDX-License-Identifier: Apache-2.0
"""``ssm run``: a pipeline out of a file.

Exit status 0 if the run was exact, 1 if it was not or failed, 2 if it could not run, 130 and 143 after a second Ctrl-C
or SIGTERM.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssm.commands.output import add_json, interval_s, print_json
from ssm.commands.stages import lines, tables
from ssm.pipeline.pace import Pace
from ssm.terminal import say

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Generator
    from types import ModuleType

    from ssm.pipeline import Pipeline, Report, Run
    from ssm.pipeline.pace import Progress

EXACT, NOT_EXACT = 0, 1
_SHOW_S = 0.25  # between two pictures
_LINES_S = 10.0  # between two groups of lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``ssm run``."""
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="a Python file in which an ssm.Pipeline is declared")
    add(
        "arguments",
        nargs="*",
        metavar="ARGUMENT",
        help="for its sources: numbers and other literals as Python values, or text",
    )
    add("--name", metavar="VARIABLE", help="which pipeline, if the file has several")
    add("--inline", action="store_true", help="run all in this process, for debuggers")
    add("--check", action="store_true", help="only say whether it can run")
    add("--graph", action="store_true", help="only print it, as a Mermaid flowchart")
    add(
        "--interval",
        type=interval_s,
        metavar="S",
        help=f"between looks at it: {_SHOW_S} on a terminal, elsewhere {_LINES_S:g}, where lines are printed",
    )
    add("--svg", action="store_true", help="only print it, as a picture in SVG")
    add("--workers", action="append", default=[], metavar="STAGE=N", help="other workers than declared")
    add("--at", metavar="ROLE", help="run as a host of that role, which runs its stages only")
    add(
        "--bridge",
        action="append",
        default=[],
        metavar="ROLE=FILE",
        help="how the host of another role is reached: settings of ssm bridge in TOML, without pool and rings",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Run a pipeline and print its report."""
    from ssm.pipeline import PipelineError, PipelineRefused

    pipe = _find(_load(args.file), args.file, args.name)
    for text in args.workers:
        stage, _, count = text.rpartition("=")
        if not stage or not count.isdecimal():
            raise PipelineRefused(f"--workers {text}: give a stage and a number, as in --workers parse=8")
        pipe.resize(stage, int(count))
    if args.graph or args.svg:
        say_lines(pipe.graph("svg" if args.svg else "mermaid"))
        return EXACT
    pipe.at(args.at)
    for text in args.bridge:
        _bridge(pipe, text)
    if args.check:
        pipe.check()
        say(f"{args.file}: the pipeline can run")
        return EXACT
    given = [_literal(text) for text in args.arguments]
    try:
        report = _run(pipe, given, inline=args.inline, interval=args.interval)
    except PipelineRefused:
        raise
    except PipelineError as error:
        say(f"ssm run: {error}", error=True)
        for line in _trace_of(error.__cause__):
            say(line, error=True)
        if error.report is None:
            return NOT_EXACT
        report = error.report
    if args.json:
        print_json(report.to_dict(), default=repr)
    else:
        say_lines(str(report))
        for name, results in report.results.items():
            say(f"  {name}: {', '.join(map(repr, results))}")
    return EXACT if report.exact else NOT_EXACT


def _bridge(pipe: Pipeline, text: str) -> None:
    """Declare a bridge as --bridge says it."""
    from ssm.bridge import BridgeError, config
    from ssm.pipeline import PipelineRefused

    role, _, file = text.partition("=")
    if not role or not file:
        raise PipelineRefused(f"--bridge {text}: give a role and a file, as in --bridge gpu=to-gpu.toml")
    try:
        pipe.bridge(role, **config.load(Path(file)))
    except (OSError, BridgeError) as error:
        raise PipelineRefused(f"--bridge {text}: {error}") from error


def say_lines(text: str) -> None:
    """Print a text of several lines."""
    for line in text.splitlines():
        say(line)


def _run(pipe: Pipeline, given: list[Any], *, inline: bool, interval: float | None) -> Report:
    if inline:
        return pipe.run(*given, inline=True)
    with pipe.start(*given) as running, _shown(interval) as show:
        return running.wait(show)


def _trace_of(error: BaseException | None) -> list[str]:
    """Return the lines of the worker's traceback, without those of this process."""
    cause = error.__cause__ if error is not None else None
    return str(cause or error or "").strip().splitlines()


# ---- the file ---------------------------------------------------------------------------------------


def _load(path: Path) -> ModuleType:
    """Import a file by its name, as workers will: the folder is on their path, too."""
    from ssm.pipeline import PipelineRefused

    file, name = path.resolve(), path.stem
    if not file.is_file():
        raise PipelineRefused(f"{path}: there is no such file")
    if not name.isidentifier() or path.suffix != ".py":
        raise PipelineRefused(
            f"{path} cannot be imported by workers: name it like a module, as in pipeline.py"
        )
    sys.path.insert(0, str(file.parent))
    spec = None if name in sys.modules else importlib.util.find_spec(name)
    if spec is None or spec.origin is None or Path(spec.origin).resolve() != file:
        raise PipelineRefused(f"{path}: Python has another module {name!r}; give the file another name")
    return importlib.import_module(name)


def _find(module: ModuleType, path: Path, name: str | None) -> Pipeline:
    from ssm.pipeline import Pipeline, PipelineRefused

    there = {key: value for key, value in vars(module).items() if isinstance(value, Pipeline)}
    if name is not None:
        if name not in there:
            raise PipelineRefused(f"{path} has no pipeline {name!r}, but {', '.join(there) or 'none'}")
        return there[name]
    if len({id(pipe) for pipe in there.values()}) != 1:
        has = (
            f"has several pipelines ({', '.join(there)}): say which, by --name"
            if there
            else "has no ssm.Pipeline"
        )
        raise PipelineRefused(f"{path} {has}")
    return next(iter(there.values()))


def _literal(text: str) -> Any:
    import ast

    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


# ---- while it runs ----------------------------------------------------------------------------------


@contextlib.contextmanager
def _shown(interval: float | None) -> Generator[Callable[[Run], None]]:
    """Yield a function that shows how the run goes: tables on a terminal where rich is installed, otherwise lines."""
    try:
        live: Any = importlib.import_module("rich.live") if sys.stderr.isatty() else None
    except ModuleNotFoundError:
        live = None
    if live is None:
        yield _every(interval or _LINES_S, _say_progress)
        return
    rich: Any = importlib.import_module("rich.console")
    with live.Live(console=rich.Console(stderr=True), auto_refresh=False, transient=True) as screen:

        def draw(progress: Progress, _: float) -> None:
            screen.update(rich.Group(*tables(progress)), refresh=True)

        yield _every(interval or _SHOW_S, draw)


def _every(interval: float, show: Callable[[Progress, float], None]) -> Callable[[Run], None]:
    """Return what looks at a run and shows it when so many seconds have gone by."""
    pace, began = Pace(), time.monotonic()
    shown = began

    def look(running: Run) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown >= interval:
            shown = now
            show(pace.look(running.news(), running.pool.stats().rings), now - began)

    return look


def _say_progress(progress: Progress, since: float) -> None:
    for line in lines(progress, since):
        say(line, error=True)
