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


def read(path=None):
    if path:
        with Path(path).open("rb") as file:
            yield from (line.rstrip(b"\n") for line in file)
    else:
        yield from (b"INFO request %d took %d ms" % (number, number * 7 % 900) for number in range(20_000))


class Write(pq.ParquetWriter):
    def __call__(self, batch):
        lines = [bytes(packet).decode(errors="replace") for packet in batch]
        self.write_table(pa.table([batch.tags, lines], schema=SCHEMA))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path, output = (*sys.argv[1:], None, None)[:2]
        output = output or f"{folder}/lines.parquet"
        pipe = ssm.Pipeline("log-to-parquet")
        ring = pipe.ring("lines", size=500)
        pipe.source(ring)(read)
        pipe.sink(ring, batch=4096, linger=1.0)(partial(Write, output, SCHEMA))
        report = pipe.run(path)
        assert report.exact, report
        lines = pq.read_table(output)["number"].to_pylist()
        assert lines == list(range(report.rings["lines"].put)), "lines are missing"
        print(f"{len(lines):,} lines; never more than {report.rings['lines'].high_water} in the ring")
