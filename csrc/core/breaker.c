#include "breaker.h"

#include "../base/check.h"

void
mgp_breaker_init(struct mgp_breaker *breaker)
{
    breaker->state = MGP_BREAKER_CLOSED;
    breaker->failures = 0;
    breaker->backoff = 1;
    breaker->open_until_ns = 0;
    breaker->last_failure_ns = 0;
}

bool
mgp_breaker_begin(struct mgp_breaker *breaker)
{
    MGP_ASSERT(breaker->state != MGP_BREAKER_HALF_OPEN);
    if (breaker->state == MGP_BREAKER_CLOSED) {
        return false;
    }
    breaker->state = MGP_BREAKER_HALF_OPEN;
    return true;
}

bool
mgp_breaker_succeed(struct mgp_breaker *breaker)
{
    bool was_open = breaker->state != MGP_BREAKER_CLOSED;
    mgp_breaker_init(breaker);
    return was_open;
}

bool
mgp_breaker_fail(struct mgp_breaker *breaker, bool is_trial, int64_t now_ns, uint32_t threshold,
                 int64_t reset_ns, double jitter)
{
    MGP_ASSERT(jitter >= 0.0 && jitter < 1.0);
    if (breaker->state != MGP_BREAKER_CLOSED && !is_trial) {
        return false;
    }
    if (breaker->failures < UINT32_MAX) {
        breaker->failures++;
    }
    breaker->last_failure_ns = now_ns;
    if (is_trial) {
        MGP_ASSERT(breaker->state == MGP_BREAKER_HALF_OPEN);
        breaker->backoff *= 2;
        if (breaker->backoff > MGP_BREAKER_MAX_BACKOFF) {
            breaker->backoff = MGP_BREAKER_MAX_BACKOFF;
        }
        double open_ns = (double)reset_ns * breaker->backoff * (1.0 - jitter / 10.0);
        breaker->state = MGP_BREAKER_OPEN;
        breaker->open_until_ns = now_ns + (int64_t)open_ns;
        return true;
    }
    if (breaker->failures >= threshold) {
        breaker->state = MGP_BREAKER_OPEN;
        breaker->backoff = 1;
        breaker->open_until_ns = now_ns + reset_ns;
        return true;
    }
    return false;
}

void
mgp_breaker_undecided(struct mgp_breaker *breaker, bool is_trial, int64_t now_ns)
{
    if (is_trial) {
        MGP_ASSERT(breaker->state == MGP_BREAKER_HALF_OPEN);
        breaker->state = MGP_BREAKER_OPEN;
        breaker->open_until_ns = now_ns;
    }
}

bool
mgp_breaker_refuses(const struct mgp_breaker *breaker, int64_t now_ns)
{
    switch (breaker->state) {
    case MGP_BREAKER_CLOSED:
        return false;
    case MGP_BREAKER_OPEN:
        return now_ns < breaker->open_until_ns;
    case MGP_BREAKER_HALF_OPEN:
        return true;
    }
    return true;
}

bool
mgp_breaker_is_open(const struct mgp_breaker *breaker)
{
    return breaker->state != MGP_BREAKER_CLOSED;
}
