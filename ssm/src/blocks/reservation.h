/* SPDX-License-Identifier: Apache-2.0
 *
 * Reservations: a call that has waited for several blocks of a class is served before those that want one.
 *
 * Without them it would wait for ever: each block that comes free goes to a call that is content with it. So the
 * class has one word that says whose turn it is and until when. While it is somebody's turn, all others take nothing
 * from the class but what lies in their own caches; freed blocks add up in the shards, and the call whose turn it is
 * takes them together, all or none. It holds nothing meanwhile, so two such calls cannot wait for each other's blocks.
 *
 * A turn is short: 50 ms, and each time it was not long enough, twice as long, up to a second. Behind it comes a rest
 * of the turn's length, in which it is nobody's turn. So others go on, whatever the call waits for; it may wait for
 * what only they can free. A call whose turn was in vain asks again after a pause that doubles, too, and behind all
 * that asked meanwhile. The call that has asked for longest is next; if it does not take its turn (it is stopped),
 * another one does, GRACE_US later.
 *
 * In the arena each call may have a turn, for how much room it needs differs.
 *
 * Each step is one store into one word. Death, or a stop,
 *   after it asked         its place in the queue is passed over, and cleared when somebody looks, or by its reaper
 *   after its turn began   the others step back until somebody sees it dead, at the latest until the turn's time is over
 *   after its turn ended   those who stepped back were not woken: they look again in time (eventcount.h)
 * All words are guesses for everybody else: a word that was scribbled is no turn, or one that ends within
 * TURN_MAX_US. */
#ifndef SSM_RESERVATION_H
#define SSM_RESERVATION_H

#include "registry.h"

/* One call that waits: private memory. Zero at first. */
struct ssm_claimant {
    uint32_t slot;     /* pool->self + 1 when it asked; a forked child has another one, and has not asked */
    uint32_t turns;    /* that were in vain */
    uint64_t entry;    /* its word in the queue; 0: it has none */
    uint64_t turn;     /* its word while it is its turn; 0: it is not */
    uint64_t began_us; /* its turn */
    uint64_t asks_us;  /* from when on it may have a turn */
    uint64_t look_ns;  /* when to come here again */
};

#define SSM_RESERVATION_SLOT UINT64_C(0x1fff) /* of a word: the holder slot + 1 */

bool ssm_turn_is_anothers(const struct ssm_pool *pool, struct ssm_reservations *of, uint64_t own);

/* Is it the turn of another call than that whose word is `own` (0: of any)? Then nothing is to be taken. */
static inline bool ssm_turn_must_yield(const struct ssm_pool *pool, uint32_t class_idx, uint64_t own)
{
    struct ssm_reservations *of = &ssm_class_at(pool, class_idx)->reservations;
    /* Relaxed: a stale word is as if this call had come earlier. */
    return ssm_load_relaxed_u64(&of->turn) & SSM_RESERVATION_SLOT && ssm_turn_is_anothers(pool, of, own);
}

/* Is it somebody's turn? For signallers: it is not tested whether its process lives. */
bool ssm_turn_is_taken(const struct ssm_pool *pool, uint32_t class_idx);

/* Before each look at the blocks: asks, takes the turn, ends it when its time is over. True: it has ended, and those
 * who stepped back are to be woken. */
bool ssm_claimant_step(struct ssm_pool *pool, uint32_t class_idx, struct ssm_claimant *claimant);
/* When the call is over, whichever way. True: as above. */
bool ssm_claimant_end(struct ssm_pool *pool, uint32_t class_idx, struct ssm_claimant *claimant);

/* Takes out what a slot's process has asked for: it leaves, or is dead. True: it was its turn. */
bool ssm_reservations_forget(struct ssm_pool *pool, uint32_t class_idx, uint32_t slot);

/* How many calls ask. */
uint32_t ssm_reservations_count(const struct ssm_pool *pool, uint32_t class_idx);

#endif
