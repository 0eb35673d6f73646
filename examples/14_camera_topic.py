# SPDX-License-Identifier: Apache-2.0
"""One camera, many viewers: a topic gives each frame to all of them, without a copy.

A recorder wants every frame and makes the camera wait; a display wants the latest one and overwrites. A third viewer
comes late, begins with the last frames of before, and is killed: the camera does not wait for it, and its frames come
back.

python examples/14_camera_topic.py [frames]
"""

import multiprocessing as mp
import os
import signal
import sys

import numpy as np

import ssm

SHAPE = 48, 64


def view(topic, options, talk):
    with topic.subscribe(**options) as frames:
        talk.send("subscribed")
        seen = [int(frame.asarray("u1", SHAPE)[0, 0]) for frame in frames]
    talk.send(seen)


def start(context, *args):
    talk, other = context.Pipe()
    process = context.Process(target=view, args=(*args, other))
    process.start()
    talk.recv()
    return process, talk


def main(count=40):
    context = mp.get_context("spawn")
    with ssm.Pool.create("camera-topic", sizes={SHAPE[0] * SHAPE[1]: 64}, ephemeral=True) as pool:
        topic = pool.topic("frames", history=4)
        recorder, recorded = start(context, topic, {"capacity": 8})
        display, displayed = start(context, topic, {"capacity": 1, "overflow": "overwrite"})
        late = None
        for number in range(count):
            frame = pool.alloc(SHAPE[0] * SHAPE[1], timeout=None)
            frame.asarray("u1", SHAPE)[:] = number
            topic.publish(frame)
            if number == count // 2:
                late, _ = start(context, topic, {"capacity": 8})
                os.kill(late.pid, signal.SIGKILL)
        topic.shutdown()
        print("the recorder has every frame:", recorded.recv() == list(range(count)))
        shown = displayed.recv()
        print("the display has the last one:", shown[-1] == count - 1 and bool(np.all(np.diff(shown) > 0)))
        for process in (recorder, display, late):
            process.join()
        pool.reap()
        held = sum(ring.depth for ring in pool.stats().rings)
        print("frames that are still kept:", held, "for", topic.subscribers, "subscribers")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
