# SPDX-License-Identifier: Apache-2.0
"""What a run can be given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ssm.captures.admission import Admission, Oversize
from ssm.demo.mark import HEADROOM, TIME

if TYPE_CHECKING:
    from collections.abc import Mapping

CLASSES = {256: 4096, 2048: 2048, 65536: 128}
PARSERS = 2
RING_CAPACITY = 1024
BATCH_MAX = 64
KILLS_MAX = 100
TOP = 10


@dataclass(frozen=True)
class Settings:
    """The sizes and rules of one run."""

    classes: Mapping[int, int]  # block size in bytes -> number of blocks
    parsers: int = PARSERS
    ring_capacity: int = RING_CAPACITY  # packets
    batch_max: int = BATCH_MAX  # packets handed over at once
    kills: int = 0  # frames at which a parser is killed, in the middle of its work
    top: int = TOP  # rows of the flow table to report; 0: all
    oversize: Oversize = Oversize.ERROR
    start_method: str = "spawn"  # of multiprocessing

    @property
    def admission(self) -> Admission:
        """The rule for frames that no size class can take."""
        return Admission(max(0, max(self.classes) - HEADROOM - TIME.size), self.oversize)
