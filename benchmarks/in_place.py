# SPDX-License-Identifier: Apache-2.0
"""Programs of other projects with our queues and pipes, beside the same programs with multiprocessing's, in one run.

    python -m benchmarks.in_place [--rounds N] [--quick] [--only NAME,...] [--record | --output FILE]

`make bench-neighbours` runs it in an environment that has them all; where one is missing, the table says so. Each run
is a process of its own. Ours and theirs come in turn, round after round, so that a slow minute of the machine falls on
both; the table shows medians.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import logging.handlers
import multiprocessing as mp
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.bench import add_output, machine, measured_on, note, save

if TYPE_CHECKING:
    from collections.abc import Callable

WHOSE = ("ssm", "multiprocessing")
WORKERS = 2
PATIENCE_S = 600


# ---- what is run: each returns how much it did in a second -------------------------------------------------


class Images:
    """A data set of torch: images as a camera has them, and their numbers."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Any:
        return np.full((3, 224, 224), i % 256, "u1"), i


def data_loader(count: int) -> float:
    from torch.utils.data import DataLoader

    loader = DataLoader(Images(count), batch_size=16, num_workers=WORKERS, persistent_workers=True)
    sum(len(numbers) for _, numbers in loader)  # the workers are there
    start = time.perf_counter()
    seen = sum(len(numbers) for _, numbers in loader)
    took = time.perf_counter() - start
    assert seen == count
    return count / took


def make_env() -> Any:
    import gymnasium

    class Screen(gymnasium.Env):  # type: ignore[misc]
        """As games have it: a picture for each step."""

        observation_space = gymnasium.spaces.Box(0, 255, (210, 160, 3), np.uint8)
        action_space = gymnasium.spaces.Discrete(2)
        picture = np.zeros((210, 160, 3), np.uint8)

        def reset(self, **_: Any) -> Any:
            return self.picture, {}

        def step(self, action: Any) -> Any:
            self.picture[0, 0] = action
            return self.picture, 0.0, False, False, {}

    return Screen()


def subproc_vec_env(count: int) -> float:
    from stable_baselines3.common.vec_env import SubprocVecEnv

    envs = SubprocVecEnv([make_env] * WORKERS, start_method="fork")
    envs.reset()
    actions = np.ones(WORKERS, int)
    envs.step(actions)
    start = time.perf_counter()
    for _ in range(count):
        seen = envs.step(actions)[0]
    took = time.perf_counter() - start
    assert seen[-1, 0, 0, 0] == 1
    envs.close()
    return WORKERS * count / took


def log_from(queue: Any, count: int) -> None:
    log = logging.Logger("worker", logging.DEBUG)
    log.addHandler(logging.handlers.QueueHandler(queue))
    for i in range(count):
        log.info("message %d of %s", i, "a worker")


class Counter(logging.Handler):
    seen = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.seen += len(record.getMessage()) > 0


def logging_(count: int) -> float:
    queue, counter = mp.Queue(-1), Counter()
    workers = [mp.Process(target=log_from, args=(queue, count)) for _ in range(WORKERS)]
    listener = logging.handlers.QueueListener(queue, counter)
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    listener.start()
    for worker in workers:
        worker.join()
    listener.stop()
    took = time.perf_counter() - start
    assert counter.seen == WORKERS * count
    return WORKERS * count / took


@dataclass(frozen=True)
class Program:
    """One line of the table."""

    what: str
    unit: str
    run: Callable[[int], float]
    count: int  # of what is done in a run; a tenth of it with --quick
    needs: tuple[str, ...] = ()


PROGRAMS = {
    "data_loader": Program("torch DataLoader, 150 kB each", "images/s", data_loader, 4000, ("torch",)),
    "subproc_vec_env": Program(
        "stable-baselines3 SubprocVecEnv, 100 kB each",
        "steps/s",
        subproc_vec_env,
        2000,
        ("stable_baselines3",),
    ),
    "logging": Program("logging, two processes into one", "records/s", logging_, 20_000),
}


# ---- running them -------------------------------------------------------------------------------------------


def once(name: str, whose: str, count: int) -> float:
    """Run it in a process of its own, which makes the queues and pipes of its choice the ones that programs get."""
    command = [sys.executable, "-m", "benchmarks.in_place", "--run", name, whose, str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=PATIENCE_S, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def run_here(name: str, whose: str, count: int) -> int:
    if whose == "ssm":
        from tests.neighbours.in_place import put_in_place

        put_in_place()
    print(json.dumps(PROGRAMS[name].run(count)))
    return 0


def measure(names: list[str], rounds: int, quick: bool) -> dict[str, list[Any]]:
    results, missing = [], []
    for name in names:
        program = PROGRAMS[name]
        absent = [package for package in program.needs if importlib.util.find_spec(package) is None]
        if absent:
            missing.append({"program": name, "reason": f"{absent[0]} is not installed"})
            continue
        runs: dict[str, list[float]] = {whose: [] for whose in WHOSE}
        for turn in range(rounds):
            for whose in WHOSE:
                note(f"round {turn + 1} of {rounds}: {name}, {whose}")
                runs[whose].append(once(name, whose, program.count // (10 if quick else 1)))
        note("")
        results += [
            {
                "program": name,
                "what": program.what,
                "with": whose,
                "unit": program.unit,
                "runs": runs[whose],
                "median": statistics.median(runs[whose]),
            }
            for whose in WHOSE
        ]
    return {"results": results, "missing": missing}


def markdown(document: dict[str, Any]) -> str:
    lines = [
        measured_on(document, "make bench-neighbours"),
        "",
        "| | with | a second | from | to |",
        "|---|---|--:|--:|--:|",
    ]
    for result in document["results"]:
        low, high = min(result["runs"]), max(result["runs"])
        figures = f"{result['median']:,.0f} {result['unit'].partition('/')[0]} | {low:,.0f} | {high:,.0f}"
        lines.append(f"| {result['what']} | {result['with']} | {figures} |")
    lines += [f"- {PROGRAMS[each['program']].what}: {each['reason']}" for each in document["missing"]]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work in each run")
    parser.add_argument("--only", help=f"of {', '.join(PROGRAMS)}; comma-separated")
    parser.add_argument("--run", nargs=3, metavar=("NAME", "WHOSE", "COUNT"), help="one run, in this process")
    add_output(parser)
    args = parser.parse_args(argv)
    if args.run:
        return run_here(args.run[0], args.run[1], int(args.run[2]))
    names = args.only.split(",") if args.only else list(PROGRAMS)
    unknown = [name for name in names if name not in PROGRAMS]
    if unknown:
        parser.error(f"there is no program {unknown[0]!r}; there are {', '.join(PROGRAMS)}")
    about = machine(None)
    document = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": about,
        **measure(names, args.rounds, args.quick),
    }
    print(markdown(document))
    save(document, args, "in_place")
    return 0


if __name__ == "__main__":
    sys.exit(main())
