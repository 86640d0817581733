/* An allocator under mgp_alloc() and its like that counts what is live and fails
 * the calls it is told to. New memory is filled with 0xCD and freed memory with
 * 0xDD; a block that grows or shrinks always moves. For one thread only.
 *
 * To fail every allocation of an operation in turn:
 *
 *     failing_alloc_install();
 *     for (size_t n = 1;; n++) {
 *         failing_alloc_fail_at(n);
 *         int status = operation();
 *         if (!failing_alloc_has_failed()) {
 *             break;
 *         }
 *         CHECK(status == MGP_ERR_NOMEM);
 *     }
 *     ...
 *     failing_alloc_uninstall(); */
#ifndef MGP_TESTS_FAILING_ALLOC_H
#define MGP_TESTS_FAILING_ALLOC_H

#include <stdbool.h>
#include <stddef.h>

/* Call it while nothing is allocated; nothing fails at first. */
void failing_alloc_install(void);
/* Checks that everything was freed, and goes back to malloc. */
void failing_alloc_uninstall(void);

/* Of the calls from now on, the n-th fails (1: the next; 0: none). */
void failing_alloc_fail_at(size_t n);
/* Of the calls from now on, the n-th and all after it fail (0: none). */
void failing_alloc_fail_from(size_t n);
/* Whether a call failed since fail_at or fail_from. */
bool failing_alloc_has_failed(void);

/* From now on no block may be freed, or moved, that contains this text; NULL: any may. */
void failing_alloc_forbid(const char *text);
/* Blocks that are live and contain it. */
size_t failing_alloc_live_with(const char *text);

size_t failing_alloc_calls(void); /* since install, failed ones too */
size_t failing_alloc_live_blocks(void);
size_t failing_alloc_live_bytes(void);

#endif
