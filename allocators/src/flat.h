/* SPDX-License-Identifier: Apache-2.0
 *
 * What all allocators have in common: result codes, the report of a check, and the order of stores.
 *
 * Every structure here lives in flat memory that the caller supplies. It holds offsets and indices, never
 * pointers, in fields of fixed width, so the same bytes work in a private heap, in shared memory mapped at
 * different addresses, and (rmid.h) in a BPF map. A `struct al_id`, `al_pid` or `al_tree` is a private *view* of
 * such memory: it is checked once when it is made and remembers the layout, so that nothing read from the memory
 * later is ever trusted as a size or an offset.
 *
 *   al_X_size_bytes(params)           bytes the caller must supply
 *   al_X_init(view, mem, ...)         lay the structure out; contents before do not matter
 *   al_X_attach(view, mem, ...)       view of what another call has laid out
 *   al_X_recover(view)                finish or undo what a process left when it died inside an operation
 *   al_X_check(view, report, context) how many invariants are broken; each is reported
 *
 * Threads and processes: no locks in here. One caller at a time, which is the caller's business; whoever takes the
 * caller's lock over from a dead process calls al_X_recover(view) before anything else.
 */
#ifndef AL_FLAT_H
#define AL_FLAT_H

#include <stdint.h>

/* For C++: C linkage around what is declared, and its spelling of an assertion. */
#ifdef __cplusplus
#define AL_BEGIN                         extern "C" {
#define AL_END                           }
#define AL_STATIC_ASSERT(condition, why) static_assert(condition, why)
#else
#define AL_BEGIN
#define AL_END
#define AL_STATIC_ASSERT(condition, why) _Static_assert(condition, why)
#endif

/* Defined in a header to be inlined; the library has a copy for whoever calls it by name, or does not optimise. */
#define AL_INLINE inline

/* Needed of a C library, as the compiler knows them: memcpy, memset. And popcount, which may be one of libgcc's. */
#define AL_COPY(to, from, bytes) ((void)__builtin_memcpy(to, from, bytes))
#define AL_ZERO(at, bytes)       ((void)__builtin_memset(at, 0, bytes))

enum al_result {
    AL_OK                 = 0,
    AL_NOT_AVAILABLE      = -1, /* nothing free that fits, or no such range */
    AL_OVERFLOW           = -2, /* past the largest value that exists */
    AL_OUT_OF_RANGE       = -3, /* not a value this allocator manages */
    AL_ALREADY_RELEASED   = -4, /* was allocated once, is free now */
    AL_NEVER_ALLOCATED    = -5,
    AL_INVALID_RANGE      = -6,
    AL_INVALID_SIZE       = -7,
    AL_INVALID_ALIGNMENT  = -8,
    AL_UNALIGNED          = -9,
    AL_OVERLAP            = -10,
    AL_INVALID_TRANSITION = -11, /* the range is there, but not in the state the operation needs */
    AL_NO_MEMORY          = -12, /* the memory supplied is used up: grow it (al_X_grow), nothing was changed */
    AL_UNFINISHED         = -13, /* a process died inside an operation: al_X_recover(view) first */
    AL_CORRUPT            = -14, /* the memory contradicts itself; nothing was changed */
    AL_RESTING            = -15, /* free, but not for long enough (rmid.h) */
};

/* Told of each broken invariant: what, and two values that say where. */
typedef void (*al_report_fn)(void *context, const char *what, uint64_t where, uint64_t value);

/* Stores before it are not moved after it, nor the other way, by the compiler. That is all that surviving a kill
 * needs: a process dies between two instructions, all stores before that point happen and none after it. What
 * makes them visible to the next process in the right order is the caller's lock. */
#define AL_IN_ORDER() __asm__ volatile("" ::: "memory")

#endif
