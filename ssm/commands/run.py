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

from ssm.commands.output import add_json, print_json
from ssm.terminal import plain, say

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Generator
    from types import ModuleType

    from ssm.pipeline import Pipeline, Report, Run

EXACT, NOT_EXACT = 0, 1
_SHOW_S = 0.25  # between two pictures
_BAR = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``ssm run``."""
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="a Python file in which an ssm.Pipeline is declared")
    add(
        "arguments",
        nargs="*",
        metavar="ARGUMENT",
        help="for its sources: numbers and other literals as such, or text",
    )
    add("--name", metavar="VARIABLE", help="which pipeline, if the file has several")
    add("--inline", action="store_true", help="run all in this process, for debuggers")
    add("--check", action="store_true", help="only say whether it can run")
    add("--graph", action="store_true", help="only print it, as a Mermaid flowchart")
    add("--svg", action="store_true", help="only print it, as a picture in SVG")
    add("--workers", action="append", default=[], metavar="STAGE=N", help="other workers than declared")
    add("--at", metavar="ROLE", help="run as a host of that role: stages of other roles are refused")
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
    if args.check:
        pipe.check()
        say(f"{args.file}: the pipeline can run")
        return EXACT
    given = [_literal(text) for text in args.arguments]
    try:
        report = _run(pipe, given, inline=args.inline)
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


def say_lines(text: str) -> None:
    """Print a text of several lines."""
    for line in text.splitlines():
        say(line)


def _run(pipe: Pipeline, given: list[Any], *, inline: bool) -> Report:
    if inline:
        return pipe.run(*given, inline=True)
    with pipe.start(*given) as running, _shown() as show:
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
def _shown() -> Generator[Callable[[Run], None]]:
    """Yield a function that shows how far the run is: a table on a terminal where rich is installed."""
    try:
        live: Any = importlib.import_module("rich.live") if sys.stderr.isatty() else None
    except ModuleNotFoundError:
        live = None
    if live is None:
        yield lambda _: None
        return
    console = importlib.import_module("rich.console").Console(stderr=True)
    shown = 0.0
    with live.Live(console=console, auto_refresh=False, transient=True) as screen:

        def show(running: Run) -> None:
            nonlocal shown
            if time.monotonic() - shown > _SHOW_S:
                shown = time.monotonic()
                screen.update(picture(running.report()), refresh=True)

        yield show


def picture(report: Report) -> Any:
    """Return a table of rich: what each stage does now, and how full its rings are."""
    table: Any = importlib.import_module("rich.table").Table(box=None, pad_edge=False)
    for head, justify in (
        ("stage", "left"),
        ("in", "right"),
        ("out", "right"),
        ("busy, starved, blocked", "left"),
        ("killed", "right"),
    ):
        table.add_column(head, justify=justify)
    for stage in report.stages.values():
        busy, blocked = round(stage.busy * _BAR), round(stage.blocked * _BAR)
        bar = f"[green]{'#' * busy}[/][dim]{'.' * (_BAR - busy - blocked)}[/][yellow]{'=' * blocked}[/]"
        name = importlib.import_module("rich.text").Text(plain(stage.name))
        table.add_row(name, f"{stage.packets_in:,}", f"{stage.packets_out:,}", bar, f"{stage.killed or ''}")
    for ring in report.rings.values():
        name = importlib.import_module("rich.text").Text(f"ring {plain(ring.name)}")
        table.add_row(
            name, f"{ring.put:,}", f"{ring.put - ring.left:,}", f"{ring.left:,} of {ring.capacity:,}", ""
        )
    return table
