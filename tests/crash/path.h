/* SPDX-License-Identifier: Apache-2.0
 *
 * The path of one process through its instructions, and the kills along it.
 *
 * Two deaths leave the same if the segment and the note are the same before both, and no system call lies between them: a
 * register, a stack or any other private memory is gone with its process, and only a system call changes what the kernel has.
 * So the instructions of a path fall into classes; a kill is made at the first one of each. */
#ifndef CRASH_PATH_H
#define CRASH_PATH_H

#include "stepper.h"
#include "test.h"

struct path {
    struct trace trace;
    struct test *test;
    struct state last; /* before the class of the instruction that is stepped */
    pid_t        child;
    uint8_t     *is_first; /* of its class */
    uint32_t     room;
    void (*changed)(struct path *path, uint32_t n); /* may be NULL */
};

/* Steps through all. `changed`: called where the segment or the note is not what it was one instruction before. The child is
 * killed in the end. False: it died by itself. */
bool path_explore(struct path *path, struct test *test, pid_t child, void (*changed)(struct path *path, uint32_t n));
void path_forget(struct path *path);

/* A kill at the first instruction of each class, at as many others as the effort says, and behind the last; and a check of
 * what is left. start(context) starts the child anew. Returns how many kills there were. */
uint32_t path_kill(const struct path *path, pid_t (*start)(void *context), void *context, const char *when);
bool path_is_kill_point(const struct path *path, uint32_t n);
struct place path_place(const struct path *path, uint32_t n, const char *when);

#endif
