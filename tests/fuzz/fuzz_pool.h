/* SPDX-License-Identifier: Apache-2.0
 *
 * The language of the fuzzer's inputs, for whoever writes one. An argument is one byte, or two where it can be more than
 * 255; it is taken modulo its bound, so that every input means something; where the input ends, the rest is zeros. With
 * another number of commands the corpus means something else: `make fuzz-corpus` finds what is still worth keeping. */
#ifndef TESTS_FUZZ_POOL_H
#define TESTS_FUZZ_POOL_H

#include <stddef.h>
#include <stdint.h>

/* Byte 0 of an input is the image (image.h), then commands follow. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum command {
    SCRIBBLE,   /* area, log2 of the width, offset (3 bytes in the whole segment), user, small, kind of value */
    SCRIBBLE_2, /* (the frequent ones have several numbers) */
    SCRIBBLE_3,
    PASTE,  /* area, offset (2), count, bytes */
    FILL,   /* area, byte */
    SIGN,   /* the superblock's hash is made right */
    CUT,    /* size (3), grow again */
    ATTACH, /* user, 0: read-only */
    LEAVE,  /* user */
    DIE,    /* user */
    RETIRE,
    ALLOC, /* user, size, count - 1, 0: wait */
    ALLOC_2,
    GIVE,        /* user, two handles, 0: the first only */
    SHAPE,       /* user, bytes, what, handle */
    PUT,         /* user, ring, count - 1, keep, three handles, 0: wait */
    GET,         /* user, ring, count - 1, 0: wait */
    STEER,       /* user, ring, what */
    CREATE_RING, /* user, name, capacity - 1 */
    SERVE,       /* user, what, service, start (2), size - 1, log2 of the alignment, policy */
    SERVE_2,
    SERVE_ALL,      /* user, service */
    CREATE_SERVICE, /* user, name, last (2), reclaim */
    CHECK_ALL,      /* user */
    REAP,           /* user */
    LOOK,           /* user */
    PEEK,           /* user, handle */
    WAIT,           /* user, what, 0: wait */
    COMMANDS
};
enum { WHOLE_SEGMENT = 13, SCRIBBLE_KINDS = 17 }; /* an area; how many kinds of values there are */

#endif
