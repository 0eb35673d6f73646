# SPDX-License-Identifier: Apache-2.0
"""Explicit-state check of turns: who waits for several blocks, who steps back, and who wakes whom.

usage: python tests/model/reservation_model.py [--wants 1 1 2] [--kept 1] [--kills 1] [--blocks 2] [--bug NAME] ...

What is modelled
    Free blocks as a number, the word that says whose turn it is, two events (for one block, for several), processes
    that each take some blocks at once and free them, a keeper that has some until all who want one block are done, a
    clock that may end a turn at any time, and a reaper. One shared access a step, sequentially consistent; any process
    but these three may be killed between two steps.
    What an event does by itself is eventcount.pml's: here an announced process does not fall asleep once it was
    signalled, and a signal wakes so many sleepers. A look without a wake-up comes once after each death, and never
    where all live: a wake-up that is forgotten is a process that hangs.

    wait     announce; who wants several takes the turn, if it is nobody's; read the turn; take all, or sleep.
    free     give the blocks back; wake all who want several; read the turn; if it is nobody's, wake who wants one.
    end      of a turn: by who has it, with the blocks or when its time is over; then wake all.
    reap     clear the dead one's turn, give its blocks back, wake all.

What is checked
    Nobody alive hangs, no block is lost, and a turn that is over is nobody's.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # run as a script: the repository's root is where `tests` is found
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.model.explorer import Explorer, Result, Violation

BUGS = {
    "silent_end": "whoever ends its turn wakes nobody",
    "turn_first": "whoever frees reads the turn, and then gives the blocks back",
    "one_by_one": "whoever wants several keeps those that it finds while it waits for the rest",
    "dead_turn": "a dead process's turn stays",
    "endless_turn": "a turn ends with the blocks only",
}


@dataclass(frozen=True)
class Config:
    """One exploration."""

    wants: tuple[int, ...] = (1, 1, 2)  # blocks that each process takes at once
    rounds: int = 1
    kills: int = 1
    blocks: int = 2
    kept: int = 0  # of them, by the keeper
    bug: str = ""


class Model(Explorer):
    """The transition system; attributes in capitals are offsets into the state, or labels."""

    # program counter; blocks in hand; rounds left; turns left; whose turn it was
    REGS = ("pc", "have", "left", "turns", "saw")

    def __init__(self, config: Config) -> None:
        if config.bug and config.bug not in BUGS:
            raise ValueError(f"unknown bug {config.bug!r}; known: {', '.join(BUGS)}")
        super().__init__()
        self.c, self.bug, self.kills = config, config.bug, config.kills
        self.workers = len(config.wants)
        self.processes = self.workers + 3  # the clock, the reaper, the keeper
        self.registers = len(self.REGS)
        self.FREE, self.TURN, self.OVER, self.ALIVE, self.KILLS, self.REAPED = range(6)
        self.ANNOUNCED, self.ASLEEP, self.LOOKS = range(6, 9)  # masks of processes
        self.HELD = 9  # of each process, by the truth
        self.PROCS = self.HELD + self.workers
        self.HAVE, self.LEFT, self.TURNS, self.SAW = range(1, 5)
        self.large = [i for i, want in enumerate(config.wants) if want > 1]
        self.small = [i for i, want in enumerate(config.wants) if want == 1]

    def initial(self) -> bytes:
        s = bytearray(self.PROCS + self.processes * self.registers)
        s[self.FREE], s[self.ALIVE] = self.c.blocks - self.c.kept, (1 << self.processes) - 1
        for i in range(self.workers):
            p = self.PROCS + i * self.registers
            s[p], s[p + self.LEFT], s[p + self.TURNS] = self.ANNOUNCE, self.c.rounds, 1
        s[self.PROCS + self.workers * self.registers] = self.CLOCK
        s[self.PROCS + (self.workers + 1) * self.registers] = self.REAP
        s[self.PROCS + (self.workers + 2) * self.registers] = self.KEEP
        return bytes(s)

    def signal(self, s: bytearray, who: list[int], count: int) -> None:
        for i in who:
            s[self.ANNOUNCED] &= ~(1 << i)
            if s[self.ASLEEP] >> i & 1 and count > 0:
                s[self.ASLEEP] &= ~(1 << i)
                count -= 1

    def turn_of(self, s: bytearray) -> int:
        """Whose turn it is, + 1; 0: nobody's. A dead one's is cleared by whoever sees it."""
        owner = s[self.TURN]
        if owner and self.is_dead(s, owner - 1) and self.bug != "dead_turn":
            s[self.TURN] = owner = 0
        return 0 if s[self.OVER] else owner

    # ---- wait ----------------------------------------------------------------------------------------

    def at_announce(self, s: bytearray, i: int, p: int) -> None:
        s[self.ANNOUNCED] |= 1 << i
        s[p] = self.TAKE_TURN if i in self.large else self.LOOK

    def at_take_turn(self, s: bytearray, i: int, p: int) -> None:
        if self.turn_of(s) == 0 and s[p + self.TURNS]:
            s[self.TURN], s[self.OVER] = i + 1, 0
            s[p + self.TURNS] -= 1
        s[p] = self.LOOK

    def at_look(self, s: bytearray, i: int, p: int) -> None:
        s[p] = self.TAKE if self.turn_of(s) in (0, i + 1) else self.SLEEP

    def at_take(self, s: bytearray, i: int, p: int) -> None:
        want = self.c.wants[i] - s[p + self.HAVE]
        took = want if s[self.FREE] >= want else s[self.FREE] if self.bug == "one_by_one" else 0
        s[self.FREE] -= took
        s[p + self.HAVE] += took
        s[self.HELD + i] += took
        s[p] = self.SLEEP
        if took == want:
            s[self.ANNOUNCED] &= ~(1 << i)
            s[p] = self.END if s[self.TURN] == i + 1 else self.GIVE

    def at_sleep(self, s: bytearray, i: int, p: int) -> None:
        if s[self.ANNOUNCED] >> i & 1:
            s[self.ANNOUNCED] &= ~(1 << i)
            s[self.ASLEEP] |= 1 << i
            s[p] = self.SLEEPING
        else:
            s[p] = self.ANNOUNCE

    def at_sleeping(self, s: bytearray, i: int, p: int) -> bool | None:
        if s[self.TURN] == i + 1 and s[self.OVER]:
            s[p] = self.END
        elif not s[self.ASLEEP] >> i & 1 or s[self.LOOKS] >> i & 1:
            s[p] = self.ANNOUNCE
            s[self.LOOKS] &= ~(1 << i)
        else:
            return False
        s[self.ASLEEP] &= ~(1 << i)
        return None

    # ---- the end of a turn ---------------------------------------------------------------------------

    def at_end(self, s: bytearray, i: int, p: int) -> None:
        if s[self.TURN] == i + 1:
            s[self.TURN] = s[self.OVER] = 0
        s[p] = self.WAKE_ALL
        if self.bug == "silent_end":
            s[p] = self.after_the_turn(s, i, p)

    def at_wake_all(self, s: bytearray, i: int, p: int) -> None:
        self.signal(s, self.large + self.small, self.workers)
        s[p] = self.after_the_turn(s, i, p)

    def after_the_turn(self, s: bytearray, i: int, p: int) -> int:
        return self.GIVE if s[p + self.HAVE] == self.c.wants[i] else self.ANNOUNCE

    # ---- free ----------------------------------------------------------------------------------------

    def at_give(self, s: bytearray, i: int, p: int) -> None:
        if self.bug == "turn_first" and not s[p + self.SAW]:
            s[p + self.SAW] = 1 + (self.turn_of(s) != 0)
            return
        s[self.FREE] += s[p + self.HAVE]
        s[self.HELD + i] = 0
        s[p] = self.WAKE_LARGE

    def at_wake_large(self, s: bytearray, i: int, p: int) -> None:
        self.signal(s, self.large, self.workers)
        s[p] = self.READ_TURN

    def at_read_turn(self, s: bytearray, i: int, p: int) -> None:
        taken = s[p + self.SAW] == 2 if self.bug == "turn_first" else self.turn_of(s) != 0
        s[p] = self.NEXT if taken else self.WAKE_SMALL

    def at_wake_small(self, s: bytearray, i: int, p: int) -> None:
        self.signal(s, self.small, s[p + self.HAVE])
        s[p] = self.NEXT

    def at_next(self, s: bytearray, i: int, p: int) -> None:
        left = s[p + self.LEFT] - 1
        s[p : p + self.registers] = bytes((self.ANNOUNCE if left else self.DONE, 0, left, 1, 0))

    def at_done(self, s: bytearray, i: int, p: int) -> bool:
        return False

    # ---- keeper, clock and reaper --------------------------------------------------------------------

    def at_keep(self, s: bytearray, i: int, p: int) -> bool | None:
        for k in self.small:
            if not self.is_dead(s, k) and s[self.PROCS + k * self.registers] != self.DONE:
                return False
        s[self.FREE] += self.c.kept
        self.signal(s, self.large + self.small, self.workers)
        s[p] = self.DONE
        return None

    def at_clock(self, s: bytearray, i: int, p: int) -> bool | None:
        if not s[self.TURN] or s[self.OVER] or self.bug in ("endless_turn", "dead_turn"):
            return False
        s[self.OVER] = 1
        return None

    def at_reap(self, s: bytearray, i: int, p: int) -> bool | None:
        dead = [k for k in range(self.workers) if self.is_dead(s, k) and not s[self.REAPED] >> k & 1]
        if not dead:
            return False
        if s[self.TURN] == dead[0] + 1 and self.bug != "dead_turn":
            s[self.TURN] = s[self.OVER] = 0
        s[p + self.SAW] = dead[0]
        s[p] = self.RECLAIM
        return None

    def at_reclaim(self, s: bytearray, i: int, p: int) -> None:
        dead = s[p + self.SAW]
        s[self.FREE] += s[self.HELD + dead]
        s[self.HELD + dead] = 0
        s[self.REAPED] |= 1 << dead
        s[self.LOOKS] = (1 << self.workers) - 1
        s[p] = self.REAP

    # ---- checks --------------------------------------------------------------------------------------

    def may_be_killed(self, state: bytes, process: int) -> bool:
        return process < self.workers and state[self.PROCS + process * self.registers] != self.DONE

    def kill(self, state: bytes, process: int) -> bytes:
        s = bytearray(super().kill(state, process))
        for mask in (self.ANNOUNCED, self.ASLEEP):
            s[mask] &= ~(1 << process)
        s[self.LOOKS] = (1 << self.workers) - 1
        return bytes(s)

    def check_final(self, s: bytes) -> None:
        for i in range(self.workers):
            if s[self.ALIVE] >> i & 1 and s[self.PROCS + i * self.registers] != self.DONE:
                raise Violation(f"process {i} hangs")
        if s[self.FREE] != self.c.blocks:
            raise Violation(f"{self.c.blocks - s[self.FREE]} blocks are lost")
        if s[self.TURN]:
            raise Violation(f"it is still the turn of process {s[self.TURN] - 1}")

    def show(self, s: bytes) -> str:
        return f"free {s[self.FREE]} turn {s[self.TURN]}{'!' * s[self.OVER]} | {self.counters(s)}"


def explore(limit: int = 0, **config: object) -> Result:
    return Model(Config(**config)).explore(limit)  # type: ignore[arg-type]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    default = Config()
    parser.add_argument("--wants", type=int, nargs="+", default=default.wants, help="blocks of each process")
    for name in ("rounds", "kills", "blocks", "kept"):
        parser.add_argument(f"--{name}", type=int, default=getattr(default, name))
    parser.add_argument("--bug", choices=BUGS, default="", help="a seeded bug")
    arguments = vars(parser.parse_args(argv))
    result = explore(**arguments | {"wants": tuple(arguments["wants"])})
    print(f"{result.states} states, {result.finals} final, {result.seconds:.1f} s")
    if result.violation:
        print("VIOLATION:", result.violation, *result.trace, sep="\n  ")
        return 1
    print("no violation")
    return 0


if __name__ == "__main__":
    sys.exit(main())
