/* SPDX-License-Identifier: Apache-2.0
 *
 * Is weak_memory.h the memory that it says it is? Each scene is a litmus test whose outcome C11 forbids; BUG=1 weakens it
 * to one that C11 allows, and then the outcome must be reached.
 *
 * SCENE=0  message passing           release, acquire               BUG=1: the store is relaxed
 * SCENE=1  message passing           by fences around relaxed ones  BUG=1: no acquire fence
 * SCENE=2  store buffering           seq_cst fences                 BUG=1: release and acquire alone
 * SCENE=3  store buffering           one compiler fence, membarrier BUG=1: no membarrier
 * SCENE=4  two readers, two writers  seq_cst fences (IRIW)          BUG=1: acquire alone
 * SCENE=5  release sequence          a relaxed RMW in between       BUG=1: a relaxed store in between
 */
c_decl {
\#define LOCATIONS 2
\#define MESSAGES 6
\#define THREADS 4
\#include "weak_memory.h"
}
c_track "&weak" "sizeof(struct weak_memory)"
#include "weak_memory.pml"

#define X 0
#define Y 1 /* c_expr knows it as 1 */

byte seen[8], finished; /* two registers for each thread */

inline look(order, where, n) { load(order, where, got); seen[2 * me + n] = got; got = 0 }

inline first()
{
    if
    :: scene == 0 || scene == 5 -> store(RLX, X, 1); store((bug && scene == 0 -> RLX : REL), Y, 1)
    :: scene == 1 -> store(RLX, X, 1); fence(REL); store(RLX, Y, 1)
    :: scene == 2 ->
        store(REL, X, 1);
        if
        :: !bug -> fence_seqcst()
        :: else -> skip
        fi;
        look(ACQ, Y, 0)
    :: scene == 3 -> store(RLX, X, 1); look(ACQ, Y, 0)
    :: scene == 4 -> store(REL, X, 1)
    fi
}

inline second()
{
    if
    :: scene == 0 -> look(ACQ, Y, 0); look(RLX, X, 1)
    :: scene == 1 ->
        look(RLX, Y, 0);
        if
        :: !bug -> fence(ACQ)
        :: else -> skip
        fi;
        look(RLX, X, 1)
    :: scene == 2 ->
        store(REL, Y, 1);
        if
        :: !bug -> fence_seqcst()
        :: else -> skip
        fi;
        look(ACQ, X, 0)
    :: scene == 3 ->
        store(RLX, Y, 1);
        if
        :: !bug -> membarrier()
        :: else -> skip
        fi;
        look(ACQ, X, 0)
    :: scene == 4 -> store(REL, Y, 1)
    :: scene == 5 ->
        atomic {
            c_expr { (weak_newest(1)) };
            if
            :: !bug -> rmw_read(RLX, Y, got); rmw_write(RLX, Y, 2)
            :: else -> store(RLX, Y, 2)
            fi;
            got = 0
        }
    fi
}

inline read_both(one, other)
{
    look(ACQ, one, 0);
    if
    :: scene == 4 && !bug -> fence_seqcst()
    :: else -> skip
    fi;
    look((scene == 5 -> RLX : ACQ), other, 1)
}

proctype thread(byte me)
{
    byte got;
    if
    :: me == 0 -> first()
    :: me == 1 -> second()
    :: me == 2 && scene == 4 -> read_both(X, Y)
    :: me == 3 && scene >= 4 -> read_both(Y, X)
    :: else -> skip
    fi;
    atomic {
        finished++;
        if
        :: finished == 4 && (scene == 0 || scene == 1) -> assert(!(seen[2] == 1 && seen[3] == 0))
        :: finished == 4 && (scene == 2 || scene == 3) -> assert(seen[0] || seen[2])
        :: finished == 4 && scene == 4 -> assert(!(seen[4] == 1 && seen[5] == 0 && seen[6] == 1 && seen[7] == 0))
        :: finished == 4 && scene == 5 -> assert(!(seen[6] == 2 && seen[7] == 0))
        :: else -> skip
        fi
    }
}

init
{
    atomic { start(); run thread(0); run thread(1); run thread(2); run thread(3) }
}
