#include "mend.h"

void
mend(uint8_t *bytes, size_t size, unsigned how)
{
    if (size < MGP_FILE_HEADER_BYTES) {
        return;
    }
    struct mgp_file_header *header = (void *)bytes;
    if (how & MEND_MEANING) {
        uint32_t folded = header->preamble.folded_count % MEND_FOLDED_MAX;
        header->preamble = mgp_preamble(how & MEND_ARCHIVE ? MGP_FILE_ARCHIVE : MGP_FILE_PROCESS,
                                        header->preamble.id, how & MEND_ARCHIVE ? folded : 0);
    }
    if (how & MEND_MEANING) {
        header->taken_count %= MEND_FOLDED_MAX;
        header->request_count %= MEND_FOLDED_MAX;
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
        rows[i].label_size %= 2 * MGP_LABEL_MAX_BYTES; /* also too long */
        rows[i].check =
            mgp_label_check(mgp_atomic_load(&rows[i].state), rows[i].label, rows[i].label_size);
    }
    if (mgp_atomic_load(&header->row_count) > MGP_FILE_MAX_ROWS) {
        mgp_atomic_store(&header->row_count, mgp_atomic_load(&header->row_count) % 4);
    }
}
