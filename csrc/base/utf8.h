/* Whether bytes from outside are text. */
#ifndef MGP_BASE_UTF8_H
#define MGP_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* UTF-8 as RFC 3629 has it: shortest forms only, no surrogates, nothing past U+10FFFF. */
bool mgp_utf8_is_valid(const void *bytes, size_t size);

#endif
