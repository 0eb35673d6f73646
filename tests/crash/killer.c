/* SPDX-License-Identifier: Apache-2.0
 *
 * The killer: kills a process at every instruction of every operation, and the process that recovers from that, too.
 *
 *     ssm_killer [--only TEXT] [--narrow | --wide] [--points N] [--rescued STATES] [--double STATES] [--jobs N] [--first]
 *                [--markdown]
 *
 *   --only      operations whose name contains TEXT
 *   --narrow    holder sets of one word only; --wide: of two words only
 *   --points    a SIGKILL at so many of the instructions that change nothing, besides one at each that does and at each
 *               system call; "all", or 20, if it is not said
 *   --rescued   in so many of the states that a death left the one who recovers from it dies as well, between any two of
 *               its stores; in all, if it is not said
 *   --double    in so many of these states it gets a SIGKILL, too, at instructions as above; in one, if it is not said
 *   --jobs      operations that are tried at the same time, each on a processor of its own
 *   --first     ends with the first violation
 *   --markdown  the table in Markdown
 *
 * Prints a table. Ends with 0: no violation; 1: violations, each is described; 77: the kernel does not allow ptrace.
 */
#include "creation.h"
#include "stepper.h"
#include "trial.h"
#include "eventcount.h"

#include <getopt.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROWS_MAX     256
#define JOBS_MAX     64
#define CANNOT_TRACE 77
#define POLL_NS      UINT64_C(20000000)

static struct {
    const char *only;
    bool sets[2]; /* narrow, wide */
    bool first, markdown;
    uint32_t points, rescued, doubles, jobs;
} options = {.sets = {true, true}, .points = 20, .rescued = UINT32_MAX, .doubles = 1, .jobs = 1};

/* What the jobs share. */
static struct board {
    struct ssm_u32 next; /* row to be tried */
    struct ssm_u32 over; /* a violation was found, and one is enough */
    struct {
        struct row row;
        struct ssm_u32 done;
    } tries[ROWS_MAX];
} *board;

/* The operations: those of pools and rings, of services, and create, which has a harness of its own (NULL). */
static const struct scenario *scenario_at(uint32_t i)
{
    const struct {
        const struct scenario *all;
        uint32_t count;
    } parts[] = {
        {pool_scenarios, pool_scenario_count},
        {chain_scenarios, chain_scenario_count},
        {redelivery_scenarios, redelivery_scenario_count},
        {overflow_scenarios, overflow_scenario_count},
        {topic_scenarios, topic_scenario_count},
        {call_scenarios, call_scenario_count},
        {arena_scenarios, arena_scenario_count},
        {service_scenarios, service_scenario_count},
    };
    for (size_t part = 0; part < sizeof parts / sizeof *parts; i -= parts[part++].count)
        if (i < parts[part].count)
            return &parts[part].all[i];
    return NULL;
}

static uint32_t row_count(void)
{
    return pool_scenario_count + chain_scenario_count + redelivery_scenario_count + overflow_scenario_count +
           topic_scenario_count + call_scenario_count + arena_scenario_count + service_scenario_count + 1;
}

static const char *name_of(uint32_t i)
{
    return scenario_at(i) != NULL ? scenario_at(i)->name : "create";
}

static bool is_wanted(uint32_t i)
{
    return options.only == NULL || strstr(name_of(i), options.only) != NULL;
}

static void try_one(uint32_t i)
{
    struct row *row = &board->tries[i].row;
    const struct effort effort = {options.points, options.rescued, options.doubles, options.first};
    for (int set = 0; set < 2; set++)
        if (options.sets[set] && scenario_at(i) != NULL && ssm_load_relaxed_u32(&board->over) == 0)
            trial_run(scenario_at(i), set, &effort, row);
    if (scenario_at(i) == NULL && options.sets[0])
        creation_run(options.points, row);
    if (options.first && table_violations(row) > 0)
        ssm_store_release_u32(&board->over, 1);
}

static void work(void)
{
    for (uint32_t i; (i = ssm_add_acqrel_u32(&board->next, 1)) < row_count();) {
        if (is_wanted(i) && ssm_load_relaxed_u32(&board->over) == 0)
            try_one(i);
        ssm_store_release_u32(&board->tries[i].done, 1);
    }
}

static void start(uint32_t job, int first_cpu)
{
    if (fork() != 0)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int error = stepper_init(first_cpu, job);
    if (error != 0) {
        printf("ptrace is not permitted here: %s\n", strerror(-error));
        fflush(stdout);
        _exit(CANNOT_TRACE);
    }
    work();
    _exit(0);
}

/* In order, as they get ready. False: a job ended before its time. */
static bool print_rows(struct row *sum, uint32_t *running, int *status)
{
    for (uint32_t i = 0; i < row_count(); i++) {
        while (ssm_load_acquire_u32(&board->tries[i].done) == 0) {
            while (*running > 0 && waitpid(-1, status, WNOHANG) > 0)
                if (--*running == 0 || *status != 0)
                    return ssm_load_acquire_u32(&board->tries[row_count() - 1].done) != 0 && *status == 0;
            ssm_nap_ns(POLL_NS);
        }
        struct row *row = &board->tries[i].row;
        row->operation = name_of(i);
        table_sum(sum, row);
        if (row->kills > 0 || table_violations(row) > 0)
            table_row(row, options.markdown);
    }
    return true;
}

static int run(void)
{
    struct row sum = {.operation = options.markdown ? "**all**" : "all"};
    uint32_t running = options.jobs;
    int status = 0;
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (board == MAP_FAILED || row_count() > ROWS_MAX)
        return 2;
    table_head(options.markdown);
    const int first_cpu = sched_getcpu(); /* the jobs would not agree on it */
    for (uint32_t job = 0; job < options.jobs; job++)
        start(job, first_cpu);
    bool whole = print_rows(&sum, &running, &status);
    while (whole && running > 0 && waitpid(-1, &status, 0) > 0)
        running--;
    if (!whole && WIFEXITED(status) && WEXITSTATUS(status) == CANNOT_TRACE)
        return CANNOT_TRACE;
    if (!whole)
        printf("VIOLATION  a job ended before its time\n");
    table_row(&sum, options.markdown);
    return !whole || table_violations(&sum) > 0;
}

static bool parse(int argc, char **argv)
{
    static const struct option known[] = {
        {"only", required_argument, NULL, 'o'},    {"narrow", no_argument, NULL, 'n'},
        {"wide", no_argument, NULL, 'w'},          {"points", required_argument, NULL, 'p'},
        {"rescued", required_argument, NULL, 'r'}, {"double", required_argument, NULL, 'd'},
        {"jobs", required_argument, NULL, 'j'},    {"first", no_argument, NULL, 'f'},
        {"markdown", no_argument, NULL, 'm'},      {NULL, 0, NULL, 0},
    };
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;)
        switch (c) {
        case 'o': options.only = optarg; break;
        case 'n': options.sets[1] = false; break;
        case 'w': options.sets[0] = false; break;
        case 'p':
            options.points = strcmp(optarg, "all") == 0 ? UINT32_MAX - 1 : (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'r': options.rescued = (uint32_t)strtoul(optarg, NULL, 10); break;
        case 'd': options.doubles = (uint32_t)strtoul(optarg, NULL, 10); break;
        case 'j': options.jobs = (uint32_t)strtoul(optarg, NULL, 10); break;
        case 'f': options.first = true; break;
        case 'm': options.markdown = true; break;
        default:  return false;
        }
    return options.jobs > 0 && options.jobs <= JOBS_MAX && (options.sets[0] || options.sets[1]) && optind == argc;
}

int main(int argc, char **argv)
{
    if (parse(argc, argv))
        return run();
    fprintf(stderr,
            "usage: %s [--only TEXT] [--narrow | --wide] [--points N] [--rescued STATES] [--double STATES] "
            "[--jobs N] [--first] [--markdown]\n",
            argv[0]);
    return 2;
}
