"""An MCP server over streamable HTTP in the test's own event loop, which answers as the test says."""

from __future__ import annotations

import asyncio
import json
import socket
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

Message = dict[str, Any]
Answer = Callable[[Request, Message], Awaitable[Response | None]]


def result(message: Message, value: Message, headers: dict[str, str] | None = None) -> Response:
    """A JSON-RPC result."""
    return JSONResponse({"jsonrpc": "2.0", "id": message["id"], "result": value}, headers=headers)


def error(code: int, text: str = "no", status: int = 200) -> Answer:
    """Answers with a JSON-RPC error, in a response of that status."""

    async def answer(_request: Request, message: Message) -> Response:
        body = {"jsonrpc": "2.0", "id": message["id"], "error": {"code": code, "message": text}}
        return JSONResponse(body, status_code=status)

    return answer


def status(code: int) -> Answer:
    """Answers with a bare HTTP status."""

    async def answer(_request: Request, _message: Message) -> Response:
        return Response(status_code=code)

    return answer


def text(content: str, media_type: str) -> Answer:
    """Answers with something that is no MCP."""

    async def answer(_request: Request, _message: Message) -> Response:
        return Response(content, media_type=media_type)

    return answer


async def silence(_request: Request, _message: Message) -> Response:
    """Never answers."""
    await asyncio.Event().wait()
    raise AssertionError


class ScriptedServer:
    """An async context manager; entered again after :meth:`stop`, it listens where it did.

    Attributes:
        url: the endpoint.
        answers: by JSON-RPC method or HTTP method; what returns None leaves it to the usual answer.
        seen: how often each JSON-RPC method came, ``GET`` and ``DELETE`` included.
        sessions: the ids of its sessions.
        get: what becomes of a GET: ``"hold"`` the stream, ``"end"`` it at once, or a ``"405"``.
    """

    def __init__(self) -> None:
        self.url = ""
        self.answers: dict[str, Answer] = {}
        self.seen: Counter[str] = Counter()
        self.sessions: set[str] = set()
        self.get = "hold"
        self._port = 0
        self._server: uvicorn.Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", self._port))
        self._port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/mcp"
        app = Starlette(routes=[Route("/mcp", self._endpoint, methods=["GET", "POST", "DELETE"])])
        config = uvicorn.Config(app, log_level="critical", lifespan="off", ws="none", loop="none")
        self._server = uvicorn.Server(config)
        self._server.force_exit = True  # it waits for no stream when it ends
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        self._serving = asyncio.create_task(self._server._serve([listener]))
        while not self._server.started:
            await asyncio.sleep(0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """End, as a server that is killed: connections are refused from now on."""
        if self._server is None or self._serving is None:
            return
        self._server.should_exit = True
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        await self._serving
        self._server = None

    def drop_connection_of(self, request: Request) -> None:
        """Cut the connection on which a request came, without an answer."""
        assert self._server is not None
        for connection in list(self._server.server_state.connections):
            if connection.client == tuple(request.client or ()):
                connection.transport.abort()

    async def _endpoint(self, request: Request) -> Response:
        message: Message = json.loads(await request.body()) if request.method == "POST" else {}
        method = message.get("method", "response") if message else request.method
        self.seen[method] += 1
        answer = self.answers.get(method)
        response = None if answer is None else await answer(request, message)
        return response if response is not None else self._usual(request, message, method)

    def _usual(self, request: Request, message: Message, method: str) -> Response:
        session_id = request.headers.get("mcp-session-id", "")
        if method == "initialize":
            return self._initialize(message)
        if session_id not in self.sessions:
            return Response(status_code=404)
        if method == "GET":
            return self._stream(request)
        if method == "DELETE":
            self.sessions.discard(session_id)
            return Response(status_code=200)
        return Response(status_code=202) if "id" not in message or method == "response" else _answer(message)

    def _initialize(self, message: Message) -> Response:
        session_id = uuid.uuid4().hex
        self.sessions.add(session_id)
        value = {
            "protocolVersion": message["params"]["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "scripted", "version": "1"},
        }
        return result(message, value, {"mcp-session-id": session_id})

    def _stream(self, request: Request) -> Response:
        if self.get == "405":
            return Response(status_code=405)
        if self.get == "end":
            return Response(b"", media_type="text/event-stream")

        async def hold() -> Any:
            yield b": open\n\n"
            while not await request.is_disconnected():
                await asyncio.sleep(0.05)

        return StreamingResponse(hold(), media_type="text/event-stream")


def _answer(message: Message) -> Response:
    values: dict[str, Message] = {
        "ping": {},
        "tools/list": {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]},
        "tools/call": {"content": [{"type": "text", "text": "x"}], "isError": False},
    }
    if message["method"] in values:
        return result(message, values[message["method"]])
    body = {"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "not found"}}
    return JSONResponse(body)
