"""Makes the n-th allocation of one piece of code fail, for n = 0, 1, 2, … until it has made them all.

For programs of their own (`run_script`). Debug builds of the extension take their memory from Python, so that
one count goes through Python's allocations and the pool machine's.

Nothing here runs an event loop: a failure inside asyncio would lose a wake-up that no caller of asyncio can
bring back. So coroutines are driven by hand, and so are the loop's callbacks, one after the other.
"""

from __future__ import annotations

import _testcapi
import asyncio
import contextlib
import gc
import logging
import sys
import warnings
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


# CPython itself forgets to say MemoryError where there is none for a Python function's frame, or for a new
# type's name.
_CPYTHON_FORGOT = ("<function ", "error return without exception set", "execution of module ")


class Fault:
    """Calls functions while the allocation of this number fails.

    Attributes:
        number: of the allocation, from 0, that fails in each call.
        count: how many fail, beginning with that one.
        was_reached: whether the last call got so far.
        has_raised: whether a MemoryError came out of the last call.
    """

    def __init__(self, number: int, count: int = 1) -> None:
        self.number = number
        self.count = count
        self.was_reached = False
        self.has_raised = False

    def __call__(self, function: Callable[..., T], *arguments: Any) -> T | None:
        """What the function returns; None when it ran out of memory."""
        self.was_reached = self.has_raised = False
        gc.collect()  # empties free lists, too: what they hold would not be allocated
        gc.disable()
        probes = range(self.number + 1)
        try:
            _testcapi.set_nomemory(self.number, self.number + self.count)
            return function(*arguments)
        except MemoryError:
            self.has_raised = True
            return None
        except SystemError as error:
            if not str(error).startswith(_CPYTHON_FORGOT):
                raise
            self.has_raised = True
            return None
        finally:
            # If so many more allocations all succeed, then the one that fails lies behind.
            try:
                for _ in probes:
                    bytearray(64)
                self.was_reached = True
            except MemoryError:
                pass
            _testcapi.remove_mem_hooks()
            gc.enable()


class Call(Generic[T]):
    """A coroutine that is driven by hand, without a task.

    Attributes:
        future: what it awaits; None before its first step.
        is_done: whether it has returned, with ``result``.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine
        self.future: Any = None
        self.is_done = False
        self.result: T | None = None

    def step(self) -> None:
        """Let it run until it waits or ends; what it raises comes out."""
        try:
            self.future = self._coroutine.send(None)
        except StopIteration as stop:
            self.is_done, self.result = True, stop.value

    def cancel(self) -> None:
        """Cancel it where it waits; its CancelledError must come out."""
        try:
            self._coroutine.throw(asyncio.CancelledError())
        except asyncio.CancelledError:
            return
        raise AssertionError("the cancellation was swallowed")

    def finish(self) -> T:
        """Let it, and the loop, go on until it returns.

        Returns:
            What it returned.
        """
        for _ in range(1000):
            if self.is_done:
                return self.result  # type: ignore[return-value]
            if self.future is None or self.future.done():
                self.step()
            turn()
        raise AssertionError("it does not end")


def call(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine by hand, to its end."""
    return Call(coroutine).finish()


_loop = asyncio.new_event_loop()


def start() -> None:
    """Have asyncio take a loop for running that nobody runs; where it may complain, only of memory."""
    asyncio._set_running_loop(_loop)
    logging.disable()
    warnings.simplefilter("ignore", RuntimeWarning)  # a coroutine for which there was no memory for a task
    gc.freeze()  # so that collecting takes no time
    sys.unraisablehook = lambda report: _complain(report.exc_value, report.err_msg)
    _loop.set_exception_handler(lambda _, context: _complain(context.get("exception"), context["message"]))


complaints: list[str] = []


# What asyncio says of a task that it could not make or step for want of memory.
_LOST_TASK = ("Task was destroyed but it is pending!", "cannot reuse already awaited coroutine")


def _complain(error: BaseException | None, message: str | None) -> None:
    if not isinstance(error, MemoryError) and not {message, str(error)} & {*_LOST_TASK}:
        complaints.append(f"{message}: {error!r}")


def stop() -> None:
    """Undo :func:`start`."""
    asyncio._set_running_loop(None)
    _loop.close()
    assert not complaints, complaints


def turn() -> None:
    """Run the callbacks that are ready."""
    ready = _loop._ready  # type: ignore[attr-defined]
    for _ in range(len(ready)):
        handle = ready.popleft()
        if not handle.cancelled():
            handle._run()


def turn_under(fault: Fault) -> None:
    """Run the next callback while an allocation fails; once more, where asyncio ran out of memory itself, and
    a task missed its step.
    """
    handle = _loop._ready.popleft()  # type: ignore[attr-defined]
    fault(handle._context.run, handle._callback, *handle._args)
    if fault.has_raised:
        with contextlib.suppress(asyncio.InvalidStateError):  # it had its step
            handle._callback(*handle._args)


def fire_timers() -> None:
    """Run every timer that is armed now, as if its time had come."""
    scheduled = _loop._scheduled  # type: ignore[attr-defined]
    handles = [handle for handle in scheduled if not handle.cancelled()]
    scheduled.clear()
    for handle in handles:
        handle._run()
    settle()


def settle() -> None:
    """Let the loop turn until nothing is ready."""
    ready = _loop._ready  # type: ignore[attr-defined]
    for _ in range(1000):
        if not ready:
            return
        turn()
    raise AssertionError("the loop does not come to rest")
