/* Hits for callgrind, which counts within the one function of its name. */
#include "parts.h"
#include "steady.h"

#define COUNTED_BLOCKS 40
#define WARM_BLOCKS 8

/* Not static and not inlined: callgrind must find it. */
void counted_hits(struct steady *steady);

__attribute__((noinline)) void
counted_hits(struct steady *steady)
{
    steady_hit_block(steady);
    __asm__ volatile("" ::: "memory"); /* no jump instead of the call */
}

static void
count_hits(const struct options *options, void (*draw)(struct steady *steady))
{
    static struct steady steady;
    steady_init(&steady, options, NULL);
    for (int block = 0; block < WARM_BLOCKS; block++) {
        draw(&steady);
        steady_hit_block(&steady);
    }
    for (int block = 0; block < COUNTED_BLOCKS; block++) {
        draw(&steady);
        counted_hits(&steady);
    }
    world_audit(&steady.world);
    print_figure("counted_hits", COUNTED_BLOCKS * BLOCK);
    steady_fini(&steady);
}

void
part_instructions_zipf(const struct options *options)
{
    count_hits(options, steady_draw_by_zipf);
}

void
part_instructions_uniform(const struct options *options)
{
    count_hits(options, steady_draw_uniform);
}
