/* SPDX-License-Identifier: Apache-2.0
 *
 * What is filled first and published then, under weak memory: whoever finds it, finds it whole.
 *
 * SCENE=0  a holder slot    K1  write_slot(), create(): the slot, then its kind      K2  find(): kind, then the slot
 *                           M1  ssm_registry_mark_used(): holder_high, before all    M2  ssm_holder_high()
 *          One looks for a name; another one sees a block's bit and asks whose it is. The slot is a fresh one, or not.
 * SCENE=1  a service        S1  create(): the entry, then its kind                   S2  options_of(): kind, then the entry
 * SCENE=2  a lock's owner   J1  write_slot(): the incarnation, before the first lock is taken in its name
 *                           J2  ssm_lock_take_slowly(): the word, then ssm_holder_is_dead(): the incarnation
 *          A process died with the lock. A newcomer takes its slot and the lock; a thief never takes it from the newcomer.
 * SCENE=3  an extent        X1  furnish_locked(): start, then bytes                  X2  ssm_extent_seen(): bytes, then start
 *          a packet         Y1  hand_out(): the generation, a fence, what it fills   Y2  copy_packet(): bytes, a fence, generation
 *          Whoever looks at a packet without holding it takes nothing of the next packet for a part of it.
 * SCENE=4  tasks            T1  ssm_ring_join_add(): what was done, then done            T2  join_attempt(): done, then the head
 *          Two put a packet each, and the first one joins: its own packet is done then, whichever else is.
 * SCENE=5  a table grows    W1  add_packets_locked(): its memory, then how many      W2  ssm_arena_packets_now(), then the memory
 * SCENE=6  a ring is wider  Q1  widen(): the copies, then how many slots             Q2  ssm_ring_slots_now(), then the copies
 */
c_decl {
\#define LOCATIONS 4
\#define MESSAGES 10
\#define THREADS 3
\#include "weak_memory.h"
}
c_track "&weak" "sizeof(struct weak_memory)"
#include "weak_memory.pml"

/* 1  K1 relaxed   2  K2 relaxed   3  K1 before the name   4  the bit is set relaxed   5  M1 after the bit
 * 6  sound: M1 relaxed, for K1 and the bit come later
 * 7  S1 relaxed   8  S2 relaxed   9  S1 before the entry
 * 10  J1: the lock is taken relaxed   11  J2: the word is loaded relaxed   12  J1: the incarnation is written after the lock is taken
 * 13  J1: the word does not have the incarnation
 * 14  X1 relaxed   15  X2 relaxed   16  X1 before the start   17  no fence at Y1   18  no fence at Y2   19  Y2: no second look
 * 24  W1 relaxed   25  W2 relaxed   26  W1 before the memory   27  Q1 relaxed   28  Q2 relaxed   29  Q1 before the copies
 * 20  T1 relaxed   21  T2: done is loaded relaxed   22  T2: the head, then done   23  sound: T2, the head is loaded relaxed */

/* ---- SCENE=0 and 1 ---- */
#define NAME 0
#define HIGH 1 /* high, holder_high */
#define KIND 2 /* kind */
#define SET 3
bool fresh; /* nobody had the slot before: holder_high is below it still */

inline newcomer()
{
    if
    :: bug == 3 || bug == 9 -> store(REL, KIND, 1)
    :: else -> skip
    fi;
    store(RLX, NAME, 1);
    if
    :: scene == 0 && bug != 5 && fresh -> store((bug == 6 -> RLX : REL), HIGH, 1) /* M1 */
    :: else -> skip
    fi;
    if
    :: scene == 0 && bug != 3 -> store((bug == 1 -> RLX : REL), KIND, 1) /* K1 */
    :: scene == 1 && bug != 9 -> store((bug == 7 -> RLX : REL), KIND, 1) /* S1 */
    :: else -> skip
    fi;
    if
    :: scene == 0 -> store((bug == 4 -> RLX : REL), SET, 1)
    :: else -> skip
    fi;
    if
    :: bug == 5 && fresh -> store(REL, HIGH, 1)
    :: else -> skip
    fi
}

inline find()
{
    load(ACQ, HIGH, x); /* M2 */
    if
    :: x == 1 -> load((bug == 2 -> RLX : ACQ), KIND, y) /* K2 */
    :: else -> skip
    fi;
    if
    :: y == 1 -> load(RLX, NAME, z); assert(z == 1)
    :: else -> skip
    fi
}

inline ask_whose_it_is()
{
    load(ACQ, SET, x);
    if
    :: x == 1 ->
        load(ACQ, HIGH, y); /* M2 */
        assert(y == 1);
        load(ACQ, KIND, z); /* K2 */
        assert(z == 1)
    :: else -> skip
    fi
}

inline open_service()
{
    load((bug == 8 -> RLX : ACQ), KIND, y); /* S2 */
    if
    :: y == 1 -> load(RLX, NAME, z); assert(z == 1)
    :: else -> skip
    fi
}

/* ---- SCENE=2: the dead one's word is 1, as its incarnation was; the newcomer's is 2; the thief's is 3 ---- */
#define INCARNATION 0 /* incarnation */
#define WORD 1 /* word */
bool alive;  /* the slot's byte is locked: the kernel knows at once */
byte inside; /* who lives and has the lock */

inline take(mine)
{
    do
    :: taken || tries == 2 -> break
    :: else ->
        tries++;
        load((bug == 11 -> RLX : ACQ), WORD, w); /* J2 */
        x = w;
        if
        :: w == 0 || w == 3 || bug == 13 -> skip
        :: else -> load(ACQ, INCARNATION, x) /* J2 */
        fi;
        if
        :: w == 0 || (w < 3 && (x != w || !alive)) -> /* nobody's, or a dead one's */
            atomic {
                rmw_read(AR, WORD, x);
                if
                :: x == w ->
                    rmw_write((bug == 10 && me == 0 -> RLX : AR), WORD, mine); /* J1 */
                    taken = true; inside++; assert(inside == 1)
                :: else -> skip
                fi
            }
        :: else -> skip
        fi;
        w = 0; x = 0
    od
}

inline come_and_take()
{
    alive = true;
    if
    :: bug != 12 -> store(REL, INCARNATION, 2) /* J1 */
    :: else -> skip
    fi;
    take((bug == 13 -> 1 : 2));
    if
    :: bug == 12 -> store(REL, INCARNATION, 2)
    :: else -> skip
    fi;
    leave_lock()
}

inline leave_lock()
{
    if
    :: taken -> atomic { inside--; rmw_read(AR, WORD, x); rmw_write(AR, WORD, 0); x = 0 }
    :: else -> skip
    fi
}

/* ---- SCENE=3: the old packet has the generation 0, and 1 everywhere ---- */
#define GENERATION 0
#define DATA 1
#define BYTES 2 /* bytes */
#define START 3

inline next_packet()
{
    store(REL, GENERATION, 1);
    store(REL, GENERATION, 2);
    store(REL, BYTES, 0);
    if
    :: bug == 16 -> store(REL, BYTES, 2); store(RLX, START, 2)
    :: else ->
        store(RLX, START, 2);
        store((bug == 14 -> RLX : REL), BYTES, 2) /* X1 */
    fi;
    store(RLX, GENERATION, 3);
    if
    :: bug != 17 -> fence(REL) /* Y1 */
    :: else -> skip
    fi;
    store(RLX, DATA, 2)
}

inline look_at_extent()
{
    load((bug == 15 -> RLX : ACQ), BYTES, x); /* X2 */
    load(ACQ, START, y);
    if
    :: x == 2 -> assert(y == 2)
    :: else -> skip
    fi
}

inline peek()
{
    load(ACQ, GENERATION, w);
    load(RLX, DATA, z);
    load(ACQ, BYTES, x); /* X2 */
    load(ACQ, START, y);
    if
    :: bug != 18 -> fence(ACQ) /* Y2 */
    :: else -> skip
    fi;
    if
    :: bug != 19 -> load(RLX, GENERATION, tries)
    :: else -> tries = w
    fi;
    if
    :: w == 0 && tries == 0 -> assert(z == 1)
    :: else -> skip
    fi
}

/* ---- SCENE=4 ---- */
#define HEAD 0 /* index */
#define DONE 1 /* done */
#define RESULT 2
bool done_first; /* the packet of who joins */

inline put_and_join()
{
    atomic { rmw_read(AR, HEAD, x); rmw_write(AR, HEAD, x + 1) };
    if
    :: bug == 22 -> load(ACQ, HEAD, y); load(ACQ, DONE, x)
    :: else -> load((bug == 21 -> RLX : ACQ), DONE, x); load((bug == 23 -> RLX : ACQ), HEAD, y) /* T2 */
    fi;
    if
    :: x == y -> assert(done_first); load(RLX, RESULT, z); assert(z == 1)
    :: else -> skip
    fi
}

/* Gets both, and is done with them in any order. */
inline consume()
{
    do
    :: tries == 2 -> break
    :: else ->
        load(ACQ, HEAD, x);
        if
        :: x == 2 && !w && true -> w = 1; tries++; finish_task() /* the other one's */
        :: x > 0 && !done_first -> store(RLX, RESULT, 1); done_first = true; tries++; finish_task()
        :: true -> break
        fi
    od
}

inline finish_task() { atomic { rmw_read(AR, DONE, y); rmw_write((bug == 20 -> RLX : AR), DONE, y + 1); y = 0 } /* T1 */ }

/* ---- SCENE=5 and 6 ---- */
#define THERE 0
#define COUNT 1 /* packets, bit_words, has_caches, slot_count */

inline enlarge()
{
    if
    :: bug == 26 || bug == 29 -> store(REL, COUNT, 1)
    :: else -> skip
    fi;
    store(RLX, THERE, 1);
    if
    :: scene == 5 && bug != 26 -> store((bug == 24 -> RLX : REL), COUNT, 1) /* W1 */
    :: scene == 6 && bug != 29 -> store((bug == 27 -> RLX : REL), COUNT, 1) /* Q1 */
    :: else -> skip
    fi
}

inline use()
{
    if
    :: scene == 5 -> load((bug == 25 -> RLX : ACQ), COUNT, x) /* W2 */
    :: else -> load((bug == 28 -> RLX : ACQ), COUNT, x) /* Q2 */
    fi;
    if
    :: x == 1 -> load(RLX, THERE, y); assert(y == 1)
    :: else -> skip
    fi
}

/* ---- all of them ---- */

proctype thread(byte me)
{
    byte w, x, y, z, tries;
    bool taken;
    if
    :: scene < 2 && me == 0 -> newcomer()
    :: scene == 0 && me == 1 -> find()
    :: scene == 0 && me == 2 -> ask_whose_it_is()
    :: scene == 1 && me > 0 -> open_service()
    :: scene == 2 && me == 0 -> come_and_take()
    :: scene == 2 && me > 0 -> take(3); leave_lock()
    :: scene == 3 && me == 0 -> next_packet()
    :: scene == 3 && me == 1 -> look_at_extent()
    :: scene == 3 && me == 2 -> peek()
    :: scene == 4 && me == 0 -> put_and_join()
    :: scene == 4 && me == 1 -> atomic { rmw_read(AR, HEAD, x); rmw_write(AR, HEAD, x + 1) }
    :: scene == 4 && me == 2 -> consume()
    :: scene > 4 && me == 0 -> enlarge()
    :: scene > 4 && me > 0 -> use()
    fi;
    end()
}

init
{
    atomic {
        start();
        c_code {
            if (now.scene == 2 || now.scene == 3)
                for (int i = 0; i < LOCATIONS; i++)
                    weak.messages[i][0].value = now.scene == 2 ? i < 2 : i > 0;
        };
        if
        :: scene == 0 -> fresh = true
        :: scene == 0 -> c_code { weak.messages[1][0].value = 1; }
        :: else -> skip
        fi;
        run thread(0); run thread(1); run thread(2)
    }
}
