# SPDX-License-Identifier: Apache-2.0
"""Explicit-state check of redelivery: what a dead consumer had taken comes back, once, and nothing else does.

usage: python tests/model/redelivery_model.py [--forward] [--workers 2] [--kills 2] [--bug owner_of_the_lock] ...

What is modelled
    Ring 0 redelivers: beside it stands a table with an entry per block, generation and owner (a process, a
    process that took the packet when it had been RETURNED, or RETURNED; LEAVING while that process hands it on)
    and the position. Ring 1 is where workers forward to, or where the producer fans out to; its table is used
    when it redelivers, too. A worker may have a second reference to what it took: a view, which outlives what it
    does with the packet, or the packet itself, once more, through ring 1.

    A worker may also make a new packet of what it took, and put that one with done=old: the entry of the old one
    ends with the put, in whatever ring it is, and what the worker has of it is freed afterwards.

    get     under the consumer's right. When the flag `returned` is set: it is cleared; the tail passes over what
            is void; the returned packet with the smallest position is taken: entry RETURNED -> me, my bit, the
            ring's bit goes; the flag is set again when others are left. Else slot by slot: valid with the ring's
            bit, the generation, and an entry that is not RETURNED; then the position, entry -> me, my bit, the
            ring's bit goes. The tail is advanced once.
    put     of packets that a redelivering ring gave to me, and that I do not keep, and of old ones: the entry of that
            ring -> LEAVING. Slots; of such a put, who puts; note; per block the ring's bit, and of the other packets my
            bit goes. Publish. Of the former: the entry is made void, my bit goes, an empty set is settled. Of the old:
            the entry is made void. Who puts, and the note, go.
    free    the entry of the ring that the packet came from is made void, my bit goes, an empty set is settled.
            Here and in a put, my bit stays while I have a second reference.
    return  with the registry locked: the entry -> RETURNED, the ring's bit is set, then the flag; my bit goes.
    repair  of a producer's side: not published: the ring's bits go, empty sets are settled. Published: all LEAVING
            entries of the one who put, in all tables, are made void. Then the note goes; then who puts.
    reap    repair what the dead own. Who stands beside a note is left for the next time (a living thief is at that
            repair). Then every entry: of somebody dead who has the bit, the ring has not: -> RETURNED, ring's bit;
            RETURNED without the ring's bit: likewise; of somebody dead who took it RETURNED and the ring has the
            bit: -> RETURNED; of the dead otherwise: void. Any RETURNED: the flag is set. Then bits and settling.

What is checked
    No packet is handed out that was freed, forwarded, or is in somebody living's hands; one that was handed out
    before only as a returned one; a slot gives the packet that was put into it, never a later one.
    In the end: everybody alive waits at empty rings; every packet that was put was freed or forwarded (one that
    ends in ring 1 was handed out there); every block is free; no lock, note, bit or RETURNED entry is left. An old
    packet is done with when the new one is published: before, it comes back; from then on, it does not.

What is not: the shards (holder_model.py and shard_model.py have them: allocating and settling are one step each);
weak memory order; threads of one process.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":  # run as a script: the repository's root is where `tests` is found
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.model.explorer import Explorer, Result, Violation

if TYPE_CHECKING:
    from collections.abc import Sequence

BUGS = {
    "take_forgets": "an entry does not say that its packet was taken when it had been returned",
    "own_before_publish": "a forwarder's bit goes before the index is published",
    "void_first": "a forwarder's entry is made void before the index is published",
    "no_completion": "the repair of a put that was published makes no entry void",
    "owner_of_the_lock": "that repair takes the lock's former owner for the one who put",
    "note_not_seen": "the reaper does not leave who stands in a note for later",
    "no_settle": "a forwarder does not settle the block that the receiver freed before",
    "no_skip": "a get takes a returned packet before the tail has passed over void slots",
    "slot_of_returned": "a get does not look whether a slot's packet was returned",
    "free_without_void": "free leaves the entry",
    "clear_first": "the reaper clears the dead one's bit before it sets the ring's",
    "half_returned": "the reaper does not complete what a dead reaper began",
    "entry_once": "it does not look at the entry again after it saw no ring's bit",
    "own_only": "the reaper sets the flag for what it returned itself, not for what a dead reaper or consumer left",
    "flag_last": "a get clears the flag after it has looked, not before",
    "no_compare": "the reaper stores RETURNED without a look whether the entry is as it was",
    "complete_all": "the repair of a published put makes void what did not leave: kept, or by another ring",
    "who_first": "the repair of a put that was not published takes back who puts before the note",
    "slots_only": "the repair of a published put looks only at the packets in the slots",
    "done_early": "a put ends the entry of an old packet before the index is published",
    "done_late": "a put ends it with what it has of the old packet, when the note is gone",
    "return_unlocked": "a process that returns what it has lets a reaper look at it in between",
    "view_delays": "an entry is left as it is while there is a second reference",
    "all_end": "free makes the entries of all rings void, also of one that gave the packet to this process as well",
}
# Another way that is sound, too.
HARMLESS = {
    "return_all": "entries do not say WAS_RETURNED: the reaper returns also what is queued and names somebody dead",
}

LEAVING = 0x20
RETURNED = 0x40
WAS_RETURNED = 0x80
R, Q = 0, 1  # the rings
MADE = 4  # packets from here on are made of others


@dataclass(frozen=True)
class Config:
    """One exploration: how many of what, and which seeded bug."""

    rounds: int = 1  # puts of the producer
    kills: int = 1
    batch: int = 1  # packets per put and, at most, per get: 1 or 2
    blocks: int = 1
    capacity: int = 2  # slots of a ring
    workers: int = 1  # they read ring 0
    sinks: int = 0  # they read ring 1
    recoverers: int = 2
    forward: bool = False  # workers put into ring 1 what they took
    keep: bool = False  # they keep it as they do, and free it then
    requeue: bool = False  # workers put what they take for the first time into ring 0 again
    make: bool = False  # workers put a new packet, with done=old; of two, the first, with done=the second
    fanout: bool = False  # the producer puts into both rings
    both: bool = False  # ring 1 redelivers, too
    back: bool = False  # workers return what they have, once for each packet
    view: bool = False  # workers have a view of what they take, which outlives it
    also: bool = False  # with fanout: workers read ring 1 as well, with a packet of ring 0 in hand; and end that first,
    last: bool = False  # or last
    producer_dies: bool = False  # or is left alone, for fewer states
    bug: str = ""


# Registers of a process.
REGISTERS = (
    "PC",
    "RET",  # where settling leads
    "RET2",  # where a repair leads
    "RING",
    "N",  # cursor of a batch
    "K0",  # the batch: blocks + 1
    "K1",
    "FROM",  # the ring it was taken from, + 1; 0: allocated
    "SEEN",  # an entry, as last looked at
    "AVAIL",
    "DEAD",  # mask of those who are being reaped
    "B",  # block that a repair or the reaper looks at
    "T",  # table, or ring, that they look at
    "COUNT",  # is anything returned?
    "ROUND",
    "WHO",  # the former owner of a lock taken over
    "EXTRA",  # mask of blocks that it has by a second reference, or the old one of a put,
    "OWED",  # and the ring + 1 that this one is a delivery of; 0: a view
)
PC, RET, RET2, RING, N, K0, K1, FROM, SEEN, AVAIL, DEAD, B, T, COUNT, ROUND, WHO, EXTRA, OWED = range(
    len(REGISTERS)
)

# A ring's bytes, before its slots: block + 1, generation, ghost: stamp.
HEAD, TAIL, NOTE, PRODUCER, CONSUMER, NOTED_WHO, NOTED_COUNT, RETURNS, RING_BYTES = range(9)


class Model(Explorer):
    """The transition system. A state is a `bytes`; attributes in capitals are offsets into it."""

    def __init__(self, config: Config) -> None:
        if config.bug and config.bug not in BUGS | HARMLESS:
            raise ValueError(f"unknown bug {config.bug!r}; known: {', '.join(BUGS | HARMLESS)}")
        if not config.batch <= min(2, config.blocks, config.capacity):
            raise ValueError("batch is 1 or 2, and not more than blocks or capacity")
        if config.fanout and config.forward:
            raise ValueError("ring 1 is for fan-out or for forwarding")
        if config.also and (not config.fanout or config.batch > 1 or config.view or config.sinks):
            raise ValueError("also is for fan-out, one by one, without views or sinks")
        if config.make and not (config.forward or config.requeue):
            raise ValueError("make is for forwarding or requeueing")
        if config.make and (config.keep or config.view):
            raise ValueError("make is without keeping or views")
        if config.make and config.blocks < 2 * config.rounds * config.batch:
            raise ValueError("make takes two blocks for each packet")
        if config.rounds * config.batch > MADE:
            raise ValueError(f"at most {MADE} packets: rounds * batch")
        super().__init__()
        self.c = config
        self.bug = config.bug
        self.kills = config.kills
        nb = config.blocks
        self.rings = 2 if config.forward or config.fanout else 1
        self.first_s = 1 + config.workers
        self.first_r = self.first_s + config.sinks
        self.processes = self.first_r + config.recoverers
        if self.processes + self.rings > 8:
            raise ValueError("processes and rings together are at most 8")
        self.everybody = (1 << self.processes) - 1
        self.names = ["P", *(f"W{i}" for i in range(config.workers)), *(f"S{i}" for i in range(config.sinks))]
        self.names += [f"R{i}" for i in range(config.recoverers)]
        self.tables = 2 if config.both else 1
        o = 0
        self.REGISTRY, o = o, o + 1  # who has it, + 1
        self.BACKED, o = o, o + 1  # ghost: packets that somebody returned
        self.H, o = o, o + nb  # holder set
        self.G, o = o, o + nb  # generation
        self.L, o = o, o + nb  # listed
        self.X, o = o, o + nb  # ghost: the packet in the block
        self.STAMP, o = o, o + nb  # ghost: counts the puts into ring 0 of that packet
        self.HAND, o = o, o + nb  # ghost: who has it from ring 0, + 1
        self.ENTRY, o = o, o + 3 * nb * self.tables  # owner, generation, position
        self.ALIVE, o = o, o + 1
        self.KILLS, o = o, o + 1
        self.REAPED, o = o, o + 1
        self.PUT, o = o, o + 2  # ghosts, a mask of packets per ring: published,
        self.GIVEN, o = o, o + 2  # handed out,
        self.DONE, o = o, o + 2  # freed or forwarded by who had it from there
        self.ring_size = RING_BYTES + 3 * config.capacity
        self.RINGS, o = o, o + self.rings * self.ring_size
        self.registers = len(REGISTERS)
        self.PROCS, o = o, o + self.processes * self.registers
        self.size = o

    def _ring(self, r: int) -> int:
        return self.RINGS + r * self.ring_size

    def _slot(self, r: int, position: int) -> int:
        return self._ring(r) + RING_BYTES + 3 * (position % self.c.capacity)

    def _bit(self, r: int) -> int:
        return 1 << (self.processes + r)

    def _entry(self, r: int, b: int) -> int:
        return self.ENTRY + 3 * (r * self.c.blocks + b)

    def _owner(self, s: bytearray | bytes, r: int, b: int) -> int:
        """Of an entry that counts: it has the block's generation."""
        e = self._entry(r, b)
        return s[e] if s[e + 1] == s[self.G + b] else 0

    def _names(self, s: bytearray, r: int, b: int, process: int) -> bool:
        return self._who(self._owner(s, r, b)) == process

    @staticmethod
    def _who(owner: int) -> int:
        return (owner & ~(WAS_RETURNED | LEAVING)) - 1

    def initial(self) -> bytes:
        s = bytearray(self.size)
        for b in range(self.c.blocks):
            s[self.L + b] = 1
        s[self.ALIVE] = self.everybody
        for i in range(self.processes):
            p = self.PROCS + i * self.registers
            s[p] = self.P_ALLOC if i == 0 else self.G_LOCK if i < self.first_r else self.R_IDLE
        return bytes(s)

    # ---- common pieces ---------------------------------------------------------------------------------

    def _unreaped(self, s: bytes | bytearray) -> int:
        return ~s[self.ALIVE] & ~s[self.REAPED] & self.everybody

    def _drop(self, s: bytearray, p: int, b: int, bits: int, then: int) -> None:
        """Clears bits; whoever finds the set empty then settles the block."""
        s[self.H + b] &= ~bits & 0xFF
        s[p] = then
        if s[self.H + b] == 0:
            s[p], s[p + RET], s[p + B] = self.SETTLE, then, b

    def at_settle(self, s: bytearray, i: int, p: int) -> bool | None:
        b = s[p + B]
        if s[self.H + b] == 0:
            s[self.L + b] = 1
        s[p], s[p + RET], s[p + B] = s[p + RET], 0, 0
        return None

    def _entry_ends(self, s: bytearray, i: int, p: int, b: int, ring: int = FROM) -> int:
        """The entry that a free or put makes void, by its offset; -1: none, or not any more."""
        r = s[p + ring] - 1
        if self.bug == "view_delays" and s[p + EXTRA] >> b & 1:
            return -1
        return self._entry(r, b) if 0 <= r < self.tables and self._names(s, r, b, i) else -1

    def _own_bit(self, s: bytearray, i: int, p: int, b: int) -> int:
        """What a free or put takes off: nothing, while there is another reference."""
        return 0 if s[p + EXTRA] >> b & 1 else 1 << i

    # ---- producer ---------------------------------------------------------------------------------------

    def at_p_alloc(self, s: bytearray, i: int, p: int) -> bool | None:
        if s[p + ROUND] == self.c.rounds:
            return False
        free = [b for b in range(self.c.blocks) if s[self.L + b]]
        if len(free) < self.c.batch:
            return False  # asleep
        for n, b in enumerate(free[: self.c.batch]):
            self._allocate(s, i, b, s[p + ROUND] * self.c.batch + n, 0)
            s[p + K0 + n] = b + 1
        s[p] = self.Q_LOCK
        return None

    def _allocate(self, s: bytearray, i: int, b: int, packet: int, stamp: int) -> None:
        if s[self.H + b]:
            raise Violation(f"block {b} is listed and held by {s[self.H + b]:#b}")
        s[self.L + b], s[self.H + b] = 0, 1 << i
        s[self.G + b] += 1
        s[self.X + b], s[self.STAMP + b] = packet, stamp

    # ---- put ----------------------------------------------------------------------------------------------

    def _keeps(self, s: bytearray, i: int, p: int) -> bool:
        return self.c.fanout and s[p + RING] == R if i == 0 else self.c.keep

    def _blocks(self, s: bytearray, p: int) -> list[int]:
        return [k - 1 for k in s[p + K0 : p + K1 + 1] if k]

    def _old(self, s: bytearray, p: int) -> int:
        """The block of the packet that is done with when this put is published, + 1; 0: none."""
        return s[p + EXTRA].bit_length() if self.c.make else 0

    def _ending(self, s: bytearray, i: int, p: int) -> list[tuple[int, int]]:
        """The deliveries that end with this put: block, and the register with the ring that it was taken from."""
        put = [(b, FROM) for b in self._blocks(s, p) if s[p + FROM] and not self._keeps(s, i, p)]
        return put + [(b - 1, OWED) for b in (self._old(s, p),) if b]

    def at_q_lock(self, s: bytearray, i: int, p: int) -> bool | None:
        ring = self._ring(s[p + RING])
        if (
            not s[ring + PRODUCER]
            and s[ring + HEAD] - s[ring + TAIL] + len(self._blocks(s, p)) > self.c.capacity
        ):
            return False
        s[p + WHO] = s[ring + PRODUCER]
        got = self.take(s, i, ring + PRODUCER)
        if not got:
            return False
        s[p], s[p + RET2] = (self.Q_CHECK, 0) if got == 1 else (self.FIX, self.Q_CHECK)
        return None

    def at_q_check(self, s: bytearray, i: int, p: int) -> bool | None:
        r = s[p + RING]
        ring = self._ring(r)
        s[p + WHO] = 0
        if s[ring + HEAD] - s[ring + TAIL] + len(self._blocks(s, p)) > self.c.capacity:
            s[ring + PRODUCER] = 0
            s[p] = self.Q_LOCK
            return None
        for b in self._blocks(s, p):
            if not s[self.H + b] & self._bit(r):
                continue
            if not self.c.keep or i == 0:
                raise Violation("a packet that is not queued carries the ring's bit")
            s[ring + PRODUCER] = 0  # forwarded before by somebody who kept it and died: put says so
            s[p] = self.F_VOID
            return None
        s[p] = self.Q_MARK if self._ending(s, i, p) else self.Q_SLOTS
        return None

    def at_q_mark(self, s: bytearray, i: int, p: int) -> bool | None:
        ending = self._ending(s, i, p)
        e = self._entry_ends(s, i, p, *ending[s[p + N]])
        if e >= 0:
            s[e] |= LEAVING
        s[p + N] += 1
        if s[p + N] == len(ending):
            s[p + N], s[p] = 0, self.Q_SLOTS
        return None

    def at_q_slots(self, s: bytearray, i: int, p: int) -> bool | None:
        """Nobody looks at them before the note is there: one step with who puts. How many is for `slots_only`."""
        r = s[p + RING]
        ring = self._ring(r)
        blocks = self._blocks(s, p)
        for n, b in enumerate(blocks):
            slot = self._slot(r, s[ring + HEAD] + n)
            s[slot], s[slot + 1], s[slot + 2] = b + 1, s[self.G + b], s[self.STAMP + b] + 1 if r == R else 0
        if s[p + FROM] or self._old(s, p):
            s[ring + NOTED_WHO], s[ring + NOTED_COUNT] = i + 1, len(blocks)
        s[p] = self.Q_NOTE
        return None

    def at_q_note(self, s: bytearray, i: int, p: int) -> bool | None:
        ring = self._ring(s[p + RING])
        s[ring + NOTE] = s[ring + HEAD] + len(self._blocks(s, p))
        s[p] = self.Q_BITS
        return None

    def at_q_bits(self, s: bytearray, i: int, p: int) -> bool | None:
        r, b = s[p + RING], s[p + K0 + s[p + N]] - 1
        s[self.H + b] |= self._bit(r)
        late = s[p + FROM] and self.bug != "own_before_publish"
        if late or self._keeps(s, i, p):
            self._q_next_bits(s, p)
        else:
            s[p] = self.Q_DROP
        return None

    def at_q_drop(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.H + s[p + K0 + s[p + N]] - 1] &= ~(1 << i)
        self._q_next_bits(s, p)
        return None

    def _q_next_bits(self, s: bytearray, p: int) -> None:
        s[p + N] += 1
        s[p] = self.Q_BITS
        if s[p + N] == len(self._blocks(s, p)):
            s[p + N] = 0
            early = self.Q_OLD if self.bug == "done_early" and self._old(s, p) else self.Q_PUBLISH
            s[p] = self.Q_VOID if self.bug == "void_first" and s[p + FROM] else early

    def _q_last(self, s: bytearray, p: int) -> int:
        """Where a put goes when what it put is out of its hands."""
        now = self._old(s, p) and self.bug not in ("done_early", "done_late")
        return self.Q_OLD if now else self.Q_UNNOTE

    def at_q_publish(self, s: bytearray, i: int, p: int) -> bool | None:
        r = s[p + RING]
        blocks = self._blocks(s, p)
        s[self._ring(r) + HEAD] += len(blocks)
        ending = self._ending(s, i, p)
        for b, ring in ending:
            s[self.DONE + s[p + ring] - 1] |= 1 << s[self.X + b]  # it is a ring's now, or done with
            s[self.HAND + b] = 0
        for b in blocks:
            serial = 1 << s[self.X + b]
            s[self.PUT + r] |= serial
            if r == R:
                s[self.STAMP + b] += 1
                s[self.GIVEN + r] &= ~serial
                s[self.DONE + r] &= ~serial
        after = s[p + FROM] and ending
        s[p] = self._q_last(s, p) if not after else self.Q_OUT if self.bug == "void_first" else self.Q_VOID
        return None

    def at_q_void(self, s: bytearray, i: int, p: int) -> bool | None:
        b = s[p + K0 + s[p + N]] - 1
        e = self._entry_ends(s, i, p, b)
        if e >= 0:
            s[e] = 0
        elif self.bug == "void_first":
            s[p + N] += 1
            if s[p + N] == len(self._blocks(s, p)):
                s[p + N], s[p] = 0, self.Q_PUBLISH
        else:
            s[p] = self.Q_OUT
        return None

    def at_q_out(self, s: bytearray, i: int, p: int) -> bool | None:
        """My bit goes; it may be the last, for the receiver may have freed already."""
        b = s[p + K0 + s[p + N]] - 1
        s[p + N] += 1
        more = self.Q_OUT if self.bug == "void_first" else self.Q_VOID
        if s[p + N] == len(self._blocks(s, p)):
            s[p + N], more = 0, self._q_last(s, p)
        self._drop(s, p, b, self._own_bit(s, i, p, b), more)
        if self.bug == "no_settle":
            s[p], s[p + RET], s[p + B] = more, 0, 0
        return None

    def at_q_old(self, s: bytearray, i: int, p: int) -> bool | None:
        e = self._entry_ends(s, i, p, self._old(s, p) - 1, OWED)
        if e >= 0:
            s[e] = 0
        s[p] = self.Q_PUBLISH if self.bug == "done_early" else self.Q_UNNOTE
        return None

    def _unnote(self, s: bytearray, ring: int) -> None:
        """One step where the note is of what is published: it says nothing without who puts, nor that without it."""
        s[ring + NOTED_WHO] = s[ring + NOTED_COUNT] = s[ring + NOTE] = 0

    def at_q_unnote(self, s: bytearray, i: int, p: int) -> bool | None:
        self._unnote(s, self._ring(s[p + RING]))
        s[p] = self.Q_UNLOCK
        return None

    def at_q_unlock(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self._ring(s[p + RING]) + PRODUCER] = 0
        if i == 0:
            if self._keeps(s, i, p):
                s[p + RING], s[p] = Q, self.Q_LOCK
                return None
            s[p + ROUND] += 1
            s[p] = self.P_ALLOC
        else:
            if self._keeps(s, i, p):
                s[p] = self.F_VOID
                return None
            s[p] = self.G_LOCK
        s[p + RING] = s[p + K0] = s[p + K1] = s[p + FROM] = 0
        if self._old(s, p):
            self._take_up(s, p)
            s[p] = self.F_VOID
        return None

    # ---- repair of a producer's side ---------------------------------------------------------------------

    def _left_behind(self, s: bytearray, r: int, who: int) -> int:
        """An entry that ends with the published put of that process, by its offset; -1: no more."""
        ring = self._ring(r)
        blocks: Sequence[int] = range(self.c.blocks)
        if self.bug == "slots_only":
            noted = [self._slot(r, s[ring + HEAD] - n - 1) for n in range(s[ring + NOTED_COUNT])]
            blocks = [s[slot] - 1 for slot in noted if s[self.G + s[slot] - 1] == s[slot + 1]]
        for table in range(self.tables):
            for b in blocks:
                leaves = self._owner(s, table, b) & LEAVING or self.bug == "complete_all"
                if leaves and self._names(s, table, b, who):
                    return self._entry(table, b)
        return -1

    def at_fix(self, s: bytearray, i: int, p: int) -> bool | None:
        """Slot by slot from N on; or entry by entry: none begins to leave meanwhile, for its owner is dead."""
        r = s[p + RING]
        ring = self._ring(r)
        head, note = s[ring + HEAD], s[ring + NOTE]
        if note > head + s[p + N]:
            slot = self._slot(r, head + s[p + N])
            b = s[slot] - 1
            s[p + N] += 1
            if s[self.H + b] & self._bit(r) and s[self.G + b] == s[slot + 1]:
                self._drop(s, p, b, self._bit(r), self.FIX)
            return None
        published = note <= head and s[ring + NOTED_WHO] and self.bug != "no_completion"
        who = (s[p + WHO] if self.bug == "owner_of_the_lock" else s[ring + NOTED_WHO]) - 1
        e = self._left_behind(s, r, who) if note and published else -1
        if e >= 0:
            s[e] = 0
            return None
        s[p] = self.FIX_END
        if not s[ring + NOTED_WHO]:
            return self.at_fix_end(s, i, p)
        s[ring + (NOTED_WHO if self.bug == "who_first" else NOTE)] = 0
        return None

    def at_fix_end(self, s: bytearray, i: int, p: int) -> bool | None:
        self._unnote(s, self._ring(s[p + RING]))
        s[p + N] = s[p + WHO] = 0
        s[p], s[p + RET2] = s[p + RET2], 0
        return None

    # ---- get ----------------------------------------------------------------------------------------------

    def _readers(self, r: int) -> int:
        workers = ((1 << self.c.workers) - 1) << 1
        if r == R or self.c.also:
            return workers
        return ((1 << self.c.sinks) - 1) << self.first_s

    def _may_read(self, s: bytearray, i: int, r: int) -> bool:
        """A recoverer stands in for the readers of a ring when none of them is left."""
        if i < self.first_r:
            return bool(self._readers(r) >> i & 1)
        return not s[self.ALIVE] & self._readers(r) and not self._unreaped(s)

    def at_g_lock(self, s: bytearray, i: int, p: int) -> bool | None:
        if i >= self.first_r and self._unreaped(s):
            s[p] = self.R_IDLE
            return None
        if s[p + OWED] == Q + 1:
            self._bring_back(s, p)
            return None
        for r in range(Q if s[p + OWED] else R, self.rings):
            ring = self._ring(r)
            something = s[ring + HEAD] != s[ring + TAIL] or s[ring + RETURNS]
            if (
                self._may_read(s, i, r)
                and (s[ring + CONSUMER] or something)
                and self.take(s, i, ring + CONSUMER)
            ):
                s[p + RING] = r
                s[p] = self.G_FLAG
                return None
        if s[p + OWED]:
            self._bring_back(s, p)
        elif s[p + EXTRA]:
            s[p] = self.X_DROP
        else:
            return False
        return None

    def _take_up(self, s: bytearray, p: int) -> None:
        s[p + K0], s[p + FROM] = s[p + EXTRA].bit_length(), s[p + OWED]
        s[p + EXTRA] = s[p + OWED] = 0

    def _bring_back(self, s: bytearray, p: int) -> None:
        """The packet that it had when it took another one from ring 1."""
        self._take_up(s, p)
        self._use(s, p, s[p + FROM] - 1)

    def at_x_drop(self, s: bytearray, i: int, p: int) -> bool | None:
        """A view goes."""
        b = s[p + EXTRA].bit_length() - 1
        s[p + EXTRA] &= ~(1 << b)
        self._drop(s, p, b, 1 << i, self.X_DROP if s[p + EXTRA] else self.G_LOCK)
        return None

    def at_g_flag(self, s: bytearray, i: int, p: int) -> bool | None:
        """One load, and an exchange when it is set."""
        ring = self._ring(s[p + RING])
        s[p] = self.G_AVAIL
        if s[ring + RETURNS]:
            s[ring + RETURNS] = self.bug == "flag_last"
            s[p] = self.G_SCAN if self.bug == "no_skip" else self.G_SKIP
        return None

    def _slot_is_valid(self, s: bytearray, r: int, position: int) -> bool:
        slot = self._slot(r, position)
        b = s[slot] - 1
        if not s[self.H + b] & self._bit(r) or s[self.G + b] != s[slot + 1]:
            return False
        return r >= self.tables or self._owner(s, r, b) != RETURNED

    def at_g_skip(self, s: bytearray, i: int, p: int) -> bool | None:
        r = s[p + RING]
        ring = self._ring(r)
        if s[ring + HEAD] == s[ring + TAIL] or self._slot_is_valid(s, r, s[ring + TAIL]):
            s[p] = self.G_SCAN
        else:
            s[ring + TAIL] += 1
        return None

    def _returned(self, s: bytearray | bytes, r: int) -> list[int]:
        bit = self._bit(r)
        found = [b for b in range(self.c.blocks) if self._owner(s, r, b) == RETURNED and s[self.H + b] & bit]
        return sorted(found, key=lambda b: s[self._entry(r, b) + 2])

    def at_g_scan(self, s: bytearray, i: int, p: int) -> bool | None:
        """For those that come while it scans the flag is set after it: the scan is one step."""
        r = s[p + RING]
        found = self._returned(s, r)
        if found and not s[p + K0]:  # it comes alone
            s[p + B] = found[0]
            s[p] = self.G_AGAIN
        else:
            s[p + COUNT] = bool(found)
            s[p] = self.G_FLAG_AGAIN
        return None

    def at_g_again(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self._entry(s[p + RING], s[p + B])] = (i + 1) | (
            0 if self.bug in ("take_forgets", "return_all") else WAS_RETURNED
        )
        s[p] = self.G_AGAIN_OWN
        return None

    def at_g_again_own(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.H + s[p + B]] |= 1 << i
        s[p] = self.G_AGAIN_CLEAR
        return None

    def at_g_again_clear(self, s: bytearray, i: int, p: int) -> bool | None:
        r, b = s[p + RING], s[p + B]
        s[self.H + b] &= ~self._bit(r)
        self._given(s, i, p, b, redelivered=True)
        s[p + B] = 0
        s[p] = self.G_SCAN
        return None

    def at_g_flag_again(self, s: bytearray, i: int, p: int) -> bool | None:
        if s[p + COUNT] or self.bug == "flag_last":
            s[self._ring(s[p + RING]) + RETURNS] = s[p + COUNT]
        s[p + COUNT] = 0
        s[p] = self.G_UNLOCK if s[p + K0] else self.G_AVAIL
        return None

    def at_g_avail(self, s: bytearray, i: int, p: int) -> bool | None:
        ring = self._ring(s[p + RING])
        s[p + AVAIL] = min(self.c.batch, s[ring + HEAD] - s[ring + TAIL])
        s[p] = self.G_BITS if s[p + AVAIL] else self.G_UNLOCK
        return None

    def _g_slot(self, s: bytearray, p: int) -> int:
        r = s[p + RING]
        return self._slot(r, s[self._ring(r) + TAIL] + s[p + N])

    def _g_next(self, s: bytearray, p: int) -> None:
        s[p + N] += 1
        s[p + SEEN] = 0
        s[p] = self.G_BITS if s[p + N] < s[p + AVAIL] else self.G_ADVANCE

    def at_g_bits(self, s: bytearray, i: int, p: int) -> bool | None:
        """Bit, then generation; with the bit, the generation stands still: one step."""
        r, slot = s[p + RING], self._g_slot(s, p)
        b = s[slot] - 1
        if not s[self.H + b] & self._bit(r) or s[self.G + b] != s[slot + 1]:
            self._g_next(s, p)
        else:
            s[p] = self.G_ENTRY if r < self.tables else self.G_SWAP
        return None

    def at_g_entry(self, s: bytearray, i: int, p: int) -> bool | None:
        r, b = s[p + RING], s[self._g_slot(s, p)] - 1
        owner = self._owner(s, r, b)
        if owner == RETURNED and self.bug != "slot_of_returned":
            self._g_next(s, p)
            return None
        s[p + SEEN] = owner
        s[p] = self.G_POSITION
        return None

    def at_g_position(self, s: bytearray, i: int, p: int) -> bool | None:
        r, b = s[p + RING], s[self._g_slot(s, p)] - 1
        s[self._entry(r, b) + 2] = s[self._ring(r) + TAIL] + s[p + N]
        s[p] = self.G_NAME
        return None

    def at_g_name(self, s: bytearray, i: int, p: int) -> bool | None:
        r, b = s[p + RING], s[self._g_slot(s, p)] - 1
        e = self._entry(r, b)
        if self._owner(s, r, b) != s[p + SEEN]:
            s[p] = self.G_ENTRY
            return None
        s[e], s[e + 1], s[p + SEEN] = i + 1, s[self.G + b], 0
        s[p] = self.G_SWAP
        return None

    def at_g_swap(self, s: bytearray, i: int, p: int) -> bool | None:
        b = s[self._g_slot(s, p)] - 1
        s[p] = self.G_HAND if s[self.H + b] == self._bit(s[p + RING]) else self.G_OWN
        return None

    def at_g_hand(self, s: bytearray, i: int, p: int) -> bool | None:
        b = s[self._g_slot(s, p)] - 1
        s[self.H + b] = 1 << i  # a plain store
        self._given(s, i, p, b)
        self._g_next(s, p)
        return None

    def at_g_own(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.H + s[self._g_slot(s, p)] - 1] |= 1 << i
        s[p] = self.G_CLEAR
        return None

    def at_g_clear(self, s: bytearray, i: int, p: int) -> bool | None:
        b = s[self._g_slot(s, p)] - 1
        s[self.H + b] &= ~self._bit(s[p + RING])
        self._given(s, i, p, b)
        self._g_next(s, p)
        return None

    def _given(self, s: bytearray, i: int, p: int, b: int, redelivered: bool = False) -> None:
        """The ghosts' view of the step at which the packet leaves the ring."""
        r, serial = s[p + RING], 1 << s[self.X + b]
        what = f"packet {s[self.X + b]} of ring {r}"
        if not s[self.PUT + r] & serial:
            raise Violation(f"{what} is handed out and its put did not get so far")
        again = r == Q and self.c.keep  # who kept it and died: the next one forwards it once more
        if s[self.DONE + r] & serial and not again:
            raise Violation(f"{what} is handed out after it was freed or forwarded")
        if r == R:
            if s[self.HAND + b] and s[self.ALIVE] >> (s[self.HAND + b] - 1) & 1:
                raise Violation(f"{what} is handed out and {self.names[s[self.HAND + b] - 1]} has it")
            s[self.HAND + b] = i + 1
        if not redelivered:
            if s[self.GIVEN + r] & serial and not again:
                raise Violation(f"{what} is handed out twice, and not as a returned one")
            if r == R and s[self._g_slot(s, p) + 2] != s[self.STAMP + b]:
                raise Violation(f"{what} is taken through a slot that it was put into before")
        s[self.GIVEN + r] |= serial
        s[p + K1 if s[p + K0] else p + K0] = b + 1
        s[p + FROM] = r + 1

    def at_g_advance(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self._ring(s[p + RING]) + TAIL] += s[p + AVAIL]
        s[p + N] = s[p + AVAIL] = 0
        s[p] = self.G_UNLOCK
        return None

    def at_g_unlock(self, s: bytearray, i: int, p: int) -> bool | None:
        r = s[p + RING]
        s[self._ring(r) + CONSUMER] = 0
        s[p + RING] = 0
        blocks = self._blocks(s, p)
        for b in blocks:
            if not s[self.H + b] >> i & 1 or s[self.L + b]:
                raise Violation(f"{self.names[i]} uses block {b} that it does not hold")
        if not blocks:
            s[p] = self.G_LOCK
        elif 0 < i < self.first_s and self.c.also:
            self._one_of_two(s, p, blocks[0], r)
        else:
            if 0 < i < self.first_s and self.c.view:
                s[p + EXTRA] |= sum(1 << b for b in blocks)
            self._use(s, p, r)
        return None

    def _one_of_two(self, s: bytearray, p: int, b: int, r: int) -> None:
        """It looks for one more in ring 1, and ends one of the two first."""
        if r == R:
            s[p + EXTRA], s[p + OWED] = 1 << b, R + 1
            s[p + K0] = s[p + FROM] = 0
            s[p] = self.G_LOCK
            return
        if s[p + OWED] and not self.c.last:
            s[p + K0], s[p + EXTRA] = s[p + EXTRA].bit_length(), 1 << b
            s[p + FROM], s[p + OWED] = R + 1, Q + 1
        self._use(s, p, s[p + FROM] - 1)

    def _use(self, s: bytearray, p: int, r: int) -> None:
        """What a process does with what it has."""
        s[p + RING] = 0
        if (
            r == R
            and self.c.back
            and not any(s[self.BACKED] >> s[self.X + b] & 1 for b in self._blocks(s, p))
        ):
            s[p] = self.B_LOCK
        elif r == R and self.c.requeue and all(s[self.STAMP + b] == 1 for b in self._blocks(s, p)):
            self._pass_on(s, p, R)
        elif r == R and self.c.forward:
            self._pass_on(s, p, Q)
        else:
            s[p] = self.F_VOID

    def _pass_on(self, s: bytearray, p: int, r: int) -> None:
        """What it has, or one packet in place of it, goes into that ring."""
        s[p], s[p + RING] = self.Q_LOCK, r
        if self.c.make and s[p + K1]:
            s[p + EXTRA], s[p + OWED], s[p + K1] = 1 << (s[p + K1] - 1), s[p + FROM], 0
        elif self.c.make and s[self.X + s[p + K0] - 1] < MADE:
            s[p] = self.M_ALLOC

    def at_m_alloc(self, s: bytearray, i: int, p: int) -> bool | None:
        old, new = s[p + K0] - 1, s.find(1, self.L, self.L + self.c.blocks) - self.L
        if new < 0:
            return False  # asleep
        self._allocate(s, i, new, MADE + s[self.X + old], s[self.STAMP + old])
        s[p + K0], s[p + EXTRA], s[p + OWED], s[p + FROM] = new + 1, 1 << old, s[p + FROM], 0
        s[p] = self.Q_LOCK
        return None

    # ---- return -------------------------------------------------------------------------------------------

    def at_b_lock(self, s: bytearray, i: int, p: int) -> bool | None:
        if self.bug != "return_unlocked":
            if s[self.REGISTRY] and not self.is_dead(s, s[self.REGISTRY] - 1):
                return False
            s[self.REGISTRY] = i + 1  # the kernel drops it with its owner
        s[p] = self.B_NAME
        return None

    def at_b_name(self, s: bytearray, i: int, p: int) -> bool | None:
        b = s[p + K0] - 1
        s[p] = self.B_UNLOCK
        if self._names(s, R, b, i) and not s[self.H + b] & self._bit(R):
            s[self._entry(R, b)] = RETURNED
            s[self.BACKED] |= 1 << s[self.X + b]
            s[self.HAND + b] = 0
            s[p] = self.B_BIT
        return None

    def at_b_bit(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.H + s[p + K0] - 1] |= self._bit(R)
        s[p] = self.B_FLAG
        return None

    def at_b_flag(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self._ring(R) + RETURNS] = 1
        s[p] = self.B_UNLOCK
        return None

    def at_b_unlock(self, s: bytearray, i: int, p: int) -> bool | None:
        if s[self.REGISTRY] == i + 1:
            s[self.REGISTRY] = 0
        s[p] = self.B_DROP
        return None

    def at_b_drop(self, s: bytearray, i: int, p: int) -> bool | None:
        b = s[p + K0] - 1
        s[p + K0], s[p + K1] = s[p + K1], 0
        if not s[p + K0]:
            s[p + FROM] = 0
        self._drop(s, p, b, self._own_bit(s, i, p, b), self.B_LOCK if s[p + K0] else self.G_LOCK)
        return None

    # ---- free ---------------------------------------------------------------------------------------------

    def at_f_void(self, s: bytearray, i: int, p: int) -> bool | None:
        b = s[p + K0] - 1
        if not s[self.H + b] >> i & 1:
            raise Violation(f"{self.names[i]} frees block {b} that it does not hold")
        e = -1 if self.bug == "free_without_void" else self._entry_ends(s, i, p, b)
        for r in range(self.tables if self.bug == "all_end" else 0):
            if self._names(s, r, b, i):
                s[self._entry(r, b)] = 0
        if e >= 0:
            s[e] = 0
        self._done(s, p, b)
        s[p] = self.F_DROP
        return None

    def _done(self, s: bytearray, p: int, b: int) -> None:
        s[self.DONE + s[p + FROM] - 1] |= 1 << s[self.X + b]
        if s[p + FROM] == R + 1:
            s[self.HAND + b] = 0

    def at_f_drop(self, s: bytearray, i: int, p: int) -> bool | None:
        """Until here it is what a block in the private cache is: free, and with this process's bit."""
        b = s[p + K0] - 1
        s[p + K0], s[p + K1] = s[p + K1], 0
        more = self.F_VOID if s[p + K0] else self.G_LOCK
        if not s[p + K0]:
            s[p + FROM] = s[p + RING] = 0
        self._drop(s, p, b, self._own_bit(s, i, p, b), more)
        return None

    # ---- reaper -------------------------------------------------------------------------------------------

    def at_r_idle(self, s: bytearray, i: int, p: int) -> bool | None:
        dead = self._unreaped(s)
        if not dead:
            if any(self._may_read(s, i, r) for r in range(self.rings)):
                s[p] = self.G_LOCK
                return None
            return False
        if i > self.first_r and s[self.ALIVE] >> self.first_r & 1:
            return False
        if s[self.REGISTRY] and not self.is_dead(s, s[self.REGISTRY] - 1):
            return False
        s[self.REGISTRY] = i + 1
        s[p + DEAD], s[p] = dead, self.R_SCRUB
        return None

    def at_r_scrub(self, s: bytearray, i: int, p: int) -> bool | None:
        """Ring by ring: the producer's side, then the consumer's."""
        r = s[p + RING]
        ring = self._ring(r)
        if r == self.rings:
            s[p + RING] = 0
            s[p] = self.R_PASS if self.bug == "note_not_seen" else self.R_NOTED
        elif s[ring + PRODUCER] and self.is_dead(s, s[ring + PRODUCER] - 1):
            s[p + WHO] = s[ring + PRODUCER]
            s[ring + PRODUCER] = i + 1
            s[p], s[p + RET2] = self.FIX, self.R_SCRUBBED
        else:
            s[p] = self.R_SCRUB_CONSUMER
        return None

    def at_r_scrubbed(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self._ring(s[p + RING]) + PRODUCER] = 0
        s[p] = self.R_SCRUB_CONSUMER
        return None

    def at_r_scrub_consumer(self, s: bytearray, i: int, p: int) -> bool | None:
        lock = self._ring(s[p + RING]) + CONSUMER
        if s[lock] and self.is_dead(s, s[lock] - 1):
            s[lock] = 0
        s[p + RING] += 1
        s[p] = self.R_SCRUB
        return None

    def at_r_noted(self, s: bytearray, i: int, p: int) -> bool | None:
        """Who stands in a note is at the mercy of a living thief: left for the next time."""
        r = s[p + RING]
        if r == self.rings:
            s[p + RING] = 0
            s[p] = self.R_PASS if s[p + DEAD] else self.R_IDLE
            if not s[p + DEAD]:
                s[self.REGISTRY] = 0
            return None
        ring = self._ring(r)
        if s[ring + NOTED_WHO]:
            s[p + DEAD] &= ~(1 << (s[ring + NOTED_WHO] - 1))
        s[p + RING] += 1
        return None

    def _r_next(self, s: bytearray, p: int) -> None:
        s[p + B] += 1
        s[p + SEEN] = 0
        s[p] = self.R_PASS

    def at_r_pass(self, s: bytearray, i: int, p: int) -> bool | None:
        """Table by table, block by block: the entry."""
        if s[p + T] == self.tables:
            s[p + T] = s[p + B] = 0
            s[p] = self.R_CLEAR
            return None
        if s[p + B] == self.c.blocks:
            s[p + B] = 0
            s[p] = self.R_FLAG
            return None
        owner = self._owner(s, s[p + T], s[p + B])
        of_the_dead = owner and owner != RETURNED and s[p + DEAD] >> self._who(owner) & 1
        if of_the_dead or (owner == RETURNED and self.bug != "half_returned"):
            s[p + SEEN] = owner
            s[p] = self.R_LOOK
        else:
            self._r_next(s, p)
        return None

    def at_r_look(self, s: bytearray, i: int, p: int) -> bool | None:
        h, ring_bit, owner = s[self.H + s[p + B]], self._bit(s[p + T]), s[p + SEEN]
        queued = bool(h & ring_bit)
        if owner == RETURNED:
            self._r_whole(s, p, self.bug != "own_only")
        else:
            again = owner & WAS_RETURNED or self.bug == "return_all"
            back = again if queued else h >> self._who(owner) & 1
            s[p] = self.R_NAME if back else self.R_VOID
        return None

    def _r_whole(self, s: bytearray, p: int, count: bool) -> None:
        """Of a RETURNED entry: with the ring's bit there is nothing left to do."""
        s[p] = self.R_MARK if self.bug == "entry_once" else self.R_LOOK_AGAIN
        if s[self.H + s[p + B]] & self._bit(s[p + T]):
            s[p + COUNT] |= count
            self._r_next(s, p)

    def at_r_bit(self, s: bytearray, i: int, p: int) -> bool | None:
        self._r_whole(s, p, count=True)
        return None

    def at_r_void(self, s: bytearray, i: int, p: int) -> bool | None:
        """It is queued in its slot, or about to be freed: no entry names the dead from here on."""
        r, b = s[p + T], s[p + B]
        if self._owner(s, r, b) == s[p + SEEN]:
            s[self._entry(r, b)] = 0
        self._r_next(s, p)
        return None

    def at_r_look_again(self, s: bytearray, i: int, p: int) -> bool | None:
        """It lacked the ring's bit. A consumer may have taken it since; what a reaper left half done, none takes."""
        s[p] = self.R_MARK
        if self._owner(s, s[p + T], s[p + B]) != RETURNED:
            self._r_next(s, p)
        return None

    def at_r_name(self, s: bytearray, i: int, p: int) -> bool | None:
        r, b = s[p + T], s[p + B]
        if self._owner(s, r, b) != s[p + SEEN] and self.bug != "no_compare":
            self._r_next(s, p)
            return None
        s[self._entry(r, b)] = RETURNED
        s[p] = self.R_EARLY if self.bug == "clear_first" else self.R_BIT
        return None

    def at_r_early(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.H + s[p + B]] &= ~s[p + DEAD] & 0xFF
        s[p] = self.R_MARK
        return None

    def at_r_mark(self, s: bytearray, i: int, p: int) -> bool | None:
        s[self.H + s[p + B]] |= self._bit(s[p + T])
        s[p + COUNT] = 1
        self._r_next(s, p)
        return None

    def at_r_flag(self, s: bytearray, i: int, p: int) -> bool | None:
        if s[p + COUNT]:
            s[self._ring(s[p + T]) + RETURNS] = 1
        s[p + COUNT] = 0
        s[p + T] += 1
        s[p] = self.R_PASS
        return None

    def at_r_clear(self, s: bytearray, i: int, p: int) -> bool | None:
        b = s[p + N]
        if b == self.c.blocks:
            s[self.REAPED] |= s[p + DEAD]
            s[p + N] = s[p + DEAD] = s[self.REGISTRY] = 0
            s[p] = self.R_IDLE
            return None
        s[p + N] += 1
        s[self.H + b] &= ~s[p + DEAD] & 0xFF
        if s[self.H + b] == 0 and not s[self.L + b]:
            s[p], s[p + RET], s[p + B] = self.SETTLE, self.R_CLEAR, b
        return None

    # ---- checks -------------------------------------------------------------------------------------------

    def may_be_killed(self, state: bytes, process: int) -> bool:
        p = self.PROCS + process * self.registers
        if process == 0:
            return self.c.producer_dies and state[p + ROUND] != self.c.rounds
        if process >= self.first_r:
            return state[p] != self.R_IDLE and (state[self.ALIVE] >> self.first_r).bit_count() > 1
        return True

    def check(self, s: bytes) -> None:
        for b in range(self.c.blocks):
            if s[self.L + b] and s[self.H + b]:
                raise Violation(f"block {b} is listed and held by {s[self.H + b]:#b}")

    def check_final(self, s: bytes) -> None:
        for i in range(self.processes):
            p = self.PROCS + i * self.registers
            waits = s[p] in (self.G_LOCK, self.R_IDLE) or (i == 0 and s[p + ROUND] == self.c.rounds)
            if s[self.ALIVE] >> i & 1 and not waits:
                raise Violation(f"{self.names[i]} hangs at {self.labels[s[p]]}")
        if self._unreaped(s):
            raise Violation("somebody dead was not reaped")
        for r in range(self.rings):
            ring = self._ring(r)
            if s[ring + HEAD] != s[ring + TAIL]:
                raise Violation(f"ring {r} is not drained")
            if any(s[ring + at] for at in (NOTE, NOTED_WHO, PRODUCER, CONSUMER)):
                raise Violation(f"ring {r}: a note or a lock is left behind")
            finished = s[self.DONE + r] if r < self.tables else s[self.GIVEN + r]
            if s[self.PUT + r] != finished:
                raise Violation(f"ring {r}: packets put {s[self.PUT + r]:#b}, done with {finished:#b}")
        for b in range(self.c.blocks):
            if s[self.H + b]:
                raise Violation(f"block {b} is held by {s[self.H + b]:#b} for ever")
            if not s[self.L + b]:
                raise Violation(f"block {b} is lost")

    def show(self, s: bytes) -> str:
        parts = []
        for b in range(self.c.blocks):
            entries = " ".join(
                f"{s[e]:#x}@{s[e + 1]}" for e in (self._entry(r, b) for r in range(self.tables))
            )
            parts.append(f"block {b}: held {s[self.H + b]:b} gen {s[self.G + b]} entry {entries}")
        for r in range(self.rings):
            ring = self._ring(r)
            head, tail, note, lp, lc, who, count, returns = s[ring : ring + RING_BYTES]
            parts.append(
                f"ring {r}: {tail}..{head} note {note} by {who}x{count} locks {lp},{lc} returns {returns}"
            )
        return " | ".join([*parts, self.counters(s)])


def explore(limit: int = 0, **config: int | bool | str) -> Result:
    """Explore ``Config(**config)``."""
    return Model(Config(**config)).explore(limit)  # type: ignore[arg-type]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = "seeded: " + ", ".join(BUGS) + "; harmless: " + ", ".join(HARMLESS)
    for field in fields(Config):
        flag = "--" + field.name
        if field.type == "bool":
            parser.add_argument(flag, action="store_true")
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
