# SPDX-License-Identifier: Apache-2.0
"""Four allocators, each on one small C core: integer ids, address ranges, pids, RMIDs.

They are thread-safe and live in private memory. The same cores are hosted in a pool's shared memory
(``ssm.Pool.ids``, ``addresses``, ``pids``, ``rmids``), and that of the RMIDs runs in BPF.

>>> from allocators import AddressAllocator, AllocPolicy, IdAllocator
>>> ids = IdAllocator(5, 23)
>>> ids.allocate_id(), ids.allocate_id(), ids.free_id(5), ids.allocate_id()
(5, 6, 5, 5)
>>> mmio = AddressAllocator(0x1000, 0x10000)
>>> mmio.allocate(0x110, 0x100)
RangeInclusive(0x1000, 0x110f)
>>> mmio.allocate(0x1000, 0x1000, AllocPolicy.LAST_MATCH)
RangeInclusive(0x10000, 0x10fff)
"""

from allocators._core import (
    AddressAllocator,
    Constraint,
    IdAllocator,
    IntervalTree,
    Pid,
    PidAllocator,
    RangeInclusive,
    RmidAllocator,
)
from allocators.errors import (
    AllocatorError,
    AlreadyReleased,
    CorruptionError,
    InvalidAlignment,
    InvalidRange,
    InvalidSize,
    InvalidStateTransition,
    NeverAllocated,
    OutOfRange,
    Overflow,
    Overlap,
    ResourceNotAvailable,
    UnalignedAddress,
    Underflow,
)
from allocators.node import Node, NodeState
from allocators.policy import AllocPolicy

__all__ = [
    "AddressAllocator",
    "AllocPolicy",
    "AllocatorError",
    "AlreadyReleased",
    "Constraint",
    "CorruptionError",
    "IdAllocator",
    "IntervalTree",
    "InvalidAlignment",
    "InvalidRange",
    "InvalidSize",
    "InvalidStateTransition",
    "NeverAllocated",
    "Node",
    "NodeState",
    "OutOfRange",
    "Overflow",
    "Overlap",
    "Pid",
    "PidAllocator",
    "RangeInclusive",
    "ResourceNotAvailable",
    "RmidAllocator",
    "UnalignedAddress",
    "Underflow",
]
