"""Health checks over the real SDK: any answer is life, none is a failure. Goodbyes to servers that are
gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from mcpgateway_pool import MCPSessionPool, PooledSession, SessionCreateError
from servers import scripted
from servers.scripted import ScriptedServer

pytestmark = pytest.mark.both_loops

SETTINGS: dict[str, Any] = {"health_check_interval_seconds": 3600, "session_ttl_seconds": 36000}


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as running:
        yield running


async def eventually(condition: Callable[[], object], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def call(pool: MCPSessionPool, server: ScriptedServer) -> PooledSession:
    async with pool.session(server.url) as pooled:
        await pooled.session.call_tool("echo", {})
        return pooled


async def call_after_a_doubt(
    pool: MCPSessionPool, server: ScriptedServer
) -> tuple[PooledSession, PooledSession]:
    """Two calls, the session of the first checked before the second."""
    first = await call(pool, server)
    pool._doubt(first)
    return first, await call(pool, server)


# ---- what an answer is


@pytest.mark.parametrize(
    "answer",
    [
        scripted.error(-32601),
        scripted.error(-32603),
        scripted.error(-32602),
        scripted.error(-32001),
    ],
    ids=["-32601", "-32603", "-32602", "-32001"],
)
@pytest.mark.parametrize("methods", [["ping"], ["ping", "skip"], ["ping", "list_prompts"]])
async def test_error_answer_is_a_sign_of_life(server: ScriptedServer, answer: Any, methods: list[str]):
    server.answers["ping"] = answer
    async with MCPSessionPool(health_check_methods=methods, **SETTINGS) as pool:
        first, second = await call_after_a_doubt(pool, server)
        assert second is first
        assert server.seen["ping"] == 1
        assert server.seen["prompts/list"] == ("list_prompts" in methods)
        assert pool.get_metrics()["health_check_failures"] == 0


@pytest.mark.parametrize(
    "answer",
    [
        scripted.status(404),
        scripted.error(-32001, "Session not found", 404),
        scripted.error(-32601, "not found", 404),
        scripted.status(500),
        scripted.status(503),
        scripted.error(-32601, "not found", 500),
        scripted.silence,
        scripted.text("<html>", "text/html"),
        scripted.text("{", "application/json"),
        scripted.text("", "text/event-stream"),
        scripted.status(202),
    ],
    ids=[
        "404",
        "404 -32001",
        "404 -32601",
        "500",
        "503",
        "500 -32601",
        "silence",
        "html",
        "half",
        "end",
        "202",
    ],
)
@pytest.mark.parametrize("methods", [["ping", "skip"], ["ping", "list_prompts"]])
async def test_no_answer_is_a_failure_whatever_follows_in_the_chain(
    server: ScriptedServer, answer: Any, methods: list[str]
):
    server.answers["ping"] = answer
    settings = SETTINGS | {"health_check_timeout_seconds": 0.2 if answer is scripted.silence else 30}
    async with MCPSessionPool(health_check_methods=methods, **settings) as pool:
        first, second = await call_after_a_doubt(pool, server)
        assert second is not first
        assert server.seen["ping"] == 1
        assert server.seen["prompts/list"] == 0
        assert pool.get_metrics()["health_check_failures"] == 1


async def test_server_that_is_gone_is_no_answer(server: ScriptedServer):
    async with MCPSessionPool(health_check_methods=["ping", "skip"], **SETTINGS) as pool:
        first = await call(pool, server)
        await server.stop()
        assert not await pool._check_session(first)


# ---- connections that died unnoticed


async def test_check_on_a_kept_connection_that_died_is_repeated_on_a_fresh_one(server: ScriptedServer):
    pings: list[Any] = []

    async def cut_the_first(request: Request, _message: Any) -> Response | None:
        pings.append(request.client)
        if len(pings) == 1:
            server.drop_connection_of(request)
            await asyncio.Event().wait()
        return None

    server.answers["ping"] = cut_the_first
    async with MCPSessionPool(health_check_methods=["ping"], **SETTINGS) as pool:
        first, second = await call_after_a_doubt(pool, server)
        assert second is first
        assert len(pings) == 2
        assert pings[0] != pings[1]


async def test_check_whose_fresh_connection_dies_too_has_failed(server: ScriptedServer):
    async def cut(request: Request, _message: Any) -> Response | None:
        server.drop_connection_of(request)
        await asyncio.Event().wait()
        return None

    server.answers["ping"] = cut
    async with MCPSessionPool(health_check_methods=["ping", "skip"], **SETTINGS) as pool:
        first, second = await call_after_a_doubt(pool, server)
        assert second is not first
        assert server.seen["ping"] >= 2  # once for each connection that was kept open, and a fresh one


async def test_call_of_a_tool_is_never_repeated(server: ScriptedServer):
    async def cut(request: Request, _message: Any) -> Response | None:
        server.drop_connection_of(request)
        await asyncio.Event().wait()
        return None

    server.answers["tools/call"] = cut
    async with MCPSessionPool(**SETTINGS) as pool:
        with pytest.raises(Exception, match="connection"):
            await call(pool, server)
        assert server.seen["tools/call"] == 1


# ---- servers that keep no standing stream


async def test_standing_stream_that_ends_raises_one_doubt_and_is_then_known_of_its_url(
    server: ScriptedServer,
):
    server.get = "end"
    server.answers["ping"] = scripted.error(-32603)
    async with MCPSessionPool(**SETTINGS) as pool:
        first = await call(pool, server)
        await eventually(lambda: server.seen["GET"] >= 2)  # the SDK tries again, a second later
        await eventually(lambda: pool._watch_of(first).lost_streams >= 2)
        assert await call(pool, server) is first
        assert server.seen["ping"] == 1
        assert server.url in pool._streamless
        pool._watch_of(first)._listener.standing_stream_over()
        for _ in range(3):
            assert await call(pool, server) is first
        assert server.seen["ping"] == 1
        assert server.seen["initialize"] == 1


async def test_standing_stream_of_a_server_that_forgot_its_session_is_no_such_habit(server: ScriptedServer):
    async with MCPSessionPool(**SETTINGS) as pool:
        first = await call(pool, server)
        server.sessions.clear()
        pool._watch_of(first).lost_streams += 1
        pool._watch_of(first)._listener.standing_stream_over()
        assert await call(pool, server) is not first
        assert server.url not in pool._streamless


# ---- goodbyes


async def test_session_that_is_well_says_goodbye(server: ScriptedServer):
    async with MCPSessionPool(**SETTINGS) as pool:
        await pool.release(await pool.acquire(server.url), discard=True)
        await eventually(lambda: pool._counts()["closing"] == 0)
        assert server.seen["DELETE"] == 1


async def test_nobody_says_goodbye_to_a_server_that_gave_no_answer(server: ScriptedServer):
    server.answers["ping"] = scripted.silence
    async with MCPSessionPool(health_check_timeout_seconds=0.05, **SETTINGS) as pool:
        first, second = await call_after_a_doubt(pool, server)
        assert second is not first
        await eventually(lambda: pool._counts()["closing"] == 0)
        assert server.seen["DELETE"] == 0


async def test_nobody_says_goodbye_where_the_connection_failed():
    """The server comes back, so that a goodbye would reach it."""
    async with ScriptedServer() as server, MCPSessionPool(**SETTINGS) as pool:
        server.get = "405"  # a standing stream that is made anew would show that the server is back
        pooled = await pool.acquire(server.url)
        await pooled.session.call_tool("echo", {})
        await server.stop()
        with pytest.raises(Exception, match=r"connection|closed|ended"):
            await pooled.session.call_tool("echo", {})
        async with server:
            await pool.release(pooled, discard=True)
            await eventually(lambda: pool._counts()["closing"] == 0)
            assert server.seen["DELETE"] == 0


async def test_handshake_that_takes_too_long_says_no_goodbye(server: ScriptedServer):
    """Its session has an id already."""

    async def begin_only(_request: Request, _message: Any) -> Response:
        async def never() -> AsyncIterator[bytes]:
            yield b": wait\n\n"
            await asyncio.Event().wait()

        headers = {"mcp-session-id": "known"}
        return StreamingResponse(never(), headers=headers, media_type="text/event-stream")

    server.answers["initialize"] = begin_only
    server.answers["DELETE"] = scripted.silence
    async with MCPSessionPool(
        session_create_timeout_seconds=0.2, cleanup_timeout_seconds=60, **SETTINGS
    ) as pool:
        async with asyncio.timeout(10):
            with pytest.raises(SessionCreateError):
                await pool.acquire(server.url)
        assert server.seen["DELETE"] == 0


async def test_release_does_not_wait_for_a_server_that_does_not_answer_a_goodbye(server: ScriptedServer):
    server.answers["DELETE"] = scripted.silence
    pool = MCPSessionPool(max_sessions_per_key=1, cleanup_timeout_seconds=3600, **SETTINGS)
    pooled = await pool.acquire(server.url)
    async with asyncio.timeout(10):
        await pool.release(pooled, discard=True)
    await eventually(lambda: server.seen["DELETE"] == 1)
    assert pool._counts()["closing"] == 1
    pooled._owner_task.cancel()
    await pool.close_all()
