/* The parts of the simulation, each a run of its own. They print figures, one a line: name, value. */
#ifndef MGP_SIMULATION_PARTS_H
#define MGP_SIMULATION_PARTS_H

#include <stdint.h>

struct options {
    uint32_t keys;
    uint32_t gateways;
    uint32_t operations; /* hits of each kind, hand-offs, arrivals */
    uint32_t seed;
    double exponent; /* of Zipf's law */
    /* In debug builds: how many operations from one check of the whole pool to the next. */
    uint32_t check_every;
    uint32_t fault; /* hits that part_traffic counts too many, so that it must fail */
};

void part_time(const struct options *options);    /* what each operation takes */
void part_memory(const struct options *options);  /* what each key and session takes */
void part_traffic(const struct options *options); /* events of all kinds, in virtual time */
/* To be run under callgrind: hits only. */
void part_instructions_zipf(const struct options *options);
void part_instructions_uniform(const struct options *options);

void print_figure(const char *name, double value);

#endif
