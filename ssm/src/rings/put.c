/* SPDX-License-Identifier: Apache-2.0
 *
 * Putting packets into a ring.
 *
 * put, under the producer's right, and what a death after each step leaves:
 *   1  check: room, handles held, none of them carries the ring's bit     nothing
 *   2  write the handles to the slots from head on                        slots nobody looks at
 *   3  put_intent = head + n                                              slots without the ring's bit: no effect
 *   4  each block: ring's bit set, own bit cleared;                       repair takes the ring's bit from the slots
 *      of a chain, the head first                                         [head, put_intent) and settles: not delivered
 *   5  head += n, with release (R1)                                       delivered
 *   6  put_intent = 0; the right is given up                              put_intent <= head: no effect
 * Step 4 comes before 5, so that a block which its producer has alone is handed over by one plain store, before
 * any consumer can see it. (put_intent must not precede the slots: an old handle there would be taken for the new.)
 *
 * put of deliveries, packets that this process took out of a redelivering ring:
 *   3  their entries are marked as leaving; put_owner = who, how many;    no effect: put_owner counts with put_intent
 *      then put_intent                                                    only, and the mark with the publication
 *   4  their own bits stay                                                not delivered; a reaper returns them
 *   5  head += n (R1)                                                     delivered; the repair makes void what is
 *                                                                         marked, for the process that died
 *   6  each: its entry becomes void; own bit cleared, unless this         as above; a reaper clears the bits
 *      process has other references; what is free then is settled
 *   7  put_owner = 0; put_intent = 0                                      nothing
 * While put_owner names a dead process, its repair is under way, and reapers leave that process alone. A packet that
 * this process keeps is not marked, and step 6 passes it over. Views, and other deliveries of the same packet, are
 * references: they keep the process's bit, but no entry.
 *
 * put of packets that others were made from (`done`, deliveries of this process that it does not put): as a put of
 * deliveries. Step 3 marks those of `done`, too, and step 6 makes their entries void. So the publication (5) ends them.
 *   1, 2                                                                  nothing; a reaper returns those of `done`
 *   3, 4                                                                  not delivered; a reaper returns those of `done`
 *   5, 6                                                                  delivered; the repair makes void what is marked
 * Their references stay the caller's.
 *
 * put into a full ring that overflows (step 1 finds it full):
 *   drops      puts the first packets, as many as there is room for, as above; counts the others; gives the right up,
 *              and frees them. A death leaves them to the reaper, which frees them.
 *   overwrites 1  gives the right up
 *              2  takes the consumer's right; takes out the oldest packets, as any get, and counts them (get.c)
 *              3  gives that right up; frees the packets                  a ring with room; the reaper frees them
 *              4  back to step 1: others may have used the room           a ring with room
 *              So no process has one right while it takes the other, and no packet is evicted if there is room.
 *   samples    packet by packet: counts those that find no room, under the right; the count says which of the two above
 *              follows. A death after the count brings the next packet one nearer to its turn.
 *
 * ring_side.c repairs the producer's side accordingly: exactly, idempotently, and without a log. The common case of put
 * is in ring_fast.h.
 */
#include "free.h"
#include "get.h"
#include "overflow.h"
#include "redelivery.h"
#include "ring_fast.h"
#include "ring_partner.h"
#include "ring_side.h"
#include "ring_widen.h"
#include "seed_bug.h"
#include "sleep.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OVERWRITE_LOOKS 1000 /* while other producers use the room each time; then the call waits */

struct put_call {
    struct ssm_ring       *ring;
    const uint64_t        *handles;
    const uint64_t        *deliveries; /* one per handle, or one for all (SSM_ONE_DELIVERY); NULL: the latest of each */
    uint32_t               count, flags;
    uint32_t              *roster_out; /* of ssm_ring_publish(), or NULL */
    const struct ssm_done *done;       /* or NULL */
};

/* Is the packet in this ring, or on its way out of it? Reads the bit first: see redelivery.h (D4). */
static bool is_in_ring(const struct ssm_ring *ring, uint64_t handle)
{
    return ssm_block_has(ssm_block_at(ring->pool, (uint32_t)handle), ring->id) || /* D4 */
           (ring->table != NULL && ssm_redelivery_is_under_way(ring->pool, ring->table, handle));
}

/* Can the whole chain be put? This process must have exactly one reference to each packet, so that none is left. */
static SSM_COLD int check_chain(const struct ssm_ring *ring, uint32_t head_idx, bool keep)
{
    const struct ssm_pool *pool = ring->pool;
    uint32_t count = 0, last = head_idx;
    if (pool->claims[head_idx].flags & SSM_CLAIM_SEGMENT)
        return -SSM_E_SEGMENT;
    if (ring->table != NULL)
        return -SSM_E_CHAIN;
    for (uint32_t at = head_idx; at != SSM_NIL && count < SSM_CHAIN_MAX; at = ssm_chain_next(pool, at), count++) {
        if (pool->claims[at].pins != 0)
            return -SSM_E_PINNED;
        if (pool->claims[at].references != 1)
            return -SSM_E_SHARED;
        last = at;
    }
    if (keep)
        return -SSM_E_CHAIN;
    return ssm_load_relaxed_u64(&ssm_block_at(pool, last)->next) == SSM_NO_NEXT ? 0 : -SSM_E_CORRUPT;
}

/* Checks that this process holds each packet, that none is in this ring, and none twice in the batch. `flags_out`: the
 * flags of all claims. */
static SSM_COLD int check_handles(struct ssm_ring *ring, const uint64_t *handles, uint32_t count, bool keep,
                                  uint8_t *flags_out)
{
    struct ssm_pool *pool = ring->pool;
    uint32_t checked = 0;
    int result = 0;
    for (; checked < count && result == 0; checked++) {
        uint32_t block_idx = ssm_claim_find(pool, handles[checked]);
        if (block_idx == SSM_NIL)
            result = -SSM_E_STALE;
        else if (pool->claims[block_idx].flags & SSM_CLAIM_OF_CHAIN &&
                 (result = check_chain(ring, block_idx, keep)) != 0)
            continue;
        else if (!keep && !ssm_claim_is_movable(&pool->claims[block_idx]))
            result = -SSM_E_STALE;
        else if (pool->claims[block_idx].flags & SSM_CLAIM_MARKED || is_in_ring(ring, handles[checked]))
            result = -SSM_E_QUEUED;
        else
            *flags_out |= pool->claims[block_idx].flags |= SSM_CLAIM_MARKED;
    }
    for (uint32_t i = 0; i + (result != 0) < checked; i++) /* after a failure the last one has no mark */
        pool->claims[(uint32_t)handles[i]].flags &= (uint8_t)~SSM_CLAIM_MARKED;
    return result;
}

/* Returns the table of the delivery that ends because packet i of `done` is done with. NULL: it is not open. */
static const struct ssm_redelivery *done_of(const struct put_call *call, uint32_t i)
{
    const struct ssm_done *done = call->done;
    const uint32_t block_idx = ssm_claim_find(call->ring->pool, done->handles[i]);
    const uint64_t delivery = done->deliveries == NULL ? SSM_ANY_DELIVERY : done->deliveries[done->one_for_all ? 0 : i];
    return block_idx == SSM_NIL ? NULL : ssm_delivery_find(call->ring->pool, block_idx, delivery);
}

/* Checks that each packet of `done` is an open delivery of this process, that none stands there twice, and none is put.
 * The claims of those that are put exist. */
static SSM_COLD int check_done(const struct put_call *call)
{
    struct ssm_claim *const claims = call->ring->pool->claims;
    uint32_t checked = 0;
    int result = 0;
    for (uint32_t i = 0; i < call->count; i++)
        claims[(uint32_t)call->handles[i]].flags |= SSM_CLAIM_MARKED;
    for (; checked < call->done->count && result == 0; checked++) {
        if (done_of(call, checked) == NULL || claims[(uint32_t)call->done->handles[checked]].flags & SSM_CLAIM_MARKED)
            result = -SSM_E_DONE;
        else
            claims[(uint32_t)call->done->handles[checked]].flags |= SSM_CLAIM_MARKED;
    }
    for (uint32_t i = 0; i < call->count; i++)
        claims[(uint32_t)call->handles[i]].flags &= (uint8_t)~SSM_CLAIM_MARKED;
    for (uint32_t i = 0; i + (result != 0) < checked; i++) /* after a failure the last one has no mark of its own */
        claims[(uint32_t)call->done->handles[i]].flags &= (uint8_t)~SSM_CLAIM_MARKED;
    return result;
}

static inline int look_for_room(struct ssm_ring *ring, uint64_t head, uint32_t count)
{
    struct ssm_side *producer = &ring->shared->producer;
    uint64_t high_water = ssm_load_relaxed_u64(&producer->count);
    uint64_t depth = head - ssm_load_relaxed_u64(&producer->peer);
    if (depth < high_water && high_water - depth >= count && high_water <= ring->places)
        return 0;
    /* By the tail as last seen, the ring is full or this is a new high water mark: read the tail again. */
    uint64_t tail = ssm_load_acquire_u64(&ring->shared->consumer.index); /* A2: pairs with R2 in get_queued() */
    ssm_store_relaxed_u64(&producer->peer, tail);
    depth = head - tail;
    if (depth > ring->places)
        return -SSM_E_CORRUPT;
    if (ring->places - depth < count)
        return -SSM_E_FULL;
    if (depth + count > high_water)
        ssm_store_relaxed_u64(&producer->count, depth + count);
    return 0;
}

/* Returns the table of the delivery that ends when packet i is put, or NULL. */
static const struct ssm_redelivery *delivery_of(const struct put_call *call, uint32_t i)
{
    struct ssm_pool *pool = call->ring->pool;
    const struct ssm_claim *claim = &pool->claims[(uint32_t)call->handles[i]];
    if (!(claim->flags & SSM_CLAIM_DELIVERED) || (call->flags & (SSM_KEEP | SSM_HANDOVER)) == SSM_KEEP)
        return NULL;
    const bool any = call->deliveries == NULL || claim->references == 1; /* the last reference goes */
    return ssm_delivery_find(pool, (uint32_t)call->handles[i],
                             any ? SSM_ANY_DELIVERY : call->deliveries[call->flags & SSM_ONE_DELIVERY ? 0 : i]);
}

/* Step 4 for one block. A delivery stays until the index is published, in case this process dies before. */
static void hand_to_ring(struct ssm_ring *ring, uint64_t handle, bool keep)
{
    struct ssm_pool *pool = ring->pool;
    struct ssm_block *block = ssm_block_at(pool, (uint32_t)handle);
    struct ssm_claim *claim = &pool->claims[(uint32_t)handle];
    SSM_ASSERT_SHARED(!ssm_block_has(block, ring->id) && ssm_block_has(block, pool->self));
    bool delivery = claim->flags & SSM_CLAIM_MARKED, mine_too = keep || delivery || claim->references > 1;
    if (!mine_too && ssm_block_is_mine(pool, block)) {
        ssm_block_swap(block, pool->self, ring->id);
    } else {
        claim->flags |= SSM_CLAIM_SHARED;
        ssm_block_add(pool, block, ring->id);
        if (!mine_too)
            ssm_block_remove(block, pool->self);
    }
    if (keep || delivery)
        return; /* see finish_deliveries() */
    SSM_ASSERT(claim->references > 0);
    claim->references--;
    if (mine_too)
        return;
    claim->flags &= (uint8_t)~SSM_CLAIM_REDELIVERED;
    ssm_usage_subtract(pool, ssm_memory_held(pool, claim->class_idx, (uint32_t)handle).bytes);
}

/* Step 4 for a chain, the head first (N3). */
static SSM_COLD void hand_chain_to_ring(struct ssm_ring *ring, uint64_t head)
{
    struct ssm_pool *pool = ring->pool;
    for (uint32_t at = (uint32_t)head, next; at != SSM_NIL; at = next) {
        next = ssm_chain_next(pool, at);
        pool->claims[at].flags &= (uint8_t)~SSM_CLAIM_OF_CHAIN;
        hand_to_ring(ring, at, false);
    }
}

/* Step 3 for the deliveries that end with the put, before put_owner. Their claims are marked until step 6. */
static void mark_deliveries(const struct put_call *call)
{
    struct ssm_pool *pool = call->ring->pool;
    for (uint32_t i = 0; i < call->count; i++) {
        const struct ssm_redelivery *table = delivery_of(call, i);
        if (table == NULL)
            continue;
        ssm_delivery_leave(pool, table, (uint32_t)call->handles[i]);
        pool->claims[(uint32_t)call->handles[i]].flags |= SSM_CLAIM_MARKED;
    }
}

/* Step 3 for those of `done`. */
static void mark_done(const struct put_call *call)
{
    for (uint32_t i = 0; call->done != NULL && i < call->done->count; i++)
        ssm_delivery_leave(call->ring->pool, done_of(call, i), (uint32_t)call->done->handles[i]);
}

/* Step 6 for those of `done`, which are this process's still. */
static void end_done(const struct put_call *call)
{
    const struct ssm_redelivery *table;
    for (uint32_t i = 0; call->done != NULL && i < call->done->count; i++)
        if ((table = done_of(call, i)) != NULL)
            ssm_delivery_end(call->ring->pool, table, (uint32_t)call->done->handles[i]);
}

/* Step 6: ends the deliveries, and drops the references. A consumer may have freed such a packet already. */
static void finish_deliveries(const struct put_call *call)
{
    struct ssm_pool *pool = call->ring->pool;
    for (uint32_t i = 0; i < call->count; i++) {
        struct ssm_claim *claim = &pool->claims[(uint32_t)call->handles[i]];
        if (!(claim->flags & SSM_CLAIM_MARKED))
            continue;
        claim->flags &= (uint8_t)~SSM_CLAIM_MARKED;
        SSM_ASSERT(claim->references > 0 && delivery_of(call, i) != NULL);
        ssm_delivery_end(pool, delivery_of(call, i), (uint32_t)call->handles[i]);
        if (!(call->flags & SSM_KEEP) && --claim->references == 0)
            ssm_block_release(pool, claim->class_idx, (uint32_t)call->handles[i]);
    }
}

/* Steps 2 to 7. `claims`: the flags of all claims. */
static SSM_COLD void put_all(struct ssm_ring *ring, const struct put_call *call, uint64_t head, uint8_t claims)
{
    struct ssm_side *producer = &ring->shared->producer;
    const uint32_t count = call->count;
    const bool keep = call->flags & SSM_KEEP, deliveries = claims & SSM_CLAIM_DELIVERED || call->done != NULL;
    SSM_ASSERT(count > 0 && count <= ring->capacity);
    SSM_ASSERT_SHARED(ssm_load_relaxed_u64(&producer->put_intent) == 0 &&
                      ssm_load_relaxed_u64(&producer->put_owner) == 0);
    if (SSM_HAS_BUG(INTENT_EARLY))
        ssm_store_release_u64(&producer->put_intent, head + count);
    for (uint32_t i = 0; i < count; i++)
        ssm_store_relaxed_u64(&ring->shared->slots[(head + i) & ring->mask], call->handles[i]);
    if (deliveries) {
        mark_deliveries(call);
        mark_done(call);
        ssm_store_release_u64(&producer->put_owner, (uint64_t)ssm_redelivery_self(ring->pool) << 32 | count);
    }
    if (!SSM_HAS_BUG(NO_INTENT))
        ssm_store_release_u64(&producer->put_intent, head + count);
    if (SSM_HAS_BUG(HEAD_EARLY))
        ssm_store_release_u64(&producer->index, head + count);
    for (uint32_t i = 0; i < count; i++)
        if (ring->pool->claims[(uint32_t)call->handles[i]].flags & SSM_CLAIM_HEAD)
            hand_chain_to_ring(ring, call->handles[i]);
        else
            hand_to_ring(ring, call->handles[i], keep);
    if (SSM_HAS_BUG(DONE_EARLY))
        end_done(call);
    /* R1 -> A1 in ssm_ring_head_beyond(): slots, holder sets and payload are written before the index is seen. */
    ssm_store_release_u64(&producer->index, head + count);
    if (call->roster_out != NULL) /* changes under this right only */
        *call->roster_out = ssm_load_relaxed_u32(&ring->shared->roster);
    if (deliveries) {
        finish_deliveries(call);
        if (!SSM_HAS_BUG(DONE_LATE))
            end_done(call);
        ssm_store_release_u64(&producer->put_owner, 0);
    }
    ssm_store_release_u64(&producer->put_intent, 0);
    if (SSM_HAS_BUG(DONE_LATE))
        end_done(call);
}

static int may_put(const struct ssm_ring *ring)
{
    uint32_t acl = ssm_load_acquire_u32(&ring->shared->acl);
    return acl & SSM_ACL_FLOWDOWN ? -SSM_E_SHUTDOWN : acl & SSM_ACL_RDONLY ? -SSM_E_RDONLY : 0;
}

/* Needs the producer's right. */
static inline __attribute__((always_inline)) int put_in_hand(struct ssm_ring *ring, const struct put_call *call)
{
    const uint64_t head = ssm_load_relaxed_u64(&ring->shared->producer.index);
    const bool keep = call->flags & SSM_KEEP;
    uint8_t claims = 0;
    int result = may_put(ring); /* again: the ring may have been shut down while this call waited for the right */
    if (result != 0)
        return result;
    if (!keep && ring->table == NULL && call->done == NULL &&
        ssm_claims_take_sole(ring->pool, call->handles, call->count)) {
        result = look_for_room(ring, head, call->count);
        if (result != 0)
            ssm_claims_restore_sole(ring->pool, call->handles, call->count);
        else
            ssm_ring_fast_put(ring, call->handles, call->count);
        return result;
    }
    result = check_handles(ring, call->handles, call->count, keep, &claims);
    if (result == 0 && call->done != NULL)
        result = check_done(call);
    if (result == 0)
        result = look_for_room(ring, head, call->count);
    if (result == 0)
        put_all(ring, call, head, claims);
    return result;
}

/* Out-of-line copy of put_in_hand() for slow callers. It keeps the inlined copy the only other one. */
static SSM_COLD int put_again(struct ssm_ring *ring, const struct put_call *call)
{
    return put_in_hand(ring, call);
}

/* Of a ring that was found full, and has nobody left who gets, uses the room that the last consumer made before it
 * went. */
static SSM_COLD int put_last(struct ssm_ring *ring, const struct put_call *call)
{
    if (!ssm_ring_is_orphaned(ring, SSM_READY_TO_PUT))
        return -SSM_E_FULL;
    const int result = put_again(ring, call);
    return result == -SSM_E_FULL ? -SSM_E_ORPHANED : result;
}

/* Puts as many packets as fit; returns how many were left out, or an error. Consumers can only have made more room. */
static int put_what_fits(const struct put_call *call)
{
    struct ssm_side *producer = &call->ring->shared->producer;
    struct put_call part = *call;
    uint32_t room = ssm_ring_room_now(call->ring);
    part.count = room < call->count ? room : call->count;
    int result = part.count > 0 ? put_again(call->ring, &part) : 0;
    if (result != 0)
        return result;
    if (part.count == 0)
        end_done(call); /* otherwise the packets that fit have ended them */
    uint32_t dropped = call->count - part.count;
    ssm_store_relaxed_u64(&producer->drops, ssm_load_relaxed_u64(&producer->drops) + dropped);
    return (int)dropped;
}

/* Frees the last `dropped` packets of the call, which found no room, unless they are kept. They are not delivered
 * again. */
static void free_dropped(const struct put_call *call, uint32_t dropped)
{
    struct ssm_pool *pool = call->ring->pool;
    SSM_ASSERT(dropped <= call->count);
    for (uint32_t i = call->count - dropped; i < call->count; i++) {
        const struct ssm_redelivery *table = delivery_of(call, i);
        if (table != NULL)
            ssm_delivery_end(pool, table, (uint32_t)call->handles[i]);
        if (!(call->flags & SSM_KEEP))
            ssm_reference_drop(pool, (uint32_t)call->handles[i], SSM_NO_DELIVERY, true);
    }
}

static SSM_COLD int put_dropping(const struct put_call *call)
{
    struct ssm_ring *ring = call->ring;
    struct ssm_side *producer = &ring->shared->producer;
    int result = put_what_fits(call);
    SSM_EXPENSIVE(ssm_side_is_valid(ring, producer));
    ssm_side_leave(producer, ring->flags & SSM_ONE_PRODUCER);
    if (result > 0)
        free_dropped(call, (uint32_t)result);
    return result;
}

static SSM_COLD int put_overwriting(const struct put_call *call)
{
    struct ssm_ring *ring = call->ring;
    struct ssm_side *producer = &ring->shared->producer;
    const bool exclusive = ring->flags & SSM_ONE_PRODUCER;
    int result = -SSM_E_FULL;
    ssm_side_leave(producer, exclusive);
    for (int look = 0; result == -SSM_E_FULL && look < OVERWRITE_LOOKS; look++) {
        result = ssm_ring_make_room(ring, call->count);
        if (result == 0)
            result = ssm_side_enter(ring, producer, exclusive, -SSM_E_FULL);
        if (result != 0)
            return result;
        result = put_again(ring, call);
        SSM_EXPENSIVE(ssm_side_is_valid(ring, producer));
        ssm_side_leave(producer, exclusive);
    }
    return result;
}

/* Puts one packet as put_dropping() or put_overwriting() does: found_full says which. If a stopped process keeps the
 * right that evicting takes, drops the packet. */
static int sample(const struct put_call *one)
{
    struct ssm_ring *ring = one->ring;
    struct ssm_side *producer = &ring->shared->producer;
    if (ssm_ring_room_now(ring) > 0)
        return put_dropping(one);
    const uint64_t found_full = ssm_load_relaxed_u64(&producer->found_full) + 1;
    ssm_store_relaxed_u64(&producer->found_full, found_full);
    if (found_full % (ring->flags / SSM_OVERFLOW_EVERY(1)) != 0)
        return put_dropping(one);
    int result = put_overwriting(one);
    if (result != -SSM_E_FULL)
        return result;
    result = ssm_side_enter(ring, producer, ring->flags & SSM_ONE_PRODUCER, -SSM_E_FULL);
    return result == 0 ? put_dropping(one) : result;
}

static SSM_COLD int put_sampling(const struct put_call *call)
{
    struct ssm_ring *ring = call->ring;
    int dropped = 0, result = 0;
    for (uint32_t i = 0; i < call->count; i++) {
        struct put_call one = *call;
        one.handles += i;
        one.deliveries += call->deliveries != NULL && !(call->flags & SSM_ONE_DELIVERY) ? i : 0;
        one.count = 1;
        if (i > 0)
            result = ssm_side_enter(ring, &ring->shared->producer, ring->flags & SSM_ONE_PRODUCER, -SSM_E_FULL);
        if (result == 0)
            result = sample(&one);
        if (result < 0 && i == 0)
            return result;
        if (result < 0) { /* shut down meanwhile, or a process with the right is stopped: these are not counted */
            free_dropped(call, call->count - i);
            return dropped + (int)(call->count - i);
        }
        dropped += result;
        result = 0;
    }
    return dropped;
}

/* What a put does that finds the ring full, and does not wait: all that there is to know about a policy. */
static const struct overflow {
    const char *name;                        /* with a number behind a colon, as an example of those that it may have */
    uint32_t flag, excludes;                 /* flags that a ring with this policy cannot have */
    int (*put)(const struct put_call *call); /* gives up the producer's right; returns how many were dropped */
    const char *text;
} policies[] = {
    {"block", 0, 0, NULL, "waits until there is room"},
    {"drop", SSM_OVERFLOW_DROP, 0, put_dropping, "frees the packets that there is no room for"},
    {"overwrite", SSM_OVERFLOW_OVERWRITE, SSM_ONE_CONSUMER | SSM_REDELIVER, put_overwriting,
     "frees the oldest packets in the ring to make room"},
    {"sample:8", SSM_OVERFLOW_SAMPLE, SSM_ONE_CONSUMER | SSM_REDELIVER, put_sampling,
     "of eight packets that there is no room for frees the first seven, and the oldest one in the ring to make room "
     "for the eighth"},
};
#define POLICY_MASK  ((uint32_t)(SSM_OVERFLOW_MASK % SSM_OVERFLOW_EVERY(1))) /* the rest is its number */
#define POLICY_COUNT ((uint32_t)(sizeof policies / sizeof *policies))

static bool has_number(const struct overflow *policy)
{
    return strchr(policy->name, ':') != NULL;
}

/* NULL: there is none; the flags of a ring that exists are from shared memory. */
static const struct overflow *policy_of(uint32_t flags)
{
    const uint32_t number = flags / SSM_OVERFLOW_EVERY(1);
    for (uint32_t i = 0; i < POLICY_COUNT; i++)
        if (policies[i].flag == (flags & POLICY_MASK) && (has_number(&policies[i]) ? number > 1 : number == 0))
            return &policies[i];
    return NULL;
}

const char *ssm_overflow_name(uint32_t number)
{
    return number < POLICY_COUNT ? policies[number].name : NULL;
}
const char *ssm_overflow_text(uint32_t number)
{
    return number < POLICY_COUNT ? policies[number].text : NULL;
}

#define NO_NUMBER (UINT16_MAX + 1) /* more than fits into the flags */

static uint32_t number_of(const char *digits)
{
    const size_t length = strspn(digits, "0123456789");
    const bool is_one = length > 0 && length <= 5 && digits[length] == '\0' && digits[0] != '0';
    return is_one ? (uint32_t)strtoul(digits, NULL, 10) : NO_NUMBER;
}

int ssm_overflow_of_words(const char *words, uint32_t *flags_out)
{
    for (uint32_t i = 0; i < POLICY_COUNT; i++) {
        const size_t length = strcspn(policies[i].name, ":");
        if (strncmp(words, policies[i].name, length) != 0 || (words[length] == ':') != has_number(&policies[i]))
            continue;
        const uint32_t number = has_number(&policies[i]) ? number_of(words + length + 1)
                              : words[length] == '\0'    ? 0
                                                         : NO_NUMBER;
        *flags_out = policies[i].flag | SSM_OVERFLOW_EVERY(number);
        if (number <= UINT16_MAX && policy_of(*flags_out) != NULL)
            return 0;
    }
    return -EINVAL;
}

int ssm_overflow_in_words(uint32_t flags, char words_out[SSM_OVERFLOW_SIZE])
{
    const struct overflow *policy = policy_of(flags);
    if (policy == NULL)
        return -EINVAL;
    const int length = (int)strcspn(policy->name, ":");
    snprintf(words_out, SSM_OVERFLOW_SIZE, has_number(policy) ? "%.*s:%u" : "%.*s", length, policy->name,
             flags / SSM_OVERFLOW_EVERY(1)); /* the number */
    return 0;
}

uint32_t ssm_overflow_flags(void)
{
    uint32_t flags = 0;
    for (uint32_t i = 0; i < POLICY_COUNT; i++)
        flags |= policies[i].flag | (has_number(&policies[i]) ? SSM_OVERFLOW_EVERY(UINT16_MAX) : 0);
    return flags;
}

bool ssm_overflow_agrees(uint32_t flags)
{
    const struct overflow *policy = policy_of(flags);
    return policy != NULL && (flags & policy->excludes) == 0;
}

bool ssm_overflow_waits(uint32_t flags)
{
    const struct overflow *policy = policy_of(flags);
    return policy == NULL || policy->put == NULL;
}

static inline int put_entered(const struct put_call *call)
{
    struct ssm_ring *ring = call->ring;
    struct ssm_side *producer = &ring->shared->producer;
    bool exclusive = ring->flags & SSM_ONE_PRODUCER;
    int result = ring->gone ? -SSM_E_UNLINKED : may_put(ring);
    if (result == 0)
        result = ssm_side_enter(ring, producer, exclusive, -SSM_E_FULL);
    if (result == 0) {
        SSM_EXPENSIVE(ssm_side_is_valid(ring, producer));
        if (!ring->has_put)
            ssm_peer_comes(ring, SSM_READY_TO_PUT);
        result = put_in_hand(ring, call);
        if (result == -SSM_E_FULL && ssm_ring_widen(ring, call->count))
            result = put_again(ring, call);
        SSM_EXPENSIVE(ssm_side_is_valid(ring, producer));
        if (result == -SSM_E_FULL && ssm_overflow_waits(ring->flags))
            result = put_last(ring, call);
        if (result == -SSM_E_FULL && !ssm_overflow_waits(ring->flags))
            result = policy_of(ring->flags)->put(call);
        else
            ssm_side_leave(producer, exclusive);
        if (result >= 0 && (uint32_t)result < call->count) /* entered: the ring is still there */
            ssm_event_signal(&ring->shared->not_empty, call->count - (uint32_t)result, ring->pool->no_membarrier);
    }
    return result;
}

static int put_attempt(void *context, bool thorough)
{
    const struct put_call *call = context;
    (void)thorough;
    SSM_POOL_ENTER(call->ring->pool);
    return put_entered(call);
}

int ssm_ring_put_entered(struct ssm_ring *ring, const uint64_t *handles, uint32_t count)
{
    const struct put_call call = {ring, handles, NULL, count, 0, NULL, NULL};
    return put_entered(&call);
}

/* Tries again while the right stays taken for a moment: that does not make the ring full. */
static SSM_COLD int put_once_more(struct put_call *call, struct ssm_lock_retry retry)
{
    int result = -SSM_E_FULL, again = 1;
    while (result == -SSM_E_FULL && (again = ssm_lock_retry(call->ring->pool, &retry, SSM_LOCK_RETRY_NS)) > 0)
        result = put_attempt(call, true);
    return again < 0 ? again : result;
}

/* Apart from ssm_ring_put(), since most calls succeed at the first attempt. */
static SSM_COLD int put_waiting(struct put_call *call, int64_t timeout_ns)
{
    const struct ssm_sleep wait = {
        .attempt = put_attempt,
        .context = call,
        .again = -SSM_E_FULL,
        .class_idx = SSM_NIL,
        .event = &call->ring->shared->not_full,
        .gone = &call->ring->gone,
    };
    return ssm_sleep_for(call->ring->pool, &wait, timeout_ns);
}

static SSM_APART int put_slowly(struct put_call *call, int64_t timeout_ns)
{
    struct ssm_ring *ring = call->ring;
    const uint32_t count = call->count, hands_over = call->flags & (SSM_KEEP | SSM_HANDOVER);
    if (count == 0 || count > ring->capacity || call->flags & ~(uint32_t)(SSM_KEEP | SSM_HANDOVER | SSM_ONE_DELIVERY) ||
        hands_over == SSM_HANDOVER)
        return -EINVAL;
    const struct ssm_lock_retry retry = ssm_lock_retry_begin(ring->pool);
    int result = put_attempt(call, true);
    if (result == -SSM_E_FULL)
        result = put_once_more(call, retry);
    if (result == -SSM_E_FULL && timeout_ns != 0)
        result = put_waiting(call, timeout_ns);
    if (result == -SSM_E_FULL && ssm_overflow_waits(ring->flags) && ssm_ring_look_for_partner(ring, SSM_READY_TO_PUT))
        result = put_attempt(call, true);
    /* The process that passed it on may be about to end its delivery (step 6), or may have died before. */
    for (int look = 0; ring->table != NULL && result == -SSM_E_QUEUED && look < SSM_RING_LOOKS; look++) {
        ring->pool->on_stall(ring->pool);
        result = ssm_pool_nap(ring->pool, SSM_RING_LOOK_NAP_NS) != 0 ? -EINTR : put_attempt(call, true);
    }
    return result;
}

/* The common case: one packet that this process alone holds, into a ring with room. False: nothing has changed. */
static inline bool put_fast(struct ssm_ring *ring, uint64_t handle)
{
    struct ssm_side *producer = &ring->shared->producer;
    const bool exclusive = ring->flags & SSM_ONE_PRODUCER;
    if (!ssm_pool_needs_no_lock(ring->pool) || !ring->put_fast || !ssm_side_try(ring, producer, exclusive))
        return false;
    bool put = ssm_load_acquire_u32(&ring->shared->acl) == 0 && ssm_claims_take_sole(ring->pool, &handle, 1);
    if (put && look_for_room(ring, ssm_load_relaxed_u64(&producer->index), 1) != 0) {
        ssm_claims_restore_sole(ring->pool, &handle, 1);
        put = false;
    }
    if (put)
        ssm_ring_fast_put(ring, &handle, 1);
    SSM_EXPENSIVE(ssm_side_is_valid(ring, producer));
    ssm_side_leave(producer, exclusive);
    return put;
}

static SSM_APART int put_unnamed(struct ssm_ring *ring, const uint64_t *handles, uint32_t count, uint32_t flags,
                                 int64_t timeout_ns)
{
    struct put_call call = {ring, handles, NULL, count, flags, NULL, NULL};
    return put_slowly(&call, timeout_ns);
}

int ssm_ring_publish(struct ssm_ring *ring, uint64_t handle, int64_t timeout_ns, uint32_t *roster_out)
{
    struct put_call call = {ring, &handle, NULL, 1, SSM_KEEP, roster_out, NULL};
    return put_slowly(&call, timeout_ns);
}

int ssm_ring_put(struct ssm_ring *ring, const uint64_t *handles, uint32_t count, uint32_t flags, int64_t timeout_ns)
{
    if (SSM_LIKELY(count == 1 && flags == 0 && put_fast(ring, handles[0]))) {
        ssm_event_signal(&ring->shared->not_empty, 1, ring->pool->no_membarrier);
        return 0;
    }
    return put_unnamed(ring, handles, count, flags, timeout_ns);
}

int ssm_ring_put_of(struct ssm_ring *ring, const uint64_t *handles, const uint64_t *deliveries, uint32_t count,
                    uint32_t flags, int64_t timeout_ns)
{
    struct put_call call = {ring, handles, deliveries, count, flags, NULL, NULL};
    if (count == 1 && flags == 0 && put_fast(ring, handles[0])) {
        ssm_event_signal(&ring->shared->not_empty, 1, ring->pool->no_membarrier);
        return 0;
    }
    return put_slowly(&call, timeout_ns);
}

int ssm_ring_put_done(struct ssm_ring *ring, const uint64_t *handles, const uint64_t *deliveries, uint32_t count,
                      const struct ssm_done *done, uint32_t flags, int64_t timeout_ns)
{
    struct put_call call = {ring, handles, deliveries, count, flags, NULL, done->count > 0 ? done : NULL};
    if (call.done != NULL && count > 1 && ring->flags & SSM_OVERFLOW_SAMPLE)
        return -EINVAL; /* no one commit */
    return put_slowly(&call, timeout_ns);
}
