/* SPDX-License-Identifier: Apache-2.0
 *
 * Loads rmid_tasks.bpf.o, attaches it to the scheduler for a while, and prints which process had which RMID and how
 * often it was given a processor. Needs root, libbpf, and a kernel with BTF.
 *
 *   cc rmid_tasks.c -o rmid_tasks -lbpf && ./rmid_tasks rmid_tasks.bpf.o 2
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

struct process { /* as in rmid_tasks.bpf.c */
    __u32 rmid;
    __u32 reserved;
    __u64 switches;
};

static void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static void print_processes(struct bpf_object *object)
{
    int map = bpf_object__find_map_fd_by_name(object, "processes");
    __u32 tgid, *previous = NULL;
    struct process p;

    printf("%8s %6s %10s\n", "pid", "RMID", "switches");
    for (; bpf_map_get_next_key(map, previous, &tgid) == 0; previous = &tgid)
        if (bpf_map_lookup_elem(map, &tgid, &p) == 0)
            printf("%8u %6u %10llu\n", tgid, p.rmid, (unsigned long long)p.switches);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s rmid_tasks.bpf.o SECONDS\n", argv[0]);
        return 1;
    }
    struct bpf_object *object = bpf_object__open_file(argv[1], NULL);
    if (object == NULL || bpf_object__load(object) != 0)
        die(argv[1]);
    struct bpf_link *links[8];
    unsigned count = 0;
    struct bpf_program *program;
    bpf_object__for_each_program(program, object)
    {
        if ((links[count] = bpf_program__attach(program)) == NULL)
            die(bpf_program__name(program));
        count++;
    }
    usleep((useconds_t)(atof(argv[2]) * 1e6));
    print_processes(object);
    while (count > 0)
        bpf_link__destroy(links[--count]);
    bpf_object__close(object);
    return 0;
}
