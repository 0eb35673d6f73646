# SPDX-License-Identifier: Apache-2.0
"""Whether a watched pool is still there, and which pool is meant by the name of a pipeline."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ssm.names import DIRECTORY, list_names

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ssm.pool import Pool
    from ssm.stats import Holder


class Presence:
    """The name of a pool, as long as it leads to that pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._file = self._look()

    def _look(self) -> tuple[int, int] | None:
        try:
            status = (DIRECTORY / self._pool.name[1:]).stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def gone(self, holders: Iterable[Holder]) -> str | None:
        """Return why the pool is gone; None: its name leads to it, and if it is ephemeral, a process is in it."""
        there = self._look()
        if there is None:
            return "its name was removed"
        if there != self._file:
            return "its name belongs to another pool now"
        alive = any(holder.alive for holder in holders if holder.kind == "process")
        return "its last process has left it" if self._pool.ephemeral and not alive else None


def resolve(name: str) -> str:
    """Return the name of the pool that is meant: a pool's own, or that of a pipeline, whose latest run has one."""
    plain = name.removeprefix("/")
    if (DIRECTORY / plain).exists():
        return name
    wanted = re.compile(rf"/?{re.escape(plain)}-\d+-[0-9a-f]{{6}}")
    runs = [pool for pool in list_names() if wanted.fullmatch(pool)]
    return max(runs, key=_made, default=name)


def _made(pool: str) -> float:
    try:
        return (DIRECTORY / pool.removeprefix("/")).stat().st_ctime
    except OSError:  # gone meanwhile
        return 0.0
