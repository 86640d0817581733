"""An event loop without a selector and without a clock of its own: the test runs its callbacks, one by one,
and moves its time.

The pool under test is given the loop's time as its ``clock=``, so there is one time only; ``no_polling()``
keeps the pool's timers from asking that clock again and again, as they must where the loop has another.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import Any

from mcpgateway_pool import timers

# More callbacks than one event of these tests can set off: beyond it, something spins.
MAX_CALLBACKS = 20_000


class SteppedLoop(asyncio.AbstractEventLoop):
    """Runs nothing by itself.

    Attributes:
        now: its time, in seconds.
        ready: callbacks that may run now, in the order in which an ordinary loop would run them.
        complaints: what the loop was told of, such as a task's exception that nobody retrieved.
    """

    _is_closed = True  # also when the garbage collector has taken its attributes

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.ready: list[asyncio.Handle] = []
        self.complaints: list[dict[str, Any]] = []
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = itertools.count()
        self._is_closed = False

    # ---- driven by the test

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within it this is the running loop, for what the test calls itself."""
        asyncio._set_running_loop(self)
        try:
            yield
        finally:
            asyncio._set_running_loop(None)

    def run(self, handle: asyncio.Handle) -> None:
        """Run one of the ready callbacks; any, not just the first."""
        self.ready.remove(handle)
        if not handle.cancelled():
            handle._run()

    def drop_cancelled(self) -> None:
        """Leave out what will not run."""
        if any(handle.cancelled() for handle in self.ready):
            self.ready = [handle for handle in self.ready if not handle.cancelled()]

    def settle(self) -> None:
        """Run what is ready, in the order of an ordinary loop, until nothing is; time stands still."""
        for _ in range(MAX_CALLBACKS):
            self._wake_due()
            if not self.ready:
                return
            self.run(self.ready[0])
        raise AssertionError(f"still busy after {MAX_CALLBACKS} callbacks: {self.ready[:3]}")

    def next_timer(self) -> float | None:
        """When the next timer is due; None without one."""
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def wake_next(self) -> None:
        """Move the time to the next timer, and make ready what is due then."""
        when = self.next_timer()
        assert when is not None
        self.now = max(self.now, when)
        self._wake_due()

    def advance(self, seconds: float, settled: Callable[[], object] = lambda: None) -> None:
        """Move the time, halting at each timer on the way.

        Args:
            seconds: by how much.
            settled: called at each halt, when nothing is left to do.
        """
        self.settle()
        end = self.now + seconds
        while (when := self.next_timer()) is not None and when <= end:
            self.wake_next()
            self.settle()
            settled()
        self.now = end

    def _wake_due(self) -> None:
        while (when := self.next_timer()) is not None and when <= self.now:
            self.ready.append(heapq.heappop(self._timers)[2])

    # ---- called by asyncio and by the pool

    def time(self) -> float:
        return self.now

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        if self._is_closed:
            raise RuntimeError("the loop is closed")  # as asyncio's own do
        handle = asyncio.Handle(callback, args, self, context)
        self.ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._numbers), handle))
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self, name=name, context=context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.complaints.append(context)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self._is_closed

    def is_closed(self) -> bool:
        return self._is_closed

    def close(self) -> None:
        self._is_closed = True
        self.ready.clear()
        self._timers.clear()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are dropped when they come up."""


@contextmanager
def no_polling() -> Iterator[None]:
    """Timers of pools on a replaced clock ask it once, when they are due: the loop keeps the same time."""
    interval = timers.POLL_SECONDS
    timers.POLL_SECONDS = float("inf")
    try:
        yield
    finally:
        timers.POLL_SECONDS = interval
