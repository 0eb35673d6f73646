/* SPDX-License-Identifier: Apache-2.0
 *
 * The eventcount of platform/eventcount.c under weak memory: no wake-up is lost. Two signallers each publish one item; one
 * waiter wants both, or (SCENE=1, minutes) two waiters want one each. Here a sleep has no bound: a waiter that the 20 ms
 * would have to rescue sleeps for ever, which spin reports as an invalid end state.
 *
 *   E1  ssm_sleep_for(): announcement (swap that sets the bit, full fence), membarrier, then the look
 *   E2  ssm_event_signal(): publish, compiler fence, load of the bit
 *
 * SCENE=2: signallers that take no part in membarrier and pay for the fence themselves (`no_membarrier`).
 */
c_decl {
\#define LOCATIONS 2
\#define MESSAGES 20
\#define THREADS 4
\#include "weak_memory.h"
}
c_track "&weak" "sizeof(struct weak_memory)"
#include "weak_memory.pml"

#define ITEMS 0 /* the ring's index, say: what the waiter looks at */
#define WORD 1  /* sequence << 1 | waiters */

/* 1  E1's membarrier is missing (SCENE=2: its fence)   2  E2 of a fenced signaller is missing (SCENE=2)   3  the waiter looks, then announces itself
 * 4  the signaller looks at the bit, then publishes   5  the bit is cleared blindly after a wake-up that found nobody */
byte asleep; /* mask: who is in the kernel's queue of WORD */

inline attempt(got)
{
    byte items;
    load(ACQ, ITEMS, items);
    if
    :: items == 0 -> got = false
    :: else -> /* takes one by compare-and-swap; what else he saw was stale */
        atomic {
            rmw_read(AR, ITEMS, items);
            if
            :: items > 0 -> rmw_write(AR, ITEMS, items - 1); got = true
            :: else -> got = false
            fi;
            items = 0
        }
    fi
}

proctype waiter(byte me; byte wanted)
{
    bool got = false;
    byte seen, word;
    attempt(got);
    do
    :: got -> wanted--; got = false;
        if
        :: wanted == 0 -> break
        :: else -> attempt(got)
        fi
    :: else ->
        if
        :: bug == 3 -> attempt(got)
        :: else -> skip
        fi;
        atomic { rmw_read(AR, WORD, word); seen = (word + 2) | 1; rmw_write(AR, WORD, seen); word = 0 };
        if
        :: scene != 2 || bug != 1 -> fence_seqcst() /* E1 */
        :: else -> skip
        fi;
        if
        :: scene != 2 && bug != 1 -> membarrier() /* E1 */
        :: else -> skip
        fi;
        if
        :: bug != 3 -> attempt(got)
        :: else -> skip
        fi;
        if
        :: got -> goto have
        :: else -> skip
        fi;
        atomic { /* FUTEX_WAIT: the kernel compares and queues under its lock */
            newest(WORD, word);
            if
            :: word == seen -> asleep = asleep | (1 << me)
            :: else -> skip
            fi;
            word = 0; seen = 0
        };
        !(asleep & (1 << me));
        attempt(got);
have:
        seen = 0
    od;
    end()
}

inline publish() { atomic { rmw_read(AR, ITEMS, word); rmw_write(AR, ITEMS, word + 1); word = 0 } }

proctype signaller(byte me)
{
    byte word, found;
    bool woken;
    if
    :: bug != 4 -> publish()
    :: else -> skip
    fi;
    if
    :: scene == 2 && bug != 2 -> fence_seqcst() /* E2 */
    :: else -> skip
    fi;
    load(RLX, WORD, word);
    if
    :: bug == 4 -> found = word; publish(); word = found; found = 0
    :: else -> skip
    fi;
    do
    :: !(word & 1) -> goto over
    :: else ->
        atomic {
            rmw_read(AR, WORD, found);
            if
            :: found == word -> rmw_write(AR, WORD, word + 2); word = word + 2; found = 0; break
            :: else -> word = found; found = 0
            fi
        }
    od;
    atomic { /* FUTEX_WAKE of one */
        if
        :: asleep == 0 -> woken = false
        :: asleep & 1 -> asleep = asleep & 254; woken = true
        :: asleep & 2 -> asleep = asleep & 253; woken = true
        fi
    };
    if
    :: !woken ->
        atomic {
            rmw_read(AR, WORD, found);
            if
            :: found == word || bug == 5 -> rmw_write(AR, WORD, found & 254)
            :: else -> skip
            fi;
            found = 0
        }
    :: else -> skip
    fi;
over:
    word = 0;
    if
    :: scene == 2 -> end()
    :: else -> skip /* a membarrier finds it, though it stores no more */
    fi
}

init
{
    atomic {
        start();
        if
        :: scene != 1 -> run waiter(0, 2); c_code { weak_end(1); }
        :: else -> run waiter(0, 1); run waiter(1, 1)
        fi;
        run signaller(2); run signaller(3)
    }
}
