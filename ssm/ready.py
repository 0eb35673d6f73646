# SPDX-License-Identifier: Apache-2.0
"""Waiting for the first of several rings, queues and connections."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol, SupportsFloat, TypeVar

from ssm import _core, slow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    class _Incoming(Protocol):
        """A Queue or a Connection: what knows the ring that its objects come out of."""

        def _incoming(self) -> _core.Ring: ...

    Source = TypeVar("Source", bound=_core.Ring | _Incoming)

_LOOK_S = 0.02  # between two looks whether the other side of a connection is gone


def _ring_of(source: Any) -> Any:
    """Return the ring that objects come out of; what is none, `_core.wait_rings` refuses."""
    if isinstance(source, _core.Ring):
        return source
    incoming: Callable[[], _core.Ring] | None = getattr(source, "_incoming", None)
    return source if incoming is None else incoming()


def _end_of(source: Any) -> Callable[[], bool] | None:
    """Return what says whether the other side of a connection is gone; None: it is no connection."""
    hung_up: Callable[[], bool] | None = getattr(source, "_hung_up", None)
    return hung_up


def wait(rings: Iterable[Source], timeout: SupportsFloat | None = None) -> list[Source]:
    """Wait until there is something to get from one of several rings, queues and connections.

    As `multiprocessing.connection.wait`: nothing is taken, and another consumer may be faster. They may be of
    different pools.

    Parameters
    ----------
    rings : iterable of Ring, Queue and Connection (of `ssm.Pipe`)
        As many as you like; up to 128 are slept on at once, what is put into the others is seen within 10 ms.
    timeout : float or None
        Seconds to wait; ``None`` waits for ever, ``0`` only looks.

    Returns
    -------
    list of Ring, Queue and Connection
        Those that have a packet or an object, are shut down, or whose other side is gone for good (the get says so), in
        the order given; empty
        when none had in `timeout`.

    Raises
    ------
    ValueError
        One is closed, or there is none.
    """
    given = list(rings)
    pairs = tuple((_ring_of(source), False) for source in given)
    ends = [(i, end) for i, source in enumerate(given) if (end := _end_of(source))]
    if not ends:
        return [given[index] for index in _core.wait_rings(pairs, timeout, None)]
    until = None if timeout is None else time.monotonic() + float(timeout)
    told = slow.Wait()
    while True:
        gone = {index for index, hung_up in ends if hung_up()}
        left = _LOOK_S if until is None else min(_LOOK_S, max(0.0, until - time.monotonic()))
        ready = {*_core.wait_rings(pairs, 0 if gone else left, None), *gone}
        if ready or (until is not None and time.monotonic() >= until):
            return [given[index] for index in sorted(ready)]
        told.look("wait", pairs)
