# SPDX-License-Identifier: Apache-2.0
"""A service that shrinks images: workers in several processes, one of which is killed in the middle of a request.

The request and the reply are packets: the image is not copied on its way there and back. The caller of the request that
was lost with its worker notices nothing but the time that it took; another worker gets it. What a handler raises comes
to the caller as an RpcError.

python examples/15_resize_service.py [images]
"""

import multiprocessing as mp
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import ssm

SHAPE = 64, 64


def shrink(request):
    if len(request) != SHAPE[0] * SHAPE[1]:
        raise ValueError(f"want {SHAPE[0] * SHAPE[1]} bytes, not {len(request)}")
    image = request.asarray("u1", SHAPE)
    if image[0, 0] == 7 and not request.redelivered:
        os.kill(os.getpid(), signal.SIGKILL)  # as a bug in a library would
    # An array is copied into a new packet; a Packet would be handed over.
    return image.reshape(32, 2, 32, 2).mean(axis=(1, 3)).astype("u1")


def work(resize):
    resize.serve(shrink)


def call(pool, resize, number):
    image = pool.alloc(SHAPE[0] * SHAPE[1])
    image.asarray("u1", SHAPE)[:] = number
    with resize.call(image, timeout=30) as reply:  # in asyncio: await resize.acall(image, timeout=30)
        return reply.asarray("u1", (32, 32)).copy()


def main(count=20):
    context = mp.get_context("spawn")
    with ssm.Pool.create("resize-service", sizes={1024: 64, SHAPE[0] * SHAPE[1]: 64}, ephemeral=True) as pool:
        resize = pool.rpc("resize")
        workers = [context.Process(target=work, args=(resize,)) for _ in range(2)]
        for worker in workers:
            worker.start()
        with ThreadPoolExecutor(8) as threads:
            halves = list(threads.map(lambda number: call(pool, resize, number), range(count)))
        print("each call has its reply:", all(np.all(half == n) for n, half in enumerate(halves)))
        try:
            resize.call(b"no image", timeout=30)
        except ssm.RpcError as error:
            print("an error of the handler:", error.kind, "-", error.message)
        resize.shutdown()
        for worker in workers:
            worker.join()
        print("workers killed:", sum(worker.exitcode == -signal.SIGKILL for worker in workers))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
