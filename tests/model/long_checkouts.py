"""Leak detection, told by what can be seen from outside; a part of the oracle.

The contract: a checkout that lasts for ``leak_detection_seconds`` is reported and counted, once, by upkeep or
when it ends; another is not.
"""

from __future__ import annotations

from typing import Any

from model.breaker import EPSILON


class Checkout:
    """The latest checkout of a session.

    Attributes:
        since: when its caller got it.
        until: when its caller gave it back; None: it lasts.
        is_reported: whether the pool has reported it.
    """

    def __init__(self, now: float) -> None:
        self.since = now
        self.until: float | None = None
        self.is_reported = False


class LongCheckouts:
    """Those of one pool, by their connection.

    Args:
        limit: ``leak_detection_seconds``; 0: nothing is reported.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._of: dict[Any, Checkout] = {}

    def began(self, connection: Any, now: float) -> None:
        """A caller got it. What it had been checked out for before has been judged by then."""
        self._judge_end(connection)
        self._of[connection] = Checkout(now)

    def ended(self, connection: Any, now: float) -> None:
        """Its caller gave it back, dropped it, or lost it."""
        checkout = self._of[connection]
        checkout.until = now if checkout.until is None else checkout.until

    def seen(self, connection: Any) -> tuple[Any, ...]:
        """What the future of its checkout depends on."""
        checkout = self._of.get(connection) if self._limit else None
        return () if checkout is None else (checkout.since, str(checkout.until), checkout.is_reported)

    def reported(self, connection: Any, now: float) -> None:
        """The pool says that its checkout is too long."""
        checkout = self._of[connection]
        assert self._limit > 0, "leak detection is off"
        assert not checkout.is_reported, f"the checkout of {connection} is reported twice"
        lasted = (now if checkout.until is None else checkout.until) - checkout.since
        assert lasted >= self._limit - EPSILON, f"the checkout of {connection} lasted {lasted} s only"
        checkout.is_reported = True

    def audit(self, now: float) -> None:
        """Nothing is under way: whatever is too long has been reported."""
        for connection, checkout in self._of.items():
            self._judge_end(connection)
            lasted = now - checkout.since
            assert checkout.until is not None or not self._is_too_long(lasted) or checkout.is_reported, (
                f"{connection} is checked out for {lasted} s, and nobody was told"
            )

    def _judge_end(self, connection: Any) -> None:
        checkout = self._of.get(connection)
        if checkout is not None and checkout.until is not None:
            lasted = checkout.until - checkout.since
            assert not self._is_too_long(lasted) or checkout.is_reported, (
                f"{connection} was checked out for {lasted} s, and nobody was told"
            )

    def _is_too_long(self, lasted: float) -> bool:
        return self._limit > 0 and lasted > self._limit + EPSILON
