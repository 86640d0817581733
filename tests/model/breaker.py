"""What the contract says of the circuit breaker of one URL; a part of the oracle."""

from __future__ import annotations

from typing import Any

# The longest that a failing probe keeps a breaker open, in resets; as long are failures remembered.
MOST_RESETS = 10
# A failing probe's time is shortened by a random part, at most this.
JITTER = 0.1
EPSILON = 1e-6


class Breaker:
    """Closed, open or half-open.

    Attributes:
        failures: consecutive ones, that counted.
        is_open: open or half-open.
        trial: the creation that is the probe.
        tripped_by: the gateway whose failure opened it.
        recovered_at: when a creation last closed it.
    """

    def __init__(self, threshold: int, reset_seconds: float) -> None:
        self.threshold = threshold
        self.reset_seconds = reset_seconds
        self.recovered_at = -1.0
        self._events = 0  # the order of begins, successes and openings
        self._decided = 0  # the number of the newest success or opening
        self._begun: dict[object, int] = {}
        self.forget()

    def forget(self) -> None:
        """As if nothing had ever failed."""
        self.failures = 0
        self.is_open = False
        self.trial: Any = None
        self.tripped_by: str | None = None
        self._resets = 1
        self._last_failure = 0.0
        self._until = (0.0, 0.0)  # between these two

    def refuses(self, now: float) -> bool | None:
        """Whether a creation is refused now; None where chance decides."""
        if not self.is_open:
            return False
        if self.trial is not None or now < self._until[0] - EPSILON:
            return True
        return False if now >= self._until[1] else None

    def begin(self, creation: object, now: float) -> None:
        """A creation begins: the probe, where it was open for long enough.

        Its place may have been granted just before the circuit opened, at the same time.
        """
        self._events += 1
        self._begun[creation] = self._events
        if self.refuses(now) is True:
            assert self._last_failure == now, "a creation began while the circuit was open"
        elif self.is_open:
            self.trial = creation

    def succeed(self, creation: object, now: float) -> None:
        del self._begun[creation]
        self._note_decision()
        if self.is_open:
            self.recovered_at = now
        self.forget()

    def _note_decision(self) -> None:
        self._events += 1
        self._decided = self._events

    def fail(self, creation: object, now: float, gateway: str, *, counts: bool) -> bool:
        """Whether it opened by that, or anew."""
        is_late = self._begun.pop(creation, 0) < self._decided
        is_trial = self.trial is not None and creation is self.trial
        if is_late:
            return False
        if is_trial:
            self.trial = None
            if not counts:
                self._until = (now, now)
                return False
        elif self.is_open or not counts:
            return False
        self.failures += 1
        self._last_failure = now
        if is_trial:
            self._resets = min(2 * self._resets, MOST_RESETS)
        elif self.failures < self.threshold:
            return False
        longest = self._resets * self.reset_seconds
        self._until = (now + longest * ((1 - JITTER) if is_trial else 1), now + longest)
        self.is_open = True
        self.tripped_by = gateway
        self._note_decision()
        return True

    def is_forgotten(self, now: float) -> bool:
        """Whether its failures are so old that a URL without a key is forgotten."""
        return now >= self._last_failure + MOST_RESETS * self.reset_seconds
