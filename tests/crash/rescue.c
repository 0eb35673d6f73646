/* SPDX-License-Identifier: Apache-2.0
 *
 * Double faults; see rescue.h. A rescuer is recorded, and dies between any two of its stores. In some of the states it
 * is killed as well, at instructions; what that leaves has to be among what the recording had. */
#include "rescue.h"

#include "path.h"
#include "stepper.h"
#include "still.h"

#define WAIT_NS INT64_C(6000000) /* of a rescuer who waits: longer than stepping it to its sleep takes */

/* How somebody comes to recover. */
enum rescue {
    REAPS,  /* asked to */
    VISITS, /* goes on with what it does, and meets what the dead left */
    WAITS,  /* in a call that is blocked: it looks for the dead at the end of a sleep */
    RESCUES
};

struct rescuer {
    struct test        *test;
    const struct state *found;
    enum rescue         how;
};

static void play_rescuer(void *context)
{
    struct rescuer *rescuer = context;
    struct world *world = &rescuer->test->world;
    struct ssm_reaped reaped;
    uint64_t handle;
    if (rescuer->test->is_recorded)
        still_begin(0);
    world_become(world, RESCUER);
    test_begin(rescuer->test);
    if (rescuer->how == REAPS)
        ssm_reap(world->pools[RESCUER], &reaped);
    else if (rescuer->how == VISITS)
        checker_visit(world, RESCUER);
    else
        ssm_ring_get(world->quiet, &handle, 1, WAIT_NS);
}

static pid_t start_rescuer(void *context)
{
    struct rescuer *rescuer = context;
    test_set(rescuer->test, rescuer->found);
    return stepper_start(play_rescuer, rescuer);
}

static void record_rescuer(struct rescuer *rescuer)
{
    rescuer->test->row->rescuers++;
    if (!test_record(rescuer->test, rescuer->found, RESCUER, play_rescuer, rescuer, "dead in recovery behind store"))
        test_describe(rescuer->test, &(struct place){.when = "in recovery"}, REAP, "the rescuer crashed");
}

static void kill_rescuers(struct rescuer *rescuer)
{
    struct test *test = rescuer->test;
    struct path path;
    if (!path_explore(&path, test, start_rescuer(rescuer), NULL))
        test_describe(test, &(struct place){.when = "in recovery"}, REAP, "the rescuer crashed");
    else
        test->row->double_kills += path_kill(&path, start_rescuer, rescuer, "killed in recovery before instruction");
    path_forget(&path);
}

/* Of the states that the victim's death may leave, `wanted`, spread over the operation. */
static bool is_wanted(const struct test *test, uint32_t state, uint32_t wanted)
{
    const uint64_t count = test->left_count;
    return wanted >= count || (state + 1) * (uint64_t)wanted / count != state * (uint64_t)wanted / count;
}

void rescue_run(struct test *test)
{
    test->fault = DOUBLE_KILL;
    world_rescuer_lives(&test->world, false);
    for (uint32_t i = 0; i < test->left_count; i++)
        for (enum rescue how = REAPS; how < RESCUES && !test_is_over(test); how++) {
            struct rescuer rescuer = {.test = test, .found = &test->left[i], .how = how};
            if (is_wanted(test, i, test->effort->rescued))
                record_rescuer(&rescuer);
            if (is_wanted(test, i, test->effort->doubles))
                kill_rescuers(&rescuer);
        }
    world_rescuer_lives(&test->world, true);
}
