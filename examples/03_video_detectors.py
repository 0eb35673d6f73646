# SPDX-License-Identifier: Apache-2.0
"""Video frames to several detectors at once, each its own process; beside it the same through multiprocessing.Queue.

    python 03_video_detectors.py [VIDEO]

Each frame is written into the pool once. `put(keep=True)` hands the same packet to every detector, which looks at
it as a numpy array where it lies; the block comes back when the last of them is done. A queue pickles and copies
each frame for each detector. With a file, PyAV decodes it (pip install av); otherwise frames are made up.
"""

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np

import ssm

SHAPE = (480, 640, 3)
FRAMES = 120

Detector = Callable[[np.ndarray], float]


def brightness(frame: np.ndarray) -> float:
    return float(frame[::4, ::4].mean())


def edges(frame: np.ndarray) -> float:
    grey = frame[::4, ::4, 1].astype("i2")
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())


def reddest(frame: np.ndarray) -> float:
    return float(np.argmax(frame[::8, ::8, 0].mean(axis=0)))


DETECTORS: dict[str, Detector] = {"brightness": brightness, "edges": edges, "reddest": reddest}


def frames_of(path: str | None) -> Iterator[np.ndarray]:
    if path is not None:
        import av

        with av.open(path) as video:
            for picture in video.decode(video=0):
                yield picture.to_ndarray(format="rgb24", width=SHAPE[1], height=SHAPE[0])
        return
    background = np.random.default_rng(0).integers(0, 80, SHAPE, dtype="u1")
    for number in range(FRAMES):
        frame = background.copy()
        left = number * 5 % (SHAPE[1] - 40)
        frame[200:280, left : left + 40] = (255, 120, 30)  # a square that wanders
        yield frame


# ---- ssm ------------------------------------------------------------------------------------------


def detect(ring: ssm.Ring, name: str, found: multiprocessing.SimpleQueue) -> None:
    with ring.pool:
        found.put((name, [DETECTORS[name](packet.asarray("u1", SHAPE)) for packet in ring]))


def with_ssm(frames: Iterable[np.ndarray], spawn: multiprocessing.context.SpawnContext) -> tuple[dict, float]:
    size = int(np.prod(SHAPE))
    with ssm.Pool.create("video-detectors", classes={1 << 20: 16}, ephemeral=True) as pool:
        rings = [pool.ring(name, capacity=8) for name in DETECTORS]
        found = spawn.SimpleQueue()
        crew = [spawn.Process(target=detect, args=(ring, ring.name, found)) for ring in rings]
        for process in crew:
            process.start()
        while sum(holder.kind == "process" for holder in pool.holders()) < len(crew) + 1:
            time.sleep(0.01)  # start-up is not what is measured
        start = time.perf_counter()
        for frame in frames:
            packet = pool.alloc(size, timeout=None)  # waits for a detector that is behind
            packet.asarray("u1", SHAPE)[:] = frame
            for ring in rings[:-1]:
                ring.put(packet, keep=True)
            rings[-1].put(packet)
        for ring in rings:
            ring.shutdown()
        results = dict(found.get() for _ in crew)
        seconds = time.perf_counter() - start
        for process in crew:
            process.join()
    return results, seconds


# ---- multiprocessing.Queue -----------------------------------------------------------------------


def detect_queued(queue: multiprocessing.Queue, name: str, found: multiprocessing.SimpleQueue, ready) -> None:
    ready.wait()
    values = []
    while (frame := queue.get()) is not None:
        values.append(DETECTORS[name](frame))
    found.put((name, values))


def with_queue(
    frames: Iterable[np.ndarray], spawn: multiprocessing.context.SpawnContext
) -> tuple[dict, float]:
    queues = {name: spawn.Queue(8) for name in DETECTORS}
    found, ready = spawn.SimpleQueue(), spawn.Barrier(len(queues) + 1)
    arguments = [(queue, name, found, ready) for name, queue in queues.items()]
    crew = [spawn.Process(target=detect_queued, args=each) for each in arguments]
    for process in crew:
        process.start()
    ready.wait()
    start = time.perf_counter()
    for frame in frames:
        for queue in queues.values():
            queue.put(frame)
    for queue in queues.values():
        queue.put(None)
    results = dict(found.get() for _ in crew)
    seconds = time.perf_counter() - start
    for process in crew:
        process.join()
    return results, seconds


def main(path: str | None) -> None:
    spawn = multiprocessing.get_context("spawn")
    frames = list(frames_of(path))
    ours, ours_seconds = with_ssm(frames, spawn)
    theirs, theirs_seconds = with_queue(frames, spawn)
    assert ours == theirs, "the detectors saw different frames"
    for name, values in ours.items():
        print(f"{name:<12} {len(values):>5} frames, mean {np.mean(values):8.2f}")
    print(f"ssm                   {len(frames) / ours_seconds:>8,.0f} frames/s to {len(DETECTORS)} detectors")
    print(f"multiprocessing.Queue {len(frames) / theirs_seconds:>8,.0f} frames/s")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
