"""What acquiring a session can raise. Each error is also of the class that the gateway's own pool raised in
that place, so that code written for that pool catches it.
"""

from __future__ import annotations


class PoolError(Exception):
    """Base of every error that this package raises by itself, but for bad arguments."""


class PoolClosedError(PoolError, RuntimeError):
    """The pool was closed."""


class CircuitOpenError(PoolError, RuntimeError):
    """The circuit breaker of the URL is open: too many creations in a row have failed."""


class AcquireTimeoutError(PoolError, TimeoutError):
    """No session became available within ``acquire_timeout_seconds``."""


class PoolExhaustedError(PoolError, TimeoutError):
    """A total limit, or ``max_waiters``, is reached, and waiting would not help."""


class SessionCreateError(PoolError, RuntimeError):
    """A session could not be opened; the cause is chained."""


class SessionCreateTimeoutError(SessionCreateError, TimeoutError):
    """Opening a session took longer than ``session_create_timeout_seconds``."""
