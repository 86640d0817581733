"""HTTP as odd as it gets on the way: encoded bodies, bodies without an end, headers of any size and name,
clients of a caller's own. Over both transports, against real servers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, Self

import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from mcpgateway_pool import MCPSessionPool, SessionCreateError, SessionCreateTimeoutError, TransportType
from mcpgateway_pool.upstream import http_watch, sdk
from servers import scripted
from servers.process import ServerProcess
from servers.scripted import ScriptedServer
from servers.waiting import AT_ONCE

GOOD = {"X-User-Id": "alice"}
BIG = "b" * 100_000


async def call(pool: MCPSessionPool, server: ServerProcess, tool: str = "echo", **options: Any) -> str:
    where = (server.url, options.pop("headers", GOOD), TransportType(server.transport))
    arguments = options.pop("arguments", {"text": "x"})
    async with pool.session(*where, **options) as pooled:
        result = await pooled.session.call_tool(tool, arguments)
        return str(result.content[0].text)


async def failing(pool: MCPSessionPool, server: ServerProcess, **options: Any) -> BaseException:
    """What such a call raises, at once."""
    with pytest.raises(Exception, match=r".") as caught:
        await asyncio.wait_for(call(pool, server, **options), AT_ONCE)
    assert type(caught.value) is not TimeoutError, "it hangs"
    return caught.value


async def assert_served(pool: MCPSessionPool, server: ServerProcess) -> None:
    """Another user is, and no breaker has opened."""
    assert await call(pool, server) == "x"
    assert pool._totals()["circuit_breaker_trips"] == 0


# ---- encodings


OTHERS = pytest.mark.long("the rest of a matrix: each encoding and each transport is tried in short, too")


@pytest.fixture(
    scope="module",
    params=[
        ("streamablehttp", "br"),
        ("sse", "zstd"),
        *(
            pytest.param(both, marks=OTHERS)
            for both in [
                ("sse", "br"),
                ("streamablehttp", "zstd"),
                ("sse", "gzip"),
                ("streamablehttp", "gzip"),
            ]
        ),
    ],
    ids="-".join,
)
def encoded(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    transport, encoding = request.param
    with ServerProcess(transport, "--encoding", encoding) as server:
        yield server


async def test_encoded_bodies_are_read_and_watched(encoded: ServerProcess) -> None:
    is_sse = encoded.transport == "sse"
    async with MCPSessionPool() as pool:
        assert await call(pool, encoded) == "x"
        assert await call(pool, encoded, "notify", arguments={}) == "log"
        if not is_sse:
            encoded.fault("resumable", method="tools/call", resume="poll")
            assert await call(pool, encoded) == "resumed"
        encoded.fault(
            "status", status=503, method="tools/call", body='{"error": {}}', type="application/json"
        )
        assert "HTTP 503" in str(await failing(pool, encoded))
        assert await call(pool, encoded) == "x"
        assert pool._totals()["creates"] == 1
        encoded.fault("stream-cut" if is_sse else "cut", **({} if is_sse else {"method": "tools/call"}))
        await failing(pool, encoded)
        await assert_served(pool, encoded)


# ---- bodies without an end


@pytest.mark.parametrize(("kind", "status"), [("stalled", 401), ("trickling", 503)])
async def test_a_refusal_whose_body_has_no_end_is_an_error_in_time(
    server: ServerProcess, kind: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert http_watch._ERROR_BODY_SECONDS < 2
    monkeypatch.setattr(http_watch, "_ERROR_BODY_SECONDS", 0.1)
    async with MCPSessionPool() as pool:
        assert await call(pool, server) == "x"
        server.fault(kind, status=status, method="tools/call")
        assert f"HTTP {status}" in str(await failing(pool, server))
        assert await call(pool, server) == "x"
        assert pool._totals()["creates"] == 1


async def test_a_refusal_of_a_session_whose_body_has_no_end_is_an_error_in_time(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_watch, "_ERROR_BODY_SECONDS", 0.1)
    async with MCPSessionPool(session_create_timeout_seconds=300, circuit_breaker_threshold=1) as pool:
        server.fault("trickling", status=403, method="initialize")
        error = await failing(pool, server, headers={"X-User-Id": "mallory"})
        assert isinstance(error, SessionCreateError)
        assert "HTTP 403" in str(error)
        await assert_served(pool, server)


@pytest.mark.parametrize("kind", ["stalled", "trickling"])
async def test_an_answer_that_has_no_end_holds_its_caller_no_longer_than_he_wants(
    server: ServerProcess, kind: str
) -> None:
    async with MCPSessionPool(health_check_timeout_seconds=0.5) as pool:
        assert await call(pool, server) == "x"
        server.fault(kind, status=200, method="tools/call")
        calling = asyncio.create_task(call(pool, server))
        await asyncio.to_thread(server.wait_for, lambda stats: stats["pending_posts"] > 0)
        calling.cancel()
        await asyncio.wait({calling}, timeout=AT_ONCE)
        assert calling.cancelled()
        await assert_served(pool, server)
        # Over SSE, its messages wait for the end of that one; else nothing is wrong with it.
        assert pool._totals()["creates"] == (2 if server.transport == "sse" else 1)


async def test_a_handshake_that_has_no_end_ends_in_time(server: ServerProcess) -> None:
    async with MCPSessionPool(session_create_timeout_seconds=0.5) as pool:
        server.fault("trickling", status=200, method="initialize")
        error = await failing(pool, server)
        assert isinstance(error, SessionCreateTimeoutError)
        server.fault("clear")
        assert pool._totals()["create_failures"] == 1


async def test_an_event_stream_that_trickles_comments_and_never_an_endpoint_ends_in_time() -> None:
    async def trickle(_request: Request, _message: Any) -> Response:
        async def comments() -> AsyncIterator[bytes]:
            while True:
                yield b": still here\n\n"
                await asyncio.sleep(0.01)

        return StreamingResponse(comments(), media_type="text/event-stream")

    async with ScriptedServer() as server, MCPSessionPool(session_create_timeout_seconds=0.5) as pool:
        server.answers["GET"] = trickle
        with pytest.raises(SessionCreateTimeoutError):
            await asyncio.wait_for(pool.acquire(server.url, transport_type=TransportType.SSE), AT_ONCE)


# ---- headers


async def test_headers_of_100_kb_arrive_where_the_server_takes_them(server: ServerProcess) -> None:
    async with MCPSessionPool(circuit_breaker_threshold=1) as pool:
        assert await call(pool, server, headers={"Authorization": BIG}) == "x"
        assert f"authorization: {BIG}" in server.stats()["initialize_headers"]


@contextlib.asynccontextmanager
async def strict(server: ServerProcess, refusal: bytes) -> AsyncIterator[str]:
    """A way to a server for heads up to 16 KB, as Node.js takes them; longer ones get a refusal."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            writer.write(refusal)
            writer.transport.abort() if not refusal else writer.close()
            return
        onward_reader, onward = await asyncio.open_connection("127.0.0.1", server.port)
        onward.write(head)
        await asyncio.gather(pipe(reader, onward), pipe(onward_reader, writer))

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while part := await reader.read(65536):
                writer.write(part)
        writer.close()

    relays: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(relay(reader, writer))
        relays.add(task)
        task.add_done_callback(relays.discard)

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, limit=16384)
    try:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}{server.path}"
    finally:
        listener.close()
        await asyncio.wait(relays, timeout=AT_ONCE) if relays else None


@pytest.mark.parametrize(
    "refusal",
    [b"", b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"],
    ids=["reset", "431"],
)
async def test_headers_that_a_server_finds_too_long_shut_nobody_else_out(
    server: ServerProcess, refusal: bytes
) -> None:
    transport = TransportType(server.transport)
    async with strict(server, refusal) as url, MCPSessionPool(circuit_breaker_threshold=1) as pool:
        for _ in range(2):
            with pytest.raises(SessionCreateError) as caught:
                await asyncio.wait_for(pool.acquire(url, {"Authorization": BIG}, transport), AT_ONCE)
            assert BIG[:100] not in str(caught.value)
        await pool.release(await pool.acquire(url, GOOD, transport))
        assert pool._totals()["circuit_breaker_trips"] == 0


async def test_headers_from_a_server_that_are_too_long_fail_the_request_and_nothing_hangs() -> None:
    size = 60_000

    async def big(_request: Request, message: Any) -> Response:
        return scripted.result(message, {"content": []}, {"x-big": "b" * size})

    async with ScriptedServer() as server, MCPSessionPool() as pool:
        server.answers["tools/call"] = big
        async with pool.session(server.url) as pooled:
            await pooled.session.call_tool("echo", {})
        size = 400_000
        with pytest.raises(type(sdk.make_error(0, "")), match="connection to the server failed"):
            async with pool.session(server.url) as pooled:
                await asyncio.wait_for(pooled.session.call_tool("echo", {}), AT_ONCE)
        del server.answers["tools/call"]
        async with pool.session(server.url) as pooled:
            await pooled.session.call_tool("echo", {})


FRAMING = {
    "Content-Length": "5",
    "Transfer-Encoding": "chunked",
    "Connection": "close, x-user-id",
    "Keep-Alive": "timeout=1",
    "Host": "elsewhere",
    "Expect": "100-continue",
    "TE": "trailers",
    "Trailer": "X-T",
    "Upgrade": "h2c",
    "Content-Type": "text/plain",
    "Content-Encoding": "gzip",
}


async def test_names_that_frame_a_message_are_left_out(server: ServerProcess) -> None:
    async with MCPSessionPool(circuit_breaker_threshold=1) as pool:
        for spelt in (str, str.lower, str.upper):
            headers = {spelt(name): value for name, value in FRAMING.items()}
            assert await call(pool, server, headers={**GOOD, **headers}) == "x"
        assert f"host: 127.0.0.1:{server.port}" in server.stats()["initialize_headers"]
        await assert_served(pool, server)


async def test_values_that_cannot_be_sent_fail_for_their_own_caller(server: ServerProcess) -> None:
    before = server.stats()["posts"]
    async with MCPSessionPool(circuit_breaker_threshold=1) as pool:
        for value in ("a\nb", "a\r\nX-Other: b", "päss", "\u2026", "a\0b"):
            for name in ("Authorization", "X-Any"):
                error = await failing(pool, server, headers={"X-User-Id": "mallory", name: value})
                assert isinstance(error, SessionCreateError)
                assert name in str(error)
                assert value not in str(error)
        assert server.stats()["posts"] == before
        await assert_served(pool, server)


# ---- clients of a caller's own


def client(**options: Any) -> Any:
    return sdk.http_library().AsyncClient(headers=options["headers"], timeout=options["timeout"])


async def test_a_closed_client_is_called_that(server: ServerProcess) -> None:
    closed = sdk.http_library().AsyncClient()
    await closed.aclose()
    async with MCPSessionPool(circuit_breaker_threshold=1) as pool:
        error = await failing(pool, server, httpx_client_factory=lambda **_: closed)
        assert isinstance(error, SessionCreateError)
        assert "closed" in str(error)
        await assert_served(pool, server)


class Foreign:
    """Behaves as a client of another library, or of another version of this one."""

    is_closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


async def test_a_foreign_client_is_called_that(server: ServerProcess) -> None:
    async with MCPSessionPool(circuit_breaker_threshold=1) as pool:
        for foreign in (Foreign(), Foreign, None, "client"):
            error = await failing(pool, server, httpx_client_factory=lambda made=foreign, **_: made)
            assert isinstance(error, SessionCreateError)
            assert "must return an httpx" in str(error)
        await assert_served(pool, server)


@pytest.mark.parametrize("is_opened", [True, False], ids=["opened", "not opened"])
async def test_sessions_of_two_users_share_one_client(server: ServerProcess, is_opened: bool) -> None:
    shared = sdk.http_library().AsyncClient(timeout=30)
    if is_opened:
        await shared.__aenter__()
    one: dict[str, Any] = {"httpx_client_factory": lambda **_: shared, "user_identity": "one"}
    two: dict[str, Any] = {**one, "user_identity": "two"}
    headers = {"Accept": "application/json, text/event-stream"}
    async with MCPSessionPool() as pool:
        await asyncio.gather(*(call(pool, server, headers=headers, **user) for user in (one, two)))
        before = server.stats()["posts"]["tools/call"]
        slow = asyncio.create_task(
            call(pool, server, "slow", arguments={"seconds": 0.5}, headers=headers, **one)
        )
        await asyncio.to_thread(server.wait_for, lambda stats: stats["posts"]["tools/call"] > before)
        assert await call(pool, server, headers=headers, **two) == "x"
        server.fault("status", status=503, method="tools/call")
        assert "HTTP 503" in str(await failing(pool, server, headers=headers, **two))
        assert await slow == "slept 0.5"
        assert pool._totals()["creates"] == 2
    assert shared.is_closed is not is_opened
    await shared.aclose()


async def test_a_client_that_is_closed_under_its_session_costs_that_session_alone(
    server: ServerProcess,
) -> None:
    made: list[Any] = []

    def noted(**options: Any) -> Any:
        made.append(client(**options))
        return made[-1]

    async with MCPSessionPool(circuit_breaker_threshold=1) as pool:
        assert await call(pool, server, httpx_client_factory=noted) == "x"
        await made[0].aclose()
        # Where the end of its standing stream is seen first, the session is checked, and no call fails.
        again = asyncio.wait_for(call(pool, server, httpx_client_factory=noted), AT_ONCE)
        (outcome,) = await asyncio.gather(again, return_exceptions=True)
        assert not isinstance(outcome, TimeoutError), "it hangs"
        assert await call(pool, server, httpx_client_factory=noted) == "x"
        assert len(made) == 2
        await assert_served(pool, server)
