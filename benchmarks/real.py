"""Sessions of the MCP SDK with a real server: the one of ``tests/servers``, in a process of its own."""

from __future__ import annotations

import contextlib
import gc
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from batches import best_of
from memory import resident_bytes
from sides import Side

from servers.process import ServerProcess

HEADERS = {"Authorization": "Bearer secret", "X-Tenant-Id": "tenant-1"}
OPEN_FIRST = 5  # what the first of anything takes once is no part of a session


@dataclass(frozen=True)
class Opening:
    """What opening and keeping one session took: median seconds, those of this process's processor, bytes."""

    seconds: float
    cpu_seconds: float
    resident: float


async def open_sessions(side: Side, count: int, client_factory: Callable[..., Any] | None = None) -> Opening:
    """Open so many sessions one after the other, by the side's default client factory or by this one."""
    with ServerProcess() as server:
        pool = side.make_real_pool(max_sessions_per_key=count + OPEN_FIRST)
        where = (server.url, HEADERS, side.transport, client_factory)
        held = [await pool.acquire(*where) for _ in range(OPEN_FIRST)]
        gc.collect()
        before, seconds, computed = resident_bytes(), [], time.process_time()
        for _ in range(count):
            begin = time.perf_counter()
            held.append(await pool.acquire(*where))
            seconds.append(time.perf_counter() - begin)
        computed = time.process_time() - computed
        gc.collect()
        grown = resident_bytes() - before
        for pooled in held:
            await pool.release(pooled)
        await pool.close_all()
    return Opening(statistics.median(seconds), computed / count, grown / count)


async def open_seconds(side: Side, count: int) -> float:
    """Opening a session."""
    return (await open_sessions(side, count)).seconds


async def open_bytes(side: Side, count: int) -> float:
    """Memory of a session that is open."""
    return (await open_sessions(side, count)).resident


async def call(session: Any) -> None:
    """One tool call."""
    result = await session.call_tool("echo", {"text": "hello"})
    assert result.content[0].text == "hello"


@contextlib.asynccontextmanager
async def new_session(url: str, **options: Any) -> AsyncIterator[Any]:
    """A session as the MCP SDK opens it, without a pool."""
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async with (
        streamablehttp_client(url, headers=HEADERS, **options) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        yield session


async def open_seconds_by_sdk(side: Side, count: int) -> float:
    """Opening a session without a pool; all share one TLS context, as those of the project do."""
    import httpx

    context = httpx.create_ssl_context()

    def client(headers: Any = None, timeout: Any = None, auth: Any = None) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            headers=headers, timeout=timeout, auth=auth, verify=context, follow_redirects=True
        )

    with ServerProcess() as server:
        async with contextlib.AsyncExitStack() as held:

            async def one() -> float:
                begin = time.perf_counter()
                await held.enter_async_context(new_session(server.url, httpx_client_factory=client))
                return time.perf_counter() - begin

            return await median_of(one, count)


async def median_of(one: Callable[[], Awaitable[float]], count: int) -> float:
    """The median of so many times, after some that do not count."""
    for _ in range(5):
        await one()
    return statistics.median([await one() for _ in range(count)])


async def call_through_pool(side: Side, count: int) -> float:
    """A tool call on a session of the pool, with acquire and release."""
    with ServerProcess() as server:
        pool = side.make_real_pool()

        async def one() -> float:
            begin = time.perf_counter()
            pooled = await pool.acquire(
                server.url, HEADERS, side.transport, user_identity="user", gateway_id="gateway-1"
            )
            await call(pooled.session)
            await pool.release(pooled)
            return time.perf_counter() - begin

        seconds = await median_of(one, count)
        await pool.close_all()
    return seconds


async def call_by_new_session(side: Side, count: int) -> float:
    """A tool call on a session of its own, opened for it and closed after it, as without a pool."""
    with ServerProcess() as server:

        async def one() -> float:
            begin = time.perf_counter()
            async with new_session(server.url) as session:
                await call(session)
            return time.perf_counter() - begin

        return await median_of(one, count)


async def hit_real_session(side: Side) -> float:
    """acquire() and release() of a session that is open to a server, again and again."""
    with ServerProcess() as server:
        pool = side.make_real_pool()
        transport = side.transport

        async def batch() -> int:
            acquire, release = pool.acquire, pool.release
            for _ in range(500):
                pooled = await acquire(
                    server.url, HEADERS, transport, user_identity="user", gateway_id="gateway-1"
                )
                await release(pooled)
            return 500

        await batch()
        seconds = await best_of(batch)
        await pool.close_all()
    return seconds


async def hit_between_calls(side: Side, count: int) -> float:
    """The same once before and after each tool call, when the processor's caches hold other things.

    The pool's session is a fake; the calls go over one session that stays open, on every side alike.
    """
    with ServerProcess() as server:
        pool = side.make_pool()
        async with new_session(server.url) as session:

            async def one() -> float:
                begin = time.perf_counter()
                pooled = await pool.acquire(
                    server.url, HEADERS, side.transport, user_identity="user", gateway_id="gateway-1"
                )
                acquired = time.perf_counter()
                await call(session)
                releasing = time.perf_counter()
                await pool.release(pooled)
                return acquired - begin + time.perf_counter() - releasing

            return await median_of(one, count)
