/* SPDX-License-Identifier: Apache-2.0
 *
 * Pools as bytes: valid ones, to be damaged. Made once, by the core itself, and copied into the file of each run. */
#ifndef TESTS_FUZZ_IMAGE_H
#define TESTS_FUZZ_IMAGE_H

#include "layout.h"

enum image_kind {
    IMAGE_QUIET, /* rings and services with something in them; nobody attached */
    IMAGE_DEAD,  /* the same, and its process died: with packets, a cache, locks and an exclusive side */
    IMAGE_KINDS
};

/* What the images contain, by name. */
enum { IMAGE_RINGS = 3, IMAGE_SERVICES = 4 };
extern const char *const image_ring_names[IMAGE_RINGS];
extern const struct ssm_ring_options image_rings[IMAGE_RINGS];
extern const char *const image_service_names[IMAGE_SERVICES];
extern const struct ssm_service_options image_services[IMAGE_SERVICES];

/* An empty memory file. */
int image_file(void);
/* The image in the file, whatever stood there; the geometry of all of them. */
const struct ssm_geometry *image_write(int fd, enum image_kind kind);

#endif
