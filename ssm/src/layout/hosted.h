/* SPDX-License-Identifier: Apache-2.0
 *
 * One allocator in flat memory, and the owners of the values that it handed out. Locks and names belong to the service
 * around it (service.h), or to the registry (registry_ids.h).
 *
 * There are several kinds. The functions of a kind are one row, struct ssm_service_ops, in a file of its own. Nothing
 * else in the core asks for the kind. A new kind is one file with its row, and a line in SSM_SERVICE_KINDS.
 *
 * Owners: for numbers an array of u32 behind the allocator, written between peek and take; for ranges a field of the
 * node. An owner counts exactly while its value is allocated, so no death makes it wrong.
 *
 * A struct ssm_hosted is a private view: parameters are checked when it is made, and what is read from the memory
 * later is never trusted as a size or an offset (allocators/src/flat.h).
 */
#ifndef SSM_HOSTED_H
#define SSM_HOSTED_H

#include "allocators.h"
#include "holder_set.h"
#include "permits.h"
#include "ssm.h"

/* All kinds: the name in enum ssm_service_kind, and that of the row, which people read as well. */
#define SSM_SERVICE_KINDS(X)                                                                                  \
    X(IDS, ids) X(PIDS, pids) X(RMIDS, rmids) X(ADDRESSES, addresses) X(SEMAPHORE, semaphore) X(BOARD, board)

struct ssm_hosted {
    const struct ssm_service_ops *ops;
    uint32_t                      first; /* ids: of the range */
    union {
        struct al_id       ids;
        struct al_pid      pids;
        struct al_rmid    *rmids;
        struct al_tree     addresses;
        struct ssm_permits permits;
        uint8_t           *board; /* its rows */
    };
    uint32_t *owners; /* of numbers: [number - first] */
};

struct ssm_hosted_size {
    uint64_t core_bytes; /* of the allocator alone; 0: such parameters cannot be */
    uint64_t owners;     /* how many owners stand behind it */
    uint64_t capacity;   /* values that can be allocated at once */
};

/* What a kind does. Results are enum al_result, unless a line says otherwise; `bytes` are core_bytes. */
struct ssm_service_ops {
    const char *name;
    uint32_t    flags;          /* enum ssm_service_flags that every service of the kind has */
    uint32_t    ranges_default; /* of ssm_service_options.ranges; 0: the kind has no ranges, and takes no other value */
    struct ssm_hosted_size (*size)(const struct ssm_service_options *options);
    /* Lays it out, or makes a view of what was; AL_CORRUPT: that is of other parameters. ops and owners are set. */
    int (*init)(struct ssm_hosted *hosted, const struct ssm_service_options *options, uint8_t *memory, uint64_t bytes);
    int (*attach)(struct ssm_hosted *hosted, const struct ssm_service_options *options, uint8_t *memory,
                  uint64_t bytes);
    int (*recover)(struct ssm_hosted *hosted);
    uint64_t (*used)(const struct ssm_hosted *hosted);
    uint64_t (*check)(const struct ssm_hosted *hosted, al_report_fn report, void *context);
    /* The first item that ends at or behind `from`; false: there is none. */
    bool (*next)(const struct ssm_hosted *hosted, uint64_t from, struct ssm_service_item *item_out);
    int (*free_item)(struct ssm_hosted *hosted, const struct ssm_service_item *item, uint64_t now_ns);
    /* After the items of these holder slots were freed: what else the kind has of them. NULL: nothing. */
    void (*reclaimed)(struct ssm_hosted *hosted, const struct ssm_holder_set *slots);
    /* Numbers: peeks at the next one, takes that one, frees. Kinds without numbers use the functions below. */
    int (*peek)(const struct ssm_hosted *hosted, uint64_t now_ns, uint32_t *number_out);
    int (*take)(struct ssm_hosted *hosted, uint32_t number);
    int (*free)(struct ssm_hosted *hosted, uint32_t number, uint64_t now_ns);
    bool (*has)(const struct ssm_hosted *hosted, uint32_t number);
};

#define X(name, row) extern const struct ssm_service_ops ssm_##row##_ops;
SSM_SERVICE_KINDS(X)
#undef X

/* For the row of a kind that has no numbers: AL_OUT_OF_RANGE, and false. */
int ssm_no_number_peek(const struct ssm_hosted *hosted, uint64_t now_ns, uint32_t *number_out);
int ssm_no_number_take(struct ssm_hosted *hosted, uint32_t number);
int ssm_no_number_free(struct ssm_hosted *hosted, uint32_t number, uint64_t now_ns);
bool ssm_no_number_has(const struct ssm_hosted *hosted, uint32_t number);

/* The row of an enum ssm_service_kind; NULL: there is none. */
const struct ssm_service_ops *ssm_service_ops_of(uint32_t kind);

/* The options with what their kind adds: flags, and the default of `ranges`. */
struct ssm_service_options ssm_hosted_complete(const struct ssm_service_options *options);

/* Bytes of such an allocator with its owners; 0: such parameters cannot be. */
uint64_t ssm_hosted_bytes(const struct ssm_service_options *options);
/* Bytes of an allocator without owners: it may be peeked into, committed to, freed and checked, nothing else. */
uint64_t ssm_hosted_bare_bytes(const struct ssm_service_options *options);
uint64_t ssm_hosted_capacity(const struct ssm_service_options *options);

/* Lays it out, or makes a view of what was; an enum al_result. The parameters can be. */
int ssm_hosted_init(struct ssm_hosted *hosted, const struct ssm_service_options *options, uint8_t *memory);
int ssm_hosted_attach(struct ssm_hosted *hosted, const struct ssm_service_options *options, uint8_t *memory);

static inline int ssm_hosted_recover(struct ssm_hosted *hosted)
{
    return hosted->ops->recover(hosted);
}
static inline uint64_t ssm_hosted_used(const struct ssm_hosted *hosted)
{
    return hosted->ops->used(hosted);
}

static inline uint64_t ssm_hosted_check(const struct ssm_hosted *hosted, al_report_fn report, void *context)
{
    return hosted->ops->check(hosted, report, context);
}

/* The first item that ends at or behind `from`; false: there is none. */
static inline bool ssm_hosted_next(const struct ssm_hosted *hosted, uint64_t from, struct ssm_service_item *item_out)
{
    return hosted->ops->next(hosted, from, item_out);
}

/* Frees everything whose owner's holder slot is in the set; an enum al_result. */
int ssm_hosted_reclaim(struct ssm_hosted *hosted, const struct ssm_holder_set *slots, uint64_t now_ns);

/* ---- one operation each; an enum al_result ------------------------------------------------------------- */

/* The number that would be given now. */
static inline int ssm_hosted_peek_number(const struct ssm_hosted *hosted, uint64_t now_ns, uint32_t *number_out)
{
    return hosted->ops->peek(hosted, now_ns, number_out);
}

/* Allocates the one that was peeked. */
static inline int ssm_hosted_commit_number(struct ssm_hosted *hosted, uint32_t number)
{
    return hosted->ops->take(hosted, number);
}

static inline int ssm_hosted_take_number(struct ssm_hosted *hosted, uint32_t owner, uint64_t now_ns,
                                         uint32_t *number_out)
{
    int result = ssm_hosted_peek_number(hosted, now_ns, number_out);
    if (result != AL_OK)
        return result;
    hosted->owners[*number_out - hosted->first] = owner;
    AL_IN_ORDER();
    return ssm_hosted_commit_number(hosted, *number_out);
}

static inline int ssm_hosted_free_number(struct ssm_hosted *hosted, uint32_t number, uint64_t now_ns)
{
    return hosted->ops->free(hosted, number, now_ns);
}

static inline bool ssm_hosted_has_number(const struct ssm_hosted *hosted, uint32_t number)
{
    return hosted->ops->has(hosted, number);
}

#endif
