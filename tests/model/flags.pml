/* SPDX-License-Identifier: Apache-2.0
 *
 * Flags that say "look there", or "do not", under weak memory.
 *
 * SCENE=0  returned    D5  ssm_ring_return(): the packet is among the returned ones, then the flag
 *                      D6  take_returned(): the flag goes, by an exchange, before the table is looked through
 *          Two packets come back, one after the other; gets take one each. What is left in the end, the flag tells of.
 * SCENE=1  unsettled   U1  ssm_block_settle(): the last bit is gone and the shard's lock is taken, then the flag
 *                      U2  ssm_class_settle(): the flag goes, by an exchange, before the blocks are looked at
 *          A free block is on a list in the end, or the flag tells of it.
 * SCENE=2  acl         P1  ssm_ring_shutdown(): the flag, under the producer's right
 *                      P2  get_attempt(): the flag, then the head
 *          Who is told that no more will come is not wrong.
 * SCENE=3  letting_go  F1  ssm_block_let_go(): a note, then the bit goes; the note goes when the block is listed
 *                      F2  check_blocks(): the set, the note, and the set once more
 *          A process may be stopped between any two steps: nothing is called lost that it lists when it goes on.
 * SCENE=4  doubts      V1  ssm_event_count_late(): the doubt, a fence, then the word once more
 *                      V2  ssm_event_wake(): the word, a fence, then the doubts
 *          A wait that was counted as late while its signal was on the way is not counted in the end.
 * SCENE=5  gone_ns     Z1  ssm_partner_goes(): the last packet, then since when the producer is gone
 *                      Z2  ssm_ring_is_orphaned(): since when it is gone, then the head
 *          Who is told that nobody puts any more has seen all that the last producer put.
 * SCENE=6  putters     Z3  take_out(): its packets, then the own bit goes
 *                      Z4  has_no_peer(): the set, then the head
 *          The same of two producers, either of which may be the last one.
 */
c_decl {
\#define LOCATIONS 3
\#define MESSAGES 12
\#define THREADS 3
\#include "weak_memory.h"
}
c_track "&weak" "sizeof(struct weak_memory)"
#include "weak_memory.pml"

/* 1  D5 relaxed   2  D6 relaxed   3  D6 after the look   4  D5 before the packet is there
 * 5  U1 relaxed   6  U2 relaxed   7  U2 after the look   8  U1 before the bit goes
 * 9  P1 relaxed   10  P2 relaxed   11  P2: the head, then the flag   12  P1 without the right
 * 13  P1: a put looks at the flag before it has the right only
 * 14  F1: the bit goes relaxed   15  F1: the note after the bit   16  F1: the note goes before the block is listed
 * 17  F2: the set is loaded relaxed   18  F2: no look at the set after the note   19  F1: the note goes relaxed
 * 20  V1: the word, then the doubt   21  V2: the doubts, then the word
 * 22  Z1 relaxed   23  Z2 relaxed   24  Z2: the head, then since when   25  Z1 before the last packet
 * 26  Z3 relaxed   27  Z4 relaxed   28  Z4: the head, then the set   29  Z3 before the packet */
byte ended;

/* ---- SCENE=0: the two entries, 1 when their packet came back; SCENE=1: the set and `listed` ---- */
#define ENTRY(i) (i)
#define SET 0 /* holders */
#define LISTED 1
#define FLAG 2 /* returned, unsettled */

inline set_flag(order) { store(order, FLAG, 1) }

inline return_two()
{
    do
    :: i == 2 -> break
    :: else ->
        if
        :: bug == 4 -> set_flag(REL)
        :: else -> skip
        fi;
        atomic { rmw_read(AR, ENTRY(i), x); rmw_write(AR, ENTRY(i), 1); x = 0 };
        if
        :: bug != 4 -> store((bug == 1 -> RLX : REL), FLAG, 1) /* D5 */
        :: else -> skip
        fi;
        i++
    od
}

inline exchange_flag(order) { atomic { rmw_read(order, FLAG, x); rmw_write(order, FLAG, 0); x = 0 } }

/* A get of one packet; what is left sets the flag again. */
inline take_one()
{
    load(ACQ, FLAG, x);
    if
    :: x == 0 -> skip
    :: else ->
        x = 0;
        if
        :: bug != 3 -> fetch_and_not((bug == 2 -> RLX : AR), FLAG, 1, x); x = 0 /* D6 */
        :: else -> skip
        fi;
        load(ACQ, ENTRY(0), x); load(ACQ, ENTRY(1), y);
        if
        :: x == 1 && y == 1 -> fetch_and_not(AR, ENTRY(0), 1, z); z = 1
        :: x == 1 && y == 0 -> fetch_and_not(AR, ENTRY(0), 1, z); z = 0
        :: x == 0 && y == 1 -> fetch_and_not(AR, ENTRY(1), 1, z); z = 0
        :: else -> skip
        fi;
        if
        :: bug == 3 -> exchange_flag(AR)
        :: else -> skip
        fi;
        if
        :: z == 1 -> set_flag(REL)
        :: else -> skip
        fi
    fi;
    x = 0; y = 0; z = 0
}

inline let_go_of_it()
{
    if
    :: bug == 8 -> set_flag(REL)
    :: else -> skip
    fi;
    fetch_and_not(AR, SET, 1, x);
    if
    :: bug != 8 -> store((bug == 5 -> RLX : REL), FLAG, 1) /* U1 */
    :: else -> skip
    fi
}

inline settle_class()
{
    load(RLX, FLAG, x);
    if
    :: x == 0 -> skip
    :: else ->
        if
        :: bug != 7 -> fetch_and_not((bug == 6 -> RLX : AR), FLAG, 1, x) /* U2 */
        :: else -> skip
        fi;
        load(ACQ, SET, y);
        if
        :: y == 0 -> store(REL, LISTED, 1)
        :: else -> skip
        fi;
        if
        :: bug == 7 -> exchange_flag(AR)
        :: else -> skip
        fi
    fi;
    x = 0; y = 0
}

/* ---- SCENE=2 ---- */
#define HEAD 0
#define ACL 1 /* acl */
#define RIGHT 2
bool over; /* somebody was told so */

inline take_right()
{
    atomic { c_expr { (!weak_newest(2)) }; rmw_read(AR, RIGHT, x); rmw_write(AR, RIGHT, 1); x = 0 }
}

inline give_right() { atomic { rmw_read(AR, RIGHT, x); rmw_write(AR, RIGHT, 0); x = 0 } }

inline put_two()
{
    do
    :: i == 2 -> break
    :: else ->
        if
        :: bug == 13 -> load(ACQ, ACL, y)
        :: else -> skip
        fi;
        take_right();
        if
        :: bug != 13 -> load(ACQ, ACL, y)
        :: else -> skip
        fi;
        if
        :: y == 0 -> assert(!over); store(REL, HEAD, i + 1)
        :: else -> skip
        fi;
        give_right();
        i++
    od
}

inline shut_down()
{
    if
    :: bug != 12 -> take_right()
    :: else -> skip
    fi;
    fetch_or((bug == 9 -> RLX : AR), ACL, 1, x); /* P1 */
    if
    :: bug != 12 -> give_right()
    :: else -> skip
    fi
}

inline get_until_over()
{
    do
    :: i == 2 || over -> break
    :: else ->
        i++;
        if
        :: bug == 11 -> load(ACQ, HEAD, z); load(ACQ, ACL, y)
        :: else ->
        load((bug == 10 -> RLX : ACQ), ACL, y); /* P2 */
        load(ACQ, HEAD, z)
        fi;
        if
        :: y == 1 -> atomic { newest(HEAD, x); assert(x == z); over = true; x = 0 }
        :: else -> skip
        fi;
        y = 0; z = 0
    od
}

/* ---- SCENE=3 ---- */
#define NOTE 2 /* letting_go */

inline let_go_with_a_note()
{
    if
    :: bug != 15 -> store(REL, NOTE, 1) /* F1 */
    :: else -> skip
    fi;
    fetch_and_not((bug == 14 -> RLX : AR), SET, 1, x); /* F1 */
    if
    :: bug == 15 -> store(REL, NOTE, 1)
    :: else -> skip
    fi;
    if
    :: bug == 16 -> store(REL, NOTE, 0); store(REL, LISTED, 1)
    :: else ->
        store(REL, LISTED, 1);
        store((bug == 19 -> RLX : REL), NOTE, 0) /* F1 */
    fi
}

/* `lost`: neither listed nor held. */
inline look(order, lost)
{
    load(ACQ, LISTED, x);
    load(order, SET, y);
    lost = (x == 0 && y == 0);
    x = 0; y = 0
}

inline check()
{
    load(ACQ, LISTED, x);
    load((bug == 17 -> RLX : ACQ), SET, y); /* F2 */
    i = (x == 0 && y == 0);
    load(ACQ, NOTE, z); /* F2 */
    if
    :: bug == 18 -> skip
    :: else -> look(ACQ, w)
    fi;
    assert(!(i && z == 0 && (w || bug == 18)))
}

/* ---- SCENE=4 ---- */
#define WORD 0
#define DOUBTS 1
#define LATE 2

inline take_back()
{
    load(RLX, DOUBTS, y);
    if
    :: y != 0 ->
        atomic { rmw_read(AR, DOUBTS, y); rmw_write(AR, DOUBTS, 0) };
        fetch_add(AR, LATE, 0 - y, x)
    :: else -> skip
    fi;
    x = 0; y = 0
}

inline count_late()
{
    load(RLX, WORD, z);
    if
    :: z == 0 -> /* nobody has signalled */
        fetch_add(AR, LATE, 1, x);
        if
        :: bug == 20 -> load(RLX, WORD, z)
        :: else -> skip
        fi;
        fetch_add(AR, DOUBTS, 1, x);
        fence_seqcst(); /* V1 */
        if
        :: bug != 20 -> load(RLX, WORD, z)
        :: else -> skip
        fi;
        if
        :: z != 0 -> take_back()
        :: else -> skip
        fi
    :: else -> skip
    fi
}

inline wake()
{
    if
    :: bug == 21 -> take_back()
    :: else -> skip
    fi;
    fetch_add(AR, WORD, 1, x);
    fence_seqcst(); /* V2 */
    if
    :: bug != 21 -> take_back()
    :: else -> skip
    fi
}

/* ---- SCENE=5; HEAD and RIGHT as in SCENE=2 ---- */
#define GONE 1 /* gone_ns */

inline put_and_go()
{
    store(REL, HEAD, 1);
    if
    :: bug == 25 -> store(REL, GONE, 1)
    :: else -> skip
    fi;
    store(REL, HEAD, 2);
    if
    :: bug != 25 -> store((bug == 22 -> RLX : REL), GONE, 1) /* Z1 */
    :: else -> skip
    fi;
    atomic { rmw_read(AR, RIGHT, x); rmw_write(AR, RIGHT, 0); x = 0 }
}

inline get_until_orphaned()
{
    do
    :: i == 2 || over -> break
    :: else ->
        i++;
        if
        :: bug == 24 -> load(ACQ, HEAD, z); load(ACQ, GONE, y)
        :: else -> load((bug == 23 -> RLX : ACQ), GONE, y) /* Z2 */
        fi;
        load(RLX, RIGHT, x);
        if
        :: bug != 24 -> load(ACQ, HEAD, z)
        :: else -> skip
        fi;
        if
        :: y == 1 && x == 0 -> assert(z == 2); over = true
        :: else -> skip
        fi;
        x = 0; y = 0; z = 0
    od
}

/* ---- SCENE=6; HEAD and RIGHT as in SCENE=2 ---- */
#define PEERS 1 /* set */

inline put_and_leave(own)
{
    if
    :: bug == 29 -> fetch_and_not(AR, PEERS, own, x)
    :: else -> skip
    fi;
    fetch_add(AR, HEAD, 1, z); z = 0;
    if
    :: bug != 29 -> fetch_and_not((bug == 26 -> RLX : AR), PEERS, own, x) /* Z3 */
    :: else -> skip
    fi
}

inline get_until_nobody_is_left()
{
    do
    :: i == 2 || over -> break
    :: else ->
        i++;
        if
        :: bug == 28 -> load(ACQ, HEAD, z); load(ACQ, PEERS, y)
        :: else ->
        load((bug == 27 -> RLX : ACQ), PEERS, y); /* Z4 */
        load(ACQ, HEAD, z)
        fi;
        if
        :: y == 0 -> assert(z == 2); over = true
        :: else -> skip
        fi;
        y = 0; z = 0
    od
}

/* ---- all of them ---- */

inline finish()
{
    atomic {
        ended++;
        if
        :: ended == 2 && scene == 0 ->
            newest(ENTRY(0), x); newest(ENTRY(1), y); newest(FLAG, z);
            assert((x == 0 && y == 0) || z == 1)
        :: ended == 2 && scene == 1 ->
            newest(LISTED, x); newest(FLAG, z);
            assert(x == 1 || z == 1)
        :: ended == 2 && scene == 4 -> newest(LATE, x); assert(x == 0)
        :: else -> skip
        fi;
        end(); x = 0; y = 0; z = 0; w = 0; i = 0
    }
}

proctype thread(byte me)
{
    byte w, x, y, z, i;
    if
    :: scene == 0 && me == 0 -> return_two()
    :: scene == 0 && me == 1 -> take_one(); take_one(); take_one()
    :: scene == 1 && me == 0 -> let_go_of_it()
    :: scene == 1 && me == 1 -> settle_class(); settle_class()
    :: scene == 2 && me == 0 -> put_two()
    :: scene == 2 && me == 1 -> shut_down()
    :: scene == 2 && me == 2 -> get_until_over()
    :: scene == 3 && me == 0 -> let_go_with_a_note()
    :: scene == 3 && me == 1 -> check()
    :: scene == 4 && me == 0 -> count_late()
    :: scene == 4 && me == 1 -> wake()
    :: scene == 5 && me == 0 -> put_and_go()
    :: scene == 5 && me == 1 -> get_until_orphaned()
    :: scene == 6 && me == 0 -> put_and_leave(1)
    :: scene == 6 && me == 1 -> put_and_leave(2)
    :: scene == 6 && me == 2 -> get_until_nobody_is_left()
    fi;
    finish()
}

init
{
    atomic {
        start();
        c_code {
            weak.messages[0][0].value = now.scene == 1 || now.scene == 3; /* held */
            weak.messages[2][0].value = now.scene == 5;                   /* the producer's side is claimed */
            weak.messages[1][0].value = now.scene == 6 ? 3 : 0;           /* two producers */
        };
        run thread(0); run thread(1);
        if
        :: scene == 2 || scene == 6 -> run thread(2)
        :: else -> c_code { weak_end(2); }
        fi
    }
}
