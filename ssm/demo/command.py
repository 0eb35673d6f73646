# SPDX-License-Identifier: Apache-2.0
"""``ssm demo``: its arguments, and its exit status.

0 when exactly what the file holds came out and nothing was left; 1 when not, or when a process failed;
2 when the input or a setting is no good; 130, 143 and 129 after Ctrl-C, SIGTERM and SIGHUP.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ssm.captures.admission import Oversize
from ssm.captures.errors import CaptureError
from ssm.pipeline.errors import PipelineError
from ssm.terminal import say

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ssm.captures.traffic import Source

EXACT, NOT_EXACT, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130
START_METHODS = ("spawn", "fork", "forkserver")
CLASSES = {256: 4096, 2048: 2048, 65536: 128}
KILLS_MAX = 100

CAPTURE_HELP = "a pcap or pcapng file, gzipped or not (without one: own traffic, or made-up frames)"
OVERSIZE_HELP = "what to do with packets that fit no size class: error, truncate or skip (%(default)s)"
KILL_HELP = "kill a parser in the middle of its work, N times (without N: once); the result is as exact"
CLASSES_HELP = f"block sizes and numbers ({','.join(f'{size}:{count}' for size, count in CLASSES.items())})"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``ssm demo``."""
    add = parser.add_argument
    add("capture", nargs="?", type=Path, metavar="CAPTURE", help=CAPTURE_HELP)
    add("--synthetic", type=_count, metavar="N", help="without a file: a capture of N made-up frames")
    add("--parsers", type=_count, metavar="N", default=2, help="parser processes (%(default)s)")
    add("--kill-parser", type=_kills, metavar="N", nargs="?", const=1, default=0, help=KILL_HELP)
    add("--top", type=int, metavar="N", default=10, help="flows to show, 0 for all (%(default)s)")
    add("--oversize", choices=list(Oversize), default=Oversize.ERROR, help=OVERSIZE_HELP)
    add("--classes", type=_classes, metavar="SIZE:BLOCKS,...", default=CLASSES, help=CLASSES_HELP)
    add("--ring", type=_count, metavar="N", default=1024, help="packets per ring (%(default)s)")
    add("--batch", type=_count, metavar="N", default=64, help="packets per hand-over (%(default)s)")
    add("--start-method", choices=START_METHODS, default=START_METHODS[0], help="of multiprocessing")
    add("--json", action="store_true", help="print the result as JSON")


def _count(text: str, least: int = 1, most: int = 1 << 40) -> int:
    value = int(text)
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{value} is not in {least} .. {most}")
    return value


def _kills(text: str) -> int:
    return _count(text, 0, KILLS_MAX)


def _classes(text: str) -> dict[int, int]:
    try:
        pairs = [entry.split(":") for entry in text.split(",")]
        return {_count(size): _count(blocks) for size, blocks in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 256:4096,2048:1024") from None


def run(args: argparse.Namespace) -> int:
    """Run the demo and print what came of it."""
    try:
        return _run(args)
    except CaptureError as error:
        status, message = WRONG_INPUT, str(error)
    except PipelineError as error:
        status, message = NOT_EXACT, f"{error}; the other processes were ended and the pool removed"
    except KeyboardInterrupt:
        status, message = INTERRUPTED, "interrupted; all processes were ended and the pool removed"
    say(f"ssm demo: {message}", error=True)
    return status


def _run(args: argparse.Namespace) -> int:
    from ssm.demo import lab, report  # they need dpkt, an extra; where it is missing, CaptureError says so

    with _source(args) as source:
        if not args.json:
            say(f"Input: {source.description}.")
        result = lab.run(source.path, args)
    if args.json:
        print(report.as_json(result, source.description, args.top))
    else:
        for line in report.as_text(result, args.top).split("\n"):
            say(line)
    return NOT_EXACT if result.findings else EXACT


def _source(args: argparse.Namespace) -> AbstractContextManager[Source]:
    from ssm.captures import traffic

    if args.capture is not None:
        return traffic.file_source(args.capture)
    return traffic.default_source() if args.synthetic is None else traffic.synthetic_source(args.synthetic)
