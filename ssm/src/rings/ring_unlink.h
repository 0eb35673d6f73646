/* SPDX-License-Identifier: Apache-2.0
 *
 * Which processes use a ring, and the end of a ring whose name was taken away.
 *
 * A process uses a ring while it has it open, and while it has a packet out of it that a death would return to it. Its
 * row in the table of open rings (layout.h) has the ring's bit as long. Nobody but a user, or a process with the
 * registry locked, writes into a ring's memory. A ring without a name and without users is freed, by any process that
 * has the registry locked; then its holder slot and its memory are there for others.
 *
 * unlink, with the registry locked, and what a death after each step leaves:
 *   1  kind = UNLINKED, with release                        a ring without a name. Its users go on; the last one, or
 *                                                           the next process that looks, frees it
 * free, with the registry locked, of a ring whose kind is UNLINKED:
 *   1  a fence (O2); no row has its bit                     nothing
 *   2  its bit cleared on each block; free ones settled     the next process that looks does the rest
 *   3  kind = NONE                                          slot, ring number and memory are leftovers, which are found
 *                                                           when they run short (registry_ids.h, carver.h)
 *   4  these three are freed                                nothing
 * open, of a ring that is there, without any lock:
 *   1  find the name: a holder id                           nothing
 *   2  own bit set, a fence (O1)                            a bit of a dead process, which its reaper clears
 *   3  kind is RING, and the name is still the one          the same
 *   Otherwise the ring was unlinked meanwhile, or its slot is another one's by now: the bit goes, and 1 once more.
 * close:
 *   1  the sides that this process has are given up, and    as before
 *      its bits of a ring with SSM_PEERS (ring_partner.h)
 *   2  own bit cleared                                      a ring without a user: if it has no name, the next process
 *                                                           that looks frees it
 *   3  if it has no name: free, as above
 * reap: a dead process's row is cleared after its locks are repaired and its packets returned, and before its slot is
 * freed.
 *
 * So a process that opens sets its bit and then looks at the kind. One that frees sets the kind and then looks at the
 * bits. One of them sees the other (O1, O2). A bit that is set for a moment, by an open that fails, keeps the ring: the
 * process that cleared it then tries to free it.
 *
 * fork: the child has no bits. At its first call it sets them anew, with the registry locked. A ring that was freed
 * before that is gone for it: its handle then leads to a private ring, which is shut down and empty.
 * Threads: rows, handles and tables are written while the attachment is entered. A call that sleeps outside touches the
 * ring's words only while it is entered, since another thread may close the attachment meanwhile. */
#ifndef SSM_RING_UNLINK_H
#define SSM_RING_UNLINK_H

#include "ring.h"

/* Steps 2 and 3 of opening. False: the ring of that name is not there any more. Without the registry locked, entered. */
bool ssm_ring_use(struct ssm_pool *pool, uint32_t ring_id, const char *name);
/* Step 2 alone, with the registry locked: what was found stays. */
void ssm_ring_use_locked(struct ssm_pool *pool, uint32_t ring_id);
/* Clears the own bit, unless a handle or an open delivery needs it, and frees the ring if nobody is left. Without the
 * registry locked. */
void ssm_ring_leave(struct ssm_pool *pool, uint32_t ring_id);
void ssm_ring_deliveries_done(struct ssm_pool *pool, uint32_t ring_id);
/* Adds a handle to those of the attachment, and takes it out. */
void ssm_ring_add_handle(struct ssm_ring *ring);
void ssm_ring_remove_handle(struct ssm_ring *ring);

/* Clears the own row: the attachment is closed. */
void ssm_rings_leave(struct ssm_pool *pool);
/* Clears the rows of processes that died, with the registry locked; or the own row. */
void ssm_rings_forget(struct ssm_pool *pool, const struct ssm_holder_set *gone, bool died);
/* In a forked child that has just got a slot: sets the bits of the handles that it has. Needs the registry locked. */
void ssm_rings_renew(struct ssm_pool *pool);

/* Step 1 of unlinking alone, for a reaper, which collects rings later. Needs the registry locked. */
void ssm_ring_unlink_locked(struct ssm_pool *pool, uint32_t ring_id);
/* Is there a ring without a name and without users? */
bool ssm_rings_are_left(const struct ssm_pool *pool);
/* Frees all of these; returns how many. Needs the registry locked. */
uint32_t ssm_rings_collect(struct ssm_pool *pool);

/* The processes that use the ring, those included that are dead and were not reaped. */
uint32_t ssm_ring_users(const struct ssm_pool *pool, uint32_t ring_id, struct ssm_holder_set *users_out);

/* A ring as a process sees it that does not use it, and may not even be a holder: it may be freed at any time, and its
 * memory be another ring's. What was read of it counts if it is still there afterwards. Its slots are in memory that
 * is mapped, whatever it is used for. */
struct ssm_ring_seen {
    const struct ssm_ring_shared *shared;
    uint32_t                      id, incarnation, slots;
};
/* 0; -ENOENT: no ring has that holder id; -SSM_E_CORRUPT. */
int ssm_ring_see(const struct ssm_pool *pool, uint32_t holder_id, struct ssm_ring_seen *seen_out);
bool ssm_ring_seen_is_there(const struct ssm_pool *pool, const struct ssm_ring_seen *seen);

/* Begins a look at a ring by its handle, without a call that changes the pool. False: it is not there; then nothing
 * was begun. After the look, `end` says whether what was seen was the ring's. */
bool ssm_ring_look_begin(const struct ssm_ring *ring);
bool ssm_ring_look_end(const struct ssm_ring *ring);

#endif
