/* SPDX-License-Identifier: Apache-2.0
 *
 * Ids: see id.h for what it is, its invariants and its crash rule.
 */
#include "id.h"

/* The library's copies of what the header inlines. */
extern int al_id_find_(const struct al_id *a, uint64_t *bit_out);
extern int al_id_set_(struct al_id *a, uint64_t bit);
extern int al_id_alloc(struct al_id *a, uint32_t *id_out);
extern int al_id_peek(const struct al_id *a, uint32_t *id_out);
extern int al_id_take(struct al_id *a, uint32_t id);
extern int al_id_free(struct al_id *a, uint32_t id);
extern bool al_id_is_allocated(const struct al_id *a, uint32_t id);

#define ID_MAGIC UINT64_C(0x3130306469006c61) /* "al\0id001" */

uint64_t al_id_size_bytes(uint64_t capacity)
{
    if (capacity == 0 || capacity > AL_LAYERS_BITS_MAX)
        return 0;
    return sizeof(struct al_id_head) + al_layers_word_count(capacity) * sizeof(uint64_t);
}

static void map(struct al_id *a, void *mem, uint32_t range_base, uint32_t range_end, uint64_t capacity)
{
    a->head = mem;
    a->range_base = range_base;
    a->range_end = range_end;
    al_layers_map(&a->layers, &a->head->layers, (uint64_t *)(a->head + 1), capacity);
}

static int capacity_check(uint64_t mem_bytes, uint32_t range_base, uint32_t range_end, uint64_t capacity)
{
    if (range_end < range_base)
        return AL_INVALID_RANGE;
    if (capacity == 0 || capacity > (uint64_t)range_end - range_base + 1 || mem_bytes < al_id_size_bytes(capacity))
        return AL_INVALID_SIZE;
    return AL_OK;
}

int al_id_init(struct al_id *a, void *mem, uint64_t mem_bytes, uint32_t range_base, uint32_t range_end,
               uint64_t capacity)
{
    int result = capacity_check(mem_bytes, range_base, range_end, capacity);

    if (result != AL_OK)
        return result;
    map(a, mem, range_base, range_end, capacity);
    *a->head = (struct al_id_head){.range_base = range_base, .range_end = range_end, .capacity = capacity};
    al_layers_clear_all(&a->layers);
    AL_IN_ORDER();
    a->head->magic = ID_MAGIC;
    return AL_OK;
}

int al_id_attach(struct al_id *a, void *mem, uint64_t mem_bytes)
{
    const struct al_id_head *h = mem;

    if (mem_bytes < sizeof *h || h->magic != ID_MAGIC)
        return AL_CORRUPT;
    uint32_t range_base = h->range_base, range_end = h->range_end;
    uint64_t capacity = h->capacity;
    if (capacity_check(mem_bytes, range_base, range_end, capacity) != AL_OK)
        return AL_CORRUPT;
    map(a, mem, range_base, range_end, capacity);
    return AL_OK;
}

int al_id_grow(struct al_id *dst, void *mem, uint64_t mem_bytes, uint64_t capacity, const struct al_id *src)
{
    if (capacity < src->layers.bits)
        return AL_INVALID_SIZE;
    int result = al_id_init(dst, mem, mem_bytes, src->range_base, src->range_end, capacity);
    if (result != AL_OK)
        return result;
    al_layers_copy(&dst->layers, &src->layers);
    dst->head->next = src->head->next;
    return AL_OK;
}

uint64_t al_id_used_count(const struct al_id *a)
{
    return a->head->layers.used;
}

int al_id_next(const struct al_id *a, uint32_t from, uint32_t *id_out)
{
    uint64_t start = from > a->range_base ? (uint64_t)from - a->range_base : 0;
    uint64_t bit = al_layers_next_set(&a->layers, start);

    if (bit >= a->layers.bits)
        return AL_NOT_AVAILABLE;
    *id_out = a->range_base + (uint32_t)bit;
    return AL_OK;
}

int al_id_recover(struct al_id *a)
{
    int result = al_layers_recover(&a->layers);

    if (result != AL_OK)
        return result;
    uint64_t next = a->head->next;
    if (next < a->layers.bits && al_layers_is_set(&a->layers, next))
        a->head->next = next + 1; /* one at most: nothing is handed out above next */
    return AL_OK;
}

uint64_t al_id_check(const struct al_id *a, al_report_fn report, void *context)
{
    uint64_t broken = al_layers_check(&a->layers, report, context);
    uint64_t next = a->head->next;
    uint64_t above = next > a->layers.bits ? next : al_layers_next_set(&a->layers, next);

    if (above != a->layers.bits) {
        broken++;
        if (report)
            report(context, "id I5: allocated although never handed out (id, next)", above, next);
    }
    return broken;
}
