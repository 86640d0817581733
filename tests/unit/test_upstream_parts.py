"""Bodies as they are read, views of clients, headers: the small parts of a session over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from mcpgateway_pool import MCPSessionPool, SessionCreateError
from mcpgateway_pool.upstream import sdk, watched_body
from mcpgateway_pool.upstream.client_view import check_client, view_of
from mcpgateway_pool.upstream.request_headers import Cleaner, are_unusually_long, upstream_headers
from mcpgateway_pool.upstream.watched_body import Endings, EndpointEvent, EventSeen, watch_body

http = sdk.http_library()
URL = "http://127.0.0.1:9/mcp"


# ---- bodies


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    ("text", "count"),
    [
        (b"data: x\n\n", 1),
        (b": data: x\n\n", 0),
        (b"event: data\n\nid: 1\n\n", 0),
        (b": hi\r\ndata\r\n\r\n", 1),
        (b"id: 1\ndata: 1\n\n: no data\n\ndata: 2\n\n", 2),
    ],
)
def test_an_event_is_told_from_a_comment_however_it_is_cut(text: bytes, count: int, size: int) -> None:
    seen = EventSeen()
    found = [seen.feed(text[i : i + size]) for i in range(0, len(text), size)]
    assert seen.is_seen is (count > 0)
    if size == 1:
        assert sum(found) == count


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize(
    ("data", "is_foreign"),
    [
        (b"/messages?session_id=1", False),
        (b"http://host:1/messages", False),
        (b"http://other:1/messages", True),
        (b"https://host:1/messages", True),
        (b"http://host:2/messages", True),
        (b"//other/messages", True),
        (b"http://[bad", True),
    ],
)
def test_an_endpoint_of_another_origin_is_found_in_any_order_and_cut(
    data: bytes, is_foreign: bool, size: int
) -> None:
    for text in (
        b": hello\n\nevent: endpoint\ndata: " + data + b"\n\n",
        b"event: other\ndata: http://evil/\n\ndata:" + data + b"\r\nevent:endpoint\r\n\r\n",
    ):
        endpoint = EndpointEvent("http://host:1/sse")
        found = [endpoint.feed(text[i : i + size]) for i in range(0, len(text), size)]
        assert any(found) is is_foreign
        assert endpoint.is_seen


def test_an_endpoint_event_without_an_end_is_not_looked_for_without_end() -> None:
    endpoint = EndpointEvent("http://host/sse")
    for _ in range(100):
        assert not endpoint.feed(b"event: endpoint\n" * 1000)
    assert len(endpoint._rest) < 100


class Notes:
    """Notes what a body brought."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.ends: list[Exception | None] = []

    def body_part(self, part: bytes) -> None:
        self.parts.append(part)

    def body_over(self, error: Exception | None) -> None:
        self.ends.append(error)


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
@pytest.mark.parametrize("how", ["aread", "aiter_lines"])
async def test_a_body_is_watched_after_content_decoding(encoding: str, how: str) -> None:
    packed = zlib.compressobj(wbits=31)
    text = b"data: hello\n\n"
    raw = packed.compress(text) + packed.flush() if encoding == "gzip" else text

    async def parts() -> AsyncIterator[bytes]:
        yield raw

    response = http.Response(200, headers={"content-encoding": encoding}, content=parts())
    notes = Notes()
    watch_body(response, notes)
    if how == "aread":
        assert await response.aread() == text
    else:
        lines = [line async for line in response.aiter_lines()]
        assert lines == ["data: hello", ""]
    assert b"".join(notes.parts) == text
    assert notes.ends == [None]


class Stream:
    """A response whose body the test continues, watched like a request's event stream."""

    def __init__(self, *parts: bytes | Exception | asyncio.Event, endings: Endings) -> None:
        self.left = list(parts)
        self.closed = 0
        self.notes = Notes()
        self.response = http.Response(200, content=self._body())
        aclose = self.response.aclose

        async def close() -> None:
            self.closed += 1
            await aclose()

        self.response.aclose = close
        watch_body(self.response, self.notes, endings)

    async def _body(self) -> AsyncIterator[bytes]:
        while self.left:
            part = self.left.pop(0)
            if isinstance(part, Exception):
                raise part
            if isinstance(part, asyncio.Event):
                await part.wait()
            else:
                yield part

    async def read_one(self) -> None:
        """As the SDK, which closes a stream as soon as it has its answer."""
        async for _ in self.response.aiter_bytes():
            break
        await self.response.aclose()


@pytest.mark.parametrize("rest", [(), (b": bye", b""), (http.ReadError("reset"),)], ids=str)
async def test_the_end_of_an_answered_stream_is_read_before_it_is_closed(
    rest: tuple[bytes | Exception, ...],
) -> None:
    endings = Endings()
    stream = Stream(b"answer", *rest, endings=endings)
    await stream.read_one()
    assert stream.left == []
    assert stream.response.is_closed
    assert stream.closed >= 1
    assert (stream.notes.parts, stream.notes.ends) == ([b"answer"], [])  # the reader has got no more
    assert endings.are_prompt


@pytest.mark.parametrize("rest", [asyncio.Event(), b"x" * 70_000], ids=["silent", "long"])
async def test_a_server_that_does_not_end_its_streams_is_waited_for_once(
    rest: bytes | asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched_body, "_END_SECONDS", 0.0 if isinstance(rest, asyncio.Event) else 60.0)
    endings = Endings()
    for number in range(2):
        stream = Stream(b"answer", rest, b"never read", endings=endings)
        await stream.read_one()
        assert stream.left == ([b"never read"], [rest, b"never read"])[number]
        assert stream.response.is_closed
        assert not endings.are_prompt


async def test_a_stream_that_is_read_to_its_end_closes_itself() -> None:
    stream = Stream(b"1", b"2", endings=Endings())
    assert await stream.response.aread() == b"12"
    await stream.response.aclose()
    assert stream.notes.ends == [None]


@pytest.mark.parametrize("has_begun", [True, False])
async def test_who_is_cancelled_while_the_end_is_read_has_closed_the_stream(has_begun: bool) -> None:
    endings = Endings()
    silence = asyncio.Event()
    stream = Stream(*([b"answer"] if has_begun else []), silence, endings=endings)
    task = asyncio.create_task(stream.read_one())
    while stream.left:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await stream.response.aclose()
    assert stream.closed >= 1
    assert endings.are_prompt


# ---- views of clients


async def test_views_of_one_client_have_a_send_of_their_own_and_the_last_one_closes_it() -> None:
    client = http.AsyncClient(transport=http.MockTransport(lambda _: http.Response(200)))
    sent: list[tuple[str, str]] = []

    def sending(name: str) -> Any:
        async def send(request: Any, **options: Any) -> Any:
            sent.append((name, str(request.url)))
            return await client.send(request, **options)

        return send

    one, two = view_of(client, sending("one")), view_of(view_of(client, sending("no")), sending("two"))
    async with one:
        async with two:
            await asyncio.gather(one.get("http://h/1"), two.get("http://h/2"))
        assert not client.is_closed
        await one.get("http://h/3")
    assert client.is_closed
    assert sorted(sent) == [("one", "http://h/1"), ("one", "http://h/3"), ("two", "http://h/2")]
    with pytest.raises(ValueError, match="closed"):
        check_client(client)


async def test_a_client_that_its_owner_has_opened_is_left_open() -> None:
    async with http.AsyncClient(transport=http.MockTransport(lambda _: http.Response(200))) as client:
        async with view_of(client, client.send) as view:
            await view.get("http://h/")
        assert not client.is_closed
        await client.get("http://h/")


@pytest.mark.parametrize("client", [None, object(), "client"])
async def test_what_is_no_client_is_refused_clearly_and_counts_for_no_breaker(client: Any) -> None:
    async with MCPSessionPool(circuit_breaker_threshold=1) as pool:
        for _ in range(2):
            with pytest.raises(SessionCreateError, match=r"must return an httpx2?\.AsyncClient"):
                await pool.acquire(URL, httpx_client_factory=lambda **_: client, user_identity="u")


# ---- headers


# RFC 9110, of the message or of one connection; and what each session has for itself.
FRAMES = """Content-Length Content-Type Content-Encoding Transfer-Encoding Connection Keep-Alive
    Proxy-Connection TE Trailer Upgrade Host Expect"""
OF_THE_SESSION = "X-MCP-Session-Id MCP-Session-Id MCP-Protocol-Version Last-Event-ID"


@pytest.mark.parametrize("change", [str, str.lower, str.upper], ids=["usual", "lower", "upper"])
@pytest.mark.parametrize("name", [*FRAMES.split(), *OF_THE_SESSION.split()])
def test_what_frames_a_message_or_is_of_a_session_is_not_sent(
    name: str, change: Callable[[str], str]
) -> None:
    assert set(upstream_headers({change(name): "5", "X-Own": "1"})) == {"Accept", "X-Own"}


def test_values_that_were_sent_are_taken_out_of_any_text() -> None:
    clean = Cleaner({"Authorization": "Bearer s3cret-t0ken", "X-Short": "a", "Accept": "text/event-stream"})
    text = "no: Bearer s3cret-t0ken, s3cret-t0ken, a, text/event-stream"
    assert clean(text) == "no: …, …, a, text/event-stream"
    assert clean.finds_in(text)
    assert not clean.finds_in(clean(text))


def test_headers_beyond_what_servers_take_are_known() -> None:
    assert are_unusually_long({"Cookie": "x" * 100_000})
    assert not are_unusually_long({"Cookie": "x" * 4000})


# ---- arguments


@pytest.mark.parametrize(
    ("timeout", "error"),
    [("5", TypeError), (True, TypeError), ([], TypeError), (0, ValueError), (-1, ValueError)],
)
async def test_a_bad_timeout_is_refused_at_the_call(timeout: Any, error: type[Exception]) -> None:
    async with MCPSessionPool() as pool:
        with pytest.raises(error, match="timeout must "):
            await pool.acquire(URL, timeout=timeout)
        with pytest.raises(error, match="timeout must "):
            pool.session(URL, timeout=timeout)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("no_proxy", "localhost,[::1]", "NO_PROXY cannot be used"),
        ("http_proxy", "http://u:s3cret@host:bad", "http_proxy names cannot be used"),
    ],
)
async def test_a_bad_proxy_setting_is_called_what_it_is(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    if name == "no_proxy":
        monkeypatch.setenv("NO_PROXY", value)
        with contextlib.suppress(http.InvalidURL):
            http.AsyncClient()
            pytest.skip("this library reads it")
    async with MCPSessionPool(circuit_breaker_threshold=1) as pool:
        for _ in range(2):
            with pytest.raises(SessionCreateError, match=words) as caught:
                await pool.acquire(URL, user_identity="u")
            assert "s3cret" not in str(caught.value)


def test_a_pool_that_is_made_before_its_loop_runs_imports_the_sdk_at_once() -> None:
    sdk._sdk.cache_clear()
    MCPSessionPool()
    assert sdk.is_loaded()


CONNECTS = """
import asyncio, sys
from mcpgateway_pool import MCPSessionPool, TransportType
from mcpgateway_pool.upstream import sdk

async def main():
    async with MCPSessionPool() as pool:
        for transport in TransportType:
            try:
                await pool.acquire("http://127.0.0.1:9/mcp", transport_type=transport, user_identity="u")
            except Exception:
                pass

sdk.load()
before = set(sys.modules)
asyncio.run(main())
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))
"""


@pytest.mark.long("an interpreter of its own imports the SDK")
def test_once_the_sdk_is_loaded_no_connection_imports_anything_more() -> None:
    command = [sys.executable, "-P", "-c", CONNECTS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []


async def test_a_pool_that_is_made_within_its_loop_imports_the_sdk_aside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[bool] = []
    load = sdk.load
    monkeypatch.setattr(
        sdk, "load", lambda: (threads.append(threading.current_thread() is threading.main_thread()), load())
    )
    sdk._sdk.cache_clear()
    pool = MCPSessionPool()
    assert threads == []
    async with pool:
        assert threads == [False]
        assert sdk.is_loaded()


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("s3cret-t0ken\n", "it has a newline (character 13 of 13); remove it"),
        ("s3cret\r\nX-Evil: 1", "it has a newline (character 7 of 17); remove it"),
        ("s3cret\x00", "it has a control character (character 7 of 7); remove it"),
        ("s3crét", "it is not ASCII (character 5 of 6); encode it"),
        ("s3cret ", "it begins or ends with a blank; strip() it"),
        ("\ts3cret", "it begins or ends with a blank; strip() it"),
    ],
)
def test_a_value_that_cannot_be_sent_is_told_why_and_what_to_do(value: str, why: str) -> None:
    with pytest.raises(ValueError, match="cannot be sent") as caught:
        upstream_headers({"X-Token": value})
    assert f"'X-Token' cannot be sent: {why}" in str(caught.value)
    assert "s3c" not in str(caught.value)
