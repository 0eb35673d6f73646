/* SPDX-License-Identifier: Apache-2.0
 *
 * What the loader and the BPF programs say to each other: the packet that BPF_PROG_TEST_RUN passes in and out.
 */
#ifndef TESTS_RMID_REQUEST_H
#define TESTS_RMID_REQUEST_H

#include "rmid_allocator.bpf.h"

struct rmid_request {
    al_rmid_u64 now_ns;
    al_rmid_u64 min_free_time_ns;
    al_rmid_u32 rmid; /* in: to free or ask for; out: what was allocated */
    al_rmid_u32 max_rmid;
    int         result;
    al_rmid_u32 used;
    al_rmid_u64 padding[4]; /* XDP wants at least an Ethernet header */
};

#endif
