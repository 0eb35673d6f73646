/* SPDX-License-Identifier: Apache-2.0
 *
 * The inside of a range tree, for range_tree.c and range_query.c: lengths and fits, what a node records of its
 * subtrees, and the way down to an address. Reads only; private.
 *
 * A fit is the length that is left of a free range from the first multiple of an alignment on. Nodes record the largest
 * one of each subtree in 32 bits, rounded up: a subtree may be entered in vain for lengths of more than 26 significant
 * bits, but never passed over.
 */
#ifndef AL_RANGE_INSIDE_H
#define AL_RANGE_INSIDE_H

#include "range_journal.h"

#define FIT_BITS 26u /* of a recorded fit; more are rounded up */

/* What a parent records of a subtree. */
struct summary {
    uint64_t gap;
    uint32_t fit[AL_TREE_TRACKS];
    uint8_t  height;
};

/* A child's index must be checked before the node is read. */
static inline bool is_node(const struct al_tree *t, uint32_t index)
{
    return index < t->capacity;
}

/* Length of a range. The whole address space counts as one less: sizes are u64. */
static inline uint64_t length(uint64_t start, uint64_t end)
{
    return end - start == UINT64_MAX ? UINT64_MAX : end - start + 1;
}

/* Length from the first multiple of the alignment on. */
static inline uint64_t aligned_length(uint64_t start, uint64_t end, unsigned shift)
{
    uint64_t skip = (0 - start) & ((UINT64_C(1) << shift) - 1);

    return end - start < skip ? 0 : length(start + skip, end);
}

/* A length in 32 bits, rounded up: exact up to 2^26 and for lengths of so many bits, and it keeps the order. */
static inline uint32_t rounded(uint64_t n)
{
    if (n < UINT64_C(1) << FIT_BITS)
        return (uint32_t)n;
    unsigned by = 64 - FIT_BITS - (unsigned)__builtin_clzll(n);
    uint64_t up = (n >> by) + ((n & ((UINT64_C(1) << by) - 1)) != 0);
    return (uint32_t)(((uint64_t)by << FIT_BITS) + up); /* 2^26 carries over to the next power */
}

/* Alignments to keep up with. Others write there: nothing in it is trusted. */
static inline unsigned track_count(const struct al_tree *t)
{
    return t->head->tracks.count < AL_TREE_TRACKS ? t->head->tracks.count : AL_TREE_TRACKS;
}

static inline unsigned track_shift(const struct al_tree *t, unsigned track)
{
    return t->head->tracks.shift[track] & 63;
}

static inline uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* The largest fit of the node and its subtrees. */
static inline uint32_t fit_of(const struct al_tree_node *n, unsigned track, unsigned shift)
{
    uint32_t own = n->state == AL_TREE_FREE ? rounded(aligned_length(n->start, n->end, shift)) : 0;
    uint32_t below = n->fit[track][0] > n->fit[track][1] ? n->fit[track][0] : n->fit[track][1];

    return own > below ? own : below;
}

static inline uint8_t height_of(const struct al_tree_node *n)
{
    return (uint8_t)(1 + (n->height[0] > n->height[1] ? n->height[0] : n->height[1]));
}

/* NIL: of nothing. */
static inline void summarize(const struct al_tree *t, uint32_t index, struct summary *s)
{
    unsigned count = track_count(t);

    if (index == AL_TREE_NIL) {
        *s = (struct summary){0};
        return;
    }
    const struct al_tree_node *n = &t->node[index];
    s->gap = larger(n->state == AL_TREE_FREE ? length(n->start, n->end) : 0, larger(n->gap[0], n->gap[1]));
    s->height = height_of(n);
    for (unsigned k = 0; k < count; k++)
        s->fit[k] = fit_of(n, k, track_shift(t, k));
}

static inline void record(const struct al_tree *t, struct al_tree_node *n, unsigned side, const struct summary *s)
{
    n->gap[side] = s->gap;
    n->height[side] = s->height;
    for (unsigned k = 0; k < track_count(t); k++)
        n->fit[k][side] = s->fit[k];
}

static inline bool is_recorded(const struct al_tree *t, const struct al_tree_node *n, unsigned side,
                               const struct summary *s)
{
    if (s->gap != n->gap[side] || s->height != n->height[side])
        return false;
    for (unsigned k = 0; k < track_count(t); k++)
        if (n->fit[k][side] != s->fit[k] && track_shift(t, k) != 0)
            return false;
    return true;
}

static inline int push(struct al_tree_path *p, uint32_t index, unsigned side)
{
    if (p->depth >= AL_TREE_HEIGHT_MAX)
        return AL_CORRUPT;
    p->node[p->depth] = index;
    p->side[p->depth++] = (uint8_t)side;
    return AL_OK;
}

/* The node that contains the address. AL_NOT_AVAILABLE: none does, *at_out is NIL, the path ends where it would be. */
static inline int descend(const struct al_tree *t, uint64_t address, struct al_tree_path *p, uint32_t *at_out)
{
    uint32_t at = t->head->top.root;

    p->depth = 0;
    while (at != AL_TREE_NIL) {
        if (!is_node(t, at))
            return AL_CORRUPT;
        const struct al_tree_node *n = &t->node[at];
        if (address - n->start <= n->end - n->start)
            break;
        unsigned side = address > n->end; /* an index, not a branch: it could not be predicted */
        if (push(p, at, side) != AL_OK)
            return AL_CORRUPT;
        at = n->child[side];
    }
    *at_out = at;
    return at == AL_TREE_NIL ? AL_NOT_AVAILABLE : AL_OK;
}

static inline int find_exact(const struct al_tree *t, uint64_t start, uint64_t end, struct al_tree_path *p,
                             uint32_t *at_out)
{
    int result = descend(t, start, p, at_out);

    if (result != AL_OK)
        return result;
    return t->node[*at_out].start == start && t->node[*at_out].end == end ? AL_OK : AL_NOT_AVAILABLE;
}

#endif
