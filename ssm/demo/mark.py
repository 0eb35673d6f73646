# SPDX-License-Identifier: Apache-2.0
"""What stands in front of a frame on its way, the frame itself staying where the reader put it.

::

    from the reader    | headroom ............ | time | frame |
    from a parser      | headroom | mark ............ | frame |

The packet's tag is the frame's number in the file.
"""

from __future__ import annotations

import struct

from ssm.demo.flow import KEY

TIME = struct.Struct("<q")  # nanoseconds since the epoch
MARK = struct.Struct(f"<qH{KEY.size}s")  # time, number of the parser, flow
HEADROOM = 64
assert MARK.size <= HEADROOM + TIME.size, "the mark is written over the time and into the headroom"
