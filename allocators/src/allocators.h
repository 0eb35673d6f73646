/* SPDX-License-Identifier: Apache-2.0
 *
 * The four allocators, as a C library: al_id_... (integer ids), al_tree_... (ranges of addresses), al_pid_... (small
 * numbers for processes and slots), al_rmid_... (numbers that rest). Include this, or the header of the one you need;
 * flat.h says what they have in common.
 *
 *     struct al_id ids;
 *     uint32_t     id;
 *     void        *memory = malloc(al_id_size_bytes(1024));         any memory: static, shared, of another process
 *     int          result = al_id_init(&ids, memory, al_id_size_bytes(1024), 0, 1023, 1024);
 *     if (result == AL_OK && al_id_alloc(&ids, &id) == AL_OK)
 *         al_id_free(&ids, id);
 *
 * C11 and C++17. Needs no operating system: memcpy, memset and popcount (libgcc) are all that it calls.
 */
#ifndef AL_ALLOCATORS_H
#define AL_ALLOCATORS_H

#include "flat.h"
#include "id.h"
#include "pid_bitmap.h"
#include "range_tree.h"
#include "rmid.h"

#endif
