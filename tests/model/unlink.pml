/* SPDX-License-Identifier: Apache-2.0
 *
 * A ring whose name is taken away, under weak memory (rings/ring_unlink.c).
 *
 * SCENE=0  opened   O1  ssm_ring_use(): the own bit, a full fence, then the kind    O2  is_left(): the kind, a full fence, then the bits
 *                   O3  clear_bit(): all that was done with the ring, then the bit goes
 *                   O4  ssm_ring_is_opened_by(): the bit, then the ring is freed
 *          One process opens the ring without a lock, uses it, and closes it. Another one takes the name away, and a third
 *          one, after it in the registry, frees the ring if nobody has it open: never under its user, and it finds all
 *          that the user did.
 * SCENE=1  seen     O5  free_ring(): the kind, a fence, then the memory is another ring's, which is made in the same slot
 *                   O6  is_same_ring(): what was read of the ring, a fence, then kind and incarnation
 *          Whoever looks at a ring that it does not use takes nothing of the next ring for a part of it.
 */
c_decl {
\#define LOCATIONS 4
\#define MESSAGES 10
\#define THREADS 3
\#include "weak_memory.h"
}
c_track "&weak" "sizeof(struct weak_memory)"
#include "weak_memory.pml"

#define KIND 0 /* kind */
#define OPENED 1 /* opened */
#define MEMORY 2
#define INCARNATION 3
#define NONE 0
#define RING 1
#define UNLINKED 2

/* 1  O1 without its fence   2  O2 without its fence   3  O1: the kind, then the bit   4  O2: the bits, then the kind
 * 5  O3 relaxed   6  O4 relaxed   7  no fence at O5   8  no fence at O6   9  O6: no second look   10  O5 after the memory
 * 11  O6: the incarnation is not compared   12  the bit goes before the last use   13  O3 relaxed, where the attachment is closed */

bool wrote, using, unlinked;

inline open_and_use()
{
    if
    :: bug == 3 -> load(ACQ, KIND, y)
    :: else -> skip
    fi;
    fetch_or(AR, OPENED, 1, x);
    if
    :: bug != 1 -> fence_seqcst() /* O1 */
    :: else -> skip
    fi;
    if
    :: bug != 3 -> load(ACQ, KIND, y)
    :: else -> skip
    fi;
    if
    :: y == RING ->
        using = true;
        if
        :: bug == 12 -> fetch_and_not(AR, OPENED, 1, x)
        :: else -> skip
        fi;
        store(RLX, MEMORY, 1); wrote = true;
        using = false
    :: else -> skip
    fi;
    if
    :: bug != 12 -> fetch_and_not((bug == 5 -> RLX : AR), OPENED, 1, x) /* O3 */
    :: bug != 12 -> store((bug == 13 -> RLX : REL), OPENED, 0) /* O3: it closes the attachment */
    :: else -> skip
    fi
}

inline free_if_unused()
{
    unlinked; /* it has the registry now */
    c_code { weak_join(weak.current[2], weak.current[1]); };
    if
    :: bug == 4 -> load(ACQ, OPENED, x)
    :: else -> skip
    fi;
    load(ACQ, KIND, y);
    if
    :: bug != 2 -> fence_seqcst() /* O2 */
    :: else -> skip
    fi;
    if
    :: bug != 4 -> load((bug == 6 -> RLX : ACQ), OPENED, x) /* O4 */
    :: else -> skip
    fi;
    if
    :: y == UNLINKED && x == 0 -> assert(!using); load(RLX, MEMORY, z); assert(!wrote || z == 1); store(REL, KIND, NONE)
    :: else -> skip
    fi
}

inline free_and_make()
{
    if
    :: bug == 10 -> store(RLX, MEMORY, 9)
    :: else -> skip
    fi;
    store(REL, KIND, NONE);
    if
    :: bug != 7 -> fence(REL) /* O5 */
    :: else -> skip
    fi;
    store(RLX, MEMORY, 9);
    store(RLX, INCARNATION, 1);
    store(REL, KIND, RING)
}

inline look()
{
    load(ACQ, INCARNATION, w);
    load(ACQ, KIND, y);
    if
    :: y != NONE ->
        load(RLX, MEMORY, z);
        if
        :: bug != 8 -> fence(ACQ) /* O6 */
        :: else -> skip
        fi;
        if
        :: bug != 9 -> load(ACQ, KIND, y); load(ACQ, INCARNATION, x)
        :: else -> x = w
        fi;
        assert(y == NONE || (x != w && bug != 11) || w == 1 || z != 9)
    :: else -> skip
    fi
}

proctype thread(byte me)
{
    byte w, x, y, z;
    if
    :: scene == 0 && me == 0 -> open_and_use()
    :: scene == 0 && me == 1 -> store(REL, KIND, UNLINKED); unlinked = true
    :: scene == 0 && me == 2 -> free_if_unused()
    :: scene == 1 && me == 0 -> free_and_make()
    :: scene == 1 && me == 1 -> look()
    :: else -> skip
    fi;
    end()
}

init
{
    atomic {
        start();
        c_code { weak.messages[0][0].value = 1; };
        run thread(0); run thread(1); run thread(2)
    }
}
