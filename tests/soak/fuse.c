/* SPDX-License-Identifier: Apache-2.0
 *
 * A fuse: kills this process at its n-th instruction in a stretch of code, counted from now. A timer hits the middle of a
 * call far too seldom. So that code is made not executable: whoever calls into it faults, and from there to where it leaves, the
 * processor stops behind each instruction (the trap flag), which is counted. Python in between runs at its own speed.
 * x86-64 only. For a process with one thread: fuse.py loads it, in a child that is doomed. */
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define TRAP_FLAG 0x100

static uint64_t left, from, to;
static uint8_t handler_stack[65536];

static bool is_inside(const ucontext_t *registers)
{
    const uint64_t at = (uint64_t)registers->uc_mcontext.gregs[REG_RIP];
    return at >= from && at < to;
}

static void let_run(bool may)
{
    if (mprotect((void *)(uintptr_t)from, to - from, may ? PROT_READ | PROT_EXEC : PROT_READ) != 0)
        abort();
}

static void on_entry(int signal_number, siginfo_t *info, void *context)
{
    ucontext_t *registers = context;
    if (!is_inside(registers) ||
        (uint64_t)(uintptr_t)info->si_addr != (uint64_t)registers->uc_mcontext.gregs[REG_RIP]) {
        signal(signal_number, SIG_DFL); /* it happens once more, and ends the process */
        return;
    }
    let_run(true);
    registers->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
}

static void on_step(int signal_number, siginfo_t *info, void *context)
{
    ucontext_t *registers = context;
    (void)signal_number, (void)info;
    if (--left == 0)
        kill(getpid(), SIGKILL);
    if (is_inside(registers))
        return;
    let_run(false);
    registers->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
}

/* n > 0: behind that instruction of those from `start` on, and before `end`, both at the edge of a page. */
__attribute__((visibility("default"))) void fuse_light(uint64_t n, uint64_t start, uint64_t end);
void fuse_light(uint64_t n, uint64_t start, uint64_t end)
{
    const stack_t stack = {.ss_sp = handler_stack, .ss_size = sizeof handler_stack};
    struct sigaction entered = {.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART}, stepped = entered;
    entered.sa_sigaction = on_entry;
    stepped.sa_sigaction = on_step;
    left = n;
    from = start;
    to = end;
    if (sigaltstack(&stack, NULL) != 0 || sigaction(SIGSEGV, &entered, NULL) != 0 ||
        sigaction(SIGTRAP, &stepped, NULL) != 0)
        abort();
    let_run(false);
}
