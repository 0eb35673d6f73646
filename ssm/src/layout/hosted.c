/* SPDX-License-Identifier: Apache-2.0
 *
 * The four allocators behind one face; see hosted.h. */
#include "hosted.h"

#include "owner.h"

#define ALIGNMENT UINT64_C(64) /* of the owners, behind the allocator */

/* Bytes of the allocator alone, 0: such parameters cannot be; and how many owners stand behind it. */
static uint64_t core_bytes(const struct ssm_service_options *o, uint64_t *owners_out)
{
    *owners_out = 0;
    switch (o->kind) {
    case SSM_SERVICE_IDS:
        if (o->first > o->last || o->last > UINT32_MAX)
            return 0;
        *owners_out = o->last - o->first + 1;
        return al_id_size_bytes(*owners_out);
    case SSM_SERVICE_PIDS:
        if (o->first > AL_PID_ORDER_MAX || o->last != 0)
            return 0;
        *owners_out = o->first * 64;
        return al_pid_size_bytes((uint32_t)o->first);
    case SSM_SERVICE_RMIDS:
        if (o->first == 0 || o->first > AL_RMID_MAX)
            return 0;
        *owners_out = AL_RMID_MAX + 1;
        return sizeof(struct al_rmid);
    case SSM_SERVICE_ADDRESSES:
        if (o->first > o->last || o->ranges == 0 || o->ranges > (AL_TREE_NODES_MAX - 1) / 2)
            return 0;
        return al_tree_size_bytes(2 * o->ranges + 1);
    default:
        return 0;
    }
}

static uint64_t owners_start(uint64_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

uint64_t ssm_hosted_bytes(const struct ssm_service_options *options)
{
    uint64_t owners, bytes = core_bytes(options, &owners);
    return bytes == 0 ? 0 : owners_start(bytes) + owners * sizeof(uint32_t);
}

uint64_t ssm_hosted_bare_bytes(const struct ssm_service_options *options)
{
    uint64_t owners;
    return core_bytes(options, &owners);
}

uint64_t ssm_hosted_capacity(const struct ssm_service_options *options)
{
    uint64_t owners;
    (void)core_bytes(options, &owners);
    return options->kind == SSM_SERVICE_ADDRESSES ? options->ranges
         : options->kind == SSM_SERVICE_RMIDS     ? options->first
                                                  : owners;
}

static uint64_t view(struct ssm_hosted *hosted, const struct ssm_service_options *options, uint8_t *memory)
{
    uint64_t owners, bytes = core_bytes(options, &owners);
    *hosted = (struct ssm_hosted){
        .kind = options->kind,
        .first = options->kind == SSM_SERVICE_IDS ? (uint32_t)options->first : 0,
        .owners = (uint32_t *)(void *)(memory + owners_start(bytes)),
    };
    if (options->kind == SSM_SERVICE_RMIDS)
        hosted->rmids = (struct al_rmid *)(void *)memory;
    return bytes;
}

int ssm_hosted_init(struct ssm_hosted *hosted, const struct ssm_service_options *o, uint8_t *memory)
{
    uint64_t bytes = view(hosted, o, memory);
    switch (o->kind) {
    case SSM_SERVICE_IDS:
        return al_id_init(&hosted->ids, memory, bytes, (uint32_t)o->first, (uint32_t)o->last, o->last - o->first + 1);
    case SSM_SERVICE_PIDS:
        return al_pid_init(&hosted->pids, memory, bytes, (uint32_t)o->first);
    case SSM_SERVICE_RMIDS:
        return al_rmid_init(hosted->rmids, (uint32_t)o->first, o->last);
    default: {
        int result = al_tree_init(&hosted->addresses, memory, bytes, 2 * o->ranges + 1);
        return result != AL_OK ? result : al_tree_insert(&hosted->addresses, o->first, o->last, AL_TREE_FREE, 0, NULL);
    }
    }
}

int ssm_hosted_attach(struct ssm_hosted *hosted, const struct ssm_service_options *o, uint8_t *memory)
{
    uint64_t bytes = view(hosted, o, memory);
    int result;
    bool same;
    switch (o->kind) {
    case SSM_SERVICE_IDS:
        result = al_id_attach(&hosted->ids, memory, bytes);
        same = result == AL_OK && hosted->ids.range_base == o->first && hosted->ids.range_end == o->last &&
               hosted->ids.layers.bits == o->last - o->first + 1;
        break;
    case SSM_SERVICE_PIDS:
        result = al_pid_attach(&hosted->pids, memory, bytes);
        same = result == AL_OK && hosted->pids.layers.bits == o->first * 64;
        break;
    case SSM_SERVICE_RMIDS:
        result = al_rmid_attach(hosted->rmids);
        same = result == AL_OK && hosted->rmids->max_rmid == o->first && hosted->rmids->min_free_time_ns == o->last;
        break;
    default:
        result = al_tree_attach(&hosted->addresses, memory, bytes);
        same = result == AL_OK && hosted->addresses.capacity == 2 * o->ranges + 1;
    }
    return result == AL_OK && !same ? AL_CORRUPT : result;
}

int ssm_hosted_recover(struct ssm_hosted *hosted)
{
    switch (hosted->kind) {
    case SSM_SERVICE_IDS:
        return al_id_recover(&hosted->ids);
    case SSM_SERVICE_PIDS:
        return al_pid_recover(&hosted->pids);
    case SSM_SERVICE_RMIDS:
        al_rmid_recover(hosted->rmids);
        return AL_OK;
    default:
        return al_tree_recover(&hosted->addresses);
    }
}

uint64_t ssm_hosted_used(const struct ssm_hosted *hosted)
{
    switch (hosted->kind) {
    case SSM_SERVICE_IDS:
        return al_id_used_count(&hosted->ids);
    case SSM_SERVICE_PIDS:
        return al_pid_used_count(&hosted->pids);
    case SSM_SERVICE_RMIDS:
        return al_rmid_used_count(hosted->rmids);
    default:
        return al_tree_allocated_count(&hosted->addresses);
    }
}

uint64_t ssm_hosted_check(const struct ssm_hosted *hosted, al_report_fn report, void *context)
{
    switch (hosted->kind) {
    case SSM_SERVICE_IDS:
        return al_id_check(&hosted->ids, report, context);
    case SSM_SERVICE_PIDS:
        return al_pid_check(&hosted->pids, report, context);
    case SSM_SERVICE_RMIDS:
        return al_rmid_check(hosted->rmids, report, context);
    default:
        return al_tree_check(&hosted->addresses, report, context);
    }
}

static int next_number(const struct ssm_hosted *hosted, uint32_t from, uint32_t *number_out)
{
    if (hosted->kind == SSM_SERVICE_IDS)
        return al_id_next(&hosted->ids, from, number_out);
    if (hosted->kind == SSM_SERVICE_PIDS)
        return al_pid_next(&hosted->pids, from, number_out);
    for (uint32_t rmid = from; rmid <= AL_RMID_MAX; rmid++)
        if (al_rmid_is_allocated(hosted->rmids, rmid)) {
            *number_out = rmid;
            return AL_OK;
        }
    return AL_NOT_AVAILABLE;
}

bool ssm_hosted_next(const struct ssm_hosted *hosted, uint64_t from, struct ssm_service_item *item_out)
{
    uint32_t number;
    struct al_tree_iter iter;
    struct al_tree_node node;
    if (hosted->kind != SSM_SERVICE_ADDRESSES) {
        if (from > UINT32_MAX || next_number(hosted, (uint32_t)from, &number) != AL_OK)
            return false;
        *item_out = (struct ssm_service_item){number, number, hosted->owners[number - hosted->first], 1};
        return true;
    }
    if (al_tree_iterate(&hosted->addresses, from, UINT64_MAX, &iter) != AL_OK ||
        al_tree_next(&hosted->addresses, &iter, &node) != AL_OK || node.end < from || node.start > node.end)
        return false;
    *item_out = (struct ssm_service_item){node.start, node.end, node.owner, node.state == AL_TREE_ALLOCATED};
    return true;
}

static int free_item(struct ssm_hosted *hosted, const struct ssm_service_item *item, uint64_t now_ns)
{
    if (hosted->kind == SSM_SERVICE_ADDRESSES)
        return al_tree_free(&hosted->addresses, item->start, item->end);
    return ssm_hosted_free_number(hosted, (uint32_t)item->start, now_ns);
}

int ssm_hosted_reclaim(struct ssm_hosted *hosted, const struct ssm_holder_set *slots, uint64_t now_ns)
{
    struct ssm_service_item item;
    for (uint64_t from = 0; ssm_hosted_next(hosted, from, &item); from = item.end + 1) {
        if (item.allocated && ssm_holder_set_has(slots, ssm_owner_slot(item.owner))) {
            int result = free_item(hosted, &item, now_ns);
            if (result != AL_OK)
                return result;
        }
        if (item.end == UINT64_MAX)
            break;
    }
    return AL_OK;
}
