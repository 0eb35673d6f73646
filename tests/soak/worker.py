# SPDX-License-Identifier: Apache-2.0
"""A worker of the soak: a process that does random things with a pool until it is told to stop, or is killed.

It works by itself, in threads, in asyncio tasks and in forked children; each of them is a life with a log of its own
(books.py). Some of the children are doomed: they die in the middle of some call, at a random instruction of the core
(fuse.py). A kill at a random moment finds less, since Python is mostly at work on something else. What it may meet (a
full ring, an exhausted pool) is no fault; every other exception is, and ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import mmap
import os
import random
import signal
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import ssm
from allocators import ResourceNotAvailable
from tests.soak import commons
from tests.soak.books import HEADER, LIVES, Kind, Log, What, fill, read
from tests.soak.fuse import Fuse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Channels: rings by name, with what they promise and how they are opened; the queue is one more.
RINGS: tuple[tuple[str, Kind, dict[str, Any]], ...] = (
    ("many", Kind.EXACT, {"capacity": 64}),
    ("short", Kind.EXACT, {"capacity": 4}),
    ("one", Kind.EXACT, {"capacity": 16, "producers": "one", "consumers": "one"}),
    ("chains", Kind.EXACT, {"capacity": 16}),
    ("large", Kind.EXACT, {"capacity": 8}),
    ("tasks", Kind.EXACT, {"capacity": 8}),
    ("bulk", Kind.EXACT, {"capacity": 128}),
    ("patient", Kind.EXACT, {"capacity": 4}),
    ("joined", Kind.EXACT, {"capacity": 16}),
    ("again", Kind.AGAIN, {"capacity": 32, "redeliver": True}),
    ("twin", Kind.AGAIN, {"capacity": 32, "redeliver": True}),
    ("next", Kind.AGAIN, {"capacity": 32, "redeliver": True}),
    ("newest", Kind.LOSSY, {"capacity": 8, "overflow": "overwrite"}),
    ("oldest", Kind.LOSSY, {"capacity": 8, "overflow": "drop"}),
)
QUEUE = len(RINGS)
SERVICES = ("ids", "addresses", "pids", "rmids")  # their channels come behind the queue
BY_NAME = {name: number for number, (name, _, _) in enumerate(RINGS)}
SMALL, LARGE, PAGE = (16, 1900), (20_000, 150_000), 4096
PATIENCE_S = 0.2  # of the few calls that wait; most take what is there, or little more
SHORT_S = (0.0, 0.002, 0.02)
LONG_S = (
    3.0  # of the one that waits for a packet in `patient`, and has to be woken: longer than books.LATE_NS
)
DOOMED = 4  # children at a time
BATCH = 6
BULK = 64  # packets in one call, without a line of Python for each: most of such a call's time is spent in the core
HELD, VALUES, VIEWS = 6, 5, 4
FULL = (ssm.RingFull, ssm.PoolExhausted, ssm.QueueExhausted)
REFUSED = (ssm.RingFull, ssm.RingBusy, ssm.ConsumersGone)
EMPTY = (ssm.RingEmpty, ssm.RingBusy, ssm.ProducersGone)
NOTHING = (
    *(*EMPTY, *FULL, ssm.ConsumersGone, ResourceNotAvailable),
    *(ssm.HoldersExhausted, ssm.MetadataExhausted),
)
# Done wrong on purpose, so that the books can be seen to find it.
BUGS = (
    *("lose", "twice", "tear", "swap", "grant", "undone", "hang", "keep"),
    *("permit", "unpublished", "task", "stay", "row"),
)


class Board:
    """Shared by supervisor and workers: words that say stop, and calm; for each worker, one that counts its deeds."""

    WORKERS = 64

    def __init__(self, folder: Path) -> None:
        path = folder / "board"
        if not path.exists():
            path.write_bytes(bytes(8 * (2 + self.WORKERS)))
        with path.open("r+b") as file:
            self.words = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")

    def say_stop(self, stop: bool) -> None:
        self.words[0] = stop

    @property
    def stop(self) -> bool:
        return self.words[0] != 0

    def say_calm(self, calm: bool) -> None:
        self.words[1] = calm

    @property
    def calm(self) -> bool:
        """Nobody is to die."""
        return self.words[1] != 0

    def count(self, place: int) -> None:
        self.words[2 + place] = (self.words[2 + place] + 1) & (1 << 63) - 1

    def counted(self, place: int) -> int:
        return self.words[2 + place]


def open_rings(pool: ssm.Pool) -> list[ssm.Ring]:
    return [pool.ring(name, **options) for name, _, options in RINGS]


def open_services(pool: ssm.Pool) -> list[Any]:
    return [
        pool.ids("ids", 0, 39, reclaim=True),
        pool.addresses("addresses", 0, 64 * PAGE, ranges=64, reclaim=True),
        pool.pids("pids", order=1, reclaim=True),
        pool.rmids("rmids", 24, 100_000, reclaim=True),
    ]


def open_queue(pool: ssm.Pool) -> ssm.Queue[tuple[int, bytes]]:
    return ssm.Queue(12, pool=pool, name="queue")


@dataclass(frozen=True)
class Order:
    """What a worker is told."""

    name: str  # of the pool
    folder: str  # of the logs
    number: int  # no other worker ever has it
    place: int  # on the board
    seed: int
    bugs: frozenset[str]
    fuse: str | None  # the library of fuse.py
    parent: int


class Life:
    """One thread's hands."""

    def __init__(self, worker: Worker, life: int) -> None:
        self.worker, self.rng = worker, random.Random(f"{worker.seed} {life}")
        self.log = Log(worker.folder, life, self.begun)
        self.calls_left = 0  # of one that is doomed
        self.held: list[ssm.Packet] = []
        self.views: list[memoryview] = []  # of packets that were freed
        self.values: list[tuple[int, Any, int]] = []  # which service, the value, its number
        self.permits: list[int] = []  # by serial
        self.rows: dict[int, int] = {}  # of the board, as they were seen

    def patience(self) -> float:
        return PATIENCE_S if self.rng.random() < 0.1 else self.rng.choice(SHORT_S)

    def doom(self) -> None:
        """Soon it dies in a call."""
        self.log.note(What.DOOMED)
        self.calls_left = self.rng.randint(1, 25)

    def begun(self) -> None:
        """A call comes next. Of one that is doomed: is it the last one?"""
        if self.calls_left == 0:
            return
        self.calls_left -= 1
        if self.calls_left == 0:
            self.worker.fuse.start(self.rng)

    # -- putting

    def packet(self, size: tuple[int, int], serial: int) -> ssm.Packet:
        length, patience = self.rng.randint(*size), self.patience()
        self.begun()
        packet = self.worker.pool.alloc(length, timeout=patience)
        self.write(packet, serial)
        return packet

    def write(self, packet: ssm.Packet, serial: int) -> None:
        with memoryview(packet) as view:
            fill(view, serial)
            if self.worker.slips("tear", self.rng):
                view[-1] ^= 1

    def put(self, channel: int, packets: Sequence[ssm.Packet], serials: Sequence[int]) -> None:
        """All of them; what a full ring refuses is freed."""
        ring, rng = self.worker.rings[channel], self.rng
        self.log.note(What.PUT, channel, serials)
        try:
            if len(packets) > 1:
                placed = ring.put_many(list(packets), timeout=self.patience())
            else:
                placed = int(ring.put(packets[0], timeout=self.patience()))
        except REFUSED:
            self.log.note(What.REFUSED, channel, serials)
            for packet in packets:
                packet.free()
            return
        if self.worker.slips("lose", rng) and RINGS[channel][1] is Kind.EXACT:
            self.log.note(What.PUT, channel, [serial := self.log.serial()])
            serials, placed = [*serials[:placed], serial], placed + 1
        self.log.note(What.PLACED, channel, serials[:placed])
        if placed < len(serials):
            self.log.note(What.DROPPED, channel, serials[placed:])

    def put_some(self, channel: int, size: tuple[int, int] = SMALL, most: int = 1) -> None:
        serials = [self.log.serial() for _ in range(self.rng.randint(1, most))]
        packets: list[ssm.Packet] = []
        try:
            for serial in serials:
                packets.append(self.packet(size, serial))
        except ssm.PoolExhausted:
            serials = serials[: len(packets)]
        if self.worker.slips("swap", self.rng):
            packets.reverse()
        if packets:
            self.put(channel, packets, serials)
            if self.worker.slips("twice", self.rng):
                self.worker.rings[channel].put(self.packet(size, serials[0]), timeout=self.patience())

    def put_bulk(self) -> None:
        channel, serials = BY_NAME["bulk"], [self.log.serial() for _ in range(BULK)]
        self.begun()
        with self.worker.pool.alloc_many(BULK, HEADER.size, self.patience()) as batch:
            rows = np.array([(serial, HEADER.size) for serial in serials], "<u8")
            batch.scatter(rows.view("u1"))
            self.log.note(What.PUT, channel, serials)
            try:
                self.worker.rings[channel].put_many(batch, timeout=self.patience())
            except ssm.RingFull:
                self.log.note(What.REFUSED, channel, serials)
            else:
                self.log.note(What.PLACED, channel, serials)

    def put_chain(self) -> None:
        serial = self.log.serial()
        packets = [self.packet(SMALL, serial) for _ in range(self.rng.randint(2, 5))]
        packets[0].chain = packets[1:]
        self.put(BY_NAME["chains"], packets[:1], [serial])

    def put_for_the_patient(self) -> None:
        """One packet at a time: so nobody else's wake-up helps the one that waits for it."""
        channel = BY_NAME["patient"]
        if self.worker.rings[channel].empty():
            self.put_some(channel)

    def fan_out(self) -> None:
        serial = self.log.serial()
        packet = self.packet(SMALL, serial)
        channels = BY_NAME["again"], BY_NAME["twin"]
        for channel in channels:
            self.log.note(What.PUT, channel, [serial])
            try:
                self.worker.rings[channel].put(packet, keep=channel != channels[-1], timeout=self.patience())
            except ssm.RingFull:
                self.log.note(What.REFUSED, channel, [serial])
                if channel == channels[-1]:
                    packet.free()
                continue
            self.log.note(What.PLACED, channel, [serial])

    def put_object(self) -> None:
        serial, queue = self.log.serial(), self.worker.queue
        data = bytearray(self.rng.choice([64, 500, 5_000, 40_000]))
        with memoryview(data) as view:
            fill(view, serial)
        self.log.note(What.PUT, QUEUE, [serial])
        try:
            queue.put((serial, bytes(data)), timeout=self.patience())
        except FULL:
            self.log.note(What.REFUSED, QUEUE, [serial])
            return
        self.log.note(What.PLACED, QUEUE, [serial])

    # -- getting

    def look(self, channel: int, packets: Sequence[ssm.Packet]) -> None:
        """Note what came, and whether it is whole."""
        found, torn = [], []
        for packet in packets:
            for part in (packet, *packet.chain):
                with memoryview(part) as view:
                    serial, whole = read(view)
                if not whole or (found and part is not packet and serial != found[-1][0]):
                    torn.append(serial)
                if part is packet:
                    found.append((serial, packet.redelivered))
        self.log.got(channel, found)
        if torn:
            self.log.note(What.TORN, channel, torn)

    def get_some(self, channel: int, most: int = 1) -> list[ssm.Packet]:
        ring = self.worker.rings[channel]
        count = self.rng.randint(1, most)
        self.log.note(What.GET, channel, count=count)
        try:
            get = ring.get_many if count > 1 else lambda _, timeout: [ring.get(timeout=timeout)]
            packets = list(get(count, timeout=self.patience()))
        except EMPTY:
            packets = []
        self.look(channel, packets)
        return packets

    def get_and_hold(self, channel: int, most: int = 1) -> None:
        """For some time; what is held too long is freed."""
        self.held += self.get_some(channel, most)
        while len(self.held) > HELD:
            self.held.pop(self.rng.randrange(len(self.held))).free()

    def pass_on(self, channel: int) -> None:
        """Out of the ring and into it again, as another one: a block's handle stays what it was."""
        packets = self.get_some(channel, BATCH)
        serials = [self.log.serial() for _ in packets]
        for packet, serial in zip(packets, serials, strict=True):
            self.write(packet, serial)
        if packets:
            self.put(channel, packets, serials)

    def wait_long(self) -> None:
        """For what others put now and then."""
        channel = BY_NAME["patient"]
        self.log.note(What.GET, channel, count=1)
        packets: list[ssm.Packet] = []
        with contextlib.suppress(ssm.RingEmpty):
            packets.append(self.worker.rings[channel].get(timeout=LONG_S))
        self.look(channel, packets)
        for packet in packets:
            packet.free()

    def get_bulk(self) -> None:
        channel = BY_NAME["bulk"]
        self.log.note(What.GET, channel, count=BULK)
        try:
            with self.worker.rings[channel].get_many(BULK, timeout=self.patience()) as batch:
                rows = batch.gather().view("<u8").tolist()
        except ssm.RingEmpty:
            rows = []
        self.log.got(channel, [(serial, False) for serial, _ in rows])
        self.log.note(What.TORN, channel, [serial for serial, size in rows if size != HEADER.size])

    def consume(self, channel: int) -> None:
        """Out of a redelivering ring: done with it only when it is freed."""
        for packet in self.get_some(channel, 3):
            with memoryview(packet) as view:
                serial, _ = read(view)
            if self.rng.random() < 0.3:
                time.sleep(self.rng.random() / 200)
            if self.rng.random() < 0.3:
                self.views.append(memoryview(packet))  # it is done with all the same
            self.log.note(What.FREE, channel, [serial])
            packet.free()
            self.log.note(What.DONE, channel, [serial])
            while len(self.views) > VIEWS:
                self.views.pop(0).release()
            if self.worker.slips("undone", self.rng):
                again = self.packet(SMALL, serial)
                self.worker.rings[channel].put(again, timeout=self.patience())

    def hand_over(self) -> None:
        """Out of one redelivering ring into the next: in one of them it is, whenever its process dies."""
        channel, to = BY_NAME["twin"], BY_NAME["next"]
        for packet in self.get_some(channel, 1):
            with memoryview(packet) as view:
                serial, _ = read(view)
            self.log.note(What.FREE, channel, [serial])
            self.log.note(What.PUT, to, [serial])
            try:
                self.worker.rings[to].put(packet, timeout=self.patience())
            except REFUSED:
                self.log.note(What.REFUSED, to, [serial])
                packet.free()
            else:
                self.log.note(What.PLACED, to, [serial])
            self.log.note(What.DONE, channel, [serial])

    def get_object(self) -> None:
        self.log.note(What.GET, QUEUE, count=1)
        try:
            serial, data = self.worker.queue.get(timeout=self.patience())
        except ssm.RingEmpty:
            self.log.got(QUEUE, [])
            return
        self.log.got(QUEUE, [(serial, False)])
        if read(memoryview(data)) != (serial, True):
            self.log.note(What.TORN, QUEUE, [serial])

    # -- services

    def allocate(self) -> None:
        which = self.rng.randrange(len(SERVICES))
        service, channel = self.worker.services[which], QUEUE + 1 + which
        self.begun()
        if SERVICES[which] == "ids":
            value = number = service.allocate_id()
        elif SERVICES[which] == "addresses":
            value = service.allocate(PAGE, PAGE)
            number = value.start
        elif SERVICES[which] == "pids":
            value = service.allocate()
            number = -1 if value is None else value.number
        else:
            value = number = service.alloc()
        if value is None or (SERVICES[which] == "rmids" and value == 0):
            return
        if self.worker.slips("grant", self.rng):
            number = 3
        self.log.note(What.HAD, channel, [number])
        self.values.append((which, value, number))

    def give(self) -> None:
        which, value, number = self.values.pop(self.rng.randrange(len(self.values)))
        service = self.worker.services[which]
        self.log.note(What.GIVING, QUEUE + 1 + which, [number])
        if SERVICES[which] == "ids":
            service.free_id(value)
        elif SERVICES[which] == "pids":
            value.free()
        else:
            service.free(value)

    def use_services(self) -> None:
        while len(self.values) > self.rng.randint(0, VALUES):
            self.give()
        self.allocate()

    # -- all of it

    def see(self) -> None:
        """Whoever died just now, and is not reaped yet, makes nothing contradict itself."""
        for sentence in self.worker.pool.check():
            raise AssertionError(f"check, at work: {sentence}")

    def reap(self) -> None:
        self.begun()
        self.worker.pool.reap()

    def act(self) -> None:
        """One thing, or nothing where it cannot be done now."""
        self.worker.board.count(self.worker.place)
        many, short, one = BY_NAME["many"], BY_NAME["short"], BY_NAME["one"]
        deeds: list[tuple[int, Callable[[], object]]] = [
            (8, lambda: self.put_some(many, most=BATCH)),
            (8, lambda: self.get_and_hold(many, BATCH)),
            (12, self.put_bulk),
            (12, self.get_bulk),
            (4, lambda: self.put_some(short)),
            (4, lambda: self.get_and_hold(short)),
            (3, lambda: self.put_some(one, most=3)),
            (3, lambda: self.get_and_hold(one, 3)),
            (3, self.put_chain),
            (3, lambda: self.get_and_hold(BY_NAME["chains"])),
            (2, lambda: self.put_some(BY_NAME["large"], LARGE)),
            (2, lambda: self.get_and_hold(BY_NAME["large"])),
            (4, self.fan_out),
            (4, lambda: self.consume(BY_NAME["again"])),
            (4, lambda: self.consume(BY_NAME["twin"])),
            (4, lambda: self.put_some(BY_NAME["newest"], most=3)),
            (2, lambda: self.get_and_hold(BY_NAME["newest"], 3)),
            (4, lambda: self.put_some(BY_NAME["oldest"], most=3)),
            (2, lambda: self.get_and_hold(BY_NAME["oldest"], 3)),
            (4, self.put_object),
            (4, self.get_object),
            (8, self.use_services),
            (6, lambda: self.pass_on(many)),
            (4, lambda: self.pass_on(short)),
            (4, self.put_for_the_patient),
            (4, self.hand_over),
            (4, lambda: self.consume(BY_NAME["next"])),
            (2, self.reap),
            *commons.deeds(self, BY_NAME["joined"]),
        ]
        (deed,) = self.rng.choices([d for _, d in deeds], [w for w, _ in deeds])
        with contextlib.suppress(*NOTHING):
            deed()

    def acts(self, count: int) -> None:
        for _ in range(count):
            if self.worker.board.stop:
                break
            self.act()

    def end(self) -> None:
        """Give back what is in hand."""
        while self.permits:
            commons.use_permits(self)
        while self.values:
            self.give()
        while self.held:
            self.held.pop().free()
        while self.views:
            self.views.pop().release()
        self.log.close()


class Worker:
    """One process."""

    def __init__(self, order: Order) -> None:
        self.name, self.folder, self.number = order.name, Path(order.folder), order.number
        self.place, self.seed, self.bugs = order.place, order.seed, order.bugs
        self.board, self.rng = Board(self.folder), random.Random(order.seed)
        self.fuse = Fuse(order.fuse)
        self.lives = self.written = 0

    def attach(self, pool: ssm.Pool | None = None) -> None:
        self.pool = pool if pool is not None else ssm.Pool.attach(self.name, timeout=5)
        self.open()

    def open(self) -> None:
        """All that is in the pool."""
        self.rings, self.services = open_rings(self.pool), open_services(self.pool)
        self.queue, self.commons = open_queue(self.pool), commons.Commons.open(self.pool)

    def write_row(self, life: Life) -> None:
        """Into the row of its place, which nobody else writes: larger numbers than it ever had."""
        self.written += 1
        if not self.slips("row", self.rng):
            commons.write_row(life, self.place, self.number << 16 | min(self.written, 0xFFFF))
        else:
            life.log.note(What.WROTE, commons.BOARD, [self.number << 16 | 0xFFFF], self.place)

    def slips(self, bug: str, rng: random.Random, often: float = 0.05) -> bool:
        """Is that to be done wrong now?"""
        return bug in self.bugs and rng.random() < often

    def life(self) -> Life:
        self.lives += 1
        return Life(self, self.number << LIVES | self.lives)

    def in_threads(self) -> None:
        lives = [self.life() for _ in range(3)]

        def live(life: Life) -> None:
            life.acts(15)
            life.end()

        threads = [threading.Thread(target=live, args=(life,)) for life in lives]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    async def produce(self, life: Life, count: int) -> None:
        channel = BY_NAME["tasks"]
        for _ in range(count):
            serial = life.log.serial()
            try:
                packet = life.packet(SMALL, serial)
            except ssm.PoolExhausted:
                await asyncio.sleep(0.01)
                continue
            life.log.note(What.PUT, channel, [serial])
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self.rings[channel].aput(packet)
            except TimeoutError:
                life.log.note(What.REFUSED, channel, [serial])
                packet.free()
                continue
            life.log.note(What.PLACED, channel, [serial])

    async def receive(self, life: Life, count: int) -> None:
        channel = BY_NAME["tasks"]
        for _ in range(count):
            life.log.note(What.GET, channel, count=1)
            packets: list[ssm.Packet] = []
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    packets.append(await self.rings[channel].aget())
            life.look(channel, packets)
            for packet in packets:
                packet.free()

    async def in_tasks(self) -> None:
        lives = [self.life() for _ in range(4)]
        async with asyncio.TaskGroup() as tasks:
            for number, life in enumerate(lives):
                tasks.create_task((self.produce if number % 2 else self.receive)(life, 8))
        for life in lives:
            life.end()

    def in_a_child(self) -> None:
        """A forked child, with the pool that it inherited."""
        life_number, parent = self.lives + 1, os.getpid()
        self.lives += 1
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
            return
        die_with(parent)
        with reporting(self.folder, self.number):
            self.open()
            life = Life(self, self.number << LIVES | life_number)
            life.acts(20)
            life.end()
        os._exit(0)

    def in_doomed_children(self, life: Life) -> None:
        """Several at a time, each of which dies in some call."""
        parent, pids = os.getpid(), []
        for number in range(self.lives + 1, self.lives + 1 + DOOMED):
            if pid := os.fork():
                pids.append(pid)
                continue
            die_with(parent)
            with reporting(self.folder, self.number):
                child = Life(self, self.number << LIVES | number)
                child.doom()
                while not self.board.stop or not child.calls_left:
                    child.act()
                child.end()
            os._exit(0)
        self.lives += DOOMED
        for pid in pids:
            self.board.count(self.place)
            os.waitpid(pid, 0)
            if self.rng.random() < 0.3:
                life.see()

    def work(self, pool: ssm.Pool | None) -> None:
        self.attach(pool)
        life = self.life()
        while not self.board.stop:
            draw = self.rng.random()
            if self.place == 0 and self.rng.random() < 0.5:  # one process alone: it has to be woken itself
                self.board.count(self.place)
                life.wait_long()
            elif draw > 0.6 and not self.board.calm and self.lives < (1 << LIVES) - 8:
                self.in_doomed_children(life)
            elif draw < 0.04 and self.lives < (1 << LIVES) - 8:
                self.in_threads()
            elif draw < 0.08 and self.lives < (1 << LIVES) - 8:
                asyncio.run(self.in_tasks())
            elif draw < 0.11 and self.lives < (1 << LIVES) - 8:
                self.in_a_child()
            elif draw < 0.13 and self.lives < (1 << LIVES) - 8:
                life.end()  # goes, and comes again
                self.queue.close()
                self.pool.close()
                self.attach()
                life = self.life()
            else:
                life.acts(5)
            self.write_row(life)
            if self.slips("hang", self.rng):
                time.sleep(3600)
        life.end()
        self.queue.close()
        self.pool.close()


def die_with(parent: int) -> None:
    """With its parent, whatever becomes of that."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


@contextlib.contextmanager
def reporting(folder: Path, number: int) -> Any:
    """An exception is a fault: it is written down, and ends the process."""
    try:
        yield
    except BaseException:
        (folder / f"{number}-{os.getpid()}.fault").write_text(traceback.format_exc())
        os._exit(1)


def main(order: Order, pool: ssm.Pool | None = None) -> None:
    """The process, from its beginning. `pool`: inherited by fork; else it attaches by name."""
    die_with(order.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's
    folder = Path(order.folder)
    with (folder / f"{order.number}.stacks").open("w") as stacks, reporting(folder, order.number):
        faulthandler.register(signal.SIGUSR1, stacks, all_threads=True)
        Worker(order).work(pool)
