/* Threads count into a shared file and make it grow, and rows move into one, while others read. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "counters_fixture.h"
#include "harness.h"

enum { THREADS = 2, ROUNDS = 2000, SHARED_ROWS = 4, PASSING_ROWS = 300 };

static struct mgp_rows rows;
static struct mgp_row *shared[SHARED_ROWS];
static mgp_atomic_u64 threads_done;

static void *
counting_thread(void *unused)
{
    (void)unused;
    for (size_t round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < SHARED_ROWS; i++) {
            mgp_count_increment(shared[i], MGP_WORD_CREATES);
            mgp_count_increment(shared[i], MGP_WORD_SIZE);
            mgp_count_increment(shared[i], MGP_WORD_ACTIVE_SESSIONS);
            mgp_count_increment(shared[i], MGP_WORD_MISSES);
            mgp_count_decrement(shared[i], MGP_WORD_ACTIVE_SESSIONS);
            mgp_count_decrement(shared[i], MGP_WORD_SIZE);
            mgp_count_increment(shared[i], MGP_EVICTION_WORD(MGP_EVICTION_MANUAL));
        }
    }
    mgp_atomic_add(&threads_done, 1);
    return NULL;
}

/* What must hold in every snapshot, and since the one before. */
static void
check_row(const struct mgp_snapshot *snapshot, size_t number, uint64_t last[SHARED_ROWS])
{
    char label[2] = {(char)('a' + number), '\0'};
    uint64_t evictions = counters_read(snapshot, label, MGP_EVICTION_WORD(MGP_EVICTION_MANUAL));
    uint64_t creates = counters_read(snapshot, label, MGP_WORD_CREATES);
    uint64_t size = counters_read(snapshot, label, MGP_WORD_SIZE);
    CHECK(creates >= last[number]);
    CHECK(creates == size + evictions);
    CHECK(size == counters_read(snapshot, label, MGP_WORD_ACTIVE_SESSIONS) +
                      counters_read(snapshot, label, MGP_WORD_IDLE_SESSIONS));
    CHECK(counters_read(snapshot, label, MGP_WORD_MISSES) <= creates);
    last[number] = creates;
}

static void *
reading_thread(void *unused)
{
    (void)unused;
    uint64_t last[SHARED_ROWS] = {0};
    do {
        struct mgp_snapshot snapshot;
        CHECK(counters_scrape(&snapshot, NULL)->count == 0);
        for (size_t i = 0; i < SHARED_ROWS; i++) {
            check_row(&snapshot, i, last);
        }
        mgp_snapshot_fini(&snapshot);
    } while (mgp_atomic_load(&threads_done) < THREADS);
    return NULL;
}

static void
file_is_right_at_every_moment_while_it_is_counted_in_and_grows(void)
{
    pthread_t threads[THREADS], reader;
    counters_directory_new();
    counters_process_start(&rows);
    mgp_atomic_store(&threads_done, 0);
    for (int i = 0; i < SHARED_ROWS; i++) {
        char label = (char)('a' + i);
        shared[i] = mgp_rows_ensure(&rows, &label, 1);
        CHECK(shared[i] != NULL);
    }
    CHECK(pthread_create(&reader, NULL, reading_thread, NULL) == 0);
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, counting_thread, NULL) == 0);
    }
    for (size_t number = 0; mgp_atomic_load(&threads_done) < THREADS; number++) {
        char label[32];
        int size = snprintf(label, sizeof(label), "passing %zu", number % PASSING_ROWS);
        struct mgp_row *row = mgp_rows_ensure(&rows, label, (size_t)size);
        CHECK(row != NULL);
        mgp_count_increment(row, MGP_WORD_HITS);
        if (number % 3 == 0) {
            CHECK(mgp_rows_forget(&rows, label, (size_t)size) == 0);
        }
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    CHECK(pthread_join(reader, NULL) == 0);
    for (int i = 0; i < SHARED_ROWS; i++) {
        char label[2] = {(char)('a' + i), '\0'};
        CHECK(counters_scrape_word(label, MGP_WORD_CREATES) == THREADS * ROUNDS);
        CHECK(counters_scrape_word(label, MGP_WORD_ACTIVE_SESSIONS) == 0);
    }
    mgp_rows_fini(&rows);
    counters_directory_remove();
}

/* ---- rows that move ---- */

/* Who counts holds it, and who moves rows: the GIL, where that is Python. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *
locked_counting_thread(void *unused)
{
    (void)unused;
    for (size_t round = 0; round < ROUNDS; round++) {
        CHECK(pthread_mutex_lock(&lock) == 0);
        for (size_t i = 0; i < SHARED_ROWS; i++) {
            mgp_count_increment(shared[i], MGP_WORD_CREATES);
            mgp_count_increment(shared[i], MGP_WORD_SIZE);
            mgp_count_increment(shared[i], MGP_WORD_MISSES);
        }
        CHECK(pthread_mutex_unlock(&lock) == 0);
    }
    mgp_atomic_add(&threads_done, 1);
    return NULL;
}

/* Of who reads the files without that lock: each row is there whole, or not yet. */
static void *
late_reading_thread(void *unused)
{
    (void)unused;
    uint64_t last[SHARED_ROWS] = {0};
    while (mgp_atomic_load(&threads_done) < THREADS) {
        struct mgp_snapshot snapshot;
        counters_scrape(&snapshot, NULL);
        for (size_t i = 0; i < SHARED_ROWS; i++) {
            check_row(&snapshot, i, last);
        }
        mgp_snapshot_fini(&snapshot);
    }
    return NULL;
}

static uint64_t
own_creates(size_t number)
{
    struct mgp_snapshot snapshot;
    char label[2] = {(char)('a' + number), '\0'};
    mgp_snapshot_init(&snapshot, (struct mgp_siphash_key){1, 2});
    CHECK(mgp_snapshot_add_own(&snapshot, &rows) == 0);
    uint64_t creates = counters_read(&snapshot, label, MGP_WORD_CREATES);
    mgp_snapshot_fini(&snapshot);
    return creates;
}

/* The disk is full and has room again; only rows of this process's memory can find room. */
static void
rows_move_while_they_are_counted_and_read(void)
{
    pthread_t threads[THREADS], reader;
    uint64_t last = 0;
    counters_directory_new();
    counters_process_start(&rows);
    mgp_atomic_store(&threads_done, 0);
    counters_limit_files(100);
    for (int i = 0; i < SHARED_ROWS; i++) {
        char label = (char)('a' + i);
        shared[i] = mgp_rows_ensure(&rows, &label, 1);
        CHECK(shared[i] != NULL);
    }
    CHECK(!mgp_segment_is_open(&rows.segment));
    CHECK(pthread_create(&reader, NULL, late_reading_thread, NULL) == 0);
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, locked_counting_thread, NULL) == 0);
    }
    while (mgp_atomic_load(&threads_done) < THREADS) {
        CHECK(pthread_mutex_lock(&lock) == 0);
        uint64_t creates = own_creates(0);
        if (!mgp_segment_is_open(&rows.segment) && creates > ROUNDS / 2) {
            counters_limit_files(RLIM_INFINITY);
        }
        mgp_rows_share_rest(&rows);
        CHECK(creates >= last && own_creates(0) == creates);
        last = creates;
        CHECK(pthread_mutex_unlock(&lock) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    CHECK(pthread_join(reader, NULL) == 0);
    counters_limit_files(RLIM_INFINITY);
    mgp_rows_share_rest(&rows);
    for (size_t i = 0; i < SHARED_ROWS; i++) {
        char label[2] = {(char)('a' + i), '\0'};
        CHECK(own_creates(i) == THREADS * ROUNDS);
        CHECK(counters_scrape_word(label, MGP_WORD_CREATES) == THREADS * ROUNDS);
    }
    mgp_rows_fini(&rows);
    counters_directory_remove();
}

int
main(void)
{
    RUN(file_is_right_at_every_moment_while_it_is_counted_in_and_grows);
    RUN(rows_move_while_they_are_counted_and_read);
    return harness_end();
}
