# SPDX-License-Identifier: Apache-2.0
"""The run: a pool, two rings and a crew; at the end the books are closed."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import ssm
from ssm.demo.crew import Crew
from ssm.demo.errors import CrewError, DemoError
from ssm.demo.mark import HEADROOM
from ssm.demo.progress import progress
from ssm.demo.stages import FRAMES, PARSED, parse, read, tabulate
from ssm.demo.survey import survey
from ssm.demo.verdict import ClassLeft, LeftOver, Result, RingLeft

if TYPE_CHECKING:
    from typing import Any

    from ssm.demo.settings import Settings
    from ssm.demo.survey import Survey

SHM = Path("/dev/shm")
READER, TABLE = "reader", "flow table"
REPLACEMENTS_MAX = 200  # a machine that kills so many has no memory for this


def run(path: Path, settings: Settings) -> Result:
    """Send the frames of a capture file through a pool.

    Parameters
    ----------
    path : Path
        A pcap or pcapng file, gzipped or not.
    settings : Settings
        Sizes and rules of the run.

    Returns
    -------
    Result
        What went in, came out and was left; `Result.exact` is the verdict.

    Raises
    ------
    CaptureError
        The file cannot be read; no process was started.
    DemoError
        The settings are no good, or the file holds what they do not allow; no process was started.
    CrewError
        A process failed or died; the others were ended and the pool is gone.
    """
    file = survey(path, settings.admission)
    pool = _create_pool(settings)
    try:
        with pool:
            reports = _work(pool, path, file, settings)
            look = _look(pool)
        in_shm = (SHM / pool.name.lstrip("/")).exists()
    finally:
        with suppress(FileNotFoundError):  # ephemeral: it went with its last process
            pool.unlink()
    parsers = tuple(reports[name] for name in reports if name not in (READER, TABLE))
    left = LeftOver(*look, in_shm)
    return Result(pool.name, settings, file, reports[READER], parsers, reports[TABLE], left)


def _create_pool(settings: Settings) -> ssm.Pool:
    name = f"ssm-demo-{os.getpid()}-{secrets.token_hex(3)}"
    try:
        return ssm.Pool.create(
            name, classes=dict(settings.classes), headroom=HEADROOM, tailroom=0, ephemeral=True
        )
    except (OSError, ValueError, ssm.SSMError) as error:
        raise DemoError(f"the pool could not be created: {error}") from error


def _work(pool: ssm.Pool, path: Path, file: Survey, settings: Settings) -> dict[str, Any]:
    """Start the processes, wait for their reports, return them by name, the parsers in the order of their numbers.

    The report of a parser that was killed is None; another one takes its place.
    """
    frames = pool.ring(FRAMES, capacity=settings.ring_capacity, redeliver=True)
    parsed = pool.ring(PARSED, capacity=settings.ring_capacity)
    batch_max = min(settings.batch_max, frames.capacity)
    fatal = frozenset(file.packets * i // (settings.kills + 1) for i in range(1, settings.kills + 1))
    reports: dict[str, Any] = {}
    working: set[str] = {READER}  # those who may put into a ring
    with (
        Crew(settings.start_method) as crew,
        progress("packets", file.expected_packets) as show,
    ):
        crew.start(READER, read, pool, path, settings.admission, batch_max)

        def start_parser() -> None:
            number = sum(name not in (READER, TABLE) for name in reports)
            if number == settings.parsers + REPLACEMENTS_MAX:
                raise CrewError(f"parsers were killed {REPLACEMENTS_MAX + 1} times")
            name = f"parser {number + 1}"
            crew.start(name, parse, pool, number, file.link_type, batch_max, fatal, replaceable=True)
            reports[name] = None
            working.add(name)

        for _ in range(settings.parsers):
            start_parser()
        crew.start(TABLE, tabulate, pool, file.packets, batch_max, settings.top)
        crew.begin()
        for name, report in crew.reports(tick=lambda: show(_arrived(pool))):
            reports[name] = report
            working.discard(name)
            if report is None:
                start_parser()
                crew.begin()
            if not working:
                parsed.shutdown()  # nobody puts any more: the table may finish
    return reports


def _arrived(pool: ssm.Pool) -> int:
    """Return how many packets have reached the end of the line."""
    return sum(ring.gets for ring in pool.stats().rings if ring.name == PARSED)


def _look(pool: ssm.Pool) -> tuple[tuple[ClassLeft, ...], tuple[RingLeft, ...], tuple[str, ...]]:
    """See what is in the pool now that everybody else has left."""
    stats = pool.stats()
    classes = (ClassLeft(each.block_size, each.blocks, each.free + each.cached) for each in stats.classes)
    rings = (
        RingLeft(
            each.name, each.capacity, each.high_water, each.puts, each.gets, each.depth, each.redelivered
        )
        for each in stats.rings
    )
    return tuple(classes), tuple(rings), tuple(pool.check())
