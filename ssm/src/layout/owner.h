/* SPDX-License-Identifier: Apache-2.0
 *
 * Owners: one 32-bit word that names the process that has a value of a service, or a delivery. It has the holder slot
 * in its low bits, and above them as many bits of the slot's incarnation as fit. redelivery.c needs flags in the word,
 * and so keeps fewer bits of the incarnation. */
#ifndef SSM_OWNER_H
#define SSM_OWNER_H

#include "holder_set.h"

#define SSM_OWNER_SLOT_BITS 12u

_Static_assert(SSM_HOLDER_MAX <= UINT32_C(1) << SSM_OWNER_SLOT_BITS, "an owner names any holder slot");

static inline uint32_t ssm_owner_of(uint32_t incarnation, uint32_t slot)
{
    return incarnation << SSM_OWNER_SLOT_BITS | slot;
}

static inline uint32_t ssm_owner_slot(uint32_t owner)
{
    return owner & ((UINT32_C(1) << SSM_OWNER_SLOT_BITS) - 1);
}

#endif
