"""What acquiring a session can raise. Each error is also of the class that the gateway's own pool raised in
that place, so that code written for that pool catches it.
"""

from __future__ import annotations


class PoolError(Exception):
    """Base of every error that this package raises by itself, but for bad arguments."""


class PoolClosedError(PoolError, RuntimeError):
    """The pool was closed."""


class CircuitOpenError(PoolError, RuntimeError):
    """The circuit breaker of the URL is open: too many creations in a row have failed.

    Attributes:
        retry_after: seconds until the breaker lets somebody try again; 0.0 where somebody is trying now.
        last_cause: what opened the breaker, in words that show no credentials; None where it is not known.
    """

    def __init__(self, *args: object, retry_after: float = 0.0, last_cause: str | None = None) -> None:
        super().__init__(*args)
        self.retry_after = retry_after
        self.last_cause = last_cause


class AcquireTimeoutError(PoolError, TimeoutError):
    """No session became available in time.

    Attributes:
        wait_timeout: seconds for which the caller was to wait.
        active, idle, creating, closing: sessions of its key when the time was over; one under a health check
            is idle.
        waiting: callers who waited for one of them, this one included.
        max_sessions_per_key: the limit.
    """

    def __init__(
        self,
        *args: object,
        wait_timeout: float = 0.0,
        active: int = 0,
        idle: int = 0,
        creating: int = 0,
        closing: int = 0,
        waiting: int = 0,
        max_sessions_per_key: int = 0,
    ) -> None:
        super().__init__(*args)
        self.wait_timeout = wait_timeout
        self.active = active
        self.idle = idle
        self.creating = creating
        self.closing = closing
        self.waiting = waiting
        self.max_sessions_per_key = max_sessions_per_key


class PoolExhaustedError(PoolError, TimeoutError):
    """A total limit, or ``max_waiters``, is reached, and waiting would not help."""


class SessionCreateError(PoolError, RuntimeError):
    """A session could not be opened; the cause is chained."""


class SessionCreateTimeoutError(SessionCreateError, TimeoutError):
    """Opening a session took longer than ``session_create_timeout_seconds``."""
