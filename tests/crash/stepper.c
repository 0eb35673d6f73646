/* SPDX-License-Identifier: Apache-2.0
 *
 * The stepper; see stepper.h. */
#include "stepper.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define INSTRUCTIONS_MAX (UINT32_C(1) << 20)

/* The address of the breakpoint is the end mark: a child that is about to execute it has done its operation. */
__asm__(".text\n.globl stepper_stop\n.type stepper_stop, @function\nstepper_stop:\n\tint3\n\tret\n"
        ".size stepper_stop, .-stepper_stop\n");

static uint64_t end_mark(void)
{
    return (uint64_t)(uintptr_t)&stepper_stop;
}

static uint64_t pc_of(pid_t child)
{
    return (uint64_t)ptrace(PTRACE_PEEKUSER, child, offsetof(struct user, regs.rip), NULL);
}

bool stepper_is_at_a_call(pid_t child)
{
    errno = 0;
    const long code = ptrace(PTRACE_PEEKTEXT, child, pc_of(child), NULL);
    return (code & 0xffff) == 0x050f && errno == 0;
}

/* It stops again, and with SIGTRAP: it has not crashed. */
static bool stops(pid_t child)
{
    int status;
    return waitpid(child, &status, 0) == child && WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP;
}

static bool step(pid_t child, uint32_t count)
{
    while (count-- > 0)
        if (ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) != 0 || !stops(child))
            return false;
    return true;
}

static bool go_on(pid_t child)
{
    return ptrace(PTRACE_CONT, child, NULL, NULL) == 0 && stops(child);
}

static bool break_at(pid_t child, uint64_t pc)
{
    const size_t registers = offsetof(struct user, u_debugreg);
    return ptrace(PTRACE_POKEUSER, child, registers, pc) == 0 &&
           ptrace(PTRACE_POKEUSER, child, registers + 7 * sizeof(long), 1L) == 0; /* DR7: DR0 on, execution */
}

static void child_of_the_test(void *context)
{
    (void)context;
}

/* The `turn`-th processor after that one, of those allowed. */
static void stay_on_one_processor(int cpu, uint32_t turn)
{
    cpu_set_t allowed, one;
    if (cpu < 0 || sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return;
    for (uint32_t left = turn % (uint32_t)CPU_COUNT(&allowed); left > 0; left -= CPU_ISSET((size_t)cpu, &allowed) != 0)
        cpu = (cpu + 1) % CPU_SETSIZE;
    CPU_ZERO(&one);
    CPU_SET((size_t)cpu, &one);
    sched_setaffinity(0, sizeof one, &one);
}

int stepper_init(int first_cpu, uint32_t turn)
{
    stay_on_one_processor(first_cpu, turn);
    pid_t child = stepper_start(child_of_the_test, NULL);
    if (child < 0)
        return -errno;
    int result = break_at(child, end_mark()) && step(child, 1) ? 0 : -EPERM;
    stepper_kill(child);
    return result;
}

pid_t stepper_start(void (*child)(void *context), void *context)
{
    int status;
    pid_t pid = _Fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
            _exit(1);
        child(context);
        stepper_stop();
        _exit(0);
    }
    if (pid < 0)
        return -1;
    if (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP)
        return pid;
    if (WIFSTOPPED(status))
        stepper_kill(pid);
    errno = EPERM;
    return -1;
}

void stepper_kill(pid_t child)
{
    kill(child, SIGKILL);
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {}
}

/* ---- traces ------------------------------------------------------------------------------------------------------ */

static bool append(struct trace *trace, uint64_t pc)
{
    if (trace->count == trace->room) {
        uint32_t room = trace->room == 0 ? 4096 : trace->room * 2;
        uint64_t *pcs = room > INSTRUCTIONS_MAX ? NULL : realloc(trace->pcs, room * sizeof *pcs);
        if (pcs == NULL)
            return false;
        trace->pcs = pcs;
        trace->room = room;
    }
    trace->pcs[trace->count++] = pc;
    return true;
}

static int by_pc_then_order(const void *a, const void *b, void *context)
{
    const uint64_t *pcs = context;
    uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    if (pcs[i] != pcs[j])
        return pcs[i] < pcs[j] ? -1 : 1;
    return i < j ? -1 : i > j;
}

static bool number_occurrences(struct trace *trace)
{
    uint32_t *order = malloc((trace->count + 1) * sizeof *order), first = 0;
    trace->nth = malloc((trace->count + 1) * sizeof *trace->nth);
    if (order == NULL || trace->nth == NULL) {
        free(order);
        return false;
    }
    for (uint32_t i = 0; i < trace->count; i++)
        order[i] = i;
    qsort_r(order, trace->count, sizeof *order, by_pc_then_order, trace->pcs);
    for (uint32_t i = 0; i < trace->count; i++) {
        if (trace->pcs[order[i]] != trace->pcs[order[first]])
            first = i;
        trace->nth[order[i]] = i - first + 1;
    }
    for (uint32_t i = 0; i < trace->count; i++) /* all occurrences of an instruction that ever repeats in place */
        if (i > 0 && order[i] == order[i - 1] + 1 && trace->pcs[order[i]] == trace->pcs[order[i - 1]])
            for (uint32_t k = 0; k < trace->count; k++)
                if (trace->pcs[k] == trace->pcs[order[i]])
                    trace->nth[k] = 0;
    free(order);
    return true;
}

bool stepper_trace(pid_t child, struct trace *trace, void (*before)(void *context, uint32_t n), void *context)
{
    *trace = (struct trace){0};
    for (uint64_t pc; (pc = pc_of(child)) != end_mark();) {
        if (before != NULL)
            before(context, trace->count);
        if (!append(trace, pc) || !step(child, 1))
            return false;
    }
    if (before != NULL)
        before(context, trace->count);
    return number_occurrences(trace);
}

/* The instruction at or before n from which n is reached with the fewest stops; UINT32_MAX: step all the way. */
static uint32_t best_start(const struct trace *trace, uint32_t n)
{
    uint32_t best = UINT32_MAX, cost = n;
    for (uint32_t back = 0; back <= n && back < cost; back++) {
        uint32_t at = n - back;
        if (at == trace->count || trace->nth[at] == 0 || trace->nth[at] + back >= cost)
            continue;
        cost = trace->nth[at] + back;
        best = at;
    }
    return best;
}

bool stepper_run_to(pid_t child, const struct trace *trace, uint32_t n)
{
    uint64_t wanted = n == trace->count ? end_mark() : trace->pcs[n];
    uint32_t start = best_start(trace, n);
    if (start == UINT32_MAX)
        return step(child, n) && pc_of(child) == wanted;
    if (!break_at(child, trace->pcs[start]))
        return false;
    for (uint32_t i = 0; i < trace->nth[start]; i++)
        if (!go_on(child) || pc_of(child) != trace->pcs[start])
            return false;
    return step(child, n - start) && pc_of(child) == wanted;
}

void stepper_trace_free(struct trace *trace)
{
    free(trace->pcs);
    free(trace->nth);
    *trace = (struct trace){0};
}
