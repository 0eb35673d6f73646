/* SPDX-License-Identifier: Apache-2.0
 *
 * The books of a service; see books.h. */
#include "books.h"

#include "eventcount.h"
#include "hosted.h"
#include "service.h"
#include "owner.h"

#include <stdarg.h>
#include <stdio.h>

#define UNIT UINT64_C(16) /* ranges are multiples of it */

__attribute__((format(printf, 1, 2))) static const char *wrong(const char *format, ...)
{
    static char sentence[160];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    return sentence;
}

/* RMIDs rest. By this clock, which runs fast, each call is long after the one before, whoever made that. */
static uint64_t later_ns(void)
{
    return ssm_now_ns() << 16;
}

static bool is_of(const struct world *world, enum actor actor, const struct ssm_service_item *item)
{
    uint32_t slot = ssm_owner_slot(item->owner);
    return world->pools[actor] != NULL && world->pools[actor]->self == slot;
}

static bool has_item(const struct books *books, const struct ssm_service_item *item)
{
    for (uint32_t i = 0; i < books->count; i++)
        if (books->items[i].start == item->start && books->items[i].owner == item->owner)
            return true;
    return false;
}

/* Which permit it is, the books before and after say; others may have come back meanwhile. */
static int take_permit(struct ssm_service *service, struct ssm_service_item *item_out)
{
    struct books before, after;
    books_read(service, &before);
    int result = ssm_semaphore_acquire(service, 0, NULL);
    books_read(service, &after);
    for (uint32_t i = 0; i < after.count; i++)
        if (after.items[i].owner == ssm_owner_self(service->pool) && !has_item(&before, &after.items[i]))
            *item_out = after.items[i];
    return result;
}

/* By its owner, which alone may. */
static int give_permit_back(const struct world *world, struct ssm_service *service, const struct ssm_service_item *item)
{
    for (int actor = 0; actor < ACTORS; actor++)
        if (is_of(world, (enum actor)actor, item) && item->owner != ssm_owner_self(service->pool))
            return ssm_semaphore_release(world->services[actor], 1);
    return ssm_semaphore_release(service, 1);
}

static int take(const struct world *world, struct ssm_service *service, struct ssm_service_item *item_out)
{
    const struct ssm_service_options *options = &world->service;
    const struct ssm_range_request request = {.size = UNIT, .align = UNIT, .min = options->first, .max = options->last};
    uint32_t number;
    int result;
    if (options->kind == SSM_SERVICE_SEMAPHORE) {
        result = take_permit(service, item_out);
    } else if (options->kind == SSM_SERVICE_ADDRESSES) {
        result = ssm_range_alloc(service, &request, &item_out->start);
        item_out->end = item_out->start + UNIT - 1;
    } else {
        result = ssm_number_alloc(service, later_ns(), &number);
        item_out->start = item_out->end = number;
    }
    return result;
}

static int give_back(const struct world *world, struct ssm_service *service, const struct ssm_service_item *item)
{
    if (world->service.kind == SSM_SERVICE_SEMAPHORE)
        return give_permit_back(world, service, item);
    if (world->service.kind == SSM_SERVICE_ADDRESSES)
        return ssm_range_free(service, item->start, item->end);
    return ssm_number_free(service, (uint32_t)item->start, later_ns());
}

static bool is_refusal(int result)
{
    return result == -SSM_E_UNAVAILABLE || result == -SSM_E_OVERFLOW || result == -SSM_E_CROWDED;
}

/* ---- what may be ------------------------------------------------------------------------------------------------- */

static bool is_reclaimed(const struct world *world, const struct ssm_service_item *item)
{
    return world->service.flags & SSM_RECLAIM &&
           (is_of(world, VICTIM, item) || (world->somebody_died && is_of(world, DEAD, item)));
}

static uint32_t count_of(const struct world *world, enum actor actor, const struct books *books)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < books->count; i++)
        count += is_of(world, actor, &books->items[i]);
    return count;
}

static struct books after_a_reap(const struct world *world, const struct books *books)
{
    struct books rest = {.count = 0};
    for (uint32_t i = 0; i < books->count; i++)
        if (!is_reclaimed(world, &books->items[i]))
            rest.items[rest.count++] = books->items[i];
    for (int actor = 0; actor < ACTORS; actor++) /* what came free is granted to those that wait */
        while (count_of(world, (enum actor)actor, &rest) < world->wants[actor] && rest.count < world->service.first)
            rest.items[rest.count++] = (struct ssm_service_item){.owner = ssm_owner_self(world->pools[actor]),
                                                                 .allocated = 1};
    return rest;
}

static bool overlap(const struct ssm_service_item *a, const struct ssm_service_item *b)
{
    return a->start <= b->end && b->start <= a->end;
}

static bool has(const struct books *books, const struct ssm_service_item *item)
{
    for (uint32_t i = 0; i < books->count; i++)
        if (overlap(&books->items[i], item))
            return true;
    return false;
}

/* One permit is like another: each process has as many. */
static bool has_as_many_each(const struct world *world, const struct books *a, const struct books *b)
{
    for (int actor = 0; actor < ACTORS; actor++)
        if (count_of(world, (enum actor)actor, a) != count_of(world, (enum actor)actor, b))
            return false;
    return a->count == b->count;
}

static bool are_equal(const struct world *world, const struct books *a, const struct books *b)
{
    if (world->service.kind == SSM_SERVICE_SEMAPHORE)
        return has_as_many_each(world, a, b);
    for (uint32_t i = 0; i < a->count && i < b->count; i++)
        if (a->items[i].start != b->items[i].start || a->items[i].end != b->items[i].end ||
            a->items[i].owner != b->items[i].owner)
            return false;
    return a->count == b->count;
}

/* Without what a rescuer had who was killed, too. */
static struct books without_rescuer(const struct world *world, const struct books *books)
{
    struct books rest = {.count = 0};
    for (uint32_t i = 0; i < books->count; i++)
        if (!is_of(world, RESCUER, &books->items[i]))
            rest.items[rest.count++] = books->items[i];
    return rest;
}

static const char *look_at_owners(const struct world *world, struct ssm_service *service, const struct books *books)
{
    struct ssm_service_owner owner;
    for (uint32_t i = 0; i < books->count; i++) {
        if (ssm_service_owner(service, books->items[i].owner, &owner) != 0)
            return wrong("nothing can be said of the owner of %lu", (unsigned long)books->items[i].start);
        if (world->service.flags & SSM_RECLAIM && !owner.alive)
            return wrong("%lu is a dead process's after a reap", (unsigned long)books->items[i].start);
        if (is_of(world, PEER, &books->items[i]) && !owner.alive)
            return wrong("%lu is the peer's, who lives, but is said to be a dead process's",
                         (unsigned long)books->items[i].start);
    }
    return NULL;
}

/* ---- using it ---------------------------------------------------------------------------------------------------- */

static uint64_t size_of(const struct world *world, const struct books *books)
{
    uint64_t size = 0;
    for (uint32_t i = 0; i < books->count; i++)
        size += books->items[i].end - books->items[i].start + 1;
    return world->service.kind == SSM_SERVICE_ADDRESSES ? size / UNIT : size;
}

static uint64_t capacity_of(const struct world *world)
{
    const struct ssm_service_options *options = &world->service;
    return options->kind == SSM_SERVICE_IDS       ? options->last - options->first + 1
         : options->kind == SSM_SERVICE_PIDS      ? options->first * 64
         : options->kind == SSM_SERVICE_RMIDS     ? options->first
         : options->kind == SSM_SERVICE_SEMAPHORE ? options->first
                                                  : (options->last - options->first + 1) / UNIT;
}

/* Allocates all that is left, and frees it. */
static const char *use_up(const struct world *world, struct ssm_service *service)
{
    struct books before, taken = {.count = 0}, after;
    struct ssm_service_item item;
    int result;
    books_read(service, &before);
    while ((result = take(world, service, &item)) == 0) {
        if (has(&before, &item) || has(&taken, &item))
            return wrong("%lu was given out, but somebody has it", (unsigned long)item.start);
        if (taken.count == ITEMS)
            return "there is more in the service than there can be";
        taken.items[taken.count++] = item;
    }
    uint64_t all = size_of(world, &before) + size_of(world, &taken), expected = capacity_of(world);
    bool crowded = result == -SSM_E_CROWDED && before.count + taken.count >= world->service.ranges;
    if (!is_refusal(result) || (all != expected && !crowded))
        return wrong("%lu of %lu values can be allocated, then: %s", (unsigned long)all, (unsigned long)expected,
                     ssm_strerror(result));
    for (uint32_t i = 0; i < taken.count; i++)
        if ((result = give_back(world, service, &taken.items[i])) != 0)
            return wrong("freeing %lu: %s", (unsigned long)taken.items[i].start, ssm_strerror(result));
    books_read(service, &after);
    return are_equal(world, &before, &after) ? NULL : "to allocate all and to free it changes the books";
}

const char *books_go_on(const struct world *world, struct ssm_service *service)
{
    struct ssm_service_item item;
    int result = take(world, service, &item);
    if (result == -SSM_E_RESTING || is_refusal(result))
        return NULL;
    if (result != 0)
        return wrong("alloc: %s", ssm_strerror(result));
    for (uint32_t i = 0; i < world->before.count; i++)
        if (is_of(world, PEER, &world->before.items[i]) && overlap(&world->before.items[i], &item))
            return wrong("%lu was given out, but the peer has it", (unsigned long)item.start);
    result = give_back(world, service, &item);
    return result == 0 ? NULL : wrong("free: %s", ssm_strerror(result));
}

const char *books_verify(const struct world *world, struct ssm_service *service)
{
    struct books all, before = after_a_reap(world, &world->before), after = after_a_reap(world, &world->after);
    books_read(service, &all);
    struct books now = without_rescuer(world, &all);
    bool returned = ssm_load_relaxed_u32(&world->note->stage) > 0;
    if (!are_equal(world, &now, &after) && (returned || !are_equal(world, &now, &before)))
        return wrong("%u values are allocated, before the operation %u were, after it %u; it %s", now.count,
                     before.count, after.count, returned ? "had returned" : "had not returned");
    const char *fault = look_at_owners(world, service, &all);
    return fault != NULL ? fault : use_up(world, service);
}

/* The peer's calls that wait take what was granted to them. */
static void collect_permits(struct ssm_permits *permits)
{
    for (uint32_t place = 0; place < SSM_WAITERS_MAX; place++)
        if (ssm_load_relaxed_u64(&permits->shared->waiters[place].ticket) != 0)
            (void)ssm_permits_collect(permits, place);
}

const char *books_as_good_as_new(const struct world *world, struct ssm_pool *self, struct ssm_service *service)
{
    struct books all;
    struct ssm_service *another;
    int result = 0;
    if (world->service.kind == SSM_SERVICE_SEMAPHORE)
        collect_permits(&service->hosted.permits);
    books_read(service, &all);
    for (uint32_t i = 0; i < all.count; i++)
        if ((result = give_back(world, service, &all.items[i])) != 0)
            return wrong("freeing %lu in the end: %s", (unsigned long)all.items[i].start, ssm_strerror(result));
    const char *fault = use_up(world, service);
    if (fault != NULL)
        return fault;
    if ((result = ssm_service_open(self, "new", &world->service, &another)) != 0)
        return wrong("opening another one: %s", ssm_strerror(result));
    return use_up(world, another);
}
