/* SPDX-License-Identifier: Apache-2.0
 *
 * Soak: many processes do random work on one pool and are killed, stopped and continued at random; others come and
 * go. Every payload carries a serial number and words computed from it, and memory outside the pool has what became
 * of every packet in every ring. After each round the books are balanced; the pool is never made anew.
 *
 *     ssm_soak [--seconds S] [--seed N] [--workers N] [--first] [--markdown]
 *
 * The seed repeats who does what and who is killed after which pause; not the timing. --first ends with the first thing
 * that is wrong.
 *
 * Counted at the end, and all behind `taken` have to be 0:
 *   kills, stops (SIGSTOP, later SIGCONT), comings and goings, packets got, values had from services
 *   taken    by a get that its process was killed in: gone with it, as documented; more than those gets asked for
 *            count as lost
 *   lost     a put of it had returned, and nobody got it
 *   twice    got twice from one ring, or from a service while somebody who lives had it
 *   torn     the payload is not what was put
 *   hangs    a worker that is not stopped did nothing for HANG_NS
 *   faults   an operation failed in a way that it may not, ssm_check() found something, blocks or values were missing
 */
#include "ssm.h"
#include "wait.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { RINGS = 3, BATCH = 4, HELD_MAX = 6, WORKERS_MAX = 16, SMALL = 96, LARGE = 16 };
enum { IDS = 200, PAGES = 256, VALUES_MAX = 5 };
#define PAGE       UINT64_C(4096)
#define SERIALS    (UINT32_C(1) << 21) /* of one round */
#define ROUND_NS   UINT64_C(2000000000)
#define HANG_NS    UINT64_C(5000000000)
#define TIMEOUT_NS INT64_C(3000000)

/* What became of a packet in a ring, as bits. */
enum fate { PUT_BEGUN = 1, PUT_RETURNED = 2, GOT = 4, TWICE = 8 };

struct worker { /* written by its process */
    struct ssm_u32 life; /* by the driver, which counts its starts and ends */
    struct ssm_u64 progress;
    struct ssm_u32 getting[RINGS]; /* a get is under way that asks for so many */
    struct ssm_u64 comings;
};

struct ledger {
    struct ssm_u32 next_serial, torn, twice, faults;
    struct ssm_u64 packets, values;
    struct ssm_u32 ids[IDS + 1], pages[PAGES]; /* who has it: life << 8 | worker + 1; 0: nobody */
    char           fault[200];
    struct worker  workers[WORKERS_MAX];
    struct ssm_u32 fates[SERIALS]; /* a byte for each ring */
};

struct hands {
    struct ssm_pool *pool;
    struct ssm_ring *rings[RINGS];
    struct worker   *self;
    uint64_t         held[HELD_MAX];
    uint32_t         held_count;
    struct ssm_service *ids, *pages;    /* the dead's ids come back by themselves, their pages do not */
    uint32_t         values[2][VALUES_MAX]; /* ids, pages */
    uint32_t         value_counts[2];
    uint32_t         mark;              /* of this life */
    uint64_t         random;
};

static struct ledger *ledger;
static int fd;
static uint32_t workers = 6;
static bool stop_at_first, markdown;

static const struct ssm_service_options pages_options = {
    .kind = SSM_SERVICE_ADDRESSES, .last = PAGES * PAGE - 1, .ranges = PAGES,
};

static uint64_t draw(uint64_t *state)
{
    uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static uint32_t below(uint64_t *state, uint32_t limit)
{
    return (uint32_t)(draw(state) % limit);
}

/* Most calls do not wait. */
static int64_t patience(struct hands *hands)
{
    return below(&hands->random, 8) == 0 ? TIMEOUT_NS : 0;
}

static void fault(const char *what, int result)
{
    if (ssm_add_acqrel_u32(&ledger->faults, 1) == 0)
        snprintf(ledger->fault, sizeof ledger->fault, "%s: %s (%d)", what, ssm_strerror(result), result);
}

static void mark(uint32_t serial, int ring, enum fate fate)
{
    ssm_or_acqrel_u32(&ledger->fates[serial], (uint32_t)fate << ring * 8);
}

static bool marked(uint32_t serial, int ring, enum fate fate)
{
    return ssm_load_acquire_u32(&ledger->fates[serial]) >> ring * 8 & (uint32_t)fate;
}

/* ---- payloads ---------------------------------------------------------------------------------------------------- */

static void stamp(struct ssm_packet *packet, uint32_t serial)
{
    uint64_t *words = (uint64_t *)packet->data, state = serial;
    words[0] = serial;
    for (uint64_t i = 1; i < packet->length / 8; i++)
        words[i] = draw(&state);
}

/* The serial number, or SERIALS when the packet is torn. */
static uint32_t read_stamp(struct ssm_pool *pool, uint64_t handle)
{
    struct ssm_packet packet;
    int result = ssm_packet_view(pool, handle, &packet);
    const uint64_t *words = (const uint64_t *)packet.data;
    if (result != 0) {
        fault("view", result);
        return SERIALS;
    }
    uint64_t state = words[0];
    bool whole = words[0] < SERIALS;
    for (uint64_t i = 1; whole && i < packet.length / 8; i++)
        whole = words[i] == draw(&state);
    if (whole)
        return (uint32_t)words[0];
    ssm_add_acqrel_u32(&ledger->torn, 1);
    return SERIALS;
}

/* ---- a worker's operations --------------------------------------------------------------------------------------- */

static void let_go(struct hands *hands, uint64_t handle)
{
    read_stamp(hands->pool, handle); /* nobody has written to it meanwhile */
    int result = ssm_free(hands->pool, handle);
    if (result != 0)
        fault("free", result);
}

static uint64_t take_from_hand(struct hands *hands)
{
    uint32_t i = below(&hands->random, hands->held_count);
    uint64_t handle = hands->held[i];
    hands->held[i] = hands->held[--hands->held_count];
    return handle;
}

static uint32_t make(struct hands *hands, uint32_t count, uint64_t *handles)
{
    uint64_t size = below(&hands->random, 8) == 0 ? 2000 : 16 + 8 * below(&hands->random, 24);
    struct ssm_packet packet;
    int result = ssm_alloc_many(hands->pool, size, count, patience(hands), handles);
    if (result != 0) {
        if (result != -SSM_E_EXHAUSTED)
            fault("alloc", result);
        return 0;
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t serial = ssm_add_acqrel_u32(&ledger->next_serial, 1);
        ssm_packet_view(hands->pool, handles[i], &packet);
        stamp(&packet, serial < SERIALS ? serial : SERIALS - 1);
    }
    return count;
}

/* True: the packets are the ring's (and still the caller's as well, with SSM_KEEP). */
static bool put(struct hands *hands, int ring, const uint64_t *handles, uint32_t count, uint32_t flags)
{
    uint32_t serials[BATCH];
    for (uint32_t i = 0; i < count; i++) {
        serials[i] = read_stamp(hands->pool, handles[i]);
        if (serials[i] >= SERIALS || marked(serials[i], ring, PUT_BEGUN))
            return false; /* a packet goes through a ring once, for the ledger's sake */
    }
    for (uint32_t i = 0; i < count; i++)
        mark(serials[i], ring, PUT_BEGUN);
    int result = ssm_ring_put(hands->rings[ring], handles, count, flags, patience(hands));
    for (uint32_t i = 0; i < count && result == 0; i++)
        mark(serials[i], ring, PUT_RETURNED);
    if (result != 0 && result != -SSM_E_FULL && result != -SSM_E_BUSY)
        fault("put", result);
    return result == 0;
}

static void put_new(struct hands *hands)
{
    uint64_t handles[BATCH];
    uint32_t count = make(hands, 1 + below(&hands->random, BATCH), handles);
    if (count > 0 && !put(hands, (int)below(&hands->random, RINGS), handles, count, 0))
        for (uint32_t i = 0; i < count; i++)
            let_go(hands, handles[i]);
}

static void fan_out(struct hands *hands)
{
    uint64_t handle;
    if (make(hands, 1, &handle) == 0)
        return;
    for (int ring = 0; ring < RINGS; ring++)
        put(hands, ring, &handle, 1, SSM_KEEP);
    let_go(hands, handle);
}

static void hold(struct hands *hands)
{
    if (hands->held_count == HELD_MAX)
        let_go(hands, take_from_hand(hands));
    hands->held_count += make(hands, 1, &hands->held[hands->held_count]);
}

static void pass_on(struct hands *hands)
{
    if (hands->held_count == 0)
        return;
    uint64_t handle = take_from_hand(hands);
    if (!put(hands, (int)below(&hands->random, RINGS), &handle, 1, 0))
        let_go(hands, handle);
}

static void get(struct hands *hands)
{
    uint64_t handles[BATCH];
    int ring = (int)below(&hands->random, RINGS);
    uint32_t count = 1 + below(&hands->random, BATCH);
    ssm_store_release_u32(&hands->self->getting[ring], count);
    int got = ssm_ring_get(hands->rings[ring], handles, count, patience(hands));
    if (got < 0 && got != -SSM_E_EMPTY && got != -SSM_E_BUSY)
        fault("get", got);
    for (int i = 0; i < got; i++) {
        uint32_t serial = read_stamp(hands->pool, handles[i]);
        if (serial < SERIALS && marked(serial, ring, GOT))
            ssm_add_acqrel_u32(&ledger->twice, 1);
        if (serial < SERIALS)
            mark(serial, ring, GOT);
        ssm_add_acqrel_u64(&ledger->packets, 1);
    }
    ssm_store_release_u32(&hands->self->getting[ring], 0);
    for (int i = 0; i < got; i++)
        if (hands->held_count < HELD_MAX && below(&hands->random, 3) == 0)
            hands->held[hands->held_count++] = handles[i];
        else
            let_go(hands, handles[i]);
}

/* ---- services ---------------------------------------------------------------------------------------------------- */

enum { IDS_OF, PAGES_OF };

static struct ssm_u32 *owner_of(int kind, uint32_t value)
{
    return kind == IDS_OF ? &ledger->ids[value] : &ledger->pages[value];
}

/* Whoever has it lives, and is not about to be killed. */
static bool is_had(uint32_t mark)
{
    return mark != 0 && ssm_load_acquire_u32(&ledger->workers[(mark & 0xff) - 1].life) << 8 == (mark & ~UINT32_C(0xff));
}

static void have(struct hands *hands, int kind, uint32_t value)
{
    if (is_had(ssm_exchange_acqrel_u32(owner_of(kind, value), hands->mark)))
        ssm_add_acqrel_u32(&ledger->twice, 1);
    ssm_add_acqrel_u64(&ledger->values, 1);
    hands->values[kind][hands->value_counts[kind]++] = value;
}

static void give_up(struct hands *hands, int kind)
{
    uint32_t value = hands->values[kind][--hands->value_counts[kind]];
    if (ssm_exchange_acqrel_u32(owner_of(kind, value), 0) != hands->mark)
        ssm_add_acqrel_u32(&ledger->twice, 1);
    int result = kind == IDS_OF ? ssm_number_free(hands->ids, value, 0)
                                : ssm_range_free(hands->pages, value * PAGE, value * PAGE + PAGE - 1);
    if (result != 0)
        fault("free of a value", result);
}

static void use_ids(struct hands *hands)
{
    uint32_t id;
    if (hands->value_counts[IDS_OF] == VALUES_MAX || below(&hands->random, 3) == 0) {
        if (hands->value_counts[IDS_OF] > 0)
            give_up(hands, IDS_OF);
        return;
    }
    int result = ssm_number_alloc(hands->ids, 0, &id);
    if (result == 0)
        have(hands, IDS_OF, id);
    else if (result != -SSM_E_UNAVAILABLE)
        fault("alloc of an id", result);
}

/* Frees the ranges of the dead. The driver alone does so: of two, one would free what is somebody's again by then. */
static void bury(struct ssm_service *pages)
{
    struct ssm_service_item items[PAGES * 2];
    struct ssm_service_owner owner;
    int64_t count = ssm_service_list(pages, 0, UINT64_MAX, items, PAGES * 2);
    for (int64_t i = 0; i < count && i < PAGES * 2; i++)
        if (items[i].allocated && ssm_service_owner(pages, items[i].owner, &owner) == 0 && !owner.alive) {
            int result = ssm_range_free(pages, items[i].start, items[i].end);
            if (result != 0)
                fault("free of a dead process's range", result);
        }
}

static void use_pages(struct hands *hands)
{
    const struct ssm_range_request request = {.size = PAGE, .align = PAGE, .max = PAGES * PAGE - 1,
                                              .policy = below(&hands->random, 2) ? SSM_RANGE_FIRST : SSM_RANGE_LAST};
    uint64_t start;
    if (hands->value_counts[PAGES_OF] == VALUES_MAX || below(&hands->random, 3) == 0) {
        if (hands->value_counts[PAGES_OF] > 0)
            give_up(hands, PAGES_OF);
        return;
    }
    int result = ssm_range_alloc(hands->pages, &request, &start);
    if (result == 0)
        have(hands, PAGES_OF, (uint32_t)(start / PAGE));
    else if (result != -SSM_E_UNAVAILABLE)
        fault("alloc of a range", result);
}

/* ---- coming and going -------------------------------------------------------------------------------------------- */

static int come(struct hands *hands)
{
    static const struct ssm_ring_options options[RINGS] = {
        {.capacity = 64}, {.capacity = 5}, {.capacity = 16, .flags = SSM_ONE_PRODUCER | SSM_ONE_CONSUMER},
    };
    static const char *const names[RINGS] = {"many", "short", "one"};
    static const struct ssm_service_options ids = {
        .kind = SSM_SERVICE_IDS, .flags = SSM_RECLAIM, .first = 1, .last = IDS,
    };
    struct ssm_attach_options attach = {.name = "worker"};
    int result = ssm_pool_attach(fd, &attach, &hands->pool);
    for (int ring = 0; ring < RINGS && result == 0; ring++)
        result = ssm_ring_open(hands->pool, names[ring], &options[ring], &hands->rings[ring]);
    if (result == 0)
        result = ssm_service_open(hands->pool, "ids", &ids, &hands->ids);
    if (result == 0)
        result = ssm_service_open(hands->pool, "pages", &pages_options, &hands->pages);
    return result;
}

/* Sometimes with packets and ids in hand. */
static void leave(struct hands *hands)
{
    while (hands->value_counts[PAGES_OF] > 0)
        give_up(hands, PAGES_OF);
    while (hands->value_counts[IDS_OF] > 0)
        if (below(&hands->random, 4) != 0)
            give_up(hands, IDS_OF);
        else
            ssm_exchange_acqrel_u32(owner_of(IDS_OF, hands->values[IDS_OF][--hands->value_counts[IDS_OF]]), 0);
    while (hands->held_count > 0 && below(&hands->random, 4) != 0)
        let_go(hands, take_from_hand(hands));
    hands->held_count = 0;
    for (int ring = 0; ring < RINGS; ring++)
        ssm_ring_close(hands->rings[ring]);
    ssm_service_close(hands->ids);
    ssm_service_close(hands->pages);
    ssm_pool_destroy(hands->pool);
}

static void work(struct worker *self, uint64_t seed)
{
    uint32_t mark = ssm_load_acquire_u32(&self->life) << 8 | ((uint32_t)(self - ledger->workers) + 1);
    struct hands hands = {.self = self, .random = seed, .mark = mark};
    for (;;) {
        int result = come(&hands);
        if (result != 0) {
            fault("attach", result);
            _exit(1);
        }
        for (uint32_t left = 1 + below(&hands.random, 20000); left > 0; left--) {
            static void (*const acts[])(struct hands *) = {put_new, put_new,  fan_out,  hold,     pass_on, get,
                                                          get,     get,      use_ids,  use_pages};
            acts[below(&hands.random, sizeof acts / sizeof *acts)](&hands);
            ssm_add_acqrel_u64(&self->progress, 1);
            while (ssm_load_relaxed_u32(&ledger->next_serial) > SERIALS - 4096) { /* the round is over */
                ssm_add_acqrel_u64(&self->progress, 1);
                ssm_nap_ns(1000000);
            }
        }
        leave(&hands);
        ssm_add_acqrel_u64(&self->comings, 1);
    }
}

/* ---- the driver -------------------------------------------------------------------------------------------------- */

static struct {
    struct ssm_pool *pool;
    struct ssm_service *pages;
    pid_t    pids[WORKERS_MAX];
    uint64_t progress[WORKERS_MAX], since_ns[WORKERS_MAX]; /* when it last did something */
    uint64_t random;
    uint64_t kills, stops, comings, packets, values, taken, lost, twice, torn, hangs, faults;
    uint32_t allowed[RINGS]; /* of this round: what gets that were killed had asked for */
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
    work(&ledger->workers[i], seed);
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

static void disturb(void)
{
    struct ssm_reaped reaped;
    uint32_t i = below(&drive.random, workers);
    ssm_nap_ns(UINT64_C(100000) * (1 + below(&drive.random, 60)));
    switch (below(&drive.random, 8)) {
    case 0: stop_for_a_while(i); break;
    case 1: ssm_reap(drive.pool, &reaped); break;
    case 2: ssm_check(drive.pool, report, NULL); break; /* while everybody works */
    case 3: bury(drive.pages); break;
    default:
        end(i);
        start(i);
    }
    look_for_hangs();
}

/* ---- the books --------------------------------------------------------------------------------------------------- */

static void drain(struct hands *hands)
{
    uint64_t handle;
    for (int ring = 0; ring < RINGS; ring++)
        while (ssm_ring_get(hands->rings[ring], &handle, 1, 0) == 1) {
            uint32_t serial = read_stamp(hands->pool, handle);
            if (serial < SERIALS && marked(serial, ring, GOT))
                ssm_add_acqrel_u32(&ledger->twice, 1);
            if (serial < SERIALS)
                mark(serial, ring, GOT);
            ssm_add_acqrel_u64(&ledger->packets, 1);
            ssm_free(hands->pool, handle);
        }
}

static void balance_serials(void)
{
    uint32_t serials = ssm_load_acquire_u32(&ledger->next_serial);
    for (int ring = 0; ring < RINGS; ring++) {
        uint32_t missing = 0;
        for (uint32_t serial = 0; serial < serials && serial < SERIALS; serial++)
            missing += marked(serial, ring, PUT_RETURNED) && !marked(serial, ring, GOT);
        uint32_t lost = missing > drive.allowed[ring] ? missing - drive.allowed[ring] : 0;
        drive.taken += missing - lost;
        drive.lost += lost;
        drive.allowed[ring] = 0;
    }
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
        int result = ssm_alloc_many(pool, large ? 2000 : 1, count, 0, handles);
        if (result != 0)
            fault("blocks are missing", result);
        else if ((result = ssm_alloc(pool, large ? 2000 : 1, 0, &handles[count])) != -SSM_E_EXHAUSTED)
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

static bool is_enough(void)
{
    return stop_at_first && ssm_load_relaxed_u32(&ledger->torn) + ssm_load_relaxed_u32(&ledger->twice) +
                            ssm_load_relaxed_u32(&ledger->faults) + drive.hangs + drive.faults + drive.lost > 0;
}

static void play_round(uint64_t until_ns)
{
    struct hands hands = {0};
    for (uint32_t i = 0; i < workers; i++)
        start(i);
    while (ssm_now_ns() < until_ns && ssm_load_relaxed_u32(&ledger->next_serial) < SERIALS - 4096 && !is_enough())
        disturb();
    for (uint32_t i = 0; i < workers; i++)
        end(i);
    int result = come(&hands);
    if (result != 0) {
        fault("attach at the end of a round", result);
        return;
    }
    drain(&hands);
    balance_serials();
    balance_blocks(drive.pool);
    balance_values(&hands);
    leave(&hands);
    drive.values += ssm_exchange_acqrel_u64(&ledger->values, 0);
    drive.packets += ssm_exchange_acqrel_u64(&ledger->packets, 0);
    memset(ledger->fates, 0, sizeof ledger->fates);
    ssm_store_release_u32(&ledger->next_serial, 0);
}

/* A line, or a table of Markdown. */
static void print_counts(uint64_t seed, uint64_t seconds)
{
    const struct { const char *what; uint64_t count; } counts[] = {
        {"kills", drive.kills}, {"stops", drive.stops}, {"comings and goings", drive.comings},
        {"packets", drive.packets}, {"values", drive.values}, {"taken by the dead", drive.taken},
        {"lost", drive.lost}, {"twice", drive.twice}, {"torn", drive.torn}, {"hangs", drive.hangs}, {"faults", drive.faults},
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
    return drive.lost + drive.twice + drive.torn + drive.hangs + drive.faults == 0;
}

/* False: no pool could be made. */
static bool prepare(void)
{
    const struct ssm_pool_options options = {
        .classes = {{256, SMALL}, {2048, LARGE}}, .class_count = 2, .shards = 4, .cache = 8, .holders = 128,
        .headroom = 16, .tailroom = 16, .metadata_bytes = 65536,
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
        {"seconds", required_argument, NULL, 's'}, {"seed", required_argument, NULL, 'r'},
        {"workers", required_argument, NULL, 'w'}, {"first", no_argument, NULL, 'f'},
        {"markdown", no_argument, NULL, 'm'},      {NULL, 0, NULL, 0},
    };
    uint64_t seconds = 5, seed = ssm_now_ns() % 1000000;
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;)
        switch (c) {
        case 's': seconds = strtoull(optarg, NULL, 10); break;
        case 'r': seed = strtoull(optarg, NULL, 10); break;
        case 'w': workers = (uint32_t)strtoul(optarg, NULL, 10); break;
        case 'f': stop_at_first = true; break;
        case 'm': markdown = true; break;
        default: workers = 0;
        }
    if (workers == 0 || workers > WORKERS_MAX || optind != argc) {
        fprintf(stderr, "usage: %s [--seconds S] [--seed N] [--workers 1..%d] [--first] [--markdown]\n", argv[0],
                WORKERS_MAX);
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
