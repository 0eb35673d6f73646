# SPDX-License-Identifier: Apache-2.0
"""Looks at a pool again and again, remembers the last minutes, and finds the pool again when it is made anew."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from ssm.errors import SSMError
from ssm.pool import Pool
from ssm.presence import Presence, resolve
from ssm.web.view import Viewer, event

if TYPE_CHECKING:
    from ssm.stats import Holder

EVERY_S = 0.5
KEPT = 240  # looks: two minutes
EVENTS = 200


class Feed:
    """The looks at a pool of a name, and what was seen before."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._viewer: Viewer | None = None
        self._presence: Presence | None = None
        self._why = "there is none yet"
        self._forget()

    def _forget(self) -> None:
        self._rings: dict[int, deque[list[float]]] = {}  # number -> [when, depth, in hand]
        self._events: deque[dict[str, Any]] = deque(maxlen=EVENTS)
        self._holders: dict[tuple[int, int], Holder] | None = None
        self._redelivered: dict[int, int] = {}
        self._numbered = 0  # the last event of the pipeline that is among the events

    def attach(self) -> tuple[Viewer, Presence]:
        """Attach to the pool. OSError, SSMError: it is not there, or is no pool."""
        pool = Pool.attach(resolve(self._name), readonly=True)
        self._forget()
        self._viewer, self._presence = found = Viewer(pool), Presence(pool)
        return found

    def close(self) -> None:
        """Let go of the pool."""
        if self._viewer is not None:
            self._viewer.close()
            self._viewer.pool.close()
        self._viewer = self._presence = None

    def look(self) -> dict[str, Any]:
        """Look once; where there is no pool, look for one of the name."""
        try:
            if self._viewer is None or self._presence is None:
                viewer, presence = self.attach()
            else:
                viewer, presence = self._viewer, self._presence
        except (OSError, ValueError, SSMError):
            return self._gone()
        try:
            return self._look(viewer, presence)
        except SSMError as error:  # it contradicts itself, or is another's by now
            self._why = str(error)
            self.close()
            return self._gone()

    def _look(self, viewer: Viewer, presence: Presence) -> dict[str, Any]:
        seen = viewer.look()
        why = presence.gone(viewer.holders)
        if why is not None:
            self._why = why
            self.close()
            return self._gone()
        self._remember(seen)
        self._see(viewer, seen)
        return {"gone": None, **seen, "events": list(self._events)}

    def history(self) -> dict[str, list[list[float]]]:
        """Return depths that were seen: by the number of the ring, when, how deep, and how many in hand."""
        return {str(ring): list(looks) for ring, looks in self._rings.items()}

    def _gone(self) -> dict[str, Any]:
        text = f"Pool '{self._name.removeprefix('/')}' is gone: {self._why}."
        return {
            "gone": self._why,
            "at": time.time(),
            "verdict": {"tone": "gone", "text": f"{text} Waiting for one of that name."},
        }

    def _remember(self, seen: dict[str, Any]) -> None:
        present = {ring["id"] for ring in seen["rings"]}
        for ring in set(self._rings) - present:
            del self._rings[ring]
        for ring in seen["rings"]:
            looks = self._rings.setdefault(ring["id"], deque(maxlen=KEPT))
            looks.append([seen["at"], ring["depth"], ring["in_hand"] or 0])

    # ---- the time line ---------------------------------------------------------------------------

    def _see(self, viewer: Viewer, seen: dict[str, Any]) -> None:
        """Write down what happened since the last look. Of a pipeline's workers, its supervisor tells."""
        for told in viewer.events:
            if told.number > self._numbered:
                self._numbered = told.number
                self._events.append(event(told))
        now = {(each.id, each.pid): each for each in viewer.holders if each.kind == "process"}
        if self._holders is not None and not viewer.events:
            self._compare(self._holders, now, seen["at"])
        self._holders = now
        for ring in seen["rings"]:
            before = self._redelivered.get(ring["id"], ring["redelivered"])
            if ring["redelivered"] > before:
                more = ring["redelivered"] - before
                text = f"{more:,} packet{'s' if more > 1 else ''} delivered once more"
                self._note(seen["at"], "redelivery", ring["name"], text)
            self._redelivered[ring["id"]] = ring["redelivered"]

    def _compare(
        self, before: dict[tuple[int, int], Holder], now: dict[tuple[int, int], Holder], at: float
    ) -> None:
        for key, each in now.items():
            if key not in before:
                self._note(at, "start", each.name, f"pid {each.pid} has attached")
            elif before[key].alive and not each.alive:
                self._note(at, "death", each.name, f"pid {each.pid} is dead")
        for key, each in before.items():
            if key not in now and each.alive:
                self._note(at, "end", each.name, f"pid {each.pid} is gone")

    def _note(self, at: float, kind: str, who: str, text: str) -> None:
        self._events.append({"at": at, "kind": kind, "who": who, "text": text})
