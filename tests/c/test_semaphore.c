/* SPDX-License-Identifier: Apache-2.0
 *
 * Semaphores: the permits and their queue by themselves, in private memory; then calls of several processes. */
#include "permits.h"
#include "pool_fixture.h"
#include "service.h"

#define PERMITS 3
#define BYTES   (sizeof(struct ssm_permits_shared) + SSM_CACHELINE)
#define NOBODY  UINT32_MAX

static struct ssm_permits new_permits(void)
{
    struct ssm_permits permits = {.count = PERMITS};
    permits.shared = aligned_alloc(SSM_CACHELINE, BYTES);
    CHECK(permits.shared != NULL);
    memset(permits.shared, 0, BYTES);
    permits.shared->count = PERMITS;
    return permits;
}

static uint64_t broken(const struct ssm_permits *permits)
{
    return ssm_permits_check(permits, NULL, NULL);
}

static void end_permits(struct ssm_permits *permits)
{
    CHECK_EQ(broken(permits), 0);
    free(permits->shared);
}

static uint32_t take(struct ssm_permits *permits, uint32_t owner, uint32_t from)
{
    CHECK_EQ(ssm_permits_take(permits, owner, &from), AL_OK);
    return from;
}

/* Who has what is granted to nobody: the first of them from there on. */
static uint32_t next_owner(const struct ssm_permits *permits, uint64_t from)
{
    uint32_t permit, owner;
    return ssm_permits_next(permits, from, &permit, &owner) ? owner : NOBODY;
}

static void test_take_and_give(void)
{
    struct ssm_permits permits = new_permits();
    uint32_t from = 0;
    CHECK_EQ(take(&permits, 7, 2), 2);
    CHECK_EQ(take(&permits, 7, 2), 0); /* round, from there on */
    CHECK_EQ(take(&permits, 8, 0), 1);
    CHECK_EQ(ssm_permits_take(&permits, 8, &from), AL_NOT_AVAILABLE);
    CHECK_EQ(ssm_permits_held(&permits, 7), 2);
    CHECK_EQ(ssm_permits_held(&permits, 8), 1);
    CHECK_EQ(next_owner(&permits, 0), 7);
    CHECK_EQ(next_owner(&permits, 1), 8);
    CHECK_EQ(next_owner(&permits, 3), NOBODY);
    CHECK_EQ(ssm_permits_give(&permits, 8, 2, 0), AL_ALREADY_RELEASED); /* all or none */
    CHECK_EQ(ssm_permits_held(&permits, 8), 1);
    CHECK_EQ(ssm_permits_give(&permits, 7, 2, 0), AL_OK);
    CHECK_EQ(ssm_permits_give(&permits, 7, 1, 0), AL_ALREADY_RELEASED);
    CHECK_EQ(next_owner(&permits, 0), 8);
    CHECK_EQ(ssm_permits_give(&permits, 8, 1, 1), AL_OK);
    CHECK_EQ(next_owner(&permits, 0), NOBODY);
    CHECK_EQ(ssm_load_relaxed_u64(&permits.shared->used), 0);
    end_permits(&permits);
}

static uint64_t grant(struct ssm_permits *permits, bool crowd_wanted)
{
    bool crowd = !crowd_wanted;
    uint64_t places = ssm_permits_grant(permits, &crowd);
    CHECK_EQ(crowd, crowd_wanted);
    return places;
}

/* Places 0, 1, ... by owners 20, 21, ...; their tickets are 1, 2, ... */
static void join(struct ssm_permits *permits, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint64_t ticket = 0;
        CHECK_EQ(ssm_permits_join(permits, 20 + i, &ticket), i);
        CHECK_EQ(ticket, i + 1);
        CHECK(ssm_permits_has_place(permits, i, 20 + i, ticket));
        CHECK(!ssm_permits_has_place(permits, i, 20 + i, ticket + 1) && !ssm_permits_has_place(permits, i, 19, ticket));
        CHECK(!ssm_permits_collect(permits, i));
    }
}

static void test_first_come_first_served(void)
{
    struct ssm_permits permits = new_permits();
    uint64_t ticket = 1;
    for (uint32_t i = 0; i < PERMITS; i++)
        take(&permits, 7, 0);
    join(&permits, 3);
    CHECK_EQ(grant(&permits, false), 0);
    ssm_permits_leave(&permits, 0);
    CHECK_EQ(ssm_permits_give(&permits, 7, 1, 0), AL_OK);
    CHECK_EQ(broken(&permits), 1);                        /* I16: one is free, and two wait */
    CHECK_EQ(ssm_permits_join(&permits, 20, &ticket), 0); /* it comes again, with its ticket: in front of both */
    CHECK_EQ(ticket, 1);
    CHECK_EQ(grant(&permits, false), 1);
    CHECK_EQ(broken(&permits), 0);
    CHECK_EQ(ssm_permits_held(&permits, 20), 0); /* granted, not collected */
    CHECK_EQ(ssm_permits_give(&permits, 20, 1, 0), AL_ALREADY_RELEASED);
    CHECK(ssm_permits_collect(&permits, 0));
    CHECK(!ssm_permits_collect(&permits, 0));
    CHECK_EQ(ssm_permits_held(&permits, 20), 1);
    CHECK_EQ(ssm_permits_give(&permits, 7, 2, 0), AL_OK);
    CHECK_EQ(grant(&permits, false), 6);
    ssm_permits_leave(&permits, 1); /* with what was granted to it, which is free then */
    CHECK_EQ(ssm_load_relaxed_u64(&permits.shared->used), 2);
    CHECK(ssm_permits_collect(&permits, 2));
    CHECK_EQ(grant(&permits, false), 0);
    CHECK_EQ(ssm_permits_held(&permits, 22), 1);
    end_permits(&permits);
}

static void test_all_places_taken(void)
{
    struct ssm_permits permits = new_permits();
    uint64_t ticket = 0;
    for (uint32_t i = 0; i < PERMITS; i++)
        take(&permits, 7, 0);
    join(&permits, SSM_WAITERS_MAX);
    CHECK_EQ(ssm_permits_join(&permits, 99, &ticket), SSM_NO_PLACE);
    CHECK_EQ(ticket, SSM_WAITERS_MAX + 1);
    ssm_store_release_u32(&permits.shared->waiters[5].gone, 1);
    CHECK_EQ(grant(&permits, true), 0); /* the place of a call that gave up, for one of the crowd */
    CHECK_EQ(grant(&permits, false), 0);
    CHECK_EQ(ssm_permits_join(&permits, 99, &ticket), 5);
    ssm_store_release_u32(&permits.shared->waiters[0].gone, 1);
    CHECK_EQ(ssm_permits_give(&permits, 7, 3, 0), AL_OK);
    CHECK_EQ(grant(&permits, true), 14); /* not to one that is gone */
    end_permits(&permits);
}

static void test_gone_with_a_permit(void)
{
    struct ssm_permits permits = new_permits();
    for (uint32_t i = 0; i < PERMITS; i++)
        take(&permits, 7, 0);
    join(&permits, 2);
    CHECK_EQ(ssm_permits_give(&permits, 7, 1, 0), AL_OK);
    CHECK_EQ(grant(&permits, false), 1);
    ssm_store_release_u32(&permits.shared->waiters[0].gone, 1);
    CHECK_EQ(grant(&permits, true), 2); /* what was granted to it goes to the next one */
    CHECK(ssm_permits_collect(&permits, 1));
    end_permits(&permits);
}

/* What a dead process had, collected or not, and its place. */
static void test_forget(void)
{
    struct ssm_permits permits = new_permits();
    struct ssm_holder_set dead = {0};
    ssm_holder_set_add(&dead, 7);
    ssm_holder_set_add(&dead, 20);
    take(&permits, ssm_owner_of(3, 7), 0);
    take(&permits, 8, 0);
    take(&permits, ssm_owner_of(4, 7), 0);
    join(&permits, 2);
    ssm_permits_forget(&permits, &dead);
    CHECK(!ssm_permits_has_place(&permits, 0, 20, 1));
    CHECK(ssm_permits_collect(&permits, 1));
    CHECK_EQ(ssm_permits_held(&permits, 8), 1);
    CHECK_EQ(ssm_load_relaxed_u64(&permits.shared->used), 2);
    end_permits(&permits);
}

/* After a death between any two stores, and after worse. */
static void test_recover(void)
{
    struct ssm_permits permits = new_permits();
    take(&permits, 7, 0);
    take(&permits, 7, 0);
    take(&permits, 7, 0);
    join(&permits, 1);
    ssm_store_release_u64(&permits.shared->words[1], 0); /* a release that died before it counted, and granted */
    CHECK_EQ(broken(&permits), 2);
    ssm_permits_recover(&permits);
    CHECK_EQ(broken(&permits), 0);
    CHECK(ssm_permits_collect(&permits, 0));
    ssm_store_release_u64(&permits.shared->words[0], 1); /* what is no permit's word */
    CHECK_EQ(broken(&permits), 1);
    ssm_store_release_u64(&permits.shared->words[0], SSM_PERMIT_TAKEN | UINT64_C(65) << 32 | 7);
    CHECK_EQ(broken(&permits), 1);
    ssm_store_release_u64(&permits.shared->words[0], SSM_PERMIT_TAKEN | UINT64_C(64) << 32 | 7);
    CHECK_EQ(broken(&permits), 1); /* granted to a place where nobody waits */
    ssm_store_release_u64(&permits.shared->words[0], SSM_PERMIT_TAKEN | 7);
    end_permits(&permits);
}

/* ---- several processes -------------------------------------------------------------------------------------- */

static struct ssm_service *open_semaphore(struct ssm_pool *pool, uint64_t permits)
{
    const struct ssm_service_options options = {.kind = SSM_SERVICE_SEMAPHORE, .first = permits};
    struct ssm_service *service;
    CHECK_EQ(ssm_service_open(pool, "semaphore", &options, &service), 0);
    return service;
}

static void wait_for_one(void *context)
{
    struct fixture *f = context;
    struct ssm_service *service = open_semaphore(fixture_join(f), 1);
    CHECK_EQ(ssm_semaphore_acquire(service, SSM_FOREVER, NULL), 0);
    CHECK_EQ(ssm_add_acqrel_u32(&f->board->step[0], 1), *(const uint32_t *)f->more);
    CHECK_EQ(ssm_semaphore_held(service), 1);
    CHECK_EQ(ssm_semaphore_release(service, 1), 0);
    ssm_service_close(service);
}

static void test_calls(void)
{
    struct ssm_pool_options options = fixture_options();
    struct fixture f = fixture_open(&options);
    struct ssm_service *service = open_semaphore(f.pool, 2);
    uint64_t ticket = 0, since_ns = ssm_now_ns();
    CHECK_EQ(ssm_semaphore_acquire(service, 0, &ticket), 0);
    CHECK_EQ(ticket, 0); /* it did not have to wait */
    CHECK_EQ(ssm_semaphore_acquire(service, 0, NULL), 0);
    CHECK_EQ(ssm_semaphore_acquire(service, 0, NULL), -SSM_E_UNAVAILABLE);
    CHECK_EQ(ssm_semaphore_acquire(service, 30 * MS, &ticket), -SSM_E_UNAVAILABLE);
    CHECK(ssm_now_ns() - since_ns >= 30 * MS && ssm_now_ns() - since_ns < 10000 * MS);
    CHECK_EQ(ticket, 1);
    CHECK_EQ(ssm_semaphore_acquire(service, 1 * MS, &ticket), -SSM_E_UNAVAILABLE);
    CHECK_EQ(ticket, 1);
    CHECK_EQ(ssm_semaphore_held(service), 2);
    CHECK_EQ(ssm_semaphore_release(service, 0), -EINVAL);
    CHECK_EQ(ssm_semaphore_release(service, 3), -SSM_E_RELEASED);
    CHECK_EQ(ssm_semaphore_release(service, 2), 0);
    CHECK_EQ(ssm_semaphore_release(service, 1), -SSM_E_RELEASED);
    CHECK_EQ(ssm_semaphore_held(service), 0);
    ssm_service_close(service);
    fixture_close(&f);
}

static void test_other_kinds(void)
{
    struct ssm_pool_options options = fixture_options();
    struct fixture f = fixture_open(&options);
    const struct ssm_service_options ids = {.kind = SSM_SERVICE_IDS, .first = 1, .last = 9};
    struct ssm_service *service;
    CHECK_EQ(ssm_service_open(f.pool, "ids", &ids, &service), 0);
    CHECK_EQ(ssm_semaphore_acquire(service, 0, NULL), -EINVAL);
    CHECK_EQ(ssm_semaphore_release(service, 1), -EINVAL);
    CHECK_EQ(ssm_semaphore_held(service), -EINVAL);
    ssm_service_close(service);
    fixture_close(&f);
}

/* In the order in which they came, each woken by the one before; nobody looks by itself for longer than that takes. */
static void test_woken_in_order(void)
{
    enum { WAITERS = 3 };
    struct ssm_pool_options options = fixture_options();
    struct fixture f = fixture_open(&options);
    struct ssm_service *service = open_semaphore(f.pool, 1);
    struct ssm_permits_shared *shared = service->hosted.permits.shared;
    pid_t children[WAITERS];
    f.pool->recheck_ns = 60000 * MS;
    CHECK_EQ(ssm_semaphore_acquire(service, 0, NULL), 0);
    for (uint32_t i = 0; i < WAITERS; i++) {
        f.more = &i;
        children[i] = child_start(wait_for_one, &f);
        AWAIT(ssm_load_acquire_u64(&shared->waiters[i].ticket) != 0);
    }
    CHECK_EQ(ssm_semaphore_release(service, 1), 0);
    for (uint32_t i = 0; i < WAITERS; i++)
        child_finish(children[i]);
    CHECK_EQ(board_get(f.board, 0), WAITERS);
    CHECK_EQ(ssm_semaphore_acquire(service, 0, NULL), 0);
    CHECK_EQ(ssm_semaphore_release(service, 1), 0);
    ssm_service_close(service);
    fixture_close(&f);
}

static void take_one_and_die(void *context)
{
    struct fixture *f = context;
    CHECK_EQ(ssm_semaphore_acquire(open_semaphore(fixture_join(f), 1), 0, NULL), 0);
    die_here();
}

static void test_of_the_dead(void)
{
    struct ssm_pool_options options = fixture_options();
    struct fixture f = fixture_open(&options);
    struct ssm_service *service = open_semaphore(f.pool, 1);
    for (int64_t timeout_ns = 0; timeout_ns <= 1000 * (int64_t)MS; timeout_ns += 1000 * (int64_t)MS) {
        child_died(child_start(take_one_and_die, &f));
        CHECK_EQ(ssm_semaphore_acquire(service, timeout_ns, NULL), 0);
        CHECK_EQ(ssm_semaphore_release(service, 1), 0);
    }
    ssm_service_close(service);
    fixture_close(&f);
}

int main(void)
{
    alarm(280);
    test_take_and_give();
    test_first_come_first_served();
    test_all_places_taken();
    test_gone_with_a_permit();
    test_forget();
    test_recover();
    test_calls();
    test_other_kinds();
    test_woken_in_order();
    test_of_the_dead();
    return 0;
}
