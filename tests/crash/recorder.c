/* SPDX-License-Identifier: Apache-2.0
 *
 * The recorder; see recorder.h. */
#include "recorder.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGE       UINT64_C(4096)
#define TRAP_FLAG  0x100
#define OPEN_MAX   2 /* pages that one store touches */
#define STORES_MAX (UINT32_C(1) << 18)
#define WORDS_MAX  (UINT32_C(1) << 20)

/* In memory that the child shares with who reads the recording. */
struct log {
    uint32_t             store_count, word_count;
    uint64_t             pcs[STORES_MAX];
    struct recorder_word words[WORDS_MAX];
};

/* The store that is let through. */
struct opened {
    uint32_t area;
    uint64_t at;
    uint64_t before[PAGE / 8];
};

static struct log *log_of_the_last; /* shared */
static struct recorder_area areas[RECORDER_AREAS];
static struct opened opened[OPEN_MAX];
static uint32_t open_count;
static uint8_t handler_stack[65536];

static uint8_t *page_of(const struct opened *page)
{
    return areas[page->area].base + page->at;
}

static bool is_open(uint32_t area, uint64_t at)
{
    for (uint32_t i = 0; i < open_count; i++)
        if (opened[i].area == area && opened[i].at == at)
            return true;
    return false;
}

/* False: it is none of the recorded memory, or the fault has another reason. */
static bool open_page(uint64_t address)
{
    for (uint32_t area = 0; area < RECORDER_AREAS; area++) {
        const uint64_t offset = address - (uint64_t)(uintptr_t)areas[area].base, at = offset / PAGE * PAGE;
        if (offset >= areas[area].bytes || is_open(area, at) || open_count == OPEN_MAX)
            continue;
        struct opened *page = &opened[open_count++];
        page->area = area;
        page->at = at;
        memcpy(page->before, page_of(page), PAGE);
        return mprotect(page_of(page), PAGE, PROT_READ | PROT_WRITE) == 0;
    }
    return false;
}

static void on_fault(int signal_number, siginfo_t *info, void *context)
{
    ucontext_t *registers = context;
    log_of_the_last->pcs[log_of_the_last->store_count] = (uint64_t)registers->uc_mcontext.gregs[REG_RIP];
    if (open_page((uint64_t)(uintptr_t)info->si_addr))
        registers->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
    else
        signal(signal_number, SIG_DFL); /* it happens once more, and ends the process */
}

static void write_down(const struct opened *page)
{
    uint64_t now[PAGE / 8];
    memcpy(now, page_of(page), PAGE);
    for (uint64_t i = 0; i < PAGE / 8; i++)
        if (now[i] != page->before[i])
            log_of_the_last->words[log_of_the_last->word_count++] = (struct recorder_word){
                log_of_the_last->store_count, page->area, page->at + i * 8, now[i]};
}

static void on_step(int signal_number, siginfo_t *info, void *context)
{
    ucontext_t *registers = context;
    const uint32_t words = log_of_the_last->word_count;
    (void)signal_number, (void)info;
    if (words + OPEN_MAX * PAGE / 8 > WORDS_MAX || log_of_the_last->store_count + 2 > STORES_MAX)
        abort();
    while (open_count > 0) {
        write_down(&opened[--open_count]);
        mprotect(page_of(&opened[open_count]), PAGE, PROT_READ);
    }
    log_of_the_last->store_count += log_of_the_last->word_count != words;
    registers->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
}

void recorder_begin(void)
{
    struct sigaction fault = {.sa_flags = SA_SIGINFO | SA_ONSTACK}, stepped = fault;
    const stack_t stack = {.ss_sp = handler_stack, .ss_size = sizeof handler_stack};
    fault.sa_sigaction = on_fault;
    stepped.sa_sigaction = on_step;
    if (sigaltstack(&stack, NULL) != 0 || sigaction(SIGSEGV, &fault, NULL) != 0 ||
        sigaction(SIGTRAP, &stepped, NULL) != 0)
        abort();
    for (int area = 0; area < RECORDER_AREAS; area++)
        if (mprotect(areas[area].base, areas[area].bytes, PROT_READ) != 0)
            abort();
}

bool recorder_run(struct recording *recording_out, const struct recorder_area of[RECORDER_AREAS],
                  void (*child)(void *context), void *context, unsigned seconds)
{
    int status;
    if (log_of_the_last == NULL)
        log_of_the_last = mmap(NULL, sizeof *log_of_the_last, PROT_READ | PROT_WRITE,
                               MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (log_of_the_last == MAP_FAILED)
        abort();
    memcpy(areas, of, sizeof areas);
    log_of_the_last->store_count = log_of_the_last->word_count = 0;
    const pid_t pid = _Fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(seconds);
        child(context);
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return false;
    *recording_out = (struct recording){log_of_the_last->words, log_of_the_last->pcs, log_of_the_last->word_count,
                                        log_of_the_last->store_count};
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}
