# SPDX-License-Identifier: Apache-2.0
"""Queue: any picklable object from process to process, with the methods of multiprocessing.Queue.

The caller pickles, straight into packets of the pool, and the ring does the rest: there is no feeder thread, and what
holds for a ring when a process is killed holds for a queue.

How an object lies in packets is in message.py, what the memory of a queue is in queue_memory.py, and whether what comes
out of it keeps that memory in lending.py.
"""

from __future__ import annotations

import errno
import os
import stat
import weakref
from pickle import loads
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast

from ssm import late, lending, message, queue_memory
from ssm.acl import Acl
from ssm.consumer import Consumer
from ssm.deadline import left_of, until_of
from ssm.errors import PoolExhausted, QueueExhausted
from ssm.in_hand import InHand
from ssm.message import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from types import GenericAlias

    from ssm._core import Packet
    from ssm.bridge.queued import Crossing
    from ssm.pool import Pool
    from ssm.readiness import Reader, Writer
    from ssm.ring import Ring

T = TypeVar("T")


def _admit(pool: Pool, trust: bool) -> None:
    """Refuse a pool into which others than this process's user can write what `loads` would run.

    An access control list that lets somebody write shows in the group's bits.
    """
    uid, mode = pool._access()
    if trust or (uid == os.geteuid() and not mode & (stat.S_IWGRP | stat.S_IWOTH)):
        return
    what = f"belongs to uid {uid}" if uid != os.geteuid() else f"has mode {mode:04o}"
    raise PermissionError(
        errno.EPERM,
        f"pool {pool.name!r} {what}: other users than this process's (uid {os.geteuid()}) can write into it, and a "
        "queue unpickles what is in it, which can run any code. Use another name, or pass trust_other_users=True",
    )


def _load(packet: Packet, lends: Callable[[Packet, int], bool] | None) -> Any:
    return loads(packet[8:]) if packet[:8] == PLAIN else message.read(packet, lends)


def _get_in_hand(
    ring: Ring,
    in_hand: InHand,
    lends: Callable[[Packet, int], bool] | None,
    block: bool,
    timeout: float | None,
) -> Any:
    """Take a message out that stays in hand, and unpickle it; what is raised meanwhile gives it back.

    A signal handler may raise behind each call, so the packet is taken inside the try statement. It is in hand when it
    is read, and not before: a task_done() of another thread or of a signal handler would free it under the reader.
    """
    packet = None
    try:
        packet = ring.get(block, timeout)
        obj = _load(packet, lends)
        in_hand.add(packet)
        return obj
    except BaseException as error:
        if packet is not None:
            in_hand.remove(packet)
            packet.__exit__(type(error), error, None)  # no effect on what is no message: that was freed
        raise


# ---- the queue --------------------------------------------------------------------------------------


class Queue(Consumer[T]):
    """A queue of objects between processes; takes the place of `multiprocessing.Queue` and `JoinableQueue`.

    Any number of processes and threads put and get. A Queue can be sent to other processes at any time, by fork,
    spawn, forkserver or through another queue: they attach by name. What a killed process was doing has happened or
    not; no other process waits for it.

    Buffers of numpy arrays, of arrow, and whatever else pickles itself with `pickle.PickleBuffer` arrive as views of
    the shared memory, see `copy`; each keeps its packet until it is gone.

    Parameters
    ----------
    maxsize : int
        Objects that it takes. Without, or with one below 1, as many as there is memory for, at most 65,536: `put` waits
        where multiprocessing would take more and more.
    pool : Pool, optional
        Whose packets it uses; the queue is a ring of it, and stays until it is unlinked, or as long as the pool: give
        it a name. By default it has a pool of its own, whose name goes away with its last process.
    name : str, optional
        Of the ring in `pool`, or else of the pool of its own. Processes that open a queue by one name have one
        queue. By default a unique name.
    max_memory : int, optional
        Bytes that its pool may grow to, for what is in the queue, and for what was taken out and is still looked at;
        none of them is taken before it is needed. By default half of the machine's memory, or of /dev/shm if that has
        less, or what the process may map (``ulimit -v``) or have in a file (``ulimit -f``).
    memory : int, optional
        Bytes that are reserved at once. Without max_memory these are all that there is.
    classes : mapping of int to int, optional
        Blocks of the pool of its own, as for `Pool.create`, reserved at once and all that there is.
    copy : str
        What arrays that come out are: with "always" copies; with "never" views of the shared memory, each of which
        keeps it until it is gone, so that a program that keeps all of them stops the queue. With "auto" views while at
        least a quarter of the memory that the pool has, or can get, is free, and copies below that. `PoolStats.copied`
        counts them, and a RuntimeWarning tells of the first.
    redeliver : bool, optional
        What a process took out and did not say `task_done` of comes out once more when it dies, ends, or closes the
        queue; so `join` ends although consumers were killed. Each object that was taken keeps its memory until
        then, and fits into one packet. By default as it is, or False for a new queue.
    trust_other_users : bool
        Use a pool that other users can write into: one that belongs to another user, or whose mode lets the group
        or others write. `get` unpickles, so each of these users can run any code in this process.
    like : object, optional
        An example of what will be put, such as an array: the pool has blocks in which such an object fits whole, made
        at once, `maxsize` and 8 more; without a maxsize, as many as `memory` (16 MiB) has room for, 16 at least. Beyond
        them it grows, as by default.
    itemsize : int, optional
        In place of `like`: the bytes of the largest object, 1 .. 2**40.
    ctx : object, optional
        Taken and not used: multiprocessing's contexts pass themselves. A queue goes to processes of any start method.
    bridge : mapping, optional
        The other side of the queue is on another host: ``{"export": "jobs", "connect": "10.0.0.2:7400"}`` where objects
        are put, ``{"import": "jobs", "listen": "10.0.0.2:7400"}`` where they come out; the other keys are those of a
        configuration file of ``ssm bridge``. The bridge runs in a thread of this process until it closes the queue;
        give the queue a name, for other processes here. What is put crosses exactly once, unless redeliver=False;
        then a bridge that is killed loses what it had. Each object fits into one packet, unless redeliver=False.

    Raises
    ------
    BridgeError
        The bridge cannot work as it was told to, or would be open to the network without a word.
    ------
    RingMismatch
        A queue of that name is there, with another maxsize or redeliver.
    PermissionError
        Other users can write into the pool, and trust_other_users is not set. Nothing was read.
    OSError
        ENOSPC: there is not even room for an empty queue, or for what is reserved at once. Others as the system gives
        them.
    """

    __slots__ = (
        "__weakref__",
        "_copy",
        "_crossing",
        "_in_hand",
        "_lends",
        "_plain_max",
        "_ring",
        "_trust",
        "_writers",
        "maxsize",
    )

    _crossing: Crossing | None  # in the process that gave it a bridge

    if TYPE_CHECKING:

        def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...

    def __init__(
        self,
        maxsize: int = 0,
        *,
        pool: Pool | None = None,
        name: str | None = None,
        max_memory: int | None = None,
        memory: int | None = None,
        classes: Mapping[int, int] | None = None,
        copy: Literal["auto", "always", "never"] = "auto",
        redeliver: bool | None = None,
        trust_other_users: bool = False,
        like: object = None,
        itemsize: int | None = None,
        ctx: object = None,
        bridge: Mapping[str, Any] | None = None,
    ) -> None:
        crossing = None if bridge is None else late.load("ssm.bridge.queued").Crossing(bridge)
        own = (memory, max_memory, classes, like, itemsize)
        if pool is not None and any(each is not None for each in own):
            raise ValueError(
                "memory=, max_memory=, classes=, like= and itemsize= say what the pool of its own is: leave out pool="
            )
        if classes is not None and (like is not None or itemsize is not None):
            raise ValueError("like= and itemsize= say what the pool of its own is: leave out classes=")
        lending.check(copy)
        if pool is None:
            pool = queue_memory.open_pool(
                name,
                maxsize,
                memory=memory,
                max_memory=max_memory,
                classes=classes,
                like=like,
                itemsize=itemsize,
            )
            name = "queue"
            try:
                _admit(pool, trust_other_users)
            except PermissionError:
                pool.close()
                raise
        _admit(pool, trust_other_users)
        name = name or queue_memory.new_name()
        places = maxsize if maxsize > 0 else queue_memory.places(pool)
        as_it_is = maxsize <= 0 and name in pool.rings()
        size = None if as_it_is else places
        if crossing is not None and crossing.exports and not as_it_is:
            redelivers = redeliver is None or redeliver
            ring = pool.ring(name, size, consumers="one", peers=False, redeliver=redelivers)
        else:
            ring = pool.ring(name, size, redeliver=redeliver)
        self._open(ring, max(0, maxsize), trust_other_users, copy)
        if crossing is not None:
            crossing.begin(pool, ring)
            self._crossing = crossing
            weakref.finalize(self, crossing.leave)

    def _open(self, ring: Ring, maxsize: int, trust: bool, copy: str) -> None:
        room = ring.pool.max_size
        if room < message.ROOM_MIN:
            raise ValueError(
                f"pool {ring.pool.name!r} has packets of at most {room} bytes, a queue needs {message.ROOM_MIN}: "
                "create it with larger blocks (classes=)"
            )
        self._ring: Ring | None = ring
        self._plain_max = min(message.PLAIN_MAX, room - len(PLAIN))
        self._ready = None
        self._writers: list[message.Writer] = []  # that nobody uses just now
        self._trust = trust
        self._copy = copy
        self._lends: Callable[[Packet, int], bool] | None = lending.policy(
            ring.pool,
            ring.pool._lending,  # pyright: ignore[reportPrivateUsage]
            copy,
        )  # None: always
        self._in_hand = InHand() if ring.redeliver else None
        self._crossing = None
        self.maxsize = maxsize

    def _opened(self) -> Ring:
        if self._ring is None:
            raise ValueError(f"Queue {self!r} is closed")
        return self._ring

    def put(self, obj: T, block: bool = True, timeout: float | None = None) -> None:
        """Pickle an object and queue it.

        Parameters
        ----------
        obj : object
            What cannot be pickled raises here. (multiprocessing.Queue prints it in a thread, and loses it.)
        block : bool
            Whether to wait while the queue or its memory is full.
        timeout : float or None
            Seconds to wait; ``None`` waits for ever.

        Raises
        ------
        queue.Full
            There was no place in `timeout` (RingFull), or no memory (QueueExhausted). Nothing was queued.
        PacketTooLarge
            The object is larger than all the memory for large ones.
        RingShutDown
            The queue is shut down; a queue.ShutDown, where the queue module has it.
        ValueError
            The queue is closed.
        """
        ring = self._ring
        if ring is None:
            ring = self._opened()
        try:
            writer = self._writers.pop()
        except IndexError:
            writer = message.Writer()
        if timeout is not None and timeout < 0:
            timeout = 0
        writer.dump(obj)  # after an error the writer is not used again
        data: Any = writer.chunks.pop()
        try:
            if writer.chunks or writer.beside or len(data) > self._plain_max:
                writer.chunks.append(data)
                self._put_parts(ring, writer, timeout if block else 0)
            else:
                ring.send(PLAIN + data, block, timeout)
        except PoolExhausted as error:
            exhausted = QueueExhausted(*error.args)
            exhausted.where = error.where
            raise exhausted from None
        writer.forget()
        self._writers.append(writer)

    def _put_parts(self, ring: Ring, writer: message.Writer, timeout: float | None) -> None:
        until = until_of(timeout)
        if ring.redeliver:
            message.must_fit(ring.pool, writer)
        head = message.write(ring.pool, writer, until, ring.redeliver)
        writer.chunks.clear()
        writer.beside.clear()
        try:
            ring.put(head, True, left_of(until))
        except BaseException:
            message.free([head])
            raise

    def put_nowait(self, obj: T) -> None:
        """put() that does not wait."""
        self.put(obj, False)

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take the next object out.

        Parameters
        ----------
        block : bool
            Whether to wait while the queue is empty.
        timeout : float or None
            Seconds to wait; ``None`` waits for ever.

        Raises
        ------
        queue.Empty
            Nothing came in `timeout`.
        RingShutDown
            The queue is shut down, and drained.
        ProducersGone
            The ring was made by `Pool.ring` with ``producers="one"``: it is empty, and that process is gone.
        MessageMismatch
            What came was not put by a Queue. It is gone.
        ValueError
            The queue is closed.
        """
        ring = self._ring
        if ring is None:
            ring = self._opened()
        if timeout is not None and timeout < 0:
            timeout = 0
        obj: T
        if self._ready is not None:
            with self._ready:
                return cast("T", self._get(ring, block, timeout))
        if self._in_hand is not None:
            obj = _get_in_hand(ring, self._in_hand, self._lends, block, timeout)
            return obj
        packet = ring.get(block, timeout)
        if packet[:8] == PLAIN:
            data = packet[8:]
            del packet  # the block is free before the object is made
            obj = loads(data)
        else:
            obj = message.read(packet, self._lends)
        return obj

    def _get(self, ring: Ring, block: bool, timeout: float | None) -> Any:
        if self._in_hand is not None:
            return _get_in_hand(ring, self._in_hand, self._lends, block, timeout)
        packet = ring.get(block, timeout)
        return _load(packet, self._lends)

    def get_nowait(self) -> T:
        """get() that does not wait."""
        return self.get(False)

    def aget(self) -> Coroutine[Any, Any, T]:
        """get() that is awaited: the event loop goes on while the queue is empty."""
        return cast("Coroutine[Any, Any, T]", late.load("ssm.aio").get_object(self))

    def aput(self, obj: T) -> Coroutine[Any, Any, None]:
        """put() that is awaited: the event loop goes on while the queue, or its memory, is full."""
        return cast("Coroutine[Any, Any, None]", late.load("ssm.aio").put_object(self, obj))

    @property
    def _reader(self) -> Reader:
        """What concurrent.futures and others take for the end of a pipe that objects come out of."""
        return cast("Reader", late.load("ssm.readiness").Reader(self))

    @property
    def _writer(self) -> Writer:
        return cast("Writer", late.load("ssm.readiness").Writer(self))

    def qsize(self) -> int:
        """Return how many objects are queued now; another process may change that at once."""
        return 0 if self._ring is None else self._ring.qsize()

    def empty(self) -> bool:
        """Return whether nothing is queued now."""
        return self._ring is None or self._ring.empty()

    def full(self) -> bool:
        """Return whether there is no place now. Memory may be short before."""
        return self._ring is not None and self._ring.full()

    def task_done(self) -> None:
        """Say that one of the objects that were taken out is dealt with.

        With redeliver: the one that this thread took first, of those that it has not said this of. If it took none,
        one that another thread of the process took.

        Raises
        ------
        ValueError
            It was said more often than objects were put.
        """
        ring = self._opened()
        packet = None if self._in_hand is None else self._in_hand.oldest()
        if packet is None:
            ring.task_done()
            return
        again = packet.redelivered
        with packet:  # killed or interrupted behind task_done(): the object comes out again
            try:
                ring.task_done()
            except ValueError:
                packet.free()
                if not again:  # a process that died had said it
                    raise

    def join(self) -> None:
        """Wait until as many objects are dealt with as were put; if they go to another host, until it has all of them.

        Raises
        ------
        BridgeError
            The bridge to the other host cannot go on.
        """
        ring = self._opened()
        if self._crossing is not None and self._crossing.exports:
            self._crossing.join()
        else:
            ring.join()

    def shutdown(self, immediate: bool = False) -> None:
        """End the queue for every process, as queue.Queue.shutdown() does.

        Parameters
        ----------
        immediate : bool
            Drop what is queued; otherwise `get` drains it first.
        """
        self._opened().shutdown(immediate)

    @property
    def is_shutdown(self) -> bool:
        """Whether it is shut down, by any process."""
        return Acl.FLOWDOWN in self._opened().acl

    def close(self) -> None:
        """Leave the queue, in this process: put and get raise ValueError from now on.

        What this process has put stays. Arrays and views that came out of it stay valid. With redeliver, objects that
        `task_done` was not said of come out once more. A bridge that this process gave it ends; use `join` before, to
        wait until all has gone to the other host.

        Raises
        ------
        BridgeError
            The bridge had ended by itself, since it could not go on. The queue is closed all the same.
        """
        crossing, self._crossing = self._crossing, None
        if self._in_hand is not None:
            self._in_hand.give_back()
        self._ring = self._ready = self._lends = None
        self._writers.clear()
        if crossing is not None:
            crossing.close()

    def unlink(self) -> bool:
        """Take the queue's name away, for everybody and at once; see `Ring.unlink`.

        Processes that have it open go on with it; no other one finds it any more, so it is sent to others before. With
        the last of them its memory, and what is still in it, goes back to the pool.

        Returns
        -------
        bool
            False: it had no name any more.
        """
        return self._opened().unlink()

    def join_thread(self) -> None:
        """Do nothing: there is no thread, and what put() has queued is there. Only after close(), as elsewhere."""
        if self._ring is not None:
            raise AssertionError(f"Queue {self!r} not closed")

    def cancel_join_thread(self) -> None:
        """Do nothing: there is no thread that the end of the process could wait for."""

    @property
    def name(self) -> str:
        """The name of its ring. With it and the name of the pool, any process can open the queue."""
        return self._opened().name

    @property
    def pool(self) -> Pool:
        """The pool whose packets it uses."""
        return self._opened().pool

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reopen, (self._opened(), self.maxsize, self._trust, self._copy)

    @classmethod
    def _reopen(cls, ring: Ring, maxsize: int, trust: bool, copy: str) -> Self:
        _admit(ring.pool, trust)  # it was found by its name, and the name may be another user's by now
        queue = cls.__new__(cls)
        queue._open(ring, maxsize, trust, copy)
        return queue

    def __repr__(self) -> str:
        if self._ring is None:
            return f"<ssm.{type(self).__name__}: closed>"
        return f"<ssm.{type(self).__name__} {self.name!r} of pool {self.pool.name!r}: {self.qsize()} objects>"


JoinableQueue = Queue  # one class has the methods of all three
SimpleQueue = Queue
