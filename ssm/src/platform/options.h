/* SPDX-License-Identifier: Apache-2.0
 *
 * The size that options begin with: what a caller may ask for that was compiled with another release of ssm.h.
 *
 * All structs of options are as they were first. When one gets another field, its functions copy what the caller has
 * into a struct of their own, with zeros behind it. */
#ifndef SSM_OPTIONS_H
#define SSM_OPTIONS_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Are these options that this release knows? `known`: sizeof of their struct. 0, -EINVAL or -E2BIG. */
static inline int ssm_options_check(const void *options, size_t known)
{
    size_t size;
    memcpy(&size, options, sizeof size);
    if (size != 0 && size < known)
        return -EINVAL;
    for (size_t i = known; i < size; i++)
        if (((const uint8_t *)options)[i] != 0)
            return -E2BIG;
    return 0;
}

#endif
