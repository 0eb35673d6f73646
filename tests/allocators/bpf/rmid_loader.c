/* SPDX-License-Identifier: Apache-2.0
 *
 * Loads rmid.bpf.o into the running kernel and runs its programs: the behaviour of the RMID allocator there, and
 * beside the same core compiled for user space.
 *
 *   rmid_loader FILE      0: all is as it should be, 1: not, 77: programs cannot be loaded here; says why
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

#define CANNOT 77
#define XDP_PASSED 2u
#define REST 2000000u

static struct bpf_object *object;

static int say(enum libbpf_print_level level, const char *format, va_list arguments)
{
    return level == LIBBPF_DEBUG ? 0 : vfprintf(stderr, format, arguments);
}

static void load(const char *file)
{
    libbpf_set_print(say);
    object = bpf_object__open_file(file, NULL);
    if (object == NULL) {
        fprintf(stderr, "%s cannot be opened: %s\n", file, strerror(errno));
        exit(1);
    }
    int error = -bpf_object__load(object);
    if (error == 0)
        return;
    fprintf(stderr, "the kernel does not take %s: %s\n", file, strerror(error));
    /* EACCES and EINVAL are the verifier's: that is a failure, not a reason to skip. */
    exit(error == EPERM || error == ENOSYS ? CANNOT : 1);
}

static struct rmid_request run(const char *program, struct rmid_request request)
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

static int init(al_rmid_u32 max_rmid, al_rmid_u64 rest_ns)
{
    return run("rmid_init", (struct rmid_request){.max_rmid = max_rmid, .min_free_time_ns = rest_ns}).result;
}

/* The RMID, or the negative code. */
static int alloc(al_rmid_u64 now_ns)
{
    struct rmid_request r = run("rmid_alloc", (struct rmid_request){.now_ns = now_ns});
    return r.result == AL_RMID_OK ? (int)r.rmid : r.result;
}

static int give(al_rmid_u32 rmid, al_rmid_u64 now_ns)
{
    return run("rmid_free", (struct rmid_request){.rmid = rmid, .now_ns = now_ns}).result;
}

static int is_allocated(al_rmid_u32 rmid)
{
    return run("rmid_is_allocated", (struct rmid_request){.rmid = rmid}).result;
}

static void test_init_bounds(void)
{
    CHECK_EQ(init(0, REST), AL_RMID_OUT_OF_RANGE);
    CHECK_EQ(init(AL_RMID_MAX + 1, REST), AL_RMID_OUT_OF_RANGE);
    CHECK_EQ(init(UINT32_MAX, REST), AL_RMID_OUT_OF_RANGE);
    CHECK_EQ(init(1, REST), AL_RMID_OK);
    CHECK_EQ(init(AL_RMID_MAX, REST), AL_RMID_OK);
}

static void test_allocation(void)
{
    CHECK_EQ(init(4, REST), AL_RMID_OK);
    CHECK_EQ(is_allocated(1), 0);
    CHECK_EQ(alloc(0), 1); /* fresh ones need no rest, whatever the clock says */
    CHECK_EQ(is_allocated(1), 1);
    CHECK_EQ(is_allocated(2), 0);
    struct rmid_request r = run("rmid_peek_take", (struct rmid_request){.now_ns = 0});
    CHECK_EQ(r.result, AL_RMID_OK);
    CHECK_EQ(r.rmid, 2);
    CHECK_EQ(r.used, 2);
}

static void test_exhaustion(void)
{
    CHECK_EQ(init(AL_RMID_MAX, REST), AL_RMID_OK);
    for (unsigned i = 1; i <= AL_RMID_MAX; i++)
        CHECK_EQ(alloc(7), i);
    CHECK_EQ(alloc(7), AL_RMID_NONE_FREE);
    CHECK_EQ(init(AL_RMID_MAX, REST), AL_RMID_OK);
    for (unsigned i = 1; i <= AL_RMID_MAX; i++)
        CHECK_EQ(is_allocated(i), 0); /* nothing stays allocated */
}

static void test_first_freed_first_reused(void)
{
    CHECK_EQ(init(4, REST), AL_RMID_OK);
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

    CHECK_EQ(init(1, REST), AL_RMID_OK);
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
    CHECK_EQ(init(4, REST), AL_RMID_OK);
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
    CHECK_EQ(init(2, 0), AL_RMID_OK);
    CHECK_EQ(alloc(1), 1);
    CHECK_EQ(give(1, 1), AL_RMID_OK);
    CHECK_EQ(give(1, 1), AL_RMID_ALREADY_RELEASED);
    CHECK_EQ(alloc(1), 2);
    CHECK_EQ(alloc(1), 1);
    CHECK_EQ(alloc(1), AL_RMID_NONE_FREE); /* it was not queued twice */
}

/* The kernel's and ours do the same, and leave the same bytes behind. */
static void test_beside_user_space(void)
{
    static struct al_rmid ours, theirs;
    struct bpf_map       *map = bpf_object__find_map_by_name(object, "allocator");
    al_rmid_u64           now = 0;
    al_rmid_u32           zero = 0;

    CHECK(map != NULL);
    check_seed();
    CHECK_EQ(init(10, 50), AL_RMID_OK);
    CHECK_EQ(al_rmid_init(&ours, 10, 50), AL_RMID_OK);
    for (unsigned i = 0; i < 5000; i++) {
        now += check_below(20);
        al_rmid_u64 clock = check_below(10) ? now : now - check_below(now + 1); /* another CPU's, or another namespace's */
        al_rmid_u32 rmid = 0;
        if (check_below(2)) {
            int rc = al_rmid_alloc(&ours, clock, &rmid);
            CHECK_EQ(alloc(clock), rc == AL_RMID_OK ? (int)rmid : rc);
        } else {
            rmid = (al_rmid_u32)check_below(12);
            CHECK_EQ(give(rmid, clock), al_rmid_free(&ours, rmid, clock));
        }
    }
    (void)run("rmid_recover", (struct rmid_request){0}); /* nothing to recover: nothing changes */
    CHECK_EQ(bpf_map_lookup_elem(bpf_map__fd(map), &zero, &theirs), 0);
    CHECK(memcmp(&ours, &theirs, sizeof ours) == 0);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {
        {"init bounds", test_init_bounds},
        {"allocation", test_allocation},
        {"exhaustion", test_exhaustion},
        {"first freed, first reused", test_first_freed_first_reused},
        {"free-time boundary", test_free_time_boundary},
        {"invalid ids", test_invalid_ids},
        {"double free", test_double_free},
        {"beside user space", test_beside_user_space},
    };

    if (argc != 2) {
        fprintf(stderr, "usage: %s rmid.bpf.o\n", argv[0]);
        return 1;
    }
    load(argv[1]);
    for (unsigned i = 0; i < sizeof tests / sizeof *tests; i++) {
        tests[i].run();
        printf("ok: %s\n", tests[i].name);
        fflush(stdout);
    }
    bpf_object__close(object);
    return 0;
}
