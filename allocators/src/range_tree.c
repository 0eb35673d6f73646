/* SPDX-License-Identifier: Apache-2.0
 *
 * Range tree: see range_tree.h for what it is, its costs, its invariants and its crash rule.
 *
 * Functions that change take the path from the root, and fix_path() climbs it again to update what the ancestors
 * record; it stops as soon as nothing changes any more. Nothing writes to a node or to the top but through the journal.
 */
#include "range_tree.h"

#include "range_inside.h"

#define TREE_MAGIC UINT64_C(0x3230657274006c61) /* "al\0tre02" */

#define PAGE_SHIFT 12u /* of AL_TREE_PAGE */

/* ---- layout ---- */

uint64_t al_tree_size_bytes(uint32_t capacity)
{
    if (capacity == 0 || capacity > AL_TREE_NODES_MAX)
        return 0;
    return sizeof(struct al_tree_head) + (uint64_t)capacity * sizeof(struct al_tree_node) +
           (uint64_t)al_tree_undo_capacity(capacity) * sizeof(struct al_tree_undo);
}

static void map(struct al_tree *t, void *mem, uint32_t capacity)
{
    t->head = mem;
    t->node = (struct al_tree_node *)(t->head + 1);
    t->undo = (struct al_tree_undo *)(t->node + capacity);
    t->capacity = capacity;
    t->undo_capacity = al_tree_undo_capacity(capacity);
}

int al_tree_init(struct al_tree *t, void *mem, uint64_t mem_bytes, uint32_t capacity)
{
    uint64_t need_bytes = al_tree_size_bytes(capacity);

    if (need_bytes == 0 || mem_bytes < need_bytes)
        return AL_INVALID_SIZE;
    map(t, mem, capacity);
    *t->head = (struct al_tree_head){.capacity = capacity};
    t->head->top = (struct al_tree_top){.root = AL_TREE_NIL, .spare = AL_TREE_NIL};
    t->head->tracks = (struct al_tree_tracks){.shift = {PAGE_SHIFT}, .count = 1};
    AL_IN_ORDER();
    t->head->magic = TREE_MAGIC;
    return AL_OK;
}

int al_tree_attach(struct al_tree *t, void *mem, uint64_t mem_bytes)
{
    const struct al_tree_head *h = mem;

    if (mem_bytes < sizeof *h || h->magic != TREE_MAGIC)
        return AL_CORRUPT;
    uint32_t capacity = h->capacity;
    uint64_t need_bytes = al_tree_size_bytes(capacity);
    if (need_bytes == 0 || mem_bytes < need_bytes)
        return AL_CORRUPT;
    map(t, mem, capacity);
    return AL_OK;
}

int al_tree_grow(struct al_tree *dst, void *mem, uint64_t mem_bytes, uint32_t capacity, const struct al_tree *src)
{
    if (capacity < src->capacity)
        return AL_INVALID_SIZE;
    if (src->head->journal_count != 0)
        return AL_UNFINISHED;
    if (src->head->top.fresh > src->capacity)
        return AL_CORRUPT;
    int result = al_tree_init(dst, mem, mem_bytes, capacity);
    if (result != AL_OK)
        return result;
    AL_COPY(dst->node, src->node, src->head->top.fresh * sizeof(struct al_tree_node));
    dst->head->top = src->head->top;
    dst->head->tracks = src->head->tracks;
    return AL_OK;
}

/* ---- changing: what the ancestors record ---- */

/* The child on `side` takes its parent's place. Moves what is recorded, reads no grandchild. */
static int rotate(struct al_tree *t, uint32_t index, unsigned side, uint32_t *top_out)
{
    struct al_tree_node *down = al_tree_edit(t, index);
    if (down == NULL)
        return AL_CORRUPT;
    uint32_t up_index = down->child[side];
    struct al_tree_node *up = up_index == index ? NULL : al_tree_edit(t, up_index);
    if (up == NULL)
        return AL_CORRUPT;

    down->child[side] = up->child[!side];
    down->height[side] = up->height[!side];
    down->gap[side] = up->gap[!side];
    for (unsigned k = 0; k < track_count(t); k++)
        down->fit[k][side] = up->fit[k][!side];

    struct summary s;
    summarize(t, index, &s);
    up->child[!side] = index;
    record(t, up, !side, &s);
    *top_out = up_index;
    return AL_OK;
}

/* Let the subtree the path leads to at this depth be `index`. */
static int relink(struct al_tree *t, const struct al_tree_path *p, uint32_t depth, uint32_t index)
{
    if (depth == 0) {
        t->head->top.root = index;
        return AL_OK;
    }
    struct al_tree_node *parent = al_tree_edit(t, p->node[depth - 1]);
    if (parent == NULL)
        return AL_CORRUPT;
    parent->child[p->side[depth - 1]] = index;
    return AL_OK;
}

/* Restore I3 at one node whose subtrees are in order; its depth on the path is given. */
static int balance(struct al_tree *t, const struct al_tree_path *p, uint32_t depth)
{
    uint32_t index = p->node[depth], top = index;
    const struct al_tree_node *n = &t->node[index];
    int lean = n->height[1] - n->height[0];

    if (lean >= -1 && lean <= 1)
        return AL_OK;
    unsigned heavy = lean > 0;
    uint32_t child = n->child[heavy];
    if (!is_node(t, child))
        return AL_CORRUPT;
    if (t->node[child].height[!heavy] > t->node[child].height[heavy]) {
        uint32_t child_top = child;
        int result = rotate(t, child, !heavy, &child_top);
        struct al_tree_node *parent = result == AL_OK ? al_tree_edit(t, index) : NULL;
        if (parent == NULL)
            return AL_CORRUPT;
        struct summary s;
        summarize(t, child_top, &s);
        parent->child[heavy] = child_top;
        record(t, parent, heavy, &s);
    }
    if (rotate(t, index, heavy, &top) != AL_OK)
        return AL_CORRUPT;
    return relink(t, p, depth, top);
}

/* Climb the path and update what each node records of the subtree it leads to. May stop early only above
 * `changed_depth`: a node there was itself changed. */
static int fix_path(struct al_tree *t, const struct al_tree_path *p, uint32_t changed_depth)
{
    for (uint32_t d = p->depth; d-- > 0;) {
        const struct al_tree_node *n = &t->node[p->node[d]];
        unsigned side = p->side[d];
        uint32_t child = n->child[side];
        if (child != AL_TREE_NIL && !is_node(t, child))
            return AL_CORRUPT;
        struct summary s;
        summarize(t, child, &s);
        if (is_recorded(t, n, side, &s)) {
            if (d < changed_depth)
                return AL_OK;
            continue;
        }
        bool same_height = s.height == n->height[side];
        struct al_tree_node *changed = al_tree_edit(t, p->node[d]);
        if (changed == NULL)
            return AL_CORRUPT;
        record(t, changed, side, &s);
        if (!same_height && balance(t, p, d) != AL_OK)
            return AL_CORRUPT;
    }
    return AL_OK;
}

/* ---- changing: nodes ---- */

static bool has_nodes(const struct al_tree *t, uint32_t count)
{
    return t->capacity - t->head->top.used >= count && t->head->top.used <= t->capacity;
}

/* A node that is not in the tree, made a leaf. */
static struct al_tree_node *node_take(struct al_tree *t, uint32_t *index_out)
{
    struct al_tree_top *top = &t->head->top;
    uint32_t index = top->spare != AL_TREE_NIL ? top->spare : top->fresh;
    struct al_tree_node *n = al_tree_edit(t, index);

    if (n == NULL || (top->spare != AL_TREE_NIL && n->state != AL_TREE_UNUSED))
        return NULL;
    if (top->spare != AL_TREE_NIL)
        top->spare = n->child[0];
    else
        top->fresh++;
    top->used++;
    *n = (struct al_tree_node){.child = {AL_TREE_NIL, AL_TREE_NIL}};
    *index_out = index;
    return n;
}

static int node_give(struct al_tree *t, uint32_t index)
{
    struct al_tree_node *n = al_tree_edit(t, index);

    if (n == NULL)
        return AL_CORRUPT;
    *n = (struct al_tree_node){.child = {t->head->top.spare, AL_TREE_NIL}};
    t->head->top.spare = index;
    t->head->top.used--;
    return AL_OK;
}

/* A new leaf at the end of the path. */
static int attach_leaf(struct al_tree *t, const struct al_tree_path *p, uint64_t start, uint64_t end, uint32_t state,
                       uint32_t owner)
{
    uint32_t index;
    struct al_tree_node *n = node_take(t, &index);

    if (n == NULL)
        return AL_CORRUPT;
    n->start = start;
    n->end = end;
    n->state = (uint8_t)state;
    n->owner = owner;
    return relink(t, p, p->depth, index);
}

/* A new leaf directly before (side 0) or after (1) the node in order. Extends the path to the leaf's parent. */
static int attach_beside(struct al_tree *t, struct al_tree_path *p, uint32_t at, unsigned side, uint64_t start,
                         uint64_t end, uint32_t state, uint32_t owner)
{
    unsigned way = side;

    for (; at != AL_TREE_NIL; way = !side) {
        if (!is_node(t, at) || push(p, at, way) != AL_OK)
            return AL_CORRUPT;
        at = t->node[at].child[way];
    }
    return attach_leaf(t, p, start, end, state, owner);
}

/* Take the node at the end of the path out of the tree. A node at `changed_depth` of the path was itself changed; the
 * path's own depth when none was. */
static int detach(struct al_tree *t, struct al_tree_path *p, uint32_t at, uint32_t changed_depth)
{
    uint32_t victim = at;

    if (t->node[at].child[0] != AL_TREE_NIL && t->node[at].child[1] != AL_TREE_NIL) {
        uint32_t next = t->node[at].child[1];
        for (unsigned way = 1; next != AL_TREE_NIL; way = 0) {
            if (!is_node(t, next) || push(p, victim, way) != AL_OK)
                return AL_CORRUPT;
            victim = next;
            next = t->node[victim].child[0];
        }
        struct al_tree_node *n = al_tree_edit(t, at);
        if (n == NULL)
            return AL_CORRUPT;
        n->start = t->node[victim].start;
        n->end = t->node[victim].end;
        n->owner = t->node[victim].owner;
        n->state = t->node[victim].state;
    }
    const struct al_tree_node *v = &t->node[victim];
    if (relink(t, p, p->depth, v->child[v->child[0] == AL_TREE_NIL]) != AL_OK || node_give(t, victim) != AL_OK)
        return AL_CORRUPT;
    return fix_path(t, p, changed_depth);
}

/* Let the node at the end of the path take in its neighbour before (side 0) or after (1) it, or the other way round:
 * one of two neighbours is an ancestor of the other. That one stays, the other one has no child between them. */
static int absorb(struct al_tree *t, struct al_tree_path *p, uint32_t at, unsigned side)
{
    uint32_t stays = at, goes = at, depth = p->depth;

    for (uint32_t next = t->node[at].child[side]; next != AL_TREE_NIL; next = t->node[goes].child[!side]) {
        if (!is_node(t, next) || push(p, goes, goes == at ? side : !side) != AL_OK)
            return AL_CORRUPT;
        goes = next;
    }
    if (goes == at) {
        while (depth > 0 && p->side[depth - 1] == side)
            depth--;
        if (depth-- == 0)
            return AL_CORRUPT;
        stays = p->node[depth];
    }
    struct al_tree_node *n = al_tree_edit(t, stays);
    if (n == NULL)
        return AL_CORRUPT;
    const struct al_tree_node *other = &t->node[goes];
    n->state = AL_TREE_FREE;
    n->owner = 0;
    if (n->start > other->start)
        n->start = other->start;
    if (n->end < other->end)
        n->end = other->end;
    return detach(t, p, goes, depth);
}

/* ---- the operations ---- */

int al_tree_insert(struct al_tree *t, uint64_t start, uint64_t end, uint32_t state, uint32_t owner,
                   struct al_tree_node *overlap_out)
{
    struct al_tree_path p = {.depth = 0};

    if (end < start || (state != AL_TREE_FREE && state != AL_TREE_ALLOCATED))
        return AL_INVALID_RANGE;
    for (uint32_t at = t->head->top.root; at != AL_TREE_NIL;) {
        if (!is_node(t, at))
            return AL_CORRUPT;
        const struct al_tree_node *n = &t->node[at];
        if (start <= n->end && end >= n->start) {
            if (overlap_out != NULL)
                *overlap_out = *n;
            return AL_OVERLAP;
        }
        unsigned side = start > n->end;
        if (push(&p, at, side) != AL_OK)
            return AL_CORRUPT;
        at = n->child[side];
    }
    if (!has_nodes(t, 1))
        return AL_NO_MEMORY;
    int result = al_tree_begin(t);
    if (result != AL_OK)
        return result;
    result = attach_leaf(t, &p, start, end, state, owner);
    if (result == AL_OK)
        result = fix_path(t, &p, 0);
    if (state == AL_TREE_ALLOCATED)
        t->head->top.allocated++;
    return al_tree_finish(t, result);
}

int al_tree_delete(struct al_tree *t, uint64_t start, uint64_t end)
{
    struct al_tree_path p;
    uint32_t at;
    int result = find_exact(t, start, end, &p, &at);

    if (result == AL_OK)
        result = al_tree_begin(t);
    if (result != AL_OK)
        return result;
    if (t->node[at].state == AL_TREE_ALLOCATED)
        t->head->top.allocated--;
    return al_tree_finish(t, detach(t, &p, at, p.depth));
}

int al_tree_constraint_check(const struct al_tree_constraint *c)
{
    if (c->size == 0)
        return AL_INVALID_SIZE;
    if (c->align == 0 || (c->align & (c->align - 1)) != 0)
        return AL_INVALID_ALIGNMENT;
    if (c->min > c->max || c->policy > AL_TREE_EXACT)
        return AL_INVALID_RANGE;
    if (c->policy == AL_TREE_EXACT && (c->exact & (c->align - 1)) != 0)
        return AL_UNALIGNED;
    if (c->policy == AL_TREE_EXACT && c->exact > UINT64_MAX - (c->size - 1))
        return AL_OVERFLOW;
    return AL_OK;
}

/* Whether and where the request fits into this one node. */
static bool node_fits(const struct al_tree_node *n, const struct al_tree_constraint *c, uint64_t *start_out)
{
    uint64_t low = larger(n->start, c->min);
    uint64_t high = n->end < c->max ? n->end : c->max;
    uint64_t last = c->size - 1, mask = c->align - 1;

    if (n->state != AL_TREE_FREE || low > high || high - low < last)
        return false;
    uint64_t start = (high - last) & ~mask; /* the highest that ends in time */
    if (start < low)
        return false;
    if (c->policy == AL_TREE_FIRST)
        start = (low + mask) & ~mask; /* no overflow: an aligned start exists in [low, high] */
    *start_out = start;
    return true;
}

/* What a search goes by: the largest alignment that is tracked and divides the one it wants. */
struct search {
    unsigned track; /* AL_TREE_TRACKS: none, the plain gap */
    uint32_t size;  /* rounded */
    bool     exact; /* it is the one that is wanted: no subtree is entered in vain */
    uint64_t steps; /* nodes looked at */
};

static struct search search_for(const struct al_tree *t, const struct al_tree_constraint *c)
{
    unsigned wanted = (unsigned)__builtin_ctzll(c->align), best = 0;
    struct search s = {.track = AL_TREE_TRACKS, .size = rounded(c->size)};

    for (unsigned k = 0; k < track_count(t); k++) {
        unsigned shift = track_shift(t, k);
        if (shift > best && shift <= wanted) {
            best = shift;
            s.track = k;
        }
    }
    s.exact = best == wanted;
    return s;
}

/* Whether the answer may be in this subtree. */
static inline bool side_may(const struct al_tree_node *n, unsigned side, const struct al_tree_constraint *c,
                            const struct search *s)
{
    if (side == 0 ? n->start <= c->min : n->end >= c->max)
        return false;
    return n->gap[side] >= c->size && (s->track == AL_TREE_TRACKS || n->fit[s->track][side] >= s->size);
}

/* In order (first) or against it (last), through those subtrees only that may hold the answer. */
static int find_match(const struct al_tree *t, const struct al_tree_constraint *c, struct search *s,
                      struct al_tree_path *p, uint32_t *at_out, uint64_t *start_out)
{
    unsigned near = c->policy == AL_TREE_LAST;
    uint64_t most = 2 * (uint64_t)t->capacity; /* against a corrupt tree: each node is entered once */
    uint32_t at = t->head->top.root;
    bool arrived = true;

    p->depth = 0;
    if (at == AL_TREE_NIL)
        return AL_NOT_AVAILABLE;
    for (;;) {
        if (!is_node(t, at) || s->steps++ == most)
            return AL_CORRUPT;
        const struct al_tree_node *n = &t->node[at];
        bool go_near = arrived && side_may(n, near, c, s);
        if (!go_near && node_fits(n, c, start_out)) {
            *at_out = at;
            return AL_OK;
        }
        if (go_near || side_may(n, !near, c, s)) {
            unsigned side = go_near ? near : !near;
            if (push(p, at, side) != AL_OK)
                return AL_CORRUPT;
            at = n->child[side];
            arrived = true;
            continue;
        }
        do { /* back to the nearest node whose near side is done and which was not looked at itself */
            if (p->depth == 0)
                return AL_NOT_AVAILABLE;
            at = p->node[--p->depth];
        } while (p->side[p->depth] != near);
        arrived = false;
    }
}

static int find_place(const struct al_tree *t, const struct al_tree_constraint *c, struct search *s,
                      struct al_tree_path *p, uint32_t *at_out, uint64_t *start_out)
{
    if (c->policy != AL_TREE_EXACT)
        return find_match(t, c, s, p, at_out, start_out);
    int result = descend(t, c->exact, p, at_out);
    if (result != AL_OK)
        return result;
    const struct al_tree_node *n = &t->node[*at_out];
    uint64_t end = c->exact + (c->size - 1);
    *start_out = c->exact;
    if (n->state != AL_TREE_FREE || end > n->end || c->exact < c->min || end > c->max)
        return AL_NOT_AVAILABLE;
    return AL_OK;
}

/* ---- the operations: which alignments are tracked ---- */

/* What all nodes say of a track, from the leaves up. */
static int fit_all(struct al_tree *t, unsigned track, unsigned shift)
{
    struct al_tree_path p = {.depth = 0};
    uint32_t at = t->head->top.root;
    uint64_t left = 3 * (uint64_t)t->capacity; /* against a corrupt tree */

    for (unsigned side = 0; at != AL_TREE_NIL;) {
        if (!is_node(t, at) || left-- == 0)
            return AL_CORRUPT;
        struct al_tree_node *n = &t->node[at];
        while (side < 2 && n->child[side] == AL_TREE_NIL)
            n->fit[track][side++] = 0;
        if (side < 2) {
            if (push(&p, at, side) != AL_OK)
                return AL_CORRUPT;
            at = n->child[side];
            side = 0;
            continue;
        }
        if (p.depth == 0)
            return AL_OK;
        p.depth--;
        uint32_t fit = fit_of(n, track, shift);
        at = p.node[p.depth];
        side = p.side[p.depth];
        t->node[at].fit[track][side++] = fit;
    }
    return AL_OK;
}

/* A track that is not in use, or one that nothing was searched by for a while. Never the first, which has the page. */
static unsigned track_to_use(struct al_tree_tracks *tracks)
{
    if (tracks->count < AL_TREE_TRACKS)
        return tracks->count == 0 ? 1 : tracks->count;
    for (unsigned looked = 0;; looked++) {
        unsigned track = 1 + tracks->victim % (AL_TREE_TRACKS - 1);
        tracks->victim = (uint8_t)track; /* the next one after it, the next time */
        if (looked > AL_TREE_TRACKS || !(tracks->recent >> track & 1))
            return track;
        tracks->recent &= (uint16_t)~(1u << track);
    }
}

/* After a search: an alignment becomes a tracked one once searches for such have cost as much as a pass over all nodes,
 * which that takes. Crash rule: `shift` is 0 while the nodes are being written, and nothing goes by the track. */
static int learn(struct al_tree *t, const struct al_tree_constraint *c, const struct search *s)
{
    struct al_tree_tracks *tracks = &t->head->tracks;

    if (s->exact) {
        if (s->track < AL_TREE_TRACKS && !(tracks->recent >> s->track & 1))
            tracks->recent |= (uint16_t)(1u << s->track);
        return AL_OK;
    }
    if (s->steps <= 2 * AL_TREE_HEIGHT_MAX)
        return AL_OK;
    tracks->waste += s->steps;
    if (tracks->waste < t->head->top.used)
        return AL_OK;
    unsigned track = track_to_use(tracks), shift = (unsigned)__builtin_ctzll(c->align);
    tracks->shift[track] = 0;
    AL_IN_ORDER();
    if (track >= tracks->count)
        tracks->count = (uint8_t)(track + 1);
    int result = fit_all(t, track, shift);
    AL_IN_ORDER();
    if (result == AL_OK)
        tracks->shift[track] = (uint8_t)shift;
    tracks->recent |= (uint16_t)(1u << track);
    tracks->waste = 0;
    return result;
}

/* Turn [start, end] of a free node into an allocated one. The node itself keeps the lowest part, unless free parts
 * are left on both sides: then it becomes the allocated one. */
static int carve(struct al_tree *t, struct al_tree_path *p, uint32_t at, uint64_t start, uint64_t end, uint32_t owner)
{
    uint32_t depth = p->depth;
    struct al_tree_node *n = al_tree_edit(t, at);
    if (n == NULL)
        return AL_CORRUPT;
    uint64_t was_start = n->start, was_end = n->end;
    bool before = start > was_start, after = end < was_end;
    int result = AL_OK;

    t->head->top.allocated++;
    if (before && !after) {
        n->end = start - 1;
        result = attach_beside(t, p, at, 1, start, end, AL_TREE_ALLOCATED, owner);
        return result == AL_OK ? fix_path(t, p, depth) : result;
    }
    n->start = start;
    n->end = end;
    n->state = AL_TREE_ALLOCATED;
    n->owner = owner;
    if (after)
        result = attach_beside(t, p, at, 1, end + 1, was_end, AL_TREE_FREE, 0);
    if (result == AL_OK)
        result = fix_path(t, p, depth);
    if (result != AL_OK || !before)
        return result;
    if (descend(t, start, p, &at) != AL_OK)
        return AL_CORRUPT;
    result = attach_beside(t, p, at, 0, was_start, start - 1, AL_TREE_FREE, 0);
    return result == AL_OK ? fix_path(t, p, 0) : result;
}

int al_tree_find(const struct al_tree *t, const struct al_tree_constraint *c, uint64_t *start_out)
{
    struct al_tree_path p;
    uint32_t at;
    int result = al_tree_constraint_check(c);

    if (result != AL_OK)
        return result;
    struct search s = search_for(t, c);
    return find_place(t, c, &s, &p, &at, start_out);
}

int al_tree_alloc(struct al_tree *t, const struct al_tree_constraint *c, uint32_t owner, uint64_t *start_out)
{
    struct al_tree_path p;
    uint32_t at;
    uint64_t start;
    int result = al_tree_constraint_check(c);

    if (result != AL_OK)
        return result;
    if (t->head->journal_count != 0)
        return AL_UNFINISHED;
    struct search s = search_for(t, c);
    result = find_place(t, c, &s, &p, &at, &start);
    if (c->policy != AL_TREE_EXACT && result != AL_CORRUPT) {
        int learned = learn(t, c, &s);
        result = learned == AL_OK ? result : learned;
    }
    if (result != AL_OK)
        return result;
    uint64_t end = start + (c->size - 1);
    if (!has_nodes(t, (start > t->node[at].start ? 1u : 0u) + (end < t->node[at].end ? 1u : 0u)))
        return AL_NO_MEMORY;
    result = al_tree_begin(t);
    if (result == AL_OK)
        result = al_tree_finish(t, carve(t, &p, at, start, end, owner));
    if (result == AL_OK)
        *start_out = start;
    return result;
}

/* The node before (side 0) or after (1) this one in order, or NIL. */
static int neighbour(const struct al_tree *t, const struct al_tree_path *p, uint32_t at, unsigned side,
                     uint32_t *index_out)
{
    uint32_t next = t->node[at].child[side];

    *index_out = AL_TREE_NIL;
    for (uint32_t steps = 0; next != AL_TREE_NIL; steps++) {
        if (!is_node(t, next) || steps > AL_TREE_HEIGHT_MAX)
            return AL_CORRUPT;
        *index_out = next;
        next = t->node[next].child[!side];
    }
    for (uint32_t d = p->depth; *index_out == AL_TREE_NIL && d-- > 0;)
        if (p->side[d] == !side)
            *index_out = p->node[d];
    return AL_OK;
}

/* Whether a neighbour is free and touches [start, end]. */
static bool is_mergeable(const struct al_tree *t, uint32_t index, unsigned side, uint64_t start, uint64_t end)
{
    if (index == AL_TREE_NIL || t->node[index].state != AL_TREE_FREE)
        return false;
    if (side == 0)
        return start > 0 && t->node[index].end == start - 1;
    return end < UINT64_MAX && t->node[index].start == end + 1;
}

static int release(struct al_tree *t, struct al_tree_path *p, uint32_t at, bool has_before, bool has_after)
{
    uint64_t start = t->node[at].start;

    t->head->top.allocated--;
    if (!has_before && !has_after) {
        struct al_tree_node *n = al_tree_edit(t, at);
        if (n == NULL)
            return AL_CORRUPT;
        n->state = AL_TREE_FREE;
        n->owner = 0;
        return fix_path(t, p, p->depth);
    }
    int result = AL_OK;
    if (has_after)
        result = absorb(t, p, at, 1);
    if (result == AL_OK && has_before && has_after)
        result = descend(t, start, p, &at); /* the tree has turned */
    if (result == AL_OK && has_before)
        result = absorb(t, p, at, 0);
    return result == AL_OK ? AL_OK : AL_CORRUPT;
}

int al_tree_free(struct al_tree *t, uint64_t start, uint64_t end)
{
    struct al_tree_path p;
    uint32_t at, index;

    if (end < start)
        return AL_INVALID_RANGE;
    int result = descend(t, start, &p, &at);
    if (result != AL_OK)
        return result;
    if (t->node[at].state == AL_TREE_FREE && t->node[at].end >= end)
        return AL_INVALID_TRANSITION;
    if (t->node[at].state != AL_TREE_ALLOCATED || t->node[at].start != start || t->node[at].end != end)
        return AL_NOT_AVAILABLE;
    if (neighbour(t, &p, at, 0, &index) != AL_OK)
        return AL_CORRUPT;
    bool has_before = is_mergeable(t, index, 0, start, end);
    if (neighbour(t, &p, at, 1, &index) != AL_OK)
        return AL_CORRUPT;
    bool has_after = is_mergeable(t, index, 1, start, end);
    result = al_tree_begin(t);
    if (result != AL_OK)
        return result;
    return al_tree_finish(t, release(t, &p, at, has_before, has_after));
}
