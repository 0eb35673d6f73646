# SPDX-License-Identifier: Apache-2.0
"""What may be done with a ring."""

from enum import IntFlag


class Acl(IntFlag):
    """Flags of a ring, for every process: ``ring.acl``."""

    RDWR = 0
    """Put and get."""
    RDONLY = 1
    """put() raises PermissionError."""
    FLOWDOWN = 2
    """put() raises RingShutDown; so does get(), once the ring is drained. Ring.shutdown() sets it."""
    FLOWPEER = 4
    """The peer is down: get() raises RingShutDown once the ring is drained."""
