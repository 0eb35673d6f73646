/* SPDX-License-Identifier: Apache-2.0
 *
 * The four allocators. Include this, or the header of the one you need; flat.h says what they have in common.
 */
#ifndef AL_ALLOCATORS_H
#define AL_ALLOCATORS_H

#include "flat.h"
#include "id.h"
#include "pid_bitmap.h"
#include "range_tree.h"
#include "rmid.h"

#endif
