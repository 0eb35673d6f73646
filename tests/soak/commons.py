# SPDX-License-Identifier: Apache-2.0
"""What workers of the soak share besides rings and values: permits, a topic, a board, tasks, rings that come and go.

The deeds of a life (worker.py) with them, each of which writes its log before and after; books.py balances that.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ssm
from tests.soak.books import HEADER, POLICIES, What, read

if TYPE_CHECKING:
    from tests.soak.worker import Life

PERMITS, TOPIC, BOARD, GOING = 200, 201, 202, 203  # channels, behind those of rings and services
MOST = 3  # permits
ROWS = 64
HISTORY = 4
GOING_PREFIX = "go-"
TAKEN = 24  # packets of a subscription, at most
OFTEN = 0.3  # of so many deeds, one is done wrong, where that is asked for
HALF = 32  # bits of a row's number; the other half has their complement


@dataclass
class Commons:
    """Opened by each process."""

    permits: ssm.SemaphoreService
    topic: ssm.Topic
    board: ssm.Board

    @classmethod
    def open(cls, pool: ssm.Pool) -> Commons:
        return cls(
            pool.semaphore("permits", MOST),
            pool.topic("news", history=HISTORY),
            pool.board("rows", "<u8", ROWS),
        )


def use_permits(life: Life) -> None:
    """Take one, or give one back. It is in the log for less time than the process has it."""
    permits = life.worker.commons.permits
    if life.permits:
        life.log.note(What.GIVING, PERMITS, [life.permits.pop()])
        permits.release()
        return
    life.begun()
    if permits.acquire(life.patience()):
        life.permits.append(life.log.serial())
        life.log.note(What.HAD, PERMITS, life.permits)
        if life.worker.slips("permit", life.rng, OFTEN):
            life.log.note(What.HAD, PERMITS, [life.log.serial() for _ in range(MOST)])


# ---- the topic ----------------------------------------------------------------------------------------


def publish_some(life: Life) -> None:
    for _ in range(life.rng.randint(1, 4)):
        publish(life)


def publish(life: Life) -> None:
    """PLACED: no subscription was too slow; DROPPED: one may have missed it."""
    serial, patience = life.log.serial(), life.patience()
    packet = life.packet((16, 1900), serial)
    life.log.note(What.PUT, TOPIC, [serial])
    if life.worker.slips("unpublished", life.rng, OFTEN):
        packet.free()
        life.log.note(What.PLACED, TOPIC, [serial])
        return
    since = time.monotonic()
    life.worker.commons.topic.publish(packet, patience)
    in_time = time.monotonic() - since < patience
    life.log.note(What.PLACED if in_time else What.DROPPED, TOPIC, [serial])


def subscribe(life: Life) -> None:
    """For a while."""
    policy = life.rng.randrange(len(POLICIES))
    life.log.note(What.SUBSCRIBED, TOPIC, [life.log.serial()], policy)
    with life.worker.commons.topic.subscribe(8, POLICIES[policy]) as subscription:
        for _ in range(life.rng.randint(1, TAKEN)):
            with contextlib.suppress(ssm.RingEmpty):
                take(life, subscription.get(timeout=life.patience()))


def take(life: Life, packet: ssm.Packet) -> None:
    with packet, memoryview(packet) as view:
        serial, whole = read(view)
    life.log.note(What.GOT, TOPIC, [serial])
    if not whole:
        life.log.note(What.TORN, TOPIC, [serial])


# ---- tasks --------------------------------------------------------------------------------------------


def do_tasks(life: Life, channel: int) -> None:
    """Each is counted when it was dealt with."""
    ring = life.worker.rings[channel]
    for packet in life.get_some(channel, 3):
        with memoryview(packet) as view:
            serial, _ = read(view)
        packet.free()
        life.log.note(What.TASK, channel, [serial])
        if not life.worker.slips("task", life.rng, OFTEN):
            ring.task_done()
        life.log.note(What.TASKED, channel, [serial])


def join(life: Life, channel: int) -> None:
    life.begun()
    life.worker.rings[channel].join(life.patience())


# ---- the board ----------------------------------------------------------------------------------------


def row_of(number: int) -> int:
    """What is written for it: it tells whether it was written as a whole, and is larger for larger ones."""
    return number << HALF | number ^ (1 << HALF) - 1


def number_of(row: int) -> int:
    """The number. AssertionError: a part of it was written."""
    number = row >> HALF
    if row and row != row_of(number):
        raise AssertionError(f"a row of the board was read in part: {row:#x}")
    return number


def write_row(life: Life, place: int, number: int) -> None:
    """One process writes each row, and larger numbers only."""
    if number < 1 << HALF:
        life.log.note(What.WROTE, BOARD, [number], place)
        life.worker.commons.board.array[place] = row_of(number)


def read_rows(life: Life) -> None:
    """What was read once is never older later."""
    for place, row in enumerate(life.worker.commons.board.array.tolist()):
        number = number_of(row)
        before = life.rows.get(place, 0)
        if number < before:
            raise AssertionError(f"row {place} of the board went from {before:#x} back to {number:#x}")
        life.rows[place] = number


# ---- rings that go ------------------------------------------------------------------------------------


def come_and_go(life: Life) -> None:
    """A ring of its own: made, used, and unlinked, sometimes with a packet in it."""
    serial = life.log.serial()
    life.log.note(What.MADE, GOING, [serial])
    ring = life.worker.pool.ring(f"{GOING_PREFIX}{serial:x}", 4)
    with contextlib.suppress(ssm.PoolExhausted):
        for _ in range(life.rng.randint(0, 3)):
            ring.put(life.packet((HEADER.size, 200), serial))
    while ring.qsize() > life.rng.randint(0, 1):
        with ring.get_nowait() as packet, memoryview(packet) as view:
            if read(view) != (serial, True):
                raise AssertionError(f"ring {ring.name} gave another packet")
    if life.worker.slips("stay", life.rng, OFTEN):
        life.log.note(What.UNLINKED, GOING, [serial])
        return
    life.log.note(What.UNLINKING, GOING, [serial])
    ring.unlink()
    ring.close()
    life.log.note(What.UNLINKED, GOING, [serial])


def rings_that_go(pool: ssm.Pool) -> dict[int, str]:
    """Those that are there, by serial."""
    names = [name for name in pool.rings() if name.startswith(GOING_PREFIX)]
    return {int(name.removeprefix(GOING_PREFIX), 16): name for name in names}


def deeds(life: Life, tasks: int) -> list[tuple[int, Any]]:
    """How often, and what."""
    return [
        (6, lambda: use_permits(life)),
        (12, lambda: publish_some(life)),
        (6, lambda: subscribe(life)),
        (3, lambda: life.put_some(tasks, most=3)),
        (4, lambda: do_tasks(life, tasks)),
        (1, lambda: join(life, tasks)),
        (2, lambda: read_rows(life)),
        (4, lambda: come_and_go(life)),
    ]
