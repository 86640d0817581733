#include "../../csrc/core/lease.h"

#include "../../csrc/base/status.h"
#include "failing_alloc.h"
#include "harness.h"

#define MANY 1000

static struct mgp_leases leases;

static void
start(void)
{
    failing_alloc_install();
    mgp_leases_init(&leases);
}

static void
end(void)
{
    mgp_leases_fini(&leases);
    failing_alloc_uninstall();
}

static struct mgp_lease *
take(void)
{
    CHECK(mgp_leases_reserve(&leases) == MGP_OK);
    return mgp_leases_take(&leases);
}

static void
lease_is_found_by_its_ticket_until_it_is_put_back(void)
{
    start();
    struct mgp_lease *first = take();
    struct mgp_lease *second = take();
    struct mgp_ticket ticket = first->ticket;
    CHECK(first != second);
    CHECK(mgp_leases_find(&leases, ticket) == first);
    CHECK(mgp_leases_find(&leases, second->ticket) == second);
    mgp_leases_put(&leases, first);
    CHECK(mgp_leases_find(&leases, ticket) == NULL);
    CHECK(mgp_leases_find(&leases, second->ticket) == second);
    mgp_leases_put(&leases, second);
    end();
}

static void
old_ticket_is_not_taken_for_the_next_lease_of_its_slot(void)
{
    start();
    struct mgp_lease *lease = take();
    struct mgp_ticket old = lease->ticket;
    mgp_leases_put(&leases, lease);
    struct mgp_lease *next = take();
    CHECK(next->ticket.index == old.index);
    CHECK(next->ticket.generation != old.generation);
    CHECK(mgp_leases_find(&leases, old) == NULL);
    CHECK(!mgp_lease_is_taken(next) && next->next == NULL && next->session == NULL);
    mgp_leases_put(&leases, next);
    end();
}

static void
no_ticket_finds_nothing(void)
{
    start();
    CHECK(mgp_leases_find(&leases, (struct mgp_ticket){0, 0}) == NULL);
    CHECK(mgp_leases_find(&leases, (struct mgp_ticket){7, 9}) == NULL);
    struct mgp_lease *lease = take();
    CHECK(mgp_leases_find(&leases, (struct mgp_ticket){0, 0}) == NULL);
    mgp_leases_put(&leases, lease);
    end();
}

static void
reserve_makes_one_spare_beyond_those_promised(void)
{
    start();
    CHECK(mgp_leases_reserve(&leases) == MGP_OK);
    CHECK(leases.spare_count == 1);
    CHECK(mgp_leases_reserve(&leases) == MGP_OK);
    CHECK(leases.spare_count == 1);
    leases.promised = 1;
    CHECK(mgp_leases_reserve(&leases) == MGP_OK);
    CHECK(leases.spare_count == 2);
    leases.promised = 0;
    end();
}

static void
promised_lease_is_taken_without_memory(void)
{
    start();
    CHECK(mgp_leases_reserve(&leases) == MGP_OK);
    leases.promised = 1;
    failing_alloc_fail_from(1);
    CHECK(mgp_leases_reserve(&leases) == MGP_ERR_NOMEM);
    CHECK(leases.spare_count == 1);
    leases.promised = 0;
    struct mgp_lease *lease = mgp_leases_take(&leases);
    CHECK(mgp_leases_find(&leases, lease->ticket) == lease);
    mgp_leases_put(&leases, lease);
    failing_alloc_fail_at(0);
    end();
}

static void
failed_reservation_changes_nothing(void)
{
    for (size_t n = 1;; n++) {
        start();
        failing_alloc_fail_at(n);
        int status = mgp_leases_reserve(&leases);
        bool has_failed = failing_alloc_has_failed();
        CHECK(status == (has_failed ? MGP_ERR_NOMEM : MGP_OK));
        CHECK(leases.spare_count == !has_failed);
        end();
        if (!has_failed) {
            break;
        }
    }
}

static void
memory_of_a_burst_is_given_back_as_leases_come_and_go(void)
{
    static struct mgp_lease *taken[MANY];
    start();
    for (size_t i = 0; i < MANY; i++) {
        taken[i] = take();
    }
    for (size_t i = 0; i < MANY; i++) {
        mgp_leases_put(&leases, taken[i]);
    }
    CHECK(leases.spare_count < MANY / 10);
    /* Promises that were not kept leave spares, too. */
    for (size_t i = 0; i < MANY; i++) {
        CHECK(mgp_leases_reserve(&leases) == MGP_OK);
        leases.promised++;
    }
    leases.promised = 0;
    for (size_t i = 0; i < MANY; i++) {
        mgp_leases_put(&leases, take());
    }
    CHECK(leases.spare_count < MANY / 10);
    end();
}

int
main(void)
{
    RUN(lease_is_found_by_its_ticket_until_it_is_put_back);
    RUN(old_ticket_is_not_taken_for_the_next_lease_of_its_slot);
    RUN(no_ticket_finds_nothing);
    RUN(reserve_makes_one_spare_beyond_those_promised);
    RUN(promised_lease_is_taken_without_memory);
    RUN(failed_reservation_changes_nothing);
    RUN(memory_of_a_burst_is_given_back_as_leases_come_and_go);
    return harness_end();
}
