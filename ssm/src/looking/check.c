/* SPDX-License-Identifier: Apache-2.0
 *
 * Checking every invariant of every structure (layout.h), on a live pool and without stopping it.
 *
 * A list is checked under its lock. Everything else is read without one, and what looks wrong is read again for some
 * time: between two stores of an operation it may be wrong for a moment. Only what stays wrong is reported. What a dead
 * process has left for the reaper is not wrong.
 */
#include "arena.h"
#include "block.h"
#include "carver.h"
#include "registry.h"
#include "registry_ids.h"
#include "ring_unlink.h"
#include "service.h"
#include "shard.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOOKS       150
#define NAP_NS      UINT64_C(2000000)
#define SHARD_TRIES 4
#define TRIES       50 /* for a lock; then its owner counts as stopped */

struct findings {
    void (*report)(void *context, const char *sentence);
    void *context;
    int   count;
    int   stopped; /* why the check goes no further, or 0 */
};

__attribute__((format(printf, 2, 3))) static void find(struct findings *findings, const char *format, ...)
{
    char sentence[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    findings->count++;
    if (findings->report != NULL)
        findings->report(findings->context, sentence);
}

/* Waits between two looks, while other threads may run. False if the check is over; then the attachment is not
 * entered. */
static bool rest(struct ssm_pool *pool, struct findings *f)
{
    ssm_pool_leave(pool);
    f->stopped = ssm_pool_nap(pool, NAP_NS);
    if (f->stopped == 0)
        f->stopped = ssm_pool_enter_reader(pool);
    return f->stopped == 0;
}

/* ---- shards: I1, I2 ------------------------------------------------------------------------------------ */

/* `seen`: for each block of the pool, the shard that lists it (index + 1), or 0. */
static void check_list(struct ssm_pool *pool, uint32_t class_idx, uint32_t shard_idx, uint8_t *seen, struct findings *f)
{
    const struct ssm_class_geometry *c = &pool->geometry.classes[class_idx];
    const struct ssm_u32 *list = ssm_list_at(pool, class_idx, shard_idx);
    uint32_t free_count = ssm_load_relaxed_u32(&ssm_shard_at(pool, class_idx, shard_idx)->free_count), home_count = 0;
    const uint32_t blocks = ssm_class_blocks_now(pool, class_idx);
    if (free_count > blocks) {
        find(f, "shard %u of class %lu: %u free blocks of %u", shard_idx, c->block_size, free_count, blocks);
        return;
    }
    for (uint32_t i = 0; i < free_count; i++) {
        uint32_t block_idx = ssm_load_relaxed_u32(&list[i]);
        if (block_idx - c->first_block >= blocks) {
            find(f, "shard %u of class %lu: its list holds block %u of another class", shard_idx, c->block_size,
                 block_idx);
            continue;
        }
        const struct ssm_block *block = ssm_block_at(pool, block_idx);
        if (seen[block_idx] == shard_idx + 1)
            find(f, "block %u: on the list of shard %u twice", block_idx, shard_idx);
        seen[block_idx] = (uint8_t)(shard_idx + 1);
        if (ssm_load_relaxed_u32(&block->listed) != 1 || ssm_load_relaxed_u32(&block->home) != shard_idx)
            find(f, "block %u: on the list of shard %u, but its descriptor says otherwise", block_idx, shard_idx);
        if (!ssm_block_is_free(pool, block))
            find(f, "block %u: on the list of shard %u, but somebody holds it", block_idx, shard_idx);
    }
    for (uint32_t i = 0; i < blocks; i++) {
        const struct ssm_block *block = ssm_block_at(pool, c->first_block + i);
        home_count += ssm_block_is_listed_at(block, shard_idx);
    }
    if (home_count != free_count)
        find(f, "shard %u of class %lu: %u blocks on its list, %u say they are", shard_idx, c->block_size, free_count,
             home_count);
}

static void check_lists(struct ssm_pool *pool, uint8_t *seen, struct findings *f)
{
    for (uint32_t class_idx = 0; class_idx < pool->geometry.class_count; class_idx++)
        for (uint32_t shard_idx = 0; shard_idx < pool->geometry.shards; shard_idx++) {
            struct ssm_shard *shard = ssm_shard_at(pool, class_idx, shard_idx);
            int look = 0;
            while (ssm_shard_lock(pool, class_idx, shard_idx, SSM_LOCK_PATIENCE_NS) != 0 && ++look < SHARD_TRIES)
                if (!rest(pool, f))
                    return;
            if (look == SHARD_TRIES)
                continue; /* its owner is stopped: there is nothing to check */
            check_list(pool, class_idx, shard_idx, seen, f);
            ssm_lock_release(&shard->lock);
        }
}

/* Work that is left for a reaper is not wrong. */
static bool anybody_is_dead(const struct ssm_pool *pool)
{
    for (uint32_t slot = 0; slot < ssm_holder_high(pool); slot++)
        if (ssm_holder_slot_is_dead(pool, slot))
            return true;
    return false;
}

/* ---- blocks: I3 to I5 ----------------------------------------------------------------------------------- */

static bool held_by_nobody(const struct ssm_pool *pool, const struct ssm_block *block)
{
    for (uint32_t w = 0; w < pool->geometry.holder_words; w++)
        for (uint64_t bits = ssm_load_acquire_u64(&block->holders[w]); bits != 0; bits &= bits - 1) {
            uint32_t id = w * 64 + (uint32_t)__builtin_ctzll(bits);
            if (id >= ssm_holder_high(pool) || ssm_load_acquire_u32(&ssm_holder_at(pool, id)->kind) == SSM_HOLDER_NONE)
                return true;
        }
    return false;
}

/* Is the block of the arena free, or claimed and not furnished yet? Then its window means nothing. */
static bool has_no_memory_yet(const struct ssm_pool *pool, uint32_t class_idx, uint32_t block_idx)
{
    return ssm_class_is_arena(pool, class_idx) && (ssm_load_relaxed_u64(&ssm_extent_at(pool, block_idx)->bytes) == 0 ||
                                                   ssm_block_is_free(pool, ssm_block_at(pool, block_idx)));
}

/* Is a process about to list the block, or every free block? It may be stopped meanwhile. */
static bool is_let_go_of(const struct ssm_pool *pool, uint32_t block_idx)
{
    uint32_t class_idx = ssm_class_of_block(pool, block_idx),
             home = ssm_load_relaxed_u32(&ssm_block_at(pool, block_idx)->home);
    if (home < pool->geometry.shards && ssm_load_acquire_u64(&ssm_shard_at(pool, class_idx, home)->lock.word) != 0)
        return true;
    for (uint32_t slot = 0; slot < ssm_holder_high(pool); slot++) {
        const struct ssm_holder *holder = ssm_holder_at(pool, slot);
        uint32_t what = ssm_load_acquire_u32(&holder->letting_go); /* F2: pairs with F1 in ssm_block_let_go() */
        if ((what == block_idx + 1 || what == SSM_LETTING_GO_ANY) &&
            ssm_load_relaxed_u32(&holder->kind) == SSM_HOLDER_PROCESS)
            return true;
    }
    return false;
}

static const char LOST[] = "lost: nobody holds it and no list has it";

/* Says what is wrong with a block at this moment, or NULL. */
static const char *fault_of(const struct ssm_pool *pool, uint32_t block_idx)
{
    const struct ssm_block *block = ssm_block_at(pool, block_idx);
    uint32_t class_idx = ssm_class_of_block(pool, block_idx);
    uint64_t start = ssm_load_relaxed_u64(&block->start), length = ssm_load_relaxed_u64(&block->length);
    uint64_t size = ssm_memory_seen(pool, class_idx, block_idx).bytes;
    bool listed = ssm_load_acquire_u32(&block->listed) != 0, free = ssm_block_is_free(pool, block); /* F2 */
    if (ssm_load_relaxed_u32(&block->home) >= pool->geometry.shards)
        return "its home is no shard";
    if ((start > size || length > size - start) && !has_no_memory_yet(pool, class_idx, block_idx))
        return "its window reaches beyond it";
    if (held_by_nobody(pool, block))
        return "held by a holder slot that nobody has";
    if (listed && !free)
        return "listed as free, but somebody holds it";
    if (!listed && free && !ssm_load_relaxed_u32(&ssm_class_at(pool, class_idx)->unsettled))
        return LOST;
    return NULL;
}

static void check_blocks(struct ssm_pool *pool, uint8_t *suspect, struct findings *f)
{
    uint32_t total = ssm_blocks_now(pool), left = total;
    memset(suspect, 1, total);
    for (int look = 0; look < LOOKS && left > 0; look++) {
        if (look > 0 && !rest(pool, f))
            return;
        left = 0;
        for (uint32_t i = 0; i < total; i++) {
            suspect[i] = suspect[i] && fault_of(pool, i) != NULL;
            left += suspect[i];
        }
    }
    const bool dead = left > 0 && anybody_is_dead(pool);
    for (uint32_t i = 0; i < total; i++) {
        bool excused = suspect[i] && (dead || is_let_go_of(pool, i)); /* the note stays until the block is listed */
        const char *fault = suspect[i] ? fault_of(pool, i) : NULL;
        if (fault != NULL && !(fault == LOST && excused))
            find(f, "block %u: %s", i, fault);
    }
}

/* ---- rings: I7, I8, I14, I18 ---------------------------------------------------------------------------------------- */

struct positions { uint64_t head, tail, put_intent, slots; };

static struct positions positions_of(const struct ssm_ring_shared *shared)
{
    return (struct positions){
        .tail = ssm_load_acquire_u64(&shared->consumer.index),
        .head = ssm_load_acquire_u64(&shared->producer.index),
        .put_intent = ssm_load_acquire_u64(&shared->producer.put_intent),
        .slots = ssm_ring_slots_now(shared, shared->capacity),
    };
}

/* Counts blocks that carry the ring's bit, but are in no slot, in no chain of such a block, and not returned. Valid if
 * the ring did not change during the scan. */
static uint32_t count_strays(struct ssm_pool *pool, uint32_t id, const struct ssm_ring_shared *shared,
                             struct positions at, uint8_t *queued)
{
    uint32_t strays = 0;
    const uint32_t total = ssm_blocks_now(pool); /* a process that adds blocks also changes a position */
    struct ssm_redelivery table;
    bool redelivers = ssm_ring_table(pool, id, &table);
    /* A process is taking a returned packet, or died doing so: the ring's bit is cleared last. */
    const bool taking = redelivers && (ssm_load_acquire_u64(&shared->consumer.lock.word) != 0 || anybody_is_dead(pool));
    memset(queued, 0, total);
    for (uint64_t i = at.tail; i != at.head; i++) {
        uint64_t handle = ssm_slot_handle(&shared->slots[i & (at.slots - 1)]);
        while ((uint32_t)handle < total && !queued[(uint32_t)handle]) {
            const struct ssm_block *block = ssm_block_at(pool, (uint32_t)handle);
            queued[(uint32_t)handle] = 1;
            handle = ssm_load_relaxed_u32(&block->generation) == handle >> 32 ? ssm_load_relaxed_u64(&block->next)
                                                                              : SSM_NO_NEXT;
        }
    }
    for (uint32_t i = 0; i < total; i++) {
        const struct ssm_block *block = ssm_block_at(pool, i);
        uint64_t handle = ssm_handle_of(ssm_load_relaxed_u32(&block->generation), i);
        bool at_front = redelivers &&
                        (taking ? ssm_redelivery_was_returned : ssm_redelivery_is_returned)(&table, handle);
        strays += ssm_block_has(block, id) && !queued[i] && !at_front;
    }
    return strays;
}

/* I18. A process claims the side and leaves it between two of these loads, or it does not. */
static void check_partner(uint32_t id, const struct ssm_side *side, const struct ssm_partner *partner,
                          const char *which, struct findings *f)
{
    if (ssm_load_acquire_u32(&partner->pid) != 0 && ssm_load_acquire_u64(&partner->gone_ns) == 0 &&
        ssm_load_acquire_u64(&side->lock.word) == 0 && ssm_load_acquire_u64(&partner->gone_ns) == 0)
        find(f, "ring %u: its %s is gone, and it is not known since when", id, which);
}

/* Is a process in one of the sets of a ring that it does not have open? It leaves the sets first. */
static bool is_in_vain(const struct ssm_pool *pool, const struct ssm_ring_seen *seen, uint32_t slot)
{
    const struct ssm_mark mark = ssm_mark_of(slot);
    for (int putters = 0; putters < 2; putters++) {
        const struct ssm_u64 *set = ssm_ring_peers(pool, seen->id, putters);
        if (set != NULL && ssm_load_acquire_u64(&set[mark.word]) & mark.bit &&
            !ssm_ring_is_opened_by(pool, slot, seen->id) && ssm_load_acquire_u64(&set[mark.word]) & mark.bit)
            return ssm_ring_seen_is_there(pool, seen);
    }
    return false;
}

/* I21 */
static void check_peers(struct ssm_pool *pool, const struct ssm_ring_seen *seen, struct findings *f)
{
    for (uint32_t slot = 0; slot < pool->geometry.holders; slot++) {
        int look = 0;
        while (is_in_vain(pool, seen, slot) && ++look < LOOKS)
            if (!rest(pool, f))
                return;
        if (look == LOOKS)
            find(f, "ring %u: holder %u may put or get, and does not have it open", seen->id, slot);
    }
}

static void check_ring(struct ssm_pool *pool, uint32_t id, uint8_t *queued, struct findings *f)
{
    struct ssm_ring_seen seen;
    const int result = ssm_ring_see(pool, id, &seen);
    if (result != 0) {
        if (result != -ENOENT)
            find(f, "ring %u: what stands in its place cannot be a ring", id);
        return;
    }
    const struct ssm_ring_shared *shared = seen.shared;
    uint32_t capacity = shared->capacity, strays = 0;
    uint64_t depth = 0, done = ssm_load_acquire_u64(&shared->done); /* before the index: it is never larger */
    const bool overdone = ssm_load_acquire_u64(&shared->producer.index) - done > INT64_MAX;
    if (overdone && ssm_ring_seen_is_there(pool, &seen))
        find(f, "ring %u: more packets were done than put", id);
    if (shared->flags & SSM_ONE_PRODUCER)
        check_partner(id, &shared->producer, &shared->last_producer, "producer", f);
    if (shared->flags & SSM_ONE_CONSUMER)
        check_partner(id, &shared->consumer, &shared->last_consumer, "consumer", f);
    if (shared->flags & SSM_PEERS)
        check_peers(pool, &seen, f);
    for (int look = 0; look < LOOKS; look++) {
        struct positions before = positions_of(shared);
        depth = before.head - before.tail;
        strays = depth <= capacity && before.slots > 0 ? count_strays(pool, id, shared, before, queued) : 0;
        struct positions after = positions_of(shared);
        bool quiet = memcmp(&before, &after, sizeof before) == 0 && before.put_intent == 0;
        if (!ssm_ring_seen_is_there(pool, &seen))
            return; /* it was freed */
        if (depth <= capacity && (strays == 0 || ssm_lock_owner_is_dead(pool, &shared->producer.lock)))
            return;
        if (!quiet)
            strays = 0; /* another process was between two steps */
        if (!rest(pool, f))
            return;
    }
    if (depth > capacity)
        find(f, "ring %u: %lu packets in %u places", id, (unsigned long)depth, capacity);
    if (strays > 0)
        find(f, "ring %u: %u blocks are the ring's, but are not queued in it", id, strays);
}

/* ---- which processes have a ring open: I20 --------------------------------------------------------------------- */

/* A process that is just opening a ring may have set the bit of a slot that is none any more. */
static bool is_open_in_vain(const struct ssm_pool *pool, uint32_t slot, uint32_t id)
{
    return ssm_ring_is_opened_by(pool, slot, id) &&
           (!ssm_holder_is_ring(pool, id) ||
            ssm_load_acquire_u32(&ssm_holder_at(pool, slot)->kind) != SSM_HOLDER_PROCESS) &&
           !ssm_holder_slot_is_dead(pool, slot);
}

/* Keeps and counts the suspects whose bits are set, and look wrong now. */
static uint32_t keep_vain(const struct ssm_pool *pool, uint32_t slot, struct ssm_holder_set *suspects)
{
    for (uint32_t id = 0; id < pool->geometry.holders; id += 64) {
        uint64_t bits = ssm_load_acquire_u64(ssm_opened_at(pool, slot, id)) & suspects->words[id / 64];
        suspects->words[id / 64] = 0;
        for (; bits != 0; bits &= bits - 1)
            if (is_open_in_vain(pool, slot, id + (uint32_t)__builtin_ctzll(bits)))
                ssm_holder_set_add(suspects, id + (uint32_t)__builtin_ctzll(bits));
    }
    return ssm_holder_set_count(suspects);
}

/* I20, of one row. All its bits are looked at together: a row that was written over has a hundred and more. */
static void check_row(struct ssm_pool *pool, uint32_t slot, struct findings *f)
{
    struct ssm_holder_set suspects = {{0}};
    memset(suspects.words, 0xff, pool->geometry.holder_words * sizeof *suspects.words);
    uint32_t left = keep_vain(pool, slot, &suspects);
    for (int look = 1; look < LOOKS && left > 0; look++) {
        if (!rest(pool, f))
            return;
        left = keep_vain(pool, slot, &suspects);
    }
    for (uint32_t id = 0; left > 0 && id < pool->geometry.holders; id++)
        if (ssm_holder_set_has(&suspects, id))
            find(f, "holder %u: it has ring %u open, which is none, or it is no process", slot, id);
}

static void check_open_rings(struct ssm_pool *pool, struct findings *f)
{
    for (uint32_t slot = 0; f->stopped == 0 && slot < ssm_holder_high(pool); slot++)
        check_row(pool, slot, f);
}

/* ---- deliveries: I10, I11 ----------------------------------------------------------------------------------- */

/* Counts the entries that looked wrong so far, and still do. */
static uint32_t keep_suspects(const struct ssm_pool *pool, const struct ssm_redelivery *table, uint8_t *suspect,
                              uint32_t total)
{
    uint32_t left = 0;
    for (uint32_t i = 0; i < total; i++) {
        suspect[i] = suspect[i] && ssm_redelivery_fault(pool, table, i) != NULL;
        left += suspect[i];
    }
    return left;
}

/* Are there returned packets that no get is looking for, and that no flag tells the next one to look for? */
static bool is_forgotten(const struct ssm_pool *pool, const struct ssm_ring_shared *shared,
                         const struct ssm_redelivery *table)
{
    return ssm_load_acquire_u32(&shared->returned) == 0 && ssm_load_acquire_u64(&shared->consumer.lock.word) == 0 &&
           ssm_redelivery_count(pool, table) > 0;
}

static void check_deliveries(struct ssm_pool *pool, uint32_t id, uint8_t *suspect, struct findings *f)
{
    struct ssm_redelivery table;
    struct ssm_ring_seen seen;
    if (ssm_ring_see(pool, id, &seen) != 0 || !ssm_ring_table(pool, id, &table) || !ssm_ring_seen_is_there(pool, &seen))
        return;
    const struct ssm_ring_shared *shared = seen.shared;
    const uint32_t total = ssm_blocks_now(pool);
    memset(suspect, 1, total);
    bool forgotten = true;
    for (int look = 0; look < LOOKS; look++) {
        if (look > 0 && !rest(pool, f))
            return;
        forgotten = forgotten && is_forgotten(pool, shared, &table);
        if ((keep_suspects(pool, &table, suspect, total) == 0 && !forgotten) || anybody_is_dead(pool) ||
            !ssm_ring_seen_is_there(pool, &seen))
            return;
    }
    for (uint32_t i = 0; i < total; i++) {
        const char *fault = suspect[i] ? ssm_redelivery_fault(pool, &table, i) : NULL;
        if (fault != NULL)
            find(f, "ring %u, block %u: %s", id, i, fault);
    }
    if (forgotten)
        find(f, "ring %u: packets were returned to it, but no get looks for them", id);
}

/* ---- the metadata area and what is in it --------------------------------------------------------------------- */

struct about {
    struct findings *findings;
    const char      *name;
};

static void tell(void *context, const char *what, uint64_t where, uint64_t value)
{
    const struct about *about = context;
    find(about->findings, "%.*s: %s (%llu, %llu)", SSM_NAME_SIZE - 1, about->name, what, (unsigned long long)where,
         (unsigned long long)value);
}

static void check_registry(struct ssm_pool *pool, struct findings *f)
{
    static const char *const numbers[SSM_REGISTRY_IDS_KINDS] = {"holder slots", "ids of rings", "RMIDs"};
    struct about about = {f, "metadata area"};
    for (int look = 0; ssm_registry_lock(pool, 0) != 0; look++)
        if (look == TRIES || !rest(pool, f))
            return;
    (void)ssm_carver_check(pool, tell, &about);
    for (int which = 0; which < SSM_REGISTRY_IDS_KINDS; which++) {
        about.name = numbers[which];
        (void)ssm_registry_ids_check(pool, (enum ssm_registry_ids)which, tell, &about);
    }
    ssm_registry_unlock(pool);
}

/* Values that nobody would ever give back. While a process joins, values of its slot's former owner are still there. */
static void check_service(struct ssm_pool *pool, uint32_t service_idx, struct findings *f)
{
    struct about about = {f, ssm_service_at(pool, service_idx)->name};
    uint64_t orphans = ssm_service_check(pool, service_idx, tell, &about) == 0 ? ssm_service_orphans(pool, service_idx)
                                                                               : 0;
    for (int look = 0; orphans > 0 && look < TRIES; look++) {
        if (!rest(pool, f))
            return;
        orphans = ssm_service_orphans(pool, service_idx);
    }
    if (orphans > 0)
        tell(&about, "values whose owners are gone, although it reclaims them", orphans, 0);
}

static void check_metadata(struct ssm_pool *pool, struct findings *f)
{
    struct about about = {f, "arena"};
    check_registry(pool, f);
    if (f->stopped == 0)
        (void)ssm_arena_check(pool, tell, &about);
    for (uint32_t i = 0; f->stopped == 0 && i < SSM_SERVICE_MAX; i++)
        check_service(pool, i, f);
}

int ssm_check(struct ssm_pool *pool, void (*report)(void *context, const char *sentence), void *context)
{
    struct findings findings = {.report = report, .context = context};
    int result = ssm_pool_enter_reader(pool);
    if (result != 0)
        return result;
    uint8_t *scratch = calloc(pool->geometry.block_total, 1);
    if (scratch == NULL) {
        ssm_pool_leave(pool);
        return -ENOMEM;
    }
    if (pool->self != SSM_NIL) /* a read-only attachment takes no locks, and checks everything else */
        check_lists(pool, scratch, &findings);
    if (findings.stopped == 0 && pool->self != SSM_NIL)
        check_metadata(pool, &findings);
    if (findings.stopped == 0)
        check_blocks(pool, scratch, &findings);
    if (findings.stopped == 0)
        check_open_rings(pool, &findings);
    for (uint32_t id = 0; findings.stopped == 0 && id < ssm_holder_high(pool); id++)
        if (ssm_holder_is_ring(pool, id)) {
            check_ring(pool, id, scratch, &findings);
            if (findings.stopped == 0)
                check_deliveries(pool, id, scratch, &findings);
        }
    free(scratch);
    if (findings.stopped != 0)
        return findings.stopped;
    ssm_pool_leave(pool);
    return findings.count;
}
