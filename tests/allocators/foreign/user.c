/* SPDX-License-Identifier: Apache-2.0
 *
 * A user of the library: each allocator once, on memory of the program's own. Returns how many things went wrong.
 * C and C++; with FREESTANDING it is its own start, and calls nobody but the library.
 */
#include <allocators.h>

#if defined(__GNUC__)
#define ALIGNED __attribute__((aligned(64)))
#endif

static ALIGNED unsigned char memory[1 << 16];
static unsigned wrong;

static void expect(bool is_so)
{
    wrong += !is_so;
}

static void use_ids(void)
{
    struct al_id ids;
    uint32_t id = 0;

    expect(al_id_init(&ids, memory, sizeof memory, 5, 23, 19) == AL_OK);
    for (uint32_t i = 5; i <= 23; i++)
        expect(al_id_alloc(&ids, &id) == AL_OK && id == i);
    expect(al_id_alloc(&ids, &id) == AL_NOT_AVAILABLE);
    expect(al_id_free(&ids, 7) == AL_OK && al_id_free(&ids, 7) == AL_ALREADY_RELEASED);
    expect(al_id_peek(&ids, &id) == AL_OK && id == 7 && !al_id_is_allocated(&ids, 7));
    expect(al_id_used_count(&ids) == 18 && al_id_check(&ids, NULL, NULL) == 0);
}

static void use_pids(void)
{
    struct al_pid pids;
    uint32_t pid = 1;

    expect(al_pid_init(&pids, memory, sizeof memory, 2) == AL_OK);
    expect(al_pid_alloc(&pids, &pid) == AL_OK && pid == 0 && al_pid_is_allocated(&pids, 0));
    expect(al_pid_free(&pids, 0) == AL_OK && al_pid_check(&pids, NULL, NULL) == 0);
}

static void use_ranges(void)
{
    struct al_tree tree;
    struct al_tree_constraint c = {0x1000, 0x1000, 0, UINT64_MAX, 0, AL_TREE_LAST};
    uint64_t start = 0;

    expect(al_tree_init(&tree, memory, sizeof memory, 64) == AL_OK);
    expect(al_tree_insert(&tree, 0x1000, 0x10fff, AL_TREE_FREE, 0, NULL) == AL_OK);
    expect(al_tree_alloc(&tree, &c, 0, &start) == AL_OK && start == 0x10000);
    expect(al_tree_free(&tree, 0x10000, 0x10fff) == AL_OK && al_tree_check(&tree, NULL, NULL) == 0);
}

static void use_rmids(void)
{
    static struct al_rmid rmids;
    al_rmid_u32 rmid = 0;

    expect(al_rmid_init(&rmids, 4, AL_RMID_DEFAULT_REST_NS) == AL_RMID_OK);
    expect(al_rmid_alloc(&rmids, 100, &rmid) == AL_RMID_OK && rmid == 1);
    expect(al_rmid_free(&rmids, rmid, 100) == AL_RMID_OK && al_rmid_check(&rmids, NULL, NULL) == 0);
}

static int use_all(void)
{
    use_ids();
    use_pids();
    use_ranges();
    use_rmids();
    return (int)wrong;
}

#ifdef FREESTANDING
/* What a bare target brings itself. */
void *memset(void *at, int value, __SIZE_TYPE__ bytes)
{
    for (volatile unsigned char *p = (volatile unsigned char *)at; bytes-- > 0;)
        *p++ = (unsigned char)value;
    return at;
}

void *memcpy(void *to, const void *from, __SIZE_TYPE__ bytes)
{
    volatile unsigned char *p = (volatile unsigned char *)to;
    for (const unsigned char *q = (const unsigned char *)from; bytes-- > 0;)
        *p++ = *q++;
    return to;
}

#ifdef EXIT
__attribute__((noreturn, used, force_align_arg_pointer)) void _start(void)
{
    EXIT(use_all());
}
#else
int main_of_a_bare_target(void)
{
    return use_all();
}
#endif
#else
int main(void)
{
    return use_all();
}
#endif
