# SPDX-License-Identifier: Apache-2.0
"""The bridge of a Queue whose other side is on another host; see `ssm.Queue`, bridge=.

It runs in a thread of the process that gave the queue its bridge, until that closes the queue or ends.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from typing import TYPE_CHECKING, Any, cast

from ssm.bridge import config
from ssm.bridge.bridge import Bridge
from ssm.bridge.errors import BridgeError
from ssm.bridge.wire import MESSAGE_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ssm import Pool, Ring
    from ssm.bridge.carrier import Carrier

NOT_GIVEN = {"pool", "exports", "imports", "export_topics", "import_topics", "wait", "status", "quota"}
LOOK_S = 0.01


class Crossing:
    """Which way the objects of a queue go, and the bridge that moves them."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        """Look at what was given.

        Parameters
        ----------
        given : mapping
            ``"export"`` or ``"import"`` with the queue's name on the link, and settings of `ssm bridge`; in place of
            the name of a carrier, a Carrier.

        Raises
        ------
        BridgeError
            Something is missing, or is no setting, or would be open to the network without a word.
        """
        told: dict[str, Any] = {key.replace("-", "_"): value for key, value in given.items()}
        ways = [way for way in ("export", "import") if way in told]
        if len(ways) != 1:
            raise BridgeError(
                'which way? bridge={"export": "jobs", ...} on the host that puts, and {"import": "jobs", ...} where '
                "objects come out"
            )
        self.exports, self._name = ways == ["export"], str(told.pop(ways[0]))
        carrier = told.get("carrier")
        self._carrier: Carrier | None = None
        if carrier is not None and not isinstance(carrier, str):
            self._carrier = cast("Carrier", told.pop("carrier"))
        known = {field.name for field in dataclasses.fields(config.Settings)} - NOT_GIVEN
        if unknown := sorted(told.keys() - known):
            raise BridgeError(
                f"{unknown[0]!r} is no setting of a queue's bridge: there are {', '.join(sorted(known))}"
            )
        for key in told.keys() & {"peer_keys"}:
            told[key] = tuple(told[key])
        self._settings = config.Settings(pool="of the queue", exports=(self._name,), **told)
        if self._carrier is None:
            config.check(self._settings)
        self._bridge: Bridge | None = None
        self._ring: Ring | None = None
        self._pid = os.getpid()

    def begin(self, pool: Pool, ring: Ring) -> None:
        """Move the objects of that ring."""
        settings = dataclasses.replace(
            self._settings,
            pool=pool.name,
            exports=(self._name,) if self.exports else (),
            imports=() if self.exports else (self._name,),
        )
        self._ring = ring
        self._bridge = Bridge(
            pool,
            self._carrier or config.open_carrier(settings, MESSAGE_MAX),
            exports={ring.name: self._name} if self.exports else None,
            imports=None if self.exports else {self._name: ring.name},
            hosts=settings.hosts,
            lost=settings.lost,
            window=settings.window,
            window_bytes=settings.window_bytes,
            tell=lambda text: logging.getLogger("ssm").info("queue %r: %s", self._name, text),
        ).start()

    def join(self) -> None:
        """Wait until the other host has all objects that were put.

        Raises
        ------
        BridgeError
            The bridge cannot go on.
        """
        bridge, ring = self._bridge, self._ring
        if self._pid != os.getpid():
            raise BridgeError(f"the bridge of queue {self._name!r} is in process {self._pid}: join() there")
        while bridge is not None and ring is not None:
            bridge.check()
            moving = sum(each.in_flight for status in bridge.statuses() for each in status.exports)
            if ring.empty() and not moving and not bridge.outstanding:
                return
            time.sleep(LOOK_S)

    def close(self) -> None:
        """End the bridge; what was not acknowledged stays in the queue.

        Raises
        ------
        BridgeError
            It had ended by itself, since it could not go on.
        """
        bridge, self._bridge, self._ring = self._bridge, None, None
        if bridge is not None and self._pid == os.getpid():
            bridge.close()

    def leave(self) -> None:
        """As `close`, where nobody is left to hear of an error."""
        try:
            self.close()
        except BridgeError as error:
            logging.getLogger("ssm").warning("queue %r: %s", self._name, error)
