# SPDX-License-Identifier: Apache-2.0
"""The bridges of a run: one process for each other host, which is started again when it was killed.

A bridge ends by itself when its rings are shut down at both ends, and all packets are where they go.
"""

from __future__ import annotations

import logging
import pickle
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ssm.pipeline import crossing, process
from ssm.pipeline.report import BridgeReport
from ssm.pipeline.signals import interrupts_held

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from ssm.bridge.config import Settings
    from ssm.pipeline.declared import Declaration
    from ssm.pool import Pool

REFUSED = 3  # exit status of a bridge that cannot go on
BACK_OFF_S = 0.05  # doubled with each death within LIVED_S, up to
BACK_OFF_MOST_S = 2.0
LIVED_S = 5.0
GRACE_S = 5.0  # from SIGTERM to SIGKILL


@dataclass
class _Bridge:
    """One bridge, and its process if it has one."""

    role: str  # of the other host
    settings: Settings
    exports: dict[str, str]
    imports: dict[str, str]
    process: BaseProcess | None = None
    pipe: Connection | None = None
    began: float = 0.0
    due: float = 0.0
    early: int = 0  # deaths in a row soon after the start
    started: int = 0
    killed: int = 0
    done: bool = False


class Bridges:
    """All bridges of one run."""

    def __init__(
        self, context: Any, pool: Pool, declared: Declaration, note: Callable[[str, str, int, str], None]
    ) -> None:
        """Start them; `note` writes down what happens: kind, name, number, text."""
        self._context, self._pool, self._note = context, pool, note
        self._bridges = [_bridge(declared, role) for role in declared.bridges if role in _roles(declared)]
        for bridge in self._bridges:
            self._start(bridge)

    def __bool__(self) -> bool:
        return bool(self._bridges)

    @property
    def done(self) -> bool:
        """Whether all have come to their end."""
        return all(bridge.done for bridge in self._bridges)

    def pids(self) -> list[int]:
        """Return their processes."""
        return [each.process.pid for each in self._bridges if each.process is not None and each.process.pid]

    def watch(self) -> str | None:
        """Hear what they say, and start those again that were killed; return why the run fails, if it does."""
        for bridge in self._bridges:
            if bridge.pipe is not None and (why := self._hear(bridge, bridge.pipe)):
                return why
            if bridge.process is not None and not bridge.process.is_alive():
                self._gone(bridge, bridge.process)
            elif bridge.process is None and not bridge.done and time.monotonic() >= bridge.due:
                self._start(bridge)
        return None

    def report(self) -> dict[str, BridgeReport]:
        """Return what came of them."""
        return {
            each.role: BridgeReport(
                each.role, tuple(each.exports), tuple(each.imports), each.started, each.killed
            )
            for each in self._bridges
        }

    def close(self) -> None:
        """End them."""
        running = [each.process for each in self._bridges if each.process is not None]
        for each in running:
            each.terminate()
        until = time.monotonic() + GRACE_S
        for each in running:
            process.end(each, until)
        for bridge in self._bridges:
            if bridge.pipe is not None:
                bridge.pipe.close()
            bridge.process = bridge.pipe = None

    # ---- one of them ----------------------------------------------------------------------------

    def _start(self, bridge: _Bridge) -> None:
        ours, theirs = self._context.Pipe(duplex=False)
        level = logging.getLogger().level
        with theirs, interrupts_held():
            bridge.process = started = self._context.Process(
                target=run,
                args=(theirs, self._pool, bridge.settings, bridge.exports, bridge.imports, level),
                name=f"bridge-{bridge.role}",
                daemon=True,
            )
            started.start()
        bridge.pipe, bridge.began, bridge.started = ours, time.monotonic(), bridge.started + 1
        self._note("start", f"bridge to {bridge.role}", 0, f"started, pid {started.pid}")

    def _hear(self, bridge: _Bridge, pipe: Connection) -> str | None:
        try:
            while pipe.poll():
                kind, what = pickle.loads(pipe.recv_bytes())
                if kind == "error":
                    return f"the bridge to {bridge.role!r}: {what}"
                logger = logging.getLogger(what.name)
                if logger.isEnabledFor(what.levelno):
                    logger.handle(what)
        except (EOFError, OSError):
            return None  # it has ended
        return None

    def _gone(self, bridge: _Bridge, ended: BaseProcess) -> None:
        status = ended.exitcode
        ended.join()
        if bridge.pipe is not None:
            bridge.pipe.close()
        bridge.process = bridge.pipe = None
        bridge.done = status == 0
        self._note("end" if bridge.done else "death", f"bridge to {bridge.role}", 0, f"status {status}")
        if bridge.done:
            return
        bridge.killed += 1
        self._pool.reap()
        lived = time.monotonic() - bridge.began > LIVED_S
        bridge.early = 0 if lived else bridge.early + 1
        bridge.due = time.monotonic() + min(BACK_OFF_MOST_S, BACK_OFF_S * 2 ** min(bridge.early, 10))


def _roles(declared: Declaration) -> set[str]:
    return {*declared.exports.values(), *declared.imports.values()}


def _bridge(declared: Declaration, role: str) -> _Bridge:
    exports = {ring: ring for ring, to in declared.exports.items() if to == role}
    imports = {ring: ring for ring, origin in declared.imports.items() if origin == role}
    own = {"exports": tuple(exports), "imports": tuple(imports), "pool": declared.name}
    settings = crossing.settings_of(declared.role or "", declared.bridges[role], **own)
    return _Bridge(role, settings, exports, imports)


def run(
    connection: Connection,
    pool: Pool,
    settings: Settings,
    exports: dict[str, str],
    imports: dict[str, str],
    log_level: int,
) -> None:
    """Be one bridge: what a started process does."""
    from ssm.bridge import Bridge, config

    pipe = process.begin(connection, pool, log_level)
    logger = logging.getLogger("ssm.bridge")
    try:
        with pool:
            carrier = config.open_carrier(settings, max(settings.window_bytes, pool.max_size) + (1 << 20))
            with Bridge(
                pool,
                carrier,
                exports=exports,
                imports=imports,
                window=settings.window,
                window_bytes=settings.window_bytes,
                tell=logger.info,
            ) as bridge:
                bridge.run(to_the_end=True)
    except Exception as error:
        pipe.tell("error", str(error))
        raise SystemExit(REFUSED) from None
