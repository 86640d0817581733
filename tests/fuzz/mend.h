/* Most bytes fail a checksum of the layout (csrc/metrics/layout.h); mended, they get past it. */
#ifndef MGP_TESTS_MEND_H
#define MGP_TESTS_MEND_H

#include "../../csrc/metrics/layout.h"

enum mend {
    MEND_MEANING = 1,  /* magic number, version, sizes, kind */
    MEND_CHECKSUM = 2, /* of the header */
    MEND_ROWS = 4,     /* checks and numbers of the rows */
    MEND_ARCHIVE = 8,  /* it is an archive */
    MEND_ALL = MEND_MEANING | MEND_CHECKSUM | MEND_ROWS,
};

#define MEND_FOLDED_MAX 8

/* `bytes` lie on a cache line; `how` is of enum mend. */
void mend(uint8_t *bytes, size_t size, unsigned how);

#endif
