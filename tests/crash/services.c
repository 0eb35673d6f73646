/* SPDX-License-Identifier: Apache-2.0
 *
 * Operations of services, and their states; see scenarios.h. The peer has some values, which it keeps. */
#include "scenarios.h"

#include "service.h"

#include <stddef.h>

#define PAGE    UINT64_C(16)
#define LAST    UINT64_C(1023)
#define THEN    UINT64_C(10) /* when all was prepared; RMIDs rest for REST_NS */
#define NOW     UINT64_C(1000000)
#define REST_NS 1000
#define IDS     70 /* more than a word of bits */
#define PERMITS 4
#define A_WHILE INT64_C(5000000) /* ns */

static struct ssm_service *mine(const struct world *world)
{
    return world->services[VICTIM];
}

static void host(struct world *world, uint32_t kind, uint32_t flags)
{
    const struct ssm_service_options options[] = {
        [SSM_SERVICE_IDS] = {.kind = kind, .flags = flags, .first = 1, .last = IDS},
        [SSM_SERVICE_PIDS] = {.kind = kind, .flags = flags, .first = 1},
        [SSM_SERVICE_RMIDS] = {.kind = kind, .flags = flags, .first = 8, .last = REST_NS},
        [SSM_SERVICE_ADDRESSES] = {.kind = kind, .flags = flags, .first = 0, .last = LAST, .ranges = 64},
        [SSM_SERVICE_SEMAPHORE] = {.kind = kind, .flags = flags, .first = PERMITS},
    };
    world_host(world, &options[kind]);
}

static uint32_t take(struct world *world, enum actor actor, uint32_t count)
{
    uint32_t number = 0;
    while (count-- > 0)
        (void)ssm_number_alloc(world->services[actor], THEN, &number);
    return number;
}

static uint64_t take_range(struct world *world, enum actor actor, uint64_t size)
{
    const struct ssm_range_request request = {.size = size, .align = PAGE, .max = LAST};
    uint64_t start = 0;
    (void)ssm_range_alloc(world->services[actor], &request, &start);
    return start;
}

static void give(struct world *world, uint64_t start, uint64_t size)
{
    (void)ssm_range_free(world->services[PEER], start, start + size - 1);
}

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

static void alloc(struct world *world)
{
    uint32_t number;
    world_returned(world, ssm_number_alloc(mine(world), NOW, &number));
}

static void free_it(struct world *world)
{
    world_returned(world, ssm_number_free(mine(world), (uint32_t)world->value, NOW));
}

static void some_taken(struct world *world, uint32_t kind, uint32_t flags)
{
    host(world, kind, flags);
    take(world, PEER, 2);
    world->value = take(world, VICTIM, 1);
    take(world, PEER, 1);
}

/* clang-format off */
static void ids(struct world *world) { some_taken(world, SSM_SERVICE_IDS, 0); }
static void ids_reclaimed(struct world *world) { some_taken(world, SSM_SERVICE_IDS, SSM_RECLAIM); }
static void pids(struct world *world) { some_taken(world, SSM_SERVICE_PIDS, 0); }
static void pids_reclaimed(struct world *world) { some_taken(world, SSM_SERVICE_PIDS, SSM_RECLAIM); }
static void rmids(struct world *world) { some_taken(world, SSM_SERVICE_RMIDS, 0); }
static void rmids_reclaimed(struct world *world) { some_taken(world, SSM_SERVICE_RMIDS, SSM_RECLAIM); }
/* clang-format on */

/* The next one fills a word of the bitmap. */
static void ids_word_nearly_full(struct world *world)
{
    host(world, SSM_SERVICE_IDS, 0);
    take(world, PEER, 62);
    world->value = take(world, VICTIM, 1);
}

static void ids_all_taken(struct world *world)
{
    host(world, SSM_SERVICE_IDS, 0);
    take(world, PEER, IDS - 1);
    world->value = take(world, VICTIM, 1);
}

static void pids_all_taken(struct world *world)
{
    host(world, SSM_SERVICE_PIDS, 0);
    take(world, PEER, 63);
    world->value = take(world, VICTIM, 1);
}

static void rmids_all_resting(struct world *world)
{
    host(world, SSM_SERVICE_RMIDS, 0);
    take(world, PEER, 7);
    (void)ssm_number_free(world->services[PEER], take(world, PEER, 1), NOW);
}

static void ids_free_already(struct world *world)
{
    ids(world);
    (void)ssm_number_free(mine(world), (uint32_t)world->value, THEN);
}

/* ---- ranges ------------------------------------------------------------------------------------------------------ */

static void alloc_range(struct world *world)
{
    const struct ssm_range_request request = {.size = 2 * PAGE, .align = PAGE, .max = LAST};
    uint64_t start;
    world_returned(world, ssm_range_alloc(mine(world), &request, &start));
}

static void alloc_in_the_middle(struct world *world)
{
    const struct ssm_range_request request = {
        .size = 2 * PAGE,
        .align = PAGE,
        .max = LAST,
        .exact = 32 * PAGE,
        .policy = SSM_RANGE_EXACT,
    };
    uint64_t start;
    world_returned(world, ssm_range_alloc(mine(world), &request, &start));
}

static void free_range(struct world *world)
{
    world_returned(world, ssm_range_free(mine(world), world->value, world->value + 2 * PAGE - 1));
}

/* Between two of the peer's. */
static void between(struct world *world, uint32_t flags)
{
    host(world, SSM_SERVICE_ADDRESSES, flags);
    take_range(world, PEER, PAGE);
    world->value = take_range(world, VICTIM, 2 * PAGE);
    take_range(world, PEER, PAGE);
}

static void ranges(struct world *world)
{
    between(world, 0);
}
static void ranges_reclaimed(struct world *world)
{
    between(world, SSM_RECLAIM);
}

/* A gap of the size that is asked for. */
static void gap(struct world *world)
{
    between(world, 0);
    uint64_t start = take_range(world, PEER, 2 * PAGE);
    take_range(world, PEER, PAGE);
    give(world, start, 2 * PAGE);
}

/* What is freed joins what is free on both sides. */
static void free_on_both_sides(struct world *world)
{
    host(world, SSM_SERVICE_ADDRESSES, 0);
    take_range(world, PEER, PAGE);
    uint64_t before = take_range(world, PEER, PAGE);
    world->value = take_range(world, VICTIM, 2 * PAGE);
    uint64_t after = take_range(world, PEER, PAGE);
    take_range(world, PEER, PAGE);
    give(world, before, PAGE);
    give(world, after, PAGE);
}

/* A tree of some depth, that has to be balanced anew. */
static void many_ranges(struct world *world)
{
    host(world, SSM_SERVICE_ADDRESSES, 0);
    for (int i = 0; i < 11; i++)
        take_range(world, PEER, PAGE);
    world->value = take_range(world, VICTIM, 2 * PAGE);
    for (int i = 0; i < 12; i++)
        take_range(world, PEER, PAGE);
    for (uint64_t i = 0; i < 10; i += 2)
        give(world, i * PAGE, PAGE);
}

#define HOLES UINT64_C(40) /* so many that a search through them all is worth learning from */

static struct ssm_range_request by_two_pages(void)
{
    return (struct ssm_range_request){.size = 2 * PAGE, .align = 2 * PAGE, .max = 4 * PAGE * (HOLES + 1) - 1};
}

/* Holes of two pages, none of which begins at a multiple of two: the first search for such looks at them all. */
static void misaligned_holes(struct world *world)
{
    const struct ssm_range_request all = by_two_pages();
    const struct ssm_service_options options = {
        .kind = SSM_SERVICE_ADDRESSES, .last = all.max, .ranges = HOLES + HOLES / 2};
    world_host(world, &options);
    for (uint64_t i = 0; i <= HOLES; i++) {
        const uint64_t start = i == 0 ? 0 : (4 * i - 1) * PAGE, size = i == 0 ? PAGE : 2 * PAGE;
        const struct ssm_range_request exact = {
            .size = size,
            .align = PAGE,
            .max = all.max,
            .exact = start,
            .policy = SSM_RANGE_EXACT,
        };
        uint64_t unused;
        (void)ssm_range_alloc(world->services[PEER], &exact, &unused);
    }
}

/* And whether the alignment is a tracked one now. */
static void learn(struct world *world)
{
    const struct al_tree *tree = &mine(world)->hosted.addresses;
    const struct ssm_range_request request = by_two_pages();
    uint64_t start;
    world_returned(world, ssm_range_alloc(mine(world), &request, &start));
    world_returned(world, 1 << tree->head->tracks.shift[1] == 2 * PAGE);
}

static void learnt(struct world *world)
{
    const struct ssm_range_request request = by_two_pages();
    misaligned_holes(world);
    (void)ssm_range_alloc(world->services[VICTIM], &request, &world->value);
}

static void crowded(struct world *world)
{
    const struct ssm_service_options options = {.kind = SSM_SERVICE_ADDRESSES, .last = LAST, .ranges = 2};
    world_host(world, &options);
    take_range(world, PEER, PAGE);
    world->value = take_range(world, VICTIM, 2 * PAGE);
    take_range(world, PEER, PAGE);
    take_range(world, PEER, PAGE); /* a node for each, one for what is free: there is none for the rest of it */
}

/* ---- behind the dead --------------------------------------------------------------------------------------------- */

/* It had the lock, and two values. */
static void died_in(struct world *world)
{
    struct ssm_service_shared *shared = ssm_service_at(world->pools[DEAD], 0);
    ssm_store_relaxed_u64(&shared->lock.word, world->pools[DEAD]->lock_word);
    world->somebody_died = true;
}

static void ids_of_the_dead(struct world *world)
{
    ids_reclaimed(world);
    take(world, DEAD, 2);
    died_in(world);
}

static void pids_of_the_dead(struct world *world)
{
    pids_reclaimed(world);
    take(world, DEAD, 2);
    died_in(world);
}

static void rmids_of_the_dead(struct world *world)
{
    rmids_reclaimed(world);
    take(world, DEAD, 2);
    died_in(world);
}

static void ranges_of_the_dead(struct world *world)
{
    ranges_reclaimed(world);
    take_range(world, DEAD, 2 * PAGE);
    take_range(world, PEER, PAGE);
    take_range(world, DEAD, PAGE);
    died_in(world);
}

static void reap(struct world *world)
{
    struct ssm_reaped reaped;
    world_returned(world, ssm_reap(world->pools[VICTIM], &reaped));
}

static void close_pool(struct world *world)
{
    world_returned(world, ssm_pool_close(world->pools[VICTIM]));
}

/* ---- semaphores -------------------------------------------------------------------------------------------------- */

static void permits(struct world *world, uint32_t of_the_victim, uint32_t of_the_peer, uint32_t of_the_dead)
{
    const uint32_t counts[ACTORS] = {[VICTIM] = of_the_victim, [PEER] = of_the_peer, [DEAD] = of_the_dead};
    host(world, SSM_SERVICE_SEMAPHORE, SSM_RECLAIM);
    for (int actor = 0; actor < ACTORS; actor++)
        for (uint32_t i = 0; i < counts[actor]; i++)
            (void)ssm_semaphore_acquire(world->services[actor], 0, NULL);
    world->wants[PEER] = of_the_peer;
    world->somebody_died = of_the_dead > 0;
}

/* A call that waits, and sleeps all the time. */
static void wait_in_line(struct world *world, enum actor actor)
{
    uint64_t ticket = 0;
    if (actor == PEER)
        world->wants[PEER]++;
    (void)ssm_permits_join(&world->services[actor]->hosted.permits, ssm_owner_self(world->pools[actor]), &ticket);
}

/* clang-format off */
static void some_free(struct world *world) { permits(world, 1, 1, 0); }
static void none_free(struct world *world) { permits(world, 1, 3, 0); }
static void dead_has_all(struct world *world) { permits(world, 0, 0, PERMITS); }
/* clang-format on */

static void peer_waits(struct world *world)
{
    none_free(world);
    wait_in_line(world, PEER);
}

static void two_wait(struct world *world)
{
    permits(world, 2, 2, 0);
    wait_in_line(world, PEER);
    wait_in_line(world, PEER);
}

static void dead_waits(struct world *world)
{
    permits(world, 1, 2, 1);
    wait_in_line(world, DEAD);
    wait_in_line(world, PEER);
}

/* It had freed its permit, and not granted it. */
static void dead_in_release(struct world *world)
{
    permits(world, 1, 2, 1);
    wait_in_line(world, PEER);
    struct ssm_permits *of = &world->services[DEAD]->hosted.permits;
    (void)ssm_permits_give(of, ssm_owner_self(world->pools[DEAD]), 1, 0);
    died_in(world);
}

/* clang-format off */
static void acquire(struct world *world) { world_returned(world, ssm_semaphore_acquire(mine(world), 0, NULL)); }
static void acquire_or_wait(struct world *world) { world_returned(world, ssm_semaphore_acquire(mine(world), A_WHILE, NULL)); }
static void release(struct world *world) { world_returned(world, ssm_semaphore_release(mine(world), 1)); }
static void release_2(struct world *world) { world_returned(world, ssm_semaphore_release(mine(world), 2)); }
/* clang-format on */

static void with_permit(struct world *world)
{
    acquire(world);
    release(world);
}

/* ---- the service as a whole -------------------------------------------------------------------------------------- */

static void open_as(struct world *world, const char *name)
{
    struct ssm_service *service;
    world_returned(world, ssm_service_open(world->pools[VICTIM], name, &world->service, &service));
}

static void open_new(struct world *world)
{
    open_as(world, "new");
}
static void open_known(struct world *world)
{
    open_as(world, "service");
}

static void look(struct world *world)
{
    struct ssm_service_item items[ITEMS];
    struct ssm_service_owner owner;
    struct ssm_service_stats stats;
    int64_t count = ssm_service_list(mine(world), 0, UINT64_MAX, items, ITEMS);
    world_returned(world, count > 0 ? 0 : -1);
    world_returned(world, ssm_service_owner(mine(world), items[0].owner, &owner));
    world_returned(world, ssm_service_stats(world->pools[VICTIM], 0, &stats));
    world_returned(world, ssm_check(world->pools[VICTIM], NULL, NULL));
}

static void look_at_numbers(struct world *world)
{
    look(world);
    world_returned(world, ssm_number_is_allocated(mine(world), (uint32_t)world->value));
}

const struct scenario service_scenarios[] = {
    {"ids: alloc", ids, alloc, .results = {0}},
    {"ids: alloc, a word fills up", ids_word_nearly_full, alloc, .results = {0}},
    {"ids: alloc, none left", ids_all_taken, alloc, .results = {-SSM_E_UNAVAILABLE}},
    {"ids: free", ids, free_it, .results = {0}},
    {"ids: free, all were taken", ids_all_taken, free_it, .results = {0}},
    {"ids: free, it is free already", ids_free_already, free_it, .results = {-SSM_E_RELEASED}},
    {"ids, reclaimed: alloc", ids_reclaimed, alloc, .results = {0}},
    {"ids, reclaimed: free", ids_reclaimed, free_it, .results = {0}},
    {"pids: alloc", pids, alloc, .results = {0}},
    {"pids: alloc, none left", pids_all_taken, alloc, .results = {-SSM_E_UNAVAILABLE}},
    {"pids: free", pids, free_it, .results = {0}},
    {"pids: free, all were taken", pids_all_taken, free_it, .results = {0}},
    {"pids, reclaimed: alloc", pids_reclaimed, alloc, .results = {0}},
    {"pids, reclaimed: free", pids_reclaimed, free_it, .results = {0}},
    {"rmids: alloc", rmids, alloc, .results = {0}},
    {"rmids: alloc, the free one rests", rmids_all_resting, alloc, .results = {-SSM_E_RESTING}},
    {"rmids: free", rmids, free_it, .results = {0}},
    {"rmids, reclaimed: alloc", rmids_reclaimed, alloc, .results = {0}},
    {"rmids, reclaimed: free", rmids_reclaimed, free_it, .results = {0}},
    {"addresses: alloc, the front of a range", ranges, alloc_range, .results = {0}},
    {"addresses: alloc, the middle of one", ranges, alloc_in_the_middle, .results = {0}},
    {"addresses: alloc, all of one", gap, alloc_range, .results = {0}},
    {"addresses: alloc, among many", many_ranges, alloc_range, .results = {0}},
    {"addresses: alloc, an alignment is learnt", misaligned_holes, learn, .results = {0, 1}},
    {"addresses: free, an alignment was learnt", learnt, free_range, .results = {0}},
    {"addresses: alloc, crowded", crowded, alloc_range, .results = {-SSM_E_CROWDED}},
    {"addresses: free, between two taken", ranges, free_range, .results = {0}},
    {"addresses: free, between two free", free_on_both_sides, free_range, .results = {0}},
    {"addresses: free, among many", many_ranges, free_range, .results = {0}},
    {"addresses, reclaimed: alloc", ranges_reclaimed, alloc_range, .results = {0}},
    {"addresses, reclaimed: free", ranges_reclaimed, free_range, .results = {0}},
    {"service_open: new ids", ids, open_new, .results = {0}},
    {"service_open: new addresses", ranges, open_new, .results = {0}},
    {"service_open: new rmids", rmids, open_new, .results = {0}},
    {"service_open: known", pids, open_known, .results = {0}},
    {"ids: list, owner, stats, check", ids, look_at_numbers, .results = {0, 0, 0, 0, 1}},
    {"addresses: list, owner, stats, check", many_ranges, look, .results = {0, 0, 0, 0}},
    {"ids: alloc, a dead process's lock", ids_of_the_dead, alloc, .results = {0}},
    {"addresses: free, a dead process's lock", ranges_of_the_dead, free_range, .results = {0}},
    {"reap: ids of a dead process", ids_of_the_dead, reap, .results = {0}},
    {"reap: pids of a dead process", pids_of_the_dead, reap, .results = {0}},
    {"reap: rmids of a dead process", rmids_of_the_dead, reap, .results = {0}},
    {"reap: ranges of a dead process", ranges_of_the_dead, reap, .results = {0}},
    {"semaphore: acquire, one is free", some_free, acquire, .results = {0}},
    {"semaphore: acquire, none is free", none_free, acquire, .results = {-SSM_E_UNAVAILABLE}},
    {"semaphore: acquire, waits in vain", none_free, acquire_or_wait, .results = {-SSM_E_UNAVAILABLE}},
    {"semaphore: acquire, behind one that waits", peer_waits, acquire_or_wait, .results = {-SSM_E_UNAVAILABLE}},
    {"semaphore: acquire, a dead process had all", dead_has_all, acquire, .results = {0}},
    {"semaphore: acquire, a dead process's lock", dead_in_release, acquire, .results = {-SSM_E_UNAVAILABLE}},
    {"semaphore: acquire and release", some_free, with_permit, .results = {0, 0}},
    {"semaphore: release", none_free, release, .results = {0}},
    {"semaphore: release, it has not as many", some_free, release_2, .results = {-SSM_E_RELEASED}},
    {"semaphore: release, one waits", peer_waits, release, .results = {0}},
    {"semaphore: release of two, two wait", two_wait, release_2, .results = {0}},
    {"semaphore: release, a dead process waits", dead_waits, release, .results = {0}},
    {"semaphore: release, a dead process's lock", dead_in_release, release, .results = {0}},
    {"semaphore: release, a survivor sleeps", none_free, release, .results = {0}, .blocked = ON_PERMIT},
    {"semaphore: open a new one", some_free, open_new, .results = {0}},
    {"semaphore: list, owner, stats, check", some_free, look, .results = {0, 0, 0, 0}},
    {"semaphore: reap what a dead process had", dead_waits, reap, .results = {0}},
    {"semaphore: close, one waits", peer_waits, close_pool, .results = {0}},
    {"close: ids go back", ids_reclaimed, close_pool, .results = {0}},
    {"close: ranges go back", ranges_reclaimed, close_pool, .results = {0}},
};

const uint32_t service_scenario_count = sizeof service_scenarios / sizeof *service_scenarios;
