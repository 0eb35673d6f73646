/* SPDX-License-Identifier: Apache-2.0
 *
 * Loads BPF objects into the running kernel, one program at a time, and runs the programs: whether the verifier takes
 * each of them, and whether the RMID allocator behaves there, and as the core compiled for user space does.
 *
 *   rmid_loader FILE...     0: all is as it should be, 1: not, 77: programs cannot be loaded here; says why
 *
 * A line for each object: what the verifier said of its programs by kind, and how many behaviours were tried.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "../../c/check.h"
#include "rmid_request.h"

#define CANNOT       77
#define PROGRAMS_MAX 64
#define XDP_PASSED   2u
#define REST         2000000u

static struct bpf_object *object;
static const char *place; /* of the allocator: the first part of a program's name */
static char said[2048];   /* the last that libbpf had to say */

static int say(enum libbpf_print_level level, const char *format, va_list arguments)
{
    char line[sizeof said];

    if (level != LIBBPF_DEBUG && vsnprintf(line, sizeof line, format, arguments) > 0)
        memcpy(said, line, sizeof said);
    return 0;
}

static struct bpf_object *open_object(const char *file)
{
    struct bpf_object *o = bpf_object__open_file(file, NULL);

    if (o == NULL) {
        fprintf(stderr, "%s cannot be opened: %s\n", file, strerror(errno));
        exit(1);
    }
    return o;
}

/* EACCES and EINVAL are the verifier's: that is a failure, not a reason to skip. */
static void cannot_load(const char *file, const char *program, int error)
{
    fprintf(stderr, "%s: the kernel does not take %s: %s\n%s", file, program, strerror(error), said);
    exit(error == EPERM || error == ENOSYS ? CANNOT : 1);
}

/* Each program by itself, so that a rejected one is named and says nothing about the others. */
static void verify_each(const char *file)
{
    char names[PROGRAMS_MAX][64];
    unsigned count = 0, xdp = 0, tracing = 0, raw = 0;

    object = open_object(file);
    struct bpf_program *p;
    bpf_object__for_each_program(p, object)
    {
        CHECK(count < PROGRAMS_MAX);
        (void)snprintf(names[count++], sizeof names[0], "%s", bpf_program__name(p));
    }
    bpf_object__close(object);
    for (unsigned i = 0; i < count; i++) {
        object = open_object(file);
        bpf_object__for_each_program(p, object)
        {
            bool this = strcmp(bpf_program__name(p), names[i]) == 0;
            bpf_program__set_autoload(p, this);
            if (this) {
                xdp += bpf_program__type(p) == BPF_PROG_TYPE_XDP;
                tracing += bpf_program__type(p) == BPF_PROG_TYPE_TRACING;
                raw += bpf_program__type(p) == BPF_PROG_TYPE_RAW_TRACEPOINT;
            }
        }
        int error = -bpf_object__load(object);
        if (error != 0)
            cannot_load(file, names[i], error);
        bpf_object__close(object);
    }
    printf("%s: accepted: %u xdp, %u tp_btf, %u raw tracepoint", file, xdp, tracing, raw);
}

static bool is_tracing(const struct bpf_program *p)
{
    return bpf_program__type(p) != BPF_PROG_TYPE_XDP;
}

/* The XDP programs together, to be run. */
static void load(const char *file)
{
    struct bpf_program *p;

    object = open_object(file);
    bpf_object__for_each_program(p, object) bpf_program__set_autoload(p, !is_tracing(p));
    int error = -bpf_object__load(object);
    if (error != 0)
        cannot_load(file, "its programs", error);
}

static struct rmid_request run_program(const char *program, struct rmid_request request)
{
    LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = &request, .data_size_in = sizeof request, .data_out = &request,
                .data_size_out = sizeof request);
    struct bpf_program *p = bpf_object__find_program_by_name(object, program);

    CHECK(p != NULL);
    int error = bpf_prog_test_run_opts(bpf_program__fd(p), &options);
    if (error != 0) {
        fprintf(stderr, "%s cannot be run: %s\n", program, strerror(errno));
        exit(errno == EPERM || errno == ENOTSUP ? CANNOT : 1);
    }
    CHECK_EQ(options.retval, XDP_PASSED);
    return request;
}

static struct rmid_request run(const char *operation, struct rmid_request request)
{
    char name[64];

    (void)snprintf(name, sizeof name, "%s_%s", place, operation);
    return run_program(name, request);
}

static bool init(al_rmid_u32 max_rmid, al_rmid_u64 rest_ns)
{
    return run("init", (struct rmid_request){.max_rmid = max_rmid, .min_free_time_ns = rest_ns}).result;
}

/* The RMID, or the negative code. */
static int alloc(al_rmid_u64 now_ns)
{
    struct rmid_request r = run("core_alloc", (struct rmid_request){.now_ns = now_ns});
    return r.result == AL_RMID_OK ? (int)r.rmid : r.result;
}

static int give(al_rmid_u32 rmid, al_rmid_u64 now_ns)
{
    return run("core_free", (struct rmid_request){.rmid = rmid, .now_ns = now_ns}).result;
}

static int is_allocated(al_rmid_u32 rmid)
{
    return run("is_allocated", (struct rmid_request){.rmid = rmid}).result;
}

static void test_init_bounds(void)
{
    CHECK(!init(0, REST));
    CHECK(!init(AL_RMID_MAX + 1, REST));
    CHECK(!init(UINT32_MAX, REST));
    CHECK(init(1, REST));
    CHECK(init(AL_RMID_MAX, REST));
}

static void test_allocation(void)
{
    CHECK(init(4, REST));
    CHECK_EQ(is_allocated(1), 0);
    CHECK_EQ(alloc(0), 1); /* fresh ones need no rest, whatever the clock says */
    CHECK_EQ(is_allocated(1), 1);
    CHECK_EQ(is_allocated(2), 0);
    struct rmid_request r = run("peek_take", (struct rmid_request){.now_ns = 0});
    CHECK_EQ(r.result, AL_RMID_OK);
    CHECK_EQ(r.rmid, 2);
    CHECK_EQ(r.used, 2);
}

/* What a BPF program calls: 0 for none, and no word of a free that does nothing. */
static void test_the_users_calls(void)
{
    CHECK(init(1, REST));
    CHECK_EQ(run("alloc", (struct rmid_request){.now_ns = 1}).rmid, 1);
    CHECK_EQ(run("alloc", (struct rmid_request){.now_ns = 1}).rmid, 0);
    CHECK_EQ(run("free", (struct rmid_request){.now_ns = 1, .rmid = 2}).used, 1);
    CHECK_EQ(run("free", (struct rmid_request){.now_ns = 1, .rmid = 1}).used, 0);
    CHECK_EQ(run("free", (struct rmid_request){.now_ns = 1, .rmid = 1}).used, 0);
    CHECK_EQ(run("alloc", (struct rmid_request){.now_ns = REST}).rmid, 0);
    CHECK_EQ(run("alloc", (struct rmid_request){.now_ns = 1 + REST}).rmid, 1);
}

static void test_exhaustion(void)
{
    CHECK(init(AL_RMID_MAX, REST));
    for (unsigned i = 1; i <= AL_RMID_MAX; i++)
        CHECK_EQ(alloc(7), i);
    CHECK_EQ(alloc(7), AL_RMID_NONE_FREE);
    CHECK(init(AL_RMID_MAX, REST));
    for (unsigned i = 1; i <= AL_RMID_MAX; i++)
        CHECK_EQ(is_allocated(i), 0); /* nothing stays allocated */
}

static void test_first_freed_first_reused(void)
{
    CHECK(init(4, REST));
    for (int i = 1; i <= 4; i++)
        CHECK_EQ(alloc(100), i);
    CHECK_EQ(give(3, 100), AL_RMID_OK);
    CHECK_EQ(give(1, 101), AL_RMID_OK);
    CHECK_EQ(give(4, 102), AL_RMID_OK);
    CHECK_EQ(alloc(102 + REST), 3);
    CHECK_EQ(alloc(102 + REST), 1);
    CHECK_EQ(alloc(102 + REST), 4);
    CHECK_EQ(alloc(102 + REST), AL_RMID_NONE_FREE);
}

static void test_free_time_boundary(void)
{
    const al_rmid_u64 t = 5000;

    CHECK(init(1, REST));
    CHECK_EQ(alloc(t), 1);
    CHECK_EQ(give(1, t), AL_RMID_OK);
    CHECK_EQ(alloc(t), AL_RMID_RESTING);
    CHECK_EQ(alloc(t + REST - 1), AL_RMID_RESTING); /* one nanosecond before */
    CHECK_EQ(alloc(t - 1), AL_RMID_RESTING);        /* another CPU's clock, behind */
    CHECK_EQ(alloc(0), AL_RMID_RESTING);
    CHECK_EQ(alloc(t + REST), 1); /* exactly */
}

static void test_invalid_ids(void)
{
    CHECK(init(4, REST));
    CHECK_EQ(alloc(1), 1);
    const al_rmid_u32 wrong[] = {0, 5, AL_RMID_MAX, AL_RMID_MAX + 1, UINT32_MAX};
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        CHECK_EQ(give(wrong[i], 1), AL_RMID_OUT_OF_RANGE);
        CHECK_EQ(is_allocated(wrong[i]), 0);
    }
    CHECK_EQ(give(2, 1), AL_RMID_NEVER_ALLOCATED);
}

static void test_double_free(void)
{
    CHECK(init(2, 0));
    CHECK_EQ(alloc(1), 1);
    CHECK_EQ(give(1, 1), AL_RMID_OK);
    CHECK_EQ(give(1, 1), AL_RMID_ALREADY_RELEASED);
    CHECK_EQ(alloc(1), 2);
    CHECK_EQ(alloc(1), 1);
    CHECK_EQ(alloc(1), AL_RMID_NONE_FREE); /* it was not queued twice */
}

/* The kernel's bytes of the allocator. */
static void read_place(struct al_rmid *out)
{
    static char value[sizeof(struct al_rmid) + 64];
    bool global = strcmp(place, "global") == 0;
    al_rmid_u32 zero = 0;
    struct bpf_map *map = bpf_object__find_map_by_name(object, global ? ".bss" : place);

    if (map == NULL) { /* libbpf puts a part of the object's name in front of it */
        bpf_object__for_each_map(map, object) if (strstr(bpf_map__name(map), ".bss") != NULL) break;
    }
    CHECK(map != NULL && bpf_map__value_size(map) <= sizeof value);
    CHECK_EQ(bpf_map_lookup_elem(bpf_map__fd(map), &zero, value), 0);
    memcpy(out, value + (strcmp(place, "locked") == 0 ? 8 : 0), sizeof *out);
}

/* The kernel's and ours do the same, and leave the same bytes behind. */
static void test_beside_user_space(void)
{
    static struct al_rmid ours, theirs;
    al_rmid_u64 now = 0;

    CHECK(init(10, 50));
    CHECK_EQ(al_rmid_init(&ours, 10, 50), AL_RMID_OK);
    for (unsigned i = 0; i < 2000; i++) {
        now += check_below(20);
        al_rmid_u64 clock = check_below(10) ? now
                                            : now - check_below(now + 1); /* another CPU's, or another namespace's */
        al_rmid_u32 rmid = 0;
        if (check_below(2)) {
            int result = al_rmid_alloc(&ours, clock, &rmid);
            CHECK_EQ(alloc(clock), result == AL_RMID_OK ? (int)rmid : result);
        } else {
            rmid = (al_rmid_u32)check_below(12);
            CHECK_EQ(give(rmid, clock), al_rmid_free(&ours, rmid, clock));
        }
    }
    (void)run("recover", (struct rmid_request){0}); /* nothing to recover: nothing changes */
    read_place(&theirs);
    CHECK(memcmp(&ours, &theirs, sizeof ours) == 0);
}

static void (*const tests[])(void) = {
    test_init_bounds,
    test_allocation,
    test_the_users_calls,
    test_exhaustion,
    test_first_freed_first_reused,
    test_free_time_boundary,
    test_invalid_ids,
    test_double_free,
    test_beside_user_space,
};

static void behave(const char *file)
{
    static const char *const places[] = {"map", "locked", "global"};
    unsigned tried = 0;

    load(file);
    if (bpf_object__find_program_by_name(object, "first_steps") != NULL) {
        (void)run_program("first_steps", (struct rmid_request){0});
        tried = 1;
    } else if (bpf_object__find_program_by_name(object, "map_init") != NULL) {
        for (unsigned i = 0; i < 3; i++) {
            place = places[i];
            for (unsigned k = 0; k < sizeof tests / sizeof *tests; k++, tried++)
                tests[k]();
        }
    }
    bpf_object__close(object);
    printf("; run: %u behaviours\n", tried);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: %s FILE.bpf.o...\n", argv[0]);
        return 1;
    }
    libbpf_set_print(say);
    check_seed();
    for (int i = 1; i < argc; i++) {
        verify_each(argv[i]);
        behave(argv[i]);
    }
    return 0;
}
