/* SPDX-License-Identifier: Apache-2.0
 *
 * The kind that shares permits: its row; see hosted.h and permits.h. */
#include "hosted.h"

static struct ssm_hosted_size size(const struct ssm_service_options *o)
{
    if (o->first == 0 || o->first > SSM_PERMITS_MAX || o->last != 0)
        return (struct ssm_hosted_size){0};
    return (struct ssm_hosted_size){
        .core_bytes = sizeof(struct ssm_permits_shared) + o->first * sizeof(struct ssm_u64),
        .capacity = o->first,
    };
}

static void view(struct ssm_hosted *hosted, const struct ssm_service_options *o, uint8_t *memory)
{
    hosted->permits = (struct ssm_permits){.shared = (struct ssm_permits_shared *)(void *)memory,
                                           .count = (uint32_t)o->first};
}

static int init(struct ssm_hosted *hosted, const struct ssm_service_options *o, uint8_t *memory, uint64_t bytes)
{
    AL_ZERO(memory, bytes);
    view(hosted, o, memory);
    hosted->permits.shared->count = o->first;
    return AL_OK;
}

static int attach(struct ssm_hosted *hosted, const struct ssm_service_options *o, uint8_t *memory, uint64_t bytes)
{
    (void)bytes;
    view(hosted, o, memory);
    return hosted->permits.shared->count == o->first ? AL_OK : AL_CORRUPT;
}

static int recover(struct ssm_hosted *hosted)
{
    ssm_permits_recover(&hosted->permits);
    return AL_OK;
}

/* The caller has the lock. */
static uint64_t used(const struct ssm_hosted *hosted)
{
    return ssm_load_relaxed_u64(&hosted->permits.shared->used);
}

static uint64_t check(const struct ssm_hosted *hosted, al_report_fn report, void *context)
{
    return ssm_permits_check(&hosted->permits, report, context);
}

static bool next(const struct ssm_hosted *hosted, uint64_t from, struct ssm_service_item *item_out)
{
    uint32_t permit, owner;
    if (!ssm_permits_next(&hosted->permits, from, &permit, &owner))
        return false;
    *item_out = (struct ssm_service_item){permit, permit, owner, 1};
    return true;
}

/* reclaimed() frees all permits and places of a holder slot at once. */
static int free_item(struct ssm_hosted *hosted, const struct ssm_service_item *item, uint64_t now_ns)
{
    (void)hosted, (void)item, (void)now_ns;
    return AL_OK;
}

static void reclaimed(struct ssm_hosted *hosted, const struct ssm_holder_set *slots)
{
    ssm_permits_forget(&hosted->permits, slots);
}

const struct ssm_service_ops ssm_semaphore_ops = {
    .name = "semaphore",
    .flags = SSM_RECLAIM,
    .size = size,
    .init = init,
    .attach = attach,
    .recover = recover,
    .used = used,
    .check = check,
    .next = next,
    .free_item = free_item,
    .reclaimed = reclaimed,
    .peek = ssm_no_number_peek,
    .take = ssm_no_number_take,
    .free = ssm_no_number_free,
    .has = ssm_no_number_has,
};
