/* The pool's random numbers: they spread deadlines; secrecy does not matter. */
#ifndef MGP_CORE_RANDOM_H
#define MGP_CORE_RANDOM_H

struct mgp_pool;

/* Uniform in [0, 1). */
double mgp_random_unit(struct mgp_pool *pool);

#endif
