/* SPDX-License-Identifier: Apache-2.0
 *
 * One operation at every instruction of another one. A child runs the first operation under PTRACE_SINGLESTEP and is held
 * before its k-th instruction; meanwhile this process runs the second operation, whole; then the child goes on to its end.
 * For k = 0, 1, 2, ... until the first operation is over before k.
 *
 * Builds without optimization have five times as many instructions, and steps are slow: there, k goes by INTERLEAVE_STRIDE.
 *
 * This finds a look that is left out, which no death does: nobody dies here. What memory order adds is the models' part. */
#ifndef TESTS_INTERLEAVE_H
#define TESTS_INTERLEAVE_H

#include "steps.h"

#include <sys/prctl.h>

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

/* How many instructions the first operation has. */
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
