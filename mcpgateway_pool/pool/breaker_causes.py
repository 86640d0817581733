"""What opened the circuit breaker of each URL, for the messages of callers whom it refuses."""

from __future__ import annotations

from mcpgateway_pool import verdict


class BreakerCauses:
    """The last cause of each URL, in the order of their opening.

    Args:
        limit: most URLs to remember; the oldest go first.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._causes: dict[str, str] = {}

    def note(self, url: str, error: BaseException) -> str:
        """This error opened the breaker.

        Returns:
            How it is described.
        """
        cause = verdict.describe(error.__cause__ or error)
        self._causes.pop(url, None)
        self._causes[url] = cause
        while len(self._causes) > self._limit:
            del self._causes[next(iter(self._causes))]
        return cause

    def of(self, url: str) -> str | None:
        """The cause; None where none is known."""
        return self._causes.get(url)

    def urls(self) -> list[str]:
        """Those that are remembered, oldest first."""
        return list(self._causes)
