# SPDX-License-Identifier: Apache-2.0
"""Video frames to several detectors at once, each its own process: python 03_video_detectors.py [VIDEO]

Each frame is written into the pool once; with a file, PyAV decodes it (pip install av), otherwise it is made up. The
same packet goes into the ring of every detector, which looks at it as a numpy array where it lies; the block comes back
when the last of them is done. A queue pickles and copies each frame for each detector: `make bench-topics` compares.
"""

import sys
from functools import partial

import numpy as np

import ssm

SHAPE = (480, 640, 3)


def brightness(frame):
    return float(frame[::4, ::4].mean())


def edges(frame):
    grey = frame[::4, ::4, 1].astype("i2")
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())


def reddest(frame):
    return float(np.argmax(frame[::8, ::8, 0].mean(axis=0)))


def read(path=None):
    if path is None:
        background = np.random.default_rng(0).integers(0, 80, SHAPE, dtype="u1")
        yield from (np.roll(background, 5 * number, axis=1) for number in range(120))
    else:
        import av

        with av.open(path) as video:
            for picture in video.decode(video=0):
                yield picture.to_ndarray(format="rgb24", width=SHAPE[1], height=SHAPE[0])


class Detector:
    def __init__(self, detect):
        self.detect, self.found = detect, []

    def __call__(self, packet):
        self.found.append(self.detect(packet.asarray("u1", SHAPE)))

    def close(self):
        return self.found


if __name__ == "__main__":
    pipe = ssm.Pipeline("video-detectors")
    rings = []
    for detect in (brightness, edges, reddest):
        rings.append(pipe.ring(detect.__name__, capacity=8, size=np.prod(SHAPE)))
        pipe.sink(rings[-1], name=detect.__name__)(partial(Detector, detect))
    pipe.source(rings)(read)
    report = pipe.run(*sys.argv[1:])
    assert report.exact, report
    for name, (found,) in report.results.items():
        print(f"{name:<12} {len(found):>5} frames, mean {np.mean(found):8.2f}")
    print(f"{len(found) / report.seconds:,.0f} frames/s to {len(rings)} detectors, start-up included")
