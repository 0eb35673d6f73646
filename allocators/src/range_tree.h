/* SPDX-License-Identifier: Apache-2.0
 *
 * Range tree: closed ranges of u64 addresses, each free or allocated, in a balanced tree ordered by start. The
 * semantics are those of the IntervalTree of rust-vmm's vm-allocator; allocation by policy (first, last, exact),
 * alignment and bounds, in logarithmic time.
 *
 *                              [ 0x3000-0x3fff allocated ]
 *                       left: gap 0x2000 /      \ right: gap 0x8000      the largest free range on each side
 *              [ 0x0000-0x1fff free ]        [ 0x5000-0xcfff free ]
 *                            \                  /
 *            [ 0x2000-0x2fff allocated ]  [ 0x4000-0x4fff allocated ]
 *
 * An AVL tree (Adelson-Velsky and Landis 1962). Each node knows for both its subtrees the height, the length of the
 * largest free range, and, for up to AL_TREE_TRACKS alignments, the largest length that is left of a free range when it
 * is entered at a multiple of the alignment. A search therefore touches the nodes of one path and nothing else, and
 * goes into a subtree only if the answer may be there.
 *
 * Cost: O(log n) for exact, free, insert and delete, with any bounds; for first and last match with alignment 1,
 * AL_TREE_PAGE, and the others that are tracked; and with every alignment when the free ranges start at multiples of
 * it. Otherwise the search also looks at free ranges in front of the answer that are long enough (size <= length <
 * size + align - 1) and yet hold no multiple of the alignment early enough. Once such looks have added up to as many as
 * there are nodes, the alignment becomes a tracked one, by a pass over all nodes; where all tracks are in use, one that
 * was not searched by lately makes room. `min` and `max` add O(log n). Queries for overlaps: O(log n + m) for m
 * results.
 *
 * Process and thread safety: none, see flat.h.
 *
 * Invariants, verified by al_tree_check():
 *   I1  in order, the ranges ascend and do not overlap
 *   I2  what a node records of a subtree (height, gap, fit of the alignments tracked) is what the subtree has
 *   I3  the heights of a node's two subtrees differ by one at most
 *   I4  the tree has top.used nodes, top.allocated of them allocated; the other ones below top.fresh are on the list
 *       top.spare, unused; those at or above top.fresh have never been used
 *   I5  the journal is empty
 *
 * Crash rule: that of the journal (range_journal.h); al_tree_recover() is there. The owner of an allocated range is
 * part of its node, so it is noted exactly when the range is allocated.
 */
#ifndef AL_RANGE_TREE_H
#define AL_RANGE_TREE_H

#include <stdbool.h>
#include <stdint.h>

#include "range_journal.h"

AL_BEGIN

#define AL_TREE_NODES_MAX (UINT32_C(1) << 31)
#define AL_TREE_PAGE      UINT64_C(4096)

enum al_tree_policy { AL_TREE_FIRST = 0, AL_TREE_LAST = 1, AL_TREE_EXACT = 2 };

struct al_tree_constraint {
    uint64_t size;  /* >= 1 */
    uint64_t align; /* a power of two */
    uint64_t min;   /* the allocated range lies within [min, max] */
    uint64_t max;
    uint64_t exact; /* its start, for AL_TREE_EXACT */
    uint32_t policy;
};

/* Ranges in order; valid until the tree is changed. */
struct al_tree_iter {
    struct al_tree_path path;
    uint32_t            at;
    uint32_t            left; /* nodes it may still give, against a corrupt tree */
    uint64_t            end;  /* ranges that start after it are not wanted */
};

/* Each range of the tree is a node, free or allocated: a tree with m allocated ranges needs 2 m + 1 of them at most.
 * 0 when the capacity is 0 or above AL_TREE_NODES_MAX. */
uint64_t al_tree_size_bytes(uint32_t capacity);

/* An empty tree. mem is aligned to 8 bytes; 64 is faster. */
int al_tree_init(struct al_tree *t, void *mem, uint64_t mem_bytes, uint32_t capacity);
int al_tree_attach(struct al_tree *t, void *mem, uint64_t mem_bytes);

/* Lay dst out in new, larger memory with everything src has. src is left as it is. */
int al_tree_grow(struct al_tree *dst, void *mem, uint64_t mem_bytes, uint32_t capacity, const struct al_tree *src);

/* Add a range. AL_OVERLAP: *overlap_out (may be NULL) is a node it overlaps. AL_INVALID_RANGE: end before start. */
int al_tree_insert(struct al_tree *t, uint64_t start, uint64_t end, uint32_t state, uint32_t owner,
                   struct al_tree_node *overlap_out);

/* Remove a range, free or allocated. AL_NOT_AVAILABLE: there is no such one. */
int al_tree_delete(struct al_tree *t, uint64_t start, uint64_t end);

/* AL_OK, or what is wrong with it: size, alignment, min > max, exact start unaligned or its end past 2^64 - 1. */
int al_tree_constraint_check(const struct al_tree_constraint *c);

/* Allocate part of a free range; what is left of it stays free. AL_NOT_AVAILABLE, or what the check answers. */
int al_tree_alloc(struct al_tree *t, const struct al_tree_constraint *c, uint32_t owner, uint64_t *start_out);

/* Where al_tree_alloc() would allocate, by the ranges alone; or AL_NOT_AVAILABLE, or what the check answers. */
int al_tree_find(const struct al_tree *t, const struct al_tree_constraint *c, uint64_t *start_out);

/* Make an allocated range free and merge it with free neighbours. AL_INVALID_TRANSITION: these addresses are free
 * already. AL_NOT_AVAILABLE: there is no such range. */
int al_tree_free(struct al_tree *t, uint64_t start, uint64_t end);

/* A copy of the node with exactly this range, or of the one that contains it. AL_NOT_AVAILABLE. */
int al_tree_search(const struct al_tree *t, uint64_t start, uint64_t end, struct al_tree_node *node_out);
int al_tree_superset(const struct al_tree *t, uint64_t start, uint64_t end, struct al_tree_node *node_out);

/* Every range that overlaps [start, end], in order. al_tree_next() gives AL_NOT_AVAILABLE after the last. */
int al_tree_iterate(const struct al_tree *t, uint64_t start, uint64_t end, struct al_tree_iter *it);
int al_tree_next(const struct al_tree *t, struct al_tree_iter *it, struct al_tree_node *node_out);

/* An allocated range of this owner, in no order, looking from *cursor on (0 at first). To return all that a dead
 * owner had: free what it gives and call it again with *cursor 0, or list with the cursor it leaves. */
int al_tree_next_owned(const struct al_tree *t, uint32_t owner, uint32_t *cursor, struct al_tree_node *node_out);

uint32_t al_tree_height(const struct al_tree *t);
uint32_t al_tree_used_count(const struct al_tree *t);
uint32_t al_tree_allocated_count(const struct al_tree *t);

uint64_t al_tree_check(const struct al_tree *t, al_report_fn report, void *context);

AL_END

#endif
