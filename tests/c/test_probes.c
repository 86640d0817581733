/* Checks at one endpoint: no more at once than creations, so that a server that was restarted
 * is not stormed. Keys 1 ... 99 are of endpoint 0, 101 ... 199 of endpoint 1. */
#include "pool_fixture.h"

static void
checks_for_callers_are_bounded_for_each_endpoint(void)
{
    struct mgp_config config = pool_config();
    config.max_creating_per_endpoint = 2;
    pool_start(config);
    for (int key = 1; key <= 4; key++) {
        (void)pool_open_idle(key); /* s1 ... s4 */
    }
    (void)pool_open_idle(101); /* s5 */
    pool_suspect(pool_session(1));
    pool_suspect(pool_session(5));
    for (int key = 1; key <= 4; key++) {
        CHECK(pool_acquire(key)->answer == MGP_ANSWER_WAIT); /* c6 ... c9 */
    }
    CHECK(pool_acquire(101)->answer == MGP_ANSWER_WAIT); /* c10 */
    CHECK_EFFECTS("probe s1, probe s2, probe s5");
    CHECK(pool_counts().checking == 5);
    pool_checked(pool_session(2), true);
    CHECK_EFFECTS("probe s3, grant c7");
    pool_checked(pool_session(1), false);
    CHECK_EFFECTS("probe s4, close s1 health_check, grant c6"); /* c6 creates */
    pool_end();
}

static void
check_that_was_not_begun_yet_ends_with_its_session(void)
{
    struct mgp_config config = pool_config();
    config.max_creating_per_endpoint = 1;
    pool_start(config);
    (void)pool_open_idle(1);
    (void)pool_open_idle(2);
    pool_suspect(pool_session(1));
    (void)pool_acquire(1); /* c3 */
    (void)pool_acquire(2); /* c4 */
    CHECK_EFFECTS("probe s1");
    pool_close();
    CHECK_EFFECTS("fail c3 closed, close s2 manual, close s1 manual, fail c4 closed");
    CHECK(pool_total(MGP_WORD_HEALTH_CHECKS) == 1);
    pool_end();
}

static void
background_checks_are_bounded_for_each_endpoint(void)
{
    struct mgp_config config = pool_config();
    config.max_creating_per_endpoint = 2;
    config.checks_per_second = 1000000;
    config.breaker_threshold = 1;
    config.health_interval_ns = 10000 * SECOND;
    config.lifetime_ns = 10000 * SECOND;
    pool_start(config);
    for (int key = 1; key <= 3; key++) {
        (void)pool_open_idle(key); /* s1 ... s3 */
    }
    (void)pool_open_idle(101); /* s4 */
    pool_create_failed(pool_acquire(4), MGP_FAULT_ENDPOINT);
    pool_create_failed(pool_acquire(104), MGP_FAULT_ENDPOINT);
    for (int i = 0; i < 5; i++) {
        pool_upkeep();
        pool_advance(SECOND);
    }
    CHECK_EFFECTS("probe s1, probe s4, probe s2");
    CHECK(mgp_pool_next_deadline(pool) > now_ns);
    pool_checked(pool_session(1), true);
    pool_upkeep();
    CHECK_EFFECTS("probe s3");
    pool_end();
}

static void
health_checks_of_one_endpoint_at_its_bound_do_not_keep_others_waiting(void)
{
    struct mgp_config config = pool_config();
    config.max_creating_per_endpoint = 1;
    pool_start(config);
    (void)pool_open_idle(1);   /* s1 */
    (void)pool_open_idle(2);   /* s2 */
    (void)pool_open_idle(101); /* s3 */
    pool_advance(60 * SECOND);
    for (int i = 0; i < 4; i++) {
        pool_upkeep();
        pool_advance(SECOND / 10);
    }
    CHECK_EFFECTS("probe s1, probe s3");
    pool_checked(pool_session(1), true);
    pool_upkeep();
    CHECK_EFFECTS("probe s2");
    pool_end();
}

int
main(void)
{
    RUN(checks_for_callers_are_bounded_for_each_endpoint);
    RUN(check_that_was_not_begun_yet_ends_with_its_session);
    RUN(background_checks_are_bounded_for_each_endpoint);
    RUN(health_checks_of_one_endpoint_at_its_bound_do_not_keep_others_waiting);
    return harness_end();
}
