/* SPDX-License-Identifier: Apache-2.0
 *
 * The recorder: runs a child process once, undisturbed, and writes down every store that it makes to shared memory. Played
 * back from the beginning, the stores give the memory as it was between any two of them: what a SIGKILL leaves there.
 *
 * The memory is write-protected in the child. A store faults; the handler lets it through alone, in one single step
 * (the trap flag), sees what it has changed and protects the page again. It costs some microseconds for each store and
 * nothing for any other instruction.
 *
 * What is written by another mapping of the memory is missed: compare what a recording ends with to what is there.
 *
 * x86-64 only. One thread, and one recording at a time.
 */
#ifndef CRASH_RECORDER_H
#define CRASH_RECORDER_H

#include <stdbool.h>
#include <stdint.h>

enum { RECORDER_AREAS = 2 };

struct recorder_area {
    uint8_t *base; /* a page's */
    uint64_t bytes;
};

/* A word that a store has changed; a store that goes over several has several, one after the other. */
struct recorder_word {
    uint32_t store; /* its number, from 0 */
    uint32_t area;
    uint64_t at; /* offset, a multiple of 8 */
    uint64_t value;
};

/* Of the last run, until the next. */
struct recording {
    const struct recorder_word *words;
    const uint64_t             *pcs; /* address of the n-th store's instruction */
    uint32_t                    word_count, store_count;
};

/* Forks, without fork handlers, and waits for the end of the child, which calls recorder_begin() when the stores begin to
 * count. False: it crashed, took longer than `seconds`, or stored more than there is room for. */
bool recorder_run(struct recording *recording_out, const struct recorder_area areas[RECORDER_AREAS],
                  void (*child)(void *context), void *context, unsigned seconds);
void recorder_begin(void);

#endif
