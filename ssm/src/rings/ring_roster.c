/* SPDX-License-Identifier: Apache-2.0
 *
 * The roster of a topic: how many subscriptions were ever counted, in the ring that has the topic's latest packets. It
 * tells publishers when to look which rings there are, and orders subscribing and publishing.
 *
 * A publisher puts its packet into the topic's ring first, and learns from the same put what the roster was (put.c). Then
 * it puts the packet into the rings whose number is not above that. A subscriber creates its own ring, and enrols it under
 * both rights to the topic's ring. So either the packet was there before, and the subscriber has it from there; or the put
 * came after, and says a roster that counts the subscription, whose ring and number the publisher then finds (L1 -> L2 of
 * the rights).
 *
 * enrol, and what a death after each step leaves:
 *   1  the producer's right, then the consumer's, as for widening   two dead owners; nothing is to be repaired
 *   2  each of the latest packets: own bit set                      a reaper clears the bits
 *   3  they are put into the subscription's ring, as in put.c       a ring that nobody puts into: it is ended
 *   4  number of the subscription                                   the same: the roster is below its number
 *   5  roster = number                                              a subscription that is counted, and is ended
 *   6  both rights are given up                                     the same
 * No consumer takes a packet out meanwhile, so a block with the topic's bit keeps it until the own bit is set. Nobody who
 * has a right to the subscription's ring waits for the topic's.
 */
#include "claim.h"
#include "free.h"
#include "redelivery.h"
#include "ring.h"
#include "ring_side.h"
#include "ring_unlink.h"

#include <errno.h>

#define NAP_NS UINT64_C(500000)

struct enrol_call {
    struct ssm_ring *topic, *subscription;
    uint32_t         count;
    uint64_t        *handles;
};

/* Step 2 for one packet: a reference of this process, beside the ring's. */
static void take_reference(struct ssm_pool *pool, uint32_t block_idx)
{
    struct ssm_claim *claim = &pool->claims[block_idx];
    SSM_ASSERT(claim->references < UINT32_MAX && claim->pins <= claim->references);
    if (claim->references++ != 0) {
        SSM_ASSERT(claim->flags & SSM_CLAIM_SHARED); /* I17: the topic has it, too */
        return;
    }
    claim->flags = SSM_CLAIM_SHARED;
    claim->handle = ssm_handle_now(pool, block_idx);
    ssm_block_add(pool, ssm_block_at(pool, block_idx), pool->self);
    claim->class_idx = (uint8_t)ssm_class_of_block(pool, block_idx);
    if (ssm_class_is_arena(pool, claim->class_idx))
        claim->flags |= SSM_CLAIM_ARENA;
    ssm_usage_add(pool, ssm_memory_take(pool, claim->class_idx, block_idx).bytes);
}

/* Step 2: the latest packets, the oldest of them first. */
static int take_latest(const struct enrol_call *call)
{
    const struct ssm_ring *topic = call->topic;
    struct ssm_pool *pool = topic->pool;
    const uint64_t head = ssm_load_relaxed_u64(&topic->shared->producer.index);
    const uint64_t tail = ssm_load_relaxed_u64(&topic->shared->consumer.index);
    uint32_t got = 0;
    if (head - tail > topic->capacity)
        return -SSM_E_CORRUPT;
    for (uint64_t at = head - tail > call->count ? head - call->count : tail; at != head; at++) {
        struct ssm_u64 *slot = &topic->shared->slots[at & topic->mask];
        const uint64_t handle = ssm_slot_handle(slot);
        if (!ssm_block_is_queued(pool, topic->id, handle)) /* a process took it and died */
            continue;
        ssm_store_relaxed_u64(slot, handle); /* I19: without a mark, since the packet gets a holder more */
        take_reference(pool, (uint32_t)handle);
        call->handles[got++] = handle;
    }
    SSM_ASSERT(got <= call->count);
    return (int)got;
}

/* Steps 2 and 3. */
static int hand_latest(const struct enrol_call *call)
{
    const int got = take_latest(call);
    const int result = got > 0 ? ssm_ring_put_entered(call->subscription, call->handles, (uint32_t)got) : 0;
    for (int i = 0; result < 0 && i < got; i++)
        ssm_reference_drop(call->topic->pool, (uint32_t)call->handles[i], SSM_ANY_DELIVERY, true);
    return result < 0 ? result : got;
}

/* Steps 2 to 5, with both rights. */
static int enrol_in_hand(const struct enrol_call *call)
{
    struct ssm_u32 *roster = &call->topic->shared->roster;
    if (ssm_load_acquire_u32(&call->topic->shared->acl) & SSM_ACL_FLOWDOWN)
        return -SSM_E_SHUTDOWN;
    const int result = hand_latest(call);
    if (result >= 0) {
        const uint32_t number = ssm_load_relaxed_u32(roster) + 1;
        ssm_store_relaxed_u32(&call->subscription->shared->roster, number);
        ssm_store_relaxed_u32(roster, number);
    }
    return result;
}

/* -SSM_E_FULL: a right stays taken. */
static int enrol(const struct enrol_call *call)
{
    struct ssm_ring *topic = call->topic;
    struct ssm_side *producer = &topic->shared->producer, *consumer = &topic->shared->consumer;
    SSM_POOL_ENTER(topic->pool);
    if (topic->gone || call->subscription->gone)
        return -SSM_E_UNLINKED;
    int result = ssm_side_enter(topic, producer, false, -SSM_E_FULL);
    if (result != 0)
        return result;
    result = ssm_side_enter(topic, consumer, false, -SSM_E_FULL);
    if (result == 0) {
        result = enrol_in_hand(call);
        ssm_side_leave(consumer, false);
    }
    ssm_side_leave(producer, false);
    return result;
}

static bool may_be_topic(const struct ssm_ring *ring)
{
    return ring->table == NULL && (ring->flags & (SSM_ONE_PRODUCER | SSM_ONE_CONSUMER)) == 0;
}

int ssm_ring_enrol(struct ssm_ring *topic, struct ssm_ring *subscription, uint32_t count, uint64_t *room)
{
    const struct enrol_call call = {topic, subscription, count, room};
    uint64_t until_ns = 0;
    if (!may_be_topic(topic) || topic == subscription || topic->pool != subscription->pool || count > topic->capacity ||
        count > subscription->capacity)
        return -EINVAL;
    for (;;) {
        int result = enrol(&call);
        if (result != -SSM_E_FULL)
            return result;
        topic->pool->on_stall(topic->pool);
        result = ssm_pool_nap_within(topic->pool, &until_ns, SSM_POOL_PATIENCE_NS, NAP_NS);
        if (result != 0)
            return result;
    }
}

/* If the roster is another one than `known`, takes the producer's right for a moment: a process that has counted a
 * subscription has given it up before. -SSM_E_FULL: it stays taken. */
static int look_at_roster(struct ssm_ring *topic, uint32_t known, uint32_t *roster_out)
{
    struct ssm_side *producer = &topic->shared->producer;
    SSM_POOL_ENTER(topic->pool);
    if (topic->gone)
        return -SSM_E_UNLINKED;
    if (ssm_load_acquire_u32(&topic->shared->acl) & SSM_ACL_FLOWDOWN)
        return -SSM_E_SHUTDOWN;
    *roster_out = ssm_load_relaxed_u32(&topic->shared->roster); /* stale: as if this call had come earlier */
    if (*roster_out == known)
        return 0;
    int result = ssm_side_enter(topic, producer, false, -SSM_E_FULL);
    if (result != 0)
        return result;
    *roster_out = ssm_load_relaxed_u32(&topic->shared->roster);
    ssm_side_leave(producer, false);
    return 0;
}

int ssm_ring_roster(struct ssm_ring *topic, uint32_t known, uint32_t *roster_out)
{
    uint64_t until_ns = 0;
    if (!may_be_topic(topic))
        return -EINVAL;
    for (;;) {
        int result = look_at_roster(topic, known, roster_out);
        if (result != -SSM_E_FULL)
            return result;
        topic->pool->on_stall(topic->pool);
        result = ssm_pool_nap_within(topic->pool, &until_ns, SSM_POOL_PATIENCE_NS, NAP_NS);
        if (result != 0)
            return result;
    }
}

uint32_t ssm_ring_number(struct ssm_ring *subscription)
{
    if (!ssm_ring_look_begin(subscription))
        return 0;
    const uint32_t number = ssm_load_relaxed_u32(
        &subscription->shared->roster); /* stale: not counted, for the caller */
    return ssm_ring_look_end(subscription) ? number : 0;
}
