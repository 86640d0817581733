/* Two processes count in rows that they freeze again and again, while others fold and read. */
#include <pthread.h>
#include <string.h>

#include "../../csrc/base/status.h"
#include "../../csrc/metrics/forgetting.h"
#include "counters_fixture.h"
#include "harness.h"

#define CLEARED 200 /* rows that each process has seen taken when it is done */
#define FROZEN 100  /* no more at once: where the folding is slow, they would fill the file */
#define LABEL "gateway"

static struct mgp_rows processes[2];
static mgp_atomic_u64 threads_done, counted;

static void *
counting_thread(void *process)
{
    struct mgp_rows *rows = process;
    for (uint64_t round = 1; rows->forgetting.cleared_count < CLEARED; round++) {
        mgp_atomic_add(&counted, 1);
        counters_add(rows, LABEL, MGP_WORD_HITS, 1);
        if (round % 3 == 0 && mgp_list_length(&rows->frozen) < FROZEN) {
            CHECK(mgp_forgetting_freeze(rows, LABEL, strlen(LABEL), round) == MGP_OK);
        }
        if (round % 5 == 0) {
            mgp_forgetting_upkeep(rows, round);
        }
    }
    mgp_atomic_add(&threads_done, 1);
    return NULL;
}

static void *
folding_thread(void *directory)
{
    static struct mgp_problems problems;
    while (mgp_atomic_load(&threads_done) < 2) {
        size_t pending;
        const struct mgp_archive_job job = {.path = directory,
                                            .hash_key = {1, 2},
                                            .max_rows = 10,
                                            .now_s = 1000,
                                            .problems = &problems};
        CHECK(mgp_archive_fold(&job, &pending) == MGP_OK);
        CHECK(problems.count == 0);
    }
    return NULL;
}

static void
sum_never_falls_while_rows_are_frozen_taken_and_used_again(void)
{
    pthread_t threads[3];
    uint64_t last = 0;
    const char *directory = counters_directory_new();
    mgp_atomic_store(&threads_done, 0);
    for (int i = 0; i < 2; i++) {
        counters_process_start(&processes[i]);
    }
    for (int i = 0; i < 2; i++) {
        CHECK(pthread_create(&threads[i], NULL, counting_thread, &processes[i]) == 0);
    }
    CHECK(pthread_create(&threads[2], NULL, folding_thread, (void *)(uintptr_t)directory) == 0);
    while (mgp_atomic_load(&threads_done) < 2) {
        uint64_t now = counters_scrape_word(LABEL, MGP_WORD_HITS);
        CHECK(now >= last && now <= mgp_atomic_load(&counted));
        last = now;
    }
    for (int i = 0; i < 3; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    for (int i = 0; i < 2; i++) {
        CHECK(counters_scrape_word(LABEL, MGP_WORD_HITS) == mgp_atomic_load(&counted));
        mgp_rows_fini(&processes[i]);
        CHECK(counters_fold() == MGP_OK);
    }
    CHECK(counters_scrape_word(LABEL, MGP_WORD_HITS) == mgp_atomic_load(&counted));
    counters_directory_remove();
}

int
main(void)
{
    RUN(sum_never_falls_while_rows_are_frozen_taken_and_used_again);
    return harness_end();
}
