/* SPDX-License-Identifier: Apache-2.0
 *
 * The ring's index protocol (rings/put.c, get.c) under weak memory: one producer, a ring of two slots that wraps around, two
 * blocks that are used again and again, and two consumers of which the first may be killed at any step; the second takes
 * its side over. Every packet that was put is taken once, in order, and read as it was written.
 *
 *   R1  put_all(): release store of head         A1  ssm_ring_head_beyond(): acquire load of head
 *   R2  get_queued(): release store of tail      A2  look_for_room(): acquire load of tail
 *   L1, L2  the lock of the consumers' side
 *
 * SCENE=0: four packets in batches of two. By hand, a minute: SCENE=1, three packets one by one.
 * Several accesses of one process stand in one atomic where no death between them is of interest: a load may read
 * what was stored before, and what one process stores together another still sees piece by piece.
 * The notes and the repair of a dead producer's side need no memory order beyond program order: holder_model.py.
 */
c_decl {
\#define LOCATIONS 11
\#define MESSAGES 16
\#define THREADS 3
\#define RMW_ONLY(location) ((location) == 2) /* LOCK */
\#include "weak_memory.h"
}
c_track "&weak" "sizeof(struct weak_memory)"
#include "weak_memory.pml"

#define HEAD 0 /* index */
#define TAIL 1 /* index */
#define LOCK 2 /* word */
#define SLOT(position) (3 + (position) % 2)
#define HOLDERS(b) (5 + (b))
#define GENERATION(b) (7 + (b))
#define PAYLOAD(b) (9 + (b))
#define RING 8 /* the ring's bit; a process has bit 1 << me */

/* 1  R1 relaxed   2  A1 relaxed, and the bit   3  R2 before the slots are read
 * 4  a slot whose block lacks the ring's bit is taken   5  L1 relaxed   6  the payload is written after the index
 * 7  the producer does not look at the tail */
byte packets, batch, taken;
bool killed, dead;

proctype producer(byte me)
{
    byte serial, head, tail, n, b, x, mine[2];
    do
    :: serial == packets -> break
    :: else ->
        atomic {
            n = 0;
            do
            :: n == batch -> break
            :: else ->
                /* A free block. An RMW in place of the shard's lock: the newest, and all that came before it. */
                c_expr { (!weak_newest(5) || !weak_newest(6)) };
                newest(HOLDERS(0), x);
                b = (x == 0 -> 0 : 1);
                rmw_read(AR, HOLDERS(b), x);
                load(RLX, GENERATION(b), x);
                store(REL, GENERATION(b), x + 1);
                store(REL, HOLDERS(b), 1 << me);
                mine[n] = b; x = 0; b = 0;
                n++;
                if
                :: bug != 6 -> store(RLX, PAYLOAD(mine[n - 1]), serial + n)
                :: else -> skip
                fi
            od
        };
        do /* room? */
        :: bug == 7 -> break
        :: else ->
            atomic {
                tail = 0;
                c_expr { (Pproducer->head - weak_newest(1) + now.batch < 3) }; /* a stale look sees less room */
                load(ACQ, TAIL, tail) /* A2 */
            };
            if
            :: head - tail + batch <= 2 -> break
            :: else -> skip
            fi
        od;
        atomic {
            tail = 0; n = 0;
            do
            :: n == batch -> break
            :: else ->
                load(RLX, GENERATION(mine[n]), x);
                store(RLX, SLOT(head + n), x * 2 + mine[n]);
                x = 0; n++
            od;
            n = 0;
            do
            :: n == batch -> break
            :: else -> store(REL, HOLDERS(mine[n]), RING); n++
            od;
            head = head + batch;
            store((bug == 1 -> RLX : REL), HEAD, head) /* R1 */
        };
        atomic {
            if
            :: bug == 6 -> store(RLX, PAYLOAD(mine[0]), serial + 1)
            :: else -> skip
            fi;
            serial = serial + batch
        }
    od;
    end()
}

inline free(b)
{
    fetch_and_not(AR, HOLDERS(b), 1 << me, x);
    x = 0
}

inline take(position)
{
    load(RLX, SLOT(position), handle);
    load((bug == 2 -> RLX : ACQ), HOLDERS(handle & 1), x);
    load(RLX, GENERATION(handle & 1), y);
    if
    :: (x & RING || bug == 4) && y == handle / 2 ->
        newest(HOLDERS(handle & 1), x);
        assert(x == RING); /* else it takes what is another's */
        taken++;
        store(REL, HOLDERS(handle & 1), 1 << me); /* alone: a plain store */
        load(RLX, PAYLOAD(handle & 1), x);
        assert(x == taken);
        x = 0; y = 0;
        mine[got] = handle & 1;
        got++
    :: else -> x = 0; y = 0 /* passed over */
    fi;
    handle = 0
}

proctype consumer(byte me)
{
    byte start_at, tail, head, handle, x, y, got, mine[2];
    {
        do
        :: atomic { /* waits for something, or for the end */
               c_expr { ((!weak_newest(2) || now.dead) && (weak_newest(0) != weak_newest(1) || weak_newest(1) == now.packets)) };
               rmw_read(AR, LOCK, x);
               if
               :: x == 2 ->
                   c_code { weak_death(2, 1); }
               :: else -> assert(x == 0)
               fi;
               rmw_write(AR, LOCK, me + 1); /* L2 */
               x = 0
           };
           atomic {
               load(RLX, TAIL, tail);
               load((bug == 2 -> RLX : ACQ), HEAD, head); /* A1 */
               if
               :: head - tail > batch -> head = tail + batch
               :: else -> skip
               fi;
               if
               :: bug == 3 && head != tail -> store(REL, TAIL, head)
               :: else -> skip
               fi;
               start_at = tail
           };
           do
           :: tail == head -> break
           :: else -> atomic { take(tail); tail++ }
           od;
           atomic {
               if
               :: bug != 3 && tail != start_at -> store(REL, TAIL, tail) /* R2 */
               :: else -> skip
               fi;
               head = 0; start_at = 0
           };
           atomic { rmw_read(AR, LOCK, x); rmw_write((bug == 5 -> RLX : AR), LOCK, 0); x = 0 }; /* L1 */
           do
           :: got == 0 -> break
           :: else -> atomic { got--; free(mine[got]); mine[got] = 0 }
           od;
           atomic {
               if
               :: tail == packets -> assert(taken == packets); break
               :: else -> tail = 0
               fi
           }
        od
    } unless { killed && me == 1 };
    atomic {
        if
        :: killed && me == 1 -> dead = true
        :: else -> skip
        fi;
        start_at = 0; tail = 0; head = 0; handle = 0; x = 0; y = 0; got = 0; mine[0] = 0; mine[1] = 0
    };
}

/* Clears the dead consumer's bit, as a reaper does. */
proctype reaper()
{
    byte me = 2, x; /* what it sees is what the survivor sees */
end_all_alive:
    dead;
    c_code { weak_death(2, 1); };
    fetch_and_not(AR, HOLDERS(0), 2, x);
    fetch_and_not(AR, HOLDERS(1), 2, x);
    x = 0
}

proctype killer() { killed = true }

init
{
    atomic {
        start();
        packets = (scene == 0 -> 4 : 3);
        batch = (scene == 0 -> 2 : 1);
        run producer(0); run consumer(1); run consumer(2); run reaper();
        if
        :: run killer()
        :: skip
        fi
    }
}
