# SPDX-License-Identifier: Apache-2.0
"""What an IntervalTree gives when it is asked about its ranges."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from allocators._core import RangeInclusive


class NodeState(enum.Enum):
    """State of a range in an IntervalTree.

    Legal transitions: none -> either by ``insert()``, FREE -> ALLOCATED by ``allocate()``,
    ALLOCATED -> FREE by ``free()``, either -> none by ``delete()``.
    """

    FREE = "free"
    ALLOCATED = "allocated"


class Node(NamedTuple):
    """One range of an IntervalTree, as it was when the tree was asked."""

    range: RangeInclusive
    """Its addresses."""
    state: NodeState
    """Free or allocated."""
