#include "../../csrc/core/breaker.h"

#include "harness.h"

#define RESET 1000
#define THRESHOLD 3

static struct mgp_breaker breaker;

static void
start(void)
{
    mgp_breaker_init(&breaker);
}

static bool
fail(bool is_trial, int64_t now_ns)
{
    return mgp_breaker_fail(&breaker, is_trial, now_ns, THRESHOLD, RESET, 0.0);
}

/* Opens it at time 0, until RESET. */
static void
start_open(void)
{
    start();
    CHECK(!fail(false, 0));
    CHECK(!fail(false, 0));
    CHECK(fail(false, 0));
}

static void
new_breaker_is_closed_and_refuses_nothing(void)
{
    start();
    CHECK(!mgp_breaker_is_open(&breaker));
    CHECK(!mgp_breaker_refuses(&breaker, INT64_MIN));
    CHECK(!mgp_breaker_refuses(&breaker, INT64_MAX));
}

static void
threshold_of_consecutive_failures_opens_it(void)
{
    start();
    CHECK(!fail(false, 10));
    CHECK(!fail(false, 20));
    CHECK(!mgp_breaker_is_open(&breaker));
    CHECK(fail(false, 30));
    CHECK(mgp_breaker_is_open(&breaker));
    CHECK(breaker.failures == THRESHOLD);
    CHECK(breaker.last_failure_ns == 30);
    CHECK(breaker.open_until_ns == 30 + RESET);
}

static void
success_starts_the_count_of_failures_anew(void)
{
    start();
    CHECK(!fail(false, 0));
    CHECK(!fail(false, 0));
    CHECK(!mgp_breaker_succeed(&breaker));
    CHECK(breaker.failures == 0);
    CHECK(!fail(false, 0));
    CHECK(!fail(false, 0));
    CHECK(!mgp_breaker_is_open(&breaker));
}

static void
open_breaker_refuses_until_its_time_is_over(void)
{
    start_open();
    CHECK(mgp_breaker_refuses(&breaker, 0));
    CHECK(mgp_breaker_refuses(&breaker, RESET - 1));
    CHECK(!mgp_breaker_refuses(&breaker, RESET));
    CHECK(mgp_breaker_is_open(&breaker));
}

static void
only_the_creation_that_begins_it_is_the_trial(void)
{
    start();
    CHECK(!mgp_breaker_begin(&breaker));
    start_open();
    CHECK(mgp_breaker_begin(&breaker));
    CHECK(breaker.state == MGP_BREAKER_HALF_OPEN);
    CHECK(mgp_breaker_is_open(&breaker));
    CHECK(mgp_breaker_refuses(&breaker, INT64_MAX));
}

static void
successful_trial_closes_it(void)
{
    start_open();
    mgp_breaker_begin(&breaker);
    CHECK(mgp_breaker_succeed(&breaker));
    CHECK(!mgp_breaker_is_open(&breaker));
    CHECK(breaker.failures == 0);
    CHECK(!mgp_breaker_refuses(&breaker, 0));
}

static void
failed_trial_opens_it_for_twice_as_long_up_to_ten_times(void)
{
    static const int64_t backoffs[] = {2, 4, 8, 10, 10, 10};
    start_open();
    for (size_t i = 0; i < sizeof(backoffs) / sizeof(backoffs[0]); i++) {
        int64_t at = breaker.open_until_ns;
        CHECK(mgp_breaker_begin(&breaker));
        CHECK(fail(true, at));
        CHECK(breaker.state == MGP_BREAKER_OPEN);
        CHECK(breaker.open_until_ns == at + backoffs[i] * RESET);
    }
    CHECK(mgp_breaker_begin(&breaker));
    CHECK(mgp_breaker_succeed(&breaker));
    CHECK(!fail(false, 0));
    CHECK(!fail(false, 0));
    CHECK(fail(false, 0));
    CHECK(breaker.open_until_ns == RESET); /* the base again */
}

static void
jitter_shortens_a_reopening_by_up_to_a_tenth(void)
{
    start_open();
    mgp_breaker_begin(&breaker);
    CHECK(mgp_breaker_fail(&breaker, true, 0, THRESHOLD, RESET, 0.5));
    CHECK(breaker.open_until_ns == 2 * RESET - 2 * RESET / 20);
    mgp_breaker_begin(&breaker);
    CHECK(mgp_breaker_fail(&breaker, true, 0, THRESHOLD, RESET, 0.999999));
    CHECK(breaker.open_until_ns >= 4 * RESET - 4 * RESET / 10);
}

static void
trial_without_a_verdict_lets_the_next_try_at_once(void)
{
    start_open();
    mgp_breaker_begin(&breaker);
    mgp_breaker_undecided(&breaker, true, 5000);
    CHECK(breaker.state == MGP_BREAKER_OPEN);
    CHECK(!mgp_breaker_refuses(&breaker, 5000));
    CHECK(breaker.failures == THRESHOLD);
    CHECK(mgp_breaker_begin(&breaker));
    CHECK(fail(true, 6000));
    CHECK(breaker.open_until_ns == 6000 + 2 * RESET);
}

static void
only_the_trial_reopens_it(void)
{
    start_open();
    CHECK(!fail(false, 500));
    CHECK(breaker.failures == THRESHOLD && breaker.open_until_ns == RESET);
    mgp_breaker_undecided(&breaker, false, 500);
    CHECK(mgp_breaker_refuses(&breaker, 500));
    mgp_breaker_begin(&breaker);
    CHECK(!fail(false, 2000));
    mgp_breaker_undecided(&breaker, false, 2000);
    CHECK(breaker.state == MGP_BREAKER_HALF_OPEN);
}

static void
any_success_closes_it(void)
{
    start_open();
    CHECK(mgp_breaker_succeed(&breaker));
    CHECK(!mgp_breaker_is_open(&breaker) && breaker.failures == 0);
    start_open();
    mgp_breaker_begin(&breaker);
    CHECK(mgp_breaker_succeed(&breaker));
    CHECK(!mgp_breaker_refuses(&breaker, 0));
}

static void
creation_without_a_verdict_leaves_a_closed_breaker_as_it_was(void)
{
    start();
    CHECK(!fail(false, 7));
    mgp_breaker_undecided(&breaker, false, 8);
    CHECK(breaker.failures == 1 && breaker.last_failure_ns == 7);
    CHECK(!mgp_breaker_is_open(&breaker));
}

static void
threshold_of_one_opens_at_the_first_failure(void)
{
    start();
    CHECK(mgp_breaker_fail(&breaker, false, 0, 1, RESET, 0.0));
    CHECK(mgp_breaker_refuses(&breaker, 0));
}

static void
count_of_failures_does_not_wrap(void)
{
    start_open();
    breaker.failures = UINT32_MAX;
    mgp_breaker_begin(&breaker);
    CHECK(fail(true, 0));
    CHECK(breaker.failures == UINT32_MAX);
}

int
main(void)
{
    RUN(new_breaker_is_closed_and_refuses_nothing);
    RUN(threshold_of_consecutive_failures_opens_it);
    RUN(success_starts_the_count_of_failures_anew);
    RUN(open_breaker_refuses_until_its_time_is_over);
    RUN(only_the_creation_that_begins_it_is_the_trial);
    RUN(successful_trial_closes_it);
    RUN(failed_trial_opens_it_for_twice_as_long_up_to_ten_times);
    RUN(jitter_shortens_a_reopening_by_up_to_a_tenth);
    RUN(trial_without_a_verdict_lets_the_next_try_at_once);
    RUN(only_the_trial_reopens_it);
    RUN(any_success_closes_it);
    RUN(creation_without_a_verdict_leaves_a_closed_breaker_as_it_was);
    RUN(threshold_of_one_opens_at_the_first_failure);
    RUN(count_of_failures_does_not_wrap);
    return harness_end();
}
