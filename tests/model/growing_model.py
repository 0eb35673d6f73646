# SPDX-License-Identifier: Apache-2.0
"""Explicit-state check of an arena that grows and gives memory back, with every kill between two steps.

What is modelled
    Units with a bit each and memory or none; blocks with an extent of one unit; the arena's lock; processes that take a
    block, place it, reserve its unit outside of the lock where its bit is missing, use it and free it, with its
    extent; one that sweeps and gives a unit back; and a reaper. There may be less memory than units. One store, or one
    system call, a step. All but the reaper may be killed.

What is checked
    Nobody touches a unit that has no memory: that would be SIGBUS. No unit is used by two. In the end nothing is noted
    as being given back, and no unit has a bit without memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.model.explorer import Explorer, Result, Violation

BUGS = {
    "bits_last": "memory is given back without a note, and then the bit is cleared",
    "unlocked": "the lock is let go before memory is given back",
    "trusted_leftover": "an extent that is there already is used without a look at its bit",
    "bit_early": "the bit is set before the unit is reserved",
    "sweep_held": "a sweep takes extents of blocks that somebody has",
}


@dataclass(frozen=True)
class Config:
    """One exploration."""

    workers: int = 2
    units: int = 2
    memory: int = 2
    rounds: int = 2
    kills: int = 1
    bug: str = ""


class Model(Explorer):
    """The transition system; attributes in capitals are offsets into the state, or labels."""

    def __init__(self, config: Config) -> None:
        if config.bug and config.bug not in BUGS:
            raise ValueError(f"unknown bug {config.bug!r}; known: {', '.join(BUGS)}")
        super().__init__()
        self.c, self.bug, self.kills = config, config.bug, config.kills
        self.n, self.processes, self.registers = config.workers, config.workers + 2, 4
        self.ALIVE, self.KILLS, self.LOCK, self.NOTE, self.BITS, self.MEMORY = range(6)
        self.HELD = 6
        self.EXTENTS = self.HELD + self.n
        self.PROCS = self.EXTENTS + self.n
        self.LEFT, self.BLOCK, self.THEN = range(1, 4)

    def initial(self) -> bytes:
        s = bytearray(self.PROCS + self.processes * self.registers)
        s[self.ALIVE] = (1 << self.processes) - 1
        for i in range(self.processes):
            p = self.PROCS + i * self.registers
            s[p] = self.IDLE if i < self.n else self.GIVER if i == self.n else self.REAP
            s[p + self.LEFT] = self.c.rounds
        return bytes(s)

    def may_be_killed(self, state: bytes, process: int) -> bool:
        return process <= self.n and state[self.PROCS + process * self.registers] != self.DONE

    # ---- the lock, and its repair --------------------------------------------------------------------

    def go(self, s: bytearray, i: int, p: int, then: int) -> bool | None:
        taken = self.take(s, i, self.LOCK)
        if not taken:
            return False
        s[p + self.THEN] = then
        s[p] = self.CLEAR if taken == 2 and s[self.NOTE] and self.is_free(s, s[self.NOTE] - 1) else then
        return None

    def is_free(self, s: bytearray, unit: int) -> bool:
        return unit + 1 not in s[self.EXTENTS : self.PROCS]

    def unlock(self, s: bytearray, p: int, then: int) -> None:
        s[self.LOCK], s[p] = 0, then

    # ---- giving back: the steps that a repair repeats ------------------------------------------------

    def at_clear(self, s: bytearray, i: int, p: int) -> None:
        s[self.BITS] &= ~(1 << s[self.NOTE] - 1)
        s[p] = self.PUNCH

    def at_punch(self, s: bytearray, i: int, p: int) -> None:
        s[self.MEMORY] &= ~(1 << s[self.NOTE] - 1)
        s[p] = self.FORGET

    def at_forget(self, s: bytearray, i: int, p: int) -> None:
        s[self.NOTE], s[p] = 0, s[p + self.THEN]

    def at_giver(self, s: bytearray, i: int, p: int) -> bool | None:
        if not s[p + self.LEFT]:
            s[p] = self.DONE
            return None
        return self.go(s, i, p, self.SWEEP)

    def at_sweep(self, s: bytearray, i: int, p: int) -> None:
        for b in range(self.n):
            if not s[self.HELD + b] or self.bug == "sweep_held":
                s[self.EXTENTS + b] = 0
        s[p + self.LEFT] -= 1
        free = [u for u in range(self.c.units) if s[self.BITS] >> u & 1 and self.is_free(s, u)]
        if not free:
            self.unlock(s, p, self.GIVER)
            return
        s[p + self.BLOCK], s[p + self.THEN] = free[-1] + 1, self.GIVEN
        if self.bug == "bits_last":
            s[p] = self.PUNCH_FIRST
        elif self.bug == "unlocked":
            self.unlock(s, p, self.PUNCH_FIRST)
        else:
            s[self.NOTE], s[p] = s[p + self.BLOCK], self.CLEAR

    def at_punch_first(self, s: bytearray, i: int, p: int) -> None:
        s[self.MEMORY] &= ~(1 << s[p + self.BLOCK] - 1)
        s[p] = self.CLEAR_THEN

    def at_clear_then(self, s: bytearray, i: int, p: int) -> None:
        s[self.BITS] &= ~(1 << s[p + self.BLOCK] - 1)
        s[p] = self.GIVEN if self.bug == "bits_last" else self.GIVER

    def at_given(self, s: bytearray, i: int, p: int) -> None:
        self.unlock(s, p, self.GIVER)

    # ---- a process that uses memory ------------------------------------------------------------------

    def at_idle(self, s: bytearray, i: int, p: int) -> bool | None:
        free = [b for b in range(self.n) if not s[self.HELD + b]]
        if not s[p + self.LEFT]:
            s[p] = self.DONE
            return None
        if not free:
            return False
        s[p + self.LEFT] -= 1
        s[p + self.BLOCK], s[self.HELD + free[0]], s[p] = free[0], i + 1, self.ENTER
        return None

    def at_done(self, s: bytearray, i: int, p: int) -> bool:
        return False

    def at_enter(self, s: bytearray, i: int, p: int) -> bool | None:
        return self.go(s, i, p, self.PLACE)

    def unit(self, s: bytes | bytearray, p: int) -> int:
        extent = s[self.EXTENTS + s[p + self.BLOCK]]
        if not extent:
            raise Violation("an extent was taken from a process that has it")
        return extent - 1

    def at_place(self, s: bytearray, i: int, p: int) -> None:
        block = s[p + self.BLOCK]
        leftover = s[self.EXTENTS + block] > 0
        free = [u for u in range(self.c.units) if self.is_free(s, u)]
        if not leftover and not free:
            self.unlock(s, p, self.FREE)
            return
        if not leftover:
            s[self.EXTENTS + block] = free[0] + 1
        lacks = not s[self.BITS] >> self.unit(s, p) & 1 and not (leftover and self.bug == "trusted_leftover")
        if lacks and self.bug == "bit_early":
            s[self.BITS] |= 1 << self.unit(s, p)
        self.unlock(s, p, self.RESERVE if lacks else self.USE)

    def at_reserve(self, s: bytearray, i: int, p: int) -> None:
        have = s[self.MEMORY] | 1 << self.unit(s, p)
        if have.bit_count() > self.c.memory:
            s[p] = self.FAILED
        else:
            s[self.MEMORY], s[p] = have, self.USE if self.bug == "bit_early" else self.RESERVED

    def at_reserved(self, s: bytearray, i: int, p: int) -> bool | None:
        return self.go(s, i, p, self.SET)

    def at_set(self, s: bytearray, i: int, p: int) -> None:
        s[self.BITS] |= 1 << self.unit(s, p)
        self.unlock(s, p, self.USE)

    def at_failed(self, s: bytearray, i: int, p: int) -> bool | None:
        return self.go(s, i, p, self.GIVE_UP)

    def at_give_up(self, s: bytearray, i: int, p: int) -> None:
        s[self.EXTENTS + s[p + self.BLOCK]] = 0
        self.unlock(s, p, self.FREE)

    def at_use(self, s: bytearray, i: int, p: int) -> None:
        s[p] = self.FREE

    def at_free(self, s: bytearray, i: int, p: int) -> None:
        s[self.HELD + s[p + self.BLOCK]], s[p] = 0, self.IDLE

    # ---- the reaper ----------------------------------------------------------------------------------

    def at_reap(self, s: bytearray, i: int, p: int) -> bool | None:
        if s[self.LOCK] and self.is_dead(s, s[self.LOCK] - 1):
            return self.go(s, i, p, self.REAPED)
        for b in range(self.n):
            if s[self.HELD + b] and self.is_dead(s, s[self.HELD + b] - 1):
                s[self.HELD + b] = 0
                return None
        return False

    def at_reaped(self, s: bytearray, i: int, p: int) -> None:
        self.unlock(s, p, self.REAP)

    # ---- what holds ----------------------------------------------------------------------------------

    def check(self, state: bytes) -> None:
        used = []
        for i in range(self.n):
            p = self.PROCS + i * self.registers
            if not self.is_dead(state, i) and state[p] == self.USE:
                used.append(self.unit(state, p))
        if any(not state[self.MEMORY] >> unit & 1 for unit in used):
            raise Violation("SIGBUS: a unit is used and has no memory")
        if len(set(used)) < len(used):
            raise Violation("a unit is used by two")

    def check_final(self, state: bytes) -> None:
        for i in range(self.n + 1):
            if not self.is_dead(state, i) and state[self.PROCS + i * self.registers] != self.DONE:
                raise Violation(f"process {i} hangs")
        if state[self.NOTE]:
            raise Violation("what is given back is still noted")
        if state[self.BITS] & ~state[self.MEMORY]:
            raise Violation("a bit tells of memory that is not there")

    def show(self, state: bytes) -> str:
        extents, held = state[self.EXTENTS : self.PROCS].hex(" "), state[self.HELD : self.EXTENTS].hex(" ")
        return (
            f"{self.counters(state)} | lock {state[self.LOCK]} note {state[self.NOTE]} bits {state[self.BITS]:b} "
            f"memory {state[self.MEMORY]:b} held {held} extents {extents}"
        )


def explore(limit: int = 0, **config: object) -> Result:
    """Explore everything that may happen."""
    return Model(Config(**config)).explore(limit)  # type: ignore[arg-type]
