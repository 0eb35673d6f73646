# SPDX-License-Identifier: Apache-2.0
"""Log lines to Parquet, with back-pressure: readers never run ahead of the writer by more than the ring holds.

    python 06_log_to_parquet.py [LOGFILE [OUTPUT.parquet]]

Two readers split the lines between them and send each as a packet; the writer takes them out in batches and writes
row groups. While the disk is slow the ring fills, `send` waits, and the readers stop reading: nothing is dropped and
nothing piles up. Needs pyarrow; says so where it is missing.
"""

import multiprocessing
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ssm

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ModuleNotFoundError:
    pa = None

READERS = 2
ROWS = 4096  # per row group


def lines_of(path: str | None) -> Iterator[str]:
    if path is not None:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            yield from (line.rstrip("\n") for line in file)
        return
    for number in range(20_000):
        level = ("INFO", "INFO", "WARN", "ERROR")[number % 4]
        yield f"2026-01-01T00:00:{number % 60:02d}Z {level} request {number} took {number * 7 % 900} ms"


def read(ring: ssm.Ring, path: str | None, share: int) -> None:
    for number, line in enumerate(lines_of(path)):
        if number % READERS == share:
            packet = ring.pool.alloc(max(1, len(data := line.encode())), timeout=None)
            packet.truncate(len(data))
            packet[:] = data
            packet.tag = number
            ring.put(packet)


def write(ring: ssm.Ring, output: str) -> None:
    schema = pa.schema([("number", pa.uint64()), ("line", pa.string())])
    numbers, lines = [], []

    def flush() -> None:
        parquet.write_table(pa.table([numbers, lines], schema=schema))
        numbers.clear()
        lines.clear()

    with pq.ParquetWriter(output, schema) as parquet:
        while True:
            try:
                batch = ring.get_many(256)
            except ssm.RingShutDown:
                break
            numbers += batch.tags.tolist()
            lines += [bytes(packet).decode() for packet in batch]
            if len(lines) >= ROWS:
                flush()
        flush()


def main(path: str | None, output: str) -> None:
    if pa is None:
        print("skipped: pyarrow is not installed (pip install pyarrow)")
        return
    spawn = multiprocessing.get_context("spawn")
    with ssm.Pool.create("log-to-parquet", classes={512: 512, 4096: 64, 65536: 16}, ephemeral=True) as pool:
        ring = pool.ring("lines", capacity=256)
        readers = [spawn.Process(target=read, args=(ring, path, share)) for share in range(READERS)]
        writer = spawn.Process(target=write, args=(ring, output))
        for process in (*readers, writer):
            process.start()
        for reader in readers:
            reader.join()
        ring.shutdown()
        writer.join()
        (stats,) = pool.stats().rings
    table = pq.read_table(output)
    expected = sum(1 for _ in lines_of(path))
    assert sorted(table["number"].to_pylist()) == list(range(expected)), "lines are missing"
    print(
        f"{table.num_rows:,} lines, {Path(output).stat().st_size:,} bytes of Parquet; never more than "
        f"{stats.high_water} of {stats.capacity} in the ring"
    )


if __name__ == "__main__":
    given = dict(enumerate(sys.argv[1:]))
    with tempfile.TemporaryDirectory() as folder:
        main(given.get(0), given.get(1, f"{folder}/lines.parquet"))
