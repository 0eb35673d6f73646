# SPDX-License-Identifier: Apache-2.0
"""Audio blocks in real time, and how late they come: a histogram of the way from one process to another.

    python 04_audio_deadlines.py [SECONDS]

A sound card asks for 128 stereo frames every 2.7 ms; whoever is later than that is heard. The player counts how long
each block took from `put` to `get`, and how many missed the deadline. The source sleeps between blocks, so every
block wakes a sleeping process: this is what one wake-up costs, not throughput.
"""

import multiprocessing
import sys
import time

import numpy as np

import ssm

RATE = 48_000
BLOCK = (128, 2)  # frames, channels
PERIOD_NS = BLOCK[0] * 1_000_000_000 // RATE
TONE_HZ = 440
BUCKETS_US = (10, 20, 50, 100, 200, 500, 1000, PERIOD_NS // 1000)


def play(source: ssm.Ring) -> None:
    late_ns = []
    loudest = 0.0
    for packet in source:
        late_ns.append(time.monotonic_ns() - packet.tag)
        loudest = max(loudest, float(np.abs(packet.asarray("f4", BLOCK)).max()))
    delays = np.array(late_ns) / 1000
    print(f"{len(delays)} blocks of {PERIOD_NS / 1e6:.2f} ms, peak {loudest:.2f}")
    edges = [0, *BUCKETS_US, np.inf]
    for low, high, count in zip(edges, edges[1:], np.histogram(delays, edges)[0], strict=False):
        name = f"{low:>5,.0f} .. {high:,.0f} us" if np.isfinite(high) else f"{low:>5,.0f} us and more"
        print(f"{name:<20} {count:>6} {'#' * int(60 * count / max(len(delays), 1))}")
    misses = int((delays > BUCKETS_US[-1]).sum())
    print(
        f"median {np.median(delays):.0f} us, 99 % within {np.percentile(delays, 99):.0f} us, {misses} deadlines missed"
    )


def main(seconds: float) -> None:
    spawn = multiprocessing.get_context("spawn")
    with ssm.Pool.create("audio-deadlines", classes={2048: 64}, ephemeral=True) as pool:
        ring = pool.ring("blocks", capacity=4, producers="one", consumers="one")
        player = spawn.Process(target=play, args=(ring,))
        player.start()
        while len([holder for holder in pool.holders() if holder.kind == "process"]) < 2:
            time.sleep(0.01)
        due_ns = time.monotonic_ns()
        phase = np.arange(BLOCK[0]) * (2 * np.pi * TONE_HZ / RATE)
        for number in range(int(seconds * 1e9 / PERIOD_NS)):
            packet = pool.alloc(4 * BLOCK[0] * BLOCK[1], timeout=None)
            samples = packet.asarray("f4", BLOCK)
            samples[:] = np.sin(phase + number * (BLOCK[0] * 2 * np.pi * TONE_HZ / RATE))[:, None]
            due_ns += PERIOD_NS
            time.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)
            packet.tag = time.monotonic_ns()
            ring.put(packet)
        ring.shutdown()
        player.join()


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)
