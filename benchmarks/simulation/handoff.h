/* Keys whose sessions are all in use, with callers that wait for them. */
#ifndef MGP_SIMULATION_HANDOFF_H
#define MGP_SIMULATION_HANDOFF_H

#include <stdint.h>

#include "world.h"

struct hot_key;

struct handoff {
    struct world *world;
    struct hot_key *keys; /* owned */
    uint32_t key_count;
};

/* Opens all sessions that each of `key_count` keys can have, from number `first` on, and lets
 * callers wait for each. */
void handoff_init(struct handoff *handoff, struct world *world, uint32_t first, uint32_t key_count);
/* One session comes back, goes to the oldest waiter, who takes it, and one more caller waits. */
void handoff_step(struct handoff *handoff, uint32_t key);
/* How many callers wait. */
uint64_t handoff_waiting(const struct handoff *handoff);
/* The next waiter, in order of keys and arrival, times out. */
void handoff_time_out(struct handoff *handoff, uint64_t number);
/* Nobody may wait any more; the sessions come back. */
void handoff_fini(struct handoff *handoff);

#endif
