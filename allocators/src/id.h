/* SPDX-License-Identifier: Apache-2.0
 *
 * Ids: integers of a closed range of u32, the smallest free one first. The semantics are those of the IdAllocator
 * of rust-vmm's vm-allocator; the structure is another: a layered bitmap (layers.h) and the first id never handed
 * out, so every operation looks at no more than six words.
 *
 * Ids never handed out cost nothing: the caller supplies memory for the first `capacity` ids of the range and, when
 * al_id_alloc() answers AL_NO_MEMORY, moves to a larger one with al_id_grow(). With capacity = the whole range it
 * never does. One id costs 1.02 bits.
 *
 * Process and thread safety: none, see flat.h.
 *
 * Invariants, verified by al_id_check(): those of layers.h, and
 *   I5  ids at or above `next` are clear: they have never been handed out
 *
 * Crash rule: that of layers.h. `next` is raised after the bit was set; al_id_recover() raises it if the process
 * died in between. An owner that is noted per id outside (al_id_peek(), note the owner, al_id_take()) counts
 * exactly when the id is allocated.
 */
#ifndef AL_ID_H
#define AL_ID_H

#include "layers.h"

AL_BEGIN

/* In the caller's memory, followed by the words of the layers. */
struct al_id_head {
    uint64_t              magic;
    uint32_t              range_base;
    uint32_t              range_end;
    uint64_t              capacity; /* ids that have memory, from range_base on */
    uint64_t              next;     /* the first one never handed out, relative to range_base */
    struct al_layers_head layers;
    uint64_t              reserved;
};
AL_STATIC_ASSERT(sizeof(struct al_id_head) == 64, "the layout is part of the format");

/* Private view. */
struct al_id {
    struct al_id_head *head;
    struct al_layers   layers;
    uint32_t           range_base;
    uint32_t           range_end;
};

/* 0 when the capacity is 0 or above 2^32. */
uint64_t al_id_size_bytes(uint64_t capacity);

/* AL_INVALID_RANGE: end before base. AL_INVALID_SIZE: mem_bytes too few, or a capacity of 0 or beyond the range.
 * mem is aligned to 8 bytes. */
int al_id_init(struct al_id *a, void *mem, uint64_t mem_bytes, uint32_t range_base, uint32_t range_end,
               uint64_t capacity);
int al_id_attach(struct al_id *a, void *mem, uint64_t mem_bytes);

/* Lay dst out in new, larger memory with everything src has. src is left as it is. */
int al_id_grow(struct al_id *dst, void *mem, uint64_t mem_bytes, uint64_t capacity, const struct al_id *src);

/* The smallest free one, relative to range_base. Private, as al_id_set_() is. */
AL_INLINE int al_id_find_(const struct al_id *a, uint64_t *bit_out)
{
    int result = al_layers_find(&a->layers, bit_out);

    if (result == AL_OK)
        return *bit_out <= a->head->next ? AL_OK : AL_CORRUPT;
    if (result != AL_NOT_AVAILABLE)
        return result;
    if (a->layers.bits < (uint64_t)a->range_end - a->range_base + 1)
        return AL_NO_MEMORY;
    return a->range_end == UINT32_MAX ? AL_OVERFLOW : AL_NOT_AVAILABLE;
}

AL_INLINE int al_id_set_(struct al_id *a, uint64_t bit)
{
    int result = al_layers_set(&a->layers, bit);

    if (result != AL_OK)
        return result;
    AL_IN_ORDER();
    if (bit == a->head->next)
        a->head->next = bit + 1;
    return AL_OK;
}

/* The smallest free id. AL_OVERFLOW once 2^32 - 1 has been handed out and none is free, AL_NOT_AVAILABLE when
 * another range is used up, AL_NO_MEMORY when the capacity is. */
AL_INLINE int al_id_alloc(struct al_id *a, uint32_t *id_out)
{
    uint64_t bit;
    int result = al_id_find_(a, &bit);

    if (result == AL_OK)
        result = al_id_set_(a, bit);
    if (result == AL_OK)
        *id_out = a->range_base + (uint32_t)bit;
    return result;
}

/* In two steps, for a caller that must note something about the id before it is allocated. */
AL_INLINE int al_id_peek(const struct al_id *a, uint32_t *id_out)
{
    uint64_t bit;
    int result = al_id_find_(a, &bit);

    if (result == AL_OK)
        *id_out = a->range_base + (uint32_t)bit;
    return result;
}

AL_INLINE int al_id_take(struct al_id *a, uint32_t id)
{
    if (id < a->range_base || id > a->range_end)
        return AL_OUT_OF_RANGE;
    uint64_t bit = (uint64_t)id - a->range_base;
    if (bit >= a->layers.bits)
        return AL_NO_MEMORY;
    if (bit > a->head->next || al_layers_is_set(&a->layers, bit))
        return AL_NOT_AVAILABLE;
    return al_id_set_(a, bit);
}

/* AL_OUT_OF_RANGE, AL_NEVER_ALLOCATED, AL_ALREADY_RELEASED. */
AL_INLINE int al_id_free(struct al_id *a, uint32_t id)
{
    if (id < a->range_base || id > a->range_end)
        return AL_OUT_OF_RANGE;
    uint64_t bit = (uint64_t)id - a->range_base;
    if (bit >= a->layers.bits || bit >= a->head->next)
        return AL_NEVER_ALLOCATED;
    if (!al_layers_is_set(&a->layers, bit))
        return AL_ALREADY_RELEASED;
    return al_layers_clear(&a->layers, bit);
}

AL_INLINE bool al_id_is_allocated(const struct al_id *a, uint32_t id)
{
    if (id < a->range_base || id > a->range_end)
        return false;
    uint64_t bit = (uint64_t)id - a->range_base;
    return bit < a->layers.bits && al_layers_is_set(&a->layers, bit);
}

uint64_t al_id_used_count(const struct al_id *a);

/* The lowest allocated id at or above `from`; AL_NOT_AVAILABLE when there is none. */
int al_id_next(const struct al_id *a, uint32_t from, uint32_t *id_out);

int al_id_recover(struct al_id *a);
uint64_t al_id_check(const struct al_id *a, al_report_fn report, void *context);

AL_END

#endif
