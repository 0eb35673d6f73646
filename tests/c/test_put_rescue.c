/* SPDX-License-Identifier: Apache-2.0
 *
 * Two deaths and a return around one put: a worker dies while it puts a packet that it had taken out of a redelivering
 * ring back into that ring; the producer that finds it dead repairs the put, and stands still between the last two stores
 * of the repair; a reaper comes by; then the producer dies as well. The packet is delivered once.
 *
 * The repair clears put_intent before put_owner (ring_side.c). The other way round, the reaper would find no put under
 * way, and return the packet with the ring's bit; the second repair would take that bit off again, and free it. */
#include "redelivery_fixture.h"
#include "steps.h"

#define STEPS_MAX 2000000 /* of a child: some thousand are enough */

static struct ssm_side *producer_of(struct ssm_pool *pool)
{
    for (uint32_t id = 0; id < ssm_holder_high(pool); id++)
        if (ssm_holder_is_ring(pool, id) && strcmp(ssm_holder_at(pool, id)->name, "source") == 0)
            return &ssm_ring_shared_at(pool, id)->producer;
    CHECK(false);
    return NULL;
}

/* ---- children that stand still where the test wants them to ------------------------------------------------------- */

typedef bool is_there(const struct ssm_side *producer);

static pid_t start(void (*run)(void *context), struct fixture *f)
{
    int status;
    const pid_t pid = child_start(run, f);
    CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
    return pid;
}

/* Lets a child go on from its begin_steps(), instruction by instruction, until it is there. */
static void step_until(pid_t pid, const struct fixture *f, is_there *there)
{
    int status;
    const struct ssm_side *producer = producer_of(f->pool);
    for (unsigned steps = 0; !there(producer); steps++) {
        CHECK(steps < STEPS_MAX);
        CHECK(ptrace(PTRACE_SINGLESTEP, pid, 0, 0) == 0);
        CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
    }
}

static void begin_steps(void)
{
    CHECK(ptrace(PTRACE_TRACEME, 0, 0, 0) == 0);
    raise(SIGSTOP);
}

static void put_back(void *context)
{
    struct ssm_ring *ring = source(fixture_join(context));
    uint64_t handle;
    CHECK_EQ(ssm_ring_get(ring, &handle, 1, 0), 1);
    begin_steps();
    (void)ssm_ring_put(ring, &handle, 1, 0, 0);
}

static void put_another(void *context)
{
    struct ssm_pool *pool = fixture_join(context);
    struct ssm_ring *ring = source(pool);
    uint64_t handle = alloc(pool, PACKETS + 1);
    begin_steps();
    (void)ssm_ring_put(ring, &handle, 1, 0, 0);
}

static bool is_before_publication(const struct ssm_side *producer)
{
    return ssm_load_acquire_u64(&producer->put_intent) > ssm_load_acquire_u64(&producer->index);
}

/* One of the two is cleared, the other one is not. */
static bool is_at_the_end_of_the_repair(const struct ssm_side *producer)
{
    return (ssm_load_acquire_u64(&producer->put_intent) == 0) != (ssm_load_acquire_u64(&producer->put_owner) == 0);
}

/* ---- the test ----------------------------------------------------------------------------------------------------- */

/* All that was there comes once, and nothing is left. */
static void drain(struct ssm_pool *pool, struct ssm_ring *ring)
{
    uint64_t handle, tag;
    unsigned seen[PACKETS + 1] = {0};
    while (ssm_ring_get(ring, &handle, 1, 0) == 1) {
        CHECK_EQ(ssm_packet_tag(pool, handle, &tag), 0);
        CHECK(tag >= 1 && tag <= PACKETS);
        CHECK_EQ(ssm_packet_redelivered(pool, handle), tag == 1);
        seen[tag]++;
        CHECK_EQ(ssm_free(pool, handle), 0);
    }
    for (unsigned number = 1; number <= PACKETS; number++)
        CHECK_EQ(seen[number], 1);
    CHECK_EQ(ssm_ring_depth(ring), 0);
    CHECK_EQ(free_blocks(pool, 0), BLOCKS);
}

static void test_second_death_in_the_repair_of_a_put(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = source(f.pool);
    fill(&f);
    const pid_t rescuer = start(put_another, &f); /* it attaches before there is somebody dead, whom it would reap */
    const pid_t worker = start(put_back, &f);
    step_until(worker, &f, is_before_publication);
    child_kill(worker);
    step_until(rescuer, &f, is_at_the_end_of_the_repair);
    fixture_reap(f.pool); /* the rescuer lives, and has the right */
    child_kill(rescuer);
    fixture_reap(f.pool);
    fixture_check(f.pool);
    drain(f.pool, ring);
    ssm_ring_close(ring);
    fixture_close(&f);
}

int main(void)
{
    if (steps_possible())
        test_second_death_in_the_repair_of_a_put();
    return 0;
}
