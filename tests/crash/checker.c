/* SPDX-License-Identifier: Apache-2.0
 *
 * The checker; see checker.h. */
#include "checker.h"

#include "arena.h"
#include "block.h"
#include "books.h"
#include "chain.h"
#include "hosted.h"
#include "liveness.h"
#include "lock.h"
#include "redelivery.h"
#include "reservation.h"
#include "ring_unlink.h"
#include "still.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CALL_MAX_NS  UINT64_C(5000000000) /* of microseconds, or a few naps */
#define PATIENCE_NS  INT64_C(1000000)
#define BLOCKED_NS   INT64_C(30000000000)
#define AWAKE_MAX_NS UINT64_C(5000000000) /* the re-check comes after 20 ms; the machine may be busy */
#define MINUTE_NS    UINT64_C(60000000000)
#define NEW_CAPACITY 4
#define VISIT_SERIAL UINT64_C(1000) /* + ring: what a visitor puts */
#define MARK_SERIAL  UINT64_C(2000) /* + ring: what the survivor puts */
#define EVICTS       (SSM_OVERFLOW_OVERWRITE | SSM_OVERFLOW_SAMPLE)
#define FILL_SERIAL  UINT64_C(3000) /* + place: what the survivor fills a ring with */

const char *const manner_names[MANNERS] = {"going on", "reaping", "attaching", "looking", "blocked"};

struct check {
    struct world       *world;
    struct ssm_pool    *self; /* the survivor, or the newcomer */
    struct ssm_ring    *rings[RINGS];
    struct ssm_service *service; /* NULL: the scenario has none */
    struct ssm_pool    *living[ACTORS];
    uint32_t            living_count;
    struct serials      drained[RINGS];
    bool                marked[RINGS];
    uint64_t            handles[BLOCKS + ARENA_PACKETS]; /* of each block, when it was allocated last */
};

__attribute__((format(printf, 2, 3), noreturn)) static void complain(const struct check *check, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(check->world->note->complaint, sizeof check->world->note->complaint, format, arguments);
    va_end(arguments);
    _exit(1);
}

static void demand(const struct check *check, const char *fault)
{
    if (fault != NULL)
        complain(check, "the service: %s", fault);
}

/* The result of a call that may not take long. */
#define TIMED(check, call) timed(check, ssm_now_ns(), call, #call)
static int timed(const struct check *check, uint64_t since_ns, int result, const char *call)
{
    uint64_t took_ns = ssm_now_ns() - since_ns;
    if (took_ns > CALL_MAX_NS)
        complain(check, "%s took %lu ms", call, (unsigned long)(took_ns / 1000000));
    return result;
}

/* ---- the books: 2 ------------------------------------------------------------------------------------------------ */

static struct ssm_pool *living_holder(const struct check *check, uint32_t id)
{
    for (uint32_t i = 0; i < check->living_count; i++)
        if (check->living[i]->self == id)
            return check->living[i];
    return NULL;
}

static uint32_t times_listed(const struct check *check, uint32_t block_idx)
{
    uint32_t times = 0, class_idx = ssm_class_of_block(check->self, block_idx);
    for (uint32_t shard_idx = 0; shard_idx < check->self->geometry.shards; shard_idx++) {
        uint32_t count = ssm_load_acquire_u32(&ssm_shard_at(check->self, class_idx, shard_idx)->free_count);
        if (count > BLOCKS)
            complain(check, "the list of shard %u has %u entries", shard_idx, count);
        for (uint32_t i = 0; i < count; i++)
            times += ssm_load_acquire_u32(&ssm_list_at(check->self, class_idx, shard_idx)[i]) == block_idx;
    }
    return times;
}

static uint32_t times_cached(const struct check *check, uint32_t id, uint32_t block_idx)
{
    const struct ssm_cache *cache = ssm_cache_at(check->self, id, 0);
    uint32_t generation = ssm_load_acquire_u32(&ssm_block_at(check->self, block_idx)->generation), times = 0;
    for (uint32_t i = 0; i < ssm_load_acquire_u32(&cache->count) && i < check->self->geometry.cache_slots; i++)
        times += ssm_load_acquire_u64(&cache->handles[i]) == ssm_handle_of(generation, block_idx);
    return times;
}

/* In a slot, or hanging on one that is. */
static uint32_t times_in_chain(const struct check *check, uint32_t id, uint64_t head, uint64_t handle)
{
    uint64_t handles[SSM_CHAIN_MAX];
    uint32_t times = head == handle;
    bool whole;
    for (uint32_t count = ssm_chain_collect(check->self, id, head, handles, &whole); count > 1; count--)
        times += handles[count - 1] == handle;
    return times;
}

static uint32_t times_queued(const struct check *check, uint32_t id, uint32_t block_idx)
{
    const struct ssm_ring_shared *shared = ssm_ring_shared_at(check->self, id);
    uint32_t generation = ssm_load_acquire_u32(&ssm_block_at(check->self, block_idx)->generation), times = 0;
    uint64_t slots = ssm_load_acquire_u32(&shared->slot_count), head = ssm_load_acquire_u64(&shared->producer.index);
    struct ssm_redelivery table;
    if (ssm_ring_table(check->self, id, &table) &&
        ssm_redelivery_is_returned(&table, ssm_handle_of(generation, block_idx)))
        return 1; /* at the front; slots do not count */
    for (uint64_t at = ssm_load_acquire_u64(&shared->consumer.index); at != head; at++)
        times += times_in_chain(check, id, ssm_slot_handle(&shared->slots[at % slots]),
                                ssm_handle_of(generation, block_idx));
    return times;
}

/* Of one holder whose bit is set: does it know of the block? */
static void balance_holder(const struct check *check, uint32_t block_idx, uint32_t id)
{
    uint32_t kind = ssm_load_acquire_u32(&ssm_holder_at(check->self, id)->kind);
    if (ssm_kind_is_ring(kind)) {
        uint32_t times = times_queued(check, id, block_idx);
        if (times != 1)
            complain(check, "block %u carries ring %u, which has it %u times", block_idx, id, times);
        return;
    }
    const struct ssm_pool *holder = living_holder(check, id);
    if (holder == NULL)
        complain(check, "block %u is held by slot %u, where nobody lives", block_idx, id);
    uint32_t places = times_cached(check, id, block_idx) + (holder->claims[block_idx].references > 0);
    if (places != 1)
        complain(check, "block %u is held by slot %u, which has it in %u places", block_idx, id, places);
}

/* Whoever has taken a packet of the arena, or queued it, may touch it all. */
static void look_at_memory(const struct check *check, uint32_t block_idx, uint32_t id)
{
    const struct ssm_pool *holder = living_holder(check, id);
    const bool has_it = holder == NULL || holder->claims[block_idx].references > 0; /* or a ring has */
    if (block_idx >= BLOCKS && has_it && !ssm_arena_has_memory(check->self, block_idx))
        complain(check, "block %u lies in units that are not reserved", block_idx);
}

static bool in_a_cache(const struct check *check, uint32_t block_idx)
{
    for (uint32_t i = 0; i < check->living_count; i++)
        if (ssm_block_has(ssm_block_at(check->self, block_idx), check->living[i]->self) &&
            times_cached(check, check->living[i]->self, block_idx) == 1)
            return true;
    return false;
}

/* In the end: those that everybody has, and the checker's. A ring that belongs to a process has gone with it, another
 * one when nobody had it any more. */
static void look_for_rings_left(const struct check *check)
{
    static const char *const known[] = {"many", "one", "quiet", "new"};
    for (uint32_t id = 0; id < check->self->geometry.holders; id++) {
        const char *name = ssm_holder_at(check->self, id)->name;
        bool is_known = !ssm_holder_is_ring(check->self, id);
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            is_known = is_known || strcmp(name, known[i]) == 0;
        if (!is_known)
            complain(check, "the ring \"%.40s\" is left", name);
    }
}

/* A ring is made whole or not at all: each has a name, and its own place. */
static void look_at_ring_slot(const struct check *check, uint32_t id)
{
    const struct ssm_holder *ring = ssm_holder_at(check->self, id);
    if (ring->name[0] == 0)
        complain(check, "ring %u has no name", id);
    if (ssm_load_acquire_u32(&ring->kind) == SSM_HOLDER_UNLINKED && ssm_ring_users(check->self, id, NULL) == 0)
        complain(check, "ring %u was unlinked, nobody has it open, and it is still there", id);
    for (uint32_t other = 0; other < id; other++)
        if (ssm_holder_is_ring(check->self, other) &&
            ssm_load_acquire_u64(&ssm_holder_at(check->self, other)->ring_start) ==
                ssm_load_acquire_u64(&ring->ring_start))
            complain(check, "rings %u and %u are in the same place", other, id);
}

static void balance_slots(const struct check *check)
{
    for (uint32_t id = 0; id < check->self->geometry.holders; id++)
        if (ssm_holder_is_ring(check->self, id))
            look_at_ring_slot(check, id);
    for (uint32_t id = 0; id < check->self->geometry.holders; id++)
        if (id != check->self->self &&
            ssm_load_acquire_u32(&ssm_holder_at(check->self, id)->kind) == SSM_HOLDER_PROCESS &&
            !ssm_byte_is_locked(check->self->fd, SSM_BYTE_HOLDER(id)))
            complain(check, "slot %u is still a dead process's", id);
}

/* Slots, ids of rings, RMIDs: as many are taken as the slots name. That it is these, and each once, ssm_check() says. */
static void balance_numbers(const struct check *check)
{
    const struct ssm_geometry *g = &check->self->geometry;
    const uint64_t starts[SSM_REGISTRY_IDS_KINDS] = {
        [SSM_REGISTRY_IDS_SLOTS] = g->slots_start,
        [SSM_REGISTRY_IDS_RINGS] = g->ring_ids_start,
        [SSM_REGISTRY_IDS_RMIDS] = g->rmids_start,
    };
    uint64_t named[SSM_REGISTRY_IDS_KINDS] = {0};
    for (uint32_t id = 0; id < g->holders; id++) {
        uint32_t kind = ssm_load_acquire_u32(&ssm_holder_at(check->self, id)->kind);
        named[SSM_REGISTRY_IDS_SLOTS] += kind != SSM_HOLDER_NONE;
        named[SSM_REGISTRY_IDS_RINGS] += ssm_kind_is_ring(kind);
        named[SSM_REGISTRY_IDS_RMIDS] += kind == SSM_HOLDER_PROCESS &&
                                         ssm_load_relaxed_u32(&ssm_holder_at(check->self, id)->rmid) != 0;
    }
    for (int which = 0; which < SSM_REGISTRY_IDS_KINDS; which++) {
        const struct ssm_service_options options = ssm_layout_registry_ids(g, (enum ssm_registry_ids)which);
        struct ssm_hosted hosted;
        if (ssm_hosted_attach(&hosted, &options, check->self->base + starts[which]) != AL_OK)
            complain(check, "numbers %d: no allocator", which);
        if (ssm_hosted_used(&hosted) != named[which])
            complain(check, "numbers %d: %lu taken, %lu named", which, (unsigned long)ssm_hosted_used(&hosted),
                     (unsigned long)named[which]);
    }
}

/* The first holder of the block from that one on; SSM_NIL: there is none. */
static uint32_t next_holder(const struct check *check, const struct ssm_block *block, uint32_t id)
{
    for (; id < check->self->geometry.holders; id = (id / 64 + 1) * 64) {
        const uint64_t rest = ssm_load_acquire_u64(&block->holders[id / 64]) >> id % 64;
        if (rest != 0)
            return id + (uint32_t)__builtin_ctzll(rest);
    }
    return SSM_NIL;
}

/* An owner takes from its cache without a look: each entry counts. */
static void balance_cache(const struct check *check, uint32_t id)
{
    const struct ssm_cache *cache = ssm_cache_at(check->self, id, 0);
    for (uint32_t i = 0; i < ssm_load_acquire_u32(&cache->count); i++) {
        const uint32_t block_idx = (uint32_t)ssm_load_acquire_u64(&cache->handles[i]);
        if (block_idx >= BLOCKS || !ssm_block_has(ssm_block_at(check->self, block_idx), id) ||
            times_cached(check, id, block_idx) != 1)
            complain(check, "the cache of slot %u has block %u, which is not its own", id, block_idx);
    }
}

/* After a reap. Returns how many blocks of the class can be allocated: those that are free, and those in caches. */
static uint32_t balance(const struct check *check)
{
    uint32_t available = 0;
    balance_slots(check);
    balance_numbers(check);
    for (uint32_t k = 0; k < check->living_count; k++)
        balance_cache(check, check->living[k]->self);
    for (uint32_t i = 0; i < ssm_blocks_now(check->self); i++) {
        const struct ssm_block *block = ssm_block_at(check->self, i);
        bool free = true;
        for (uint32_t id = next_holder(check, block, 0); id != SSM_NIL; id = next_holder(check, block, id + 1)) {
            balance_holder(check, i, id);
            look_at_memory(check, i, id);
            free = false;
        }
        for (uint32_t k = 0; k < check->living_count; k++)
            if (check->living[k]->claims[i].references > 0 && !ssm_block_has(block, check->living[k]->self))
                complain(check, "block %u is held by slot %u, but does not say so", i, check->living[k]->self);
        uint32_t listed = times_listed(check, i);
        if (listed != free || ssm_load_acquire_u32(&block->listed) != listed)
            complain(check, "block %u is %s, on %u lists, marked %u", i, free ? "free" : "held", listed,
                     ssm_load_acquire_u32(&block->listed));
        available += i < BLOCKS && (free || in_a_cache(check, i)); /* what the arena has is another question */
    }
    return available;
}

/* No place in a queue, and no turn, is a dead process's. */
static void look_at_reservations(const struct check *check)
{
    for (uint32_t class_idx = 0; class_idx < check->self->geometry.class_count; class_idx++) {
        const struct ssm_reservations *of = &ssm_class_at(check->self, class_idx)->reservations;
        for (uint32_t i = 0; i <= SSM_ASKING_MAX; i++) {
            const uint64_t word = ssm_load_acquire_u64(i < SSM_ASKING_MAX ? &of->asking[i] : &of->turn);
            const uint32_t slot = (uint32_t)(word & SSM_RESERVATION_SLOT) - 1;
            if (slot != SSM_NIL && living_holder(check, slot) == NULL)
                complain(check, "slot %u, where nobody lives, waits for blocks of class %u", slot, class_idx);
        }
    }
}

/* Nobody is in the middle of anything; an exclusive side of a ring is kept. */
static void look_at_locks(const struct check *check)
{
    for (uint32_t id = 0; id < check->self->geometry.holders; id++) {
        const struct ssm_ring_shared *shared = NULL;
        if (ssm_load_acquire_u64(&ssm_cache_at(check->self, id, 0)->thief.word) != 0)
            complain(check, "the cache of slot %u is still locked", id);
        if (ssm_holder_is_ring(check->self, id))
            shared = ssm_ring_shared_at(check->self, id);
        if (shared != NULL && !(shared->flags & (SSM_ONE_PRODUCER | SSM_ONE_CONSUMER)) &&
            (ssm_load_acquire_u64(&shared->producer.lock.word) != 0 ||
             ssm_load_acquire_u64(&shared->consumer.lock.word) != 0))
            complain(check, "ring %u is still locked", id);
    }
    const struct ssm_geometry *g = &check->self->geometry;
    for (uint32_t i = 0; i < g->class_count * g->shards; i++)
        if (ssm_load_acquire_u64(&ssm_shard_at(check->self, 0, i)->lock.word) != 0)
            complain(check, "shard %u is still locked", i);
    if (g->arena_bytes > 0 && ssm_load_acquire_u64(&ssm_arena_of(check->self)->lock.word) != 0)
        complain(check, "the arena is still locked");
    look_at_reservations(check);
}

static void report(void *context, const char *sentence)
{
    complain(context, "ssm_check: %s", sentence);
}

static void ask(struct check *check)
{
    int result = ssm_check(check->self, report, check);
    if (result != 0)
        complain(check, "ssm_check: %d", result);
}

static void balance_all(struct check *check)
{
    balance(check);
    look_at_locks(check);
    ask(check);
}

/* ---- nobody owns what somebody else owns: 3 ---------------------------------------------------------------------- */

static void look_at_held(const struct check *check)
{
    struct ssm_packet packet;
    for (uint32_t i = 0; i < check->world->held_count; i++) {
        const struct held *held = &check->world->held[i];
        int result = ssm_packet_view(check->world->pools[PEER], held->handle, &packet);
        if (result != 0)
            complain(check, "packet %lu, held by the peer: %d", (unsigned long)held->serial, result);
        const uint64_t *stamp = (const uint64_t *)(packet.data - packet.headroom); /* its window may have been moved */
        if (!stamp_is_whole(stamp) || *stamp != held->serial)
            complain(check, "packet %lu, held by the peer, was written by somebody else", (unsigned long)held->serial);
    }
}

/* The largest free range of the arena, and the largest of what is left then, as long as there are packets for them. */
static void exhaust_arena(struct check *check)
{
    uint64_t handles[ARENA_PACKETS];
    uint32_t count = 0;
    struct ssm_arena_stats stats;
    struct ssm_packet packet;
    int result;
    while ((result = ssm_arena_stats(check->self, &stats)) == 0 && stats.largest > 0 && stats.free > 0) {
        result = TIMED(check, ssm_alloc(check->self, stats.largest, 0, &handles[count]));
        if (result != 0 || ssm_packet_view(check->self, handles[count], &packet) != 0)
            complain(check, "the arena's largest range, %lu bytes: %d", (unsigned long)stats.largest, result);
        look_at_memory(check, (uint32_t)handles[count], check->self->self);
        if (handles[count] == check->handles[(uint32_t)handles[count]])
            complain(check, "handle %#lx was given out twice", (unsigned long)handles[count]);
        check->handles[(uint32_t)handles[count]] = handles[count];
        memset(packet.data, 0xff, packet.length);
        count++;
    }
    look_at_held(check);
    for (uint32_t i = 0; i < count; i++)
        if ((result = TIMED(check, ssm_free(check->self, handles[i]))) != 0)
            complain(check, "freeing packet %u of the arena: %d", i, result);
}

/* Takes two pages of the arena, whatever comes of it, and gives them back. `check`: who looks at them, or NULL. */
static void use_arena(const struct check *check, struct ssm_pool *pool)
{
    uint64_t handle;
    if (pool->geometry.arena_bytes == 0 || ssm_alloc(pool, 2 * 4096, 0, &handle) != 0)
        return;
    if (check != NULL)
        look_at_memory(check, (uint32_t)handle, pool->self);
    (void)ssm_free(pool, handle);
}

/* Allocates everything once, and writes to it. */
static void exhaust(struct check *check, uint32_t available)
{
    uint64_t handles[BLOCKS + 1];
    uint64_t seen = 0;
    uint32_t count = 0;
    struct ssm_packet packet;
    int result;
    while (count <= BLOCKS && (result = TIMED(check, ssm_alloc(check->self, 1, 0, &handles[count]))) == 0) {
        if (ssm_class_is_arena(check->self, ssm_class_of_block(check->self, (uint32_t)handles[count]))) {
            result = ssm_free(check->self, handles[count]) == 0 ? -SSM_E_EXHAUSTED
                                                                : -SSM_E_CORRUPT; /* the class is full */
            break;
        }
        if (seen >> (uint32_t)handles[count] & 1)
            complain(check, "block %u was allocated twice", (uint32_t)handles[count]);
        seen |= UINT64_C(1) << (uint32_t)handles[count];
        if (handles[count] == check->handles[(uint32_t)handles[count]])
            complain(check, "handle %#lx was given out twice", (unsigned long)handles[count]);
        check->handles[(uint32_t)handles[count]] = handles[count];
        if (ssm_packet_view(check->self, handles[count], &packet) != 0)
            complain(check, "block %u was allocated, but is stale", (uint32_t)handles[count]);
        memset(packet.data, 0xff, BLOCK_SIZE);
        count++;
    }
    if (result != -SSM_E_EXHAUSTED || count != available)
        complain(check, "%u of %u free blocks could be allocated, then: %s", count, available, ssm_strerror(result));
    look_at_held(check);
    for (uint32_t i = 0; i < count; i++)
        if ((result = TIMED(check, ssm_free(check->self, handles[i]))) != 0)
            complain(check, "freeing block %u: %d", (uint32_t)handles[i], result);
    if (check->self->geometry.arena_bytes > 0)
        exhaust_arena(check);
}

/* Allocates all that can be had, and frees it. */
static void use_up(const struct check *check)
{
    uint64_t handles[BLOCKS];
    uint32_t count = 0;
    while (count < BLOCKS && TIMED(check, ssm_alloc(check->self, 1, 0, &handles[count])) == 0)
        count++;
    int result = count > 0 ? TIMED(check, ssm_free_many(check->self, handles, count)) : 0;
    if (result != 0)
        complain(check, "freeing everything: %d", result);
    use_arena(check, check->self);
}

/* ---- rings: 4 ---------------------------------------------------------------------------------------------------- */

/* Of a get or a put; above 0: a put whose packet was dropped. */
static bool is_refusal(int result)
{
    return result > 0 || result == -SSM_E_BUSY || result == -SSM_E_SHUTDOWN || result == -SSM_E_FULL ||
           result == -SSM_E_EMPTY || result == -SSM_E_ORPHANED;
}

/* By the survivor, or where the side is the peer's, by that one. */
static int get_one(const struct check *check, int ring, struct ssm_pool **taker_out, uint64_t *handle_out)
{
    *taker_out = check->self;
    int result = TIMED(check, ssm_ring_get(check->rings[ring], handle_out, 1, 0));
    if (result != -SSM_E_BUSY)
        return result;
    *taker_out = check->world->pools[PEER];
    return TIMED(check, ssm_ring_get(check->world->rings[PEER][ring], handle_out, 1, 0));
}

static int alloc_stamped(struct ssm_pool *pool, uint64_t serial, uint64_t *handle_out)
{
    struct ssm_packet packet;
    int result = ssm_alloc(pool, BLOCK_SIZE, PATIENCE_NS, handle_out);
    if (result == 0)
        result = ssm_packet_view(pool, *handle_out, &packet);
    if (result == 0)
        result = ssm_packet_set_tag(pool, *handle_out, serial);
    if (result == 0)
        stamp_write((uint64_t *)packet.data, serial);
    return result;
}

static int put_one(const struct check *check, int ring, uint64_t serial)
{
    uint64_t handle;
    struct ssm_pool *giver = check->self;
    for (int try = 0; try < 2; try++) {
        int result = TIMED(check, alloc_stamped(giver, serial, &handle));
        if (result != 0)
            return result;
        struct ssm_ring *to = giver == check->self ? check->rings[ring] : check->world->rings[PEER][ring];
        result = TIMED(check, ssm_ring_put(to, &handle, 1, 0, 0));
        if (result < 0)
            ssm_free(giver, handle);
        if (result != -SSM_E_BUSY)
            return result;
        giver = check->world->pools[PEER];
    }
    return -SSM_E_BUSY;
}

static void look_at_delivered(const struct check *check, struct ssm_pool *taker, uint64_t handle, uint64_t serial)
{
    uint64_t tag;
    struct ssm_packet packet;
    if (ssm_packet_view(taker, handle, &packet) != 0 || ssm_packet_tag(taker, handle, &tag) != 0)
        complain(check, "a packet was delivered that is stale");
    if (tag != serial || packet.length != BLOCK_SIZE || !stamp_is_whole((uint64_t *)packet.data) ||
        *(uint64_t *)packet.data != tag)
        complain(check, "packet %lu was delivered torn, as %lu", (unsigned long)serial, (unsigned long)tag);
}

/* All that hangs on it came with it. */
static void look_at_segments(const struct check *check, struct ssm_pool *taker, uint64_t handle, uint64_t serial)
{
    uint32_t expected = serial < sizeof check->world->segments ? check->world->segments[serial] : 0, count = 0;
    int result;
    while ((result = ssm_packet_next(taker, handle, &handle)) == 1 && count < expected)
        look_at_delivered(check, taker, handle, serial + ++count);
    if (result != 0 || count != expected)
        complain(check, "packet %lu was delivered with %u of %u segments", (unsigned long)serial, count, expected);
}

/* It was delivered: looks at it, writes it down, frees it. */
static void receive(struct check *check, int ring, struct ssm_pool *taker, uint64_t handle)
{
    uint64_t tag;
    struct serials *drained = &check->drained[ring];
    int result;
    if (ssm_packet_tag(taker, handle, &tag) != 0)
        complain(check, "a packet was delivered that is stale");
    look_at_delivered(check, taker, handle, tag);
    look_at_segments(check, taker, handle, tag);
    if (drained->count < SERIALS)
        drained->serial[drained->count++] = tag;
    if ((result = ssm_free(taker, handle)) != 0)
        complain(check, "freeing a delivered packet: %d", result);
}

static bool drain_one(struct check *check, int ring)
{
    uint64_t handle;
    struct ssm_pool *taker;
    int result = get_one(check, ring, &taker, &handle);
    if (result < 0 && !is_refusal(result))
        complain(check, "get: %s (%d)", ssm_strerror(result), result);
    uint32_t depth = ssm_ring_depth(check->rings[ring]);
    if ((result == -SSM_E_EMPTY || result == -SSM_E_ORPHANED) && depth != 0)
        complain(check, "get says that ring %d is empty, but it has %u packets", ring, depth);
    if (result == 1)
        receive(check, ring, taker, handle);
    return result == 1;
}

static void append(struct serials *to, const struct serials *from)
{
    for (uint32_t i = 0; i < from->count && to->count < SERIALS; i++)
        to->serial[to->count++] = from->serial[i];
}

static bool is_rest_of(const struct serials *drained, const struct serials *all, uint32_t taken)
{
    return taken <= all->count && all->count - taken == drained->count &&
           memcmp(drained->serial, all->serial + taken, drained->count * sizeof drained->serial[0]) == 0;
}

struct range { uint32_t min, max; };

/* By those who put after the operation: no more than what the ring does not hold. */
static uint32_t evicted_max(const struct check *check, int ring)
{
    const struct expectation *expect = &check->world->expect[ring];
    const uint32_t later = (uint32_t)check->world->note->visits[ring].put_begun + check->marked[ring];
    const uint32_t all = expect->queued.count + expect->put.count + later;
    const uint32_t capacity = ssm_ring_capacity(check->rings[ring]);
    const uint32_t beyond = all > capacity ? all - capacity : 0;
    return beyond < later ? beyond : later;
}

/* How many packets are gone with the dead. */
static struct range taken_from(const struct check *check, int ring)
{
    const struct expectation *expect = &check->world->expect[ring];
    const struct note *note = check->world->note;
    const struct visit *visit = &note->visits[ring];
    struct range range = {0, expect->take_max};
    if (expect->take_stage != 0 && ssm_load_relaxed_u32(&note->stage) >= expect->take_stage) {
        int32_t result = note->results[expect->take_stage - 1];
        range.min = result > 0 ? (uint32_t)result : result == 0 ? expect->take_max : 0;
        range.max = range.min;
    }
    if (visit->get_begun && !(visit->get_done && visit->get_result < 0)) {
        range.max++;
        range.min += visit->get_done;
    }
    if (check->world->ring_flags[ring] & EVICTS) /* whoever put may have found it full */
        range.max += evicted_max(check, ring);
    return range;
}

static bool delivered_as_promised(const struct check *check, int ring)
{
    const struct expectation *expect = &check->world->expect[ring];
    const struct visit *visit = &check->world->note->visits[ring];
    const struct serials visited = {{VISIT_SERIAL + (uint32_t)ring}, 1}, mark = {{MARK_SERIAL + (uint32_t)ring}, 1};
    bool returned = expect->put_stage != 0 && ssm_load_relaxed_u32(&check->world->note->stage) >= expect->put_stage;
    struct range range = taken_from(check, ring);
    for (int with = 0; with < 4; with++) {
        bool with_put = with & 1, with_visit = with & 2;
        if ((with_put ? expect->put.count == 0 : returned && expect->put.count > 0) ||
            (with_visit ? !visit->put_begun : visit->put_done && visit->put_result == 0))
            continue;
        struct serials all = expect->queued;
        if (with_put)
            append(&all, &expect->put);
        if (with_visit)
            append(&all, &visited);
        if (check->marked[ring])
            append(&all, &mark);
        for (uint32_t taken = range.min; taken <= range.max; taken++)
            if (is_rest_of(&check->drained[ring], &all, taken))
                return true;
    }
    return false;
}

/* ---- the same where what the dead had taken comes back: no ring by itself, nothing twice ---- */

static uint32_t times_in(const struct serials *serials, uint64_t serial)
{
    uint32_t times = 0;
    for (uint32_t i = 0; i < serials->count; i++)
        times += serials->serial[i] == serial;
    return times;
}

static uint32_t times_drained(const struct check *check, uint64_t serial)
{
    return times_in(&check->drained[RING_MANY], serial) + times_in(&check->drained[RING_ONE], serial);
}

/* All that was queued, or put by a call that returned. */
static struct serials owed(const struct check *check)
{
    struct serials all = {.count = 0};
    for (uint32_t ring = 0; ring < RINGS; ring++) {
        const struct serials visited = {{VISIT_SERIAL + ring}, 1}, mark = {{MARK_SERIAL + ring}, 1};
        const struct visit *visit = &check->world->note->visits[ring];
        append(&all, &check->world->expect[ring].queued);
        if (visit->put_done && visit->put_result == 0)
            append(&all, &visited);
        if (check->marked[ring])
            append(&all, &mark);
    }
    return all;
}

/* What was handed on is where it was put, once that had returned. */
static bool handed_on_as_promised(const struct check *check, int ring)
{
    const struct expectation *expect = &check->world->expect[ring];
    for (uint32_t i = 0; i < expect->put.count; i++)
        if (ssm_load_relaxed_u32(&check->world->note->stage) >= expect->put_stage &&
            times_in(&check->drained[ring], expect->put.serial[i]) == 0)
            return taken_from(check, ring).max > 0; /* a visitor may have got it */
    return true;
}

/* Serials grow in the order of the ring, but for what was put back. */
static bool is_in_order(const struct check *check)
{
    const struct serials *drained = &check->drained[RING_MANY];
    for (uint32_t i = 1; i < drained->count; i++)
        if (drained->serial[i] <= drained->serial[i - 1])
            return false;
    return true;
}

/* What the operation put is delivered once at most, also if it was queued nowhere before. */
static bool is_put_twice(const struct check *check)
{
    for (int ring = 0; ring < RINGS; ring++)
        for (uint32_t i = 0; i < check->world->expect[ring].put.count; i++)
            if (times_drained(check, check->world->expect[ring].put.serial[i]) > 1)
                return true;
    return false;
}

static bool redelivers(const struct check *check, int ring)
{
    return check->world->ring_flags[ring] & SSM_REDELIVER;
}

static const char *redelivery_fault(const struct check *check, enum manner manner)
{
    struct serials all = owed(check);
    struct range many = taken_from(check, RING_MANY), one = taken_from(check, RING_ONE);
    uint32_t missing = 0, visits = 0;
    for (int ring = 0; ring < RINGS; ring++)
        visits += redelivers(check, ring) && check->world->note->visits[ring].get_begun;
    if (is_put_twice(check))
        return "a packet was delivered twice";
    for (uint32_t i = 0; i < all.count; i++) {
        if (times_drained(check, all.serial[i]) > 1)
            return "a packet was delivered twice";
        missing += times_drained(check, all.serial[i]) == 0;
    }
    /* A visitor who died with a packet in hand gave it back. */
    if (missing > many.max + one.max || missing + visits < many.min + one.min)
        return "packets are lost, or came back although they had been freed";
    if (!handed_on_as_promised(check, RING_MANY) || !handed_on_as_promised(check, RING_ONE))
        return "a packet that was handed on is not where it was put";
    if (manner == REAP && check->world->expect[RING_MANY].put.count == 0 && !is_in_order(check))
        return "packets came back in another order";
    return NULL;
}

static void drain(struct check *check, enum manner manner)
{
    const char *fault = NULL;
    for (int ring = 0; ring < RINGS; ring++)
        while (drain_one(check, ring)) {}
    const bool redelivering = redelivers(check, RING_MANY) || redelivers(check, RING_ONE);
    if (redelivering && (fault = redelivery_fault(check, manner)) != NULL)
        complain(check, "%s", fault);
    for (int ring = 0; ring < RINGS; ring++) {
        if (redelivering || delivered_as_promised(check, ring))
            continue;
        char list[SERIALS * 8] = "";
        for (uint32_t i = 0; i < check->drained[ring].count; i++) {
            size_t end = strlen(list);
            snprintf(list + end, sizeof list - end, " %lu", (unsigned long)check->drained[ring].serial[i]);
        }
        complain(check, "ring %d delivered these packets, against the promise:%s", ring, list);
    }
}

/* ---- going on: 1 ------------------------------------------------------------------------------------------------- */

static void go_on(struct check *check)
{
    uint64_t handles[3];
    use_arena(check, check->self);
    for (int ring = 0; ring < RINGS; ring++) {
        int result = put_one(check, ring, MARK_SERIAL + (uint32_t)ring);
        check->marked[ring] = result == 0;
        if (result != 0 && !is_refusal(result) && result != -SSM_E_EXHAUSTED)
            complain(check, "put: %s (%d)", ssm_strerror(result), result);
        drain_one(check, ring);
    }
    int result = TIMED(check, ssm_alloc_many(check->self, 1, 3, PATIENCE_NS, handles));
    if (result != 0 && result != -SSM_E_EXHAUSTED)
        complain(check, "alloc_many: %s (%d)", ssm_strerror(result), result);
    if (result == 0 && (result = TIMED(check, ssm_free_many(check->self, handles, 3))) != 0)
        complain(check, "free_many: %d", result);
    if (check->service != NULL)
        demand(check, books_go_on(check->world, check->service));
}

static void visit_to_put(struct world *world, enum actor actor, int ring)
{
    struct visit *visit = &world->note->visits[ring];
    uint64_t handle;
    if (alloc_stamped(world->pools[actor], VISIT_SERIAL + (uint32_t)ring, &handle) != 0)
        return;
    visit->put_begun = true;
    ssm_fence_light(false); /* this process may be killed in between */
    visit->put_result = ssm_ring_put(world->rings[actor][ring], &handle, 1, 0, 0);
    ssm_fence_light(false);
    visit->put_done = true;
    ssm_fence_light(false);
    if (visit->put_result < 0)
        ssm_free(world->pools[actor], handle);
}

static void visit_to_get(struct world *world, enum actor actor, int ring)
{
    struct visit *visit = &world->note->visits[ring];
    uint64_t handle;
    visit->get_begun = true;
    ssm_fence_light(false); /* this process may be killed in between */
    visit->get_result = ssm_ring_get(world->rings[actor][ring], &handle, 1, 0);
    ssm_fence_light(false);
    visit->get_done = true;
    ssm_fence_light(false);
    if (visit->get_result == 1)
        ssm_free(world->pools[actor], handle);
}

void checker_visit(struct world *world, enum actor actor)
{
    use_arena(NULL, world->pools[actor]);
    for (int ring = 0; ring < RINGS; ring++) {
        visit_to_put(world, actor, ring);
        visit_to_get(world, actor, ring);
    }
    if (world->services[actor] != NULL)
        (void)books_go_on(world, world->services[actor]);
}

/* ---- the blocked: 1 ---------------------------------------------------------------------------------------------- */

void checker_relieve(struct world *world, const struct scenario *scenario)
{
    const enum block blocked = scenario->blocked;
    if (scenario->refusal == -SSM_E_ORPHANED)
        return; /* the call ends because nobody comes */
    uint32_t depth = ssm_ring_depth(world->rings[PEER][RING_MANY]);
    if (blocked == ON_GET && depth == 0)
        visit_to_put(world, PEER, RING_MANY);
    if (blocked == ON_PUT && depth == CAPACITY_MANY)
        visit_to_get(world, PEER, RING_MANY);
}

/* Calls, and waits until the victim is dead whatever came of it. */
static void block(struct check *check, enum block blocked, int refusal)
{
    uint64_t handle, over_ns;
    int result = 0;
    if (blocked == ON_PUT)
        result = alloc_stamped(check->self, MARK_SERIAL + RING_MANY, &handle);
    if (result == 0)
        result = blocked == ON_ALLOC
                   ? ssm_alloc(check->self, check->world->arena ? check->world->arena_bytes : 1, BLOCKED_NS, &handle)
               : blocked == ON_PUT    ? ssm_ring_put(check->rings[RING_MANY], &handle, 1, 0, BLOCKED_NS)
               : blocked == ON_PERMIT ? ssm_semaphore_acquire(check->service, BLOCKED_NS, NULL)
                                      : ssm_ring_get(check->rings[RING_MANY], &handle, 1, BLOCKED_NS);
    check->world->wants[SURVIVOR] = blocked == ON_PERMIT ? 1 : 0;
    uint64_t until_ns = ssm_now_ns();
    while ((over_ns = ssm_load_acquire_u64(&check->world->note->over_ns)) == 0)
        ssm_nap_ns(100000);
    bool refused = refusal != 0 && result == refusal;
    if (result < 0 && !refused)
        complain(check, "the blocked call: %s (%d)", ssm_strerror(result), result);
    if (until_ns > over_ns + AWAKE_MAX_NS)
        complain(check, "the blocked call went on %lu ms later", (unsigned long)((until_ns - over_ns) / 1000000));
    check->marked[RING_MANY] = blocked == ON_PUT && !refused;
    if (blocked == ON_GET && !refused)
        receive(check, RING_MANY, check->self, handle);
    else if ((blocked == ON_ALLOC || (blocked == ON_PUT && refused)) && (result = ssm_free(check->self, handle)) != 0)
        complain(check, "freeing the packet of the blocked call: %d", result);
}

/* ---- as good as new: 5 ------------------------------------------------------------------------------------------- */

static bool is_answer_of_full_ring(uint32_t flags, int answer)
{
    if (flags & SSM_OVERFLOW_SAMPLE) /* it depends on how many found the ring full before */
        return answer == 0 || answer == 1;
    return answer == (flags & SSM_OVERFLOW_OVERWRITE ? 0 : flags & SSM_OVERFLOW_DROP ? 1 : -SSM_E_FULL);
}

static void pass_capacity(struct check *check, int ring)
{
    uint32_t capacity = ssm_ring_capacity(check->rings[ring]), flags = ssm_ring_flags(check->rings[ring]);
    int result = ssm_ring_set_acl(check->rings[ring], SSM_ACL_RDWR);
    check->drained[ring].count = 0;
    for (uint64_t i = 0; result == 0 && i < capacity; i++)
        result = put_one(check, ring, FILL_SERIAL + i);
    const int one_more = result == 0 ? put_one(check, ring, FILL_SERIAL + capacity) : result;
    const uint32_t first = one_more == 0 ? 1 : 0; /* what that leaves there */
    if (result != 0 || !is_answer_of_full_ring(flags, one_more))
        complain(check, "ring %d does not take as many packets as it holds: %d", ring, result);
    while (drain_one(check, ring)) {}
    for (uint64_t i = 0; i < capacity; i++)
        if (check->drained[ring].count != capacity || check->drained[ring].serial[i] != FILL_SERIAL + i + first)
            complain(check, "ring %d does not pass packets in order", ring);
}

static void pass_new_ring(struct check *check)
{
    struct ssm_ring_options options = {.capacity = NEW_CAPACITY};
    struct ssm_ring *ring;
    uint64_t handles[NEW_CAPACITY], got[NEW_CAPACITY];
    int result = TIMED(check, ssm_ring_open(check->self, "new", &options, &ring));
    if (result == -SSM_E_HOLDERS && check->world->dummies > 0)
        return; /* the table is full of the living */
    char type[SSM_TYPE_SIZE] = "";
    if (result == 0 && (ssm_ring_type(ring, type) < 0 || (type[0] != '\0' && strcmp(type, NEW_TYPE) != 0)))
        complain(check, "the new ring's type is torn: %s", type);
    if (result == 0)
        result = ssm_alloc_many(check->self, 1, NEW_CAPACITY, 0, handles);
    if (result == 0)
        result = ssm_ring_put(ring, handles, NEW_CAPACITY, 0, 0);
    if (result == 0)
        result = ssm_ring_get(ring, got, NEW_CAPACITY, 0);
    if (result != NEW_CAPACITY || memcmp(handles, got, sizeof got) != 0)
        complain(check, "the new ring: %d", result);
    if ((result = ssm_free_many(check->self, got, NEW_CAPACITY)) != 0)
        complain(check, "freeing what the new ring passed: %d", result);
    ssm_ring_close(ring);
}

static void as_good_as_new(struct check *check)
{
    look_at_held(check);
    for (uint32_t i = 0; i < check->world->held_count; i++)
        if (ssm_free(check->world->pools[PEER], check->world->held[i].handle) != 0)
            complain(check, "the peer cannot free what it holds");
    check->world->held_count = 0;
    for (int ring = 0; ring < RINGS; ring++)
        pass_capacity(check, ring);
    pass_new_ring(check);
    (void)ssm_ring_unlink_name(check->self, "spare"); /* if the operation was to unlink it, and did not come to it */
    if (check->world->kept != NULL)
        ssm_ring_close(check->world->kept);
    look_for_rings_left(check);
    uint32_t available = balance(check);
    if (available != BLOCKS)
        complain(check, "%u of %u blocks are free in the end", available, (uint32_t)BLOCKS);
    exhaust(check, BLOCKS);
    struct ssm_arena_stats stats;
    if (ssm_arena_stats(check->self, &stats) == 0 && (stats.used != 0 || stats.largest != check->world->arena_bytes))
        complain(check, "%lu bytes of the arena are used in the end", (unsigned long)stats.used);
    if (check->service != NULL)
        demand(check, books_as_good_as_new(check->world, check->self, check->service));
    balance_all(check);
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static void unlock_shards(const struct check *check)
{
    for (uint32_t shard_idx = 0; shard_idx < 2; shard_idx++)
        if (check->world->locked >> shard_idx & 1)
            ssm_lock_release(&ssm_shard_at(check->self, 0, shard_idx)->lock);
}

static void reap(const struct check *check)
{
    struct ssm_reaped reaped;
    int result = TIMED(check, ssm_reap(check->self, &reaped));
    if (result != 0)
        complain(check, "reap: %d", result);
    for (uint32_t k = 0; k < check->living_count; k++) /* before other thieves come */
        balance_cache(check, check->living[k]->self);
}

static void become_newcomer(struct check *check)
{
    struct ssm_attach_options options = {.name = "newcomer"};
    int result = TIMED(check, ssm_pool_attach(check->world->fd, &options, &check->self));
    if (result != 0)
        complain(check, "attach: %s (%d)", ssm_strerror(result), result);
    struct ssm_ring_options many = world_ring_options(check->world, RING_MANY);
    struct ssm_ring_options one = world_ring_options(check->world, RING_ONE);
    if ((result = ssm_ring_open(check->self, "many", &many, &check->rings[RING_MANY])) != 0 ||
        (result = ssm_ring_open(check->self, "one", &one, &check->rings[RING_ONE])) != 0)
        complain(check, "ring_open: %s (%d)", ssm_strerror(result), result);
    if (check->service != NULL)
        result = ssm_service_open(check->self, "service", &check->world->service, &check->service);
    if (result != 0)
        complain(check, "service_open: %s (%d)", ssm_strerror(result), result);
    check->living[check->living_count++] = check->self;
}

void checker_run(struct world *world, const struct scenario *scenario, enum manner manner)
{
    struct check check = {.world = world, .self = world->pools[SURVIVOR], .service = world->services[SURVIVOR]};
    memcpy(check.rings, world->rings[SURVIVOR], sizeof check.rings);
    check.living[check.living_count++] = world->pools[SURVIVOR];
    check.living[check.living_count++] = world->pools[PEER];
    if (manner != BLOCKED)
        still_begin(MINUTE_NS);
    if (manner == LOOK) {
        ask(&check);
        return;
    }
    if (manner == BLOCKED)
        block(&check, scenario->blocked, scenario->refusal);
    if (manner == NEWCOMER)
        become_newcomer(&check);
    if (manner == GO_ON || manner == NEWCOMER)
        go_on(&check);
    if (manner == REAP) { /* while shards may still be locked: what could not be settled then is found when needed */
        reap(&check);
        unlock_shards(&check);
        use_up(&check);
    } else {
        unlock_shards(&check);
        reap(&check);
    }
    balance_all(&check);
    if (check.service != NULL)
        demand(&check, books_verify(world, check.service));
    exhaust(&check, balance(&check));
    drain(&check, manner);
    as_good_as_new(&check);
}
