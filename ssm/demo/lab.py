# SPDX-License-Identifier: Apache-2.0
"""The run: the pipeline, what came out of it, and what does not agree."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ssm
from ssm.captures.admission import Admission, Oversize
from ssm.captures.errors import CaptureError
from ssm.captures.survey import Survey, survey
from ssm.demo.stages import HEADROOM, TIME, Table, parse, read
from ssm.progress import progress

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from ssm.pipeline import Report, Run

READER, PARSER, TABLE = "reader", "parser", "flow table"


@dataclass(frozen=True)
class Result:
    """One run."""

    pool: str  # its name
    admission: Admission
    file: Survey
    table: dict[str, Any]  # of stages.Table
    report: Report
    in_shm: bool  # whether the pool's file outlived its last process

    @property
    def findings(self) -> list[str]:
        """One sentence for each thing that is not as it must be; none: exactly what the file holds came out."""
        in_shm = ["the pool is still in /dev/shm"] if self.in_shm else []
        return [*_wrong_counts(self), *self.report.findings, *in_shm]


def run(path: Path, args: argparse.Namespace) -> Result:
    """Send the frames of a capture file through a pipeline; `args` are those of the command.

    Raises
    ------
    CaptureError
        The file cannot be read, or the settings do not suit it; no process was started.
    PipelineError
        A process failed, or one died that cannot be replaced; the others were ended and the pool is gone.
    KeyboardInterrupt, SystemExit
        After Ctrl-C, and after SIGTERM and SIGHUP, likewise.
    """
    admission = Admission(max(0, max(args.classes) - HEADROOM - TIME.size), Oversize(args.oversize))
    with progress("counting", path.stat().st_size if path.exists() else 0) as show:
        file = survey(path, admission, show)
    try:
        running = _pipeline(file, args).start(path, admission)
    except (OSError, ValueError, ssm.SSMError) as error:
        raise CaptureError(f"the pool could not be created: {error}") from error
    with running, progress("packets", file.expected_packets) as show:
        report = running.wait(lambda run: show(_arrived(run)))
    if running.signal is not None:
        raise KeyboardInterrupt if running.signal == signal.SIGINT else SystemExit(128 + running.signal)
    in_shm = Path("/dev/shm", running.pool.name.lstrip("/")).exists()
    return Result(running.pool.name, admission, file, report.results[TABLE][0], report, in_shm)


def _pipeline(file: Survey, args: argparse.Namespace) -> ssm.Pipeline:
    """Declare the line. Packets go on as they are, so no stage but the reader needs a block, however few there are."""
    pool: dict[str, Any] = {"classes": args.classes, "headroom": HEADROOM, "tailroom": 0, "grow": 1 << 20}
    pipe = ssm.Pipeline("ssm-demo", start=args.start_method, dead_letters=0, **pool)
    frames, parsed = pipe.ring("frames", args.ring), pipe.ring("parsed", args.ring)
    batch = min(args.batch, args.ring)
    fatal = frozenset(file.packets * i // (args.kill_parser + 1) for i in range(1, args.kill_parser + 1))
    parser = partial(parse, file.link_type, fatal)
    pipe.source(frames, name=READER)(read)
    pipe.stage(frames, parsed, name=PARSER, workers=args.parsers, batch=batch)(parser)
    pipe.sink(parsed, name=TABLE, batch=batch)(partial(Table, file.packets, args.parsers))
    return pipe


def _arrived(run: Run) -> int:
    """Return how many packets have reached the end of the line."""
    return sum(ring.gets for ring in run.pool.stats().rings if ring.name == "parsed")


def _wrong_counts(result: Result) -> Iterator[str]:
    file, table = result.file, result.table
    lost = file.expected_packets - table["once"] - table["repeated"]
    if lost > 0:
        yield f"{lost:,} packets were lost"
    if table["repeated"]:
        yield f"{table['repeated']:,} packets arrived more than once"
    if table["strangers"] or lost < 0:
        yield f"{table['strangers'] + max(-lost, 0):,} packets arrived that should not have"
    if table["digest"] != file.digest:
        yield "the contents of the packets are not those of the file"
    for what, expected in (("packets", file.expected_packets), ("bytes", file.expected_bytes)):
        for where, count in (("at", table[what]), ("in the rows of", table[f"flow_{what}"])):
            if count != expected:
                yield f"{what} {where} the flow table: {count:,} instead of {expected:,}"
