/* Runs a fuzz target on files, without libFuzzer: each argument is a file, or a folder of files.
 * Prints how many there were; 1 where there was none. */
#define _GNU_SOURCE
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Of those targets that need one. */
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));

static unsigned file_count;

static void
run_file(const char *path, size_t size)
{
    /* As large as the file: a read beyond its end is one beyond the block. */
    uint8_t *bytes = malloc(size == 0 ? 1 : size);
    FILE *file = fopen(path, "rb");
    if (file == NULL || bytes == NULL || fread(bytes, 1, size, file) != size) {
        perror(path);
        exit(1);
    }
    fclose(file);
    LLVMFuzzerTestOneInput(bytes, size);
    free(bytes);
    file_count++;
}

static void
run_path(const char *path)
{
    struct stat status;
    if (stat(path, &status) < 0) {
        perror(path);
        exit(1);
    }
    if (!S_ISDIR(status.st_mode)) {
        run_file(path, (size_t)status.st_size);
        return;
    }
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char inner[4096];
        if (entries[i]->d_name[0] != '.') {
            snprintf(inner, sizeof(inner), "%s/%s", path, entries[i]->d_name);
            run_path(inner);
        }
        free(entries[i]);
    }
    if (count >= 0) {
        free(entries);
    }
}

int
main(int argc, char **argv)
{
    if (LLVMFuzzerInitialize != NULL) {
        LLVMFuzzerInitialize(&argc, &argv);
    }
    for (int i = 1; i < argc; i++) {
        run_path(argv[i]);
    }
    printf("%u inputs\n", file_count);
    return file_count == 0;
}
