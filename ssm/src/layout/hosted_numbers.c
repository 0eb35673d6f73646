/* SPDX-License-Identifier: Apache-2.0
 *
 * The kinds that hand out numbers: ids, pids, RMIDs. One row each; see hosted.h. */
#include "hosted.h"

static bool give_item(const struct ssm_hosted *hosted, uint32_t number, struct ssm_service_item *item_out)
{
    *item_out = (struct ssm_service_item){number, number, hosted->owners[number - hosted->first], 1};
    return true;
}

static int free_item(struct ssm_hosted *hosted, const struct ssm_service_item *item, uint64_t now_ns)
{
    return ssm_hosted_free_number(hosted, (uint32_t)item->start, now_ns);
}

/* ---- ids ------------------------------------------------------------------------------------------------ */

static struct ssm_hosted_size ids_size(const struct ssm_service_options *o)
{
    if (o->first > o->last || o->last > UINT32_MAX)
        return (struct ssm_hosted_size){0};
    const uint64_t count = o->last - o->first + 1;
    return (struct ssm_hosted_size){.core_bytes = al_id_size_bytes(count), .owners = count, .capacity = count};
}

static int ids_init(struct ssm_hosted *hosted, const struct ssm_service_options *o, uint8_t *memory, uint64_t bytes)
{
    hosted->first = (uint32_t)o->first;
    return al_id_init(&hosted->ids, memory, bytes, (uint32_t)o->first, (uint32_t)o->last, o->last - o->first + 1);
}

static int ids_attach(struct ssm_hosted *hosted, const struct ssm_service_options *o, uint8_t *memory, uint64_t bytes)
{
    hosted->first = (uint32_t)o->first;
    int result = al_id_attach(&hosted->ids, memory, bytes);
    const struct al_id *ids = &hosted->ids;
    if (result == AL_OK &&
        (ids->range_base != o->first || ids->range_end != o->last || ids->layers.bits != o->last - o->first + 1))
        result = AL_CORRUPT;
    return result;
}

static int ids_recover(struct ssm_hosted *hosted)
{
    return al_id_recover(&hosted->ids);
}
static uint64_t ids_used(const struct ssm_hosted *hosted)
{
    return al_id_used_count(&hosted->ids);
}

static uint64_t ids_check(const struct ssm_hosted *hosted, al_report_fn report, void *context)
{
    return al_id_check(&hosted->ids, report, context);
}

static bool ids_next(const struct ssm_hosted *hosted, uint64_t from, struct ssm_service_item *item_out)
{
    uint32_t number;
    return from <= UINT32_MAX && al_id_next(&hosted->ids, (uint32_t)from, &number) == AL_OK &&
           give_item(hosted, number, item_out);
}

static int ids_peek(const struct ssm_hosted *hosted, uint64_t now_ns, uint32_t *number_out)
{
    (void)now_ns;
    return al_id_peek(&hosted->ids, number_out);
}

static int ids_take(struct ssm_hosted *hosted, uint32_t number)
{
    return al_id_take(&hosted->ids, number);
}

static int ids_free(struct ssm_hosted *hosted, uint32_t number, uint64_t now_ns)
{
    (void)now_ns;
    return al_id_free(&hosted->ids, number);
}

static bool ids_has(const struct ssm_hosted *hosted, uint32_t number)
{
    return al_id_is_allocated(&hosted->ids, number);
}

const struct ssm_service_ops ssm_ids_ops = {
    .name = "ids",
    .size = ids_size,
    .init = ids_init,
    .attach = ids_attach,
    .recover = ids_recover,
    .used = ids_used,
    .check = ids_check,
    .next = ids_next,
    .free_item = free_item,
    .peek = ids_peek,
    .take = ids_take,
    .free = ids_free,
    .has = ids_has,
};

/* ---- pids ----------------------------------------------------------------------------------------------- */

static struct ssm_hosted_size pids_size(const struct ssm_service_options *o)
{
    if (o->first > AL_PID_ORDER_MAX || o->last != 0)
        return (struct ssm_hosted_size){0};
    const uint64_t count = o->first * 64;
    return (struct ssm_hosted_size){
        .core_bytes = al_pid_size_bytes((uint32_t)o->first), .owners = count, .capacity = count};
}

static int pids_init(struct ssm_hosted *hosted, const struct ssm_service_options *o, uint8_t *memory, uint64_t bytes)
{
    return al_pid_init(&hosted->pids, memory, bytes, (uint32_t)o->first);
}

static int pids_attach(struct ssm_hosted *hosted, const struct ssm_service_options *o, uint8_t *memory, uint64_t bytes)
{
    int result = al_pid_attach(&hosted->pids, memory, bytes);
    return result == AL_OK && hosted->pids.layers.bits != o->first * 64 ? AL_CORRUPT : result;
}

static int pids_recover(struct ssm_hosted *hosted)
{
    return al_pid_recover(&hosted->pids);
}
static uint64_t pids_used(const struct ssm_hosted *hosted)
{
    return al_pid_used_count(&hosted->pids);
}

static uint64_t pids_check(const struct ssm_hosted *hosted, al_report_fn report, void *context)
{
    return al_pid_check(&hosted->pids, report, context);
}

static bool pids_next(const struct ssm_hosted *hosted, uint64_t from, struct ssm_service_item *item_out)
{
    uint32_t number;
    return from <= UINT32_MAX && al_pid_next(&hosted->pids, (uint32_t)from, &number) == AL_OK &&
           give_item(hosted, number, item_out);
}

static int pids_peek(const struct ssm_hosted *hosted, uint64_t now_ns, uint32_t *number_out)
{
    (void)now_ns;
    return al_pid_peek(&hosted->pids, number_out);
}

static int pids_take(struct ssm_hosted *hosted, uint32_t number)
{
    return al_pid_take(&hosted->pids, number);
}

static int pids_free(struct ssm_hosted *hosted, uint32_t number, uint64_t now_ns)
{
    (void)now_ns;
    return al_pid_free(&hosted->pids, number);
}

static bool pids_has(const struct ssm_hosted *hosted, uint32_t number)
{
    return al_pid_is_allocated(&hosted->pids, number);
}

const struct ssm_service_ops ssm_pids_ops = {
    .name = "pids",
    .size = pids_size,
    .init = pids_init,
    .attach = pids_attach,
    .recover = pids_recover,
    .used = pids_used,
    .check = pids_check,
    .next = pids_next,
    .free_item = free_item,
    .peek = pids_peek,
    .take = pids_take,
    .free = pids_free,
    .has = pids_has,
};

/* ---- RMIDs ---------------------------------------------------------------------------------------------- */

static struct ssm_hosted_size rmids_size(const struct ssm_service_options *o)
{
    if (o->first == 0 || o->first > AL_RMID_MAX)
        return (struct ssm_hosted_size){0};
    return (struct ssm_hosted_size){
        .core_bytes = sizeof(struct al_rmid), .owners = AL_RMID_SLOTS + 1, .capacity = o->first};
}

static int rmids_init(struct ssm_hosted *hosted, const struct ssm_service_options *o, uint8_t *memory, uint64_t bytes)
{
    (void)bytes;
    hosted->rmids = (struct al_rmid *)(void *)memory;
    return al_rmid_init(hosted->rmids, (uint32_t)o->first, o->last);
}

static int rmids_attach(struct ssm_hosted *hosted, const struct ssm_service_options *o, uint8_t *memory, uint64_t bytes)
{
    (void)bytes;
    hosted->rmids = (struct al_rmid *)(void *)memory;
    int result = al_rmid_attach(hosted->rmids);
    if (result == AL_OK && (hosted->rmids->max_rmid != o->first || hosted->rmids->min_free_time_ns != o->last))
        result = AL_CORRUPT;
    return result;
}

static int rmids_recover(struct ssm_hosted *hosted)
{
    al_rmid_recover(hosted->rmids);
    return AL_OK;
}

static uint64_t rmids_used(const struct ssm_hosted *hosted)
{
    return al_rmid_used_count(hosted->rmids);
}

static uint64_t rmids_check(const struct ssm_hosted *hosted, al_report_fn report, void *context)
{
    return al_rmid_check(hosted->rmids, report, context);
}

static bool rmids_next(const struct ssm_hosted *hosted, uint64_t from, struct ssm_service_item *item_out)
{
    for (uint64_t rmid = from; rmid <= AL_RMID_MAX; rmid++)
        if (al_rmid_is_allocated(hosted->rmids, (uint32_t)rmid))
            return give_item(hosted, (uint32_t)rmid, item_out);
    return false;
}

static int rmids_peek(const struct ssm_hosted *hosted, uint64_t now_ns, uint32_t *number_out)
{
    return al_rmid_peek(hosted->rmids, now_ns, number_out);
}

static int rmids_take(struct ssm_hosted *hosted, uint32_t number)
{
    return al_rmid_take(hosted->rmids, number);
}

static int rmids_free(struct ssm_hosted *hosted, uint32_t number, uint64_t now_ns)
{
    return al_rmid_free(hosted->rmids, number, now_ns);
}

static bool rmids_has(const struct ssm_hosted *hosted, uint32_t number)
{
    return al_rmid_is_allocated(hosted->rmids, number);
}

const struct ssm_service_ops ssm_rmids_ops = {
    .name = "rmids",
    .size = rmids_size,
    .init = rmids_init,
    .attach = rmids_attach,
    .recover = rmids_recover,
    .used = rmids_used,
    .check = rmids_check,
    .next = rmids_next,
    .free_item = free_item,
    .peek = rmids_peek,
    .take = rmids_take,
    .free = rmids_free,
    .has = rmids_has,
};
