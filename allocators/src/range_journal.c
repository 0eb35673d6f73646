/* SPDX-License-Identifier: Apache-2.0
 *
 * The undo journal: see range_journal.h for its crash rule. */
#include "range_journal.h"

/* The library's copies of what the header inlines. */
extern int al_tree_begin(struct al_tree *t);
extern struct al_tree_node *al_tree_edit(struct al_tree *t, uint32_t index);
extern int al_tree_finish(struct al_tree *t, int result);

/* At most two nodes are taken out, each with at most a double rotation (six copies) a level, and one is changed (one
 * copy a level). */
#define UNDO_PER_LEVEL 14u
#define UNDO_CONSTANT  16u

/* Height an AVL tree of n nodes cannot exceed: the smallest h whose sparsest tree has more than n nodes, less one. */
static uint32_t height_limit(uint32_t nodes)
{
    uint64_t sparse = 1, sparse_next = 2; /* fewest nodes of height h and h + 1 */
    uint32_t h = 1;

    while (sparse_next <= nodes) {
        uint64_t third = sparse + sparse_next + 1;
        sparse = sparse_next;
        sparse_next = third;
        h++;
    }
    return h;
}

uint32_t al_tree_undo_capacity(uint32_t capacity)
{
    return UNDO_PER_LEVEL * height_limit(capacity) + UNDO_CONSTANT;
}

int al_tree_recover(struct al_tree *t)
{
    struct al_tree_head *h = t->head;
    uint32_t count = h->journal_count;

    if (count == 0)
        return AL_OK;
    if (count - 1 > t->undo_capacity)
        return AL_CORRUPT;
    for (uint32_t i = count - 1; i-- > 0;)
        if (t->undo[i].node >= t->capacity)
            return AL_CORRUPT;
    for (uint32_t i = count - 1; i-- > 0;)
        t->node[t->undo[i].node] = t->undo[i].before;
    h->top = h->top_before;
    AL_IN_ORDER();
    h->journal_count = 0;
    return AL_OK;
}
