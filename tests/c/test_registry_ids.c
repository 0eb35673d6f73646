/* SPDX-License-Identifier: Apache-2.0
 *
 * Numbers of the registry: slots, ids of rings, RMIDs. Used up, left over, scribbled; and death after every instruction
 * of attaching, closing, reaping and of making a ring.
 *
 * For the deaths, the segment is copied to memory of the test's own. A victim dies in an operation there; a doctor, who
 * lives, attaches to each copy that is left. */
#include "steps.h" /* first: it wants _GNU_SOURCE */

#include "hosted.h"
#include "pool_fixture.h"

enum { RING_LIMIT = 30 };

static struct fixture open_fixture(void)
{
    struct ssm_pool_options options = fixture_options();
    options.class_count = options.shards = options.classes[0].block_count = 1;
    options.metadata_bytes = 8192;
    return fixture_open(&options);
}

static uint8_t *memory_of(const struct ssm_pool *pool, int which)
{
    const struct ssm_geometry *g = &pool->geometry;
    return pool->base + (which == SSM_REGISTRY_IDS_SLOTS   ? g->slots_start
                         : which == SSM_REGISTRY_IDS_RINGS ? g->ring_ids_start
                                                           : g->rmids_start);
}

static uint64_t bytes_of(const struct ssm_pool *pool, int which)
{
    const struct ssm_service_options options = ssm_layout_registry_ids(&pool->geometry, (enum ssm_registry_ids)which);
    return ssm_hosted_bare_bytes(&options);
}

/* Numbers that are taken. */
static uint64_t taken(const struct ssm_pool *pool, int which)
{
    const struct ssm_service_options options = ssm_layout_registry_ids(&pool->geometry, (enum ssm_registry_ids)which);
    struct ssm_hosted hosted;
    CHECK_EQ(ssm_hosted_attach(&hosted, &options, memory_of(pool, which)), AL_OK);
    return ssm_hosted_used(&hosted);
}

static uint64_t slots_of_kind(const struct ssm_pool *pool, uint32_t kind)
{
    uint64_t count = 0;
    for (uint32_t slot = 0; slot < pool->geometry.holders; slot++)
        count += ssm_load_acquire_u32(&ssm_holder_at(pool, slot)->kind) == kind;
    return count;
}

static void print(void *context, const char *what, uint64_t where, uint64_t value)
{
    (void)context;
    fprintf(stderr, "%s: %llu %llu\n", what, (unsigned long long)where, (unsigned long long)value);
}

static void ignore(void *context, const char *what, uint64_t where, uint64_t value)
{
    (void)context, (void)what, (void)where, (void)value;
}

static uint64_t contradictions(struct ssm_pool *pool, al_report_fn report)
{
    uint64_t count = 0;
    for (int which = 0; which < SSM_REGISTRY_IDS_KINDS; which++)
        count += ssm_registry_ids_check(pool, (enum ssm_registry_ids)which, report, NULL);
    return count;
}

/* Nothing is left over: what is taken is named, and what is named is taken, once. */
static void check_exact(struct ssm_pool *pool)
{
    uint64_t processes = slots_of_kind(pool, SSM_HOLDER_PROCESS), rings = slots_of_kind(pool, SSM_HOLDER_RING);
    CHECK_EQ(contradictions(pool, print), 0);
    CHECK_EQ(taken(pool, SSM_REGISTRY_IDS_SLOTS), processes + rings);
    CHECK_EQ(taken(pool, SSM_REGISTRY_IDS_RINGS), rings);
    CHECK_EQ(taken(pool, SSM_REGISTRY_IDS_RMIDS), processes);
}

/* ---- ids of rings ------------------------------------------------------------------------------------------ */

static uint32_t ring_number(struct ssm_pool *pool, const char *name)
{
    struct ssm_ring_stats stats;
    CHECK_EQ(ssm_ring_stats(pool, ring_id(pool, name), &stats), 0);
    CHECK_EQ(stats.holder, ring_id(pool, name));
    return stats.id;
}

/* Ids tell the order in which rings were made, slots do not. */
static void test_ring_ids(void)
{
    struct fixture f = open_fixture();
    struct ssm_pool *one = fixture_attach(f.fd, 0), *two = fixture_attach(f.fd, 0);
    ssm_ring_close(ring_open(f.pool, "first", 2, 0));
    pool_end(one);
    ssm_ring_close(ring_open(two, "second", 2, 0));
    ssm_ring_close(ring_open(f.pool, "first", 2, 0)); /* it is there */
    ssm_ring_close(ring_open(f.pool, "third", 2, 0));
    CHECK(ring_id(f.pool, "second") < ring_id(f.pool, "first"));
    CHECK(ring_number(f.pool, "first") == 0 && ring_number(f.pool, "second") == 1 && ring_number(f.pool, "third") == 2);
    pool_end(two);
    check_exact(f.pool);
    fixture_close(&f);
}

/* ---- used up ----------------------------------------------------------------------------------------------- */

/* Slots that nobody lives in. Returns how many there were. */
static uint32_t fill_with(struct ssm_pool *pool, uint32_t kind)
{
    uint32_t count = 0, slot;
    while ((slot = ssm_registry_find_free(pool)) != SSM_NIL) {
        struct ssm_holder *holder = ssm_holder_at(pool, slot);
        CHECK_EQ(ssm_load_acquire_u32(&holder->kind), SSM_HOLDER_NONE);
        uint32_t ring_id = kind == SSM_HOLDER_RING ? ssm_registry_ids_alloc(pool, SSM_REGISTRY_IDS_RINGS) : 0;
        CHECK(ring_id != SSM_NIL);
        ssm_store_relaxed_u32(&holder->ring_id, ring_id);
        ssm_store_relaxed_u32(&holder->rmid, 0);
        ssm_store_relaxed_u64(&holder->ring_start, UINT64_MAX); /* no ring, for who looks */
        ssm_registry_mark_used(pool, slot);
        ssm_store_release_u32(&holder->kind, kind);
        CHECK(++count <= pool->geometry.holders);
    }
    return count;
}

/* As many as there can be; whoever comes then adopts a dead one's slot, and reaps the others. */
static void test_full(void)
{
    struct ssm_pool_options options = fixture_options();
    options.holders = SSM_HOLDER_MAX;
    struct fixture f = fixture_open(&options);
    CHECK_EQ(fill_with(f.pool, SSM_HOLDER_PROCESS), SSM_HOLDER_MAX - 1);
    CHECK_EQ(contradictions(f.pool, print), 0);
    struct ssm_pool *one = fixture_attach(f.fd, 0);
    CHECK_EQ(one->self, 1);
    CHECK_EQ(slots_of_kind(f.pool, SSM_HOLDER_PROCESS), 2);
    check_exact(f.pool);
    pool_end(one);
    CHECK_EQ(fill_with(f.pool, SSM_HOLDER_RING), SSM_HOLDER_MAX - 1);
    check_exact(f.pool);
    struct ssm_pool *more;
    CHECK_EQ(ssm_pool_attach(f.fd, &(struct ssm_attach_options){0}, &more), -SSM_E_HOLDERS);
    for (uint32_t slot = 1; slot < SSM_HOLDER_MAX; slot++)
        ssm_store_release_u32(&ssm_holder_at(f.pool, slot)->kind, SSM_HOLDER_NONE);
    fixture_reap(f.pool);
    check_exact(f.pool);
    fixture_close(&f);
}

/* ---- left over --------------------------------------------------------------------------------------------- */

static uint32_t how_many(const struct ssm_geometry *geometry, int which)
{
    return which == SSM_REGISTRY_IDS_RMIDS ? (uint32_t)ssm_layout_registry_ids(geometry, SSM_REGISTRY_IDS_RMIDS).first
                                           : geometry->holders;
}

/* Whoever died had taken them, and no slot names them. */
static void take_all_but(struct ssm_pool *pool, int which, uint32_t left)
{
    uint64_t numbers = how_many(&pool->geometry, which);
    ssm_nap_ns(SSM_RMID_REST_NS);
    while (numbers - taken(pool, which) > left)
        CHECK(ssm_registry_ids_alloc(pool, (enum ssm_registry_ids)which) != SSM_NIL);
}

static void test_leftovers(void)
{
    for (int which = 0; which < SSM_REGISTRY_IDS_KINDS; which++) {
        struct fixture f = open_fixture();
        take_all_but(f.pool, which, 0);
        fixture_check(f.pool); /* nothing is wrong */
        struct ssm_pool *one = fixture_attach(f.fd, 0);
        ssm_ring_close(ring_open(one, "ring", 2, 0));
        CHECK(ssm_load_relaxed_u32(&ssm_holder_at(f.pool, one->self)->rmid) != 0);
        CHECK_EQ(ring_number(f.pool, "ring"), 0);
        CHECK_EQ(contradictions(f.pool, print), 0);
        take_all_but(f.pool, which, 1);
        fixture_reap(f.pool);
        check_exact(f.pool);
        pool_end(one);
        check_exact(f.pool);
        fixture_close(&f);
    }
}

/* ---- scribbled --------------------------------------------------------------------------------------------- */

enum { MANNERS = 8 };

static void scribble(struct ssm_pool *pool, int which, uint32_t manner)
{
    uint8_t *bytes = memory_of(pool, which);
    uint64_t count = bytes_of(pool, which);
    const struct ssm_service_options options = ssm_layout_registry_ids(&pool->geometry, (enum ssm_registry_ids)which);
    struct ssm_hosted hosted;
    if (manner == 0) /* whole, and as if nobody had any */
        CHECK_EQ(ssm_hosted_init(&hosted, &options, bytes), AL_OK);
    else if (manner == 1)
        memset(bytes, 0, count);
    else if (manner == 2)
        memset(bytes, 0xff, count);
    else if (manner == 3) /* the head alone */
        memset(bytes + 8 * check_below(8), check_below(2) ? 0xff : (int)check_below(256), 8);
    else
        for (uint64_t times = 1 + check_below(40); times > 0; times--)
            bytes[check_below(count)] = (uint8_t)check_random();
}

/* A reap does not look through the queue of RMIDs; somebody comes upon a broken place later. */
static void repair(struct ssm_pool *pool)
{
    fixture_reap(pool);
    ssm_registry_ids_settle(pool, SSM_REGISTRY_IDS_RMIDS);
    check_exact(pool);
}

/* Whatever stands in the allocators: nothing is given twice, and all can be put right. */
static void test_scribbled(void)
{
    struct ssm_pool_options options = fixture_options(); /* room for so many rings */
    struct fixture f = fixture_open(&options);
    struct ssm_pool *one = fixture_attach(f.fd, 0);
    char name[16];
    for (uint32_t round = 0, rings = 0; round < 600; round++) {
        int which = (int)(round % SSM_REGISTRY_IDS_KINDS);
        scribble(f.pool, which, (uint32_t)check_below(MANNERS));
        (void)contradictions(f.pool, ignore);
        struct ssm_pool *two = fixture_attach(f.fd, 0);
        CHECK(two->self != f.pool->self && two->self != one->self);
        if (rings < RING_LIMIT && which == SSM_REGISTRY_IDS_RINGS) {
            snprintf(name, sizeof name, "%u", rings++);
            ssm_ring_close(ring_open(f.pool, name, 2, 0));
        }
        repair(f.pool);
        scribble(f.pool, which, (uint32_t)check_below(MANNERS));
        pool_end(two);
        repair(f.pool);
    }
    pool_end(one);
    fixture_close(&f);
}

/* A slot that its process's liveness lock guards is nobody else's, though its kind was scribbled. */
static void test_living_slot(void)
{
    struct fixture f = open_fixture();
    struct ssm_pool *one = fixture_attach(f.fd, 0);
    struct ssm_u32 *kind = &ssm_holder_at(f.pool, one->self)->kind;
    ssm_store_release_u32(kind, SSM_HOLDER_NONE);
    fixture_reap(f.pool);
    struct ssm_pool *two = fixture_attach(f.fd, 0);
    CHECK_EQ(two->self, 2);
    ssm_store_release_u32(kind, SSM_HOLDER_PROCESS);
    pool_end(two);
    pool_end(one);
    fixture_reap(f.pool);
    check_exact(f.pool);
    fixture_close(&f);
}

/* What ssm_check() says of a table that contradicts itself or the allocators. */
static void test_faults(void)
{
    struct fixture f = open_fixture();
    ssm_ring_close(ring_open(f.pool, "a", 2, 0));
    ssm_ring_close(ring_open(f.pool, "b", 2, 0));
    struct ssm_holder *a = ssm_holder_at(f.pool, ring_id(f.pool, "a")), *self = ssm_holder_at(f.pool, f.pool->self);
    uint32_t rmid = ssm_load_relaxed_u32(&self->rmid);
    const uint32_t wrong[] = {1 /* b's */, 9 /* free */, SSM_NIL};
    for (int i = 0; i < 3; i++) {
        ssm_store_relaxed_u32(&a->ring_id, wrong[i]);
        CHECK_EQ(ssm_check(f.pool, NULL, NULL), 1);
    }
    ssm_store_relaxed_u32(&a->ring_id, 0);
    ssm_store_relaxed_u32(&self->rmid, AL_RMID_MAX + 1);
    CHECK_EQ(ssm_check(f.pool, NULL, NULL), 1);
    ssm_store_relaxed_u32(&self->rmid, rmid);
    ssm_registry_ids_free(f.pool, SSM_REGISTRY_IDS_SLOTS, f.pool->self);
    CHECK_EQ(ssm_check(f.pool, NULL, NULL), 1);
    struct ssm_pool *one = fixture_attach(f.fd, 0); /* finds out, and puts it right */
    CHECK(one->self != f.pool->self);
    pool_end(one);
    check_exact(f.pool);
    fixture_close(&f);
}

/* ---- death at every instruction ---------------------------------------------------------------------------- */

enum what { ATTACH, CLOSE, REAP, RING, SETTLE };
struct operation {
    enum what what;
    int       which;     /* of SETTLE */
    bool      scribbled; /* before it: then a contradiction may be there until somebody finds it */
    uint32_t  stride;    /* of so many deaths one is looked at */
};

static struct ssm_pool victim, doctor;
static uint8_t *live, *left; /* what the victim works on; a copy, as a death leaves it */
static size_t segment_bytes;
static uint32_t deaths, changes;

static void operate(void *mem, const void *argument)
{
    const struct operation *o = argument;
    struct ssm_reaped reaped;
    struct ssm_ring *ring = NULL;
    int result = 0;
    (void)mem;
    victim.base = live;
    if (o->what == ATTACH)
        result = victim.revive(&victim);
    else if (o->what == CLOSE)
        result = ssm_recovery_leave_slot(&victim) ? 0 : -1;
    else if (o->what == REAP)
        ssm_recovery_reap_locked(&victim, false, &reaped);
    else if (o->what == RING)
        result = ssm_ring_open(&victim, "new", &(struct ssm_ring_options){.capacity = 2, .flags = 0}, &ring);
    else
        ssm_registry_ids_settle(&victim, (enum ssm_registry_ids)o->which);
    ssm_ring_close(ring);
    if (result != 0)
        _exit(1);
}

static void doctor_comes(void)
{
    memcpy(left, live, segment_bytes);
    doctor.base = left;
    doctor.self = SSM_NIL;
    ssm_file_close(&doctor.alive.fd, &doctor.file);
    doctor.alive.fd = dup(doctor.fd);
    CHECK_EQ(doctor.revive(&doctor), 0);
}

/* Somebody attaches. Nothing is given twice; and nothing is lost, neither for who needs it nor for who reaps. */
static void look_after(const struct operation *o)
{
    struct ssm_ring *ring = NULL;
    struct ssm_reaped reaped;
    deaths++;
    memcpy(left, live, segment_bytes);
    doctor.base = left;
    CHECK(o->scribbled || contradictions(&doctor, print) == 0);
    doctor_comes();
    CHECK(o->scribbled || contradictions(&doctor, print) == 0);
    uint64_t used = slots_of_kind(&doctor, SSM_HOLDER_PROCESS) + slots_of_kind(&doctor, SSM_HOLDER_RING);
    bool full = used == doctor.geometry.holders;
    CHECK_EQ(used + fill_with(&doctor, SSM_HOLDER_RING), doctor.geometry.holders);
    for (int which = 0; which < SSM_REGISTRY_IDS_KINDS; which++)
        ssm_registry_ids_settle(&doctor, (enum ssm_registry_ids)which);
    check_exact(&doctor);

    doctor_comes();
    const uint64_t rings = slots_of_kind(&doctor, SSM_HOLDER_RING);
    CHECK_EQ(ssm_ring_open(&doctor, "another", &(struct ssm_ring_options){.capacity = 2, .flags = 0}, &ring),
             rings >= ssm_rings_max(doctor.geometry.holders) ? -SSM_E_RINGS
             : full                                          ? -SSM_E_HOLDERS
                                                             : 0);
    ssm_ring_close(ring);
    ssm_recovery_reap_locked(&doctor, true, &reaped);
    check_exact(&doctor);
    CHECK_EQ(slots_of_kind(&doctor, SSM_HOLDER_PROCESS), 2); /* the test and the doctor */
}

static void after_change(void *context)
{
    const struct operation *o = context;
    if (changes++ % o->stride == 0)
        look_after(o);
}

static void die_in(struct operation o)
{
    const struct ssm_geometry *g = &doctor.geometry; /* settling changes nothing but what stands between these two */
    uint64_t start = o.what == SETTLE ? g->rmids_start : 0, end = o.what == SETTLE ? g->metadata_start : segment_bytes;
    uint32_t before = deaths;
    steps_trace(live + start, end - start, operate, &o, after_change, &o);
    CHECK(o.scribbled || deaths > before);
    look_after(&o); /* it finished, and died then */
}

/* The segment as it was in the beginning, but for the victim, who has not attached yet. */
static void start_unattached(const struct fixture *f, uint32_t victims_slot)
{
    memcpy(live, f->pool->base, segment_bytes);
    doctor.base = live;
    victim.self = SSM_NIL;
    ssm_registry_release(&doctor, victims_slot);
}

static void die_registering(const struct fixture *f, uint32_t slot)
{
    start_unattached(f, slot);
    die_in((struct operation){ATTACH, .stride = 1}); /* it reaps somebody who died before */
    start_unattached(f, slot);
    for (int which = 0; which < SSM_REGISTRY_IDS_RMIDS; which++)
        take_all_but(&doctor, which, 0);
    die_in((struct operation){ATTACH, .stride = 3}); /* it settles, since they run short */
    start_unattached(f, slot);
    (void)fill_with(&doctor, SSM_HOLDER_RING);
    die_in((struct operation){ATTACH, .stride = 1}); /* it adopts the dead one's slot */
    for (enum what what = CLOSE; what <= RING; what++) {
        memcpy(live, f->pool->base, segment_bytes);
        victim.self = slot;
        die_in((struct operation){what, .stride = 1});
    }
}

static void die_settling(const struct fixture *f, uint32_t slot)
{
    for (int which = 0; which < SSM_REGISTRY_IDS_KINDS; which++) {
        uint32_t all = how_many(&doctor.geometry, which);
        start_unattached(f, slot);
        take_all_but(&doctor, which, all - 10);
        die_in((struct operation){SETTLE, which, .stride = 1});
        for (uint32_t manner = 0; which != SSM_REGISTRY_IDS_RMIDS && manner < 4;
             manner++) { /* those take a million steps */
            start_unattached(f, slot);
            scribble(&doctor, which, manner);
            die_in((struct operation){SETTLE, which, .scribbled = true, .stride = 7});
        }
    }
}

static void test_death(void)
{
    struct fixture f = open_fixture();
    struct ssm_pool *dying = fixture_attach(f.fd, SSM_SERIAL), *dead = fixture_attach(f.fd, SSM_SERIAL);
    ssm_ring_close(ring_open(f.pool, "ring", 2, 0));
    uint32_t slot = dying->self;
    doctor = *f.pool;
    doctor.flags |= SSM_SERIAL;
    doctor.fd = ssm_file_reopen(f.fd, true); /* that of the dead, too: so they are seen to be dead */
    CHECK(doctor.fd >= 0);
    victim = kill_attachment(dying, doctor.fd);
    (void)kill_attachment(dead, doctor.fd);
    /* The locks of one that plays dead are in nobody's way: victim and doctor lock by the same descriptions. */
    CHECK_EQ(ssm_description_open(doctor.fd, &doctor.registry), 0);
    victim.registry = doctor.registry;
    victim.alive.fd = dup(doctor.fd);
    doctor.alive = SSM_NO_DESCRIPTION; /* what it has is the pool's */
    segment_bytes = f.pool->geometry.metadata_start + f.pool->geometry.metadata_bytes;
    live = steps_map(segment_bytes);
    left = steps_map(segment_bytes);
    die_registering(&f, slot);
    die_settling(&f, slot);
    printf("recovered from %u deaths\n", deaths);
    munmap(live, segment_bytes);
    munmap(left, segment_bytes);
    close(doctor.fd);
    fixture_reap(f.pool);
    check_exact(f.pool);
    ssm_pool_destroy(dying);
    ssm_pool_destroy(dead);
    fixture_close(&f);
}

int main(void)
{
    alarm(3 * WATCHDOG_S);
    check_seed();
    test_ring_ids();
    test_full();
    test_leftovers();
    test_scribbled();
    test_living_slot();
    test_faults();
    if (STEPS_WANTED && steps_possible())
        test_death();
    return 0;
}
