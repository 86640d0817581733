"""What is certain about the fate of a request: a raw server that ends connections at one point or another."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from mcpgateway_pool import NetworkSettings
from mcpgateway_pool.gateway.registry.calls.call_watch import CallRequests, CallWatch
from mcpgateway_pool.upstream import http_client, sdk

Served = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
SESSION = {"mcp-session-id": "s1"}
CALL = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {}}
ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
UNKNOWN = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


@contextlib.asynccontextmanager
async def serving(serve: Served) -> AsyncIterator[str]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    finally:
        server.close()


class Client:
    """A watched client, with a call that has the session."""

    def __init__(self, headers: dict[str, str] | None = None, transport: Any = "streamablehttp") -> None:
        self.watch = CallWatch(transport, {})
        self.call = CallRequests(headers or {})
        self.watch.requests = self.call
        self.http = self.watch.watched(http_client.default_client_factory())()

    async def post(self, url: str, message: object = CALL, headers: dict[str, str] = SESSION) -> Any:
        return await self.http.post(url, content=json.dumps(message), headers=headers)


def answering(answer: bytes, heads: list[str]) -> Served:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(line for line in head.lower().splitlines() if line.startswith("content-length"))
                await reader.readexactly(int(length.partition(":")[2]))
                heads.append(head)
                writer.write(answer)

    return serve


def test_session_that_is_unknown_is_certain() -> None:
    async def run() -> CallRequests:
        client = Client()
        async with serving(answering(UNKNOWN, [])) as url:
            await client.post(url)
        await client.http.aclose()
        return client.call

    call = asyncio.run(run())
    assert call.was_unknown
    assert not call.may_be_executed


def test_404_without_a_session_is_an_answer_like_any_other() -> None:
    async def run() -> CallRequests:
        client = Client()
        async with serving(answering(UNKNOWN, [])) as url:
            await client.post(url, headers={})
        await client.http.aclose()
        return client.call

    call = asyncio.run(run())
    assert call.may_be_executed
    assert not call.was_unknown


def test_answer_leaves_it_open() -> None:
    async def run() -> CallRequests:
        client = Client()
        async with serving(answering(ACCEPTED, [])) as url:
            await client.post(url)
        await client.http.aclose()
        return client.call

    assert asyncio.run(run()).may_be_executed


def test_connection_that_is_refused_is_certain() -> None:
    async def run() -> CallRequests:
        client = Client()
        async with serving(answering(ACCEPTED, [])) as url:
            pass
        with pytest.raises(sdk.http_library().ConnectError):
            await client.post(url)
        await client.http.aclose()
        return client.call

    call = asyncio.run(run())
    assert call.count == 1
    assert not call.may_be_executed


def test_connection_that_breaks_after_the_request_was_sent_leaves_it_open() -> None:
    async def end(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async def run() -> CallRequests:
        client = Client()
        async with serving(end) as url:
            with pytest.raises(sdk.http_library().TransportError):
                await client.post(url)
        await client.http.aclose()
        return client.call

    assert asyncio.run(run()).may_be_executed


def test_error_of_a_transport_that_tells_nothing_leaves_it_open() -> None:
    async def run() -> CallRequests:
        client = Client()

        async def send(_request: Any, **_options: Any) -> Any:
            raise sdk.http_library().WriteError("broken")

        client.http._transport.handle_async_request = send
        with pytest.raises(sdk.http_library().WriteError):
            await client.post("http://127.0.0.1:1/mcp")
        await client.http.aclose()
        return client.call

    assert asyncio.run(run()).may_be_executed


def test_cancelled_request_is_open() -> None:
    async def run() -> CallRequests:
        client = Client()
        has_come = asyncio.Event()

        async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            has_come.set()
            await reader.read()

        async with serving(hang) as url:
            task = asyncio.create_task(client.post(url))
            await has_come.wait()
            task.cancel()
            await asyncio.wait({task})
            await client.http.aclose()
        return client.call

    assert asyncio.run(run()).may_be_executed


def test_headers_of_a_call_are_on_its_requests_and_on_no_later_one() -> None:
    heads: list[str] = []

    async def run() -> None:
        client = Client({"X-Request-ID": "one"})
        async with serving(answering(ACCEPTED, heads)) as url:
            await client.post(url, headers={**SESSION, "x-request-id": "pinned"})
            client.watch.requests = None
            await client.post(url, {"jsonrpc": "2.0", "id": 8, "method": "ping"})
            client.watch.requests = CallRequests({"traceparent": "two"})
            await client.post(url, {"jsonrpc": "2.0", "method": "notifications/cancelled"})
            await client.http.aclose()

    asyncio.run(run())
    first, second, third = (head.lower() for head in heads)
    assert "x-request-id: one" in first
    assert "pinned" not in first
    assert "x-request-id" not in second
    assert "traceparent" not in second
    assert "traceparent: two" in third
    assert "x-request-id" not in third


def test_caller_who_may_wait_longer_than_the_client_does() -> None:
    seen: list[Any] = []

    async def run() -> None:
        client = Client()

        async def send(request: Any, **_options: Any) -> Any:
            seen.append(request.extensions["timeout"]["read"])
            return sdk.http_library().Response(202, request=request)

        client.http._transport.handle_async_request = send
        for seconds in (None, 7.0, 900.0):
            client.call.begin(seconds)
            await client.post("http://127.0.0.1:1/mcp")
        await client.http.aclose()

    asyncio.run(run())
    default, shorter, longer = seen
    assert default == shorter == 300.0
    assert longer == 900.0


def test_connections_notice_a_silent_network_also_on_a_transport_that_the_release_puts_in_place() -> None:
    """Which pins the addresses that it has checked, on clients that its services have made."""
    http = sdk.http_library()

    async def probed_after(network: NetworkSettings) -> int:
        watch = CallWatch("streamablehttp", {}, network)
        client = watch.watched(http_client.default_client_factory())()
        client._transport = http.AsyncHTTPTransport()
        async with serving(answering(ACCEPTED, [])) as url:
            response = await client.post(url, content=json.dumps(CALL), headers=SESSION)
            connection = response.extensions["network_stream"].get_extra_info("socket")
            seconds: int = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        await client.aclose()
        return seconds

    assert asyncio.run(probed_after(NetworkSettings())) == 15
    assert asyncio.run(probed_after(NetworkSettings(tcp_keepalive_idle_seconds=7))) == 7


async def test_refusal_is_told_in_the_releases_words_and_counts_for_its_request_alone() -> None:
    if sdk.generation() == 1:
        pytest.skip("releases on the SDK 1.x have no words of their own")
    from mcp import MCPError

    made_up = MCPError(-32000, "Server returned an error response")
    refused = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n"
    client = Client()
    async with serving(answering(refused, [])) as url:
        await client.post(url)
    shown = client.watch.release_error(made_up)
    assert isinstance(shown, sdk.http_library().HTTPStatusError)
    assert "429" in str(shown)
    assert client.watch.release_error(ValueError()) is None
    with pytest.raises(sdk.http_library().ConnectError):
        await client.post("http://127.0.0.1:1/mcp")
    failure = client.watch.release_error(made_up)
    assert isinstance(failure, ExceptionGroup)
    assert isinstance(failure.exceptions[0], sdk.http_library().ConnectError)
    await client.http.aclose()
