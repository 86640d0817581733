/* The pool machine alone, with as many keys as memory holds: what operations take, what keys and
 * sessions take, and whether everything adds up. One run is one part with one number of keys; its
 * figures are lines of a name and a value, and `ok` is the last line of a run in which everything
 * held. benchmarks/simulation.py runs it and makes tables. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parts.h"
#include "world.h"

static const struct {
    const char *name;
    void (*run)(const struct options *options);
} parts[] = {
    {"time", part_time},
    {"memory", part_memory},
    {"traffic", part_traffic},
    {"instructions_zipf", part_instructions_zipf},
    {"instructions_uniform", part_instructions_uniform},
};

#define PARTS (sizeof(parts) / sizeof(parts[0]))

void
print_figure(const char *name, double value)
{
    printf("%s %.17g\n", name, value);
}

static int
usage(void)
{
    fputs("usage: simulate PART [NAME=VALUE ...]\n"
          "  parts: time memory traffic instructions_zipf instructions_uniform\n"
          "  keys=1000 gateways=100 operations=100000 seed=1 exponent=1 check=1\n"
          "  fault=1 (counts a hit too many: the run must fail)\n",
          stderr);
    return 2;
}

/* A whole number in 1 ... UINT32_MAX / 4; 0 for another text. */
static uint32_t
parse_count(const char *text)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    return *end == '\0' && *text >= '0' && *text <= '9' && value <= UINT32_MAX / 4 ? (uint32_t)value
                                                                                   : 0;
}

static bool
parse_option(struct options *options, const char *argument)
{
    const struct {
        const char *name;
        uint32_t *value;
    } counts[] = {
        {"keys", &options->keys},
        {"gateways", &options->gateways},
        {"operations", &options->operations},
        {"seed", &options->seed},
        {"check", &options->check_every},
        {"fault", &options->fault},
    };
    const char *equals = strchr(argument, '=');
    size_t length = equals == NULL ? 0 : (size_t)(equals - argument);
    for (size_t i = 0; equals != NULL && i < sizeof(counts) / sizeof(counts[0]); i++) {
        if (strlen(counts[i].name) == length && memcmp(argument, counts[i].name, length) == 0) {
            *counts[i].value = parse_count(equals + 1);
            return *counts[i].value > 0;
        }
    }
    if (strncmp(argument, "exponent=", 9) == 0) {
        options->exponent = strtod(equals + 1, NULL);
        return options->exponent > 0;
    }
    return false;
}

int
main(int argc, char **argv)
{
    struct options options = {
        .keys = 1000,
        .gateways = 100,
        .operations = 100000,
        .seed = 1,
        .exponent = 1.0,
        .check_every = 1,
    };
    for (int i = 2; i < argc; i++) {
        if (!parse_option(&options, argv[i])) {
            return usage();
        }
    }
    if (options.gateways > MAX_GATEWAYS) {
        options.gateways = MAX_GATEWAYS;
    }
    for (size_t i = 0; argc > 1 && i < PARTS; i++) {
        if (strcmp(argv[1], parts[i].name) == 0) {
            parts[i].run(&options);
            puts("ok");
            return 0;
        }
    }
    return usage();
}
