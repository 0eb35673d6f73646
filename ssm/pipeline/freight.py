# SPDX-License-Identifier: Apache-2.0
"""What goes to the workers, pickled where the start method needs it; what cannot be pickled is refused."""

from __future__ import annotations

import pickle
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

from ssm.pipeline.declared import name_of, unwrapped
from ssm.pipeline.errors import PipelineRefused

if TYPE_CHECKING:
    from ssm.pipeline.declared import Declaration, StageSpec


@dataclass(frozen=True)
class Freight:
    """The stages and the arguments of the sources; bytes if they are pickled."""

    stages: dict[str, StageSpec | bytes]
    args: Any


def pack(declared: Declaration, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Freight:
    """Pickle what workers need, unless they inherit it.

    Raises
    ------
    PipelineRefused
        Something cannot be pickled; the sentence says what.
    """
    if declared.start == "fork":
        return Freight(
            dict[str, "StageSpec | bytes"]((stage.name, stage) for stage in declared.stages), (args, kwargs)
        )
    return Freight(
        {stage.name: _stage(stage, declared.start) for stage in declared.stages},
        _pickled((args, kwargs), "the arguments of run()", declared.start),
    )


def _stage(stage: StageSpec, start: str) -> bytes:
    what = f"{stage.kind} {stage.name!r} ({name_of(stage.work)})"
    if getattr(unwrapped(stage.work), "__module__", None) == "__main__" and not _main_can_be_imported():
        if (by_value := _by_value(stage)) is not None:
            return by_value
        raise PipelineRefused(
            f"{what} is in a main module that has no file, where a worker started by {start} would find it: "
            f"put it into a "
            'file, install cloudpickle, or use start="fork"'
        )
    return _pickled(stage, what, start)


def _pickled(value: object, what: str, start: str) -> bytes:
    try:
        return pickle.dumps(value)
    except Exception as error:
        if (by_value := _by_value(value)) is not None:
            return by_value
        raise PipelineRefused(
            f"{what} cannot be pickled, as start={start!r} needs it: {error}. Put it at the top of a module, install "
            'cloudpickle, or use start="fork"'
        ) from error


def _by_value(value: object) -> bytes | None:
    """Return what cloudpickle makes of it; None where that is not installed or fails."""
    if find_spec("cloudpickle") is None:
        return None
    by_value: Any = import_module("cloudpickle")  # an option, not a dependency
    try:
        return cast("bytes", by_value.dumps(value))
    except Exception:
        return None


def _main_can_be_imported() -> bool:
    main = sys.modules.get("__main__")
    return getattr(main, "__spec__", None) is not None or getattr(main, "__file__", None) is not None
