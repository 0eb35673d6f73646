/* SPDX-License-Identifier: Apache-2.0
 *
 * Allocation against settling (blocks/shard.c) under weak memory: one block, two shards. Each of two processes takes it
 * from the list it is on, makes its own shard the block's home, and frees it; a third rebuilds both shards, or settles the
 * block, at any time. The block is never on two lists, nor on one while it is held, and on exactly one in the end.
 *
 *   G1  claim_locked(), unlink_locked(): claim, generation, home     G2  find_block(): generation, set, home, generation
 *   H1  home is stored, then the bit goes                        H2  the set is seen empty, then home is loaded
 *   L1, L2  the shards' locks
 *
 * SCENE=0: rebuilds, and who has the block gives it another home once more. SCENE=1: settles. The first user frees the block by a
 * plain store, since it has the block alone. What a death leaves is in shard_model.py.
 */
c_decl {
\#define LOCATIONS 6
\#define MESSAGES 24
\#define THREADS 3
\#define RMW_ONLY(location) ((location) >= 4) /* the locks */
\#include "weak_memory.h"
}
c_track "&weak" "sizeof(struct weak_memory)"
#include "weak_memory.pml"

#define LISTED 0
#define HOLDERS 1 /* holders */
#define GENERATION 2 /* generation */
#define HOME 3 /* home */
#define LOCK(shard) (4 + (shard)) /* word */

#define HELD 0
#define HERE 1
#define ELSEWHERE 2

/* 1  the generation does not change after the claim, G1   2  it changes after the home does   3  no second look at it, G2
 * 4  G1's generations and home are stored relaxed   5  settling without the lock   6  L1 relaxed
 * 7  sound: no fence in G2, for the loads before it acquire   8  H1 relaxed (SCENE=0)
 * 9  who has the block stores another home relaxed (SCENE=0) */
byte on[2]; /* the lists: how often is the block on them? */
byte working = 3;

inline take_lock(shard)
{
    atomic {
        (shard == 0 && c_expr { (!weak_newest(4)) }) || (shard == 1 && c_expr { (!weak_newest(5)) });
        rmw_read(AR, LOCK(shard), x);
        rmw_write(AR, LOCK(shard), 1); /* L2 */
        x = 0
    }
}

inline drop_lock(shard)
{
    d_step { rmw_read(AR, LOCK(shard), x); rmw_write((bug == 6 -> RLX : AR), LOCK(shard), 0); x = 0 } /* L1 */
}

inline find_block(shard)
{
    load(ACQ, GENERATION, g);
    load(ACQ, HOLDERS, x); /* H2 */
    if
    :: x != 0 -> found = HELD
    :: else ->
        load(ACQ, HOME, h); /* H2 */
        if
        :: bug != 7 -> fence(ACQ) /* G2 */
        :: else -> skip
        fi;
        if
        :: bug != 3 -> load(RLX, GENERATION, x)
        :: else -> x = g
        fi;
        found = (h == shard && x == g -> HERE : ELSEWHERE)
    fi;
    x = 0; g = 0; h = 0
}

inline push(shard)
{
    atomic {
        newest(HOLDERS, x);
        assert(x == 0);
        newest(HOME, x);
        assert(x == shard);
        assert(on[0] + on[1] == 0);
        on[shard]++;
        store(REL, LISTED, 1);
        x = 0
    }
}

inline settle()
{
    do
    :: true ->
        load(ACQ, HOME, s);
        if
        :: bug != 5 -> take_lock(s)
        :: else -> skip
        fi;
        find_block(s);
        if
        :: found == HERE ->
            load(RLX, LISTED, x);
            if
            :: x == 0 -> x = 0; push(s)
            :: else -> x = 0
            fi
        :: else -> skip
        fi;
        if
        :: bug != 5 -> drop_lock(s)
        :: else -> skip
        fi;
        if
        :: found != ELSEWHERE -> break
        :: else -> found = 0
        fi
    od;
    found = 0; s = 0
}

inline rebuild(shard)
{
    take_lock(shard);
    on[shard] = 0;
    find_block(shard);
    if
    :: found == HERE -> push(shard)
    :: found == HELD ->
        load(ACQ, LISTED, x); load(ACQ, HOME, h);
        if
        :: x == 1 && h == shard -> store(REL, LISTED, 0)
        :: else -> skip
        fi;
        x = 0; h = 0
    :: else -> skip
    fi;
    found = 0;
    drop_lock(shard)
}

inline next_generation()
{
    load(RLX, GENERATION, x);
    store((bug == 4 -> RLX : REL), GENERATION, x + 1); /* G1 */
    x = 0
}

inline finish()
{
    atomic {
        working--;
        assert(working != 0 || on[0] + on[1] == 1);
        end()
    }
}

proctype user(byte me; byte home)
{
    byte x, g, h, s, found;
    do
    :: true ->
        atomic { on[0] + on[1] != 0; s = (on[0] != 0 -> 0 : 1) };
        take_lock(s);
        if
        :: on[s] != 0 -> break
        :: else -> drop_lock(s)
        fi
    od;
    store(REL, LISTED, 0);
    next_generation();
    store(REL, HOLDERS, 1 << me); /* G1: the commit */
    if
    :: bug != 1 && bug != 2 -> next_generation()
    :: else -> skip
    fi;
    on[s]--;
    store((bug == 4 -> RLX : REL), HOME, home); /* G1, H1 */
    if
    :: bug == 2 -> next_generation()
    :: else -> skip
    fi;
    drop_lock(s);
    s = 0;
    atomic { newest(HOLDERS, x); assert(x == 1 << me); x = 0 };
    if
    :: scene == 0 -> store((bug == 9 -> RLX : REL), HOME, 1 - home) /* G1, H1: under no lock, hand_out() and give_home() */
    :: else -> skip
    fi;
    if
    :: me == 1 -> fetch_and_not((bug == 8 -> RLX : AR), HOLDERS, 1 << me, x); x = 0 /* H1: ssm_block_remove() */
    :: else -> store((bug == 8 -> RLX : REL), HOLDERS, 0) /* H1: ssm_block_clear() */
    fi;
    settle();
    finish()
}

proctype recoverer(byte me)
{
    byte x, g, h, s, found;
    byte round = 2;
    do
    :: round == 0 -> break
    :: else ->
        round--; /* shard 1 first: there the block comes to */
        if
        :: scene == 1 -> settle()
        :: else -> rebuild(round)
        fi
    od;
    finish()
}

init
{
    atomic {
        start();
        c_code {
            weak_append(0, 0, 1, 2, 0); /* listed, at home in shard 0; everybody knows */
            weak_join(weak.current[1], weak.current[0]);
            weak_join(weak.current[2], weak.current[0]);
        };
        on[0] = 1;
        run user(0, 1); run user(1, 0); run recoverer(2)
    }
}
