# SPDX-License-Identifier: Apache-2.0
"""What a capture file holds: the measure of a run that sends it somewhere."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ssm.captures.admission import Oversize
from ssm.captures.capture import Capture
from ssm.captures.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ssm.captures.admission import Admission

DIGEST_MASK = (1 << 64) - 1
PROGRESS_STEP = 4096


def frame_digest(number: int, data: bytes | memoryview) -> int:
    """Return a number that ties a frame's bytes to its place; a set of frames has the sum of theirs."""
    return zlib.crc32(data, number & 0xFFFFFFFF)


@dataclass(frozen=True)
class Survey:
    """What the file holds, and what of it is to arrive."""

    link_type: int  # as in the file's header
    packets: int  # in the file
    bytes: int  # in the file
    largest: int  # bytes of the longest frame
    oversize_packets: int  # longer than the limit
    expected_packets: int  # to arrive, under the chosen policy
    expected_bytes: int
    digest: int  # sum of frame_digest() over the frames as they are to arrive


def survey(path: Path, admission: Admission, show: Callable[[int], object]) -> Survey:
    """Count the frames of a file; `show` is told the position in it from time to time.

    Raises
    ------
    CaptureError
        The file is no capture, or is damaged, or holds a frame that does not fit and may not be cut.
    """
    packets = size = largest = oversize = arriving = arriving_bytes = digest = 0
    with Capture(path) as capture:
        for frame in capture:
            packets += 1
            size += len(frame.data)
            largest = max(largest, len(frame.data))
            oversize += len(frame.data) > admission.limit
            if (admitted := admission.admit(frame)) is not None:
                arriving += 1
                arriving_bytes += len(admitted.data)
                digest += frame_digest(frame.number, admitted.data)
            if packets % PROGRESS_STEP == 0:
                show(capture.position())
        link_type = capture.link_type
    if oversize and admission.oversize is Oversize.ERROR:
        raise CaptureError(
            f"{path} holds {oversize:,} packets that fit no size class: the largest has {largest:,} bytes, "
            f"the limit is {admission.limit:,}; give larger --classes, or choose --oversize truncate or skip"
        )
    return Survey(link_type, packets, size, largest, oversize, arriving, arriving_bytes, digest & DIGEST_MASK)
