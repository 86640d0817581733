/* Numbers as the exposition formats show them: like a Python float, but with an exponent
 * from a million on. Whatever the locale. */
#ifndef MGP_METRICS_NUMBER_H
#define MGP_METRICS_NUMBER_H

#include <stdint.h>

/* No number is longer. */
#define MGP_NUMBER_BYTES 26

/* Each writes at `at`, without a NUL, and returns the end. */
char *mgp_number_put_count(char *at, uint64_t count);
/* In seconds, to the microsecond below. */
char *mgp_number_put_seconds(char *at, uint64_t duration_ns);

#endif
