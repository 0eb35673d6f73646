/* SPDX-License-Identifier: Apache-2.0
 *
 * The biased lock of a private cache (blocks/cache.h) under weak memory: owner and thieves exclude each other, and each
 * sees what the last one inside had written. The first thief may be killed at any step; the second takes over from it.
 *
 *   C1  ssm_cache_try_enter(): busy, compiler fence, load of thief   C2  wait_for_owner(): thief, fence, membarrier, busy
 *   C3  ssm_cache_leave(): release store of busy                     C4  wait_for_owner(): acquire load of busy
 *   L1, L2  the thief's lock
 *
 * SCENE=1: an owner that takes no part in membarrier and pays for the fence itself (`no_membarrier`).
 * SCENE=2: what a thief leaves when it dies between the swap of a holder set and the count (`half`): the one that takes
 *          its lock over repairs that, without waiting for the owner, before the owner is inside once more (`stealing`).
 */
c_decl {
\#define LOCATIONS 4
\#define MESSAGES 14
\#define THREADS 3
\#include "weak_memory.h"
}
c_track "&weak" "sizeof(struct weak_memory)"
#include "weak_memory.pml"

#define BUSY 0 /* busy */
#define THIEF 1 /* word */
#define COUNT 2
#define STEALING 3

/* 1  no membarrier at C2   2  C3 relaxed   3  the owner looks for a thief, then is busy   4  L1 relaxed   5  C4 relaxed
 * 6  the thief looks at busy, then takes its lock   7  C1 of a fenced owner missing (SCENE=1)
 * 8  the owner loads thief relaxed: it misses what the last thief wrote
 * SCENE=2:   9  the repair does not look at stealing   10  nothing is repaired   11  stealing = 1 before the owner is out
 * 12  the swap, then stealing = 1   13  stealing = 0, then the count */
byte inside; /* mask */
bool killed, dead, half;

inline use()
{
    atomic { assert(inside == 0); inside = inside | (1 << me) };
    load(RLX, COUNT, x);
    atomic { newest(COUNT, y); assert(x == y); y = 0 };
    store(RLX, COUNT, 1 - x);
    x = 0;
    inside = inside & ~(1 << me)
}

proctype owner(byte me)
{
    byte x, y, thief, round;
    do
    :: round == 2 -> break
    :: else ->
        round++;
        if
        :: bug == 3 -> load(ACQ, THIEF, thief)
        :: else -> skip
        fi;
        store(RLX, BUSY, 1);
        if
        :: scene == 1 && bug != 7 -> fence_seqcst() /* C1 */
        :: else -> skip /* C1: program order */
        fi;
        if
        :: bug == 8 -> load(RLX, THIEF, thief)
        :: bug != 3 && bug != 8 -> load(ACQ, THIEF, thief)
        :: else -> skip
        fi;
        if
        :: thief == 0 -> assert(!half); use()
        :: else -> skip /* steps back */
        fi;
        thief = 0;
        store((bug == 2 -> RLX : REL), BUSY, 0) /* C3 */
    od;
    round = 0 /* and no end(): a membarrier finds it, though it stores no more */
}

proctype thief(byte me)
{
    byte x, y, busy = 1, found;
    bool took, stole;
    {
        if
        :: bug == 6 -> load(ACQ, BUSY, busy)
        :: else -> skip
        fi;
        atomic {
            rmw_read(AR, THIEF, found);
            if
            :: found == 0 -> rmw_write(AR, THIEF, me + 1); took = true /* L2 */
            :: found == 2 && dead ->
                c_code { weak_death(2, 1); };
                rmw_write(AR, THIEF, me + 1); took = true; stole = true /* L2 */
            :: else -> skip /* another thief is at it */
            fi;
            found = 0
        };
        if
        :: took ->
            if
            :: scene == 2 && stole && bug != 10 ->
                load(RLX, STEALING, x);
                if
                :: x == 1 || bug == 9 -> use(); half = false; store(REL, STEALING, 0)
                :: else -> skip /* the owner may be inside */
                fi;
                x = 0
            :: else -> skip
            fi;
            if
            :: scene == 2 && bug == 11 -> store(REL, STEALING, 1)
            :: else -> skip
            fi;
            fence_seqcst(); /* C2 */
            if
            :: scene != 1 && bug != 1 -> membarrier() /* C2 */
            :: else -> skip
            fi;
            do
            :: busy == 0 && scene != 2 -> use(); break
            :: busy == 0 && scene == 2 ->
                if
                :: bug == 11 -> half = true
                :: bug == 12 -> half = true; store(REL, STEALING, 1)
                :: else -> store(REL, STEALING, 1); half = true
                fi;
                if
                :: bug == 13 -> store(REL, STEALING, 0); use(); half = false
                :: else -> use(); half = false; store(REL, STEALING, 0)
                fi;
                break
            :: busy != 0 -> load((bug == 5 -> RLX : ACQ), BUSY, busy) /* C4 */
            :: busy != 0 -> break /* out of patience */
            od;
            atomic { rmw_read(AR, THIEF, found); rmw_write((bug == 4 -> RLX : AR), THIEF, 0); found = 0 } /* L1 */
        :: else -> skip
        fi
    } unless { killed && me == 1 };
    atomic {
        if
        :: killed && me == 1 -> dead = true; inside = inside & 253
        :: else -> end()
        fi;
        x = 0; y = 0; busy = 0; found = 0; took = false; stole = false
    }
}

/* A kill at any step, or at none. */
proctype killer() { killed = true }

init
{
    atomic {
        start();
        run owner(0); run thief(1); run thief(2);
        if
        :: run killer()
        :: skip
        fi
    }
}
