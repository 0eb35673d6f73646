# SPDX-License-Identifier: Apache-2.0
"""Slots for workers: each takes the smallest free number, and a crash gives its number back.

Workers of one machine often need a small number of their own: an index into a table of counters, a processor to be
pinned to, a port above a base. Here they take it from a shared pid allocator. One is killed: with reclaim=True its slot
comes back, and the worker that is started in its place has the same number.

python examples/11_worker_slots.py [workers]
"""

import multiprocessing as mp
import os
import signal
import sys

import ssm


def work(pool_name, talk):
    with ssm.Pool.attach(pool_name) as pool:
        slots = pool.pids("slots", order=1, reclaim=True)
        with slots.allocate() as slot:
            talk.send(slot.number)
            talk.recv()  # works, until it is told to end


class Worker:
    def __init__(self, context, pool):
        self.talk, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(pool.name, theirs))
        self.process.start()
        self.slot = self.talk.recv()

    def end(self):
        self.talk.send(None)
        self.process.join()

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()


def main(count=4):
    context = mp.get_context("spawn")
    with ssm.Pool.create("worker-slots", ephemeral=True) as pool:
        slots = pool.pids("slots", order=1, reclaim=True)
        workers = [Worker(context, pool) for _ in range(count)]
        print("slots:", *sorted(worker.slot for worker in workers))
        victim = workers.pop(1)
        victim.kill()
        reaped = pool.reap()
        print(f"killed the one with slot {victim.slot}: {reaped.processes} process reaped")
        print("in use:", *(number for number, owner in slots.owned() if owner.alive))
        replacement = Worker(context, pool)
        print(f"its successor has slot {replacement.slot}")
        for worker in [*workers, replacement]:
            worker.end()
        print("left at the end:", slots.owned())


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
