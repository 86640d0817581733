#include "key.h"

#include <string.h>

#include "../base/alloc.h"
#include "../base/check.h"
#include "counting.h"
#include "machine.h"

static struct mgp_group *
group_of_entry(struct mgp_table_entry *entry)
{
    return mgp_container_of(entry, struct mgp_group, entry);
}

struct mgp_key *
mgp_key_find(struct mgp_pool *pool, uint64_t hash, const void *bytes, size_t size)
{
    struct mgp_table_entry *entry = mgp_table_find(&pool->keys, hash, bytes, size);
    return entry == NULL ? NULL : mgp_container_of(entry, struct mgp_key, entry);
}

/* The group of this name, made where there is none; NULL when out of memory. */
static struct mgp_group *
group_ensure(struct mgp_table *table, struct mgp_bytes name)
{
    uint64_t hash = mgp_table_hash(table, name.bytes, name.size);
    struct mgp_table_entry *entry = mgp_table_find(table, hash, name.bytes, name.size);
    if (entry != NULL) {
        return group_of_entry(entry);
    }
    struct mgp_group *group = mgp_alloc(sizeof(*group) + name.size);
    if (group == NULL) {
        return NULL;
    }
    uint8_t *bytes = (uint8_t *)(group + 1);
    memcpy(bytes, name.bytes, name.size);
    group->entry.bytes = bytes;
    group->entry.size = name.size;
    group->entry.hash = hash;
    mgp_list_init(&group->members);
    mgp_table_insert(table, &group->entry);
    return group;
}

static void
group_drop_if_empty(struct mgp_table *table, struct mgp_group *group)
{
    if (group != NULL && mgp_list_is_empty(&group->members)) {
        mgp_table_remove(table, &group->entry);
        mgp_wipe(group + 1, group->entry.size);
        mgp_free(group);
    }
}

struct mgp_key *
mgp_key_new(struct mgp_pool *pool, uint64_t hash, const struct mgp_key_spec *spec,
            struct mgp_endpoint *endpoint)
{
    struct mgp_group *groups[MGP_GROUPS_MAX] = {NULL};
    struct mgp_key *key = NULL;
    uint8_t memberships = 0;
    if (mgp_heap_reserve(&pool->shortages, pool->keys.count + 1) < 0) {
        return NULL;
    }
    for (size_t i = 0; i < MGP_GROUPS_MAX; i++) {
        if (spec->groups[i].size > 0) {
            memberships = MGP_GROUPS_MAX;
            groups[i] = group_ensure(&pool->groups[i], spec->groups[i]);
            if (groups[i] == NULL) {
                goto failed;
            }
        }
    }
    size_t head = sizeof(*key) + memberships * sizeof(key->memberships[0]);
    if (spec->key.size > SIZE_MAX - head) {
        goto failed;
    }
    key = mgp_alloc(head + spec->key.size);
    if (key == NULL) {
        goto failed;
    }
    memset(key, 0, head);
    uint8_t *bytes = (uint8_t *)key + head;
    memcpy(bytes, spec->key.bytes, spec->key.size);
    key->entry.bytes = bytes;
    key->entry.size = spec->key.size;
    key->entry.hash = hash;
    key->row = spec->row;
    key->is_anonymous = spec->is_anonymous;
    key->is_single_use = spec->is_single_use;
    mgp_heap_node_init(&key->shortage);
    mgp_list_init(&key->idle_sessions);
    mgp_list_init(&key->active_sessions);
    mgp_list_init(&key->other_sessions);
    key->membership_count = memberships;
    for (size_t i = 0; i < memberships; i++) {
        key->memberships[i].key = key;
        key->memberships[i].group = groups[i];
        if (groups[i] != NULL) {
            mgp_list_push_back(&groups[i]->members, &key->memberships[i].link);
        }
    }
    mgp_table_insert(&pool->keys, &key->entry);
    pool->counts.keys++;
    mgp_row_hold(key->row);
    mgp_count(pool, key->row, MGP_WORD_KEYS);
    mgp_endpoint_add_key(pool, endpoint, key);
    return key;

failed:
    for (size_t i = 0; i < MGP_GROUPS_MAX; i++) {
        group_drop_if_empty(&pool->groups[i], groups[i]);
    }
    return NULL;
}

bool
mgp_key_is_short(const struct mgp_pool *pool, const struct mgp_key *key)
{
    return key->idle + key->checking + key->ahead < pool->config.min_idle_per_key &&
           !key->is_single_use && !key->is_retiring;
}

void
mgp_key_note_shortage(struct mgp_pool *pool, struct mgp_key *key, int64_t at_ns)
{
    if (pool->config.min_idle_per_key > 0 && !mgp_heap_node_is_attached(&key->shortage) &&
        mgp_key_is_short(pool, key)) {
        mgp_heap_insert(&pool->shortages, &key->shortage, at_ns);
    }
}

void
mgp_key_set_retiring(struct mgp_pool *pool, struct mgp_key *key, bool is_retiring)
{
    if (key->is_retiring == is_retiring) {
        return;
    }
    key->is_retiring = is_retiring;
    if (is_retiring) {
        pool->counts.keys--;
        pool->counts.keys_evicted++;
        mgp_uncount(pool, key->row, MGP_WORD_KEYS);
    } else {
        pool->counts.keys++;
        mgp_count(pool, key->row, MGP_WORD_KEYS);
        mgp_key_note_shortage(pool, key, INT64_MIN);
    }
}

void
mgp_key_update_recency(struct mgp_pool *pool, struct mgp_key *key)
{
    bool is_used = mgp_key_is_used(key);
    bool is_empty = !is_used && !mgp_key_has_sessions(key);
    if (is_empty) {
        mgp_link_detach(&key->recency);
        mgp_list_push_back(&pool->empty_keys, &key->recency);
    } else if (is_used || key->is_retiring) {
        mgp_link_detach(&key->recency);
    } else if (!mgp_link_is_attached(&key->recency)) {
        mgp_list_push_back(&pool->evictable_keys, &key->recency);
    }
}

void
mgp_key_drop(struct mgp_pool *pool, struct mgp_key *key)
{
    MGP_ASSERT(!mgp_key_has_sessions(key) && key->queue == NULL);
    mgp_key_set_retiring(pool, key, true);
    mgp_link_detach(&key->recency);
    mgp_heap_remove(&pool->shortages, &key->shortage);
    mgp_table_remove(&pool->keys, &key->entry);
    mgp_endpoint_remove_key(pool, key->endpoint, key);
    for (size_t i = 0; i < key->membership_count; i++) {
        mgp_link_detach(&key->memberships[i].link);
        group_drop_if_empty(&pool->groups[i], key->memberships[i].group);
    }
    mgp_row_unhold(key->row);
    /* The bytes hold bearer tokens and the like. */
    mgp_wipe((void *)(uintptr_t)key->entry.bytes, key->entry.size);
    mgp_free(key);
}
