/* SPDX-License-Identifier: Apache-2.0
 *
 * One operation at every instruction of another one. A child runs the first operation under PTRACE_SINGLESTEP and is held
 * before its k-th instruction; meanwhile this process runs the second operation, whole; then the child goes on to its end.
 * For k = 0, 1, 2, ... until the first operation is over before k.
 *
 * Where k is reached by a breakpoint, its cost does not grow with k: the path of the first operation is recorded once, step
 * by step, and a run goes at full speed to the n-th time that it comes by the k-th address.
 *
 * Builds without optimization have five times as many instructions, and steps are slow: there, k goes by INTERLEAVE_STRIDE.
 *
 * This finds a look that is left out, which no death does: nobody dies here. What memory order adds is the models' part. */
#ifndef TESTS_INTERLEAVE_H
#define TESTS_INTERLEAVE_H

#include "steps.h"

#include <sys/prctl.h>
#include <sys/user.h>

#define INTERLEAVE_STRIDE (STEPS_WANTED ? 1u : STEPS_DEEP ? 9u : 101u)

struct interleaving {
    void (*prepare)(void *context);   /* before each k: everything as it was */
    void (*stepped)(void *context);   /* in the child */
    void (*meanwhile)(void *context); /* in this process, while the child stands still */
    void (*after)(void *context);     /* in this process, when the child is over */
};

/* The child: traced from its first stop to its second one. */
static inline pid_t interleave_start(const struct interleaving *i, void *context)
{
    int status;
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (ptrace(PTRACE_TRACEME, 0, 0, 0) != 0)
            _exit(2);
        raise(SIGSTOP);
        i->stepped(context);
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
    return pid;
}

/* False: it came to its end before. */
static inline bool interleave_step(pid_t pid, uint32_t count)
{
    int status;
    while (count-- > 0) {
        CHECK(ptrace(PTRACE_SINGLESTEP, pid, 0, 0) == 0);
        CHECK(waitpid(pid, &status, 0) == pid);
        if (!WIFSTOPPED(status)) {
            CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
            return false;
        }
    }
    return true;
}

static inline void interleave_finish(pid_t pid)
{
    int status;
    CHECK(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

#ifdef __x86_64__

enum { INTERLEAVE_MOST = 1 << 16, INT3 = 0xcc };

/* The addresses of the first operation's instructions, in their order. */
struct interleave_path {
    uint32_t  count;
    uintptr_t at[INTERLEAVE_MOST];
};

static inline uintptr_t interleave_place(pid_t pid)
{
    struct user_regs_struct regs;
    CHECK(ptrace(PTRACE_GETREGS, pid, 0, &regs) == 0);
    return regs.rip;
}

static inline void interleave_record(const struct interleaving *i, void *context, struct interleave_path *path)
{
    i->prepare(context);
    pid_t pid = interleave_start(i, context);
    path->count = 0;
    do {
        CHECK(path->count < INTERLEAVE_MOST);
        path->at[path->count++] = interleave_place(pid);
    } while (interleave_step(pid, 1));
}

/* A string instruction stands still for several steps: it is one visit. */
static inline bool interleave_arrives(const struct interleave_path *path, uint32_t k)
{
    return k == 0 || path->at[k] != path->at[k - 1];
}

/* Lets the child run until it stands before that address for the n-th time. False: it ended before. */
static inline bool interleave_run_to(pid_t pid, uintptr_t address, uint32_t visits)
{
    errno = 0;
    const long word = ptrace(PTRACE_PEEKTEXT, pid, address, 0), trap = (word & ~0xffL) | INT3;
    CHECK(errno == 0);
    for (;;) {
        struct user_regs_struct regs;
        int status;
        CHECK(ptrace(PTRACE_POKETEXT, pid, address, trap) == 0 && ptrace(PTRACE_CONT, pid, 0, 0) == 0);
        CHECK(waitpid(pid, &status, 0) == pid);
        if (!WIFSTOPPED(status))
            return false;
        CHECK(WSTOPSIG(status) == SIGTRAP && ptrace(PTRACE_GETREGS, pid, 0, &regs) == 0);
        CHECK(regs.rip == address + 1);
        regs.rip = address;
        CHECK(ptrace(PTRACE_SETREGS, pid, 0, &regs) == 0 && ptrace(PTRACE_POKETEXT, pid, address, word) == 0);
        if (--visits == 0)
            return true;
        do {
            if (!interleave_step(pid, 1))
                return false;
        } while (interleave_place(pid) == address);
    }
}

static inline bool interleave_go_to(pid_t pid, const struct interleave_path *path, uint32_t k)
{
    uint32_t first = k, visits = 0;
    while (!interleave_arrives(path, first))
        first--;
    for (uint32_t j = 0; j <= first; j++)
        visits += path->at[j] == path->at[first] && interleave_arrives(path, j);
    return interleave_run_to(pid, path->at[first], visits) && interleave_step(pid, k - first);
}

/* How many instructions the first operation has. Leaves what it leaves when nothing comes in between. */
static inline uint32_t interleave_everywhere(const struct interleaving *i, void *context)
{
    static struct interleave_path path;
    uint32_t tried = 0, reached = 0;
    interleave_record(i, context, &path);
    for (uint32_t k = 0; k < path.count; k += INTERLEAVE_STRIDE) {
        i->prepare(context);
        pid_t pid = interleave_start(i, context);
        tried++;
        if (!interleave_go_to(pid, &path, k))
            continue; /* it went another way this time, as the clock may make it */
        reached++;
        i->meanwhile(context);
        interleave_finish(pid);
        i->after(context);
    }
    CHECK(reached >= tried - tried / 16);
    i->prepare(context);
    interleave_finish(interleave_start(i, context));
    return path.count;
}

#else

/* How many instructions the first operation has. Leaves what it leaves when nothing comes in between. */
static inline uint32_t interleave_everywhere(const struct interleaving *i, void *context)
{
    for (uint32_t k = 0;; k += INTERLEAVE_STRIDE) {
        i->prepare(context);
        pid_t pid = interleave_start(i, context);
        if (!interleave_step(pid, k))
            return k;
        i->meanwhile(context);
        interleave_finish(pid);
        i->after(context);
    }
}

#endif

#endif
