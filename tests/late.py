# SPDX-License-Identifier: Apache-2.0
"""A program that forks while a thread imports what ssm imports late: ``python -m tests.late POOL MODULE``.

By itself, since pytest has imported most of it. Ends with 0 when the child can make the call of its parent's thread.
"""

import asyncio
import os
import signal
import sys
import threading
import time

import ssm


def wait_for_permit(pool):
    """Await one while there is none, as far as the wait."""
    semaphore = pool.semaphore("late", 1)
    semaphore.acquire(0)

    async def wait():
        assert not await semaphore.aacquire(0.01)

    asyncio.run(wait())


CALLS = {
    "numpy": lambda pool: pool.alloc(8).asarray(),
    "ssm.columns": lambda pool: pool.alloc_many(2, 8).lengths,
    "ssm.records": lambda pool: pool.ring("records", 4, dtype="u8"),
    "ssm.semaphore_aio": wait_for_permit,
    "ssm.aio": lambda pool: pool.ring("awaited", 4).aget().close(),
    "multiprocessing.reduction": lambda pool: ssm.Queue(4, pool=pool, name="queue").put(1),
}


def main(name, module):
    pool = ssm.Pool.attach(name)
    assert module not in sys.modules
    thread = threading.Thread(target=CALLS[module], args=(pool,))
    thread.start()
    while module not in sys.modules:
        time.sleep(0)
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        CALLS[module](pool)
        os._exit(0)
    thread.join()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
