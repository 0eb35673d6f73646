/* SPDX-License-Identifier: Apache-2.0
 *
 * A fuse: kills this process at its n-th instruction in a stretch of code, counted from now. A timer hits the middle of a
 * call far too seldom; so the processor stops behind each instruction (the trap flag), and those of the core are counted.
 * x86-64 only. For a process with one thread: fuse.py loads it, in a child that is doomed. */
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <ucontext.h>
#include <unistd.h>

static uint64_t left, from, to;
static uint8_t handler_stack[65536];

static void on_step(int signal_number, siginfo_t *info, void *context)
{
    const ucontext_t *registers = context;
    const uint64_t at = (uint64_t)registers->uc_mcontext.gregs[REG_RIP];
    (void)signal_number, (void)info;
    if (at >= from && at < to && --left == 0)
        kill(getpid(), SIGKILL);
}

/* n > 0: before that instruction at an address from `start` on, and before `end`. */
__attribute__((visibility("default"))) void fuse_light(uint64_t n, uint64_t start, uint64_t end);
void fuse_light(uint64_t n, uint64_t start, uint64_t end)
{
    const stack_t stack = {.ss_sp = handler_stack, .ss_size = sizeof handler_stack};
    struct sigaction stepped = {.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
    stepped.sa_sigaction = on_step;
    left = n;
    from = start;
    to = end;
    if (sigaltstack(&stack, NULL) != 0 || sigaction(SIGTRAP, &stepped, NULL) != 0)
        abort();
    __asm__ volatile("lea -128(%%rsp), %%rsp\n\tpushfq\n\torq $0x100, (%%rsp)\n\tpopfq\n\tlea 128(%%rsp), %%rsp" ::: "cc", "memory");
}
