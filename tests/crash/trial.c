/* SPDX-License-Identifier: Apache-2.0
 *
 * One scenario under test; see trial.h. What is left after a death is a function of the segment alone (the kernel has
 * dropped the locks), so each state is checked once, in every manner, however many instructions lead to it. */
#include "trial.h"

#include "checker.h"
#include "stepper.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK_SECONDS 60 /* a checker that is not done by then hangs; on a busy machine it takes long */
#define STATES_MAX    4096
#define COMPLAINTS    3  /* described for each scenario; the rest is counted */
#define WAIT_NS       INT64_C(6000000) /* of a rescuer who waits: longer than stepping it to its sleep takes */
#define LONG          20000 /* instructions of an operation */
#define SPARSE        20 /* of the instructions that change nothing, one in so many, where each would take too long */

extern const char __executable_start, etext; /* the linker's: addresses alone */

enum fault { KILL, DOUBLE_KILL, STOP };

/* One scenario under test. */
struct test {
    const struct scenario *scenario;
    struct world world;
    uint64_t     hashes[STATES_MAX];
    uint8_t     *images[STATES_MAX]; /* of the first `kept` states: what the victim's death left */
    struct note  notes[STATES_MAX];
    uint32_t     kept, states;
    enum fault   fault;              /* what is done to them just now */
    const struct effort *effort;
    struct row   *row;
};

static bool is_over(const struct test *test)
{
    return test->effort->stop_at_first && table_violations(test->row) > 0;
}

static const uint8_t *segment_of(const struct world *world)
{
    return world->pools[SURVIVOR]->base;
}

static uint64_t segment_size(const struct world *world)
{
    return world->pools[SURVIVOR]->geometry.size_bytes;
}

static uint8_t *copy_segment(const struct world *world)
{
    uint8_t *copy = malloc(segment_size(world));
    if (copy == NULL)
        abort();
    return memcpy(copy, segment_of(world), segment_size(world));
}

/* ---- checking ---------------------------------------------------------------------------------------------------- */

static void describe(struct test *test, const struct trace *trace, uint32_t n, enum manner manner, const char *what)
{
    uint32_t *const violations[] = {&test->row->violations, &test->row->double_violations, &test->row->stop_violations};
    if (++*violations[test->fault] > COMPLAINTS)
        return;
    uint64_t pc = n < trace->count ? trace->pcs[n] : 0;
    uint64_t program = (uint64_t)(uintptr_t)&__executable_start;
    bool inside = pc >= program && pc < (uint64_t)(uintptr_t)&etext; /* else: a library, or no instruction left */
    static const char *const when[] = {"killed before", "killed in recovery before", "stopped behind"};
    printf("VIOLATION  %s, %s: %s instruction %u (addr2line -fipe ssm_killer %#lx); found by %s\n"
           "           %s\n",
           test->scenario->name, test->world.wide ? "wide" : "narrow", when[test->fault], n,
           (unsigned long)(inside ? pc - program : 0), manner_names[manner], what);
    fflush(stdout);
}

static pid_t start_checker(struct test *test, enum manner manner)
{
    pid_t pid = _Fork();
    if (pid != 0)
        return pid;
    alarm(CHECK_SECONDS);
    checker_run(&test->world, test->scenario, manner);
    _exit(0);
}

static void finish_checker(struct test *test, pid_t pid, const struct trace *trace, uint32_t n, enum manner manner)
{
    int status;
    char what[64];
    waitpid(pid, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return;
    bool hangs = WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM;
    snprintf(what, sizeof what, "a survivor %s", hangs ? "hangs" : "crashed");
    describe(test, trace, n, manner, WIFEXITED(status) ? test->world.note->complaint : what);
}

static bool is_new_state(struct test *test)
{
    struct note *note = test->world.note;
    uint64_t hash = world_hash(&test->world) * 31 + ssm_load_relaxed_u32(&note->stage);
    for (int ring = 0; ring < RINGS; ring++)
        hash = hash * 31 + (uint64_t)(note->visits[ring].put_begun + 2 * note->visits[ring].put_done +
                                      4 * note->visits[ring].get_begun + 8 * note->visits[ring].get_done);
    for (uint32_t i = 0; i < test->states; i++)
        if (test->hashes[i] == hash)
            return false;
    if (test->states < STATES_MAX)
        test->hashes[test->states++] = hash;
    test->row->states++;
    return true;
}

/* In every manner; where kill points are sampled, what double faults leave in one of those that recover, by turns. */
static bool is_checked(const struct test *test, enum manner manner)
{
    bool sampled = test->fault == DOUBLE_KILL && test->effort->points != UINT32_MAX;
    return !sampled || manner == (test->effort->turn + test->states) % LOOK;
}

/* What a death left is in the segment. */
static void check_state(struct test *test, const struct trace *trace, uint32_t n)
{
    if (!is_new_state(test))
        return;
    uint8_t *image = copy_segment(&test->world);
    for (enum manner manner = GO_ON; manner < BLOCKED; manner++) {
        if (!is_checked(test, manner))
            continue;
        world_restore(&test->world, image);
        finish_checker(test, start_checker(test, manner), trace, n, manner);
    }
    if (test->fault == DOUBLE_KILL || test->kept == STATES_MAX) {
        free(image);
        return;
    }
    test->notes[test->kept] = *test->world.note;
    test->images[test->kept++] = image;
}

/* ---- where to kill ----------------------------------------------------------------------------------------------- */

/* Of one operation: its instructions, and which of them are worth a kill even if there is no time for all. */
struct path {
    struct trace trace;
    struct test *test;
    pid_t        child;
    uint8_t     *last; /* the segment one instruction before */
    uint8_t     *worth;
    uint32_t     room;
};

static bool is_system_call(pid_t child)
{
    errno = 0;
    long pc = ptrace(PTRACE_PEEKUSER, child, offsetof(struct user, regs.rip), NULL);
    return (ptrace(PTRACE_PEEKTEXT, child, pc, NULL) & 0xffff) == 0x050f && errno == 0;
}

static void watch(void *context, uint32_t n)
{
    struct path *path = context;
    const struct world *world = &path->test->world;
    if (n + 1 >= path->room) {
        path->room = n * 2 + 4096;
        uint8_t *worth = realloc(path->worth, path->room);
        if (worth == NULL)
            abort();
        path->worth = worth;
    }
    bool called = n > 0 && path->worth[n] != 0; /* the instruction before was a system call */
    path->worth[n] = n == 0 || called || memcmp(path->last, segment_of(world), segment_size(world)) != 0;
    path->worth[n + 1] = is_system_call(path->child);
    path->worth[n] |= path->worth[n + 1];
    if (path->worth[n])
        memcpy(path->last, segment_of(world), segment_size(world));
}

/* False: it died by itself. */
static bool explore(struct path *path, struct test *test, pid_t child, void (*before)(void *context, uint32_t n))
{
    *path = (struct path){.test = test, .child = child, .last = copy_segment(&test->world)};
    bool whole = child > 0 && stepper_trace(child, &path->trace, before, path);
    if (child > 0)
        stepper_kill(child);
    return whole;
}

static void forget(struct path *path)
{
    stepper_trace_free(&path->trace);
    free(path->last);
    free(path->worth);
}

static bool is_kill_point(const struct path *path, uint32_t n, uint32_t every)
{
    return path->worth[n] || n % every == 0 || n == path->trace.count;
}

/* One of so many instructions, at least. */
static uint32_t every_of(const struct path *path, bool takes_long)
{
    uint32_t every = path->trace.count / path->test->effort->points + 1;
    return takes_long && every < SPARSE ? SPARSE : every;
}

/* ---- the victim -------------------------------------------------------------------------------------------------- */

static void play_victim(void *context)
{
    struct test *test = context;
    if (test->world.pools[VICTIM] != NULL)
        world_become(&test->world, VICTIM);
    stepper_stop();
    test->scenario->operate(&test->world);
}

static void reset(struct test *test)
{
    memset(test->world.note, 0, sizeof *test->world.note);
    world_restore(&test->world, test->world.image);
}

static pid_t start_victim(struct test *test)
{
    reset(test);
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
    pid_t checker = start_checker(test, BLOCKED);
    while (!is_asleep(checker))
        usleep(50);
    return checker;
}

static bool explore_victim(struct test *test, struct path *path)
{
    pid_t victim = start_victim(test);
    pid_t checker = test->scenario->blocked != NOBODY ? start_blocked(test) : -1;
    bool whole = explore(path, test, victim, watch);
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

/* The victim stands behind an instruction that changed the segment, as long as it takes to look at that. */
static void halt(void *context, uint32_t n)
{
    struct path *path = context;
    struct test *test = path->test;
    if (memcmp(path->last, segment_of(&test->world), segment_size(&test->world)) == 0 || is_over(test))
        return;
    test->row->stops++;
    finish_checker(test, start_checker(test, LOOK), &path->trace, n - 1, LOOK);
    memcpy(path->last, segment_of(&test->world), segment_size(&test->world)); /* who looked has had locks */
}

static void stop_victim(struct test *test)
{
    struct path path;
    test->fault = STOP;
    if (!explore(&path, test, start_victim(test), halt))
        describe(test, &path.trace, path.trace.count, LOOK, "who was stopped crashed");
    forget(&path);
}

static void kill_victims(struct test *test, const struct path *path)
{
    uint32_t every = every_of(path, test->world.wide && path->trace.count > LONG);
    for (uint32_t n = 0; n <= path->trace.count && !is_over(test); n++) {
        bool there = false; /* it may go another way, rarely */
        for (int try = 0; is_kill_point(path, n, every) && !there && try < 3; try++) {
            pid_t victim = start_victim(test);
            there = victim > 0 && stepper_run_to(victim, &path->trace, n);
            if (victim > 0)
                stepper_kill(victim);
        }
        if (!there)
            continue; /* not counted */
        test->row->kills++;
        check_state(test, &path->trace, n);
    }
}

/* ---- with somebody who is blocked -------------------------------------------------------------------------------- */

static void relieve(struct test *test)
{
    pid_t pid = _Fork();
    if (pid == 0) {
        checker_relieve(&test->world, test->scenario->blocked);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    ssm_store_release_u64(&test->world.note->over_ns, ssm_now_ns());
}

/* The times differ, so no state is like another: all are checked. */
static void kill_victims_of_the_blocked(struct test *test, const struct path *path)
{
    uint32_t every = every_of(path, test->world.wide && path->trace.count > LONG);
    for (uint32_t n = 0; n <= path->trace.count && !is_over(test); n++) {
        if (!is_kill_point(path, n, every))
            continue;
        pid_t victim = start_victim(test);
        pid_t checker = start_blocked(test);
        if (victim > 0) {
            test->row->kills += stepper_run_to(victim, &path->trace, n);
            stepper_kill(victim);
        }
        relieve(test);
        finish_checker(test, checker, &path->trace, n, BLOCKED);
    }
}

/* ---- the rescuer ------------------------------------------------------------------------------------------------- */

/* How somebody comes to recover. */
enum rescue {
    REAPS,  /* asked to */
    VISITS, /* goes on with what it does, and meets what the dead left */
    WAITS,  /* in a call that is blocked: it looks for the dead at the end of a sleep */
    RESCUES
};

struct rescuer {
    struct test   *test;
    const uint8_t *image; /* what the victim left */
    struct note    note;
    enum rescue    how;
};

static void play_rescuer(void *context)
{
    struct rescuer *rescuer = context;
    struct world *world = &rescuer->test->world;
    struct ssm_reaped reaped;
    uint64_t handle;
    world_become(world, RESCUER);
    stepper_stop();
    if (rescuer->how == REAPS)
        ssm_reap(world->pools[RESCUER], &reaped);
    else if (rescuer->how == VISITS)
        checker_visit(world, RESCUER);
    else
        ssm_ring_get(world->quiet, &handle, 1, WAIT_NS);
}

static pid_t start_rescuer(struct rescuer *rescuer)
{
    *rescuer->test->world.note = rescuer->note;
    world_restore(&rescuer->test->world, rescuer->image);
    return stepper_start(play_rescuer, rescuer);
}

static void kill_rescuers(struct rescuer *rescuer)
{
    struct test *test = rescuer->test;
    struct path path;
    bool whole = explore(&path, test, start_rescuer(rescuer), watch);
    uint32_t every = every_of(&path, rescuer->how != VISITS || test->world.wide || test->world.locked != 0);
    if (!whole)
        describe(test, &path.trace, path.trace.count, REAP, "the rescuer crashed");
    for (uint32_t n = 0; whole && n <= path.trace.count && !is_over(test); n++) {
        if (!is_kill_point(&path, n, every))
            continue;
        pid_t pid = start_rescuer(rescuer);
        bool there = pid > 0 && stepper_run_to(pid, &path.trace, n);
        if (pid > 0)
            stepper_kill(pid);
        if (!there)
            continue;
        test->row->double_kills++;
        check_state(test, &path.trace, n);
    }
    forget(&path);
}

/* A rescuer in every manner; where that takes too long in one of them, by turns. */
static bool is_tried(const struct test *test, uint32_t state, enum rescue how)
{
    bool all = test->effort->points == UINT32_MAX && !test->world.wide;
    return all || how == (test->effort->turn + state) % RESCUES;
}

/* Of the states that the victim's death may leave, `wanted`, spread over the operation. */
static void double_faults(struct test *test)
{
    uint32_t wanted = test->effort->doubles < test->kept ? test->effort->doubles : test->kept;
    if (test->world.locked != 0 && test->effort->points != UINT32_MAX)
        return; /* each call waits for a lock that the peer has, which takes long */
    test->fault = DOUBLE_KILL;
    world_rescuer_lives(&test->world, false);
    for (uint32_t i = 0; i < wanted; i++)
        for (enum rescue how = REAPS; how < RESCUES; how++) {
            uint32_t k = (uint32_t)((uint64_t)(i + 1) * test->kept / (wanted + 1));
            struct rescuer rescuer = {.test = test, .image = test->images[k], .note = test->notes[k], .how = how};
            if (is_tried(test, i, how) && !is_over(test))
                kill_rescuers(&rescuer);
        }
    world_rescuer_lives(&test->world, true);
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
    world_build(&test.world, wide, scenario->many_flags, scenario->arena, scenario->grows);
    scenario->prepare(&test.world);
    world_seal(&test.world);
    if (!explore_victim(&test, &path)) {
        row->violations++;
        printf("VIOLATION  %s: it does not do what it should, undisturbed\n", scenario->name);
    } else if (scenario->blocked != NOBODY) {
        kill_victims_of_the_blocked(&test, &path);
    } else {
        kill_victims(&test, &path);
        double_faults(&test);
        stop_victim(&test);
    }
    fflush(stdout);
    forget(&path);
    while (test.kept > 0)
        free(test.images[--test.kept]);
    world_destroy(&test.world);
}
