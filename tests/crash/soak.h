/* SPDX-License-Identifier: Apache-2.0
 *
 * What the driver of the soak (soak.c) and its workers (hands.c) share: a ledger in memory outside the pool, which has what
 * became of every packet in every ring. */
#ifndef CRASH_SOAK_H
#define CRASH_SOAK_H

#include "ssm.h"
#include "eventcount.h"

/* Two are lossy: one gives up its oldest packets, the other refuses new ones. The last one redelivers. */
enum soak_ring { MANY, SHORT, ONE, NEWEST, OLDEST, JOBS, RINGS };
enum { HELD_MAX = 6, SECONDS_MAX = 4, WORKERS_MAX = 16, SMALL = 96, LARGE = 16, ARENA_PACKETS = 24 };
enum { IDS = 200, PAGES = 256, VALUES_MAX = 5, PERMITS = 3 };
#define PAGE        UINT64_C(4096)
#define ARENA_BYTES (64 * PAGE)
#define LARGE_BYTES 2000
#define SERIALS     (UINT32_C(1) << 21) /* of one round */
#define SERIALS_END (SERIALS - 4096)    /* then the round is over */

/* What became of a packet in a ring, as bits; a chain goes by its head. DONE: of a job, freed or put by whoever got it. */
enum fate { PUT_BEGUN = 1, PUT_RETURNED = 2, GOT = 4, DONE_BEGUN = 8, DONE = 16 };

struct worker {          /* written by its process */
    struct ssm_u32 life; /* by the driver, which counts its starts and ends */
    struct ssm_u64 progress;
    struct ssm_u32 getting[RINGS]; /* a call is under way that takes so many out at most */
    struct ssm_u64 comings;
};

struct ledger {
    struct ssm_u32 calm; /* nobody is killed or stopped in this round */
    struct ssm_u32 over; /* the round is: whoever works leaves, and ends */
    struct ssm_u32 next_serial, torn, twice, faults;
    struct ssm_u64 packets, values;
    struct ssm_u32 ids[IDS + 1], pages[PAGES]; /* who has it: life << 8 | worker + 1; 0: nobody */
    struct ssm_u64 permits[WORKERS_MAX];       /* of that worker: how many it has had, and its life, while it has one */
    char           fault[200];
    struct worker  workers[WORKERS_MAX];
    struct ssm_u64 fates[SERIALS]; /* a byte for each ring */
};

/* A process at the pool. */
struct hands {
    struct ssm_pool *pool;
    struct ssm_ring *rings[RINGS];
    struct worker   *self;
    uint64_t         held[HELD_MAX];
    uint32_t         held_count;
    struct second {
        uint64_t handle;
        bool     pinned;
    } seconds[SECONDS_MAX]; /* references that outlive their jobs */
    uint32_t            second_count;
    struct ssm_service *ids, *pages;           /* the dead's ids come back by themselves, their pages do not */
    uint32_t            values[2][VALUES_MAX]; /* ids, pages */
    uint32_t            value_counts[2];
    struct ssm_service *permits;
    bool                has_permit;
    uint32_t            acquired; /* permits, so far */
    struct ssm_pool    *growing;  /* a pool of its own, new in each round; see growing.c */
    struct ssm_ring    *passing;
    uint32_t            mark; /* of this life */
    uint64_t            random;
};

extern struct ledger *ledger;
extern const char *const ring_names[RINGS];
extern const struct ssm_service_options pages_options, permits_options;

static inline uint64_t draw(uint64_t *state)
{
    uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static inline uint32_t below(uint64_t *state, uint32_t limit)
{
    return (uint32_t)(draw(state) % limit);
}

static inline bool marked(uint32_t serial, int ring, enum fate fate)
{
    return ssm_load_acquire_u64(&ledger->fates[serial]) >> ring * 8 & (uint64_t)fate;
}

void fault(const char *what, int result);

int64_t patience(struct hands *hands); /* of a call: most do not wait */
/* Attaches, and opens all that there is; 0 or an error. */
int come(int fd, struct hands *hands);
void leave(struct hands *hands);                       /* sometimes with packets and ids in hand */
void work(int fd, struct worker *self, uint64_t seed); /* never returns; ends when the round is over */
void stamp(struct ssm_packet *packet, uint32_t serial);
uint32_t read_stamp(struct ssm_pool *pool, uint64_t handle); /* counts what is torn */
void job_done(struct hands *hands, uint64_t handle);         /* before it is freed */
/* Gets up to `count` packets, and says so in the ledger; how many, or an error. */
int take(struct hands *hands, int ring, uint64_t *handles_out, uint32_t count, int64_t timeout_ns);
/* Frees the ranges of the dead. The driver alone does so: of two, one would free what is somebody's again by then. */
void bury(struct ssm_service *pages);

/* ---- growing.c: a pool whose arena grows, while processes are killed in it ------------------------------------------ */

void growing_renew(void); /* by the driver, before a round */
int growing_come(struct hands *hands);
void growing_leave(struct hands *hands);
void growing_use(struct hands *hands);
void growing_balance(void); /* by the driver, after it: nothing is left */
uint64_t growing_late_wakes(void);

#endif
