/* SPDX-License-Identifier: Apache-2.0
 *
 * Seeded bugs, so that it can be shown that the crash harness finds such bugs (tests/crash/test_bugs.py). Each swaps two
 * steps or leaves one out, where a comment in the sources says that it must not be. One of them is built in where
 * SSM_SEED_BUG is its number, and in no library that anybody uses: there the macro is a constant 0. */
#ifndef SSM_SEED_BUG_H
#define SSM_SEED_BUG_H

#ifndef SSM_SEED_BUG
#define SSM_SEED_BUG 0
#endif

enum ssm_seed_bug {
    SSM_BUG_NO_INTENT = 1,   /* put: the ring's bits are set without put_intent */
    SSM_BUG_INTENT_EARLY,    /* put: put_intent before the slots */
    SSM_BUG_HEAD_EARLY,    /* put: the index before the bits */
    SSM_BUG_NO_UNDO,       /* the producer's side is not repaired */
    SSM_BUG_TAIL_EARLY,    /* get: the index before the bits */
    SSM_BUG_NO_REBUILD,    /* a shard's list is not made anew after its owner's death */
    SSM_BUG_NO_SCRUB,      /* a reaper leaves locks to the dead */
    SSM_BUG_SLOT_EARLY,    /* a reaper frees the slots of the dead before their blocks */
    SSM_BUG_LONG_SLEEP,    /* who waits does not look again in between */
    SSM_BUG_RING_EARLY,    /* a new ring is one before it has a place and a name */
    SSM_BUG_NO_JOURNAL,    /* what a dead process had begun in a service is not finished, or undone */
    SSM_BUG_RUSHED_THIEF,  /* who takes from another process's cache does not wait until that one is outside */
    SSM_BUG_NO_RETURN,     /* what a dead process had taken out of a redelivering ring does not come back */
    SSM_BUG_NO_HANDOVER,   /* a dead process's put of deliveries is not completed */
    SSM_BUG_TAKE_HEAD_FIRST, /* get: the head of a chain before its segments */
    SSM_BUG_DROP_HEAD_FIRST, /* an unfinished put or get of a chain: the ring's bits go from the head on */
    SSM_BUG_NO_NEW_TREE,     /* the arena's tree is not made anew after a death with its lock */
    SSM_BUG_SILENT_RELEASE,  /* who takes the last bit from a block, and is stopped then, has not said so */
    SSM_BUG_VIEW_DELAYS      /* free: a delivery ends with the last reference to its block only */
};

#define SSM_HAS_BUG(name) (SSM_SEED_BUG == SSM_BUG_##name)

#endif
