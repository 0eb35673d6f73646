# SPDX-License-Identifier: Apache-2.0
"""An allocator that is another one at each call: its copy, or what comes out of a pickle, or out of JSON."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def _by_json(allocator: Any) -> Any:
    return type(allocator).from_dict(json.loads(json.dumps(allocator.to_dict())))


WAYS: dict[str, tuple[Callable[[Any], Any], ...]] = {
    "copied": (copy.copy, copy.deepcopy),
    "unpickled": (lambda a: pickle.loads(pickle.dumps(a)), _by_json),
}


class Renewed:
    """The allocator; what was there before a call is thrown away."""

    def __init__(self, allocator: Any, form: str) -> None:
        self.allocator = allocator
        self.ways = itertools.cycle(WAYS[form])

    def renew(self) -> Any:
        self.allocator = next(self.ways)(self.allocator)
        return self.allocator

    def __getattr__(self, name: str) -> Any:
        return getattr(self.renew(), name)

    def __contains__(self, number: Any) -> bool:
        return number in self.renew()
