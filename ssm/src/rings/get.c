/* SPDX-License-Identifier: Apache-2.0
 *
 * Getting packets out of a ring.
 *
 * get, under the consumer's right, and what a death after each step leaves:
 *   1  read the slot; pass over a block that lacks the ring's bit or has     nothing
 *      another generation: a process took it and died before step 3
 *   2  set the own bit, clear the ring's bit; of a chain, the head last      the repair moves the tail over the slot;
 *      (a chain that is not whole is freed instead)                          the reaper frees the block
 *   3  tail += n, with release (R2)                                          the reaper frees the block
 * Step 2 goes from slot to slot, so what was taken are the first slots, and the repair of the side (ring_side.c) finds
 * all of them. Therefore the fast path leaves the look of step 1 out. The slow path keeps it: a redelivering ring is
 * not repaired in this way, and the end of a chain may be taken while its head is not.
 * A producer that makes room in a ring that overwrites is such a consumer, and frees what it has taken: a death after
 * step 2 or 3 leaves a ring with room, and blocks that the reaper frees.
 *
 * A redelivering ring notes each get in a table before step 2, and returned packets are got first; see redelivery.h.
 * The common case of get is in ring_fast.h.
 */
#include "get.h"

#include "chain.h"
#include "free.h"
#include "redelivery.h"
#include "ring.h"
#include "ring_fast.h"
#include "ring_join.h"
#include "ring_partner.h"
#include "ring_side.h"
#include "seed_bug.h"
#include "sleep.h"

#include <errno.h>

#define FREED_AT_ONCE    32
#define LEAST_NAP_MIN_NS UINT64_C(100000)
#define LEAST_NAP_MAX_NS UINT64_C(2000000)

struct get_call {
    struct ssm_ring *ring;
    uint64_t        *handles_out;
    uint32_t         count;
    uint32_t         at_least; /* fewer are left there, unless no more come, or one was returned */
};

/* Is the slot's packet still queued? A process may have taken it and died, or it may have been returned since. */
static bool is_queued(const struct ssm_ring *ring, uint64_t handle)
{
    return ssm_block_is_queued(ring->pool, ring->id, handle) && /* D2 */
           (ring->table == NULL || !ssm_redelivery_is_returned(ring->table, handle));
}

/* Step 2 of get. */
static void take_block(struct ssm_ring *ring, uint32_t block_idx, bool redelivered)
{
    struct ssm_pool *pool = ring->pool;
    struct ssm_block *block = ssm_block_at(pool, block_idx);
    struct ssm_claim *claim = &pool->claims[block_idx];
    SSM_ASSERT_SHARED(ssm_block_has(block, ring->id));
    if (claim->references == 0) {
        claim->flags = 0;
        claim->handle = ssm_handle_now(pool, block_idx);
    }
    if (claim->references > 0) {
        ssm_block_remove(block, ring->id); /* D3: behind the entry */
    } else if (ssm_block_is_exactly(pool, block, ring->id)) {
        ssm_block_swap(block, ring->id, pool->self); /* D3 */
    } else {
        claim->flags |= SSM_CLAIM_SHARED;
        ssm_block_add(pool, block, pool->self);
        ssm_block_remove(block, ring->id); /* D3 */
    }
    SSM_ASSERT(claim->references < UINT32_MAX && claim->pins <= claim->references);
    if (claim->references++ == 0) {
        claim->class_idx = (uint8_t)ssm_class_of_block(pool, block_idx);
        if (ssm_class_is_arena(pool, claim->class_idx))
            claim->flags |= SSM_CLAIM_ARENA;
        else /* the fast path never takes those of the arena */
            ring->class_idx = claim->class_idx;
        ssm_usage_add(pool, ssm_memory_take(pool, claim->class_idx, block_idx).bytes);
    }
    if (ring->table == NULL)
        return;
    ssm_delivery_begin(pool, ring->table, block_idx, pool->delivery_serial);
    claim->flags = (uint8_t)(redelivered ? claim->flags | SSM_CLAIM_REDELIVERED
                                         : claim->flags & ~SSM_CLAIM_REDELIVERED);
}

/* Step 2 for a chain, from the end to the head (N3). If a process took the end of it and died, frees the rest;
 * false. */
static SSM_COLD bool take_chain(struct ssm_ring *ring, uint64_t head)
{
    uint64_t handles[SSM_CHAIN_MAX];
    bool whole;
    uint32_t count = ssm_chain_collect(ring->pool, ring->id, head, handles, &whole);
    if (!whole) {
        ssm_chain_drop(ring->pool, ring->id, handles, count);
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = SSM_HAS_BUG(TAKE_HEAD_FIRST) ? i : count - 1 - i;
        take_block(ring, (uint32_t)handles[at], false);
        ring->pool->claims[(uint32_t)handles[at]].flags |= at == 0 ? SSM_CLAIM_HEAD : SSM_CLAIM_SEGMENT;
    }
    return true;
}

/* Takes the packet in a slot. False if a process took it and died. */
static bool take_slot(struct ssm_ring *ring, uint64_t handle, uint64_t at)
{
    if (!is_queued(ring, handle) || (ring->table != NULL && !ssm_redelivery_take(ring->pool, ring->table, handle, at)))
        return false;
    if (ring->table == NULL && ssm_load_relaxed_u64(&ssm_block_at(ring->pool, (uint32_t)handle)->next) != SSM_NO_NEXT)
        return take_chain(ring, handle);
    take_block(ring, (uint32_t)handle, false);
    return true;
}

/* Passes over packets that dead processes took. Otherwise such a slot would be valid again after its packet was
 * returned, taken, and put into this ring once more. */
static void pass_over(struct ssm_ring *ring)
{
    struct ssm_side *consumer = &ring->shared->consumer;
    uint64_t start = ssm_load_relaxed_u64(&consumer->index), tail = start, head = start;
    for (;; tail++) {
        if (tail == head)
            head = ssm_ring_head_beyond(ring, tail, 1);
        if (head == UINT64_MAX || head == tail ||
            is_queued(ring, ssm_slot_handle(&ring->shared->slots[tail & ring->mask])))
            break;
    }
    if (tail != start)
        ssm_store_release_u64(&consumer->index, tail); /* R2 -> A2 in look_for_room() */
}

/* Takes the first returned packet; false if there is none. Clears the flag before it scans the table: a reaper that
 * returns more meanwhile sets it again, and so does the reaper of this process. */
static bool take_returned(struct ssm_ring *ring, uint64_t *handle_out)
{
    struct ssm_ring_shared *shared = ring->shared;
    uint32_t left;
    ssm_exchange_acqrel_u32(&shared->returned, 0); /* D6: pairs with D5 in ssm_ring_return() */
    pass_over(ring);
    const bool got = ssm_redelivery_take_first(ring->pool, ring->table, handle_out, &left);
    if (got)
        take_block(ring, (uint32_t)*handle_out, true);
    if (left > 0)
        ssm_store_release_u32(&shared->returned, 1);
    ssm_store_relaxed_u64(&shared->redelivered, ssm_load_relaxed_u64(&shared->redelivered) + got);
    ssm_store_relaxed_u64(&shared->consumer.count, ssm_load_relaxed_u64(&shared->consumer.count) + got);
    return got;
}

/* Gets up to `count` packets out of up to `slots` slots; returns how many. Slots that are passed over only move the
 * tail. Adds the packets to `counter`. */
static uint32_t get_queued(struct ssm_ring *ring, uint32_t count, uint64_t slots, struct ssm_u64 *counter,
                           uint64_t *handles_out)
{
    struct ssm_side *consumer = &ring->shared->consumer;
    uint64_t start = ssm_load_relaxed_u64(&consumer->index), tail = start, head = start;
    uint32_t got = 0;
    while (got < count && tail - start < slots) {
        if (tail == head) {
            head = ssm_ring_head_beyond(ring, tail, 1);
            if (head == UINT64_MAX && tail == start)
                return UINT32_MAX;
            if (head == UINT64_MAX || head == tail)
                break;
        }
        uint64_t at = tail++, handle = ssm_slot_handle(&ring->shared->slots[at & ring->mask]);
        if (SSM_HAS_BUG(TAIL_EARLY))
            ssm_store_release_u64(&consumer->index, tail);
        if (take_slot(ring, handle, at))
            handles_out[got++] = handle;
    }
    SSM_ASSERT(got <= count && got <= tail - start);
    if (tail != start) {
        ssm_store_relaxed_u64(counter, ssm_load_relaxed_u64(counter) + got);
        ssm_store_release_u64(&consumer->index, tail); /* R2 -> A2 in look_for_room(): the slots were read before */
    }
    return got;
}

/* A returned packet comes alone: if it kills this process, too, no other packet is counted as handed out with it.
 * UINT32_MAX: the ring contradicts itself. */
static SSM_COLD uint32_t get_some(struct ssm_ring *ring, uint32_t count, uint64_t *handles_out)
{
    ring->pool->delivery_serial++;
    if (ring->table != NULL && ssm_load_acquire_u32(&ring->shared->returned) != 0 && take_returned(ring, handles_out))
        return 1;
    return get_queued(ring, count, UINT64_MAX, &ring->shared->consumer.count, handles_out);
}

/* Needs the consumer's right. Returns what get_some() does. */
static inline uint32_t get_in_hand(struct ssm_ring *ring, uint32_t count, uint64_t *handles_out)
{
    uint32_t got = 0;
    if (ring->table == NULL)
        got = ssm_ring_fast_get(ring, handles_out, count);
    return got != 0 ? got : get_some(ring, count, handles_out);
}

/* Frees packets that nobody will get, and counts them as done. */
static void give_up(struct ssm_ring *ring, const uint64_t *handles, uint32_t count)
{
    (void)ssm_ring_join_add(ring, count); /* fails if more were reported done than were taken */
    for (uint32_t i = 0; i < count; i++)
        ssm_reference_drop(ring->pool, (uint32_t)handles[i], SSM_ANY_DELIVERY, true);
}

SSM_COLD void ssm_ring_discard(struct ssm_ring *ring)
{
    uint64_t handles[FREED_AT_ONCE];
    uint32_t got;
    while ((got = get_some(ring, FREED_AT_ONCE, handles)) != 0 && got != UINT32_MAX) /* shut down: no more come */
        give_up(ring, handles, got);
}

/* Needs the consumer's right. Empties as many of the oldest slots as `count` packets lack. Returns how many packets it
 * took, or an error. Slots that are passed over make room, too, so no packet is evicted in vain. */
static int evict(struct ssm_ring *ring, uint32_t count, uint64_t *handles_out)
{
    struct ssm_side *consumer = &ring->shared->consumer;
    uint64_t head = ssm_load_acquire_u64(&ring->shared->producer.index); /* A1: pairs with R1 in put_all() */
    uint64_t depth = head - ssm_load_relaxed_u64(&consumer->index);
    if (depth > ring->capacity)
        return -SSM_E_CORRUPT;
    uint64_t room = ring->capacity - depth;
    if (room >= count)
        return 0;
    uint32_t got = get_queued(ring, FREED_AT_ONCE, count - room, &consumer->drops, handles_out);
    return got != UINT32_MAX ? (int)got : -SSM_E_CORRUPT;
}

SSM_COLD int ssm_ring_make_room(struct ssm_ring *ring, uint32_t count)
{
    uint64_t handles[FREED_AT_ONCE];
    struct ssm_side *consumer = &ring->shared->consumer;
    for (uint32_t rounds = 0; rounds <= count / FREED_AT_ONCE; rounds++) {
        int got = ssm_side_enter(ring, consumer, false, -SSM_E_FULL);
        if (got != 0)
            return got;
        got = evict(ring, count, handles);
        SSM_EXPENSIVE(ssm_side_is_valid(ring, consumer));
        ssm_side_leave(consumer, false);
        if (got <= 0)
            return got;
        give_up(ring, handles, (uint32_t)got); /* after the right was given up */
    }
    return 0; /* probably: others may have used the room */
}

/* Needs the consumer's right. Of a ring that was found empty, and has nobody left who puts, gets what the last producer
 * put before it went. */
static SSM_COLD int get_last(const struct get_call *call)
{
    if (!ssm_ring_is_orphaned(call->ring, SSM_READY_TO_GET))
        return -SSM_E_EMPTY;
    const uint32_t got = get_in_hand(call->ring, call->count, call->handles_out);
    return got == UINT32_MAX ? -SSM_E_CORRUPT : got == 0 ? -SSM_E_ORPHANED : (int)got;
}

/* Needs the consumer's right. Slots that will be passed over count, too. */
static bool is_enough(const struct get_call *call)
{
    const struct ssm_ring_shared *shared = call->ring->shared;
    const uint64_t head = ssm_load_acquire_u64(&shared->producer.index); /* only compared: what is got is read anew */
    return call->at_least <= 1 || head - ssm_load_relaxed_u64(&shared->consumer.index) >= call->at_least ||
           ssm_load_relaxed_u32(&shared->returned) != 0;
}

/* Reads the flags before the index. So it sees every packet that was put before they were set. */
static int get_attempt(void *context, bool thorough)
{
    const struct get_call *call = context;
    struct ssm_ring *ring = call->ring;
    struct ssm_side *consumer = &ring->shared->consumer;
    bool exclusive = ring->flags & SSM_ONE_CONSUMER;
    (void)thorough;
    SSM_POOL_ENTER(ring->pool);
    int result = ring->gone ? -SSM_E_UNLINKED : ssm_side_enter(ring, consumer, exclusive, -SSM_E_EMPTY);
    if (result == 0) {
        uint32_t acl = ssm_load_acquire_u32(&ring->shared->acl); /* P2: before the head */
        uint32_t got = 0;
        SSM_EXPENSIVE(ssm_side_is_valid(ring, consumer));
        if (!ring->has_got)
            ssm_peer_comes(ring, SSM_READY_TO_GET);
        if (acl & SSM_ACL_DISCARD)
            ssm_ring_discard(ring);
        else if (acl != 0 || is_enough(call))
            got = get_in_hand(ring, call->count, call->handles_out);
        result = got == UINT32_MAX ? -SSM_E_CORRUPT : (int)got;
        if (got == 0)
            result = acl & (SSM_ACL_FLOWDOWN | SSM_ACL_FLOWPEER) ? -SSM_E_SHUTDOWN : get_last(call);
        SSM_EXPENSIVE(ssm_side_is_valid(ring, consumer));
        SSM_EXPENSIVE(ring->table == NULL || ssm_redelivery_is_valid(ring->pool, ring->table));
        ssm_side_leave(consumer, exclusive);
        if (result > 0) /* entered: the ring is still there */
            ssm_event_signal(&ring->shared->not_full, (uint32_t)result, ring->pool->no_membarrier);
    }
    return result;
}

/* Waits at most 10 ms until reapers return packets of dead processes. 1 if some may have come; 0; or -EINTR. */
static int await_returns(struct ssm_ring *ring)
{
    for (int look = 0; look < SSM_RING_LOOKS; look++) {
        if (ssm_pool_enter(ring->pool) != 0)
            return 0;
        /* no table: this forked child has just found the ring gone */
        const bool owed = ring->table != NULL && ssm_redelivery_is_owed(ring->pool, ring->table);
        const bool came = ssm_load_acquire_u32(&ring->shared->returned) != 0;
        ssm_pool_leave(ring->pool);
        if (!owed || came)
            return owed || look > 0;
        if (!ring->pool->on_stall(ring->pool) && ssm_pool_nap(ring->pool, SSM_RING_LOOK_NAP_NS) != 0)
            return -EINTR;
    }
    return 1;
}

/* Tries again while the right stays taken for a moment: that does not make the ring empty. */
static SSM_COLD int get_once_more(struct get_call *call, struct ssm_lock_retry retry)
{
    int result = -SSM_E_EMPTY, again = 1;
    while (result == -SSM_E_EMPTY && (again = ssm_lock_retry(call->ring->pool, &retry, SSM_LOCK_RETRY_NS)) > 0)
        result = get_attempt(call, true);
    return again < 0 ? again : result;
}

static SSM_COLD int get_waiting(struct get_call *call, int64_t timeout_ns)
{
    const struct ssm_sleep wait = {
        .attempt = get_attempt,
        .context = call,
        .again = -SSM_E_EMPTY,
        .class_idx = SSM_NIL,
        .event = &call->ring->shared->not_empty,
        .gone = &call->ring->gone,
    };
    return ssm_sleep_for(call->ring->pool, &wait, timeout_ns);
}

static SSM_APART int get_slowly(struct ssm_ring *ring, uint64_t *handles_out, uint32_t count, int64_t timeout_ns)
{
    struct get_call call = {ring, handles_out, count > INT32_MAX ? INT32_MAX : count, 1};
    if (count == 0)
        return -EINVAL;
    int result = 0;
    /* The next owner of an exclusive side first gets the packets that its predecessor had. */
    if (ring->table != NULL && ring->flags & SSM_ONE_CONSUMER &&
        ssm_lock_owner_is_dead(ring->pool, &ring->shared->consumer.lock))
        result = await_returns(ring);
    const struct ssm_lock_retry retry = ssm_lock_retry_begin(ring->pool);
    if (result >= 0)
        result = get_attempt(&call, true);
    if (result == -SSM_E_EMPTY)
        result = get_once_more(&call, retry);
    if (result == -SSM_E_EMPTY && timeout_ns != 0)
        result = get_waiting(&call, timeout_ns);
    if (result == -SSM_E_EMPTY && ssm_ring_look_for_partner(ring, SSM_READY_TO_GET))
        result = get_attempt(&call, true);
    /* Before it reports that no more packets come: dead processes may have had some. */
    if ((result == -SSM_E_SHUTDOWN || result == -SSM_E_ORPHANED) && ring->table != NULL) {
        int came = await_returns(ring);
        result = came > 0 ? get_attempt(&call, true) : came < 0 ? came : result;
    }
    return result;
}

/* The common case: one packet, out of a ring that is not shut down. False: nothing has changed. */
static inline bool get_fast(struct ssm_ring *ring, uint64_t *handle_out)
{
    struct ssm_side *consumer = &ring->shared->consumer;
    const bool exclusive = ring->flags & SSM_ONE_CONSUMER;
    if (!ssm_pool_needs_no_lock(ring->pool) || !ring->get_fast || (!exclusive && ssm_ring_looks_empty(ring)) ||
        !ssm_side_try(ring, consumer, exclusive))
        return false;
    bool got = ssm_load_acquire_u32(&ring->shared->acl) == 0 && ssm_ring_fast_get(ring, handle_out, 1) == 1;
    SSM_EXPENSIVE(ssm_side_is_valid(ring, consumer));
    ssm_side_leave(consumer, exclusive);
    return got;
}

int ssm_ring_get(struct ssm_ring *ring, uint64_t *handles_out, uint32_t count, int64_t timeout_ns)
{
    if (SSM_LIKELY(count == 1 && get_fast(ring, handles_out))) {
        ssm_event_signal(&ring->shared->not_full, 1, ring->pool->no_membarrier);
        return 1;
    }
    return get_slowly(ring, handles_out, count, timeout_ns);
}

/* Naps instead of sleeping on the ring's event: a waiter that leaves the packets there would take the wake-ups of those
 * that are content with one. */
int ssm_ring_get_least(struct ssm_ring *ring, uint64_t *handles_out, uint32_t count, uint32_t at_least,
                       int64_t timeout_ns)
{
    struct get_call call = {ring, handles_out, count > INT32_MAX ? INT32_MAX : count, at_least};
    const uint64_t since_ns = ssm_now_ns();
    int result = -SSM_E_EMPTY;
    if (count == 0 || at_least > call.count || at_least > ring->capacity)
        return -EINVAL;
    for (uint64_t nap_ns = LEAST_NAP_MIN_NS; at_least > 1 && timeout_ns != 0;
         nap_ns *= nap_ns < LEAST_NAP_MAX_NS ? 2 : 1) {
        const uint64_t spent_ns = ssm_now_ns() - since_ns;
        result = get_attempt(&call, true);
        if (result != -SSM_E_EMPTY || (timeout_ns > 0 && spent_ns >= (uint64_t)timeout_ns) ||
            ssm_ring_look_for_partner(ring, SSM_READY_TO_GET))
            break;
        const uint64_t left_ns = timeout_ns > 0 ? (uint64_t)timeout_ns - spent_ns : nap_ns;
        if (ssm_pool_look_in_turn(ring->pool, since_ns + spent_ns))
            ring->pool->on_stall(ring->pool); /* a dead process may have some */
        if (ssm_pool_nap(ring->pool, left_ns < nap_ns ? left_ns : nap_ns) != 0)
            return -EINTR;
    }
    const bool over = result == -SSM_E_EMPTY || result == -SSM_E_SHUTDOWN || result == -SSM_E_ORPHANED;
    return over ? get_slowly(ring, handles_out, count, at_least > 1 ? 0 : timeout_ns) : result;
}

/* For callers that wait in another way: an event loop. */
int ssm_ring_get_enough(struct ssm_ring *ring, uint64_t *handles_out, uint32_t count, uint32_t at_least)
{
    struct get_call call = {ring, handles_out, count > INT32_MAX ? INT32_MAX : count, at_least};
    if (count == 0 || at_least > call.count || at_least > ring->capacity)
        return -EINVAL;
    const int result = get_attempt(&call, true);
    if (result == -SSM_E_EMPTY && !ssm_ring_look_for_partner(ring, SSM_READY_TO_GET)) {
        if (ssm_pool_look_in_turn(ring->pool, ssm_now_ns()))
            ring->pool->on_stall(ring->pool); /* a dead process may have some */
        return result;
    }
    const bool over = result == -SSM_E_EMPTY || result == -SSM_E_SHUTDOWN || result == -SSM_E_ORPHANED;
    return over ? get_slowly(ring, handles_out, count, 0) : result;
}
