/* libFuzzer target: any bytes as a counters file. The reader neither crashes nor hangs, and what
 * it accepts it adds up right: a file that was accepted, folded into an archive, reads as before.
 *
 *     clang -g -O1 -std=c11 -fsanitize=fuzzer,address,undefined -DMGP_DEBUG \
 *         tests/fuzz/fuzz_segment.c csrc/base/[a-z]*.c csrc/metrics/[a-z]*.c -o fuzz_segment
 *     ./fuzz_segment -max_total_time=300 -max_len=20000 -timeout=5 tests/fuzz/corpus/segment
 *
 * Most bytes fail a checksum, so the first byte of the input says what is mended before it
 * is read: bit 0 the magic number, version and sizes, bit 1 the checksum of the header,
 * bit 2 the checks and numbers of the rows, bit 3 makes it an archive, bit 4 a process that
 * lives. The file is the rest. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../csrc/base/utf8.h"
#include "../../csrc/metrics/reader.h"

enum mend {
    MEND_MEANING = 1,
    MEND_CHECKSUM = 2,
    MEND_ROWS = 4,
    MEND_ARCHIVE = 8,
    MEND_LIVING = 16,
};

static void
check(int condition)
{
    if (!condition) {
        abort();
    }
}

static void
mend(uint8_t *bytes, size_t size, uint8_t how)
{
    if (size < MGP_FILE_HEADER_BYTES) {
        return;
    }
    struct mgp_file_header *header = (void *)bytes;
    if (how & MEND_MEANING) {
        uint32_t folded = header->preamble.folded_count % 8;
        header->preamble = mgp_preamble(how & MEND_ARCHIVE ? MGP_FILE_ARCHIVE : MGP_FILE_PROCESS,
                                        header->preamble.id, how & MEND_ARCHIVE ? folded : 0);
    }
    if (how & MEND_CHECKSUM) {
        header->preamble.checksum = mgp_preamble_checksum(&header->preamble);
    }
    if (!(how & MEND_ROWS)) {
        return;
    }
    struct mgp_file_row *rows = (void *)(bytes + MGP_FILE_HEADER_BYTES);
    for (size_t i = 0; i < (size - MGP_FILE_HEADER_BYTES) / sizeof(*rows); i++) {
        rows[i].number = (uint32_t)i;
        rows[i].label_size %= MGP_LABEL_MAX_BYTES + 1;
        rows[i].check =
            mgp_label_check(mgp_atomic_load(&rows[i].state), rows[i].label, rows[i].label_size);
    }
    if (mgp_atomic_load(&header->row_count) > MGP_FILE_MAX_ROWS) {
        mgp_atomic_store(&header->row_count, mgp_atomic_load(&header->row_count) % 4);
    }
}

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
        check(row->label_size <= MGP_LABEL_MAX_BYTES);
        check(mgp_utf8_is_valid(row->label, row->label_size));
        seen += row->words[MGP_WORD_HITS] + 3 * row->words[MGP_WORD_USE_SECONDS];
    }
    check(seen == expected);
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
    check(bytes != NULL);
    memcpy(bytes, data + 1, size);
    mend(bytes, size, how);
    if (file < 0) {
        file = memfd_create("counters", MFD_CLOEXEC);
    }
    check(file >= 0 && ftruncate(file, 0) == 0);
    check(pwrite(file, bytes, size, 0) == (ssize_t)size);
    free(bytes);

    enum mgp_file_kind kind = how & MEND_ARCHIVE ? MGP_FILE_ARCHIVE : MGP_FILE_PROCESS;
    enum mgp_life life = how & MEND_LIVING ? MGP_LIFE_LIVING : MGP_LIFE_FINISHED;
    mgp_reader_init(&reader);
    mgp_snapshot_init(&snapshot, (struct mgp_siphash_key){1, 2});
    if (mgp_reader_load(&reader, file, kind, NULL, life) == MGP_FLAW_NONE) {
        check(mgp_reader_add(&reader, life, &snapshot) == 0);
        check_sums(&reader, &snapshot);
        (void)mgp_reader_has_folded(&reader, reader.header->preamble.id);
        check(mgp_snapshot_limit_rows(&snapshot, 2) == 0);
        check(snapshot.row_count <= 3);
    }
    mgp_snapshot_fini(&snapshot);
    mgp_reader_fini(&reader);
    return 0;
}
