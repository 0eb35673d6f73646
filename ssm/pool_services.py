# SPDX-License-Identifier: Apache-2.0
"""The services and boards of a pool, opened by name: what Pool has of them as methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssm import _core, board, semaphore, service

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from ssm.board import Board
    from ssm.semaphore import SemaphoreService
    from ssm.service import AddressService, IdService, PidService, RmidService


class PoolServices(_core.Pool):
    """What Pool is built on, too: opening services and boards."""

    __slots__ = ()

    def ids(self, name: str, range_base: int, range_end: int, *, reclaim: bool = False) -> IdService:
        """Open a shared id allocator of the pool, or create it if it is not there.

        Parameters
        ----------
        name : str
            1 .. 47 bytes.
        range_base, range_end : int
            ``0 <= range_base <= range_end < 2**32``, both included. Each id takes 4.2 bytes of the metadata area.
        reclaim : bool
            What a process has goes back when that closes the pool or dies. Otherwise it stays allocated until
            somebody frees it; see `IdService.owned`.

        Returns
        -------
        IdService
            With the methods of `allocators.IdAllocator`.

        Raises
        ------
        ServiceMismatch
            A service of that name exists with other parameters.
        MetadataExhausted
            There is no room for it: create the pool with a larger ``metadata=``.
        InvalidRange
            The range is none.
        """
        return service.ids(self, name, range_base, range_end, reclaim)

    def addresses(
        self, name: str, base: int, size: int, *, ranges: int | None = None, reclaim: bool = False
    ) -> AddressService:
        """Open a shared address space of the pool, or create it if it is not there.

        Parameters
        ----------
        name : str
            1 .. 47 bytes.
        base, size : int
            First address, and how many there are; the last one is below ``2**64``.
        ranges : int, optional
            The most ranges that are allocated at once; each takes 128 bytes of the metadata area. By default as it
            is, or 1024 for a new one.
        reclaim : bool
            As for `ids`.

        Returns
        -------
        AddressService
            With the methods of `allocators.AddressAllocator`.

        Raises
        ------
        ServiceMismatch, MetadataExhausted
            As for `ids`.
        Underflow, Overflow, InvalidRange
            As `allocators.AddressAllocator` raises them.
        """
        return service.addresses(self, name, base, size, ranges, reclaim)

    def pids(self, name: str, order: int, *, reclaim: bool = False) -> PidService:
        """Open a shared pid allocator of the pool, or create it if it is not there.

        Parameters
        ----------
        name : str
            1 .. 47 bytes.
        order : int
            There are ``order * 64`` pids; each takes 4.2 bytes of the metadata area.
        reclaim : bool
            As for `ids`.

        Returns
        -------
        PidService
            With the methods of `allocators.PidAllocator`. A Pid that a child inherits by fork is its parent's.

        Raises
        ------
        ServiceMismatch, MetadataExhausted
            As for `ids`.
        InvalidSize
            The order is none.
        """
        return service.pids(self, name, order, reclaim)

    def rmids(
        self, name: str, max_rmid: int, min_free_time_ns: int = 2_000_000, *, reclaim: bool = False
    ) -> RmidService:
        """Open a shared RMID allocator of the pool, or create it if it is not there.

        Parameters
        ----------
        name : str
            1 .. 47 bytes.
        max_rmid : int
            RMIDs 1 .. max_rmid, at most 1024.
        min_free_time_ns : int
            How long an RMID rests after it was freed, by CLOCK_MONOTONIC of the machine: that of the initial
            time namespace, whatever namespace the process is in.
        reclaim : bool
            As for `ids`.

        Returns
        -------
        RmidService
            With the methods of `allocators.RmidAllocator`.

        Raises
        ------
        ServiceMismatch, MetadataExhausted
            As for `ids`.
        InvalidRange, OutOfRange
            As `allocators.RmidAllocator` raises them.
        """
        return service.rmids(self, name, max_rmid, min_free_time_ns, reclaim)

    def semaphore(self, name: str, permits: int) -> SemaphoreService:
        """Open a shared counting semaphore of the pool, or create it if it is not there.

        Parameters
        ----------
        name : str
            1 .. 47 bytes.
        permits : int
            How many there are, at most 65535. A semaphore takes 4.2 kB of the metadata area, and 8 bytes for
            each permit.

        Returns
        -------
        SemaphoreService
            Like a `threading.Semaphore`. What a process has of it comes back when that closes the pool or dies.

        Raises
        ------
        ServiceMismatch, MetadataExhausted
            As for `ids`.
        InvalidSize
            There cannot be so many permits.
        """
        return semaphore.semaphore(self, name, permits)

    def board(self, name: str, dtype: DTypeLike, rows: int) -> Board:
        """Open a small table that processes share, or create it if it is not there: for progress, settings, counts.

        The table is of zeros at first, and stays as long as the pool. What a process wrote is there when it has died.

        Parameters
        ----------
        name : str
            1 .. 47 bytes; boards and services have one name each.
        dtype : numpy dtype
            Of a row: a number, or a record of fixed size without Python objects.
        rows : int
            How many. They take rows x itemsize bytes of the metadata area, see `metadata` of `create`.

        Returns
        -------
        Board
            ``board.array`` is the table, as a numpy array of shape ``(rows,)``; read-only in a pool that is attached
            readonly.

        Raises
        ------
        ServiceMismatch
            It exists with another dtype or other rows, or the name is a service's (also a ValueError).
        MetadataExhausted
            The pool has no room for it.
        FileNotFoundError
            It is not there, and this pool is attached readonly, and so cannot make it.
        """
        return board.board(self, name, dtype, rows)

    def services(self) -> list[str]:
        """Return the names of the pool's services."""
        return [entry["name"] for entry in self._service_stats()]
