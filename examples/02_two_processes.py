# SPDX-License-Identifier: Apache-2.0
"""Two processes, one pool: the ten lines of the README.

python 02_two_processes.py
"""

import multiprocessing as mp

import ssm


def consumer(ring):
    for packet in ring:  # until the ring is shut down and drained
        print(packet.tag, bytes(packet))  # read in place; the block goes back when `packet` does


if __name__ == "__main__":
    with ssm.Pool.create("two-processes", ephemeral=True) as pool:
        ring = pool.ring("frames")
        process = mp.get_context("spawn").Process(target=consumer, args=(ring,))
        process.start()
        for number in range(3):
            packet = pool.alloc(5)
            packet[:] = b"hello"  # written in place
            packet.tag = number
            ring.put(packet)  # handed over, not copied
        ring.shutdown()
        process.join()
