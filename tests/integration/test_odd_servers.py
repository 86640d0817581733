"""Servers, clients and streams as odd as those that users report: what becomes of sessions then."""

from __future__ import annotations

import asyncio
import contextlib
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from mcpgateway_pool import MCPSessionPool, SessionCreateError, TransportType
from mcpgateway_pool.upstream import sdk
from servers.application import serving_application

Answer = Callable[[Request, dict[str, Any]], Awaitable[Response]]
TOKEN = "Bearer s3cret-t0ken"


@contextlib.asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[str]:
    """A server of one route, which answers by a function of the request and its message (``{}`` for none)."""

    async def endpoint(request: Request) -> Response:
        return await answer(request, json.loads(await request.body() or b"{}"))

    app = Starlette(routes=[Route("/mcp", endpoint, methods=["GET", "POST", "DELETE"])])
    async with serving_application(app, lifespan="off") as origin:
        yield f"{origin}/mcp"


class Server:
    """Streamable HTTP with sessions; what is odd is in ``call``."""

    def __init__(self) -> None:
        self.sessions: set[str] = set()
        self.opened = 0

    async def __call__(self, request: Request, message: dict[str, Any]) -> Response:
        method, session = message.get("method"), request.headers.get("mcp-session-id")
        if request.method != "POST":
            return await self.other(request)
        if method == "initialize":
            self.opened += 1
            self.sessions.add(f"s{self.opened}")
            result = {
                "protocolVersion": message["params"]["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "odd", "version": "1"},
            }
            return self.result(message, result, {"mcp-session-id": f"s{self.opened}"})
        if session not in self.sessions:
            return self.unknown()
        if "id" not in message:
            return Response(status_code=202)
        if method == "tools/call":
            return await self.call(message, message["params"]["arguments"])
        return self.result(message, {"tools": []} if method == "tools/list" else {})

    def result(self, message: dict[str, Any], result: Any, headers: dict[str, str] | None = None) -> Response:
        return JSONResponse({"jsonrpc": "2.0", "id": message["id"], "result": result}, headers=headers)

    def text(self, message: dict[str, Any], text: str) -> dict[str, Any]:
        result = {"content": [{"type": "text", "text": text}], "isError": False}
        return {"jsonrpc": "2.0", "id": message["id"], "result": result}

    def unknown(self) -> Response:
        # As the TypeScript SDK words it.
        error = {"code": -32001, "message": "Session not found"}
        return JSONResponse({"jsonrpc": "2.0", "id": None, "error": error}, status_code=404)

    async def other(self, _request: Request) -> Response:
        return Response(status_code=405)

    async def call(self, message: dict[str, Any], arguments: dict[str, Any]) -> Response:
        return JSONResponse(self.text(message, arguments["text"]))


async def call(pool: MCPSessionPool, url: str, text: str = "x", **options: Any) -> str:
    async with pool.session(url, **options) as pooled:
        result = await pooled.session.call_tool("echo", {"text": text})
        return str(result.content[0].text)


async def test_server_that_forgot_its_sessions_costs_one_call_whatever_code_it_names() -> None:
    server = Server()
    async with serving(server) as url, MCPSessionPool(max_sessions_per_key=5) as pool:
        held = [await pool.acquire(url) for _ in range(5)]
        for pooled in held:
            await pool.release(pooled)
        server.sessions.clear()
        outcomes = await asyncio.gather(call(pool, url), return_exceptions=True)
        outcomes += [await call(pool, url) for _ in range(11)]
        assert sum(isinstance(outcome, Exception) for outcome in outcomes) == 1


async def test_sessions_that_share_one_client_get_each_their_own_answers() -> None:
    class Slow(Server):
        async def call(self, message: dict[str, Any], arguments: dict[str, Any]) -> Response:
            if arguments["text"] == "slow":
                await release.wait()
            return await super().call(message, arguments)

    release = asyncio.Event()
    http = sdk.http_library()
    async with serving(Slow()) as url, http.AsyncClient(timeout=30) as client, MCPSessionPool() as pool:
        options = {"httpx_client_factory": lambda **_: client, "headers": {"Accept": "text/event-stream"}}
        await asyncio.gather(*(call(pool, url, user_identity=user, **options) for user in "ab"))
        slow = asyncio.create_task(call(pool, url, "slow", user_identity="a", **options))
        assert await call(pool, url, "fast", user_identity="b", **options) == "fast"
        release.set()
        assert await slow == "slow"
        await pool.close_all()
        assert not client.is_closed


async def test_calls_that_are_answered_by_an_event_stream_share_a_connection() -> None:
    class Streaming(Server):
        def __init__(self) -> None:
            super().__init__()
            self.connections: list[int] = []

        async def __call__(self, request: Request, message: dict[str, Any]) -> Response:
            if message.get("method") == "tools/call":
                assert request.client is not None
                self.connections.append(request.client.port)
            return await super().__call__(request, message)

        async def call(self, message: dict[str, Any], arguments: dict[str, Any]) -> Response:
            async def events() -> AsyncIterator[str]:
                yield f"data: {json.dumps(self.text(message, arguments['text']))}\n\n"
                await asyncio.sleep(0)  # the end of the stream comes later

            return StreamingResponse(events(), media_type="text/event-stream")

    server = Streaming()
    async with serving(server) as url, MCPSessionPool() as pool:
        for number in range(12):
            assert await call(pool, url, str(number)) == str(number)
    # A call may be ahead of the end of the one before.
    assert len(set(server.connections)) <= 4


@pytest.mark.parametrize("is_packed", [False, True])
async def test_a_compressed_stream_that_is_resumed_with_events_is_followed(is_packed: bool) -> None:
    class Polled(Server):
        resumed = 0

        def stream(self, text: str) -> Response:
            packer = zlib.compressobj(wbits=31)
            body = text.encode()
            if not is_packed:
                return StreamingResponse(iter([body]), media_type="text/event-stream")
            packed = packer.compress(body) + packer.flush()
            headers = {"content-encoding": "gzip"}
            return StreamingResponse(iter([packed]), media_type="text/event-stream", headers=headers)

        async def call(self, message: dict[str, Any], arguments: dict[str, Any]) -> Response:
            self.answer = json.dumps(self.text(message, arguments["text"]))
            return self.stream("id: 0\nretry: 1\ndata:\n\n")

        async def other(self, request: Request) -> Response:
            if request.headers.get("last-event-id") is None:
                return Response(status_code=405)
            self.resumed += 1
            data = self.answer if self.resumed > 12 else ""
            return self.stream(f"id: {self.resumed}\nretry: 1\ndata: {data}\n\n")

    server = Polled()
    async with serving(server) as url, MCPSessionPool() as pool:
        assert await call(pool, url, "done") == "done"
        assert server.resumed == 13


async def test_an_sse_server_that_names_another_origin_fails_at_once() -> None:
    async def answer(_request: Request, _message: dict[str, Any]) -> Response:
        async def events() -> AsyncIterator[bytes]:
            yield b"event: endpoint\ndata: http://127.0.0.1:1/messages\n\n"
            await asyncio.Event().wait()

        return StreamingResponse(events(), media_type="text/event-stream")

    async with serving(answer) as url, MCPSessionPool(session_create_timeout_seconds=50) as pool:
        with pytest.raises(SessionCreateError, match="another origin"):
            await asyncio.wait_for(pool.acquire(url, transport_type=TransportType.SSE), 20)


@pytest.mark.parametrize("status", [200, 401])
async def test_an_echoed_token_is_in_no_error_and_opens_no_breaker(status: int) -> None:
    async def answer(request: Request, message: dict[str, Any]) -> Response:
        error = {"code": -32000, "message": f"no access with {request.headers['authorization']}"}
        return JSONResponse({"jsonrpc": "2.0", "id": message.get("id"), "error": error}, status_code=status)

    async with serving(answer) as url, MCPSessionPool(circuit_breaker_threshold=1) as pool:
        for _ in range(2):
            with pytest.raises(SessionCreateError) as caught:
                await pool.acquire(url, {"Authorization": TOKEN})
            error: BaseException | None = caught.value
            while error is not None:
                assert "s3cret" not in str(error)
                error = error.__cause__ or error.__context__
