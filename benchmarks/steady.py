"""Callers at a steady pace, while their sessions end and opening one takes long."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Any

from real import HEADERS, call
from sides import Side

from servers.process import ServerProcess

LIFETIME_SECONDS = 5.0
LIFETIMES = 3
CREATION_SECONDS = 0.5
PACE_SECONDS = 0.025

# Runs of which a row has shown one figure and another row has yet to show the other.
_runs: list[list[float]] = []


class Census:
    """How many sessions there are, from the moment that one begins to be opened until it is closed."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def add(self, count: int) -> None:
        """So many more, or fewer."""
        self.now += count
        self.most = max(self.most, self.now)


def slow_pool(side: Side, census: Census, **settings: Any) -> Any:
    """A pool with real sessions, each of which takes long to open."""

    class SlowPool(side.real_class):  # type: ignore[misc, name-defined]
        async def _create_session(self, *arguments: Any, **options: Any) -> Any:
            census.add(1)
            try:
                await asyncio.sleep(CREATION_SECONDS)
                return await super()._create_session(*arguments, **options)
            except BaseException:
                census.add(-1)
                raise

        async def _close_session(self, pooled: Any) -> None:
            await super()._close_session(pooled)
            census.add(-1)

    return SlowPool(session_ttl_seconds=LIFETIME_SECONDS, **settings)


async def steady_calls(
    side: Side, lifetimes: float = LIFETIMES, callers: int = 1, **settings: Any
) -> tuple[list[float], int]:
    """How long each call took from the moment that it was due: a call that is late because the one before it
    was slow has waited, too. And the most sessions that there were at once. A call that fails ends it.
    """
    census = Census()
    with ServerProcess() as server:
        pool = slow_pool(side, census, **settings)

        async def caller(user: str) -> list[float]:
            async def one() -> None:
                pooled = await pool.acquire(
                    server.url, HEADERS, side.transport, user_identity=user, gateway_id="gateway-1"
                )
                await call(pooled.session)
                await pool.release(pooled)

            await one()  # the first session is anybody's to wait for
            begin, seconds = time.perf_counter(), []
            for number in range(round(lifetimes * LIFETIME_SECONDS / PACE_SECONDS)):
                due = begin + number * PACE_SECONDS
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                await one()
                seconds.append(time.perf_counter() - due)
            return seconds

        took = await asyncio.gather(*(caller(f"user-{number}") for number in range(callers)))
        await pool.close_all()
    return sorted(second for seconds in took for second in seconds), census.most


def quantile(ordered: Sequence[float], part: float) -> float:
    """The least value that so large a part of them does not exceed."""
    return ordered[math.ceil(part * len(ordered)) - 1]


async def steady_p99(side: Side, **options: Any) -> float:
    """The 99th percentile of a steady caller's calls."""
    seconds, _ = await steady_calls(side, **options)
    _runs.append(seconds)
    return quantile(seconds, 0.99)


async def steady_p99_to_p50(side: Side, **options: Any) -> float:
    """The same in medians, of the run that was shown before."""
    seconds = _runs.pop(0) if _runs else (await steady_calls(side, **options))[0]
    return quantile(seconds, 0.99) / quantile(seconds, 0.5)


async def steady_most_sessions(side: Side, **options: Any) -> float:
    """The most sessions at once, those that are being opened or closed included."""
    return (await steady_calls(side, **options))[1]
