/* SPDX-License-Identifier: Apache-2.0
 *
 * The kind that is a board: rows of plain memory under a name, which nobody allocates from; its row, see hosted.h.
 *
 * Processes read and write the rows without a lock, and without this file. So nothing is here to be repaired after a
 * death, and nothing to be checked: whatever stands in the rows, the pool is whole. */
#include "hosted.h"

static struct ssm_hosted_size size(const struct ssm_service_options *o)
{
    uint64_t bytes;
    if (o->flags != 0 || o->first == 0 || __builtin_mul_overflow(o->first, (uint64_t)o->ranges, &bytes) ||
        bytes > SSM_BOARD_BYTES_MAX)
        return (struct ssm_hosted_size){0};
    return (struct ssm_hosted_size){.core_bytes = bytes, .capacity = o->first};
}

static int attach(struct ssm_hosted *hosted, const struct ssm_service_options *o, uint8_t *memory, uint64_t bytes)
{
    (void)o, (void)bytes;
    hosted->board = memory;
    return AL_OK;
}

static int init(struct ssm_hosted *hosted, const struct ssm_service_options *o, uint8_t *memory, uint64_t bytes)
{
    AL_ZERO(memory, bytes);
    return attach(hosted, o, memory, bytes);
}

static int recover(struct ssm_hosted *hosted)
{
    (void)hosted;
    return AL_OK;
}

static uint64_t used(const struct ssm_hosted *hosted)
{
    (void)hosted;
    return 0;
}

static uint64_t check(const struct ssm_hosted *hosted, al_report_fn report, void *context)
{
    (void)hosted, (void)report, (void)context;
    return 0;
}

static bool next(const struct ssm_hosted *hosted, uint64_t from, struct ssm_service_item *item_out)
{
    (void)hosted, (void)from, (void)item_out;
    return false;
}

static int free_item(struct ssm_hosted *hosted, const struct ssm_service_item *item, uint64_t now_ns)
{
    (void)hosted, (void)item, (void)now_ns;
    return AL_OUT_OF_RANGE;
}

const struct ssm_service_ops ssm_board_ops = {
    .name = "board",
    .ranges_default = 1,
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
