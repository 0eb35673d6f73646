/* SPDX-License-Identifier: Apache-2.0
 *
 * Layers: layout, recovery and check. What it is, its invariants and its crash rule stand in layers.h; the hot
 * operations are there too, so that they can be inlined.
 */
#include "layers.h"

/* The library's copies of what the header inlines. */
extern bool al_layers_is_set(const struct al_layers *l, uint64_t bit);
extern int al_layers_find(const struct al_layers *l, uint64_t *bit_out);
extern int al_layers_begin(struct al_layers *l, uint64_t bit, bool set);
extern int al_layers_set(struct al_layers *l, uint64_t bit);
extern int al_layers_clear(struct al_layers *l, uint64_t bit);

static uint64_t words_for(uint64_t bits)
{
    return (bits + 63) / 64;
}

uint64_t al_layers_word_count(uint64_t bits)
{
    uint64_t total = 0;

    do {
        bits = words_for(bits);
        total += bits;
    } while (bits > 1);
    return total;
}

void al_layers_map(struct al_layers *l, struct al_layers_head *head, uint64_t *words, uint64_t bits)
{
    *l = (struct al_layers){.head = head, .bits = bits};
    do {
        bits = words_for(bits);
        l->word[l->layers] = words;
        l->word_count[l->layers++] = bits;
        words += bits;
    } while (bits > 1);
}

/* Bits of layer k that stand for something. */
static uint64_t meaning_bits(const struct al_layers *l, uint32_t k)
{
    return k == 0 ? l->bits : l->word_count[k - 1];
}

/* The bits of layer k's last word that stand for nothing. */
static uint64_t padding(const struct al_layers *l, uint32_t k)
{
    uint64_t tail = meaning_bits(l, k) % 64;

    return tail == 0 ? 0 : AL_FULL << tail;
}

static void set_padding(struct al_layers *l)
{
    for (uint32_t k = 0; k < l->layers; k++)
        l->word[k][l->word_count[k] - 1] |= padding(l, k);
}

void al_layers_clear_all(struct al_layers *l)
{
    for (uint32_t k = 0; k < l->layers; k++)
        AL_ZERO(l->word[k], l->word_count[k] * sizeof(uint64_t));
    set_padding(l);
    *l->head = (struct al_layers_head){0};
}

void al_layers_rebuild(struct al_layers *l)
{
    uint64_t used = 0;

    for (uint32_t k = 1; k < l->layers; k++)
        AL_ZERO(l->word[k], l->word_count[k] * sizeof(uint64_t));
    set_padding(l);
    for (uint64_t i = 0; i < l->word_count[0]; i++)
        used += (uint64_t)__builtin_popcountll(l->word[0][i]);
    used -= (uint64_t)__builtin_popcountll(padding(l, 0));
    for (uint32_t k = 1; k < l->layers; k++)
        for (uint64_t i = 0; i < l->word_count[k - 1]; i++)
            if (l->word[k - 1][i] == AL_FULL)
                l->word[k][i / 64] |= UINT64_C(1) << (i % 64);
    l->head->used = used;
    l->head->intent_used = used;
    AL_IN_ORDER();
    l->head->intent = 0;
}

void al_layers_copy(struct al_layers *dst, const struct al_layers *src)
{
    uint64_t last = src->word_count[0] - 1;

    al_layers_clear_all(dst);
    AL_COPY(dst->word[0], src->word[0], last * sizeof(uint64_t));
    dst->word[0][last] |= src->word[0][last] & ~padding(src, 0);
    al_layers_rebuild(dst);
}

int al_layers_recover(struct al_layers *l)
{
    struct al_layers_head *h = l->head;
    uint64_t intent = h->intent;

    if (intent == 0)
        return AL_OK;
    bool wanted = (intent - 1) & 1;
    uint64_t bit = (intent - 1) >> 1;
    if (bit >= l->bits)
        return AL_CORRUPT;
    bool happened = al_layers_is_set(l, bit) == wanted;
    for (uint32_t k = 1; k < l->layers; k++) {
        bit /= 64;
        uint64_t flag = UINT64_C(1) << (bit % 64);
        if (l->word[k - 1][bit] == AL_FULL)
            l->word[k][bit / 64] |= flag;
        else
            l->word[k][bit / 64] &= ~flag;
    }
    h->used = h->intent_used + (happened ? wanted ? UINT64_C(1) : AL_FULL : UINT64_C(0));
    AL_IN_ORDER();
    h->intent = 0;
    return AL_OK;
}

uint64_t al_layers_next_set(const struct al_layers *l, uint64_t from)
{
    for (uint64_t i = from / 64; i < l->word_count[0]; i++) {
        uint64_t word = l->word[0][i];
        if (i == l->word_count[0] - 1)
            word &= ~padding(l, 0);
        if (i == from / 64)
            word &= AL_FULL << (from % 64);
        if (word != 0)
            return i * 64 + (uint64_t)__builtin_ctzll(word);
    }
    return l->bits;
}

uint64_t al_layers_check(const struct al_layers *l, al_report_fn report, void *context)
{
    uint64_t broken = 0, used = 0;

#define BROKEN(what, where, value) (broken++, report ? report(context, what, where, value) : (void)0)
    for (uint64_t i = 0; i < l->word_count[0]; i++)
        used += (uint64_t)__builtin_popcountll(l->word[0][i]);
    used -= (uint64_t)__builtin_popcountll(padding(l, 0));
    for (uint32_t k = 0; k < l->layers; k++) {
        uint64_t pad = padding(l, k);
        if ((l->word[k][l->word_count[k] - 1] & pad) != pad)
            BROKEN("layers I2: a bit that stands for nothing is clear in layer", k, l->word[k][l->word_count[k] - 1]);
        for (uint64_t i = 0; k > 0 && i < l->word_count[k - 1]; i++)
            if ((l->word[k][i / 64] >> (i % 64) & 1) != (l->word[k - 1][i] == AL_FULL))
                BROKEN("layers I1: the full flag of a word is wrong in layer", k, i);
    }
    if (l->head->used != used)
        BROKEN("layers I3: used is wrong (counted, noted)", used, l->head->used);
    if (l->head->intent != 0)
        BROKEN("layers I4: an operation is unfinished", l->head->intent, 0);
#undef BROKEN
    return broken;
}
