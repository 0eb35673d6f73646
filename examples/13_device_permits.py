# SPDX-License-Identifier: Apache-2.0
"""Permits for a device: at most two processes use it at a time, whatever happens to them.

A machine has a device that bears two users, such as a GPU whose memory holds two models. Each process acquires a permit
of a shared semaphore before it uses the device. One of them is killed while it has its permit: the permit comes back,
and the next process that waits goes on. A semaphore of multiprocessing would have lost it.

python examples/13_device_permits.py [processes]
"""

import multiprocessing as mp
import os
import signal
import sys
import time

import ssm


def use_device(pool_name, number, talk):
    with ssm.Pool.attach(pool_name) as pool:
        gpu = pool.semaphore("gpu", 2)
        with gpu:
            talk.put((number, 2 - gpu.value))  # how many use it, this process included
            time.sleep(60 if number == 0 else 0.02)  # the first one hangs


def main(count=6):
    context = mp.get_context("spawn")
    with ssm.Pool.create("device-permits", ephemeral=True) as pool:
        gpu = pool.semaphore("gpu", 2)
        talk = context.Queue()
        processes = [
            context.Process(target=use_device, args=(pool.name, number, talk)) for number in range(count)
        ]
        for process in processes:
            process.start()
        users = [talk.get() for _ in processes]
        print("served:", len({number for number, _ in users}))
        print("at most two at once:", max(at_once for _, at_once in users) <= 2)
        os.kill(processes[0].pid, signal.SIGKILL)
        for process in processes:
            process.join()
        print("both permits are back:", gpu.acquire(timeout=5) and gpu.acquire(timeout=5))
        gpu.release(2)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
