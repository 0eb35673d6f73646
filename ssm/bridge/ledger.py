# SPDX-License-Identifier: Apache-2.0
"""Which host has which packets of a ring that goes to several hosts: a board that outlives the bridge's process.

Each host has a stream of its own, whose numbers follow each other. A row of the board says which packets of the ring,
by their positions, have which numbers in the stream of which host. It is written before they are sent, and ends when
they are freed:

    row noted, not sent       killed: the ring hands the packets out again, and the row says for whom they are
    acknowledged, not freed   killed: likewise; the host says that it has them
    freed, row still there    killed: nothing comes out for the row, which is ended

A row counts from the one store of its count on, so a process that is killed leaves all of it or nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from ssm import Pool

HOSTS_MAX = 256
TAKINGS = 2048  # of all hosts
_ROW = [("host", "u8"), ("first", "u8"), ("position", "u8"), ("turn", "u8"), ("count", "u8")]


class Taking(NamedTuple):
    """Packets of the ring that one host has, or is to have."""

    row: int
    host: int
    first: int  # number of the first one in the host's stream
    position: int  # of the first one in the ring
    size: int  # packets


class Ledger:
    """The board of one exported ring.

    Row 0 says which ring it is about. Rows of hosts follow: `first` is the next number of the stream, `position` tells
    the stream from others. Then come the takings.
    """

    def __init__(self, pool: Pool, name: str, serial: int) -> None:
        """Open it; `serial`: of the ring. What is there of another ring is cleared."""
        self._rows = pool.board(f"{name}:hosts", _ROW, 1 + HOSTS_MAX + TAKINGS).array
        if int(self._rows[0]["host"]) != serial + 1:
            self._rows[1:] = np.zeros(HOSTS_MAX + TAKINGS, _ROW)
            self._rows[0]["host"] = serial + 1
        found = self.takings()
        self._free = sorted(set(range(1 + HOSTS_MAX, len(self._rows))) - {each.row for each in found})
        self._known: set[int] = set()  # hosts that this process has senders for
        self._turn = 1 + int(self._rows["turn"].max())
        for each in found:
            row = self._rows[self.host(each.host)]
            row["first"] = max(int(row["first"]), each.first + each.size)

    def takings(self) -> list[Taking]:
        """Return all that have not ended, in the order in which they were noted."""
        begin = 1 + HOSTS_MAX
        table = self._rows[begin:]
        there = np.flatnonzero(table["count"])
        order = there[np.argsort(table["turn"][there], kind="stable")]
        return [
            Taking(begin + i, *(int(table[i][field]) for field in ("host", "first", "position", "count")))
            for i in order.tolist()
        ]

    @property
    def room(self) -> int:
        """How many takings can be noted."""
        return len(self._free)

    def host(self, host: int) -> int:
        """Return the row of a host; make one, with a new stream, if it has none."""
        hosts = self._rows[1 : 1 + HOSTS_MAX]["host"]
        found = np.flatnonzero(hosts == host)
        if len(found):
            self._known.add(host)
            return 1 + int(found[0])
        unused = np.flatnonzero(hosts == 0)
        busy = self._known | {each.host for each in self.takings()}
        row = (
            1 + int(unused[0])
            if len(unused)
            else next(1 + i for i, h in enumerate(hosts.tolist()) if h not in busy)
        )
        self._known.add(host)
        self._rows[row]["host"] = 0
        self._rows[row]["first"] = 0
        self._rows[row]["position"] = np.random.default_rng().integers(1, 1 << 63)
        self._rows[row]["host"] = host
        return row

    def stream(self, row: int) -> int:
        """Return what tells the host's stream from every other one."""
        return int(self._rows[row]["position"])

    def next(self, row: int) -> int:
        """Return the number of the next packet that the host gets."""
        return int(self._rows[row]["first"])

    def note(self, host_row: int, position: int, count: int) -> Taking:
        """Note that a host gets packets of the ring; there has to be room."""
        row, host, first = self._free.pop(), int(self._rows[host_row]["host"]), self.next(host_row)
        record = self._rows[row]
        record["host"], record["first"], record["position"], record["turn"] = (
            host,
            first,
            position,
            self._turn,
        )
        record["count"] = count
        self._rows[host_row]["first"] = first + count
        self._turn += 1
        return Taking(row, host, first, position, count)

    def end(self, row: int) -> None:
        """End a taking: its packets are freed."""
        self._rows[row]["count"] = 0
        self._free.append(row)
