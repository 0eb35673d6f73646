/* SPDX-License-Identifier: Apache-2.0
 *
 * Shards; see shard.h. */
#include "shard.h"

#include "block.h"
#include "reservation.h"
#include "seed_bug.h"

#include <errno.h>

#define PREFETCH 8 /* descriptors ahead: another processor used them last */

struct place { uint32_t class_idx, shard_idx; };

static void prefetch_block(const struct ssm_pool *pool, uint32_t block_idx)
{
    if (block_idx < pool->geometry.block_total)
        ssm_prefetch(ssm_block_at(pool, block_idx));
}

static void push_locked(struct ssm_pool *pool, struct place at, uint32_t block_idx)
{
    struct ssm_shard *shard = ssm_shard_at(pool, at.class_idx, at.shard_idx);
    uint32_t count = ssm_load_relaxed_u32(&shard->free_count); /* only the owner of the lock writes it */
    if (count >= ssm_class_blocks_now(pool, at.class_idx))
        return; /* unless the count is damaged */
    SSM_ASSERT(ssm_class_has_block(&pool->classes[at.class_idx], block_idx));
    SSM_ASSERT_SHARED(ssm_lock_is_mine(pool, &shard->lock));
    ssm_store_release_u32(&ssm_block_at(pool, block_idx)->listed, 1);
    ssm_store_relaxed_u32(&ssm_list_at(pool, at.class_idx, at.shard_idx)[count], block_idx);
    ssm_store_release_u32(&shard->free_count, count + 1);
}

enum whereabouts { HELD, HERE, ELSEWHERE };

/* Is the block free and at home here, both at one moment? A free block on another shard's list may be claimed there and
 * given this home while its words are read. But its generation changes in between (G1), so that is read before and
 * after. */
static enum whereabouts find_block(const struct ssm_pool *pool, struct place at, const struct ssm_block *block)
{
    uint32_t generation = ssm_load_acquire_u32(&block->generation);
    if (!ssm_block_is_free(pool, block)) /* H2: pairs with H1 in ssm_block_clear() and ssm_block_remove() */
        return HELD;
    uint32_t home = ssm_load_acquire_u32(&block->home); /* H2 */
    ssm_fence_acquire(); /* G2: set and home are read before the generation is read again; pairs with G1 */
    return home == at.shard_idx && ssm_load_relaxed_u32(&block->generation) == generation ? HERE : ELSEWHERE;
}

/* Rebuilds the list from the holder sets. A block that changes meanwhile is held, or at home elsewhere; a process that
 * frees it to this shard waits for the lock. Only a broken process leaves a block that is held and listed here. */
static int rebuild(struct ssm_pool *pool, void *context)
{
    const struct place at = *(const struct place *)context;
    const struct ssm_class_geometry *c = &pool->geometry.classes[at.class_idx];
    struct ssm_shard *shard = ssm_shard_at(pool, at.class_idx, at.shard_idx);
    if (SSM_HAS_BUG(NO_REBUILD))
        return 0;
    SSM_ASSERT_SHARED(ssm_lock_is_mine(pool, &shard->lock));
    ssm_store_release_u32(&shard->free_count, 0);
    for (uint32_t i = 0, blocks = ssm_class_blocks_now(pool, at.class_idx); i < blocks; i++) {
        struct ssm_block *block = ssm_block_at(pool, c->first_block + i);
        enum whereabouts found = find_block(pool, at, block);
        if (found == HERE)
            push_locked(pool, at, c->first_block + i);
        else if (found == HELD && ssm_block_is_listed_at(block, at.shard_idx))
            ssm_store_release_u32(&block->listed, 0);
    }
    ssm_store_relaxed_u32(&shard->recoveries, ssm_load_relaxed_u32(&shard->recoveries) + 1);
    return 0;
}

#if SSM_ASSERTS
/* Compares two sets of block indices, by their number, sum and sum of squares. */
struct indices { uint64_t count, sum, squares; };

static void add_index(struct indices *indices, uint64_t block_idx)
{
    indices->count++;
    indices->sum += block_idx;
    indices->squares += block_idx * block_idx;
}

bool ssm_shard_is_valid(const struct ssm_pool *pool, uint32_t class_idx, uint32_t shard_idx)
{
    const struct ssm_class_geometry *c = &pool->geometry.classes[class_idx];
    const struct ssm_shard *shard = ssm_shard_at(pool, class_idx, shard_idx);
    const struct ssm_u32 *list = ssm_list_at(pool, class_idx, shard_idx);
    const uint32_t free_count = ssm_load_relaxed_u32(&shard->free_count);
    struct indices listed = {0}, at_home = {0};
    const uint32_t blocks = ssm_class_blocks_now(pool, class_idx);
    if (!ssm_lock_is_mine(pool, &shard->lock) || free_count > blocks)
        return false;
    if (blocks > 256)
        return true; /* at each call, this would take longer than the tests have time */
    for (uint32_t i = 0; i < free_count; i++) {
        const uint32_t block_idx = ssm_load_relaxed_u32(&list[i]);
        if (block_idx - c->first_block >= blocks || !ssm_block_is_free(pool, ssm_block_at(pool, block_idx)))
            return false;
        add_index(&listed, block_idx);
    }
    for (uint32_t i = 0; i < blocks; i++)
        if (ssm_block_is_listed_at(ssm_block_at(pool, c->first_block + i), shard_idx))
            add_index(&at_home, c->first_block + i);
    return listed.count == at_home.count && listed.sum == at_home.sum && listed.squares == at_home.squares;
}
#endif

static int lock_shard(struct ssm_pool *pool, struct place at, uint64_t patience_ns)
{
    return ssm_lock_take(pool, &ssm_shard_at(pool, at.class_idx, at.shard_idx)->lock, patience_ns, rebuild, &at);
}

int ssm_shard_lock(struct ssm_pool *pool, uint32_t class_idx, uint32_t shard_idx, uint64_t patience_ns)
{
    return lock_shard(pool, (struct place){class_idx, shard_idx}, patience_ns);
}

static void unlock_shard(struct ssm_pool *pool, struct place at)
{
    SSM_EXPENSIVE(ssm_shard_is_valid(pool, at.class_idx, at.shard_idx));
    ssm_lock_release(&ssm_shard_at(pool, at.class_idx, at.shard_idx)->lock);
}

/* May the list hold this entry? If not, a broken process wrote it. */
static bool entry_is_sound(struct ssm_pool *pool, struct place at, uint32_t block_idx)
{
    if (!ssm_class_has_block(&pool->classes[at.class_idx], block_idx) || !ssm_block_exists(pool, block_idx))
        return false;
    const struct ssm_block *block = ssm_block_at(pool, block_idx);
    return ssm_load_relaxed_u32(&block->listed) == 1 && ssm_load_relaxed_u32(&block->home) == at.shard_idx &&
           ssm_block_is_free(pool, block);
}

/* Reads up to `count` entries from the top of the list. UINT32_MAX if one of them is not sound. */
static uint32_t peek_locked(struct ssm_pool *pool, struct place at, uint32_t count, uint32_t *blocks_out)
{
    const struct ssm_u32 *list = ssm_list_at(pool, at.class_idx, at.shard_idx);
    uint32_t free_count = ssm_load_relaxed_u32(&ssm_shard_at(pool, at.class_idx, at.shard_idx)->free_count);
    if (free_count > ssm_class_blocks_now(pool, at.class_idx))
        return UINT32_MAX;
    if (count > free_count)
        count = free_count;
    for (uint32_t i = 0; i < count; i++) {
        if (i + PREFETCH < count)
            prefetch_block(pool, ssm_load_relaxed_u32(&list[free_count - 1 - i - PREFETCH]));
        blocks_out[i] = ssm_load_relaxed_u32(&list[free_count - 1 - i]);
        if (!entry_is_sound(pool, at, blocks_out[i]))
            return UINT32_MAX;
    }
    return count;
}

static void next_generation(struct ssm_block *block)
{
    ssm_store_release_u32(&block->generation, ssm_load_relaxed_u32(&block->generation) + 1);
}

/* Clears `listed` before the claim: a held block is never listed, so a reaper never takes it for settled. The
 * generation changes before the claim (G3), so that handles of former packets are void when the bit is seen. It changes
 * again between the claim and the home (G1), so that a process that saw the block free notices. */
static void claim_locked(struct ssm_pool *pool, struct ssm_block *block)
{
    SSM_ASSERT_SHARED(ssm_load_relaxed_u32(&block->listed) == 1);
    ssm_store_release_u32(&block->listed, 0);
    next_generation(block);             /* G3 -> G4 in ssm_cache_entry_counts() */
    ssm_block_claim(block, pool->self); /* G1, G3: the commit */
    next_generation(block);             /* G1 -> G2 in find_block() */
}

/* Claims all blocks, shortens the list, and then changes their home: until then they belong to this list. Returns how
 * many. A block that is listed twice is claimed once, and the list is rebuilt. */
static uint32_t unlink_locked(struct ssm_pool *pool, struct place at, const uint32_t *blocks, uint32_t wanted)
{
    struct ssm_shard *shard = ssm_shard_at(pool, at.class_idx, at.shard_idx);
    uint32_t count = 0;
    for (; count < wanted && ssm_load_relaxed_u32(&ssm_block_at(pool, blocks[count])->listed); count++)
        claim_locked(pool, ssm_block_at(pool, blocks[count]));
    SSM_ASSERT_SHARED(count <= ssm_load_relaxed_u32(&shard->free_count));
    if (count == wanted)
        ssm_store_release_u32(&shard->free_count, ssm_load_relaxed_u32(&shard->free_count) - count);
    else
        rebuild(pool, &at);
    for (uint32_t i = 0; i < count; i++)
        ssm_store_release_u32(&ssm_block_at(pool, blocks[i])->home, pool->home); /* G1, H1 */
    ssm_store_relaxed_u64(&shard->allocs, ssm_load_relaxed_u64(&shard->allocs) + count);
    if (at.shard_idx != pool->home)
        ssm_store_relaxed_u64(&shard->steals, ssm_load_relaxed_u64(&shard->steals) + count);
    return count;
}

int ssm_shard_take(struct ssm_pool *pool, uint32_t class_idx, uint32_t shard_idx, uint32_t count, uint64_t patience_ns,
                   uint32_t *blocks_out)
{
    struct place at = {class_idx, shard_idx};
    if (count == 0)
        return 0;
    int result = lock_shard(pool, at, patience_ns);
    if (result != 0)
        return result;
    uint32_t taken = peek_locked(pool, at, count, blocks_out);
    if (taken == UINT32_MAX) { /* the list is damaged; the descriptors may be sound */
        rebuild(pool, &at);
        taken = peek_locked(pool, at, count, blocks_out);
    }
    if (taken != UINT32_MAX) {
        uint32_t claimed = unlink_locked(pool, at, blocks_out, taken);
        if (claimed < taken) { /* the list was rebuilt */
            taken = peek_locked(pool, at, count - claimed, blocks_out + claimed);
            taken = claimed + (taken != UINT32_MAX ? unlink_locked(pool, at, blocks_out + claimed, taken) : 0);
        }
    }
    unlock_shard(pool, at);
    SSM_ASSERT(taken == UINT32_MAX || taken <= count);
    return taken == UINT32_MAX ? -SSM_E_CORRUPT : (int)taken;
}

/* Lists the block if it is free. Needs the lock of its home. False if its home has changed. */
static bool list_if_free_locked(struct ssm_pool *pool, struct place at, uint32_t block_idx, uint32_t *listed)
{
    struct ssm_block *block = ssm_block_at(pool, block_idx);
    SSM_ASSERT_SHARED(ssm_lock_is_mine(pool, &ssm_shard_at(pool, at.class_idx, at.shard_idx)->lock));
    enum whereabouts found = find_block(pool, at, block);
    if (found != HERE || ssm_load_relaxed_u32(&block->listed))
        return found != ELSEWHERE; /* held: its last holder will settle it */
    struct ssm_shard *shard = ssm_shard_at(pool, at.class_idx, at.shard_idx);
    if (ssm_load_relaxed_u32(&shard->free_count) >= ssm_class_blocks_now(pool, at.class_idx))
        rebuild(pool, &at); /* the list is damaged; this lists the block, too */
    else
        push_locked(pool, at, block_idx);
    ssm_store_relaxed_u64(&shard->frees, ssm_load_relaxed_u64(&shard->frees) + 1);
    ++*listed;
    return true;
}

static uint32_t home_of(const struct ssm_pool *pool, uint32_t block_idx)
{
    uint32_t home = ssm_load_acquire_u32(&ssm_block_at(pool, block_idx)->home);
    if (home < pool->geometry.shards)
        return home;
    ssm_store_release_u32(&ssm_block_at(pool, block_idx)->home, 0); /* damaged: any shard will do */
    return 0;
}

bool ssm_block_settle(struct ssm_pool *pool, uint32_t block_idx)
{
    uint32_t listed = 0;
    uint32_t class_idx = ssm_class_of_block(pool, block_idx);
    struct ssm_u32 *unsettled = &ssm_class_at(pool, class_idx)->unsettled;
    for (bool settled = false; !settled;) {
        struct place at = {class_idx, home_of(pool, block_idx)};
        /* If a lock has stayed taken just now, does not wait again: there may be many blocks to settle. */
        if (lock_shard(pool, at, ssm_load_relaxed_u32(unsettled) ? 0 : SSM_LOCK_PATIENCE_NS) != 0) {
            ssm_store_release_u32(unsettled, 1); /* U1 -> U2 in ssm_class_settle(): the block is free before */
            return false;
        }
        settled = list_if_free_locked(pool, at, block_idx, &listed);
        unlock_shard(pool, at);
    }
    if (listed != 0)
        ssm_class_signal(pool, class_idx, listed);
    return true;
}

void ssm_block_let_go(struct ssm_pool *pool, uint32_t block_idx, uint32_t holder)
{
    struct ssm_block *block = ssm_block_at(pool, block_idx);
    SSM_ASSERT(holder != pool->self || pool->claims[block_idx].references == 0);
    ssm_holder_note_letting_go(pool, block_idx + 1); /* F1 -> F2 in is_let_go_of(): before the bit goes */
    ssm_block_remove(block, holder);                 /* F1 */
    if (ssm_block_is_free(pool, block) && !ssm_block_settle(pool, block_idx)) /* or another holder will */
        ssm_class_signal(pool, ssm_class_of_block(pool, block_idx), 1);       /* a waiter may settle it */
    ssm_holder_note_letting_go(pool, 0);                                      /* F1: it is on its list */
}

bool ssm_class_settle(struct ssm_pool *pool, uint32_t class_idx)
{
    const struct ssm_class_geometry *c = &pool->geometry.classes[class_idx];
    struct ssm_u32 *unsettled = &ssm_class_at(pool, class_idx)->unsettled;
    if (ssm_load_relaxed_u32(unsettled) == 0) /* stale: seen at the next try */
        return false;
    ssm_holder_note_letting_go(pool, SSM_LETTING_GO_ANY); /* F1 */
    ssm_exchange_acqrel_u32(unsettled, 0);                /* U2: before the look; or else the reaper's audit finds it */
    for (uint32_t i = 0, blocks = ssm_class_blocks_now(pool, class_idx); i < blocks; i++) {
        const struct ssm_block *block = ssm_block_at(pool, c->first_block + i);
        if (!ssm_load_relaxed_u32(&block->listed) && ssm_block_is_free(pool, block))
            ssm_block_settle(pool, c->first_block + i);
    }
    ssm_holder_note_letting_go(pool, 0); /* F1 */
    return true;
}

/* Lists them with the lowest one on top, as in a new pool. */
void ssm_shard_add(struct ssm_pool *pool, uint32_t class_idx, uint32_t first, uint32_t end)
{
    const struct place at = {class_idx, 0};
    uint32_t listed = 0;
    if (lock_shard(pool, at, SSM_LOCK_PATIENCE_NS) == 0) {
        while (end-- > first)
            list_if_free_locked(pool, at, pool->geometry.classes[class_idx].first_block + end, &listed);
        unlock_shard(pool, at);
    } else {
        ssm_store_release_u32(&ssm_class_at(pool, class_idx)->unsettled, 1); /* U1 -> U2 in ssm_class_settle() */
    }
    if (listed != 0)
        ssm_class_signal(pool, class_idx, listed);
}

/* Gives back the blocks with this home, and moves the others to the front. Returns how many of these there are. A
 * block that this process alone holds needs no second look: with the lock of its home held, nobody else lists or
 * claims it. */
static uint32_t give_to_one_shard(struct ssm_pool *pool, struct place at, uint32_t *blocks, uint32_t count,
                                  uint32_t *listed)
{
    struct ssm_shard *shard = ssm_shard_at(pool, at.class_idx, at.shard_idx);
    uint32_t rest = 0, alone = 0, room = ssm_class_blocks_now(pool, at.class_idx);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t block_idx = blocks[i];
        struct ssm_block *block = ssm_block_at(pool, block_idx);
        if (home_of(pool, block_idx) != at.shard_idx) {
            blocks[rest++] = block_idx;
        } else if (ssm_block_is_mine(pool, block) && ssm_load_relaxed_u32(&shard->free_count) < room) {
            ssm_block_clear(block, pool->self);
            push_locked(pool, at, block_idx);
            alone++;
        } else {
            ssm_block_remove(block, pool->self);
            list_if_free_locked(pool, at, block_idx, listed); /* false: another holder moved it, and will settle it */
        }
    }
    ssm_store_relaxed_u64(&shard->frees, ssm_load_relaxed_u64(&shard->frees) + alone);
    *listed += alone;
    SSM_ASSERT(rest + alone <= count);
    return rest;
}

uint32_t ssm_shard_give(struct ssm_pool *pool, uint32_t class_idx, uint32_t *blocks, uint32_t count,
                        uint64_t patience_ns)
{
    uint32_t listed = 0, stuck = 0; /* blocks[0 .. stuck): their shard stays locked */
    for (uint32_t i = 0; i < count; i++) {
        SSM_ASSERT(ssm_class_has_block(&pool->classes[class_idx], blocks[i]));
        SSM_ASSERT_SHARED(pool->claims[blocks[i]].references == 0 &&
                          ssm_block_has(ssm_block_at(pool, blocks[i]), pool->self));
    }
    while (stuck < count) {
        struct place at = {class_idx, home_of(pool, blocks[stuck])};
        if (lock_shard(pool, at, patience_ns) != 0) {
            for (uint32_t i = stuck; i < count; i++)
                if (home_of(pool, blocks[i]) == at.shard_idx) {
                    uint32_t moved = blocks[i];
                    blocks[i] = blocks[stuck];
                    blocks[stuck++] = moved;
                }
            continue;
        }
        count = stuck + give_to_one_shard(pool, at, blocks + stuck, count - stuck, &listed);
        unlock_shard(pool, at);
    }
    if (listed != 0)
        ssm_class_signal(pool, class_idx, listed);
    return stuck;
}

int ssm_shard_recover(struct ssm_pool *pool, uint32_t class_idx, uint32_t shard_idx)
{
    struct place at = {class_idx, shard_idx};
    if (!ssm_lock_owner_is_dead(pool, &ssm_shard_at(pool, class_idx, shard_idx)->lock))
        return 0;
    if (lock_shard(pool, at, SSM_LOCK_PATIENCE_NS) == 0)
        unlock_shard(pool, at);
    return 1;
}

void ssm_class_announce(struct ssm_pool *pool, uint32_t class_idx)
{
    struct ssm_u32 *announced = &ssm_class_at(pool, class_idx)->announced;
    uint32_t seen = ssm_load_relaxed_u32(announced);
    while (!ssm_cas_acqrel_u32(announced, &seen, (seen + 2) | 1)) {}
}

/* Wakes calls that wait for one block, beginning with another shard each time. */
static uint32_t wake_for_one(struct ssm_pool *pool, uint32_t class_idx, uint32_t count)
{
    uint32_t turn = ssm_add_acqrel_u32(&ssm_class_at(pool, class_idx)->turn, 1), woken = 0;
    for (uint32_t i = 0; i < pool->geometry.shards && woken < count; i++) {
        uint32_t shard_idx = (turn + i) % pool->geometry.shards;
        woken += ssm_event_signal(&ssm_shard_at(pool, class_idx, shard_idx)->event, count - woken, pool->no_membarrier);
    }
    return woken;
}

void ssm_class_signal(struct ssm_pool *pool, uint32_t class_idx, uint32_t count)
{
    struct ssm_class *class = ssm_class_at(pool, class_idx);
    ssm_fence_light(pool->no_membarrier); /* E2: also for `announced`; pairs with E1 of a waiter's announcement */
    uint32_t announced = ssm_load_relaxed_u32(&class->announced);
    if (!(announced & 1))
        return;
    /* How much each call waits for is not known, so each of them looks. */
    uint32_t woken = ssm_event_signal(&class->several, UINT32_MAX, pool->no_membarrier);
    if (pool->geometry.arena_units > 0 && class_idx != pool->geometry.fixed_count) /* calls that spill sleep there */
        woken += ssm_event_signal(&ssm_class_at(pool, pool->geometry.fixed_count)->several, UINT32_MAX,
                                  pool->no_membarrier);
    if (ssm_turn_is_taken(pool, class_idx))
        return; /* others would step back; they are woken when the turn ends */
    woken += wake_for_one(pool, class_idx, count);
    if (woken == 0) /* nobody slept; fails if a waiter announced itself since */
        ssm_cas_acqrel_u32(&class->announced, &announced, announced & ~UINT32_C(1));
}
