/* SPDX-License-Identifier: Apache-2.0
 *
 * One of the four allocators in the metadata area, and who owns what it handed out. No lock and no names in here: that
 * is the service around it (service.h).
 *
 * Owners: for numbers an array of u32 behind the allocator, written between peek and take; for ranges a field of the
 * node. An owner counts exactly while its value is allocated, so it is never wrong, whoever dies when.
 *
 * A struct ssm_hosted is a private view: parameters are checked when it is made, and what is read from the memory
 * later is never trusted as a size or an offset (allocators/src/flat.h).
 */
#ifndef SSM_HOSTED_H
#define SSM_HOSTED_H

#include "allocators.h"
#include "holder_set.h"
#include "ssm.h"

struct ssm_hosted {
    uint32_t kind; /* enum ssm_service_kind */
    uint32_t first; /* ids: of the range */
    union {
        struct al_id    ids;
        struct al_pid   pids;
        struct al_rmid *rmids;
        struct al_tree  addresses;
    };
    uint32_t *owners; /* of numbers: [number - first] */
};

/* Bytes of such an allocator with its owners; 0: such parameters cannot be. */
uint64_t ssm_hosted_bytes(const struct ssm_service_options *options);
/* The same without owners: such a one may be peeked into, committed to, freed and checked, nothing else. */
uint64_t ssm_hosted_bare_bytes(const struct ssm_service_options *options);
uint64_t ssm_hosted_capacity(const struct ssm_service_options *options);

/* Lays it out, or makes a view of what was; an enum al_result. */
int ssm_hosted_init(struct ssm_hosted *hosted, const struct ssm_service_options *options, uint8_t *memory);
int ssm_hosted_attach(struct ssm_hosted *hosted, const struct ssm_service_options *options, uint8_t *memory);

int      ssm_hosted_recover(struct ssm_hosted *hosted);
uint64_t ssm_hosted_used(const struct ssm_hosted *hosted);
uint64_t ssm_hosted_check(const struct ssm_hosted *hosted, al_report_fn report, void *context);

/* The first item that ends at or behind `from`; false: there is none. */
bool ssm_hosted_next(const struct ssm_hosted *hosted, uint64_t from, struct ssm_service_item *item_out);

/* Frees everything whose owner's holder slot is in the set; an enum al_result. */
int ssm_hosted_reclaim(struct ssm_hosted *hosted, const struct ssm_holder_set *slots, uint64_t now_ns);

/* ---- one operation each; an enum al_result ------------------------------------------------------------- */

/* The number that would be given now. */
static inline int ssm_hosted_peek_number(const struct ssm_hosted *hosted, uint64_t now_ns, uint32_t *number_out)
{
    return hosted->kind == SSM_SERVICE_IDS    ? al_id_peek(&hosted->ids, number_out)
         : hosted->kind == SSM_SERVICE_PIDS   ? al_pid_peek(&hosted->pids, number_out)
         : hosted->kind == SSM_SERVICE_RMIDS  ? al_rmid_peek(hosted->rmids, now_ns, number_out)
                                              : AL_OUT_OF_RANGE;
}

/* Allocates the one that was peeked. */
static inline int ssm_hosted_commit_number(struct ssm_hosted *hosted, uint32_t number)
{
    return hosted->kind == SSM_SERVICE_IDS    ? al_id_take(&hosted->ids, number)
         : hosted->kind == SSM_SERVICE_PIDS   ? al_pid_take(&hosted->pids, number)
                                              : al_rmid_take(hosted->rmids, number);
}

static inline int ssm_hosted_take_number(struct ssm_hosted *hosted, uint32_t owner, uint64_t now_ns, uint32_t *number_out)
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
    return hosted->kind == SSM_SERVICE_IDS    ? al_id_free(&hosted->ids, number)
         : hosted->kind == SSM_SERVICE_PIDS   ? al_pid_free(&hosted->pids, number)
         : hosted->kind == SSM_SERVICE_RMIDS  ? al_rmid_free(hosted->rmids, number, now_ns)
                                              : AL_OUT_OF_RANGE;
}

static inline bool ssm_hosted_has_number(const struct ssm_hosted *hosted, uint32_t number)
{
    return hosted->kind == SSM_SERVICE_IDS    ? al_id_is_allocated(&hosted->ids, number)
         : hosted->kind == SSM_SERVICE_PIDS   ? al_pid_is_allocated(&hosted->pids, number)
         : hosted->kind == SSM_SERVICE_RMIDS && al_rmid_is_allocated(hosted->rmids, number);
}

#endif
