/* SPDX-License-Identifier: Apache-2.0
 *
 * Redelivery: who took which packet out of a ring, so that what a dead process had taken goes back to its front.
 *
 * A redelivering ring has an entry for each block of the pool, `generation << 32 | FRONT | HELD | LEAVING | owner`:
 *   0, or another generation   void: nothing is known, nothing is owed
 *   HELD | owner               taken from a slot by that process, neither freed nor handed on since
 *   FRONT                      returned: it carries the ring's bit, is in no slot, and is delivered before all slots
 *   FRONT | HELD | owner       taken as a returned one
 *   ... | HELD | LEAVING | ... its owner hands it on: with the publication of that put, the entry goes void
 * An owner is what is left of its incarnation in 17 bits, and its holder slot. An entry counts only while the block has
 * its generation, so packets that never were in such a ring cost nothing, and most entries go void by themselves.
 *
 * A delivery ends with a free or a put, or when nothing of what came out with it is left. It is no reference: a process may
 * hold the block by others (views, a second delivery, what came through an ordinary ring), and those keep the block from
 * reuse and nothing else. So the entry, and not the process's bit, says what a reaper returns. In private memory each block
 * has a count of the references that belong to its delivery, and a serial number by which the delivery is named: a
 * reference that outlived one delivery is none of the next.
 *
 * What changes an entry, each by one compare-and-swap, and what a death behind it leaves:
 *   take         void -> HELD|me, then own bit set, ring's bit cleared      still queued, until the ring's bit is gone
 *   take first   FRONT -> FRONT|HELD|me, then own bit set, ring's cleared   a reaper returns it, wherever that ended
 *   leave        HELD|me -> HELD|LEAVING|me, before the put's intent       as HELD|me, until the put is published
 *   void         HELD|me -> 0, then own bit cleared, unless other           freed, or handed on, as it would have been
 *                references of this process need it
 *   return       HELD|dead -> FRONT, then ring's bit set, then the dead's   the next reaper sets the ring's bit: the dead
 *                cleared                                                    one's is still there
 * So an entry is void before its owner's bit goes: one that is not means that the packet is on its way (or queued).
 *
 * A process that lives gives a delivery back in the same way, with the registry locked, so that no reaper is at it:
 *   give back    HELD|me -> FRONT, then ring's bit set, then own cleared    the next reaper sets the ring's bit, and the flag
 *
 * The order at the front is that in which the packets were taken: `position` is written before the entry is. */
#ifndef SSM_REDELIVERY_H
#define SSM_REDELIVERY_H

#include "attachment.h"
#include "holder_set.h"

/* This process's delivery of one block by one ring. Private memory, empty in a forked child. */
struct ssm_own_delivery {
    uint32_t serial;     /* of the call that took it out */
    uint32_t references; /* of this process, that belong to it; 0: it has ended */
};

/* Of one ring, as this process sees it. */
struct ssm_redelivery {
    struct ssm_redelivery   *next; /* the others that this process has opened */
    struct ssm_delivery     *entries;
    struct ssm_own_delivery *own;  /* one per block; NULL: a view that is only looked at */
    uint32_t                 ring_id;
};

/* This process, as entries name it. */
uint32_t ssm_redelivery_self(const struct ssm_pool *pool);

/* The view of a ring's table that this attachment keeps for good: what was taken through a ring that is closed since has to
 * become void, too. NULL: no memory. */
struct ssm_redelivery *ssm_redelivery_open(struct ssm_pool *pool, uint32_t ring_id, struct ssm_delivery *entries);
void ssm_redelivery_dispose(struct ssm_pool *pool);
void ssm_redelivery_forget(struct ssm_pool *pool); /* in a forked child: the deliveries stay the parent's */

/* ---- by whoever gets and puts ------------------------------------------------------------------------------- */

/* Of a packet that is queued in a slot; under the consumer's right. False: it is among the returned ones since. */
bool ssm_redelivery_take(const struct ssm_pool *pool, const struct ssm_redelivery *table, uint64_t handle, uint64_t position);
/* Takes the first of the returned packets. False: there is none. Looks at the whole table. *left_out: how many remain. */
bool ssm_redelivery_take_first(const struct ssm_pool *pool, const struct ssm_redelivery *table, uint64_t *handle_out,
                               uint32_t *left_out);
/* It has come back, and slots with that handle are void. After the ring's bit was seen set (D2). */
bool ssm_redelivery_is_returned(const struct ssm_redelivery *table, uint64_t handle);
/* It came back, and is there still, or was taken since. */
bool ssm_redelivery_was_returned(const struct ssm_redelivery *table, uint64_t handle);
/* Another process took it from here and has it, or had it when it died. After the ring's bit was seen clear (D4). */
bool ssm_redelivery_is_under_way(const struct ssm_pool *pool, const struct ssm_redelivery *table, uint64_t handle);
/* Returned packets in it now. */
uint32_t ssm_redelivery_count(const struct ssm_pool *pool, const struct ssm_redelivery *table);
/* Somebody dead has packets of it that no reaper has returned yet, or a reaper is about to announce some. */
bool ssm_redelivery_is_owed(const struct ssm_pool *pool, const struct ssm_redelivery *table);

/* ---- by whoever frees and hands on ----------------------------------------------------------------------------- */

/* A delivery begins: the block was taken out of the ring, by the call with that number. One that was open ends: the packet
 * was put back, and kept as well. */
void ssm_delivery_begin(struct ssm_pool *pool, const struct ssm_redelivery *table, uint32_t block_idx, uint32_t serial);
/* Where this process has the delivery of that name, or NULL: it has ended. With SSM_ANY_DELIVERY: the latest that is open. */
const struct ssm_redelivery *ssm_delivery_find(const struct ssm_pool *pool, uint32_t block_idx, uint64_t delivery);
uint64_t ssm_delivery_name(const struct ssm_redelivery *table, uint32_t block_idx);
/* One more reference belongs to the delivery, if it is open. */
void ssm_delivery_share(const struct ssm_pool *pool, uint32_t block_idx, uint64_t delivery);
/* The delivery is under way to another ring, by a put that cannot fail any more. */
void ssm_delivery_leave(const struct ssm_pool *pool, const struct ssm_redelivery *table, uint32_t block_idx);
/* The delivery ends: the ring that it came from is owed nothing. Before this process's bit goes. */
void ssm_delivery_end(struct ssm_pool *pool, const struct ssm_redelivery *table, uint32_t block_idx);
void ssm_delivery_end_all(struct ssm_pool *pool, uint32_t block_idx);
/* With the registry locked: the delivery ends, and the packet is among the returned ones, unless it was put back already.
 * This process's bit stays. True: it is among them. */
bool ssm_delivery_give_back(struct ssm_pool *pool, const struct ssm_redelivery *table, uint32_t block_idx, bool discard);
/* A reference that belongs to the delivery goes. `done`: the delivery ends; else with the last of them. */
void ssm_delivery_drop(struct ssm_pool *pool, uint32_t block_idx, uint64_t delivery, bool done);
/* The put of a process that died was published: what it put was leaving its deliveries. */
void ssm_redelivery_complete(const struct ssm_redelivery *table, uint64_t handle, uint32_t owner);

/* ---- by reapers and checkers ---------------------------------------------------------------------------------- */

/* With the registry locked, before the bits of the dead are cleared: no entry names one of them afterwards. With `discard`
 * they are void and nothing comes back. How many returned packets there are. */
uint32_t ssm_redelivery_return(struct ssm_pool *pool, const struct ssm_redelivery *table, const struct ssm_holder_set *dead,
                               bool discard);
#if SSM_ASSERTS
/* Of a table that this process has opened, between two calls: an open delivery belongs to a packet that this process has, and
 * an entry that names this process to an open delivery. */
bool ssm_redelivery_is_valid(const struct ssm_pool *pool, const struct ssm_redelivery *table);
#endif

/* What is wrong with a block's entry just now, or NULL. */
const char *ssm_redelivery_fault(const struct ssm_pool *pool, const struct ssm_redelivery *table, uint32_t block_idx);

#endif
