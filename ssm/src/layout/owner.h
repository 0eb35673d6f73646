/* SPDX-License-Identifier: Apache-2.0
 *
 * Owners: which process has a value of a service, or a delivery, in one 32-bit word. It is what has room of the incarnation of
 * its holder slot, in front of the slot. A word with fewer bits (redelivery.c) keeps the slot and has room for less. */
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
