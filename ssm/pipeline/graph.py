# SPDX-License-Identifier: Apache-2.0
"""A pipeline as a Mermaid flowchart."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssm.pipeline.declared import Declaration, StageSpec

_SHAPES = {"source": ("([", "])"), "stage": ("[", "]"), "sink": ("[[", "]]")}


def mermaid(declared: Declaration) -> str:
    """Return a box for each stage and an arrow for each way of packets through a ring."""
    numbers = {stage.name: f"s{number}" for number, stage in enumerate(declared.stages)}
    lines = ["flowchart LR"]
    lines += [f"  {numbers[stage.name]}{_box(stage)}" for stage in declared.stages]
    for ring in declared.rings.values():
        lines += [
            f'  {numbers[putter.name]} -- "{_quoted(ring.name)}" --> {numbers[getter.name]}'
            for putter in declared.putters(ring)
            for getter in declared.getters(ring)
        ]
    return "\n".join(lines)


def _box(stage: StageSpec) -> str:
    left, right = _SHAPES[stage.kind]
    workers = f" x{stage.workers}" if stage.workers > 1 else ""
    return f'{left}"{_quoted(stage.name)}{workers}"{right}'


def _quoted(text: str) -> str:
    return text.replace('"', "#quot;")
