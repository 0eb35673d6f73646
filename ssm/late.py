# SPDX-License-Identifier: Apache-2.0
"""Modules that are imported when they are first needed, since they take longer than the rest of ssm.

Python's lock of a module that a thread imports stays taken in a child that is forked meanwhile, and the child's import
of it waits for ever. So a fork waits for imports that are under way here.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

_importing = threading.RLock()  # in the child it is the thread's that forked, which then releases it

os.register_at_fork(
    before=_importing.acquire, after_in_parent=_importing.release, after_in_child=_importing.release
)


def load(name: str) -> ModuleType:
    """Import the module, and return it."""
    module = sys.modules.get(name)
    if module is None or getattr(module.__spec__, "_initializing", False):  # another thread imports it
        with _importing:
            return importlib.import_module(name)
    return module
