/* SPDX-License-Identifier: Apache-2.0
 *
 * The first steps that a user takes: the allocator in a map, an RMID taken, looked at, and given back.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "rmid_allocator.bpf.h"

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct rmid_allocator);
} allocators SEC(".maps");

SEC("xdp")
int first_steps(struct xdp_md *context)
{
    __u32 key = 0;
    struct rmid_allocator *allocator = bpf_map_lookup_elem(&allocators, &key);

    (void)context;
    if (!allocator)
        return XDP_ABORTED;
    if (!rmid_init(allocator, 4, 2000000))
        return XDP_DROP;
    __u64 timestamp = bpf_ktime_get_ns();
    __u32 rmid = rmid_alloc(allocator, timestamp);
    if (rmid == 0)
        return XDP_DROP;
    if (!rmid_is_allocated(allocator, rmid))
        return XDP_DROP;
    rmid_free(allocator, rmid, timestamp);
    if (rmid_is_allocated(allocator, rmid))
        return XDP_DROP;
    return XDP_PASS;
}

char license_[] SEC("license") = "GPL";
