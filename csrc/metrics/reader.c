#define _GNU_SOURCE /* what C11 alone hides */
#include "reader.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/ordered.h"
#include "../base/status.h"
#include "../base/utf8.h"
#include "rows.h"

/* How often a file that changes meanwhile is read. Changes are rare, and take their process
 * less than a microsecond. */
#define ATTEMPTS 16

/* The mutable words of a file lie in a buffer of our own here: plain memory. */
static uint64_t
plain(const mgp_atomic_u64 *word)
{
    return mgp_atomic_load(word);
}

void
mgp_reader_init(struct mgp_reader *reader)
{
    memset(reader, 0, sizeof(*reader));
}

void
mgp_reader_fini(struct mgp_reader *reader)
{
    mgp_free(reader->block);
    mgp_reader_init(reader);
}

/* As much of [offset, offset + size) as the file has, or -1 and errno. */
static ssize_t
read_at(int fd, void *bytes, size_t size, off_t offset)
{
    size_t done = 0;
    while (done < size) {
        ssize_t got = pread(fd, (char *)bytes + done, size - done, offset + (off_t)done);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return got < 0 ? -1 : (ssize_t)done;
        }
        done += (size_t)got;
    }
    return (ssize_t)done;
}

static enum mgp_flaw
preamble_judge(const struct mgp_file_preamble *preamble)
{
    if (preamble->magic != MGP_FILE_MAGIC) {
        return MGP_FLAW_MAGIC;
    }
    if (preamble->version != MGP_FILE_VERSION) {
        return MGP_FLAW_VERSION;
    }
    if (preamble->checksum != mgp_preamble_checksum(preamble)) {
        return MGP_FLAW_DAMAGED;
    }
    if (preamble->fingerprint != mgp_layout_fingerprint() ||
        preamble->word_count != MGP_WORD_COUNT ||
        preamble->process_word_count != MGP_PROCESS_WORD_COUNT ||
        preamble->row_bytes != sizeof(struct mgp_file_row)) {
        return MGP_FLAW_VERSION;
    }
    return MGP_FLAW_NONE;
}

enum mgp_flaw
mgp_reader_peek_id(int fd, struct mgp_file_id *id)
{
    struct mgp_file_preamble preamble;
    ssize_t got = read_at(fd, &preamble, sizeof(preamble), 0);
    if (got != (ssize_t)sizeof(preamble)) {
        return got < 0 ? MGP_FLAW_SYSTEM : MGP_FLAW_TRUNCATED;
    }
    *id = preamble.id;
    return preamble_judge(&preamble);
}

static enum mgp_flaw
reserve(struct mgp_reader *reader, size_t size)
{
    if (size <= reader->capacity) {
        return MGP_FLAW_NONE;
    }
    mgp_free(reader->block);
    reader->capacity = 0;
    reader->block = mgp_alloc(size + MGP_CACHE_LINE_BYTES - 1);
    if (reader->block == NULL) {
        return MGP_FLAW_NO_MEMORY;
    }
    reader->buffer = reader->block + -(uintptr_t)reader->block % MGP_CACHE_LINE_BYTES;
    reader->capacity = size;
    return MGP_FLAW_NONE;
}

static bool
counts_are_possible(const struct mgp_file_header *header, uint64_t row_count)
{
    return row_count <= MGP_FILE_MAX_ROWS && header->preamble.folded_count <= MGP_FILE_MAX_ROWS &&
           header->taken_count <= MGP_FILE_MAX_ROWS && header->request_count <= MGP_FILE_MAX_ROWS;
}

/* Of a file whose first `got` bytes are in the buffer: how many rows it says that it has. */
static enum mgp_flaw
header_judge(const struct mgp_reader *reader, ssize_t got, enum mgp_file_kind kind,
             uint64_t *row_count)
{
    if (got < MGP_FILE_HEADER_BYTES) {
        return got < 0 ? MGP_FLAW_SYSTEM : MGP_FLAW_TRUNCATED;
    }
    const struct mgp_file_header *header = (const void *)reader->buffer;
    enum mgp_flaw flaw = preamble_judge(&header->preamble);
    if (flaw != MGP_FLAW_NONE) {
        return flaw;
    }
    *row_count = plain(&header->row_count);
    return header->preamble.kind == (uint32_t)kind && counts_are_possible(header, *row_count)
               ? MGP_FLAW_NONE
               : MGP_FLAW_DAMAGED;
}

static size_t
tail_size(const struct mgp_file_header *header)
{
    return header->preamble.folded_count * sizeof(struct mgp_file_id) +
           header->taken_count * sizeof(struct mgp_taken_row) +
           header->request_count * sizeof(struct mgp_label_digest);
}

/* Finds what follows the rows of an archive. */
static enum mgp_flaw
find_tail(struct mgp_reader *reader, const uint8_t *tail)
{
    const struct mgp_file_header *header = reader->header;
    reader->folded_ids = tail;
    reader->folded_count = header->preamble.folded_count;
    reader->taken_rows = reader->folded_ids + reader->folded_count * sizeof(struct mgp_file_id);
    reader->taken_count = header->taken_count;
    reader->requests = reader->taken_rows + reader->taken_count * sizeof(struct mgp_taken_row);
    reader->request_count = header->request_count;
    bool is_fit =
        mgp_ordered_check(reader->taken_rows, reader->taken_count, sizeof(struct mgp_taken_row)) &&
        mgp_ordered_check(reader->requests, reader->request_count, sizeof(struct mgp_label_digest));
    return is_fit ? MGP_FLAW_NONE : MGP_FLAW_DAMAGED;
}

static void
lose_file(struct mgp_reader *reader)
{
    reader->header = NULL;
    reader->row_count = reader->folded_count = reader->taken_count = reader->request_count = 0;
}

/* Reads all of the file and finds its parts, without a look at the rows. */
static enum mgp_flaw
load_once(struct mgp_reader *reader, int fd, enum mgp_file_kind kind)
{
    const size_t size_max =
        MGP_FILE_HEADER_BYTES +
        MGP_FILE_MAX_ROWS * (sizeof(struct mgp_file_row) + sizeof(struct mgp_file_id) +
                             sizeof(struct mgp_taken_row) + sizeof(struct mgp_label_digest));
    struct stat stat;
    if (fstat(fd, &stat) < 0) {
        return MGP_FLAW_SYSTEM;
    }
    size_t size =
        stat.st_size < 0 || (uint64_t)stat.st_size > size_max ? size_max : (size_t)stat.st_size;
    struct mgp_file_id ignored;
    enum mgp_flaw flaw = mgp_reader_peek_id(fd, &ignored); /* before memory is spent on it */
    if (flaw == MGP_FLAW_NONE) {
        flaw = size < MGP_FILE_HEADER_BYTES ? MGP_FLAW_TRUNCATED : reserve(reader, size);
    }
    if (flaw != MGP_FLAW_NONE) {
        return flaw;
    }
    uint64_t row_count;
    ssize_t got = read_at(fd, reader->buffer, size, 0);
    flaw = header_judge(reader, got, kind, &row_count);
    if (flaw != MGP_FLAW_NONE) {
        return flaw;
    }
    const struct mgp_file_header *header = (const void *)reader->buffer;
    size_t left = (size_t)got - MGP_FILE_HEADER_BYTES;
    bool has_tail = kind == MGP_FILE_ARCHIVE;
    if (row_count * sizeof(struct mgp_file_row) + (has_tail ? tail_size(header) : 0) > left) {
        return MGP_FLAW_TRUNCATED;
    }
    lose_file(reader);
    reader->header = header;
    reader->rows = reader->buffer + MGP_FILE_HEADER_BYTES;
    reader->row_count = (size_t)row_count;
    return has_tail ? find_tail(reader, reader->rows + row_count * sizeof(struct mgp_file_row))
                    : MGP_FLAW_NONE;
}

static enum mgp_flaw
load_tail(struct mgp_reader *reader, int fd)
{
    enum mgp_flaw flaw = reserve(reader, MGP_FILE_HEADER_BYTES);
    if (flaw != MGP_FLAW_NONE) {
        return flaw;
    }
    uint64_t row_count;
    ssize_t got = read_at(fd, reader->buffer, MGP_FILE_HEADER_BYTES, 0);
    flaw = header_judge(reader, got, MGP_FILE_ARCHIVE, &row_count);
    if (flaw != MGP_FLAW_NONE) {
        return flaw;
    }
    off_t offset = MGP_FILE_HEADER_BYTES + (off_t)(row_count * sizeof(struct mgp_file_row));
    size_t size = tail_size((const void *)reader->buffer);
    flaw = reserve(reader, MGP_FILE_HEADER_BYTES + size); /* may be another buffer */
    if (flaw != MGP_FLAW_NONE) {
        return flaw;
    }
    if (read_at(fd, reader->buffer, MGP_FILE_HEADER_BYTES, 0) != MGP_FILE_HEADER_BYTES ||
        read_at(fd, reader->buffer + MGP_FILE_HEADER_BYTES, size, offset) != (ssize_t)size) {
        return MGP_FLAW_TRUNCATED; /* nobody writes to an archive: it was cut just now */
    }
    lose_file(reader);
    reader->header = (const void *)reader->buffer;
    return counts_are_possible(reader->header, 0) && tail_size(reader->header) == size
               ? find_tail(reader, reader->buffer + MGP_FILE_HEADER_BYTES)
               : MGP_FLAW_DAMAGED;
}

enum mgp_flaw
mgp_reader_load_tail(struct mgp_reader *reader, int fd)
{
    enum mgp_flaw flaw = load_tail(reader, fd);
    if (flaw != MGP_FLAW_NONE) {
        lose_file(reader);
    }
    return flaw;
}

static struct mgp_file_row *
row_at(const struct mgp_reader *reader, size_t index)
{
    return (void *)(reader->rows + index * sizeof(struct mgp_file_row));
}

const struct mgp_file_row *
mgp_reader_row(const struct mgp_reader *reader, size_t index)
{
    return row_at(reader, index);
}

bool
mgp_reader_is_frozen(const struct mgp_reader *reader, size_t index)
{
    const struct mgp_file_row *row = row_at(reader, index);
    return mgp_file_row_is_used(plain(&row->state)) && plain(&row->frozen_at) != 0;
}

struct mgp_taken_row
mgp_reader_taken_row(const struct mgp_reader *reader, const struct mgp_file_row *row)
{
    return (struct mgp_taken_row){reader->header->preamble.id, row->number, plain(&row->state)};
}

/* Every row that is in use has a label, and is where it belongs. */
static bool
rows_are_fit(const struct mgp_reader *reader)
{
    for (size_t i = 0; i < reader->row_count; i++) {
        const struct mgp_file_row *row = row_at(reader, i);
        uint64_t state = plain(&row->state);
        if (mgp_file_row_is_used(state) &&
            (row->number != i || row->label_size > MGP_LABEL_MAX_BYTES ||
             row->check != mgp_label_check(state, row->label, row->label_size) ||
             !mgp_utf8_is_valid(row->label, row->label_size))) {
            return false;
        }
    }
    return true;
}

/* Whether the file was the same at the end of reading as at its beginning. */
static bool
stood_still(const struct mgp_reader *reader, int fd)
{
    uint64_t before = plain(&reader->header->change);
    uint64_t after;
    ssize_t got = read_at(fd, &after, sizeof(after), offsetof(struct mgp_file_header, change));
    return got == (ssize_t)sizeof(after) && before == after && before % 2 == 0;
}

/* One reading: MGP_FLAW_NONE with `*is_steady` false when the file changed meanwhile. */
static enum mgp_flaw
load_and_judge(struct mgp_reader *reader, int fd, enum mgp_file_kind kind,
               const struct mgp_file_id *id, bool *is_steady)
{
    enum mgp_flaw flaw = load_once(reader, fd, kind);
    if (flaw != MGP_FLAW_NONE) {
        return flaw;
    }
    if (id != NULL && !mgp_file_id_equals(reader->header->preamble.id, *id)) {
        return MGP_FLAW_DAMAGED;
    }
    *is_steady = stood_still(reader, fd);
    return rows_are_fit(reader) ? MGP_FLAW_NONE : MGP_FLAW_DAMAGED;
}

enum mgp_flaw
mgp_reader_load(struct mgp_reader *reader, int fd, enum mgp_file_kind kind,
                const struct mgp_file_id *id, enum mgp_life life)
{
    enum mgp_flaw flaw;
    bool is_steady = false;
    /* What lives may have grown after its size was taken, or be giving a label to a row. Who
     * was stopped while it took a row away has set that row free before anything else. */
    int attempts = life == MGP_LIFE_LIVING ? ATTEMPTS : 1;
    do {
        flaw = load_and_judge(reader, fd, kind, id, &is_steady);
    } while (--attempts > 0 && ((flaw == MGP_FLAW_NONE && !is_steady) ||
                                flaw == MGP_FLAW_TRUNCATED || flaw == MGP_FLAW_DAMAGED));
    reader->is_steady = is_steady;
    if (flaw != MGP_FLAW_NONE) {
        lose_file(reader);
    }
    return flaw;
}

int
mgp_reader_add_row(const struct mgp_reader *reader, size_t index, enum mgp_life life,
                   uint64_t ended_at, struct mgp_snapshot *snapshot)
{
    struct mgp_file_row *row = row_at(reader, index);
    uint64_t *words = (void *)row->words; /* in the buffer, where nobody counts */
    uint64_t frozen_at = plain(&row->frozen_at);
    if (life == MGP_LIFE_FINISHED || frozen_at != 0) {
        life = MGP_LIFE_FINISHED;
        mgp_row_end(words);
    } else {
        mgp_row_reconcile(words);
    }
    return mgp_snapshot_add_row(snapshot, row->label, row->label_size, words, life,
                                frozen_at == 0 ? ended_at : frozen_at);
}

int
mgp_reader_add(const struct mgp_reader *reader, enum mgp_life life,
               const struct mgp_reader *archive, uint64_t ended_at, struct mgp_snapshot *snapshot)
{
    uint64_t process_words[MGP_PROCESS_WORD_COUNT];
    for (size_t i = 0; i < MGP_PROCESS_WORD_COUNT; i++) {
        process_words[i] = plain(&reader->header->process_words[i]);
    }
    mgp_snapshot_add_process(snapshot, process_words, life);
    for (size_t i = 0; i < reader->row_count; i++) {
        const struct mgp_file_row *row = row_at(reader, i);
        if (!mgp_file_row_is_used(plain(&row->state)) ||
            (archive != NULL && mgp_reader_has_taken(archive, mgp_reader_taken_row(reader, row)))) {
            continue;
        }
        int status = mgp_reader_add_row(reader, i, life, ended_at, snapshot);
        if (status < 0) {
            return status;
        }
    }
    return MGP_OK;
}

bool
mgp_reader_has_folded(const struct mgp_reader *reader, struct mgp_file_id id)
{
    for (size_t i = 0; i < reader->folded_count; i++) {
        if (memcmp(reader->folded_ids + i * sizeof(id), &id, sizeof(id)) == 0) {
            return true;
        }
    }
    return false;
}

bool
mgp_reader_has_taken(const struct mgp_reader *reader, struct mgp_taken_row row)
{
    return mgp_ordered_has(reader->taken_rows, reader->taken_count, sizeof(row), &row);
}
