# SPDX-License-Identifier: Apache-2.0
"""What stands in front of a frame on its way, the frame itself staying where the reader put it.

::

    from the reader    | headroom ........... | time | frame |
    from a parser      | headroom |    mark   | time | frame |

The packet's tag tells the frame's number in the file and its length. A parser may be killed between any two of its
steps: what the reader wrote stays as it is, so that the next one can do it all again.
"""

from __future__ import annotations

import struct

from ssm.captures.flow import KEY

TIME = struct.Struct("<q")  # nanoseconds since the epoch
MARK = struct.Struct(f"<H{KEY.size}s")  # number of the parser, flow
HEADROOM = 64
assert MARK.size <= HEADROOM, "the mark is written into the headroom"

_NUMBER_BITS = 40


def tag_of(number: int, length: int) -> int:
    """Return the tag of a packet with that frame."""
    return length << _NUMBER_BITS | number


def frame_of(tag: int) -> tuple[int, int]:
    """Return (number, length in bytes) of the frame that a tag tells of."""
    return tag & (1 << _NUMBER_BITS) - 1, tag >> _NUMBER_BITS
