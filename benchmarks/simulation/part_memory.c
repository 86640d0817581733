/* What keys and sessions take: each allocation counted, and the kernel's view. */
#include "memory.h"
#include "parts.h"
#include "steady.h"

static void
open_another_session(struct world *world, uint32_t number)
{
    struct mgp_acquired held, acquired;
    REQUIRE(world_acquire(world, number, &held) == MGP_OK && held.answer == MGP_ANSWER_SESSION);
    REQUIRE(world_acquire(world, number, &acquired) == MGP_OK);
    REQUIRE(acquired.answer == MGP_ANSWER_CREATE);
    world_release(world, world_create(world, acquired.ticket), MGP_VERDICT_GOOD);
    world_release(world, held.ticket, MGP_VERDICT_GOOD);
}

/* Bytes of a session struct: what one more session of a key takes, arrays apart. */
static double
measure_session(struct world *world, uint32_t keys)
{
    uint32_t count = keys / 8 + 1;
    uint64_t before = memory_live_bytes() - memory_array_bytes();
    for (uint32_t number = 0; number < count; number++) {
        open_another_session(world, number);
    }
    world_audit(world);
    return (double)(memory_live_bytes() - memory_array_bytes() - before) / count;
}

void
part_memory(const struct options *options)
{
    static struct steady steady;
    double keys = options->keys;
    memory_count();
    double resident_before = (double)memory_resident_bytes();
    steady_init(&steady, options, NULL);
    double live = (double)memory_live_bytes();
    double arrays = (double)memory_array_bytes();
    /* This program's own record of a session is not the machine's. */
    double resident =
        (double)memory_resident_bytes() - resident_before - keys * (double)sizeof(struct opened);
    double session = measure_session(&steady.world, options->keys);
    print_figure("session_bytes", session);
    print_figure("array_bytes", arrays / keys);
    print_figure("key_bytes", (live - arrays) / keys - session);
    print_figure("all_bytes", live / keys);
    print_figure("resident_bytes", resident / keys);
    steady_fini(&steady); /* requires that nothing is left */
}
