"""What is measured: each function runs one round on one side.

Times are the best of several short batches where that can be (``batches.py``). What was built up for a
measurement is frozen first, so that no round pays for the collector's walk over it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any

from batches import best_of, frozen

# Measured like the functions here.
from counting import count_in_c, count_natively  # noqa: F401
from memory import idle_key_bytes, session_object_bytes  # noqa: F401
from real import (  # noqa: F401
    call_by_new_session,
    call_through_pool,
    hit_between_calls,
    hit_real_session,
    open_bytes,
    open_seconds,
    open_seconds_by_sdk,
)
from scrape_workers import Writer
from scrape_workers import scrape_workers as page_of_workers
from scrapes import scrape  # noqa: F401
from sides import Clock, Side, fill, users
from steady import steady_most_sessions, steady_p99, steady_p99_to_p50  # noqa: F401

URL = "http://127.0.0.1:9000/mcp"
TWO_HEADERS = {"Authorization": "Bearer 0123456789abcdef", "X-Tenant-Id": "tenant-1"}
TWENTY_HEADERS = {
    "Authorization": "Bearer " + "x" * 1500,
    "X-Tenant-Id": "tenant-1",
    **{f"X-Custom-Header-{number}": f"value-{number}" for number in range(18)},
}
HEADERS = {"two": TWO_HEADERS, "twenty": TWENTY_HEADERS}

BATCH = 1000
SAMPLE = 5000  # keys in use in a pool of many

# Pools of many keys take a while to fill: a worker keeps them for its next rounds.
_filled: dict[tuple[Any, ...], Any] = {}


async def hit(
    side: Side,
    headers: str = "two",
    keys: int = 1,
    max_total_sessions: int | None = None,
    used: int = SAMPLE,
) -> float:
    """acquire() and release() of a session that is idle; with many keys, again and again ``used`` of them,
    taken at random.
    """
    settings = {} if max_total_sessions is None else {"max_total_sessions": max_total_sessions}
    pool = await filled_pool(side, keys, headers, settings)
    sample = sampled_users(keys, used)
    given, transport = HEADERS[headers], side.transport

    async def batch() -> int:
        acquire, release = pool.acquire, pool.release
        for user in sample:
            pooled = await acquire(URL, given, transport, user_identity=user, gateway_id="gateway-1")
            await release(pooled)
        return len(sample)

    await batch()
    return await best_of(batch)


async def hit_by_session(side: Side) -> float:
    """``async with pool.session()`` of a session that is idle."""
    pool = await filled_pool(side, 1, "two", {})
    transport = side.transport

    async def batch() -> int:
        session = pool.session
        for _ in range(BATCH):
            async with session(
                URL, TWO_HEADERS, transport, user_identity="user-0@example.com", gateway_id="gateway-1"
            ):
                pass
        return BATCH

    await batch()
    return await best_of(batch)


def sampled_users(keys: int, used: int) -> Sequence[str]:
    """Whose keys a batch visits."""
    if keys == 1:
        return users(1) * BATCH
    return random.Random(1).choices(users(keys), k=used)


async def filled_pool(side: Side, keys: int, headers: str, settings: dict[str, Any]) -> Any:
    """A pool with one idle session for each of so many users."""
    kind = (keys, headers, *sorted(settings.items()))
    pool = _filled.get(kind)
    if pool is None:
        pool = _filled[kind] = side.make_pool(
            session_ttl_seconds=1e6,
            idle_pool_eviction_seconds=1e6,
            health_check_interval_seconds=1e6,
            **settings,
        )
        await fill(side, pool, URL, users(keys), HEADERS[headers])
    return pool


async def eviction_pause(side: Side, keys: int) -> float:
    """The longest turn of the event loop, with one acquire and release, while so many idle keys are evicted.

    In seconds of this thread's processor time: other processes on the machine do not count.
    """
    clock = Clock()
    pool = side.clocked_pool(clock)
    await fill(side, pool, URL, users(keys), TWO_HEADERS)
    longest = 0
    with frozen():
        side.make_everything_due(pool, clock)
        while side.key_count(pool) > 1:
            start = time.thread_time_ns()
            pooled = await pool.acquire(
                URL, TWO_HEADERS, side.transport, user_identity="caller", gateway_id="gateway-1"
            )
            await pool.release(pooled)
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time_ns() - start)
    return longest / 1e9


async def hand_off(side: Side, waiters: int) -> float:
    """One release that hands its session to the oldest of so many waiters, until that one runs."""
    hand_offs = max(2 * waiters, 5000)
    pool = side.make_pool(max_sessions_per_key=1, acquire_timeout_seconds=1e6)
    done = asyncio.Event()
    left = hand_offs

    async def caller() -> None:
        nonlocal left
        while True:
            pooled = await pool.acquire(
                URL, TWO_HEADERS, side.transport, user_identity="user", gateway_id="gateway-1"
            )
            left -= 1
            if left == 0:
                done.set()
                await asyncio.sleep(1e6)
            await pool.release(pooled)

    holder = await pool.acquire(
        URL, TWO_HEADERS, side.transport, user_identity="user", gateway_id="gateway-1"
    )
    tasks = [asyncio.create_task(caller()) for _ in range(waiters)]
    await asyncio.sleep(0)
    with frozen():
        start = time.thread_time()
        await pool.release(holder)
        await done.wait()
        seconds = time.thread_time() - start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return seconds / hand_offs


async def scrape_workers(side: Side, writer: Writer, workers: int, gateways: int) -> float:
    """One page over several processes; see :mod:`scrape_workers`."""
    return page_of_workers(writer, workers, gateways)
