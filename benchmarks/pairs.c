/* SPDX-License-Identifier: Apache-2.0
 *
 * One process hands packets to another: streams, rings alone, round trips.
 *
 * Who "polls" asks again at once; who "blocks" makes a call that waits, which spins shortly before it sleeps.
 */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

#define CIRCULATING 256 /* packets under way in bench_ring */
#define TRIPS_MAX   20000
#define ASLEEP_MAX  500
#define QUIET_NS    UINT64_C(1000000) /* longer than any call spins before it sleeps */

static int put_polling(struct ssm_ring *ring, const uint64_t *handles, uint32_t count)
{
    int result;

    while ((result = ssm_ring_put(ring, handles, count, 0, 0)) == -SSM_E_FULL)
        pause_briefly();
    return must(result, "ssm_ring_put");
}

static uint32_t get_polling(struct ssm_ring *ring, uint64_t *handles, uint32_t count)
{
    int result;

    while ((result = ssm_ring_get(ring, handles, count, 0)) == -SSM_E_EMPTY)
        pause_briefly();
    return (uint32_t)must(result, "ssm_ring_get");
}

static void alloc_some(struct bench *bench, uint64_t *handles)
{
    if (bench->batch == 1)
        must(ssm_alloc(bench->pool, bench->bytes, SSM_FOREVER, handles), "ssm_alloc");
    else
        must(ssm_alloc_many(bench->pool, bench->bytes, bench->batch, SSM_FOREVER, handles), "ssm_alloc_many");
}

static void free_some(struct bench *bench, const uint64_t *handles, uint32_t count)
{
    if (count == 1)
        must(ssm_free(bench->pool, handles[0]), "ssm_free");
    else
        must(ssm_free_many(bench->pool, handles, count), "ssm_free_many");
}

/* ---- from the first alloc here to the last free there -------------------------------------------- */

/* Payload not touched; either side blocks. */
static void produce(struct bench *bench)
{
    uint64_t handles[BATCH_MAX];

    for (uint64_t i = 0; i < bench->count; i += bench->batch) {
        alloc_some(bench, handles);
        must(ssm_ring_put(bench->rings[0], handles, bench->batch, 0, SSM_FOREVER), "ssm_ring_put");
    }
}

static void consume(struct bench *bench)
{
    uint64_t handles[BATCH_MAX];

    for (uint64_t i = 0; i < bench->count;) {
        int got = must(ssm_ring_get(bench->rings[0], handles, bench->batch, SSM_FOREVER), "ssm_ring_get");

        free_some(bench, handles, (uint32_t)got);
        i += (uint64_t)got;
    }
}

uint64_t bench_stream(struct bench *bench)
{
    return bench_together(bench, 1, produce, consume);
}

/* `bytes` are copied in and out; either side polls. */
static void write_and_put(struct bench *bench)
{
    uint64_t handles[BATCH_MAX];
    struct ssm_packet packet;
    uint8_t source[2048];

    memset(source, 1, sizeof source);
    for (uint64_t i = 0; i < bench->count; i += bench->batch) {
        alloc_some(bench, handles);
        for (uint32_t j = 0; j < bench->batch; j++) {
            must(ssm_packet_view(bench->pool, handles[j], &packet), "ssm_packet_view");
            memcpy(packet.data, source, bench->bytes);
        }
        put_polling(bench->rings[0], handles, bench->batch);
    }
}

static void get_and_read(struct bench *bench)
{
    uint64_t handles[BATCH_MAX];
    struct ssm_packet packet;
    uint8_t target[2048];

    for (uint64_t i = 0; i < bench->count;) {
        uint32_t got = get_polling(bench->rings[0], handles, bench->batch);

        for (uint32_t j = 0; j < got; j++) {
            must(ssm_packet_view(bench->pool, handles[j], &packet), "ssm_packet_view");
            memcpy(target, packet.data, bench->bytes);
            __asm__ volatile("" : : "r"(target) : "memory"); /* the copy is used */
        }
        free_some(bench, handles, got);
        i += got;
    }
}

uint64_t bench_hand_over(struct bench *bench)
{
    return bench_together(bench, 1, write_and_put, get_and_read);
}

/* ---- rings alone ----------------------------------------------------------------------------------
 * A ring takes no packet that is in it already, so packets circulate: put into one ring here, from there into the other.
 * Each process makes a put and a get per round, each packet two hops. */

static void circulate(struct bench *bench, struct ssm_ring *from, struct ssm_ring *to)
{
    uint64_t handles[BATCH_MAX];

    for (uint64_t i = 0; i < bench->count / 2;) {
        uint32_t got = get_polling(from, handles, bench->batch);

        put_polling(to, handles, got);
        i += got;
    }
}

static void circulate_here(struct bench *bench)
{
    circulate(bench, bench->rings[1], bench->rings[0]);
}
static void circulate_there(struct bench *bench)
{
    circulate(bench, bench->rings[0], bench->rings[1]);
}

uint64_t bench_ring(struct bench *bench)
{
    uint64_t handle;

    for (uint32_t i = 0; i < CIRCULATING; i++) {
        must(ssm_alloc(bench->pool, bench->bytes, 0, &handle), "ssm_alloc");
        put_polling(bench->rings[0], &handle, 1);
    }
    return bench_together(bench, 1, circulate_here, circulate_there);
}

/* ---- round trips: the median, times the count ----------------------------------------------------- */

static uint64_t trips(const struct bench *bench, uint64_t most)
{
    return bench->count < most ? bench->count : most;
}

static uint64_t round_trips(struct bench *bench, uint64_t count, bench_work *ours, bench_work *theirs, uint64_t **times)
{
    *times = calloc(count, sizeof **times);
    (void)bench_together(bench, 1, ours, theirs);
    uint64_t median = median_ns(*times, count);
    free(*times);
    return median * bench->count;
}

static uint64_t *times_ns;

static void ask(struct bench *bench, int64_t timeout_ns)
{
    uint64_t handle;

    must(ssm_alloc(bench->pool, bench->bytes, 0, &handle), "ssm_alloc");
    for (uint64_t i = 0; i < trips(bench, TRIPS_MAX); i++) {
        uint64_t start = now_ns();

        put_polling(bench->rings[0], &handle, 1);
        if (timeout_ns)
            must(ssm_ring_get(bench->rings[1], &handle, 1, timeout_ns), "ssm_ring_get");
        else
            get_polling(bench->rings[1], &handle, 1);
        times_ns[i] = now_ns() - start;
    }
}

static void answer(struct bench *bench, int64_t timeout_ns)
{
    uint64_t handle;

    for (uint64_t i = 0; i < trips(bench, TRIPS_MAX); i++) {
        if (timeout_ns)
            must(ssm_ring_get(bench->rings[0], &handle, 1, timeout_ns), "ssm_ring_get");
        else
            get_polling(bench->rings[0], &handle, 1);
        put_polling(bench->rings[1], &handle, 1);
    }
}

/* clang-format off */
static void ask_spinning(struct bench *bench) { ask(bench, 0); }
static void answer_spinning(struct bench *bench) { answer(bench, 0); }
static void ask_blocking(struct bench *bench) { ask(bench, SSM_FOREVER); }
static void answer_blocking(struct bench *bench) { answer(bench, SSM_FOREVER); }
/* clang-format on */

uint64_t bench_round_trip_spin(struct bench *bench)
{
    return round_trips(bench, trips(bench, TRIPS_MAX), ask_spinning, answer_spinning, &times_ns);
}

uint64_t bench_round_trip_block(struct bench *bench)
{
    return round_trips(bench, trips(bench, TRIPS_MAX), ask_blocking, answer_blocking, &times_ns);
}

/* Either side is quiet for so long before it sends that the other is asleep; what is timed is both ways without that. */
static uint64_t send_later(struct ssm_ring *ring, uint64_t handle, struct ssm_pool *pool)
{
    uint64_t start = now_ns();

    while (now_ns() - start < QUIET_NS)
        pause_briefly();
    start = now_ns();
    must(ssm_packet_set_tag(pool, handle, start), "ssm_packet_set_tag");
    put_polling(ring, &handle, 1);
    return start;
}

static void ask_asleep(struct bench *bench)
{
    uint64_t handle, sent_ns, way_ns;

    must(ssm_alloc(bench->pool, bench->bytes, 0, &handle), "ssm_alloc");
    for (uint64_t i = 0; i < trips(bench, ASLEEP_MAX); i++) {
        send_later(bench->rings[0], handle, bench->pool);
        must(ssm_ring_get(bench->rings[1], &handle, 1, SSM_FOREVER), "ssm_ring_get");
        way_ns = now_ns();
        struct ssm_packet packet;
        must(ssm_packet_view(bench->pool, handle, &packet), "ssm_packet_view");
        must(ssm_packet_tag(bench->pool, handle, &sent_ns), "ssm_packet_tag");
        way_ns -= sent_ns;
        memcpy(&sent_ns, packet.data, sizeof sent_ns); /* what the way there took */
        times_ns[i] = way_ns + sent_ns;
    }
}

static void answer_asleep(struct bench *bench)
{
    uint64_t handle, sent_ns;
    struct ssm_packet packet;

    for (uint64_t i = 0; i < trips(bench, ASLEEP_MAX); i++) {
        must(ssm_ring_get(bench->rings[0], &handle, 1, SSM_FOREVER), "ssm_ring_get");
        uint64_t way_ns = now_ns();
        must(ssm_packet_tag(bench->pool, handle, &sent_ns), "ssm_packet_tag");
        must(ssm_packet_view(bench->pool, handle, &packet), "ssm_packet_view");
        way_ns -= sent_ns;
        memcpy(packet.data, &way_ns, sizeof way_ns);
        send_later(bench->rings[1], handle, bench->pool);
    }
}

uint64_t bench_round_trip_asleep(struct bench *bench)
{
    return round_trips(bench, trips(bench, ASLEEP_MAX), ask_asleep, answer_asleep, &times_ns);
}
