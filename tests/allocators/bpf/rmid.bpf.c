/* SPDX-License-Identifier: Apache-2.0
 *
 * The RMID allocator in BPF: struct al_rmid as the value of an array map, and one XDP program for each operation. They
 * are never attached anywhere, rmid_loader.c runs them with BPF_PROG_TEST_RUN.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "rmid_request.h"

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct al_rmid);
} allocator SEC(".maps");

static __always_inline struct al_rmid *the_allocator(void)
{
    __u32 zero = 0;

    return bpf_map_lookup_elem(&allocator, &zero);
}

static __always_inline struct rmid_request *the_request(struct xdp_md *context)
{
    struct rmid_request *request = (void *)(long)context->data;

    return (void *)(request + 1) > (void *)(long)context->data_end ? (void *)0 : request;
}

#define OPERATION(name, statement)                                                                                     \
    SEC("xdp")                                                                                                         \
    int name(struct xdp_md *context)                                                                                   \
    {                                                                                                                  \
        struct al_rmid      *a = the_allocator();                                                                      \
        struct rmid_request *r = the_request(context);                                                                 \
                                                                                                                       \
        if (!a || !r)                                                                                                  \
            return XDP_ABORTED;                                                                                        \
        statement;                                                                                                     \
        r->used = al_rmid_used_count(a);                                                                               \
        return XDP_PASS;                                                                                               \
    }

OPERATION(rmid_init, r->result = al_rmid_init(a, r->max_rmid, r->min_free_time_ns))
OPERATION(rmid_free, r->result = al_rmid_free(a, r->rmid, r->now_ns))
OPERATION(rmid_is_allocated, r->result = al_rmid_is_allocated(a, r->rmid))
OPERATION(rmid_recover, al_rmid_recover(a))
OPERATION(rmid_alloc, {
    al_rmid_u32 rmid = 0;
    r->result = al_rmid_alloc(a, r->now_ns, &rmid);
    r->rmid = rmid;
})
OPERATION(rmid_peek_take, {
    al_rmid_u32 rmid = 0;
    r->result = al_rmid_peek(a, r->now_ns, &rmid);
    if (r->result == AL_RMID_OK)
        r->result = al_rmid_take(a, rmid);
    r->rmid = rmid;
})

char license_[] SEC("license") = "Apache-2.0";
