# SPDX-License-Identifier: Apache-2.0
"""Explicit-state check of the shards: blocks that migrate between lists while processes die.

usage: python tests/model/shard_model.py [--rounds 2] [--kills 1] [--blocks 1] [--homes 0 1] [--bug NAME] ...

What is modelled
    Two shards (a lock and a list each), blocks (holder set, `listed`, home, generation), processes that take a
    block, from their own shard or else from the other, and free it, and a recoverer. One shared access a step,
    sequentially consistent; any process but the recoverer may be killed between any two steps.

    take     with the list's lock: clear `listed`, set the holder set (the commit), shorten the list, change the
             generation, then the home.
    free     with the home's lock: clear the holder set, and list. Where that lock is taken, who holds the block
             alone may choose the other shard as its home.
    list     with the lock of what seemed to be its home: read generation, holder set, home, generation; if it
             is free, at home here, and no list gave it away in between, nobody else can take or list it now:
             set `listed`, put it on the list. Settle is this for any block, from the home's lock on.
    rebuild  of a list whose lock's owner died: the same reads for every block of the class.
    reap     rebuild what the dead had locked, clear their bits, settle what is empty and not listed.

What is checked
    Nothing on an unlocked shard's list is held, lives elsewhere, or is not `listed`; whoever takes a block
    finds it free; at the end every block is on exactly one list.
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
    "claim_first": "take sets the holder set, then clears `listed`; rebuild clears it of what is held",
    "bump_last": "take changes the home, then the generation",
    "settle_by_home": "settle reads the home, then the holder set, and no generation",
    "settle_home_last": "settle reads the holder set, then the home, and no generation",
    "rebuild_by_home": "rebuild reads the home, then the holder set, and no generation",
    "rebuild_home_last": "rebuild reads the holder set, then the home, and no generation",
    "home_unchecked": "settle does not read the home again under the lock",
    "home_early": "take changes the home before it sets the holder set",
    "no_rebuild": "a lock taken over from the dead guards an unrepaired list",
}


@dataclass(frozen=True)
class Config:
    """One exploration."""

    rounds: int = 2  # takes per process
    kills: int = 1
    blocks: int = 1
    homes: tuple[int, ...] = (0, 1)  # each process's own shard
    bug: str = ""


class Model(Explorer):
    """The transition system; attributes in capitals are offsets into the state, or labels."""

    # program counter; return labels of settle, of rebuild; block + 1; shard; round; cursor of the reaper, or
    # flags; cursor of a rebuild; the dead; generation read
    REGS = ("pc", "ret", "ret2", "b", "s", "rd", "x", "n", "m", "g")

    def __init__(self, config: Config) -> None:
        if config.bug and config.bug not in BUGS:
            raise ValueError(f"unknown bug {config.bug!r}; known: {', '.join(BUGS)}")
        super().__init__()
        self.c = config
        self.bug = config.bug
        self.kills = config.kills
        self.workers = len(config.homes)
        self.processes = self.workers + 1
        self.registers = len(self.REGS)
        nb = config.blocks
        self.H, self.L, self.HOME, self.G = 0, nb, 2 * nb, 3 * nb
        self.LOCK = 4 * nb  # of shard 0 and 1
        self.LIST = 4 * nb + 2  # mask of the blocks listed there
        self.ALIVE, self.KILLS, self.REAPED = 4 * nb + 4, 4 * nb + 5, 4 * nb + 6
        self.PROCS = 4 * nb + 7

    def initial(self) -> bytes:
        s = bytearray(self.PROCS + self.processes * self.registers)
        for b in range(self.c.blocks):
            s[self.L + b] = 1
        s[self.LIST] = (1 << self.c.blocks) - 1
        s[self.ALIVE] = (1 << self.processes) - 1
        for i in range(self.processes):
            s[self.PROCS + i * self.registers] = self.R_IDLE if i == self.workers else self.T_START
        return bytes(s)

    def _unreaped(self, s: bytes | bytearray) -> int:
        return ~s[self.ALIVE] & ~s[self.REAPED] & ((1 << self.processes) - 1)

    # ---- rebuild of the list of shard `s`, whose lock is held -----------------------------------------

    def at_rebuild(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.LIST + s[p + 4]] = 0
        s[p + 7] = 0
        s[p] = self.B_LOOK
        if self.bug == "no_rebuild":
            s[p], s[p + 2] = s[p + 2], 0
        return None

    def _b_next(self, s: bytearray, p: int) -> None:
        s[p + 7] += 1
        s[p + 9] = 0
        s[p] = self.B_LOOK

    def at_b_look(self, s: bytearray, i: int, p: int) -> bool | None:
        b = s[p + 7]
        if b == self.c.blocks:
            s[p + 7] = 0
            s[p], s[p + 2] = s[p + 2], 0
        else:
            s[p + 9] = s[self.G + b]
            s[p] = self.B_HOME if self.bug == "rebuild_by_home" else self.B_FREE
        return None

    def at_b_free(self, s: bytearray, i: int, p: int) -> bool | None:
        if s[self.H + s[p + 7]] == 0:
            s[p] = self.B_LIST if self.bug == "rebuild_by_home" else self.B_HOME
        elif self.bug == "claim_first" and s[self.HOME + s[p + 7]] == s[p + 4]:
            s[p] = self.B_UNLIST
        else:
            self._b_next(s, p)
        return None

    def at_b_unlist(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.L + s[p + 7]] = 0
        self._b_next(s, p)
        return None

    def at_b_home(self, s: bytearray, i: int, p: int) -> bool | None:
        if s[self.HOME + s[p + 7]] != s[p + 4]:
            self._b_next(s, p)
        elif self.bug == "rebuild_by_home":
            s[p] = self.B_FREE
        else:
            s[p] = self.B_LIST if self.bug == "rebuild_home_last" else self.B_SAME
        return None

    def at_b_same(self, s: bytearray, i: int, p: int) -> bool | None:
        if s[self.G + s[p + 7]] != s[p + 9]:
            self._b_next(s, p)  # a list gave it away: whoever has it will list it
        else:
            s[p] = self.B_LIST
        return None

    def at_b_list(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.L + s[p + 7]] = 1
        s[p] = self.B_PUSH
        return None

    def at_b_push(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.LIST + s[p + 4]] |= 1 << s[p + 7]
        self._b_next(s, p)
        return None

    # ---- settle; free joins it at list ------------------------------------------------------------------

    def _settle(self, s: bytearray, p: int, b: int, ret: int) -> None:
        s[p + 3], s[p + 1], s[p] = b + 1, ret, self.S_HOME

    def at_s_home(self, s: bytearray, i: int, p: int) -> bool | None:
        s[p + 4] = s[self.HOME + s[p + 3] - 1]
        s[p] = self.S_LOCK
        return None

    def at_s_lock(self, s: bytearray, i: int, p: int) -> bool | None:
        got = self.take(s, i, self.LOCK + s[p + 4])
        if not got:
            return False
        s[p], s[p + 2] = (self.S_LOOK, 0) if got == 1 else (self.REBUILD, self.S_LOOK)
        return None

    def at_s_look(self, s: bytearray, i: int, p: int) -> bool | None:
        s[p + 9] = s[self.G + s[p + 3] - 1]
        s[p] = self.S_STILL if self.bug == "settle_by_home" else self.S_FREE
        return None

    def at_s_free(self, s: bytearray, i: int, p: int) -> bool | None:
        if s[self.H + s[p + 3] - 1]:
            s[p] = self.S_UNLOCK  # its last holder will list it
        else:
            s[p] = self.S_LISTED if self.bug in ("settle_by_home", "home_unchecked") else self.S_STILL
        return None

    def at_s_still(self, s: bytearray, i: int, p: int) -> bool | None:
        here = s[self.HOME + s[p + 3] - 1] == s[p + 4]
        following = {"settle_by_home": self.S_FREE, "settle_home_last": self.S_LISTED}.get(
            self.bug, self.S_SAME
        )
        s[p] = following if here else self.S_AGAIN
        return None

    def at_s_same(self, s: bytearray, i: int, p: int) -> bool | None:
        s[p] = self.S_LISTED if s[self.G + s[p + 3] - 1] == s[p + 9] else self.S_AGAIN
        return None

    def at_s_again(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.LOCK + s[p + 4]] = 0
        s[p + 9] = 0
        s[p] = self.S_HOME
        return None

    def at_s_listed(self, s: bytearray, i: int, p: int) -> bool | None:
        s[p] = self.S_UNLOCK if s[self.L + s[p + 3] - 1] else self.S_LIST
        return None

    def at_s_list(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.L + s[p + 3] - 1] = 1
        s[p] = self.S_PUSH
        return None

    def at_s_push(self, s: bytearray, i: int, p: int) -> bool | None:
        b = s[p + 3] - 1
        if s[self.LIST + s[p + 4]] >> b & 1:
            raise Violation(f"block {b} is twice on a list")
        s[self.LIST + s[p + 4]] |= 1 << b
        s[p] = self.S_UNLOCK
        return None

    def at_s_unlock(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.LOCK + s[p + 4]] = 0
        s[p], s[p + 1], s[p + 3], s[p + 4], s[p + 9] = s[p + 1], 0, 0, 0, 0
        return None

    # ---- take and free ----------------------------------------------------------------------------------

    def _after(self, step: str) -> int:
        steps = {
            "claim_first": "CLAIM SHRINK UNLIST BUMP HOME UNLOCK",
            "bump_last": "UNLIST CLAIM SHRINK HOME BUMP UNLOCK",
            "home_early": "UNLIST HOME CLAIM SHRINK BUMP UNLOCK",
        }.get(self.bug, "UNLIST CLAIM SHRINK BUMP HOME UNLOCK").split()
        return int(getattr(self, "T_" + steps[steps.index(step) + 1]))

    def at_t_start(self, s: bytearray, i: int, p: int) -> bool | None:
        if s[p + 5] == self.c.rounds:
            return False
        for shard in (self.c.homes[i], 1 - self.c.homes[i]):
            owner = s[self.LOCK + shard]
            if not s[self.LIST + shard] and not (owner and self.is_dead(s, owner - 1)):
                continue  # asleep until there is something
            got = self.take(s, i, self.LOCK + shard)
            if got:
                s[p + 4] = shard
                s[p], s[p + 2] = (self.T_PICK, 0) if got == 1 else (self.REBUILD, self.T_PICK)
                return None
        return False

    def at_t_pick(self, s: bytearray, i: int, p: int) -> bool | None:
        listed = s[self.LIST + s[p + 4]]
        if not listed:
            s[self.LOCK + s[p + 4]] = 0
            s[p + 4] = 0
            s[p] = self.T_START
            return None
        b = (listed & -listed).bit_length() - 1
        if s[self.H + b] or not s[self.L + b] or s[self.HOME + b] != s[p + 4]:
            raise Violation(f"block {b} is on the list of shard {s[p + 4]}, which lies")
        s[p + 3] = b + 1
        s[p] = self.T_CLAIM if self.bug == "claim_first" else self.T_UNLIST
        return None

    def at_t_unlist(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.L + s[p + 3] - 1] = 0
        s[p] = self._after("UNLIST")
        return None

    def at_t_claim(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.H + s[p + 3] - 1] = 1 << i  # the commit
        s[p] = self._after("CLAIM")
        return None

    def at_t_shrink(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.LIST + s[p + 4]] &= ~(1 << (s[p + 3] - 1))
        s[p] = self._after("SHRINK")
        return None

    def at_t_bump(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.G + s[p + 3] - 1] += 1
        s[p] = self._after("BUMP")
        return None

    def at_t_home(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.HOME + s[p + 3] - 1] = self.c.homes[i]
        s[p] = self._after("HOME")
        return None

    def at_t_unlock(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.LOCK + s[p + 4]] = 0
        s[p + 4] = self.c.homes[i]
        s[p] = self.F_LOCK
        return None

    def at_f_lock(self, s: bytearray, i: int, p: int) -> bool | None:
        """One try at the home's lock; then, once, the other shard becomes the home."""
        b = s[p + 3] - 1
        if s[self.H + b] != 1 << i:
            raise Violation(f"block {b} is used by {i} and held by {s[self.H + b]:#b}")
        got = self.take(s, i, self.LOCK + s[p + 4])
        if got:
            s[p], s[p + 2] = (self.F_CLEAR, 0) if got == 1 else (self.REBUILD, self.F_CLEAR)
        elif s[p + 6]:
            return False
        else:
            s[self.HOME + b] = s[p + 4] = 1 - s[p + 4]
            s[p + 6] = 1
        return None

    def at_f_clear(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.H + s[p + 3] - 1] &= ~(1 << i)
        s[p + 5] += 1
        s[p + 6] = 0
        s[p + 1], s[p] = self.T_START, self.S_LOOK
        return None

    # ---- recoverer -----------------------------------------------------------------------------------

    def at_r_idle(self, s: bytearray, i: int, p: int) -> bool | None:
        s[p + 8] = self._unreaped(s)
        if not s[p + 8]:
            return False
        s[p] = self.R_SHARD
        return None

    def at_r_shard(self, s: bytearray, i: int, p: int) -> bool | None:
        if s[p + 4] == 2:
            s[p + 4] = 0
            s[p] = self.R_CLEAR
            return None
        owner = s[self.LOCK + s[p + 4]]
        if owner and self.is_dead(s, owner - 1):
            s[self.LOCK + s[p + 4]] = i + 1
            s[p], s[p + 2] = self.REBUILD, self.R_UNLOCK
        else:
            s[p + 4] += 1
        return None

    def at_r_unlock(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.LOCK + s[p + 4]] = 0
        s[p + 4] += 1
        s[p] = self.R_SHARD
        return None

    def at_r_clear(self, s: bytearray, i: int, p: int) -> bool | None:
        if s[p + 6] == self.c.blocks:
            s[self.REAPED] |= s[p + 8]
            s[p + 6] = s[p + 8] = 0
            s[p] = self.R_IDLE
            return None
        s[self.H + s[p + 6]] &= ~s[p + 8] & 0xFF
        s[p] = self.R_LISTED
        return None

    def at_r_listed(self, s: bytearray, i: int, p: int) -> bool | None:
        if s[self.L + s[p + 6]]:
            s[p + 6] += 1
            s[p] = self.R_CLEAR
        else:
            s[p] = self.R_FREE
        return None

    def at_r_free(self, s: bytearray, i: int, p: int) -> bool | None:
        b = s[p + 6]
        s[p] = self.R_CLEAR
        s[p + 6] += 1
        if s[self.H + b] == 0:
            s[p + 6] -= 1
            self._settle(s, p, b, self.R_NEXT)
        return None

    def at_r_next(self, s: bytearray, i: int, p: int) -> bool | None:
        s[p + 6] += 1
        s[p] = self.R_CLEAR
        return None

    # ---- checks --------------------------------------------------------------------------------------

    def may_be_killed(self, state: bytes, process: int) -> bool:
        p = self.PROCS + process * self.registers
        done = state[p] == self.T_START and state[p + 5] == self.c.rounds
        return process < self.workers and not done

    def check(self, s: bytes) -> None:
        for shard in (0, 1):
            if s[self.LOCK + shard]:
                continue
            for b in range(self.c.blocks):
                if s[self.LIST + shard] >> b & 1:
                    where = f"block {b} is on the list of shard {shard}"
                    if s[self.H + b]:
                        raise Violation(f"{where} and held by {s[self.H + b]:#b}")
                    if s[self.HOME + b] != shard:
                        raise Violation(f"{where} but at home in {s[self.HOME + b]}")
                    if not s[self.L + b]:
                        raise Violation(f"{where} but not marked so")

    def check_final(self, s: bytes) -> None:
        for i in range(self.processes):
            p = self.PROCS + i * self.registers
            if s[self.ALIVE] >> i & 1 and s[p] != self.R_IDLE and s[p + 5] != self.c.rounds:
                raise Violation(f"process {i} hangs at {self.labels[s[p]]}")
        for b in range(self.c.blocks):
            lists = [shard for shard in (0, 1) if s[self.LIST + shard] >> b & 1]
            if s[self.H + b] or not s[self.L + b] or lists != [s[self.HOME + b]]:
                raise Violation(f"block {b}: held by {s[self.H + b]:#b}, on the lists {lists}")
        if s[self.LOCK] or s[self.LOCK + 1]:
            raise Violation("a lock is left behind")

    def show(self, s: bytes) -> str:
        nb = self.c.blocks
        return " | ".join(
            [
                "holders " + " ".join(f"{h:b}" for h in s[self.H : self.H + nb]),
                f"listed {list(s[self.L : self.L + nb])} home {list(s[self.HOME : self.HOME + nb])}",
                f"generation {list(s[self.G : self.G + nb])} locks {list(s[self.LOCK : self.LOCK + 2])}",
                "lists " + " ".join(f"{m:b}" for m in s[self.LIST : self.LIST + 2]),
                self.counters(s),
            ]
        )


def explore(limit: int = 0, **config: int | str | tuple[int, ...]) -> Result:
    """Explore ``Config(**config)``."""
    return Model(Config(**config)).explore(limit)  # type: ignore[arg-type]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("rounds", "kills", "blocks"):
        parser.add_argument("--" + name, type=int, default=getattr(Config, name))
    parser.add_argument("--homes", type=int, nargs="+", default=list(Config.homes), choices=[0, 1])
    parser.add_argument("--bug", default="", choices=["", *BUGS], metavar="NAME", help=", ".join(BUGS))
    parser.add_argument("--limit", type=int, default=0, help="give up beyond that many states")
    options = vars(parser.parse_args(argv))
    limit = options.pop("limit")
    options["homes"] = tuple(options["homes"])
    result = explore(limit, **options)
    for line in result.trace:
        print(line)
    print(options)
    verdict = f"VIOLATION: {result.violation}" if result.violation else "no violation"
    print(f"{result.states} states, {result.finals} final, {result.seconds:.1f} s: {verdict}")
    return 1 if result.violation else 0


if __name__ == "__main__":
    sys.exit(main())
