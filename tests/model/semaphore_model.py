# SPDX-License-Identifier: Apache-2.0
"""Explicit-state check of semaphores: permits, the queue, grants, and every kill between two stores.

What is modelled
    A word for each permit, a place in the queue for each process (its ticket, and the hint that says which permit was
    granted), the service's lock, wake-ups, processes that acquire, use and release a permit, and a reaper. One store a
    step. All but the reaper may be killed. A look without a wake-up comes once after each death, and never while all
    live: a wake-up that is forgotten is a process that hangs.

What is checked
    Nobody alive hangs; no more processes use a permit than there are; in the end every permit is free, and no place is
    taken. The grant in the repair of the lock is not needed for that: the reaper, which comes after each death,
    grants as well. It spares those that wait the time until then.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.model.explorer import Explorer, Result, Violation

BUGS = {
    "no_grant": "a release frees the permit and grants it to nobody",
    "no_wake": "a release grants and wakes nobody",
    "word_first": "a grant writes the permit's word, and then the hint",
    "dead_waits": "the reaper leaves the places of the dead",
    "reaper_keeps": "the reaper frees the permits of the dead and grants them to nobody",
}
GRANTED = 0x40


@dataclass(frozen=True)
class Config:
    """One exploration."""

    workers: int = 3
    permits: int = 1
    rounds: int = 1
    kills: int = 1
    bug: str = ""


class Model(Explorer):
    """The transition system; attributes in capitals are offsets into the state, or labels."""

    def __init__(self, config: Config) -> None:
        if config.bug and config.bug not in BUGS:
            raise ValueError(f"unknown bug {config.bug!r}; known: {', '.join(BUGS)}")
        super().__init__()
        self.c, self.bug, self.kills = config, config.bug, config.kills
        self.n, self.processes, self.registers = config.workers, config.workers + 1, 5
        self.ALIVE, self.KILLS, self.LOCK, self.TICKETS, self.WOKEN, self.REAPED = range(6)
        self.WORDS = 6
        self.PLACES = self.WORDS + config.permits
        self.HINTS = self.PLACES + self.n
        self.PROCS = self.HINTS + self.n
        self.LEFT, self.THEN, self.WAKES, self.GRANTS = range(1, 5)

    def initial(self) -> bytes:
        s = bytearray(self.PROCS + self.processes * self.registers)
        s[self.ALIVE] = (1 << self.processes) - 1
        for i in range(self.processes):
            p = self.PROCS + i * self.registers
            s[p], s[p + self.LEFT] = (self.IDLE if i < self.n else self.REAP), self.c.rounds
        return bytes(s)

    def may_be_killed(self, state: bytes, process: int) -> bool:
        return process < self.n and state[self.PROCS + process * self.registers] != self.DONE

    def kill(self, state: bytes, process: int) -> bytes:
        s = bytearray(super().kill(state, process))
        s[self.WOKEN] = s[self.ALIVE] & ((1 << self.n) - 1)  # they look by themselves
        return bytes(s)

    # ---- what is done with the lock: find a grant, make it in two stores, and say whom to wake -------

    def granted(self, s: bytearray, i: int) -> bool:
        """The hint names a permit whose word says so."""
        hint = s[self.HINTS + i]
        return hint > 0 and s[self.WORDS + hint - 1] == (i + 1 | GRANTED)

    def next_grant(self, s: bytearray) -> tuple[int, int] | None:
        free = [k for k in range(self.c.permits) if s[self.WORDS + k] == 0]
        line = [i for i in range(self.n) if s[self.PLACES + i] and not self.granted(s, i)]
        return (free[0], min(line, key=lambda i: s[self.PLACES + i])) if free and line else None

    def go(self, s: bytearray, i: int, p: int, then: int) -> bool | None:
        """Take the lock, and go there; over a dead process's, repair before."""
        taken = self.take(s, i, self.LOCK)
        if not taken:
            return False
        s[p + self.THEN], s[p + self.WAKES] = then, 0
        s[p] = self.GRANT if taken == 2 else then
        return None

    def at_grant(self, s: bytearray, i: int, p: int) -> None:
        found = self.next_grant(s)
        if found is None:
            s[p] = s[p + self.THEN]
            return
        permit, waiter = found
        s[p + self.GRANTS] = permit << 4 | waiter
        if self.bug == "word_first":
            s[self.WORDS + permit] = waiter + 1 | GRANTED
        else:
            s[self.HINTS + waiter] = permit + 1
        s[p] = self.GRANT_2

    def at_grant_2(self, s: bytearray, i: int, p: int) -> None:
        permit, waiter = s[p + self.GRANTS] >> 4, s[p + self.GRANTS] & 15
        if self.bug == "word_first":
            s[self.HINTS + waiter] = permit + 1
        else:
            s[self.WORDS + permit] = waiter + 1 | GRANTED
        s[p + self.GRANTS] = 0
        s[p + self.WAKES] |= 1 << waiter
        s[p] = self.GRANT

    # ---- a process -----------------------------------------------------------------------------------

    def at_idle(self, s: bytearray, i: int, p: int) -> None:
        s[p] = self.ENTER if s[p + self.LEFT] else self.DONE

    def at_done(self, s: bytearray, i: int, p: int) -> bool:
        return False

    def at_enter(self, s: bytearray, i: int, p: int) -> bool | None:
        return self.go(s, i, p, self.TRY)

    def at_try(self, s: bytearray, i: int, p: int) -> None:
        words = range(self.WORDS, self.WORDS + self.c.permits)
        s[p + self.THEN] = self.WAIT
        if s[self.PLACES + i]:
            s[p] = self.UNLOCK
            if self.granted(s, i):
                s[self.WORDS + s[self.HINTS + i] - 1] = i + 1
                s[p] = self.COLLECT
            return
        free = [w for w in words if s[w] == 0]
        if free:
            s[free[0]] = i + 1
            s[p], s[p + self.THEN] = self.UNLOCK, self.USE
        else:
            s[self.TICKETS] += 1
            s[self.HINTS + i], s[p] = 0, self.JOIN

    def at_join(self, s: bytearray, i: int, p: int) -> None:
        s[self.PLACES + i], s[p] = s[self.TICKETS], self.UNLOCK

    def at_collect(self, s: bytearray, i: int, p: int) -> None:
        s[self.PLACES + i], s[p], s[p + self.THEN] = 0, self.UNLOCK, self.USE

    def at_unlock(self, s: bytearray, i: int, p: int) -> None:
        s[self.LOCK], s[p] = 0, self.WAKE

    def at_wake(self, s: bytearray, i: int, p: int) -> None:
        if self.bug != "no_wake":
            s[self.WOKEN] |= s[p + self.WAKES]
        s[p + self.WAKES], s[p] = 0, s[p + self.THEN]

    def at_wait(self, s: bytearray, i: int, p: int) -> bool | None:
        if not s[self.WOKEN] >> i & 1:
            return False
        s[self.WOKEN] &= ~(1 << i)
        s[p] = self.ENTER
        return None

    def at_use(self, s: bytearray, i: int, p: int) -> bool | None:
        return self.go(s, i, p, self.GIVE)

    def at_give(self, s: bytearray, i: int, p: int) -> None:
        for w in range(self.WORDS, self.WORDS + self.c.permits):
            if s[w] == i + 1:
                s[w] = 0
                break
        s[p + self.LEFT] -= 1
        s[p] = self.UNLOCK if self.bug == "no_grant" else self.GRANT
        s[p + self.THEN] = self.IDLE if self.bug == "no_grant" else self.UNLOCK_IDLE

    def at_unlock_idle(self, s: bytearray, i: int, p: int) -> None:
        s[p + self.THEN] = self.IDLE
        self.at_unlock(s, i, p)

    # ---- the reaper ----------------------------------------------------------------------------------

    def dead(self, s: bytearray) -> int:
        return ~s[self.ALIVE] & ((1 << self.n) - 1)

    def at_reap(self, s: bytearray, i: int, p: int) -> bool | None:
        if self.dead(s) == s[self.REAPED]:
            return False
        return self.go(s, i, p, self.FREE)

    def at_free(self, s: bytearray, i: int, p: int) -> None:
        dead = self.dead(s)
        for w in range(self.WORDS, self.WORDS + self.c.permits):
            if s[w] and dead >> (s[w] & ~GRANTED) - 1 & 1:
                s[w] = 0
                return
        for k in range(self.n):
            if dead >> k & 1 and s[self.PLACES + k] and self.bug != "dead_waits":
                s[self.PLACES + k] = 0
                return
        s[self.REAPED], s[p + self.THEN] = dead, self.UNLOCK_REAP
        s[p] = self.UNLOCK_REAP if self.bug == "reaper_keeps" else self.GRANT

    def at_unlock_reap(self, s: bytearray, i: int, p: int) -> None:
        s[p + self.THEN] = self.REAP
        self.at_unlock(s, i, p)

    # ---- what holds ----------------------------------------------------------------------------------

    def check(self, state: bytes) -> None:
        pcs = [state[self.PROCS + i * self.registers] for i in range(self.n) if not self.is_dead(state, i)]
        if pcs.count(self.USE) > self.c.permits:
            raise Violation("more processes use a permit than there are")

    def check_final(self, state: bytes) -> None:
        for i in range(self.n):
            if not self.is_dead(state, i) and state[self.PROCS + i * self.registers] != self.DONE:
                raise Violation(f"process {i} hangs")
        if any(state[self.WORDS : self.PLACES]):
            raise Violation("a permit is lost")
        if any(state[self.PLACES : self.HINTS]):
            raise Violation("a place is lost")

    def show(self, state: bytes) -> str:
        words, places = state[self.WORDS : self.PLACES].hex(" "), state[self.PLACES : self.HINTS].hex(" ")
        return f"{self.counters(state)} | lock {state[self.LOCK]} words {words} places {places}"


def explore(limit: int = 0, **config: object) -> Result:
    """Explore everything that may happen."""
    return Model(Config(**config)).explore(limit)  # type: ignore[arg-type]
