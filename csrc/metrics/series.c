#include "series.h"

#define MGP_X(ID, stem, kind, labels, help)                                                        \
    {stem, MGP_SERIES_##kind, MGP_LABELS_##labels,                                                 \
     help, MGP_WORD_##ID,     MGP_LABELS_##labels##_WORDS},
const struct mgp_series mgp_series_table[] = {MGP_SERIES_TABLE(MGP_X)};
#undef MGP_X

const size_t mgp_series_count = sizeof(mgp_series_table) / sizeof(mgp_series_table[0]);

#define MGP_X(ID, value) value,
const char *const mgp_eviction_reason_names[] = {MGP_EVICTION_REASONS(MGP_X)};
const char *const mgp_rejection_reason_names[] = {MGP_REJECTION_REASONS(MGP_X)};
#undef MGP_X
