/* The layout of a counters file: one for each process that counts, and one archive of those
 * that have finished. Words are in the byte order of the machine: a file from elsewhere has
 * another magic number.
 *
 *  offset  size  what
 *  ------  ----  ---------------------------------------------------------------------
 *       0     8  magic number
 *       8     4  version of this layout
 *      12     4  kind: 1 a process, 2 an archive
 *      16     8  fingerprint of layout and series, see mgp_layout_fingerprint()
 *      24     4  words in a row
 *      28     4  words of the process
 *      32     4  bytes from row to row, a multiple of 64
 *      36     4  archive: ids behind the rows; else 0
 *      40    16  id: random; a process file has it in its name, too
 *      56     8  SipHash-1-3 of bytes 0 to 55
 *      64     8  change: odd while a row is frozen or taken away
 *      72     8  rows that were ever in use: the first so many
 *      80     4  archive: frozen rows that it has taken; else 0
 *      84     4  archive: labels that are to be forgotten; else 0
 *     128     …  words of the process, 8 bytes each
 *    4096     …  rows
 *     end    16  archive: each id of a file that it contains and that may still be there
 *      …     32  archive: each frozen row that it contains and that may still be in its file:
 *                 id of the file, number, state; in the order of their bytes
 *      …     16  archive: each label that is to be forgotten, its digest; in the same order
 *
 *  a row:
 *       0     8  state: odd in use, even free; rises with each change
 *       8     8  SipHash-1-3 of the label, with the state in its key
 *      16     4  bytes of the label, at most 256
 *      20     4  number of the row
 *      24   256  label, UTF-8
 *     280     8  frozen: when it was counted in last, in seconds since 1970; 0: it may still be
 *     320     …  words, 8 bytes each; then zeros up to a multiple of 64
 *
 * Who writes: the process that made the file, and nobody once it is gone. Counters are added to
 * in place. Bytes 0 to 63 never change. A row is given a label, then its state is in use. It is
 * taken away in this order: change odd, state free, words zero, change even. A row that is frozen
 * is not counted in again; its owner takes it away when an archive says that it contains it
 * (forgetting.h). The file is never made shorter, and rows never move.
 * Who reads: any process, by pread(), at any time, believing nothing. A label that was read
 * while it changed fails its check; words that were read while their row was taken away, and
 * perhaps given to another label, are known by `change`. */
#ifndef MGP_METRICS_LAYOUT_H
#define MGP_METRICS_LAYOUT_H

#include <assert.h>
#include <stdalign.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../base/atomic.h"
#include "../base/siphash.h"
#include "series.h"

#define MGP_FILE_MAGIC UINT64_C(0x3152544e43504d0a) /* "\nMPCNTR1" on a little-endian machine */
#define MGP_FILE_VERSION 2
#define MGP_FILE_HEADER_BYTES 4096
#define MGP_FILE_MAX_ROWS 262144 /* what readers are ready to take from one file */
#define MGP_LABEL_MAX_BYTES 256
#define MGP_CACHE_LINE_BYTES 64

enum mgp_file_kind { MGP_FILE_PROCESS = 1, MGP_FILE_ARCHIVE = 2 };

struct mgp_file_id {
    uint64_t parts[2];
};

/* What never changes: the first 64 bytes. */
struct mgp_file_preamble {
    uint64_t magic;
    uint32_t version;
    uint32_t kind;
    uint64_t fingerprint;
    uint32_t word_count;
    uint32_t process_word_count;
    uint32_t row_bytes;
    uint32_t folded_count;
    struct mgp_file_id id;
    uint64_t checksum;
};

struct mgp_file_header {
    struct mgp_file_preamble preamble;
    mgp_atomic_u64 change;
    mgp_atomic_u64 row_count;
    uint32_t taken_count;
    uint32_t request_count;
    uint8_t unused[40];
    alignas(MGP_CACHE_LINE_BYTES) mgp_atomic_u64 process_words[MGP_PROCESS_WORD_COUNT];
};

/* A row. Its words begin on a cache line: two gateways that two threads count do not slow
 * each other down. */
struct mgp_file_row {
    mgp_atomic_u64 state;
    uint64_t check;
    uint32_t label_size;
    uint32_t number;
    uint8_t label[MGP_LABEL_MAX_BYTES];
    mgp_atomic_u64 frozen_at;
    uint8_t unused[32];
    alignas(MGP_CACHE_LINE_BYTES) mgp_atomic_u64 words[MGP_WORD_COUNT];
};

/* A frozen row, as an archive names it. Its state is that of one life: a row that was taken away
 * and is in use again has another. */
struct mgp_taken_row {
    struct mgp_file_id file;
    uint64_t number;
    uint64_t state;
};

/* Stands for a label in 16 bytes; no two labels that anybody has meet. */
struct mgp_label_digest {
    uint64_t parts[2];
};

static_assert(sizeof(struct mgp_file_preamble) == 64, "layout");
static_assert(offsetof(struct mgp_file_preamble, checksum) == 56, "layout");
static_assert(offsetof(struct mgp_file_header, change) == 64, "layout");
static_assert(offsetof(struct mgp_file_header, process_words) == 128, "layout");
static_assert(sizeof(struct mgp_file_header) <= MGP_FILE_HEADER_BYTES, "layout");
static_assert(offsetof(struct mgp_file_header, request_count) == 84, "layout");
static_assert(offsetof(struct mgp_file_row, label) == 24, "layout");
static_assert(offsetof(struct mgp_file_row, frozen_at) == 280, "layout");
static_assert(sizeof(struct mgp_taken_row) == 32, "layout");
static_assert(offsetof(struct mgp_file_row, words) == 320, "layout");
static_assert(sizeof(struct mgp_file_row) % MGP_CACHE_LINE_BYTES == 0, "layout");
static_assert(sizeof(mgp_atomic_u64) == sizeof(uint64_t), "layout");

/* What the words of a file mean, and where they are. It is in the names of archives, so that no
 * version of this package touches the archive of another. */
static inline uint64_t
mgp_layout_fingerprint(void)
{
    uint64_t series = mgp_series_fingerprint();
    return mgp_siphash((struct mgp_siphash_key){MGP_FILE_MAGIC, MGP_FILE_VERSION}, &series,
                       sizeof(series));
}

/* Keys that everybody knows: these digests find accidents, they keep nobody out. */
static inline uint64_t
mgp_preamble_checksum(const struct mgp_file_preamble *preamble)
{
    return mgp_siphash((struct mgp_siphash_key){MGP_FILE_MAGIC, 0}, preamble,
                       offsetof(struct mgp_file_preamble, checksum));
}

static inline uint64_t
mgp_label_check(uint64_t state, const uint8_t *label, size_t size)
{
    return mgp_siphash((struct mgp_siphash_key){MGP_FILE_MAGIC, state}, label, size);
}

static inline struct mgp_label_digest
mgp_label_digest(const void *label, size_t size)
{
    return (struct mgp_label_digest){
        {mgp_siphash((struct mgp_siphash_key){MGP_FILE_MAGIC, UINT64_MAX}, label, size),
         mgp_siphash((struct mgp_siphash_key){MGP_FILE_MAGIC, UINT64_MAX - 1}, label, size)}};
}

static inline bool
mgp_file_row_is_used(uint64_t state)
{
    return state % 2 == 1;
}

static inline struct mgp_file_preamble
mgp_preamble(enum mgp_file_kind kind, struct mgp_file_id id, uint32_t folded_count)
{
    struct mgp_file_preamble preamble = {
        .magic = MGP_FILE_MAGIC,
        .version = MGP_FILE_VERSION,
        .kind = (uint32_t)kind,
        .fingerprint = mgp_layout_fingerprint(),
        .word_count = MGP_WORD_COUNT,
        .process_word_count = MGP_PROCESS_WORD_COUNT,
        .row_bytes = sizeof(struct mgp_file_row),
        .folded_count = folded_count,
        .id = id,
    };
    preamble.checksum = mgp_preamble_checksum(&preamble);
    return preamble;
}

#endif
