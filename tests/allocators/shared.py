# SPDX-License-Identifier: Apache-2.0
"""A service in the hands of two processes: the test's own, and one that makes some of the calls in its stead."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Self

from tests.services import key

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from tests.processes import Child, Children

ALLOCATING = ("allocate_id", "alloc", "allocate", "allocate_constraint")
FREEING = ("free_id", "free")

Place = tuple[str, str]  # of a service: the pool's name and its own


class Hands:
    """What the other process may be asked to do. It keeps its Pids: they cannot be sent."""

    def __init__(self) -> None:
        self.services: dict[Place, Any] = {}
        self.pids: dict[tuple[Place, int], Any] = {}

    def open(self, place: Place, service: Any) -> None:
        self.services[place] = service  # unpickled here: attached, and opened by name

    def call(self, place: Place, method: str, *args: Any) -> Any:
        value = getattr(self.services[place], method)(*args)
        if not hasattr(value, "number"):
            return value
        self.pids[place, value.number] = value
        return value.number

    def end_pid(self, place: Place, number: int, how: str) -> None:
        pid = self.pids.pop((place, number))
        if how == "free":
            pid.free()
        elif how == "with":
            with pid:
                pass


def serve(talk: Connection) -> None:
    """In the other process, until it is told None: (what, arguments) -> (error, value)."""
    hands = Hands()
    while (request := talk.recv()) is not None:
        what, args = request
        try:
            value = getattr(hands, what)(*args)
        except Exception as error:
            talk.send((error, None))
        else:
            talk.send((None, value))


class Other:
    """The other process, while there is one; the next request after its death starts another."""

    def __init__(self, children: Children, method: str) -> None:
        self.children, self.method = children, method
        self.child: Child | None = None
        self.known: set[Place] = set()

    def ask(self, what: str, *args: Any) -> Any:
        if self.child is None:
            self.child = self.children.start(serve, method=self.method)
            self.known.clear()
        self.child.say((what, args))
        error, value = self.child.hear()
        if error is not None:
            raise error
        return value

    def call(self, place: Place, service: Any, method: str, *args: Any) -> Any:
        if self.child is None or place not in self.known:
            self.ask("open", place, service)
            self.known.add(place)
        return self.ask("call", place, method, *args)

    def kill(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child = None

    def leave(self) -> None:
        if self.child is not None:
            self.child.say(None)
            self.child.result()
            self.child = None


class TheirPid:
    """A Pid of the other process, which ends it as it is ended here, until the test of this service is over."""

    def __init__(self, shared: Shared, number: int) -> None:
        self.shared, self.number = shared, number
        self.child: Child | None = shared.other.child

    def _end(self, how: str) -> None:
        if not self.shared.is_over and self.child is not None and self.child is self.shared.other.child:
            self.child = None
            self.shared.theirs.discard(self.number)
            self.shared.other.ask("end_pid", self.shared.place, self.number, how)

    def free(self) -> None:
        self._end("free")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self._end("with")

    def __del__(self) -> None:
        self._end("drop")


class Shared:
    """The service. Who makes a call is drawn from a seed of its own, so that Hypothesis can repeat it."""

    DEATHS = 3  # at most, of the other process: a new one takes its time

    def __init__(self, service: Any, other: Other) -> None:
        self.service, self.other = service, other
        self.place = (service.pool.name, service.name)
        self.random = random.Random(1)
        self.theirs: set[int] = set()  # what the other process allocated and still has
        self.deaths_left = self.DEATHS
        self.is_over = False

    def end(self) -> None:
        """The test is over. The collector deletes what it leaves at any time, even between a request and its answer."""
        self.is_over = True

    def __getattr__(self, name: str) -> Any:
        if name in ALLOCATING:
            return lambda *args: self._allocate(name, *args)
        if name in FREEING:
            return lambda *args: self._free(name, *args)
        return getattr(self.service, name)

    def __contains__(self, number: int) -> bool:
        return number in self.service

    @property
    def is_worth_a_death(self) -> bool:
        return self.deaths_left > 0 and len(self.theirs) > 2

    def _call(self, theirs: bool, name: str, *args: Any) -> Any:
        if theirs:
            return self.other.call(self.place, self.service, name, *args)
        return getattr(self.service, name)(*args)

    def _allocate(self, name: str, *args: Any) -> Any:
        theirs = self.random.random() < 0.5
        value = self._call(theirs, name, *args)
        if not theirs or value is None or (name == "alloc" and value == 0):
            return value
        self.theirs.add(key(value))
        return TheirPid(self, value) if hasattr(self.service, "order") else value

    def _free(self, name: str, *args: Any) -> Any:
        """By either of them, whoever has it."""
        value = self._call(self.random.random() < 0.5, name, *args)
        self.theirs.discard(key(args[0]))
        return value

    def kill_other(self) -> list[int]:
        """SIGKILL. Return what it had, in order; all of that has gone back to the service."""
        self.deaths_left -= 1
        pid = self.other.child.pid if self.other.child is not None else None
        assert [key(value) for value, owner in self.service.owned() if owner.pid == pid] == sorted(
            self.theirs
        )
        self.other.kill()
        self.service.pool.reap()
        gone = sorted(self.theirs)
        self.theirs.clear()
        return gone
