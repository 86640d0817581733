"""An MCP server to try things with, in a process of its own. Its tools are ``echo`` and ``look_up``.

    python -m mcpgateway_pool.cli.demo_server TRANSPORT PORT

TRANSPORT is ``streamablehttp`` (the path is ``/mcp``) or ``sse`` (``/sse``); port 0 is any free one. When it
listens, on 127.0.0.1, it prints its port. It ends at Ctrl-C and, where its standard input is no terminal,
when that ends: so it cannot outlive the program that started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import socket
import sys
import threading
from typing import Any

import uvicorn


async def echo(text: str) -> str:
    """Answers with what it was given."""
    return text


async def look_up(word: str, seconds: float = 0.0) -> str:
    """Answers after a while."""
    await asyncio.sleep(seconds)
    return f"{word}: {len(word)} letters"


class _Server(uvicorn.Server):
    """Says when it listens."""

    port = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        sys.stdout.write(f"{self.port}\n")
        sys.stdout.flush()


def _application(transport: str) -> Any:
    # The same class under two names: which of them exists depends on the generation of the SDK.
    kind: Any
    try:
        kind = importlib.import_module("mcp.server.fastmcp").FastMCP
    except ImportError:
        kind = importlib.import_module("mcp.server.mcpserver").MCPServer
    server = kind("demo server", log_level="CRITICAL")
    server.add_tool(echo)
    server.add_tool(look_up)
    return server.sse_app() if transport == "sse" else server.streamable_http_app()


def _end_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


def main() -> None:
    """Serve until ended."""
    transport, port = sys.argv[1], int(sys.argv[2])
    # The protocol is named because asyncio sets TCP_NODELAY only then; without it, answers wait 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    server = _Server(uvicorn.Config(_application(transport), log_level="critical", ws="none"))
    server.port = listener.getsockname()[1]
    if not os.isatty(0):
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(server.serve(sockets=[listener]))


if __name__ == "__main__":
    main()
