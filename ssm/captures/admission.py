# SPDX-License-Identifier: Apache-2.0
"""Which frames fit into a packet, and what happens to those that do not."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssm.captures.capture import Frame


class Oversize(StrEnum):
    """What happens to a frame that no size class can take."""

    ERROR = "error"  # nothing is run
    TRUNCATE = "truncate"  # its first bytes travel
    SKIP = "skip"  # it stays out


@dataclass(frozen=True)
class Admission:
    """The rule that the survey and the reader both follow."""

    limit: int  # bytes of the longest frame that fits
    oversize: Oversize

    def admit(self, frame: Frame) -> Frame | None:
        """Return the frame as it will travel, or None if it stays out."""
        if len(frame.data) <= self.limit:
            return frame
        if self.oversize is Oversize.TRUNCATE:
            return frame._replace(data=frame.data[: self.limit])
        return None
