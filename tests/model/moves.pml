/* SPDX-License-Identifier: Apache-2.0
 *
 * A holder set of two words under weak memory (blocks/block.c): a packet travels from a holder in the first word to one
 * in the second and back, and is never free. Whoever asks whether it is free reads the words one by one.
 *
 *   B1  moves is counted after a bit is set and before another is cleared
 *   B2  moves is read before and after the words
 *
 * SCENE=0: ssm_block_add and ssm_block_remove. SCENE=1: ssm_block_swap, by plain stores.
 */
c_decl {
\#define LOCATIONS 3
\#define MESSAGES 12
\#define THREADS 3
\#include "weak_memory.h"
}
c_track "&weak" "sizeof(struct weak_memory)"
#include "weak_memory.pml"

#define MOVES 0 /* moves */
#define WORD(w) (1 + (w))

/* 1  moves is not counted, B1   2  counted after the other bit was cleared   3  moves is not read again, B2
 * 4  the other bit is cleared relaxed   5  the words are read relaxed, without the fence
 * 6  sound: the words are read relaxed, with the fence   7  sound: acquire, without the fence */

/* The holder in word `from` hands over to one in word 1 - from. */
inline hand_over(from)
{
    if
    :: scene == 0 ->
        fetch_or(AR, WORD(1 - from), 1, x);
        if
        :: bug != 1 && bug != 2 -> fetch_add(AR, MOVES, 1, x) /* B1 */
        :: else -> skip
        fi;
        fetch_and_not((bug == 4 -> RLX : AR), WORD(from), 1, x);
        if
        :: bug == 2 -> fetch_add(AR, MOVES, 1, x)
        :: else -> skip
        fi
    :: else ->
        store(REL, WORD(1 - from), 1);
        load(RLX, MOVES, x);
        if
        :: bug != 1 && bug != 2 -> store(REL, MOVES, x + 1) /* B1 */
        :: else -> skip
        fi;
        store((bug == 4 -> RLX : REL), WORD(from), 0);
        if
        :: bug == 2 -> store(REL, MOVES, x + 1)
        :: else -> skip
        fi
    fi;
    x = 0
}

/* Between two holders stands a ring: its index (here: whose turn it is) orders what they do. */
byte turn;
inline my_turn(which) { atomic { turn == which; c_code { weak_join(weak.current[1], weak.current[0]); weak_join(weak.current[0], weak.current[1]); } } }

proctype holder(byte me)
{
    byte x, round;
    do
    :: round == 2 -> break
    :: else ->
        my_turn(me);
        if
        :: me == 0 -> hand_over(0)
        :: else -> hand_over(1)
        fi;
        turn = 1 - me;
        round++
    od;
    round = 0
}

proctype asker(byte me)
{
    byte before, after, a, b;
    load(ACQ, MOVES, before);
    load((bug == 5 || bug == 6 -> RLX : ACQ), WORD(0), a);
    load((bug == 5 || bug == 6 -> RLX : ACQ), WORD(1), b);
    if
    :: bug != 5 && bug != 7 -> fence(ACQ) /* B2 */
    :: else -> skip
    fi;
    after = before;
    if
    :: bug != 3 -> load(RLX, MOVES, after)
    :: else -> skip
    fi;
    assert(a != 0 || b != 0 || before != after)
}

init
{
    atomic {
        start();
        c_code { weak_append(0, 1, 1, 2, 0); weak_join(weak.current[1], weak.current[0]); weak_join(weak.current[2], weak.current[0]); };
        run holder(0); run holder(1); run asker(2)
    }
}
