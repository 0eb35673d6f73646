/* SPDX-License-Identifier: Apache-2.0
 *
 * Pids: the numbers 0 .. order * 64 - 1, the smallest free one first, after the pid-allocator crate: words of 64
 * pids under summary words, so that allocation looks at one word per layer (layers.h; the picture is there). Not
 * the pids of the operating system. Two layers up to order 64, three up to 4096, any order up to 2^26.
 *
 * Process and thread safety: none, see flat.h.
 * Invariants: those of layers.h, verified by al_pid_check().
 * Crash rule: that of layers.h. An owner noted per pid outside (al_pid_peek(), note it, al_pid_take()) counts
 * exactly when the pid is allocated.
 */
#ifndef AL_PID_BITMAP_H
#define AL_PID_BITMAP_H

#include "layers.h"

AL_BEGIN

#define AL_PID_ORDER_MAX (UINT32_C(1) << 26)

/* In the caller's memory, followed by the words of the layers. */
struct al_pid_head {
    uint64_t              magic;
    uint32_t              order;
    uint32_t              reserved0;
    struct al_layers_head layers;
    uint64_t              reserved1[3];
};
AL_STATIC_ASSERT(sizeof(struct al_pid_head) == 64, "the layout is part of the format");

/* Private view. */
struct al_pid {
    struct al_pid_head *head;
    struct al_layers    layers;
};

uint64_t al_pid_size_bytes(uint32_t order); /* 0 when the order is 0 or above AL_PID_ORDER_MAX */

/* AL_INVALID_SIZE: such an order, or mem_bytes too few. mem is aligned to 8 bytes. */
int al_pid_init(struct al_pid *a, void *mem, uint64_t mem_bytes, uint32_t order);
int al_pid_attach(struct al_pid *a, void *mem, uint64_t mem_bytes);

/* The smallest free one. AL_NOT_AVAILABLE: all are in use. */
AL_INLINE int al_pid_alloc(struct al_pid *a, uint32_t *pid_out)
{
    uint64_t bit;
    int result = al_layers_find(&a->layers, &bit);

    if (result == AL_OK)
        result = al_layers_set(&a->layers, bit);
    if (result == AL_OK)
        *pid_out = (uint32_t)bit;
    return result;
}

/* In two steps, for a caller that must note something about the pid before it is allocated. */
AL_INLINE int al_pid_peek(const struct al_pid *a, uint32_t *pid_out)
{
    uint64_t bit;
    int result = al_layers_find(&a->layers, &bit);

    if (result == AL_OK)
        *pid_out = (uint32_t)bit;
    return result;
}

AL_INLINE int al_pid_take(struct al_pid *a, uint32_t pid)
{
    if (pid >= a->layers.bits)
        return AL_OUT_OF_RANGE;
    if (al_layers_is_set(&a->layers, pid))
        return AL_NOT_AVAILABLE;
    return al_layers_set(&a->layers, pid);
}

/* AL_OUT_OF_RANGE, AL_ALREADY_RELEASED: it is not allocated. */
AL_INLINE int al_pid_free(struct al_pid *a, uint32_t pid)
{
    if (pid >= a->layers.bits)
        return AL_OUT_OF_RANGE;
    if (!al_layers_is_set(&a->layers, pid))
        return AL_ALREADY_RELEASED;
    return al_layers_clear(&a->layers, pid);
}

AL_INLINE bool al_pid_is_allocated(const struct al_pid *a, uint32_t pid)
{
    return pid < a->layers.bits && al_layers_is_set(&a->layers, pid);
}

uint64_t al_pid_used_count(const struct al_pid *a);
int al_pid_next(const struct al_pid *a, uint32_t from, uint32_t *pid_out); /* lowest allocated >= from */

int al_pid_recover(struct al_pid *a);
uint64_t al_pid_check(const struct al_pid *a, al_report_fn report, void *context);

AL_END

#endif
