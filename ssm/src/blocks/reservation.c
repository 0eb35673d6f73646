/* SPDX-License-Identifier: Apache-2.0
 *
 * Reservations; see reservation.h. */
#include "reservation.h"

#define SLOT_BITS    13
#define PATIENCE_US  UINT64_C(10000) /* so long a call waits without a turn */
#define TURN_US      UINT64_C(50000) /* the first one */
#define TURN_MAX_US  UINT64_C(1000000)
#define PAUSE_MAX_US UINT64_C(12800000) /* between two turns of one call */
#define GRACE_US     UINT64_C(40000)    /* for the next call to take its turn: twice the longest sleep */

_Static_assert(SSM_HOLDER_MAX < SSM_RESERVATION_SLOT, "a word names any slot");
_Static_assert(SSM_RESERVATION_SLOT == (1u << SLOT_BITS) - 1, "a word is a time and a slot");

static uint64_t word_of(uint64_t time_us, uint32_t slot_and_1)
{
    SSM_ASSERT(slot_and_1 <= SSM_RESERVATION_SLOT && time_us << SLOT_BITS >> SLOT_BITS == time_us);
    return time_us << SLOT_BITS | slot_and_1;
}

static uint64_t time_of(uint64_t word)
{
    return word >> SLOT_BITS;
}

static uint64_t now_in_us(void)
{
    return ssm_clock_ns() / 1000;
}

/* Is the turn, or the rest, not over yet? */
static bool is_on(uint64_t word, uint64_t now_us)
{
    return time_of(word) > now_us && time_of(word) - now_us <= TURN_MAX_US;
}

static bool is_gone(const struct ssm_pool *pool, uint64_t word)
{
    const uint32_t slot = (uint32_t)(word & SSM_RESERVATION_SLOT) - 1;
    return slot >= pool->geometry.holders ||
           ssm_load_acquire_u32(&ssm_holder_at(pool, slot)->kind) != SSM_HOLDER_PROCESS ||
           ssm_holder_slot_is_dead(pool, slot);
}

static bool clear(struct ssm_u64 *word, uint64_t seen)
{
    return ssm_cas_acqrel_u64(word, &seen, 0);
}

static struct ssm_reservations *of_class(const struct ssm_pool *pool, uint32_t class_idx)
{
    return &ssm_class_at(pool, class_idx)->reservations;
}

bool ssm_turn_is_anothers(const struct ssm_pool *pool, struct ssm_reservations *of, uint64_t own)
{
    const uint64_t word = ssm_load_acquire_u64(&of->turn);
    if (!(word & SSM_RESERVATION_SLOT) || word == own || !is_on(word, now_in_us()))
        return false;
    if (!is_gone(pool, word))
        return true;
    clear(&of->turn, word);
    return false;
}

bool ssm_turn_is_taken(const struct ssm_pool *pool, uint32_t class_idx)
{
    const uint64_t word = ssm_load_acquire_u64(&of_class(pool, class_idx)->turn);
    return word & SSM_RESERVATION_SLOT && is_on(word, now_in_us());
}

/* ---- the queue -------------------------------------------------------------------------------------- */

/* Takes a place that is free, or whose process is gone. A call without a place also waits, but nobody waits for it. */
static void ask(const struct ssm_pool *pool, struct ssm_reservations *of, struct ssm_claimant *claimant)
{
    claimant->entry = 0;
    for (uint32_t i = 0; i < SSM_ASKING_MAX && claimant->entry == 0; i++) {
        const uint64_t entry = word_of(claimant->asks_us, claimant->slot);
        uint64_t seen = ssm_load_acquire_u64(&of->asking[i]);
        if ((seen == 0 || is_gone(pool, seen)) && ssm_cas_acqrel_u64(&of->asking[i], &seen, entry))
            claimant->entry = entry;
    }
}

static void stop_asking(struct ssm_reservations *of, struct ssm_claimant *claimant)
{
    for (uint32_t i = 0; i < SSM_ASKING_MAX && claimant->entry != 0; i++)
        if (clear(&of->asking[i], claimant->entry))
            claimant->entry = 0;
    claimant->entry = 0;
}

/* Has no living process asked for longer? A call that pauses asks from a later time on. */
static bool is_next(const struct ssm_pool *pool, struct ssm_reservations *of, const struct ssm_claimant *claimant)
{
    if (claimant->entry == 0)
        return false;
    for (uint32_t i = 0; i < SSM_ASKING_MAX; i++) {
        const uint64_t seen = ssm_load_acquire_u64(&of->asking[i]);
        if (seen == 0 || seen >= claimant->entry)
            continue;
        if (!is_gone(pool, seen))
            return false;
        clear(&of->asking[i], seen);
    }
    return true;
}

/* ---- turns ------------------------------------------------------------------------------------------ */

static uint64_t doubled(uint64_t time_us, uint32_t times, uint64_t max_us)
{
    for (; times > 0 && time_us < max_us; times--)
        time_us *= 2;
    return time_us < max_us ? time_us : max_us;
}

/* Begins the rest, unless the turn was over and another one has begun. */
static void end_turn(struct ssm_reservations *of, struct ssm_claimant *claimant, uint64_t now_us)
{
    uint64_t word = claimant->turn, rest_us = now_us - claimant->began_us;
    SSM_ASSERT(claimant->turn != 0 && claimant->began_us <= now_us);
    claimant->turn = 0;
    ssm_cas_acqrel_u64(&of->turn, &word, word_of(now_us + (rest_us < TURN_MAX_US ? rest_us : TURN_MAX_US), 0));
}

static void end_in_vain(const struct ssm_pool *pool, struct ssm_reservations *of, struct ssm_claimant *claimant,
                        uint64_t now_us)
{
    end_turn(of, claimant, now_us);
    stop_asking(of, claimant);
    claimant->asks_us = now_us + doubled(TURN_US, claimant->turns++, PAUSE_MAX_US);
    ask(pool, of, claimant);
}

static void take_turn(const struct ssm_pool *pool, struct ssm_reservations *of, struct ssm_claimant *claimant,
                      uint64_t now_us)
{
    uint64_t word = ssm_load_acquire_u64(&of->turn);
    SSM_ASSERT(claimant->turn == 0);
    if (is_on(word, now_us) && (!(word & SSM_RESERVATION_SLOT) || !is_gone(pool, word)))
        return;
    if (!is_next(pool, of, claimant) && now_us - time_of(word) < GRACE_US)
        return;
    const uint64_t mine = word_of(now_us + doubled(TURN_US, claimant->turns, TURN_MAX_US), claimant->slot);
    if (!ssm_cas_acqrel_u64(&of->turn, &word, mine))
        return;
    claimant->turn = mine;
    claimant->began_us = now_us;
}

/* Returns when to look again: at the end of its turn, or when it may get one; not before `now_us`. */
static uint64_t next_look_us(const struct ssm_reservations *of, const struct ssm_claimant *claimant, uint64_t now_us)
{
    const uint64_t word = ssm_load_acquire_u64(&of->turn);
    if (claimant->turn != 0)
        return time_of(claimant->turn);
    if (claimant->asks_us > now_us)
        return claimant->asks_us;
    return is_on(word, now_us) ? time_of(word) : now_us + GRACE_US;
}

bool ssm_claimant_step(struct ssm_pool *pool, uint32_t class_idx, struct ssm_claimant *claimant)
{
    struct ssm_reservations *of = of_class(pool, class_idx);
    const uint64_t now_us = now_in_us();
    const bool over = claimant->turn != 0 && claimant->slot == pool->self + 1 && time_of(claimant->turn) <= now_us;
    if (claimant->slot != pool->self + 1) /* the first time, or in a forked child, where the values are its parent's */
        *claimant = (struct ssm_claimant){.slot = pool->self + 1, .asks_us = now_us + PATIENCE_US};
    if (over)
        end_in_vain(pool, of, claimant, now_us);
    else if (claimant->entry == 0)
        ask(pool, of, claimant);
    if (claimant->turn == 0 && claimant->asks_us <= now_us)
        take_turn(pool, of, claimant, now_us);
    SSM_ASSERT(claimant->entry == 0 || (claimant->entry & SSM_RESERVATION_SLOT) == claimant->slot);
    SSM_ASSERT(claimant->turn == 0 || (claimant->turn & SSM_RESERVATION_SLOT) == claimant->slot);
    claimant->look_ns = ssm_now_ns() + (next_look_us(of, claimant, now_us) - now_us) * 1000;
    return over;
}

bool ssm_claimant_end(struct ssm_pool *pool, uint32_t class_idx, struct ssm_claimant *claimant)
{
    struct ssm_reservations *of = of_class(pool, class_idx);
    const bool had_turn = claimant->turn != 0;
    if (claimant->slot != pool->self + 1)
        return false;
    stop_asking(of, claimant);
    if (had_turn)
        end_turn(of, claimant, now_in_us());
    SSM_ASSERT(claimant->entry == 0 && claimant->turn == 0);
    return had_turn;
}

bool ssm_reservations_forget(struct ssm_pool *pool, uint32_t class_idx, uint32_t slot)
{
    struct ssm_reservations *of = of_class(pool, class_idx);
    for (uint32_t i = 0; i < SSM_ASKING_MAX; i++) {
        const uint64_t seen = ssm_load_acquire_u64(&of->asking[i]);
        if ((seen & SSM_RESERVATION_SLOT) == slot + 1)
            clear(&of->asking[i], seen);
    }
    const uint64_t word = ssm_load_acquire_u64(&of->turn);
    return (word & SSM_RESERVATION_SLOT) == slot + 1 && clear(&of->turn, word);
}

uint32_t ssm_reservations_count(const struct ssm_pool *pool, uint32_t class_idx)
{
    const struct ssm_reservations *of = of_class(pool, class_idx);
    uint32_t count = 0;
    for (uint32_t i = 0; i < SSM_ASKING_MAX; i++)
        count += ssm_load_relaxed_u64(&of->asking[i]) != 0;
    return count;
}
