# SPDX-License-Identifier: Apache-2.0
"""What a receiver has to know after it was killed: how positions of the stream are counted in its own inbox.

The inbox counts its puts, and that count is committed with each put. So the position that comes next is the count
plus a number that only changes where a stream begins, or has a gap. This number stands in a board of the pool, with
the names of stream and inbox that it is about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssm import Pool

_U64 = 1 << 64


class Journal:
    """The record of one stream.

    The board has two records and, in its row 0, the number of the one that counts. A change is written into the other
    record, and counts from the one store of its number on. So a process that is killed leaves the old or the new one.
    """

    def __init__(self, pool: Pool, name: str, inbox: int) -> None:
        """Open it; `inbox` is the serial number of the inbox."""
        self._rows = pool.board(name, [("stream", "u8"), ("inbox", "u8"), ("base", "u8")], 3).array
        self._inbox = inbox

    def base(self, stream: int) -> int | None:
        """Return what is added to the inbox's count of puts; None: that stream has not begun in this inbox."""
        which = int(self._rows[0]["stream"])
        if which not in (1, 2):
            return None
        record = self._rows[which]
        if int(record["stream"]) != stream or int(record["inbox"]) != self._inbox:
            return None
        return int(record["base"])

    def write(self, stream: int, base: int) -> None:
        """Set it, modulo 2**64."""
        other = 1 if int(self._rows[0]["stream"]) == 2 else 2
        self._rows[other] = (stream, self._inbox, base % _U64)
        self._rows[0]["stream"] = other
