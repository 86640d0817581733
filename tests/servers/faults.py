"""Fault injection and counting, as an ASGI layer around any MCP server of the tests.

``GET /stats`` answers a JSON object of counters. ``GET /fault?…`` plans a fault; ``GET /fault?kind=clear``
forgets all that are planned. A planned fault takes the next ``count`` matching requests (or events) and is
then gone. One with ``every=N`` and ``first=M`` takes those requests of its ``method`` whose number leaves the
rest M by N, for ever.

``kind`` is one of:

- ``status``: answer a POST with ``status`` (and ``body``), without asking the MCP server;
- ``error``: answer a POST with a JSON-RPC error of ``code``, in a 200;
- ``stalled``: answer a POST with ``status`` and the beginning of a JSON body, no more; ``trickling``: with a
  JSON body that goes on for ever, byte by byte;
- ``garbage``: answer a POST with ``200 application/json`` that is no JSON; ``garbage-sse``: with an event
  that is none; ``garbage-open``: the same, but the stream stays open;
- ``cut``: answer a POST with half an event, then drop the connection; ``end``: end the stream cleanly without
  an answer;
- ``resumable``: as ``end``, but after an event that carries an id, so that the client reconnects with
  Last-Event-ID; what the reconnection gets is ``resume``: ``answer``, ``end`` (ends again at once, each
  time), ``poll`` (ends again after an event without content, 15 times, then answers) or a status such as
  ``500``;
- ``hang``: take the POST and never answer;
- ``stream-garbage``, ``stream-cut``: spoil or cut the next event on a GET stream (over SSE all answers come
  there).

``method`` limits a fault to one JSON-RPC method (``tools/call``), ``http`` to one HTTP method (default
``POST``), ``authorization`` to POSTs with that header, ``again`` to sessions that have called a tool before.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

RESUME_ID = b"resume-1"
PRIMING = b"id: " + RESUME_ID + b"\nretry: 50\ndata: \n\n"
POLLS = 15


class CutConnection(Exception):
    """Raised into the HTTP server after a part of a response: it then drops the connection."""


class FaultLayer:
    """Counts what passes, and spoils what was asked to be spoilt.

    Args:
        app: the MCP server's ASGI application.
        info: constant facts to show in ``/stats``.
    """

    def __init__(self, app: App, info: dict[str, Any]) -> None:
        self._app = app
        self._info = info
        self._faults: list[dict[str, str]] = []
        self._posts: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._open_streams = 0
        self._pending_posts = 0
        self._resumed: dict[bytes, Any] = {}
        self._polls = 0
        self._initialize_headers: list[list[str]] = []
        self._used_sessions: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        if scope["path"] == "/stats":
            await _respond(send, 200, json.dumps(self._stats()).encode())
        elif scope["path"] == "/fault":
            self._plan(query)
            await _respond(send, 200, json.dumps({"planned": len(self._faults)}).encode())
        elif scope["method"] == "POST":
            await self._post(scope, receive, send)
        elif scope["method"] == "GET":
            await self._get(scope, receive, send)
        else:
            self._counts[scope["method"].lower()] += 1
            fault = self._take(scope["method"], "")
            if fault is not None:
                await self._spoil(fault, None, receive, send)
                return
            await self._app(scope, receive, send)

    def _stats(self) -> dict[str, Any]:
        return {
            **self._info,
            "pid": os.getpid(),
            "initialize": self._posts["initialize"],
            "posts": dict(self._posts),
            "sessions_opened": self._counts["opened"],
            "sessions_deleted": self._counts["delete"],
            "get_streams": self._counts["get"],
            "open_streams": self._open_streams,
            "pending_posts": self._pending_posts,
            "faults_planned": len(self._faults),
            "faults_done": self._counts["fault"],
            "resumptions": self._counts["resume"],
            "initialize_headers": self._initialize_headers[-1] if self._initialize_headers else [],
        }

    def _plan(self, query: dict[str, str]) -> None:
        if query.get("kind") == "clear":
            self._faults.clear()
            return
        fault = {"kind": "status", "count": "1", "http": "POST", **query}
        if fault["kind"].startswith("stream-"):
            fault["http"] = "EVENT"
        self._faults.append(fault)

    def _take(
        self, http: str, method: str, authorization: str = "", session: str = ""
    ) -> dict[str, str] | None:
        for fault in self._faults:
            if (
                fault["http"] == http
                and fault.get("method", method) == method
                and fault.get("authorization", authorization) == authorization
                and ("again" not in fault or session in self._used_sessions)
                and self._posts[method] % int(fault.get("every", 1)) == int(fault.get("first", 0))
            ):
                left = int(fault["count"]) - 1
                fault["count"] = str(left)
                if left <= 0 and "every" not in fault:
                    self._faults.remove(fault)
                self._counts["fault"] += 1
                return fault
        return None

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, replay = await _read_body(receive)
        method, request_id = _describe(body)
        self._posts[method or "response"] += 1
        if method == "initialize":
            self._initialize_headers.append(
                [f"{k.decode('latin-1')}: {v.decode('latin-1')}" for k, v in scope["headers"]]
            )
        authorization = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        session = _session_of(scope)
        fault = self._take("POST", method, authorization, session)
        if method == "tools/call":
            self._used_sessions.add(session)
        self._pending_posts += 1
        try:
            if fault is not None:
                await self._spoil(fault, request_id, replay, send)
            else:
                await self._app(scope, replay, self._counting(send, method))
        finally:
            self._pending_posts -= 1

    def _counting(self, send: Send, method: str) -> Send:
        async def counting(message: Message) -> None:
            if (
                message["type"] == "http.response.start"
                and method == "initialize"
                and message["status"] == 200
            ):
                self._counts["opened"] += 1
            await send(message)

        return counting

    async def _get(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        if headers.get(b"last-event-id") == RESUME_ID:
            self._counts["resume"] += 1
            await self._resume(send)
            return
        self._counts["get"] += 1
        if scope["path"].endswith("/sse"):
            self._counts["opened"] += 1
        fault = self._take("GET", "")
        if fault is not None:
            await self._spoil(fault, None, receive, send)
            return
        self._open_streams += 1
        try:
            await self._app(scope, receive, self._spoiling(send))
        finally:
            self._open_streams -= 1

    def _spoiling(self, send: Send) -> Send:
        async def spoiling(message: Message) -> None:
            body = message.get("body", b"")
            if message["type"] == "http.response.body" and b"event: message" in body:
                fault = self._take("EVENT", "")
                if fault is not None and fault["kind"] == "stream-cut":
                    await send(
                        {"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True}
                    )
                    raise CutConnection
                if fault is not None:
                    message = {**message, "body": b"event: message\r\ndata: {this is no JSON\r\n\r\n"}
            await send(message)

        return spoiling

    async def _resume(self, send: Send) -> None:
        request_id, resume = self._resumed.get(RESUME_ID, (None, "500"))
        if resume not in ("answer", "end", "poll"):
            await _respond(send, int(resume), b"no resumption")
            return
        await _start_events(send)
        if resume == "poll" and self._polls < POLLS:
            self._polls += 1
            await _events(send, PRIMING, more=False)
        elif resume in ("answer", "poll"):
            content = [{"type": "text", "text": "resumed"}]
            result = {"content": content, "structuredContent": {"result": "resumed"}, "isError": False}
            answer = json.dumps({"jsonrpc": "2.0", "id": request_id, "result": result}).encode()
            await _events(send, b"event: message\ndata: " + answer + b"\n\n", more=False)
        else:
            # Without a new id the SDK repeats the old one.
            await _events(send, b": nothing\n\n", more=False)

    async def _spoil(self, fault: dict[str, str], request_id: Any, receive: Receive, send: Send) -> None:
        kind = fault["kind"]
        if kind in ("status", "garbage", "error"):
            await _answer(fault, request_id, send)
        elif kind in ("stalled", "trickling"):
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": int(fault["status"]), "headers": headers})
            await _events(send, b"{", more=True)
            await (_wait_for_end(receive) if kind == "stalled" else _trickle(send))
        elif kind == "hang":
            await _wait_for_end(receive)
        else:
            await _start_events(send)
            if kind == "garbage-sse":
                await _events(send, b"event: message\ndata: {this is no JSON\n\n", more=False)
            elif kind == "garbage-open":
                await _events(send, b"event: message\ndata: {this is no JSON\n\n", more=True)
                await _wait_for_end(receive)
            elif kind == "end":
                await _events(send, b": nothing\n\n", more=False)
            elif kind == "resumable":
                self._resumed[RESUME_ID] = (request_id, fault.get("resume", "answer"))
                self._polls = 0
                await _events(send, PRIMING, more=False)
            elif kind == "cut":
                await _events(send, b'event: message\ndata: {"jsonrpc": "2.', more=True)
                raise CutConnection
            else:
                raise ValueError(f"unknown fault {kind!r}")


async def _answer(fault: dict[str, str], request_id: Any, send: Send) -> None:
    if fault["kind"] == "status":
        content_type = fault.get("type", "text/plain")
        await _respond(send, int(fault["status"]), fault.get("body", "").encode(), content_type)
    elif fault["kind"] == "garbage":
        await _respond(send, 200, b"{this is no JSON", "application/json")
    else:
        error = {"code": int(fault["code"]), "message": fault.get("body", "no")}
        await _respond(send, 200, json.dumps({"jsonrpc": "2.0", "id": request_id, "error": error}).encode())


async def _wait_for_end(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _trickle(send: Send) -> None:
    """Until the client goes away."""
    while True:
        await _events(send, b" ", more=True)
        await asyncio.sleep(0.02)


async def _read_body(receive: Receive) -> tuple[bytes, Receive]:
    """The whole body of a request, and a ``receive`` that gives it again."""
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    body = b"".join(parts)
    given = False

    async def replay() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return body, replay


def _session_of(scope: Scope) -> str:
    """The id of a request's session: a header, or over SSE a part of the URL; empty without one."""
    header = dict(scope["headers"]).get(b"mcp-session-id", b"").decode("latin-1")
    return header or dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("session_id", "")


def _describe(body: bytes) -> tuple[str, Any]:
    """Method and id of a JSON-RPC body; ``("", None)`` for anything else."""
    try:
        message = json.loads(body)
    except ValueError:
        return "", None
    if not isinstance(message, dict):
        return "", None
    return str(message.get("method", "")), message.get("id")


async def _respond(send: Send, status: int, body: bytes, content_type: str = "application/json") -> None:
    headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _start_events(send: Send) -> None:
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _events(send: Send, body: bytes, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})
    await asyncio.sleep(0)
