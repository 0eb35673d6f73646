/* SPDX-License-Identifier: Apache-2.0
 *
 * The permits of a counting semaphore, and the queue of the calls that wait for one: the core of a kind of service
 * (hosted_semaphore.c).
 *
 * The owner of the service's lock is the only caller. Each permit is one word, and each change of a permit is one store
 * into its word. So a death leaves no permit half given. A permit that comes free while calls wait is granted at once
 * to the call that has waited longest. So a newcomer cannot take it first, and each permit wakes one call. That call
 * collects its permit when it wakes.
 *
 *   I16 no permit is free while a call has a place in the queue and no permit is granted to it
 *
 * A death between two stores leaves:
 *   grant: the waiter's hint is written, the permit is free         the repair runs ssm_permits_grant() again
 *   grant, before the waiter is woken                               the waiter looks by itself in time (eventcount.h)
 *   release: the permit is free, and granted to nobody              as in the first row
 *   join: no ticket yet                                             the place is free
 *   wait, or a permit was granted meanwhile                         the reaper frees permit and place, and grants again
 *   collect: the permit is taken, the place is not free yet         likewise
 *   `used` differs from the words                                   the repair counts them
 * A process that is stopped while it waits keeps its place, and a permit that is granted to it counts as taken.
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
    __attribute__((aligned(
        SSM_CACHELINE))) struct ssm_u64 ticket; /* a smaller one came earlier; 0: the place is free. Written last */
    struct ssm_u32                      owner;
    struct ssm_u32                      permit; /* granted to it, + 1; a hint: the permit's word is the truth */
    struct ssm_u32                      gone; /* 1: its call gave up without the lock; the next owner frees the place */
    struct ssm_event                    event;
};

struct ssm_permits_shared {
    uint64_t          count;   /* written once */
    struct ssm_u64    tickets; /* handed out so far */
    struct ssm_u64    used;    /* permits that are not free */
    struct ssm_event  crowd;   /* calls that wait without a place, since all are taken */
    struct ssm_waiter waiters[SSM_WAITERS_MAX];
    struct ssm_u64    words[]; /* 0: free; or SSM_PERMIT_TAKEN | place << 32 | owner; place 0: collected */
};

#define SSM_PERMIT_TAKEN (UINT64_C(1) << 63)

/* A private view: `count` was checked. */
struct ssm_permits {
    struct ssm_permits_shared *shared;
    uint32_t                   count;
};

/* Takes a free permit. AL_OK or AL_NOT_AVAILABLE. `from` is where to begin the search, and where it ended. */
int ssm_permits_take(struct ssm_permits *permits, uint32_t owner, uint32_t *from);
/* Frees `number` permits of the owner, all or none. AL_OK, or AL_ALREADY_RELEASED if it has fewer, without granted
 * ones. */
int ssm_permits_give(struct ssm_permits *permits, uint32_t owner, uint32_t number, uint32_t from);
/* Counts the permits that the owner has collected. */
uint32_t ssm_permits_held(const struct ssm_permits *permits, uint32_t owner);

/* Grants free permits to calls that wait, in the order of their tickets. Returns their places, one bit each: the
 * caller wakes them when it has released the lock. `crowd_out`: a place came free, so a call without one is to be
 * woken, too. */
uint64_t ssm_permits_grant(struct ssm_permits *permits, bool *crowd_out);
void ssm_permits_wake(struct ssm_permits *permits, uint64_t places, bool crowd);

/* Joins the queue. Returns the place, or SSM_NO_PLACE if all are taken. *ticket: 0, then the call gets a new one; or
 * the one that it had before. */
uint32_t ssm_permits_join(struct ssm_permits *permits, uint32_t owner, uint64_t *ticket);
/* Does the place still belong to that call? */
bool ssm_permits_has_place(const struct ssm_permits *permits, uint32_t place, uint32_t owner, uint64_t ticket);
/* Takes the permit that was granted to the place, and frees the place. False if none was. */
bool ssm_permits_collect(struct ssm_permits *permits, uint32_t place);
/* Leaves the queue, and frees a permit that was granted. The caller grants again. */
void ssm_permits_leave(struct ssm_permits *permits, uint32_t place);

/* Repairs after a death inside an operation: counts the used permits, and grants the free ones. */
void ssm_permits_recover(struct ssm_permits *permits);
/* Frees the permits and places of these holder slots, and grants the permits. */
void ssm_permits_forget(struct ssm_permits *permits, const struct ssm_holder_set *slots);
/* Reports each contradiction, if `report` is not NULL; returns how many. */
uint64_t ssm_permits_check(const struct ssm_permits *permits, al_report_fn report, void *context);
/* Finds the first permit from `from` on that is not free. */
bool ssm_permits_next(const struct ssm_permits *permits, uint64_t from, uint32_t *permit_out, uint32_t *owner_out);

#endif
