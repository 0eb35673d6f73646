/* SPDX-License-Identifier: Apache-2.0
 *
 * Pids: see pid_bitmap.h for what it is, its invariants and its crash rule.
 */
#include "pid_bitmap.h"

/* The library's copies of what the header inlines. */
extern int al_pid_alloc(struct al_pid *a, uint32_t *pid_out);
extern int al_pid_peek(const struct al_pid *a, uint32_t *pid_out);
extern int al_pid_take(struct al_pid *a, uint32_t pid);
extern int al_pid_free(struct al_pid *a, uint32_t pid);
extern bool al_pid_is_allocated(const struct al_pid *a, uint32_t pid);

#define PID_MAGIC UINT64_C(0x3130646970006c61) /* "al\0pid01" */

uint64_t al_pid_size_bytes(uint32_t order)
{
    if (order == 0 || order > AL_PID_ORDER_MAX)
        return 0;
    return sizeof(struct al_pid_head) + al_layers_word_count((uint64_t)order * 64) * sizeof(uint64_t);
}

static void map(struct al_pid *a, void *mem, uint32_t order)
{
    a->head = mem;
    al_layers_map(&a->layers, &a->head->layers, (uint64_t *)(a->head + 1), (uint64_t)order * 64);
}

int al_pid_init(struct al_pid *a, void *mem, uint64_t mem_bytes, uint32_t order)
{
    uint64_t need_bytes = al_pid_size_bytes(order);

    if (need_bytes == 0 || mem_bytes < need_bytes)
        return AL_INVALID_SIZE;
    map(a, mem, order);
    *a->head = (struct al_pid_head){.order = order};
    al_layers_clear_all(&a->layers);
    AL_IN_ORDER();
    a->head->magic = PID_MAGIC;
    return AL_OK;
}

int al_pid_attach(struct al_pid *a, void *mem, uint64_t mem_bytes)
{
    const struct al_pid_head *h = mem;

    if (mem_bytes < sizeof *h || h->magic != PID_MAGIC)
        return AL_CORRUPT;
    uint32_t order = h->order;
    uint64_t need_bytes = al_pid_size_bytes(order);
    if (need_bytes == 0 || mem_bytes < need_bytes)
        return AL_CORRUPT;
    map(a, mem, order);
    return AL_OK;
}

uint64_t al_pid_used_count(const struct al_pid *a)
{
    return a->head->layers.used;
}

int al_pid_next(const struct al_pid *a, uint32_t from, uint32_t *pid_out)
{
    uint64_t bit = al_layers_next_set(&a->layers, from);

    if (bit >= a->layers.bits)
        return AL_NOT_AVAILABLE;
    *pid_out = (uint32_t)bit;
    return AL_OK;
}

int al_pid_recover(struct al_pid *a)
{
    return al_layers_recover(&a->layers);
}

uint64_t al_pid_check(const struct al_pid *a, al_report_fn report, void *context)
{
    return al_layers_check(&a->layers, report, context);
}
