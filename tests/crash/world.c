/* SPDX-License-Identifier: Apache-2.0
 *
 * The world of one test; see world.h. */
#include "scenarios.h"

#include "cache.h"
#include "liveness.h"
#include "shard.h"

#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define WIDE_SLOT      64 /* the victim's, in a wide world */
#define HOUR_NS        UINT64_C(3600000000000)
#define TURN_SLOT_BITS 13
#define METADATA_BYTES 81920 /* four rings and two services: one that is lost leaves no room for the next */

static void must(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "the world cannot be prepared: %s\n", what);
    abort();
}
#define MUST(condition) must(condition, #condition)

/* ---- stamps ------------------------------------------------------------------------------------------------------ */

static uint64_t stamp_word(uint64_t serial, uint32_t i)
{
    uint64_t x = serial * UINT64_C(0x9e3779b97f4a7c15) + i;
    return (x ^ x >> 31) * UINT64_C(0xbf58476d1ce4e5b9);
}

void stamp_write(uint64_t *payload, uint64_t serial)
{
    payload[0] = serial;
    for (uint32_t i = 1; i < BLOCK_SIZE / 8; i++)
        payload[i] = stamp_word(serial, i);
}

bool stamp_is_whole(const uint64_t *payload)
{
    for (uint32_t i = 1; i < BLOCK_SIZE / 8; i++)
        if (payload[i] != stamp_word(payload[0], i))
            return false;
    return true;
}

/* ---- building ---------------------------------------------------------------------------------------------------- */

static struct ssm_pool *attach(const struct world *world, const char *name)
{
    struct ssm_attach_options options = {.name = name};
    struct ssm_pool *pool = NULL;
    MUST(ssm_pool_attach(world->fd, &options, &pool) == 0);
    pool->many_cpus = false; /* how long it spins depends on the clock */
    return pool;
}

struct ssm_ring_options world_ring_options(const struct world *world, int ring)
{
    static const uint32_t capacities[RINGS] = {[RING_MANY] = CAPACITY_MANY, [RING_ONE] = CAPACITY_ONE};
    return (struct ssm_ring_options){.capacity = capacities[ring], .flags = world->ring_flags[ring]};
}

static void open_ring(struct world *world, enum actor actor, int ring)
{
    static const char *const names[RINGS] = {[RING_MANY] = "many", [RING_ONE] = "one"};
    struct ssm_ring_options options = world_ring_options(world, ring);
    MUST(ssm_ring_open(world->pools[actor], names[ring], &options, &world->rings[actor][ring]) == 0);
}

static void open_quiet_ring(struct world *world)
{
    struct ssm_ring_options options = {.capacity = 1};
    MUST(ssm_ring_open(world->pools[RESCUER], "quiet", &options, &world->quiet) == 0);
}

static void open_rings(struct world *world, enum actor actor)
{
    for (int ring = 0; ring < RINGS; ring++)
        open_ring(world, actor, ring);
}

void world_build(struct world *world, const struct scenario *scenario, bool wide)
{
    const bool arena = scenario->arena, grows = scenario->grows;
    const uint32_t one_flags = scenario->one_flags != 0 ? scenario->one_flags : SSM_ONE_PRODUCER | SSM_ONE_CONSUMER;
    struct ssm_pool_options options = {
        .classes = {{BLOCK_SIZE, BLOCKS}},
        .class_count = 1,
        .shards = 2,
        .cache = CACHE,
        .holders = wide ? 128 : 64,
        .metadata_bytes = METADATA_BYTES,
        .arena_bytes = arena && !grows ? ARENA_BYTES : 0,
        .grow_bytes = grows ? GROW_BYTES : 0,
        .arena_packets = arena ? ARENA_PACKETS : 0,
    };
    struct ssm_attach_options survivor = {.name = "survivor"};
    *world = (struct world){.fd = memfd_create("ssm-crash", MFD_CLOEXEC),
                            .wide = wide,
                            .ring_flags = {[RING_MANY] = scenario->many_flags, [RING_ONE] = one_flags},
                            .arena = arena,
                            .arena_bytes = grows ? GROW_BYTES : ARENA_BYTES,
                            .built_ns = ssm_now_ns()};
    MUST(world->fd >= 0);
    MUST(ssm_pool_create(world->fd, &options, &survivor, &world->pools[SURVIVOR]) == 0);
    world->pools[PEER] = attach(world, "peer");
    open_rings(world, SURVIVOR);
    open_rings(world, PEER);
    for (uint32_t used = 2 + RINGS; wide && used < WIDE_SLOT; used++)
        world->crowd[world->dummies++] = attach(world, "dummy");
    world->pools[VICTIM] = attach(world, "victim");
    world->pools[RESCUER] = attach(world, "rescuer");
    world->pools[DEAD] = attach(world, "dead");
    open_rings(world, VICTIM);
    open_rings(world, RESCUER);
    open_rings(world, DEAD);
    open_quiet_ring(world);
    while (world->dummies > 0)
        ssm_pool_destroy(world->crowd[--world->dummies]);
    for (int actor = 0; actor < ACTORS; actor++) /* one process plays all: they would have one home */
        world->pools[actor]->home = actor == VICTIM || actor == RESCUER || actor == DEAD ? 0 : 1;
    world->pools[SURVIVOR]->many_cpus = false;
    world->note = mmap(NULL, sizeof *world->note, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    MUST(world->note != MAP_FAILED);
}

uint64_t world_size(const struct world *world)
{
    return world->pools[SURVIVOR]->geometry.size_bytes;
}

/* Although somebody, who will be dead, has the lock. */
static void read_books_before(struct world *world)
{
    struct ssm_u64 *lock = &ssm_service_at(world->pools[SURVIVOR], 0)->lock.word;
    uint64_t word = ssm_exchange_acqrel_u64(lock, 0);
    books_read(world->services[SURVIVOR], &world->before);
    ssm_store_release_u64(lock, word);
}

void world_seal(struct world *world)
{
    if (world->service.kind != SSM_SERVICE_NONE)
        read_books_before(world);
    world->image = malloc(world_size(world));
    MUST(world->image != NULL);
    memcpy(world->image, world->pools[SURVIVOR]->base, world_size(world));
    if (world->pools[VICTIM] != NULL)
        world_bury(world, VICTIM);
    if (world->somebody_died)
        world_bury(world, DEAD);
}

void world_bury(struct world *world, enum actor actor)
{
    struct ssm_pool *pool = world->pools[actor];
    ssm_description_drop(&pool->alive, &pool->file);
    ssm_byte_unlock(pool->fd, SSM_BYTE_HOLDER(pool->self));
}

void world_look_after(struct world *world)
{
    if (world->service.kind != SSM_SERVICE_NONE)
        books_read(world->services[SURVIVOR], &world->after);
}

void world_rescuer_lives(struct world *world, bool lives)
{
    struct ssm_pool *rescuer = world->pools[RESCUER];
    if (lives)
        MUST(ssm_byte_try_lock(rescuer->fd, SSM_BYTE_HOLDER(rescuer->self)) == 0);
    else
        world_bury(world, RESCUER);
}

const uint8_t *world_segment(const struct world *world)
{
    return world->pools[SURVIVOR]->base;
}

void world_restore(struct world *world, const uint8_t *image)
{
    memcpy(world->pools[SURVIVOR]->base, image, world_size(world));
}

/* Nothing is given back in order: the file goes as a whole. */
void world_destroy(struct world *world)
{
    for (int actor = ACTORS; actor-- > 0;) {
        if (world->pools[actor] == NULL)
            continue;
        world->pools[actor]->self = SSM_NIL; /* nothing to say goodbye to */
        world->pools[actor]->pinned = 0;
        for (int ring = 0; ring < RINGS; ring++)
            free(world->rings[actor][ring]);
        ssm_service_close(world->services[actor]);
        ssm_pool_destroy(world->pools[actor]);
    }
    while (world->dummies > 0) {
        world->crowd[--world->dummies]->self = SSM_NIL;
        ssm_pool_destroy(world->crowd[world->dummies]);
    }
    munmap(world->note, sizeof *world->note);
    free(world->quiet);
    free(world->kept);
    free(world->image);
    close(world->fd);
}

/* ---- telling states apart ---------------------------------------------------------------------------------------- */

/* What the clock has said since the world was built. No handle, lock word or offset is nearly as large. */
static bool is_a_time(const struct world *world, uint64_t word)
{
    return word >= world->built_ns && word - world->built_ns < HOUR_NS;
}

/* The same in microseconds, above the slot of a process, as calls that wait for several blocks write it (reservation.h). */
static bool is_a_turn(const struct world *world, uint64_t word)
{
    const uint64_t us = word >> TURN_SLOT_BITS, built_us = world->built_ns / 1000;
    return us >= built_us && us - built_us < HOUR_NS / 1000;
}

static bool is_a_pid(const struct world *world, uint64_t at)
{
    const struct ssm_geometry *g = &world->pools[SURVIVOR]->geometry;
    return at >= g->holders_start && at < g->holders_start + g->holders * sizeof(struct ssm_holder) &&
           (at - g->holders_start) % sizeof(struct ssm_holder) == offsetof(struct ssm_holder, pid);
}

uint64_t world_hash_word(const struct world *world, uint64_t at, uint64_t word)
{
    if (word == 0)
        return 0;
    if (is_a_time(world, word))
        word = 1;
    else if (is_a_turn(world, word))
        word = (word & ((UINT64_C(1) << TURN_SLOT_BITS) - 1)) | UINT64_C(1) << TURN_SLOT_BITS;
    if (is_a_pid(world, at)) /* the rmid is in the upper half */
        word = (word & ~(uint64_t)UINT32_MAX) | ((uint32_t)word != 0);
    uint64_t hash = (word ^ at * UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xbf58476d1ce4e5b9);
    hash = (hash ^ hash >> 29) * UINT64_C(0x94d049bb133111eb);
    return hash ^ hash >> 32;
}

uint64_t world_hash(const struct world *world, const uint8_t *image)
{
    uint64_t hash = 0, word;
    for (uint64_t at = 0; at < world_size(world); at += sizeof word) {
        memcpy(&word, image + at, sizeof word);
        if (word != 0)
            hash += world_hash_word(world, at, word);
    }
    return hash;
}

/* ---- in children ------------------------------------------------------------------------------------------------- */

void world_become(struct world *world, enum actor actor)
{
    struct ssm_pool *pool = world->pools[actor];
    ssm_description_disown(&pool->registry, &pool->file);
    ssm_description_disown(&pool->alive, &pool->file);
    MUST(ssm_description_open(world->fd, &pool->registry) == 0 && ssm_description_open(world->fd, &pool->alive) == 0);
    MUST(ssm_byte_try_lock(pool->alive.fd, SSM_BYTE_HOLDER(pool->self)) == 0);
    ssm_file_close(&pool->alive.fd, &pool->file);
}

void world_returned(struct world *world, int result)
{
    uint32_t stage = ssm_load_relaxed_u32(&world->note->stage);
    world->note->results[stage] = result;
    ssm_store_release_u32(&world->note->stage, stage + 1);
}

/* ---- preparing --------------------------------------------------------------------------------------------------- */

uint64_t world_alloc(struct world *world, enum actor actor, uint64_t *serial_out)
{
    uint64_t handle, serial = ++world->last_serial;
    struct ssm_packet packet;
    MUST(ssm_alloc(world->pools[actor], BLOCK_SIZE, 0, &handle) == 0);
    MUST(ssm_packet_view(world->pools[actor], handle, &packet) == 0);
    MUST(ssm_packet_set_tag(world->pools[actor], handle, serial) == 0);
    stamp_write((uint64_t *)packet.data, serial);
    *serial_out = serial;
    return handle;
}

/* Its window is as large as a block's: so it goes through rings as they do. */
uint64_t world_alloc_arena(struct world *world, enum actor actor, uint64_t bytes, uint64_t *serial_out)
{
    uint64_t handle, serial = ++world->last_serial;
    struct ssm_packet packet;
    MUST(ssm_alloc(world->pools[actor], bytes, 0, &handle) == 0);
    MUST(ssm_packet_trim_back(world->pools[actor], handle, bytes - BLOCK_SIZE, NULL) == 0);
    MUST(ssm_packet_view(world->pools[actor], handle, &packet) == 0);
    MUST(ssm_packet_set_tag(world->pools[actor], handle, serial) == 0);
    stamp_write((uint64_t *)packet.data, serial);
    *serial_out = serial;
    return handle;
}

static void pass(struct world *world, enum actor from, enum actor to, uint64_t handle)
{
    uint64_t got;
    MUST(ssm_ring_put(world->rings[from][RING_MANY], &handle, 1, 0, 0) == 0);
    MUST(ssm_ring_get(world->rings[to][RING_MANY], &got, 1, 0) == 1 && got == handle);
}

void world_give(struct world *world, enum actor actor, uint32_t count)
{
    for (uint64_t serial; count > 0; count--) {
        uint64_t handle = world_alloc(world, actor, &serial);
        if (actor != VICTIM)
            pass(world, actor, VICTIM, handle);
        world->packets[world->packet_count++] = handle;
    }
}

static void remember(struct world *world, uint64_t handle, uint64_t serial)
{
    world->held[world->held_count++] = (struct held){handle, serial};
}

void world_keep(struct world *world, enum actor actor, uint32_t count)
{
    for (uint64_t serial; count > 0; count--) {
        uint64_t handle = world_alloc(world, actor, &serial);
        remember(world, handle, serial);
    }
}

void world_keep_arena(struct world *world, uint64_t bytes)
{
    uint64_t serial, handle = world_alloc_arena(world, PEER, bytes, &serial);
    remember(world, handle, serial);
}

void world_keep_all(struct world *world)
{
    uint64_t handle;
    struct ssm_packet packet;
    while (ssm_alloc(world->pools[PEER], BLOCK_SIZE, 0, &handle) == 0) {
        MUST(ssm_packet_view(world->pools[PEER], handle, &packet) == 0);
        MUST(ssm_packet_set_tag(world->pools[PEER], handle, ++world->last_serial) == 0);
        stamp_write((uint64_t *)packet.data, world->last_serial);
        remember(world, handle, world->last_serial);
    }
}

void world_queue(struct world *world, enum actor actor, int ring, uint32_t count)
{
    struct serials *queued = &world->expect[ring].queued;
    for (uint64_t serial; count > 0; count--) {
        uint64_t handle = world_alloc(world, actor, &serial);
        MUST(ssm_ring_put(world->rings[actor][ring], &handle, 1, 0, 0) == 0);
        queued->serial[queued->count++] = serial;
    }
}

void world_queue_shared(struct world *world)
{
    uint64_t serial, handle = world_alloc(world, PEER, &serial);
    for (int ring = 0; ring < RINGS; ring++) {
        struct serials *queued = &world->expect[ring].queued;
        MUST(ssm_ring_put(world->rings[PEER][ring], &handle, 1, SSM_KEEP, 0) == 0);
        queued->serial[queued->count++] = serial;
    }
    remember(world, handle, serial);
}

void world_unclaim(struct world *world, enum actor actor)
{
    ssm_ring_close(world->rings[actor][RING_ONE]);
    open_ring(world, actor, RING_ONE);
}

void world_rotate(struct world *world, int ring, uint32_t count)
{
    for (uint64_t serial, got; count > 0; count--) {
        uint64_t handle = world_alloc(world, PEER, &serial);
        MUST(ssm_ring_put(world->rings[PEER][ring], &handle, 1, 0, 0) == 0);
        MUST(ssm_ring_get(world->rings[PEER][ring], &got, 1, 0) == 1);
        MUST(ssm_free(world->pools[PEER], got) == 0);
    }
    if (ring == RING_ONE)
        world_unclaim(world, PEER);
}

void world_uncache(struct world *world, enum actor actor)
{
    ssm_cache_flush(world->pools[actor], 0, 0);
}

void world_lock_shard(struct world *world, uint32_t shard_idx)
{
    MUST(ssm_shard_lock(world->pools[PEER], 0, shard_idx, 0) == 0);
    world->locked |= UINT32_C(1) << shard_idx;
}

void world_announce(struct world *world)
{
    struct ssm_pool *pool = world->pools[SURVIVOR];
    for (uint32_t shard_idx = 0; shard_idx < pool->geometry.shards; shard_idx++)
        ssm_event_announce(&ssm_shard_at(pool, 0, shard_idx)->event);
    ssm_class_announce(pool, 0);
}

uint64_t world_serial_of(const struct world *world, uint64_t handle)
{
    uint64_t serial;
    const struct ssm_pool *pool = world->pools[SURVIVOR];
    const uint32_t block_idx = (uint32_t)handle;
    memcpy(&serial, pool->base + ssm_memory_seen(pool, ssm_class_of_block(pool, block_idx), block_idx).start,
           sizeof serial);
    return serial;
}

void world_host(struct world *world, const struct ssm_service_options *options)
{
    world->service = *options;
    for (int actor = 0; actor < ACTORS; actor++)
        MUST(ssm_service_open(world->pools[actor], "service", options, &world->services[actor]) == 0);
}

void books_read(struct ssm_service *service, struct books *books_out)
{
    struct ssm_service_item items[ITEMS];
    int64_t count = ssm_service_list(service, 0, UINT64_MAX, items, ITEMS);
    MUST(count >= 0 && count <= ITEMS);
    books_out->count = 0;
    for (int64_t i = 0; i < count; i++)
        if (items[i].allocated)
            books_out->items[books_out->count++] = items[i];
}
