/* SPDX-License-Identifier: Apache-2.0
 *
 * Layers: a bitmap that finds its lowest clear bit by looking at one word per layer. The id and the pid allocator
 * are built on it.
 *
 *   layer 2                        [ 0 ]                        one bit per word of layer 1: "that word is full"
 *                           ________/  \_______
 *   layer 1              [ 1...1 ]        [ 0..01 ]             one bit per word of layer 0
 *                       ___/  |  \___        |   \__
 *   layer 0       [ 1..1 ][ 1..1 ]...   [ 1..1 ][ 01101 ]       the truth: one bit per value, set = allocated
 *
 * 64 values take one layer, 4096 two, 2^18 three, 2^32 six. Bits of a layer that stand for nothing (the tail of its
 * last word) are set, so that a search never leads there.
 *
 * Process and thread safety: none, see flat.h. After a death al_layers_recover() looks at one path, not at the
 * whole bitmap.
 *
 * Invariants, verified by al_layers_check():
 *   I1  a bit of layer k+1 is set exactly when the word of layer k it stands for is all ones
 *   I2  bits that stand for nothing are set
 *   I3  head->used is the number of set bits of layer 0 that stand for a value
 *   I4  head->intent is 0
 *
 * Crash rule: the one word of layer 0 is the truth, and the operation has happened when it was stored.
 *   before `intent` is stored          nothing has happened
 *   from there to the store in layer 0 nothing has happened; recovery finds the bit as it was, clears `intent`
 *   after the store in layer 0         it has happened; recovery sets the flags above that word and `used`
 *   while recovering                   it starts from the same words again and gives the same result
 */
#ifndef AL_LAYERS_H
#define AL_LAYERS_H

#include <stdbool.h>
#include <stdint.h>

#include "flat.h"

AL_BEGIN

#define AL_LAYERS_MAX      6u /* 64^6 > 2^32 */
#define AL_LAYERS_BITS_MAX (UINT64_C(1) << 32)
#define AL_FULL            UINT64_MAX

/* In the caller's memory, in front of the words. */
struct al_layers_head {
    uint64_t used;        /* set bits of layer 0; exact while intent is 0 */
    uint64_t intent;      /* 0, or 1 + (bit << 1 | set): the change that is under way */
    uint64_t intent_used; /* `used` before that change */
};

/* Private view. */
struct al_layers {
    struct al_layers_head *head;
    uint64_t              *word[AL_LAYERS_MAX];
    uint64_t               word_count[AL_LAYERS_MAX];
    uint64_t               bits;
    uint32_t               layers;
};

uint64_t al_layers_word_count(uint64_t bits); /* words of all layers */
void al_layers_map(struct al_layers *l, struct al_layers_head *head, uint64_t *words, uint64_t bits);
void al_layers_clear_all(struct al_layers *l);
void al_layers_copy(struct al_layers *dst, const struct al_layers *src); /* dst has at least as many bits */
int al_layers_recover(struct al_layers *l);
void al_layers_rebuild(struct al_layers *l); /* everything but layer 0, from layer 0 */
uint64_t al_layers_check(const struct al_layers *l, al_report_fn report, void *context);

/* The lowest set bit at or above `from`, or l->bits. Looks at layer 0 only: for listing, not for allocating. */
uint64_t al_layers_next_set(const struct al_layers *l, uint64_t from);

AL_INLINE bool al_layers_is_set(const struct al_layers *l, uint64_t bit)
{
    return (l->word[0][bit / 64] >> (bit % 64) & 1) != 0;
}

/* The lowest clear bit; AL_NOT_AVAILABLE when all are set. */
AL_INLINE int al_layers_find(const struct al_layers *l, uint64_t *bit_out)
{
    uint64_t at = 0;

    for (uint32_t k = l->layers; k-- > 0;) {
        if (at >= l->word_count[k])
            return AL_CORRUPT;
        uint64_t word = l->word[k][at];
        if (word == AL_FULL)
            return k + 1 == l->layers ? AL_NOT_AVAILABLE : AL_CORRUPT;
        at = at * 64 + (uint64_t)__builtin_ctzll(~word);
    }
    if (at >= l->bits)
        return AL_CORRUPT;
    *bit_out = at;
    return AL_OK;
}

AL_INLINE int al_layers_begin(struct al_layers *l, uint64_t bit, bool set)
{
    struct al_layers_head *h = l->head;

    if (h->intent != 0)
        return AL_UNFINISHED;
    h->intent_used = h->used;
    AL_IN_ORDER();
    h->intent = 1 + (bit << 1 | (set ? 1u : 0u));
    AL_IN_ORDER();
    return AL_OK;
}

/* Set a bit that is clear. The caller has checked both that it is and that it stands for a value. */
AL_INLINE int al_layers_set(struct al_layers *l, uint64_t bit)
{
    int result = al_layers_begin(l, bit, true);

    if (result != AL_OK)
        return result;
    for (uint32_t k = 0; k < l->layers; k++, bit /= 64) {
        uint64_t word = l->word[k][bit / 64] | UINT64_C(1) << (bit % 64);
        l->word[k][bit / 64] = word; /* k == 0: the commit */
        AL_IN_ORDER();
        if (word != AL_FULL)
            break;
    }
    l->head->used++;
    AL_IN_ORDER();
    l->head->intent = 0;
    return AL_OK;
}

/* Clear a bit that is set. */
AL_INLINE int al_layers_clear(struct al_layers *l, uint64_t bit)
{
    int result = al_layers_begin(l, bit, false);

    if (result != AL_OK)
        return result;
    for (uint32_t k = 0; k < l->layers; k++, bit /= 64) {
        uint64_t word = l->word[k][bit / 64];
        l->word[k][bit / 64] = word & ~(UINT64_C(1) << (bit % 64)); /* k == 0: the commit */
        AL_IN_ORDER();
        if (word != AL_FULL)
            break;
    }
    l->head->used--;
    AL_IN_ORDER();
    l->head->intent = 0;
    return AL_OK;
}

AL_END

#endif
