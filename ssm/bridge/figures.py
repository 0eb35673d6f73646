# SPDX-License-Identifier: Apache-2.0
"""What bridges tell those who look from outside: `ssm top`, `ssm metrics`, `ssm web`.

A board of the pool has a row for each exported or imported ring of each bridge. A bridge takes rows while it has the
one permit of a semaphore, and writes them some times a second. Each number is written as a whole. A row counts as long
as its process lives; the next bridge takes the rows of the dead. A reader believes nothing: another process wrote it.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ssm.errors import SSMError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from ssm.bridge.bridge import Status
    from ssm.pool import Pool
    from ssm.stats import Holder, ServiceStats

NAME, LOCK = "bridges", "bridges:rows"  # of the board, and of the semaphore
ROWS = 64
EVERY_S = 0.25
LOCK_S = 1.0
OUT, IN = 1, 2

# Text comes first, and each number behind it stands at a multiple of its size.
_ROW = [
    ("name", "S40"),
    ("peer", "S88"),
    ("pid", "u8"),
    ("way", "u8"),
    ("packets", "u8"),
    ("bytes", "u8"),
    ("in_flight", "u8"),
    ("resent", "u8"),
    ("twice", "u8"),
    ("refused", "u8"),
    ("reconnects", "u8"),
    ("oldest_ms", "u8"),
    ("silent_ms", "u8"),
]


@dataclasses.dataclass(frozen=True, slots=True)
class BridgeStats:
    """One end of a ring that goes on in, or comes from, another host."""

    name: str
    """Its name on the link."""
    way: Literal["out", "in"]
    """"out": its packets go there; "in": they come from there."""
    pid: int
    """The bridge's process."""
    peer: str
    """Pool and host at the other end; empty: none was met yet."""
    packets: int
    """Packets that the other host has acknowledged, or that came from there into this pool."""
    bytes: int
    """Bytes of these."""
    in_flight: int
    """Packets that were taken out of the ring and are not acknowledged, or that have arrived and wait for room."""
    resent: int
    """Packets that were sent again."""
    twice: int
    """Packets that came twice, and were dropped."""
    refused: int
    """Packets dropped since some in front of them were missing, or beyond the sender's credit; these come again."""
    reconnects: int
    """How often the other end was another process, or was heard again after a silence."""
    oldest_ms: int
    """Milliseconds since the oldest packet that is not acknowledged was taken out of the ring; 0: there is none."""
    silent_ms: int
    """Milliseconds since the other end was heard."""


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """How a number of BridgeStats is told."""

    metric: str
    """Its name in `ssm metrics`."""
    text: str
    """What it is."""
    kind: Literal["gauge", "counter"]
    """What it is for Prometheus."""
    column: str
    """Its column in `ssm top`."""
    read: Callable[[BridgeStats], float]
    """Its value, in the unit of the metric."""


FIGURES: tuple[Figure, ...] = (
    Figure(
        "ssm_bridge_packets", "Packets that are over there, or came.", "counter", "there", lambda b: b.packets
    ),
    Figure(
        "ssm_bridge_in_flight", "Packets that are on their way.", "gauge", "in flight", lambda b: b.in_flight
    ),
    Figure(
        "ssm_bridge_oldest_seconds",
        "Age of the oldest one that is not acknowledged.",
        "gauge",
        "oldest s",
        lambda b: b.oldest_ms / 1000,
    ),
    Figure(
        "ssm_bridge_silent_seconds",
        "Since the peer was heard.",
        "gauge",
        "silent s",
        lambda b: b.silent_ms / 1000,
    ),
    Figure(
        "ssm_bridge_reconnects",
        "Times that the peer came back.",
        "counter",
        "reconnects",
        lambda b: b.reconnects,
    ),
    Figure("ssm_bridge_resent", "Packets that were sent again.", "counter", "resent", lambda b: b.resent),
    Figure("ssm_bridge_twice", "Packets that came twice, dropped.", "counter", "twice", lambda b: b.twice),
    Figure("ssm_bridge_refused", "Packets out of turn, dropped.", "counter", "refused", lambda b: b.refused),
    Figure("ssm_bridge_bytes", "Bytes that are over there, or came.", "counter", "bytes", lambda b: b.bytes),
)


# ---- writing ----------------------------------------------------------------------------------------


class Teller:
    """The rows that one bridge writes."""

    def __init__(self, pool: Pool, ends: int) -> None:
        """Take a row for each of so many ends; a pool without room for them leaves the bridge untold."""
        self._rows: list[Any] = []
        self._told = 0.0
        try:
            lock = pool.semaphore(LOCK, 1)
            rows = pool.board(NAME, _ROW, ROWS).array
            if not lock.acquire(LOCK_S):
                raise TimeoutError(f"semaphore {LOCK!r} is taken")
            try:
                alive = {holder.pid for holder in pool.holders() if holder.kind == "process" and holder.alive}
                free = [row for row in range(ROWS) if int(rows[row]["pid"]) not in alive][:ends]
                for row in free:
                    rows[row : row + 1] = np.zeros(1, _ROW)
                    rows[row]["pid"] = os.getpid()
            finally:
                lock.release()
        except (OSError, SSMError, ValueError) as error:  # no room in the metadata area: the bridge goes on
            logging.getLogger("ssm").warning("a bridge cannot be watched from outside: %s", error)
            return
        self._rows = [rows[row : row + 1] for row in free]

    def tell(self, statuses: Callable[[], list[Status]]) -> None:
        """Write what the bridge does, if the last time was a while ago."""
        now = time.monotonic()
        if self._rows and now - self._told >= EVERY_S:
            self._told = now
            ends = [end for status in statuses() for end in _ends(status)]
            for row, end in zip(self._rows, ends, strict=False):
                for field, value in end.items():
                    row[field] = value

    def close(self) -> None:
        """Give the rows back."""
        for row in self._rows:
            row["pid"] = 0
        self._rows = []


def _ends(status: Status) -> list[dict[str, Any]]:
    link = status.link
    both = {
        "peer": link.peer.encode()[:88],
        "reconnects": max(0, link.met - 1) + link.returned,
        "silent_ms": int(link.silent_s * 1000),
    }
    out = [
        {
            "name": each.name.encode(),
            "way": OUT,
            "packets": each.sent.packets,
            "bytes": each.sent.nbytes,
            "in_flight": each.in_flight,
            "resent": each.sent.resent,
            "oldest_ms": int(each.oldest_s * 1000),
        }
        for each in status.exports
    ]
    into = [
        {
            "name": each.name.encode(),
            "way": IN,
            "packets": each.received.packets,
            "bytes": each.received.nbytes,
            "in_flight": each.waiting,
            "twice": each.received.twice,
            "refused": each.received.refused,
        }
        for each in status.imports
    ]
    return [both | end for end in (*out, *into)]


# ---- reading ----------------------------------------------------------------------------------------


class Reader:
    """Reads what the bridges of a pool tell."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._rows: NDArray[Any] | None = None

    def read(self, services: Iterable[ServiceStats], holders: Iterable[Holder]) -> list[BridgeStats]:
        """Return the rows of living bridges; `services` and `holders`: those of the pool."""
        if self._rows is None:
            if not any(each.name == NAME and each.kind == "board" for each in services):
                return []
            try:
                self._rows = self._pool.board(NAME, _ROW, ROWS).array
            except (OSError, SSMError, ValueError):
                return []  # another kind of board
        alive = {holder.pid for holder in holders if holder.kind == "process" and holder.alive}
        return [
            _stats(row) for row in self._rows.copy() if int(row["pid"]) in alive and row["way"] in (OUT, IN)
        ]

    def close(self) -> None:
        """Let go of the board."""
        self._rows = None


def _stats(row: Any) -> BridgeStats:
    told: dict[str, Any] = {name: int(row[name]) for name, kind in _ROW if kind == "u8"}
    told |= {name: bytes(row[name]).decode("utf-8", "replace") for name in ("name", "peer")}
    told["way"] = "out" if told["way"] == OUT else "in"
    return BridgeStats(**told)
