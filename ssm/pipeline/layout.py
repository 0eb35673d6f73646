# SPDX-License-Identifier: Apache-2.0
"""Where stages and rings stand in a picture of a pipeline: in columns, from sources to sinks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True)
class Node:
    """A stage or a ring."""

    kind: str
    """"stage" or "ring"."""
    name: str
    """Its name."""
    column: int
    """0 for sources; stages are in even columns, rings in odd ones."""
    row: float
    """0 in the middle, negative above; two nodes of a column are 1 apart at least."""


@dataclass(frozen=True)
class Layout:
    """A picture of a pipeline, without sizes."""

    nodes: tuple[Node, ...]
    """Stages and rings."""
    edges: tuple[tuple[int, int], ...]
    """From which node to which, by their numbers."""


def layout(stages: Sequence[tuple[str, Sequence[str], Sequence[str]]]) -> Layout:
    """Place stages, each with its name, the rings that it takes from, and the rings that it puts into.

    Rings in a circle, which a damaged bulletin may have, end up in some column.
    """
    columns = _columns(stages)
    rings = dict.fromkeys(ring for _, inputs, outputs in stages for ring in (*inputs, *outputs))
    keys = [("stage", name) for name, _, _ in stages] + [("ring", ring) for ring in rings]
    number = {key: at for at, key in enumerate(keys)}
    edges = [
        (number["ring", ring], number["stage", name]) for name, inputs, _ in stages for ring in inputs
    ] + [(number["stage", name], number["ring", ring]) for name, _, outputs in stages for ring in outputs]
    at = [columns[key] for key in keys]
    rows = _rows(at, edges)
    nodes = (Node(kind, name, column, row) for (kind, name), column, row in zip(keys, at, rows, strict=True))
    return Layout(tuple(nodes), tuple(sorted(set(edges))))


def _columns(stages: Sequence[tuple[str, Sequence[str], Sequence[str]]]) -> dict[tuple[str, str], int]:
    """Return the column of each: one behind the last of those that come before it."""
    column: dict[tuple[str, str], int] = {("stage", name): 0 for name, _, _ in stages}
    for _ in stages:  # so often at most a column moves on
        before = dict(column)
        for name, inputs, outputs in stages:
            own = max([0, *(column.get(("ring", ring), 0) + 1 for ring in inputs)])
            column["stage", name] = own
            for ring in outputs:
                column["ring", ring] = max(column.get(("ring", ring), 0), own + 1)
            for ring in inputs:
                column.setdefault(("ring", ring), 0)
        if column == before:
            break
    return column


def _rows(columns: Sequence[int], edges: Iterable[tuple[int, int]]) -> list[float]:
    """Return rows: a node stands where those before it stand, on average, and keeps a distance of 1 to others."""
    before: list[list[int]] = [[] for _ in columns]
    for source, target in edges:
        before[target].append(source)
    rows = [0.0] * len(columns)
    for column in sorted(set(columns)):
        inside = [node for node, at in enumerate(columns) if at == column]
        wanted = {
            node: sum(rows[each] for each in before[node]) / len(before[node]) if before[node] else 0.0
            for node in inside
        }
        inside.sort(key=lambda node: (wanted[node], node))
        middle = sum(wanted.values()) / len(inside)
        if len(inside) == 1:
            rows[inside[0]] = middle
            continue
        for place, node in enumerate(inside):
            rows[node] = middle + place - (len(inside) - 1) / 2
    return rows
