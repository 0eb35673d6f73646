/* SPDX-License-Identifier: Apache-2.0
 *
 * Alignments of a range tree: first and last match beside a search through all ranges, in trees large enough for
 * alignments to become tracked ones and to lose their track again; and what a death leaves while one is being learnt.
 */
#include "allocators.h"
#include "check.h"

#define HOLES 700u
#define NODES (4 * HOLES)
#define SIZE  64u

static struct al_tree tree;

static void complain(void *context, const char *what, uint64_t where, uint64_t value)
{
    (void)context;
    fprintf(stderr, "%s: %llu %llu\n", what, (unsigned long long)where, (unsigned long long)value);
}

static void expect_sound(void)
{
    CHECK_EQ(al_tree_check(&tree, complain, NULL), 0);
}

/* Allocated ranges with holes between them that are long enough for SIZE and mostly hold no multiple early enough. */
static void lay_out(void)
{
    uint64_t bytes = al_tree_size_bytes(NODES), at = 0;

    CHECK_EQ(al_tree_init(&tree, aligned_alloc(64, (bytes + 63) / 64 * 64), bytes, NODES), AL_OK);
    for (unsigned i = 0; i < HOLES; i++) {
        uint64_t hole = SIZE + check_below(2), used = 1 + check_below(90);
        CHECK_EQ(al_tree_insert(&tree, at, at + used - 1, AL_TREE_ALLOCATED, 0, NULL), AL_OK);
        CHECK_EQ(al_tree_insert(&tree, at + used, at + used + hole - 1, AL_TREE_FREE, 0, NULL), AL_OK);
        at += used + hole;
    }
    CHECK_EQ(al_tree_insert(&tree, at, UINT64_C(1) << 40, AL_TREE_FREE, 0, NULL), AL_OK);
    expect_sound();
}

/* The answer by looking at each range; false: there is none. */
static bool expected(const struct al_tree_constraint *c, uint64_t *start_out)
{
    struct al_tree_iter it;
    struct al_tree_node n;
    bool found = false;

    CHECK_EQ(al_tree_iterate(&tree, 0, UINT64_MAX, &it), AL_OK);
    while (al_tree_next(&tree, &it, &n) == AL_OK && !(found && c->policy == AL_TREE_FIRST)) {
        uint64_t low = n.start > c->min ? n.start : c->min, high = n.end < c->max ? n.end : c->max;
        uint64_t first = (low + c->align - 1) & ~(c->align - 1);
        if (n.state != AL_TREE_FREE || first < low || first > high || high - first < c->size - 1)
            continue;
        found = true;
        *start_out = c->policy == AL_TREE_FIRST ? first : (high - (c->size - 1)) & ~(c->align - 1);
    }
    return found;
}

static void ask(uint64_t size, uint64_t align, uint32_t policy, uint64_t min, uint64_t max, bool give_back)
{
    struct al_tree_constraint c = {.size = size, .align = align, .min = min, .max = max, .policy = policy};
    uint64_t wanted = 0, start = 0, found = 0;
    bool is_there = expected(&c, &wanted);

    CHECK_EQ(al_tree_find(&tree, &c, &found), is_there ? AL_OK : AL_NOT_AVAILABLE);
    CHECK_EQ(al_tree_alloc(&tree, &c, 0, &start), is_there ? AL_OK : AL_NOT_AVAILABLE);
    if (is_there) {
        CHECK_EQ(start, wanted);
        CHECK_EQ(found, wanted);
        if (give_back)
            CHECK_EQ(al_tree_free(&tree, start, start + (size - 1)), AL_OK);
    }
}

static bool is_tracked(unsigned shift)
{
    for (unsigned k = 0; k < tree.head->tracks.count; k++)
        if (tree.head->tracks.shift[k] == shift)
            return true;
    return false;
}

/* Searches until the alignment is tracked; sooner than it would be, as if searches had cost a lot before. */
static void have_learnt(unsigned shift)
{
    for (unsigned i = 0; i < 2000 && !is_tracked(shift); i++) {
        tree.head->tracks.waste = HOLES * 4;
        ask(SIZE, UINT64_C(1) << shift, AL_TREE_FIRST, 0, UINT64_MAX, i % 8 != 0);
    }
    CHECK(is_tracked(shift));
}

/* More alignments than there are tracks, each for a while; from the largest on, so that none profits from another. */
static void test_many_alignments(void)
{
    unsigned learnt = 0;

    lay_out();
    for (unsigned round = 0; round < 2; round++)
        for (unsigned shift = 21; shift > 0; shift--) {
            tree.head->tracks.waste = HOLES; /* it learns sooner than it would */
            for (unsigned i = 0; i < 16; i++)
                ask(SIZE + check_below(3), UINT64_C(1) << shift, i % 4 == 3 ? AL_TREE_LAST : AL_TREE_FIRST, 0,
                    UINT64_MAX, i % 3 != 0);
            learnt += is_tracked(shift);
            expect_sound();
        }
    CHECK_EQ(tree.head->tracks.count, AL_TREE_TRACKS);
    CHECK(is_tracked(12)); /* the page stays */
    CHECK(learnt >= 12);
    free(tree.head);
}

/* One alignment; then the tree is changed in every way. */
static void test_changes_keep_up(void)
{
    lay_out();
    have_learnt(7);
    for (unsigned i = 0; i < 3000; i++) {
        struct al_tree_node n;
        struct al_tree_iter it;
        uint64_t at = check_below(HOLES * 120);
        CHECK_EQ(al_tree_iterate(&tree, at, UINT64_MAX, &it), AL_OK);
        CHECK_EQ(al_tree_next(&tree, &it, &n), AL_OK);
        if (n.state == AL_TREE_ALLOCATED)
            CHECK_EQ(al_tree_free(&tree, n.start, n.end), AL_OK);
        else
            ask(1 + check_below(200), UINT64_C(1) << check_below(9), check_below(2) ? AL_TREE_LAST : AL_TREE_FIRST,
                check_below(5000), UINT64_MAX - check_below(2) * (UINT64_MAX - 60000), false);
        if (i % 50 == 0)
            expect_sound();
    }
    expect_sound();
    free(tree.head);
}

/* A tracked search looks at one path, however many holes do not fit. */
static void test_no_hole_is_looked_at_in_vain(void)
{
    lay_out();
    have_learnt(6);
    uint64_t waste = tree.head->tracks.waste;
    for (unsigned i = 0; i < 100; i++)
        ask(SIZE, 64, AL_TREE_FIRST, 0, UINT64_MAX, true);
    CHECK_EQ(tree.head->tracks.waste, waste);
    free(tree.head);
}

/* A process that dies while it learns leaves a track without an alignment, and any numbers in it. */
static void test_death_while_learning(void)
{
    lay_out();
    tree.head->tracks.count = 2;
    tree.head->tracks.shift[1] = 0;
    for (uint32_t i = 0; i < tree.head->top.fresh; i++)
        tree.node[i].fit[1][0] = tree.node[i].fit[1][1] = (uint32_t)check_random();
    expect_sound();
    for (unsigned shift = 1; shift < 14; shift++)
        for (unsigned i = 0; i < 12; i++)
            ask(SIZE, UINT64_C(1) << shift, AL_TREE_FIRST, 0, UINT64_MAX, i % 2 == 0);
    CHECK_EQ(al_tree_recover(&tree), AL_OK);
    expect_sound();
    free(tree.head);
}

/* Words of the tracks that make no sense lead to a slow search at most, never out of the memory. */
static void test_damaged_tracks(void)
{
    lay_out();
    for (unsigned i = 0; i < 2000; i++) {
        struct al_tree_constraint c = {SIZE, UINT64_C(1) << check_below(20), 0, UINT64_MAX, 0, AL_TREE_FIRST};
        uint64_t start;
        for (unsigned byte = 0; byte < sizeof tree.head->tracks; byte++)
            ((uint8_t *)&tree.head->tracks)[byte] = (uint8_t)check_random();
        if (al_tree_alloc(&tree, &c, 0, &start) == AL_OK)
            (void)al_tree_free(&tree, start, start + (SIZE - 1));
    }
    free(tree.head);
}

int main(void)
{
    check_seed();
    test_many_alignments();
    test_changes_keep_up();
    test_no_hole_is_looked_at_in_vain();
    test_death_while_learning();
    test_damaged_tracks();
    return 0;
}
