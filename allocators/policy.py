# SPDX-License-Identifier: Apache-2.0
"""AllocPolicy: where in an address space to allocate."""

from typing import ClassVar, Final, Self, final

from allocators._core import Policy
from allocators.errors import Overflow, Underflow

_FIRST, _LAST, _EXACT = range(3)  # as enum al_tree_policy has them
_ADDRESS_LIMIT: Final = 1 << 64


@final
class AllocPolicy(Policy):
    """Where to allocate: ``FIRST_MATCH``, ``LAST_MATCH`` or ``exact(address)``.

    Immutable, comparable and hashable.
    """

    __slots__ = ()

    FIRST_MATCH: ClassVar[Self]
    """The lowest place that fits."""
    LAST_MATCH: ClassVar[Self]
    """The highest place that fits."""

    @classmethod
    def exact(cls, address: int) -> Self:
        """Exactly there, or nowhere.

        Parameters
        ----------
        address : int
            Where the range starts, ``0 <= address < 2**64``.

        Raises
        ------
        Underflow, Overflow
            It is not like that.
        """
        if address < 0:
            raise Underflow(f"exact address {address} is below 0")
        if address >= _ADDRESS_LIMIT:
            raise Overflow(f"exact address {address:#x} is above 2**64 - 1")
        return cls(_EXACT, address)


AllocPolicy.FIRST_MATCH = AllocPolicy(_FIRST)
AllocPolicy.LAST_MATCH = AllocPolicy(_LAST)
