# SPDX-License-Identifier: Apache-2.0
"""Does the rest go on when a process is killed? A sender or a receiver gets SIGKILL, another takes its place.

    build/peers/bin/python -m benchmarks.peers.deaths [--kills 50] [--only NAME,NAME]

Each kill has a peer and two processes of its own: messages flow, one of the two is killed at a random moment, a new
process is started in its place with the same peer. If twice as many messages as can be under way do not arrive within
some seconds, it is stuck. Says nothing of messages that were lost or torn: those that carry no more than bytes cannot.
"""

from __future__ import annotations

import argparse
import ctypes
import random
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks.bench import note
from benchmarks.peers.crew import MODULES
from benchmarks.peers.ways import CONTEXT, DEPTH, PEERS, Peer

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

SIZE = 1500
FLOWS = 4 * DEPTH  # messages, after which both ends have long been at work
STARTS_S, PATIENCE_S = 20, 3
SIDES = ("sender", "receiver")


def work(side: str, peer: Peer, received: Any) -> None:
    """Send or receive until killed; the receiver counts calls."""
    if side == "sender":
        send = peer.sender()
        time.sleep(peer.settles_s)
        while True:
            send()
    receive = peer.receiver()
    while True:
        receive()
        received.value += 1


def start(side: str, peer: Peer, received: Any) -> BaseProcess:
    process = CONTEXT.Process(target=work, args=(side, peer, received), daemon=True)
    process.start()
    return process


def reaches(received: Any, count: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while received.value < count and time.monotonic() < deadline:
        time.sleep(0.001)
    return bool(received.value >= count)


def goes_on(kind: type[Peer], victim: str) -> bool:
    """Kill the victim of two processes and start another; whether messages arrive again."""
    peer = kind(SIZE)
    received = CONTEXT.RawValue(ctypes.c_uint64)
    crew = {side: start(side, peer, received) for side in reversed(SIDES)}
    try:
        if not reaches(received, FLOWS, STARTS_S):
            raise SystemExit(f"{kind.name}: nothing arrives, nobody was killed")
        time.sleep(random.uniform(0, 0.005))
        crew[victim].kill()
        crew[victim].join()
        before = received.value
        crew["new"] = start(victim, peer, received)
        return reaches(received, before + 2 * DEPTH, PATIENCE_S)
    finally:
        for process in crew.values():
            process.kill()
            process.join()
        peer.close()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=50, help="of each side (%(default)s)")
    parser.add_argument("--only", help="peers whose names contain one of these, comma-separated")
    args = parser.parse_args(argv)
    wanted = args.only.split(",") if args.only else [""]
    kinds = [kind for kind in PEERS if kind.is_there() and any(part in kind.name for part in wanted)]
    CONTEXT.set_forkserver_preload([*MODULES, __name__])
    print("| | sender killed | stuck | receiver killed | stuck |\n|---|---:|---:|---:|---:|")
    for kind in kinds:
        if kind.batch > 1:
            continue
        row = [kind.name]
        for victim in SIDES:
            stuck = 0
            for kill in range(args.kills):
                note(f"{kind.name}, {victim}: {kill + 1} of {args.kills}, {stuck} stuck")
                stuck += not goes_on(kind, victim)
            row += [str(args.kills), str(stuck)]
        note("")
        print("| " + " | ".join(row) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
