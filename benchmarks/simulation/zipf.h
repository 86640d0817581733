/* Zipf-distributed ranks: rank k of 1 ... count comes with a probability proportional to
 * k^-exponent. By rejection-inversion (Hörmann, Derflinger 1996): no table, so the sampler takes
 * no room in the caches that are measured; fewer than 1.1 draws for each rank. */
#ifndef MGP_SIMULATION_ZIPF_H
#define MGP_SIMULATION_ZIPF_H

#include <stdint.h>

#include "random.h"

struct zipf {
    double exponent; /* > 0 */
    uint32_t count;
    double area_of_first; /* where the area under the hat begins and ends */
    double area_of_last;
    double shift; /* a rank this close to its draw is accepted without a look at its area */
};

/* count >= 1. */
void zipf_init(struct zipf *zipf, uint32_t count, double exponent);
/* In 1 ... count. */
uint32_t zipf_draw(const struct zipf *zipf, struct random *random);
/* The same, scattered over 0 ... count - 1: popular ones lie anywhere. */
uint32_t zipf_draw_scattered(const struct zipf *zipf, struct random *random);

#endif
