"""What must hold when nobody calls: the counters are what was counted, and every place can be used."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from callers import Callers
from faulty_pool import FaultyPool, Key
from scrapes import SERIES_OF, Scrape, answered, evictions_of

from mcpgateway_pool import CircuitOpenError


def wrong_counters(scrape: Scrape, callers: Callers, pool: FaultyPool) -> list[str]:
    """Where the series of a gateway are not what the callers and the servers counted."""
    ended, creations = callers.ended, pool.creations
    problems = []
    for gateway, values in sorted(scrape.items()):
        expected = {
            "answered": (answered(values), ended[gateway, "answered"]),
            "use_seconds": (values["use_seconds_count", ""], ended[gateway, "answered"]),
            "creates": (values["creates_total", ""], creations[gateway, "in time"]),
            "create_failures": (
                values["create_failures_total", ""],
                creations[gateway, "failed"] + creations[gateway, "late"],
            ),
            "evictions leaked": (values["evictions_total", "leaked"], callers.dropped[gateway]),
        }
        for reason, count in evictions_of(values).items():
            expected[f"closed as {reason}"] = (count, pool.closes[gateway, reason])
        # One that was refused, or timed out, may be cancelled before it can take notice: it counts as what
        # came first, and its caller sees the cancellation.
        unanswered = {how: (int(values[series]), ended[gateway, how]) for how, series in SERIES_OF.items()}
        expected["unanswered"] = (
            sum(series for series, _ in unanswered.values()),
            sum(counted for _, counted in unanswered.values()),
        )
        for how, (series, counted) in unanswered.items():
            is_possible = series <= counted if how == "cancelled" else series >= counted
            if not is_possible:
                expected[how] = (series, counted)
        problems += [
            f"{gateway}: {what} is {series:.0f} in the series, and was {counted}"
            for what, (series, counted) in expected.items()
            if series != counted
        ]
    return problems


async def lost_places(pool: FaultyPool, keys: Sequence[Key], bound: float) -> list[str]:
    """Whether every key, and then the whole pool, can be used in full at once. No server may fail meanwhile.

    Args:
        pool: at rest.
        keys: of which some have room for all sessions of the pool.
        bound: seconds for the open circuit breakers to let somebody through.
    """
    limit, total = pool._settings.max_sessions_per_key, pool._settings.max_total_sessions
    problems = []
    for key in {key.url: key for key in keys}.values():
        async with asyncio.timeout(bound):
            await _close_breaker(pool, key)
    for key in keys:
        taken = await _take(pool, [key] * limit)
        if len(taken) != limit:
            problems.append(f"{key} has lost places: {len(taken)} of {limit} can be used")
        await _give_back(pool, taken)
    await pool.drain()
    taken = await _take(pool, [key for key in keys for _ in range(limit)][:total])
    if len(taken) != total:
        problems.append(f"the pool has lost places: {len(taken)} of {total} can be used")
    await _give_back(pool, taken)
    return problems


async def _close_breaker(pool: FaultyPool, key: Key) -> None:
    while True:
        with contextlib.suppress(CircuitOpenError):
            await pool.release(await pool.acquire(**key.arguments))
            return
        await asyncio.sleep(0.05)


async def _take(pool: FaultyPool, keys: Sequence[Key]) -> set[Any]:
    answers = await asyncio.gather(*(pool.acquire(**key.arguments) for key in keys), return_exceptions=True)
    return {answer for answer in answers if not isinstance(answer, BaseException)}


async def _give_back(pool: FaultyPool, taken: set[Any]) -> None:
    for pooled in taken:
        await pool.release(pooled)
