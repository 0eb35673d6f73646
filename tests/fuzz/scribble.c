/* SPDX-License-Identifier: Apache-2.0
 *
 * Every field of every shared struct, written over with every kind of value, in a pool at work; then all operations by
 * two processes. Each case is an input of the fuzzer (fuzz_pool.h), run in a child of its own: the child ends by
 * itself, without a signal, in time.
 *
 *     fuzz_scribble [one of so many cases, by SEED; 1: all of them]
 */
#include "check.h"
#include "fuzz_pool.h"
#include "hosted.h"
#include "image.h"

#include <stdbool.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILD_S = 20, INPUT_MAX = 1024 };

/* ---- where the fields are ---------------------------------------------------------------------------------------- */

struct field {
    const char *name;
    uint64_t    offset, bytes;
};

/* A struct that stands `count` times in the segment, `stride` bytes apart. */
struct place {
    const char         *name;
    uint64_t            start, stride;
    uint32_t            count;
    const struct field *fields;
};

#define FIELD(type, member) {#member, offsetof(struct type, member), sizeof(((struct type *)0)->member)}
#define END                 {NULL, 0, 0}

/* clang-format off */
static const struct field superblock[] = {
    FIELD(ssm_superblock, magic), FIELD(ssm_superblock, layout_hash), FIELD(ssm_superblock, params_hash),
    FIELD(ssm_superblock, size_bytes), FIELD(ssm_superblock, generation), FIELD(ssm_superblock, metadata_bytes),
    FIELD(ssm_superblock, class_count), FIELD(ssm_superblock, shards), FIELD(ssm_superblock, headroom),
    FIELD(ssm_superblock, tailroom), FIELD(ssm_superblock, cache), FIELD(ssm_superblock, holders),
    FIELD(ssm_superblock, flags), FIELD(ssm_superblock, arena_bytes), FIELD(ssm_superblock, arena_packets), FIELD(ssm_superblock, classes[0]), FIELD(ssm_superblock, classes[1]),
    FIELD(ssm_superblock, state), FIELD(ssm_superblock, holder_high), END,
};
static const struct field holder[] = {
    FIELD(ssm_holder, kind), FIELD(ssm_holder, incarnation), FIELD(ssm_holder, pid), FIELD(ssm_holder, rmid),
    FIELD(ssm_holder, no_membarrier), FIELD(ssm_holder, waiting), FIELD(ssm_holder, ring_start), FIELD(ssm_holder, peak_bytes),
    FIELD(ssm_holder, name[0]), FIELD(ssm_holder, ring_id), END,
};
static const struct field service[] = {
    FIELD(ssm_service_shared, kind), FIELD(ssm_service_shared, flags), FIELD(ssm_service_shared, lock),
    FIELD(ssm_service_shared, start), FIELD(ssm_service_shared, bytes), FIELD(ssm_service_shared, first),
    FIELD(ssm_service_shared, last), FIELD(ssm_service_shared, ranges), FIELD(ssm_service_shared, recoveries),
    FIELD(ssm_service_shared, used), FIELD(ssm_service_shared, allocs), FIELD(ssm_service_shared, name[0]), END,
};
static const struct field class[] = {
    FIELD(ssm_class, announced), FIELD(ssm_class, turn), FIELD(ssm_class, unsettled), END,
};
static const struct field shard[] = {
    FIELD(ssm_shard, lock), FIELD(ssm_shard, free_count), FIELD(ssm_shard, recoveries), FIELD(ssm_shard, allocs),
    FIELD(ssm_shard, frees), FIELD(ssm_shard, steals), FIELD(ssm_shard, event), END,
};
static const struct field block[] = {
    FIELD(ssm_block, generation), FIELD(ssm_block, listed), FIELD(ssm_block, home), FIELD(ssm_block, moves),
    FIELD(ssm_block, start), FIELD(ssm_block, length), FIELD(ssm_block, tag), FIELD(ssm_block, holders[0]), END,
};
static const struct field arena[] = {FIELD(ssm_arena, lock), FIELD(ssm_arena, recoveries), END};
static const struct field extent[] = {FIELD(ssm_extent, start), FIELD(ssm_extent, bytes), END};
static const struct field cache[] = {
    FIELD(ssm_cache, thief), FIELD(ssm_cache, busy), FIELD(ssm_cache, count), FIELD(ssm_cache, handles[0]),
    FIELD(ssm_cache, handles[1]), END,
};
static const struct field delivery[] = {FIELD(ssm_delivery, taken), FIELD(ssm_delivery, position),
                                        FIELD(ssm_delivery, handed_out), END};
static const struct field ring[] = {
    FIELD(ssm_ring_shared, capacity), FIELD(ssm_ring_shared, flags), FIELD(ssm_ring_shared, acl),
    FIELD(ssm_ring_shared, returned), FIELD(ssm_ring_shared, redelivered), FIELD(ssm_ring_shared, producer.put_owner),
    FIELD(ssm_ring_shared, producer.lock), FIELD(ssm_ring_shared, producer.index), FIELD(ssm_ring_shared, producer.put_intent),
    FIELD(ssm_ring_shared, producer.peer), FIELD(ssm_ring_shared, producer.count), FIELD(ssm_ring_shared, producer.recoveries),
    FIELD(ssm_ring_shared, consumer.lock), FIELD(ssm_ring_shared, consumer.index), FIELD(ssm_ring_shared, consumer.put_intent),
    FIELD(ssm_ring_shared, consumer.peer), FIELD(ssm_ring_shared, consumer.count), FIELD(ssm_ring_shared, consumer.recoveries),
    FIELD(ssm_ring_shared, not_empty), FIELD(ssm_ring_shared, not_full), FIELD(ssm_ring_shared, slots[0]),
    FIELD(ssm_ring_shared, slots[1]), FIELD(ssm_ring_shared, slots[2]), END,
};
static const struct field rmid[] = {
    FIELD(al_rmid, magic), FIELD(al_rmid, max_rmid), FIELD(al_rmid, min_free_time_ns), FIELD(al_rmid, head),
    FIELD(al_rmid, tail), FIELD(al_rmid, state[1]), FIELD(al_rmid, freed_ns[1]), FIELD(al_rmid, ring[0]),
    FIELD(al_rmid, ring[1]), END,
};
static const struct field id[] = {
    FIELD(al_id_head, magic), FIELD(al_id_head, range_base), FIELD(al_id_head, range_end), FIELD(al_id_head, capacity),
    FIELD(al_id_head, next), FIELD(al_id_head, layers.used), FIELD(al_id_head, layers.intent),
    FIELD(al_id_head, layers.intent_used), {"layer 0", sizeof(struct al_id_head), 8}, {"layer 1", sizeof(struct al_id_head) + 32, 8},
    END,
};
static const struct field pids[] = {
    FIELD(al_pid_head, magic), FIELD(al_pid_head, order), FIELD(al_pid_head, layers.used), FIELD(al_pid_head, layers.intent),
    FIELD(al_pid_head, layers.intent_used), {"layer 0", sizeof(struct al_pid_head), 8}, {"layer 1", sizeof(struct al_pid_head) + 16, 8},
    END,
};
static const struct field tree[] = {
    FIELD(al_tree_head, magic), FIELD(al_tree_head, capacity), FIELD(al_tree_head, journal_count), FIELD(al_tree_head, top.root),
    FIELD(al_tree_head, top.spare), FIELD(al_tree_head, top.fresh), FIELD(al_tree_head, top.used),
    FIELD(al_tree_head, top.allocated), FIELD(al_tree_head, top_before.root), FIELD(al_tree_head, top_before.spare),
    FIELD(al_tree_head, tracks.shift), FIELD(al_tree_head, tracks.count), FIELD(al_tree_head, tracks.victim),
    FIELD(al_tree_head, tracks.recent), FIELD(al_tree_head, tracks.waste), END,
};
static const struct field node[] = {
    FIELD(al_tree_node, start), FIELD(al_tree_node, end), FIELD(al_tree_node, gap[0]), FIELD(al_tree_node, gap[1]),
    FIELD(al_tree_node, fit[0]), FIELD(al_tree_node, fit[1]), FIELD(al_tree_node, child[0]),
    FIELD(al_tree_node, child[1]), FIELD(al_tree_node, owner), FIELD(al_tree_node, height[0]), FIELD(al_tree_node, height[1]),
    FIELD(al_tree_node, state), END,
};
/* clang-format on */

/* ---- the program around it ------------------------------------------------------------------------------------------ */

struct program {
    uint8_t bytes[INPUT_MAX];
    size_t  size;
};

static void add(struct program *p, const uint8_t *bytes, size_t count)
{
    CHECK(p->size + count <= sizeof p->bytes);
    memcpy(p->bytes + p->size, bytes, count);
    p->size += count;
}
#define ADD(...) add(p, (const uint8_t[]){__VA_ARGS__}, sizeof (uint8_t[]){__VA_ARGS__})

/* Both have packets, rings, an exclusive side and values of services. */
static void begin(struct program *p, enum image_kind image)
{
    p->size = 0;
    ADD((uint8_t)image, ATTACH, 0, 1, ATTACH, 1, 1);
    for (uint8_t user = 0; user < 2; user++) {
        ADD(ALLOC, user, 30, 5, 1, ALLOC, user, 234, 0, 1, GIVE, user, 0, 0, 0, PUT, user, 0, 1, 0, 1, 2, 3, 1);
        for (uint8_t kind = 0; kind < (uint8_t)IMAGE_SERVICES; kind++)
            ADD(SERVE, user, 0, kind, 0, 0x20, 3, 0, 0);
    }
    ADD(PUT, 0, 1, 0, 1, 4, 4, 4, 1, GET, 1, 1, 1, 1);
}

static void add_scribble(struct program *p, uint64_t offset, unsigned log2_width, uint8_t small, uint8_t kind)
{
    ADD(SCRIBBLE, WHOLE_SEGMENT, (uint8_t)log2_width, (uint8_t)offset, (uint8_t)(offset >> 8), (uint8_t)(offset >> 16),
        1, small, kind);
}

/* Every operation there is, by both; then one dies, comes back, and all is looked at once more. */
static void work(struct program *p, uint8_t user)
{
    ADD(LOOK, user, ALLOC, user, 20, 0, 1, ALLOC, user, 200, 3, 0, ALLOC, user, 10, 7, 1, ALLOC, user, 234, 0, 1, ALLOC,
        user, 233, 1, 0, ALLOC, user, 239, 0, 1);
    for (uint8_t what = 0; what < 9; what++)
        ADD(SHAPE, user, 3, what, what % 3);
    ADD(GIVE, user, 0, 0, 0, GIVE, user, 1, 2, 1);
    for (uint8_t which = 0; which < (uint8_t)IMAGE_RINGS; which++)
        ADD(PUT, user, which, 1, 0, 3, 4, 5, 1, PUT, user, which, 0, 1, 6, 6, 6, 0, GET, user, which, 3, 1, GET, user,
            which, 7, 0);
    for (uint8_t kind = 0; kind < (uint8_t)IMAGE_SERVICES; kind++)
        ADD(SERVE, user, 0, kind, 0, 0x20, 3, 4, 1, SERVE, user, 0, kind, 0, 0x20, 3, 0, 2, SERVE, user, 1, kind, 11, 0,
            0, 0, 0, SERVE, user, 2, kind, 12, 0, 0, 0, 0, SERVE, user, 3, kind, 0, 0, 0, 0, 0, SERVE_ALL, user, kind);
    ADD(PEEK, user, 1, WAIT, user, 0, 0, WAIT, user, 3, 0, CREATE_RING, user, 0, 3, CREATE_SERVICE, user, 0, 40, 0, 1,
        CHECK_ALL, user, REAP, user);
}

static void end(struct program *p)
{
    work(p, 0);
    work(p, 1);
    ADD(STEER, 0, 0, 8, STEER, 1, 1, 9, DIE, 1, REAP, 0, ATTACH, 1, 1, GET, 1, 0, 7, 0, RETIRE);
}

/* ---- one case --------------------------------------------------------------------------------------------------------- */

static uint64_t cases, seed;
static uint32_t failures, one_of = 1;

static bool run_child(const struct program *p)
{
    int status;
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(CHILD_S);
        LLVMFuzzerTestOneInput(p->bytes, p->size);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    fprintf(stderr, "%s %d: ", WIFSIGNALED(status) ? "signal" : "exit status",
            WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    return false;
}

static void try_value(const struct place *place, uint32_t index, const struct field *field, uint8_t small, uint8_t kind,
                      bool sign)
{
    struct program program, *p = &program;
    unsigned log2_width = field->bytes >= 8 ? 3 : field->bytes == 4 ? 2 : 0;
    if (cases++ % one_of != seed % one_of)
        return;
    begin(p, (enum image_kind)(cases / one_of % IMAGE_KINDS));
    add_scribble(p, place->start + index * place->stride + field->offset, log2_width, small, kind);
    if (sign)
        ADD(SIGN, LEAVE, 1, ATTACH, 1, 1);
    end(p);
    if (run_child(p))
        return;
    fprintf(stderr, "%s %u, field %s, value %u of kind %u\n", place->name, index, field->name, small, kind);
    failures++;
}

static void try_place(const struct place *place)
{
    const uint8_t smalls[] = {0, 1, 2, 7, 31, 63, 128};
    bool sign = place->fields == superblock;
    for (uint32_t index = 0; index < place->count; index++)
        for (const struct field *field = place->fields; field->name != NULL; field++)
            for (uint8_t kind = 0; kind + 1 < SCRIBBLE_KINDS; kind++)
                for (size_t i = 0; i < sizeof smalls; i++)
                    if (i < 2 || kind == 0 || kind == 2 || kind == 10 || kind == 11) /* where it makes a difference */
                        try_value(place, index, field, smalls[i], kind, sign);
}

/* The metadata area is carved in the order of creation: the services, then the rings. */
static uint64_t carve(uint64_t *at, uint64_t bytes)
{
    uint64_t start = *at;
    *at += (bytes + SSM_NO_SHARING - 1) / SSM_NO_SHARING * SSM_NO_SHARING;
    return start;
}

static void try_all(const struct ssm_geometry *g)
{
    uint64_t at = g->metadata_start;
    uint64_t starts[IMAGE_SERVICES], rings[IMAGE_RINGS];
    for (int i = 0; i < IMAGE_SERVICES; i++)
        starts[i] = carve(&at, ssm_hosted_bytes(&image_services[i]));
    for (int i = 0; i < IMAGE_RINGS; i++)
        rings[i] = carve(&at, sizeof(struct ssm_ring_shared) + 8 * sizeof(uint64_t));
    const struct place places[] = {
        {"superblock", 0, 0, 1, superblock},
        {"holder", g->holders_start, sizeof(struct ssm_holder), 5, holder},
        {"class", g->classes_start, sizeof(struct ssm_class), 3, class},
        {"shard", g->shards_start, sizeof(struct ssm_shard), 3, shard},
        {"free list", g->classes[0].lists_start + 4 * 8, 4, 12, (const struct field[]){{"entry", 0, 4}, END}},
        {"block", g->blocks_start, g->block_bytes, 10, block},
        {"cache", g->caches_start, g->cache_bytes, 8, cache},
        {"service", g->services_start, sizeof(struct ssm_service_shared), IMAGE_SERVICES, service},
        {"ring", rings[0], rings[1] - rings[0], IMAGE_RINGS, ring},
        {"delivery", at, sizeof(struct ssm_delivery), 12, delivery}, /* behind the slots of the last ring */
        {"pool's rmids", g->rmids_start, 0, 1, rmid},
        {"pool's slots", g->slots_start, 0, 1, pids},
        {"pool's ids of rings", g->ring_ids_start, 0, 1, id},
        {"arena", g->arena_start, 0, 1, arena},
        {"extent", g->extents_start, sizeof(struct ssm_extent), 6, extent},
        {"arena's block", g->blocks_start + g->classes[2].first_block * g->block_bytes, g->block_bytes, 4, block},
        {"arena's tree", g->arena_tree_start, 0, 1, tree},
        {"arena's range", g->arena_tree_start + sizeof(struct al_tree_head), sizeof(struct al_tree_node), 6, node},
        {"ids", starts[0], 0, 1, id},
        {"pids", starts[1], 0, 1, pids},
        {"rmids", starts[2], 0, 1, rmid},
        {"addresses", starts[3], 0, 1, tree},
        {"range", starts[3] + sizeof(struct al_tree_head), sizeof(struct al_tree_node), 8, node},
        {"carver", g->carver_start, 0, 1, tree},
        {"carved range", g->carver_start + sizeof(struct al_tree_head), sizeof(struct al_tree_node), 8, node},
    };
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        try_place(&places[i]);
}

/* The table above is right only if the image is laid out as it says: then a ring and a tree are where they should be. */
static void check_places(const struct ssm_geometry *g, int fd)
{
    uint64_t at = g->metadata_start, magic = 0;
    uint32_t capacity = 0;
    for (int i = 0; i < IMAGE_SERVICES; i++) {
        uint64_t start = carve(&at, ssm_hosted_bytes(&image_services[i]));
        CHECK(pread(fd, &magic, sizeof magic, (off_t)start) == sizeof magic);
        CHECK_EQ(magic & 0xffffff, 0x006c61); /* "al\0" */
    }
    CHECK(pread(fd, &capacity, sizeof capacity, (off_t)at) == sizeof capacity);
    CHECK_EQ(capacity, image_rings[0].capacity);
}

int main(int argc, char **argv)
{
    int fd = image_file();
    check_seed();
    seed = check_random();
    if (argc > 1)
        one_of = (uint32_t)strtoul(argv[1], NULL, 10);
    CHECK(one_of > 0);
    const struct ssm_geometry *g = image_write(fd, IMAGE_QUIET);
    check_places(g, fd);
    try_all(g);
    printf("%llu of %llu cases, %u failures\n", (unsigned long long)(cases / one_of), (unsigned long long)cases,
           failures);
    return failures == 0 ? 0 : 1;
}
