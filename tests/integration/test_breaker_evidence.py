"""What counts for the circuit breaker, over the real SDK: evidence that the server is down, nothing else."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from mcpgateway_pool import CircuitOpenError, MCPSessionPool, TransportType
from mcpgateway_pool.upstream import sdk
from servers import scripted
from servers.scripted import Answer, ScriptedServer
from servers.waiting import until

pytestmark = pytest.mark.both_loops

BAD = {"X-User-Id": "mallory"}
GOOD = {"X-User-Id": "alice"}
THRESHOLD = 2


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as running:
        yield running


@pytest.fixture
async def pool() -> AsyncIterator[MCPSessionPool]:
    async with MCPSessionPool(circuit_breaker_threshold=THRESHOLD) as made:
        yield made


def to_mallory(answer: Answer) -> Answer:
    """That answer to one user only."""

    async def answer_mallory(request: Request, message: Any) -> Response | None:
        return await answer(request, message) if request.headers.get("x-user-id") == "mallory" else None

    return answer_mallory


async def fail(pool: MCPSessionPool, url: str, headers: dict[str, str] = BAD, **arguments: Any) -> None:
    """As many failures as open a breaker, where they count."""
    for _ in range(THRESHOLD):
        with pytest.raises(Exception, match="Failed to create MCP session"):
            await pool.acquire(url, headers, **arguments)


async def assert_served(pool: MCPSessionPool, url: str) -> None:
    await pool.release(await pool.acquire(url, GOOD))
    assert pool.get_metrics()["circuit_breaker_trips"] == 0


async def assert_refused(pool: MCPSessionPool, url: str) -> None:
    with pytest.raises(CircuitOpenError):
        await pool.acquire(url, GOOD)


async def cut(_request: Request, _message: Any) -> Response:
    async def half() -> AsyncIterator[bytes]:
        yield b"event: mess"

    return StreamingResponse(half(), media_type="text/event-stream")


async def other_version(_request: Request, message: Any) -> Response:
    value = {"protocolVersion": "1066-10-14", "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}}
    return scripted.result(message, value, {"mcp-session-id": "s"})


async def bad_shape(_request: Request, message: Any) -> Response:
    return scripted.result(message, {"protocolVersion": 7})


# ---- answers of a server that lives


@pytest.mark.parametrize(
    "answer",
    [
        *[
            scripted.status(code)
            for code in (400, 401, 402, 403, 404, 405, 408, 413, 415, 422, 429, 431, 451)
        ],
        *[scripted.error(code) for code in (-32000, -32001, -32600, -32601, -32603, -32700, 32600, 408)],
        *[scripted.error(-32000, status=code) for code in (400, 404, 429)],
        other_version,
    ],
)
async def test_refusal_of_one_user_shuts_nobody_out(
    server: ScriptedServer, pool: MCPSessionPool, answer: Answer
):
    server.answers["initialize"] = to_mallory(answer)
    await fail(pool, server.url)
    await assert_served(pool, server.url)


@pytest.mark.parametrize(
    "answer",
    [
        *[scripted.status(code) for code in (500, 502, 503, 504)],
        scripted.error(-32000, status=500),
        scripted.error(-32601, status=503),
        scripted.text("<html>It works!", "text/html"),
        scripted.text("{", "application/json"),
        scripted.text("[1, 2]", "application/json"),
        scripted.text("", "text/event-stream"),
        scripted.text("data: {\n\n", "text/event-stream"),
        scripted.status(202),
        cut,
        bad_shape,
    ],
    ids=[
        "500",
        "502",
        "503",
        "504",
        "500 json",
        "503 json",
        "html",
        "half",
        "list",
        "end",
        "event",
        "202",
        "cut",
        "shape",
    ],
)
async def test_server_errors_and_what_is_no_mcp_count(
    server: ScriptedServer, pool: MCPSessionPool, answer: Answer
):
    server.answers["initialize"] = to_mallory(answer)
    await fail(pool, server.url)
    await assert_refused(pool, server.url)


# ---- servers that are gone


async def test_refused_connections_count(server: ScriptedServer, pool: MCPSessionPool):
    await server.stop()
    await fail(pool, server.url)
    await assert_refused(pool, server.url)


async def test_refused_connections_count_over_sse(server: ScriptedServer, pool: MCPSessionPool):
    await server.stop()
    await fail(pool, server.url, transport_type=TransportType.SSE)
    await assert_refused(pool, server.url)


async def test_reset_connections_count(server: ScriptedServer, pool: MCPSessionPool):
    async def reset(request: Request, _message: Any) -> Response:
        server.drop_connection_of(request)
        await asyncio.Event().wait()
        raise AssertionError

    server.answers["initialize"] = reset
    await fail(pool, server.url)
    await assert_refused(pool, server.url)


async def test_names_that_do_not_exist_count(pool: MCPSessionPool):
    await fail(pool, "http://no-such-host.invalid/mcp")
    await assert_refused(pool, "http://no-such-host.invalid/mcp")


async def test_failing_tls_counts(server: ScriptedServer, pool: MCPSessionPool):
    """It speaks no TLS."""
    url = server.url.replace("http:", "https:")
    await fail(pool, url)
    await assert_refused(pool, url)


async def test_silence_counts(server: ScriptedServer):
    server.answers["initialize"] = scripted.silence
    async with MCPSessionPool(
        circuit_breaker_threshold=THRESHOLD, session_create_timeout_seconds=0.1
    ) as pool:
        await fail(pool, server.url)
        await assert_refused(pool, server.url)


# ---- the caller's own


@pytest.mark.parametrize("length", ["5", "5000"])
async def test_headers_that_cannot_be_sent_do_not_count(
    server: ScriptedServer, pool: MCPSessionPool, length: str
):
    """Whether they are refused, or left out."""
    for _ in range(THRESHOLD):
        try:
            pooled = await pool.acquire(server.url, BAD | {"Content-Length": length})
        except RuntimeError:
            continue
        await pool.release(pooled, discard=True)
    await assert_served(pool, server.url)


def raising(_: Any = None, **__: Any) -> Any:
    raise ConnectionRefusedError("my own")


def closed(**options: Any) -> Any:
    client = sdk.http_library().AsyncClient(headers=options["headers"])
    asyncio.get_running_loop().create_task(client.aclose())
    return client


@pytest.mark.parametrize("factory", [raising, lambda **_: None, lambda **_: object()])
async def test_failing_client_factories_do_not_count(
    server: ScriptedServer, pool: MCPSessionPool, factory: Callable[..., Any]
):
    await fail(pool, server.url, httpx_client_factory=factory)
    await assert_served(pool, server.url)


# ---- shortages of this machine


@pytest.fixture
def no_descriptors() -> Iterator[Callable[[], None]]:
    """A function that uses up all descriptors that this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []

    def take() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(64, _highest_descriptor() + 8), hard))
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            pass

    yield take
    for descriptor in taken:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _highest_descriptor() -> int:
    return max(int(name) for name in os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_missing_descriptors_do_not_count(
    server: ScriptedServer, pool: MCPSessionPool, no_descriptors: Callable[[], None], host: str
):
    """A name is not found where there is no descriptor to look it up."""
    await pool.release(await pool.acquire(server.url, {"X-User-Id": "first"}), discard=True)
    await until(lambda: not pool._counts()["closing"])  # or its end gives descriptors back meanwhile
    no_descriptors()
    await fail(pool, server.url.replace("127.0.0.1", host))
    assert pool.get_metrics()["circuit_breaker_trips"] == 0


# ---- a server that lives, and takes no more sessions


async def test_server_at_its_session_limit_serves_on_the_sessions_that_it_has(server: ScriptedServer):
    async def limit(_request: Request, _message: Any) -> Response | None:
        return Response(status_code=503) if len(server.sessions) >= 3 else None

    server.answers["initialize"] = limit
    async with MCPSessionPool(circuit_breaker_threshold=THRESHOLD) as pool:
        held = [await pool.acquire(server.url, GOOD) for _ in range(3)]
        await fail(pool, server.url)
        await assert_refused_as(pool, server.url, BAD)
        for pooled in held:
            await pool.release(pooled)

        async def call() -> None:
            async with pool.session(server.url, GOOD) as pooled:
                await pooled.session.call_tool("echo", {})

        await asyncio.gather(*(call() for _ in range(30)))
        assert server.seen["initialize"] == 3 + THRESHOLD
        assert server.seen["tools/call"] == 30
        assert not any(pool._totals()["evictions"].values())
        await assert_refused_as(pool, server.url, BAD)  # that alone does not close the breaker


async def assert_refused_as(pool: MCPSessionPool, url: str, headers: dict[str, str]) -> None:
    with pytest.raises(CircuitOpenError, match=r"opened by .*HTTP 503"):
        await pool.acquire(url, headers)
