/* SPDX-License-Identifier: Apache-2.0
 *
 * The RMID allocator in BPF, wherever a program may keep it, and in each kind of program that may use it:
 *
 *   place    map     the value of an array map
 *            locked  such a value with a bpf_spin_lock around each operation
 *            global  a variable
 *   program  xdp     an operation each, run by rmid_loader.c with BPF_PROG_TEST_RUN
 *            tp_btf, raw_tp     all operations, with numbers that the verifier knows nothing about
 *
 * A raw tracepoint may not use a map with a bpf_spin_lock in it: the kernel says so, whatever is in the map.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "rmid_request.h"

struct locked_value {
    struct bpf_spin_lock  lock;
    struct rmid_allocator a;
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct rmid_allocator);
} map SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct locked_value);
} locked SEC(".maps");

struct rmid_allocator global; /* in .bss */

static __always_inline struct rmid_allocator *map_value(void)
{
    __u32 zero = 0;

    return bpf_map_lookup_elem(&map, &zero);
}

static __always_inline struct locked_value *locked_value(void)
{
    __u32 zero = 0;

    return bpf_map_lookup_elem(&locked, &zero);
}

static __always_inline struct rmid_request *the_request(struct xdp_md *context)
{
    struct rmid_request *request = (void *)(long)context->data;

    return (void *)(request + 1) > (void *)(long)context->data_end ? (void *)0 : request;
}

/* ---- the operations: what the user calls, and what the core has beside it ---- */

static __always_inline void do_init(struct rmid_allocator *a, struct rmid_request *r)
{
    r->result = rmid_init(a, r->max_rmid, r->min_free_time_ns);
}

static __always_inline void do_alloc(struct rmid_allocator *a, struct rmid_request *r)
{
    r->rmid = rmid_alloc(a, r->now_ns);
}

static __always_inline void do_free(struct rmid_allocator *a, struct rmid_request *r)
{
    rmid_free(a, r->rmid, r->now_ns);
}

static __always_inline void do_is_allocated(struct rmid_allocator *a, struct rmid_request *r)
{
    r->result = rmid_is_allocated(a, r->rmid);
}

static __always_inline void do_core_alloc(struct rmid_allocator *a, struct rmid_request *r)
{
    al_rmid_u32 rmid = 0;

    r->result = al_rmid_alloc(&a->core, r->now_ns, &rmid);
    r->rmid = rmid;
}

static __always_inline void do_core_free(struct rmid_allocator *a, struct rmid_request *r)
{
    r->result = al_rmid_free(&a->core, r->rmid, r->now_ns);
}

static __always_inline void do_peek_take(struct rmid_allocator *a, struct rmid_request *r)
{
    al_rmid_u32 rmid = 0;

    r->result = al_rmid_peek(&a->core, r->now_ns, &rmid);
    if (r->result == AL_RMID_OK)
        r->result = al_rmid_take(&a->core, rmid);
    r->rmid = rmid;
}

static __always_inline void do_recover(struct rmid_allocator *a, struct rmid_request *r)
{
    al_rmid_recover(&a->core);
    r->result = al_rmid_attach(&a->core);
}

/* ---- XDP ---- */

#define IN_XDP(operation, place, lookup, allocator, enter, leave) \
    SEC("xdp")                                                    \
    int place##_##operation(struct xdp_md *context)               \
    {                                                             \
        struct rmid_request *r = the_request(context);            \
        lookup;                                                   \
        if (!r || !v)                                             \
            return XDP_ABORTED;                                   \
        enter;                                                    \
        do_##operation(allocator, r);                             \
        r->used = al_rmid_used_count(&(allocator)->core);         \
        leave;                                                    \
        return XDP_PASS;                                          \
    }

#define EVERYWHERE(operation)                                                                          \
    IN_XDP(operation, map, struct rmid_allocator *v = map_value(), v, , )                              \
    IN_XDP(operation, global, struct rmid_allocator *v = &global, v, , )                               \
    IN_XDP(operation, locked, struct locked_value *v = locked_value(), &v->a, bpf_spin_lock(&v->lock), \
           bpf_spin_unlock(&v->lock))

EVERYWHERE(init)
EVERYWHERE(alloc)
EVERYWHERE(free)
EVERYWHERE(is_allocated)
EVERYWHERE(core_alloc)
EVERYWHERE(core_free)
EVERYWHERE(peek_take)
EVERYWHERE(recover)

/* ---- tracing ---- */

static __always_inline void do_all(struct rmid_allocator *a, __u64 now, __u64 x, __u64 y)
{
    struct rmid_request r = {.now_ns = now, .rmid = (__u32)x};

    do_is_allocated(a, &r);
    do_free(a, &r);
    r.rmid = (__u32)y;
    do_core_free(a, &r);
    do_alloc(a, &r);
    do_peek_take(a, &r);
    do_recover(a, &r);
    r.max_rmid = (__u32)x;
    r.min_free_time_ns = y;
    do_init(a, &r);
}

SEC("tp_btf/sched_switch")
int tracing_locked(__u64 *context)
{
    struct locked_value *v = locked_value();
    __u64 now = bpf_ktime_get_ns(), x = bpf_get_current_pid_tgid(), y = bpf_get_smp_processor_id();

    (void)context;
    if (!v)
        return 0;
    bpf_spin_lock(&v->lock);
    do_all(&v->a, now, x, y);
    bpf_spin_unlock(&v->lock);
    return 0;
}

SEC("tp_btf/sched_switch")
int tracing_global(__u64 *context)
{
    (void)context;
    do_all(&global, bpf_ktime_get_ns(), bpf_get_current_pid_tgid(), bpf_get_smp_processor_id());
    return 0;
}

SEC("raw_tp/sched_switch")
int raw_map(struct bpf_raw_tracepoint_args *context)
{
    struct rmid_allocator *v = map_value();

    if (v)
        do_all(v, bpf_ktime_get_ns(), context->args[0], context->args[1]);
    return 0;
}

SEC("raw_tp/sched_switch")
int raw_global(struct bpf_raw_tracepoint_args *context)
{
    do_all(&global, bpf_ktime_get_ns(), context->args[0], context->args[1]);
    return 0;
}

char license_[] SEC("license") = "GPL"; /* bpf_ktime_get_ns() asks for it */
