/* SPDX-License-Identifier: Apache-2.0
 *
 * Calls that wait: a call tries, and sleeps on an event between two attempts, until one succeeds or its time is
 * over. */
#ifndef SSM_SLEEP_H
#define SSM_SLEEP_H

#include "attachment.h"

/* A wait that begins after an attempt returned `again`: it spins briefly, then announces itself, tries again, and
 * sleeps. `attempt` returns `again` if it has to go on; `thorough` says that it may take its time (false while
 * spinning). */
struct ssm_sleep {
    int (*attempt)(void *context, bool thorough);
    void             *context;
    int               again;
    struct ssm_event *event;
    uint32_t          class_idx; /* the class whose blocks are waited for, or SSM_NIL */
    uint32_t          other_idx; /* with a class: another one whose blocks would do as well, or the same */
    const uint64_t   *look_ns;   /* when to look again without a wake-up, set by the attempt; or NULL */
    const bool       *gone;      /* set once the event is not there any more (struct ssm_ring); or NULL */
};
int ssm_sleep_for(struct ssm_pool *pool, const struct ssm_sleep *wait, int64_t timeout_ns);

#endif
