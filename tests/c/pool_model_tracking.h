/* Leak detection, for test_pool_model.c alone, of which this is a part: which checkouts the
 * machine must report as too long, and which traces it must give back. */
#ifndef MGP_TESTS_POOL_MODEL_TRACKING_H
#define MGP_TESTS_POOL_MODEL_TRACKING_H

#include "pool_model_changes.h"

static void
do_track(struct lease *lease)
{
    int i = 0;
    if (lease == NULL || lease->trace != NULL) {
        return;
    }
    while (traces[i].is_used) {
        i++;
        CHECK(i < TRACES_MAX);
    }
    traces[i] = (struct trace){.is_used = true, .session = lease->session, .since_ns = now_ns};
    CHECK(mgp_pool_track(pool, now_ns, lease->ticket, &traces[i]) == MGP_OK);
    lease->trace = &traces[i];
}

/* Of the checkouts that last: upkeep has reported those that are too long, the longest first. */
static void
reconcile_traces(void)
{
    int64_t reported_ns = INT64_MIN, lasting_ns = INT64_MAX;
    for (int i = 0; i < lease_end; i++) {
        struct lease *lease = &leases[i];
        if (!lease->is_used || lease->trace == NULL) {
            continue;
        }
        int64_t since_ns = lease->trace->since_ns;
        const struct mgp_lease *core = mgp_leases_find(&pool->leases, lease->ticket);
        CHECK(core != NULL);
        if (core->use == MGP_LEASE_TRACKED) {
            lasting_ns = since_ns < lasting_ns ? since_ns : lasting_ns;
        } else {
            CHECK(operation == OP_UPKEEP && core->use == MGP_LEASE_TAKEN);
            CHECK(is_too_long(lease->trace));
            reported_ns = since_ns > reported_ns ? since_ns : reported_ns;
            end_trace(lease);
        }
    }
    CHECK(reported_ns <= lasting_ns);
}

/* The effect of a trace that has ended. */
static void
deliver_trace(const struct mgp_effect *effect)
{
    struct trace *trace = effect->trace;
    CHECK(trace->is_used && trace->is_ended);
    CHECK(effect->kind == (trace->is_long ? MGP_EFFECT_LONG_CHECKOUT : MGP_EFFECT_UNTRACKED));
    CHECK(effect->payload == trace->session && trace->session->is_used);
    trace->is_used = false;
}

/* Where no effect is left, the machine keeps the traces of checkouts that last, and no others. */
static void
check_traces_delivered(void)
{
    size_t kept = 0, lasting = 0;
    for (int i = 0; i < TRACES_MAX; i++) {
        CHECK(!traces[i].is_used || !traces[i].is_ended);
        kept += traces[i].is_used;
    }
    for (int i = 0; i < lease_end; i++) {
        lasting += leases[i].is_used && leases[i].trace != NULL;
    }
    CHECK(kept == lasting);
}

/* Upkeep is due in time, and when it has done all, none is overlooked. */
static void
check_tracking(void)
{
    for (int i = 0; i < lease_end; i++) {
        const struct trace *trace = leases[i].is_used ? leases[i].trace : NULL;
        if (trace != NULL && config.leak_detection_ns > 0) {
            CHECK(mgp_pool_next_deadline(pool) <= trace->since_ns + config.leak_detection_ns);
            CHECK(!upkeep_is_complete || !is_too_long(trace));
        }
    }
}

#endif
