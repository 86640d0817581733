"""Warnings that would recur with each call."""

from __future__ import annotations

import time

# A recurring warning is logged at most this often, in seconds.
WARN_EVERY_SECONDS = 60.0


class RecurringWarnings:
    """When each was logged last, by its message before formatting."""

    def __init__(self) -> None:
        self._logged: dict[str, float] = {}

    def is_due(self, message: str, *, once: bool = False) -> bool:
        """Whether to log it now, which counts as logged: it was not yet, or, unless ``once``, not lately."""
        now, last = time.monotonic(), self._logged.get(message)
        if last is not None and (once or now - last < WARN_EVERY_SECONDS):
            return False
        self._logged[message] = now
        return True
