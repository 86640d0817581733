"""What opened the circuit breaker of each URL, for the messages of callers whom it refuses."""

from __future__ import annotations

from mcpgateway_pool import verdict
from mcpgateway_pool.errors import CircuitOpenError
from mcpgateway_pool.redact import safe_url

from .newest import Newest


class BreakerCauses:
    """The last cause of each URL, in the order of their opening.

    Args:
        limit: most URLs to remember; the oldest go first.
    """

    def __init__(self, limit: int) -> None:
        self._causes: Newest[str, str] = Newest(limit)

    def note(self, url: str, error: BaseException) -> str:
        """This error opened the breaker.

        Returns:
            How it is described.
        """
        cause = verdict.describe(error.__cause__ or error)
        self._causes[url] = cause
        return cause

    def refusal(self, url: str, retry_after: float) -> CircuitOpenError:
        """For a caller whom the breaker of this URL refuses; it lets somebody try in so many seconds."""
        url = str.__str__(url)
        cause = self.of(url)
        why = "" if cause is None else f", opened by {cause}"
        again = f"try again in {retry_after:.1f} s" if retry_after > 0 else "another caller is trying now"
        return CircuitOpenError(
            f"Circuit breaker open for {safe_url(url)}{why}; {again}",
            retry_after=retry_after,
            last_cause=cause,
        )

    def of(self, url: str) -> str | None:
        """The cause; None where none is known."""
        return self._causes.get(url)

    def urls(self) -> list[str]:
        """Those that are remembered, oldest first."""
        return list(self._causes)
