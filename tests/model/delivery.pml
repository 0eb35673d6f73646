/* SPDX-License-Identifier: Apache-2.0
 *
 * What says whose a packet is, in two words, under weak memory: a ring's bit and the entry of a redelivering ring
 * (blocks/redelivery.h), a holder's bit and the generation. With every kill, and under sequential consistency, the whole
 * protocol is in redelivery_model.py and holder_model.py.
 *
 * SCENE=0  D1  return_one(): the entry says "returned", then the ring's bit
 *          D2  is_queued(): the ring's bit, then the entry
 *          A slot whose packet was returned is not taken for the packet.
 * SCENE=1  D3  ssm_redelivery_take(), take_block(): the entry says who, then the ring's bit goes
 *          D4  is_in_ring(): the ring's bit, then the entry
 *          Somebody who holds the packet, too, does not put it into the ring while it is under way out of it.
 * SCENE=2  D3  ssm_redelivery_take_first(), take_block()
 *          D4  return_one(): the entry, the ring's bit, and the entry once more
 *          A reaper that finds a packet returned already does not put it back into the ring behind a get.
 * SCENE=4  as SCENE=1, where the getter has it alone and does both by one store.
 * SCENE=3  G3  claim_locked(): the next generation, then the claim
 *          G4  ssm_cache_entry_counts(), ssm_block_is_queued(): the bit, then the generation
 *          What named the block before is void once a bit of the new life is seen.
 */
c_decl {
\#define LOCATIONS 2
\#define MESSAGES 8
\#define THREADS 2
\#include "weak_memory.h"
}
c_track "&weak" "sizeof(struct weak_memory)"
#include "weak_memory.pml"

/* 1  D1: the bit is set relaxed   2  D1: the bit, then the entry   3  D2: the bit is loaded relaxed   4  D2: the entry, then the bit
 * 5  D3: the bit goes relaxed   6  D3: the bit goes before the entry says who   7  D4: the bit is loaded relaxed
 * 8  D4: the entry, then the bit   9  D4: no second look at the entry
 * 10  G3: the claim is relaxed   11  G3: the claim, then the generation   12  G4: the bit is loaded relaxed
 * 13  G4: the generation, then the bit */
#define ENTRY 0 /* taken, generation */
#define SET 1 /* holders */

#define RING 1 /* bits of the set */
#define GETTER 2
#define OTHER 4 /* it holds the packet, too; or it did, and is dead */

#define HELD 1 /* what an entry says: by the dead one, or by the getter */
#define FRONT 2
#define FRONT_HELD 3

inline say(what) { atomic { rmw_read(AR, ENTRY, x); rmw_write(AR, ENTRY, what); x = 0 } }

inline give_it_back()
{
    if
    :: bug == 2 -> fetch_or(AR, SET, RING, x); x = 0; say(FRONT)
    :: else ->
        atomic { rmw_read(AR, ENTRY, x); rmw_write(AR, ENTRY, FRONT); x = 0 }; /* D1 */
        fetch_or((bug == 1 -> RLX : AR), SET, RING, x); /* D1 */
        x = 0
    fi
}

inline look_at_slot()
{
    if
    :: bug == 4 -> load(ACQ, ENTRY, y); load(ACQ, SET, x)
    :: else ->
        load((bug == 3 -> RLX : ACQ), SET, x); /* D2 */
        load(ACQ, ENTRY, y) /* D2 */
    fi;
    assert(!(x & RING) || y == FRONT)
}

inline take_it(what)
{
    if
    :: bug == 6 -> fetch_and_not(AR, SET, RING, x); x = 0
    :: else -> skip
    fi;
    atomic { rmw_read(AR, ENTRY, x); rmw_write(AR, ENTRY, what); x = 0 }; /* D3 */
    fetch_or(AR, SET, GETTER, x);
    fetch_and_not((bug == 5 -> RLX : AR), SET, RING, x); /* D3 */
    x = 0
}

/* Who has it alone does so by one store. */
inline take_it_alone()
{
    say(HELD);
    store((bug == 5 -> RLX : REL), SET, GETTER) /* D3 */
}

inline ask_before_put()
{
    if
    :: bug == 8 -> load(ACQ, ENTRY, y); load(ACQ, SET, x)
    :: else ->
        load((bug == 7 -> RLX : ACQ), SET, x); /* D4 */
        load(ACQ, ENTRY, y) /* D4 */
    fi;
    assert(x & RING || y == HELD)
}

inline return_once_more()
{
    load(ACQ, ENTRY, y);
    load((bug == 7 -> RLX : ACQ), SET, x); /* D4 */
    if
    :: bug != 9 && y == FRONT && !(x & RING) -> load(ACQ, ENTRY, y) /* D4 */
    :: else -> skip
    fi;
    assert(y != FRONT || x & RING) /* else it would set the bit of a packet that somebody has taken */
}

inline claim()
{
    if
    :: bug != 11 -> store(REL, ENTRY, 1) /* G3 */
    :: else -> skip
    fi;
    store((bug == 10 -> RLX : REL), SET, GETTER); /* G3 */
    if
    :: bug == 11 -> store(REL, ENTRY, 1)
    :: else -> skip
    fi
}

inline look_at_handle()
{
    if
    :: bug == 13 -> load(RLX, ENTRY, y); load(ACQ, SET, x)
    :: else ->
        load((bug == 12 -> RLX : ACQ), SET, x); /* G4 */
        load(RLX, ENTRY, y)
    fi;
    assert(x == 0 || y == 1)
}

proctype thread(byte me)
{
    byte x, y;
    if
    :: scene == 0 && me == 0 -> give_it_back()
    :: scene == 0 && me == 1 -> look_at_slot()
    :: scene == 1 && me == 0 -> take_it(HELD)
    :: scene == 1 && me == 1 -> ask_before_put()
    :: scene == 2 && me == 0 -> take_it(FRONT_HELD)
    :: scene == 2 && me == 1 -> return_once_more()
    :: scene == 3 && me == 0 -> claim()
    :: scene == 3 && me == 1 -> look_at_handle()
    :: scene == 4 && me == 0 -> take_it_alone()
    :: scene == 4 && me == 1 -> ask_before_put()
    fi;
    end()
}

init
{
    atomic {
        start();
        c_code {
            static const unsigned char entries[] = {1, 0, 2, 0, 0}, sets[] = {4, 1 | 4, 1 | 4, 0, 1};
            weak.messages[0][0].value = entries[now.scene];
            weak.messages[1][0].value = sets[now.scene];
        };
        run thread(0); run thread(1)
    }
}
