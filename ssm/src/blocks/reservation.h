/* SPDX-License-Identifier: Apache-2.0
 *
 * Reservations: a call that has waited for several blocks of a class is served before calls that want one.
 *
 * Without reservations it would wait for ever, since each block that comes free goes to a call that wants only one. So
 * the class has one word that says which call has its turn, and until when. During a turn, all other calls take nothing
 * from the class except blocks in their own caches. Freed blocks gather in the shards, and the call that has its turn
 * takes them together, all or none. It holds nothing until then, so two such calls cannot wait for each other's blocks.
 *
 * A turn is short: 50 ms at first, twice as long after each turn that was too short, at most a second. A rest of the
 * same length follows, in which nobody has a turn. So other calls go on, which may be the only ones that can free what
 * the call waits for. A call whose turn was in vain asks again after a pause, which doubles, too, and behind all calls
 * that asked meanwhile. The next turn is for the call that has asked for longest. If that call does not take its turn
 * (its process is stopped), another one does, GRACE_US later.
 *
 * In the arena each call may have a turn, since each needs another amount of room.
 *
 * Each step is one store into one word. After a death or a stop,
 *   after it asked         others pass over its place in the queue, and clear it when they look, or its reaper does
 *   after its turn began   others step back until one of them finds it dead, or until its turn is over
 *   after its turn ended   the calls that stepped back were not woken: they look again in time (eventcount.h)
 * To other processes all words are guesses: a damaged word is no turn, or a turn that ends within TURN_MAX_US. */
#ifndef SSM_RESERVATION_H
#define SSM_RESERVATION_H

#include "registry.h"

/* One call that waits, in private memory. Zero at first. */
struct ssm_claimant {
    uint32_t slot;     /* pool->self + 1 when it asked; differs in a forked child, which has not asked */
    uint32_t turns;    /* its turns that were in vain */
    uint64_t entry;    /* its word in the queue, or 0 */
    uint64_t turn;     /* its word during its turn, or 0 */
    uint64_t began_us; /* when its turn began */
    uint64_t asks_us;  /* when it may first have a turn */
    uint64_t look_ns;  /* when to call ssm_claimant_step() again */
};

#define SSM_RESERVATION_SLOT UINT64_C(0x1fff) /* of a word: the holder slot + 1 */

bool ssm_turn_is_anothers(const struct ssm_pool *pool, struct ssm_reservations *of, uint64_t own);

/* Must the call whose word is `own` (0: it has no turn) leave the class alone, since another call has its turn? */
static inline bool ssm_turn_must_yield(const struct ssm_pool *pool, uint32_t class_idx, uint64_t own)
{
    struct ssm_reservations *of = &ssm_class_at(pool, class_idx)->reservations;
    /* Relaxed: with a stale word, it is as if this call had come earlier. */
    return ssm_load_relaxed_u64(&of->turn) & SSM_RESERVATION_SLOT && ssm_turn_is_anothers(pool, of, own);
}

/* Has any call its turn? For signallers: does not test whether its process lives. */
bool ssm_turn_is_taken(const struct ssm_pool *pool, uint32_t class_idx);

/* Called before each look at the blocks: asks, takes a turn, or ends one that is over. True if a turn ended: then the
 * caller wakes the calls that stepped back. */
bool ssm_claimant_step(struct ssm_pool *pool, uint32_t class_idx, struct ssm_claimant *claimant);
/* Called when the call is over. True as above. */
bool ssm_claimant_end(struct ssm_pool *pool, uint32_t class_idx, struct ssm_claimant *claimant);

/* Withdraws the requests of a slot's process, which leaves or is dead. True if it had its turn. */
bool ssm_reservations_forget(struct ssm_pool *pool, uint32_t class_idx, uint32_t slot);

/* Counts the calls that ask. */
uint32_t ssm_reservations_count(const struct ssm_pool *pool, uint32_t class_idx);

#endif
