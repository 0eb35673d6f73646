/* SPDX-License-Identifier: Apache-2.0
 *
 * The stepper: runs a child process up to its n-th instruction, and kills it there.
 *
 * The child calls stepper_stop() twice: where the kill points begin and where they end. A trace, made once by single
 * steps, lists the address of every instruction in between; a system call is one instruction. To stop a later child
 * before its n-th instruction, a hardware breakpoint is set on one that came shortly before, counted as often as it
 * occurs, and the rest is stepped: about 10,000 kills a second on one processor, whatever n is.
 *
 * Addresses are the same in every child, because all are forked from one process. A child whose path differs (a clock
 * that was read again) is told by its address, and then stepped all the way.
 *
 * x86-64 only. One thread.
 */
#ifndef CRASH_STEPPER_H
#define CRASH_STEPPER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct trace {
    uint64_t *pcs; /* address of the n-th instruction */
    uint32_t *nth; /* it occurs for the nth time; 0: repeats in place (rep), no breakpoint there */
    uint32_t  count, room;
};

/* Called by the child: the first and the last of its kill points. */
void stepper_stop(void);

/* 0, or -errno where the kernel does not let a process trace its child. Also ties this process and its children to
 * one processor, from the first one on another one for each `turn`: handing over between two costs four times as much. */
int stepper_init(int first_cpu, uint32_t turn);

/* Forks, without fork handlers; the child runs child(context) and ends. Returns when it stands at its first stop. */
pid_t stepper_start(void (*child)(void *context), void *context);
/* Single-steps to the second stop. `before` (may be NULL) is called before each instruction, with its number.
 * False: the child died or crashed. */
bool stepper_trace(pid_t child, struct trace *trace, void (*before)(void *context, uint32_t n), void *context);
/* Its next instruction is a system call. */
bool stepper_is_at_a_call(pid_t child);
/* Before the n-th instruction of the trace; n == count: at the second stop. False: it went another way. */
bool stepper_run_to(pid_t child, const struct trace *trace, uint32_t n);
/* SIGKILL, and wait until the kernel has taken all that it had. */
void stepper_kill(pid_t child);

void stepper_trace_free(struct trace *trace);

#endif
