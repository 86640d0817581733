#include "../../csrc/base/list.h"
#include "harness.h"

#define ITEMS 5

struct item {
    int number;
    struct mgp_link link;
};

static struct item items[ITEMS];
static struct mgp_list list;

static void
start(void)
{
    mgp_list_init(&list);
    for (int i = 0; i < ITEMS; i++) {
        items[i] = (struct item){.number = i};
    }
}

static int
number_of(const struct mgp_link *link)
{
    return mgp_container_of(link, const struct item, link)->number;
}

/* Whether a list holds these numbers, read in both directions. */
static void
check_numbers(const struct mgp_list *of, const int *numbers, size_t count)
{
    const struct mgp_link *link;
    size_t i = 0;
    mgp_list_for_each(link, of) {
        CHECK(i < count);
        CHECK(number_of(link) == numbers[i]);
        i++;
    }
    CHECK(i == count);
    for (link = of->head.prev; link != &of->head; link = link->prev) {
        CHECK(number_of(link) == numbers[--i]);
    }
    CHECK(i == 0);
    CHECK(mgp_list_length(of) == count);
    CHECK(mgp_list_is_empty(of) == (count == 0));
}

static void
empty_list_has_no_ends(void)
{
    start();
    check_numbers(&list, NULL, 0);
    CHECK(mgp_list_peek_front(&list) == NULL);
    CHECK(mgp_list_peek_back(&list) == NULL);
}

static void
order_is_that_of_pushing(void)
{
    start();
    mgp_list_push_back(&list, &items[1].link);
    mgp_list_push_back(&list, &items[2].link);
    mgp_list_push_front(&list, &items[0].link);
    check_numbers(&list, (int[]){0, 1, 2}, 3);
    CHECK(mgp_list_peek_front(&list) == &items[0].link);
    CHECK(mgp_list_peek_back(&list) == &items[2].link);
}

static void
link_is_inserted_before_another(void)
{
    start();
    mgp_list_push_back(&list, &items[1].link);
    mgp_link_insert_before(&items[0].link, &items[1].link);
    check_numbers(&list, (int[]){0, 1}, 2);
    mgp_link_insert_before(&items[2].link, &items[1].link);
    check_numbers(&list, (int[]){0, 2, 1}, 3);
    mgp_link_insert_before(&items[3].link, &list.head);
    check_numbers(&list, (int[]){0, 2, 1, 3}, 4);
}

static void
detached_link_is_in_no_list(void)
{
    start();
    for (int i = 0; i < ITEMS; i++) {
        CHECK(!mgp_link_is_attached(&items[i].link));
        mgp_list_push_back(&list, &items[i].link);
        CHECK(mgp_link_is_attached(&items[i].link));
    }
    mgp_link_detach(&items[2].link);
    check_numbers(&list, (int[]){0, 1, 3, 4}, 4);
    mgp_link_detach(&items[0].link);
    check_numbers(&list, (int[]){1, 3, 4}, 3);
    mgp_link_detach(&items[4].link);
    check_numbers(&list, (int[]){1, 3}, 2);
    CHECK(!mgp_link_is_attached(&items[2].link));
    mgp_link_detach(&items[2].link);
    check_numbers(&list, (int[]){1, 3}, 2);
}

static void
detached_link_can_be_pushed_again(void)
{
    start();
    mgp_list_push_back(&list, &items[0].link);
    mgp_list_push_back(&list, &items[1].link);
    mgp_link_detach(&items[0].link);
    mgp_list_push_back(&list, &items[0].link);
    check_numbers(&list, (int[]){1, 0}, 2);
}

static void
splice_keeps_the_order_and_empties_its_source(void)
{
    start();
    struct mgp_list other;
    mgp_list_init(&other);
    mgp_list_splice_back(&list, &other);
    check_numbers(&list, NULL, 0);

    mgp_list_push_back(&other, &items[0].link);
    mgp_list_push_back(&other, &items[1].link);
    mgp_list_splice_back(&list, &other);
    check_numbers(&list, (int[]){0, 1}, 2);
    check_numbers(&other, NULL, 0);

    mgp_list_push_back(&other, &items[2].link);
    mgp_list_push_back(&other, &items[3].link);
    mgp_list_splice_back(&list, &other);
    check_numbers(&list, (int[]){0, 1, 2, 3}, 4);
    check_numbers(&other, NULL, 0);

    mgp_link_detach(&items[2].link);
    check_numbers(&list, (int[]){0, 1, 3}, 3);
}

int
main(void)
{
    RUN(empty_list_has_no_ends);
    RUN(order_is_that_of_pushing);
    RUN(link_is_inserted_before_another);
    RUN(detached_link_is_in_no_list);
    RUN(detached_link_can_be_pushed_again);
    RUN(splice_keeps_the_order_and_empties_its_source);
    return harness_end();
}
