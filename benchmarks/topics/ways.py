# SPDX-License-Identifier: Apache-2.0
"""The ways from one process to many: ours, iceoryx2's and the standard library's, behind one small interface.

A publisher takes a number, which is written into the first and the last eight bytes of a packet. A subscriber waits for
a moment at most, and returns the number of the next packet, TORN, or None. With `frame` the publisher writes all
bytes of each packet; without, none but the numbers.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import queue
import secrets
import shutil
import struct
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.peers.ways import CONTEXT

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    Publish = Callable[[int], object]
    Take = Callable[[], int | None]

NUMBER = struct.Struct("<Q")
TORN = -1  # the two numbers of a packet differ
PATIENCE_S = 0.05  # of a subscriber: then it looks whether it shall leave
NAP_S = 0.0005


class Way:
    """One way from a publisher to subscribers; made in the parent, sent to the others."""

    name: ClassVar[str]
    module: ClassVar[str | None] = None  # that has to be there
    ours: ClassVar[bool] = False
    lossless: ClassVar[bool] = True  # the publisher waits for subscribers that are full
    settles_s: ClassVar[float] = 0  # until the publisher and those that are there have found each other

    def __init__(self, size: int, depth: int, subscribers: int, frame: np.ndarray[Any, Any] | None) -> None:
        self.size, self.depth, self.subscribers, self.frame = size, depth, subscribers, frame

    @classmethod
    def is_there(cls) -> bool:
        return cls.module is None or importlib.util.find_spec(cls.module) is not None

    def publisher(self) -> Publish:
        raise NotImplementedError

    def subscriber(self, place: int) -> Take:
        """Return what takes packets; `place` tells the subscribers of a way apart that are there from the start."""
        raise NotImplementedError

    def close(self) -> int:
        """End it, in the process that made it, after all others; return how much they have left behind."""
        return 0


# ---- ours ---------------------------------------------------------------------------------------------


class SsmRings(Way):
    """A ring for each subscriber, each of which gets the same packet."""

    name = "ssm, a ring each and keep=True"
    module = "ssm"
    ours = True

    def __init__(self, size: int, depth: int, subscribers: int, frame: np.ndarray[Any, Any] | None) -> None:
        super().__init__(size, depth, subscribers, frame)
        import ssm

        self.pool = ssm.Pool.create(
            f"topics-{secrets.token_hex(8)}",
            sizes={size: 2 * depth + 4 * subscribers + 16},
            holders=64 + 8 * subscribers,
            ephemeral=True,
        )
        self.make()

    def make(self) -> None:
        self.rings = [
            self.pool.ring(f"r{place}", capacity=self.depth, producers="one", consumers="one", peers=False)
            for place in range(self.subscribers)
        ]

    def publisher(self) -> Publish:
        alloc, size, put, behind, frame = self.pool.alloc, self.size, self.put(), self.size - 8, self.frame
        write = NUMBER.pack_into

        def publish(number: int) -> object:
            packet = alloc(size, None)
            if frame is not None:
                packet.asarray("u1", frame.shape)[:] = frame
            write(packet, 0, number)
            write(packet, behind, number)
            return put(packet)

        return publish

    def put(self) -> Callable[[Any], object]:
        *others, last = [ring.put for ring in self.rings]

        def to_all(packet: Any) -> None:
            for put in others:
                put(packet, keep=True)
            last(packet)

        return to_all

    def subscriber(self, place: int) -> Take:
        return self.taking(self.rings[place])

    def taking(self, ring: Any) -> Take:
        from ssm import RingEmpty

        get, read, behind = ring.get, NUMBER.unpack_from, self.size - 8

        def take() -> int | None:
            try:
                packet = get(True, PATIENCE_S)
            except RingEmpty:
                return None
            (number,), same = read(packet, 0), read(packet, behind)
            packet.free()
            return number if number == same[0] else TORN

        return take

    def close(self) -> int:
        """Return how many blocks and rings are left."""
        self.pool.reap()
        blocks = sum(each.blocks - each.free - each.cached for each in self.pool.stats().classes)
        rings = len(self.pool.rings())
        self.pool.close()
        return blocks + rings - self.made

    @property
    def made(self) -> int:
        """How many rings are there with or without subscribers."""
        return self.subscribers


class SsmTopic(SsmRings):
    name = "ssm topic, block"
    overflow = "block"
    made = 1

    def make(self) -> None:
        self.topic = self.pool.topic("t")

    def put(self) -> Callable[[Any], object]:
        return self.topic.publish

    def subscriber(self, place: int) -> Take:
        return self.taking(self.topic.subscribe(self.depth, self.overflow))


class SsmTopicOverwrite(SsmTopic):
    name = "ssm topic, overwrite"
    overflow = "overwrite"
    lossless = False


# ---- iceoryx2 -----------------------------------------------------------------------------------------


class Iceoryx2(Way):
    """Publish and subscribe, used as in benchmarks/peers: a ctypes array, whose type is made once, at the address of
    the payload. Its files have names of their own, so that close() can remove all of them.

    There is no call that waits. A subscriber that finds nothing sleeps for a moment (naps), lets others go first
    (polling), or waits for an event, of which the publisher sends one for each packet.
    """

    module = "iceoryx2"
    settles_s = 0.15  # until then it fills the queue of a subscriber once, and drops what follows

    def __init__(self, size: int, depth: int, subscribers: int, frame: np.ndarray[Any, Any] | None) -> None:
        super().__init__(size, depth, subscribers, frame)
        self.prefix = f"bench{os.getpid()}{secrets.token_hex(4)}_"
        self.root = tempfile.mkdtemp(prefix="iceoryx2-")

    def node(self) -> Any:
        import iceoryx2 as iox2

        iox2.set_log_level(iox2.LogLevel.Fatal)
        config = iox2.config.default()
        config.global_cfg.prefix = iox2.FileName.new(self.prefix)
        config.global_cfg.root_path = iox2.Path.new(self.root)
        return iox2.NodeBuilder.new().config(config).create(iox2.ServiceType.Ipc)

    @property
    def most(self) -> int:
        """How many places there are for subscribers: of those that were killed some are not cleaned up yet."""
        return 2 * self.subscribers + 8

    def service(self, node: Any) -> Any:
        import iceoryx2 as iox2

        return (
            node.service_builder(iox2.ServiceName.new("topic"))
            .publish_subscribe(iox2.Slice[ctypes.c_uint64])
            .enable_safe_overflow(not self.lossless)
            .subscriber_max_buffer_size(self.depth)
            .max_subscribers(self.most)
            .max_publishers(1)
            .max_nodes(2 * self.most)
            .open_or_create()
        )

    def publisher(self) -> Publish:
        import iceoryx2 as iox2

        node = self.node()
        service, words, frame = self.service(node), self.size // 8, self.frame
        publisher = (
            service.publisher_builder()
            .initial_max_slice_len(words)
            .backpressure_strategy(iox2.BackpressureStrategy.RetryUntilDelivered)
            .create()
        )
        loan, at, move = publisher.loan_slice_uninit, (ctypes.c_uint64 * words).from_address, ctypes.memmove
        source = None if frame is None else frame.ctypes.data

        def publish(number: int) -> None:
            sample = loan(words)
            if source is not None:
                move(sample.payload_ptr, source, 8 * words)
            payload = at(sample.payload_ptr)
            payload[0] = payload[-1] = number
            sample.assume_init().send()

        publisher.update_connections()
        publish.kept = node, service, publisher
        return publish

    def subscriber(self, place: int) -> Take:
        node = self.node()
        service = self.service(node)
        subscriber = service.subscriber_builder().create()
        receive, wait = subscriber.receive, self.waiting(node)
        at = (ctypes.c_uint64 * (self.size // 8)).from_address

        def take() -> int | None:
            sample = receive()
            if sample is None:
                wait()
                sample = receive()
                if sample is None:
                    return None
            payload = at(sample.payload_ptr)
            first, last = payload[0], payload[-1]
            sample.delete()
            return first if first == last else TORN

        take.kept = node, service, subscriber
        return take

    def waiting(self, node: Any) -> Callable[[], object]:
        return lambda: time.sleep(NAP_S)

    def close(self) -> int:
        """Return how many files are left in /dev/shm after its own cleaning; then remove them, and all others."""
        try:
            self.node().try_cleanup_dead_nodes()
        finally:
            files = list(Path("/dev/shm").glob(f"{self.prefix}*"))
            for file in files:
                file.unlink(missing_ok=True)
            shutil.rmtree(self.root)
        return len(files)


class IceoryxNaps(Iceoryx2):
    name = "iceoryx2, retry, naps"


class IceoryxPolling(Iceoryx2):
    name = "iceoryx2, retry, polling"

    def waiting(self, node: Any) -> Callable[[], object]:
        return os.sched_yield


class IceoryxEvents(Iceoryx2):
    name = "iceoryx2, retry, events"

    def events(self, node: Any) -> Any:
        import iceoryx2 as iox2

        builder = node.service_builder(iox2.ServiceName.new("topic")).event()
        return builder.max_listeners(self.most).max_nodes(2 * self.most).open_or_create()

    def publisher(self) -> Publish:
        publish, node = super().publisher(), self.node()
        notifier = self.events(node).notifier_builder().create()

        def publish_and_notify(number: int) -> None:
            publish(number)
            notifier.notify()

        publish_and_notify.kept = node, notifier
        return publish_and_notify

    def waiting(self, node: Any) -> Callable[[], object]:
        import iceoryx2 as iox2

        listener = self.events(node).listener_builder().create()
        bound = iox2.Duration.from_millis(int(PATIENCE_S * 1000))
        return lambda: listener.timed_wait(bound)


class IceoryxOverflowNaps(IceoryxNaps):
    name = "iceoryx2, overflow, naps"
    lossless = False


class IceoryxOverflowPolling(IceoryxPolling):
    name = "iceoryx2, overflow, polling"
    lossless = False


class IceoryxOverflowEvents(IceoryxEvents):
    name = "iceoryx2, overflow, events"
    lossless = False


# ---- the standard library -----------------------------------------------------------------------------


class MpQueues(Way):
    """A queue for each: each pickles the array. A new one each time, for the queue's thread reads it later."""

    name = "multiprocessing.Queue each"

    def __init__(self, size: int, depth: int, subscribers: int, frame: np.ndarray[Any, Any] | None) -> None:
        super().__init__(size, depth, subscribers, frame)
        self.queues = [CONTEXT.Queue(depth) for _ in range(subscribers)]

    def publisher(self) -> Publish:
        import numpy as np

        frame = np.zeros(self.size, "u1") if self.frame is None else self.frame
        behind = self.size - 8

        def publish(number: int) -> None:
            copy = frame.copy()
            NUMBER.pack_into(copy, 0, number)
            NUMBER.pack_into(copy, behind, number)
            for each in self.queues:
                each.put(copy)

        return publish

    def subscriber(self, place: int) -> Take:
        get, behind = self.queues[place].get, self.size - 8

        def take() -> int | None:
            try:
                frame = get(True, PATIENCE_S)
            except queue.Empty:
                return None
            number: int = NUMBER.unpack_from(frame, 0)[0]
            return number if number == NUMBER.unpack_from(frame, behind)[0] else TORN

        return take

    def close(self) -> int:
        for each in self.queues:
            each.close()
        return 0


CHURN: tuple[type[Way], ...] = (
    SsmTopic, IceoryxNaps, IceoryxPolling, IceoryxEvents,
    SsmTopicOverwrite, IceoryxOverflowNaps, IceoryxOverflowPolling, IceoryxOverflowEvents,
)  # fmt: skip
VIDEO: tuple[type[Way], ...] = (
    SsmTopic, SsmRings, IceoryxNaps, IceoryxPolling, IceoryxEvents, MpQueues,
)  # fmt: skip
