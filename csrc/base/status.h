/* Status codes of every fallible function below csrc/python. MGP_OK is zero,
 * everything else is negative, so `if (status < 0)` reads as "failed". */
#ifndef MGP_BASE_STATUS_H
#define MGP_BASE_STATUS_H

enum mgp_status {
    MGP_OK = 0,
    MGP_ERR_NOMEM = -1,        /* an allocation failed; nothing was changed */
    MGP_ERR_CLOSED = -2,       /* the pool is closed */
    MGP_ERR_CIRCUIT_OPEN = -3, /* the endpoint's breaker refuses */
    MGP_ERR_EXHAUSTED = -4,    /* a total limit is reached and nothing can be closed for it */
    MGP_ERR_QUEUE_FULL = -5,   /* max_waiters callers wait for this key already */
    MGP_ERR_STALE = -6,        /* a ticket whose operation or lease has ended */
    MGP_ERR_INVALID = -7,      /* an argument outside its documented range */
    MGP_ERR_BUSY = -8,         /* refused while something of it is still open */
    MGP_ERR_SYSTEM = -9,       /* the operating system refused; errno says why */
};

#endif
