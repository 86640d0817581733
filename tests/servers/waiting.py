"""Waiting for what another process, thread or task brings about: asked again and again, not slept through."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

_T = TypeVar("_T")

# A limit, in seconds, for what must come without waiting for a time-out: no claim about the machine, which
# may be busy, but well below the 30 s and 300 s after which the SDK itself gives up.
AT_ONCE = 15.0


def wait_until(condition: Callable[[], _T], seconds: float, every: float = 0.02) -> _T:
    """The first true value of a function; TimeoutError, with the last one, when there is none in time.

    Args:
        seconds: a limit that only ends what hangs: choose it long.
        every: seconds between two questions.
    """
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"did not come about in {seconds:g} s: {value!r}")
        time.sleep(every)
    return value


async def until(condition: Callable[[], object | Awaitable[object]], seconds: float = 30.0) -> None:
    """The same beside an event loop, for a function or a coroutine function."""
    async with asyncio.timeout(seconds):
        while True:
            value = condition()
            if inspect.isawaitable(value):
                value = await value
            if value:
                return
            await asyncio.sleep(0.005)
