/* SPDX-License-Identifier: Apache-2.0
 *
 * The layout of the segment: every struct that lives in shared memory, and what stands where.
 *
 *     superblock | holder slots | open rings | classes | shards | free lists | services | numbers | arena | payload | block descriptors |
 *     the arena's lists, extents, tree and bits | carver | caches | metadata | the arena's memory
 *
 * Where the arena grows, everything from the arena's descriptors on is sparse: see sparse.h.
 *
 * Shared structs hold fixed-width fields and indices, never pointers. Each field says who may write it. Whatever
 * is read from here was written by another process: an index, offset or length is checked before it is used.
 *
 * The superblock stores the parameters; the geometry is computed from them, in every process anew, and compared
 * with the file's size. From then on the private copy is used: a damaged superblock moves no pointer.
 *
 * Glossary
 *   block       a fixed piece of the payload area; its descriptor (struct ssm_block) stands apart from it
 *   holder      what can keep a block: an attached process or a ring; its id is its slot in the holder table
 *   holder set  one bit per holder in the descriptor. THE TRUTH: a block is free exactly when its set is empty.
 *               Free lists, `listed`, counts, caches and ring slots are caches of that truth
 *   home        the shard whose list takes the block when it is free
 *   settle      lock the home; if the set is empty and the block is not listed, list it. Idempotent
 *   reap        clear the bits of the dead everywhere, settle every block that is empty and not listed
 *   lock word   0, or incarnation << 32 | waiters << 31 | holder slot + 1
 *   service     an allocator of ids, addresses, pids or RMIDs that processes share by name
 *   owner       the process that allocated a value of a service: the low 20 bits of an incarnation << 12 | holder slot
 *   chain       a message of several blocks: a head, and segments that its `next` and theirs lead to; see chain.h
 *   delivery    a packet that a process took out of a redelivering ring and has neither freed nor put
 *   carver      the range tree that divides the metadata area among rings and services
 *   arena       memory for packets larger than any block; its blocks are a class of their own, the last one
 *   extent      place and size of such a block in the arena's memory; it changes from packet to packet
 *   backed      a unit of a growing arena's memory that is reserved: the file system has promised its pages
 *   numbers     three allocators of the registry's own: of holder slots, ids of rings, and RMIDs (registry_ids.h)
 */
#ifndef SSM_LAYOUT_H
#define SSM_LAYOUT_H

#include "eventcount.h"
#include "holder_set.h"
#include "invariant.h"
#include "ssm.h"

#define SSM_MAGIC          UINT64_C(0x31306d7373006c70) /* "pl\0ssm01" */
#define SSM_LAYOUT_VERSION 13u
#define SSM_PARK_SLOTS     32u /* room in a cache beyond its size, for blocks whose shard stays locked */
#define SSM_CACHED_BYTES                                                                             \
    UINT64_C(65536) /* blocks of so many have no private cache: the last one freed goes out first */
#define SSM_BLOCK_MAX    (UINT64_C(1) << 31)
#define SSM_EXTENT_UNIT  SSM_CACHELINE   /* start and size of an extent are multiples of it */
#define SSM_EXTENT_PAGE  UINT64_C(4096)  /* large extents start at multiples of this, */
#define SSM_EXTENT_LARGE UINT64_C(65536) /* those of so many bytes: a page costs them little */
#define SSM_GROW_UNIT    UINT64_C(65536) /* by which an arena grows; reserved before it is touched */
#define SSM_NIL          UINT32_MAX
#define SSM_ASKING_MAX   8u /* calls that wait for several blocks of one class, in the order in which they came */
#define SSM_RMID_REST_NS UINT64_C(2000000) /* of a process's RMID, before another process gets it */

#define SSM_SHARED_ALIGNED __attribute__((aligned(SSM_NO_SHARING)))

enum ssm_state { SSM_STATE_READY = 0x79646572, SSM_STATE_POISONED = 0x6e736f70 };

struct ssm_superblock {   /* written once, by the creator, but for the last fields */
    struct ssm_u64 magic; /* written last of all: a file without it is no pool */
    uint64_t layout_hash; /* version, struct sizes and constants of the build that made the pool */
    uint64_t params_hash; /* of all that follows but the state: a scribbled superblock is told from a pool */
    uint64_t size_bytes;
    uint64_t generation; /* random */
    uint64_t metadata_bytes;
    uint64_t arena_bytes, grow_bytes;
    uint32_t class_count, shards, headroom, tailroom, cache, holders, flags, arena_packets;
    struct ssm_class_spec classes[SSM_CLASS_MAX];
    struct ssm_u32 state;       /* enum ssm_state; this and holder_high change under the registry's byte lock */
    struct ssm_u32 holder_high; /* holder slots from here on were never used */
    struct ssm_u64 looked_ns;   /* of the last look for the dead: ssm_pool_look_in_turn() */
    struct ssm_u64 rings_made;  /* ever; under the registry's byte lock */
};

/* Its owner: see lock.h. */
struct ssm_lock { struct ssm_u64 word; };

/* One slot of the holder table. Written under the registry's byte lock, unless a field says otherwise. */
struct ssm_holder {
    SSM_SHARED_ALIGNED
    struct ssm_u32 kind;        /* enum ssm_holder_kind; written last when the slot is taken */
    struct ssm_u32 incarnation; /* changes before the slot is used again: old lock words do not name the new owner */
    struct ssm_u32 pid;
    struct ssm_u32 rmid;
    struct ssm_u32 no_membarrier; /* 1: this process fences its cache itself, it cannot take part in membarrier */
    struct ssm_u32 waiting;       /* written by its process: 0, or 1 + class * shards + shard where it sleeps */
    struct ssm_u64 ring_start;    /* a ring: offset of struct ssm_ring_shared in the metadata area */
    struct ssm_u64 peak_bytes;    /* written by its process: the most it has held at once */
    struct ssm_u64 services;      /* it may own values of these; set by its process, cleared by its reaper */
    char           name[SSM_NAME_SIZE];
    struct ssm_u32 ring_id;    /* a ring: its number, the smallest that no other ring had */
    struct ssm_u32 has_caches; /* 1: there is memory for the slot's caches, from its first process on; see sparse.h */
    struct ssm_u64 since_ns;   /* a process: when it attached, by the machine's monotonic clock; for people to read */
    struct ssm_u32 letting_go; /* by its process: 0, or 1 + the block that it clears bits of and then settles */
};
#define SSM_LETTING_GO_ANY UINT32_MAX /* it settles a class */

/* One entry of the service directory; the allocator itself is in the metadata area. What is not atomic is written once,
 * under the registry's byte lock, before `kind`; `lock` guards the allocator and the counters. ssm_check() verifies
 * the allocator's own invariants, and
 *   I9  with SSM_RECLAIM, the owner of a value is the present process of its slot, and the slot names the service */
struct ssm_service_shared {
    SSM_SHARED_ALIGNED
    struct ssm_u32  kind;  /* enum ssm_service_kind; written last */
    uint32_t        flags; /* SSM_RECLAIM */
    struct ssm_lock lock;
    uint64_t        start, bytes; /* in the metadata area */
    uint64_t        first, last;  /* as in struct ssm_service_options */
    uint32_t        ranges;
    struct ssm_u32  recoveries;
    struct ssm_u64  used, allocs; /* values allocated now, and ever */
    char            name[SSM_NAME_SIZE];
};

/* Which call that waits for several blocks is served before all others; see reservation.h. Each word is a time in
 * microseconds << 13 | holder slot + 1. Any process writes them. */
struct ssm_reservations {
    struct ssm_u64 turn;                   /* until when others step back; without a slot: until when none does */
    struct ssm_u64 asking[SSM_ASKING_MAX]; /* from when on a call may have a turn; 0: none asks */
};

/* Open rings: a table of one row per holder slot, one bit per holder id. A bit says that the process of that slot has the
 * ring of that id open, or a packet of it that a death would return. Written by the process itself; by a reaper after
 * its death; see ring_unlink.h. ssm_check() verifies:
 *   I20 each bit is in the row of a process, and names a ring */

/* What the shards of one class share. Any process writes it. */
struct ssm_class {
    SSM_SHARED_ALIGNED
    struct ssm_u32   announced; /* count << 1 | bit: a call waits on some shard (sticky, as in an eventcount) */
    struct ssm_u32   turn;      /* where the search for waiters starts next: round-robin over the shards */
    struct ssm_u32   unsettled; /* 1: a block may be free and on no list, because its shard's lock stayed taken */
    struct ssm_event several;   /* calls that wait for several blocks, or for room in the arena, sleep here */
    struct ssm_reservations reservations;
};

/* One shard of one class. Guarded by `lock` unless a field says otherwise; ssm_check() verifies:
 *   I1  its list holds free_count different blocks of its class
 *   I2  exactly those blocks of the class are `listed` whose home it is; their holder sets are empty
 * After a death the descriptors are the truth: rebuild() in shard.c restores I1 and I2. */
struct ssm_shard {
    SSM_SHARED_ALIGNED
    struct ssm_lock lock;
    struct ssm_u32  free_count; /* a hint without the lock: a reader that acts on it looks again under the lock */
    struct ssm_u32  recoveries;
    struct ssm_u64  allocs, frees, steals;
    SSM_SHARED_ALIGNED
    struct ssm_event event; /* not guarded */
};

/* One block's descriptor, one cache line for up to 128 holders.
 *   I3  generation, start, length, tag are written by a process that holds the block
 *   I4  home and next are written by a process that holds it alone; listed, by the owner of the home's lock
 *   I5  start + length <= block size */
struct ssm_block {
    struct ssm_u32 generation; /* upper half of the handle; changes when the block leaves a list or is handed out */
    struct ssm_u32 listed;     /* 1: on its home's list */
    struct ssm_u32 home;
    struct ssm_u32 moves; /* counts bits that were set while another was set; see block.h */
    struct ssm_u64 start; /* of the data in the block */
    struct ssm_u64 length;
    struct ssm_u64 tag;
    struct ssm_u64 next;      /* handle of the segment behind it in a chain, or SSM_NO_NEXT: in every fresh packet */
    struct ssm_u64 holders[]; /* the holder set: bit i % 64 of word i / 64 */
};

/* The extent of one block of the arena. Written under the arena's lock, `bytes` last and with release, by a process
 * that has just claimed the block, and by any process while the block's holder set is empty. */
struct ssm_extent {
    struct ssm_u64 start; /* in the arena's memory */
    struct ssm_u64 bytes; /* 0: none. A free block keeps the extent of its last packet until it is needed */
};

/* The arena. Behind it are an extent for each of its blocks; a range tree of its memory, in which the owner of a range
 * is the block's number in the class; and, if it grows, a bit for each unit of its memory, set once the unit is
 * reserved. Extents, holder sets and bits are the truth, the tree is a cache of them. Blocks from `packets` on, and
 * words of bits from `bit_words` on, may have no memory: nobody touches them. ssm_check() verifies, with the lock held:
 *   I12 each extent lies in the arena's memory, and no two of them overlap
 *   I13 the tree's allocated ranges are exactly the extents
 *   I15 a unit whose bit is set is reserved: the file has as many pages as the bits and the fixed part say */
struct ssm_arena {
    SSM_SHARED_ALIGNED
    struct ssm_lock lock;
    struct ssm_u32  recoveries;
    struct ssm_u32  packets;                  /* its blocks that there are; it never shrinks */
    struct ssm_u32  bit_words;                /* words of `backed` that there are; it never shrinks */
    struct ssm_u64  punch_start, punch_units; /* what is being given back; no units: nothing */
    struct ssm_u64  excess_ns; /* since when it has had much more memory than packets use; 0: it has not */
};

/* The private cache of one process for one class: free blocks that carry only the process's bit. It is in shared
 * memory, so that other processes can take the blocks when all others are in use.
 * Written by its process while `busy`, or by the owner of `thief` once `busy` is 0; see cache.h.
 *   I6  an entry counts while the block carries the process's bit and the entry's generation; all of them do, but for
 *       the one on top while a thief takes it (`stealing`), and those of a process that is being reaped */
struct ssm_cache {
    struct ssm_lock thief;
    struct ssm_u32  busy;
    struct ssm_u32  count;
    struct ssm_u32  stealing; /* by the owner of `thief`: 1 while it takes entries off */
    uint32_t        reserved;
    struct ssm_u64  handles[];
};

/* One side of a ring. Written by the owner of `lock`, which the process of an exclusive side keeps. */
struct ssm_side {
    SSM_SHARED_ALIGNED
    struct ssm_lock lock;
    struct ssm_u64  put_intent; /* producer: position up to which it may have set the ring's bit; 0: none */
    struct ssm_u64  put_owner;  /* producer: which process ends deliveries, and how many it puts; 0: none */
    struct ssm_u64  peer;       /* the other side's index as last seen */
    struct ssm_u64  count;      /* consumer: packets handed out; producer: highest depth seen */
    struct ssm_u64  recoveries;
    struct ssm_u64  drops;      /* lost to a full ring: not put (producer), or evicted (consumer) */
    struct ssm_u64  found_full; /* producer: packets that found the ring full, where every n-th of them goes in */
    SSM_SHARED_ALIGNED
    struct ssm_u64 index; /* next position to write (producer: head) or read (consumer: tail); for the peer */
};

/* The process that claimed an exclusive side of a ring last. Written by the owner of the side's lock; see
 * ring_partner.h. ssm_check() verifies
 *   I18 a side that was claimed and has no owner now says since when its process is gone */
struct ssm_partner {
    struct ssm_u64 gone_ns; /* since when it is gone; 0: it is there, or there never was any */
    struct ssm_u32 pid;     /* 0: no process has claimed the side yet */
    struct ssm_u32 died;    /* 1: it was found dead; 0: it closed the ring */
    char           name[SSM_NAME_SIZE];
};

/* The entry of one block in a redelivering ring; see redelivery.h. ssm_check() verifies, if the entry has the block's
 * generation:
 *   I10 it names an attached process, and that process or the ring carries the block
 *   I11 returned: the ring carries the block, and `returned` of the ring is set */
struct ssm_delivery {
    struct ssm_u64 taken;      /* generation << 32 | state and owner */
    struct ssm_u64 position;   /* the index at which it was taken: the order at the front */
    struct ssm_u64 handed_out; /* how often, since it was put; written by its owner */
};

/* A ring: a power-of-two array of handles, and when it redelivers, an entry for each block of the pool behind it.
 * ssm_check() verifies:
 *   I7  tail <= head <= tail + capacity
 *   I8  a block carries the ring's bit exactly when one slot between tail and head, or between head and put_intent,
 *       has its handle; or it is a segment of the chain of such a block; or its entry says that it was returned
 *   I14 done <= head: all is done when they are equal
 *   I19 a slot with SSM_SLOT_COMMON between them is of a packet that no other living process, and no other ring,
 *       holds, and that is no chain; or, until the consumer's side is repaired, of one that a dead process took
 *   I21 a process in one of the sets of a ring with SSM_PEERS has the ring open */
struct ssm_ring_shared {
    uint32_t        capacity, flags; /* written once */
    struct ssm_u32  acl;             /* enum ssm_acl and SSM_ACL_DISCARD; anybody writes */
    struct ssm_u32  returned;        /* 1: a get looks for returned packets first; set by reapers */
    struct ssm_u64  redelivered;     /* packets handed out once more; under the consumer's right */
    uint64_t        serial;          /* how many rings were made before it; written once */
    uint32_t        type_bytes;      /* of the text behind all else that says what its packets are; written once */
    struct ssm_u32  slot_count;      /* slots in use, a power of two; it grows under both rights, see ring_widen.h */
    uint64_t        alive_for_ns;    /* from when a side has no process on until calls of the other end; written once */
    struct ssm_u64  owner;           /* SSM_OWNED: the lock word of the process that it goes with; 0: none, or ended */
    struct ssm_u32  roster; /* of a topic: subscriptions ever counted; of one of these: its number; ring_roster.c */
    struct ssm_side producer, consumer;
    SSM_SHARED_ALIGNED struct ssm_event   not_empty;
    SSM_SHARED_ALIGNED struct ssm_event   not_full;
    SSM_SHARED_ALIGNED struct ssm_event   all_done;
    struct ssm_u64                        done; /* packets whose getter said so; see ring_join.h */
    SSM_SHARED_ALIGNED struct ssm_partner last_producer;
    struct ssm_partner                    last_consumer;
    SSM_SHARED_ALIGNED struct ssm_u64     slots[]; /* handles, or handle | SSM_SLOT_COMMON: ssm_slot_handle() */
};

/* In the low half of a handle, above all block indices: the packet was put by the fast path (I19). */
#define SSM_SLOT_COMMON UINT64_C(0x80000000)
_Static_assert(SSM_BLOCK_MAX <= SSM_SLOT_COMMON, "the mark is no part of an index");

static inline uint64_t ssm_slot_handle(const struct ssm_u64 *slot)
{
    return ssm_load_relaxed_u64(slot) & ~SSM_SLOT_COMMON; /* the ring's indices order it */
}

/* How many of the holder slots rings may have: an eighth is kept for processes. */
static inline uint32_t ssm_rings_max(uint32_t holders)
{
    return holders - holders / 8;
}

/* A ring whose name is gone is one, too. */
static inline bool ssm_kind_is_ring(uint32_t kind)
{
    return kind == SSM_HOLDER_RING || kind == SSM_HOLDER_UNLINKED;
}

_Static_assert(sizeof(struct ssm_holder) == SSM_NO_SHARING, "holder slots do not share lines");
_Static_assert(sizeof(struct ssm_service_shared) == SSM_NO_SHARING, "services do not share lines");
_Static_assert(sizeof(struct ssm_class) == SSM_NO_SHARING, "classes do not share lines");
_Static_assert(sizeof(struct ssm_arena) == SSM_NO_SHARING, "the arena's lock and its extents do not share lines");
_Static_assert(sizeof(struct ssm_shard) == 2 * SSM_NO_SHARING, "a shard's lock and its waiters do not share lines");
_Static_assert(sizeof(struct ssm_side) == 2 * SSM_NO_SHARING,
               "what a side of a ring writes, and what its peer reads of it, do not share lines");
_Static_assert(2 * sizeof(struct ssm_partner) == SSM_NO_SHARING,
               "both partners of a ring are one line, which few write");
_Static_assert(sizeof(struct ssm_block) + 2 * 8 == SSM_CACHELINE, "a descriptor with 128 holders is one line");

/* Where a holder stands in holder sets. */
struct ssm_mark {
    uint64_t bit;
    uint32_t word;
};

static inline struct ssm_mark ssm_mark_of(uint32_t holder)
{
    return (struct ssm_mark){.bit = UINT64_C(1) << holder % 64, .word = holder / 64};
}

/* ---- what stands where: private to the process ------------------------------------------------------ */

struct ssm_class_geometry {
    uint64_t block_size;    /* as asked; the arena's: all of it */
    uint64_t stride;        /* rounded up to whole cache lines; the arena's: none */
    uint64_t payload_start; /* offset of the first block in the segment */
    uint64_t lists_start;   /* offset of the free lists: `shards` arrays of block_count indices */
    uint32_t block_count;
    uint32_t first_block;  /* global index of the class's first block */
    uint32_t cache_blocks; /* private cache: at most 1/8 of the class, 0 = off; see SSM_CACHED_BYTES */
};

#define SSM_LOCKS_APART (UINT32_C(1) << 16) /* a flag of the pool's: its locks are on a lock file, see lock_file.h */

struct ssm_geometry {
    uint32_t fixed_count; /* classes whose blocks have one size; the arena's class follows them */
    uint32_t class_count; /* all */
    uint32_t shards, headroom, tailroom, cache, holders, flags;
    uint32_t holder_words; /* 64-bit words of a holder set */
    uint32_t block_total;
    uint32_t block_bytes; /* of a descriptor: whole cache lines */
    uint32_t cache_slots; /* of each private cache */
    uint32_t cache_bytes;
    uint64_t metadata_bytes;
    uint64_t holders_start, opened_start, classes_start, shards_start, blocks_start, caches_start, metadata_start;
    uint64_t services_start, carver_start, carver_bytes, rmids_start, slots_start, ring_ids_start;
    uint32_t carver_nodes;   /* enough for a range per holder slot and service, and the gaps between them */
    uint32_t arena_nodes;    /* enough for a range per block of the arena, and the gaps */
    uint32_t arena_packets;  /* of one that grows, the most */
    uint64_t arena_bytes;    /* 0: there is none; of one that grows, the most */
    uint64_t arena_reserved; /* of them, reserved when the pool is made */
    uint64_t arena_units;    /* of one that grows: how many bits `backed` has; 0: it does not */
    uint64_t arena_start, extents_start, arena_tree_start, arena_tree_bytes, backed_start;
    uint64_t reserved_bytes; /* at the start of the segment, reserved when the pool is made; or all of it */
    uint64_t size_bytes;
    struct ssm_class_geometry classes[SSM_CLASS_MAX + 1];
};

/* Checks the options and computes the geometry. -EINVAL: out of bounds; -EOVERFLOW: larger than 2^62 bytes. */
int ssm_layout_compute(const struct ssm_pool_options *options, struct ssm_geometry *geometry_out);

/* The numbers that the registry hands out, and the allocators of them: laid out as those of services are. */
enum ssm_registry_ids {
    SSM_REGISTRY_IDS_SLOTS,
    SSM_REGISTRY_IDS_RINGS,
    SSM_REGISTRY_IDS_RMIDS,
    SSM_REGISTRY_IDS_KINDS
};
struct ssm_service_options ssm_layout_registry_ids(const struct ssm_geometry *geometry, enum ssm_registry_ids which);

/* Writes everything but the state and the magic. */
void ssm_superblock_write(struct ssm_superblock *superblock, const struct ssm_geometry *geometry);
/* The magic: from here on the file is a pool. */
void ssm_superblock_publish(struct ssm_superblock *superblock);
/* Checks a copy of a file's superblock, and computes the geometry. -SSM_E_LAYOUT: not a pool of this build's layout;
 * -SSM_E_CORRUPT: a damaged pool. Does not look at the state. */
int ssm_superblock_read(const struct ssm_superblock *superblock, uint64_t file_size, struct ssm_geometry *geometry_out);

#endif
