/* UTF-8 is what encoding code points gives, and nothing else. */
#include "../../csrc/base/utf8.h"

#include <stdint.h>
#include <string.h>

#include "harness.h"

enum { LONGEST = 4 };

/* How many bytes a code point has in UTF-8, which go to `bytes`; 0 where it may not be encoded. */
static size_t
encode(uint32_t point, uint8_t bytes[LONGEST])
{
    static const uint32_t ends[] = {0x80, 0x800, 0x10000, 0x110000};
    static const uint8_t marks[] = {0, 0xc0, 0xe0, 0xf0};
    if (point >= 0xd800 && point < 0xe000) {
        return 0;
    }
    for (size_t more = 0; more < LONGEST; more++) {
        if (point < ends[more]) {
            for (size_t i = more; i > 0; i--) {
                bytes[i] = (uint8_t)(0x80 + point % 64);
                point /= 64;
            }
            bytes[0] = (uint8_t)(marks[more] + point);
            return more + 1;
        }
    }
    return 0;
}

/* The code point that these bytes would be of, if they were one's. */
static uint32_t
decode(const uint8_t *bytes, size_t size)
{
    uint32_t point = size == 1 ? bytes[0] : bytes[0] % (1u << (7 - size));
    for (size_t i = 1; i < size; i++) {
        point = point * 64 + bytes[i] % 64;
    }
    return point;
}

static bool
is_encoded(const uint8_t *bytes, size_t size)
{
    uint8_t again[LONGEST];
    for (size_t first = 1; first <= LONGEST && first <= size; first++) {
        if (encode(decode(bytes, first), again) == first && memcmp(again, bytes, first) == 0) {
            return is_encoded(bytes + first, size - first);
        }
    }
    return size == 0;
}

static void
every_code_point_is_valid_but_surrogates(void)
{
    uint8_t bytes[LONGEST];
    for (uint32_t point = 0; point <= 0x110000; point++) {
        size_t size = encode(point, bytes);
        CHECK(size == 0 || mgp_utf8_is_valid(bytes, size));
        CHECK(size < 2 || !mgp_utf8_is_valid(bytes, size - 1));
    }
}

/* The edges of what bytes may follow one another, each beside what lies beyond it. */
static const uint8_t edges[] = {0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff};
enum { EDGES = sizeof(edges) };

static void
check_any_first(uint8_t *bytes, size_t size)
{
    for (unsigned first = 0; first < 256; first++) {
        bytes[0] = (uint8_t)first;
        CHECK(mgp_utf8_is_valid(bytes, size) == is_encoded(bytes, size));
    }
}

static void
nothing_else_is_valid(void)
{
    for (size_t i = 0; i < EDGES * EDGES * EDGES; i++) {
        uint8_t bytes[LONGEST] = {0, edges[i % EDGES], edges[i / EDGES % EDGES],
                                  edges[i / EDGES / EDGES]};
        for (size_t size = 1; size <= LONGEST; size++) {
            check_any_first(bytes, size);
        }
    }
    CHECK(mgp_utf8_is_valid("", 0));
}

/* ASCII is looked at several bytes at a time. */
static void
what_stands_around_makes_no_difference(void)
{
    static const char *const texts[] = {"\xff", "\x80", "\xc3", "\xc3\xa9", "\xf0\x9f\x98\x80"};
    uint8_t bytes[24];
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        size_t length = strlen(texts[i]);
        for (size_t at = 0; at + length <= sizeof(bytes); at++) {
            memset(bytes, 'a', sizeof(bytes));
            memcpy(bytes + at, texts[i], length);
            for (size_t size = at + length; size <= sizeof(bytes); size++) {
                CHECK(mgp_utf8_is_valid(bytes, size) == is_encoded(bytes, size));
            }
        }
    }
}

int
main(void)
{
    RUN(every_code_point_is_valid_but_surrogates);
    RUN(nothing_else_is_valid);
    RUN(what_stands_around_makes_no_difference);
    return harness_end();
}
