# SPDX-License-Identifier: Apache-2.0
"""Boards: tables that processes share by name, and what is there after a death."""

from __future__ import annotations

import gc
import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ssm
from ssm.commands import metrics

if TYPE_CHECKING:
    from tests.processes import Children

PROGRESS = np.dtype([("done", "u8"), ("share", "f8"), ("name", "S16")])


def test_a_table_that_all_see(pool: ssm.Pool) -> None:
    board = pool.board("progress", PROGRESS, 4)
    array = board.array
    assert (array.shape, array.dtype, len(board), board.rows, board.name) == (
        (4,),
        PROGRESS,
        4,
        4,
        "progress",
    )
    assert not array.view(np.uint8).any()
    array[2] = (7, 0.5, b"camera")
    with ssm.Pool.attach(pool.name) as other:
        there = other.board("progress", PROGRESS, 4).array
        assert there[2].item() == (7, 0.5, b"camera")
        there["done"][3] = 9
    assert array["done"].tolist() == [0, 0, 7, 9]
    assert len(memoryview(board)) == 4 * PROGRESS.itemsize
    assert "'progress'" in repr(board)
    assert pool.check() == []


def test_plain_numbers(pool: ssm.Pool) -> None:
    counts = pool.board("counts", "u8", 3).array
    counts[1] += 5
    assert pool.board("counts", np.uint64, 3).array.tolist() == [0, 5, 0]


@pytest.mark.parametrize(
    ("dtype", "rows"), [("u4", 8), ("f8", 4), ("i8", 4), ("u8", 5), ("u8", 3), ([("a", "u8")], 4)]
)
def test_another_dtype_or_other_rows(pool: ssm.Pool, dtype: Any, rows: int) -> None:
    pool.board("progress", "u8", 4).array[:] = 6
    with pytest.raises(
        ssm.ServiceMismatch, match=r"'progress'.*exists as board\(.*rows=4\), not as"
    ) as caught:
        pool.board("progress", dtype, rows)
    assert isinstance(caught.value, ValueError)
    assert pool.board("progress", "u8", 4).array.tolist() == [6] * 4


def test_services_and_boards_share_names(pool: ssm.Pool) -> None:
    pool.ids("flows", 0, 9)
    with pytest.raises(ssm.ServiceMismatch, match=r"exists as ids\("):
        pool.board("flows", "u8", 4)
    pool.board("progress", "u8", 4)
    with pytest.raises(ssm.ServiceMismatch, match=r"exists as board\("):
        pool.ids("progress", 0, 3)


@pytest.mark.parametrize(
    ("dtype", "rows", "text"),
    [
        ("u8", 0, "rows=0"),
        ("u8", -1, "rows=-1"),
        ("u8", 2**37 + 1, r"rows=137438953473, want 1 <= rows <= 137438953472 \(of 8 bytes"),
        ("O", 1, "Python objects"),
        ("V0", 1, "no dtype"),
        ("(2,)u8", 1, "no dtype"),
    ],
)
def test_what_cannot_be(pool: ssm.Pool, dtype: str, rows: int, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        pool.board("wrong", dtype, rows)
    assert pool.services() == []
    for name in ("", "x" * 48):
        with pytest.raises(ValueError, match=r"1 \.\. 47 bytes"):
            pool.board(name, "u8", 1)
    with pytest.raises(TypeError):
        pool.board("wrong", "u8", 1.5)  # type: ignore[arg-type]


def test_more_than_there_is_room_for(pool: ssm.Pool) -> None:
    for rows in (10**6, 2**30):
        with pytest.raises(ssm.MetadataExhausted, match="metadata="):
            pool.board("large", [("bytes", "S1000")], rows)
    assert pool.check() == []
    pool.board("large", "u8", 10)


def test_readonly(pool: ssm.Pool) -> None:
    with ssm.Pool.attach(pool.name, readonly=True) as watcher:
        with pytest.raises(FileNotFoundError, match=r"no board 'progress'.*readonly"):
            watcher.board("progress", "u8", 4)
        array = pool.board("progress", "u8", 4).array
        array[3] = 5
        board = watcher.board("progress", "u8", 4)
        seen = board.array
        assert seen.tolist() == [0, 0, 0, 5]
        assert not seen.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            seen[0] = 1
        with pytest.raises(ssm.ServiceMismatch):
            watcher.board("progress", "i8", 4)
        with pytest.raises(PermissionError, match="readonly"):
            watcher.ids("flows", 0, 9)
        array[0] = 1
        assert seen[0] == 1
    assert seen.tolist() == [1, 0, 0, 5]


def test_closing_the_pool_leaves_the_array(name: str) -> None:
    pool = ssm.Pool.create(name, ephemeral=True, classes={256: 8})
    board = pool.board("progress", "u8", 4)
    array = board.array
    array[1] = 3
    pool.close()
    with pytest.raises(ValueError, match="closed"):
        _ = board.array
    with pytest.raises(ValueError, match="closed"):
        pool.board("progress", "u8", 4)
    array[2] = 4
    assert array.tolist() == [0, 3, 4, 0]
    del array
    gc.collect()


def test_views_are_counted(name: str) -> None:
    """The memory goes when the last view does, and not before."""
    pool = ssm.Pool.create(name, ephemeral=True, classes={256: 8})
    arrays = [pool.board("progress", "u8", 4).array for _ in range(3)]
    pool.close()
    while arrays:
        arrays[-1][0] += 1
        assert arrays.pop()[0] > 0
        gc.collect()
    assert name not in Path("/proc/self/maps").read_text()


def count(talk: Any, board: ssm.Board, row: int) -> None:
    array = board.array
    array[row] = os.getpid()
    talk.send("counted")
    talk.recv()


def test_what_the_dead_wrote_stays(pool: ssm.Pool, children: Children, start_method: str) -> None:
    board = pool.board("progress", "u8", 2)
    child = children.start(count, board, 1, method=start_method)
    assert child.hear() == "counted"
    assert board.array.tolist() == [0, child.pid]
    child.kill()
    pool.reap()
    assert pool.check() == []
    assert pool.board("progress", "u8", 2).array.tolist() == [0, child.pid]


def test_pickled(pool: ssm.Pool) -> None:
    board = pool.board("progress", PROGRESS, 2)
    board.array["done"][1] = 8
    copy = pickle.loads(pickle.dumps(board))
    assert copy.array["done"].tolist() == [0, 8]


def test_others_are_not_confused(pool: ssm.Pool) -> None:
    pool.board("progress", "u8", 4).array[:] = 1
    (service,) = pool.stats().services
    assert (service.name, service.kind, service.first, service.ranges) == ("progress", "board", 4, 8)
    assert (service.capacity, service.used, service.allocs, service.reclaim) == (4, 0, 0, False)
    assert service.bytes == 64  # whole cache lines
    assert pool.services() == ["progress"]
    assert "board(dtype #" in str(pool.stats())
    families = {family.name: family for family in metrics.collect([pool.name])}
    samples = families["ssm_service_capacity"].samples
    assert [(sample.labels["service"], sample.value) for sample in samples] == [("progress", 4)]
    assert all(holder.blocks == 0 for holder in pool.holders())
    pool.ids("flows", 0, 9, reclaim=True).allocate_id()
    assert pool.check() == []
