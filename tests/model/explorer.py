# SPDX-License-Identifier: Apache-2.0
"""Explicit-state exploration: every interleaving of every process's next step, and every kill.

A model is a subclass of :class:`Explorer`. A state is a `bytes`; each process has a program counter in it,
and for each label a method ``at_<label>(state, process, registers)`` that makes one step: one shared access.
It changes the `bytearray` it is given, or returns False where the process cannot go on (it waits).
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Violation(Exception):
    """A state that the protocol must not reach."""


@dataclass(frozen=True)
class Result:
    """What an exploration found; `violation` is empty when it found nothing wrong."""

    states: int
    finals: int
    seconds: float
    violation: str = ""
    trace: tuple[str, ...] = ()

    def must_be_sound(self, at_least: int = 0) -> None:
        """Fail with the trace; or where it reached fewer states, for one that stops early proves nothing."""
        assert not self.violation, "\n".join((self.violation, *self.trace))
        assert self.states >= at_least
        assert self.finals > (1 if at_least else 0)


def name_of(value: object) -> str:
    """Of a configuration, for pytest."""
    return "-".join(f"{k}{v}" for k, v in value.items()) or "default" if isinstance(value, dict) else ""


class Explorer:
    """The exploration; subclasses bring the states and the steps."""

    kills = 0  # at most so many
    processes = 0
    registers = 0  # bytes per process; the first is the program counter
    ALIVE = 0  # offsets into the state: mask of the living,
    KILLS = 0  # kills so far,
    PROCS = 0  # the first process's registers

    def __init__(self) -> None:
        self.labels: list[str] = []
        self.code: list[Callable[[bytearray, int, int], bool | None]] = []
        for name in sorted(n for n in dir(type(self)) if n.startswith("at_")):
            setattr(self, name[3:].upper(), len(self.code))
            self.labels.append(name[3:])
            self.code.append(getattr(self, name))

    def __getattr__(self, name: str) -> int:  # labels, and a model's offsets, are set on construction
        raise AttributeError(name)

    def initial(self) -> bytes:
        """The first state."""
        raise NotImplementedError

    def may_be_killed(self, state: bytes, process: int) -> bool:
        """False where a kill tells nothing new."""
        raise NotImplementedError

    def check(self, state: bytes) -> None:
        """What holds in every state; raises Violation."""

    def check_final(self, state: bytes) -> None:
        """What holds where no step leads on; raises Violation."""

    def show(self, state: bytes) -> str:
        """One line for a trace."""
        return state.hex()

    def counters(self, state: bytes) -> str:
        """Where each process is."""
        where = []
        for i in range(self.processes):
            pc = state[self.PROCS + i * self.registers]
            where.append(self.labels[pc] if state[self.ALIVE] >> i & 1 else "dead")
        return " ".join(where)

    def is_dead(self, state: bytes | bytearray, process: int) -> bool:
        """Its liveness lock is free."""
        return not state[self.ALIVE] >> process & 1

    def take(self, state: bytearray, process: int, word: int) -> int:
        """One attempt at a lock word (owner + 1): 0 it is another's, 1 taken, 2 taken over from the dead."""
        owner = state[word]
        if owner and not self.is_dead(state, owner - 1):
            return 0
        state[word] = process + 1
        return 2 if owner else 1

    def successors(self, state: bytes) -> list[bytes]:
        """By one step of each process; kills are apart."""
        out = []
        for i in range(self.processes):
            if state[self.ALIVE] >> i & 1:
                s = bytearray(state)
                p = self.PROCS + i * self.registers
                if self.code[state[p]](s, i, p) is not False:
                    out.append(bytes(s))
        return out

    def kill(self, state: bytes, process: int) -> bytes:
        """The state after a SIGKILL of that process: what it knew is gone, what it shared is not."""
        s = bytearray(state)
        s[self.ALIVE] &= ~(1 << process)
        s[self.KILLS] += 1
        p = self.PROCS + process * self.registers
        s[p : p + self.registers] = bytes(self.registers)
        return bytes(s)

    def explore(self, limit: int = 0) -> Result:
        """Breadth first, so that a violation's trace is a shortest one; at most `limit` states."""
        began = time.monotonic()
        start = self.initial()
        seen: dict[bytes, bytes | None] = {start: None}
        todo = deque([start])
        finals = 0
        while todo:
            state = todo.popleft()
            try:
                self.check(state)
                following = self.successors(state)
                if not following:
                    finals += 1
                    self.check_final(state)
            except Violation as error:
                trace: list[str] = []
                at: bytes | None = state
                while at is not None:
                    trace.append(self.show(at))
                    at = seen[at]
                return Result(len(seen), finals, time.monotonic() - began, str(error), tuple(reversed(trace)))
            if state[self.KILLS] < self.kills:
                for i in range(self.processes):
                    if state[self.ALIVE] >> i & 1 and self.may_be_killed(state, i):
                        following.append(self.kill(state, i))
            for s in following:
                if s not in seen:
                    seen[s] = state
                    todo.append(s)
            if limit and len(seen) > limit:
                raise RuntimeError(f"more than {limit} states")
        return Result(len(seen), finals, time.monotonic() - began)
