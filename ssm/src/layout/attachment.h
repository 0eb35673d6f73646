/* SPDX-License-Identifier: Apache-2.0
 *
 * struct ssm_pool: one process's attachment to a pool, in private memory. It may contain pointers, and no other process
 * needs it when this process dies.
 *
 * Threads: between ssm_pool_enter() and ssm_pool_leave() a call has the attachment for itself (`thread_lock`; with
 * SSM_SERIAL the caller guarantees it). It sleeps at most SSM_LOCK_PATIENCE_NS in between. A call that has to wait
 * longer leaves, sleeps between the hooks, and enters again.
 */
#ifndef SSM_ATTACHMENT_H
#define SSM_ATTACHMENT_H

#include "layout.h"
#include "liveness.h"
#include "owner.h"
#include "segment.h"
#include "thread_lock.h"

#include <stddef.h>
#include <string.h>

/* This process's references to one block. The process's bit in the holder set is set while references > 0, and also
 * while the block is in the private cache (references == 0). Handle and class are valid while references > 0. */
struct ssm_claim {
    uint64_t handle;     /* of its packet: a stale handle is told from it without reading the descriptor */
    uint32_t references; /* this word, number, pins, flags and class, is also read as one number: ssm_claim_word() */
    uint16_t pins;       /* of the references: those that outlive ssm_pool_close() */
    uint8_t  flags;      /* enum ssm_claim_flags */
    uint8_t  class_idx;
};

enum ssm_claim_flags {
    SSM_CLAIM_MARKED      = 1u << 0, /* scratch of one call, not set between calls */
    SSM_CLAIM_DELIVERED   = 1u << 1, /* a delivery of it is open (redelivery.h); not set without references */
    SSM_CLAIM_REDELIVERED = 1u << 2, /* another process had it, and died; not set without references */
    SSM_CLAIM_HEAD        = 1u << 3, /* of a chain */
    SSM_CLAIM_SEGMENT     = 1u << 4, /* of a chain: one of the references is the link's */
    SSM_CLAIM_SHARED      = 1u << 5, /* other holders may have the block, too; see claim.h */
    SSM_CLAIM_ARENA       = 1u << 6, /* its memory is an extent, which only the slow paths know */
    SSM_CLAIM_OF_CHAIN    = SSM_CLAIM_HEAD | SSM_CLAIM_SEGMENT,
};

/* The memory of a block. */
struct ssm_memory { uint64_t start, bytes; }; /* in the segment; no bytes: it has none */

/* The block size of the arena's class, and of the class that stands for none: no quota allows so much. So the fast path
 * of alloc never takes them. */
#define SSM_NO_BLOCK_SIZE (UINT64_C(1) << 62)

/* A size class, as the fast paths need it, in one cache line of private memory. */
struct ssm_own_class {
    __attribute__((aligned(SSM_CACHELINE))) uint64_t size_max; /* of a packet: block_size less headroom and tailroom */
    uint64_t                                         block_size; /* or SSM_NO_BLOCK_SIZE */
    struct ssm_cache                                *cache;      /* this process's; NULL while it is no holder */
    struct ssm_class                                *shared;
    uint32_t                                         first_block, block_count;
    uint32_t                                         cache_blocks;
    uint32_t                                         class_idx;
};

_Static_assert(offsetof(struct ssm_claim, references) == 8 && offsetof(struct ssm_claim, class_idx) == 15 &&
                   sizeof(struct ssm_claim) == 16,
               "what stands beside the handle is one word, the class its highest byte");

static inline uint64_t ssm_claim_word(const struct ssm_claim *claim)
{
    uint64_t word;
    memcpy(&word, &claim->references, sizeof word);
    return word;
}

/* One reference, and nothing else: the packet is this process's alone, not pinned, of no chain, delivery or arena. */
static inline bool ssm_claim_word_is_sole(uint64_t word)
{
    return word << 8 == UINT64_C(1) << 8;
}

static inline uint64_t ssm_claim_word_sole(uint32_t class_idx)
{
    return (uint64_t)class_idx << 56 | 1;
}

enum ssm_status {
    SSM_STATUS_OPEN     = 0,
    SSM_STATUS_READONLY = 1u << 0,
    SSM_STATUS_FORKED   = 1u << 1, /* a child that has no slot yet: it takes one at its first call */
    SSM_STATUS_CLOSED   = 1u << 2
};

struct ssm_pool {
    /* what the fast paths touch */
    struct ssm_u64         go; /* the address of a byte: not 0: ssm_pool_needs_no_lock(). See ssm_pool_set_status() */
    uint32_t               status; /* enum ssm_status; 0: open. Written by ssm_pool_set_status() */
    uint32_t               flags;  /* SSM_SERIAL ... as attached */
    uint32_t               self;   /* this process's holder slot, or SSM_NIL */
    uint32_t               home;   /* this process's own shard: pid % shards */
    struct ssm_mark        mark;   /* self's */
    uint32_t               era;
    struct ssm_claim      *claims; /* one per block; a private mapping, cleared by a fork */
    uint8_t               *base;
    uint8_t               *blocks;        /* the descriptors */
    uint64_t               lock_word;     /* what this process writes into a lock that it takes */
    bool                   no_membarrier; /* see struct ssm_holder */
    struct ssm_thread_lock thread_lock;

    int64_t                     left_bytes;          /* unchecked_bytes_max less the block sizes of what it holds */
    uint64_t                    last_size;           /* of the last fast alloc, */
    const struct ssm_own_class *last_class;          /* and its class */
    uint64_t                    unchecked_bytes_max; /* min(peak, quota): below it neither has to be looked at */
    uint64_t                    peak_bytes;          /* the most it ever held */
    uint64_t                    quota_bytes;         /* alloc does not go beyond */
    uint8_t                     class_from[65];      /* by the bits of a size: no class before it is large enough */
    struct ssm_own_class        classes[SSM_CLASS_MAX + 2]; /* the last one is for all sizes, and no class */

    struct ssm_geometry    geometry;
    struct ssm_segment     segment;
    struct ssm_sleep_hooks hooks;
    /* Three descriptions of the file, so that each can be dropped by itself. */
    int                    fd;       /* to ask and to open it anew; holds no lock, so a forked child may share it */
    struct ssm_description registry; /* holds the registry's byte, for a while */
    struct ssm_description alive;    /* holds the liveness lock; without a descriptor as soon as it does */
    struct ssm_file        file;
    char                  *path; /* by which it can be opened again, or NULL */
    struct {
        int             fd;
        struct ssm_file file;
        char            path[48];
    } locks;                      /* the lock file (lock_file.h), or an empty `path` */
    struct ssm_description shown; /* then: holds the slot's byte of the pool's file, for those who look */
    uint64_t               generation;
    uint32_t               pinned;    /* blocks with pins > 0 */
    struct ssm_u32         sleepers;  /* calls of this process that sleep on words of the segment */
    uint32_t              *scratch;   /* block indices, room for all; of one call */
    struct ssm_memory     *extents;   /* of the arena's blocks, as they were checked when a claim's references left 0 */
    bool                   rested;    /* a forked child has waited for an RMID, and takes none if there is none now */
    bool                   many_cpus; /* spinning for another process can help */
    struct ssm_ring       *rings;     /* that this process has open */
    struct ssm_redelivery *redeliveries;    /* tables of redelivering rings that this process ever opened */
    uint32_t               delivery_serial; /* of the last get from one of them */
    uint64_t               recheck_ns;  /* first sleep without a look: SSM_RECHECK_NS, or what SSM_RECHECK_MS says */
    struct ssm_u32         evasions;    /* locks that stayed taken and were passed over: the look said nothing */
    struct ssm_u32         linger_rest; /* short waits until spinning for long is tried again */
    char                   name[SSM_NAME_SIZE];
    int (*revive)(struct ssm_pool *pool);    /* a forked child takes its own slot; -EAGAIN: not now */
    bool (*on_stall)(struct ssm_pool *pool); /* nothing came: look for the dead; true: there was something to reap */
    void (*on_deliveries_done)(struct ssm_pool *pool, uint32_t ring_id); /* the last open one of that ring has ended */
    struct ssm_u64 looked_ns;                                            /* when on_stall last did so */
    uint64_t       arena_freed_bytes; /* by this process, since it last looked whether the arena has too much memory */
    uint64_t       grow_again_ns;     /* memory could not be had: the arena does not try to grow before */
    uint64_t       stayed_ns;         /* when a lock last stayed taken for longer than a call waits in here */
    uint32_t       locks_stayed;      /* how often */
    struct ssm_pool *next, **link;    /* the process's list of attachments, for fork */
};

/* Sets the base, and all that follows from it and from the geometry. */
SSM_COLD void ssm_pool_set_base(struct ssm_pool *pool, uint8_t *base);
void ssm_pool_own_classes(struct ssm_pool *pool); /* with the slot taken: whose caches are this process's */

int ssm_pool_enter_slowly(struct ssm_pool *pool);

/* Begins a call that changes the pool; 0, or why not (then there is nothing to leave). */
static inline int ssm_pool_enter(struct ssm_pool *pool)
{
    if (!(pool->flags & SSM_SERIAL))
        ssm_thread_lock_take(&pool->thread_lock);
    return pool->status == SSM_STATUS_OPEN ? 0 : ssm_pool_enter_slowly(pool);
}

/* May a call begin without ssm_pool_enter(), since neither other threads nor the status forbid it? Then the process
 * also takes part in membarrier. */
static inline bool ssm_pool_needs_no_lock(const struct ssm_pool *pool)
{
    return *(const char *)(uintptr_t)ssm_load_relaxed_u64(&pool->go) != 0; /* stale: another thread is there */
}

/* Sets the status, and what ssm_pool_needs_no_lock() asks: one byte, which is the C library's where the threads are
 * still to be counted. Needs to know whether the process takes part in membarrier. */
void ssm_pool_set_status(struct ssm_pool *pool, uint32_t status);

static inline void ssm_pool_leave(struct ssm_pool *pool)
{
    if (!(pool->flags & SSM_SERIAL))
        ssm_thread_lock_release(&pool->thread_lock);
}

static inline void ssm_pool_leave_scope(struct ssm_pool *const *pool)
{
    ssm_pool_leave(*pool);
}

#define SSM_POOL_SCOPE(pool, entered)                                                               \
    int ssm_entered_ = entered;                                                                     \
    if (ssm_entered_ != 0)                                                                          \
        return ssm_entered_;                                                                        \
    __attribute__((cleanup(ssm_pool_leave_scope), unused)) struct ssm_pool *const ssm_scope_ = pool

/* Enters for the rest of a function, or returns the error. The function leaves when it returns, after its return
 * expression was evaluated: that expression must not call anything that enters. */
#define SSM_POOL_ENTER(pool) SSM_POOL_SCOPE(pool, ssm_pool_enter(pool))
/* The same for a call that only looks: ssm_pool_enter_reader(). */
#define SSM_POOL_READ(pool) SSM_POOL_SCOPE(pool, ssm_pool_enter_reader(pool))

/* Around each sleep on words of the segment: ssm_pool_close() says that somebody is there still. A hook may fork in
 * between; the child does not count what its parent's thread began. Returns what ssm_sleeper_end() wants. */
static inline uint32_t ssm_sleeper_begin(struct ssm_pool *pool)
{
    ssm_add_acqrel_u32(&pool->sleepers, 1);
    return pool->era;
}

static inline void ssm_sleeper_end(struct ssm_pool *pool, uint32_t era)
{
    SSM_ASSERT(pool->era != era || ssm_load_relaxed_u32(&pool->sleepers) > 0);
    if (pool->era == era)
        ssm_add_acqrel_u32(&pool->sleepers, UINT32_MAX);
}

/* A nap outside of the pool: the caller has entered nothing, for others of its process may run. -EINTR: give up. The
 * memory stays mapped meanwhile; the attachment may be closed. */
int ssm_pool_nap(struct ssm_pool *pool, uint64_t duration_ns);
/* The same between two attempts, until that has gone on for `patience_ns`: -ETIMEDOUT. `until_ns` is 0 at first. */
int ssm_pool_nap_within(struct ssm_pool *pool, uint64_t *until_ns, uint64_t patience_ns, uint64_t nap_ns);
#define SSM_POOL_PATIENCE_NS UINT64_C(10000000000) /* a live process that is in the way for so long is stopped */

/* The descriptor of the pool's file, looked at; opened anew if the program has closed it or put another file in its
 * place.
 * -errno: it cannot be had. */
int ssm_pool_fd(const struct ssm_pool *pool);

/* The file that the locks are on, and its descriptor, likewise. */
static inline const struct ssm_file *ssm_pool_lock_file(const struct ssm_pool *pool)
{
    return pool->locks.path[0] != 0 ? &pool->locks.file : &pool->file;
}
int ssm_pool_lock_fd(const struct ssm_pool *pool);

/* Does another process hold the slot's liveness lock? What cannot be told counts as yes. */
bool ssm_holder_is_alive(const struct ssm_pool *pool, uint32_t slot);

/* Notes that a look skipped something whose lock stayed taken, so its result is not certain. */
static inline void ssm_lock_note_evasion(struct ssm_pool *pool)
{
    ssm_add_acqrel_u32(&pool->evasions, 1);
}

/* False if the file was truncated: a touch of what it lost is SIGBUS. It is a system call, so only calls that look,
 * wait, reap or close use it. It does not help against a truncation in the middle of a call. */
bool ssm_pool_is_whole(const struct ssm_pool *pool);

/* Begins a call that only looks. Allowed read-only and in a forked child. -SSM_E_CORRUPT if the file was truncated. */
int ssm_pool_enter_reader(struct ssm_pool *pool);

/* After a sleep: -SSM_E_CLOSED if another thread closed the attachment meanwhile, -SSM_E_CORRUPT if the file was
 * truncated. */
int ssm_pool_recheck(struct ssm_pool *pool);

static inline struct ssm_superblock *ssm_superblock_of(const struct ssm_pool *pool)
{
    return (struct ssm_superblock *)pool->base;
}

static inline struct ssm_holder *ssm_holder_at(const struct ssm_pool *pool, uint32_t slot)
{
    SSM_ASSERT(slot < pool->geometry.holders);
    return (struct ssm_holder *)(pool->base + pool->geometry.holders_start) + slot;
}

/* Is the holder a ring, with or without a name? */
static inline bool ssm_holder_is_ring(const struct ssm_pool *pool, uint32_t id)
{
    return ssm_kind_is_ring(ssm_load_acquire_u32(&ssm_holder_at(pool, id)->kind));
}

/* The word of a process's row of open rings that has the ring's bit. */
static inline struct ssm_u64 *ssm_opened_at(const struct ssm_pool *pool, uint32_t slot, uint32_t ring_id)
{
    SSM_ASSERT(slot < pool->geometry.holders && ring_id < pool->geometry.holders);
    return (struct ssm_u64 *)(pool->base + pool->geometry.opened_start) + (uint64_t)slot * pool->geometry.holder_words +
           ring_id / 64;
}

/* Has the process of that slot the ring open? */
static inline bool ssm_ring_is_opened_by(const struct ssm_pool *pool, uint32_t slot, uint32_t ring_id)
{
    const struct ssm_u64 *opened = ssm_opened_at(pool, slot, ring_id);
    return ssm_load_acquire_u64(opened) >> ring_id % 64 & 1; /* O4: before what follows from its being clear */
}

/* Of all waiting calls, in all processes, one looks for dead processes in each SSM_RECHECK_NS, since testing every
 * holder costs more than everything else that a waiter does. If it dies in its turn, the next turn makes up for it. A
 * stamp from the future is of another time namespace, or damaged, and counts as old. */
static inline bool ssm_pool_look_in_turn(const struct ssm_pool *pool, uint64_t now_ns)
{
    struct ssm_u64 *looked_ns = &ssm_superblock_of(pool)->looked_ns;
    uint64_t last_ns = ssm_load_relaxed_u64(looked_ns); /* stale: the swap fails, and another one has the turn */
    return now_ns - last_ns >= SSM_RECHECK_NS && ssm_cas_acqrel_u64(looked_ns, &last_ns, now_ns);
}

/* Slots from here on are free and always were. */
static inline uint32_t ssm_holder_high(const struct ssm_pool *pool)
{
    /* M2: pairs with M1 in ssm_registry_mark_used() */
    uint32_t high = ssm_load_acquire_u32(&ssm_superblock_of(pool)->holder_high);
    return high < pool->geometry.holders ? high : pool->geometry.holders;
}

static inline struct ssm_class *ssm_class_at(const struct ssm_pool *pool, uint32_t class_idx)
{
    SSM_ASSERT(class_idx < pool->geometry.class_count);
    return (struct ssm_class *)(pool->base + pool->geometry.classes_start) + class_idx;
}

static inline struct ssm_shard *ssm_shard_at(const struct ssm_pool *pool, uint32_t class_idx, uint32_t shard_idx)
{
    SSM_ASSERT(class_idx < pool->geometry.class_count && shard_idx < pool->geometry.shards);
    return (struct ssm_shard *)(pool->base + pool->geometry.shards_start) + class_idx * pool->geometry.shards +
           shard_idx;
}

/* The shard's free list: a dense stack of block indices, room for every block of the class. */
static inline struct ssm_u32 *ssm_list_at(const struct ssm_pool *pool, uint32_t class_idx, uint32_t shard_idx)
{
    const struct ssm_class_geometry *c = &pool->geometry.classes[class_idx];
    SSM_ASSERT(class_idx < pool->geometry.class_count && shard_idx < pool->geometry.shards);
    return (struct ssm_u32 *)(pool->base + c->lists_start) + (uint64_t)shard_idx * c->block_count;
}

static inline struct ssm_block *ssm_block_at(const struct ssm_pool *pool, uint32_t block_idx)
{
    SSM_ASSERT(block_idx < pool->geometry.block_total);
    return (struct ssm_block *)(pool->blocks + (uint64_t)block_idx * pool->geometry.block_bytes);
}

/* A hint for the processor. The index may be anything that another process wrote. */
static inline void ssm_block_prefetch(const struct ssm_pool *pool, uint32_t block_idx)
{
    ssm_prefetch(pool->blocks + (uint64_t)block_idx * pool->geometry.block_bytes);
}

static inline struct ssm_cache *ssm_cache_at(const struct ssm_pool *pool, uint32_t slot, uint32_t class_idx)
{
    const struct ssm_geometry *g = &pool->geometry;
    SSM_ASSERT(slot < g->holders && class_idx < g->class_count);
    return (struct ssm_cache *)(pool->base + g->caches_start +
                                ((uint64_t)slot * g->class_count + class_idx) * g->cache_bytes);
}

/* The smallest class for a packet of that size; its class_idx is class_count if there is none. */
static inline const struct ssm_own_class *ssm_class_for(const struct ssm_pool *pool, uint64_t size)
{
    const struct ssm_own_class *class =
        &pool->classes[pool->class_from[size == 0 ? 0 : 64u - (unsigned)__builtin_clzll(size)]];
    while (size > class->size_max)
        class ++;
    return class;
}

static inline struct ssm_service_shared *ssm_service_at(const struct ssm_pool *pool, uint32_t service_idx)
{
    SSM_ASSERT(service_idx < SSM_SERVICE_MAX);
    return (struct ssm_service_shared *)(pool->base + pool->geometry.services_start) + service_idx;
}

/* The arena, if the pool has one, is the class behind the fixed ones. */
static inline bool ssm_class_is_arena(const struct ssm_pool *pool, uint32_t class_idx)
{
    return class_idx == pool->geometry.fixed_count;
}

static inline struct ssm_extent *ssm_extent_at(const struct ssm_pool *pool, uint32_t block_idx)
{
    const struct ssm_class_geometry *c = &pool->geometry.classes[pool->geometry.fixed_count];
    SSM_ASSERT(block_idx - c->first_block < pool->geometry.arena_packets);
    return (struct ssm_extent *)(pool->base + pool->geometry.extents_start) + (block_idx - c->first_block);
}

/* The present extent of a block of the arena; no bytes if it has none, or an invalid one. A caller that does not hold
 * the block compares its generation and reads this again. */
static inline struct ssm_memory ssm_extent_seen(const struct ssm_pool *pool, uint32_t block_idx)
{
    const struct ssm_extent *extent = ssm_extent_at(pool, block_idx);
    const uint64_t arena_bytes = pool->geometry.arena_bytes;
    uint64_t bytes = ssm_load_acquire_u64(&extent->bytes); /* X2: pairs with X1 in furnish_locked() */
    uint64_t start = ssm_load_acquire_u64(&extent->start);
    if (bytes > arena_bytes || start > arena_bytes - bytes || (bytes | start) % SSM_EXTENT_UNIT != 0)
        start = bytes = 0;
    return (struct ssm_memory){pool->geometry.classes[pool->geometry.fixed_count].payload_start + start, bytes};
}

static inline struct ssm_memory ssm_memory_fixed(const struct ssm_pool *pool, uint32_t class_idx, uint32_t block_idx)
{
    const struct ssm_class_geometry *c = &pool->geometry.classes[class_idx];
    SSM_ASSERT(block_idx - c->first_block < c->block_count);
    return (struct ssm_memory){c->payload_start + (uint64_t)(block_idx - c->first_block) * c->stride, c->block_size};
}

static inline struct ssm_memory *ssm_extent_held(const struct ssm_pool *pool, uint32_t block_idx)
{
    return &pool->extents[block_idx - pool->geometry.classes[pool->geometry.fixed_count].first_block];
}

/* Of a block that this process holds. */
static inline struct ssm_memory ssm_memory_held(const struct ssm_pool *pool, uint32_t class_idx, uint32_t block_idx)
{
    return ssm_class_is_arena(pool, class_idx) ? *ssm_extent_held(pool, block_idx)
                                               : ssm_memory_fixed(pool, class_idx, block_idx);
}

/* The memory of any block, for calls that only look. */
static inline struct ssm_memory ssm_memory_seen(const struct ssm_pool *pool, uint32_t class_idx, uint32_t block_idx)
{
    return ssm_class_is_arena(pool, class_idx) ? ssm_extent_seen(pool, block_idx)
                                               : ssm_memory_fixed(pool, class_idx, block_idx);
}

/* The memory of a block that this process holds from now on; kept in private memory as long as it does. */
static inline struct ssm_memory ssm_memory_take(struct ssm_pool *pool, uint32_t class_idx, uint32_t block_idx)
{
    if (ssm_class_is_arena(pool, class_idx))
        *ssm_extent_held(pool, block_idx) = ssm_extent_seen(pool, block_idx);
    return ssm_memory_held(pool, class_idx, block_idx);
}

static inline bool ssm_class_has_block(const struct ssm_own_class *class, uint32_t block_idx)
{
    return block_idx - class->first_block < class->block_count; /* an index below first_block wraps */
}

/* The class of a block index that is known to be below block_total. */
static inline uint32_t ssm_class_of_block(const struct ssm_pool *pool, uint32_t block_idx)
{
    uint32_t class_idx = pool->geometry.class_count - 1;
    SSM_ASSERT(block_idx < pool->geometry.block_total);
    while (block_idx < pool->geometry.classes[class_idx].first_block)
        class_idx--;
    return class_idx;
}

/* This process, as an owner. */
static inline uint32_t ssm_owner_self(const struct ssm_pool *pool)
{
    return ssm_owner_of((uint32_t)(pool->lock_word >> 32), pool->self);
}

static inline uint64_t ssm_handle_of(uint32_t generation, uint32_t block_idx)
{
    return (uint64_t)generation << 32 | block_idx;
}

/* Of a block that this process holds. */
static inline uint64_t ssm_handle_now(const struct ssm_pool *pool, uint32_t block_idx)
{
    return ssm_handle_of(ssm_load_relaxed_u32(&ssm_block_at(pool, block_idx)->generation), block_idx);
}

#endif
