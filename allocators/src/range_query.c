/* SPDX-License-Identifier: Apache-2.0
 *
 * What a range tree answers without being changed: its ranges, counts, and check. See range_tree.h.
 */
#include "range_tree.h"

#include "range_inside.h"

/* ---- queries ---- */

int al_tree_search(const struct al_tree *t, uint64_t start, uint64_t end, struct al_tree_node *node_out)
{
    struct al_tree_path p;
    uint32_t at;
    int result = find_exact(t, start, end, &p, &at);

    if (result == AL_OK)
        *node_out = t->node[at];
    return result;
}

int al_tree_superset(const struct al_tree *t, uint64_t start, uint64_t end, struct al_tree_node *node_out)
{
    struct al_tree_path p;
    uint32_t at;
    int result = descend(t, start, &p, &at);

    if (result != AL_OK)
        return result;
    if (t->node[at].end < end)
        return AL_NOT_AVAILABLE;
    *node_out = t->node[at];
    return AL_OK;
}

/* Down to the lowest node of this subtree; it becomes `at`. */
static int iter_lowest(const struct al_tree *t, struct al_tree_iter *it, uint32_t at)
{
    it->at = at;
    while (at != AL_TREE_NIL) {
        if (!is_node(t, at))
            return AL_CORRUPT;
        it->at = at;
        at = t->node[at].child[0];
        if (at != AL_TREE_NIL && push(&it->path, it->at, 0) != AL_OK)
            return AL_CORRUPT;
    }
    return AL_OK;
}

/* Up to the nearest ancestor that comes after where the path leads. */
static void iter_climb(struct al_tree_iter *it)
{
    it->at = AL_TREE_NIL;
    while (it->path.depth > 0) {
        uint32_t d = --it->path.depth;
        if (it->path.side[d] == 0) {
            it->at = it->path.node[d];
            return;
        }
    }
}

int al_tree_iterate(const struct al_tree *t, uint64_t start, uint64_t end, struct al_tree_iter *it)
{
    int result = descend(t, start, &it->path, &it->at);

    it->end = end;
    it->left = t->capacity;
    if (result == AL_NOT_AVAILABLE)
        iter_climb(it);
    return result == AL_CORRUPT ? result : AL_OK;
}

int al_tree_next(const struct al_tree *t, struct al_tree_iter *it, struct al_tree_node *node_out)
{
    if (it->at == AL_TREE_NIL)
        return AL_NOT_AVAILABLE;
    if (it->left-- == 0 || !is_node(t, it->at))
        return AL_CORRUPT;
    const struct al_tree_node *n = &t->node[it->at];
    if (n->start > it->end)
        return AL_NOT_AVAILABLE;
    *node_out = *n;
    if (n->child[1] == AL_TREE_NIL) {
        iter_climb(it);
        return AL_OK;
    }
    if (push(&it->path, it->at, 1) != AL_OK)
        return AL_CORRUPT;
    return iter_lowest(t, it, n->child[1]);
}

int al_tree_next_owned(const struct al_tree *t, uint32_t owner, uint32_t *cursor, struct al_tree_node *node_out)
{
    uint32_t fresh = t->head->top.fresh;

    for (uint32_t i = *cursor; i < fresh && i < t->capacity; i++)
        if (t->node[i].state == AL_TREE_ALLOCATED && t->node[i].owner == owner) {
            *node_out = t->node[i];
            *cursor = i + 1;
            return AL_OK;
        }
    return AL_NOT_AVAILABLE;
}

uint32_t al_tree_height(const struct al_tree *t)
{
    uint32_t root = t->head->top.root;

    return is_node(t, root) ? height_of(&t->node[root]) : 0;
}

uint32_t al_tree_used_count(const struct al_tree *t)
{
    return t->head->top.used;
}

uint32_t al_tree_allocated_count(const struct al_tree *t)
{
    return t->head->top.allocated;
}

/* ---- check ---- */

struct checker {
    al_report_fn report;
    void        *context;
    uint64_t     broken;
};

static void broken(struct checker *c, const char *what, uint64_t where, uint64_t value)
{
    c->broken++;
    if (c->report)
        c->report(c->context, what, where, value);
}

/* I2 and I3 of one node, from what its children record. Together for all nodes they hold for all subtrees. */
static void check_node(const struct al_tree *t, uint32_t index, struct checker *c)
{
    const struct al_tree_node *n = &t->node[index];

    if (n->state != AL_TREE_FREE && n->state != AL_TREE_ALLOCATED)
        broken(c, "tree I4: a node of the tree is in no state (node, state)", index, n->state);
    for (unsigned side = 0; side < 2; side++) {
        if (n->child[side] != AL_TREE_NIL && !is_node(t, n->child[side])) {
            broken(c, "tree I2: a child is not a node (node, child)", index, n->child[side]);
            continue;
        }
        struct summary s;
        summarize(t, n->child[side], &s);
        if (s.height != n->height[side])
            broken(c, "tree I2: a recorded height is wrong (node, height)", index, n->height[side]);
        else if (!is_recorded(t, n, side, &s))
            broken(c, "tree I2: a recorded gap or fit is wrong (node, gap)", index, n->gap[side]);
    }
    if (n->height[0] > n->height[1] + 1 || n->height[1] > n->height[0] + 1)
        broken(c, "tree I3: out of balance (node, left height)", index, n->height[0]);
}

static void check_spare(const struct al_tree *t, struct checker *c)
{
    const struct al_tree_top *top = &t->head->top;
    uint32_t spare = 0, i = top->spare;

    for (; i != AL_TREE_NIL && spare <= t->capacity; i = t->node[i].child[0], spare++)
        if (!is_node(t, i) || i >= top->fresh || t->node[i].state != AL_TREE_UNUSED) {
            broken(c, "tree I4: a spare node is none (node)", i, 0);
            return;
        }
    if (top->fresh > t->capacity || top->used > top->fresh || spare != top->fresh - top->used)
        broken(c, "tree I4: spare, used and fresh nodes do not add up (spare, used)", spare, top->used);
}

uint64_t al_tree_check(const struct al_tree *t, al_report_fn report, void *context)
{
    const struct al_tree_top *top = &t->head->top;
    struct checker c = {.report = report, .context = context};
    struct al_tree_iter it = {.at = AL_TREE_NIL, .left = t->capacity, .end = UINT64_MAX};
    struct al_tree_node n;
    uint64_t used = 0, allocated = 0, last_end = 0;
    int result = iter_lowest(t, &it, top->root);

    while (result == AL_OK) {
        uint32_t at = it.at;
        result = al_tree_next(t, &it, &n);
        if (result != AL_OK)
            break;
        check_node(t, at, &c);
        if (n.end < n.start || (used > 0 && n.start <= last_end))
            broken(&c, "tree I1: a range overlaps the one before it, or ends before it starts (start, end)", n.start,
                   n.end);
        last_end = n.end;
        used++;
        allocated += n.state == AL_TREE_ALLOCATED;
    }
    if (result != AL_NOT_AVAILABLE)
        broken(&c, "tree I1: the nodes do not form a tree (nodes seen, root)", used, top->root);
    if (used != top->used || allocated != top->allocated)
        broken(&c, "tree I4: used or allocated is wrong (counted, noted)", used, top->used);
    check_spare(t, &c);
    if (t->head->journal_count != 0)
        broken(&c, "tree I5: an operation is unfinished (journal)", t->head->journal_count, 0);
    return c.broken;
}
