/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs inputs that are files: a corpus, or one that a fuzzer found. For compilers without a fuzzer of their own. */
#include "check.h"
#include "fuzz_pool.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { INPUT_MAX = 65536, WATCHDOG_S = 120 };

static void replay(const char *path)
{
    static uint8_t data[INPUT_MAX];
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL);
    size_t size = fread(data, 1, sizeof data, file);
    fclose(file);
    if (getenv("VERBOSE") != NULL)
        fprintf(stderr, "%s\n", path);
    LLVMFuzzerTestOneInput(data, size);
}

static int replay_folder(const char *folder)
{
    DIR *entries = opendir(folder);
    int count = 0;
    if (entries == NULL) {
        replay(folder);
        return 1;
    }
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        char path[4096];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        replay(path);
        count++;
    }
    closedir(entries);
    return count;
}

int main(int argc, char **argv)
{
    int count = 0;
    alarm(WATCHDOG_S);
    for (int i = 1; i < argc; i++)
        count += replay_folder(argv[i]);
    printf("%d inputs\n", count);
    return count > 0 ? 0 : 1;
}
