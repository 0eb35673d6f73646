/* SPDX-License-Identifier: Apache-2.0
 *
 * Seeded bugs: they show that the crash harness finds bugs of their kind (tests/crash/test_bugs.py). Each swaps or
 * omits steps where a comment in the sources says that this must not happen. A build has the bug whose number is
 * SSM_SEED_BUG. In every library for users that is 0, and SSM_HAS_BUG() is a constant. */
#ifndef SSM_SEED_BUG_H
#define SSM_SEED_BUG_H

#ifndef SSM_SEED_BUG
#define SSM_SEED_BUG 0
#endif

enum ssm_seed_bug {
    SSM_BUG_NO_INTENT = 1,    /* put: the ring's bits are set without put_intent */
    SSM_BUG_INTENT_EARLY,     /* put: put_intent before the slots */
    SSM_BUG_HEAD_EARLY,       /* put: the index before the bits */
    SSM_BUG_NO_UNDO,          /* the producer's side is not repaired */
    SSM_BUG_TAIL_EARLY,       /* get: the index before the bits */
    SSM_BUG_NO_REBUILD,       /* a shard's list is not rebuilt after its owner's death */
    SSM_BUG_NO_SCRUB,         /* a reaper leaves locks to the dead */
    SSM_BUG_SLOT_EARLY,       /* a reaper frees the slots of the dead before their blocks */
    SSM_BUG_LONG_SLEEP,       /* a waiting call does not look again in between */
    SSM_BUG_RING_EARLY,       /* a new ring is published before it has a place and a name */
    SSM_BUG_NO_JOURNAL,       /* an operation of a dead process in a service is neither finished nor undone */
    SSM_BUG_RUSHED_THIEF,     /* a thief does not wait until the owner of the cache has left it */
    SSM_BUG_NO_RETURN,        /* packets that a dead process had taken out of a redelivering ring do not come back */
    SSM_BUG_NO_HANDOVER,      /* a dead process's put of deliveries is not completed */
    SSM_BUG_TAKE_HEAD_FIRST,  /* get: the head of a chain before its segments */
    SSM_BUG_DROP_HEAD_FIRST,  /* undoing a put or get of a chain clears the ring's bits from the head on */
    SSM_BUG_NO_NEW_TREE,      /* the arena's tree is not rebuilt after a death with its lock */
    SSM_BUG_SILENT_RELEASE,   /* a process does not announce that it is about to clear the last bit of a block */
    SSM_BUG_VIEW_DELAYS,      /* free: a delivery ends only with the last reference to its block */
    SSM_BUG_TRUSTED_LEFTOVER, /* an extent of the right size is used although its units may not be reserved */
    SSM_BUG_WIDE_EARLY,       /* a ring says that it has more slots before the packets stand in them */
    SSM_BUG_KEEP_STOLEN,      /* the name of a dead thief is scrubbed, what it had taken stays in the cache */
    SSM_BUG_UNLINK_USED,      /* a ring whose name is gone is freed although processes have it open */
    SSM_BUG_UNLINK_QUEUED,    /* a ring is freed with the packets that are queued in it */
    SSM_BUG_NO_FORGET,        /* a dead process has its rings open for ever */
    SSM_BUG_DONE_EARLY,       /* put: deliveries that end with it end before the index says so */
    SSM_BUG_DONE_LATE,        /* put: they end when nothing tells of the put any more */
    SSM_BUG_KEEP_TAKEN,       /* the tail stays before the packets that a dead consumer took */
    SSM_BUG_OWNED_STAYS,      /* the ring of a dead subscriber takes packets still */
    SSM_BUG_OWNER_FIRST       /* a ring of a dead process is nobody's before its name is gone */
};

#define SSM_HAS_BUG(name) (SSM_SEED_BUG == SSM_BUG_##name)

#endif
