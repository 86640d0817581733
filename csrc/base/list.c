#include "list.h"

#include "check.h"

void
mgp_list_init(struct mgp_list *list)
{
    list->head.prev = &list->head;
    list->head.next = &list->head;
}

void
mgp_link_insert_before(struct mgp_link *link, struct mgp_link *next)
{
    MGP_ASSERT(!mgp_link_is_attached(link));
    link->prev = next->prev;
    link->next = next;
    next->prev->next = link;
    next->prev = link;
}

void
mgp_list_push_front(struct mgp_list *list, struct mgp_link *link)
{
    mgp_link_insert_before(link, list->head.next);
}

void
mgp_list_push_back(struct mgp_list *list, struct mgp_link *link)
{
    mgp_link_insert_before(link, &list->head);
}

void
mgp_list_splice_back(struct mgp_list *to, struct mgp_list *from)
{
    if (mgp_list_is_empty(from)) {
        return;
    }
    from->head.next->prev = to->head.prev;
    to->head.prev->next = from->head.next;
    from->head.prev->next = &to->head;
    to->head.prev = from->head.prev;
    mgp_list_init(from);
}

void
mgp_link_detach(struct mgp_link *link)
{
    if (!mgp_link_is_attached(link)) {
        return;
    }
    link->prev->next = link->next;
    link->next->prev = link->prev;
    link->prev = NULL;
    link->next = NULL;
}

size_t
mgp_list_length(const struct mgp_list *list)
{
    size_t length = 0;
    const struct mgp_link *link;
    mgp_list_for_each(link, list) {
        length++;
    }
    return length;
}
