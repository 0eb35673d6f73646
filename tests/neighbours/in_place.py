# SPDX-License-Identifier: Apache-2.0
"""Puts ours in the place of multiprocessing's, in every context, before the neighbour is imported.

Children need nothing of it: what they get are queues and ends of pipes.
"""

from __future__ import annotations

import atexit
import concurrent.futures.process
import multiprocessing
import multiprocessing.context
import sys
from typing import Any

import ssm

made = {"Queue": 0, "Pipe": 0}


def queue(*args: Any, **kwargs: Any) -> ssm.Queue[Any]:
    """Make a queue of ours, and count it: a neighbour that went by would prove nothing."""
    made["Queue"] += 1
    return ssm.Queue(*args, **kwargs)


def pipe(duplex: bool = True) -> Any:
    """Make a pipe of ours, and count it."""
    made["Pipe"] += 1
    return ssm.Pipe(duplex)


class CallQueue(ssm.Queue[Any]):
    """What ProcessPoolExecutor calls _SafeQueue: the errors of its feeder thread have no place here, others are set."""

    def __init__(self, max_size: int = 0, *, ctx: object, **_: object) -> None:
        super().__init__(max_size, ctx=ctx)
        made["Queue"] += 1


def put_in_place() -> None:
    """Do so."""
    base: Any = multiprocessing.context.BaseContext
    for name in ("Queue", "JoinableQueue", "SimpleQueue"):
        setattr(base, name, lambda _self, *args, **kwargs: queue(*args, **kwargs))
        setattr(multiprocessing, name, queue)
    base.Pipe = lambda _self, duplex=True: pipe(duplex)
    setattr(multiprocessing, "Pipe", pipe)  # noqa: B010 - no name that types know
    process: Any = concurrent.futures.process
    process._SafeQueue = CallQueue


@atexit.register
def _tell() -> None:
    if multiprocessing.parent_process() is None:
        print(f"queues of ours: {made['Queue']}, pipes of ours: {made['Pipe']}", file=sys.stderr, flush=True)
