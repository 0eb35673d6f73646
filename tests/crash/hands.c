/* SPDX-License-Identifier: Apache-2.0
 *
 * What a worker of the soak does at the pool; see soak.c. */
#include "soak.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

enum { BATCH = 4 }; /* packets of one call, or of a chain */
#define TIMEOUT_NS INT64_C(3000000)
#define CALM_NS    INT64_C(60000000) /* longer than a look comes: whoever is not woken is found late by that */

const char *const ring_names[RINGS] = {"many", "short", "one", "newest", "oldest", "jobs"};
const struct ssm_service_options pages_options = {
    .kind = SSM_SERVICE_ADDRESSES,
    .last = PAGES * PAGE - 1,
    .ranges = PAGES,
};

const struct ssm_service_options permits_options = {
    .kind = SSM_SERVICE_SEMAPHORE,
    .flags = SSM_RECLAIM,
    .first = PERMITS,
};

int64_t patience(struct hands *hands)
{
    if (ssm_load_relaxed_u32(&ledger->calm) != 0)
        return below(&hands->random, 8) == 0 ? CALM_NS : 0;
    return below(&hands->random, 8) == 0 ? TIMEOUT_NS : 0;
}

void fault(const char *what, int result)
{
    if (ssm_add_acqrel_u32(&ledger->faults, 1) == 0)
        snprintf(ledger->fault, sizeof ledger->fault, "%s: %s (%d)", what, ssm_strerror(result), result);
}

static void mark(uint32_t serial, int ring, enum fate fate)
{
    ssm_or_acqrel_u64(&ledger->fates[serial], (uint64_t)fate << ring * 8);
}

/* ---- payloads ---------------------------------------------------------------------------------------------------- */

void stamp(struct ssm_packet *packet, uint32_t serial)
{
    uint64_t *words = (uint64_t *)packet->data, state = serial;
    words[0] = serial;
    for (uint64_t i = 1; i < packet->length / 8; i++)
        words[i] = draw(&state);
}

/* Of one packet: the serial number, or SERIALS when it is torn. */
static uint32_t read_one(struct ssm_pool *pool, uint64_t handle)
{
    struct ssm_packet packet;
    int result = ssm_packet_view(pool, handle, &packet);
    const uint64_t *words = (const uint64_t *)packet.data;
    if (result != 0) {
        fault("view", result);
        return SERIALS;
    }
    uint64_t state = words[0];
    bool whole = words[0] < SERIALS;
    for (uint64_t i = 1; whole && i < packet.length / 8; i++)
        whole = words[i] == draw(&state);
    return whole ? (uint32_t)words[0] : SERIALS;
}

/* The tag of a chain's packet says where it belongs; those of single packets are 0. */
static uint64_t tag_of(uint32_t head_serial, uint32_t position, uint32_t length)
{
    return (uint64_t)head_serial << 16 | position << 8 | length;
}

/* All that hangs on the head is there, in its order, and nothing else. */
static bool chain_is_whole(struct ssm_pool *pool, uint64_t head, uint32_t serial)
{
    uint64_t tag = 0, at = head, next;
    if (ssm_packet_tag(pool, head, &tag) != 0 || (tag != 0 && tag != tag_of(serial, 0, tag & 0xff)))
        return false;
    uint32_t length = tag != 0 ? tag & 0xff : 1;
    for (uint32_t i = 1; i < length; i++, at = next)
        if (ssm_packet_next(pool, at, &next) != 1 || read_one(pool, next) == SERIALS ||
            ssm_packet_tag(pool, next, &tag) != 0 || tag != tag_of(serial, i, length))
            return false;
    return ssm_packet_next(pool, at, &next) == 0;
}

/* Of a packet, or of a head with its segments: the serial number, or SERIALS when they are torn. */
uint32_t read_stamp(struct ssm_pool *pool, uint64_t handle)
{
    uint32_t serial = read_one(pool, handle);
    if (serial != SERIALS && chain_is_whole(pool, handle, serial))
        return serial;
    ssm_add_acqrel_u32(&ledger->torn, 1);
    return SERIALS;
}

/* ---- a worker's operations --------------------------------------------------------------------------------------- */

static void let_go(struct hands *hands, uint64_t handle)
{
    read_stamp(hands->pool, handle); /* nobody has written to it meanwhile */
    int result = ssm_free(hands->pool, handle);
    if (result != 0)
        fault("free", result);
}

static uint64_t take_from_hand(struct hands *hands)
{
    uint32_t i = below(&hands->random, hands->held_count);
    uint64_t handle = hands->held[i];
    hands->held[i] = hands->held[--hands->held_count];
    return handle;
}

/* Small ones mostly; some of the other class, some of the arena. */
static uint64_t draw_size(struct hands *hands)
{
    switch (below(&hands->random, 16)) {
    case 0:  return 4000 + 8 * below(&hands->random, 1000);
    case 1:
    case 2:  return LARGE_BYTES;
    default: return 16 + 8 * below(&hands->random, 24);
    }
}

static uint32_t make(struct hands *hands, uint32_t count, uint64_t *handles)
{
    uint64_t size = draw_size(hands);
    struct ssm_packet packet;
    int result = ssm_alloc_many(hands->pool, size, count, patience(hands), handles);
    if (result != 0) {
        if (result != -SSM_E_EXHAUSTED)
            fault("alloc", result);
        return 0;
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t serial = ssm_add_acqrel_u32(&ledger->next_serial, 1);
        ssm_packet_view(hands->pool, handles[i], &packet);
        stamp(&packet, serial < SERIALS ? serial : SERIALS - 1);
    }
    return count;
}

/* True: the packets are the ring's, or dropped (and still the caller's as well, with SSM_KEEP). */
static bool put(struct hands *hands, int ring, const uint64_t *handles, uint32_t count, uint32_t flags)
{
    uint32_t serials[BATCH];
    for (uint32_t i = 0; i < count; i++) {
        serials[i] = read_stamp(hands->pool, handles[i]);
        if (serials[i] >= SERIALS || marked(serials[i], ring, PUT_BEGUN))
            return false; /* a packet goes through a ring once, for the ledger's sake */
    }
    for (uint32_t i = 0; i < count; i++)
        mark(serials[i], ring, PUT_BEGUN);
    if (ring == NEWEST) /* it makes room for them */
        ssm_store_release_u32(&hands->self->getting[ring], count);
    int result = ssm_ring_put(hands->rings[ring], handles, count, flags, patience(hands));
    for (uint32_t i = 0; (int)i < (int)count - result && result >= 0; i++) /* the others were dropped */
        mark(serials[i], ring, PUT_RETURNED);
    ssm_store_release_u32(&hands->self->getting[ring], 0);
    if (result < 0 && result != -SSM_E_FULL && result != -SSM_E_BUSY && result != -SSM_E_ORPHANED)
        fault("put", result);
    return result >= 0;
}

static void put_new(struct hands *hands)
{
    uint64_t handles[BATCH];
    uint32_t count = make(hands, 1 + below(&hands->random, BATCH), handles);
    if (count > 0 && !put(hands, (int)below(&hands->random, RINGS), handles, count, 0))
        for (uint32_t i = 0; i < count; i++)
            let_go(hands, handles[i]);
}

static void fan_out(struct hands *hands)
{
    uint64_t handle;
    if (make(hands, 1, &handle) == 0)
        return;
    for (int ring = 0; ring < RINGS; ring++)
        put(hands, ring, &handle, 1, SSM_KEEP);
    let_go(hands, handle);
}

static void put_chain(struct hands *hands)
{
    uint64_t handles[BATCH];
    uint32_t length = 2 + below(&hands->random, BATCH - 1), made = 0;
    while (made < length && make(hands, 1, &handles[made]) == 1)
        made++;
    const uint32_t serial = made == length ? read_one(hands->pool, handles[0]) : SERIALS;
    for (uint32_t i = 0; i < made; i++)
        if (serial == SERIALS)
            let_go(hands, handles[i]);
        else
            ssm_packet_set_tag(hands->pool, handles[i], tag_of(serial, i, length));
    if (serial == SERIALS)
        return;
    int result = ssm_packet_link(hands->pool, handles[0], handles + 1, length - 1);
    if (result != 0)
        fault("link", result);
    else if (!put(hands, (int)below(&hands->random, JOBS), handles, 1, 0))
        let_go(hands, handles[0]);
}

static void hold(struct hands *hands)
{
    if (hands->held_count == HELD_MAX)
        let_go(hands, take_from_hand(hands));
    hands->held_count += make(hands, 1, &hands->held[hands->held_count]);
}

static void pass_on(struct hands *hands)
{
    if (hands->held_count == 0)
        return;
    uint64_t handle = take_from_hand(hands); /* a chain, perhaps: jobs are none */
    if (!put(hands, (int)below(&hands->random, JOBS), &handle, 1, 0))
        let_go(hands, handle);
}

int take(struct hands *hands, int ring, uint64_t *handles_out, uint32_t count, int64_t timeout_ns)
{
    int got = ssm_ring_get(hands->rings[ring], handles_out, count, timeout_ns);
    if (got < 0 && got != -SSM_E_EMPTY && got != -SSM_E_BUSY && got != -SSM_E_ORPHANED)
        fault("get", got);
    for (int i = 0; i < got; i++) {
        uint32_t serial = read_stamp(hands->pool, handles_out[i]);
        bool again = ssm_packet_redelivered(hands->pool, handles_out[i]) == 1;
        if (serial < SERIALS && marked(serial, ring, GOT | DONE) && (!again || marked(serial, ring, DONE)))
            ssm_add_acqrel_u32(&ledger->twice, 1);
        if (serial < SERIALS)
            mark(serial, ring, GOT);
        ssm_add_acqrel_u64(&ledger->packets, 1);
    }
    return got;
}

static void get(struct hands *hands)
{
    uint64_t handles[BATCH];
    int ring = (int)below(&hands->random, JOBS);
    uint32_t count = 1 + below(&hands->random, BATCH);
    ssm_store_release_u32(&hands->self->getting[ring], count);
    int got = take(hands, ring, handles, count, patience(hands));
    ssm_store_release_u32(&hands->self->getting[ring], 0);
    for (int i = 0; i < got; i++)
        if (hands->held_count < HELD_MAX && below(&hands->random, 3) == 0)
            hands->held[hands->held_count++] = handles[i];
        else
            let_go(hands, handles[i]);
}

/* ---- jobs: what came out of the ring that redelivers -------------------------------------------------------------- */

void job_done(struct hands *hands, uint64_t handle)
{
    uint32_t serial = read_stamp(hands->pool, handle);
    if (serial < SERIALS)
        mark(serial, JOBS, DONE_BEGUN);
}

static void drop_second(struct hands *hands)
{
    const struct second second = hands->seconds[--hands->second_count];
    read_stamp(hands->pool, second.handle); /* nobody had the block meanwhile */
    int result = second.pinned ? ssm_packet_unpin(hands->pool, second.handle, 1)
                               : ssm_free_of(hands->pool, second.handle, SSM_NO_DELIVERY, 1);
    if (result != 0)
        fault("the second reference to a job", result);
}

/* One more reference, of one kind or another; or none. */
static void take_second(struct hands *hands, uint64_t handle, uint64_t delivery)
{
    const uint32_t kind = below(&hands->random, 4);
    if (kind == 0)
        return;
    if (hands->second_count == SECONDS_MAX)
        drop_second(hands);
    int result = ssm_packet_hold_of(hands->pool, handle, kind == 1 ? delivery : SSM_NO_DELIVERY);
    if (result == 0 && kind == 3)
        result = ssm_packet_pin(hands->pool, handle);
    if (result != 0)
        fault("hold", result);
    hands->seconds[hands->second_count++] = (struct second){handle, kind == 3};
}

/* Another process is at the registry, most likely: then the job is freed. */
static bool give_job_back(struct hands *hands, uint64_t handle, uint64_t delivery)
{
    int result = ssm_delivery_return(hands->pool, handle, delivery);
    if (result != 0 && result != -ETIMEDOUT)
        fault("return", result);
    if (result == 0 && (result = ssm_free_of(hands->pool, handle, delivery, 1)) != 0)
        fault("free of a returned job", result);
    return result == 0;
}

static void end_job(struct hands *hands, uint64_t handle, uint64_t delivery)
{
    const uint32_t way = below(&hands->random, 6), serial = read_stamp(hands->pool, handle);
    const int ring = way == 0 ? MANY : SHORT;
    if (way == 2 && give_job_back(hands, handle, delivery))
        return;
    if (way == 3)
        put(hands, SHORT, &handle, 1, SSM_KEEP);
    job_done(hands, handle);
    if (way > 1 || !put(hands, ring, &handle, 1, 0)) {
        int result = ssm_free_of(hands->pool, handle, delivery, 1);
        if (result != 0)
            fault("free of a job", result);
    }
    if (serial < SERIALS)
        mark(serial, JOBS, DONE);
}

static void work_on_jobs(struct hands *hands)
{
    uint64_t handles[BATCH];
    int got = take(hands, JOBS, handles, 1 + below(&hands->random, BATCH), patience(hands));
    uint64_t delivery = got > 0 ? ssm_packet_delivery(hands->pool, handles[0]) : SSM_NO_DELIVERY;
    for (int i = 0; i < got; i++)
        take_second(hands, handles[i], delivery);
    for (int i = 0; i < got; i++)
        end_job(hands, handles[i], delivery);
    if (hands->second_count > 0 && below(&hands->random, 3) == 0)
        drop_second(hands);
}

/* ---- services ---------------------------------------------------------------------------------------------------- */

enum { IDS_OF, PAGES_OF };

static struct ssm_u32 *owner_of(int kind, uint32_t value)
{
    return kind == IDS_OF ? &ledger->ids[value] : &ledger->pages[value];
}

/* Whoever has it lives, and is not about to be killed. */
static bool is_had(uint32_t mark)
{
    return mark != 0 && ssm_load_acquire_u32(&ledger->workers[(mark & 0xff) - 1].life) << 8 == (mark & ~UINT32_C(0xff));
}

static void have(struct hands *hands, int kind, uint32_t value)
{
    if (is_had(ssm_exchange_acqrel_u32(owner_of(kind, value), hands->mark)))
        ssm_add_acqrel_u32(&ledger->twice, 1);
    ssm_add_acqrel_u64(&ledger->values, 1);
    hands->values[kind][hands->value_counts[kind]++] = value;
}

static void give_up(struct hands *hands, int kind)
{
    uint32_t value = hands->values[kind][--hands->value_counts[kind]];
    if (ssm_exchange_acqrel_u32(owner_of(kind, value), 0) != hands->mark)
        ssm_add_acqrel_u32(&ledger->twice, 1);
    int result = kind == IDS_OF ? ssm_number_free(hands->ids, value, 0)
                                : ssm_range_free(hands->pages, value * PAGE, value * PAGE + PAGE - 1);
    if (result != 0)
        fault("free of a value", result);
}

static void use_ids(struct hands *hands)
{
    uint32_t id;
    if (hands->value_counts[IDS_OF] == VALUES_MAX || below(&hands->random, 3) == 0) {
        if (hands->value_counts[IDS_OF] > 0)
            give_up(hands, IDS_OF);
        return;
    }
    int result = ssm_number_alloc(hands->ids, 0, &id);
    if (result == 0)
        have(hands, IDS_OF, id);
    else if (result != -SSM_E_UNAVAILABLE)
        fault("alloc of an id", result);
}

void bury(struct ssm_service *pages)
{
    struct ssm_service_item items[PAGES * 2];
    struct ssm_service_owner owner;
    int64_t count = ssm_service_list(pages, 0, UINT64_MAX, items, PAGES * 2);
    for (int64_t i = 0; i < count && i < PAGES * 2; i++)
        if (items[i].allocated && ssm_service_owner(pages, items[i].owner, &owner) == 0 && !owner.alive) {
            int result = ssm_range_free(pages, items[i].start, items[i].end);
            if (result != 0)
                fault("free of a dead process's range", result);
        }
}

static void use_pages(struct hands *hands)
{
    const struct ssm_range_request request = {.size = PAGE,
                                              .align = PAGE,
                                              .max = PAGES * PAGE - 1,
                                              .policy = below(&hands->random, 2) ? SSM_RANGE_FIRST : SSM_RANGE_LAST};
    uint64_t start;
    if (hands->value_counts[PAGES_OF] == VALUES_MAX || below(&hands->random, 3) == 0) {
        if (hands->value_counts[PAGES_OF] > 0)
            give_up(hands, PAGES_OF);
        return;
    }
    int result = ssm_range_alloc(hands->pages, &request, &start);
    if (result == 0)
        have(hands, PAGES_OF, (uint32_t)(start / PAGE));
    else if (result != -SSM_E_UNAVAILABLE)
        fault("alloc of a range", result);
}

static bool has_permit(uint64_t word)
{
    return is_had((uint32_t)word);
}

/* As many have one as there are, at most; whoever is about to be killed does not count. Whose word is the same in two looks had
 * it in between: one look counts a permit that moves from a worker to one further on twice. */
static void count_permits(void)
{
    uint64_t seen[WORKERS_MAX];
    uint32_t count = 0;
    for (uint32_t i = 0; i < WORKERS_MAX; i++)
        seen[i] = ssm_load_acquire_u64(&ledger->permits[i]);
    for (uint32_t i = 0; i < WORKERS_MAX; i++)
        count += has_permit(seen[i]) && ssm_load_acquire_u64(&ledger->permits[i]) == seen[i];
    if (count > PERMITS)
        ssm_add_acqrel_u32(&ledger->twice, 1);
}

static void use_permits(struct hands *hands)
{
    struct ssm_u64 *mine = &ledger->permits[hands->self - ledger->workers];
    if (hands->has_permit) {
        ssm_store_release_u64(mine, 0);
        hands->has_permit = false;
        int result = ssm_semaphore_release(hands->permits, 1);
        if (result != 0)
            fault("release of a permit", result);
        return;
    }
    int result = ssm_semaphore_acquire(hands->permits, patience(hands), NULL);
    if (result == 0) {
        ssm_store_release_u64(mine, (uint64_t)++hands->acquired << 32 | hands->mark);
        hands->has_permit = true;
        ssm_add_acqrel_u64(&ledger->values, 1);
        count_permits();
    } else if (result != -SSM_E_UNAVAILABLE && result != -ETIMEDOUT) {
        fault("acquire of a permit", result);
    }
}

/* ---- coming and going -------------------------------------------------------------------------------------------- */

int come(int fd, struct hands *hands)
{
    static const struct ssm_ring_options options[RINGS] = {
        {.capacity = 64},
        {.capacity = 5},
        {.capacity = 16, .flags = SSM_ONE_PRODUCER | SSM_ONE_CONSUMER},
        {.capacity = 6, .flags = SSM_OVERFLOW_OVERWRITE},
        {.capacity = 6, .flags = SSM_OVERFLOW_DROP},
        {.capacity = 12, .flags = SSM_REDELIVER},
    };
    static const struct ssm_service_options ids = {
        .kind = SSM_SERVICE_IDS,
        .flags = SSM_RECLAIM,
        .first = 1,
        .last = IDS,
    };
    struct ssm_attach_options attach = {.name = "worker"};
    int result = ssm_pool_attach(fd, &attach, &hands->pool);
    for (int ring = 0; ring < RINGS && result == 0; ring++)
        result = ssm_ring_open(hands->pool, ring_names[ring], &options[ring], &hands->rings[ring]);
    if (result == 0)
        result = ssm_service_open(hands->pool, "ids", &ids, &hands->ids);
    if (result == 0)
        result = ssm_service_open(hands->pool, "pages", &pages_options, &hands->pages);
    if (result == 0)
        result = ssm_service_open(hands->pool, "permits", &permits_options, &hands->permits);
    return result == 0 ? growing_come(hands) : result;
}

void leave(struct hands *hands)
{
    growing_leave(hands);
    if (hands->has_permit)
        use_permits(hands);
    while (hands->value_counts[PAGES_OF] > 0)
        give_up(hands, PAGES_OF);
    while (hands->value_counts[IDS_OF] > 0)
        if (below(&hands->random, 4) != 0)
            give_up(hands, IDS_OF);
        else
            ssm_exchange_acqrel_u32(owner_of(IDS_OF, hands->values[IDS_OF][--hands->value_counts[IDS_OF]]), 0);
    while (hands->held_count > 0 && below(&hands->random, 4) != 0)
        let_go(hands, take_from_hand(hands));
    hands->held_count = 0;
    while (hands->second_count > 0)
        drop_second(hands); /* before the attachment is disposed of: a pin outlives a close */
    for (int ring = 0; ring < RINGS; ring++)
        ssm_ring_close(hands->rings[ring]);
    ssm_service_close(hands->ids);
    ssm_service_close(hands->pages);
    ssm_service_close(hands->permits);
    ssm_pool_destroy(hands->pool);
}

static bool is_over(void)
{
    return ssm_load_acquire_u32(&ledger->over) != 0;
}

void work(int fd, struct worker *self, uint64_t seed)
{
    uint32_t mark = ssm_load_acquire_u32(&self->life) << 8 | ((uint32_t)(self - ledger->workers) + 1);
    struct hands hands = {.self = self, .random = seed, .mark = mark};
    for (;;) {
        int result = come(fd, &hands);
        if (result != 0) {
            fault("attach", result);
            _exit(1);
        }
        for (uint32_t left = 1 + below(&hands.random, 20000); left > 0 && !is_over(); left--) {
            static void (*const acts[])(struct hands *) = {put_new,   put_new,      put_chain,   fan_out,    hold,
                                                           pass_on,   get,          get,         get,        use_ids,
                                                           use_pages, work_on_jobs, use_permits, growing_use};
            acts[below(&hands.random, sizeof acts / sizeof *acts)](&hands);
            ssm_add_acqrel_u64(&self->progress, 1);
            while (ssm_load_relaxed_u32(&ledger->next_serial) > SERIALS_END && !is_over()) { /* the round is over */
                ssm_add_acqrel_u64(&self->progress, 1);
                ssm_nap_ns(1000000);
            }
        }
        leave(&hands);
        ssm_add_acqrel_u64(&self->comings, 1);
        if (is_over())
            _exit(0);
    }
}
