/* SPDX-License-Identifier: Apache-2.0
 *
 * Death after every instruction. A child runs one operation on shared memory under PTRACE_SINGLESTEP. Each time an
 * instruction has changed the memory, a copy is what a process killed right there would leave behind: it is
 * recovered, and must be the state before the operation or the one after it, never anything else, and never the one
 * before once it was the one after. The recovery is stepped through in the same way.
 */
#ifndef TESTS_STEPS_H
#define TESTS_STEPS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

struct steps {
    size_t bytes;
    void (*operate)(void *mem, const void *argument);
    void (*recover)(void *mem);
    uint64_t (*digest)(void *mem); /* of what a user can see; checks the invariants too */
};

static inline void *steps_map(size_t bytes)
{
    void *mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(mem != MAP_FAILED);
    return mem;
}

static inline uint64_t steps_mix(uint64_t hash, uint64_t value)
{
    return (hash ^ value) * UINT64_C(0x100000001b3) + (hash >> 29);
}

/* Under a sanitizer a step costs fifty times as much: the recoveries are not stepped through then. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STEPS_DEEP false
#else
#define STEPS_DEEP true
#endif

/* Whole operations on a pool are stepped through as users run them: other builds make the same stores of the same source,
 * in five times as many steps. */
#ifdef __OPTIMIZE__
#define STEPS_WANTED STEPS_DEEP
#else
#define STEPS_WANTED false
#endif

/* Whether processes may be traced here at all. Both sides stay on one CPU from here on: steps are four times faster. */
static bool steps_possible(void)
{
    int status, cpu = sched_getcpu();
    cpu_set_t cpus;

    CPU_ZERO(&cpus);
    CPU_SET((size_t)(cpu < 0 ? 0 : cpu), &cpus);
    (void)sched_setaffinity(0, sizeof cpus, &cpus);
    pid_t pid = fork();

    CHECK(pid >= 0);
    if (pid == 0)
        _exit(ptrace(PTRACE_TRACEME, 0, 0, 0) == 0 ? 0 : 1);
    CHECK(waitpid(pid, &status, 0) == pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        puts("note: ptrace is not permitted here, death at every instruction is not tested");
        return false;
    }
    return true;
}

/* Runs run(mem, argument) in a child step by step; calls changed(context) after each step that changed mem. */
static void steps_trace(void *mem, size_t bytes, void (*run)(void *, const void *), const void *argument,
                        void (*changed)(void *), void *context)
{
    char *last = malloc(bytes);
    int status;
    CHECK(last != NULL);
    memcpy(last, mem, bytes);

    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, 0, 0) != 0)
            _exit(2);
        raise(SIGSTOP);
        run(mem, argument);
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
    for (;;) {
        CHECK(ptrace(PTRACE_SINGLESTEP, pid, 0, 0) == 0);
        CHECK(waitpid(pid, &status, 0) == pid);
        if (!WIFSTOPPED(status))
            break;
        if (memcmp(last, mem, bytes) == 0)
            continue;
        memcpy(last, mem, bytes);
        changed(context);
    }
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    free(last);
}

struct steps_case {
    const struct steps *s;
    void               *live; /* what the child works on */
    void               *left; /* copy of it at a death */
    uint64_t            before, after;
    bool                happened, deep;
    unsigned            deaths;
};

static void steps_recover(void *mem, const void *argument)
{
    ((const struct steps *)argument)->recover(mem);
}

static void steps_second_death(void *context)
{
    struct steps_case *c = context;
    void *again = malloc(c->s->bytes);

    CHECK(again != NULL);
    memcpy(again, c->left, c->s->bytes);
    c->s->recover(again);
    CHECK(c->s->digest(again) == (c->happened ? c->after : c->before));
    free(again);
    c->deaths++;
}

static void steps_death(void *context)
{
    struct steps_case *c = context;

    memcpy(c->left, c->live, c->s->bytes);
    c->s->recover(c->left);
    uint64_t now = c->s->digest(c->left);
    CHECK(now == c->before || now == c->after);
    CHECK(!c->happened || now == c->after);
    c->happened = now == c->after;
    c->deaths++;
    if (c->deep) {
        memcpy(c->left, c->live, c->s->bytes);
        steps_trace(c->left, c->s->bytes, steps_recover, c->s, steps_second_death, c);
    }
}

/* Do the operation on mem, having died in it everywhere first. deep: in every recovery as well. Gives the number of
 * deaths that were recovered from. */
static inline unsigned steps_run(const struct steps *s, void *mem, const void *argument, bool deep)
{
    struct steps_case c = {.s = s, .deep = deep && STEPS_DEEP};

    c.live = steps_map(s->bytes);
    c.left = steps_map(s->bytes);
    memcpy(c.live, mem, s->bytes);
    c.before = s->digest(mem);
    s->operate(mem, argument);
    c.after = s->digest(mem);
    steps_trace(c.live, s->bytes, s->operate, argument, steps_death, &c);
    CHECK(memcmp(c.live, mem, s->bytes) == 0);
    CHECK(c.happened || c.before == c.after);
    munmap(c.live, s->bytes);
    munmap(c.left, s->bytes);
    return c.deaths;
}

#endif
