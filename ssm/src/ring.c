/* SPDX-License-Identifier: Apache-2.0
 *
 * The ring: a power-of-two array of handles between producers and consumers. It carries handles only; the packets
 * in it are the ring's, by the ring's bit in their holder sets.
 *
 * Each side has an index and a right to it: the side's robust lock, which an exclusive side's process keeps. Own
 * index relaxed, peer's index acquire, publish release (R1, R2); each side remembers the peer's index.
 *
 * put, under the producer's right, and what a death after each step leaves:
 *   1  check: room, handles held, none of them carries the ring's bit     nothing
 *   2  write the handles to the slots from head on                        slots nobody looks at
 *   3  note = head + n                                                    slots without the ring's bit: no effect
 *   4  each block: ring's bit set, own bit cleared                        repair takes the ring's bit from the slots
 *                                                                         [head, note) and settles: not delivered
 *   5  head += n, with release (R1)                                       delivered
 *   6  note = 0; the right is given up                                    note <= head: no effect
 * Step 4 comes before 5, so that a block which its producer has alone is handed over by one plain store, before
 * any consumer can see it. (The note must not precede the slots: an old handle there would be taken for the new.)
 *
 * get, under the consumer's right:
 *   1  read the slot; a block that lacks the ring's bit, or has another generation, was taken by somebody who died
 *      before step 3: it is passed over
 *   2  own bit set, ring's bit cleared                                    the slot is passed over; the reaper frees
 *   3  tail += n, with release (R2)
 * So the consumer's side needs no repair, and the producer's is exact, idempotent and without a log.
 */
#include "ring.h"

#include "metadata.h"
#include "pool.h"
#include "registry.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define REGISTRY_PATIENCE_NS UINT64_C(10000000000)
#define SIDE_PATIENCE_NS     UINT64_C(10000000) /* for a side's lock; then the caller's own time-out counts on */

struct ssm_ring {
    struct ssm_pool        *pool;
    struct ssm_ring_shared *shared;
    uint32_t                id;       /* holder id */
    uint32_t                capacity, flags;
    uint32_t                mask;     /* slots - 1 */
};

/* ---- finding and creating ----------------------------------------------------------------------------- */

static uint64_t ring_bytes(uint32_t capacity)
{
    uint64_t bytes = sizeof(struct ssm_ring_shared) + (uint64_t)ssm_ring_slot_count(capacity) * sizeof(struct ssm_u64);
    return (bytes + SSM_NO_SHARING - 1) / SSM_NO_SHARING * SSM_NO_SHARING;
}

struct ssm_ring_shared *ssm_ring_shared_at(const struct ssm_pool *pool, uint32_t holder_id)
{
    const struct ssm_geometry *g = &pool->geometry;
    uint64_t start = ssm_load_relaxed_u64(&ssm_holder_at(pool, holder_id)->ring_start);
    if (start % SSM_NO_SHARING != 0 || start > g->metadata_bytes || g->metadata_bytes - start < sizeof(struct ssm_ring_shared))
        return NULL;
    struct ssm_ring_shared *shared = (struct ssm_ring_shared *)(pool->base + g->metadata_start + start);
    uint32_t capacity = shared->capacity;
    if (capacity == 0 || capacity > SSM_RING_MAX || ring_bytes(capacity) > g->metadata_bytes - start)
        return NULL;
    return shared;
}

/* The holder id of the ring of that name, or SSM_NIL. */
static uint32_t find(const struct ssm_pool *pool, const char *name)
{
    for (uint32_t id = 0; id < ssm_holder_high(pool); id++) {
        const struct ssm_holder *holder = ssm_holder_at(pool, id);
        if (ssm_load_acquire_u32(&holder->kind) == SSM_HOLDER_RING && strncmp(holder->name, name, sizeof holder->name) == 0)
            return id;
    }
    return SSM_NIL;
}

/* With the registry locked. The slot becomes a ring by its last store: a death before it leaves nothing behind. */
static int create(struct ssm_pool *pool, const char *name, const struct ssm_ring_options *options, uint32_t *id_out)
{
    uint32_t id = ssm_registry_find_free(pool);
    uint32_t capacity = options->capacity != 0 ? options->capacity : SSM_RBUFF_SIZE;
    if (id == SSM_NIL)
        return -SSM_E_HOLDERS;
    uint64_t start;
    int result = ssm_metadata_carve(pool, ring_bytes(capacity), id, &start);
    if (result != 0)
        return result;
    struct ssm_ring_shared *shared = (struct ssm_ring_shared *)(pool->base + pool->geometry.metadata_start + start);
    memset(shared, 0, ring_bytes(capacity));
    shared->capacity = capacity;
    shared->flags = options->flags;
    struct ssm_holder *holder = ssm_holder_at(pool, id);
    ssm_store_relaxed_u32(&holder->incarnation, ssm_load_relaxed_u32(&holder->incarnation) + 1);
    ssm_store_relaxed_u32(&holder->pid, 0);
    ssm_store_relaxed_u32(&holder->waiting, 0);
    ssm_store_relaxed_u64(&holder->ring_start, start);
    memset(holder->name, 0, sizeof holder->name);
    strncpy(holder->name, name, sizeof holder->name - 1);
    ssm_registry_mark_used(pool, id);
    ssm_store_release_u32(&holder->kind, SSM_HOLDER_RING);
    *id_out = id;
    return 0;
}

static int find_or_create(struct ssm_pool *pool, const char *name, const struct ssm_ring_options *options, uint32_t *id_out)
{
    int result = ssm_registry_lock(pool, REGISTRY_PATIENCE_NS);
    if (result != 0)
        return result;
    *id_out = find(pool, name);
    if (*id_out == SSM_NIL)
        result = create(pool, name, options, id_out);
    ssm_registry_unlock(pool);
    return result;
}

int ssm_ring_open(struct ssm_pool *pool, const char *name, const struct ssm_ring_options *options, struct ssm_ring **ring_out)
{
    const uint32_t known = SSM_ONE_PRODUCER | SSM_ONE_CONSUMER;
    uint32_t id = SSM_NIL;
    size_t length = strnlen(name, SSM_NAME_SIZE);
    if (length == 0 || length == SSM_NAME_SIZE || options->capacity > SSM_RING_MAX || options->flags & ~known)
        return -EINVAL;
    int result = ssm_enter(pool);
    if (result != 0)
        return result;
    result = find_or_create(pool, name, options, &id);
    ssm_leave(pool);
    if (result == -SSM_E_HOLDERS && pool->on_stall(pool)) /* some of the slots were dead processes' */
        return ssm_ring_open(pool, name, options, ring_out);
    if (result != 0)
        return result;
    struct ssm_ring_shared *shared = ssm_ring_shared_at(pool, id);
    if (shared == NULL)
        return -SSM_E_CORRUPT;
    uint32_t capacity = shared->capacity;
    if ((options->capacity != 0 && options->capacity != capacity) || options->flags != shared->flags)
        return -SSM_E_MISMATCH;
    struct ssm_ring *ring = malloc(sizeof *ring);
    if (ring == NULL)
        return -ENOMEM;
    *ring = (struct ssm_ring){
        .pool = pool, .shared = shared, .id = id, .capacity = capacity, .flags = options->flags,
        .mask = ssm_ring_slot_count(capacity) - 1,
    };
    *ring_out = ring;
    return 0;
}

/* ---- the rights --------------------------------------------------------------------------------------- */

struct side_of { struct ssm_ring_shared *shared; uint32_t id, slots; }; /* slots: as they were when it was mapped */

/* The producer's side after a death: what was not published loses the ring's bit. */
static int repair_producer(struct ssm_pool *pool, void *context)
{
    const struct side_of *of = context;
    struct ssm_side *producer = &of->shared->producer;
    uint64_t head = ssm_load_relaxed_u64(&producer->index), note = ssm_load_relaxed_u64(&producer->note);
    uint64_t slots = of->slots;
    for (uint64_t at = head; note > head && at < note && at - head < slots; at++) {
        uint64_t handle = ssm_load_relaxed_u64(&of->shared->slots[at & (slots - 1)]);
        uint32_t block_idx = (uint32_t)handle;
        if (block_idx >= pool->geometry.block_total)
            continue;
        struct ssm_block *block = ssm_block_at(pool, block_idx);
        if (!ssm_block_has(block, of->id) || ssm_load_relaxed_u32(&block->generation) != handle >> 32)
            continue; /* the bit was not set yet, and the block may be another packet by now */
        ssm_block_remove(block, of->id);
        if (ssm_block_is_free(pool, block))
            ssm_settle(pool, block_idx);
    }
    ssm_store_release_u64(&producer->note, 0);
    ssm_store_relaxed_u64(&producer->recoveries, ssm_load_relaxed_u64(&producer->recoveries) + 1);
    return 0;
}

/* The consumer's side after a death: gets pass over what was taken. */
static int repair_consumer(struct ssm_pool *pool, void *context)
{
    struct ssm_side *consumer = &((const struct side_of *)context)->shared->consumer;
    (void)pool;
    ssm_store_relaxed_u64(&consumer->recoveries, ssm_load_relaxed_u64(&consumer->recoveries) + 1);
    return 0;
}

static int take_side(struct ssm_pool *pool, struct side_of *of, struct ssm_side *side, uint64_t patience_ns)
{
    bool producer = side == &of->shared->producer;
    return ssm_lock_take(pool, &side->lock, patience_ns, producer ? repair_producer : repair_consumer, of);
}

static int take_ring_side(struct ssm_ring *ring, struct ssm_side *side, uint64_t patience_ns)
{
    struct side_of of = {ring->shared, ring->id, ring->mask + 1};
    return take_side(ring->pool, &of, side, patience_ns);
}

/* The right to a side. An exclusive side is claimed by its first use and kept. `again`: not now. */
static int enter_side(struct ssm_ring *ring, struct ssm_side *side, bool exclusive, int again)
{
    if (exclusive && ssm_lock_is_mine(ring->pool, &side->lock))
        return 0;
    int result = take_ring_side(ring, side, exclusive ? 0 : SIDE_PATIENCE_NS);
    return result != -ETIMEDOUT ? result : exclusive ? -SSM_E_BUSY : again;
}

/* The right for the length of one call by somebody who is neither producer nor consumer: an exclusive side that
 * nobody has claimed is not claimed by it. */
static bool borrow_side(struct ssm_ring *ring, struct ssm_side *side, bool *mine)
{
    *mine = ssm_lock_is_mine(ring->pool, &side->lock);
    return *mine || take_ring_side(ring, side, SIDE_PATIENCE_NS) == 0;
}

static void return_side(struct ssm_side *side, bool mine)
{
    if (!mine)
        ssm_lock_release(&side->lock);
}

static void leave_side(struct ssm_side *side, bool exclusive)
{
    if (!exclusive)
        ssm_lock_release(&side->lock);
}

static void release_if_mine(struct ssm_pool *pool, struct ssm_side *side)
{
    if (ssm_lock_is_mine(pool, &side->lock))
        ssm_lock_release(&side->lock);
}

void ssm_ring_scrub(struct ssm_pool *pool, uint32_t holder_id)
{
    struct ssm_ring_shared *shared = ssm_ring_shared_at(pool, holder_id);
    if (shared == NULL)
        return;
    struct side_of of = {shared, holder_id, ssm_ring_slot_count(shared->capacity)};
    struct ssm_side *const sides[] = {&shared->producer, &shared->consumer};
    for (int i = 0; i < 2; i++)
        if (ssm_lock_owner_is_dead(pool, &sides[i]->lock) && take_side(pool, &of, sides[i], 0) == 0)
            ssm_lock_release(&sides[i]->lock);
}

void ssm_ring_let_go(struct ssm_pool *pool, uint32_t holder_id)
{
    struct ssm_ring_shared *shared = ssm_ring_shared_at(pool, holder_id);
    if (shared == NULL)
        return;
    release_if_mine(pool, &shared->producer);
    release_if_mine(pool, &shared->consumer);
}

void ssm_ring_close(struct ssm_ring *ring)
{
    if (ring == NULL)
        return;
    if (ssm_enter_reader(ring->pool) == 0) { /* a forked child that is no holder yet has nothing to give up */
        if (ring->pool->self != SSM_NIL) {
            release_if_mine(ring->pool, &ring->shared->producer);
            release_if_mine(ring->pool, &ring->shared->consumer);
        }
        ssm_leave(ring->pool);
    }
    free(ring);
}

/* ---- put ---------------------------------------------------------------------------------------------- */

struct put_call {
    struct ssm_ring *ring;
    const uint64_t  *handles;
    uint32_t         count, flags;
};

/* Each handle is held by this process, not in this ring, and not twice in the batch. */
static int check_handles(struct ssm_ring *ring, const uint64_t *handles, uint32_t count, bool keep)
{
    struct ssm_pool *pool = ring->pool;
    uint32_t checked = 0;
    int result = 0;
    for (; checked < count && result == 0; checked++) {
        uint32_t block_idx = keep ? ssm_claimed_block(pool, handles[checked]) : ssm_movable_block(pool, handles[checked]);
        if (block_idx == SSM_NIL)
            result = -SSM_E_STALE;
        else if (pool->claims[block_idx].mark || ssm_block_has(ssm_block_at(pool, block_idx), ring->id))
            result = -SSM_E_QUEUED;
        else
            pool->claims[block_idx].mark = 1;
    }
    for (uint32_t i = 0; i + (result != 0) < checked; i++) /* the last one looked at got no mark when it failed */
        pool->claims[(uint32_t)handles[i]].mark = 0;
    return result;
}

static int look_for_room(struct ssm_ring *ring, uint64_t head, uint32_t count)
{
    struct ssm_side *producer = &ring->shared->producer;
    uint64_t high_water = ssm_load_relaxed_u64(&producer->count);
    uint64_t depth = head - ssm_load_relaxed_u64(&producer->peer);
    if (depth < high_water && high_water - depth >= count && high_water <= ring->capacity)
        return 0;
    /* Full by the tail as last seen, or a new high water mark by it: look. A2: pairs with R2 in get_some(). */
    uint64_t tail = ssm_load_acquire_u64(&ring->shared->consumer.index);
    ssm_store_relaxed_u64(&producer->peer, tail);
    depth = head - tail;
    if (depth > ring->capacity)
        return -SSM_E_CORRUPT;
    if (ring->capacity - depth < count)
        return -SSM_E_FULL;
    if (depth + count > high_water)
        ssm_store_relaxed_u64(&producer->count, depth + count);
    return 0;
}

/* Steps 2 to 6 of put. */
static void put_all(struct ssm_ring *ring, const uint64_t *handles, uint32_t count, bool keep, uint64_t head)
{
    struct ssm_pool *pool = ring->pool;
    struct ssm_side *producer = &ring->shared->producer;
    for (uint32_t i = 0; i < count; i++)
        ssm_store_relaxed_u64(&ring->shared->slots[(head + i) & ring->mask], handles[i]);
    ssm_store_release_u64(&producer->note, head + count);
    for (uint32_t i = 0; i < count; i++) {
        struct ssm_block *block = ssm_block_at(pool, (uint32_t)handles[i]);
        struct ssm_claim *claim = &pool->claims[(uint32_t)handles[i]];
        bool mine_too = keep || claim->references > 1;
        if (!mine_too && ssm_block_is_exactly(pool, block, pool->self)) {
            ssm_block_swap(block, pool->self, ring->id);
        } else {
            ssm_block_add(pool, block, ring->id);
            if (!mine_too)
                ssm_block_remove(block, pool->self);
        }
        if (!keep)
            claim->references--;
        if (!mine_too)
            ssm_drop_bytes(pool, claim->class_idx);
    }
    /* R1 -> A1 in head_beyond(): slots, holder sets and payload are written before the index is seen. */
    ssm_store_release_u64(&producer->index, head + count);
    ssm_store_release_u64(&producer->note, 0);
}

static int may_put(const struct ssm_ring *ring)
{
    uint32_t acl = ssm_load_acquire_u32(&ring->shared->acl);
    return acl & SSM_ACL_FLOWDOWN ? -SSM_E_SHUTDOWN : acl & SSM_ACL_RDONLY ? -SSM_E_RDONLY : 0;
}

static int put_attempt(void *context, bool thorough)
{
    const struct put_call *call = context;
    struct ssm_ring *ring = call->ring;
    struct ssm_side *producer = &ring->shared->producer;
    bool exclusive = ring->flags & SSM_ONE_PRODUCER;
    (void)thorough;
    int result = ssm_enter(ring->pool);
    if (result != 0)
        return result;
    result = may_put(ring);
    if (result == 0)
        result = enter_side(ring, producer, exclusive, -SSM_E_FULL);
    if (result == 0) {
        uint64_t head = ssm_load_relaxed_u64(&producer->index);
        result = may_put(ring); /* again: it may have been shut down while this call waited for the right */
        if (result == 0)
            result = check_handles(ring, call->handles, call->count, call->flags & SSM_KEEP);
        if (result == 0)
            result = look_for_room(ring, head, call->count);
        if (result == 0)
            put_all(ring, call->handles, call->count, call->flags & SSM_KEEP, head);
        leave_side(producer, exclusive);
    }
    ssm_leave(ring->pool);
    return result;
}

int ssm_ring_put(struct ssm_ring *ring, const uint64_t *handles, uint32_t count, uint32_t flags, int64_t timeout_ns)
{
    struct put_call call = {ring, handles, count, flags};
    if (count == 0 || count > ring->capacity || flags & ~(uint32_t)SSM_KEEP)
        return -EINVAL;
    struct ssm_wait wait = {
        .attempt = put_attempt, .context = &call, .again = -SSM_E_FULL, .class_idx = SSM_NIL,
        .event = &ring->shared->not_full,
    };
    int result = ssm_wait_for(ring->pool, &wait, timeout_ns);
    if (result == 0)
        ssm_event_signal(&ring->shared->not_empty, count);
    return result;
}

/* ---- get ---------------------------------------------------------------------------------------------- */

struct get_call {
    struct ssm_ring *ring;
    uint64_t        *handles_out; /* NULL: free them */
    uint32_t         count;
};

/* Takes the packet in a slot: true; false when it was taken by somebody who died. */
static bool take_slot(struct ssm_ring *ring, uint64_t handle)
{
    struct ssm_pool *pool = ring->pool;
    uint32_t block_idx = (uint32_t)handle;
    if (block_idx >= pool->geometry.block_total)
        return false; /* scribbled: nothing can be said of it */
    struct ssm_block *block = ssm_block_at(pool, block_idx);
    /* The bit first: with it, the block's generation is that of the packet that is queued (G3). */
    if (!ssm_block_has(block, ring->id) || ssm_load_relaxed_u32(&block->generation) != handle >> 32)
        return false;
    struct ssm_claim *claim = &pool->claims[block_idx];
    if (claim->references > 0) {
        ssm_block_remove(block, ring->id);
    } else if (ssm_block_is_exactly(pool, block, ring->id)) {
        ssm_block_swap(block, ring->id, pool->self);
    } else {
        ssm_block_add(pool, block, pool->self);
        ssm_block_remove(block, ring->id);
    }
    if (claim->references++ == 0) {
        claim->class_idx = (uint8_t)ssm_class_of_block(pool, block_idx);
        ssm_hold_bytes(pool, claim->class_idx);
    }
    return true;
}

/* How far the consumer may read; UINT64_MAX when the indices contradict each other. The head as last seen will do
 * while there is something before it; slots that are passed over may use that up. */
static uint64_t head_beyond(struct ssm_ring *ring, uint64_t tail)
{
    struct ssm_u64 *peer = &ring->shared->consumer.peer;
    uint64_t head = ssm_load_relaxed_u64(peer);
    if (head - tail - 1 < ring->capacity) /* not equal, and not too far */
        return head;
    head = ssm_load_acquire_u64(&ring->shared->producer.index); /* A1: pairs with R1 in put_all() */
    ssm_store_relaxed_u64(peer, head);
    return head - tail <= ring->capacity ? head : UINT64_MAX;
}

/* Up to `count` packets; how many. Passed-over slots count towards the tail only. */
static uint32_t get_some(struct ssm_ring *ring, uint32_t count, uint64_t *handles_out)
{
    struct ssm_side *consumer = &ring->shared->consumer;
    uint64_t start = ssm_load_relaxed_u64(&consumer->index), tail = start, head = start;
    uint32_t got = 0;
    while (got < count) {
        if (tail == head) {
            head = head_beyond(ring, tail);
            if (head == UINT64_MAX && tail == start)
                return UINT32_MAX;
            if (head == UINT64_MAX || head == tail)
                break;
        }
        uint64_t handle = ssm_load_relaxed_u64(&ring->shared->slots[tail++ & ring->mask]);
        if (take_slot(ring, handle))
            handles_out[got++] = handle;
    }
    if (tail != start) {
        ssm_store_relaxed_u64(&consumer->count, ssm_load_relaxed_u64(&consumer->count) + got);
        ssm_store_release_u64(&consumer->index, tail); /* R2 -> A2 in look_for_room(): the slots were read before */
    }
    return got;
}

/* Frees all that is queued; of the consumer's right. */
static void discard(struct ssm_ring *ring)
{
    uint64_t handles[32];
    uint32_t got;
    while ((got = get_some(ring, 32, handles)) != 0 && got != UINT32_MAX)
        for (uint32_t i = 0; i < got; i++) {
            struct ssm_claim *claim = &ring->pool->claims[(uint32_t)handles[i]];
            if (--claim->references == 0)
                ssm_block_release(ring->pool, claim->class_idx, (uint32_t)handles[i]);
        }
}

/* The flags are read before the index: what was put before they were set is seen by the look after them. */
static int get_attempt(void *context, bool thorough)
{
    const struct get_call *call = context;
    struct ssm_ring *ring = call->ring;
    struct ssm_side *consumer = &ring->shared->consumer;
    bool exclusive = ring->flags & SSM_ONE_CONSUMER;
    (void)thorough;
    int result = ssm_enter(ring->pool);
    if (result != 0)
        return result;
    result = enter_side(ring, consumer, exclusive, -SSM_E_EMPTY);
    if (result == 0) {
        uint32_t acl = ssm_load_acquire_u32(&ring->shared->acl);
        uint32_t got = 0;
        if (acl & SSM_ACL_DISCARD)
            discard(ring);
        else
            got = get_some(ring, call->count, call->handles_out);
        result = got == UINT32_MAX ? -SSM_E_CORRUPT : (int)got;
        if (got == 0)
            result = acl & (SSM_ACL_FLOWDOWN | SSM_ACL_FLOWPEER) ? -SSM_E_SHUTDOWN : -SSM_E_EMPTY;
        leave_side(consumer, exclusive);
    }
    ssm_leave(ring->pool);
    return result;
}

int ssm_ring_get(struct ssm_ring *ring, uint64_t *handles_out, uint32_t count, int64_t timeout_ns)
{
    struct get_call call = {ring, handles_out, count > INT32_MAX ? INT32_MAX : count};
    if (count == 0)
        return -EINVAL;
    struct ssm_wait wait = {
        .attempt = get_attempt, .context = &call, .again = -SSM_E_EMPTY, .class_idx = SSM_NIL,
        .event = &ring->shared->not_empty,
    };
    int result = ssm_wait_for(ring->pool, &wait, timeout_ns);
    if (result > 0)
        ssm_event_signal(&ring->shared->not_full, (uint32_t)result);
    return result;
}

/* ---- the rest ----------------------------------------------------------------------------------------- */

uint32_t ssm_ring_depth(struct ssm_ring *ring)
{
    uint64_t tail = ssm_load_acquire_u64(&ring->shared->consumer.index); /* first: depth is never negative */
    uint64_t head = ssm_load_acquire_u64(&ring->shared->producer.index);
    return head - tail < ring->capacity ? (uint32_t)(head - tail) : ring->capacity;
}

struct ssm_ring_shared *ssm_ring_shared_of(const struct ssm_ring *ring) { return ring->shared; }
struct ssm_pool *ssm_ring_pool(const struct ssm_ring *ring) { return ring->pool; }
uint32_t ssm_ring_capacity(const struct ssm_ring *ring) { return ring->capacity; }
uint32_t ssm_ring_flags(const struct ssm_ring *ring) { return ring->flags; }

uint32_t ssm_ring_acl(struct ssm_ring *ring)
{
    return ssm_load_acquire_u32(&ring->shared->acl) & ~SSM_ACL_DISCARD;
}

static void wake_everyone(struct ssm_ring *ring)
{
    ssm_event_signal(&ring->shared->not_empty, UINT32_MAX);
    ssm_event_signal(&ring->shared->not_full, UINT32_MAX);
}

int ssm_ring_set_acl(struct ssm_ring *ring, uint32_t acl)
{
    if (acl & ~(uint32_t)(SSM_ACL_RDONLY | SSM_ACL_FLOWDOWN | SSM_ACL_FLOWPEER))
        return -EINVAL;
    int result = ssm_enter(ring->pool);
    if (result != 0)
        return result;
    ssm_store_release_u32(&ring->shared->acl, acl);
    ssm_leave(ring->pool);
    wake_everyone(ring);
    return 0;
}

int ssm_ring_shutdown(struct ssm_ring *ring, int immediate)
{
    struct ssm_side *producer = &ring->shared->producer, *consumer = &ring->shared->consumer;
    bool mine;
    int result = ssm_enter(ring->pool);
    if (result != 0)
        return result;
    /* Under the producer's right where it can be had: a put that the flags still allowed is over by then. */
    bool borrowed = borrow_side(ring, producer, &mine);
    ssm_or_acqrel_u32(&ring->shared->acl, SSM_ACL_FLOWDOWN | (immediate ? SSM_ACL_DISCARD : 0));
    if (borrowed)
        return_side(producer, mine);
    /* Where the consumer's side is another live process's, that one discards, at its next get or at its close. */
    if (immediate && borrow_side(ring, consumer, &mine)) {
        discard(ring);
        return_side(consumer, mine);
    }
    ssm_leave(ring->pool);
    wake_everyone(ring);
    return 0;
}
