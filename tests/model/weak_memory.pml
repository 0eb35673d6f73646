/* SPDX-License-Identifier: Apache-2.0
 *
 * The operations of platform/atomic.h on weak_memory.h. A process that uses them has a local `byte me`, its thread.
 * The operands go through these globals, which are 0 between two operations: they tell no states apart.
 */
byte w_me, w_at, w_where, w_order, w_value;

/* Orders; as in weak_memory.h. */
#define RLX 0
#define ACQ 1
#define REL 2
#define AR 3

/* From the environment: which seeded order is taken, 0 is the code's; and how large the scene is. */
byte bug, scene;

inline start()
{
    c_code {
        now.bug = getenv("BUG") ? (unsigned char)atoi(getenv("BUG")) : 0;
        now.scene = getenv("SCENE") ? (unsigned char)atoi(getenv("SCENE")) : 0;
    }
}

inline done_with_operands() { c_code { weak_forget(); }; w_me = 0; w_at = 0; w_where = 0; w_order = 0; w_value = 0 }

inline load(order, where, into)
{
    atomic {
        w_me = me; w_where = where; w_order = order;
        c_code { now.w_at = weak.current[now.w_me][now.w_where]; };
        do /* any message that is not too old */
        :: c_expr { now.w_at < weak.newest[now.w_where] } -> w_at++
        :: break
        od;
        c_code { now.w_value = (unsigned char)weak_load(now.w_me, now.w_where, now.w_at, now.w_order); };
        into = w_value; done_with_operands()
    }
}

inline store(order, where, what)
{
    d_step {
        w_me = me; w_where = where; w_order = order; w_value = what;
        c_code { weak_append(now.w_me, now.w_where, now.w_value, now.w_order, 0); };
        done_with_operands()
    }
}

/* The newest message; `into` is what was found. Only inside atomic or d_step, with rmw_write() if anything is written. */
inline rmw_read(order, where, into)
{
    w_me = me; w_where = where; w_order = order;
    c_code { now.w_value = (unsigned char)weak_rmw_read(now.w_me, now.w_where, now.w_order); };
    into = w_value; done_with_operands()
}

inline rmw_write(order, where, what)
{
    w_me = me; w_where = where; w_order = order; w_value = what;
    c_code { weak_rmw_write(now.w_me, now.w_where, now.w_value, now.w_order); };
    done_with_operands()
}

inline fetch_add(order, where, what, into)
{
    d_step { rmw_read(order, where, into); rmw_write(order, where, into + what) }
}

inline fetch_and_not(order, where, bits, into)
{
    d_step { rmw_read(order, where, into); rmw_write(order, where, into & (255 - (bits))) }
}

inline fetch_or(order, where, bits, into)
{
    d_step { rmw_read(order, where, into); rmw_write(order, where, into | (bits)) }
}

inline fence(order)
{
    d_step { w_me = me; w_order = order; c_code { weak_fence(now.w_me, now.w_order); }; done_with_operands() }
}

inline fence_seqcst()
{
    d_step { w_me = me; c_code { weak_fence_seqcst(now.w_me); }; done_with_operands() }
}

inline membarrier()
{
    d_step { w_me = me; c_code { weak_membarrier(now.w_me); }; done_with_operands() }
}

/* The thread reads no more. */
inline end() { d_step { w_me = me; c_code { weak_end(now.w_me); }; w_me = 0 } }

inline newest(where, into)
{
    w_where = where;
    c_code { now.w_value = (unsigned char)weak_newest(now.w_where); };
    into = w_value; done_with_operands()
}

