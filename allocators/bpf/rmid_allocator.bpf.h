/* SPDX-License-Identifier: Apache-2.0
 *
 * The RMID allocator for BPF programs: types and declarations. Include this file; the functions (rmid_allocator.bpf.c)
 * come with it, inlined, so they may be called while a bpf_spin_lock is held.
 *
 *     struct { __uint(type, BPF_MAP_TYPE_ARRAY); ... __type(value, struct rmid_allocator); } map SEC(".maps");
 *     if (!rmid_init(a, 512, 2000000)) ...              once
 *     __u32 rmid = rmid_alloc(a, bpf_ktime_get_ns());   0: none is free, or the first of them has not rested yet
 *     rmid_free(a, rmid, bpf_ktime_get_ns());
 *
 * A program of several source files may keep one copy of each function instead: define RMID_ALLOCATOR_OUT_OF_LINE
 * before the #include in all of them, and link with the object of rmid_allocator.bpf.c (bpftool gen object).
 *
 * Process and thread safety: none inside. One caller at a time: a bpf_spin_lock in the map's value, or one CPU.
 *
 * Needs no other header. Kernel and compiler: what rmid.h says, which is the core, and may be called directly.
 */
#ifndef RMID_ALLOCATOR_BPF_H
#define RMID_ALLOCATOR_BPF_H

/* The highest RMID there may be, fixed at compile time: define it before the #include for another one. */
#ifndef MAX_RMIDS
#define MAX_RMIDS 1024
#endif
#define AL_RMID_MAX ((unsigned int)(MAX_RMIDS))
#include "rmid.h"

/* 20 bytes an RMID of MAX_RMIDS rounded up to a power of two. User space may read it as a struct al_rmid. */
struct rmid_allocator { struct al_rmid core; };

#ifdef RMID_ALLOCATOR_OUT_OF_LINE
#define RMID_ALLOCATOR_FN __attribute__((visibility("hidden"))) /* hidden: verified where it is called */
#else
#define RMID_ALLOCATOR_FN AL_RMID_FN
#endif

/* All RMIDs 1 .. max_rmid free, none resting. Each one rests for min_free_time_ns after it was freed. False: max_rmid
 * is not one of 1 .. MAX_RMIDS, nothing was changed. */
RMID_ALLOCATOR_FN unsigned char rmid_init(struct rmid_allocator *allocator, al_rmid_u32 max_rmid,
                                          al_rmid_u64 min_free_time_ns);

/* The RMID that was freed first. 0: none is free, or that one has not rested for long enough. */
RMID_ALLOCATOR_FN al_rmid_u32 rmid_alloc(struct rmid_allocator *allocator, al_rmid_u64 timestamp);

/* Gives an RMID back; one that is not allocated is left as it is. */
RMID_ALLOCATOR_FN void rmid_free(struct rmid_allocator *allocator, al_rmid_u32 rmid, al_rmid_u64 timestamp);

RMID_ALLOCATOR_FN unsigned char rmid_is_allocated(const struct rmid_allocator *allocator, al_rmid_u32 rmid);

#ifndef RMID_ALLOCATOR_OUT_OF_LINE
#include "rmid_allocator.bpf.c"
#endif

#endif
