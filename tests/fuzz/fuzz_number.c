/* libFuzzer target: numbers of the exposition. Each reads back as what it was made of, in the
 * form that the format allows, and with no more digits than any double needs that reads back
 * the same (where csrc/metrics/text.h promises the shortest). */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../csrc/metrics/number.h"
#include "../c/harness.h"
#include "bytes.h"
#include "exposition.h"

/* Where every count is a double of its own, and every microsecond. */
#define SHORTEST_COUNT (UINT64_C(1) << 53)
#define SHORTEST_MICROSECONDS ((UINT64_C(1) << 33) * 1000000) /* 272 years */

/* Digits that matter: without zeros in front, without zeros at the end. */
static size_t
count_digits(const char *text, size_t size)
{
    size_t count = 0, zeros = 0;
    for (size_t i = 0; i < size && text[i] != 'e'; i++) {
        if (text[i] == '.' || (count == 0 && text[i] == '0')) {
            continue;
        }
        zeros = text[i] == '0' ? zeros + 1 : 0;
        count++;
    }
    return count - zeros;
}

static size_t
fewest_digits(double value)
{
    char text[64];
    for (int precision = 1;; precision++) {
        snprintf(text, sizeof(text), "%.*e", precision - 1, value);
        if (strtod(text, NULL) == value) {
            return count_digits(text, strlen(text));
        }
    }
}

static void
check_number(const char *text, size_t size, double expected, bool is_shortest)
{
    CHECK(size <= MGP_NUMBER_BYTES);
    CHECK(exposition_number(text, size) == expected);
    CHECK(!is_shortest || count_digits(text, size) == fewest_digits(expected));
    /* An exponent from a million on, and below a tenth of a millisecond. */
    bool has_exponent = memchr(text, 'e', size) != NULL;
    CHECK(has_exponent == (expected >= 1e6 || (expected > 0 && expected < 1e-4)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes input = {data, size};
    char text[MGP_NUMBER_BYTES], exact[64];
    uint64_t number = bytes_any_number(&input);
    char *end = mgp_number_put_count(text, number);
    check_number(text, (size_t)(end - text), (double)number, number <= SHORTEST_COUNT);
    uint64_t microseconds = number / 1000;
    snprintf(exact, sizeof(exact), "%llu.%06llu", (unsigned long long)(microseconds / 1000000),
             (unsigned long long)(microseconds % 1000000));
    end = mgp_number_put_seconds(text, number);
    check_number(text, (size_t)(end - text), strtod(exact, NULL),
                 microseconds < SHORTEST_MICROSECONDS);
    return 0;
}
