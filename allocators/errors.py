# SPDX-License-Identifier: Apache-2.0
"""What the allocators raise. Each class is also the standard one that a caller would catch."""


class AllocatorError(Exception):
    """Base of all errors of this package. Whatever raised one has changed nothing."""


class Overflow(AllocatorError, OverflowError):
    """Past the largest value there is: id ``2**32 - 1``, address ``2**64 - 1``."""


class Underflow(AllocatorError, ValueError):
    """Below the smallest value there is: an address space of size 0, a negative address."""


class OutOfRange(AllocatorError, ValueError):
    """Not a value that this allocator manages."""


class AlreadyReleased(AllocatorError, ValueError):
    """Freed twice."""


class NeverAllocated(AllocatorError, LookupError):
    """Freed, but never handed out."""


class ResourceNotAvailable(AllocatorError, LookupError):
    """Nothing free that fits, or no such range."""


class InvalidRange(AllocatorError, ValueError):
    """A range that ends before it starts, or whose ends or length are not such numbers."""


class InvalidAlignment(AllocatorError, ValueError):
    """An alignment that is not a power of two."""


class InvalidSize(AllocatorError, ValueError):
    """A size that is 0 or too large."""


class Overlap(AllocatorError, ValueError):
    """A range that shares addresses with one in the tree."""


class InvalidStateTransition(ResourceNotAvailable, ValueError):
    """The addresses are there, but not in the state that the operation needs: freeing what is free."""


class UnalignedAddress(AllocatorError, ValueError):
    """An exact address that is no multiple of the alignment."""


class CorruptionError(AllocatorError, RuntimeError):
    """The allocator's memory contradicts itself: something else has written to it."""
