/* SPDX-License-Identifier: Apache-2.0
 *
 * RMIDs: the numbers 1 .. max_rmid, 0 is none. Resource monitoring ids, as the hardware has them and as the
 * rmid_allocator of memory-collector hands them out: first freed, first reused, and each rests for a minimum time
 * after it was freed, so that what is still counted under it is not booked on its next user.
 *
 * One header, no includes: the same text is C11, C++17 and `clang -target bpf`, v1 to v4, where it passes the
 * verifier with struct al_rmid in an array map. The clock is an argument; nothing here waits or locks.
 *
 * Time: all callers should read one clock. In BPF that is bpf_ktime_get_ns, in a process CLOCK_MONOTONIC less the
 * offset of its time namespace. Where callers' clocks differ, the rules are:
 *   T1  An RMID freed by a clock behind the latest time that the allocator was told is stamped with that latest time.
 *   T2  A caller whose clock is behind the stamp at the head gets that RMID one minimum free time after it asked first.
 *       The stamp stays, for callers whose clock is not behind.
 *   T3  After a rest by T2 the latest time is that caller's: one wrong time ahead is forgotten.
 * A clock that runs ahead of the others cannot be told from time that has passed.
 *
 * Process and thread safety: none, one caller at a time (in BPF: a spin lock in the map's value, or one CPU). Whoever
 * takes over from a caller that died calls al_rmid_recover().
 *
 * A queue of free RMIDs, with tickets that only grow:
 *
 *   ticket            head              tail
 *   ring[t % 1024]     [ 3 ][ 1 ][ 4 ]   -        next to be given: 3
 *   state[rmid]        the ticket under which the RMID waits, or AL_RMID_ALLOCATED
 *
 * Invariants, verified by al_rmid_check():
 *   I1  head <= tail <= head + max_rmid, and tail >= max_rmid
 *   I2  for each ticket t in [head, tail): ring[t % 1024] is an RMID whose state is t
 *   I3  every RMID that is not in the queue has the state AL_RMID_ALLOCATED
 *
 * Crash rule: state[rmid] is the truth, one store.
 *   alloc  before the store: nothing has happened. After it: the RMID is allocated; its place at the head of the queue
 *          no longer has its ticket, al_rmid_recover() steps over it.
 *   free   before the store: nothing has happened, what was noted behind the tail is overwritten by the next one.
 *          After it: the RMID is free and waits at the tail; al_rmid_recover() counts it in.
 * al_rmid_recover() may be interrupted and repeated. An owner noted per RMID outside (al_rmid_peek(), note it,
 * al_rmid_take()) counts exactly when the RMID is allocated.
 */
#ifndef AL_RMID_H
#define AL_RMID_H

/* A build constant, 1 .. 65536. The arrays have the next power of two, so that a mask bounds an index. */
#ifndef AL_RMID_MAX
#define AL_RMID_MAX 1024u
#endif
#define AL_RMID_SMEAR_(n, by) ((n) | (n) >> (by))
#define AL_RMID_MASK  AL_RMID_SMEAR_(AL_RMID_SMEAR_(AL_RMID_SMEAR_(AL_RMID_SMEAR_(AL_RMID_MAX - 1u, 1), 2), 4), 8)
#define AL_RMID_SLOTS (AL_RMID_MASK + 1u)

/* Predefined by the compiler. A BPF program has no libc headers and may have its own idea of uint64_t. */
typedef __UINT32_TYPE__ al_rmid_u32;
typedef __UINT64_TYPE__ al_rmid_u64;

#ifdef __cplusplus
#define AL_RMID_ASSERT(condition, why) static_assert(condition, why)
#else
#define AL_RMID_ASSERT(condition, why) _Static_assert(condition, why)
#endif
AL_RMID_ASSERT(AL_RMID_MAX >= 1 && AL_RMID_MAX <= 65536, "RMIDs are few: each is a counter of the hardware");

#define AL_RMID_FN         static inline __attribute__((always_inline, unused))
#define AL_RMID_IN_ORDER() __asm__ volatile("" ::: "memory") /* see AL_IN_ORDER in flat.h */

#define AL_RMID_MAGIC           0x3230646972006c61ull /* "al\0rid02" */
#define AL_RMID_ALLOCATED       0xffffffffffffffffull
#define AL_RMID_DEFAULT_REST_NS 2000000ull

/* Equal to those of flat.h, which is not included here. */
enum al_rmid_result {
    AL_RMID_OK               = 0,
    AL_RMID_NONE_FREE        = -1,
    AL_RMID_OUT_OF_RANGE     = -3,
    AL_RMID_ALREADY_RELEASED = -4,
    AL_RMID_NEVER_ALLOCATED  = -5,
    AL_RMID_CORRUPT          = -14,
    AL_RMID_RESTING          = -15, /* there are free ones, the first one's minimum free time is not over */
};

/* In the caller's memory: all of it, 20 KiB. */
struct al_rmid {
    al_rmid_u64 magic;
    al_rmid_u32 max_rmid;
    al_rmid_u32 reserved;
    al_rmid_u64 min_free_time_ns;
    al_rmid_u64 head;                    /* ticket of the next RMID to be given */
    al_rmid_u64 tail;                    /* ticket of the next RMID to be freed */
    al_rmid_u64 latest_ns;               /* latest time of an operation, see T1 and T3 */
    al_rmid_u64 behind_ticket;           /* T2: behind_ns is of this place at the head */
    al_rmid_u64 behind_ns;               /* T2: when a clock behind the head's stamp asked first */
    al_rmid_u64 state[AL_RMID_SLOTS];    /* [rmid - 1]: ticket, or AL_RMID_ALLOCATED */
    al_rmid_u64 freed_ns[AL_RMID_SLOTS]; /* [rmid - 1]: when, if its ticket is not one of the first max_rmid */
    al_rmid_u32 ring[AL_RMID_SLOTS];     /* [ticket % AL_RMID_SLOTS]: RMID */
};

AL_RMID_FN int al_rmid_is_one(const struct al_rmid *a, al_rmid_u32 rmid)
{
    return rmid - 1 < a->max_rmid; /* 0 becomes the largest number */
}

/* Where the RMID stands in `state` and `freed_ns`. The mask changes nothing where al_rmid_is_one(), unless another
 * process has overwritten max_rmid: nothing outside the arrays is touched then. In BPF it is for the verifier too, which
 * does not know about a bound once the compiler has compared a copy, or dropped the comparison. The empty statement
 * keeps the compiler from dropping the mask. */
AL_RMID_FN al_rmid_u64 al_rmid_slot(al_rmid_u32 rmid)
{
    al_rmid_u64 slot = rmid - 1;

#ifdef __bpf__
    __asm__ volatile("" : "+r"(slot));
#endif
    return slot & AL_RMID_MASK;
}

/* All RMIDs free, none resting; contents before do not matter. AL_RMID_OUT_OF_RANGE: max_rmid is not one of
 * 1 .. AL_RMID_MAX. */
AL_RMID_FN int al_rmid_init(struct al_rmid *a, al_rmid_u32 max_rmid, al_rmid_u64 min_free_time_ns)
{
    if (max_rmid == 0 || max_rmid > AL_RMID_MAX)
        return AL_RMID_OUT_OF_RANGE;
    a->magic = 0;
    a->max_rmid = max_rmid;
    a->reserved = 0;
    a->min_free_time_ns = min_free_time_ns;
    a->head = 0;
    a->tail = max_rmid;
    a->latest_ns = 0;
    a->behind_ticket = AL_RMID_ALLOCATED; /* no ticket */
    a->behind_ns = 0;
    /* Also those above max_rmid, which are never looked at: a loop without conditions is verified in one pass. */
    for (al_rmid_u32 i = 0; i < AL_RMID_SLOTS; i++) {
        a->state[i] = i;
        a->freed_ns[i] = 0;
        a->ring[i] = i + 1;
    }
    AL_RMID_IN_ORDER();
    a->magic = AL_RMID_MAGIC;
    return AL_RMID_OK;
}

/* Whether this memory has been laid out by al_rmid_init(). */
AL_RMID_FN int al_rmid_attach(const struct al_rmid *a)
{
    if (a->magic != AL_RMID_MAGIC || a->max_rmid == 0 || a->max_rmid > AL_RMID_MAX)
        return AL_RMID_CORRUPT;
    return AL_RMID_OK;
}

/* Whether the RMID at the head has rested, for a clock behind its stamp: T2, T3. Single stores, each complete: a death
 * between two costs a rest. */
AL_RMID_FN int al_rmid_has_rested_behind(struct al_rmid *a, al_rmid_u64 head, al_rmid_u64 now_ns)
{
    if (a->behind_ticket != head || now_ns < a->behind_ns) {
        a->behind_ns = now_ns;
        AL_RMID_IN_ORDER();
        a->behind_ticket = head;
    }
    if (now_ns - a->behind_ns < a->min_free_time_ns)
        return 0;
    a->latest_ns = now_ns;
    return 1;
}

/* Whether the RMID at the head has rested. The first max_rmid tickets are of RMIDs that were never freed: nothing to
 * rest from. The usual answer comes first. */
AL_RMID_FN int al_rmid_has_rested(struct al_rmid *a, al_rmid_u64 head, al_rmid_u64 freed_ns, al_rmid_u64 now_ns)
{
    al_rmid_u64 rest_ns;
    int is_behind = __builtin_sub_overflow(now_ns, freed_ns, &rest_ns);

    if ((!is_behind && rest_ns >= a->min_free_time_ns) || head < a->max_rmid)
        return 1;
    return is_behind && al_rmid_has_rested_behind(a, head, now_ns);
}

/* The RMID that would be given now: 1 .. AL_RMID_SLOTS, whatever the memory says. */
AL_RMID_FN int al_rmid_peek(struct al_rmid *a, al_rmid_u64 now_ns, al_rmid_u32 *rmid_out)
{
    al_rmid_u64 head = a->head, queued = a->tail - head;

    if (queued - 1 >= a->max_rmid)
        return queued == 0 ? AL_RMID_NONE_FREE : AL_RMID_CORRUPT;
    al_rmid_u32 rmid = a->ring[head & AL_RMID_MASK];
    if (!al_rmid_is_one(a, rmid) || a->state[al_rmid_slot(rmid)] != head)
        return AL_RMID_CORRUPT;
    if (!al_rmid_has_rested(a, head, a->freed_ns[al_rmid_slot(rmid)], now_ns))
        return AL_RMID_RESTING;
    if (now_ns > a->latest_ns)
        a->latest_ns = now_ns;
    *rmid_out = (al_rmid_u32)al_rmid_slot(rmid) + 1;
    return AL_RMID_OK;
}

/* Allocate the one that al_rmid_peek() gave. */
AL_RMID_FN int al_rmid_take(struct al_rmid *a, al_rmid_u32 rmid)
{
    if (!al_rmid_is_one(a, rmid))
        return AL_RMID_OUT_OF_RANGE;
    if (a->state[al_rmid_slot(rmid)] != a->head)
        return AL_RMID_NONE_FREE;
    a->state[al_rmid_slot(rmid)] = AL_RMID_ALLOCATED; /* the commit */
    AL_RMID_IN_ORDER();
    a->head++;
    return AL_RMID_OK;
}

/* The RMID that was freed first, if its minimum free time is over. AL_RMID_NONE_FREE, AL_RMID_RESTING. */
AL_RMID_FN int al_rmid_alloc(struct al_rmid *a, al_rmid_u64 now_ns, al_rmid_u32 *rmid_out)
{
    al_rmid_u32 rmid;
    int result = al_rmid_peek(a, now_ns, &rmid);

    if (result != AL_RMID_OK)
        return result;
    a->state[al_rmid_slot(rmid)] = AL_RMID_ALLOCATED; /* the commit */
    AL_RMID_IN_ORDER();
    a->head++;
    *rmid_out = rmid;
    return AL_RMID_OK;
}

/* AL_RMID_OUT_OF_RANGE, AL_RMID_NEVER_ALLOCATED, AL_RMID_ALREADY_RELEASED: nothing was changed. */
AL_RMID_FN int al_rmid_free(struct al_rmid *a, al_rmid_u32 rmid, al_rmid_u64 now_ns)
{
    if (!al_rmid_is_one(a, rmid))
        return AL_RMID_OUT_OF_RANGE;
    if (a->state[al_rmid_slot(rmid)] != AL_RMID_ALLOCATED)
        return a->state[al_rmid_slot(rmid)] < a->max_rmid ? AL_RMID_NEVER_ALLOCATED : AL_RMID_ALREADY_RELEASED;
    al_rmid_u64 tail = a->tail; /* where I1 is broken, the next al_rmid_peek() says so */
    if (now_ns > a->latest_ns)
        a->latest_ns = now_ns;
    a->freed_ns[al_rmid_slot(rmid)] = a->latest_ns; /* T1 */
    a->ring[tail & AL_RMID_MASK] = rmid;
    AL_RMID_IN_ORDER();
    a->state[al_rmid_slot(rmid)] = tail; /* the commit */
    AL_RMID_IN_ORDER();
    a->tail = tail + 1;
    return AL_RMID_OK;
}

AL_RMID_FN int al_rmid_is_allocated(const struct al_rmid *a, al_rmid_u32 rmid)
{
    if (!al_rmid_is_one(a, rmid))
        return 0;
    return a->state[al_rmid_slot(rmid)] == AL_RMID_ALLOCATED;
}

/* RMIDs that are allocated. */
AL_RMID_FN al_rmid_u32 al_rmid_used_count(const struct al_rmid *a)
{
    return a->max_rmid - (al_rmid_u32)(a->tail - a->head);
}

/* After a caller died inside an operation: at most one step at each end of the queue. */
AL_RMID_FN void al_rmid_recover(struct al_rmid *a)
{
    al_rmid_u64 head = a->head, tail = a->tail;
    al_rmid_u32 first = a->ring[head & AL_RMID_MASK], last = a->ring[tail & AL_RMID_MASK];

    if (head < tail && al_rmid_is_one(a, first) && a->state[al_rmid_slot(first)] == AL_RMID_ALLOCATED)
        a->head = head + 1;
    else if (al_rmid_is_one(a, last) && a->state[al_rmid_slot(last)] == tail)
        a->tail = tail + 1;
}

/* How many invariants are broken; each is reported. Not for BPF. */
#ifndef __bpf__
static inline __attribute__((unused)) al_rmid_u64 al_rmid_check(const struct al_rmid *a,
                                                                void (*report)(void *context, const char *what,
                                                                               al_rmid_u64 where, al_rmid_u64 value),
                                                                void *context)
{
    al_rmid_u64 broken = 0;
    al_rmid_u32 allocated = 0, max_rmid = a->max_rmid; /* once: another process may write there */

#define AL_RMID_BROKEN(what, where, value) (broken++, report ? report(context, what, where, value) : (void)0)
    if (al_rmid_attach(a) != AL_RMID_OK || max_rmid > AL_RMID_MAX) {
        AL_RMID_BROKEN("rmid: not laid out (magic, max_rmid)", a->magic, max_rmid);
        return broken;
    }
    for (al_rmid_u32 rmid = 1; rmid <= max_rmid; rmid++) {
        al_rmid_u64 ticket = a->state[al_rmid_slot(rmid)];
        if (ticket == AL_RMID_ALLOCATED)
            allocated++;
        else if (ticket < a->head || ticket >= a->tail || a->ring[ticket & AL_RMID_MASK] != rmid)
            AL_RMID_BROKEN("rmid I3: neither allocated nor in the queue (rmid, ticket)", rmid, ticket);
    }
    if (a->head > a->tail || a->tail < max_rmid || a->tail - a->head != max_rmid - allocated)
        AL_RMID_BROKEN("rmid I1: the queue is not as long as there are free RMIDs (head, tail)", a->head, a->tail);
    for (al_rmid_u64 t = a->head; t < a->tail && t - a->head < AL_RMID_SLOTS; t++) {
        al_rmid_u32 rmid = a->ring[t & AL_RMID_MASK];
        if (rmid == 0 || rmid > max_rmid || a->state[al_rmid_slot(rmid)] != t)
            AL_RMID_BROKEN("rmid I2: a place in the queue is not that of its RMID (ticket, rmid)", t, rmid);
    }
#undef AL_RMID_BROKEN
    return broken;
}
#endif

#endif
