# SPDX-License-Identifier: Apache-2.0
"""The ways from one process to another: ours, the standard library's, and other packages'.

Each is used in the fastest of the ways that it offers, documented or not, behind one small interface; where two ways
are sensible, both are here. The interface: a sender
that takes a message, and a receiver that takes it in, looks at its first and last byte, and lets it go. Those that copy
send the same bytes object each time; those that lend memory write the first and the last byte, or with `fill` all.
At most 64 messages are under way, where the peer lets one say so.
"""

from __future__ import annotations

import ctypes
import importlib.util
import multiprocessing
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable

    Send = Callable[[], object]
    Receive = Callable[[], object]

DEPTH = 64  # messages under way
LONG_S = 3600  # for calls that want a time-out: whoever runs the processes ends them before
CONTEXT = multiprocessing.get_context("forkserver")


class NotPossibleError(Exception):
    """This peer cannot do that here; the message says why."""


def touch(view: Any) -> int:
    return view[0] + view[-1]


class Peer:
    """One way between two processes; made in the parent, sent to the child."""

    name: ClassVar[str]
    module: ClassVar[str | None] = None  # that has to be there
    polls: ClassVar[bool] = False  # the receiver spins; otherwise it sleeps in a call
    lends: ClassVar[bool] = False  # memory to write in and to read from; otherwise it copies
    batch: ClassVar[int] = 1  # messages per call; a receiver of batches returns how many came
    settles_s: ClassVar[float] = 0  # until sender and receiver have found each other

    def __init__(self, size: int, *, fill: bool = False) -> None:
        self.size, self.fill = size, fill
        self.data = bytes(size)

    @classmethod
    def is_there(cls) -> bool:
        return cls.module is None or importlib.util.find_spec(cls.module) is not None

    def sender(self) -> Send:
        raise NotImplementedError

    def receiver(self) -> Receive:
        raise NotImplementedError

    def leave(self) -> None:
        """Let go of it, in either process."""

    def close(self) -> None:
        """End it, in the process that made it."""

    def write(self, view: Any) -> None:
        if self.fill:
            view[:] = self.data
        else:
            view[0] = view[-1] = 1


class Ssm(Peer):
    name = "ssm"
    module = "ssm"
    lends = True

    def __init__(self, size: int, *, fill: bool = False) -> None:
        super().__init__(size, fill=fill)
        import ssm

        blocks = 2 * DEPTH + 64
        self.pool = ssm.Pool.create(f"peers-{uuid.uuid4().hex}", classes={size + 512: blocks}, ephemeral=True)
        self.ring = self.pool.ring("r", capacity=DEPTH, producers="one", consumers="one")

    def sender(self) -> Send:
        alloc, put, size, data = self.pool.alloc, self.ring.put, self.size, self.data
        if self.fill:

            def send() -> None:
                packet = alloc(size, None)
                packet[:] = data
                put(packet)

        else:

            def send() -> None:
                packet = alloc(size, None)
                packet[0] = packet[-1] = 1
                put(packet)

        return send

    def receiver(self) -> Receive:
        get = self.ring.get

        def receive() -> int:
            packet = get()
            return packet[0] + packet[-1]

        return receive

    def close(self) -> None:
        self.pool.close()


class SsmTopic(Ssm):
    """Publish and subscribe, beside iceoryx2's."""

    name = "ssm, topic"

    def __init__(self, size: int, *, fill: bool = False) -> None:
        super().__init__(size, fill=fill)
        self.topic = self.pool.topic("t")
        self.subscription: Any = None

    def sender(self) -> Send:
        alloc, publish, size, fill, data = (
            self.pool.alloc,
            self.topic.publish,
            self.size,
            self.fill,
            self.data,
        )

        def send() -> None:
            packet = alloc(size, None)
            if fill:
                packet[:] = data
            else:
                packet[0] = packet[-1] = 1
            publish(packet)

        return send

    def receiver(self) -> Receive:
        self.subscription = self.topic.subscribe(capacity=DEPTH)
        get = self.subscription.get

        def receive() -> int:
            packet = get()
            return packet[0] + packet[-1]

        return receive

    def leave(self) -> None:
        if self.subscription is not None:
            self.subscription.close()


class SsmPolling(Ssm):
    name = "ssm, polling"
    polls = True

    def receiver(self) -> Receive:
        from ssm import RingEmpty

        get = self.ring.get_nowait

        def receive() -> int:
            while True:
                try:
                    packet = get()
                except RingEmpty:
                    continue
                return packet[0] + packet[-1]

        return receive


class SsmBatch(Ssm):
    """Not touched by either side, but where all is written: a loop over the packets would be what is measured."""

    name = f"ssm, batches of {DEPTH}"
    batch = DEPTH

    def __init__(self, size: int, *, fill: bool = False) -> None:
        super().__init__(size, fill=fill)
        import numpy as np

        self.rows = np.zeros((DEPTH, size), "u1")

    def sender(self) -> Send:
        alloc_many, put_many, size, rows = self.pool.alloc_many, self.ring.put_many, self.size, self.rows

        def send() -> None:
            batch = alloc_many(DEPTH, size, None)
            if self.fill:
                batch.scatter(rows)
            put_many(batch)

        return send

    def receiver(self) -> Receive:
        get_many = self.ring.get_many

        def receive() -> int:
            batch = get_many(DEPTH)
            count = len(batch)
            batch.free()
            return count

        return receive


class MpQueue(Peer):
    name = "multiprocessing.Queue"

    def __init__(self, size: int, *, fill: bool = False) -> None:
        super().__init__(size, fill=fill)
        self.queue = self.make()

    def make(self) -> Any:
        return CONTEXT.Queue(DEPTH)

    def sender(self) -> Send:
        put, data = self.queue.put, self.data
        return lambda: put(data)

    def receiver(self) -> Receive:
        get = self.queue.get
        return lambda: touch(get())


class SsmQueue(MpQueue):
    name = "ssm.Queue"
    module = "ssm"

    def make(self) -> Any:
        import ssm

        return ssm.Queue(DEPTH, classes={self.size + 512: 2 * DEPTH + 64})

    def close(self) -> None:
        self.queue.close()


class MpSimpleQueue(MpQueue):
    name = "multiprocessing.SimpleQueue"

    def make(self) -> Any:
        return CONTEXT.SimpleQueue()


class MpPipe(Peer):
    name = "multiprocessing.Pipe"

    def __init__(self, size: int, *, fill: bool = False) -> None:
        super().__init__(size, fill=fill)
        self.theirs, self.ours = CONTEXT.Pipe(duplex=False)

    def sender(self) -> Send:
        send, data = self.ours.send_bytes, self.data
        return lambda: send(data)

    def receiver(self) -> Receive:
        receive = self.theirs.recv_bytes
        return lambda: touch(receive())

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


class MpPipeInto(MpPipe):
    """Into memory that is there already."""

    name = "multiprocessing.Pipe, recv_bytes_into"

    def receiver(self) -> Receive:
        receive, memory = self.theirs.recv_bytes_into, bytearray(self.size)

        def receive_into() -> int:
            receive(memory)
            return memory[0] + memory[-1]

        return receive_into


class SharedMemoryRing(Peer):
    """What people write by hand: slots in shared_memory, two counters, a loop that looks. Not safe everywhere."""

    name = "shared_memory, hand-made ring"
    polls = True
    lends = True

    def __init__(self, size: int, *, fill: bool = False) -> None:
        super().__init__(size, fill=fill)
        from multiprocessing import shared_memory

        self.memory: Any = shared_memory.SharedMemory(create=True, size=128 + DEPTH * size)
        self.views: list[Any] = []

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "views": []}

    def _parts(self) -> tuple[Any, Any, list[Any]]:
        buffer = self.memory.buf
        head, tail = buffer[0:8].cast("Q"), buffer[64:72].cast("Q")
        slots = [buffer[128 + i * self.size : 128 + (i + 1) * self.size] for i in range(DEPTH)]
        self.views += [head, tail, *slots]
        return head, tail, slots

    def sender(self) -> Send:
        head, tail, slots = self._parts()
        position = head[0]
        write = self.write

        def send() -> None:
            nonlocal position
            while position - tail[0] >= DEPTH:
                pass
            write(slots[position % DEPTH])
            position += 1
            head[0] = position

        return send

    def receiver(self) -> Receive:
        head, tail, slots = self._parts()
        position = tail[0]

        def receive() -> int:
            nonlocal position
            while position == head[0]:
                pass
            slot = slots[position % DEPTH]
            value = slot[0] + slot[-1]
            position += 1
            tail[0] = position
            return value

        return receive

    def leave(self) -> None:
        for view in self.views:
            view.release()
        self.memory.close()

    def close(self) -> None:
        self.leave()
        self.memory.unlink()


def as_it_is(data: Any) -> Any:
    return data


class FasterFifo(Peer):
    """Bytes need no pickle: it takes functions of the caller's own instead."""

    name = "faster-fifo"
    module = "faster_fifo"

    def __init__(self, size: int, *, fill: bool = False) -> None:
        super().__init__(size, fill=fill)
        import faster_fifo

        self.queue = faster_fifo.Queue(
            max_size_bytes=DEPTH * (size + 256), maxsize=DEPTH, dumps=as_it_is, loads=bytes
        )

    def sender(self) -> Send:
        put, data = self.queue.put, self.data
        return lambda: put(data, timeout=LONG_S)

    def receiver(self) -> Receive:
        get = self.queue.get
        return lambda: touch(get(timeout=LONG_S))


class FasterFifoBatch(FasterFifo):
    name = f"faster-fifo, put_many, get_many of {DEPTH}"
    batch = DEPTH

    def sender(self) -> Send:
        put_many, batch = self.queue.put_many, [self.data] * DEPTH
        return lambda: put_many(batch, timeout=LONG_S)

    def receiver(self) -> Receive:
        get_many = self.queue.get_many
        return lambda: len(get_many(timeout=LONG_S, max_messages_to_get=DEPTH))


class PosixIpcQueue(Peer):
    name = "posix_ipc.MessageQueue"
    module = "posix_ipc"

    def __init__(self, size: int, *, fill: bool = False) -> None:
        super().__init__(size, fill=fill)
        import posix_ipc

        self.path = f"/peers-{uuid.uuid4().hex}"
        limit = int(Path("/proc/sys/fs/mqueue/msgsize_max").read_text())
        if size > limit:
            raise NotPossibleError(f"messages of {size} bytes; the kernel's limit is {limit}")
        depth = min(DEPTH, int(Path("/proc/sys/fs/mqueue/msg_max").read_text()))
        posix_ipc.MessageQueue(self.path, posix_ipc.O_CREX, max_messages=depth, max_message_size=size).close()

    def _open(self) -> Any:
        import posix_ipc

        return posix_ipc.MessageQueue(self.path)

    def sender(self) -> Send:
        send, data = self._open().send, self.data
        return lambda: send(data)

    def receiver(self) -> Receive:
        receive = self._open().receive
        return lambda: touch(receive()[0])

    def close(self) -> None:
        import posix_ipc

        posix_ipc.unlink_message_queue(self.path)


class Zmq(Peer):
    """A message is copied into a frame and out of it."""

    name = "pyzmq, PUSH and PULL"
    module = "zmq"
    kinds: ClassVar[tuple[str, str]] = ("PUSH", "PULL")  # sender, receiver

    def __init__(self, size: int, *, fill: bool = False) -> None:
        super().__init__(size, fill=fill)
        self.address = f"ipc:///tmp/peers-{uuid.uuid4().hex}"

    def _socket(self, kind: str) -> Any:
        import zmq

        socket = zmq.Context.instance().socket(getattr(zmq, kind))
        socket.set_hwm(DEPTH)
        socket.linger = 0
        return socket

    def sender(self) -> Send:
        socket, data = self._socket(self.kinds[0]), self.data
        socket.connect(self.address)
        return lambda: socket.send(data)

    def receiver(self) -> Receive:
        socket = self._socket(self.kinds[1])
        socket.bind(self.address)
        return lambda: touch(socket.recv())

    def close(self) -> None:
        Path(self.address.removeprefix("ipc://")).unlink(missing_ok=True)


class ZmqNoCopy(Zmq):
    """Frames lend their memory, on both sides; better for long messages than for short ones."""

    name = "pyzmq, PUSH and PULL, no copy"

    def sender(self) -> Send:
        socket, data = self._socket(self.kinds[0]), self.data
        socket.connect(self.address)
        return lambda: socket.send(data, copy=False)

    def receiver(self) -> Receive:
        socket = self._socket(self.kinds[1])
        socket.bind(self.address)
        return lambda: touch(socket.recv(copy=False).buffer)


class ZmqPair(Zmq):
    name = "pyzmq, PAIR"
    kinds = ("PAIR", "PAIR")


class ZmqPairNoCopy(ZmqNoCopy):
    name = "pyzmq, PAIR, no copy"
    kinds = ("PAIR", "PAIR")


class ZenohSharedMemory(Peer):
    """A buffer of its shared memory for each message, and a publisher that blocks. In Python a buffer is written in
    place, and read by a copy only."""

    name = "zenoh, shared memory"
    module = "zenoh"
    lends = True
    settles_s = 1.0

    def __init__(self, size: int, *, fill: bool = False) -> None:
        super().__init__(size, fill=fill)
        import zenoh

        if not hasattr(zenoh, "shm"):
            raise NotPossibleError("this zenoh has no shared memory")
        self.key = f"peers/{uuid.uuid4().hex}"
        self.address = f"unixsock-stream//tmp/{self.key.replace('/', '-')}"

    def _session(self, role: str) -> Any:
        import zenoh

        zenoh.init_log_from_env_or("off")
        config = zenoh.Config()
        config.insert_json5("scouting/multicast/enabled", "false")
        config.insert_json5("transport/shared_memory/enabled", "true")
        config.insert_json5(f"{role}/endpoints", f'["{self.address}"]')
        config.insert_json5("mode", '"peer"')
        return zenoh.open(config)

    def sender(self) -> Send:
        import zenoh

        session = self._session("connect")
        provider = zenoh.shm.ShmProvider.default_backend((DEPTH + 8) * (self.size + 4096))
        publisher = session.declare_publisher(
            self.key,
            congestion_control=zenoh.CongestionControl.BLOCK,
            reliability=zenoh.Reliability.RELIABLE,
        )
        policy = zenoh.shm.BlockOn(zenoh.shm.GarbageCollect())
        alloc, put, size, data, fill = provider.alloc, publisher.put, self.size, self.data, self.fill
        kept = (session, provider)

        def send() -> object:
            buffer = alloc(size, policy=policy)
            if fill:
                buffer[:] = data
            else:
                buffer[0] = buffer[size - 1] = 1
            put(buffer)
            return kept

        return send

    def receiver(self) -> Receive:
        import zenoh

        session = self._session("listen")
        subscriber = session.declare_subscriber(self.key, zenoh.handlers.FifoChannel(DEPTH))
        receive, kept = subscriber.recv, (session, subscriber)

        def receive_one() -> object:
            return touch(receive().payload.to_bytes()), kept

        return receive_one

    def close(self) -> None:
        Path(self.address.removeprefix("unixsock-stream/")).unlink(missing_ok=True)


class Iceoryx2(Peer):
    """Publish and subscribe without overflow; the subscriber polls, for events are a service of their own. A payload is
    looked at by a ctypes array at its address: its own Slice makes a pointer for each element."""

    name = "iceoryx2, polling"
    module = "iceoryx2"
    polls = True
    lends = True
    settles_s = 0.1

    def __init__(self, size: int, *, fill: bool = False) -> None:
        super().__init__(size, fill=fill)
        self.service = f"peers/{uuid.uuid4().hex}"

    def _open(self) -> Any:
        import iceoryx2 as iox2

        iox2.set_log_level(iox2.LogLevel.Error)
        node = iox2.NodeBuilder.new().create(iox2.ServiceType.Ipc)
        service = (
            node.service_builder(iox2.ServiceName.new(self.service))
            .publish_subscribe(iox2.Slice[ctypes.c_uint8])
            .enable_safe_overflow(False)
            .subscriber_max_buffer_size(DEPTH)
            .open_or_create()
        )
        return iox2, node, service

    def close(self) -> None:
        """Take away what a process of ours left that was killed."""
        import iceoryx2 as iox2

        iox2.NodeBuilder.new().create(iox2.ServiceType.Ipc).try_cleanup_dead_nodes()

    def sender(self) -> Send:
        iox2, node, service = self._open()
        builder = service.publisher_builder().initial_max_slice_len(self.size)
        publisher = builder.backpressure_strategy(iox2.BackpressureStrategy.RetryUntilDelivered).create()
        size, data, kept, fill = self.size, self.data, (node, service), self.fill
        loan, at, move = publisher.loan_slice_uninit, (ctypes.c_uint8 * size).from_address, ctypes.memmove

        def send() -> object:
            sample = loan(size)
            if fill:
                move(sample.payload_ptr, data, size)
            else:
                payload = at(sample.payload_ptr)
                payload[0] = payload[-1] = 1
            sample.assume_init().send()
            return kept

        return send

    def receiver(self) -> Receive:
        _, node, service = self._open()
        subscriber, kept = service.subscriber_builder().create(), (node, service)
        take, at = subscriber.receive, (ctypes.c_uint8 * self.size).from_address

        def receive() -> object:
            while (sample := take()) is None:
                pass
            value = touch(at(sample.payload_ptr))
            sample.delete()
            return value, kept

        return receive


class Iceoryx2Events(Iceoryx2):
    """The same, and an event for each message, on which the subscriber sleeps."""

    name = "iceoryx2, events"
    polls = False

    def _events(self, node: Any) -> Any:
        import iceoryx2 as iox2

        return node.service_builder(iox2.ServiceName.new(self.service)).event().open_or_create()

    def sender(self) -> Send:
        send = super().sender()
        _, node, _ = self._open()
        notifier = self._events(node).notifier_builder().create()

        def send_and_notify() -> None:
            send()
            notifier.notify()

        return send_and_notify

    def receiver(self) -> Receive:
        iox2, node, service = self._open()
        bound = iox2.Duration.from_millis(100)  # an event may be lost: without a bound the receiver has hung
        listener = self._events(node).listener_builder().create()
        subscriber = service.subscriber_builder().create()
        take, at = subscriber.receive, (ctypes.c_uint8 * self.size).from_address

        def receive() -> object:
            while (sample := take()) is None:
                listener.timed_wait(bound)
            value = touch(at(sample.payload_ptr))
            sample.delete()
            return value

        return receive


PEERS: tuple[type[Peer], ...] = (
    Ssm, SsmTopic, SsmPolling, SsmBatch, SsmQueue, SharedMemoryRing, Iceoryx2, Iceoryx2Events, ZenohSharedMemory,
    Zmq, ZmqNoCopy, ZmqPair, ZmqPairNoCopy, FasterFifo, FasterFifoBatch, PosixIpcQueue, MpPipe, MpPipeInto,
    MpSimpleQueue, MpQueue,
)  # fmt: skip
