/* SPDX-License-Identifier: Apache-2.0
 *
 * The permits of a counting semaphore, and the queue of the calls that wait for one; the core of a kind of service (hosted_semaphore.c).
 *
 * One caller at a time: the owner of the service's lock. There is one word for each permit, and each change of a permit is one
 * store of its word, so a death leaves no permit half given: it was given or it was not. A permit that comes free while calls
 * wait is granted at once to the call that has waited longest. So a newcomer takes none in front of it, and each permit wakes
 * one call. The call collects its permit when it wakes.
 *
 *   I16 no permit is free while a call has a place in the queue and no permit is granted to it
 *
 * What a process had when it died between two stores,
 *   of a grant: the waiter's hint is written, the permit is free    ssm_permits_grant() runs in the repair, and does it anew
 *   of a grant, before the waiter is woken                          the waiter looks by itself in time (eventcount.h)
 *   of a release: the permit is free, nobody has it granted         as in the first row
 *   of joining the queue: without a ticket                          no place is taken
 *   while it waits, or after a permit was granted to it             its reaper frees the permit and the place, and grants anew
 *   of collecting: the permit is taken, the place is there          likewise
 *   `used` differs from the words                                   the repair counts them
 * A process that is stopped while it waits keeps its place, and the permit that is granted to it, as if it had collected it.
 */
#ifndef SSM_PERMITS_H
#define SSM_PERMITS_H

#include "allocators.h"
#include "eventcount.h"
#include "holder_set.h"

#define SSM_WAITERS_MAX 64u
#define SSM_NO_PLACE    SSM_WAITERS_MAX

/* A place in the queue. Written under the service's lock, but for `gone`. */
struct ssm_waiter {
    __attribute__((aligned(SSM_CACHELINE)))
    struct ssm_u64   ticket; /* smaller: it came earlier; 0: the place is free. Written last */
    struct ssm_u32   owner;
    struct ssm_u32   permit; /* which one was granted to it, and 1; a hint: the permit's word is the truth */
    struct ssm_u32   gone;   /* 1: its call gave up while the lock stayed taken; whoever has the lock next frees the place */
    struct ssm_event event;
};

struct ssm_permits_shared {
    uint64_t          count;   /* written once */
    struct ssm_u64    tickets; /* handed out so far */
    struct ssm_u64    used;    /* permits that are not free */
    struct ssm_event  crowd;   /* calls that wait without a place, for all are taken */
    struct ssm_waiter waiters[SSM_WAITERS_MAX];
    struct ssm_u64    words[]; /* 0: free; else SSM_PERMIT_TAKEN | place << 32 | owner, with a place while it is granted */
};

#define SSM_PERMIT_TAKEN (UINT64_C(1) << 63)

/* A private view: `count` was checked. */
struct ssm_permits {
    struct ssm_permits_shared *shared;
    uint32_t                   count;
};

/* Takes a free one: AL_OK; AL_NOT_AVAILABLE. `from` is where to begin to look, and where it was found. */
int ssm_permits_take(struct ssm_permits *permits, uint32_t owner, uint32_t *from);
/* Frees `number` of the owner's, all or none: AL_OK; AL_ALREADY_RELEASED: it has not as many. What is granted does not count. */
int ssm_permits_give(struct ssm_permits *permits, uint32_t owner, uint32_t number, uint32_t from);
/* How many the owner has. */
uint32_t ssm_permits_held(const struct ssm_permits *permits, uint32_t owner);

/* Grants free permits to calls that wait, the first one first. Returns the places of those that are to be woken once the lock
 * has been released, a bit for each. `crowd_out`: a place came free, and a call without one is to be woken. */
uint64_t ssm_permits_grant(struct ssm_permits *permits, bool *crowd_out);
void     ssm_permits_wake(struct ssm_permits *permits, uint64_t places, bool crowd);

/* Joins the queue. The place, or SSM_NO_PLACE: all are taken. *ticket 0: a new one; else the one of a call that waited before. */
uint32_t ssm_permits_join(struct ssm_permits *permits, uint32_t owner, uint64_t *ticket);
/* Is the place still that call's? */
bool ssm_permits_has_place(const struct ssm_permits *permits, uint32_t place, uint32_t owner, uint64_t ticket);
/* Collects what was granted to the place, which is free then. False: nothing was. */
bool ssm_permits_collect(struct ssm_permits *permits, uint32_t place);
/* Leaves the queue; a permit that was granted is free then. The caller grants anew. */
void ssm_permits_leave(struct ssm_permits *permits, uint32_t place);

/* After a death inside an operation: counts the permits that are used, and grants those that are free. */
void ssm_permits_recover(struct ssm_permits *permits);
/* Frees the permits and the places of these holder slots, and grants what came free. */
void ssm_permits_forget(struct ssm_permits *permits, const struct ssm_holder_set *slots);
/* Reports each contradiction; how many. */
uint64_t ssm_permits_check(const struct ssm_permits *permits, al_report_fn report, void *context);
/* The first permit from there on that is not free. */
bool ssm_permits_next(const struct ssm_permits *permits, uint64_t from, uint32_t *permit_out, uint32_t *owner_out);

#endif
