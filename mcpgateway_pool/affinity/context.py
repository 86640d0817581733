"""What every part of the affinity shares: where Redis is, who this worker is, what the settings say."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from mcpgateway_pool.standstill import Standstill

# For how long Redis is left alone after it kept a request waiting: the next ones are served at once, here.
# Longer than a heartbeat takes to fail and be tried again: while it fails, no request need find out itself.
PAUSE_SECONDS = 5.0

# Blocks that use Redis at a time, each with a connection. The gateway's client has 50 connections by default
# for everything, and refuses whoever asks for one more; a block is over in about a millisecond.
MAX_CONNECTIONS = 16

RedisSource = Callable[[], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AffinitySettings:
    """The settings, as they are now.

    Attributes:
        enabled: whether there is any affinity; default False.
        ttl_seconds: for how long a mapping and an ownership last unless they are refreshed; default 300.
        forward_timeout_seconds: how long a forwarded request may take; default 30.
        redis_timeout_seconds: for how long one request waits for Redis before it goes on without;
            default 2.
    """

    enabled: bool = False
    ttl_seconds: int = 300
    forward_timeout_seconds: float = 30.0
    redis_timeout_seconds: float = 2.0


def cancel_requests() -> int:
    """How often the current task was asked to end.

    A Redis client may swallow a cancellation that comes while it talks to Redis. The task then goes on as if
    nothing had been asked of it, and its caller waits for ever: so whoever used the client compares.
    """
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


class _Patience:
    """Ends a block with TimeoutError after some seconds. Where the process stood still meanwhile, what came
    lies unread: the block gets the same time once more.

    Attributes:
        is_over: whether it ended the block.
        stood_still: whether a good part of the time was a standstill; known when the block has ended.
    """

    def __init__(self, standstill: Standstill, seconds: float) -> None:
        self.is_over = self.stood_still = False
        self._standstill = standstill
        self._seconds = seconds

    async def __aenter__(self) -> None:
        self._timeout = asyncio.timeout(None)
        await self._timeout.__aenter__()
        self._begin()

    def _begin(self) -> None:
        self._span = self._standstill.begin()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._run_out)

    def _run_out(self) -> None:
        if self._span.stood_still():
            self.stood_still = True
            self._span.end()
            self._begin()
        else:
            self.is_over = True
            self._timeout.reschedule(asyncio.get_running_loop().time())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self.stood_still |= self._span.stood_still()
        self._span.end()
        await self._timeout.__aexit__(kind, error, trace)


class Context:
    """Looked up at each use, because the gateway (and its tests) may replace each of them at any time.

    Args:
        redis: gives the Redis client (``redis.asyncio``), or None where there is none.
        worker_id: gives the id of this worker.
        settings: gives the settings.
        logger: gives the logger.
    """

    __slots__ = (
        "_loop",
        "_paused_until",
        "_redis",
        "_semaphore",
        "_standstill",
        "logger",
        "settings",
        "worker_id",
    )

    def __init__(
        self,
        redis: RedisSource,
        worker_id: Callable[[], str],
        settings: Callable[[], AffinitySettings],
        logger: Callable[[], logging.Logger],
    ) -> None:
        self._redis = redis
        self.worker_id = worker_id
        self.settings = settings
        self.logger = logger
        self._paused_until = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._semaphore = asyncio.Semaphore(MAX_CONNECTIONS)
        self._standstill: Standstill | None = None

    def _turns(self) -> asyncio.Semaphore:
        self._follow_loop()
        return self._semaphore

    def _standstill_of_loop(self) -> Standstill:
        self._follow_loop()
        assert self._standstill is not None
        return self._standstill

    def _follow_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # both belong to one loop, and a pool may outlive one
            self._loop = loop
            self._semaphore = asyncio.Semaphore(MAX_CONNECTIONS)
            self._standstill = Standstill(loop)

    def _require_no_pause(self) -> None:
        if time.monotonic() < self._paused_until:
            raise ConnectionError("Redis did not answer a moment ago")

    @asynccontextmanager
    async def bounded(self, *, is_probe: bool = False) -> AsyncIterator[None]:
        """Wait for a turn, and do something with Redis in the block: ``redis_timeout_seconds`` for both, and
        once more where this process stood still meanwhile.

        Blocks must not nest: each takes one of a limited number of turns.

        Args:
            is_probe: try in spite of a pause, which ends when the block succeeds.

        Raises:
            ConnectionError: it took longer, or there is a pause.
        """
        bound = self.settings().redis_timeout_seconds
        patience = _Patience(self._standstill_of_loop(), bound)
        turn_began: float | None = None
        cancelled = cancel_requests()
        try:
            async with patience, self._turns():
                if not is_probe:
                    self._require_no_pause()
                turn_began = time.monotonic()
                yield
        except Exception as error:
            # What fails at once costs nothing and needs no pause; what was waited for in vain does. The
            # client may have a shorter time-out of its own, or try again itself, so the class of the error
            # says little. Nothing is known of Redis where this process stood still, or had no turn.
            waited = 0.0 if turn_began is None else time.monotonic() - turn_began
            if waited >= bound / 2 and not patience.stood_still:
                self._paused_until = time.monotonic() + PAUSE_SECONDS
            if patience.is_over and isinstance(error, TimeoutError):
                raise ConnectionError("Redis did not answer in time") from error
            raise
        if is_probe:
            self._paused_until = 0.0
        if cancel_requests() > cancelled:
            raise asyncio.CancelledError

    @asynccontextmanager
    async def redis(self, *, is_probe: bool = False) -> AsyncIterator[Any]:
        """The client for a few commands of one request, or None; the block is :meth:`bounded`."""
        if time.monotonic() < self._paused_until and not is_probe:
            yield None
            return
        async with self.bounded(is_probe=is_probe):
            yield await self._redis()
