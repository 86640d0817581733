/* Run under the thread sanitizer, too. */
#include "../../csrc/metrics/rows.h"

#include <pthread.h>
#include <stdio.h>

#include "harness.h"

#define THREADS 4
#define SHARED_ROWS 3
#define ROUNDS 20000

static struct mgp_rows rows;
static struct mgp_row *shared[SHARED_ROWS];
static mgp_atomic_u64 threads_done;

static void
start(void)
{
    mgp_rows_init(&rows, (struct mgp_siphash_key){1, 2}, MGP_ROWS_DEFAULT_MAX);
    for (int i = 0; i < SHARED_ROWS; i++) {
        char label = (char)('a' + i);
        shared[i] = mgp_rows_ensure(&rows, &label, 1);
        CHECK(shared[i] != NULL);
    }
    mgp_atomic_store(&threads_done, 0);
}

static void *
counting_thread(void *unused)
{
    (void)unused;
    for (size_t round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < SHARED_ROWS; i++) {
            mgp_count_increment(shared[i], MGP_WORD_ACTIVE_SESSIONS);
            mgp_count_increment(shared[i], MGP_WORD_HITS);
            mgp_count_add(shared[i], MGP_EVICTION_WORD(MGP_EVICTION_MANUAL), i);
            mgp_count_decrement(shared[i], MGP_WORD_ACTIVE_SESSIONS);
        }
    }
    mgp_atomic_add(&threads_done, 1);
    return NULL;
}

static void
threads_start(pthread_t threads[THREADS])
{
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, counting_thread, NULL) == 0);
    }
}

static void
threads_join(pthread_t threads[THREADS])
{
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
}

static void
check_totals(void)
{
    for (size_t i = 0; i < SHARED_ROWS; i++) {
        const mgp_atomic_u64 *words = shared[i]->words;
        CHECK(mgp_atomic_load(&words[MGP_WORD_HITS]) == THREADS * ROUNDS);
        CHECK(mgp_atomic_load(&words[MGP_EVICTION_WORD(MGP_EVICTION_MANUAL)]) ==
              THREADS * ROUNDS * i);
        CHECK(mgp_atomic_load(&words[MGP_WORD_ACTIVE_SESSIONS]) == 0);
    }
}

static int
hits_sum(const void *label, size_t size, const struct mgp_row *row, void *context)
{
    (void)label;
    (void)size;
    *(uint64_t *)context += mgp_atomic_load(&row->words[MGP_WORD_HITS]);
    CHECK(mgp_atomic_load(&row->words[MGP_WORD_ACTIVE_SESSIONS]) <= THREADS);
    return 0;
}

static void
totals_are_exact_and_never_fall_while_read(void)
{
    pthread_t threads[THREADS];
    start();
    threads_start(threads);
    uint64_t last = 0;
    while (mgp_atomic_load(&threads_done) < THREADS) {
        uint64_t sum = 0;
        CHECK(mgp_rows_visit(&rows, hits_sum, &sum) == 0);
        CHECK(sum >= last);
        last = sum;
    }
    threads_join(threads);
    check_totals();
    mgp_rows_fini(&rows);
}

static void
rows_come_and_go_while_others_are_counted(void)
{
    pthread_t threads[THREADS];
    start();
    threads_start(threads);
    for (size_t number = 0; mgp_atomic_load(&threads_done) < THREADS; number++) {
        char label[32];
        int size = snprintf(label, sizeof(label), "%zu", number % 1000);
        struct mgp_row *row = mgp_rows_ensure(&rows, label, (size_t)size);
        CHECK(row != NULL);
        mgp_count_increment(row, MGP_WORD_HITS);
        if (number % 3 == 0) {
            CHECK(mgp_rows_forget(&rows, label, (size_t)size) == 0);
        }
    }
    threads_join(threads);
    check_totals();
    mgp_rows_fini(&rows);
}

int
main(void)
{
    RUN(totals_are_exact_and_never_fall_while_read);
    RUN(rows_come_and_go_while_others_are_counted);
    return harness_end();
}
