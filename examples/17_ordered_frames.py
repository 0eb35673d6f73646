# SPDX-License-Identifier: Apache-2.0
"""1080p frames from one source to several workers, and their results in order: python 17_ordered_frames.py [FRAMES]

The source writes each frame of 6 MB into a packet, as a decoder or a camera would; a worker looks at it where it lies,
and sends on what it found. Workers are done in any order, `ordered=True` puts their results in that of the frames.
Nothing of a frame is pickled or copied from process to process.
"""

import sys

import numpy as np

import ssm
from ssm.pipeline import current_worker

SHAPE = (1080, 1920, 3)
pipe = ssm.Pipeline("ordered-frames")
frames = pipe.ring("frames", capacity=8, size=1080 * 1920 * 3)
found = pipe.ring("found", objects=True)


@pipe.source(frames)
def camera(count):
    for number in range(count):
        packet = current_worker().alloc(1080 * 1920 * 3)
        frame = packet.asarray("u1", SHAPE)
        frame[:] = 40
        frame[500:580, 10 * number % 1800 :][:, :80] = 250  # a square that wanders
        yield packet


@pipe.stage(frames, found, workers=2, ordered=True)
def find(packet):
    bright = packet.asarray("u1", SHAPE)[::8, ::8, 0] > 200
    return 8 * float(np.nonzero(bright)[1].mean())


@pipe.sink(found)
class Columns:
    def __init__(self):
        self.columns = []

    def __call__(self, column):
        self.columns.append(column)

    def close(self):
        return self.columns


if __name__ == "__main__":
    report = pipe.run(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
    assert report.exact, report
    (columns,) = report.results["Columns"]
    assert len(columns) == report.rings["frames"].put
    assert all(abs(column - 36 - 10 * number % 1800) < 8 for number, column in enumerate(columns)), columns
    print(f"{len(columns)} frames in order, {len(columns) / report.seconds:,.0f} a second, start-up included")
    print(report.bottleneck)
