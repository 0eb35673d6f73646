/* SPDX-License-Identifier: Apache-2.0
 *
 * See sandbox.h. The names are the linker's: --wrap=ssm_now_ns makes every call of it one of __wrap_ssm_now_ns(). */
#include "sandbox.h"

#include "segment.h"
#include "eventcount.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define EPOCH_NS UINT64_C(1000000000000)
#define STEP_NS  UINT64_C(100) /* each look at the clock */
#define GUARD    (UINT64_C(64) << 20)

static uint64_t now_ns = EPOCH_NS, call_ns = EPOCH_NS;

void sandbox_begin(void)
{
    now_ns = call_ns = EPOCH_NS;
}

void sandbox_call(void)
{
    call_ns = now_ns;
}

static void pass(uint64_t ns)
{
    now_ns += ns;
    if (now_ns - call_ns > SANDBOX_PATIENCE_NS) {
        fprintf(stderr, "a call waits for ever\n");
        abort();
    }
}

uint64_t __wrap_ssm_now_ns(void);
void __wrap_ssm_nap_ns(uint64_t duration_ns);
int __wrap_ssm_event_sleep(struct ssm_event *event, uint32_t seen, uint64_t until_ns);
void __wrap_ssm_word_sleep(struct ssm_u64 *word, uint32_t seen_low, uint64_t duration_ns);
uint64_t __wrap_ssm_deadline_ns(int64_t timeout_ns);
int __wrap_ssm_events_sleep(const struct ssm_watched *watched, uint32_t count, uint64_t until_ns);
uint64_t __wrap_ssm_random_u64(void);
int __wrap_ssm_segment_map(int fd, uint64_t size, bool writable, struct ssm_segment *segment_out);
void __wrap_ssm_segment_unmap(struct ssm_segment *segment);

uint64_t __wrap_ssm_now_ns(void)
{
    pass(STEP_NS);
    return now_ns;
}

void __wrap_ssm_nap_ns(uint64_t duration_ns)
{
    pass(duration_ns);
}

int __wrap_ssm_event_sleep(struct ssm_event *event, uint32_t seen, uint64_t until_ns)
{
    (void)event, (void)seen;
    pass(until_ns > now_ns ? until_ns - now_ns : 0);
    return 0;
}

void __wrap_ssm_word_sleep(struct ssm_u64 *word, uint32_t seen_low, uint64_t duration_ns)
{
    (void)word, (void)seen_low;
    pass(duration_ns);
}

uint64_t __wrap_ssm_deadline_ns(int64_t timeout_ns)
{
    return timeout_ns < 0 ? INT64_MAX : now_ns + (uint64_t)timeout_ns;
}

int __wrap_ssm_events_sleep(const struct ssm_watched *watched, uint32_t count, uint64_t until_ns)
{
    (void)count;
    return __wrap_ssm_event_sleep(watched->event, watched->seen, until_ns);
}

uint64_t __wrap_ssm_random_u64(void)
{
    return 4; /* chosen by a fair die, and the same in every run */
}

int __wrap_ssm_segment_map(int fd, uint64_t size, bool writable, struct ssm_segment *segment_out)
{
    uint8_t *room = mmap(NULL, size + 2 * GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        return -errno;
    void *base = mmap(room + GUARD, size, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0);
    if (base == MAP_FAILED) {
        int error = errno;
        munmap(room, size + 2 * GUARD);
        return -error;
    }
    *segment_out = (struct ssm_segment){.base = base, .size = size, .writable = writable};
    return 0;
}

void __wrap_ssm_segment_unmap(struct ssm_segment *segment)
{
    if (segment->base != NULL)
        munmap(segment->base - GUARD, segment->size + 2 * GUARD);
    segment->base = NULL;
}
