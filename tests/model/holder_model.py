# SPDX-License-Identifier: Apache-2.0
"""Explicit-state check of the holder-set protocol: every interleaving, every kill.

usage: python tests/model/holder_model.py [--rounds 2] [--kills 2] [--batch 2] [--bug note_first] ...

What is modelled
    A few blocks in one shard (free mask, `listed` flags, the shard's lock), one ring or two (slots that carry
    block and generation, head, tail, note, a lock per side), producers, consumers, recoverers. Steps are
    sequentially consistent, one shared access each. Any process may be killed between any two steps; the
    last recoverer may not.

    put     under the producer's right: find the ring's bit clear, write the slots, note the intended end,
            then per block: found to be the producer's alone, its holder set is overwritten with {ring}, else
            the ring's bit is set and the own bit cleared; publish the index; clear the note; give up the
            right. With two rings each packet goes into both (fan-out: the first put keeps the packet).
    get     under the consumer's right, per slot. With a mark: the set is overwritten with {me}, unseen. Without:
            read the holder set, *then* the generation; a slot whose block lacks the ring's bit, or is of
            another generation, is skipped; found to be the ring's alone, the set is overwritten with {me}, else
            my bit is set and the ring's cleared. Advance the index once for the batch. A slot has a mark
            where its packet was not put into another ring before.
    repair  of a producer's side: the slots between the index and the note lose the ring's bit, empty blocks
            are settled, then the note goes. Of a consumer's side: the index goes beyond the first slots whose
            block lacks the ring's bit, or is of another generation; the next slot loses its mark. Of the
            shard: rebuild from the holder sets.
    fork    of a producer or a consumer, at any step: the child has the parent's description of the file until
            its handler closes it, and so long the parent's liveness lock is held whatever becomes of the parent;
            then it forgets what the parent had, and at its first call it is a consumer with a slot of its own.
    reap    repair what the dead own, clear their bits everywhere, settle what is empty and not listed.

What is checked
    In every state: nothing on the free list is held; nobody uses a block that it does not hold; a producer
    fills only what it holds alone; a packet is taken through the very slot that it was put into, so never
    twice and in order.
    In every state from which no step leads on: everybody alive has finished or waits at an empty ring; every
    published packet was taken; every block is free; no lock, note or bit is left behind.

What is not: weak memory order; the liveness test and the steal of a lock are one step; threads of one
process.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, fields
from pathlib import Path

if __name__ == "__main__":  # run as a script: the repository's root is where `tests` is found
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.model.explorer import Explorer, Result, Violation

BUGS = {
    "note_first": "the note is written before the slots",
    "unnote_first": "the note is cleared before the index is published",
    "no_fixprod": "repair of a dead producer's side leaves the ring's bits",
    "fix_no_settle": "that repair clears the bits but does not settle the blocks",
    "swap_late": "holder sets are swapped after the index is published",
    "split_swap": "the producer's bit is cleared, then the ring's is set",
    "blind_swap": "the swap does not look whether there are other holders",
    "own_first": "the producer's bit is cleared before the ring's is set where no swap is possible",
    "get_clear_first": "get clears the ring's bit before it sets its own",
    "no_skip": "whoever takes over a consumer's side does not look for slots that the dead one emptied",
    "no_generation": "that repair does not compare the slot's generation with the block's",
    "gen_before_bits": "that repair reads the generation before the holder set",
    "no_bump": "allocation does not change the generation",
    "no_rebuild": "a shard's lock taken over from the dead guards an unrepaired list",
    "settle_unlocked": "settle does not take the shard's lock",
    "child_keeps_file": "a forked child does not close the parent's description of the file",
    "child_keeps_handles": "a forked child uses the handles that the parent had",
    "child_frees": "a forked child frees the handles that the parent had",
}
# Other orders that look wrong and are not, each for the reason given.
HARMLESS = {
    "unlink_first": "allocation unlinks the block before it sets its bit: the next owner rebuilds",
    "look": "get looks at slots with a mark, too: the repair has passed over those that it would skip",
    "reap_live": "the reaper clears the bits of whoever died since, too: generations tell stale slots",
}


@dataclass(frozen=True)
class Config:
    """One exploration: how many of what, and which seeded bug."""

    rounds: int = 2  # puts per producer
    kills: int = 1
    batch: int = 1  # packets per put, at most per get: 1 or 2
    rings: int = 1  # 2: fan-out
    blocks: int = 2
    capacity: int = 2  # slots of a ring
    producers: int = 1
    consumers: int = 1
    recoverers: int = 2  # the second works when the first is dead
    exclusive: bool = False  # "one" producer, "one" consumer: the right is kept, not locked per call
    fork: str = ""  # "producer" or "consumer": the first of them forks once, at any step or never
    bug: str = ""


class Model(Explorer):
    """The transition system. A state is a `bytes`; attributes in capitals are offsets into it."""

    # Per process: program counter; return labels of settle, repair and rebuild; block being settled; cursor
    # of a batch; the batch's blocks + 1; mask of the dead being reaped; round; ring; cursor of a repair;
    # slots that a get looks at. Serial numbers are ghosts, kept per block.
    REGS = ("pc", "ret", "ret2", "ret3", "b", "n", "k0", "k1", "m", "rd", "rg", "f", "av")

    def __init__(self, config: Config) -> None:
        if config.bug and config.bug not in BUGS | HARMLESS:
            raise ValueError(f"unknown bug {config.bug!r}; known: {', '.join(BUGS | HARMLESS)}")
        if config.producers * config.rounds * config.batch > 8:
            raise ValueError("at most 8 packets: producers * rounds * batch")
        if not config.batch <= min(2, config.blocks, config.capacity):
            raise ValueError("batch is 1 or 2, and not more than blocks or capacity")
        if config.exclusive and (config.producers > 1 or config.consumers > 1 or config.fork):
            raise ValueError("exclusive sides have one producer and one consumer, and no child")
        if config.fork not in ("", "producer", "consumer"):
            raise ValueError(f"who forks is a producer or a consumer, not {config.fork!r}")
        super().__init__()
        self.c = config
        self.bug = config.bug
        self.kills = config.kills
        nb, nr = config.blocks, config.rings
        children = 1 if config.fork else 0
        self.processes = config.producers + config.consumers + children + config.recoverers
        if self.processes + nr > 8:
            raise ValueError("processes and rings together are at most 8")
        self.first_c = config.producers
        self.child = config.producers + config.consumers
        self.parent = self.first_c if config.fork == "consumer" else 0
        self.first_r = self.child + children
        self.names = [f"P{i}" for i in range(config.producers)]
        self.names += (
            [f"C{i}" for i in range(config.consumers)]
            + ["F"] * children
            + [f"R{i}" for i in range(config.recoverers)]
        )
        o = 0
        self.H, o = o, o + nb  # holder set
        self.G, o = o, o + nb  # generation
        self.L, o = o, o + nb  # listed
        self.X, o = o, o + nb  # ghost: serial number written into the payload
        self.FREE, o = o, o + 1  # mask of the blocks on the free list
        self.LS, o = o, o + 1  # the shard's lock: owner + 1
        self.ALIVE, o = o, o + 1
        self.KILLS, o = o, o + 1
        self.REAPED, o = o, o + 1
        self.ring_size = 7 + 4 * config.capacity
        self.RINGS, o = o, o + nr * self.ring_size
        self.registers = len(self.REGS)
        self.PROCS, o = o, o + self.processes * self.registers
        self.size = o

    # A ring's bytes: head, tail, note, the producers' lock, the consumers'; ghosts: packets put, packets
    # taken; then the slots: block + 1, generation, ghost: serial number, mark.
    def _ring(self, r: int) -> int:
        return self.RINGS + r * self.ring_size

    def _bit(self, r: int) -> int:
        return 1 << (self.processes + r)

    def _slot(self, r: int, position: int) -> int:
        return self._ring(r) + 7 + 4 * (position % self.c.capacity)

    def initial(self) -> bytes:
        s = bytearray(self.size)
        for b in range(self.c.blocks):
            s[self.L + b] = 1
        s[self.FREE] = (1 << self.c.blocks) - 1
        s[self.ALIVE] = (1 << self.processes) - 1
        for i in range(self.processes):
            pc = self.P_ALLOC if i < self.first_c else self.G_LOCK if i < self.first_r else self.R_IDLE
            s[self.PROCS + i * self.registers] = pc
        if self.c.fork:
            s[self.PROCS + self.child * self.registers] = self.K_FORK
        if self.c.exclusive:
            for r in range(self.c.rings):
                s[self._ring(r) + 3] = 1
                s[self._ring(r) + 4] = self.first_c + 1
        return bytes(s)

    # ---- common pieces -------------------------------------------------------------------------------

    def _unreaped(self, s: bytes | bytearray) -> int:
        dead = ~s[self.ALIVE] & ~s[self.REAPED] & ((1 << self.processes) - 1)
        return dead & ~(1 << self.parent) if self._child_has_file(s) else dead

    def _child_has_file(self, s: bytes | bytearray) -> bool:
        """The child keeps the parent's liveness lock, with the parent's description of the file."""
        if not self.c.fork or not s[self.ALIVE] >> self.child & 1:
            return False
        pc = s[self.PROCS + self.child * self.registers]
        return pc == self.K_CLOSE or (self.bug == "child_keeps_file" and pc != self.K_FORK)

    def is_dead(self, state: bytes | bytearray, process: int) -> bool:
        dead = not state[self.ALIVE] >> process & 1
        return dead and not (process == self.parent and self._child_has_file(state))

    def _settle(self, s: bytearray, p: int, b: int, ret: int) -> None:
        s[p + 4], s[p + 1], s[p] = b, ret, self.S_TEST if self.bug == "settle_unlocked" else self.S_LOCK

    # ---- settle, rebuild -----------------------------------------------------------------------------

    def at_s_lock(self, s: bytearray, i: int, p: int) -> bool | None:
        got = self.take(s, i, self.LS)
        if not got:
            return False
        s[p], s[p + 3] = (self.S_TEST, 0) if got == 1 else (self.REBUILD, self.S_TEST)
        return None

    def at_s_test(self, s: bytearray, i: int, p: int) -> bool | None:
        b = s[p + 4]
        if s[self.H + b] == 0 and not s[self.L + b]:
            s[self.L + b] = 1
            s[p] = self.S_PUSH
        else:
            s[p] = self.S_UNLOCK
        return None

    def at_s_push(self, s: bytearray, i: int, p: int) -> bool | None:
        b = s[p + 4]
        if s[self.FREE] >> b & 1:
            raise Violation(f"block {b} is listed twice")
        s[self.FREE] |= 1 << b
        s[p] = self.S_UNLOCK
        return None

    def at_s_unlock(self, s: bytearray, i: int, p: int) -> bool | None:
        if self.bug != "settle_unlocked":
            s[self.LS] = 0
        s[p], s[p + 1], s[p + 4] = s[p + 1], 0, 0
        return None

    def at_rebuild(self, s: bytearray, i: int, p: int) -> bool | None:
        if self.bug != "no_rebuild":
            for b in range(self.c.blocks):
                s[self.L + b] = s[self.H + b] == 0
        s[p] = self.REBUILD2
        return None

    def at_rebuild2(self, s: bytearray, i: int, p: int) -> bool | None:
        if self.bug != "no_rebuild":
            s[self.FREE] = sum(1 << b for b in range(self.c.blocks) if s[self.L + b])
        s[p], s[p + 3] = s[p + 3], 0
        return None

    # ---- producer: allocate, fill, put ---------------------------------------------------------------

    def at_p_alloc(self, s: bytearray, i: int, p: int) -> bool | None:
        if s[p + 9] == self.c.rounds:
            return False
        if not s[self.LS] and s[self.FREE].bit_count() < self.c.batch:
            return False  # asleep until enough is free
        got = self.take(s, i, self.LS)
        if not got:
            return False
        s[p], s[p + 3] = (self.P_PICK, 0) if got == 1 else (self.REBUILD, self.P_PICK)
        return None

    def at_p_pick(self, s: bytearray, i: int, p: int) -> bool | None:
        free = s[self.FREE]
        if free.bit_count() < self.c.batch - s[p + 5]:
            s[self.LS] = 0
            s[p] = self.P_ALLOC
            return None
        b = (free & -free).bit_length() - 1
        s[p + 6 + s[p + 5]] = b + 1
        if self.bug == "unlink_first":
            s[self.FREE] &= ~(1 << b)
        else:
            s[self.H + b] |= 1 << i  # the commit
        s[p] = self.P_UNLINK
        return None

    def at_p_unlink(self, s: bytearray, i: int, p: int) -> bool | None:
        b = s[p + 6 + s[p + 5]] - 1
        if self.bug == "unlink_first":
            s[self.H + b] |= 1 << i
        else:
            s[self.FREE] &= ~(1 << b)
        s[p] = self.P_UNLIST
        return None

    def at_p_unlist(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.L + s[p + 6 + s[p + 5]] - 1] = 0
        s[p] = self.P_BUMP
        return None

    def at_p_bump(self, s: bytearray, i: int, p: int) -> bool | None:
        if self.bug != "no_bump":
            s[self.G + s[p + 6 + s[p + 5]] - 1] += 1
        s[p + 5] += 1
        s[p] = self.P_PICK
        if s[p + 5] == self.c.batch:
            s[p], s[p + 5] = self.P_UNLOCK, 0
        return None

    def at_p_unlock(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.LS] = 0
        s[p] = self.P_FILL
        return None

    def at_p_fill(self, s: bytearray, i: int, p: int) -> bool | None:
        for n in range(self.c.batch):
            b = s[p + 6 + n] - 1
            if s[self.H + b] != 1 << i or s[self.FREE] >> b & 1:
                raise Violation(f"{self.names[i]} fills block {b} that it does not hold alone")
            s[self.X + b] = (i * self.c.rounds + s[p + 9]) * self.c.batch + n
        s[p] = self.Q_LOCK
        return None

    def at_q_lock(self, s: bytearray, i: int, p: int) -> bool | None:
        ring = self._ring(s[p + 10])
        room = s[ring] - s[ring + 1] + self.c.batch <= self.c.capacity
        if self.c.exclusive:
            if not room:
                return False
            s[p] = self.Q_CHECK
            return None
        if not s[ring + 3] and not room:
            return False  # asleep until there is room
        got = self.take(s, i, ring + 3)
        if not got:
            return False
        s[p], s[p + 2] = (self.Q_CHECK, 0) if got == 1 else (self.FIX_SLOT, self.Q_CHECK)
        return None

    def at_q_check(self, s: bytearray, i: int, p: int) -> bool | None:
        r = s[p + 10]
        ring = self._ring(r)
        if s[ring] - s[ring + 1] + self.c.batch > self.c.capacity:
            s[ring + 3] = 0
            s[p] = self.Q_LOCK
            return None
        for n in range(self.c.batch):
            if s[self.H + s[p + 6 + n] - 1] & self._bit(r):
                raise Violation("a packet that is not queued carries the ring's bit")
        s[p] = self.Q_NOTE if self.bug == "note_first" else self.Q_SLOT
        return None

    def at_q_slot(self, s: bytearray, i: int, p: int) -> bool | None:
        r, n = s[p + 10], s[p + 5]
        b = s[p + 6 + n] - 1
        slot = self._slot(r, s[self._ring(r)] + n)
        s[slot], s[slot + 1], s[slot + 2] = b + 1, s[self.G + b], s[self.X + b]
        s[slot + 3] = self.c.rings == 1
        s[p + 5] += 1
        if s[p + 5] == self.c.batch:
            s[p + 5] = 0
            s[p] = self.Q_SWAP if self.bug == "note_first" else self.Q_NOTE
        return None

    def at_q_note(self, s: bytearray, i: int, p: int) -> bool | None:
        ring = self._ring(s[p + 10])
        s[ring + 2] = s[ring] + self.c.batch
        s[p] = {"note_first": self.Q_SLOT, "swap_late": self.Q_PUBLISH}.get(self.bug, self.Q_SWAP)
        return None

    def at_q_swap(self, s: bytearray, i: int, p: int) -> bool | None:
        keep = s[p + 10] + 1 < self.c.rings
        alone = s[self.H + s[p + 6 + s[p + 5]] - 1] == 1 << i or self.bug == "blind_swap"
        if alone and not keep:
            s[p] = self.Q_DROP if self.bug == "split_swap" else self.Q_HAND
        else:
            s[p] = self.Q_DROP if self.bug == "own_first" and not keep else self.Q_ADD
        return None

    def _q_next(self, s: bytearray, p: int) -> None:
        s[p + 5] += 1
        s[p] = self.Q_SWAP
        if s[p + 5] == self.c.batch:
            s[p + 5] = 0
            s[p] = self.Q_UNNOTE if self.bug in ("swap_late", "unnote_first") else self.Q_PUBLISH

    def at_q_hand(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.H + s[p + 6 + s[p + 5]] - 1] = self._bit(s[p + 10])  # a plain store: nobody else has the block
        self._q_next(s, p)
        return None

    def at_q_add(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.H + s[p + 6 + s[p + 5]] - 1] |= self._bit(s[p + 10])
        if s[p + 10] + 1 < self.c.rings or self.bug in ("split_swap", "own_first"):
            self._q_next(s, p)
        else:
            s[p] = self.Q_DROP
        return None

    def at_q_drop(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.H + s[p + 6 + s[p + 5]] - 1] &= ~(1 << i)  # the ring's bit is set: nothing to settle
        if self.bug in ("split_swap", "own_first"):
            s[p] = self.Q_ADD
        else:
            self._q_next(s, p)
        return None

    def at_q_publish(self, s: bytearray, i: int, p: int) -> bool | None:
        ring = self._ring(s[p + 10])
        s[ring] += self.c.batch
        for n in range(self.c.batch):
            s[ring + 5] |= 1 << ((i * self.c.rounds + s[p + 9]) * self.c.batch + n)
        s[p] = {"swap_late": self.Q_SWAP, "unnote_first": self.Q_UNLOCK}.get(self.bug, self.Q_UNNOTE)
        return None

    def at_q_unnote(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self._ring(s[p + 10]) + 2] = 0
        s[p] = self.Q_PUBLISH if self.bug == "unnote_first" else self.Q_UNLOCK
        return None

    def at_q_unlock(self, s: bytearray, i: int, p: int) -> bool | None:
        if not self.c.exclusive:
            s[self._ring(s[p + 10]) + 3] = 0
        s[p + 10] += 1
        if s[p + 10] < self.c.rings:
            s[p] = self.Q_LOCK
        else:
            s[p + 6] = s[p + 7] = s[p + 10] = 0
            s[p + 9] += 1
            s[p] = self.P_ALLOC
        return None

    # ---- a forked child ----------------------------------------------------------------------------------

    def at_k_fork(self, s: bytearray, i: int, p: int) -> bool | None:
        """The parent forks, wherever it is; the child's memory is a copy."""
        if not s[self.ALIVE] >> self.parent & 1:
            return False
        q = self.PROCS + self.parent * self.registers
        s[p + 6], s[p + 7] = s[q + 6], s[q + 7]
        s[p] = self.K_FORGET if self.bug == "child_keeps_file" else self.K_CLOSE
        return None

    def at_k_close(self, s: bytearray, i: int, p: int) -> bool | None:
        s[p] = self.K_FORGET
        return None

    def at_k_forget(self, s: bytearray, i: int, p: int) -> bool | None:
        """Handles and caches of the parent are no business of the child's."""
        if self.bug == "child_keeps_handles" and s[p + 6]:
            s[p] = self.U_USE
            return None
        if self.bug == "child_frees" and s[p + 6]:
            s[self.H + s[p + 6] - 1] &= ~(1 << self.parent)
        s[p + 6] = s[p + 7] = 0
        s[p] = self.G_LOCK
        return None

    # ---- repair of a producer's side -----------------------------------------------------------------

    def at_fix_slot(self, s: bytearray, i: int, p: int) -> bool | None:
        r = s[p + 10]
        ring = self._ring(r)
        position = s[ring] + s[p + 11]
        if position >= s[ring + 2]:
            s[p], s[p + 11] = self.FIX_DONE, 0
            s[ring + 2] = 0
            return None
        s[p + 11] += 1
        k = s[self._slot(r, position)]
        if k and self.bug != "no_fixprod":
            s[self.H + k - 1] &= ~self._bit(r)
            if s[self.H + k - 1] == 0 and self.bug != "fix_no_settle":
                self._settle(s, p, k - 1, self.FIX_SLOT)
        return None

    def at_fix_done(self, s: bytearray, i: int, p: int) -> bool | None:
        s[p], s[p + 2] = s[p + 2], 0
        return None

    # ---- consumer: get, use, free --------------------------------------------------------------------

    def at_g_lock(self, s: bytearray, i: int, p: int) -> bool | None:
        if i >= self.first_r and self._unreaped(s):
            s[p] = self.R_IDLE  # a recoverer that stands in for the consumers
            return None
        consumers = ((1 << self.c.consumers) - 1) << self.first_c
        divided = self.c.consumers >= self.c.rings and s[self.ALIVE] & consumers == consumers
        for r in range(self.c.rings):
            if divided and i < self.child and i % self.c.rings != r:
                continue  # while there are enough consumers, each has its ring
            ring = self._ring(r)
            if self.c.exclusive and s[ring + 4] == i + 1:
                if s[ring] == s[ring + 1]:
                    continue
                s[p + 10], s[p] = r, self.G_AVAIL
                return None
            if not s[ring + 4] and s[ring] == s[ring + 1]:
                continue  # asleep until there is something
            got = self.take(s, i, ring + 4)
            if got:
                s[p + 10] = r
                s[p], s[p + 2] = self._skip_first(self.G_AVAIL) if got == 2 else (self.G_AVAIL, 0)
                return None
        return False

    def at_g_avail(self, s: bytearray, i: int, p: int) -> bool | None:
        ring = self._ring(s[p + 10])
        s[p + 12] = min(self.c.batch, s[ring] - s[ring + 1])
        self._g_slot(s, p)
        return None

    def _g_slot(self, s: bytearray, p: int) -> None:
        r = s[p + 10]
        if s[p + 5] == s[p + 12]:
            s[p] = self.G_ADVANCE if s[p + 12] else self.G_UNLOCK
        elif s[self._slot(r, s[self._ring(r) + 1] + s[p + 5]) + 3] and self.bug not in (
            "look",
            "get_clear_first",
        ):
            s[p] = self.G_HAND
        else:
            s[p] = self.G_BITS

    def _g_next(self, s: bytearray, p: int) -> None:
        s[p + 5] += 1
        self._g_slot(s, p)

    def at_g_bits(self, s: bytearray, i: int, p: int) -> bool | None:
        r = s[p + 10]
        b = s[self._slot(r, s[self._ring(r) + 1] + s[p + 5])] - 1
        if s[self.H + b] & self._bit(r):
            s[p] = self.G_GEN
        else:
            self._g_next(s, p)
        return None

    def at_g_gen(self, s: bytearray, i: int, p: int) -> bool | None:
        r = s[p + 10]
        slot = self._slot(r, s[self._ring(r) + 1] + s[p + 5])
        if s[self.G + s[slot] - 1] == s[slot + 1]:
            s[p] = self.G_SWAP
        else:
            self._g_next(s, p)
        return None

    def _taken(self, s: bytearray, i: int, p: int, slot: int) -> None:
        """The ghosts' view of the step at which the packet leaves the ring."""
        b, serial = s[slot] - 1, s[slot + 2]
        ring = self._ring(s[p + 10])
        if s[self.X + b] != serial:
            raise Violation(f"packet {s[self.X + b]} is taken through the slot of packet {serial}")
        if s[ring + 6] >> serial & 1:
            raise Violation(f"packet {serial} is delivered twice")
        s[ring + 6] |= 1 << serial
        s[p + 6 + (1 if s[p + 6] else 0)] = b + 1
        self._g_next(s, p)

    def at_g_swap(self, s: bytearray, i: int, p: int) -> bool | None:
        r = s[p + 10]
        h = self.H + s[self._slot(r, s[self._ring(r) + 1] + s[p + 5])] - 1
        if self.bug == "get_clear_first":
            s[p] = self.G_CLEAR
        else:
            s[p] = self.G_HAND if s[h] == self._bit(r) else self.G_ADD
        return None

    def at_g_hand(self, s: bytearray, i: int, p: int) -> bool | None:
        r = s[p + 10]
        slot = self._slot(r, s[self._ring(r) + 1] + s[p + 5])
        s[self.H + s[slot] - 1] = 1 << i  # a plain store: the ring has the block alone, and I have the ring
        self._taken(s, i, p, slot)
        return None

    def at_g_add(self, s: bytearray, i: int, p: int) -> bool | None:
        r = s[p + 10]
        slot = self._slot(r, s[self._ring(r) + 1] + s[p + 5])
        s[self.H + s[slot] - 1] |= 1 << i
        if self.bug == "get_clear_first":
            self._taken(s, i, p, slot)
        else:
            s[p] = self.G_CLEAR
        return None

    def at_g_clear(self, s: bytearray, i: int, p: int) -> bool | None:
        r = s[p + 10]
        slot = self._slot(r, s[self._ring(r) + 1] + s[p + 5])
        s[self.H + s[slot] - 1] &= ~self._bit(r)
        if self.bug == "get_clear_first":
            s[p] = self.G_ADD
        else:
            self._taken(s, i, p, slot)
        return None

    def at_g_advance(self, s: bytearray, i: int, p: int) -> bool | None:
        ring = self._ring(s[p + 10])
        s[ring + 1] += s[p + 12]
        s[p + 5] = s[p + 12] = 0
        s[p] = self.G_UNLOCK
        return None

    def at_g_unlock(self, s: bytearray, i: int, p: int) -> bool | None:
        ring = self._ring(s[p + 10])
        if not (self.c.exclusive and self.first_c <= i < self.first_r):
            s[ring + 4] = 0
        s[p + 10] = 0
        s[p] = self.U_USE if s[p + 6] else self.G_LOCK
        return None

    def at_u_use(self, s: bytearray, i: int, p: int) -> bool | None:
        for k in (s[p + 6], s[p + 7]):
            if k and (not s[self.H + k - 1] >> i & 1 or s[self.FREE] >> (k - 1) & 1):
                raise Violation(f"{self.names[i]} uses block {k - 1} that it does not hold")
        s[p] = self.U_FREE
        return None

    def at_u_free(self, s: bytearray, i: int, p: int) -> bool | None:
        k, s[p + 6], s[p + 7] = s[p + 6], s[p + 7], 0
        s[self.H + k - 1] &= ~(1 << i)
        more = self.U_FREE if s[p + 6] else self.G_LOCK
        if s[self.H + k - 1] == 0:
            self._settle(s, p, k - 1, more)
        else:
            s[p] = more
        return None

    # ---- repair of a consumer's side -----------------------------------------------------------------

    def _skip_first(self, after: int) -> tuple[int, int]:
        """First step of the repair, and where it returns to."""
        if self.bug == "no_skip":
            return after, 0
        return (self.SKIP_GEN if self.bug == "gen_before_bits" else self.SKIP_BITS), after

    def _skip_slot(self, s: bytearray, p: int) -> int:
        ring = self._ring(s[p + 10])
        return self._slot(s[p + 10], s[ring + 1]) if s[ring] != s[ring + 1] else 0

    def at_skip_bits(self, s: bytearray, i: int, p: int) -> bool | None:
        slot = self._skip_slot(s, p)
        last = self.bug in ("gen_before_bits", "no_generation")
        if not slot:
            s[p] = self.FIX_DONE
        elif not s[self.H + s[slot] - 1] & self._bit(s[p + 10]):
            s[p] = self.SKIP_ADVANCE
        else:
            s[p] = self.SKIP_UNMARK if last else self.SKIP_GEN
        return None

    def at_skip_gen(self, s: bytearray, i: int, p: int) -> bool | None:
        slot = self._skip_slot(s, p)
        if not slot:
            s[p] = self.FIX_DONE
        elif s[self.G + s[slot] - 1] != s[slot + 1]:
            s[p] = self.SKIP_ADVANCE
        else:
            s[p] = self.SKIP_BITS if self.bug == "gen_before_bits" else self.SKIP_UNMARK
        return None

    def at_skip_advance(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self._ring(s[p + 10]) + 1] += 1
        s[p] = self.SKIP_GEN if self.bug == "gen_before_bits" else self.SKIP_BITS
        return None

    def at_skip_unmark(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self._skip_slot(s, p) + 3] = 0
        s[p] = self.FIX_DONE
        return None

    # ---- recoverer -----------------------------------------------------------------------------------

    def at_r_idle(self, s: bytearray, i: int, p: int) -> bool | None:
        dead = self._unreaped(s)
        if not dead or (i > self.first_r and s[self.ALIVE] >> self.first_r & 1):
            return False
        s[p + 8], s[p] = dead, self.R_SHARD
        return None

    def at_r_shard(self, s: bytearray, i: int, p: int) -> bool | None:
        s[p] = self.R_PROD
        if s[self.LS] and self.is_dead(s, s[self.LS] - 1):
            s[self.LS] = i + 1
            s[p], s[p + 3] = self.REBUILD, self.R_SHARD2
        return None

    def at_r_shard2(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.LS] = 0
        s[p] = self.R_PROD
        return None

    def at_r_prod(self, s: bytearray, i: int, p: int) -> bool | None:
        lock = self._ring(s[p + 10]) + 3
        s[p] = self.R_CONS
        if s[lock] and self.is_dead(s, s[lock] - 1):
            s[lock] = i + 1
            s[p], s[p + 2] = self.FIX_SLOT, self.R_PROD2
        return None

    def at_r_prod2(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self._ring(s[p + 10]) + 3] = 0
        s[p] = self.R_CONS
        return None

    def _r_next_ring(self, s: bytearray, p: int) -> None:
        s[p + 10] += 1
        s[p] = self.R_PROD
        if s[p + 10] == self.c.rings:
            s[p], s[p + 10] = self.R_CLEAR, 0

    def at_r_cons(self, s: bytearray, i: int, p: int) -> bool | None:
        lock = self._ring(s[p + 10]) + 4
        if s[lock] and self.is_dead(s, s[lock] - 1):
            s[lock] = i + 1
            s[p], s[p + 2] = self._skip_first(self.R_CONS2)
        else:
            self._r_next_ring(s, p)
        return None

    def at_r_cons2(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self._ring(s[p + 10]) + 4] = 0
        self._r_next_ring(s, p)
        return None

    def at_r_clear(self, s: bytearray, i: int, p: int) -> bool | None:
        if s[p + 5] == self.c.blocks:
            s[self.REAPED] |= s[p + 8]
            s[p + 5] = s[p + 8] = 0
            stand_in = not s[self.ALIVE] >> self.first_c & ((1 << self.c.consumers) - 1)
            s[p] = self.G_LOCK if stand_in else self.R_IDLE
            return None
        b = s[p + 5]
        s[self.H + b] &= (
            ~(~s[self.ALIVE] & ((1 << self.processes) - 1) if self.bug == "reap_live" else s[p + 8]) & 0xFF
        )
        if s[self.H + b] == 0:
            s[p] = self.R_LOOK
        else:
            s[p + 5] += 1
        return None

    def at_r_look(self, s: bytearray, i: int, p: int) -> bool | None:
        b = s[p + 5]
        s[p + 5] += 1
        if s[self.L + b]:
            s[p] = self.R_CLEAR
        else:
            self._settle(s, p, b, self.R_CLEAR)
        return None

    # ---- checks ----------------------------------------------------------------------------------------

    def may_be_killed(self, state: bytes, process: int) -> bool:
        pc = state[self.PROCS + process * self.registers]
        if pc == self.K_FORK:
            return False
        if process >= self.first_r:
            recoverers = state[self.ALIVE] >> self.first_r
            return pc != self.R_IDLE and recoverers.bit_count() > 1
        if pc == self.P_ALLOC and not self.c.exclusive:
            return state[self.PROCS + process * self.registers + 9] != self.c.rounds
        return True

    def check(self, s: bytes) -> None:
        if not s[self.LS]:
            for b in range(self.c.blocks):
                if s[self.FREE] >> b & 1 and s[self.H + b]:
                    raise Violation(f"block {b} is on the free list and held by {s[self.H + b]:#b}")

    def check_final(self, s: bytes) -> None:
        """No step leads on: what must hold then."""
        for i in range(self.processes):
            if not s[self.ALIVE] >> i & 1:
                continue
            p = self.PROCS + i * self.registers
            done = s[p] in (self.G_LOCK, self.R_IDLE, self.K_FORK) or (
                s[p] == self.P_ALLOC and s[p + 9] == self.c.rounds
            )
            if not done:
                raise Violation(f"{self.names[i]} hangs at {self.labels[s[p]]}")
        if self._unreaped(s):
            raise Violation("somebody dead was not reaped")
        if self._child_has_file(s) and not s[self.ALIVE] >> self.parent & 1:
            raise Violation("the parent is dead and its liveness lock is held")
        if s[self.LS]:
            raise Violation("the shard's lock is left behind")
        for r in range(self.c.rings):
            ring = self._ring(r)
            if s[ring] != s[ring + 1]:
                raise Violation(f"ring {r} is not drained")
            if s[ring + 2]:
                raise Violation(f"ring {r}: the note is left behind")
            if s[ring + 5] != s[ring + 6]:
                raise Violation(f"ring {r}: packets put {s[ring + 5]:#b}, taken {s[ring + 6]:#b}")
            for side in (3, 4):
                if s[ring + side] and not (self.c.exclusive and s[self.ALIVE] >> (s[ring + side] - 1) & 1):
                    raise Violation(f"ring {r}: a lock is left behind")
        for b in range(self.c.blocks):
            if s[self.H + b]:
                raise Violation(f"block {b} is held by {s[self.H + b]:#b} for ever")
            if not s[self.FREE] >> b & 1 or not s[self.L + b]:
                raise Violation(f"block {b} is lost")

    def show(self, s: bytes) -> str:
        nb = self.c.blocks
        parts = [
            "H " + " ".join(f"{h:b}" for h in s[self.H : self.H + nb]),
            "gen " + " ".join(map(str, s[self.G : self.G + nb])),
            f"listed {list(s[self.L : self.L + nb])} free {s[self.FREE]:b} shard-lock {s[self.LS]}",
        ]
        for r in range(self.c.rings):
            ring = self._ring(r)
            slots = [tuple(s[self._slot(r, k) : self._slot(r, k) + 3]) for k in range(self.c.capacity)]
            head, tail, note, lp, lc = s[ring : ring + 5]
            parts.append(f"ring{r} tail {tail} head {head} note {note} locks {lp},{lc} {slots}")
        return " | ".join([*parts, self.counters(s)])


def explore(limit: int = 0, **config: int | bool | str) -> Result:
    """Explore ``Config(**config)``."""
    return Model(Config(**config)).explore(limit)  # type: ignore[arg-type]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = "seeded: " + ", ".join(BUGS) + "; harmless: " + ", ".join(HARMLESS)
    for field in fields(Config):
        flag = "--" + field.name
        if field.name == "exclusive":
            parser.add_argument(flag, action="store_true")
        elif field.name == "fork":
            parser.add_argument(flag, default="", choices=["", "producer", "consumer"])
        elif field.name == "bug":
            parser.add_argument(flag, default="", choices=["", *BUGS, *HARMLESS], metavar="NAME", help=names)
        else:
            parser.add_argument(flag, type=int, default=field.default)
    parser.add_argument("--limit", type=int, default=0, help="give up beyond that many states")
    options = vars(parser.parse_args(argv))
    limit = options.pop("limit")
    result = explore(limit, **options)
    for line in result.trace:
        print(line)
    print(options)
    verdict = f"VIOLATION: {result.violation}" if result.violation else "no violation"
    print(f"{result.states} states, {result.finals} final, {result.seconds:.1f} s: {verdict}")
    return 1 if result.violation else 0


if __name__ == "__main__":
    sys.exit(main())
