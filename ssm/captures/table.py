# SPDX-License-Identifier: Apache-2.0
"""The flow table: one row per flow."""

from __future__ import annotations

from dataclasses import dataclass

from ssm.captures.flow import KEY, Flow


@dataclass(slots=True)
class Row:
    """What is known of one flow."""

    flow: Flow
    packets: int
    bytes: int
    first_ns: int  # since the epoch
    last_ns: int


class FlowTable:
    """Rows by flow."""

    def __init__(self) -> None:
        self._rows: dict[bytes, Row] = {}

    def add(self, key: bytes, size: int, time_ns: int) -> None:
        """Count one packet of `size` bytes for the flow that packs to `key`."""
        row = self._rows.get(key)
        if row is None:
            self._rows[key] = Row(Flow(*KEY.unpack(key)), 1, size, time_ns, time_ns)
            return
        row.packets += 1
        row.bytes += size
        row.first_ns = min(row.first_ns, time_ns)
        row.last_ns = max(row.last_ns, time_ns)

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self) -> list[Row]:
        """Return all rows, the one with the most bytes first."""
        return sorted(self._rows.values(), key=lambda row: (-row.bytes, -row.packets, row.flow))
