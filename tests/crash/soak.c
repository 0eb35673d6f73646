/* SPDX-License-Identifier: Apache-2.0
 *
 * Soak: many processes do random work on one pool (hands.c) and are killed, stopped and continued at random; others come
 * and go. Every payload carries a serial number and words computed from it, and memory outside the pool has what became
 * of every packet in every ring. After each round the books are balanced; the pool is never made anew, but for one beside it
 * that grows (growing.c). Each third round is calm: nobody is killed or stopped, all end by themselves, and no wait may have
 * been ended by a look.
 *
 *     ssm_soak [--seconds S] [--seed N] [--workers N] [--calm] [--first] [--markdown]
 *
 * The seed repeats who does what and who is killed after which pause; not the timing. --first ends with the first thing
 * that is wrong; --calm has no other rounds.
 *
 * Counted at the end, and all behind `taken` have to be 0:
 *   kills, stops (SIGSTOP, later SIGCONT), comings and goings, packets got, values had from services
 *   taken    by a get that its process was killed in: gone with it, as documented; more than those gets asked for
 *            count as lost
 *   given up by the lossy rings, new packets or old ones
 *   lost     a put of it had returned, nobody got it, and no ring gave it up; or it is a job that nobody ended
 *   twice    got twice from one ring, or from a service while somebody who lives had it; or a job that was ended
 *   torn     the payload is not what was put, or a chain has not the packets that it had
 *   hangs    a worker that is not stopped did nothing for HANG_NS
 *   late     waits in a calm round that nobody ended, though what they waited for was there
 *   faults   an operation failed in a way that it may not, ssm_check() found something, blocks or values were missing
 */
#include "soak.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HOLDERS = 128 };
#define ROUND_NS UINT64_C(2000000000)
#define HANG_NS  UINT64_C(5000000000)
#define CALM     3                     /* each such round is */
#define END_NS   UINT64_C(20000000000) /* by then a calm round's workers have left */

struct ledger *ledger;
static int fd;
static uint32_t workers = 6;
static bool stop_at_first, markdown, always_calm;

/* ---- the driver -------------------------------------------------------------------------------------------------- */

static struct {
    struct ssm_pool *pool;
    struct ssm_service *pages;
    pid_t pids[WORKERS_MAX];
    uint64_t progress[WORKERS_MAX], since_ns[WORKERS_MAX]; /* when it last did something */
    uint64_t random;
    uint64_t kills, stops, rounds, calm_rounds, comings, packets, values, taken, lost, twice, torn, hangs, late, faults;
    uint64_t allowed[RINGS];  /* of this round: what calls that were killed would have taken out */
    uint64_t given_up[RINGS]; /* by a lossy ring, ever */
} drive;

static void start(uint32_t i)
{
    uint64_t seed = draw(&drive.random);
    memset(ledger->workers[i].getting, 0, sizeof ledger->workers[i].getting);
    ssm_add_acqrel_u32(&ledger->workers[i].life, 1);
    drive.since_ns[i] = ssm_now_ns();
    drive.pids[i] = fork();
    if (drive.pids[i] != 0)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    work(fd, &ledger->workers[i], seed);
}

static void end(uint32_t i)
{
    ssm_add_acqrel_u32(&ledger->workers[i].life, 1); /* what it has may be had by others from now on */
    kill(drive.pids[i], SIGKILL);
    waitpid(drive.pids[i], NULL, 0);
    drive.kills++;
    for (int ring = 0; ring < RINGS; ring++)
        drive.allowed[ring] += ssm_load_acquire_u32(&ledger->workers[i].getting[ring]);
}

static void look_for_hangs(void)
{
    uint64_t now_ns = ssm_now_ns();
    for (uint32_t i = 0; i < workers; i++) {
        uint64_t progress = ssm_load_acquire_u64(&ledger->workers[i].progress);
        if (progress != drive.progress[i]) {
            drive.progress[i] = progress;
            drive.since_ns[i] = now_ns;
        } else if (now_ns - drive.since_ns[i] > HANG_NS) {
            drive.hangs++;
            drive.since_ns[i] = now_ns;
        }
    }
}

static void stop_for_a_while(uint32_t i)
{
    kill(drive.pids[i], SIGSTOP);
    drive.stops++;
    ssm_nap_ns(UINT64_C(1000000) * (1 + below(&drive.random, 40)));
    if (below(&drive.random, 3) == 0) {
        end(i);
        start(i);
    } else {
        kill(drive.pids[i], SIGCONT);
    }
}

static void report(void *context, const char *sentence)
{
    (void)context;
    if (drive.faults++ == 0)
        printf("ssm_check: %s\n", sentence);
}

static void disturb(bool calm)
{
    struct ssm_reaped reaped;
    uint32_t i = below(&drive.random, workers);
    ssm_nap_ns(UINT64_C(100000) * (1 + below(&drive.random, 60)));
    switch (calm ? 1 + below(&drive.random, 3) : below(&drive.random, 8)) {
    case 0:  stop_for_a_while(i); break;
    case 1:  ssm_reap(drive.pool, &reaped); break;
    case 2:  ssm_check(drive.pool, report, NULL); break; /* while everybody works */
    case 3:  bury(drive.pages); break;
    default: end(i); start(i);
    }
    look_for_hangs();
}

/* ---- the books --------------------------------------------------------------------------------------------------- */

static void drain(struct hands *hands)
{
    uint64_t handle;
    for (int ring = 0; ring < RINGS; ring++)
        while (take(hands, ring, &handle, 1, 0) == 1) {
            if (ring == JOBS)
                job_done(hands, handle);
            ssm_free(hands->pool, handle);
        }
}

static uint64_t drops_of(enum soak_ring ring)
{
    struct ssm_ring_stats stats;
    for (uint32_t holder = 0; holder < HOLDERS; holder++)
        if (ssm_ring_stats(drive.pool, holder, &stats) == 0 && strcmp(stats.name, ring_names[ring]) == 0)
            return stats.drops;
    return 0; /* nobody came as far as to open it */
}

/* How many more it gave up since the last time. */
static uint64_t newly_given_up(enum soak_ring ring)
{
    uint64_t before = drive.given_up[ring];
    drive.given_up[ring] = drops_of(ring);
    return drive.given_up[ring] - before;
}

static void balance_serials(void)
{
    uint32_t serials = ssm_load_acquire_u32(&ledger->next_serial);
    newly_given_up(OLDEST); /* new ones, of which no put said that they were in the ring */
    for (int ring = 0; ring < RINGS; ring++) {
        uint64_t missing = 0, given_up = ring == NEWEST ? newly_given_up(NEWEST) : 0;
        for (uint32_t serial = 0; serial < serials && serial < SERIALS; serial++)
            missing += marked(serial, ring, PUT_RETURNED) && !marked(serial, ring, ring == JOBS ? DONE_BEGUN : GOT);
        missing -= missing < given_up ? missing : given_up;
        uint64_t lost = missing > drive.allowed[ring] ? missing - drive.allowed[ring] : 0;
        drive.taken += missing - lost;
        drive.lost += lost;
        drive.allowed[ring] = 0;
    }
}

static void balance_arena(struct ssm_pool *pool)
{
    struct ssm_arena_stats stats;
    int result = ssm_arena_stats(pool, &stats);
    if (result != 0 || stats.used != 0 || stats.largest != ARENA_BYTES || stats.free != ARENA_PACKETS)
        fault("the arena is not one free range", result);
}

static void balance_blocks(struct ssm_pool *pool)
{
    static uint64_t handles[SMALL + 1];
    struct ssm_reaped reaped;
    ssm_reap(pool, &reaped);
    if (ssm_check(pool, report, NULL) < 0)
        fault("check", -SSM_E_CORRUPT);
    for (int large = 0; large < 2; large++) {
        uint32_t count = large ? LARGE : SMALL;
        int result = ssm_alloc_many(pool, large ? LARGE_BYTES : 1, count, 0, handles);
        if (result != 0)
            fault("blocks are missing", result);
        else if ((result = ssm_alloc(pool, large ? LARGE_BYTES : 1, 0, &handles[count])) != -SSM_E_EXHAUSTED)
            fault("more blocks than there are", result);
        else
            ssm_free_many(pool, handles, count);
    }
}

/* All are dead, and reaped: nothing is left but free values. */
static void balance_values(struct hands *hands)
{
    struct ssm_service_item item;
    bury(hands->pages);
    int64_t ids = ssm_service_list(hands->ids, 0, UINT64_MAX, &item, 1);
    int64_t ranges = ssm_service_list(hands->pages, 0, UINT64_MAX, &item, 1);
    if (ids != 0)
        fault("ids that nobody has are not free", (int)ids);
    if (ranges != 1 || item.allocated || item.end != PAGES * PAGE - 1)
        fault("the address space is not one free range", (int)ranges);
    memset(ledger->ids, 0, sizeof ledger->ids);
    memset(ledger->pages, 0, sizeof ledger->pages);
}

static void balance_permits(const struct hands *hands)
{
    for (int i = 0; i <= PERMITS; i++) {
        int result = ssm_semaphore_acquire(hands->permits, 0, NULL);
        if ((result == 0) != (i < PERMITS))
            fault("there are not as many permits as there should be", result);
    }
    int result = ssm_semaphore_release(hands->permits, PERMITS);
    if (result != 0)
        fault("release of all permits", result);
    memset(ledger->permits, 0, sizeof ledger->permits);
}

static bool is_enough(void)
{
    return stop_at_first && ssm_load_relaxed_u32(&ledger->torn) + ssm_load_relaxed_u32(&ledger->twice) +
                                    ssm_load_relaxed_u32(&ledger->faults) + drive.hangs + drive.late + drive.faults +
                                    drive.lost >
                                0;
}

/* ---- calm rounds ------------------------------------------------------------------------------------------------- */

static uint64_t late_wakes(void)
{
    struct ssm_ring_stats ring;
    struct ssm_class_stats class;
    struct ssm_arena_stats arena;
    uint64_t late = growing_late_wakes();
    for (uint32_t holder = 0; holder < HOLDERS; holder++)
        if (ssm_ring_stats(drive.pool, holder, &ring) == 0)
            late += ring.late_wakes;
    for (uint32_t i = 0; i < 2; i++)
        if (ssm_class_stats(drive.pool, i, &class) == 0)
            late += class.late_wakes;
    return ssm_arena_stats(drive.pool, &arena) == 0 ? late + arena.late_wakes : late;
}

/* All come to an end by themselves. */
static void end_calmly(void)
{
    const uint64_t until_ns = ssm_now_ns() + END_NS;
    int status;
    ssm_store_release_u32(&ledger->over, 1);
    for (uint32_t i = 0; i < workers; i++) {
        while (waitpid(drive.pids[i], &status, WNOHANG) == 0 && ssm_now_ns() < until_ns)
            ssm_nap_ns(1000000);
        if (ssm_now_ns() >= until_ns) {
            drive.hangs++;
            end(i);
        } else if (status != 0) {
            fault("a worker's end", status);
        }
    }
    ssm_store_release_u32(&ledger->over, 0);
}

/* ---- rounds ------------------------------------------------------------------------------------------------------ */

static void work_for_a_round(uint64_t until_ns, bool calm)
{
    ssm_store_release_u32(&ledger->calm, calm);
    growing_renew();
    const uint64_t before = late_wakes();
    for (uint32_t i = 0; i < workers; i++)
        start(i);
    while (ssm_now_ns() < until_ns && ssm_load_relaxed_u32(&ledger->next_serial) < SERIALS_END && !is_enough())
        disturb(calm);
    if (calm)
        end_calmly();
    for (uint32_t i = 0; !calm && i < workers; i++)
        end(i);
    const uint64_t after = late_wakes();
    if (calm && after > before) /* below: a signal has taken one back since */
        drive.late += after - before;
    drive.rounds++;
    drive.calm_rounds += calm;
}

static void play_round(uint64_t until_ns)
{
    struct hands hands = {0};
    work_for_a_round(until_ns, always_calm || drive.rounds % CALM == CALM - 1);
    growing_balance();
    growing_renew();
    int result = come(fd, &hands);
    if (result != 0) {
        fault("attach at the end of a round", result);
        return;
    }
    drain(&hands);
    balance_serials();
    balance_blocks(drive.pool);
    balance_arena(drive.pool);
    balance_values(&hands);
    balance_permits(&hands);
    leave(&hands);
    growing_balance();
    drive.values += ssm_exchange_acqrel_u64(&ledger->values, 0);
    drive.packets += ssm_exchange_acqrel_u64(&ledger->packets, 0);
    memset(ledger->fates, 0, sizeof ledger->fates);
    ssm_store_release_u32(&ledger->next_serial, 0);
}

/* A line, or a table of Markdown. */
static void print_counts(uint64_t seed, uint64_t seconds)
{
    const struct {
        const char *what;
        uint64_t count;
    } counts[] = {
        {"kills", drive.kills},
        {"stops", drive.stops},
        {"rounds", drive.rounds},
        {"calm", drive.calm_rounds},
        {"comings and goings", drive.comings},
        {"packets", drive.packets},
        {"values", drive.values},
        {"taken by the dead", drive.taken},
        {"given up", drive.given_up[NEWEST] + drive.given_up[OLDEST]},
        {"lost", drive.lost},
        {"twice", drive.twice},
        {"torn", drive.torn},
        {"hangs", drive.hangs},
        {"late wakes", drive.late},
        {"faults", drive.faults},
    };
    const size_t columns = sizeof counts / sizeof *counts;
    if (!markdown) {
        printf("seed %lu, %lu s, %u workers:", (unsigned long)seed, (unsigned long)seconds, workers);
        for (size_t i = 0; i < columns; i++)
            printf("%s %lu %s", i > 0 ? "," : "", (unsigned long)counts[i].count, counts[i].what);
        printf("\n");
        return;
    }
    printf("| seed | seconds | workers |");
    for (size_t i = 0; i < columns; i++)
        printf(" %s |", counts[i].what);
    printf("\n|---:|---:|---:|");
    for (size_t i = 0; i < columns; i++)
        printf("---:|");
    printf("\n| %lu | %lu | %u |", (unsigned long)seed, (unsigned long)seconds, workers);
    for (size_t i = 0; i < columns; i++)
        printf(" %lu |", (unsigned long)counts[i].count);
    printf("\n");
}

static bool conclude(void)
{
    drive.torn = ssm_load_relaxed_u32(&ledger->torn);
    drive.twice = ssm_load_relaxed_u32(&ledger->twice);
    drive.faults += ssm_load_relaxed_u32(&ledger->faults);
    for (uint32_t i = 0; i < workers; i++)
        drive.comings += ssm_load_relaxed_u64(&ledger->workers[i].comings);
    if (ledger->fault[0] != 0)
        printf("fault: %s\n", ledger->fault);
    return drive.lost + drive.twice + drive.torn + drive.hangs + drive.late + drive.faults == 0;
}

/* False: no pool could be made. */
static bool prepare(void)
{
    const struct ssm_pool_options options = {
        .classes = {{256, SMALL}, {2048, LARGE}},
        .class_count = 2,
        .shards = 4,
        .cache = 8,
        .holders = HOLDERS,
        .headroom = 16,
        .tailroom = 16,
        .metadata_bytes = 262144,
        .arena_bytes = ARENA_BYTES,
        .arena_packets = ARENA_PACKETS,
    };
    const struct ssm_attach_options attach = {.name = "driver"};
    fd = memfd_create("ssm-soak", MFD_CLOEXEC);
    ledger = mmap(NULL, sizeof *ledger, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int result = ssm_pool_create(fd, &options, &attach, &drive.pool);
    if (result == 0)
        result = ssm_service_open(drive.pool, "pages", &pages_options, &drive.pages);
    if (result != 0 || ledger == MAP_FAILED)
        fprintf(stderr, "no pool: %s\n", ssm_strerror(result));
    return result == 0 && ledger != MAP_FAILED;
}

int main(int argc, char **argv)
{
    static const struct option known[] = {
        {"seconds", required_argument, NULL, 's'},
        {"seed", required_argument, NULL, 'r'},
        {"workers", required_argument, NULL, 'w'},
        {"first", no_argument, NULL, 'f'},
        {"markdown", no_argument, NULL, 'm'},
        {"calm", no_argument, NULL, 'c'},
        {NULL, 0, NULL, 0},
    };
    uint64_t seconds = 5, seed = ssm_now_ns() % 1000000;
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;)
        switch (c) {
        case 's': seconds = strtoull(optarg, NULL, 10); break;
        case 'r': seed = strtoull(optarg, NULL, 10); break;
        case 'w': workers = (uint32_t)strtoul(optarg, NULL, 10); break;
        case 'f': stop_at_first = true; break;
        case 'm': markdown = true; break;
        case 'c': always_calm = true; break;
        default:  workers = 0;
        }
    if (workers == 0 || workers > WORKERS_MAX || optind != argc) {
        fprintf(stderr, "usage: %s [--seconds S] [--seed N] [--workers 1..%d] [--calm] [--first] [--markdown]\n",
                argv[0], WORKERS_MAX);
        return 2;
    }
    if (!prepare())
        return 2;
    drive.random = seed;
    uint64_t end_ns = ssm_now_ns() + seconds * 1000000000u;
    for (uint64_t now_ns; (now_ns = ssm_now_ns()) < end_ns && !is_enough();)
        play_round(now_ns + ROUND_NS < end_ns ? now_ns + ROUND_NS : end_ns);
    bool well = conclude();
    print_counts(seed, seconds);
    return !well;
}
