/* SPDX-License-Identifier: Apache-2.0
 *
 * The world of one test: a small pool in a memory file, the processes that are attached to it, and what is known
 * of the packets in it. It is built once for each scenario; then its segment is put back from an image before each
 * try, so that a try costs a fork and no attaching.
 *
 * All actors are attached from the one process that drives the test. A child that plays an actor who may die opens
 * the file anew and takes the actor's liveness lock, as if it had attached itself: from then on the lock goes when
 * the child is killed. Children are forked without fork handlers, so the actor's private memory is in them as it was.
 *
 * Packets are stamped: a serial number, then words computed from it, all the payload full.
 */
#ifndef CRASH_WORLD_H
#define CRASH_WORLD_H

#include "attachment.h"

enum actor {
    SURVIVOR, /* an idle neighbour; does the checking */
    PEER,     /* holds packets, locks and blocks all through the test, and lives */
    VICTIM,   /* runs the operation */
    RESCUER,  /* the recoverer that is killed, too */
    DEAD,     /* somebody who died before, if the scenario says so */
    ACTORS
};
enum { RING_MANY, RING_ONE, RINGS };

enum {
    BLOCKS        = 32,
    BLOCK_SIZE    = 64,
    ARENA_PACKETS = 6,
    ARENA_BYTES   = 8 * 4096,
    GROW_BYTES    = 2 * 65536, /* of an arena that grows: two units, none of which is reserved at first */
    CACHE         = 4,         /* an eighth of the blocks */
    CAPACITY_MANY = 4,         /* all slots */
    CAPACITY_ONE  = 3,         /* of four slots */
    SERIALS       = 16,
    CALLS         = 8,   /* of one operation, at most */
    ITEMS         = 128, /* of a service */
};

#define NEW_TYPE "what the packets of a new ring are" /* if the victim says so */

/* What the victim says as it goes, in memory that outlives it. */
struct note {
    struct ssm_u32 stage; /* how many of its calls have returned */
    int32_t        results[CALLS];
    uint64_t       handles[BLOCKS];
    struct visit { /* of somebody who went on with the rings, and may have died, too */
        bool    put_begun, put_done, get_begun, get_done;
        int32_t put_result, get_result;
    } visits[RINGS];
    struct ssm_u64 over_ns;        /* when the victim was dead (and the peer had helped), for who is blocked */
    char           complaint[400]; /* a checker's; empty: none */
};

struct serials {
    uint64_t serial[SERIALS];
    uint32_t count;
};

/* What a ring may deliver afterwards: what was queued, less some taken from its front, then what was put. */
struct expectation {
    struct serials queued, put;
    uint32_t       put_stage;  /* once so many calls have returned, the put ones are there; 0: nothing is put */
    uint32_t       take_max;   /* so many may be gone with the dead */
    uint32_t       take_stage; /* once so many calls have returned: its result says how many, 0 stands for take_max */
};

struct held { uint64_t handle, serial; };

/* What is allocated from a service. */
struct books {
    struct ssm_service_item items[ITEMS];
    uint32_t                count;
};

struct world {
    int      fd;
    bool     wide;              /* holder sets of two words, the victim in the second */
    uint32_t ring_flags[RINGS]; /* RING_MANY: SSM_REDELIVER, or how it overflows; RING_ONE: whose its sides are */
    bool     arena;             /* the pool has one */
    uint64_t arena_bytes;       /* all that it can have */
    uint64_t built_ns;          /* when it was */
    uint32_t dummies;
    struct ssm_pool *pools[ACTORS];
    struct ssm_pool *crowd[128]; /* keep slots taken while the world is built; or all the time */
    struct ssm_ring *rings[ACTORS][RINGS];
    struct note     *note;
    uint8_t         *image; /* of the segment, before the operation */
    uint64_t         last_serial;

    struct expectation expect[RINGS];
    struct held        held[BLOCKS]; /* by the peer, or by an actor who lives */
    uint32_t           held_count;
    uint64_t           packets[BLOCKS]; /* the victim's, for its operation */
    uint32_t           packet_count;
    uint8_t            segments[64];  /* by serial: how many hang behind it, with the serials that follow */
    uint32_t           locked;        /* shards whose lock the peer has, as bits */
    bool               somebody_died; /* DEAD did */
    struct ssm_ring   *opened;        /* by the operation */
    struct ssm_ring   *kept;          /* by the peer, besides those that all have */
    struct ssm_ring   *quiet;         /* the rescuer's: nothing ever comes through it */

    struct ssm_service_options service; /* kind SSM_SERVICE_NONE: the scenario has none */
    struct ssm_service        *services[ACTORS];
    struct books               before, after; /* the operation */
    uint32_t wants[ACTORS]; /* of a semaphore: permits that one of the living has in the end, waiting for some */
    uint64_t value;         /* the victim's: a number, or where a range starts */
};

/* ---- making one: aborts where something fails -------------------------------------------------------------------- */

struct scenario;
void world_build(struct world *world, const struct scenario *scenario, bool wide);
struct ssm_ring_options world_ring_options(const struct world *world, int ring);
/* The scenario is prepared: takes the image; the victim's liveness lock is free for a child from here on. */
void world_seal(struct world *world);
/* The operation was done, undisturbed. */
void world_look_after(struct world *world);
void world_restore(struct world *world, const uint8_t *image);
void world_destroy(struct world *world);
uint64_t world_size(const struct world *world); /* of the segment, a multiple of 8 */
const uint8_t *world_segment(const struct world *world);
/* Of what is in an image, but for what differs from run to run: pids and times. It is the sum of what its words add. */
uint64_t world_hash(const struct world *world, const uint8_t *image);
uint64_t world_hash_word(const struct world *world, uint64_t at, uint64_t word);

/* In a child: it plays the actor. */
void world_become(struct world *world, enum actor actor);
/* In the driver: whether the rescuer lives there, or is free to be played. */
void world_rescuer_lives(struct world *world, bool lives);

/* A call of the operation returned. */
void world_returned(struct world *world, int result);

/* ---- preparing --------------------------------------------------------------------------------------------------- */

uint64_t world_alloc(struct world *world, enum actor actor, uint64_t *serial_out); /* a stamped packet */
void world_give(struct world *world, enum actor actor, uint32_t count); /* the victim's packets, made by actor */
void world_keep(struct world *world, enum actor actor, uint32_t count); /* held by actor, who lives */
uint64_t world_alloc_arena(struct world *world, enum actor actor, uint64_t bytes, uint64_t *serial_out);
void world_keep_arena(struct world *world, uint64_t bytes); /* held by the peer */
void world_keep_all(struct world *world);                   /* the peer takes what is there */
void world_queue(struct world *world, enum actor actor, int ring, uint32_t count);
void world_queue_shared(struct world *world);                     /* one, in both rings and held by the peer */
void world_rotate(struct world *world, int ring, uint32_t count); /* the ring has passed so many */
void world_unclaim(struct world *world, enum actor actor);        /* RING_ONE: its sides are nobody's */
void world_uncache(struct world *world, enum actor actor);
void world_lock_shard(struct world *world, uint32_t shard_idx);       /* the peer has it */
void world_bury(struct world *world, enum actor actor);               /* it died, and whoever reaps finds that */
void world_announce(struct world *world);                             /* somebody waits for a block */
uint64_t world_serial_of(const struct world *world, uint64_t handle); /* of a stamped packet */
void world_host(struct world *world, const struct ssm_service_options *options); /* a service, open to all */
void books_read(struct ssm_service *service, struct books *books_out);

/* ---- stamps ------------------------------------------------------------------------------------------------------ */

void stamp_write(uint64_t *payload, uint64_t serial);
bool stamp_is_whole(const uint64_t *payload);

#endif
