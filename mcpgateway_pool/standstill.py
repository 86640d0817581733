"""Noticing that this process, or its event loop, stood still: stopped by a signal, swapped out, suspended
with its machine, or held up by code that does not yield.

What fails after that says little about a server: its time-outs fired late, and its answers may lie unread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

# While something is watched, a timer comes round this often; how late it comes is how long all stood still.
TICK_SECONDS = 0.25
# What is shorter is a busy loop.
_LEAST_SECONDS = 0.5
# A standstill that took less of the time than this left the server time enough.
_LEAST_SHARE = 0.1


class Standstill:
    """Watches one event loop, only while something :meth:`begin`-s and has not ended.

    Args:
        loop: the loop.
        now: replaces its clock; for tests.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, now: Callable[[], float] | None = None) -> None:
        self._loop = loop
        self._now = loop.time if now is None else now
        self._total = 0.0
        self._watching = 0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> Span:
        """Watch from now on, until the span is ended."""
        self._watching += 1
        if self._timer is None:
            self._arm()
        return Span(self, self._now(), self._seconds())

    def _arm(self) -> None:
        self._due = self._now() + TICK_SECONDS
        self._timer = self._loop.call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        self._total = self._seconds()
        self._arm()

    def _seconds(self) -> float:
        late = self._now() - self._due if self._timer is not None else 0.0
        return self._total + (late if late >= _LEAST_SECONDS else 0.0)

    def _end(self) -> None:
        self._watching -= 1
        if self._watching == 0 and self._timer is not None:
            self._total = self._seconds()
            self._timer.cancel()
            self._timer = None


class Span:
    """A time that is watched; ended once."""

    __slots__ = ("_begin", "_is_ended", "_standstill", "_total")

    def __init__(self, standstill: Standstill, begin: float, total: float) -> None:
        self._standstill = standstill
        self._begin = begin
        self._total = total
        self._is_ended = False

    def stood_still(self) -> bool:
        """Whether a good part of the time until now was a standstill."""
        seconds = self._standstill._seconds() - self._total
        return seconds > 0 and seconds >= _LEAST_SHARE * (self._standstill._now() - self._begin)

    def end(self) -> None:
        """Watch no longer; a second call does nothing."""
        if not self._is_ended:
            self._is_ended = True
            self._standstill._end()
