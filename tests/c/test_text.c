#include "../../csrc/metrics/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../csrc/base/status.h"
#include "../../csrc/metrics/histogram.h"
#include "../../csrc/metrics/number.h"
#include "failing_alloc.h"
#include "harness.h"

#define SECOND UINT64_C(1000000000)
#define ROWS_MAX 20
#define NAMES_MAX 64

static uint64_t words[ROWS_MAX][MGP_WORD_COUNT];
static struct mgp_snapshot_row rows[ROWS_MAX];
static struct mgp_snapshot snapshot;

/* Rows with these labels, all zero. */
static void
start(size_t count, const char *const labels[])
{
    failing_alloc_install();
    memset(words, 0, sizeof(words));
    memset(&snapshot, 0, sizeof(snapshot));
    snapshot.rows = rows;
    snapshot.row_count = count;
    for (size_t i = 0; i < count; i++) {
        rows[i] = (struct mgp_snapshot_row){
            .label = (const uint8_t *)labels[i],
            .label_size = strlen(labels[i]),
            .words = words[i],
        };
    }
}

static void
end(void)
{
    failing_alloc_uninstall();
}

/* The text, ended by NUL; to be freed. Checks the bound, with a fence behind it. */
static char *
text_of(int64_t now_ns, enum mgp_text_format format, const bool *selected)
{
    struct mgp_text text;
    CHECK(mgp_text_init(&text, &snapshot, now_ns, format, selected) == MGP_OK);
    size_t bound = mgp_text_bound(&text);
    char *buffer = malloc(bound + 8);
    CHECK(buffer != NULL);
    memset(buffer, '\1', bound + 8);
    char *text_end = mgp_text_write(&text, buffer);
    CHECK(text_end <= buffer + bound);
    for (size_t i = 0; i < 8; i++) {
        CHECK(text_end[i] == '\1');
    }
    *text_end = '\0';
    mgp_text_fini(&text);
    return buffer;
}

static void
check_number(const char *expected, char *(*put)(char *at, uint64_t value), uint64_t value)
{
    char number[MGP_NUMBER_BYTES + 1];
    memset(number, '\1', sizeof(number));
    char *number_end = put(number, value);
    CHECK(number_end <= number + MGP_NUMBER_BYTES);
    CHECK(*number_end == '\1');
    *number_end = '\0';
    bool is_expected = strcmp(number, expected) == 0;
    if (!is_expected) {
        fprintf(stderr, "%s instead of %s\n", number, expected);
    }
    CHECK(is_expected);
}

static void
counts_look_like_floats(void)
{
    static const struct {
        uint64_t count;
        const char *text;
    } cases[] = {
        {0, "0.0"},
        {3, "3.0"},
        {10, "10.0"},
        {99, "99.0"},
        {100, "100.0"},
        {12345, "12345.0"},
        {999999, "999999.0"},
        {1000000, "1e+06"},
        {1000001, "1.000001e+06"},
        {1200000, "1.2e+06"},
        {10000000000, "1e+10"},
        {12345678901, "1.2345678901e+10"},
        {9007199254740993, "9.007199254740993e+15"},
        {UINT64_MAX, "1.8446744073709551615e+19"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        check_number(cases[i].text, mgp_number_put_count, cases[i].count);
    }
}

static void
durations_are_seconds_to_the_microsecond(void)
{
    static const struct {
        uint64_t duration_ns;
        const char *text;
    } cases[] = {
        {0, "0.0"},
        {999, "0.0"},
        {1000, "1e-06"},
        {9999, "9e-06"},
        {10000, "1e-05"},
        {25000, "2.5e-05"},
        {99000, "9.9e-05"},
        {100000, "0.0001"},
        {100999, "0.0001"},
        {123456789, "0.123456"},
        {SECOND / 2, "0.5"},
        {SECOND, "1.0"},
        {SECOND + 1000, "1.000001"},
        {100 * SECOND, "100.0"},
        {123456 * SECOND + 789000, "123456.000789"},
        {999999 * SECOND + 999999999, "999999.999999"},
        {1000000 * SECOND, "1e+06"},
        {1500000 * SECOND, "1.5e+06"},
        {1500000 * SECOND + 1000, "1.500000000001e+06"},
        {12345678 * SECOND + 900000000, "1.23456789e+07"},
        {UINT64_MAX, "1.8446744073709551e+10"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        check_number(cases[i].text, mgp_number_put_seconds, cases[i].duration_ns);
    }
}

static void
number_reads_back_as_what_it_was(void)
{
    char number[MGP_NUMBER_BYTES + 1];
    for (int i = 0; i < 20000; i++) {
        uint64_t value = harness_random() >> harness_random_below(64);
        *mgp_number_put_count(number, value) = '\0';
        CHECK(strtod(number, NULL) == (double)value);
        value %= (SECOND << 33); /* see text.h */
        *mgp_number_put_seconds(number, value) = '\0';
        CHECK(strtod(number, NULL) == (double)(value / 1000) / 1e6);
    }
}

static void
families_have_their_heads_also_without_rows(void)
{
    start(0, NULL);
    char *text = text_of(1, MGP_TEXT_CLASSIC, NULL);
    CHECK(strstr(text,
                 "# HELP mcp_session_pool_hits_total Acquires answered with a session that was "
                 "already open.\n# TYPE mcp_session_pool_hits_total counter\n# HELP ") == text);
    CHECK(strstr(text, "# TYPE mcp_session_pool_oldest_waiter_seconds gauge\n") != NULL);
    CHECK(strstr(text, "# TYPE mcp_session_pool_use_seconds histogram\n") != NULL);
    CHECK(strstr(text, "\nmcp_session_pool_label_overflow_total 0.0\n") != NULL);
    CHECK(strstr(text, "{") == NULL);
    free(text);
    text = text_of(1, MGP_TEXT_OPENMETRICS, NULL);
    CHECK(strstr(text, "# TYPE mcp_session_pool_hits counter\n") != NULL);
    CHECK(strstr(text, "\nmcp_session_pool_label_overflow_total 0.0\n") != NULL);
    CHECK(strstr(text, "_total counter") == NULL && strstr(text, "# EOF") == NULL);
    free(text);
    end();
}

static void
lines_have_labels_and_values(void)
{
    start(2, (const char *const[]){"a", "b \\ \" \n c"});
    words[0][MGP_WORD_HITS] = 3;
    words[1][MGP_EVICTION_WORD(MGP_EVICTION_LEAKED)] = 2500000;
    words[1][MGP_WORD_OLDEST_WAITER_SECONDS] = 5 * SECOND;
    words[0][MGP_WORD_OLDEST_WAITER_SECONDS] = 50 * SECOND; /* later than now */
    snapshot.process_words[MGP_PROCESS_MAX_TOTAL_KEYS] = MGP_UNLIMITED;
    snapshot.process_words[MGP_PROCESS_MAX_TOTAL_SESSIONS] = 70;
    char *text = text_of((int64_t)(7 * SECOND + SECOND / 2), MGP_TEXT_CLASSIC, NULL);
    CHECK(strstr(text,
                 "counter\nmcp_session_pool_hits_total{gateway_id=\"a\"} 3.0\n"
                 "mcp_session_pool_hits_total{gateway_id=\"b \\\\ \\\" \\n c\"} 0.0\n# HELP "));
    CHECK(strstr(text, "\nmcp_session_pool_evictions_total{gateway_id=\"b \\\\ \\\" \\n c\","
                       "reason=\"leaked\"} 2.5e+06\n"));
    CHECK(strstr(text, "_waiter_seconds{gateway_id=\"a\"} 0.0\n"));
    CHECK(strstr(text, "_waiter_seconds{gateway_id=\"b \\\\ \\\" \\n c\"} 2.5\n"));
    CHECK(strstr(text, "\nmcp_session_pool_max_total_keys 0.0\n"));
    CHECK(strstr(text, "\nmcp_session_pool_max_total_sessions 70.0\n"));
    free(text);
    end();
}

static void
histogram_is_cumulative_and_ends_with_count_and_sum(void)
{
    char expected[4096] = "", line[128];
    start(1, (const char *const[]){"g"});
    const struct mgp_histogram *histogram = &mgp_histograms[MGP_HISTOGRAM_CREATE_SECONDS];
    uint64_t *own = &words[0][MGP_WORD_CREATE_SECONDS];
    own[0] = 2;
    own[3] = 1;
    own[histogram->count] = 4;
    own[MGP_BUCKET_SUM_OFFSET] = 250 * SECOND + 1000;
    for (size_t i = 0; i < histogram->count; i++) {
        sprintf(line, "mcp_session_pool_create_seconds_bucket{gateway_id=\"g\",le=\"%s\"} %d.0\n",
                histogram->texts[i], i < 3 ? 2 : 3);
        strcat(expected, line);
    }
    strcat(expected, "mcp_session_pool_create_seconds_bucket{gateway_id=\"g\",le=\"+Inf\"} 7.0\n"
                     "mcp_session_pool_create_seconds_count{gateway_id=\"g\"} 7.0\n"
                     "mcp_session_pool_create_seconds_sum{gateway_id=\"g\"} 250.000001\n");
    char *text = text_of(1, MGP_TEXT_OPENMETRICS, NULL);
    CHECK(strstr(text, expected) != NULL);
    free(text);
    end();
}

/* The number of the name, or -1. */
static int
number_of(const char *wanted)
{
    char name[MGP_TEXT_NAME_BYTES];
    for (size_t i = 0; mgp_text_sample_name(i, name); i++) {
        CHECK(i < NAMES_MAX);
        if (strcmp(name, wanted) == 0) {
            return (int)i;
        }
    }
    return -1;
}

static char *
selected_text(const char *first, const char *second)
{
    bool selected[NAMES_MAX] = {false};
    selected[number_of(first)] = true;
    selected[number_of(second)] = true;
    return text_of(1, MGP_TEXT_CLASSIC, selected);
}

static void
only_what_is_selected_is_written(void)
{
    start(1, (const char *const[]){"g"});
    char *text = selected_text("mcp_session_pool_waiters", "mcp_session_pool_use_seconds_count");
    CHECK(strcmp(text, "# HELP mcp_session_pool_waiters Callers waiting for a session now.\n"
                       "# TYPE mcp_session_pool_waiters gauge\n"
                       "mcp_session_pool_waiters{gateway_id=\"g\"} 0.0\n"
                       "# HELP mcp_session_pool_use_seconds How long sessions were checked out, "
                       "each checkout by itself.\n"
                       "# TYPE mcp_session_pool_use_seconds histogram\n"
                       "mcp_session_pool_use_seconds_count{gateway_id=\"g\"} 0.0\n") == 0);
    free(text);
    snapshot.row_count = 0;
    text = selected_text("mcp_session_pool_hits_total", "mcp_session_pool_max_total_keys");
    CHECK(strstr(text, "hits") == NULL && strstr(text, "max_total_keys 0.0\n") != NULL);
    free(text);
    end();
}

static void
every_name_is_selectable_and_no_other(void)
{
    char name[MGP_TEXT_NAME_BYTES];
    size_t count = 0;
    while (mgp_text_sample_name(count, name)) {
        CHECK(number_of(name) == (int)count); /* no name twice */
        count++;
    }
    CHECK(count == mgp_series_count + 2 * MGP_HISTOGRAM_COUNT + MGP_PROCESS_WORD_COUNT + 1);
    CHECK(number_of("mcp_session_pool_hits") == -1);
    CHECK(number_of("mcp_session_pool_use_seconds") == -1);
}

static void
helps_need_no_escaping(void)
{
    for (size_t i = 0; i < mgp_series_count; i++) {
        CHECK(strpbrk(mgp_series_table[i].help, "\\\"\n") == NULL);
    }
    for (size_t i = 0; i < MGP_PROCESS_WORD_COUNT; i++) {
        CHECK(strpbrk(mgp_process_series_table[i].help, "\\\"\n") == NULL);
    }
}

static void
only_gateways_with_a_name_have_an_info_line(void)
{
    bool selected[NAMES_MAX] = {false};
    start(3, (const char *const[]){"a", "none", "\"b\""});
    rows[0].name = (const uint8_t *)"first";
    rows[0].name_size = 5;
    rows[2].name = (const uint8_t *)"a\\b\n";
    rows[2].name_size = 4;
    char *text = text_of(0, MGP_TEXT_CLASSIC, NULL);
    CHECK(strstr(text, "# TYPE mcp_session_pool_gateway_info gauge\n"
                       "mcp_session_pool_gateway_info{gateway_id=\"a\",name=\"first\"} 1.0\n"
                       "mcp_session_pool_gateway_info{gateway_id=\"\\\"b\\\"\","
                       "name=\"a\\\\b\\n\"} 1.0\n") != NULL);
    CHECK(strstr(text, "gateway_info{gateway_id=\"none\"") == NULL);
    free(text);
    selected[number_of("mcp_session_pool_gateway_info")] = true;
    text = text_of(0, MGP_TEXT_CLASSIC, selected);
    CHECK(strncmp(text, "# HELP mcp_session_pool_gateway_info ", 37) == 0);
    free(text);
    rows[0].name = rows[2].name = NULL;
    text = text_of(0, MGP_TEXT_CLASSIC, selected);
    CHECK(text[0] == '\0');
    free(text);
    end();
}

static void
durations_of_a_process_are_seconds(void)
{
    start(0, NULL);
    snapshot.process_words[MGP_PROCESS_ACQUIRE_TIMEOUT_SECONDS] = UINT64_C(2500000000);
    snapshot.process_words[MGP_PROCESS_PROCESSES] = 3;
    char *text = text_of(0, MGP_TEXT_CLASSIC, NULL);
    CHECK(strstr(text, "# TYPE mcp_session_pool_acquire_timeout_seconds gauge\n"
                       "mcp_session_pool_acquire_timeout_seconds 2.5\n") != NULL);
    CHECK(strstr(text, "\nmcp_session_pool_processes 3.0\n") != NULL);
    free(text);
    end();
}

static void
longest_text_stays_within_its_bound(void)
{
    char label[257];
    const char *labels[ROWS_MAX];
    memset(label, '"', 256);
    label[256] = '\0';
    for (size_t i = 0; i < ROWS_MAX; i++) {
        labels[i] = label;
    }
    start(ROWS_MAX, labels);
    for (size_t i = 0; i < ROWS_MAX; i++) {
        rows[i].name = (const uint8_t *)label;
        rows[i].name_size = 256;
    }
    memset(words, 0xff, sizeof(words));
    memset(snapshot.process_words, 0xfe, sizeof(snapshot.process_words));
    free(text_of(INT64_MAX, MGP_TEXT_CLASSIC, NULL)); /* checks it */
    free(text_of(INT64_MAX, MGP_TEXT_OPENMETRICS, NULL));
    end();
}

static void
text_without_memory_is_refused(void)
{
    start(1, (const char *const[]){"g"});
    for (size_t n = 1; n <= 2; n++) {
        struct mgp_text text;
        failing_alloc_fail_at(n);
        CHECK(mgp_text_init(&text, &snapshot, 1, MGP_TEXT_CLASSIC, NULL) == MGP_ERR_NOMEM);
        mgp_text_fini(&text);
        failing_alloc_fail_at(0);
    }
    end();
}

int
main(void)
{
    RUN(counts_look_like_floats);
    RUN(durations_are_seconds_to_the_microsecond);
    RUN(number_reads_back_as_what_it_was);
    RUN(families_have_their_heads_also_without_rows);
    RUN(only_gateways_with_a_name_have_an_info_line);
    RUN(durations_of_a_process_are_seconds);
    RUN(lines_have_labels_and_values);
    RUN(histogram_is_cumulative_and_ends_with_count_and_sum);
    RUN(only_what_is_selected_is_written);
    RUN(every_name_is_selectable_and_no_other);
    RUN(helps_need_no_escaping);
    RUN(longest_text_stays_within_its_bound);
    RUN(text_without_memory_is_refused);
    return harness_end();
}
