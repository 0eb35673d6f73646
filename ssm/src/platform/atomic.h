/* SPDX-License-Identifier: Apache-2.0
 *
 * Atomics: the only file that touches <stdatomic.h>. The memory order is in the name of the operation, so that
 * a reader of the code never has to remember a default. Shared words are plain integers wrapped in a struct:
 * they cannot be read or written by accident.
 *
 * Where the order is left out (`_relaxed`), the caller says why a stale value is safe.
 *
 * A loop that repeats a compare-and-swap has no bound of its own: it fails only if another process or thread succeeded.
 * All other loops are bounded, or a comment says why they end.
 */
#ifndef SSM_ATOMIC_H
#define SSM_ATOMIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define SSM_CACHELINE         64
#define SSM_COLD              __attribute__((cold, noinline)) /* placed apart from the common path */
#define SSM_APART             __attribute__((noinline)) /* keeps its caller's fast path from saving registers for it */
#define SSM_LIKELY(condition) __builtin_expect(!!(condition), 1)
#define SSM_NO_SHARING        128 /* processors prefetch adjacent lines in pairs */

struct ssm_u32 { _Atomic uint32_t word; };
struct ssm_u64 { _Atomic uint64_t word; };

_Static_assert(sizeof(struct ssm_u32) == 4 && ATOMIC_INT_LOCK_FREE == 2, "lock-free 32-bit words");
_Static_assert(sizeof(struct ssm_u64) == 8 && ATOMIC_LLONG_LOCK_FREE == 2, "lock-free 64-bit words");

/* clang-format off */
#define SSM_ATOMIC_OPS(type, bits)                                                                              \
    static inline type ssm_load_relaxed_u##bits(const struct ssm_u##bits *a)                                    \
    { return atomic_load_explicit(&a->word, memory_order_relaxed); }                                            \
    static inline type ssm_load_acquire_u##bits(const struct ssm_u##bits *a)                                    \
    { return atomic_load_explicit(&a->word, memory_order_acquire); }                                            \
    static inline void ssm_store_relaxed_u##bits(struct ssm_u##bits *a, type v)                                 \
    { atomic_store_explicit(&a->word, v, memory_order_relaxed); }                                               \
    static inline void ssm_store_release_u##bits(struct ssm_u##bits *a, type v)                                 \
    { atomic_store_explicit(&a->word, v, memory_order_release); }                                               \
    static inline type ssm_exchange_acqrel_u##bits(struct ssm_u##bits *a, type v)                               \
    { return atomic_exchange_explicit(&a->word, v, memory_order_acq_rel); }                                     \
    static inline type ssm_add_acqrel_u##bits(struct ssm_u##bits *a, type v)                                    \
    { return atomic_fetch_add_explicit(&a->word, v, memory_order_acq_rel); }                                    \
    static inline type ssm_or_acqrel_u##bits(struct ssm_u##bits *a, type v)                                     \
    { return atomic_fetch_or_explicit(&a->word, v, memory_order_acq_rel); }                                     \
    static inline type ssm_and_acqrel_u##bits(struct ssm_u##bits *a, type v)                                    \
    { return atomic_fetch_and_explicit(&a->word, v, memory_order_acq_rel); }                                    \
    /* On failure *expected is what was found. */                                                               \
    static inline bool ssm_cas_acqrel_u##bits(struct ssm_u##bits *a, type *expected, type desired)              \
    { return atomic_compare_exchange_strong_explicit(&a->word, expected, desired, memory_order_acq_rel,         \
                                                     memory_order_acquire); }
/* clang-format on */
SSM_ATOMIC_OPS(uint32_t, 32)
SSM_ATOMIC_OPS(uint64_t, 64)

/* Orders an own store before an own load of another word (Dekker); both sides need one. */
/* clang-format off */
static inline void ssm_fence_seqcst(void) { atomic_thread_fence(memory_order_seq_cst); }
/* Keeps loads above it from sinking below loads or stores after it. */
static inline void ssm_fence_acquire(void) { atomic_thread_fence(memory_order_acquire); }
/* Keeps stores below it from rising above loads or stores before it. */
static inline void ssm_fence_release(void) { atomic_thread_fence(memory_order_release); }
/* clang-format on */
/* The cheap half of a Dekker pair whose other half runs membarrier, which fences this processor, too. It stops only the
 * compiler. `no_membarrier`: this process does not take part in membarrier, and needs a fence of its own. */
static inline void ssm_fence_light(bool no_membarrier)
{
    if (SSM_LIKELY(!no_membarrier))
        atomic_signal_fence(memory_order_seq_cst);
    else
        atomic_thread_fence(memory_order_seq_cst);
}

/* Fetches a line that is about to be written: a hint. */
static inline void ssm_prefetch(const void *address)
{
    __builtin_prefetch(address, 1);
}

static inline void ssm_cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#endif
}

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the segment's layout is little-endian"
#endif

#endif
