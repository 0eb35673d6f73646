/* SPDX-License-Identifier: Apache-2.0
 *
 * The memory of a range tree, and the undo journal through which alone it is changed. What the nodes mean to each other
 * is the tree's business (range_tree.h).
 *
 *     head | nodes | journal
 *
 * al_tree_begin() notes the top, al_tree_edit() copies a node to the journal and hands it out for writing,
 * al_tree_finish() commits or, when something contradicted itself on the way, puts everything back.
 *
 * Crash rule: every node is copied to the journal before it is changed, the top before that. The operation has
 * happened when journal_count is set to 0, one store.
 *   before journal_count is set to 1   nothing has happened
 *   from there to the commit           nothing has happened: recovery puts the copies back, the latest first
 *   after the commit                   it has happened
 *   while recovering                   the copies are still there; recovery starts again and gives the same result
 */
#ifndef AL_RANGE_JOURNAL_H
#define AL_RANGE_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "flat.h"

AL_BEGIN

#define AL_TREE_NIL        UINT32_MAX
#define AL_TREE_HEIGHT_MAX 46u /* of an AVL tree with 2^31 nodes: 1.4405 log2(n + 2) */

enum al_tree_state { AL_TREE_UNUSED = 0, AL_TREE_FREE = 1, AL_TREE_ALLOCATED = 2 };

#define AL_TREE_TRACKS 10u /* alignments of which the largest fit is known at a time */

/* Two cache lines; the second is for the third alignment in use and those after it. Index 0 of a pair is the left
 * subtree, 1 the right one. */
struct al_tree_node {
    uint64_t start, end; /* both included */
    uint64_t gap[2];     /* length of the largest free range in the subtree, 0: none */
    uint32_t child[2];   /* node, or AL_TREE_NIL; child[0] of an unused node: the next unused one */
    uint32_t owner;      /* the caller's, of an allocated range */
    uint8_t  height[2];  /* 0: empty */
    uint8_t  state;
    uint8_t  reserved;
    uint32_t fit[AL_TREE_TRACKS][2]; /* as gap, counted from the first multiple of the alignment; rounded up */
};
AL_STATIC_ASSERT(sizeof(struct al_tree_node) == 128, "the layout is part of the format");

/* Which alignments those are. Not part of an operation: each field is one store, and `shift` of an alignment is stored
 * after what the nodes say of it. */
struct al_tree_tracks {
    uint8_t  shift[AL_TREE_TRACKS]; /* the alignment is 1 << shift; 0: none, what the nodes say means nothing */
    uint8_t  count;                 /* those behind are not in use yet */
    uint8_t  victim;                /* looked at first when another one is to make room */
    uint16_t recent;                /* a bit for each: searched for since the victim went by */
    uint16_t reserved;
    uint64_t waste; /* nodes that searches for other alignments have looked at in vain */
};
AL_STATIC_ASSERT(sizeof(struct al_tree_tracks) == 24, "the layout is part of the format");

struct al_tree_top {
    uint32_t root;
    uint32_t spare;     /* first unused node that was used before */
    uint32_t fresh;     /* first node never used */
    uint32_t used;      /* nodes in the tree */
    uint32_t allocated; /* those that are allocated */
    uint32_t reserved;
};

struct al_tree_undo {
    struct al_tree_node before;
    uint32_t            node;
    uint32_t            reserved;
};

/* In the caller's memory, followed by the nodes and the journal. */
struct al_tree_head {
    uint64_t              magic;
    uint32_t              capacity;      /* nodes */
    uint32_t              journal_count; /* 0: no operation is under way; else 1 + node copies in the journal */
    struct al_tree_top    top;
    struct al_tree_top    top_before;
    struct al_tree_tracks tracks;
    uint64_t              reserved[5];
};
AL_STATIC_ASSERT(sizeof(struct al_tree_head) == 128, "the layout is part of the format");

/* Private view. */
struct al_tree {
    struct al_tree_head *head;
    struct al_tree_node *node;
    struct al_tree_undo *undo;
    uint32_t             capacity;
    uint32_t             undo_capacity;
};

/* The way from the root to a node. Private. */
struct al_tree_path {
    uint32_t node[AL_TREE_HEIGHT_MAX + 2];
    uint8_t  side[AL_TREE_HEIGHT_MAX + 2];
    uint32_t depth;
};

/* Copies that one operation on a tree of so many nodes may need. */
uint32_t al_tree_undo_capacity(uint32_t capacity);

/* Puts back what an operation that was not finished has changed. */
int al_tree_recover(struct al_tree *t);

AL_INLINE int al_tree_begin(struct al_tree *t)
{
    struct al_tree_head *h = t->head;

    if (h->journal_count != 0)
        return AL_UNFINISHED;
    h->top_before = h->top;
    AL_IN_ORDER();
    h->journal_count = 1;
    AL_IN_ORDER();
    return AL_OK;
}

/* The node, for writing; NULL when the index is not one or the journal is full, which only corrupt memory does. */
AL_INLINE struct al_tree_node *al_tree_edit(struct al_tree *t, uint32_t index)
{
    struct al_tree_head *h = t->head;
    uint32_t copies = h->journal_count - 1;

    if (index >= t->capacity || copies >= t->undo_capacity)
        return NULL;
    if (copies > 0 && t->undo[copies - 1].node == index)
        return &t->node[index];
    t->undo[copies].before = t->node[index];
    t->undo[copies].node = index;
    AL_IN_ORDER();
    h->journal_count = copies + 2;
    AL_IN_ORDER();
    return &t->node[index];
}

/* Commits what went well; `result` is what the operation answers. */
AL_INLINE int al_tree_finish(struct al_tree *t, int result)
{
    if (result != AL_OK) {
        (void)al_tree_recover(t); /* cannot fail: this call wrote the journal */
        return result;
    }
    AL_IN_ORDER();
    t->head->journal_count = 0; /* the commit */
    AL_IN_ORDER();
    return AL_OK;
}

AL_END

#endif
