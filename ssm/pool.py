# SPDX-License-Identifier: Apache-2.0
"""Pool: making and finding pools, their rings, and looking in. What is hot is in C, see src/binding/pool.c."""

from __future__ import annotations

import errno
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

from ssm import _core, late, names, rpc, service, slow, topic
from ssm.attachment import Attachment
from ssm.errors import LayoutMismatch, PoolAbandoned, PoolMismatch
from ssm.lending import Lending
from ssm.options import (
    CreateArguments,
    Creation,
    PoolOptions,
    attach_flags,
    creation,
    explain,
    explain_owner,
    quota_of,
    ring_stats,
)
from ssm.pool_services import PoolServices
from ssm.ring import open_ring, unlink_ring
from ssm.stats import ArenaStats, ClassStats, Holder, PoolStats, Reaped, RingStats, ShardStats, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import DTypeLike

    from ssm.ring import Ring
    from ssm.rpc import Rpc
    from ssm.topic import Topic

RETRY_S = 0.01  # between two looks for a pool that is not there yet
COMING_AND_GOING_S = 10.0  # so long a name may come and go between two looks
CROWDED_S = 0.1  # for a change, where there is no room, but may be once other creators have given up


class Pool(Attachment, PoolServices):
    """A pool of packet buffers in POSIX shared memory, as this process is attached to it.

    Made by `create`, `attach` and `open`. A Pool can be sent to other processes (fork, forkserver, spawn): they
    attach by name. ``with pool:`` closes it at the end, and does not unlink.
    """

    __slots__ = ("_lending",)

    _lending: Lending  # what its queues know of its free memory

    # ---- making and finding -------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        name: str,
        *,
        classes: Mapping[int, int] | None = None,
        sizes: Mapping[int, int] | None = None,
        shards: int | None = None,
        headroom: int | None = None,
        tailroom: int | None = None,
        cache: int | None = None,
        holders: int | None = None,
        mode: int = 0o600,
        uid: int | None = None,
        gid: int | None = None,
        exist_ok: bool = False,
        ephemeral: bool = False,
        hugepages: bool = False,
        prefault: bool = False,
        mlock: bool = False,
        metadata: int | None = None,
        arena: int = 0,
        grow: int = 0,
        arena_packets: int | None = None,
        quota: int | None = None,
        label: str | None = None,
    ) -> Self:
        """Create a pool and attach to it. All its memory is reserved now, but for what the arena may grow by.

        Others find the pool when it is ready, and not before: a creator that is killed leaves nothing.

        Parameters
        ----------
        name : str
            POSIX name; a leading ``/`` is added when missing.
        classes : mapping of int to int, optional
            Block size in bytes, headroom and tailroom included -> number of blocks. Up to 32 sizes of at least
            64 bytes. As built by default: 1,024 blocks of 256 bytes, 768 of 512, 512 of 1,024, 384 of 2,048, 256 of
            4,096, 128 of 16 KiB, 64 of 64 KiB, 32 of 256 KiB, and 16 of 1 MiB; this build's are in
            ``ssm._core.defaults()``, those of a pool in ``pool.classes``.
        sizes : mapping of int to int, optional
            Instead of `classes`: bytes of payload -> number of packets. Each becomes a class with headroom and tailroom
            added, rounded up to 64 bytes.
        shards : int, optional
            Free lists per size class, 1 .. 64; the blocks are spread over them.
        headroom, tailroom : int, optional
            Bytes kept free in front of a fresh packet's data, and at least behind it; as built by default 256 and 32.
        cache : int, optional
            Blocks per class that a process may keep for itself, up to 4096; 0 switches that off.
        holders : int, optional
            Processes and rings that can keep blocks, up to 4096; rounded up to a multiple of 64.
        mode : int
            Permissions of the shared memory object, exactly; the umask does not cut them. 0o600, the default, is for
            processes of this user alone; 0o660 shares with the group, 0o644 lets others look (``readonly=True``).
        uid, gid : int, optional
            The user and the group that the object belongs to, as a daemon needs it that makes pools for users. Only
            root can give it to another user. From then on that user may attach, and end or unlink it; root may unlink
            it, too. By default those of this process.
        exist_ok : bool
            When the pool is there already, attach to it, if its parameters are these.
        ephemeral : bool
            The name goes away with the last living process.
        hugepages, prefault, mlock : bool
            Ask for transparent huge pages; touch every page now; never page out, which takes a RLIMIT_MEMLOCK
            (``ulimit -l``) as large as the pool, or CAP_IPC_LOCK.
        metadata : int, optional
            Bytes kept for rings and services. By default 4 MiB, or more where two rings that redeliver need it.
        arena : int
            Bytes of memory for packets that no block is large enough for, more than the largest block has; rounded up
            to pages of 4096 bytes. Each takes what it needs, rounded up to 64 bytes. 0: such packets are refused.
        grow : int
            Bytes that the arena may grow to, in steps of 64 KiB, as its packets need memory; `arena` bytes of them, or
            none, are reserved now. What has been much more than packets use for a second is given back, down to
            `arena`. A packet that finds no free block of its size is from the arena, too. Where /dev/shm has no more,
            packets wait, or raise PoolExhausted, as if the arena were full. 0, or no more than `arena`: it does not
            grow.
        arena_packets : int, optional
            Packets that the arena can have at once, up to 65536. By default as many as can be of packets larger than
            the largest block, but 16 at least and 4096 at most; where it grows, 65536, which cost nothing until they
            are used.
        quota : int, optional
            As for `attach`.
        label : str, optional
            The name of this process in `holders`, `ssm top`, warnings and errors, up to 47 bytes of UTF-8. By default
            that of its multiprocessing.Process, or else that of its script. See also `Pool.label`.

        Returns
        -------
        Pool
            Attached; close() or ``with`` gives up what this process holds, unlink() removes the name.

        Raises
        ------
        FileExistsError
            A pool of that name is there.
        PoolMismatch
            With `exist_ok`: it has other parameters.
        ValueError
            A name that cannot be, or parameters out of bounds.
        OSError
            ENOSPC: not so much memory is left. EFBIG, ENOMEM: with `grow`, more than this process may have in one file
            (``ulimit -f``), or map (``ulimit -v``). ENOMEM: with `mlock`, more than it may lock. ENOSYS: there is
            no /dev/shm, no /proc, or the kernel has no open-file-description locks. EPERM: `uid`, `gid`. Others as
            the system gives them. Nothing was created.
        """
        name = names.normalize(name)
        asked = creation(
            classes=classes,
            sizes=sizes,
            shards=shards,
            headroom=headroom,
            tailroom=tailroom,
            cache=cache,
            holders=holders,
            mode=mode,
            uid=uid,
            gid=gid,
            ephemeral=ephemeral,
            hugepages=hugepages,
            prefault=prefault,
            mlock=mlock,
            metadata=metadata,
            arena=arena,
            grow=grow,
            arena_packets=arena_packets,
            quota=quota,
            label=label,
        )
        for _ in _attempts(name):
            try:
                return cls._make(name, asked)
            except FileExistsError:
                if names.retire(name):
                    continue
                if not exist_ok:
                    raise
            try:
                pool = cls._find(name, asked.flags & ~_core.EPHEMERAL, asked.quota, asked.label)
            except FileNotFoundError as error:
                _give_up(name, error)
            else:
                pool._expect(asked.options)
                return pool
        raise _comes_and_goes(name)

    @classmethod
    def attach(
        cls,
        name: str,
        *,
        timeout: float | None = 0,
        readonly: bool = False,
        hugepages: bool = False,
        prefault: bool = False,
        mlock: bool = False,
        quota: int | None = None,
        label: str | None = None,
    ) -> Self:
        """Attach to a pool that is there.

        Parameters
        ----------
        name : str
            POSIX name; a leading ``/`` is added when missing.
        timeout : float or None
            Seconds to wait for the pool to appear; ``0`` does not wait, ``None`` waits for ever.
        readonly : bool
            Look, do not touch: statistics only, and the permission to read suffices. Takes no holder slot.
        hugepages, prefault, mlock : bool
            As for `create`, for this process.
        quota : int, optional
            Bytes that this attachment may hold, block sizes added up: beyond it, alloc() raises QuotaExceeded. What
            comes out of rings counts, but is never refused.
        label : str, optional
            As for `create`.

        Returns
        -------
        Pool

        Raises
        ------
        FileNotFoundError
            No pool of that name appeared in `timeout`.
        PoolAbandoned
            The pool is over, and it belongs to another user, who removes it. (This user's own is as good as absent.)
        LayoutMismatch, CorruptionError
            What has that name is no pool of this version, or a broken one. It is left as it is.
        HoldersExhausted
            Every holder slot is taken.
        PermissionError
            The pool is another user's, and its mode does not let this one attach.
        OSError
            ENOMEM, ENOSYS: as for `create`. ENOSPC: the pool grows, and /dev/shm has no memory now for the few pages
            that a further process needs. Others as the system gives them.
        """
        name = names.normalize(name)
        flags = attach_flags(readonly=readonly, hugepages=hugepages, prefault=prefault, mlock=mlock)
        quota = quota_of(quota)
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"'timeout' must be a non-negative number of seconds, or None; not {timeout!r}")
        until = None if timeout is None else time.monotonic() + timeout
        wait = slow.Wait()
        while True:  # until then, or for ever if that was asked for
            try:
                return cls._find(name, flags, quota, label)
            except FileNotFoundError as error:
                if until is not None and time.monotonic() >= until:
                    if isinstance(error, PoolAbandoned):
                        raise
                    text = "no pool of that name; create it with Pool.create(), or wait for it (timeout=)"
                    raise FileNotFoundError(errno.ENOENT, text, name) from None
            time.sleep(RETRY_S)
            wait.look("attach", name)

    @classmethod
    def open(cls, name: str, **create_arguments: Unpack[CreateArguments]) -> Self:
        """Attach to the pool, or create it if it is not there; safe when several processes do so at once.

        Parameters
        ----------
        name : str
            POSIX name; a leading ``/`` is added when missing.
        **create_arguments
            As for `create`. A pool that is there is taken as it is.

        Returns
        -------
        Pool
        """
        name = names.normalize(name)
        asked = creation(**create_arguments)
        for _ in _attempts(name):
            try:
                return cls._find(name, asked.flags & ~_core.EPHEMERAL, asked.quota, asked.label)
            except FileNotFoundError as error:
                _give_up(name, error)
            try:
                return cls._make(name, asked)
            except FileExistsError:
                pass
        raise _comes_and_goes(name)

    @classmethod
    def _create_apart(cls, name: str, **create_arguments: Unpack[CreateArguments]) -> Self:
        """Create a pool in no directory: it has no name, needs no /dev/shm, and goes to others by pickling alone."""
        asked = creation(**create_arguments)
        return cls._make(names.normalize(name), asked._replace(flags=asked.flags | _core.APART))

    @classmethod
    def _make(cls, name: str, asked: Creation) -> Self:
        """Make the pool, then give it its name. A signal handler that raises in between leaves nothing."""
        if names.exists(name):
            raise _taken(name)
        try:
            pool = cls._create(name, *asked.options[:-1], asked.flags, asked.mode)
        except OSError as error:
            if error.errno == errno.ENOSPC and _is_crowded(name, asked):
                raise _taken(name) from None
            raise explain(error, name, asked) from None
        except MemoryError:
            if not asked.options.grow:
                raise
            raise explain(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), name, asked) from None
        try:
            pool._adopt(asked.quota, asked.label)
            pool._publish(asked.mode, asked.uid, asked.gid)
        except BaseException as error:
            pool._discard()
            if isinstance(error, FileExistsError):
                raise _taken(name) from None
            if isinstance(error, OSError):
                raise explain_owner(error, name, asked) from None
            raise
        return pool

    @classmethod
    def _find(cls, name: str, flags: int, quota: int | None, label: str | None) -> Self:
        """Attach once. FileNotFoundError: there is none, or an ephemeral one that a crash has left."""
        if not flags & _core.READONLY and names.retire(name):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        try:
            pool = cls._attach(names.opener(), name, flags)
        except (OSError, LayoutMismatch) as error:
            raise names.explain(error, name) from None
        pool._adopt(quota, label)
        return pool

    def _adopt(self, quota: int | None, label: str | None) -> None:
        self._lending = Lending()
        super()._adopt(quota, label)

    def _expect(self, options: PoolOptions) -> None:
        asked = options._replace(holders=-(-options.holders // 64) * 64, metadata=0)
        there = PoolOptions(
            classes=tuple(self.classes.items()),
            shards=self.shards,
            headroom=self.headroom,
            tailroom=self.tailroom,
            cache=self.cache,
            holders=self.holder_slots,
            metadata=0,
            arena=self.arena_reserved,
            grow=self.arena if self.arena > self.arena_reserved else 0,
            arena_packets=self.arena_packets if options.arena_packets else 0,
            ephemeral=self.ephemeral,
        )
        different = [field for field in PoolOptions._fields if getattr(there, field) != getattr(asked, field)]
        if different:
            self.close()
            raise PoolMismatch(
                f"pool {self.name!r} exists with other parameters: "
                + ", ".join(
                    f"{field}={getattr(there, field)}, not {getattr(asked, field)}" for field in different
                )
                + "; use Pool.open() to take it as it is"
            )

    # ---- its name, and rings ---------------------------------------------------------------------

    def unlink(self: Pool | str) -> None:
        """Remove the pool's name; those who are attached keep the pool. Also ``Pool.unlink(name)``.

        Raises
        ------
        FileNotFoundError
            There is no such name.
        """
        names.unlink(self.name if isinstance(self, Pool) else names.normalize(self))

    def ring(
        self,
        name: str,
        capacity: int | None = None,
        producers: Literal["many", "one"] | None = None,
        consumers: Literal["many", "one"] | None = None,
        redeliver: bool | None = None,
        overflow: str | None = None,
        dtype: DTypeLike | None = None,
        peers: bool | None = None,
        alive_for: float | None = None,
    ) -> Ring:
        """Open a ring of the pool, or create it if it is not there. It stays until it is unlinked, or the pool ends.

        Parameters
        ----------
        name : str
            1 .. 47 bytes.
        capacity : int, optional
            Packets that it takes. By default as it is, or the build's value for a new ring.
        producers, consumers : {"many", "one"}, optional
            "one" makes the side exclusive to the first process that uses it, as long as that lives, and free of
            locks. By default as it is, or "many" for a new ring.
        redeliver : bool, optional
            What a process took out of the ring, and neither freed nor put into a ring before it died, comes out once
            more, at the front and in the order in which it was taken; `Packet.redelivered` tells. Takes 24 bytes of
            the metadata area for each block of the pool. By default as it is, or False for a new ring.
        overflow : str, optional
            What a put does that finds the ring full. "block" waits; "drop" frees the new packet, and says so; with
            "overwrite" the oldest one gives way, which needs ``consumers="many"`` and no `redeliver`. The guide has a
            table of all policies. What is lost is counted: `RingStats.drops`. By default as it is, or "block" for a new
            ring.
        dtype : numpy dtype, optional
            Its packets are records of that dtype: see `Ring.send_record`. It stands with the ring, so other processes
            find it in `Ring.dtype`. By default as it is, or none for a new ring.
        peers : bool, optional
            Whether a call ends when no process is left on the other side: a get from an empty ring with ProducersGone,
            a put into a full one with ConsumersGone. With True, for every side: all processes that have used it, or
            that have the ring open and used neither side yet, have died or closed it. With False, calls go on waiting,
            since a process may come. By default as it is, or for a new ring True for exclusive sides only.
        alive_for : float, optional
            Seconds that calls still wait after the last process of the other side went, for one that is started again.
            By default as it is, or 0 for a new ring.

        Returns
        -------
        Ring
            The same object when this Pool has it open already.

        Raises
        ------
        RingMismatch
            The ring exists with other parameters.
        ValueError
            They cannot be, or exclude each other.
        HoldersExhausted, MetadataExhausted
            There is no room for another ring. Of the pool's holder slots, an eighth is kept for processes.
        TimeoutError
            A stopped process has kept the registry of the pool for ten seconds.
        """
        return open_ring(
            self, name, capacity, producers, consumers, redeliver, overflow, dtype, peers, alive_for
        )

    def unlink_ring(self, name: str) -> bool:
        """Take the name of a ring away, as `Ring.unlink` does, whether or not this process has it open.

        Parameters
        ----------
        name : str
            1 .. 47 bytes.

        Returns
        -------
        bool
            False: no ring has that name (any more).

        Raises
        ------
        TimeoutError
            A stopped process has kept the registry of the pool for ten seconds.
        """
        return unlink_ring(self, name)

    def topic(self, name: str, history: int | None = None) -> Topic:
        """Open a topic of the pool, or create it if it is not there: each subscriber gets all that is published.

        Parameters
        ----------
        name : str
            1 .. 34 bytes, without ``>``.
        history : int, optional
            How many of the latest packets the topic keeps for subscribers that come later. By default as it is, or 0
            for a new topic.

        Returns
        -------
        Topic
            It takes one ring of the pool, and each subscription one more.

        Raises
        ------
        RingMismatch
            The topic exists with another history.
        HoldersExhausted, MetadataExhausted
            There is no room for its ring.
        """
        return topic.open_topic(self, name, history)

    def rpc(self, name: str, capacity: int | None = None) -> Rpc:
        """Open a service that processes call and workers answer, or create it if it is not there.

        Parameters
        ----------
        name : str
            1 .. 30 bytes.
        capacity : int, optional
            Requests that may wait. By default as it is, or the build's value for a new one.

        Returns
        -------
        Rpc
            It takes one ring of the pool, which redelivers, and one more for each call that waits, or event loop.

        Raises
        ------
        RingMismatch
            It exists with another capacity.
        HoldersExhausted, MetadataExhausted
            There is no room for its ring.
        """
        return rpc.open_rpc(self, name, capacity)

    def rings(self) -> list[str]:
        """Return the names of the pool's rings, in the order in which they were made."""
        return [ring.name for ring in self._rings_in_order() if not ring.unlinked]

    def _rings_in_order(self) -> list[RingStats]:
        return [ring_stats(**ring) for ring in self._ring_stats()]

    # ---- looking in, and recovery -------------------------------------------------------------

    def stats(self) -> PoolStats:
        """Return a snapshot of all counters, per class, shard, ring and service.

        Returns
        -------
        PoolStats
            Frozen; `PoolStats.to_dict` for json.
        """
        return PoolStats(
            name=self.name,
            size=self.size,
            generation=self.generation,
            classes=tuple(
                ClassStats(**self._class_stats(i), shards=self._shards_of(i))
                for i in range(len(self.classes))
            ),
            arena=self._arena(),
            rings=tuple(self._rings_in_order()),
            services=service.stats_of(self),
            collections=self._collections(),
            copied=self._lending.copied,
        )

    def _shards_of(self, number: int) -> tuple[ShardStats, ...]:
        return tuple(ShardStats(**self._shard_stats(number, k)) for k in range(self.shards))

    def _arena(self) -> ArenaStats | None:
        arena = self._arena_stats()
        if arena is None:
            return None
        return ArenaStats(
            **arena, shards=self._shards_of(len(self.classes))
        )  # the class behind those of blocks

    def holders(self) -> list[Holder]:
        """Return who can keep blocks, and how many each keeps: processes, the dead included, and rings."""
        return [Holder(**entry) for entry in self._holder_list()]

    def usage(self) -> list[Usage]:
        """Return what each attached process uses, by RMID: blocks and bytes of each size now, and the peak.

        Rings are not told of; see `holders`.
        """
        return [Usage(**entry) for entry in self._usage()]

    def reap(self) -> Reaped:
        """Take back what dead processes held. Others do so too, when they attach or find nothing free.

        Returns
        -------
        Reaped
            Processes found dead, and blocks that they held, as `holders` counts them.

        Raises
        ------
        TimeoutError
            A stopped process has kept the registry of the pool for ten seconds.
        """
        return Reaped(**self._reap())

    # ---- to other processes -------------------------------------------------------------------

    def __reduce__(self) -> tuple[Any, ...]:
        if self.closed:
            raise ValueError(f"pool is closed: {self.name!r}; attach to it again, and send that")
        if self._descriptor >= 0:
            return self._reattach_apart, (*self._key(), names.Apart.of(self._descriptor))
        return self._reattach, self._key()

    @classmethod
    def _reattach_apart(cls, name: str, generation: int, readonly: bool, where: names.Apart) -> Pool:
        """Unpickle a pool without a name: by the descriptor of the process that sent it, or one that came along."""
        pool = cls._first_open((name, generation, readonly))
        if pool is not None:
            return pool
        pool = cls._attach(where.open, name, _core.APART)
        pool._adopt(None, None)
        if pool.generation != generation:
            pool.close()
            raise FileNotFoundError(
                errno.ENOENT, "that pool is gone, and so is the process that sent it", name
            )
        return cls._first_open((name, generation, readonly)) or pool

    @classmethod
    def _reattach(cls, name: str, generation: int, readonly: bool) -> Pool:
        """Unpickle: one object per pool and process; where it was made, that one."""
        key = name, generation, readonly
        pool = cls._first_open(key)
        if pool is not None:
            return pool
        try:
            pool = cls.attach(name, readonly=readonly)
        except BaseException as error:
            # HoldersExhausted, perhaps, since another thread has just done so in the last slot
            other = cls._first_open(key) if isinstance(error, Exception) else None
            if other is None:
                raise
            return other
        if pool.generation != generation:
            pool.close()
            text = f"that pool (generation {generation:#x}) is gone, its name belongs to another one"
            raise FileNotFoundError(errno.ENOENT, text, name)
        return cls._first_open(key) or pool  # not closed: whoever found this one meanwhile keeps it

    def _repr_html_(self) -> str:
        """Return what a notebook shows: its statistics."""
        text = late.load("html").escape(repr(self))
        return f"<p>{text}</p>" + (
            "" if self.closed else str(late.load("ssm.stats_text").as_html(self.stats()))
        )

    def __repr__(self) -> str:
        state = ", closed" if self.closed else ", readonly" if self.readonly else ""
        return f"<ssm.{type(self).__name__} {self.name!r}: {self.size:,} bytes{state}>"


_core.own_methods(Pool)


def _attempts(name: str) -> Iterator[None]:
    """Each one fails only where others make, end or unlink the pool between two looks."""
    until = time.monotonic() + COMING_AND_GOING_S
    while time.monotonic() < until:
        yield


def _comes_and_goes(name: str) -> TimeoutError:
    text = (
        f"for {COMING_AND_GOING_S:g} s processes have created and unlinked pools of that name; use one each"
    )
    return TimeoutError(errno.ETIMEDOUT, text, name)


def _taken(name: str) -> FileExistsError:
    text = (
        "a shared memory object of that name exists; Pool.open(), or exist_ok=True, takes the pool that is there, "
        "Pool.unlink() removes its name"
    )
    process = sys.modules.get("multiprocessing.process")
    if process and getattr(
        process.current_process(), "_inheriting", False
    ):  # multiprocessing's own test for it
        text += (
            ". This child imports the main module, as spawn and forkserver have it, and that created the pool already: "
            "put it below if __name__ == '__main__'"
        )
    return FileExistsError(errno.EEXIST, text, name)


def _is_crowded(name: str, asked: Creation) -> bool:
    """Whether to try again where there was no room: others make this pool, perhaps, and one gets through."""
    free, size = names.free_bytes()
    until = time.monotonic() + CROWDED_S
    while asked.options.payload < size and time.monotonic() < until:
        time.sleep(RETRY_S * os.urandom(1)[0] / 128)  # not all of them at once
        if names.exists(name) or names.free_bytes()[0] != free:
            return True
    return False


def _give_up(name: str, error: FileNotFoundError) -> None:
    """Raise it where trying again is in vain: the name leads to another user's pool that is over."""
    if isinstance(error, PoolAbandoned) and not names.is_mine(name):
        raise error


def list_pools() -> list[str]:
    """Return the names of the pools on this machine that this user may read.

    Ephemeral pools that a crash has left are removed first.
    """
    return [name for name in names.list_names() if not names.retire(name)]
