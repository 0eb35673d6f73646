/* SPDX-License-Identifier: Apache-2.0
 *
 * The RMID allocator for BPF programs: the functions that rmid_allocator.bpf.h declares, on the core in rmid.h.
 *
 * rmid_allocator.bpf.h includes this file, so that they are inlined. Compiled by itself, it is an object to link with
 * (RMID_ALLOCATOR_OUT_OF_LINE), or to name beside the program in a list of sources, where it then adds nothing.
 */
#ifndef RMID_ALLOCATOR_BPF_C
#define RMID_ALLOCATOR_BPF_C

#if !defined(RMID_ALLOCATOR_BPF_H) && !defined(RMID_ALLOCATOR_OUT_OF_LINE)
#define RMID_ALLOCATOR_OUT_OF_LINE
#endif
#include "rmid_allocator.bpf.h"

RMID_ALLOCATOR_FN unsigned char rmid_init(struct rmid_allocator *allocator, al_rmid_u32 max_rmid,
                                          al_rmid_u64 min_free_time_ns)
{
    return al_rmid_init(&allocator->core, max_rmid, min_free_time_ns) == AL_RMID_OK;
}

RMID_ALLOCATOR_FN al_rmid_u32 rmid_alloc(struct rmid_allocator *allocator, al_rmid_u64 timestamp)
{
    al_rmid_u32 rmid = 0;

    return al_rmid_alloc(&allocator->core, timestamp, &rmid) == AL_RMID_OK ? rmid : 0;
}

RMID_ALLOCATOR_FN void rmid_free(struct rmid_allocator *allocator, al_rmid_u32 rmid, al_rmid_u64 timestamp)
{
    (void)al_rmid_free(&allocator->core, rmid, timestamp);
}

RMID_ALLOCATOR_FN unsigned char rmid_is_allocated(const struct rmid_allocator *allocator, al_rmid_u32 rmid)
{
    return (unsigned char)al_rmid_is_allocated(&allocator->core, rmid);
}

#endif
