# SPDX-License-Identifier: Apache-2.0
"""A pipeline as a picture: a Mermaid flowchart, or SVG."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from ssm.pipeline.layout import layout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ssm.pipeline.declared import Declaration, RingSpec, StageSpec

_SHAPES = {"source": ("([", "])"), "stage": ("[", "]"), "sink": ("[[", "]]")}
_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _EDGE = 150, 44, 130, 28, 12  # pixels, of a box and around it
_STYLE = (
    "text{font:13px sans-serif;text-anchor:middle;fill:#1b1f24}"
    "rect{fill:#e8f0fe;stroke:#3367d6}path{fill:none;stroke:#5f6368}.ring{font-size:11px;fill:#5f6368}"
)


def _ways(declared: Declaration) -> Iterator[tuple[RingSpec, StageSpec, StageSpec]]:
    """Yield each way of packets through a ring: the ring, who puts, who gets."""
    for ring in declared.rings.values():
        for putter in declared.putters(ring):
            for getter in declared.getters(ring):
                yield ring, putter, getter


def _label(stage: StageSpec) -> str:
    least = "" if stage.least == stage.workers else f"{stage.least}-"
    workers = f" x{least}{stage.workers}" if stage.workers > 1 else ""
    return f"{stage.name}{workers}{f' @{stage.at}' if stage.at else ''}"


def mermaid(declared: Declaration) -> str:
    """Return a box for each stage and an arrow for each way of packets through a ring."""
    numbers = {stage.name: f"s{number}" for number, stage in enumerate(declared.stages)}
    lines = ["flowchart LR"]
    for stage in declared.stages:
        left, right = _SHAPES[stage.kind]
        lines.append(f'  {numbers[stage.name]}{left}"{_quoted(_label(stage))}"{right}')
    lines += [
        f'  {numbers[putter.name]} -- "{_quoted(ring.name)}" --> {numbers[getter.name]}'
        for ring, putter, getter in _ways(declared)
    ]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return text.replace('"', "#quot;")


def svg(declared: Declaration) -> str:
    """Return the graph as SVG: sources on the left, and each stage to the right of those that put into its rings."""
    places = _places(declared)
    width = max(x for x, _ in places.values()) + _WIDTH + _EDGE
    height = max(y for _, y in places.values()) + _HEIGHT + _EDGE
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f"<title>{escape(declared.name)}</title><style>{_STYLE}</style>",
        '<marker id="end" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0L8 4L0 8"/></marker>',
    ]
    for ring, putter, getter in _ways(declared):
        (x1, y1), (x2, y2) = places[putter.name], places[getter.name]
        x1, y1, y2 = x1 + _WIDTH, y1 + _HEIGHT // 2, y2 + _HEIGHT // 2
        middle = (x1 + x2) // 2
        lines.append(f'<path d="M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}" marker-end="url(#end)"/>')
        lines.append(f'<text class="ring" x="{middle}" y="{(y1 + y2) // 2 - 5}">{escape(ring.name)}</text>')
    for stage in declared.stages:
        x, y = places[stage.name]
        corner = 6 if stage.kind == "stage" else _HEIGHT // 2
        lines.append(f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="{corner}"/>')
        lines.append(f'<text x="{x + _WIDTH // 2}" y="{y + _HEIGHT // 2 + 5}">{escape(_label(stage))}</text>')
    return "\n".join([*lines, "</svg>"])


def _places(declared: Declaration) -> dict[str, tuple[int, int]]:
    """Return the upper left corner of each stage."""
    drawn = layout(
        [
            (stage.name, [ring.name for ring in stage.inputs], [ring.name for ring in stage.outputs])
            for stage in declared.stages
        ]
    )
    stages = [node for node in drawn.nodes if node.kind == "stage"]  # in even columns; rings are arrows here
    low = min(node.row for node in stages)
    return {
        node.name: (
            _EDGE + node.column // 2 * (_WIDTH + _GAP_X),
            _EDGE + round((node.row - low) * (_HEIGHT + _GAP_Y)),
        )
        for node in stages
    }
