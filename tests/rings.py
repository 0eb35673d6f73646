# SPDX-License-Identifier: Apache-2.0
"""What tests of rings look at."""

import ssm


def drain(ring):
    values = []
    while True:
        try:
            packet = ring.get_nowait()
        except ssm.RingEmpty:
            return values
        values.append(bytes(packet))
        packet.free()


def free(pool, block_size=256):
    """Free blocks, those in private caches included."""
    return next(c.free + c.cached for c in pool.stats().classes if c.block_size == block_size)
