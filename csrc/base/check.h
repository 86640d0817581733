/* MGP_ASSERT states what a function assumes. It is active in debug and test
 * builds (MGP_DEBUG) and costs nothing in a release build. */
#ifndef MGP_BASE_CHECK_H
#define MGP_BASE_CHECK_H

#ifdef MGP_DEBUG
#include <stdio.h>
#include <stdlib.h>
#define MGP_ASSERT(condition)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s: assertion failed: %s\n", __FILE__, __LINE__, __func__,     \
                    #condition);                                                                   \
            abort();                                                                               \
        }                                                                                          \
    } while (0)
#else
#define MGP_ASSERT(condition) ((void)sizeof(condition))
#endif

#endif
