/* SPDX-License-Identifier: Apache-2.0
 *
 * A call that sleeps: it tries, and sleeps on an event between two attempts, until one succeeds or its time is over. */
#ifndef SSM_SLEEP_H
#define SSM_SLEEP_H

#include "attachment.h"

/* Blocking, after an attempt that answered `again`: spins briefly, then announces itself, tries again, sleeps.
 * `attempt` answers `again` to go on; `thorough`: it may take its time (not set while spinning). */
struct ssm_sleep {
    int (*attempt)(void *context, bool thorough);
    void *context;
    int   again;
    struct ssm_event *event;
    uint32_t class_idx; /* the class whose blocks are waited for, or SSM_NIL */
    const uint64_t *look_ns; /* when to look again, though nothing has come; as the attempt has set it; or NULL */
};
int ssm_sleep_for(struct ssm_pool *pool, const struct ssm_sleep *wait, int64_t timeout_ns);

#endif
