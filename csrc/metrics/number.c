#include "number.h"

#include <stddef.h>
#include <string.h>

#define MICROSECONDS UINT64_C(1000000) /* in a second */
#define EXPONENT_FROM UINT64_C(1000000)
#define DIGITS_MAX 20 /* of a uint64_t */

/* Writes the digits of a number so that they end at `end`; returns their start. */
static char *
put_digits_before(char *end, uint64_t number)
{
    do {
        *--end = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    return end;
}

static char *
put_no_fraction(char *at)
{
    at[0] = '.';
    at[1] = '0';
    return at + 2;
}

/* 1.5e+06: `digits` are all of the number, of which so many stand before the point. */
static char *
put_with_exponent(char *at, const char *digits, size_t size, size_t whole_size)
{
    while (size > 1 && digits[size - 1] == '0') {
        size--;
    }
    *at++ = digits[0];
    if (size > 1) {
        *at++ = '.';
        memcpy(at, digits + 1, size - 1);
        at += size - 1;
    }
    size_t exponent = whole_size - 1;
    at[0] = 'e';
    at[1] = '+';
    at[2] = (char)('0' + exponent / 10);
    at[3] = (char)('0' + exponent % 10);
    return at + 4;
}

char *
mgp_number_put_count(char *at, uint64_t count)
{
    char digits[DIGITS_MAX];
    char *end = digits + sizeof(digits);
    if (count < 10) {
        *at++ = (char)('0' + count);
        return put_no_fraction(at);
    }
    char *start = put_digits_before(end, count);
    size_t size = (size_t)(end - start);
    if (count >= EXPONENT_FROM) {
        return put_with_exponent(at, start, size, size);
    }
    memcpy(at, start, size);
    return put_no_fraction(at + size);
}

/* Below a tenth of a millisecond Python shows an exponent: 2.5e-05. */
static char *
put_few_microseconds(char *at, unsigned microseconds)
{
    unsigned first = microseconds >= 10 ? microseconds / 10 : microseconds;
    *at++ = (char)('0' + first);
    if (microseconds > 10 && microseconds % 10 != 0) {
        *at++ = '.';
        *at++ = (char)('0' + microseconds % 10);
    }
    at[0] = 'e';
    at[1] = '-';
    at[2] = '0';
    at[3] = microseconds >= 10 ? '5' : '6';
    return at + 4;
}

char *
mgp_number_put_seconds(char *at, uint64_t duration_ns)
{
    char digits[DIGITS_MAX];
    char *end = digits + sizeof(digits);
    uint64_t microseconds = duration_ns / 1000;
    if (microseconds == 0) {
        return mgp_number_put_count(at, 0);
    }
    if (microseconds < 100) {
        return put_few_microseconds(at, (unsigned)microseconds);
    }
    /* With a 1 in front, so that no zero of the fraction gets lost. */
    char *fraction = put_digits_before(end, MICROSECONDS + microseconds % MICROSECONDS) + 1;
    uint64_t seconds = microseconds / MICROSECONDS;
    char *start = put_digits_before(fraction, seconds);
    if (seconds >= EXPONENT_FROM) {
        return put_with_exponent(at, start, (size_t)(end - start), (size_t)(fraction - start));
    }
    while (end > fraction + 1 && end[-1] == '0') {
        end--;
    }
    size_t whole_size = (size_t)(fraction - start), fraction_size = (size_t)(end - fraction);
    memcpy(at, start, whole_size);
    at[whole_size] = '.';
    memcpy(at + whole_size + 1, fraction, fraction_size);
    return at + whole_size + 1 + fraction_size;
}
