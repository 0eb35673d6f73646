# SPDX-License-Identifier: Apache-2.0
"""Two containers, one pool: both processes are pid 1 of a PID namespace of their own, and one of them is killed.

    python 08_containers.py

Containers that share /dev/shm share pools. A pid says nothing there: ssm asks the kernel for a lock instead, which goes
away with its process in whatever namespace that lived. Uses unshare(1); says so where that is not permitted.
"""

import os
import shutil
import signal
import subprocess
import sys
import time

import ssm

NAME = "two-containers"
CONTAINER = [
    "unshare",
    "--user",
    "--map-root-user",
    "--pid",
    "--fork",
    "--kill-child",
    sys.executable,
    __file__,
]


def container(role: str) -> None:
    """Runs as pid 1."""
    with ssm.Pool.attach(NAME) as pool:
        jobs, done = pool.ring("jobs"), pool.ring("done")
        if role == "doomed":
            held = jobs.get()
            print(f"doomed: I am pid {os.getpid()} and hold job {held.tag}", flush=True)
            os.kill(
                os.getpid(), signal.SIGSTOP
            )  # pid 1 cannot kill itself; it waits to be killed from outside
            time.sleep(60)
        for packet in jobs:
            packet.tag += 100
            done.put(packet)


def may_unshare() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*CONTAINER[:-2], "true"], capture_output=True, check=False).returncode == 0


def main() -> None:
    if not may_unshare():
        print("skipped: this user may not make PID namespaces here")
        return
    with ssm.Pool.create(NAME, classes={512: 16}, ephemeral=True) as pool:
        jobs, done = pool.ring("jobs", capacity=8), pool.ring("done", capacity=8)
        for number in range(4):
            packet = pool.alloc(100)
            packet.tag = number
            jobs.put(packet)
        doomed = subprocess.Popen([*CONTAINER, "doomed"], stdout=subprocess.PIPE, text=True)
        print(doomed.stdout.readline(), end="")
        worker = subprocess.Popen([*CONTAINER, "worker"])
        print("worker: job", ", ".join(str(done.get().tag - 100) for _ in range(3)))
        pids = [(holder.pid, holder.blocks) for holder in pool.holders() if holder.kind == "process"]
        print(f"(pid, blocks) of the holders, each as its own namespace counts: {pids}")
        doomed.kill()
        doomed.wait()
        doomed.stdout.close()
        deadline = time.monotonic() + 10
        while not (reaped := pool.reap()).processes and time.monotonic() < deadline:
            time.sleep(0.01)  # --kill-child takes a moment
        print(f"after the kill: {reaped.processes} process reaped, {reaped.blocks} block came back")
        jobs.shutdown()
        worker.wait()
        assert pool.check() == []


if __name__ == "__main__":
    container(sys.argv[1]) if len(sys.argv) > 1 else main()
