/* SPDX-License-Identifier: Apache-2.0
 *
 * One scenario under test; see trial.h. */
#include "trial.h"

#include "path.h"
#include "rescue.h"
#include "still.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- the victim -------------------------------------------------------------------------------------------------- */

static void play_victim(void *context)
{
    struct test *test = context;
    if (test->is_recorded)
        still_begin(0);
    if (test->world.pools[VICTIM] != NULL)
        world_become(&test->world, VICTIM);
    test_begin(test);
    test->scenario->operate(&test->world);
}

static pid_t start_victim(void *context)
{
    struct test *test = context;
    memset(test->world.note, 0, sizeof *test->world.note);
    world_restore(&test->world, test->world.image);
    return stepper_start(play_victim, test);
}

static bool is_asleep(pid_t pid)
{
    char path[32], state = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *stat = fopen(path, "re");
    if (stat == NULL || fscanf(stat, "%*d (%*[^)]) %c", &state) != 1)
        state = 0;
    if (stat != NULL)
        fclose(stat);
    return state == 'S';
}

/* The survivor sleeps in its call. The victim has begun: else the survivor would find it dead, and reap it. */
static pid_t start_blocked(struct test *test)
{
    pid_t checker = test_start_checker(test, BLOCKED);
    while (!is_asleep(checker))
        usleep(50);
    return checker;
}

/* The victim stands behind an instruction that changed something, as long as it takes to look at that. */
static void look(struct path *path, uint32_t n)
{
    struct test *test = path->test;
    struct state now = test_now(test);
    const struct place place = path_place(path, n - 1, "stopped behind instruction");
    test->fault = STOP;
    test->row->stops++;
    test_finish_checker(test, test_start_checker(test, LOOK), &place, LOOK);
    test->fault = KILL;
    test_set(test, &now); /* who looked has had locks */
    free(now.image);
}

static bool explore_victim(struct test *test, struct path *path)
{
    pid_t victim = start_victim(test);
    const bool is_blocked = test->scenario->blocked != NOBODY;
    pid_t checker = is_blocked ? start_blocked(test) : -1;
    bool whole = path_explore(path, test, victim, is_blocked ? NULL : look);
    if (checker > 0)
        stepper_kill(checker);
    const struct note *note = test->world.note;
    for (uint32_t i = 0; whole && i < ssm_load_relaxed_u32(&note->stage); i++)
        if (note->results[i] != test->scenario->results[i]) {
            printf("%s: call %u returned %d, not %d\n", test->scenario->name, i, note->results[i],
                   test->scenario->results[i]);
            whole = false;
        }
    test->row->instructions[test->world.wide] = path->trace.count;
    world_look_after(&test->world);
    return whole;
}

/* Where it opens the file anew, the recorder does not see what it stores. */
static bool can_be_recorded(const struct test *test)
{
    return test->world.pools[VICTIM] != NULL && !test->scenario->attaches;
}

static void kill_victims(struct test *test, const struct path *path)
{
    const struct state start = {.image = test->world.image};
    if (can_be_recorded(test)) {
        test->is_foreseen = true;
        if (!test_record(test, &start, VICTIM, play_victim, test, "dead behind store"))
            test_describe(test, &(struct place){.when = "at work"}, LOOK, "it crashed, undisturbed");
    }
    test->row->kills += path_kill(path, start_victim, test, "killed before instruction");
    test->is_foreseen = false;
}

/* ---- with somebody who is blocked -------------------------------------------------------------------------------- */

static void relieve(struct test *test)
{
    pid_t pid = _Fork();
    if (pid == 0) {
        checker_relieve(&test->world, test->scenario);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    ssm_store_release_u64(&test->world.note->over_ns, ssm_now_ns());
}

/* The kernel has the survivor's sleep, so what is left is no function of the segment: each kill is checked by itself. */
static void kill_victims_of_the_blocked(struct test *test, const struct path *path)
{
    for (uint32_t n = 0; n <= path->trace.count && !test_is_over(test); n++) {
        if (!path_is_kill_point(path, n))
            continue;
        const struct place place = path_place(path, n, "killed before instruction");
        pid_t victim = start_victim(test);
        pid_t checker = start_blocked(test);
        if (victim > 0) {
            test->row->kills += stepper_run_to(victim, &path->trace, n);
            stepper_kill(victim);
        }
        relieve(test);
        test_finish_checker(test, checker, &place, BLOCKED);
    }
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

void trial_run(const struct scenario *scenario, bool wide, const struct effort *effort, struct row *row)
{
    static struct test test;
    struct path path;
    memset(&test, 0, sizeof test);
    test.scenario = scenario;
    test.effort = effort;
    test.row = row;
    world_build(&test.world, scenario, wide);
    scenario->prepare(&test.world);
    world_seal(&test.world);
    if (!explore_victim(&test, &path)) {
        row->violations++;
        printf("VIOLATION  %s: it does not do what it should, undisturbed\n", scenario->name);
    } else if (scenario->blocked != NOBODY) {
        kill_victims_of_the_blocked(&test, &path);
    } else {
        kill_victims(&test, &path);
        rescue_run(&test);
    }
    fflush(stdout);
    path_forget(&path);
    while (test.left_count > 0)
        free(test.left[--test.left_count].image);
    free(test.hashes);
    world_destroy(&test.world);
}
