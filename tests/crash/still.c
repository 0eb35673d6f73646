/* SPDX-License-Identifier: Apache-2.0
 *
 * Time while all others stand still; see still.h. The linker puts these functions before those of the core (--wrap). */
#include "still.h"

#include "eventcount.h"

#include <time.h>

#define LOOK_NS UINT64_C(100) /* so much passes with each look at the clock: who polls it comes to an end */

static bool is_still;
static uint64_t still_ns;

int __real_clock_gettime(clockid_t clock, struct timespec *now_out);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now_out);
void __real_ssm_nap_ns(uint64_t duration_ns);
void __wrap_ssm_nap_ns(uint64_t duration_ns);
void __real_ssm_word_sleep(struct ssm_u64 *word, uint32_t seen_low, uint64_t duration_ns);
void __wrap_ssm_word_sleep(struct ssm_u64 *word, uint32_t seen_low, uint64_t duration_ns);
int __real_ssm_event_sleep(struct ssm_event *event, uint32_t seen, uint64_t until_ns);
int __wrap_ssm_event_sleep(struct ssm_event *event, uint32_t seen, uint64_t until_ns);
int __real_ssm_events_sleep(const struct ssm_watched *watched, uint32_t count, uint64_t until_ns);
int __wrap_ssm_events_sleep(const struct ssm_watched *watched, uint32_t count, uint64_t until_ns);

void still_begin(uint64_t later_ns)
{
    still_ns = ssm_now_ns() + later_ns;
    is_still = true;
}

static void pass_until(uint64_t until_ns)
{
    if (until_ns > still_ns)
        still_ns = until_ns;
}

/* All clocks are one: none differs from the next by more than a constant. */
int __wrap_clock_gettime(clockid_t clock, struct timespec *now_out)
{
    if (!is_still)
        return __real_clock_gettime(clock, now_out);
    still_ns += LOOK_NS;
    *now_out = (struct timespec){.tv_sec = (time_t)(still_ns / 1000000000u), .tv_nsec = (long)(still_ns % 1000000000u)};
    return 0;
}

void __wrap_ssm_nap_ns(uint64_t duration_ns)
{
    if (is_still)
        pass_until(still_ns + duration_ns);
    else
        __real_ssm_nap_ns(duration_ns);
}

void __wrap_ssm_word_sleep(struct ssm_u64 *word, uint32_t seen_low, uint64_t duration_ns)
{
    if (!is_still)
        __real_ssm_word_sleep(word, seen_low, duration_ns);
    else if ((uint32_t)ssm_load_acquire_u64(word) == seen_low)
        pass_until(still_ns + duration_ns);
}

int __wrap_ssm_event_sleep(struct ssm_event *event, uint32_t seen, uint64_t until_ns)
{
    if (!is_still)
        return __real_ssm_event_sleep(event, seen, until_ns);
    if (ssm_load_acquire_u32(&event->word) == seen)
        pass_until(until_ns);
    return 0;
}

int __wrap_ssm_events_sleep(const struct ssm_watched *watched, uint32_t count, uint64_t until_ns)
{
    if (!is_still)
        return __real_ssm_events_sleep(watched, count, until_ns);
    for (uint32_t i = 0; i < count; i++)
        if (ssm_load_acquire_u32(&watched[i].event->word) != watched[i].seen)
            return 0;
    pass_until(until_ns);
    return 0;
}
