/* A while in the life of a gateway, in virtual time: callers arrive, mostly for popular keys;
 * wait, give up, create, hold, release; servers fail, two of them altogether for a third of the
 * time; sessions grow old; checks and closes take their time. In the second half the pool is full. */
#include <stdlib.h>
#include <string.h>

#include "../../csrc/base/container.h"
#include "../../csrc/base/heap.h"
#include "parts.h"
#include "stopwatch.h"
#include "world.h"
#include "zipf.h"

#define ARRIVAL_MEAN (500 * MICROSECOND)
#define HOLD_MEAN (25 * MILLISECOND)
#define CREATE_MEAN (10 * MILLISECOND)
#define CHECK_MEAN (2 * MILLISECOND)
#define CLOSE_MEAN (2 * MILLISECOND)
#define ACQUIRE_TIMEOUT (100 * MILLISECOND)
#define UPKEEP_SLICE 8

/* Callers, and sessions being closed or checked, at a time; and what is closed at once when the
 * breakers of two servers open. */
#define MAX_EVENTS(options) (65536 + 3 * (size_t)(options)->keys / (options)->gateways)

enum event_kind {
    EVENT_GIVES_UP, /* a caller that waits */
    EVENT_CREATED,  /* a caller whose session is being created, or nobody's any more */
    EVENT_RELEASES, /* a caller that holds a session */
    EVENT_CHECKED,
    EVENT_CLOSED,
};

/* Something that is to happen; a caller is one event after the other. */
struct event {
    struct mgp_heap_node node;
    enum event_kind kind;
    bool is_unwanted;
    uint32_t gateway; /* of a caller, and of a session under a check */
    struct mgp_waiter *waiter;
    struct mgp_ticket ticket;
    struct event *next_free;
};

struct traffic {
    struct world world;
    struct random random;
    struct mgp_heap events;
    struct event *storage; /* owned */
    struct event *free;
    int64_t outage_begins_ns;
    int64_t outage_ends_ns;
};

static struct event *
event_new(struct traffic *traffic, enum event_kind kind, uint32_t gateway)
{
    struct event *event = traffic->free;
    REQUIRE(event != NULL);
    traffic->free = event->next_free;
    memset(event, 0, sizeof(*event));
    mgp_heap_node_init(&event->node);
    event->kind = kind;
    event->gateway = gateway;
    return event;
}

static void
event_free(struct traffic *traffic, struct event *event)
{
    mgp_heap_remove(&traffic->events, &event->node);
    event->next_free = traffic->free;
    traffic->free = event;
}

static void
event_schedule(struct traffic *traffic, struct event *event, enum event_kind kind, int64_t after_ns)
{
    mgp_heap_remove(&traffic->events, &event->node);
    event->kind = kind;
    mgp_heap_insert(&traffic->events, &event->node, traffic->world.now_ns + after_ns);
}

/* ---- callers ---------------------------------------------------------------- */

/* What a caller does with what it got. */
static void
go_on(struct traffic *traffic, struct event *caller, const struct mgp_acquired *acquired)
{
    caller->ticket = acquired->ticket;
    switch (acquired->answer) {
    case MGP_ANSWER_SESSION:
        event_schedule(traffic, caller, EVENT_RELEASES,
                       random_duration_ns(&traffic->random, HOLD_MEAN));
        break;
    case MGP_ANSWER_CREATE:
        event_schedule(traffic, caller, EVENT_CREATED,
                       random_duration_ns(&traffic->random, CREATE_MEAN));
        break;
    case MGP_ANSWER_WAIT:
        caller->waiter = acquired->waiter;
        mgp_waiter_set_payload(caller->waiter, caller);
        event_schedule(traffic, caller, EVENT_GIVES_UP, ACQUIRE_TIMEOUT);
        break;
    case MGP_ANSWER_NONE:
        REQUIRE(false);
    }
}

static void
arrive(struct traffic *traffic, uint32_t number)
{
    struct mgp_acquired acquired;
    if (world_acquire(&traffic->world, number, &acquired) == MGP_OK) {
        go_on(traffic, event_new(traffic, EVENT_GIVES_UP, number % traffic->world.gateway_count),
              &acquired);
    }
}

static bool
is_out(const struct traffic *traffic, uint32_t gateway)
{
    return gateway < 2 && traffic->world.now_ns >= traffic->outage_begins_ns &&
           traffic->world.now_ns < traffic->outage_ends_ns;
}

static struct mgp_ticket
create(struct world *world, struct mgp_ticket creation, uint32_t gateway)
{
    struct mgp_ticket lease = world_create(world, creation);
    struct opened *opened = mgp_pool_leased_payload(world->pool, lease);
    opened->gateway = gateway;
    return lease;
}

static void
end_creation(struct traffic *traffic, struct event *caller)
{
    struct world *world = &traffic->world;
    struct tally *tally = &world->tally;
    if (!caller->is_unwanted && random_chance(&traffic->random, 0.01)) {
        REQUIRE(mgp_pool_creation_unwanted(world->pool, caller->ticket) == MGP_OK);
        tally->cancellations++;
        tally->pending--;
        caller->is_unwanted = true;
    }
    if (is_out(traffic, caller->gateway) || random_chance(&traffic->random, 0.02)) {
        enum mgp_fault fault =
            random_chance(&traffic->random, 0.1) ? MGP_FAULT_CALLER : MGP_FAULT_ENDPOINT;
        REQUIRE(mgp_pool_create_failed(world->pool, world->now_ns, caller->ticket, fault) ==
                MGP_OK);
        tally->failures += !caller->is_unwanted;
        tally->unwanted_failures += caller->is_unwanted;
        tally->pending -= !caller->is_unwanted;
        event_free(traffic, caller);
    } else if (caller->is_unwanted) {
        struct mgp_session *session;
        struct mgp_ticket lease;
        struct opened *opened = world_open(world);
        opened->gateway = caller->gateway;
        REQUIRE(mgp_pool_created(world->pool, world->now_ns, caller->ticket, opened, &session,
                                 &lease) == MGP_OK);
        REQUIRE(lease.generation == 0);
        tally->unwanted_successes++;
        event_free(traffic, caller);
    } else {
        caller->ticket = create(world, caller->ticket, caller->gateway);
        event_schedule(traffic, caller, EVENT_RELEASES,
                       random_duration_ns(&traffic->random, HOLD_MEAN));
    }
}

static enum mgp_verdict
judge(struct random *random)
{
    double chance = random_unit(random);
    return chance < 0.97    ? MGP_VERDICT_GOOD
           : chance < 0.98  ? MGP_VERDICT_DISCARD
           : chance < 0.995 ? MGP_VERDICT_BROKEN
                            : MGP_VERDICT_LEAKED;
}

/* ---- what happens ----------------------------------------------------------- */

static void
apply_effects(struct traffic *traffic)
{
    struct world *world = &traffic->world;
    struct mgp_effect effect;
    while (world_next_effect(world, &effect)) {
        struct event *caller = effect.payload; /* of GRANT and FAIL */
        struct mgp_acquired acquired;
        struct event *event;
        switch (effect.kind) {
        case MGP_EFFECT_GRANT:
            if (random_chance(&traffic->random, 0.01)) { /* it went away at that very moment */
                world_cancel(world, caller->waiter, MGP_CANCEL_BY_CALLER);
                event_free(traffic, caller);
            } else {
                world_take(world, caller->waiter, &acquired);
                go_on(traffic, caller, &acquired);
            }
            break;
        case MGP_EFFECT_FAIL:
            REQUIRE(effect.status == MGP_ERR_CIRCUIT_OPEN);
            world->tally.rejections++;
            world->tally.pending--;
            event_free(traffic, caller);
            break;
        case MGP_EFFECT_CLOSE:
            event = event_new(traffic, EVENT_CLOSED, 0);
            event->ticket = effect.ticket;
            event_schedule(traffic, event, EVENT_CLOSED,
                           random_duration_ns(&traffic->random, CLOSE_MEAN));
            break;
        case MGP_EFFECT_PROBE:
            world->tally.checks++;
            event = event_new(traffic, EVENT_CHECKED, ((struct opened *)effect.payload)->gateway);
            event->ticket = effect.ticket;
            event_schedule(traffic, event, EVENT_CHECKED,
                           random_duration_ns(&traffic->random, CHECK_MEAN));
            break;
        case MGP_EFFECT_CREATE: /* nothing here is opened ahead of need, or tracked */
        case MGP_EFFECT_LONG_CHECKOUT:
        case MGP_EFFECT_UNTRACKED:
        case MGP_EFFECT_GONE:
            REQUIRE(false);
        }
        world_check(world);
    }
}

static void
happen(struct traffic *traffic, struct event *event)
{
    struct world *world = &traffic->world;
    bool is_usable = true;
    switch (event->kind) {
    case EVENT_GIVES_UP:
        world_cancel(world, event->waiter, MGP_CANCEL_BY_TIMEOUT);
        event_free(traffic, event);
        break;
    case EVENT_CREATED:
        end_creation(traffic, event);
        break;
    case EVENT_RELEASES:
        world_release(world, event->ticket, judge(&traffic->random));
        event_free(traffic, event);
        break;
    case EVENT_CHECKED:
        is_usable = !is_out(traffic, event->gateway) && !random_chance(&traffic->random, 0.02);
        world->tally.failed_checks += !is_usable;
        REQUIRE(mgp_pool_checked(world->pool, world->now_ns, event->ticket, is_usable) == MGP_OK);
        event_free(traffic, event);
        break;
    case EVENT_CLOSED:
        REQUIRE(mgp_pool_close_ended(world->pool, world->now_ns, event->ticket) == MGP_OK);
        event_free(traffic, event);
        break;
    }
    world_check(world);
    apply_effects(traffic);
}

/* All that falls due until then, upkeep included. */
static void
run_until(struct traffic *traffic, int64_t until_ns)
{
    struct world *world = &traffic->world;
    for (;;) {
        struct mgp_heap_node *node = mgp_heap_peek(&traffic->events);
        int64_t event_ns = node == NULL ? INT64_MAX : node->at_ns;
        int64_t upkeep_ns = mgp_pool_next_deadline(world->pool);
        upkeep_ns = upkeep_ns < world->now_ns ? world->now_ns : upkeep_ns;
        if (event_ns > until_ns && upkeep_ns > until_ns) {
            break;
        }
        if (upkeep_ns <= event_ns) {
            world->now_ns = upkeep_ns;
            mgp_pool_upkeep(world->pool, world->now_ns, UPKEEP_SLICE);
            world_check(world);
            apply_effects(traffic);
        } else {
            world->now_ns = event_ns;
            happen(traffic, mgp_container_of(node, struct event, node));
        }
    }
    world->now_ns = until_ns;
}

/* ---- the whole -------------------------------------------------------------- */

static void
print_counts(const struct world *world, uint32_t filled)
{
    static const struct {
        const char *name;
        size_t word;
    } counts[] = {
        {"hits", MGP_WORD_HITS},
        {"timeouts", MGP_WORD_ACQUIRE_TIMEOUTS},
        {"cancellations", MGP_WORD_ACQUIRE_CANCELLATIONS},
        {"create_failures", MGP_WORD_CREATE_FAILURES},
        {"circuit_open", MGP_REJECTION_WORD(MGP_REJECTION_CIRCUIT_OPEN)},
        {"trips", MGP_WORD_CIRCUIT_BREAKER_TRIPS},
        {"checks", MGP_WORD_HEALTH_CHECKS},
        {"evicted_ttl_expired", MGP_EVICTION_WORD(MGP_EVICTION_TTL_EXPIRED)},
        {"evicted_idle_timeout", MGP_EVICTION_WORD(MGP_EVICTION_IDLE_TIMEOUT)},
        {"evicted_capacity", MGP_EVICTION_WORD(MGP_EVICTION_CAPACITY)},
        {"evicted_circuit_breaker", MGP_EVICTION_WORD(MGP_EVICTION_CIRCUIT_BREAKER)},
        {"evicted_broken", MGP_EVICTION_WORD(MGP_EVICTION_BROKEN)},
    };
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        print_figure(counts[i].name, (double)world_total(world, counts[i].word));
    }
    /* But for those that filled the pool before. */
    print_figure("misses", (double)(world_total(world, MGP_WORD_MISSES) - filled));
    size_t first = MGP_WORD_ACQUIRE_WAIT_SECONDS;
    print_figure("waited", (double)world_total_of(world, first, MGP_BUCKET_SUM_OFFSET));
}

/* One idle session each for the keys 0 ... keys - 1, used at times spread over `span_ns`. */
static void
fill(struct world *world, uint32_t keys, int64_t span_ns)
{
    for (uint32_t number = 0; number < keys; number++) {
        struct mgp_acquired acquired;
        REQUIRE(world_acquire(world, number, &acquired) == MGP_OK);
        REQUIRE(acquired.answer == MGP_ANSWER_CREATE);
        uint32_t gateway = number % world->gateway_count;
        world_release(world, create(world, acquired.ticket, gateway), MGP_VERDICT_GOOD);
        world->now_ns += span_ns / keys;
    }
}

static void
traffic_init(struct traffic *traffic, const struct options *options, int64_t length_ns)
{
    struct mgp_config config = world_config();
    size_t max_events = MAX_EVENTS(options);
    /* The keys were used over so long a time that few of them fall due while the traffic goes
     * on: not more than one in ten, nor than one for ten arrivals; half of them each way. */
    int64_t lengths = 10 * (int64_t)options->keys / options->operations;
    int64_t past_ns = length_ns * (lengths > 10 ? lengths : 10);
    config.max_sessions_per_key = 4;
    config.breaker_reset_ns = length_ns / 30;
    config.lifetime_ns = past_ns + length_ns / 2;
    config.lifetime_jitter = (double)(length_ns / 2) / (double)config.lifetime_ns;
    config.idle_timeout_ns = past_ns + length_ns / 4;
    config.health_interval_ns = 60 * SECOND;
    world_init(&traffic->world, &config, options->gateways, options->keys + options->operations,
               options->check_every);
    traffic->random = (struct random){options->seed};
    mgp_heap_init(&traffic->events);
    REQUIRE(mgp_heap_reserve(&traffic->events, max_events) == MGP_OK);
    traffic->storage = calloc(max_events, sizeof(*traffic->storage));
    REQUIRE(traffic->storage != NULL);
    traffic->free = NULL;
    for (size_t i = 0; i < max_events; i++) {
        traffic->storage[i].next_free = traffic->free;
        traffic->free = &traffic->storage[i];
    }
    fill(&traffic->world, options->keys, past_ns);

    traffic->outage_begins_ns = traffic->world.now_ns + length_ns / 3;
    traffic->outage_ends_ns = traffic->world.now_ns + 2 * length_ns / 3;
}

static void
traffic_fini(struct traffic *traffic)
{
    REQUIRE(traffic->events.count == 0);
    mgp_heap_fini(&traffic->events);
    free(traffic->storage);
    world_fini(&traffic->world);
}

/* From now on there may be no more sessions than there are. */
static void
limit_sessions(struct world *world)
{
    struct mgp_pool_counts counts;
    mgp_pool_read_counts(world->pool, &counts);
    world->config.max_total_sessions = (uint32_t)(counts.creating + counts.active + counts.idle +
                                                  counts.checking + counts.closing);
    mgp_pool_configure(world->pool, &world->config);
}

void
part_traffic(const struct options *options)
{
    static struct traffic traffic;
    struct zipf zipf;
    struct world *world = &traffic.world;
    int64_t length_ns = options->operations * ARRIVAL_MEAN;
    traffic_init(&traffic, options, length_ns);
    world->tally.hits += options->fault;
    world->tally.acquires += options->fault;
    /* One caller in some has a key that the pool has not seen. */
    zipf_init(&zipf, 2 * options->keys, options->exponent);
    int64_t start_ns = stopwatch_now_ns();
    for (uint32_t i = 0; i < options->operations; i++) {
        if (i == options->operations / 2) {
            limit_sessions(world);
        }
        uint32_t number = zipf_draw_scattered(&zipf, &traffic.random);
        int64_t after_ns = random_duration_ns(&traffic.random, ARRIVAL_MEAN);
        run_until(&traffic, world->now_ns + after_ns);
        arrive(&traffic, number);
        apply_effects(&traffic);
    }
    int64_t taken_ns = stopwatch_now_ns() - start_ns;
    world_audit(world);
    /* Nobody arrives any more, and nobody is left waiting. */
    while (traffic.events.count > 0) {
        run_until(&traffic, world->now_ns + SECOND);
    }
    REQUIRE(world->tally.pending == 0 && world->tally.holding == 0);
    world_audit(world);
    print_figure("arrivals", options->operations);
    print_figure("traffic_ns", (double)taken_ns / options->operations);
    print_figure("virtual_seconds", (double)length_ns / (double)SECOND);
    print_counts(world, options->keys);
    traffic_fini(&traffic);
}
