"""A small MCP server for the demo, as a process of its own.

    demo_server.py TRANSPORT [PORT [SECONDS [old]]]

TRANSPORT is ``streamablehttp`` or ``sse``. Each request waits SECONDS first, as if it came from afar. With
``old`` it knows only revisions of the protocol before 2026-07-28, as most servers do: those have sessions.
When it listens it prints its port on standard output. ``GET /requests`` answers how many requests there were.
It ends when its standard input ends, so it cannot outlive the demo.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from typing import Any

import uvicorn

try:
    from mcp.server.mcpserver import MCPServer
except ModuleNotFoundError:  # the SDK 1.x
    from mcp.server.fastmcp import FastMCP as MCPServer

server = MCPServer("demo server", log_level="CRITICAL")


@server.tool()
async def look_up(word: str) -> str:
    """Answers at once."""
    return f"{word}: {len(word)} letters"


@server.tool()
async def slow(seconds: float) -> str:
    """Answers after a while."""
    await asyncio.sleep(seconds)
    return "done"


class Distance:
    """Counts the requests of an ASGI application, and lets each wait."""

    def __init__(self, app: Any, seconds: float, *, is_old: bool) -> None:
        self._app = app
        self._seconds = seconds
        self._is_old = is_old
        self._count = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == "/requests":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": str(self._count).encode()})
        else:
            self._count += 1
            if self._seconds:
                await asyncio.sleep(self._seconds)
            if self._is_old and (b"mcp-method", b"server/discover") in scope["headers"]:
                await send({"type": "http.response.start", "status": 400, "headers": []})
                await send({"type": "http.response.body", "body": b"Missing session ID"})
                return
            await self._app(scope, receive, send)


class AnnouncingServer(uvicorn.Server):
    """Says when it listens."""

    port = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(self.port, flush=True)


def end_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


def main() -> None:
    transport, port = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    app = server.sse_app() if transport == "sse" else server.streamable_http_app()
    # The protocol is named because asyncio sets TCP_NODELAY only then; without it, answers wait 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    http_server = AnnouncingServer(
        uvicorn.Config(
            Distance(app, seconds, is_old=sys.argv[4:] == ["old"]), log_level="critical", ws="none"
        )
    )
    http_server.port = listener.getsockname()[1]
    threading.Thread(target=end_with_stdin, daemon=True).start()
    asyncio.run(http_server.serve(sockets=[listener]))


if __name__ == "__main__":
    main()
