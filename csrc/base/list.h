/* Intrusive, circular, doubly linked list. The links live in the elements: no
 * operation allocates or fails, each but mgp_list_length() is O(1).
 *
 * A link is either in exactly one list, or detached (both pointers NULL). An
 * element's owner must detach it before freeing it. */
#ifndef MGP_BASE_LIST_H
#define MGP_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "container.h"

struct mgp_link {
    struct mgp_link *prev;
    struct mgp_link *next;
};

struct mgp_list {
    struct mgp_link head; /* head.next is the first element, head.prev the last */
};

void mgp_list_init(struct mgp_list *list);
void mgp_list_push_front(struct mgp_list *list, struct mgp_link *link);
void mgp_list_push_back(struct mgp_list *list, struct mgp_link *link);
/* Puts `link` in front of `next`, which is a link of some list, or its head. */
void mgp_link_insert_before(struct mgp_link *link, struct mgp_link *next);
/* Moves all of `from` to the end of `to`, in order; `from` is empty afterwards. */
void mgp_list_splice_back(struct mgp_list *to, struct mgp_list *from);
/* Detaches a link from the list it is in; harmless on a detached link. */
void mgp_link_detach(struct mgp_link *link);
/* O(n): for checks and tests. */
size_t mgp_list_length(const struct mgp_list *list);

static inline bool
mgp_list_is_empty(const struct mgp_list *list)
{
    return list->head.next == &list->head;
}

static inline bool
mgp_link_is_attached(const struct mgp_link *link)
{
    return link->next != NULL;
}

/* The first or last link, or NULL when the list is empty. Stays in the list. */
static inline struct mgp_link *
mgp_list_peek_front(const struct mgp_list *list)
{
    return mgp_list_is_empty(list) ? NULL : list->head.next;
}

static inline struct mgp_link *
mgp_list_peek_back(const struct mgp_list *list)
{
    return mgp_list_is_empty(list) ? NULL : list->head.prev;
}

/* Walks a list whose elements are not detached meanwhile. */
#define mgp_list_for_each(link, list)                                                              \
    for (link = (list)->head.next; link != &(list)->head; link = link->next)

#endif
