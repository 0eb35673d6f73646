/* SPDX-License-Identifier: Apache-2.0
 *
 * An RMID for each process that runs, and what it does under that RMID: attached to sched_switch and
 * sched_process_free. A program that programs a hardware counter would write the RMID to a register where this one
 * counts.
 *
 *   clang -target bpf -O2 -g -I"$(python -m allocators.bpf --include)" -c rmid_tasks.bpf.c -o rmid_tasks.bpf.o
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "rmid_allocator.bpf.h"

#define MIN_FREE_TIME_NS 2000000

/* What this program reads of the kernel's struct; the loader finds out where the fields are in the running one. */
struct task_struct {
    int pid;
    int tgid;
} __attribute__((preserve_access_index));

struct state {
    struct bpf_spin_lock  lock; /* of the allocator */
    int                   is_ready;
    struct rmid_allocator allocator;
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct state);
} states SEC(".maps");

struct process {
    __u32 rmid;
    __u32 reserved;
    __u64 switches; /* how often a thread of it was given a processor */
};

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, MAX_RMIDS);
    __type(key, __u32); /* tgid: what user space calls a pid */
    __type(value, struct process);
} processes SEC(".maps");

__u64 without_rmid = 0; /* switches to processes for which no RMID was free, or had rested long enough */

const volatile __u32 max_rmid = MAX_RMIDS; /* the loader may set it */

static __always_inline __u32 take_rmid(void)
{
    __u32 zero = 0, rmid = 0;
    __u64 now = bpf_ktime_get_ns();
    struct state *s = bpf_map_lookup_elem(&states, &zero);

    if (!s)
        return 0;
    bpf_spin_lock(&s->lock);
    if (!s->is_ready)
        s->is_ready = rmid_init(&s->allocator, max_rmid, MIN_FREE_TIME_NS);
    if (s->is_ready)
        rmid = rmid_alloc(&s->allocator, now);
    bpf_spin_unlock(&s->lock);
    return rmid;
}

static __always_inline void give_back(__u32 rmid)
{
    __u32 zero = 0;
    __u64 now = bpf_ktime_get_ns();
    struct state *s = bpf_map_lookup_elem(&states, &zero);

    if (!s)
        return;
    bpf_spin_lock(&s->lock);
    if (s->is_ready)
        rmid_free(&s->allocator, rmid, now);
    bpf_spin_unlock(&s->lock);
}

SEC("tp_btf/sched_switch")
int on_switch(__u64 *context)
{
    struct task_struct *next = (void *)context[2];
    __u32 tgid = next->tgid;

    if (tgid == 0) /* the idle task */
        return 0;
    struct process *known = bpf_map_lookup_elem(&processes, &tgid);
    if (!known) {
        struct process fresh = {.rmid = take_rmid()};
        if (fresh.rmid == 0) {
            __sync_fetch_and_add(&without_rmid, 1);
            return 0;
        }
        if (bpf_map_update_elem(&processes, &tgid, &fresh, BPF_NOEXIST) != 0)
            give_back(fresh.rmid); /* another processor was faster, or the table is full */
        known = bpf_map_lookup_elem(&processes, &tgid);
        if (!known)
            return 0;
    }
    __sync_fetch_and_add(&known->switches, 1);
    return 0;
}

SEC("tp_btf/sched_process_free")
int on_free(__u64 *context)
{
    struct task_struct *task = (void *)context[0];
    __u32 tgid = task->tgid;

    if (task->pid != task->tgid) /* a thread: its process lives on */
        return 0;
    struct process *known = bpf_map_lookup_elem(&processes, &tgid);
    if (!known)
        return 0;
    __u32 rmid = known->rmid;
    if (bpf_map_delete_elem(&processes, &tgid) == 0)
        give_back(rmid);
    return 0;
}

char license_[] SEC("license") = "GPL"; /* the tracing helpers ask for it */
