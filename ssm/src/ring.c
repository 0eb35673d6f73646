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
 * put of deliveries, packets that this process took out of a redelivering ring:
 *   3  span = who, how many; then the note                                no effect: it counts with the note only
 *   4  their own bits stay                                                not delivered; a reaper returns them
 *   5  head += n (R1)                                                     delivered; the repair does step 6 for who died
 *   6  their entries become void; span = 0; note = 0                      as above, until all are void
 *   7  own bits cleared, what is free then settled                        a reaper clears them
 * While a span names somebody dead, its repair is under way: reapers leave that one alone.
 *
 * get, under the consumer's right:
 *   1  read the slot; a block that lacks the ring's bit, or has another generation, was taken by somebody who died
 *      before step 3: it is passed over
 *   2  own bit set, ring's bit cleared                                    the slot is passed over; the reaper frees
 *   3  tail += n, with release (R2)
 * So the consumer's side needs no repair, and the producer's is exact, idempotent and without a log. A redelivering ring
 * notes each get in a table before step 2, and what has come back is got first; see redelivery.h.
 */
#include "ring.h"

#include "handover.h"
#include "metadata.h"
#include "numbers.h"
#include "pool.h"
#include "redelivery.h"
#include "registry.h"
#include "seed_bug.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define REGISTRY_PATIENCE_NS UINT64_C(10000000000)
#define SIDE_PATIENCE_NS     UINT64_C(10000000) /* for a side's lock; then the caller's own time-out counts on */
#define LOOKS                20                 /* at what another process is about to do, or a reaper */
#define LOOK_NAP_NS          UINT64_C(500000)
#define SPAN_STAYS           (UINT64_C(1) << 31)

_Static_assert(SSM_RING_MAX < SPAN_STAYS, "a span counts any batch");

/* ---- finding and creating ----------------------------------------------------------------------------- */

/* Where the entries of a redelivering ring begin. */
static uint64_t table_start(uint32_t capacity)
{
    uint64_t bytes = sizeof(struct ssm_ring_shared) + (uint64_t)ssm_ring_slot_count(capacity) * sizeof(struct ssm_u64);
    return (bytes + SSM_NO_SHARING - 1) / SSM_NO_SHARING * SSM_NO_SHARING;
}

static uint64_t ring_bytes(const struct ssm_pool *pool, uint32_t capacity, uint32_t flags)
{
    uint64_t entries = flags & SSM_REDELIVER ? pool->geometry.block_total : 0;
    return table_start(capacity) + entries * sizeof(struct ssm_delivery);
}

/* As it was when it was found sound: somebody may scribble over it meanwhile. */
struct shape { uint32_t capacity, flags; };

static struct ssm_ring_shared *find_shared(const struct ssm_pool *pool, uint32_t holder_id, struct shape *shape_out)
{
    const struct ssm_geometry *g = &pool->geometry;
    uint64_t start = ssm_load_relaxed_u64(&ssm_holder_at(pool, holder_id)->ring_start);
    if (start % SSM_NO_SHARING != 0 || start > g->metadata_bytes || g->metadata_bytes - start < sizeof(struct ssm_ring_shared))
        return NULL;
    struct ssm_ring_shared *shared = (struct ssm_ring_shared *)(pool->base + g->metadata_start + start);
    uint32_t capacity = shared->capacity, flags = shared->flags;
    if (capacity == 0 || capacity > SSM_RING_MAX || ring_bytes(pool, capacity, flags) > g->metadata_bytes - start)
        return NULL;
    *shape_out = (struct shape){capacity, flags};
    return shared;
}

struct ssm_ring_shared *ssm_ring_shared_at(const struct ssm_pool *pool, uint32_t holder_id)
{
    struct shape shape;
    return find_shared(pool, holder_id, &shape);
}

bool ssm_ring_table(const struct ssm_pool *pool, uint32_t holder_id, struct ssm_redelivery *table_out)
{
    struct shape shape;
    struct ssm_ring_shared *shared = NULL;
    if (ssm_load_acquire_u32(&ssm_holder_at(pool, holder_id)->kind) == SSM_HOLDER_RING)
        shared = find_shared(pool, holder_id, &shape);
    if (shared == NULL || !(shape.flags & SSM_REDELIVER))
        return false;
    struct ssm_delivery *entries = (struct ssm_delivery *)((uint8_t *)shared + table_start(shape.capacity));
    *table_out = (struct ssm_redelivery){.entries = entries, .ring_id = holder_id};
    return true;
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

/* With the registry locked. The slot becomes a ring by its last store: what a death before it leaves taken, metadata and
 * numbers, nobody owns, and it goes back. */
static int create(struct ssm_pool *pool, const char *name, const struct ssm_ring_options *options, uint32_t *id_out)
{
    uint32_t id = ssm_registry_find_free(pool);
    uint32_t capacity = options->capacity != 0 ? options->capacity : SSM_RBUFF_SIZE;
    if (id == SSM_NIL)
        return -SSM_E_HOLDERS;
    uint64_t start;
    uint64_t bytes = ring_bytes(pool, capacity, options->flags);
    int result = ssm_metadata_carve(pool, bytes, id, &start);
    if (result != 0)
        return result;
    struct ssm_ring_shared *shared = (struct ssm_ring_shared *)(pool->base + pool->geometry.metadata_start + start);
    memset(shared, 0, bytes);
    shared->capacity = capacity;
    shared->flags = options->flags;
    uint32_t ring_id = ssm_numbers_alloc(pool, SSM_NUMBERS_RING_IDS);
    if (ring_id == SSM_NIL)
        return -SSM_E_CORRUPT; /* there are as many as slots */
    struct ssm_holder *holder = ssm_holder_at(pool, id);
    ssm_store_relaxed_u32(&holder->incarnation, ssm_load_relaxed_u32(&holder->incarnation) + 1);
    if (SSM_HAS_BUG(RING_EARLY))
        ssm_store_release_u32(&holder->kind, SSM_HOLDER_RING);
    ssm_store_relaxed_u32(&holder->pid, 0);
    ssm_store_relaxed_u32(&holder->waiting, 0);
    ssm_store_relaxed_u32(&holder->ring_id, ring_id);
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

static int open_table(struct ssm_ring *ring)
{
    struct ssm_redelivery found;
    if (!ssm_ring_table(ring->pool, ring->id, &found))
        return -SSM_E_CORRUPT;
    int result = ssm_enter(ring->pool);
    if (result != 0)
        return result;
    ring->table = ssm_redelivery_open(ring->pool, ring->id, found.entries);
    ssm_leave(ring->pool);
    return ring->table != NULL ? 0 : -ENOMEM;
}

int ssm_ring_open(struct ssm_pool *pool, const char *name, const struct ssm_ring_options *options, struct ssm_ring **ring_out)
{
    const uint32_t known = SSM_ONE_PRODUCER | SSM_ONE_CONSUMER | SSM_REDELIVER;
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
        .pool = pool, .shared = shared, .mark = ssm_mark_of(id), .id = id, .capacity = capacity, .flags = options->flags,
        .mask = ssm_ring_slot_count(capacity) - 1,
    };
    result = ring->flags & SSM_REDELIVER ? open_table(ring) : 0;
    if (result != 0)
        free(ring);
    else
        *ring_out = ring;
    return result;
}

/* ---- the rights --------------------------------------------------------------------------------------- */

struct side_of { struct ssm_ring_shared *shared; uint32_t id, slots; }; /* slots: as they were when it was mapped */

/* Step 6 of a put that was published, in the name of who died in it. The slots are as it left them: only who has the right
 * writes them. */
static void complete_handover(struct ssm_pool *pool, const struct side_of *of, uint64_t note, uint64_t span)
{
    uint64_t mask = of->slots - 1, count = span & (SPAN_STAYS - 1);
    struct ssm_redelivery table;
    if (span & SPAN_STAYS || count > note || count > mask + 1)
        return;
    for (uint32_t id = 0; id < ssm_holder_high(pool); id++)
        for (uint64_t at = note - count; ssm_ring_table(pool, id, &table) && at != note; at++) {
            uint64_t handle = ssm_load_relaxed_u64(&of->shared->slots[at & mask]);
            if ((uint32_t)handle < pool->geometry.block_total)
                ssm_redelivery_void(&table, handle, (uint32_t)(span >> 32));
        }
}

/* The slots [head, note) of a put that was not published lose the ring's bit. */
static void undo_put(struct ssm_pool *pool, const struct side_of *of, uint64_t head, uint64_t note)
{
    uint64_t slots = of->slots;
    for (uint64_t at = head; at < note && at - head < slots; at++) {
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
}

/* The producer's side after a death. */
static int repair_producer(struct ssm_pool *pool, void *context)
{
    const struct side_of *of = context;
    struct ssm_side *producer = &of->shared->producer;
    uint64_t head = ssm_load_relaxed_u64(&producer->index), note = ssm_load_relaxed_u64(&producer->note);
    uint64_t span = ssm_load_relaxed_u64(&producer->span);
    if (note > head && !SSM_HAS_BUG(NO_UNDO))
        undo_put(pool, of, head, note);
    else if (note != 0 && span != 0 && !SSM_HAS_BUG(NO_HANDOVER))
        complete_handover(pool, of, note, span);
    ssm_store_release_u64(&producer->span, 0);
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
static inline int enter_side(struct ssm_ring *ring, struct ssm_side *side, bool exclusive, int again)
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

uint32_t ssm_ring_putter(const struct ssm_pool *pool, uint32_t holder_id)
{
    const struct ssm_ring_shared *shared = ssm_ring_shared_at(pool, holder_id);
    uint64_t span = shared != NULL ? ssm_load_acquire_u64(&shared->producer.span) : 0;
    return span != 0 ? ssm_redelivery_slot((uint32_t)(span >> 32)) : SSM_NIL;
}

void ssm_ring_return(struct ssm_pool *pool, uint32_t holder_id, const uint64_t *dead)
{
    struct ssm_redelivery table;
    struct ssm_ring_shared *shared = ssm_ring_shared_at(pool, holder_id);
    if (shared == NULL || !ssm_ring_table(pool, holder_id, &table))
        return;
    uint32_t returned = ssm_redelivery_return(pool, &table, dead, ssm_load_acquire_u32(&shared->acl) & SSM_ACL_DISCARD);
    if (returned == 0)
        return;
    ssm_store_release_u32(&shared->returned, 1); /* D5 -> D6 in take_returned(): after all of them carry the ring's bit */
    ssm_event_signal(&shared->not_empty, returned, pool->fenced);
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

/* It is in this ring, or between this ring and whoever took it out. The bit first: see redelivery.h (D4). */
static bool is_in_ring(const struct ssm_ring *ring, uint64_t handle)
{
    return ssm_block_has(ssm_block_at(ring->pool, (uint32_t)handle), ring->id) ||
           (ring->table != NULL && ssm_redelivery_is_under_way(ring->pool, ring->table, handle));
}

/* Each handle is held by this process, not in this ring, and not twice in the batch. `flags_out`: all their claims'. */
static SSM_COLD int check_handles(struct ssm_ring *ring, const uint64_t *handles, uint32_t count, bool keep, uint8_t *flags_out)
{
    struct ssm_pool *pool = ring->pool;
    uint32_t checked = 0;
    int result = 0;
    for (; checked < count && result == 0; checked++) {
        uint32_t block_idx = keep ? ssm_claimed_block(pool, handles[checked]) : ssm_movable_block(pool, handles[checked]);
        if (block_idx == SSM_NIL)
            result = -SSM_E_STALE;
        else if (pool->claims[block_idx].flags & SSM_CLAIM_MARKED || is_in_ring(ring, handles[checked]))
            result = -SSM_E_QUEUED;
        else
            *flags_out |= pool->claims[block_idx].flags |= SSM_CLAIM_MARKED;
    }
    for (uint32_t i = 0; i + (result != 0) < checked; i++) /* the last one looked at got no mark when it failed */
        pool->claims[(uint32_t)handles[i]].flags &= (uint8_t)~SSM_CLAIM_MARKED;
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

/* Step 4 for one block. A delivery stays until the index is published: a process that dies in between has it still. */
static void hand_to_ring(struct ssm_ring *ring, uint64_t handle, bool keep)
{
    struct ssm_pool *pool = ring->pool;
    struct ssm_block *block = ssm_block_at(pool, (uint32_t)handle);
    struct ssm_claim *claim = &pool->claims[(uint32_t)handle];
    bool delivery = claim->flags & SSM_CLAIM_OF_DELIVERY, mine_too = keep || delivery || claim->references > 1;
    if (!mine_too && ssm_block_is_mine(pool, block)) {
        ssm_block_swap(block, pool->self, ring->id);
    } else {
        ssm_block_add(pool, block, ring->id);
        if (!mine_too)
            ssm_block_remove(block, pool->self);
    }
    if (keep || delivery)
        return; /* see finish_deliveries() */
    claim->references--;
    if (!mine_too)
        ssm_drop_bytes(pool, pool->classes[claim->class_idx].block_size);
}

/* Step 6 for the deliveries of a batch: the rings that they came from forget them. Those that came out of several rings wait
 * for the last reference. */
static void forget_deliveries(struct ssm_pool *pool, const uint64_t *handles, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if ((pool->claims[(uint32_t)handles[i]].flags & (SSM_CLAIM_DELIVERED | SSM_CLAIM_SEVERAL)) == SSM_CLAIM_DELIVERED)
            ssm_redelivery_settle(pool, (uint32_t)handles[i]);
}

/* Step 7: the references that went with them. Whoever took such a packet out may have freed it already. */
static void finish_deliveries(struct ssm_pool *pool, const uint64_t *handles, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct ssm_claim *claim = &pool->claims[(uint32_t)handles[i]];
        if (claim->flags & SSM_CLAIM_OF_DELIVERY && --claim->references == 0)
            ssm_block_release(pool, claim->class_idx, (uint32_t)handles[i]);
    }
}

/* Who puts deliveries, and how many packets; with SPAN_STAYS they stay this process's deliveries. */
static uint64_t span_of(const struct ssm_pool *pool, uint32_t count, bool stays)
{
    return (uint64_t)ssm_redelivery_self(pool) << 32 | (stays ? SPAN_STAYS : 0) | count;
}

/* Steps 2 to 7 of put. `claims`: the flags of all claims. */
static SSM_COLD void put_all(struct ssm_ring *ring, const struct put_call *call, uint64_t head, uint8_t claims)
{
    struct ssm_side *producer = &ring->shared->producer;
    uint32_t count = call->count;
    bool keep = call->flags & SSM_KEEP, deliveries = claims & SSM_CLAIM_OF_DELIVERY;
    bool forget = deliveries && (!keep || call->flags & SSM_HANDOVER);
    if (SSM_HAS_BUG(NOTE_EARLY))
        ssm_store_release_u64(&producer->note, head + count);
    for (uint32_t i = 0; i < count; i++)
        ssm_store_relaxed_u64(&ring->shared->slots[(head + i) & ring->mask], call->handles[i]);
    if (deliveries)
        ssm_store_release_u64(&producer->span, span_of(ring->pool, count, !forget || claims & SSM_CLAIM_SEVERAL));
    if (!SSM_HAS_BUG(NO_NOTE))
        ssm_store_release_u64(&producer->note, head + count);
    if (SSM_HAS_BUG(HEAD_EARLY))
        ssm_store_release_u64(&producer->index, head + count);
    for (uint32_t i = 0; i < count; i++)
        hand_to_ring(ring, call->handles[i], keep);
    /* R1 -> A1 in ssm_ring_head_beyond(): slots, holder sets and payload are written before the index is seen. */
    ssm_store_release_u64(&producer->index, head + count);
    if (forget)
        forget_deliveries(ring->pool, call->handles, count);
    if (deliveries)
        ssm_store_release_u64(&producer->span, 0);
    ssm_store_release_u64(&producer->note, 0);
    if (deliveries && !keep)
        finish_deliveries(ring->pool, call->handles, count);
}

static int may_put(const struct ssm_ring *ring)
{
    uint32_t acl = ssm_load_acquire_u32(&ring->shared->acl);
    return acl & SSM_ACL_FLOWDOWN ? -SSM_E_SHUTDOWN : acl & SSM_ACL_RDONLY ? -SSM_E_RDONLY : 0;
}

/* With the producer's right. */
static inline int put_in_hand(struct ssm_ring *ring, const struct put_call *call)
{
    const uint64_t head = ssm_load_relaxed_u64(&ring->shared->producer.index);
    const bool keep = call->flags & SSM_KEEP;
    uint8_t claims = 0;
    int result = may_put(ring); /* again: it may have been shut down while this call waited for the right */
    if (result != 0)
        return result;
    if (!keep && ring->table == NULL && ssm_take_sole(ring->pool, call->handles, call->count)) {
        result = look_for_room(ring, head, call->count);
        if (result != 0)
            ssm_untake_sole(ring->pool, call->handles, call->count);
        else if (call->count == 1) /* told apart: the compiler makes better code of each */
            ssm_handover_put(ring, call->handles, 1);
        else
            ssm_handover_put(ring, call->handles, call->count);
        return result;
    }
    result = check_handles(ring, call->handles, call->count, keep, &claims);
    if (result == 0)
        result = look_for_room(ring, head, call->count);
    if (result == 0)
        put_all(ring, call, head, claims);
    return result;
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
        result = put_in_hand(ring, call);
        leave_side(producer, exclusive);
    }
    ssm_leave(ring->pool);
    return result;
}

/* Not in ssm_ring_put() itself, which most calls leave by the first attempt. */
static SSM_COLD int put_waiting(struct put_call *call, int64_t timeout_ns)
{
    const struct ssm_wait wait = {
        .attempt = put_attempt, .context = call, .again = -SSM_E_FULL, .class_idx = SSM_NIL,
        .event = &call->ring->shared->not_full,
    };
    return ssm_wait_for(call->ring->pool, &wait, timeout_ns);
}

int ssm_ring_put(struct ssm_ring *ring, const uint64_t *handles, uint32_t count, uint32_t flags, int64_t timeout_ns)
{
    struct put_call call = {ring, handles, count, flags};
    if (count == 0 || count > ring->capacity || flags & ~(uint32_t)(SSM_KEEP | SSM_HANDOVER) || flags == SSM_HANDOVER)
        return -EINVAL;
    int result = put_attempt(&call, true);
    if (result == -SSM_E_FULL && timeout_ns != 0)
        result = put_waiting(&call, timeout_ns);
    /* Whoever passed it on to this process may be about to say so (step 6), or have died before. */
    for (int look = 0; ring->table != NULL && result == -SSM_E_QUEUED && look < LOOKS; look++) {
        ring->pool->on_stall(ring->pool);
        ssm_nap_ns(LOOK_NAP_NS);
        result = put_attempt(&call, true);
    }
    if (result == 0)
        ssm_event_signal(&ring->shared->not_empty, count, ring->pool->fenced);
    return result;
}

/* ---- get ---------------------------------------------------------------------------------------------- */

struct get_call {
    struct ssm_ring *ring;
    uint64_t        *handles_out; /* NULL: free them */
    uint32_t         count;
};

/* The slot's packet is there still: nobody took it and died, nor was it returned since. */
static bool is_queued(const struct ssm_ring *ring, uint64_t handle)
{
    if ((uint32_t)handle >= ring->pool->geometry.block_total)
        return false; /* scribbled: nothing can be said of it */
    const struct ssm_block *block = ssm_block_at(ring->pool, (uint32_t)handle);
    /* The bit first: with it, the block's generation is that of the packet that is queued (G3). */
    return ssm_block_has(block, ring->id) && ssm_load_relaxed_u32(&block->generation) == handle >> 32 &&
           (ring->table == NULL || !ssm_redelivery_is_returned(ring->table, handle));
}

/* Step 2 of get. */
static void take_block(struct ssm_ring *ring, uint32_t block_idx)
{
    struct ssm_pool *pool = ring->pool;
    struct ssm_block *block = ssm_block_at(pool, block_idx);
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
        ring->class_idx = claim->class_idx;
        ssm_hold_bytes(pool, pool->classes[claim->class_idx].block_size);
    }
    if (ring->table != NULL)
        claim->flags |= claim->flags & SSM_CLAIM_DELIVERED ? SSM_CLAIM_SEVERAL : SSM_CLAIM_DELIVERED;
}

/* Takes the packet in a slot: true; false when it was taken by somebody who died. */
static bool take_slot(struct ssm_ring *ring, uint64_t handle, uint64_t at)
{
    if (!is_queued(ring, handle) || (ring->table != NULL && !ssm_redelivery_take(ring->pool, ring->table, handle, at)))
        return false;
    take_block(ring, (uint32_t)handle);
    return true;
}

/* Passes over what the dead have taken. Otherwise a slot of theirs would count again, when its packet was returned, is
 * taken, and put into this ring once more. */
static void pass_over(struct ssm_ring *ring)
{
    struct ssm_side *consumer = &ring->shared->consumer;
    uint64_t start = ssm_load_relaxed_u64(&consumer->index), tail = start, head = start;
    for (;; tail++) {
        if (tail == head)
            head = ssm_ring_head_beyond(ring, tail);
        if (head == UINT64_MAX || head == tail || is_queued(ring, ssm_load_relaxed_u64(&ring->shared->slots[tail & ring->mask])))
            break;
    }
    if (tail != start)
        ssm_store_release_u64(&consumer->index, tail); /* R2 */
}

/* Up to `count` packets that came back from the dead. The flag is down while the table is looked through: a reaper that
 * returns more meanwhile sets it, and one that comes for this process, too. */
static uint32_t take_returned(struct ssm_ring *ring, uint32_t count, uint64_t *handles_out)
{
    struct ssm_ring_shared *shared = ring->shared;
    uint32_t got = 0, left = 1;
    ssm_exchange_acqrel_u32(&shared->returned, 0); /* D6: pairs with D5 in ssm_ring_return() */
    pass_over(ring);
    while (got < count && left > 0 && ssm_redelivery_take_first(ring->pool, ring->table, &handles_out[got], &left)) {
        take_block(ring, (uint32_t)handles_out[got]);
        ring->pool->claims[(uint32_t)handles_out[got++]].flags |= SSM_CLAIM_REDELIVERED;
    }
    if (left > 0)
        ssm_store_release_u32(&shared->returned, 1);
    ssm_store_relaxed_u64(&shared->redelivered, ssm_load_relaxed_u64(&shared->redelivered) + got);
    ssm_store_relaxed_u64(&shared->consumer.count, ssm_load_relaxed_u64(&shared->consumer.count) + got);
    return got;
}

/* Up to `count` packets; how many. Passed-over slots count towards the tail only. */
static uint32_t get_queued(struct ssm_ring *ring, uint32_t count, uint64_t *handles_out)
{
    struct ssm_side *consumer = &ring->shared->consumer;
    uint64_t start = ssm_load_relaxed_u64(&consumer->index), tail = start, head = start;
    uint32_t got = 0;
    while (got < count) {
        if (tail == head) {
            head = ssm_ring_head_beyond(ring, tail);
            if (head == UINT64_MAX && tail == start)
                return UINT32_MAX;
            if (head == UINT64_MAX || head == tail)
                break;
        }
        uint64_t at = tail++, handle = ssm_load_relaxed_u64(&ring->shared->slots[at & ring->mask]);
        if (SSM_HAS_BUG(TAIL_EARLY))
            ssm_store_release_u64(&consumer->index, tail);
        if (take_slot(ring, handle, at))
            handles_out[got++] = handle;
    }
    if (tail != start) {
        ssm_store_relaxed_u64(&consumer->count, ssm_load_relaxed_u64(&consumer->count) + got);
        ssm_store_release_u64(&consumer->index, tail); /* R2 -> A2 in look_for_room(): the slots were read before */
    }
    return got;
}

/* UINT32_MAX: the ring contradicts itself. */
static SSM_COLD uint32_t get_some(struct ssm_ring *ring, uint32_t count, uint64_t *handles_out)
{
    uint32_t got = 0, queued;
    if (ring->table != NULL && ssm_load_acquire_u32(&ring->shared->returned) != 0)
        got = take_returned(ring, count, handles_out);
    if (got == count)
        return got;
    queued = get_queued(ring, count - got, handles_out + got);
    return queued != UINT32_MAX ? got + queued : got > 0 ? got : UINT32_MAX;
}

/* With the consumer's right; UINT32_MAX: as get_some(). */
static inline uint32_t get_in_hand(struct ssm_ring *ring, uint32_t count, uint64_t *handles_out)
{
    uint32_t got = 0;
    if (ring->table == NULL)
        got = count == 1 ? ssm_handover_get(ring, handles_out, 1) : ssm_handover_get(ring, handles_out, count);
    return got != 0 ? got : get_some(ring, count, handles_out);
}

/* Frees all that is queued; of the consumer's right. */
static SSM_COLD void discard(struct ssm_ring *ring)
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
            got = get_in_hand(ring, call->count, call->handles_out);
        result = got == UINT32_MAX ? -SSM_E_CORRUPT : (int)got;
        if (got == 0)
            result = acl & (SSM_ACL_FLOWDOWN | SSM_ACL_FLOWPEER) ? -SSM_E_SHUTDOWN : -SSM_E_EMPTY;
        leave_side(consumer, exclusive);
    }
    ssm_leave(ring->pool);
    return result;
}

/* Lets reapers return what the dead have of this ring; for 10 ms at most. True: something may have come. */
static bool await_returns(struct ssm_ring *ring)
{
    for (int look = 0; look < LOOKS; look++) {
        if (ssm_enter(ring->pool) != 0)
            return false;
        bool owed = ssm_redelivery_is_owed(ring->pool, ring->table);
        ssm_leave(ring->pool);
        if (!owed || ssm_load_acquire_u32(&ring->shared->returned) != 0)
            return owed || look > 0;
        if (!ring->pool->on_stall(ring->pool))
            ssm_nap_ns(LOOK_NAP_NS);
    }
    return true;
}

static SSM_COLD int get_waiting(struct get_call *call, int64_t timeout_ns)
{
    const struct ssm_wait wait = {
        .attempt = get_attempt, .context = call, .again = -SSM_E_EMPTY, .class_idx = SSM_NIL,
        .event = &call->ring->shared->not_empty,
    };
    return ssm_wait_for(call->ring->pool, &wait, timeout_ns);
}

int ssm_ring_get(struct ssm_ring *ring, uint64_t *handles_out, uint32_t count, int64_t timeout_ns)
{
    struct get_call call = {ring, handles_out, count > INT32_MAX ? INT32_MAX : count};
    if (count == 0)
        return -EINVAL;
    /* Who succeeds to an exclusive side gets what its predecessor had before all else. */
    if (ring->table != NULL && ring->flags & SSM_ONE_CONSUMER && ssm_lock_owner_is_dead(ring->pool, &ring->shared->consumer.lock))
        await_returns(ring);
    int result = get_attempt(&call, true);
    if (result == -SSM_E_EMPTY && timeout_ns != 0)
        result = get_waiting(&call, timeout_ns);
    /* Before it is said that no more will come: the dead had some of it. */
    if (result == -SSM_E_SHUTDOWN && ring->table != NULL && await_returns(ring))
        result = get_attempt(&call, true);
    if (result > 0)
        ssm_event_signal(&ring->shared->not_full, (uint32_t)result, ring->pool->fenced);
    return result;
}

/* ---- the rest ----------------------------------------------------------------------------------------- */

static uint32_t used_slots(const struct ssm_ring_shared *shared)
{
    uint64_t tail = ssm_load_acquire_u64(&shared->consumer.index); /* first: it is never negative */
    uint64_t head = ssm_load_acquire_u64(&shared->producer.index);
    return head - tail < shared->capacity ? (uint32_t)(head - tail) : shared->capacity;
}

uint64_t ssm_ring_depth_of(const struct ssm_pool *pool, uint32_t holder_id, const struct ssm_ring_shared *shared)
{
    uint64_t depth = used_slots(shared);
    struct ssm_redelivery table;
    if (ssm_load_acquire_u32(&shared->returned) != 0 && ssm_ring_table(pool, holder_id, &table))
        depth += ssm_redelivery_count(pool, &table);
    return depth;
}

uint32_t ssm_ring_depth(struct ssm_ring *ring)
{
    return (uint32_t)ssm_ring_depth_of(ring->pool, ring->id, ring->shared);
}

uint32_t ssm_ring_room(struct ssm_ring *ring)
{
    return ring->capacity - used_slots(ring->shared);
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
    ssm_event_signal(&ring->shared->not_empty, UINT32_MAX, ring->pool->fenced);
    ssm_event_signal(&ring->shared->not_full, UINT32_MAX, ring->pool->fenced);
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
