# SPDX-License-Identifier: Apache-2.0
"""The three stages; each works on packets where they lie.

::

    from the reader    | headroom ........... | time | frame |
    from a parser      | headroom |    mark   | time | frame |

The packet's tag tells the frame's number in the file and its length. A parser may be killed between any two of its
steps: what the reader wrote stays as it is, so that the next one can do it all again.
"""

from __future__ import annotations

import os
import signal
import struct
import time
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any

from ssm.captures.capture import Capture
from ssm.captures.flow import KEY
from ssm.captures.headers import flow_of
from ssm.captures.survey import DIGEST_MASK, frame_digest
from ssm.captures.table import FlowTable
from ssm.pipeline import current_worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ssm import Packet, PacketBatch
    from ssm.captures.admission import Admission

TIME = struct.Struct("<q")  # nanoseconds since the epoch
MARK = struct.Struct(f"<H{KEY.size}s")  # number of the parser, flow
HEADROOM = 64
assert MARK.size <= HEADROOM, "the mark is written into the headroom"
NUMBER_BITS = 40  # of a tag; the length of the frame is above them
NUMBER_MASK = (1 << NUMBER_BITS) - 1


def read(path: Path, admission: Admission, *, start: int = 0) -> Iterator[Packet]:
    """Copy each frame that is admitted into a packet, once; but for the first ones, which were sent before a kill."""
    worker = current_worker()
    with Capture(path) as capture:
        for frame in islice(filter(None, map(admission.admit, capture)), start, None):
            packet = worker.alloc(TIME.size + len(frame.data))
            packet.tag = len(frame.data) << NUMBER_BITS | frame.number
            packet[: TIME.size] = TIME.pack(frame.time_ns)
            packet[TIME.size :] = frame.data
            yield packet


def parse(link_type: int, fatal: frozenset[int], batch: PacketBatch) -> PacketBatch:
    """Decode headers in place and leave what they say in front of the frame.

    `fatal` are frames at which the process kills itself, so that this is seen; not when they come the second time.
    """
    number = current_worker().number
    for packet in batch:
        if (
            packet.redelivered and packet.headroom != HEADROOM
        ):  # prepend() moves the front first, then the length
            missing = MARK.size + TIME.size + (packet.tag >> NUMBER_BITS) - len(packet)
            packet.append(missing)
        else:
            packet.prepend(MARK.size)
        with memoryview(packet) as view, view[MARK.size + TIME.size :] as frame:
            MARK.pack_into(view, 0, number, KEY.pack(*flow_of(frame, link_type)))
        if packet.tag & NUMBER_MASK in fatal and not packet.redelivered:
            os.kill(os.getpid(), signal.SIGKILL)
    return batch


class Table:
    """The flow table, and how often each frame of the file was seen."""

    def __init__(self, file_packets: int, parsers: int) -> None:
        self._flows = FlowTable()
        self._seen = bytearray(file_packets)  # 0, 1, or 2 for more
        self._packets, self._bytes = Counter(dict.fromkeys(range(parsers), 0)), Counter[int]()  # by parser
        self._digest = self._strangers = self._began_ns = 0

    def __call__(self, batch: PacketBatch) -> None:
        """Count a batch."""
        self._began_ns = self._began_ns or time.monotonic_ns()
        for packet in batch:
            frame_number = packet.tag & NUMBER_MASK
            with memoryview(packet) as view, view[MARK.size + TIME.size :] as frame:
                parser, key = MARK.unpack_from(view)
                self._flows.add(key, len(frame), *TIME.unpack_from(view, MARK.size))
                self._bytes[parser] += len(frame)
                self._digest += frame_digest(frame_number, frame)
            self._packets[parser] += 1
            if frame_number < len(self._seen):
                self._seen[frame_number] = min(self._seen[frame_number] + 1, 2)
            else:
                self._strangers += 1

    def close(self) -> dict[str, Any]:
        """Return the result of the stage: what arrived; `once` and `repeated` are frames, `parsers` by their marks."""
        rows = self._flows.rows()
        return {
            "packets": self._packets.total(),
            "bytes": self._bytes.total(),
            "digest": self._digest & DIGEST_MASK,
            "once": self._seen.count(1),
            "repeated": self._seen.count(2),
            "strangers": self._strangers,
            "parsers": [{"packets": n, "bytes": self._bytes[number]} for number, n in self._packets.items()],
            "flows": len(rows),
            "flow_packets": sum(row.packets for row in rows),
            "flow_bytes": sum(row.bytes for row in rows),
            "rows": rows,
            "seconds": (time.monotonic_ns() - self._began_ns) / 1e9 if rows else 0.0,
        }
