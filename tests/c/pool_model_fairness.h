/* Fairness, for test_pool_model.c alone, of which this is a part: what comes free goes to whoever
 * has waited longest among those whom it would help. A place in the pool helps a waiter whose key
 * has room and whose endpoint lets create; the place of an idle session does so too, once the
 * session is closed. */
#ifndef MGP_TESTS_POOL_MODEL_FAIRNESS_H
#define MGP_TESTS_POOL_MODEL_FAIRNESS_H

#include "pool_model_questions.h"

/* How many more sessions the first `waiting` of a key's waiters could use: those that its
 * checks under way will not answer, as far as the key has room. */
static unsigned
places_wanted(int key, unsigned waiting)
{
    unsigned all = count_waiters(key), checking = count_sessions(key, MGP_SESSION_CHECKING);
    unsigned open = count_sessions(key, MGP_SESSION_GONE);
    unsigned room = open < config.max_sessions_per_key ? config.max_sessions_per_key - open : 0;
    unsigned wanted = all > checking ? all - checking : 0;
    wanted = wanted < waiting ? wanted : waiting;
    return wanted < room ? wanted : room;
}

/* How many creations may begin at an endpoint now. Where only the time of its breaker is
 * over, which the machine notices at the next occasion: none, or with `is_upper` one. */
static unsigned
creations_permitted(int endpoint, bool is_upper)
{
    if (endpoints[endpoint].state != MGP_BREAKER_CLOSED) {
        return is_upper && !breaker_refuses(endpoint);
    }
    unsigned limit = config.max_creating_per_endpoint, creating = count_creating_at(endpoint);
    return limit == 0 ? UINT32_MAX : limit > creating ? limit - creating : 0;
}

#define EVERYBODY UINT64_MAX

/* How many places the waiters of all keys but one (or NEVER) who came before that number
 * could use at once, if the pool had them. */
static unsigned
places_wanted_before(uint64_t number, int but, bool is_upper)
{
    unsigned sum = 0;
    for (int endpoint = 0; endpoint < ENDPOINTS; endpoint++) {
        unsigned wanted = 0, permitted = creations_permitted(endpoint, is_upper);
        for (int key = 0; key < KEYS; key++) {
            unsigned older = 0;
            for (int i = 0; i < waiter_end; i++) {
                older += waiters[i].is_used && waiters[i].state == MGP_WAITER_WAITING &&
                         waiters[i].key == key && waiters[i].number < number;
            }
            if (key != but && endpoint_of(key) == endpoint) {
                wanted += places_wanted(key, older);
            }
        }
        sum += wanted < permitted ? wanted : permitted;
    }
    return sum;
}

/* Sessions that are being closed for the sake of keys that starve. */
static unsigned
count_supply(void)
{
    unsigned count = 0;
    for (int i = 0; i < session_end; i++) {
        count += is_live(&sessions[i]) && sessions[i].state == MGP_SESSION_CLOSING &&
                 sessions[i].is_supply;
    }
    return count;
}

static unsigned
count_keys(void)
{
    unsigned count = 0;
    for (int key = 0; key < KEYS; key++) {
        count += keys[key].exists && !keys[key].is_retiring;
    }
    return count;
}

/* The oldest waiter of a key; NULL: none. */
static struct waiter *
oldest_waiter(int key)
{
    struct waiter *oldest = NULL;
    for (int i = 0; i < waiter_end; i++) {
        struct waiter *waiter = &waiters[i];
        if (waiter->is_used && waiter->state == MGP_WAITER_WAITING && waiter->key == key &&
            (oldest == NULL || waiter->number < oldest->number)) {
            oldest = waiter;
        }
    }
    return oldest;
}

#endif
