# SPDX-License-Identifier: Apache-2.0
"""The Python objects that the extension module raises and calls. It gets them here, and imports no module of ours."""

from __future__ import annotations

import copyreg
from typing import TYPE_CHECKING, Any, cast

import allocators
from allocators import _core as allocators_core
from ssm import _core, errors, late, slow

if TYPE_CHECKING:
    from ssm._core import Packet, PacketBatch


def _import_numpy() -> object:
    return late.load("numpy")


def _column(*arguments: object) -> object:
    columns: Any = late.load("ssm.columns")  # with numpy
    return columns.column(*arguments)


def _find(name: str) -> Any:
    """Return what C names like that: a function of this module, or a class of errors."""
    package, _, error = name.rpartition(".")
    if package:
        return getattr(allocators, error)
    functions = {"import_numpy": _import_numpy, "column": _column, "tell_slow": slow.tell_slow}
    return functions.get(name) or getattr(errors, name)


def _refuse(thing: Packet | PacketBatch) -> tuple[Any, ...]:
    kind = type(thing).__name__
    raise TypeError(f"cannot pickle {kind}: it belongs to this process; hand it over with Ring.put()")


_core.register({name: _find(name) for name in _core.needs()}, allocators_core)
copyreg.pickle(_core.Packet, cast("Any", _refuse))
copyreg.pickle(_core.PacketBatch, cast("Any", _refuse))
