/* SPDX-License-Identifier: Apache-2.0
 *
 * Numbers of the registry; see registry_ids.h. */
#include "registry_ids.h"

#include "clock.h"
#include "holder_set.h"
#include "hosted.h"

_Static_assert(AL_RMID_MAX < SSM_HOLDER_MAX, "a set holds any number");

/* ---- what the holder table says ---------------------------------------------------------------------------- */

/* Should that slot name a number of that kind? Also returns the number that it has. */
static bool reads(const struct ssm_pool *pool, uint32_t slot, enum ssm_registry_ids which, uint32_t *number_out)
{
    const struct ssm_holder *holder = ssm_holder_at(pool, slot);
    uint32_t kind = ssm_load_acquire_u32(&holder->kind);
    *number_out = which == SSM_REGISTRY_IDS_SLOTS ? slot
                : which == SSM_REGISTRY_IDS_RINGS ? ssm_load_relaxed_u32(&holder->ring_id)
                                                  : ssm_load_relaxed_u32(&holder->rmid);
    return which == SSM_REGISTRY_IDS_SLOTS ? kind != SSM_HOLDER_NONE
         : which == SSM_REGISTRY_IDS_RINGS ? ssm_kind_is_ring(kind)
                                           : kind == SSM_HOLDER_PROCESS && *number_out != 0; /* 0: no RMID was free */
}

/* All numbers of that kind are below the limit. */
static uint32_t limit_of(const struct ssm_pool *pool, enum ssm_registry_ids which)
{
    return which == SSM_REGISTRY_IDS_RMIDS ? (uint32_t)ssm_layout_registry_ids(&pool->geometry, which).first + 1
                                           : pool->geometry.holders;
}

static bool names(const struct ssm_pool *pool, uint32_t slot, enum ssm_registry_ids which, uint32_t *number_out)
{
    return reads(pool, slot, which, number_out) && *number_out < limit_of(pool, which);
}

static bool is_named(const struct ssm_pool *pool, enum ssm_registry_ids which, uint32_t number)
{
    uint32_t named, slot = which == SSM_REGISTRY_IDS_SLOTS ? number : 0; /* only the slot itself names its number */
    uint32_t end = which == SSM_REGISTRY_IDS_SLOTS ? number + 1 : pool->geometry.holders;
    for (; slot < end; slot++)
        if (names(pool, slot, which, &named) && named == number)
            return true;
    return false;
}

static struct ssm_holder_set all_named(const struct ssm_pool *pool, enum ssm_registry_ids which)
{
    struct ssm_holder_set set = {0};
    uint32_t number;
    for (uint32_t slot = 0; slot < pool->geometry.holders; slot++)
        if (names(pool, slot, which, &number))
            ssm_holder_set_add(&set, number);
    return set;
}

/* ---- the allocators ---------------------------------------------------------------------------------------- */

static uint8_t *memory_of(const struct ssm_pool *pool, enum ssm_registry_ids which)
{
    const struct ssm_geometry *g = &pool->geometry;
    return pool->base + (which == SSM_REGISTRY_IDS_SLOTS   ? g->slots_start
                         : which == SSM_REGISTRY_IDS_RINGS ? g->ring_ids_start
                                                           : g->rmids_start);
}

static int lay_out(struct ssm_pool *pool, enum ssm_registry_ids which, struct ssm_hosted *hosted)
{
    const struct ssm_service_options options = ssm_layout_registry_ids(&pool->geometry, which);
    return ssm_hosted_init(hosted, &options, memory_of(pool, which));
}

int ssm_registry_ids_init(struct ssm_pool *pool)
{
    struct ssm_hosted hosted;
    int result = AL_OK;
    for (int which = 0; result == AL_OK && which < SSM_REGISTRY_IDS_KINDS; which++)
        result = lay_out(pool, (enum ssm_registry_ids)which, &hosted);
    return result == AL_OK ? 0 : -SSM_E_CORRUPT;
}

/* The last owner of the registry may have died in the middle of an operation. False if the memory contains no such
 * allocator. */
static bool open_numbers(struct ssm_pool *pool, enum ssm_registry_ids which, struct ssm_hosted *hosted)
{
    const struct ssm_service_options options = ssm_layout_registry_ids(&pool->geometry, which);
    return ssm_hosted_attach(hosted, &options, memory_of(pool, which)) == AL_OK && ssm_hosted_recover(hosted) == AL_OK;
}

static bool has_all(const struct ssm_hosted *hosted, const struct ssm_holder_set *set)
{
    for (uint32_t w = 0; w < SSM_HOLDER_WORDS; w++)
        for (uint64_t bits = set->words[w]; bits != 0; bits &= bits - 1)
            if (!ssm_hosted_has_number(hosted, w * 64 + (uint32_t)__builtin_ctzll(bits)))
                return false;
    return true;
}

/* Takes every number. A death before the unused ones are freed leaves leftovers. */
static void rebuild(struct ssm_pool *pool, enum ssm_registry_ids which, struct ssm_hosted *hosted)
{
    const struct ssm_service_options options = ssm_layout_registry_ids(&pool->geometry, which);
    uint64_t left = lay_out(pool, which, hosted) == AL_OK ? ssm_hosted_capacity(&options) : 0;
    for (uint32_t number; left > 0; left--)
        if (ssm_hosted_peek_number(hosted, 0, &number) != AL_OK || ssm_hosted_commit_number(hosted, number) != AL_OK)
            break;
}

void ssm_registry_ids_settle(struct ssm_pool *pool, enum ssm_registry_ids which)
{
    const struct ssm_holder_set named = all_named(pool, which);
    const uint32_t limit = limit_of(pool, which);
    struct ssm_hosted hosted;
    if (!open_numbers(pool, which, &hosted) || ssm_hosted_check(&hosted, NULL, NULL) != 0 || !has_all(&hosted, &named))
        rebuild(pool, which, &hosted);
    for (uint32_t number = 0; number < limit; number++) {
        if (ssm_holder_set_has(&named, number) || !ssm_hosted_has_number(&hosted, number))
            continue;
        if (which == SSM_REGISTRY_IDS_SLOTS && ssm_holder_is_alive(pool, number))
            continue; /* its process lives: the kind is damaged */
        (void)ssm_hosted_free_number(&hosted, number, ssm_clock_ns());
    }
    SSM_EXPENSIVE(has_all(&hosted, &named) && ssm_hosted_check(&hosted, NULL, NULL) == 0);
}

void ssm_registry_ids_audit(struct ssm_pool *pool, enum ssm_registry_ids which)
{
    const struct ssm_holder_set named = all_named(pool, which);
    struct ssm_hosted hosted;
    if (!open_numbers(pool, which, &hosted) || ssm_hosted_used(&hosted) != ssm_holder_set_count(&named) ||
        !has_all(&hosted, &named) || (which != SSM_REGISTRY_IDS_RMIDS && ssm_hosted_check(&hosted, NULL, NULL) != 0))
        ssm_registry_ids_settle(pool, which);
}

uint32_t ssm_registry_ids_peek(struct ssm_pool *pool, enum ssm_registry_ids which)
{
    struct ssm_hosted hosted;
    uint32_t number;
    for (bool settled = false;; settled = true) {
        int result = AL_CORRUPT;
        if (open_numbers(pool, which, &hosted))
            result = ssm_hosted_peek_number(&hosted, ssm_clock_ns(), &number);
        if (result == AL_OK && !is_named(pool, which, number))
            return number;
        if (settled || result == AL_RESTING)
            return SSM_NIL;
        ssm_registry_ids_settle(pool, which);
    }
}

/* It fails only if the memory was damaged since the peek. Then the number will be named and free, which is detected. */
void ssm_registry_ids_take(struct ssm_pool *pool, enum ssm_registry_ids which, uint32_t number)
{
    struct ssm_hosted hosted;
    SSM_ASSERT(number < limit_of(pool, which));
    if (open_numbers(pool, which, &hosted))
        (void)ssm_hosted_commit_number(&hosted, number);
}

uint32_t ssm_registry_ids_alloc(struct ssm_pool *pool, enum ssm_registry_ids which)
{
    uint32_t number = ssm_registry_ids_peek(pool, which);
    if (number != SSM_NIL)
        ssm_registry_ids_take(pool, which, number);
    return number;
}

void ssm_registry_ids_free(struct ssm_pool *pool, enum ssm_registry_ids which, uint32_t number)
{
    struct ssm_hosted hosted;
    if (open_numbers(pool, which, &hosted))
        (void)ssm_hosted_free_number(&hosted, number, ssm_clock_ns()); /* if it fails, the number is a leftover */
}

uint64_t ssm_registry_ids_check(struct ssm_pool *pool, enum ssm_registry_ids which, al_report_fn report, void *context)
{
    struct ssm_holder_set named = {0};
    struct ssm_hosted hosted;
    uint32_t number;
    if (!open_numbers(pool, which, &hosted)) {
        report(context, "what stands in their place is no allocator", 0, 0);
        return 1;
    }
    uint64_t broken = ssm_hosted_check(&hosted, report, context);
    for (uint32_t slot = 0; slot < pool->geometry.holders; slot++) {
        if (!reads(pool, slot, which, &number))
            continue;
        bool possible = number < limit_of(pool, which);
        const char *fault = !possible                               ? "a slot names one that cannot be (slot, number)"
                          : ssm_holder_set_has(&named, number)      ? "named by two slots (slot, number)"
                          : !ssm_hosted_has_number(&hosted, number) ? "named by a slot, and yet free (slot, number)"
                                                                    : NULL;
        if (possible)
            ssm_holder_set_add(&named, number);
        if (fault != NULL) {
            report(context, fault, slot, number);
            broken++;
        }
    }
    return broken;
}
