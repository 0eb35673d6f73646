# SPDX-License-Identifier: Apache-2.0
"""Waiting for the first of several rings."""

from __future__ import annotations

from typing import TYPE_CHECKING, SupportsFloat

from ssm import _core

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ssm._core import Ring


def wait(rings: Iterable[Ring], timeout: SupportsFloat | None = None) -> list[Ring]:
    """Wait until there is something to get from one of several rings.

    As `multiprocessing.connection.wait`: nothing is taken, and another consumer may be faster. The rings may be of
    different pools.

    Parameters
    ----------
    rings : iterable of Ring
        As many as you like; up to 128 are slept on at once, what is put into the others is seen within 10 ms.
    timeout : float or None
        Seconds to wait; ``None`` waits for ever, ``0`` only looks.

    Returns
    -------
    list of Ring
        Those that have a packet, or are shut down, in the order given; empty when none had in `timeout`.

    Raises
    ------
    ValueError
        A ring is closed, or there is none.
    """
    given = list(rings)
    ready = _core.wait_rings(tuple((ring, False) for ring in given), timeout, None)
    return [given[index] for index in ready]
