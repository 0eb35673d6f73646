/* SPDX-License-Identifier: Apache-2.0
 *
 * What all kinds of hosted allocators have in common; see hosted.h. */
#include "hosted.h"

#include "owner.h"

#define ALIGNMENT UINT64_C(64) /* of the array of owners, which follows the allocator */

static const struct ssm_service_ops *const kinds[] = {
#define X(name, row) [SSM_SERVICE_##name] = &ssm_##row##_ops,
    SSM_SERVICE_KINDS(X)
#undef X
};

const struct ssm_service_ops *ssm_service_ops_of(uint32_t kind)
{
    return kind < sizeof kinds / sizeof *kinds ? kinds[kind] : NULL;
}

_Static_assert(sizeof kinds / sizeof *kinds == SSM_SERVICE_KIND_MAX + 1, "every kind has a row");

const char *ssm_service_kind_name(uint32_t kind)
{
    const struct ssm_service_ops *row = ssm_service_ops_of(kind);
    return row != NULL ? row->name : NULL;
}

int ssm_no_number_peek(const struct ssm_hosted *hosted, uint64_t now_ns, uint32_t *number_out)
{
    (void)hosted, (void)now_ns, (void)number_out;
    return AL_OUT_OF_RANGE;
}

int ssm_no_number_take(struct ssm_hosted *hosted, uint32_t number)
{
    (void)hosted, (void)number;
    return AL_OUT_OF_RANGE;
}

int ssm_no_number_free(struct ssm_hosted *hosted, uint32_t number, uint64_t now_ns)
{
    (void)hosted, (void)number, (void)now_ns;
    return AL_OUT_OF_RANGE;
}

bool ssm_no_number_has(const struct ssm_hosted *hosted, uint32_t number)
{
    (void)hosted, (void)number;
    return false;
}

struct ssm_service_options ssm_hosted_complete(const struct ssm_service_options *options)
{
    const struct ssm_service_ops *ops = ssm_service_ops_of(options->kind);
    struct ssm_service_options complete = *options;
    if (ops != NULL) {
        complete.flags |= ops->flags;
        complete.ranges = options->ranges == 0 ? ops->ranges_default : options->ranges;
    }
    return complete;
}

static struct ssm_hosted_size size_of(const struct ssm_service_options *options)
{
    const struct ssm_service_ops *ops = ssm_service_ops_of(options->kind);
    if (ops == NULL || (ops->ranges_default == 0) != (options->ranges == 0))
        return (struct ssm_hosted_size){0};
    return ops->size(options);
}

static uint64_t owners_start(uint64_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

uint64_t ssm_hosted_bytes(const struct ssm_service_options *options)
{
    const struct ssm_hosted_size size = size_of(options);
    return size.core_bytes == 0 ? 0 : owners_start(size.core_bytes) + size.owners * sizeof(uint32_t);
}

uint64_t ssm_hosted_bare_bytes(const struct ssm_service_options *options)
{
    return size_of(options).core_bytes;
}

uint64_t ssm_hosted_capacity(const struct ssm_service_options *options)
{
    return size_of(options).capacity;
}

static uint64_t view(struct ssm_hosted *hosted, const struct ssm_service_options *options, uint8_t *memory)
{
    const uint64_t bytes = size_of(options).core_bytes;
    *hosted = (struct ssm_hosted){
        .ops = ssm_service_ops_of(options->kind),
        .owners = (uint32_t *)(void *)(memory + owners_start(bytes)),
    };
    return bytes;
}

int ssm_hosted_init(struct ssm_hosted *hosted, const struct ssm_service_options *options, uint8_t *memory)
{
    const uint64_t bytes = view(hosted, options, memory);
    return hosted->ops->init(hosted, options, memory, bytes);
}

int ssm_hosted_attach(struct ssm_hosted *hosted, const struct ssm_service_options *options, uint8_t *memory)
{
    const uint64_t bytes = view(hosted, options, memory);
    return hosted->ops->attach(hosted, options, memory, bytes);
}

int ssm_hosted_reclaim(struct ssm_hosted *hosted, const struct ssm_holder_set *slots, uint64_t now_ns)
{
    struct ssm_service_item item;
    for (uint64_t from = 0; ssm_hosted_next(hosted, from, &item); from = item.end + 1) {
        if (item.allocated && ssm_holder_set_has(slots, ssm_owner_slot(item.owner))) {
            int result = hosted->ops->free_item(hosted, &item, now_ns);
            if (result != AL_OK)
                return result;
        }
        if (item.end == UINT64_MAX)
            break;
    }
    if (hosted->ops->reclaimed != NULL)
        hosted->ops->reclaimed(hosted, slots);
    return AL_OK;
}
