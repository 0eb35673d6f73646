/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes in a segment: whatever stands there, each call answers or goes on. It never reads or writes outside the
 * segment, never waits for ever, never goes round for ever.
 *
 * An input is a program: first which image, then commands of one byte each, with their arguments. Two processes'
 * attachments are at work in one pool (both are this process's: their calls do not overlap), and a third party writes
 * over whatever it likes, between calls. The kinds of what it writes are those that mean something: bounds, the
 * value next to it, lock words of the living, handles. So plain mutations of the input reach deep.
 */
#include "attachment.h"
#include "check.h"
#include "fuzz_pool.h"
#include "image.h"
#include "liveness.h"
#include "sandbox.h"

#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { USERS = 2, HANDLES = 24, COMMANDS_MAX = 200 };

struct user {
    struct ssm_pool    *pool; /* NULL: not attached */
    struct ssm_ring    *rings[IMAGE_RINGS];
    struct ssm_service *services[IMAGE_SERVICES];
    uint64_t            handles[HANDLES];
    uint32_t            handle_count;
};

struct run {
    const uint8_t             *at, *end;
    int                        fd;
    const struct ssm_geometry *g;
    uint8_t                   *bytes; /* the third party's mapping of the file */
    bool                       cut;   /* the file is shorter than that */
    struct user                users[USERS];
};

/* ---- reading the program ------------------------------------------------------------------------------------- */

static uint64_t number(struct run *r, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes && r->at < r->end; i++)
        value |= (uint64_t)*r->at++ << 8 * i;
    return value;
}

static uint32_t below(struct run *r, uint32_t bound)
{
    return (uint32_t)number(r, bound > 256 ? 2 : 1) % bound;
}

static struct user *some_user(struct run *r)
{
    return &r->users[below(r, USERS)];
}

/* ---- the third party ------------------------------------------------------------------------------------------- */

struct area { uint64_t start, bytes; };

static struct area some_area(struct run *r)
{
    const struct ssm_geometry *g = r->g;
    const struct area areas[] = {
        {0, sizeof(struct ssm_superblock)},
        {g->holders_start, 6 * sizeof(struct ssm_holder)},
        {g->classes_start, g->class_count * sizeof(struct ssm_class)},
        {g->shards_start, (uint64_t)g->class_count * g->shards * sizeof(struct ssm_shard)},
        {g->classes[0].lists_start, g->blocks_start - g->classes[0].lists_start},
        {g->blocks_start, (uint64_t)g->block_total * g->block_bytes},
        {g->caches_start, UINT64_C(6) * g->class_count * g->cache_bytes},
        {g->services_start, IMAGE_SERVICES * sizeof(struct ssm_service_shared)},
        {g->carver_start, 1024},
        {g->rmids_start, 256},
        {g->metadata_start, g->metadata_bytes},
        {g->rmids_start, g->metadata_start - g->rmids_start},
        {g->carver_start, g->carver_bytes},
        {0, g->size_bytes},
    };
    _Static_assert(sizeof areas / sizeof areas[0] == WHOLE_SEGMENT + 1, "the last one");
    return areas[below(r, sizeof areas / sizeof areas[0])];
}

static uint64_t some_value(struct run *r, const uint8_t *place, unsigned width)
{
    uint64_t there = 0, beside = 0;
    memcpy(&there, place, width);
    memcpy(&beside, (uintptr_t)place & width ? place - width : place + width, width);
    const struct user *user = &r->users[below(r, USERS)];
    uint64_t mine = user->pool != NULL ? user->pool->lock_word : 1, small = number(r, 1);
    const uint64_t values[SCRIBBLE_KINDS - 1] = {
        small,
        UINT64_MAX - small,
        there + small,
        there - small,
        there ^ UINT64_C(1) << (small & 63),
        beside,
        beside + 1,
        mine,
        mine | UINT64_C(1) << 31,
        r->g->block_total + small,
        UINT64_C(1) << (small & 63),
        (UINT64_C(1) << (small & 63)) - 1,
        r->g->size_bytes - small,
        small << 32 | 1,
        user->handle_count > 0 ? user->handles[small % user->handle_count] : 0,
        0,
    };
    uint32_t kind = below(r, SCRIBBLE_KINDS);
    return kind < SCRIBBLE_KINDS - 1 ? values[kind] : number(r, (int)width); /* or what the program says */
}

static void scribble(struct run *r)
{
    struct area area = some_area(r);
    unsigned width = 1u << below(r, 4);
    uint64_t offset = area.start + number(r, area.bytes > 65536 ? 3 : 2) % area.bytes / width * width;
    if (r->cut || offset >= r->g->size_bytes - 2 * width)
        return;
    uint64_t value = some_value(r, r->bytes + offset, width);
    SSM_EXPECT_DAMAGE(true);
    memcpy(r->bytes + offset, &value, width);
}

static void paste(struct run *r)
{
    struct area area = some_area(r);
    uint64_t offset = area.start + number(r, 2) % area.bytes, count = number(r, 1);
    SSM_EXPECT_DAMAGE(true);
    for (; count > 0 && !r->cut && r->at < r->end && offset < r->g->size_bytes; count--)
        r->bytes[offset++] = *r->at++;
}

static void fill(struct run *r)
{
    struct area area = some_area(r);
    int byte = (int)number(r, 1);
    SSM_EXPECT_DAMAGE(true);
    if (!r->cut && area.bytes < r->g->size_bytes)
        memset(r->bytes + area.start, byte, area.bytes);
}

/* A superblock that is whole again, whatever its parameters are. */
static void sign(struct run *r)
{
    struct ssm_superblock *s = (struct ssm_superblock *)(void *)r->bytes;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    if (r->cut)
        return;
    SSM_EXPECT_DAMAGE(true);
    for (size_t i = offsetof(struct ssm_superblock, size_bytes); i < offsetof(struct ssm_superblock, state); i++)
        hash = (hash ^ r->bytes[i]) * UINT64_C(0x100000001b3);
    s->params_hash = hash;
}

/* From then on the users of the mapping do what is promised to notice. */
static void cut(struct run *r)
{
    uint64_t left = number(r, 3) % r->g->size_bytes;
    CHECK(ftruncate(r->fd, (off_t)left) == 0);
    SSM_EXPECT_DAMAGE(true);
    r->cut = true;
    if (below(r, 2) == 0) { /* and grown again, with a hole */
        CHECK(ftruncate(r->fd, (off_t)r->g->size_bytes) == 0);
        r->cut = false;
    }
}

/* ---- coming and going -------------------------------------------------------------------------------------------- */

static void attach(struct run *r, struct user *user, uint32_t flags)
{
    struct ssm_attach_options how = {.name = "fuzz", .flags = flags, .timeout_ns = 1000000};
    if (user->pool != NULL)
        return;
    if (ssm_pool_attach(r->fd, &how, &user->pool) != 0)
        user->pool = NULL;
    else
        user->pool->home = (uint32_t)(user - r->users) % user->pool->geometry.shards; /* whatever the pid is */
}

static void attach_some(struct run *r)
{
    struct user *user = some_user(r);
    attach(r, user, below(r, 8) == 0 ? SSM_READONLY : 0);
}

static void let_go(struct user *user)
{
    for (int i = 0; i < IMAGE_RINGS; i++)
        ssm_ring_close(user->rings[i]);
    for (int i = 0; i < IMAGE_SERVICES; i++)
        ssm_service_close(user->services[i]);
    ssm_pool_destroy(user->pool);
    *user = (struct user){0};
}

static void leave(struct run *r)
{
    struct user *user = some_user(r);
    if (user->pool != NULL)
        let_go(user);
}

/* All that a kill leaves: the memory as it is, and a liveness lock that is free. */
static void die(struct run *r)
{
    struct user *user = some_user(r);
    if (user->pool == NULL)
        return;
    ssm_description_drop(&user->pool->alive, &user->pool->file);
    ssm_pool_set_status(user->pool, user->pool->status | SSM_STATUS_CLOSED);
    let_go(user);
}

static void retire(struct run *r)
{
    int fd = ssm_file_reopen(r->fd, true);
    CHECK(fd >= 0);
    (void)ssm_pool_retire(fd, NULL);
    close(fd);
}

/* ---- packets ------------------------------------------------------------------------------------------------------- */

static void keep(struct user *user, const uint64_t *handles, int count)
{
    for (int i = 0; i < count && user->handle_count < HANDLES; i++)
        user->handles[user->handle_count++] = handles[i];
}

static void some_handles(struct run *r, const struct user *user, uint64_t *handles_out, int count)
{
    for (int i = 0; i < count; i++) {
        uint32_t which = below(r, HANDLES);
        handles_out[i] = user->handle_count == 0 ? which : user->handles[which % user->handle_count];
    }
}

/* The whole window may be written, and lies in the payload. */
static void use(struct user *user, uint64_t handle)
{
    struct ssm_packet packet;
    struct ssm_pool *pool = user->pool;
    if (ssm_packet_view(pool, handle, &packet) != 0)
        return;
    uint8_t *payload = pool->base + pool->geometry.classes[0].payload_start,
            *end = pool->base + pool->geometry.size_bytes;
    CHECK(packet.data >= payload && packet.length <= (uint64_t)(end - packet.data));
    CHECK(packet.headroom <= packet.block_size && packet.tailroom <= packet.block_size);
    memset(packet.data, 0x55, packet.length);
}

static void alloc(struct run *r)
{
    struct user *user = some_user(r);
    uint64_t handles[8], size = below(r, 240);
    if (size > 232) /* more than any block has: of the arena */
        size = (size - 232) * 1000;
    uint32_t count = 1 + below(r, 8);
    int64_t timeout_ns = below(r, 4) == 0 ? 50000000 : 0;
    if (user->pool == NULL || r->cut)
        return;
    if (count == 1 && ssm_alloc(user->pool, size, timeout_ns, handles) == 0)
        keep(user, handles, 1);
    else if (ssm_alloc_many(user->pool, size, count, timeout_ns, handles) == 0)
        keep(user, handles, (int)count);
}

static void give(struct run *r)
{
    struct user *user = some_user(r);
    uint64_t handles[2];
    some_handles(r, user, handles, 2);
    if (user->pool == NULL || r->cut)
        return;
    if (below(r, 2) == 0)
        (void)ssm_free(user->pool, handles[0]);
    else
        (void)ssm_free_many(user->pool, handles, 2);
}

/* What hangs there is used: a walk ends, whatever the links say. */
static void hang(struct run *r, struct user *user, uint64_t handle)
{
    uint64_t segments[2];
    some_handles(r, user, segments, 2);
    (void)ssm_packet_link(user->pool, handle, segments, below(r, 3));
    for (int i = 0; i < 8 && ssm_packet_next(user->pool, handle, &handle) == 1; i++)
        use(user, handle);
}

static void shape(struct run *r)
{
    struct user *user = some_user(r);
    uint64_t handle, tag, bytes = number(r, 1);
    uint32_t what = below(r, 10);
    some_handles(r, user, &handle, 1);
    if (user->pool == NULL || r->cut)
        return;
    switch (what) {
    case 0:  (void)ssm_packet_prepend(user->pool, handle, bytes, NULL); break;
    case 1:  (void)ssm_packet_append(user->pool, handle, bytes, NULL); break;
    case 2:  (void)ssm_packet_trim_front(user->pool, handle, bytes, NULL); break;
    case 3:  (void)ssm_packet_trim_back(user->pool, handle, bytes, NULL); break;
    case 4:  (void)ssm_packet_set_tag(user->pool, handle, bytes); break;
    case 5:  (void)ssm_packet_tag(user->pool, handle, &tag); break;
    case 6:  (void)ssm_packet_hold(user->pool, handle); break;
    case 7:  (void)ssm_packet_pin(user->pool, handle); break;
    case 8:  (void)ssm_packet_unpin(user->pool, handle, bytes & 1); break;
    default: hang(r, user, handle); break;
    }
    use(user, handle);
}

/* ---- rings ----------------------------------------------------------------------------------------------------------- */

static struct ssm_ring *some_ring(struct run *r, struct user *user)
{
    uint32_t i = below(r, IMAGE_RINGS);
    if (user->pool == NULL || r->cut)
        return NULL;
    if (user->rings[i] == NULL && ssm_ring_open(user->pool, image_ring_names[i], &image_rings[i], &user->rings[i]) != 0)
        user->rings[i] = NULL;
    return user->rings[i];
}

static void put(struct run *r)
{
    struct user *user = some_user(r);
    struct ssm_ring *ring = some_ring(r, user);
    uint64_t handles[3];
    uint32_t count = 1 + below(r, 3), flags = below(r, 2);
    some_handles(r, user, handles, 3);
    int64_t timeout_ns = below(r, 4) == 0 ? 50000000 : 0;
    if (ring != NULL)
        (void)ssm_ring_put(ring, handles, count, flags, timeout_ns);
}

static void get(struct run *r)
{
    struct user *user = some_user(r);
    struct ssm_ring *ring = some_ring(r, user);
    uint64_t handles[16];
    uint32_t count = 1 + below(r, 16);
    int64_t timeout_ns = below(r, 4) == 0 ? 50000000 : 0;
    int got = ring != NULL ? ssm_ring_get(ring, handles, count, timeout_ns) : 0;
    keep(user, handles, got);
    for (int i = 0; i < got; i++)
        use(user, handles[i]);
}

static void steer(struct run *r)
{
    struct user *user = some_user(r);
    struct ssm_ring *ring = some_ring(r, user);
    uint32_t what = below(r, 12);
    if (ring == NULL)
        return;
    (void)ssm_ring_depth(ring), (void)ssm_ring_acl(ring), (void)ssm_ring_task_done(ring), (void)ssm_ring_join(ring, 0);
    if (what < 8)
        (void)ssm_ring_set_acl(ring, what);
    else if (what < 10)
        (void)ssm_ring_shutdown(ring, what == 8);
    else
        for (int i = 0; i < IMAGE_RINGS; i++)
            if (user->rings[i] == ring) {
                ssm_ring_close(ring);
                user->rings[i] = NULL;
            }
}

static void create_ring(struct run *r)
{
    struct user *user = some_user(r);
    struct ssm_ring *ring;
    char name[3] = {'n', (char)('a' + below(r, 8)), 0};
    struct ssm_ring_options how = {.capacity = 1 + below(r, 64)};
    if (user->pool != NULL && !r->cut && ssm_ring_open(user->pool, name, &how, &ring) == 0)
        ssm_ring_close(ring);
}

/* ---- services -------------------------------------------------------------------------------------------------------- */

static struct ssm_service *some_service(struct run *r, struct user *user, uint32_t *index_out)
{
    uint32_t i = *index_out = below(r, IMAGE_SERVICES);
    if (user->pool == NULL || r->cut)
        return NULL;
    if (user->services[i] == NULL &&
        ssm_service_open(user->pool, image_service_names[i], &image_services[i], &user->services[i]) != 0)
        user->services[i] = NULL;
    return user->services[i];
}

static void serve(struct run *r)
{
    struct user *user = some_user(r);
    uint32_t i, value, what = below(r, 6);
    struct ssm_service *service = some_service(r, user, &i);
    uint64_t start = number(r, 2), bytes = 1 + number(r, 1);
    struct ssm_range_request request = {.size = bytes, .min = 0, .max = UINT64_MAX, .exact = start};
    request.align = UINT64_C(1) << below(r, 14);
    request.policy = below(r, 3);
    struct ssm_service_item items[8];
    struct ssm_service_owner owner;
    if (service == NULL)
        return;
    if (what < 2 && image_services[i].kind == SSM_SERVICE_ADDRESSES)
        (void)(what == 0 ? ssm_range_alloc(service, &request, &start)
                         : ssm_range_free(service, start, start + bytes - 1));
    else if (what < 2)
        (void)(what == 0 ? ssm_number_alloc(service, ssm_now_ns(), &value)
                         : ssm_number_free(service, (uint32_t)start, ssm_now_ns()));
    else if (what == 2)
        (void)ssm_number_is_allocated(service, (uint32_t)start);
    else if (what == 3)
        for (int64_t k = ssm_service_list(service, 0, UINT64_MAX, items, 8); k > 0; k--)
            (void)ssm_service_owner(service, items[(k - 1) % 8].owner, &owner);
    else if (what == 4)
        (void)ssm_service_owner(service, (uint32_t)start << 12 | (uint32_t)bytes, &owner);
}

/* What is allocated, by the list itself, goes back. */
static void serve_all(struct run *r)
{
    struct user *user = some_user(r);
    struct ssm_service_item items[16];
    uint32_t i;
    struct ssm_service *service = some_service(r, user, &i);
    int64_t count = service != NULL ? ssm_service_list(service, 0, UINT64_MAX, items, 16) : 0;
    for (int64_t k = 0; k < count && k < 16; k++)
        if (items[k].allocated && image_services[i].kind == SSM_SERVICE_ADDRESSES)
            (void)ssm_range_free(service, items[k].start, items[k].end);
        else if (items[k].allocated)
            (void)ssm_number_free(service, (uint32_t)items[k].start, ssm_now_ns());
}

static void create_service(struct run *r)
{
    struct user *user = some_user(r);
    struct ssm_service *service;
    char name[3] = {'n', (char)('a' + below(r, 4)), 0};
    struct ssm_service_options how = {.kind = SSM_SERVICE_IDS, .first = 1, .last = 1 + number(r, 2)};
    how.flags = below(r, 2);
    if (user->pool != NULL && !r->cut && ssm_service_open(user->pool, name, &how, &service) == 0)
        ssm_service_close(service);
}

/* ---- looking in, and recovery ---------------------------------------------------------------------------------------- */

static void say_nothing(void *context, const char *sentence)
{
    *(uint32_t *)context += (uint32_t)strlen(sentence);
}

static void check(struct run *r)
{
    struct user *user = some_user(r);
    uint32_t said = 0;
    if (user->pool != NULL)
        (void)ssm_check(user->pool, say_nothing, &said);
}

static void reap(struct run *r)
{
    struct user *user = some_user(r);
    struct ssm_reaped reaped;
    if (user->pool != NULL)
        (void)ssm_reap(user->pool, &reaped);
}

static void look_at_all(struct ssm_pool *pool)
{
    static struct ssm_holder_info holders[SSM_HOLDER_MAX];
    static struct ssm_usage usage[SSM_HOLDER_MAX];
    struct ssm_pool_info info;
    struct ssm_shard_stats shard;
    struct ssm_class_stats class;
    struct ssm_ring_stats ring;
    struct ssm_service_stats service;
    struct ssm_arena_stats arena;
    if (ssm_pool_info(pool, &info) != 0)
        return;
    for (uint32_t c = 0; c <= info.class_count; c++) /* the last one is the arena's */
        for (uint32_t s = 0; ssm_class_stats(pool, c, &class) == 0 && s < info.shards; s++)
            (void)ssm_shard_stats(pool, c, s, &shard);
    for (uint32_t id = 0; id < info.holders; id++)
        (void)ssm_ring_stats(pool, id, &ring);
    for (uint32_t i = 0; i < SSM_SERVICE_MAX; i++)
        (void)ssm_service_stats(pool, i, &service);
    (void)ssm_arena_stats(pool, &arena);
    (void)ssm_holder_list(pool, holders, SSM_HOLDER_MAX);
    (void)ssm_usage(pool, usage, SSM_HOLDER_MAX);
}

static void look(struct run *r)
{
    struct user *user = some_user(r);
    if (user->pool != NULL)
        look_at_all(user->pool);
}

/* What others have queued, without taking it. */
static void peek(struct run *r)
{
    struct user *user = some_user(r);
    uint64_t handles[16];
    uint32_t holders[16];
    uint8_t bytes[64];
    struct ssm_peek packet;
    some_handles(r, user, handles, 1);
    if (user->pool == NULL)
        return;
    (void)ssm_packet_peek(user->pool, handles[0], bytes, sizeof bytes, &packet);
    int64_t count = ssm_packet_list(user->pool, handles, 16);
    for (int64_t i = 0; i < count && i < 16; i++) {
        (void)ssm_packet_peek(user->pool, handles[i], bytes, sizeof bytes, &packet);
        (void)ssm_packet_holders(user->pool, handles[i], holders, 16);
    }
    for (uint32_t id = 0; id < r->g->holders; id++)
        (void)ssm_ring_peek(user->pool, id, handles, 16);
}

static void wait_for_rings(struct run *r)
{
    struct user *user = some_user(r);
    struct ssm_interest interests[IMAGE_RINGS];
    uint32_t what = below(r, 4), count = 0;
    int64_t timeout_ns = below(r, 2) == 0 ? 50000000 : 0;
    for (uint32_t i = 0; i < IMAGE_RINGS; i++)
        if (user->rings[i] != NULL)
            interests[count++] = (struct ssm_interest){.ring = user->rings[i], .what = what >> i & 1};
    if (!r->cut)
        (void)ssm_wait_rings(interests, count, NULL, timeout_ns);
}

/* ---- one run ----------------------------------------------------------------------------------------------------------- */

static void (*const commands[COMMANDS])(struct run *r) = {
    [SCRIBBLE] = scribble,
    [SCRIBBLE_2] = scribble,
    [SCRIBBLE_3] = scribble,
    [PASTE] = paste,
    [FILL] = fill,
    [SIGN] = sign,
    [CUT] = cut,
    [ATTACH] = attach_some,
    [LEAVE] = leave,
    [DIE] = die,
    [RETIRE] = retire,
    [ALLOC] = alloc,
    [ALLOC_2] = alloc,
    [GIVE] = give,
    [SHAPE] = shape,
    [PUT] = put,
    [GET] = get,
    [STEER] = steer,
    [CREATE_RING] = create_ring,
    [SERVE] = serve,
    [SERVE_2] = serve,
    [SERVE_ALL] = serve_all,
    [CREATE_SERVICE] = create_service,
    [CHECK_ALL] = check,
    [REAP] = reap,
    [LOOK] = look,
    [PEEK] = peek,
    [WAIT] = wait_for_rings,
};

static void begin(struct run *r, int fd, const uint8_t *data, size_t size)
{
    sandbox_begin();
    SSM_EXPECT_DAMAGE(false); /* until the third party writes: so far the pool's invariants hold */
    *r = (struct run){.at = data, .end = data + size, .fd = fd};
    r->g = image_write(fd, (enum image_kind)below(r, IMAGE_KINDS));
    r->bytes = mmap(NULL, r->g->size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(r->bytes != MAP_FAILED);
    sandbox_call();
}

static void end(struct run *r)
{
    for (int i = 0; i < USERS; i++) {
        uint32_t said = 0;
        sandbox_call();
        attach(r, &r->users[i], 0);
        if (r->users[i].pool != NULL) {
            struct ssm_reaped reaped;
            sandbox_call();
            (void)ssm_check(r->users[i].pool, say_nothing, &said);
            sandbox_call();
            (void)ssm_reap(r->users[i].pool, &reaped);
            look_at_all(r->users[i].pool);
            sandbox_call();
            let_go(&r->users[i]);
        }
    }
    munmap(r->bytes, r->g->size_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    struct run r;
    if (fd < 0)
        fd = image_file();
    begin(&r, fd, data, size);
    for (int i = 0; i < COMMANDS_MAX && r.at < r.end; i++) {
        sandbox_call();
        commands[below(&r, COMMANDS)](&r);
    }
    end(&r);
    return 0;
}
