# SPDX-License-Identifier: Apache-2.0
"""``ssm demo``: its arguments, and its exit status.

0 when exactly what the file holds came out and nothing was left; 1 when not, or when a process failed;
2 when the input or a setting is no good; 130, 143 and 129 after Ctrl-C, SIGTERM and SIGHUP.
"""

from __future__ import annotations

import argparse
import signal
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ssm.captures.admission import Oversize
from ssm.captures.errors import CaptureError
from ssm.demo.errors import CrewError, DemoError
from ssm.demo.settings import BATCH_MAX, CLASSES, KILLS_MAX, PARSERS, RING_CAPACITY, TOP, Settings
from ssm.terminal import say

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager
    from types import FrameType

    from ssm.demo.source import Source

EXACT, NOT_EXACT, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130
START_METHODS = ("spawn", "fork", "forkserver")

CAPTURE_HELP = (
    "a pcap or pcapng file, gzipped or not (without one: own traffic on loopback, or made-up frames)"
)
OVERSIZE_HELP = "what to do with packets that fit no size class: error, truncate or skip (%(default)s)"
KILL_HELP = (
    "kill a parser with SIGKILL in the middle of its work, N times (without N: once): another one takes its place, "
    "and the result is as exact"
)
CLASSES_HELP = f"block sizes and numbers ({','.join(f'{size}:{count}' for size, count in CLASSES.items())})"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``ssm demo``."""
    add = parser.add_argument
    add("capture", nargs="?", type=Path, metavar="CAPTURE", help=CAPTURE_HELP)
    add("--synthetic", type=_count, metavar="N", help="without a file: a capture of N made-up frames")
    add("--parsers", type=_count, metavar="N", default=PARSERS, help="parser processes (%(default)s)")
    add("--kill-parser", type=_kills, metavar="N", nargs="?", const=1, default=0, help=KILL_HELP)
    add("--top", type=int, metavar="N", default=TOP, help="flows to show, 0 for all (%(default)s)")
    add("--oversize", choices=list(Oversize), default=Oversize.ERROR, help=OVERSIZE_HELP)
    add("--classes", type=_classes, metavar="SIZE:BLOCKS,...", default=CLASSES, help=CLASSES_HELP)
    add("--ring", type=_count, metavar="N", default=RING_CAPACITY, help="packets per ring (%(default)s)")
    add("--batch", type=_count, metavar="N", default=BATCH_MAX, help="packets per hand-over (%(default)s)")
    add("--start-method", choices=START_METHODS, default=START_METHODS[0], help="of multiprocessing")
    add("--json", action="store_true", help="print the result as JSON")


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def _kills(text: str) -> int:
    value = int(text)
    if not 0 <= value <= KILLS_MAX:
        raise argparse.ArgumentTypeError(f"{value} is not in 0 .. {KILLS_MAX}")
    return value


def _classes(text: str) -> dict[int, int]:
    try:
        pairs = [entry.split(":") for entry in text.split(",")]
        return {_count(size): _count(blocks) for size, blocks in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 256:4096,2048:1024") from None


def run(args: argparse.Namespace) -> int:
    """Run the demo and print what came of it."""
    try:
        with _signals_raise():
            return _run(args)
    except (CaptureError, DemoError) as error:
        status, message = WRONG_INPUT, str(error)
    except CrewError as error:
        status, message = NOT_EXACT, f"{error}; the other processes were ended and the pool removed"
    except KeyboardInterrupt:
        status, message = INTERRUPTED, "interrupted; all processes were ended and the pool removed"
    say(f"ssm demo: {message}", error=True)
    return status


def _run(args: argparse.Namespace) -> int:
    from ssm.demo import lab, report  # they need dpkt, an extra; where it is missing, CaptureError says so

    settings = _settings(args)
    with _source(args) as source:
        if not args.json:
            say(f"Input: {source.description}.")
        result = lab.run(source.path, settings)
    if args.json:
        print(report.as_json(result, source.description))
    else:
        for line in report.as_text(result).split("\n"):
            say(line)
    return EXACT if result.exact else NOT_EXACT


def _settings(args: argparse.Namespace) -> Settings:
    return Settings(
        classes=args.classes,
        parsers=args.parsers,
        ring_capacity=args.ring,
        batch_max=args.batch,
        kills=args.kill_parser,
        top=args.top,
        oversize=Oversize(args.oversize),
        start_method=args.start_method,
    )


def _source(args: argparse.Namespace) -> AbstractContextManager[Source]:
    from ssm.demo import source

    if args.capture is not None:
        return source.file_source(args.capture)
    if args.synthetic is not None:
        return source.synthetic_source(args.synthetic)
    return source.default_source()


@contextmanager
def _signals_raise() -> Generator[None]:
    """Turn SIGTERM and SIGHUP into exceptions, so that they clean up as Ctrl-C does."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
