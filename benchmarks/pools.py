# SPDX-License-Identifier: Apache-2.0
"""Three tasks for several processes, each as a program with ssm.Pipeline and with four kinds of process pools.

What the programs of a task share stands first; each program is a function of its own, with what it alone needs. Lines
are those of both (`Way.lines`). Each returns what it found, which must be the same; processes are started and ended in
each run. `benchmarks.pipelines` measures them.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import io
import itertools
import multiprocessing
import re
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

import ssm
from benchmarks.lines import code_lines
from ssm.pipeline import current_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

WORKERS = 2
CONTEXT = multiprocessing.get_context("forkserver")


def package(name: str) -> Any:
    """Import what may not be installed."""
    return importlib.import_module(name)


# ---- images: thumbnails and hashes, in Parquet ----------------------------------------------------------------

ROWS = 32  # of one write


def prepare_images(count: int, folder: Path) -> Path:
    images = folder / f"images-{count}"
    if not images.exists():
        images.mkdir()
        dice = np.random.default_rng(0)
        for number in range(count):
            picture = dice.integers(0, 256, (60, 80, 3), "u1").repeat(8, axis=0).repeat(8, axis=1)
            package("PIL.Image").fromarray(picture).save(images / f"{number:05}.jpg")
    return images


def files(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.glob("*.jpg"))


def thumbnail(path: Path) -> tuple[str, bytes, bytes]:
    data = path.read_bytes()
    image, small = package("PIL.Image").open(io.BytesIO(data)), io.BytesIO()
    image.thumbnail((128, 128))
    image.save(small, "jpeg")
    return path.name, hashlib.sha256(data).digest(), small.getvalue()


class Table:
    """Writes rows to Parquet."""

    def __init__(self, folder: Path) -> None:
        pa: Any = package("pyarrow")
        self.schema = pa.schema([("name", pa.string()), ("sha256", pa.binary()), ("thumbnail", pa.binary())])
        self.file = package("pyarrow.parquet").ParquetWriter(folder / "table.parquet", self.schema)
        self.rows = 0

    def __call__(self, rows: Iterable[Any]) -> None:
        columns = list(zip(*rows, strict=True))
        self.file.write_table(package("pyarrow").table(columns, schema=self.schema))
        self.rows += len(columns[0])

    def close(self) -> int:
        self.file.close()
        return self.rows


def written(table: Table, rows: Iterable[Any]) -> int:
    """Write rows as they come; return how many these were."""
    rows = iter(rows)
    while batch := list(itertools.islice(rows, ROWS)):
        table(batch)
    return table.close()


def images_ssm(folder: Path) -> int:
    pipe = ssm.Pipeline("thumbnails")
    pipe.chain(files, (thumbnail, WORKERS), (partial(Table, folder), {"batch": ROWS}))
    report = pipe.run(folder)
    assert report.exact, report
    return int(report.results["Table"][0])


def images_pool(folder: Path) -> int:
    with CONTEXT.Pool(WORKERS) as pool:
        return written(Table(folder), pool.imap_unordered(thumbnail, files(folder), chunksize=4))


def images_futures(folder: Path) -> int:
    with ProcessPoolExecutor(WORKERS, CONTEXT) as pool:
        return written(Table(folder), pool.map(thumbnail, files(folder), chunksize=4))


def images_mpire(folder: Path) -> int:
    with package("mpire").WorkerPool(WORKERS, start_method="forkserver") as pool:
        return written(Table(folder), pool.imap_unordered(thumbnail, list(files(folder)), chunk_size=4))


def images_joblib(folder: Path) -> int:
    joblib = package("joblib")
    pool = joblib.Parallel(WORKERS, batch_size=4, return_as="generator")
    return written(Table(folder), pool(map(joblib.delayed(thumbnail), files(folder))))


# ---- frames of 1080p from one source, results in order --------------------------------------------------------

SHAPE = (1080, 1920, 3)
SIZE = SHAPE[0] * SHAPE[1] * SHAPE[2]


def fill(frame: np.ndarray, number: int) -> np.ndarray:
    """Write a frame, as a decoder does."""
    frame[:] = number % 100
    frame[500:580, number * 10 % 1800 :][:, :80] = 250
    return frame


def decoded(count: int) -> Iterator[np.ndarray]:
    yield from (fill(np.empty(SHAPE, "u1"), number) for number in range(count))


def find(frame: np.ndarray) -> float:
    """Return where the square is."""
    return float(np.argmax(frame[540, ::4, 0])) * 4


def camera(count: int) -> Iterator[ssm.Packet]:
    for number in range(count):
        packet = current_worker().alloc(SIZE)
        fill(packet.asarray("u1", SHAPE), number)
        yield packet


def find_in_packet(packet: ssm.Packet) -> float:
    return find(packet.asarray("u1", SHAPE))


class Found:
    def __init__(self) -> None:
        self.found: list[float] = []

    def __call__(self, column: float) -> None:
        self.found.append(column)

    def close(self) -> list[float]:
        return self.found


def frames_ssm(count: int) -> list[float]:
    pipe = ssm.Pipeline("frames")
    frames = pipe.ring("frames", capacity=8, size=SIZE)
    found = pipe.ring("found", objects=True)
    pipe.source(frames)(camera)
    pipe.stage(frames, found, workers=WORKERS, ordered=True)(find_in_packet)
    pipe.sink(found)(Found)
    report = pipe.run(count)
    assert report.exact, report
    return list(report.results["Found"][0])


def frames_pool(count: int) -> list[float]:
    with CONTEXT.Pool(WORKERS) as pool:
        return list(pool.imap(find, decoded(count)))


def frames_futures(count: int) -> list[float]:
    with ProcessPoolExecutor(WORKERS, CONTEXT) as pool:
        return list(pool.map(find, decoded(count)))


def frames_mpire(count: int) -> list[float]:
    with package("mpire").WorkerPool(WORKERS, start_method="forkserver") as pool:
        return list(pool.imap(find, zip(decoded(count)), iterable_len=count, chunk_size=1))


def frames_joblib(count: int) -> list[float]:
    joblib = package("joblib")
    pool = joblib.Parallel(
        WORKERS, batch_size=1, max_nbytes=None
    )  # else a file for each frame, kept until the end
    return list(pool(map(joblib.delayed(find), decoded(count))))


# ---- lines of a log, counted by what they say -------------------------------------------------------------------

LINE = re.compile(rb"(\S+) \S+ \S+ \[([^\]]+)\] \"(\S+) (\S+) \S+\" (\d{3}) (\d+)")
CHUNK = 256  # lines at a time


def prepare_log(count: int, folder: Path) -> Path:
    log = folder / f"log-{count}"
    if not log.exists():
        line = '10.0.{}.{} - - [30/Nov/2026:10:00:{:02} +0000] "{} /a/{} HTTP/1.1" {} {}\n'
        log.write_text(
            "".join(
                line.format(
                    n // 256 % 256,
                    n % 256,
                    n % 60,
                    ("GET", "POST")[n % 7 == 0],
                    n,
                    (200, 404)[n % 11 == 0],
                    n * 37,
                )
                for n in range(count)
            )
        )
    return log


def lines(log: Path) -> Iterator[bytes]:
    with log.open("rb") as file:
        yield from file


def parse(line: bytes) -> bytes:
    """Return method and status of a line."""
    match = LINE.match(line)
    assert match is not None
    return match[3] + b" " + match[5]


def blocks(log: Path) -> Iterator[list[bytes]]:
    source = lines(log)
    while block := list(itertools.islice(source, CHUNK)):
        yield block


def parse_block(block: list[bytes]) -> list[bytes]:
    return list(map(parse, block))


class Count:
    def __init__(self) -> None:
        self.counts: Counter[bytes] = Counter()

    def __call__(self, parsed: list[bytes]) -> None:
        self.counts.update(parsed)

    def close(self) -> Counter[bytes]:
        return self.counts


def log_ssm(log: Path) -> Counter[bytes]:
    pipe = ssm.Pipeline("log").chain(blocks, (parse_block, WORKERS), Count)
    report = pipe.run(log)
    assert report.exact, report
    return Counter(report.results["Count"][0])


def log_pool(log: Path) -> Counter[bytes]:
    with CONTEXT.Pool(WORKERS) as pool:
        return Counter(pool.imap_unordered(parse, lines(log), chunksize=CHUNK))


def log_futures(log: Path) -> Counter[bytes]:
    with ProcessPoolExecutor(WORKERS, CONTEXT) as pool:
        return Counter(pool.map(parse, lines(log), chunksize=CHUNK))


def log_mpire(log: Path) -> Counter[bytes]:
    with package("mpire").WorkerPool(WORKERS, start_method="forkserver") as pool:
        return Counter(pool.imap_unordered(parse, list(lines(log)), chunk_size=CHUNK))


def log_joblib(log: Path) -> Counter[bytes]:
    joblib = package("joblib")
    pool = joblib.Parallel(WORKERS, batch_size=CHUNK)
    return Counter(pool(map(joblib.delayed(parse), lines(log))))


# ---- all of them ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """One program of a task."""

    run: Callable[[Any], Any]
    alone: tuple[Any, ...] = ()
    """What it alone needs."""

    @property
    def lines(self) -> int:
        return sum(code_lines(inspect.getsource(each)) for each in (self.run, *self.alone))


@dataclass(frozen=True, eq=False)
class Task:
    """One task, and its programs by what runs them."""

    what: str
    count: int
    unit: str
    prepare: Callable[[int, Path], Any]
    """Makes what the programs get."""
    ways: dict[str, Way]
    needs: tuple[str, ...] = ()

    @property
    def there(self) -> dict[str, Way]:
        """The programs whose packages are installed."""
        if not all(map(importlib.util.find_spec, self.needs)):
            return {}
        return {name: way for name, way in self.ways.items() if importlib.util.find_spec(PACKAGES[name])}


PACKAGES = {
    "ssm.Pipeline": "ssm",
    "multiprocessing.Pool": "multiprocessing",
    "ProcessPoolExecutor": "concurrent",
    "mpire": "mpire",
    "joblib": "joblib",
}
OURS = "ssm.Pipeline"


def _ways(*ways: Way) -> dict[str, Way]:
    return dict(zip(PACKAGES, ways, strict=True))


TASKS = (
    Task(
        "images to thumbnails and hashes, in Parquet",
        600,
        "images/s",
        prepare_images,
        _ways(Way(images_ssm), *map(Way, (images_pool, images_futures, images_mpire, images_joblib))),
        ("PIL", "pyarrow"),
    ),
    Task(
        "1080p frames of one source, results in order",
        300,
        "frames/s",
        lambda count, _: count,
        _ways(
            Way(frames_ssm, (camera, find_in_packet, Found)),
            Way(frames_pool, (decoded,)),
            Way(frames_futures, (decoded,)),
            Way(frames_mpire, (decoded,)),
            Way(frames_joblib, (decoded,)),
        ),
    ),
    Task(
        "lines of a log, parsed and counted",
        100_000,
        "lines/s",
        prepare_log,
        _ways(
            Way(log_ssm, (blocks, parse_block, Count)),
            *map(Way, (log_pool, log_futures, log_mpire, log_joblib)),
        ),
    ),
)


def after_a_run() -> None:
    """End workers that joblib keeps for the next run: others start theirs anew, too."""
    if importlib.util.find_spec("joblib"):
        package("joblib.externals.loky").get_reusable_executor().shutdown(wait=True)
