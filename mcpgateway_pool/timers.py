"""Timers on the pool's clock.

The event loop's own clock is monotonic, as the pool's is. Where the pool's was replaced, the loop knows
nothing of it: a timer then asks that clock again every now and then, and fires when it says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import Any

# How often a replaced clock is asked, in seconds of the loop's clock.
POLL_SECONDS = 0.02


# How often this process was forked from one that had timers.
_forks = 0


def _nothing() -> None:
    """What a cancelled timer calls."""


def _after_fork_in_child() -> None:
    global _forks  # noqa: PLW0603
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class Timer:
    """Calls a function once, ``seconds`` from now. Belongs to the loop that it was made in.

    Args:
        loop: the running loop.
        clock: the replaced clock, or None.
        seconds: how long; infinity for never.
        callback: called with ``arguments``; it must not raise.
    """

    __slots__ = ("_arguments", "_callback", "_clock", "_due", "_forks", "_handle", "_loop")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float] | None,
        seconds: float,
        callback: Callable[..., object],
        *arguments: Any,
    ) -> None:
        self._loop = loop
        self._forks = _forks
        self._clock = clock
        self._callback = callback
        self._arguments = arguments
        self._handle: asyncio.TimerHandle | None = None
        if clock is None:
            self._handle = loop.call_later(seconds, callback, *arguments)
        else:
            self._due = clock() + seconds
            self._handle = loop.call_later(min(seconds, POLL_SECONDS), self._ask)

    def _ask(self) -> None:
        assert self._clock is not None
        try:
            left = self._due - self._clock()
        except BaseException:  # asked again
            self._handle = self._loop.call_later(POLL_SECONDS, self._ask)
            raise
        if left <= 0:
            self._callback(*self._arguments)
        else:
            self._handle = self._loop.call_later(min(left, POLL_SECONDS), self._ask)

    def __del__(self) -> None:
        # The loop would keep the handle until it is due, long after a pool was dropped. There is none yet
        # where making this timer failed.
        handle = getattr(self, "_handle", None)
        if handle is not None:
            self._cancel_handle(handle)

    def cancel(self) -> None:
        """Never call the function, if it was not called yet; let go of it, and of its arguments. From another
        thread than the loop's, where a finalizer may run, that takes effect a little later.
        """
        handle, self._handle = self._handle, None
        self._callback = _nothing
        self._arguments = ()
        if handle is not None:
            self._cancel_handle(handle)

    def _cancel_handle(self, handle: asyncio.TimerHandle) -> None:
        if asyncio._get_running_loop() is self._loop:
            handle.cancel()
        elif self._forks == _forks:  # else it is a parent's loop, which this would wake
            with contextlib.suppress(RuntimeError):  # it is closed
                self._loop.call_soon_threadsafe(handle.cancel)
