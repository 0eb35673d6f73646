# SPDX-License-Identifier: Apache-2.0
"""Explicit-state check of chains: messages of several blocks that go through a ring while processes die.

usage: python tests/model/chain_model.py [--scripts CS G] [--kills 1] [--blocks 3] [--length 2] [--wide] [--bug NAME]

What is modelled
    Blocks (holder set, generation, link to the next one), a ring (slots, head, tail, note, a lock for each side),
    workers with a script each (C: put a chain, S: put a single packet, G: get a message, if there is one, and free it),
    and a recoverer, who takes what is left out of the ring when the workers have ended. One shared access a step,
    sequentially consistent; any worker may be killed between any two steps. Allocating is one step: shard_model.py has
    what is in it.

    put      slot, note, each block's bits from the head on, index, note again (ssm/src/rings/put.c, N3).
    get      walk the chain: bit, generation, link of each block; take it from the end to the head; tail. What is not
             whole is dropped from the end, and passed over (ssm/src/rings/get.c, N3, N4).
    repair   of the producer's side: walk what the note covers and the index does not, and drop it from the end.
    reap     take over the locks of the dead, clear their bits; in this order or the other one (--bits_first).

What is checked
    Who gets a message has all its blocks, alone, and as they were put; nothing is got twice; what was published is got,
    but for what a process had taken when it was killed in its get; at the end every block is free and nobody hangs.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # run as a script: the repository's root is where `tests` is found
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.model.explorer import Explorer, Result, Violation

BUGS = {
    "put_from_end": "put sets the bits from the end to the head",
    "take_head_first": "get takes the head before its segments",
    "drop_head_first": "what is not whole, or not published, loses its bits from the head on",
    "no_generation": "a link leads on to any block of the ring",
    "no_whole": "get hands out what there is of a chain",
    "old_link": "a packet is handed out with the link that its block had",
}
RING = 0x80  # its bit in a holder set; those of processes are below
PUT, GET = 1, 2


@dataclass(frozen=True)
class Config:
    """One exploration."""

    scripts: tuple[str, ...] = ("CS", "G")
    kills: int = 1
    blocks: int = 3
    length: int = 2  # of a chain
    wide: bool = False  # holder sets of several words: setting one bit and clearing another are two stores
    bits_first: bool = False  # the reaper clears the bits of the dead before it sees to their locks
    bug: str = ""


class Model(Explorer):
    """The transition system; attributes in capitals are offsets into the state, or labels."""

    # program counter; return labels of the walk, the drop, the repair; place in the script (the recoverer's: the dead);
    # what is under way; position in the chain; blocks of it; does it end well; the handle that is looked at; then the
    # handles of the chain
    REGS = ("pc", "walk", "drop", "undo", "at", "act", "k", "n", "whole", "hb", "hg")
    RET_WALK, RET_DROP, RET_UNDO, AT, ACT, K, N, WHOLE, HB, HG, CHAIN = range(1, 12)

    def __init__(self, config: Config) -> None:
        if config.bug and config.bug not in BUGS:
            raise ValueError(f"unknown bug {config.bug!r}; known: {', '.join(BUGS)}")
        super().__init__()
        self.c = config
        self.bug = config.bug
        self.kills = config.kills
        self.workers = len(config.scripts)
        self.processes = self.workers + 1
        self.registers = len(self.REGS) + 2 * config.length
        self.messages = sum(len(script) for script in config.scripts)
        nb = config.blocks
        self.H, self.G, self.NEXT, self.PAYLOAD = (
            0,
            nb,
            2 * nb,
            4 * nb,
        )  # links and slots: block + 1, generation
        self.SLOTS = 5 * nb
        self.HEAD = self.SLOTS + 2 * self.messages
        self.TAIL, self.NOTE, self.PRODUCER, self.CONSUMER = (self.HEAD + k for k in range(1, 5))
        self.PUBLISHED, self.GOT, self.TAKEN = (self.HEAD + k for k in range(5, 8))
        self.ALIVE, self.KILLS, self.REAPED = (self.HEAD + k for k in range(8, 11))
        self.PROCS = self.HEAD + 11

    def initial(self) -> bytes:
        s = bytearray(self.PROCS + self.processes * self.registers)
        s[self.ALIVE] = (1 << self.processes) - 1
        for i in range(self.processes):
            s[self.PROCS + i * self.registers] = self.R_IDLE if i == self.workers else self.START
        return bytes(s)

    def message(self, s: bytes | bytearray, i: int, p: int) -> int:
        return sum(len(script) for script in self.c.scripts[:i]) + s[p + self.AT]

    def chain(self, s: bytes | bytearray, p: int) -> list[tuple[int, int]]:
        at = p + self.CHAIN
        return [(s[at + 2 * k] - 1, s[at + 2 * k + 1]) for k in range(s[p + self.N])]

    def _swap(self, s: bytearray, i: int, p: int, old: int, new: int) -> bool:
        """Block k from one holder to another: one store, or two. Whether it is done."""
        block, _ = self.chain(s, p)[s[p + self.K]]
        if s[self.H + block] == old:
            s[self.H + block] = old | new if self.c.wide else new
        elif s[self.H + block] == old | new:
            s[self.H + block] = new
        else:
            raise Violation(f"block {block} of {self.message(s, i, p)} is held by {s[self.H + block]:#b}")
        return s[self.H + block] == new

    def _end(self, s: bytearray, i: int, p: int) -> None:
        at = s[p + self.AT]
        s[p : p + self.registers] = bytes(self.registers)
        s[p], s[p + self.AT] = (self.R_IDLE, 0) if i == self.workers else (self.START, at + 1)

    # ---- a worker's script ---------------------------------------------------------------------------

    def at_start(self, s: bytearray, i: int, p: int) -> bool | None:
        if s[p + self.AT] == len(self.c.scripts[i]):
            return False
        get = self.c.scripts[i][s[p + self.AT]] == "G"
        s[p + self.ACT] = GET if get else PUT
        s[p] = self.G_LOCK if get else self.A_TAKE
        return None

    def at_a_take(self, s: bytearray, i: int, p: int) -> bool | None:
        free = [b for b in range(self.c.blocks) if s[self.H + b] == 0]
        if not free:
            return False
        b, k = free[0], s[p + self.N]
        length = self.c.length if self.c.scripts[i][s[p + self.AT]] == "C" else 1
        s[self.H + b] = 1 << i
        s[self.G + b] += 1
        s[self.PAYLOAD + b] = self.message(s, i, p) << 4 | k << 2 | length
        if self.bug != "old_link":
            s[self.NEXT + 2 * b : self.NEXT + 2 * b + 2] = bytes(2)
        s[p + self.CHAIN + 2 * k : p + self.CHAIN + 2 * k + 2] = bytes((b + 1, s[self.G + b]))
        s[p + self.N] += 1
        s[p] = self.A_LINK if k + 1 == length else self.A_TAKE
        return None

    def at_a_link(self, s: bytearray, i: int, p: int) -> bool | None:
        chain = self.chain(s, p)
        for (b, _), (following, generation) in itertools.pairwise(chain):
            s[self.NEXT + 2 * b : self.NEXT + 2 * b + 2] = bytes((following + 1, generation))
        s[p] = self.P_LOCK
        return None

    # ---- put -----------------------------------------------------------------------------------------

    def at_p_lock(self, s: bytearray, i: int, p: int) -> bool | None:
        got = self.take(s, i, self.PRODUCER)
        if not got:
            return False
        s[p], s[p + self.RET_UNDO] = (self.P_SLOT, 0) if got == 1 else (self.U_LOOK, self.P_SLOT)
        return None

    def at_p_slot(self, s: bytearray, i: int, p: int) -> bool | None:
        slot = self.SLOTS + 2 * s[self.HEAD]
        s[slot : slot + 2] = s[p + self.CHAIN : p + self.CHAIN + 2]
        s[p] = self.P_NOTE
        return None

    def at_p_note(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.NOTE] = s[self.HEAD] + 1
        s[p + self.K] = s[p + self.N] - 1 if self.bug == "put_from_end" else 0
        s[p] = self.P_BIT
        return None

    def at_p_bit(self, s: bytearray, i: int, p: int) -> bool | None:
        if not self._swap(s, i, p, 1 << i, RING):
            return None
        last = 0 if self.bug == "put_from_end" else s[p + self.N] - 1
        if s[p + self.K] == last:
            s[p + self.K], s[p] = 0, self.P_INDEX
        else:
            s[p + self.K] += -1 if self.bug == "put_from_end" else 1
        return None

    def at_p_index(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.HEAD] += 1
        s[self.PUBLISHED] |= 1 << self.message(s, i, p)
        s[p] = self.P_CLEAR
        return None

    def at_p_clear(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.NOTE] = 0
        s[p] = self.P_UNLOCK
        return None

    def at_p_unlock(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.PRODUCER] = 0
        self._end(s, i, p)
        return None

    # ---- repair of the producer's side: the caller's own chain is put aside meanwhile ------------------

    def at_u_look(self, s: bytearray, i: int, p: int) -> bool | None:
        if s[self.NOTE] <= s[self.HEAD]:
            s[p] = self.U_NOTE
            return None
        slot = self.SLOTS + 2 * s[self.HEAD]
        self._walk(s, p, s[slot : slot + 2], self.U_DROP)
        return None

    def at_u_drop(self, s: bytearray, i: int, p: int) -> bool | None:
        self._drop(s, p, self.U_NOTE)
        return None

    def at_u_note(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.NOTE] = 0
        s[p], s[p + self.RET_UNDO] = s[p + self.RET_UNDO], 0
        self._recall(s, i, p)
        return None

    def _recall(self, s: bytearray, i: int, p: int) -> None:
        """A worker's own chain again, from what its blocks say."""
        self._forget(s, p)
        if i == self.workers:
            return
        own = sorted(
            (s[self.PAYLOAD + b] >> 2 & 3, b) for b in range(self.c.blocks) if s[self.H + b] == 1 << i
        )
        for k, b in own:
            s[p + self.CHAIN + 2 * k : p + self.CHAIN + 2 * k + 2] = bytes((b + 1, s[self.G + b]))
        s[p + self.N] = len(own)

    def _forget(self, s: bytearray, p: int) -> None:
        s[p + self.K : p + self.registers] = bytes(self.registers - self.K)

    # ---- a walk along a chain, as far as it is the ring's ------------------------------------------------

    def _walk(self, s: bytearray, p: int, handle: bytes | bytearray, ret: int) -> None:
        self._forget(s, p)
        s[p + self.HB : p + self.HB + 2] = handle
        s[p + self.RET_WALK], s[p] = ret, self.W_BIT

    def _walked(self, s: bytearray, p: int, whole: int) -> None:
        s[p + self.WHOLE] = whole
        s[p + self.HB : p + self.HB + 2] = bytes(2)
        s[p], s[p + self.RET_WALK] = s[p + self.RET_WALK], 0

    def at_w_bit(self, s: bytearray, i: int, p: int) -> bool | None:
        if s[p + self.HB] == 0:
            self._walked(s, p, 1)
        elif s[p + self.N] < self.c.length and s[self.H + s[p + self.HB] - 1] & RING:
            s[p] = self.W_GENERATION
        else:
            self._walked(s, p, 0)
        return None

    def at_w_generation(self, s: bytearray, i: int, p: int) -> bool | None:
        if s[self.G + s[p + self.HB] - 1] == s[p + self.HG] or self.bug == "no_generation":
            s[p] = self.W_NEXT
        else:
            self._walked(s, p, 0)
        return None

    def at_w_next(self, s: bytearray, i: int, p: int) -> bool | None:
        b, n = s[p + self.HB] - 1, s[p + self.N]
        s[p + self.CHAIN + 2 * n : p + self.CHAIN + 2 * n + 2] = bytes((b + 1, s[self.G + b]))
        s[p + self.N] += 1
        s[p + self.HB : p + self.HB + 2] = s[self.NEXT + 2 * b : self.NEXT + 2 * b + 2]
        s[p] = self.W_BIT
        return None

    # ---- the ring's bits go; what has none then is free --------------------------------------------------

    def _drop(self, s: bytearray, p: int, ret: int) -> None:
        s[p + self.K] = 0
        s[p + self.RET_DROP], s[p] = ret, self.D_LOOK

    def at_d_look(self, s: bytearray, i: int, p: int) -> bool | None:
        chain = self.chain(s, p)
        if s[p + self.K] == len(chain):
            self._forget(s, p)
            s[p], s[p + self.RET_DROP] = s[p + self.RET_DROP], 0
            return None
        b, generation = chain[self._dropped(s, p)]
        if s[self.H + b] & RING and s[self.G + b] == generation:
            s[p] = self.D_CLEAR
        else:
            s[p + self.K] += 1
        return None

    def at_d_clear(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.H + self.chain(s, p)[self._dropped(s, p)][0]] &= ~RING
        s[p + self.K] += 1
        s[p] = self.D_LOOK
        return None

    def _dropped(self, s: bytearray, p: int) -> int:
        return s[p + self.K] if self.bug == "drop_head_first" else s[p + self.N] - 1 - s[p + self.K]

    # ---- get -----------------------------------------------------------------------------------------

    def at_g_lock(self, s: bytearray, i: int, p: int) -> bool | None:
        if not self.take(s, i, self.CONSUMER):
            return False
        s[p] = self.G_LOOK  # the consumer's side needs no repair
        return None

    def at_g_look(self, s: bytearray, i: int, p: int) -> bool | None:
        if s[self.TAIL] == s[self.HEAD]:
            s[p] = self.G_UNLOCK
        else:
            slot = self.SLOTS + 2 * s[self.TAIL]
            self._walk(s, p, s[slot : slot + 2], self.G_HAVE)
        return None

    def at_g_have(self, s: bytearray, i: int, p: int) -> bool | None:
        if s[p + self.N] and (s[p + self.WHOLE] or self.bug == "no_whole"):
            s[p + self.K] = 0 if self.bug == "take_head_first" else s[p + self.N] - 1
            s[p] = self.G_TAKE
        else:
            self._drop(s, p, self.G_PASS)
        return None

    def at_g_pass(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.TAIL] += 1
        s[p] = self.G_LOOK
        return None

    def at_g_take(self, s: bytearray, i: int, p: int) -> bool | None:
        if not self._swap(s, i, p, RING, 1 << i):
            return None
        last = s[p + self.N] - 1 if self.bug == "take_head_first" else 0
        if s[p + self.K] == last:
            s[p + self.K], s[p] = 0, self.G_TAIL
        else:
            s[p + self.K] += 1 if self.bug == "take_head_first" else -1
        return None

    def at_g_tail(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.TAIL] += 1
        s[p] = self.G_UNLOCK
        return None

    def at_g_unlock(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.CONSUMER] = 0
        if s[p + self.N]:
            s[p] = self.G_READ
        else:
            self._end(s, i, p)
        return None

    def at_g_read(self, s: bytearray, i: int, p: int) -> bool | None:
        chain = self.chain(s, p)
        message = s[self.PAYLOAD + chain[0][0]] >> 4
        for k, (b, generation) in enumerate(chain):
            if s[self.H + b] != 1 << i or s[self.G + b] != generation:
                raise Violation(f"block {b} of message {message} is not {i}'s alone: {s[self.H + b]:#b}")
            if s[self.PAYLOAD + b] != (message << 4 | k << 2 | len(chain)):
                raise Violation(f"message {message} is torn at {k}")
        if s[self.GOT] >> message & 1:
            raise Violation(f"message {message} is got twice")
        s[self.GOT] |= 1 << message
        s[p + self.ACT] = 0
        s[p + self.K], s[p] = s[p + self.N] - 1, self.F_FREE
        return None

    def at_f_free(self, s: bytearray, i: int, p: int) -> bool | None:
        b, _ = self.chain(s, p)[s[p + self.K]]
        if self.bug != "old_link":
            s[self.NEXT + 2 * b : self.NEXT + 2 * b + 2] = bytes(2)
        s[self.H + b] &= ~(1 << i)
        if s[p + self.K] == 0:
            self._end(s, i, p)
        else:
            s[p + self.K] -= 1
        return None

    # ---- recoverer -----------------------------------------------------------------------------------

    def _ended(self, s: bytes | bytearray, i: int) -> bool:
        p = self.PROCS + i * self.registers
        return self.is_dead(s, i) or (s[p] == self.START and s[p + self.AT] == len(self.c.scripts[i]))

    def at_r_idle(self, s: bytearray, i: int, p: int) -> bool | None:
        s[p + self.AT] = ~s[self.ALIVE] & ~s[self.REAPED] & ((1 << self.processes) - 1)
        if s[p + self.AT]:
            s[p] = self.R_CLEAR if self.c.bits_first else self.R_PRODUCER
        elif s[self.TAIL] != s[self.HEAD] and all(self._ended(s, w) for w in range(self.workers)):
            s[p] = self.G_LOCK
        else:
            return False
        return None

    def at_r_producer(self, s: bytearray, i: int, p: int) -> bool | None:
        s[p] = self.R_CONSUMER
        if s[self.PRODUCER] and self.is_dead(s, s[self.PRODUCER] - 1):
            s[self.PRODUCER] = i + 1
            s[p + self.RET_UNDO], s[p] = self.R_UNLOCK, self.U_LOOK
        return None

    def at_r_unlock(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.PRODUCER] = 0
        s[p] = self.R_CONSUMER
        return None

    def at_r_consumer(self, s: bytearray, i: int, p: int) -> bool | None:
        if s[self.CONSUMER] and self.is_dead(s, s[self.CONSUMER] - 1):
            s[self.CONSUMER] = 0
        s[p] = self.R_REAPED if self.c.bits_first else self.R_CLEAR
        return None

    def at_r_clear(self, s: bytearray, i: int, p: int) -> bool | None:
        if s[p + self.K] == self.c.blocks:
            s[p + self.K] = 0
            s[p] = self.R_PRODUCER if self.c.bits_first else self.R_REAPED
        else:
            s[self.H + s[p + self.K]] &= ~s[p + self.AT] & 0xFF
            s[p + self.K] += 1
        return None

    def at_r_reaped(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.REAPED] |= s[p + self.AT]
        s[p + self.AT] = 0
        s[p] = self.R_IDLE
        return None

    # ---- checks --------------------------------------------------------------------------------------

    def may_be_killed(self, state: bytes, process: int) -> bool:
        return process < self.workers and not self._ended(state, process)

    def kill(self, state: bytes, process: int) -> bytes:
        s = bytearray(super().kill(state, process))
        s[self.TAKEN] += state[self.PROCS + process * self.registers + self.ACT] == GET
        return bytes(s)

    def check_final(self, s: bytes) -> None:
        for i in range(self.processes):
            idle = (
                s[self.PROCS + i * self.registers] == self.R_IDLE if i == self.workers else self._ended(s, i)
            )
            if not idle:
                raise Violation(f"process {i} hangs")
        if held := [b for b in range(self.c.blocks) if s[self.H + b]]:
            raise Violation(f"blocks {held} are not free")
        if s[self.GOT] & ~s[self.PUBLISHED]:
            raise Violation("what was not published is got")
        if (s[self.PUBLISHED] & ~s[self.GOT]).bit_count() > s[self.TAKEN]:
            raise Violation(f"published {s[self.PUBLISHED]:#b}, got {s[self.GOT]:#b}")
        if s[self.PRODUCER] or s[self.CONSUMER] or s[self.NOTE]:
            raise Violation("a lock or a note is left behind")

    def show(self, s: bytes) -> str:
        holders = " ".join(f"{s[self.H + b]:#x}.{s[self.G + b]}" for b in range(self.c.blocks))
        return f"{holders} | head {s[self.HEAD]} tail {s[self.TAIL]} note {s[self.NOTE]} | {self.counters(s)}"


def explore(limit: int = 0, **config: object) -> Result:
    return Model(Config(**config)).explore(limit)  # type: ignore[arg-type]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    default = Config()
    parser.add_argument(
        "--scripts", nargs="+", default=default.scripts, help="what each worker does: C, S and G"
    )
    for name in ("kills", "blocks", "length"):
        parser.add_argument(f"--{name}", type=int, default=getattr(default, name))
    parser.add_argument("--wide", action="store_true", help="holder sets of several words")
    parser.add_argument(
        "--bits_first", action="store_true", help="the reaper clears bits before it sees to locks"
    )
    parser.add_argument("--bug", choices=BUGS, default="", help="a seeded bug")
    arguments = vars(parser.parse_args(argv))
    result = explore(**arguments | {"scripts": tuple(arguments["scripts"])})
    print(f"{result.states} states, {result.finals} final, {result.seconds:.1f} s")
    if result.violation:
        print("VIOLATION:", result.violation, *result.trace, sep="\n  ")
        return 1
    print("no violation")
    return 0


if __name__ == "__main__":
    sys.exit(main())
