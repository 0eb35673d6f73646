# SPDX-License-Identifier: Apache-2.0
"""Pipelines that get Ctrl-C at a random moment, from their start to their end, and whose books must be exact then.

    python -m tests.pipelines.interrupt COLUMN START PACKETS

is what is interrupted: it runs the pipeline of a column and prints its books. It has a session of its own, so that
SIGINT reaches all of its processes as from a terminal: those that multiprocessing starts for itself, too.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.pipelines.columns import COLUMNS, pages, pipeline

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[2]
PACKETS = 10_000
BEYOND = 1.05  # of an undisturbed run: the last signals come when it is over, or nearly
TRIES = 5  # for each signal that counts
PATIENCE_S = 60.0
NOT_BEGUN, EARLY, DRAINED, OVER = (
    "too early",
    "before a packet was sent",
    "while packets were under way",
    "too late",
)


@dataclass
class Interrupts:
    """What came of some runs, each of which got one Ctrl-C."""

    seed: int
    outcomes: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def hits(self) -> int:
        return self.outcomes[EARLY] + self.outcomes[DRAINED]


def trials(
    count: int,
    seed: int,
    start: str = "forkserver",
    packets: int = PACKETS,
    columns: Sequence[str] = tuple(COLUMNS),
) -> Interrupts:
    """Interrupt so many runs, of the columns in turn; a signal before the run, or behind it, does not count."""
    dice = random.Random(f"{seed} interrupts")
    result = Interrupts(seed)
    usual: dict[str, float] = {}  # seconds that a column takes undisturbed
    number = 0
    while result.hits < count and number < TRIES * count and not result.faults:
        column = columns[number % len(columns)]
        if column not in usual:
            usual[column] = _run(column, start, packets, None, result)
        _run(column, start, packets, dice.random() * usual[column] * BEYOND, result)
        number += 1
    if result.hits < count and not result.faults:
        result.faults.append(f"of {number} signals {result.hits} came while a pipeline ran: too few")
    return result


def _run(column: str, start: str, packets: int, delay: float | None, result: Interrupts) -> float:
    """Run the program, interrupt it that many seconds behind its beginning, and return how long it took."""
    command = [sys.executable, "-m", "tests.pipelines.interrupt", column, start, str(packets)]
    with tempfile.TemporaryFile("w+") as errors:
        program = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )
        with program:
            assert program.stdout is not None
            program.stdout.readline()  # it begins
            began = time.monotonic()
            if delay is not None:
                time.sleep(delay)
                os.killpg(program.pid, signal.SIGINT)  # it is not waited for yet, so its id is its own
            try:
                status: int | None = program.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                status = None
                os.killpg(program.pid, signal.SIGKILL)
            took = time.monotonic() - began
            said = program.stdout.read()
        errors.seek(0)
        faults = [*_left(program.pid), *_judge(status, said, errors.read(), packets, delay, result)]
    when = "undisturbed" if delay is None else f"SIGINT behind {delay:.4f} s"
    result.faults += [f"{column}, {when}: {fault}" for fault in faults]
    return took


def _judge(
    status: int | None, said: str, errors: str, packets: int, delay: float | None, result: Interrupts
) -> list[str]:
    """Count what came of a run; return what is wrong."""
    if status is None:
        return [f"it did not end in {PATIENCE_S:g} s"]
    if status or errors:
        return [f"status {status}: {errors}"]
    books: dict[str, Any] = json.loads(said)
    if delay is not None:
        result.outcomes[_outcome(books)] += 1
    result.sent += books.get("sent", 0)
    if not books:
        return [] if delay is not None else ["it did not run"]
    wrong = [f"{sink}: {page}" for sink, page in books["pages"].items() if any(page.values())]
    if not books["exact"]:
        wrong.append(books["text"])
    if books["sent"] != packets and not books["interrupted"]:
        wrong.append(f"{books['sent']} packets of {packets} without an interruption")
    return wrong


def _outcome(books: dict[str, Any]) -> str:
    if not books:
        return NOT_BEGUN
    if not books["interrupted"]:
        return OVER
    return DRAINED if books["sent"] else EARLY


def _left(group: int) -> list[str]:
    """Return what the program left behind; its helpers of multiprocessing may take a moment."""
    left = [path.name for path in Path("/dev/shm").iterdir() if path.name.startswith(_name(group))]
    faults = [f"{', '.join(left)} left in /dev/shm"] if left else []
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return faults
        time.sleep(0.01)
    return [*faults, "processes are left"]


def _name(pid: int) -> str:
    return f"ssm-interrupt-{pid}"


# ---- what is interrupted ------------------------------------------------------------------------------------


def main(column: str, start: str, packets: str) -> None:
    pipe = pipeline(column, _name(os.getpid()), start)
    report = None
    print("begins", flush=True)
    try:
        try:
            report = pipe.run(int(packets))
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:  # right before the run, or right behind it
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    books: dict[str, Any] = {}
    if report is not None:
        books = {
            "exact": report.exact,
            "interrupted": report.interrupted,
            "sent": report.rings["first"].put,
            "pages": {sink: asdict(page) for sink, page in pages(report, COLUMNS[column].sinks).items()},
            "text": str(report),
        }
    print(json.dumps(books))


if __name__ == "__main__":
    main(*sys.argv[1:])
