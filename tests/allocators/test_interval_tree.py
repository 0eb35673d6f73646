# SPDX-License-Identifier: Apache-2.0
"""IntervalTree: node states and their transitions, queries, balance."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from allocators import (
    Constraint,
    IntervalTree,
    InvalidStateTransition,
    Node,
    NodeState,
    Overlap,
    RangeInclusive,
    ResourceNotAvailable,
)
from tests.allocators.renewed import WAYS, Renewed

FREE, ALLOCATED = NodeState.FREE, NodeState.ALLOCATED
R = RangeInclusive


MakeTree = Callable[[RangeInclusive], IntervalTree]


@pytest.fixture(params=["alone", *WAYS])
def make_tree(request: pytest.FixtureRequest) -> MakeTree:
    """Makes trees; or trees that are others at each call, see renewed.py."""

    def make(whole: RangeInclusive) -> Any:
        tree = IntervalTree(whole)
        return tree if request.param == "alone" else Renewed(tree, request.param)

    return make


@pytest.fixture
def tree(make_tree: MakeTree) -> IntervalTree:
    tree = make_tree(R(0x100, 0x110))
    tree.insert(R(0x90, 0x9F), FREE)
    tree.insert(R(0x200, 0x2FF), ALLOCATED)
    return tree


def test_nodes_in_order(tree: IntervalTree) -> None:
    assert tree.nodes() == [
        Node(R(0x90, 0x9F), FREE),
        Node(R(0x100, 0x110), FREE),
        Node(R(0x200, 0x2FF), ALLOCATED),
    ]
    assert [state for _, state in tree.nodes()] == [FREE, FREE, ALLOCATED]
    assert repr(tree) == "<IntervalTree: 3 ranges, 1 of them allocated>"


def test_search(tree: IntervalTree) -> None:
    assert tree.search(R(0x90, 0x9F)) == (R(0x90, 0x9F), FREE)
    assert tree.search(R(0x200, 0x250)) is None
    assert tree.search(R(0x111, 0x1FE)) is None


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (R(0x100, 0x101), R(0x100, 0x110)),
        (R(0x90, 0x95), R(0x90, 0x9F)),
        (R(0x200, 0x201), R(0x200, 0x2FF)),
        (R(0x200, 0x2FF), R(0x200, 0x2FF)),
        (R(0x2EF, 0x2FF), R(0x200, 0x2FF)),
        (R(0x2FF, 0x300), None),
        (R(0x300, 0x301), None),
        (R(0x1FF, 0x300), None),
        (R(0, 0x1000), None),
    ],
)
def test_search_superset(tree: IntervalTree, query: RangeInclusive, found: RangeInclusive | None) -> None:
    node = tree.search_superset(query)
    assert (node and node.range) == found


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (R(0, 0x8F), []),
        (R(0, 0x90), [0x90]),
        (R(0x9F, 0x100), [0x90, 0x100]),
        (R(0xA0, 0xFF), []),
        (R(0x95, 0x98), [0x90]),
        (R(0, 0x1000), [0x90, 0x100, 0x200]),
        (R(0x2FF, 2**64 - 1), [0x200]),
        (R(0x300, 2**64 - 1), []),
    ],
)
def test_overlapping(tree: IntervalTree, query: RangeInclusive, found: list[int]) -> None:
    assert [node.range.start for node in tree.overlapping(query)] == found


@pytest.mark.parametrize(
    "wrong", [R(0x200, 0x2FF), R(0x200, 0x2FE), R(0x2FF, 0x300), R(0, 0x90), R(0, 0x1000)]
)
def test_insert_overlap(tree: IntervalTree, wrong: RangeInclusive) -> None:
    before = tree.nodes()
    with pytest.raises(Overlap):
        tree.insert(wrong, FREE)
    assert tree.nodes() == before


def test_legal_transitions(tree: IntervalTree) -> None:
    tree.delete(R(0x90, 0x9F))  # FREE -> none
    assert tree.allocate(Constraint(0x11, 1)) == R(0x100, 0x110)  # FREE -> ALLOCATED
    assert tree.search(R(0x100, 0x110)) == (R(0x100, 0x110), ALLOCATED)
    tree.free(R(0x100, 0x110))  # ALLOCATED -> FREE
    tree.delete(R(0x200, 0x2FF))  # ALLOCATED -> none
    assert tree.nodes() == [(R(0x100, 0x110), FREE)]
    tree.delete(R(0x100, 0x110))
    assert (tree.nodes(), tree.height) == ([], 0)
    with pytest.raises(ResourceNotAvailable):
        tree.allocate(Constraint(1, 1))


def test_illegal_transitions(tree: IntervalTree) -> None:
    before = tree.nodes()
    with pytest.raises(InvalidStateTransition):
        tree.free(R(0x90, 0x9F))  # FREE -> FREE
    for absent in (R(0, 1), R(0x200, 0x2FE), R(0x90, 0x110)):
        with pytest.raises(ResourceNotAvailable):
            tree.free(absent)
        with pytest.raises(ResourceNotAvailable):
            tree.delete(absent)
    assert tree.nodes() == before


def test_free_merges_with_neighbours_that_touch(make_tree: MakeTree) -> None:
    tree = make_tree(R(0x10, 0x1F))
    tree.insert(R(0x20, 0x2F), ALLOCATED)
    tree.insert(R(0x30, 0x3F), FREE)
    tree.insert(R(0x41, 0x4F), FREE)
    tree.free(R(0x20, 0x2F))
    assert tree.nodes() == [(R(0x10, 0x3F), FREE), (R(0x41, 0x4F), FREE)]


def test_insert_does_not_merge(make_tree: MakeTree) -> None:
    tree = make_tree(R(0, 9))
    tree.insert(R(10, 19), FREE)
    assert len(tree.nodes()) == 2
    with pytest.raises(ResourceNotAvailable):
        tree.allocate(Constraint(11, 1))


def test_the_whole_address_space_can_only_be_merged(make_tree: MakeTree) -> None:
    tree = make_tree(R(0, 2**64 - 2))
    tree.insert(R(2**64 - 1, 2**64 - 1), ALLOCATED)
    tree.free(R(2**64 - 1, 2**64 - 1))
    ((whole, state),) = tree.nodes()
    assert (whole.start, whole.end, whole.length, state) == (0, 2**64 - 1, 2**64, FREE)
    assert tree.allocate(Constraint(2**64 - 1, 1)) == R(0, 2**64 - 2)


@pytest.mark.parametrize("order", ["up", "down", "random"])
def test_height_is_that_of_an_avl_tree(make_tree: MakeTree, order: str) -> None:
    count = 500 if isinstance(make_tree(R(0, 0)), Renewed) else 5000  # a copy at each call takes its time
    starts = list(range(0, count * 10, 10))
    if order == "down":
        starts.reverse()
    elif order == "random":
        random.Random(7).shuffle(starts)
    tree = make_tree(R(10**9, 10**9))
    assert tree.height == 1
    for start in starts:
        tree.insert(R(start, start + 5), ALLOCATED)
    assert tree.height <= 1.4405 * math.log2(count + 3)
    for start in starts[: count - 100]:
        tree.delete(R(start, start + 5))
    assert tree.height <= 1.4405 * math.log2(100 + 3)
    assert len(tree.nodes()) == 101


def test_wrong_types(tree: IntervalTree) -> None:
    for call in (tree.free, tree.delete, tree.search, tree.search_superset, tree.overlapping):
        with pytest.raises(TypeError, match="RangeInclusive"):
            call((0x90, 0x9F))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="NodeState"):
        tree.insert(R(0, 1), "free")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Constraint"):
        tree.allocate(16)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        IntervalTree(5)  # type: ignore[arg-type]
