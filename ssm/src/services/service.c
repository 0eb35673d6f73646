/* SPDX-License-Identifier: Apache-2.0
 *
 * Services: allocators that processes share by name; see service.h. */
#include "service.h"

#include "carver.h"
#include "hosted.h"
#include "lock.h"
#include "options.h"
#include "owner.h"
#include "seed_bug.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NAP_NS UINT64_C(100000)


_Static_assert((int)SSM_RANGE_FIRST == AL_TREE_FIRST && (int)SSM_RANGE_LAST == AL_TREE_LAST &&
                   (int)SSM_RANGE_EXACT == AL_TREE_EXACT,
               "policies are passed on");

/* ---- the directory -------------------------------------------------------------------------------------- */

static struct ssm_service_options options_of(const struct ssm_service_shared *shared)
{
    return (struct ssm_service_options){
        .kind = ssm_load_acquire_u32(&shared->kind), /* S2: pairs with S1 in create() */
        .flags = shared->flags,
        .first = shared->first,
        .last = shared->last,
        .ranges = shared->ranges,
    };
}

/* Makes a private view of an entry. -ENOENT if there is none; -SSM_E_CORRUPT if it is no valid service. */
static int map_service(struct ssm_pool *pool, uint32_t service_idx, struct ssm_service *service_out)
{
    const struct ssm_geometry *g = &pool->geometry;
    struct ssm_service_shared *shared = ssm_service_at(pool, service_idx);
    const struct ssm_service_options options = options_of(shared);
    if (options.kind == SSM_SERVICE_NONE)
        return -ENOENT;
    uint64_t bytes = ssm_hosted_bytes(&options), start = shared->start;
    if (bytes == 0 || start % SSM_NO_SHARING != 0 || start > g->metadata_bytes || bytes > g->metadata_bytes - start)
        return -SSM_E_CORRUPT;
    *service_out = (struct ssm_service){
        .pool = pool,
        .shared = shared,
        .flags = options.flags,
        .service_idx = service_idx,
        .core = pool->base + g->metadata_start + start,
        .core_bytes = ssm_hosted_bare_bytes(&options),
    };
    int result = ssm_hosted_attach(&service_out->hosted, &options, pool->base + g->metadata_start + start);
    return result == AL_OK ? 0 : -SSM_E_CORRUPT;
}

static uint32_t find(const struct ssm_pool *pool, const char *name, uint32_t *free_out)
{
    *free_out = SSM_NIL;
    for (uint32_t i = SSM_SERVICE_MAX; i-- > 0;) {
        const struct ssm_service_shared *shared = ssm_service_at(pool, i);
        if (ssm_load_acquire_u32(&shared->kind) == SSM_SERVICE_NONE)
            *free_out = i;
        else if (strncmp(shared->name, name, sizeof shared->name) == 0)
            return i;
    }
    return SSM_NIL;
}

/* Needs the registry locked. The last store makes the entry a service. */
static int create(struct ssm_pool *pool, const char *name, const struct ssm_service_options *options,
                  uint32_t service_idx)
{
    struct ssm_service_shared *shared = ssm_service_at(pool, service_idx);
    struct ssm_hosted hosted;
    uint64_t bytes = ssm_hosted_bytes(options), start;
    int result = ssm_carver_alloc(pool, bytes, bytes, SSM_OWNER_SERVICE | service_idx, &start);
    if (result != 0)
        return result;
    if (ssm_hosted_init(&hosted, options, pool->base + pool->geometry.metadata_start + start) != AL_OK) {
        ssm_carver_free(pool, start, bytes);
        return -EINVAL;
    }
    shared->flags = options->flags;
    shared->start = start;
    shared->bytes = bytes;
    shared->first = options->first;
    shared->last = options->last;
    shared->ranges = options->ranges;
    memset(shared->name, 0, sizeof shared->name);
    strncpy(shared->name, name, sizeof shared->name - 1);
    ssm_store_release_u32(&shared->kind, options->kind); /* S1 -> S2 in options_of(): the entry is seen whole */
    return 0;
}

static bool is_same(const struct ssm_service_options *there, const struct ssm_service_options *asked)
{
    return there->kind == asked->kind && there->flags == ssm_hosted_complete(asked).flags &&
           there->first == asked->first && there->last == asked->last &&
           (asked->ranges == 0 || asked->ranges == there->ranges);
}

/* The service of an entry, if it is the one that was asked for. */
static int open_entry(struct ssm_pool *pool, uint32_t service_idx, const struct ssm_service_options *options,
                      struct ssm_service *service_out)
{
    int result = map_service(pool, service_idx, service_out);
    if (result != 0)
        return result;
    const struct ssm_service_options there = options_of(service_out->shared);
    return is_same(&there, options) ? 0 : -SSM_E_MISMATCH;
}

/* Entries stay as long as the pool, so one that is there can be read without the registry's lock. */
static int find_existing(struct ssm_pool *pool, const char *name, const struct ssm_service_options *options,
                         struct ssm_service *service_out)
{
    uint32_t unused;
    SSM_POOL_READ(pool);
    const uint32_t service_idx = find(pool, name, &unused);
    return service_idx == SSM_NIL ? -ENOENT : open_entry(pool, service_idx, options, service_out);
}

static int find_or_create(struct ssm_pool *pool, const char *name, const struct ssm_service_options *options,
                          struct ssm_service *service_out)
{
    uint32_t unused, service_idx;
    int result = ssm_registry_begin(pool, SSM_POOL_PATIENCE_NS);
    if (result != 0)
        return result;
    service_idx = find(pool, name, &unused);
    if (service_idx == SSM_NIL) {
        const struct ssm_service_options made = ssm_hosted_complete(options);
        service_idx = unused;
        result = unused == SSM_NIL ? -SSM_E_METADATA : create(pool, name, &made, unused);
    }
    ssm_registry_unlock(pool);
    if (result == 0)
        result = open_entry(pool, service_idx, options, service_out);
    ssm_pool_leave(pool);
    return result;
}

int ssm_service_open(struct ssm_pool *pool, const char *name, const struct ssm_service_options *options,
                     struct ssm_service **service_out)
{
    const int known = ssm_options_check(options, sizeof *options);
    if (known != 0)
        return known;
    const struct ssm_service_options complete = ssm_hosted_complete(options);
    size_t length = strnlen(name, SSM_NAME_SIZE);
    if (length == 0 || length == SSM_NAME_SIZE || options->flags & ~(uint32_t)SSM_RECLAIM ||
        ssm_hosted_bytes(&complete) == 0)
        return -EINVAL;
    struct ssm_service *service = malloc(sizeof *service);
    if (service == NULL)
        return -ENOMEM;
    const bool only_looks = pool->flags & SSM_READONLY && options->kind == SSM_SERVICE_BOARD;
    int result = (only_looks ? find_existing : find_or_create)(pool, name, options, service);
    if (result != 0)
        free(service);
    else
        *service_out = service;
    return result;
}

void ssm_service_close(struct ssm_service *service)
{
    free(service);
}

/* ---- the lock ------------------------------------------------------------------------------------------- */

static void publish_use(struct ssm_service *service)
{
    ssm_store_relaxed_u64(&service->shared->used, ssm_hosted_used(&service->hosted)); /* for people to read */
}

static int repair(struct ssm_pool *pool, void *context)
{
    struct ssm_service *service = context;
    struct ssm_u32 *recoveries = &service->shared->recoveries;
    (void)pool;
    if (!SSM_HAS_BUG(NO_JOURNAL) && ssm_hosted_recover(&service->hosted) != AL_OK)
        return -SSM_E_CORRUPT;
    publish_use(service);
    ssm_store_relaxed_u32(recoveries, ssm_load_relaxed_u32(recoveries) + 1);
    return 0;
}

static int take_lock(struct ssm_service *service, uint64_t patience_ns)
{
    return ssm_lock_take(service->pool, &service->shared->lock, patience_ns, repair, service);
}

/* -ETIMEDOUT after SSM_POOL_PATIENCE_NS: the lock's owner is stopped (SIGSTOP), or its name is damaged. */
int ssm_service_enter(struct ssm_service *service)
{
    struct ssm_pool *pool = service->pool;
    for (uint64_t until_ns = 0;;) {
        int result = ssm_pool_enter(pool);
        if (result != 0)
            return result;
        result = take_lock(service, SSM_LOCK_PATIENCE_NS);
        if (result == 0)
            return 0;
        ssm_pool_leave(pool);
        if (result != -ETIMEDOUT || (result = ssm_pool_nap_within(pool, &until_ns, SSM_POOL_PATIENCE_NS, NAP_NS)) != 0)
            return result;
    }
}

static void note_use(struct ssm_service *service)
{
    struct ssm_u64 *services = &ssm_holder_at(service->pool, service->pool->self)->services;
    uint64_t known = ssm_load_relaxed_u64(services), bit = UINT64_C(1) << service->service_idx; /* its only writer */
    if (!(known & bit))
        ssm_store_release_u64(services, known | bit);
    AL_IN_ORDER();
}

/* Enters to allocate. Before the process owns a value, its holder slot tells the reaper to look into this service. */
int ssm_service_enter_as_owner(struct ssm_service *service)
{
    int result = ssm_service_enter(service);
    if (result != 0 || !(service->flags & SSM_RECLAIM))
        return result;
    note_use(service);
    return 0;
}

int ssm_service_try_enter_as_owner(struct ssm_service *service)
{
    int result = ssm_pool_enter(service->pool);
    if (result != 0)
        return result;
    result = take_lock(service, SSM_LOCK_PATIENCE_NS);
    if (result == 0)
        note_use(service);
    else
        ssm_pool_leave(service->pool);
    return result;
}

#if SSM_ASSERTS
bool ssm_service_is_valid(const struct ssm_service *service)
{
    return ssm_lock_is_mine(service->pool, &service->shared->lock) &&
           ssm_hosted_check(&service->hosted, NULL, NULL) == 0 &&
           ssm_load_relaxed_u64(&service->shared->used) == ssm_hosted_used(&service->hosted);
}
#endif

void ssm_service_leave(struct ssm_service *service)
{
    SSM_EXPENSIVE(ssm_service_is_valid(service));
    ssm_lock_release(&service->shared->lock);
    ssm_pool_leave(service->pool);
}

/* Counts the operation, leaves, and translates the result. */
int ssm_service_finish(struct ssm_service *service, int result, bool allocates)
{
    struct ssm_u64 *allocs = &service->shared->allocs;
    SSM_ASSERT_SHARED(ssm_lock_is_mine(service->pool, &service->shared->lock));
    if (result == AL_OK) {
        if (allocates)
            ssm_store_relaxed_u64(allocs, ssm_load_relaxed_u64(allocs) + 1);
        publish_use(service);
        ssm_service_leave(service);
        return 0;
    }
    ssm_service_leave(service);
    switch (result) {
    case AL_NOT_AVAILABLE:      return -SSM_E_UNAVAILABLE;
    case AL_OVERFLOW:           return -SSM_E_OVERFLOW;
    case AL_OUT_OF_RANGE:       return -SSM_E_UNMANAGED;
    case AL_ALREADY_RELEASED:   return -SSM_E_RELEASED;
    case AL_INVALID_TRANSITION: return -SSM_E_RELEASED;
    case AL_NEVER_ALLOCATED:    return -SSM_E_NEVER;
    case AL_RESTING:            return -SSM_E_RESTING;
    case AL_NO_MEMORY:          return -SSM_E_CROWDED;
    default:                    return -SSM_E_CORRUPT;
    }
}

/* ---- numbers -------------------------------------------------------------------------------------------- */

int ssm_number_alloc(struct ssm_service *service, uint64_t now_ns, uint32_t *number_out)
{
    int result = ssm_service_enter_as_owner(service);
    if (result != 0)
        return result;
    result = ssm_hosted_take_number(&service->hosted, ssm_owner_self(service->pool), now_ns, number_out);
    return ssm_service_finish(service, result, true);
}

int ssm_number_free(struct ssm_service *service, uint32_t number, uint64_t now_ns)
{
    int result = ssm_service_enter(service);
    return result != 0 ? result
                       : ssm_service_finish(service, ssm_hosted_free_number(&service->hosted, number, now_ns), false);
}

int ssm_number_is_allocated(struct ssm_service *service, uint32_t number)
{
    int result = ssm_service_enter(service);
    if (result != 0)
        return result;
    result = ssm_hosted_has_number(&service->hosted, number);
    ssm_service_leave(service);
    return result;
}

/* ---- ranges --------------------------------------------------------------------------------------------- */

int ssm_range_alloc(struct ssm_service *service, const struct ssm_range_request *request, uint64_t *start_out)
{
    const struct al_tree_constraint wanted = {
        .size = request->size,
        .align = request->align,
        .min = request->min,
        .max = request->max,
        .exact = request->exact,
        .policy = request->policy,
    };
    if (service->hosted.ops != &ssm_addresses_ops || wanted.policy > AL_TREE_EXACT ||
        al_tree_constraint_check(&wanted) != AL_OK)
        return -EINVAL;
    int result = ssm_service_enter_as_owner(service);
    if (result != 0)
        return result;
    result = al_tree_alloc(&service->hosted.addresses, &wanted, ssm_owner_self(service->pool), start_out);
    return ssm_service_finish(service, result, true);
}

int ssm_range_free(struct ssm_service *service, uint64_t start, uint64_t end)
{
    if (service->hosted.ops != &ssm_addresses_ops || start > end)
        return -EINVAL;
    int result = ssm_service_enter(service);
    return result != 0 ? result
                       : ssm_service_finish(service, al_tree_free(&service->hosted.addresses, start, end), false);
}

/* ---- boards --------------------------------------------------------------------------------------------- */

int ssm_board_memory(struct ssm_service *service, void **memory_out, uint64_t *bytes_out)
{
    if (service->hosted.ops != &ssm_board_ops)
        return -EINVAL;
    *memory_out = service->hosted.board;
    *bytes_out = service->core_bytes;
    return 0;
}

/* ---- looking in ----------------------------------------------------------------------------------------- */

int64_t ssm_service_list(struct ssm_service *service, uint64_t start, uint64_t end, struct ssm_service_item *items_out,
                         uint64_t room)
{
    struct ssm_service_item item;
    int64_t count = 0;
    int result = ssm_service_enter(service);
    if (result != 0)
        return result;
    for (uint64_t from = start; ssm_hosted_next(&service->hosted, from, &item) && item.start <= end;
         from = item.end + 1) {
        if ((uint64_t)count < room)
            items_out[count] = item;
        count++;
        if (item.end == UINT64_MAX)
            break;
    }
    ssm_service_leave(service);
    return count;
}

int64_t ssm_service_snapshot(struct ssm_service *service, void *out, uint64_t room)
{
    uint64_t bytes = service->core_bytes;
    if (room < bytes)
        return (int64_t)bytes;
    int result = ssm_service_enter(service);
    if (result != 0)
        return result;
    memcpy(out, service->core, bytes);
    ssm_service_leave(service);
    return (int64_t)bytes;
}

static bool is_alive(struct ssm_pool *pool, uint32_t owner)
{
    uint32_t slot = ssm_owner_slot(owner);
    if (slot >= pool->geometry.holders)
        return false;
    const struct ssm_holder *holder = ssm_holder_at(pool, slot);
    uint32_t incarnation = ssm_load_acquire_u32(&holder->incarnation);
    return ssm_owner_of(incarnation, slot) == owner && ssm_load_acquire_u32(&holder->kind) == SSM_HOLDER_PROCESS &&
           !ssm_holder_is_dead(pool, slot, incarnation);
}

int ssm_service_owner(struct ssm_service *service, uint32_t owner, struct ssm_service_owner *out)
{
    struct ssm_pool *pool = service->pool;
    uint32_t slot = ssm_owner_slot(owner);
    SSM_POOL_READ(pool);
    *out = (struct ssm_service_owner){.holder = slot, .alive = is_alive(pool, owner)};
    if (slot < pool->geometry.holders) {
        const struct ssm_holder *holder = ssm_holder_at(pool, slot);
        if (ssm_owner_of(ssm_load_acquire_u32(&holder->incarnation), slot) == owner) { /* it still has the slot */
            out->pid = ssm_load_relaxed_u32(&holder->pid);
            memcpy(out->name, holder->name, sizeof out->name);
            out->name[sizeof out->name - 1] = 0; /* another process wrote it */
        }
    }
    return 0;
}

int ssm_service_stats(struct ssm_pool *pool, uint32_t service_idx, struct ssm_service_stats *out)
{
    if (service_idx >= SSM_SERVICE_MAX)
        return -EINVAL;
    SSM_POOL_READ(pool);
    int result = 0;
    const struct ssm_service_shared *shared = ssm_service_at(pool, service_idx);
    const struct ssm_service_options options = options_of(shared);
    if (options.kind == SSM_SERVICE_NONE)
        result = -ENOENT;
    else if (ssm_hosted_bytes(&options) == 0)
        result = -SSM_E_CORRUPT;
    if (result == 0) {
        *out = (struct ssm_service_stats){
            .kind = options.kind,
            .flags = options.flags,
            .ranges = options.ranges,
            .first = options.first,
            .last = options.last,
            .capacity = ssm_hosted_capacity(&options),
            .bytes = shared->bytes,
            .used = ssm_load_relaxed_u64(&shared->used),
            .allocs = ssm_load_relaxed_u64(&shared->allocs),
            .recoveries = ssm_load_relaxed_u32(&shared->recoveries),
        };
        memcpy(out->name, shared->name, sizeof out->name);
        out->name[sizeof out->name - 1] = 0;
    }
    return result;
}

/* ---- for the reaper and the check ------------------------------------------------------------------------ */

void ssm_service_scrub(struct ssm_pool *pool, uint32_t service_idx)
{
    struct ssm_service service;
    if (map_service(pool, service_idx, &service) == 0 && ssm_lock_owner_is_dead(pool, &service.shared->lock) &&
        take_lock(&service, 0) == 0)
        ssm_lock_release(&service.shared->lock);
}

bool ssm_service_reclaim(struct ssm_pool *pool, uint32_t service_idx, const struct ssm_holder_set *slots)
{
    struct ssm_service service;
    if (map_service(pool, service_idx, &service) != 0 || !(service.flags & SSM_RECLAIM))
        return true; /* a corrupt service has no values to free */
    int result = take_lock(&service, SSM_LOCK_PATIENCE_NS);
    if (result != 0)
        return result != -ETIMEDOUT;
    (void)ssm_hosted_reclaim(&service.hosted, slots, ssm_clock_ns());
    publish_use(&service);
    SSM_EXPENSIVE(ssm_service_is_valid(&service));
    ssm_lock_release(&service.shared->lock);
    return true;
}

/* Would a reaper give back what this owner has? */
static bool has_reaper(const struct ssm_service *service, uint32_t owner)
{
    const uint32_t slot = ssm_owner_slot(owner);
    if (slot >= service->pool->geometry.holders)
        return false;
    const struct ssm_holder *holder = ssm_holder_at(service->pool, slot);
    return ssm_load_acquire_u32(&holder->kind) == SSM_HOLDER_PROCESS &&
           ssm_owner_of(ssm_load_relaxed_u32(&holder->incarnation), slot) == owner &&
           ssm_load_relaxed_u64(&holder->services) >> service->service_idx & 1;
}

/* I9: values that nobody would ever give back. */
static uint64_t count_orphans(struct ssm_service *service)
{
    struct ssm_service_item item;
    uint64_t orphans = 0;
    for (uint64_t from = 0; ssm_hosted_next(&service->hosted, from, &item); from = item.end + 1) {
        orphans += item.allocated && !has_reaper(service, item.owner);
        if (item.end == UINT64_MAX)
            break;
    }
    return orphans;
}

uint64_t ssm_service_check(struct ssm_pool *pool, uint32_t service_idx,
                           void (*report)(void *context, const char *what, uint64_t where, uint64_t value),
                           void *context)
{
    struct ssm_service service;
    int result = map_service(pool, service_idx, &service);
    if (result == -ENOENT)
        return 0;
    if (result == 0)
        result = take_lock(&service, SSM_LOCK_PATIENCE_NS);
    if (result == -ETIMEDOUT)
        return 0; /* its owner is stopped: there is nothing to check */
    if (result != 0) {
        report(context, "what stands in its place cannot be a service", service_idx, 0);
        return 1;
    }
    uint64_t broken = ssm_hosted_check(&service.hosted, report, context);
    ssm_lock_release(&service.shared->lock);
    return broken;
}

uint64_t ssm_service_orphans(struct ssm_pool *pool, uint32_t service_idx)
{
    struct ssm_service service;
    if (map_service(pool, service_idx, &service) != 0 || !(service.flags & SSM_RECLAIM) ||
        take_lock(&service, SSM_LOCK_PATIENCE_NS) != 0)
        return 0;
    uint64_t orphans = count_orphans(&service);
    ssm_lock_release(&service.shared->lock);
    return orphans;
}
