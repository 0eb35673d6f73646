/* SPDX-License-Identifier: Apache-2.0
 *
 * Redelivery: which process took which packet out of a ring, so that packets of a dead process go back to its front.
 *
 * A redelivering ring has an entry for each block of the pool, `generation << 32 | FRONT | HELD | LEAVING | owner`:
 *   0, or another generation   void: nothing is to be returned
 *   HELD | owner               that process took it from a slot, and has neither freed it nor handed it on
 *   FRONT                      returned: it carries the ring's bit, is in no slot, and is delivered before all slots
 *   FRONT | HELD | owner       that process took it as a returned packet
 *   ... | HELD | LEAVING | ... its owner hands it on: when that put is published, the entry goes void
 * An owner is a holder slot, and as much of its incarnation as fits into 17 bits. An entry counts only while the block
 * has its generation. So packets that never were in such a ring cost nothing, and most entries go void by themselves.
 *
 * A delivery ends with a free or a put, or when the last reference that belongs to it goes. It is not a reference
 * itself. A process may hold the block by other references (views, a second delivery, an ordinary ring), which keep the
 * block from reuse and do nothing else. So the entry, not the process's bit, tells a reaper what to return. In private
 * memory each block has a count of the references that belong to its delivery, and a serial number that names the
 * delivery: a reference that outlived one delivery does not belong to the next one.
 *
 * Each change of an entry is one compare-and-swap. The changes, and what a death after each leaves:
 *   take         void -> HELD|me, then own bit set, ring's bit cleared      still queued, until the ring's bit is clear
 *   take first   FRONT -> FRONT|HELD|me, then own bit set, ring's cleared   a reaper returns it, wherever that ended
 *   leave        HELD|me -> HELD|LEAVING|me, before the put's intent        as HELD|me, until the put is published
 *   void         HELD|me -> 0, then own bit cleared, unless other           freed or handed on, as intended
 *                references of this process need it
 *   return       HELD|dead -> FRONT, then ring's bit set, then the          the next reaper sets the ring's bit: the
 *                dead process's cleared                                     dead process's is still set
 * So an entry is void before its owner's bit is cleared. If it is not void, the packet is on its way, or queued.
 *
 * A living process gives a delivery back in the same way, with the registry locked, so that no reaper interferes:
 *   give back    HELD|me -> FRONT, then ring's bit set, then own cleared    the next reaper sets the ring's bit, and
 *                                                                           the flag
 *
 * Returned packets come out in the order in which they were taken: `position` is written before the entry is.
 * `handed_out` is 1 when a packet is taken from a slot, which is written before the entry, too. A returned packet is
 * counted after the entry names its new owner: a death in between leaves a packet that no caller has seen once more. */
#ifndef SSM_REDELIVERY_H
#define SSM_REDELIVERY_H

#include "attachment.h"
#include "holder_set.h"

/* The delivery of one block by one ring to this process, in private memory. Empty in a forked child. */
struct ssm_own_delivery {
    uint32_t serial;     /* of the call that took it out */
    uint32_t references; /* of this process, that belong to the delivery; 0: it has ended */
    uint64_t position;   /* the index at which it was put into the ring, */
    uint64_t handed_out; /* and which delivery of the packet this is, from 1 on: both also of one that has ended */
};

/* A ring's table, as this process sees it. */
struct ssm_redelivery {
    struct ssm_redelivery   *next; /* another one that this process has opened */
    struct ssm_delivery     *entries;
    struct ssm_own_delivery *own; /* one per block; NULL in a view that only reads */
    uint32_t                 ring_id;
    uint32_t                 open; /* deliveries that have not ended: while there are any, the ring stays */
};

/* The name of this process in entries. */
uint32_t ssm_redelivery_self(const struct ssm_pool *pool);

/* Opens a ring's table. The attachment keeps it when the ring is closed: packets that were taken through it have to
 * become void, too. The next ring of that holder id takes it over, for by then none is open. NULL if there is no
 * memory. */
struct ssm_redelivery *ssm_redelivery_open(struct ssm_pool *pool, uint32_t ring_id, struct ssm_delivery *entries);
/* Has this process a delivery of that ring that has not ended? */
bool ssm_redelivery_is_open(const struct ssm_pool *pool, uint32_t ring_id);
void ssm_redelivery_dispose(struct ssm_pool *pool);
void ssm_redelivery_forget(struct ssm_pool *pool); /* in a forked child: the deliveries are the parent's */

/* ---- for get and put ---------------------------------------------------------------------------------------- */

/* Takes a packet that is queued in a slot. Needs the consumer's right. False if it was returned meanwhile. */
bool ssm_redelivery_take(const struct ssm_pool *pool, const struct ssm_redelivery *table, uint64_t handle,
                         uint64_t position);
/* Takes the first returned packet; false if there is none. Scans the whole table. *left_out: how many remain. */
bool ssm_redelivery_take_first(const struct ssm_pool *pool, const struct ssm_redelivery *table, uint64_t *handle_out,
                               uint32_t *left_out);
/* Was the packet returned, so that slots with its handle are void? Call it after the ring's bit was seen set (D2). */
bool ssm_redelivery_is_returned(const struct ssm_redelivery *table, uint64_t handle);
/* Was the packet returned, even if it was taken since? */
bool ssm_redelivery_was_returned(const struct ssm_redelivery *table, uint64_t handle);
/* Did another process take the packet from here, which has it, or had it when it died? Call it after the ring's bit was
 * seen clear (D4). */
bool ssm_redelivery_is_under_way(const struct ssm_pool *pool, const struct ssm_redelivery *table, uint64_t handle);
/* Counts the returned packets. */
uint32_t ssm_redelivery_count(const struct ssm_pool *pool, const struct ssm_redelivery *table);
/* The smaller of `position` and of the positions of packets that were taken or returned, and are not done with. What was
 * taken before the call, at smaller positions, has ended. *returned_out: it waits to be taken. Scans the whole table. */
uint64_t ssm_redelivery_oldest(const struct ssm_pool *pool, const struct ssm_redelivery *table, uint64_t position,
                               bool *returned_out);
/* Has a dead process packets that no reaper has returned yet, or is a reaper about to announce some? */
bool ssm_redelivery_is_owed(const struct ssm_pool *pool, const struct ssm_redelivery *table);

/* ---- for free and put --------------------------------------------------------------------------------------- */

/* Begins a delivery: the call with that number took the block out of the ring. Ends an open one, whose packet was put
 * back and kept as well. */
void ssm_delivery_begin(struct ssm_pool *pool, const struct ssm_redelivery *table, uint32_t block_idx, uint32_t serial);
/* Finds the table of the delivery with that name, or with SSM_ANY_DELIVERY of the latest open one. NULL if it has
 * ended. */
const struct ssm_redelivery *ssm_delivery_find(const struct ssm_pool *pool, uint32_t block_idx, uint64_t delivery);
uint64_t ssm_delivery_name(const struct ssm_redelivery *table, uint32_t block_idx);
/* What is known of the delivery with that name, also when it has ended; with SSM_ANY_DELIVERY of the latest open one.
 * NULL: there is no such delivery of the block, or the ring has delivered the block to this process again since. */
const struct ssm_own_delivery *ssm_delivery_look(const struct ssm_pool *pool, uint32_t block_idx, uint64_t delivery);
/* Adds a reference to the delivery, if it is open. */
void ssm_delivery_share(const struct ssm_pool *pool, uint32_t block_idx, uint64_t delivery);
/* Marks the delivery as leaving, for a put that cannot fail any more. */
void ssm_delivery_leave(const struct ssm_pool *pool, const struct ssm_redelivery *table, uint32_t block_idx);
/* Ends the delivery, before this process's bit is cleared: its ring gets nothing back. */
void ssm_delivery_end(struct ssm_pool *pool, const struct ssm_redelivery *table, uint32_t block_idx);
void ssm_delivery_end_all(struct ssm_pool *pool, uint32_t block_idx);
/* The same as ssm_delivery_end() for a process that is about to end, which stays a user of the ring until it is gone. */
void ssm_delivery_end_at_last(struct ssm_pool *pool, const struct ssm_redelivery *table, uint32_t block_idx);
/* Ends the delivery and returns the packet, unless it was put back already. This process's bit stays. True if it was
 * returned. Needs the registry locked; without it, the caller then calls on_deliveries_done() if none is open. */
bool ssm_delivery_give_back(struct ssm_pool *pool, const struct ssm_redelivery *table, uint32_t block_idx,
                            bool discard);
/* Drops a reference that belongs to the delivery. With `done`, or with the last one, the delivery ends. */
void ssm_delivery_drop(struct ssm_pool *pool, uint32_t block_idx, uint64_t delivery, bool done);
/* Ends the deliveries of a dead process whose put was published: those entries that are marked as leaving. */
void ssm_redelivery_complete(const struct ssm_pool *pool, const struct ssm_redelivery *table, uint32_t owner);

/* ---- for reapers and checks --------------------------------------------------------------------------------- */

/* Returns the packets of dead processes, before their bits are cleared: no entry names one of them afterwards. With
 * `discard` nothing comes back. Returns how many returned packets there are. Needs the registry locked. */
uint32_t ssm_redelivery_return(struct ssm_pool *pool, const struct ssm_redelivery *table,
                               const struct ssm_holder_set *dead, bool discard);
#if SSM_ASSERTS
/* Between two calls, for a table that this process has opened: each open delivery belongs to a packet that it holds,
 * and each entry that names it to an open delivery. */
bool ssm_redelivery_is_valid(const struct ssm_pool *pool, const struct ssm_redelivery *table);
#endif

/* Says what is wrong with a block's entry at this moment, or NULL. */
const char *ssm_redelivery_fault(const struct ssm_pool *pool, const struct ssm_redelivery *table, uint32_t block_idx);

#endif
