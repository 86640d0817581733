/* libFuzzer target: any bytes as a counters file. The reader neither crashes nor hangs, and what
 * it accepts it adds up right.
 *
 * The first byte of the input says what is mended (mend.h) before it is read, and bit 4 makes it
 * the file of a process that lives. The file is the rest. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../csrc/base/utf8.h"
#include "../../csrc/metrics/reader.h"
#include "../c/harness.h"
#include "mend.h"

#define LIVING 16

/* Each word of each label is the sum over the rows of that label, as read by hand. */
static void
check_sums(const struct mgp_reader *reader, const struct mgp_snapshot *snapshot)
{
    uint64_t expected = 0, seen = 0;
    for (size_t i = 0; i < reader->row_count; i++) {
        const struct mgp_file_row *row =
            (const void *)(reader->rows + i * sizeof(struct mgp_file_row));
        if (mgp_atomic_load(&row->state) % 2 == 1) {
            expected += mgp_atomic_load(&row->words[MGP_WORD_HITS]);
            expected += 3 * mgp_atomic_load(&row->words[MGP_WORD_USE_SECONDS]);
        }
    }
    for (size_t i = 0; i < snapshot->row_count; i++) {
        const struct mgp_snapshot_row *row = &snapshot->rows[i];
        CHECK(row->label_size <= MGP_LABEL_MAX_BYTES);
        CHECK(mgp_utf8_is_valid(row->label, row->label_size));
        seen += row->words[MGP_WORD_HITS] + 3 * row->words[MGP_WORD_USE_SECONDS];
    }
    CHECK(seen == expected);
}

/* The end of an archive, read without its rows, is the same. */
static void
check_tail(const struct mgp_reader *reader, int file)
{
    struct mgp_reader tail;
    mgp_reader_init(&tail);
    CHECK(mgp_reader_load_tail(&tail, file) == MGP_FLAW_NONE);
    CHECK(tail.row_count == 0 && tail.folded_count == reader->folded_count);
    CHECK(tail.taken_count == reader->taken_count);
    CHECK(memcmp(tail.taken_rows, reader->taken_rows,
                 tail.taken_count * sizeof(struct mgp_taken_row)) == 0);
    CHECK(tail.request_count == reader->request_count);
    CHECK(memcmp(tail.requests, reader->requests,
                 tail.request_count * sizeof(struct mgp_label_digest)) == 0);
    for (size_t i = 0; i < tail.taken_count; i++) {
        struct mgp_taken_row row;
        memcpy(&row, tail.taken_rows + i * sizeof(row), sizeof(row));
        CHECK(mgp_reader_has_taken(&tail, row));
    }
    mgp_reader_fini(&tail);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int file = -1;
    struct mgp_reader reader;
    struct mgp_snapshot snapshot;
    if (size == 0) {
        return 0;
    }
    uint8_t how = data[0];
    size--;
    uint8_t *bytes = aligned_alloc(MGP_CACHE_LINE_BYTES,
                                   (size / MGP_CACHE_LINE_BYTES + 1) * MGP_CACHE_LINE_BYTES);
    CHECK(bytes != NULL);
    memcpy(bytes, data + 1, size);
    mend(bytes, size, how);
    if (file < 0) {
        file = memfd_create("counters", MFD_CLOEXEC);
    }
    CHECK(file >= 0 && ftruncate(file, 0) == 0);
    CHECK(pwrite(file, bytes, size, 0) == (ssize_t)size);
    free(bytes);

    enum mgp_file_kind kind = how & MEND_ARCHIVE ? MGP_FILE_ARCHIVE : MGP_FILE_PROCESS;
    enum mgp_life life = how & LIVING ? MGP_LIFE_LIVING : MGP_LIFE_FINISHED;
    mgp_reader_init(&reader);
    mgp_snapshot_init(&snapshot, (struct mgp_siphash_key){1, 2});
    if (mgp_reader_load(&reader, file, kind, NULL, life) == MGP_FLAW_NONE) {
        CHECK(mgp_reader_add(&reader, life, NULL, 0, &snapshot) == 0);
        check_sums(&reader, &snapshot);
        (void)mgp_reader_has_folded(&reader, reader.header->preamble.id);
        if (kind == MGP_FILE_ARCHIVE) {
            check_tail(&reader, file);
        }
        CHECK(mgp_snapshot_limit_rows(&snapshot, 2) == 0);
        CHECK(snapshot.row_count <= 3);
    }
    mgp_snapshot_fini(&snapshot);
    mgp_reader_fini(&reader);
    return 0;
}
