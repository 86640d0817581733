"""What every part of the affinity shares: where Redis is, who this worker is, what the settings say."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

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


class Context:
    """Looked up at each use, because the gateway (and its tests) may replace each of them at any time.

    Args:
        redis: gives the Redis client (``redis.asyncio``), or None where there is none.
        worker_id: gives the id of this worker.
        settings: gives the settings.
        logger: gives the logger.
    """

    __slots__ = ("_loop", "_paused_until", "_redis", "_semaphore", "logger", "settings", "worker_id")

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

    def _turns(self) -> asyncio.Semaphore:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # a semaphore belongs to one loop, and a pool may outlive one
            self._loop = loop
            self._semaphore = asyncio.Semaphore(MAX_CONNECTIONS)
        return self._semaphore

    @asynccontextmanager
    async def bounded(self, *, is_probe: bool = False) -> AsyncIterator[None]:
        """Wait for a turn, then bound what is done with Redis in the block to ``redis_timeout_seconds``.

        Blocks must not nest: each takes one of a limited number of turns.

        Args:
            is_probe: try in spite of a pause, which ends when the block succeeds.

        Raises:
            ConnectionError: the block took longer, or there is a pause.
        """
        async with self._turns():
            began = time.monotonic()
            if began < self._paused_until and not is_probe:
                raise ConnectionError("Redis did not answer a moment ago")
            bound = self.settings().redis_timeout_seconds
            deadline = asyncio.timeout(bound)
            cancelled = cancel_requests()
            try:
                async with deadline:
                    yield
            except Exception as error:
                # What fails at once costs nothing and needs no pause; what was waited for in vain does. The
                # client may have a shorter time-out of its own, or try again itself, so the class of the
                # error says little.
                if time.monotonic() - began >= bound / 2:
                    self._paused_until = time.monotonic() + PAUSE_SECONDS
                if deadline.expired() and isinstance(error, TimeoutError):
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
