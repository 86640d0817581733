"""Clients that speak HTTP/2, as a factory may make them, on both transports."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypercorn.asyncio import serve
from hypercorn.config import Config

from mcpgateway_pool import MCPSessionPool, NetworkSettings, TransportType
from mcpgateway_pool.upstream import network, sdk
from servers.mcp_server import build_app
from support.fakes import until

http = sdk.http_library()
HTTP2 = {"http1": False, "http2": True}  # without TLS, both ends have to know


class Http2Server:
    """An MCP server in this event loop, and a pool of one session there.

    Attributes:
        responses: of the pool's client, all of them.
    """

    def __init__(self, transport: str) -> None:
        self.responses: list[Any] = []
        self._app, path = build_app(transport, False, False)
        self._transport = TransportType(transport)
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self._origin = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._url = self._origin + path
        self._end = asyncio.Event()
        self.pool = MCPSessionPool()

    async def serve(self) -> None:
        """Until :meth:`end`."""
        config = Config()
        config.bind = [f"fd://{self._listener.detach()}"]
        config.loglevel = "CRITICAL"
        config.graceful_timeout = 0.1
        await serve(self._app, config, shutdown_trigger=self._end.wait)

    def end(self) -> None:
        """Its connections end, too."""
        self._end.set()

    def _client(self, headers: Any = None, timeout: Any = None, auth: Any = None) -> Any:
        async def note(response: Any) -> None:
            self.responses.append(response)

        return http.AsyncClient(
            headers=headers, timeout=timeout, auth=auth, event_hooks={"response": [note]}, **HTTP2
        )

    async def call(self, tool: str, **arguments: object) -> str:
        """The text of a tool's answer. The client is prepared as the gateway's are."""
        factory = network.preparing(self._client, NetworkSettings())
        async with self.pool.session(
            self._url, {}, self._transport, user_identity="ann", httpx_client_factory=factory
        ) as pooled:
            result = await pooled.session.call_tool(tool, arguments)
        return str(result.content[0].text)

    def cut(self) -> None:
        """The pool's connection breaks off."""
        connection = self.responses[0].extensions["network_stream"].get_extra_info("socket")
        with socket.socket(fileno=os.dup(connection.fileno())) as same:
            same.shutdown(socket.SHUT_RDWR)

    async def ask(self, path: str) -> Any:
        """What the layer of faults answers."""
        async with http.AsyncClient(**HTTP2) as client:
            return (await client.get(self._origin + path)).json()


@contextlib.asynccontextmanager
async def serving(transport: str) -> AsyncIterator[Http2Server]:
    server = Http2Server(transport)
    serving = asyncio.create_task(server.serve())
    try:
        yield server
    finally:
        await server.pool.close_all()
        server.end()
        await serving


@pytest.fixture(params=["sse", "streamablehttp"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_calls_go_over_one_connection_that_is_probed(transport: str):
    async with serving(transport) as server:
        assert [await server.call("echo", text=text) for text in "abc"] == ["a", "b", "c"]
        assert {response.http_version for response in server.responses} == {"HTTP/2"}
        sockets = {r.extensions["network_stream"].get_extra_info("socket") for r in server.responses}
        [connection] = sockets
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert (server.pool.stats().creates, server.pool.stats().hits) == (1, 2)


async def test_a_refused_call_fails_at_once_and_the_session_goes_on(transport: str):
    async with serving(transport) as server:
        assert await server.call("echo", text="before") == "before"
        await server.ask("/fault?kind=status&status=503&method=tools/call")
        with pytest.raises(Exception, match="503"):
            await server.call("echo", text="refused")
        assert await server.call("echo", text="after") == "after"
        assert (server.pool.stats().creates, server.pool.stats().active_sessions) == (1, 0)


async def test_a_call_whose_connection_is_lost_fails_at_once_and_so_is_its_session(transport: str):
    async with serving(transport) as server:
        assert await server.call("echo", text="before") == "before"
        await server.ask("/fault?kind=hang&method=tools/call")
        call = asyncio.create_task(server.call("echo", text="never"))
        while not (await server.ask("/stats"))["pending_posts"]:
            await asyncio.sleep(0)
        server.cut()
        async with asyncio.timeout(20):  # the SDK would wait for 300 s
            with pytest.raises(Exception, match=r"(?i)clos|lost|end|terminat|discon|error"):
                await call
        await until(lambda: server.pool.stats().size == 0)
        assert server.pool.stats().evictions["broken"] == 1
