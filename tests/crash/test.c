/* SPDX-License-Identifier: Apache-2.0
 *
 * One scenario under test; see test.h. */
#include "test.h"

#include "recorder.h"
#include "stepper.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define COMPLAINTS 3 /* described for each scenario; the rest is counted */

extern const char __executable_start, etext; /* the linker's: addresses alone */

bool test_is_over(const struct test *test)
{
    return test->effort->stop_at_first && table_violations(test->row) > 0;
}

void test_begin(const struct test *test)
{
    if (test->is_recorded)
        recorder_begin();
    else
        stepper_stop();
}

void test_set(struct test *test, const struct state *state)
{
    *test->world.note = state->note;
    world_restore(&test->world, state->image);
}

struct state test_now(const struct test *test)
{
    struct state state = {.image = malloc(world_size(&test->world)), .note = *test->world.note};
    if (state.image == NULL)
        abort();
    memcpy(state.image, world_segment(&test->world), world_size(&test->world));
    return state;
}

void test_describe(struct test *test, const struct place *place, enum manner manner, const char *what)
{
    uint32_t *const violations[] = {&test->row->violations, &test->row->double_violations, &test->row->stop_violations};
    if (++*violations[test->fault] > COMPLAINTS)
        return;
    uint64_t program = (uint64_t)(uintptr_t)&__executable_start;
    bool inside = place->pc >= program && place->pc < (uint64_t)(uintptr_t)&etext; /* else: a library, or the end */
    printf("VIOLATION  %s, %s: %s %u (addr2line -fipe ssm_killer %#lx); found by %s\n"
           "           %s\n",
           test->scenario->name, test->world.wide ? "wide" : "narrow", place->when, place->n,
           (unsigned long)(inside ? place->pc - program : 0), manner_names[manner], what);
    fflush(stdout);
}

/* ---- checking ---------------------------------------------------------------------------------------------------- */

pid_t test_start_checker(struct test *test, enum manner manner)
{
    pid_t pid = _Fork();
    if (pid != 0)
        return pid;
    alarm(CHECK_SECONDS);
    checker_run(&test->world, test->scenario, manner);
    _exit(0);
}

void test_finish_checker(struct test *test, pid_t pid, const struct place *place, enum manner manner)
{
    int status;
    char what[64];
    waitpid(pid, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return;
    bool hangs = WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM;
    snprintf(what, sizeof what, "a survivor %s", hangs ? "hangs" : "crashed");
    test_describe(test, place, manner, WIFEXITED(status) ? test->world.note->complaint : what);
}

/* Who is dead is part of it: while the rescuer lives, it has its lock. */
static uint64_t hash_of(const struct test *test, uint64_t image_hash, const struct note *note)
{
    uint64_t how_far = ssm_load_relaxed_u32(&note->stage);
    for (int ring = 0; ring < RINGS; ring++) {
        const struct visit *visit = &note->visits[ring];
        how_far = how_far << 4 |
                  (uint64_t)(visit->put_begun + 2 * visit->put_done + 4 * visit->get_begun + 8 * visit->get_done);
    }
    uint64_t hash = (image_hash ^ (how_far << 1 | (test->fault == DOUBLE_KILL))) * UINT64_C(0x9e3779b97f4a7c15);
    return (hash ^ hash >> 31) | 1;
}

/* False: it was there. */
static bool add_hash(struct test *test, uint64_t hash)
{
    uint32_t mask = test->hash_room - 1, at = (uint32_t)(hash >> 1) & mask;
    while (test->hash_room > 0 && test->hashes[at] != 0) {
        if (test->hashes[at] == hash)
            return false;
        at = (at + 1) & mask;
    }
    if (test->hash_count * 2 < test->hash_room) {
        test->hashes[at] = hash;
        test->hash_count++;
        return true;
    }
    uint64_t *before = test->hashes;
    const uint32_t room = test->hash_room;
    test->hash_room = room == 0 ? 4096 : room * 2;
    test->hash_count = 0;
    test->hashes = calloc(test->hash_room, sizeof *test->hashes);
    if (test->hashes == NULL)
        abort();
    for (uint32_t i = 0; i < room; i++)
        if (before[i] != 0)
            add_hash(test, before[i]);
    free(before);
    return add_hash(test, hash);
}

static void keep(struct test *test, const struct state *state)
{
    if (test->fault != KILL || test->left_count == STATES_MAX)
        return;
    test_set(test, state);
    test->left[test->left_count++] = test_now(test);
}

/* What a double fault leaves, with sets of two words: in one manner, by turns. All else in each. */
static bool is_checked(const struct test *test, enum manner manner)
{
    const bool by_turns = test->fault == DOUBLE_KILL && test->world.wide;
    return !by_turns || manner == test->row->double_states % LOOK;
}

bool test_check(struct test *test, const struct state *state, uint64_t image_hash, const struct place *place)
{
    if (!add_hash(test, hash_of(test, image_hash, &state->note)))
        return false;
    *(test->fault == DOUBLE_KILL ? &test->row->double_states : &test->row->states) += 1;
    for (enum manner manner = GO_ON; manner < BLOCKED; manner++) {
        if (!is_checked(test, manner))
            continue;
        test_set(test, state);
        test_finish_checker(test, test_start_checker(test, manner), place, manner);
    }
    keep(test, state);
    return true;
}

/* ---- recording --------------------------------------------------------------------------------------------------- */

/* The state, brought forward by one store; returns how many words that were. */
static uint32_t play_back(const struct test *test, const struct recorder_word *words, uint32_t count,
                          struct state *state, uint64_t *hash)
{
    uint32_t i = 0;
    for (; i < count && words[i].store == words[0].store; i++) {
        uint8_t *memory = words[i].area == 0 ? state->image : (uint8_t *)&state->note;
        uint64_t before;
        memcpy(&before, memory + words[i].at, sizeof before);
        memcpy(memory + words[i].at, &words[i].value, sizeof before);
        if (words[i].area == 0)
            *hash += world_hash_word(&test->world, words[i].at, words[i].value) -
                     world_hash_word(&test->world, words[i].at, before);
    }
    return i;
}

static void check_recording(struct test *test, const struct recording *recording, struct state *state, const char *when)
{
    uint64_t hash = world_hash(&test->world, state->image);
    test_check(test, state, hash, &(struct place){.when = when});
    for (uint32_t i = 0; i < recording->word_count && !test_is_over(test);) {
        const uint32_t store = recording->words[i].store;
        i += play_back(test, recording->words + i, recording->word_count - i, state, &hash);
        test_check(test, state, hash, &(struct place){store + 1, recording->pcs[store], when});
    }
}

bool test_record(struct test *test, const struct state *start, enum actor actor, void (*child)(void *context),
                 void *context, const char *when)
{
    struct recording recording;
    const uint64_t note_bytes = (sizeof *test->world.note + 4095) / 4096 * 4096;
    const struct recorder_area areas[RECORDER_AREAS] = {
        {test->world.pools[actor]->base, world_size(&test->world)},
        {(uint8_t *)test->world.note, note_bytes},
    };
    test_set(test, start);
    struct state state = test_now(test);
    test->is_recorded = true;
    const bool whole = recorder_run(&recording, areas, child, context, CHECK_SECONDS);
    test->is_recorded = false;
    struct state end = test_now(test);
    if (whole)
        check_recording(test, &recording, &state, when);
    if (whole && !test_is_over(test) && memcmp(state.image, end.image, world_size(&test->world)) != 0)
        test_describe(test, &(struct place){.when = when}, LOOK, "the recorder has missed a store");
    *(test->fault == DOUBLE_KILL ? &test->row->double_points : &test->row->points) += recording.store_count + 1;
    free(state.image);
    free(end.image);
    return whole;
}
