/* SPDX-License-Identifier: Apache-2.0
 *
 * Permits, and the queue for them; see permits.h. Relaxed loads read words that only the owner of the lock writes. */
#include "permits.h"

#include "invariant.h"
#include "owner.h"

#define PLACE_SHIFT 32
#define PLACE_MASK  UINT64_C(0xff)

_Static_assert(SSM_WAITERS_MAX < PLACE_MASK && SSM_WAITERS_MAX <= 64, "a word names any place, and so does a bit");

static uint64_t word_of(uint32_t owner, uint32_t place_and_1)
{
    return SSM_PERMIT_TAKEN | (uint64_t)place_and_1 << PLACE_SHIFT | owner;
}

static uint64_t word_at(const struct ssm_permits *permits, uint32_t permit)
{
    return ssm_load_relaxed_u64(&permits->shared->words[permit]);
}

/* The commit of every change. */
static void set_word(struct ssm_permits *permits, uint32_t permit, uint64_t word)
{
    struct ssm_u64 *used = &permits->shared->used;
    SSM_ASSERT(permit < permits->count);
    const bool was = word_at(permits, permit) != 0, is = word != 0;
    ssm_store_release_u64(&permits->shared->words[permit], word);
    ssm_store_release_u64(used, ssm_load_relaxed_u64(used) + is - was);
    SSM_ASSERT_SHARED(ssm_load_relaxed_u64(used) <= permits->count);
}

static uint32_t find_word(const struct ssm_permits *permits, uint64_t word, uint32_t from)
{
    for (uint32_t i = 0; i < permits->count; i++) {
        const uint32_t permit = (uint32_t)((i + (uint64_t)from) % permits->count);
        if (word_at(permits, permit) == word)
            return permit;
    }
    return permits->count;
}

int ssm_permits_take(struct ssm_permits *permits, uint32_t owner, uint32_t *from)
{
    if (ssm_load_relaxed_u64(&permits->shared->used) >= permits->count)
        return AL_NOT_AVAILABLE;
    const uint32_t permit = find_word(permits, 0, *from);
    if (permit == permits->count)
        return AL_NOT_AVAILABLE; /* `used` was scribbled */
    set_word(permits, permit, word_of(owner, 0));
    *from = permit;
    return AL_OK;
}

uint32_t ssm_permits_held(const struct ssm_permits *permits, uint32_t owner)
{
    uint32_t held = 0;
    for (uint32_t i = 0; i < permits->count; i++)
        held += word_at(permits, i) == word_of(owner, 0);
    return held;
}

int ssm_permits_give(struct ssm_permits *permits, uint32_t owner, uint32_t number, uint32_t from)
{
    if (number > 1 && ssm_permits_held(permits, owner) < number)
        return AL_ALREADY_RELEASED;
    for (; number > 0; number--) {
        const uint32_t permit = find_word(permits, word_of(owner, 0), from);
        if (permit == permits->count)
            return AL_ALREADY_RELEASED;
        set_word(permits, permit, 0);
    }
    return AL_OK;
}

/* ---- the queue ---------------------------------------------------------------------------------------------- */

static uint32_t owner_at(const struct ssm_waiter *waiter)
{
    return ssm_load_relaxed_u32(&waiter->owner);
}

/* Returns the permit that is granted to the place, or `count`. */
static uint32_t granted_to(const struct ssm_permits *permits, uint32_t place)
{
    const struct ssm_waiter *waiter = &permits->shared->waiters[place];
    const uint32_t hint = ssm_load_relaxed_u32(&waiter->permit);
    return hint > 0 && hint <= permits->count && word_at(permits, hint - 1) == word_of(owner_at(waiter), place + 1)
             ? hint - 1
             : permits->count;
}

static void free_place(struct ssm_permits *permits, uint32_t place)
{
    SSM_ASSERT(place < SSM_WAITERS_MAX);
    ssm_store_release_u64(&permits->shared->waiters[place].ticket, 0);
}

/* Returns the earliest place without a permit, or SSM_NO_PLACE. */
static uint32_t first_in_line(const struct ssm_permits *permits)
{
    uint64_t earliest = UINT64_MAX;
    uint32_t first = SSM_NO_PLACE;
    for (uint32_t place = 0; place < SSM_WAITERS_MAX; place++) {
        const uint64_t ticket = ssm_load_relaxed_u64(&permits->shared->waiters[place].ticket);
        if (ticket != 0 && ticket < earliest && granted_to(permits, place) == permits->count) {
            earliest = ticket;
            first = place;
        }
    }
    return first;
}

static void grant(struct ssm_permits *permits, uint32_t permit, uint32_t place)
{
    struct ssm_waiter *waiter = &permits->shared->waiters[place];
    SSM_ASSERT(place < SSM_WAITERS_MAX && permit < permits->count);
    SSM_ASSERT_SHARED(ssm_load_relaxed_u64(&waiter->ticket) != 0 && word_at(permits, permit) == 0);
    ssm_store_release_u32(&waiter->permit, permit + 1);
    set_word(permits, permit, word_of(owner_at(waiter), place + 1));
}

/* Frees the places of calls that gave up without the lock. */
static bool sweep(struct ssm_permits *permits)
{
    bool freed = false;
    for (uint32_t place = 0; place < SSM_WAITERS_MAX; place++) {
        struct ssm_waiter *waiter = &permits->shared->waiters[place];
        if (ssm_load_relaxed_u64(&waiter->ticket) != 0 && ssm_load_acquire_u32(&waiter->gone) != 0) {
            ssm_permits_leave(permits, place);
            freed = true;
        }
    }
    return freed;
}

uint64_t ssm_permits_grant(struct ssm_permits *permits, bool *crowd_out)
{
    uint64_t places = 0;
    *crowd_out = sweep(permits);
    for (uint32_t from = 0; ssm_load_relaxed_u64(&permits->shared->used) < permits->count;) {
        const uint32_t place = first_in_line(permits), permit = find_word(permits, 0, from);
        if (place == SSM_NO_PLACE || permit == permits->count)
            break;
        grant(permits, permit, place);
        places |= UINT64_C(1) << place;
        from = permit;
    }
    return places;
}

void ssm_permits_wake(struct ssm_permits *permits, uint64_t places, bool crowd)
{
    for (; places != 0; places &= places - 1)
        ssm_event_wake(&permits->shared->waiters[__builtin_ctzll(places)].event, 1);
    if (crowd)
        ssm_event_wake(&permits->shared->crowd, 1);
}

uint32_t ssm_permits_join(struct ssm_permits *permits, uint32_t owner, uint64_t *ticket)
{
    struct ssm_permits_shared *shared = permits->shared;
    uint32_t place = 0;
    while (place < SSM_WAITERS_MAX && ssm_load_relaxed_u64(&shared->waiters[place].ticket) != 0)
        place++;
    if (*ticket == 0) {
        *ticket = ssm_load_relaxed_u64(&shared->tickets) + 1;
        ssm_store_release_u64(&shared->tickets, *ticket);
    }
    SSM_ASSERT_SHARED(*ticket <= ssm_load_relaxed_u64(&shared->tickets));
    if (place == SSM_NO_PLACE)
        return place;
    struct ssm_waiter *waiter = &shared->waiters[place];
    ssm_store_release_u32(&waiter->owner, owner);
    ssm_store_release_u32(&waiter->permit, 0);
    ssm_store_release_u32(&waiter->gone, 0);
    ssm_store_release_u64(&waiter->ticket, *ticket);
    SSM_ASSERT_SHARED(ssm_permits_has_place(permits, place, owner, *ticket) &&
                      granted_to(permits, place) == permits->count);
    return place;
}

bool ssm_permits_has_place(const struct ssm_permits *permits, uint32_t place, uint32_t owner, uint64_t ticket)
{
    const struct ssm_waiter *waiter = &permits->shared->waiters[place];
    return ssm_load_relaxed_u64(&waiter->ticket) == ticket && owner_at(waiter) == owner;
}

bool ssm_permits_collect(struct ssm_permits *permits, uint32_t place)
{
    const uint32_t permit = granted_to(permits, place);
    if (permit == permits->count)
        return false;
    set_word(permits, permit, word_of(owner_at(&permits->shared->waiters[place]), 0));
    free_place(permits, place);
    SSM_ASSERT_SHARED(granted_to(permits, place) == permits->count);
    return true;
}

void ssm_permits_leave(struct ssm_permits *permits, uint32_t place)
{
    const uint32_t permit = granted_to(permits, place);
    if (permit < permits->count)
        set_word(permits, permit, 0);
    free_place(permits, place);
}

/* ---- repair and check ----------------------------------------------------------------------------------------- */

void ssm_permits_recover(struct ssm_permits *permits)
{
    uint64_t used = 0;
    bool crowd;
    for (uint32_t i = 0; i < permits->count; i++)
        used += word_at(permits, i) != 0;
    ssm_store_release_u64(&permits->shared->used, used);
    const uint64_t places = ssm_permits_grant(permits, &crowd);
    ssm_permits_wake(permits, places, crowd);
}

void ssm_permits_forget(struct ssm_permits *permits, const struct ssm_holder_set *slots)
{
    bool crowd, freed = false;
    for (uint32_t i = 0; i < permits->count; i++)
        if (word_at(permits, i) != 0 && ssm_holder_set_has(slots, ssm_owner_slot((uint32_t)word_at(permits, i))))
            set_word(permits, i, 0);
    for (uint32_t place = 0; place < SSM_WAITERS_MAX; place++) {
        const struct ssm_waiter *waiter = &permits->shared->waiters[place];
        if (ssm_load_relaxed_u64(&waiter->ticket) != 0 && ssm_holder_set_has(slots, ssm_owner_slot(owner_at(waiter)))) {
            free_place(permits, place);
            freed = true;
        }
    }
    const uint64_t places = ssm_permits_grant(permits, &crowd);
    ssm_permits_wake(permits, places, crowd || freed);
}

static bool is_word(uint64_t word)
{
    return word == 0 || ((word & SSM_PERMIT_TAKEN) && (word & ~SSM_PERMIT_TAKEN) >> PLACE_SHIFT <= SSM_WAITERS_MAX);
}

uint64_t ssm_permits_check(const struct ssm_permits *permits, al_report_fn report, void *context)
{
#define BROKEN(what, where, value) (broken++, report != NULL ? report(context, what, where, value) : (void)0)
    uint64_t broken = 0, taken = 0;
    const uint64_t used = ssm_load_relaxed_u64(&permits->shared->used);
    for (uint32_t i = 0; i < permits->count; i++) {
        const uint64_t word = word_at(permits, i), place = word >> PLACE_SHIFT & PLACE_MASK;
        taken += word != 0;
        if (!is_word(word))
            BROKEN("semaphore: what stands in the place of a permit is none", i, word);
        else if (place != 0 && granted_to(permits, (uint32_t)place - 1) != i)
            BROKEN("semaphore: a permit is granted to a call that does not wait", i, place - 1);
    }
    if (taken != used)
        BROKEN("semaphore: the number of permits that are used is not the one that is counted", taken, used);
    if (taken < permits->count && first_in_line(permits) != SSM_NO_PLACE) /* I16 */
        BROKEN("semaphore: a permit is free, and a call waits for one", taken, first_in_line(permits));
    return broken;
#undef BROKEN
}

bool ssm_permits_next(const struct ssm_permits *permits, uint64_t from, uint32_t *permit_out, uint32_t *owner_out)
{
    for (uint64_t i = from; i < permits->count; i++)
        if (word_at(permits, (uint32_t)i) != 0) {
            *permit_out = (uint32_t)i;
            *owner_out = (uint32_t)word_at(permits, (uint32_t)i);
            return true;
        }
    return false;
}
