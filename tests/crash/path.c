/* SPDX-License-Identifier: Apache-2.0
 *
 * The path of a process; see path.h. */
#include "path.h"

#include <stdlib.h>
#include <string.h>

#define TRIES 3 /* a child may go another way, where the clock has a say */

/* As memory, padding included. */
static bool differ(const void *one, const void *other, size_t size)
{
    return memcmp(one, other, size) != 0;
}

static bool has_changed(const struct path *path)
{
    const struct world *world = &path->test->world;
    return differ(path->last.image, world_segment(world), world_size(world)) ||
           differ(&path->last.note, world->note, sizeof *world->note);
}

static void make_room(struct path *path, uint32_t n)
{
    if (n + 1 < path->room)
        return;
    path->room = n * 2 + 4096;
    uint8_t *is_first = realloc(path->is_first, path->room);
    if (is_first == NULL)
        abort();
    path->is_first = is_first;
}

/* Before instruction n. A system call is a class of its own: what the kernel has changes in it. */
static void watch(void *context, uint32_t n)
{
    struct path *path = context;
    make_room(path, n);
    const bool behind_a_call = n > 0 && path->is_first[n] != 0, changed = has_changed(path);
    const bool at_a_call = stepper_is_at_a_call(path->child);
    path->is_first[n] = n == 0 || behind_a_call || changed || at_a_call;
    path->is_first[n + 1] = at_a_call;
    if (changed && path->changed != NULL)
        path->changed(path, n);
    if (changed) {
        memcpy(path->last.image, world_segment(&path->test->world), world_size(&path->test->world));
        path->last.note = *path->test->world.note;
    }
}

bool path_explore(struct path *path, struct test *test, pid_t child, void (*changed)(struct path *path, uint32_t n))
{
    *path = (struct path){.test = test, .child = child, .changed = changed, .last = test_now(test)};
    const bool whole = child > 0 && stepper_trace(child, &path->trace, watch, path);
    if (child > 0)
        stepper_kill(child);
    return whole;
}

void path_forget(struct path *path)
{
    stepper_trace_free(&path->trace);
    free(path->last.image);
    free(path->is_first);
}

bool path_is_kill_point(const struct path *path, uint32_t n)
{
    const uint32_t points = path->test->effort->points, every = path->trace.count / (points + 1) + 1;
    return path->is_first[n] || (points > 0 && n % every == 0) || n == path->trace.count;
}

struct place path_place(const struct path *path, uint32_t n, const char *when)
{
    return (struct place){n, n < path->trace.count ? path->trace.pcs[n] : 0, when};
}

uint32_t path_kill(const struct path *path, pid_t (*start)(void *context), void *context, const char *when)
{
    struct test *test = path->test;
    uint32_t kills = 0;
    for (uint32_t n = 0; n <= path->trace.count && !test_is_over(test); n++) {
        bool there = false;
        for (int try = 0; path_is_kill_point(path, n) && !there && try < TRIES; try++) {
            pid_t child = start(context);
            there = child > 0 && stepper_run_to(child, &path->trace, n);
            if (child > 0)
                stepper_kill(child);
        }
        if (!there)
            continue; /* not counted */
        kills++;
        const struct place place = path_place(path, n, when);
        struct state state = test_now(test);
        if (test_check(test, &state, world_hash(&test->world, state.image), &place))
            test->row->unforeseen += test->is_foreseen;
        free(state.image);
    }
    return kills;
}
