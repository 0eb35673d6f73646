/* SPDX-License-Identifier: Apache-2.0
 *
 * The range tree: the behaviour of the original, its errors that ours must not have, a model, corrupt memory, death
 * at every instruction.
 */
#include "steps.h" /* first: it wants _GNU_SOURCE */

#include "check.h"
#include "range_tree.h"

static void complain(void *context, const char *what, uint64_t where, uint64_t value)
{
    (void)context;
    fprintf(stderr, "%s: %llx %llx\n", what, (unsigned long long)where, (unsigned long long)value);
}

static void *memory(uint64_t bytes)
{
    void *mem = malloc(bytes);
    CHECK(mem != NULL);
    memset(mem, 0xa5, bytes);
    return mem;
}

static struct al_tree make(uint64_t start, uint64_t end, uint32_t capacity)
{
    struct al_tree t;
    uint64_t bytes = al_tree_size_bytes(capacity);

    CHECK_EQ(al_tree_init(&t, memory(bytes), bytes, capacity), AL_OK);
    CHECK_EQ(al_tree_insert(&t, start, end, AL_TREE_FREE, 0, NULL), AL_OK);
    return t;
}

static void drop(struct al_tree *t)
{
    CHECK_EQ(al_tree_check(t, complain, NULL), 0);
    free(t->head);
}

static int place(struct al_tree *t, uint64_t size, uint64_t align, uint32_t policy, uint64_t exact, uint64_t *start)
{
    struct al_tree_constraint c = {size, align, 0, UINT64_MAX, exact, policy};
    return al_tree_alloc(t, &c, 7, start);
}

static int first(struct al_tree *t, uint64_t size, uint64_t align, uint64_t *start)
{
    return place(t, size, align, AL_TREE_FIRST, 0, start);
}

static int last(struct al_tree *t, uint64_t size, uint64_t align, uint64_t *start)
{
    return place(t, size, align, AL_TREE_LAST, 0, start);
}

static int exact(struct al_tree *t, uint64_t size, uint64_t address)
{
    uint64_t start;
    int result = place(t, size, 1, AL_TREE_EXACT, address, &start);
    CHECK(result != AL_OK || start == address);
    return result;
}

static void test_table(void)
{
    struct al_tree t = make(0x1000, 0x1fff, 100);
    struct al_tree_node n;
    uint64_t s;

    CHECK_EQ(first(&t, 0x110, 0x100, &s), AL_OK);
    CHECK_EQ(s, 0x1000);
    CHECK_EQ(first(&t, 0x100, 0x100, &s), AL_OK);
    CHECK_EQ(s, 0x1200);
    CHECK_EQ(first(&t, 0x10, 0x100, &s), AL_OK);
    CHECK_EQ(s, 0x1300);
    CHECK_EQ(last(&t, 0x110, 0x100, &s), AL_OK);
    CHECK_EQ(s, 0x1e00);
    CHECK_EQ(first(&t, 0, 1, &s), AL_INVALID_SIZE);
    CHECK_EQ(first(&t, 1, 0, &s), AL_INVALID_ALIGNMENT);
    CHECK_EQ(first(&t, 1, 200, &s), AL_INVALID_ALIGNMENT);
    CHECK_EQ(place(&t, 16, 16, AL_TREE_EXACT, 3, &s), AL_UNALIGNED);
    CHECK_EQ(place(&t, 16, 16, AL_TREE_EXACT, UINT64_MAX - 15, &s), AL_NOT_AVAILABLE);
    CHECK_EQ(place(&t, 17, 16, AL_TREE_EXACT, UINT64_MAX - 15, &s), AL_OVERFLOW);
    CHECK_EQ(first(&t, 0x2000, 1, &s), AL_NOT_AVAILABLE);
    CHECK_EQ(al_tree_free(&t, 0x5000, 0x5fff), AL_NOT_AVAILABLE);
    CHECK_EQ(al_tree_free(&t, 0x1000, 0x1100), AL_NOT_AVAILABLE); /* only part of it */
    CHECK_EQ(al_tree_free(&t, 0x1000, 0x110f), AL_OK);
    CHECK_EQ(al_tree_free(&t, 0x1000, 0x110f), AL_INVALID_TRANSITION);
    CHECK_EQ(al_tree_superset(&t, 0x1210, 0x1220, &n), AL_OK);
    CHECK(n.start == 0x1200 && n.end == 0x12ff && n.state == AL_TREE_ALLOCATED && n.owner == 7);
    CHECK_EQ(al_tree_superset(&t, 0x12ff, 0x1300, &n), AL_NOT_AVAILABLE);
    CHECK_EQ(al_tree_search(&t, 0x1200, 0x12fe, &n), AL_NOT_AVAILABLE);
    CHECK_EQ(al_tree_insert(&t, 0x1fff, 0x2fff, AL_TREE_FREE, 0, &n), AL_OVERLAP);
    CHECK_EQ(n.end, 0x1fff);
    CHECK_EQ(al_tree_insert(&t, 9, 8, AL_TREE_FREE, 0, NULL), AL_INVALID_RANGE);
    CHECK_EQ(al_tree_delete(&t, 0x1200, 0x12ff), AL_OK);
    CHECK_EQ(al_tree_delete(&t, 0x1200, 0x12ff), AL_NOT_AVAILABLE);
    drop(&t);
}

/* What the original gets wrong. */
static void test_not_as_the_original(void)
{
    struct al_tree t = make(0, 0xfff, 100);
    uint64_t s;

    CHECK_EQ(exact(&t, 0x100, 0x100), AL_OK);
    CHECK_EQ(exact(&t, 0x100, 0x100), AL_NOT_AVAILABLE); /* inside what is allocated */
    CHECK_EQ(exact(&t, 0x10, 0x180), AL_NOT_AVAILABLE);
    CHECK_EQ(last(&t, 0x100, 1, &s), AL_OK);
    CHECK_EQ(last(&t, 0xe00 - 0x100, 1, &s), AL_OK);
    CHECK_EQ(last(&t, 0x100, 1, &s), AL_OK);
    CHECK_EQ(s, 0); /* a gap exactly at 0 */
    drop(&t);

    t = make(0, 0x2fff, 100); /* gaps 0x10-0x1f (no multiple of 0x20 late enough) and 0x1000-0x10ff */
    CHECK_EQ(exact(&t, 0x10, 0), AL_OK);
    CHECK_EQ(exact(&t, 0x1000 - 0x20, 0x20), AL_OK);
    CHECK_EQ(exact(&t, 0x1f00, 0x1100), AL_OK);
    CHECK_EQ(last(&t, 0x10, 0x20, &s), AL_OK);
    CHECK_EQ(s, 0x10e0);
    CHECK_EQ(al_tree_free(&t, 0x10e0, 0x10ef), AL_OK);
    CHECK_EQ(exact(&t, 0x100, 0x1000), AL_OK);
    CHECK_EQ(last(&t, 0x10, 0x20, &s), AL_NOT_AVAILABLE);
    CHECK_EQ(al_tree_free(&t, 0, 0xf), AL_OK); /* now 0x0-0x1f: the highest multiple of 0x20 is 0 */
    CHECK_EQ(last(&t, 0x10, 0x20, &s), AL_OK);
    CHECK_EQ(s, 0);
    drop(&t);

    t = make(1, UINT64_MAX, 100);
    CHECK_EQ(exact(&t, 0x10, 1), AL_OK);
    CHECK_EQ(al_tree_free(&t, 1, 0x10), AL_OK); /* starts at 1: not lost */
    CHECK_EQ(al_tree_used_count(&t), 1);
    CHECK_EQ(exact(&t, 0x10, UINT64_MAX - 16), AL_OK);
    CHECK_EQ(al_tree_free(&t, UINT64_MAX - 16, UINT64_MAX - 1), AL_OK); /* ends at 2^64 - 2 */
    CHECK_EQ(al_tree_used_count(&t), 1);
    CHECK_EQ(exact(&t, 1, UINT64_MAX), AL_OK); /* 2^64 - 1 itself */
    CHECK_EQ(last(&t, 1, 1, &s), AL_OK);
    CHECK_EQ(s, UINT64_MAX - 1);
    CHECK_EQ(al_tree_free(&t, UINT64_MAX, UINT64_MAX), AL_OK);
    CHECK_EQ(al_tree_free(&t, UINT64_MAX - 1, UINT64_MAX - 1), AL_OK); /* neighbours of length one merge */
    CHECK_EQ(al_tree_used_count(&t), 1);
    CHECK_EQ(place(&t, UINT64_C(1) << 63, UINT64_C(1) << 63, AL_TREE_EXACT, UINT64_C(1) << 63, &s), AL_OK);
    drop(&t);

    t = make(0, 9, 100);
    for (uint64_t i = 0; i < 10; i++)
        CHECK_EQ(exact(&t, 1, i), AL_OK);
    for (uint64_t i = 0; i < 10; i += 2)
        CHECK_EQ(al_tree_free(&t, i, i), AL_OK);
    CHECK_EQ(exact(&t, 1, 4), AL_OK); /* one address long, taken by its address */
    CHECK_EQ(al_tree_free(&t, 4, 4), AL_OK);
    for (uint64_t i = 1; i < 10; i += 2)
        CHECK_EQ(al_tree_free(&t, i, i), AL_OK);
    CHECK_EQ(al_tree_used_count(&t), 1);
    drop(&t);
}

static void test_bounds(void)
{
    struct al_tree t = make(0, 0xffff, 100);
    struct al_tree_constraint c = {0x100, 0x100, 0x1001, 0x2fff, 0, AL_TREE_FIRST};
    uint64_t s;

    CHECK_EQ(al_tree_alloc(&t, &c, 0, &s), AL_OK);
    CHECK_EQ(s, 0x1100);
    c.policy = AL_TREE_LAST;
    CHECK_EQ(al_tree_alloc(&t, &c, 0, &s), AL_OK);
    CHECK_EQ(s, 0x2f00);
    c.max = 0x2efe;
    CHECK_EQ(al_tree_alloc(&t, &c, 0, &s), AL_OK);
    CHECK_EQ(s, 0x2d00);
    c.policy = AL_TREE_EXACT;
    c.exact = 0x1000;
    CHECK_EQ(al_tree_alloc(&t, &c, 0, &s), AL_NOT_AVAILABLE);
    c.min = 0x1000;
    CHECK_EQ(al_tree_alloc(&t, &c, 0, &s), AL_OK);
    c.min = 0x4000;
    CHECK_EQ(al_tree_alloc(&t, &c, 0, &s), AL_INVALID_RANGE);
    c = (struct al_tree_constraint){0x100, 1, UINT64_MAX - 5, UINT64_MAX, 0, AL_TREE_FIRST};
    CHECK_EQ(al_tree_alloc(&t, &c, 0, &s), AL_NOT_AVAILABLE);
    drop(&t);
}

static void test_no_memory(void)
{
    struct al_tree t = make(0, 0xffff, 3), larger;
    uint64_t s, bytes = al_tree_size_bytes(10);

    CHECK_EQ(exact(&t, 0x10, 0x100), AL_OK);
    CHECK_EQ(first(&t, 0x10, 1, &s), AL_NO_MEMORY);
    CHECK_EQ(first(&t, 0x100, 1, &s), AL_OK); /* needs no node */
    CHECK_EQ(al_tree_insert(&t, 0x20000, 0x20001, AL_TREE_FREE, 0, NULL), AL_NO_MEMORY);
    CHECK_EQ(al_tree_check(&t, complain, NULL), 0);
    CHECK_EQ(al_tree_grow(&larger, memory(bytes), bytes, 10, &t), AL_OK);
    free(t.head);
    CHECK_EQ(first(&larger, 0x10, 1, &s), AL_OK);
    CHECK_EQ(s, 0x110);
    drop(&larger);
}

/* The whole address space in one free range, which only insert and free can make. */
static void test_whole_space(void)
{
    struct al_tree t = make(0, UINT64_MAX - 1, 10);
    uint64_t s;

    CHECK_EQ(al_tree_insert(&t, UINT64_MAX, UINT64_MAX, AL_TREE_ALLOCATED, 0, NULL), AL_OK);
    CHECK_EQ(al_tree_free(&t, UINT64_MAX, UINT64_MAX), AL_OK);
    CHECK_EQ(al_tree_used_count(&t), 1);
    CHECK_EQ(first(&t, UINT64_MAX, 1, &s), AL_OK);
    CHECK_EQ(al_tree_free(&t, 0, UINT64_MAX - 1), AL_OK);
    drop(&t);
}

/* ---- a model: the state of every address, and whether a new range starts there ---- */

#define SPACE 256u

struct model {
    uint64_t base;
    uint8_t  state[SPACE]; /* AL_TREE_... */
    uint8_t  head[SPACE];  /* a range starts here */
};

/* The ranges of the tree are those of the model. */
static void compare(const struct al_tree *t, const struct model *m)
{
    struct al_tree_iter it;
    struct al_tree_node n;
    uint32_t at = 0;

    CHECK_EQ(al_tree_check(t, complain, NULL), 0);
    CHECK_EQ(al_tree_iterate(t, 0, UINT64_MAX, &it), AL_OK);
    while (al_tree_next(t, &it, &n) == AL_OK) {
        while (at < SPACE && m->state[at] == AL_TREE_UNUSED)
            at++;
        CHECK(at < SPACE);
        CHECK_EQ(n.start, m->base + at);
        CHECK_EQ(n.state, m->state[at]);
        uint32_t next = at + 1;
        while (next < SPACE && !m->head[next] && m->state[next] == m->state[at])
            next++;
        CHECK_EQ(n.end, m->base + next - 1);
        at = next;
    }
    while (at < SPACE && m->state[at] == AL_TREE_UNUSED)
        at++;
    CHECK_EQ(at, SPACE);
}

static int model_find(const struct model *m, const struct al_tree_constraint *c, uint32_t *found)
{
    for (uint32_t i = 0; i < SPACE; i++) {
        uint32_t at = c->policy == AL_TREE_LAST ? SPACE - 1 - i : i, k = 0;
        uint64_t start = m->base + at;
        if (c->policy == AL_TREE_EXACT && start != c->exact)
            continue;
        if (start % c->align != 0 || start < c->min || at + c->size > SPACE || start + (c->size - 1) > c->max)
            continue;
        while (k < c->size && m->state[at + k] == AL_TREE_FREE && (k == 0 || !m->head[at + k]))
            k++;
        if (k == c->size) {
            *found = at;
            return AL_OK;
        }
    }
    return AL_NOT_AVAILABLE;
}

static void model_alloc(struct model *m, uint32_t at, uint64_t size)
{
    for (uint32_t k = 0; k < size; k++) {
        m->state[at + k] = AL_TREE_ALLOCATED;
        m->head[at + k] = k == 0;
    }
    if (at + size < SPACE && m->state[at + size] != AL_TREE_UNUSED)
        m->head[at + size] = 1;
}

static void step_alloc(struct al_tree *t, struct model *m)
{
    struct al_tree_constraint c = {
        .size = 1 + check_below(check_below(4) ? 6 : 40),
        .align = UINT64_C(1) << check_below(6),
        .max = UINT64_MAX,
        .policy = (uint32_t)check_below(3),
    };
    uint32_t at = 0;
    uint64_t start = 0;

    c.exact = (m->base + check_below(SPACE)) & ~(c.align - 1);
    if (check_below(3) == 0) {
        c.min = m->base + check_below(SPACE);
        c.max = c.min + check_below(SPACE);
        if (c.max < c.min)
            c.max = UINT64_MAX;
    }
    uint64_t found = 0;
    int looked = al_tree_find(t, &c, &found), result = al_tree_alloc(t, &c, 1, &start);
    CHECK(looked == result && (result != AL_OK || found == start));
    if (result == AL_OVERFLOW) {
        CHECK(c.policy == AL_TREE_EXACT && c.exact + (c.size - 1) < c.exact);
        return;
    }
    CHECK_EQ(result, model_find(m, &c, &at));
    if (result != AL_OK)
        return;
    CHECK_EQ(start, m->base + at);
    model_alloc(m, at, c.size);
}

static void step_free(struct al_tree *t, struct model *m)
{
    uint32_t at = (uint32_t)check_below(SPACE), end;

    while (at > 0 && !m->head[at])
        at--;
    for (end = at + 1; end < SPACE && !m->head[end] && m->state[end] == m->state[at];)
        end++;
    uint32_t wrong = (uint32_t)(check_below(8) == 0);
    if (wrong && m->base + (end - 1) == UINT64_MAX)
        wrong = 0;
    int result = al_tree_free(t, m->base + at, m->base + (end - 1) + wrong);
    if (m->state[at] == AL_TREE_FREE && !wrong)
        CHECK_EQ(result, AL_INVALID_TRANSITION);
    else if (m->state[at] == AL_TREE_ALLOCATED && !wrong) {
        CHECK_EQ(result, AL_OK);
        memset(m->state + at, AL_TREE_FREE, end - at);
        if (at > 0 && m->state[at - 1] == AL_TREE_FREE)
            m->head[at] = 0;
        if (end < SPACE && m->state[end] == AL_TREE_FREE)
            m->head[end] = 0;
    } else
        CHECK(result == AL_NOT_AVAILABLE);
}

/* insert and delete, which leave addresses that belong to no range. */
static void step_shape(struct al_tree *t, struct model *m)
{
    uint32_t at = (uint32_t)check_below(SPACE), size = 1 + (uint32_t)check_below(12), end;

    if (check_below(2)) {
        if (at + size > SPACE)
            return;
        int want = AL_OK;
        for (uint32_t k = 0; k < size; k++)
            if (m->state[at + k] != AL_TREE_UNUSED)
                want = AL_OVERLAP;
        uint32_t state = check_below(2) ? AL_TREE_FREE : AL_TREE_ALLOCATED;
        CHECK_EQ(al_tree_insert(t, m->base + at, m->base + at + (size - 1), state, 0, NULL), want);
        if (want == AL_OK) {
            memset(m->state + at, (int)state, size);
            m->head[at] = 1;
            if (at + size < SPACE && m->state[at + size] != AL_TREE_UNUSED)
                m->head[at + size] = 1;
        }
        return;
    }
    while (at > 0 && !m->head[at])
        at--;
    for (end = at + 1; end < SPACE && !m->head[end] && m->state[end] == m->state[at];)
        end++;
    int result = al_tree_delete(t, m->base + at, m->base + (end - 1));
    CHECK_EQ(result, m->state[at] == AL_TREE_UNUSED ? AL_NOT_AVAILABLE : AL_OK);
    memset(m->state + at, AL_TREE_UNUSED, end - at);
    memset(m->head + at, 0, end - at);
}

static void step_query(const struct al_tree *t, const struct model *m)
{
    uint32_t from = (uint32_t)check_below(SPACE), to = from + (uint32_t)check_below(SPACE - from);
    struct al_tree_iter it;
    struct al_tree_node n;
    uint32_t heads = 0;

    for (uint32_t at = from; at <= to; at++)
        heads += m->state[at] != AL_TREE_UNUSED && (m->head[at] || at == from);
    CHECK_EQ(al_tree_iterate(t, m->base + from, m->base + to, &it), AL_OK);
    while (al_tree_next(t, &it, &n) == AL_OK) {
        CHECK(n.start <= m->base + to && n.end >= m->base + from);
        CHECK(heads-- > 0);
    }
    CHECK_EQ(heads, 0);
}

static void test_model(uint64_t base, unsigned rounds)
{
    struct model m = {.base = base};
    struct al_tree t = make(base, base + (SPACE - 1), 2 * SPACE);

    memset(m.state, AL_TREE_FREE, SPACE);
    m.head[0] = 1;
    for (unsigned i = 0; i < rounds; i++) {
        uint64_t what = check_below(20);
        if (what < (i / 300 % 2 ? 6u : 11u))
            step_alloc(&t, &m);
        else if (what < 17)
            step_free(&t, &m);
        else if (what < 18)
            step_shape(&t, &m);
        else
            step_query(&t, &m);
        compare(&t, &m);
    }
    drop(&t);
}

/* Many nodes: the height stays that of an AVL tree, and all merges back into one. */
static void test_large(uint32_t count)
{
    struct al_tree t = make(0, (uint64_t)count * 16 - 1, 2 * count + 1);
    uint64_t s;
    uint32_t limit = 0;

    for (uint32_t i = 0; i < count; i++)
        CHECK_EQ(first(&t, 16, 16, &s), AL_OK);
    CHECK_EQ(first(&t, 1, 1, &s), AL_NOT_AVAILABLE);
    for (uint32_t n = 2 * count; n > 0; n /= 2)
        limit += 145;
    CHECK(al_tree_height(&t) <= limit / 100 + 1);
    for (uint32_t i = 0; i < count; i++) { /* 7919 is prime */
        uint64_t at = (uint64_t)i * 7919 % count * 16;
        CHECK_EQ(al_tree_free(&t, at, at + 15), AL_OK);
        if (i % (count / 16) == 0)
            CHECK_EQ(al_tree_check(&t, complain, NULL), 0);
    }
    CHECK_EQ(al_tree_used_count(&t), 1);
    CHECK_EQ(al_tree_height(&t), 1);
    drop(&t);
}

static void test_owned(void)
{
    struct al_tree t = make(0, 0xffff, 100);
    struct al_tree_node n;
    uint64_t s;
    uint32_t cursor = 0, seen = 0;

    for (uint32_t i = 0; i < 30; i++) {
        struct al_tree_constraint c = {16, 16, 0, UINT64_MAX, 0, AL_TREE_FIRST};
        CHECK_EQ(al_tree_alloc(&t, &c, i % 3, &s), AL_OK);
    }
    while (al_tree_next_owned(&t, 1, &cursor, &n) == AL_OK) {
        seen++;
        CHECK_EQ(n.start / 16 % 3, 1);
    }
    CHECK_EQ(seen, 10);
    for (cursor = 0; al_tree_next_owned(&t, 1, &cursor, &n) == AL_OK; cursor = 0)
        CHECK_EQ(al_tree_free(&t, n.start, n.end), AL_OK);
    CHECK_EQ(al_tree_allocated_count(&t), 20);
    drop(&t);
}

/* ---- corrupt memory ---- */

static void test_corrupt(void)
{
    uint64_t bytes = al_tree_size_bytes(200);
    void *mem = memory(bytes), *clean = memory(bytes);
    struct al_tree t;
    uint64_t s;

    CHECK_EQ(al_tree_init(&t, clean, bytes, 200), AL_OK);
    CHECK_EQ(al_tree_insert(&t, 0, 0xffff, AL_TREE_FREE, 0, NULL), AL_OK);
    for (unsigned i = 0; i < 60; i++)
        CHECK_EQ(first(&t, 1 + check_below(64), 1, &s), AL_OK);
    for (uint64_t i = 0; i < 0x1000; i++) {
        struct al_tree_node n;
        if (al_tree_superset(&t, i, i, &n) == AL_OK && n.state == AL_TREE_ALLOCATED && check_below(2))
            CHECK_EQ(al_tree_free(&t, n.start, n.end), AL_OK);
    }
    for (unsigned round = 0; round < 4000; round++) {
        memcpy(mem, clean, bytes);
        CHECK_EQ(al_tree_attach(&t, mem, bytes), AL_OK);
        uint64_t reach = sizeof(struct al_tree_head) + t.head->top.fresh * sizeof(struct al_tree_node);
        for (unsigned i = 0; i < 1 + round % 12; i++)
            ((uint8_t *)mem)[check_below(reach)] = (uint8_t)(check_below(2) ? check_below(200) : check_random());
        (void)al_tree_check(&t, NULL, NULL);
        for (unsigned i = 0; i < 20; i++) {
            struct al_tree_iter it;
            struct al_tree_node n;
            uint32_t cursor = 0;
            (void)place(&t, 1 + check_below(64), 1u << check_below(14), (uint32_t)check_below(3),
                        check_below(0x1000) << 4, &s);
            if (al_tree_iterate(&t, check_below(0x1000), 0x1000, &it) == AL_OK && al_tree_next(&t, &it, &n) == AL_OK)
                (void)al_tree_free(&t, n.start, n.end);
            for (unsigned k = 0; k < 500 && al_tree_next(&t, &it, &n) == AL_OK; k++)
                ;
            (void)al_tree_next_owned(&t, 7, &cursor, &n);
            (void)al_tree_recover(&t);
        }
        (void)al_tree_attach(&t, mem, bytes);
    }
    free(mem);
    free(clean);
}

/* ---- death ---- */

#define STEPS_NODES 48u
static uint64_t steps_bytes;

struct steps_argument {
    struct al_tree_constraint c;
    uint64_t                  start, end; /* to free, when c.size is 0 */
};

static void steps_operate(void *mem, const void *argument)
{
    const struct steps_argument *a = argument;
    struct al_tree t;
    uint64_t s;

    if (al_tree_attach(&t, mem, steps_bytes) != AL_OK)
        _exit(1);
    int result = a->c.size ? al_tree_alloc(&t, &a->c, 3, &s) : al_tree_free(&t, a->start, a->end);
    if (result != AL_OK)
        _exit(1);
}

static void steps_recovery(void *mem)
{
    struct al_tree t;
    if (al_tree_attach(&t, mem, steps_bytes) != AL_OK || al_tree_recover(&t) != AL_OK)
        _exit(1);
}

static uint64_t steps_digest(void *mem)
{
    struct al_tree t;
    struct al_tree_iter it;
    struct al_tree_node n;
    uint64_t hash = 1;

    CHECK_EQ(al_tree_attach(&t, mem, steps_bytes), AL_OK);
    CHECK_EQ(al_tree_check(&t, complain, NULL), 0);
    CHECK_EQ(al_tree_iterate(&t, 0, UINT64_MAX, &it), AL_OK);
    while (al_tree_next(&t, &it, &n) == AL_OK)
        hash = steps_mix(steps_mix(steps_mix(hash, n.start), n.end), (uint64_t)n.state << 32 | n.owner);
    return hash;
}

static void test_death(void)
{
    steps_bytes = al_tree_size_bytes(STEPS_NODES);
    void *mem = memory(steps_bytes);
    struct al_tree t;
    struct steps s = {steps_bytes, steps_operate, steps_recovery, steps_digest};
    unsigned deaths = 0;

    CHECK_EQ(al_tree_init(&t, mem, steps_bytes, STEPS_NODES), AL_OK);
    CHECK_EQ(al_tree_insert(&t, 0x10, 0xfff, AL_TREE_FREE, 0, NULL), AL_OK);
    for (unsigned i = 0; i < 30; i++) {
        struct steps_argument a = {.c = {1 + check_below(0x60), 1, 0, UINT64_MAX, 0, (uint32_t)check_below(3)}};
        a.c.exact = check_below(0x1000);
        struct al_tree_node n;
        uint64_t address = check_below(0x1000);
        if (i >= 8 && check_below(2) && al_tree_superset(&t, address, address, &n) == AL_OK &&
            n.state == AL_TREE_ALLOCATED)
            a = (struct steps_argument){.start = n.start, .end = n.end};
        else {
            char *copy = memory(steps_bytes); /* only what will succeed */
            uint64_t start;
            memcpy(copy, mem, steps_bytes);
            struct al_tree other;
            CHECK_EQ(al_tree_attach(&other, copy, steps_bytes), AL_OK);
            int result = al_tree_alloc(&other, &a.c, 3, &start);
            free(copy);
            if (result != AL_OK)
                continue;
        }
        deaths += steps_run(&s, mem, &a, i % 15 == 0);
    }
    printf("recovered from %u deaths\n", deaths);
    CHECK(deaths > 500);
    free(mem);
}

int main(void)
{
    check_seed();
    test_table();
    test_not_as_the_original();
    test_bounds();
    test_no_memory();
    test_whole_space();
    test_owned();
    test_model(0, 4000);
    test_model(0x1000 - 100, 4000); /* a multiple of the page in the middle */
    test_model(UINT64_MAX - (SPACE - 1), 4000);
    test_large(20000);
    test_corrupt();
    if (steps_possible())
        test_death();
    return 0;
}
