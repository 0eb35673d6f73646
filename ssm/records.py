# SPDX-License-Identifier: Apache-2.0
"""Rings whose packets are records of one dtype: what ``Ring.send_record`` and its like do.

The dtype stands with the ring in shared memory, as the text of its description that numpy writes into .npy files. What
reads it evaluates literals only.
"""

from __future__ import annotations

import ast
import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from ssm import _core
from ssm.deadline import left_of, until_of
from ssm.errors import CorruptionError, PoolExhausted, RecordMismatch, RingFull, RingShutDown

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

    from ssm._core import Ring

TEXT_MAX = _core.TYPE_SIZE - 1  # less its NUL
AT_ONCE = 256  # packets of one call of send_records that are taken from the pool together


def text_of(dtype: DTypeLike) -> str:
    """Return the description of a dtype that records can have; ValueError for others."""
    given = np.dtype(dtype)
    if given.hasobject:
        raise ValueError(
            f"records of {given} have Python objects in them, which other processes cannot use; see ssm.Queue"
        )
    if given.itemsize == 0 or given.subdtype is not None:
        raise ValueError(
            f"{given} is no dtype of a record: it takes one that has a size, and no shape; name a field for that"
        )
    text = repr(np.lib.format.dtype_to_descr(given))
    if not text.isascii() or len(text) > TEXT_MAX:
        raise ValueError(
            f"the description of {given} has {len(text)} bytes; the limit is {TEXT_MAX}, in ASCII: shorten its names"
        )
    return text


@functools.lru_cache
def _parse(text: str) -> np.dtype[Any]:
    dtype = np.lib.format.descr_to_dtype(ast.literal_eval(text))
    if dtype.hasobject or dtype.itemsize == 0:
        raise ValueError(text)
    return dtype


def dtype_of(ring: Ring) -> np.dtype[Any] | None:
    """Return the dtype that stands with the ring."""
    text = ring._type
    if not text:
        return None
    try:
        return _parse(text)
    except (ValueError, TypeError, SyntaxError, KeyError, MemoryError, RecursionError) as error:
        raise CorruptionError(
            f"ring {ring.name!r} of pool {ring.pool.name!r} has no dtype, but {text!r}"
        ) from error


def _need(ring: Ring) -> np.dtype[Any]:
    dtype = dtype_of(ring)
    if dtype is None:
        raise ValueError(
            f"ring {ring.name!r} of pool {ring.pool.name!r} was made without dtype=; use send() and get()"
        )
    return dtype


def send_record(ring: Ring, value: Any, block: object = True, timeout: float | None = None) -> bool:
    """``Ring.send_record``."""
    record = np.array(value, _need(ring))
    if record.shape:
        raise ValueError(f"an array of shape {record.shape} is not one record; use send_records()")
    return ring.send(record.reshape(1).view(np.uint8).data, block, timeout)


def send_records(ring: Ring, array: ArrayLike, block: object = True, timeout: float | None = None) -> int:
    """``Ring.send_records``."""
    dtype = _need(ring)
    rows = np.ascontiguousarray(array, dtype).reshape(-1).view(np.uint8).reshape(-1, dtype.itemsize)
    until = until_of(timeout)
    sent, step = 0, _at_once(ring, rows.shape[1])
    for start in range(0, len(rows), step):
        try:
            sent += _send(ring, rows[start : start + step], block, left_of(until))
        except (RingFull, RingShutDown, PoolExhausted):
            if sent == 0:
                raise
            break
    return sent


def _at_once(ring: Ring, size: int) -> int:
    """How many packets of that size may be asked for together: not more than half of what there is."""
    fit = [count for block_size, count in sorted(ring.pool.classes.items()) if block_size > size]
    return max(1, min([AT_ONCE, ring.capacity, *(count // 2 for count in fit[:2])]))


def _send(ring: Ring, rows: np.ndarray[Any, Any], block: object, timeout: float | None) -> int:
    with ring.pool.alloc_many(len(rows), rows.shape[1], timeout if block else 0) as batch:
        batch.scatter(rows.data)
        return ring.put_many(batch, block, timeout)


def get_record(ring: Ring, block: object = True, timeout: float | None = None) -> Any:
    """``Ring.get_record``."""
    dtype = _need(ring)
    packet = ring.get(block, timeout)
    if len(packet) != dtype.itemsize:
        raise RecordMismatch(_mismatch(ring, len(packet), dtype), packet)
    return packet.asarray(dtype, (1,))[0]


def get_records(
    ring: Ring, n: int, block: object = True, timeout: float | None = None
) -> np.ndarray[Any, Any]:
    """``Ring.get_records``."""
    dtype = _need(ring)
    batch = ring.get_many(n, block, timeout)
    wrong = batch.lengths[batch.lengths != dtype.itemsize]
    if len(wrong):
        raise RecordMismatch(_mismatch(ring, int(wrong[0]), dtype), batch)
    with batch:
        return batch.gather().reshape(-1).view(dtype)


def _mismatch(ring: Ring, length: int, dtype: np.dtype[Any]) -> str:
    return (
        f"a packet of {length} bytes came out of ring {ring.name!r} of pool {ring.pool.name!r}, whose records have "
        f"{dtype.itemsize} ({dtype}); the exception's `packet` has what was taken out"
    )
