/* harness_fail() of tests/c/harness.h for targets that need no more of it. */
#include <stdio.h>
#include <stdlib.h>

#include "../c/harness.h"

_Noreturn void
harness_fail(const char *file, int line, const char *condition)
{
    fprintf(stderr, "%s:%d: not true: %s\n", file, line, condition);
    abort();
}
