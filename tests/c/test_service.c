/* SPDX-License-Identifier: Apache-2.0
 *
 * Services: opening, numbers, ranges, owners, reclaiming, garbage in the directory, death at every instruction.
 *
 * For the deaths, the segment is copied to memory of the test's own; processes are played by copies of attachments that
 * point there: a victim that dies in an operation, a nurse that may die while it repairs, a doctor that lives. */
#include "steps.h" /* first: it wants _GNU_SOURCE */

#include "allocators.h"
#include "lock.h"
#include "carver.h"
#include "pool_fixture.h"
#include "service.h"

static const struct ssm_service_options IDS = {.kind = SSM_SERVICE_IDS, .first = 5, .last = 204};
static const struct ssm_service_options PIDS = {.kind = SSM_SERVICE_PIDS, .first = 2};
static const struct ssm_service_options RMIDS = {.kind = SSM_SERVICE_RMIDS, .first = 4, .last = 100};
static const struct ssm_service_options ADDRESSES = {
    .kind = SSM_SERVICE_ADDRESSES, .first = 0x1000, .last = 0x1fff, .ranges = 20};

static struct fixture open_fixture(void)
{
    struct ssm_pool_options options = fixture_options();
    return fixture_open(&options);
}

static struct ssm_service *open_service(struct ssm_pool *pool, const char *name, struct ssm_service_options options,
                                        uint32_t flags)
{
    struct ssm_service *service;
    options.flags = flags;
    CHECK_EQ(ssm_service_open(pool, name, &options, &service), 0);
    return service;
}

static int try_open(struct ssm_pool *pool, const char *name, struct ssm_service_options options)
{
    struct ssm_service *service;
    int result = ssm_service_open(pool, name, &options, &service);
    if (result == 0)
        ssm_service_close(service);
    return result;
}

static uint32_t take(struct ssm_service *service)
{
    uint32_t number;
    CHECK_EQ(ssm_number_alloc(service, ssm_now_ns(), &number), 0);
    return number;
}

static int take_range(struct ssm_service *service, uint64_t size, uint64_t *start_out)
{
    const struct ssm_range_request request = {.size = size, .align = 1, .max = UINT64_MAX, .policy = SSM_RANGE_FIRST};
    return ssm_range_alloc(service, &request, start_out);
}

static uint64_t used(struct ssm_pool *pool, uint32_t service_idx)
{
    struct ssm_service_stats stats;
    CHECK_EQ(ssm_service_stats(pool, service_idx, &stats), 0);
    return stats.used;
}

/* ---- opening ------------------------------------------------------------------------------------------ */

static void test_parameters(void)
{
    struct fixture f = open_fixture();
    CHECK_EQ(try_open(f.pool, "", IDS), -EINVAL);
    CHECK_EQ(try_open(f.pool, "a name of forty-eight bytes is one byte too long", IDS), -EINVAL);
#define WRONG(...) CHECK_EQ(try_open(f.pool, "wrong", (struct ssm_service_options){__VA_ARGS__}), -EINVAL)
    WRONG(.kind = SSM_SERVICE_NONE);
    WRONG(.kind = SSM_SERVICE_KIND_MAX + 1);
    WRONG(.kind = SSM_SERVICE_SEMAPHORE);
    WRONG(.kind = SSM_SERVICE_SEMAPHORE, .first = SSM_PERMITS_MAX + 1);
    WRONG(.kind = SSM_SERVICE_SEMAPHORE, .first = 1, .last = 1);
    WRONG(.kind = SSM_SERVICE_BOARD, .ranges = 8);
    WRONG(.kind = SSM_SERVICE_BOARD, .first = 1, .ranges = 8, .flags = SSM_RECLAIM);
    WRONG(.kind = SSM_SERVICE_BOARD, .first = UINT64_C(1) << 63, .ranges = 8);
    WRONG(.kind = SSM_SERVICE_BOARD, .first = SSM_BOARD_BYTES_MAX / 8 + 1, .ranges = 8);
    WRONG(.kind = SSM_SERVICE_IDS, .first = 1, .last = 0);
    WRONG(.kind = SSM_SERVICE_IDS, .last = UINT64_C(1) << 32);
    WRONG(.kind = SSM_SERVICE_IDS, .last = 3, .ranges = 3);
    WRONG(.kind = SSM_SERVICE_IDS, .last = 3, .flags = 2);
    WRONG(.kind = SSM_SERVICE_PIDS);
    WRONG(.kind = SSM_SERVICE_PIDS, .first = AL_PID_ORDER_MAX + 1);
    WRONG(.kind = SSM_SERVICE_PIDS, .first = 1, .last = 1);
    WRONG(.kind = SSM_SERVICE_RMIDS);
    WRONG(.kind = SSM_SERVICE_RMIDS, .first = AL_RMID_MAX + 1);
    WRONG(.kind = SSM_SERVICE_ADDRESSES, .first = 1, .last = 0);
    WRONG(.kind = SSM_SERVICE_ADDRESSES, .last = 9, .ranges = UINT32_MAX);
#undef WRONG
    CHECK_EQ(try_open(f.pool, "large", (struct ssm_service_options){.kind = SSM_SERVICE_IDS, .last = UINT32_MAX}),
             -SSM_E_METADATA);
    fixture_close(&f);
}

static void test_mismatch(void)
{
    struct fixture f = open_fixture();
    const struct ssm_service_options all[] = {IDS, PIDS, RMIDS, ADDRESSES};
    for (int i = 0; i < 4; i++) {
        const char name[] = {(char)('a' + i), 0};
        struct ssm_service_options other = all[i];
        CHECK_EQ(try_open(f.pool, name, all[i]), 0);
        CHECK_EQ(try_open(f.pool, name, all[i]), 0);
        CHECK_EQ(try_open(f.pool, name, all[(i + 1) % 4]), -SSM_E_MISMATCH);
        other.flags = SSM_RECLAIM;
        CHECK_EQ(try_open(f.pool, name, other), -SSM_E_MISMATCH);
        other = all[i];
        other.first++;
        CHECK_EQ(try_open(f.pool, name, other), -SSM_E_MISMATCH);
    }
    struct ssm_service_options any = ADDRESSES, more = ADDRESSES;
    any.ranges = 0;
    more.ranges++;
    CHECK_EQ(try_open(f.pool, "d", any), 0);
    CHECK_EQ(try_open(f.pool, "d", more), -SSM_E_MISMATCH);
    fixture_close(&f);
}

/* Rows that all attachments see; one that only looks finds them, and makes none. */
static void test_board(void)
{
    struct fixture f = open_fixture();
    const struct ssm_service_options board = {.kind = SSM_SERVICE_BOARD, .first = 3, .last = 77, .ranges = 40};
    struct ssm_service_options other = board;
    struct ssm_service *service, *seen;
    void *rows, *there;
    uint64_t bytes;
    struct ssm_pool *reader = fixture_attach(f.fd, SSM_READONLY);
    CHECK_EQ(ssm_service_open(reader, "board", &board, &seen), -ENOENT);
    CHECK_EQ(ssm_service_open(f.pool, "board", &board, &service), 0);
    CHECK_EQ(ssm_board_memory(service, &rows, &bytes), 0);
    CHECK_EQ(bytes, 120);
    for (uint64_t i = 0; i < bytes; i++)
        CHECK_EQ(((const uint8_t *)rows)[i], 0);
    memset(rows, 0xa5, bytes);
    CHECK_EQ(ssm_service_open(reader, "board", &board, &seen), 0);
    CHECK_EQ(ssm_board_memory(seen, &there, &bytes), 0);
    CHECK(memcmp(rows, there, bytes) == 0);
    ssm_service_close(seen);
    other.last++;
    CHECK_EQ(try_open(f.pool, "board", other), -SSM_E_MISMATCH);
    CHECK_EQ(try_open(reader, "board", other), -SSM_E_MISMATCH);
    CHECK_EQ(try_open(reader, "ids", IDS), -EACCES);
    other = board;
    other.ranges = 41;
    CHECK_EQ(try_open(f.pool, "board", other), -SSM_E_MISMATCH);
    uint32_t number;
    CHECK_EQ(ssm_number_alloc(service, 0, &number), -SSM_E_UNMANAGED);
    CHECK_EQ(ssm_service_list(service, 0, UINT64_MAX, NULL, 0), 0);
    CHECK_EQ(used(f.pool, 0), 0);
    ssm_service_close(service);
    CHECK_EQ(ssm_service_open(f.pool, "ids", &IDS, &service), 0);
    CHECK_EQ(ssm_board_memory(service, &rows, &bytes), -EINVAL);
    ssm_service_close(service);
    ssm_pool_destroy(reader);
    fixture_close(&f);
}

/* Until the directory is full; each has memory of its own. */
static void test_directory(void)
{
    struct ssm_pool_options options = fixture_options();
    options.metadata_bytes = 1 << 20;
    struct fixture f = fixture_open(&options);
    char name[16];
    for (uint32_t i = 0; i < SSM_SERVICE_MAX; i++) {
        snprintf(name, sizeof name, "%u", i);
        struct ssm_service *service = open_service(f.pool, name, PIDS, 0);
        for (uint32_t k = 0; k <= i; k++)
            CHECK_EQ(take(service), k);
        ssm_service_close(service);
    }
    CHECK_EQ(try_open(f.pool, "one more", PIDS), -SSM_E_METADATA);
    for (uint32_t i = 0; i < SSM_SERVICE_MAX; i++)
        CHECK_EQ(used(f.pool, i), i + 1);
    fixture_close(&f);
}

/* ---- use ---------------------------------------------------------------------------------------------- */

static void test_registry_ids(void)
{
    struct fixture f = open_fixture();
    struct ssm_service *ids = open_service(f.pool, "ids", IDS, 0), *rmids = open_service(f.pool, "rmids", RMIDS, 0);
    uint32_t number;
    CHECK_EQ(ssm_number_free(ids, 5, 0), -SSM_E_NEVER);
    CHECK_EQ(ssm_number_free(ids, 4, 0), -SSM_E_UNMANAGED);
    CHECK_EQ(take(ids), 5);
    CHECK_EQ(take(ids), 6);
    CHECK_EQ(ssm_number_is_allocated(ids, 6), 1);
    CHECK_EQ(ssm_number_free(ids, 5, 0), 0);
    CHECK_EQ(ssm_number_free(ids, 5, 0), -SSM_E_RELEASED);
    CHECK_EQ(ssm_number_is_allocated(ids, 5), 0);
    CHECK_EQ(used(f.pool, 0), 1);
    while (ssm_number_alloc(ids, 0, &number) == 0) {}
    CHECK_EQ(ssm_number_alloc(ids, 0, &number), -SSM_E_UNAVAILABLE);
    CHECK_EQ(used(f.pool, 0), 200);

    for (uint32_t i = 1; i <= 4; i++)
        CHECK_EQ(ssm_number_alloc(rmids, 1000, &number), 0);
    CHECK_EQ(ssm_number_alloc(rmids, 1000, &number), -SSM_E_UNAVAILABLE);
    CHECK_EQ(ssm_number_free(rmids, 3, 1000), 0);
    CHECK_EQ(ssm_number_alloc(rmids, 1099, &number), -SSM_E_RESTING);
    CHECK_EQ(ssm_number_alloc(rmids, 1100, &number), 0);
    CHECK_EQ(number, 3);
    uint64_t start;
    CHECK_EQ(take_range(ids, 1, &start), -EINVAL);
    CHECK_EQ(ssm_range_free(ids, 5, 5), -EINVAL);
    ssm_service_close(ids);
    ssm_service_close(rmids);
    fixture_close(&f);
}

static void test_ranges(void)
{
    struct fixture f = open_fixture();
    struct ssm_service *space = open_service(f.pool, "space", ADDRESSES, 0);
    struct ssm_service_item items[64];
    uint64_t start;
    uint32_t number;
    CHECK_EQ(ssm_number_alloc(space, 0, &number), -SSM_E_UNMANAGED);
    for (uint64_t i = 0; i < 20; i++) {
        CHECK_EQ(take_range(space, 16, &start), 0);
        CHECK_EQ(start, 0x1000 + 16 * i);
    }
    for (uint64_t i = 0; i < 20; i += 2) /* as many nodes as there can be */
        CHECK_EQ(ssm_range_free(space, 0x1000 + 16 * i, 0x100f + 16 * i), 0);
    CHECK_EQ(ssm_range_free(space, 0x1000, 0x100f), -SSM_E_RELEASED);
    CHECK_EQ(ssm_range_free(space, 0x1010, 0x1010), -SSM_E_UNAVAILABLE);
    CHECK_EQ(ssm_service_list(space, 0, UINT64_MAX, items, 64), 21);
    CHECK(items[0].start == 0x1000 && !items[0].allocated && items[1].allocated && items[19].end == 0x113f);
    CHECK_EQ(ssm_service_list(space, 0x1015, 0x1025, items, 1), 2);
    int result = 0;
    while (result == 0)
        result = take_range(space, 1, &start);
    CHECK_EQ(result, -SSM_E_CROWDED);
    CHECK_EQ(take_range(space, 0x2000, &start), -SSM_E_UNAVAILABLE);
    ssm_service_close(space);
    fixture_close(&f);
}

/* ---- owners ------------------------------------------------------------------------------------------- */

static void child_takes(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    uint64_t start;
    take(open_service(pool, "kept", IDS, 0));
    take(open_service(pool, "ids", IDS, SSM_RECLAIM));
    take(open_service(pool, "pids", PIDS, SSM_RECLAIM));
    take(open_service(pool, "rmids", RMIDS, SSM_RECLAIM));
    CHECK_EQ(take_range(open_service(pool, "space", ADDRESSES, SSM_RECLAIM), 16, &start), 0);
    if (f->more != NULL) {
        CHECK_EQ(ssm_pool_close(pool), 0);
        return;
    }
    die_here();
}

static void check_owner(struct fixture *f, struct ssm_service *kept, bool alive, pid_t pid)
{
    struct ssm_service_item item;
    struct ssm_service_owner owner;
    CHECK_EQ(ssm_service_list(kept, 0, UINT64_MAX, &item, 1), 1);
    CHECK_EQ(ssm_service_owner(kept, item.owner, &owner), 0);
    CHECK_EQ(owner.alive, alive);
    CHECK_EQ(owner.pid, (uint32_t)pid);
    (void)f;
}

/* Whatever stands for an owner, and for its name. */
static void test_looking_in(void)
{
    struct fixture f = open_fixture();
    struct ssm_service *ids = open_service(f.pool, "ids", IDS, 0);
    struct ssm_service_owner owner;
    struct ssm_service_stats stats;
    struct ssm_service_item item;
    take(ids);
    CHECK_EQ(ssm_service_list(ids, 0, UINT64_MAX, &item, 1), 1);
    memset(ssm_holder_at(f.pool, f.pool->self)->name, 'x', SSM_NAME_SIZE);
    CHECK_EQ(ssm_service_owner(ids, item.owner, &owner), 0);
    CHECK(owner.alive && owner.holder == f.pool->self && owner.pid == (uint32_t)getpid());
    CHECK_EQ(strnlen(owner.name, SSM_NAME_SIZE), SSM_NAME_SIZE - 1);
    CHECK_EQ(ssm_service_owner(ids, item.owner | 0xfff, &owner), 0); /* no slot of this pool */
    CHECK(!owner.alive && owner.pid == 0 && owner.name[0] == 0);
    CHECK_EQ(ssm_service_owner(ids, item.owner + (1 << 12), &owner), 0); /* another incarnation */
    CHECK(!owner.alive && owner.pid == 0 && owner.name[0] == 0);
    memset(ssm_service_at(f.pool, 0)->name, 'x', SSM_NAME_SIZE);
    CHECK_EQ(ssm_service_stats(f.pool, 0, &stats), 0);
    CHECK_EQ(strnlen(stats.name, SSM_NAME_SIZE), SSM_NAME_SIZE - 1);
    CHECK(stats.used == 1 && stats.allocs == 1 && stats.recoveries == 0);
    CHECK_EQ(ssm_service_stats(f.pool, 1, &stats), -ENOENT);
    CHECK_EQ(ssm_service_stats(f.pool, SSM_SERVICE_MAX, &stats), -EINVAL);
    CHECK_EQ(ssm_number_free(ids, 5, 0), 0);
    ssm_service_close(ids);
    struct ssm_pool *closed = fixture_attach(f.fd, 0);
    ids = open_service(closed, "more", IDS, 0);
    CHECK_EQ(ssm_pool_close(closed), 0);
    CHECK_EQ(ssm_service_stats(closed, 0, &stats), -SSM_E_CLOSED);
    CHECK_EQ(ssm_service_stats(closed, SSM_SERVICE_MAX - 1, &stats), -SSM_E_CLOSED); /* before it looks for it */
    CHECK_EQ(ssm_service_owner(ids, item.owner, &owner), -SSM_E_CLOSED);
    ssm_service_close(ids);
    ssm_pool_destroy(closed);
    fixture_close(&f);
}

/* Leaves, or dies: what it had goes back where the service reclaims, and nowhere else. */
static void test_reclaim(bool closes)
{
    struct fixture f = open_fixture();
    const struct ssm_service_options all[] = {IDS, IDS, PIDS, RMIDS, ADDRESSES};
    static const char *const names[] = {"kept", "ids", "pids", "rmids", "space"};
    for (int i = 0; i < 5; i++) {
        struct ssm_service *service = open_service(f.pool, names[i], all[i], i == 0 ? 0 : SSM_RECLAIM);
        uint64_t start;
        if (i > 0 && i < 4)
            take(service);
        else if (i == 4)
            CHECK_EQ(take_range(service, 16, &start), 0);
        ssm_service_close(service);
    }
    f.more = closes ? &f : NULL;
    pid_t child = child_start(child_takes, &f);
    if (closes)
        child_finish(child);
    else
        child_died(child);
    fixture_check(f.pool);
    struct ssm_service *kept = open_service(f.pool, "kept", IDS, 0);
    check_owner(&f, kept, false, child);
    fixture_reap(f.pool);
    for (uint32_t i = 0; i < 5; i++)
        CHECK_EQ(used(f.pool, i), 1);
    ssm_pool_close(fixture_attach(f.fd, 0)); /* the slot has another owner now */
    check_owner(&f, kept, false, 0);
    take(kept);
    CHECK_EQ(ssm_number_free(kept, 5, 0), 0); /* by anybody */
    check_owner(&f, kept, true, getpid());
    ssm_service_close(kept);
    fixture_close(&f);
}

/* ---- somebody is stopped inside a service ---------------------------------------------------------------- */

enum { LOCKED, HOLDING }; /* steps of the board */

static void lock_first_and_stay(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    struct ssm_lock *lock = &ssm_service_at(pool, 0)->lock;
    CHECK_EQ(ssm_lock_take(pool, lock, 0, NULL, NULL), 0);
    board_set(f->board, LOCKED, 1);
    AWAIT(board_get(f->board, LOCKED) == 2);
    ssm_lock_release(lock);
    board_set(f->board, LOCKED, 3);
    AWAIT(board_get(f->board, LOCKED) == 4);
}

static void lock_first_for_a_while(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    struct ssm_lock *lock = &ssm_service_at(pool, 0)->lock;
    CHECK_EQ(ssm_lock_take(pool, lock, 0, NULL, NULL), 0);
    board_set(f->board, LOCKED, 1);
    ssm_nap_ns(100 * MS);
    ssm_lock_release(lock);
}

/* Far longer than one try for the lock, and far shorter than a call waits for it. */
static void test_waits_for_the_lock(void)
{
    struct fixture f = open_fixture();
    struct ssm_service *ids = open_service(f.pool, "first", IDS, 0);
    pid_t child = child_start(lock_first_for_a_while, &f);
    AWAIT(board_get(f.board, LOCKED) == 1);
    take(ids);
    CHECK_EQ(ssm_number_free(ids, 5, 0), 0);
    child_finish(child);
    ssm_service_close(ids);
    fixture_close(&f);
}

/* Two packets and a block in the cache, and a value of one service. */
static void hold(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    uint64_t handles[3];
    take(open_service(pool, f->more, IDS, SSM_RECLAIM));
    CHECK_EQ(ssm_alloc_many(pool, 256, 3, 0, handles), 0);
    CHECK_EQ(ssm_free(pool, handles[2]), 0);
    board_set(f->board, HOLDING, board_get(f->board, HOLDING) + 1);
    for (;;)
        pause();
}

static pid_t start_holder(struct fixture *f, char *service)
{
    uint32_t already = board_get(f->board, HOLDING);
    f->more = service;
    pid_t holder = child_start(hold, f);
    AWAIT(board_get(f->board, HOLDING) == already + 1);
    return holder;
}

static pid_t start_stopped(struct fixture *f)
{
    pid_t stopped = child_start(lock_first_and_stay, f);
    AWAIT(board_get(f->board, LOCKED) == 1);
    child_stop(stopped);
    return stopped;
}

static void let_finish(struct fixture *f, pid_t stopped)
{
    child_continue(stopped);
    board_set(f->board, LOCKED, 2);
    AWAIT(board_get(f->board, LOCKED) == 3);
}

static void end_stopped(struct fixture *f, pid_t stopped)
{
    board_set(f->board, LOCKED, 4);
    child_finish(stopped);
    fixture_reap(f->pool);
    fixture_close(f);
}

static struct fixture open_with_services(void)
{
    struct ssm_pool_options options = fixture_options();
    options.cache = 2;
    struct fixture f = fixture_open(&options);
    ssm_service_close(open_service(f.pool, "first", IDS, SSM_RECLAIM));
    ssm_service_close(open_service(f.pool, "second", IDS, SSM_RECLAIM));
    return f;
}

static struct ssm_reaped reap_now(struct fixture *f)
{
    struct ssm_reaped reaped;
    uint64_t since_ns = ssm_now_ns();
    CHECK_EQ(ssm_reap(f->pool, &reaped), 0);
    CHECK(ssm_now_ns() - since_ns < 2000 * MS);
    return reaped;
}

/* A process that is stopped inside a service keeps from being reaped the values there, and the slots of their owners:
 * all blocks come back, and so does everything of those who have nothing there. */
static void test_stopped_inside(void)
{
    struct fixture f = open_with_services();
    pid_t user = start_holder(&f, "first"), neighbour = start_holder(&f, "second"), stopped = start_stopped(&f);
    child_kill(user);
    child_kill(neighbour);
    struct ssm_reaped reaped = reap_now(&f);
    CHECK_EQ(reaped.processes, 1);
    CHECK_EQ(reaped.blocks, 4); /* those in the caches were free */
    CHECK_EQ(free_blocks(f.pool, 0), 16);
    check_all_there(f.pool, 0);
    CHECK_EQ(used(f.pool, 0), 1);
    CHECK_EQ(used(f.pool, 1), 0);
    reaped = reap_now(&f);
    CHECK_EQ(reaped.processes, 0);
    CHECK_EQ(reaped.blocks, 0);
    fixture_check(f.pool);
    let_finish(&f, stopped);
    CHECK_EQ(reap_now(&f).processes, 1);
    CHECK_EQ(used(f.pool, 0), 0);
    end_stopped(&f, stopped);
}

/* Who leaves while somebody is stopped inside a service that it has a value of, gives its blocks back all the same. */
static void test_leaving_the_stopped(void)
{
    struct fixture f = open_with_services();
    struct ssm_pool *leaver = fixture_attach(f.fd, 0);
    uint64_t handles[3];
    struct ssm_service *service = open_service(leaver, "first", IDS, SSM_RECLAIM);
    take(service);
    ssm_service_close(service); /* the value stays */
    CHECK_EQ(ssm_alloc_many(leaver, 256, 3, 0, handles), 0);
    CHECK_EQ(ssm_free(leaver, handles[2]), 0);
    pid_t stopped = start_stopped(&f);
    pool_end(leaver);
    CHECK_EQ(free_blocks(f.pool, 0), 16);
    check_all_there(f.pool, 0);
    CHECK_EQ(reap_now(&f).processes, 0);
    CHECK_EQ(used(f.pool, 0), 1);
    let_finish(&f, stopped);
    CHECK_EQ(reap_now(&f).processes, 1);
    CHECK_EQ(used(f.pool, 0), 0);
    end_stopped(&f, stopped);
}

static void ignore(void *context, const char *what, uint64_t where, uint64_t value)
{
    (void)context, (void)what, (void)where, (void)value;
}

/* Whatever the directory says, opening and looking in come back. */
static void test_garbage(void)
{
    struct fixture f = open_fixture();
    struct ssm_service_stats stats;
    const struct ssm_service_options all[] = {IDS, PIDS, RMIDS, ADDRESSES};
    for (int i = 0; i < 4; i++)
        CHECK_EQ(try_open(f.pool, (const char[]){(char)('a' + i), 0}, all[i]), 0);
    const struct ssm_service_shared good[4] = {*ssm_service_at(f.pool, 0), *ssm_service_at(f.pool, 1),
                                               *ssm_service_at(f.pool, 2), *ssm_service_at(f.pool, 3)};
    for (unsigned round = 0; round < 4000; round++) {
        struct ssm_service_shared *shared = ssm_service_at(f.pool, round % 4);
        for (unsigned i = 0; i < 1 + round % 3; i++) /* not the lock: a live process of that name may exist */
            ((uint8_t *)shared)[check_below(2) ? check_below(8) : 16 + check_below(40)] = (uint8_t)check_random();
        (void)try_open(f.pool, (const char[]){(char)('a' + round % 4), 0}, all[round % 4]);
        (void)ssm_service_stats(f.pool, round % 4, &stats);
        (void)ssm_service_check(f.pool, round % 4, ignore, NULL);
        *shared = good[round % 4];
    }
    fixture_close(&f);
}

/* ---- death at every instruction ----------------------------------------------------------------------- */

static struct ssm_pool victim, nurse, doctor; /* their memory is the one that a step works on */

enum { ALLOC_NUMBER, FREE_NUMBER, ALLOC_RANGE, FREE_RANGE, CREATE, RECLAIM };
struct operation {
    uint32_t what, service_idx;
    uint64_t value;
};

static const char *const NAMES[] = {"ids", "pids", "rmids", "space"};
static struct ssm_service_options options_at(uint32_t i)
{
    struct ssm_service_options options = i == 0 ? IDS : i == 1 ? PIDS : i == 2 ? RMIDS : ADDRESSES;
    options.flags = SSM_RECLAIM;
    return options;
}

static void operate(void *mem, const void *argument)
{
    const struct operation *o = argument;
    struct ssm_holder_set slots = {0};
    uint64_t start;
    struct ssm_service *service = NULL;
    uint32_t number;
    int result = 0;
    ssm_pool_set_base(&victim, mem);
    if (o->what != CREATE && o->what != RECLAIM) {
        struct ssm_service_options options = options_at(o->service_idx);
        result = ssm_service_open(&victim, NAMES[o->service_idx], &options, &service);
    }
    ssm_holder_set_add(&slots, victim.self);
    if (result == 0)
        result = o->what == ALLOC_NUMBER ? ssm_number_alloc(service, 1000000, &number)
               : o->what == FREE_NUMBER  ? ssm_number_free(service, (uint32_t)o->value, 1000)
               : o->what == ALLOC_RANGE  ? take_range(service, o->value, &start)
               : o->what == FREE_RANGE   ? ssm_range_free(service, o->value, o->value + 15)
               : o->what == CREATE       ? try_open(&victim, "new", PIDS)
               : ssm_service_reclaim(&victim, o->service_idx, &slots) ? 0
                                                                      : -1;
    ssm_service_close(service);
    if (result != 0)
        _exit(1);
}

static uint32_t doctored; /* the service that something is done to */

static void recover(void *mem)
{
    ssm_pool_set_base(&nurse, mem);
    ssm_pool_set_base(&doctor, mem);
    bool nurse_died = (uint32_t)ssm_service_at(&doctor, doctored)->lock.word.word % SSM_LOCK_WAITERS == nurse.self + 1;
    ssm_service_scrub(nurse_died ? &doctor : &nurse, doctored);
}

static void recover_metadata(void *mem)
{
    uint64_t start;
    ssm_pool_set_base(&doctor, mem);
    CHECK_EQ(ssm_registry_lock(&doctor, 0), 0);
    CHECK_EQ(ssm_carver_alloc(&doctor, 128, 0, 0, &start), 0);
    ssm_carver_free(&doctor, start, 128);
    ssm_registry_unlock(&doctor);
}

static void recover_and_reclaim(void *mem)
{
    struct ssm_holder_set slots = {0};
    recover(mem);
    ssm_holder_set_add(&slots, victim.self);
    CHECK(ssm_service_reclaim(&doctor, doctored, &slots));
}

static void broken(void *context, const char *what, uint64_t where, uint64_t value)
{
    (void)context;
    fprintf(stderr, "%s: %llu %llu\n", what, (unsigned long long)where, (unsigned long long)value);
    exit(1);
}

static uint64_t digest_of(void *mem)
{
    uint64_t hash = 1;
    ssm_pool_set_base(&doctor, mem);
    CHECK_EQ(ssm_carver_check(&doctor, broken, NULL), 0);
    for (uint32_t i = 0; i < 4; i++) {
        struct ssm_service_options options = options_at(i);
        struct ssm_service_item items[256];
        struct ssm_service *service;
        CHECK_EQ(ssm_service_check(&doctor, i, broken, NULL) + ssm_service_orphans(&doctor, i), 0);
        CHECK_EQ(ssm_service_open(&doctor, NAMES[i], &options, &service), 0);
        int64_t count = ssm_service_list(service, 0, UINT64_MAX, items, 256), allocated = 0;
        CHECK(count >= 0 && count <= 256);
        for (int64_t k = 0; k < count; k++) {
            hash = steps_mix(steps_mix(steps_mix(hash, items[k].start), items[k].end), items[k].allocated);
            hash = steps_mix(hash, items[k].allocated ? items[k].owner : 0);
            allocated += items[k].allocated;
        }
        CHECK_EQ(used(&doctor, i), allocated);
        ssm_service_close(service);
    }
    return steps_mix(hash, ssm_load_acquire_u32(&ssm_service_at(&doctor, 4)->kind));
}

static uint32_t deaths_in(void *mem, size_t bytes, struct operation operation, bool deep)
{
    struct steps s = {bytes, operate, recover, digest_of};
    if (operation.what == RECLAIM)
        s.recover = recover_and_reclaim;
    if (operation.what == CREATE)
        s.recover = recover_metadata;
    doctored = operation.service_idx;
    return steps_run(&s, mem, &operation, deep);
}

static void test_death(void)
{
    struct ssm_pool_options options = fixture_options();
    options.metadata_bytes = 49152;
    options.classes[0].block_count = options.classes[1].block_count = 1;
    struct fixture f = fixture_open(&options);
    struct ssm_pool *dying = fixture_attach(f.fd, SSM_SERIAL), *mortal = fixture_attach(f.fd, SSM_SERIAL);
    for (uint32_t i = 0; i < 4; i++)
        ssm_service_close(open_service(f.pool, NAMES[i], options_at(i), SSM_RECLAIM));
    doctor = *f.pool;
    doctor.flags |= SSM_SERIAL;
    doctor.fd = ssm_file_reopen(f.fd, true); /* a fork closes the other one */
    CHECK(doctor.fd >= 0);
    victim = kill_attachment(dying, doctor.fd);
    nurse = kill_attachment(mortal, doctor.fd);
    /* One for all three: the lock of one that plays dead is in nobody's way. */
    CHECK_EQ(ssm_description_open(doctor.fd, &doctor.registry), 0);
    victim.registry = nurse.registry = doctor.registry;
    size_t bytes = f.pool->geometry.metadata_start + f.pool->geometry.metadata_bytes;
    void *mem = steps_map(bytes);
    memcpy(mem, f.pool->base, bytes);

    uint32_t deaths = 0;
    for (uint32_t i = 0; i < 3; i++) {
        deaths += deaths_in(mem, bytes, (struct operation){ALLOC_NUMBER, i, 0}, i == 0);
        for (int k = 0; k < 2; k++)
            operate(mem, &(struct operation){ALLOC_NUMBER, i, 0});
        deaths += deaths_in(mem, bytes, (struct operation){FREE_NUMBER, i, i == 0 ? 6 : 1}, i == 0);
        deaths += deaths_in(mem, bytes, (struct operation){ALLOC_NUMBER, i, 0}, false);
    }
    for (int k = 0; k < 6; k++)
        operate(mem, &(struct operation){ALLOC_RANGE, 3, 16});
    deaths += deaths_in(mem, bytes, (struct operation){ALLOC_RANGE, 3, 16}, false);
    deaths += deaths_in(mem, bytes, (struct operation){FREE_RANGE, 3, 0x1010}, false);
    deaths += deaths_in(mem, bytes, (struct operation){CREATE, 4, 0}, false);
    for (uint32_t i = 0; i < 4; i++)
        if (i != 2) /* rmids note the time: no two runs leave the same bytes */
            deaths += deaths_in(mem, bytes, (struct operation){RECLAIM, i, 0}, false);
    operate(mem, &(struct operation){RECLAIM, 2, 0});
    ssm_pool_set_base(&doctor, mem);
    for (uint32_t i = 0; i < 4; i++)
        CHECK_EQ(used(&doctor, i), 0);
    printf("recovered from %u deaths\n", deaths);
    CHECK(deaths > 100);
    munmap(mem, bytes);
    close(doctor.fd);
    fixture_reap(f.pool);
    ssm_pool_destroy(dying);
    ssm_pool_destroy(mortal);
    fixture_close(&f);
}

static void test_snapshot(void)
{
    struct fixture f = open_fixture();
    struct ssm_service *service = open_service(f.pool, "ids", IDS, 0);
    const int64_t bytes = ssm_service_snapshot(service, NULL, 0);
    CHECK(bytes > 0);
    uint8_t *before = malloc((size_t)bytes), *after = malloc((size_t)bytes);
    CHECK(before != NULL && after != NULL);
    CHECK_EQ(ssm_service_snapshot(service, before, (uint64_t)bytes - 1),
             bytes); /* too little room: nothing is copied */
    CHECK_EQ(ssm_service_snapshot(service, before, (uint64_t)bytes), bytes);
    take(service);
    CHECK_EQ(ssm_service_snapshot(service, after, (uint64_t)bytes), bytes);
    CHECK(memcmp(before, after, (size_t)bytes) != 0);
    CHECK(memcmp(service->core, after, (size_t)bytes) == 0);
    free(before);
    free(after);
    ssm_service_close(service);
    fixture_close(&f);
}

int main(void)
{
    alarm(3 * WATCHDOG_S);
    check_seed();
    test_parameters();
    test_mismatch();
    test_board();
    test_directory();
    test_registry_ids();
    test_snapshot();
    test_ranges();
    test_looking_in();
    test_reclaim(false);
    test_reclaim(true);
    test_waits_for_the_lock();
    test_stopped_inside();
    test_leaving_the_stopped();
    test_garbage();
    if (STEPS_WANTED && steps_possible())
        test_death();
    return 0;
}
