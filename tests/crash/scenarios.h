/* SPDX-License-Identifier: Apache-2.0
 *
 * What the victim does, and in which state: one operation of the public interface each. */
#ifndef CRASH_SCENARIOS_H
#define CRASH_SCENARIOS_H

#include "world.h"

/* A call of the survivor that is under way all the time, and must come to an end. */
enum block { NOBODY, ON_ALLOC, ON_GET, ON_PUT, ON_PERMIT };

struct scenario {
    const char *name;
    void (*prepare)(struct world *world);
    void (*operate)(struct world *world); /* the victim */
    int        results[CALLS];            /* of its calls when it is not killed, or the test is not what it says */
    enum block blocked;
    int        refusal;    /* what the survivor's call may also answer; 0: nothing else */
    uint32_t   many_flags; /* of RING_MANY: SSM_REDELIVER, or how it overflows */
    uint32_t   one_flags;  /* of RING_ONE; 0: each of its sides is one process's */
    bool       arena;      /* the pool has one */
    bool       grows;      /* and it grows */
    bool       attaches;   /* the operation opens the file anew */
};

extern const struct scenario pool_scenarios[], chain_scenarios[], redelivery_scenarios[], overflow_scenarios[],
    topic_scenarios[], call_scenarios[], arena_scenarios[], service_scenarios[];
extern const uint32_t pool_scenario_count, chain_scenario_count, redelivery_scenario_count, overflow_scenario_count,
    topic_scenario_count, call_scenario_count, arena_scenario_count, service_scenario_count;

#endif
