# SPDX-License-Identifier: Apache-2.0
"""Images to thumbnails and hashes, in Parquet: python 16_thumbnails.py [FOLDER [OUTPUT.parquet]]

Files are listed by one process, shrunk and hashed by others, and written by one more. An image that cannot be read is
put aside with its error, and the rest goes on. Without a folder, images are made up. Needs Pillow and pyarrow.
"""

import hashlib
import io
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

import ssm

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image
except ModuleNotFoundError as missing:
    sys.exit(print(f"skipped: {missing.name} is not installed (pip install pillow pyarrow)"))

SCHEMA = pa.schema([("name", pa.string()), ("sha256", pa.binary(32)), ("thumbnail", pa.binary())])


def make_up(folder):
    noise = np.random.default_rng(0)
    for number in range(40):
        Image.fromarray(noise.integers(0, 256, (240, 320, 3), "u1")).save(f"{folder}/{number:02}.jpg")
    Path(folder, "broken.jpg").write_bytes(b"no image")


def images(folder):
    yield from sorted(path for path in Path(folder).iterdir() if path.suffix in {".jpg", ".jpeg", ".png"})


def thumbnail(path):
    data = path.read_bytes()
    image, small = Image.open(io.BytesIO(data)).convert("RGB"), io.BytesIO()
    image.thumbnail((64, 64))
    image.save(small, "jpeg")
    return {"name": path.name, "sha256": hashlib.sha256(data).digest(), "thumbnail": small.getvalue()}


class Write(pq.ParquetWriter):
    def __call__(self, rows):
        self.write_table(pa.Table.from_pylist(rows, SCHEMA))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made_up:
        folder = sys.argv[1] if len(sys.argv) > 1 else made_up
        output = sys.argv[2] if len(sys.argv) > 2 else f"{made_up}/thumbnails.parquet"
        if folder == made_up:
            make_up(folder)
        shrink = (thumbnail, {"workers": 2, "on_error": "dead"})
        write = (partial(Write, output, SCHEMA), {"batch": 32, "linger": 0.1})
        report = ssm.Pipeline("thumbnails").chain(images, shrink, write).run(folder)
        assert report.exact, report
        table = pq.read_table(output)
        print(
            f"{table.num_rows} images, {table['thumbnail'].nbytes:,} bytes of thumbnails, {len(report.dead)} put aside"
        )
        for letter in report.dead:
            print(letter.reason.splitlines()[-1])
