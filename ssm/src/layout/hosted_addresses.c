/* SPDX-License-Identifier: Apache-2.0
 *
 * The kind that hands out ranges of an address space: its row; see hosted.h. */
#include "hosted.h"

static uint32_t nodes_for(const struct ssm_service_options *o)
{
    return 2 * o->ranges + 1; /* the ranges, and the free ones between them */
}

static struct ssm_hosted_size size(const struct ssm_service_options *o)
{
    if (o->first > o->last || o->ranges > (AL_TREE_NODES_MAX - 1) / 2)
        return (struct ssm_hosted_size){0};
    return (struct ssm_hosted_size){.core_bytes = al_tree_size_bytes(nodes_for(o)), .capacity = o->ranges};
}

static int init(struct ssm_hosted *hosted, const struct ssm_service_options *o, uint8_t *memory, uint64_t bytes)
{
    int result = al_tree_init(&hosted->addresses, memory, bytes, nodes_for(o));
    return result != AL_OK ? result : al_tree_insert(&hosted->addresses, o->first, o->last, AL_TREE_FREE, 0, NULL);
}

static int attach(struct ssm_hosted *hosted, const struct ssm_service_options *o, uint8_t *memory, uint64_t bytes)
{
    int result = al_tree_attach(&hosted->addresses, memory, bytes);
    return result == AL_OK && hosted->addresses.capacity != nodes_for(o) ? AL_CORRUPT : result;
}

static int recover(struct ssm_hosted *hosted)
{
    return al_tree_recover(&hosted->addresses);
}
static uint64_t used(const struct ssm_hosted *hosted)
{
    return al_tree_allocated_count(&hosted->addresses);
}

static uint64_t check(const struct ssm_hosted *hosted, al_report_fn report, void *context)
{
    return al_tree_check(&hosted->addresses, report, context);
}

static bool next(const struct ssm_hosted *hosted, uint64_t from, struct ssm_service_item *item_out)
{
    struct al_tree_iter iter;
    struct al_tree_node node;
    if (al_tree_iterate(&hosted->addresses, from, UINT64_MAX, &iter) != AL_OK ||
        al_tree_next(&hosted->addresses, &iter, &node) != AL_OK || node.end < from || node.start > node.end)
        return false;
    *item_out = (struct ssm_service_item){node.start, node.end, node.owner, node.state == AL_TREE_ALLOCATED};
    return true;
}

static int free_item(struct ssm_hosted *hosted, const struct ssm_service_item *item, uint64_t now_ns)
{
    (void)now_ns;
    return al_tree_free(&hosted->addresses, item->start, item->end);
}

const struct ssm_service_ops ssm_addresses_ops = {
    .name = "addresses",
    .ranges_default = 1024,
    .size = size,
    .init = init,
    .attach = attach,
    .recover = recover,
    .used = used,
    .check = check,
    .next = next,
    .free_item = free_item,
    .peek = ssm_no_number_peek,
    .take = ssm_no_number_take,
    .free = ssm_no_number_free,
    .has = ssm_no_number_has,
};
