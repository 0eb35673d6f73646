/* SPDX-License-Identifier: Apache-2.0
 *
 * The order of an operation's stores and looks, as it runs: what docs/design.md says of an edge, and its model takes for
 * granted, is what the code does. First the sequence of stores, seen step by step; then looks that matter when another
 * process does something just before them. */
#include "pool_fixture.h"
#include "ring_side.h"

#include "interleave.h"

/* ---- the sequence of stores ---------------------------------------------------------------------------------- */

enum { LISTED, GENERATION, SET, HOME, WORDS };

struct claim {
    struct fixture *f;
    uint32_t        last[WORDS], count;
    char            seen[16];
};

static void read_words(const struct fixture *f, uint32_t *words)
{
    const struct ssm_block *block = ssm_block_at(f->pool, 0);
    words[LISTED] = ssm_load_acquire_u32(&block->listed);
    words[GENERATION] = ssm_load_acquire_u32(&block->generation);
    words[SET] = (uint32_t)ssm_load_acquire_u64(&block->holders[0]);
    words[HOME] = ssm_load_acquire_u32(&block->home);
}

static void note_changes(void *context)
{
    static const char letters[WORDS + 1] = "LGSH";
    struct claim *c = context;
    uint32_t now[WORDS];
    read_words(c->f, now);
    for (int i = 0; i < WORDS; i++)
        if (now[i] != c->last[i] && c->count < sizeof c->seen - 1)
            c->seen[c->count++] = letters[i];
    memcpy(c->last, now, sizeof now);
}

static void take_one(void *mem, const void *context)
{
    const struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    uint32_t block_idx;
    (void)mem;
    pool->home = 1;
    CHECK_EQ(ssm_shard_take(pool, 0, 0, 1, 0, &block_idx), 1);
    CHECK_EQ(block_idx, 0);
}

/* G3 and G1: off the list, next generation, claim, next generation, home. As settle.pml has it. */
static void test_claim(void)
{
    struct ssm_pool_options options = fixture_options();
    options.class_count = 1;
    options.classes[0].block_count = 1;
    options.shards = 2;
    struct fixture f = fixture_open(&options);
    struct claim c = {.f = &f};
    read_words(&f, c.last);
    steps_trace(f.pool->base, f.pool->geometry.size_bytes, take_one, &f, note_changes, &c);
    printf("claim: %s\n", c.seen);
    CHECK(strcmp(c.seen, "LGSGH") == 0);
    fixture_reap(f.pool);
    fixture_close(&f);
}

/* ---- the second look at an entry (D4) ------------------------------------------------------------------------- */

struct scene {
    struct fixture        f;
    struct ssm_pool      *other; /* a second attachment */
    struct ssm_ring      *ring;
    uint8_t              *image, *checked;
    struct ssm_holder_set dead;
    uint32_t              ring_id;
    uint64_t              handle;
};

static void take_and_die(void *context)
{
    uint64_t handle;
    CHECK_EQ(ssm_ring_get(ring_open(fixture_join(context), "ring", 1, SSM_REDELIVER), &handle, 1, 0), 1);
    die_here();
}

static void put_back_image(void *context)
{
    struct scene *s = context;
    memcpy(s->f.pool->base, s->image, s->f.pool->geometry.size_bytes);
}

static void return_once_more(void *context)
{
    struct scene *s = context;
    ssm_ring_return(s->f.pool, s->ring_id, &s->dead);
}

static void get_it(void *context)
{
    struct scene *s = context;
    CHECK_EQ(ssm_ring_get(s->ring, &s->handle, 1, 0), 1);
    CHECK_EQ(ssm_packet_redelivered(s->f.pool, s->handle), 1);
}

/* It is not in the ring, wherever the reaper stood when it was taken. */
static void free_it(void *context)
{
    struct scene *s = context;
    CHECK(!ssm_block_has(ssm_block_at(s->f.pool, 0), s->ring_id));
    CHECK_EQ(ssm_free(s->f.pool, s->handle), 0);
    CHECK_EQ(ssm_ring_depth(s->ring), 0);
    fixture_reap(s->f.pool);
    CHECK_EQ(free_blocks(s->f.pool, 0), 1);
    CHECK_EQ(listed_blocks(s->f.pool, 0), 1);
}

/* A reaper returned a packet and died before it cleared the bits of the dead. The next reaper sees the entry, and a get takes
 * the packet before it looks at the ring's bit: the bit must not be set again. */
static void test_second_look(void)
{
    struct ssm_pool_options options = fixture_options();
    options.class_count = 1;
    options.classes[0].block_count = 1;
    struct scene s = {.f = fixture_open(&options)};
    const size_t bytes = s.f.pool->geometry.size_bytes;
    s.ring = ring_open(s.f.pool, "ring", 1, SSM_REDELIVER);
    s.ring_id = ring_id(s.f.pool, "ring");
    uint64_t handle = fixture_alloc(s.f.pool, 8);
    CHECK_EQ(ssm_ring_put(s.ring, &handle, 1, 0, 0), 0);
    child_died(child_start(take_and_die, &s.f));
    for (uint32_t slot = 0; slot < ssm_holder_high(s.f.pool); slot++)
        if (ssm_holder_slot_is_dead(s.f.pool, slot))
            ssm_holder_set_add(&s.dead, slot);
    ssm_ring_return(s.f.pool, s.ring_id, &s.dead);
    CHECK_EQ(ssm_ring_depth(s.ring), 1);
    s.image = malloc(bytes);
    CHECK(s.image != NULL);
    memcpy(s.image, s.f.pool->base, bytes);
    const struct interleaving second_look = {put_back_image, return_once_more, get_it, free_it};
    printf("return: %u instructions\n", interleave_everywhere(&second_look, &s));
    get_it(&s);
    free_it(&s);
    free(s.image);
    ssm_ring_close(s.ring);
    fixture_close(&s.f);
}

/* ---- a block that is let go of (F1) ----------------------------------------------------------------------------- */

static struct ssm_pool before_the_fork;

static void let_go(void *context)
{
    struct scene *s = context;
    *s->f.pool = before_the_fork; /* as if the parent did it */
    ssm_block_let_go(s->f.pool, 0, s->ring_id);
}

/* Where it stands still, a check that finds something looks a hundred and fifty times. It changes nothing, so it is asked
 * once for each state of the memory. */
static void check(void *context)
{
    struct scene *s = context;
    const size_t bytes = s->f.pool->geometry.size_bytes;
    if (memcmp(s->checked, s->f.pool->base, bytes) == 0)
        return;
    memcpy(s->checked, s->f.pool->base, bytes);
    fixture_check(s->other);
}

static void check_listed(void *context)
{
    struct scene *s = context;
    fixture_check(s->other);
    CHECK_EQ(listed_blocks(s->f.pool, 0), 1);
    CHECK_EQ(ssm_load_acquire_u32(&ssm_holder_at(s->f.pool, s->f.pool->self)->letting_go), 0);
}

/* Wherever its last holder is stopped: nobody calls the block lost. */
static void test_let_go(void)
{
    struct ssm_pool_options options = fixture_options();
    options.class_count = 1;
    options.classes[0].block_count = 1;
    struct scene s = {.f = fixture_open(&options)};
    const size_t bytes = s.f.pool->geometry.size_bytes;
    s.ring = ring_open(s.f.pool, "ring", 1, 0);
    s.ring_id = ring_id(s.f.pool, "ring");
    uint64_t handle = fixture_alloc(s.f.pool, 8);
    CHECK_EQ(ssm_ring_put(s.ring, &handle, 1, 0, 0), 0);
    s.other = fixture_attach(s.f.fd, 0);
    s.image = malloc(bytes);
    s.checked = calloc(1, bytes);
    CHECK(s.image != NULL && s.checked != NULL);
    memcpy(s.image, s.f.pool->base, bytes);
    before_the_fork = *s.f.pool;
    const struct interleaving stopped = {put_back_image, let_go, check, check_listed};
    printf("let go: %u instructions\n", interleave_everywhere(&stopped, &s));
    free(s.image);
    free(s.checked);
    pool_end(s.other);
    ssm_ring_close(s.ring);
    fixture_close(&s.f);
}

int main(void)
{
    alarm(280);
#ifdef __SANITIZE_THREAD__ /* it makes a step cost fifty times as much */
    return 77;
#endif
    if (!steps_possible())
        return 77;
    test_claim();
    test_second_look();
    test_let_go();
    return 0;
}
