# SPDX-License-Identifier: Apache-2.0
"""Columns of a batch: arrays with one number per packet that write through when they are assigned to."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ssm._core import PacketBatch


class Column(np.ndarray[Any, np.dtype[np.uint64]]):
    """`PacketBatch.lengths` or `.tags`: ``batch.lengths[2] = 60`` sets the length of the third packet.

    What is computed from it, and copies, are arrays like any other. A slice of it is not assigned to: assign to
    the column itself, ``batch.lengths[2:4] = 60``.
    """

    _batch: weakref.ref[PacketBatch] | None
    _name: str

    @classmethod
    def of(cls, values: NDArray[np.uint64], batch: PacketBatch, name: str) -> Column:
        """Return the values as a column of the batch, which it does not keep alive."""
        column = values.view(cls)
        column._batch = weakref.ref(batch)
        column._name = name
        return column

    def __array_finalize__(self, source: object) -> None:
        self._batch = None

    def __setitem__(self, key: Any, value: Any) -> None:
        if self._batch is not None:
            batch = self._batch()
            if batch is None:
                raise ValueError(f"the batch of these {self._name} is gone")
            changed = np.array(self)
            changed[key] = value
            setattr(batch, self._name, changed)  # all or nothing
        elif isinstance(self.base, Column):
            raise ValueError(
                f"a slice of {self.base._name} is a copy; assign to batch.{self.base._name}[...]"
            )
        super().__setitem__(key, value)


column = Column.of
