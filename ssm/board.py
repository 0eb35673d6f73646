# SPDX-License-Identifier: Apache-2.0
"""Boards of a pool: small tables that processes share by name, and read and write in place."""

from __future__ import annotations

import hashlib
import operator
from typing import TYPE_CHECKING, Any, cast

from ssm import _core, late
from ssm.service import open_service

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike, NDArray

    from ssm._core import Pool

BYTES_MAX = 1 << 40  # SSM_BOARD_BYTES_MAX of ssm.h


class Board(_core.Board):
    """A table in shared memory; made by `Pool.board`.

    It stays as long as the pool, whichever processes come, go or die. Nothing is locked: a row, or a field, has one
    process that writes it, and any number that read it. A number of up to 8 bytes at a multiple of its size is
    written as a whole. Of anything larger, a reader may see a part, and a process that is killed may leave a part.

    A board is a buffer as well: ``memoryview(board)``.
    """

    __slots__ = ("dtype",)

    dtype: np.dtype[Any]

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return self._parameters[1]

    @property
    def array(self) -> NDArray[Any]:
        """The table: a view of the shared memory, of shape ``(rows,)``. Read-only where the pool is attached readonly.

        A new view each time; a loop keeps it in a variable. It stays valid when the pool is closed.

        Raises
        ------
        ValueError
            The pool is closed.
        """
        numpy: Any = late.load("numpy")
        return cast("NDArray[Any]", numpy.frombuffer(self, self.dtype))

    def __len__(self) -> int:
        return self.rows

    def __reduce__(self) -> tuple[Any, ...]:
        return board, (self.pool, self.name, self.dtype, self.rows)

    def __repr__(self) -> str:
        return f"<ssm.Board {self.name!r} of pool {self.pool.name!r}: {self.rows} rows of {self.dtype}>"


def board(pool: Pool, name: str, dtype: DTypeLike, rows: int) -> Board:
    """Open or create; see `Pool.board`."""
    count = operator.index(rows)
    records: Any = late.load("ssm.records")
    number = hashlib.blake2b(records.text_of(dtype).encode(), digest_size=8).digest()
    kind: np.dtype[Any] = late.load("numpy").dtype(dtype)
    most = BYTES_MAX // kind.itemsize
    if not 1 <= count <= most:
        raise ValueError(
            f"board {name!r}: rows={rows}, want 1 <= rows <= {most} (of {kind.itemsize} bytes each)"
        )
    opened = open_service(Board, pool, name, False, count, int.from_bytes(number, "little"), kind.itemsize)
    opened.dtype = kind
    return opened
