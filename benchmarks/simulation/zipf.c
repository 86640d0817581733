#include "zipf.h"

#include <math.h>

/* A prime: multiples of it, modulo any count that it does not divide, are all different. */
#define SCATTER UINT64_C(2654435761)

/* The hat is x^-exponent over the real numbers; `area` is its integral from 1 to x, which for
 * an exponent near 1 must not be computed as a difference of near equals. */
static double
density(const struct zipf *zipf, double x)
{
    return exp(-zipf->exponent * log(x));
}

static double
area(const struct zipf *zipf, double x)
{
    double log_x = log(x);
    double power = (1.0 - zipf->exponent) * log_x;
    return fabs(power) > 1e-8 ? log_x * expm1(power) / power : log_x * (1.0 + power / 2.0);
}

static double
point_of_area(const struct zipf *zipf, double value)
{
    double power = value * (1.0 - zipf->exponent);
    if (power < -1.0) {
        power = -1.0; /* rounding, at the very end */
    }
    return exp(fabs(power) > 1e-8 ? value * log1p(power) / power : value * (1.0 - power / 2.0));
}

void
zipf_init(struct zipf *zipf, uint32_t count, double exponent)
{
    zipf->exponent = exponent;
    zipf->count = count;
    zipf->area_of_first = area(zipf, 1.5) - 1.0;
    zipf->area_of_last = area(zipf, count + 0.5);
    zipf->shift = 2.0 - point_of_area(zipf, area(zipf, 2.5) - density(zipf, 2.0));
}

uint32_t
zipf_draw(const struct zipf *zipf, struct random *random)
{
    for (;;) {
        double value =
            zipf->area_of_last + random_unit(random) * (zipf->area_of_first - zipf->area_of_last);
        double x = point_of_area(zipf, value);
        double rank = floor(x + 0.5);
        rank = fmax(1.0, fmin(rank, zipf->count));
        if (rank - x <= zipf->shift || value >= area(zipf, rank + 0.5) - density(zipf, rank)) {
            return (uint32_t)rank;
        }
    }
}

uint32_t
zipf_draw_scattered(const struct zipf *zipf, struct random *random)
{
    return (uint32_t)((zipf_draw(zipf, random) - 1) * SCATTER % zipf->count);
}
