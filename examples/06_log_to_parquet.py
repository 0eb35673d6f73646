# SPDX-License-Identifier: Apache-2.0
"""Log lines to Parquet, with back-pressure: the reader never runs ahead of the writer by more than the ring holds.

    python 06_log_to_parquet.py [LOGFILE [OUTPUT.parquet]]

The reader sends each line as a packet, numbered by its tag; the writer makes row groups of batches. While the disk is
slow the ring fills, and the reader waits: nothing is dropped and nothing piles up. Needs pyarrow.
"""

import sys
import tempfile
from functools import partial
from pathlib import Path

import ssm

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ModuleNotFoundError:
    sys.exit(print("skipped: pyarrow is not installed (pip install pyarrow)"))

SCHEMA = pa.schema([("number", pa.uint64()), ("line", pa.string())])


def read(path):
    if path is not None:
        with Path(path).open("rb") as file:
            yield from (line.rstrip(b"\n") for line in file)
        return
    for number in range(20_000):
        yield b"2026-01-01T00:00:%02dZ INFO request %d took %d ms" % (number % 60, number, number * 7 % 900)


class Write:
    def __init__(self, output):
        self.parquet = pq.ParquetWriter(output, SCHEMA)

    def __call__(self, batch):
        lines = [bytes(packet).decode(errors="replace") for packet in batch]
        self.parquet.write_table(pa.table([batch.tags, lines], schema=SCHEMA))

    def close(self):
        self.parquet.close()


if __name__ == "__main__":
    given = dict(enumerate(sys.argv[1:]))
    with tempfile.TemporaryDirectory() as folder:
        path, output = given.get(0), given.get(1, f"{folder}/lines.parquet")
        pipe = ssm.Pipeline("log-to-parquet")
        ring = pipe.ring("lines", size=500)
        pipe.source(ring)(read)
        pipe.sink(ring, batch=4096, linger=1.0)(partial(Write, output))
        report = pipe.run(path)
        assert report.exact, report
        numbers = pq.read_table(output)["number"].to_pylist()
        assert numbers == list(range(report.rings["lines"].put)), "lines are missing"
        most, size = report.rings["lines"].high_water, Path(output).stat().st_size
        print(f"{len(numbers):,} lines, {size:,} bytes of Parquet; never more than {most} in the ring")
