"""A look at the body of an HTTP response while the SDK reads it, after content decoding."""

from __future__ import annotations

import asyncio
import functools
import re
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

_DATA_LINE = re.compile(rb"[\r\n]data(?=[:\r\n])")
_IN_EVERY_MESSAGE = b'"jsonrpc"'
_LINE_END = re.compile(rb"\r\n|\r|\n")
# As long as a match, so that none is missed between two parts, and none is found twice.
_TAIL_BYTES = len(b"\ndata")
# How far the first event of an SSE server is looked for.
_MAX_ENDPOINT_BYTES = 1 << 16
# How long, and how far, the end of an answered request's event stream is waited for.
_END_SECONDS = 0.5
_MAX_END_BYTES = 1 << 16


class BodyWatcher(Protocol):
    """Who wants to know what becomes of a body."""

    def body_part(self, part: bytes) -> None:
        """A part of it came."""

    def body_over(self, error: Exception | None) -> None:
        """The server has ended it, or it broke off. Not when the client stops reading."""


class Endings:
    """How a server ends the event streams of requests that it has answered.

    The SDK reads such a stream as far as the answer and closes the response. The end is not read then, so the
    HTTP library can only close the connection, and each request opens another: round trips, and a TLS
    handshake. Most servers end the stream at once: the end is read first.

    Attributes:
        are_prompt: whether they do; once one did not, no other is waited for.
    """

    __slots__ = ("are_prompt",)

    def __init__(self) -> None:
        self.are_prompt = True


def watch_body(response: Any, watcher: BodyWatcher, endings: Endings | None = None) -> None:
    """Have a watcher told what becomes of a response's body, however it is read.

    Args:
        response: of the HTTP library, its body not yet read.
        watcher: who is told.
        endings: of the server; the end of the body is read when the response is closed. None: it is not.
    """
    body = _WatchedBody(response, watcher)
    # All other ways of reading come by here; and below it, bodies are still compressed.
    response.aiter_bytes = body.begin
    if endings is not None:
        response.aclose = functools.partial(_close_at_end, response.aclose, body, endings)


async def _close_at_end(aclose: Callable[[], Awaitable[None]], body: _WatchedBody, endings: Endings) -> None:
    try:
        if endings.are_prompt:
            endings.are_prompt = await body.read_to_end()
    finally:
        await aclose()


class _WatchedBody:
    # Not an async generator: one that is left half-way is finalized by a task of its own, later.
    __slots__ = ("_aiter_bytes", "_is_left_half_way", "_parts", "_watcher")

    def __init__(self, response: Any, watcher: BodyWatcher) -> None:
        self._aiter_bytes = response.aiter_bytes
        self._watcher = watcher
        self._parts: Any = None
        self._is_left_half_way = False

    def begin(self, *arguments: Any) -> AsyncIterator[bytes]:
        """In place of the response's own."""
        self._parts = self._aiter_bytes(*arguments)
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        # The HTTP library closes the response from within, at its end.
        self._is_left_half_way = False
        try:
            part: bytes = await anext(self._parts)
        except StopAsyncIteration:
            self._watcher.body_over(None)
            raise
        except Exception as error:
            self._watcher.body_over(error)
            raise
        self._is_left_half_way = True
        self._watcher.body_part(part)
        return part

    async def aclose(self) -> None:
        self._is_left_half_way = False
        await self._parts.aclose()

    async def read_to_end(self) -> bool:
        """Read on where the reader has left off, whom nothing is told of it; False where the end does not
        come soon.
        """
        if not self._is_left_half_way:
            return True
        self._is_left_half_way = False
        left = _MAX_END_BYTES
        try:
            async with asyncio.timeout(_END_SECONDS):
                async for part in self._parts:
                    left -= len(part)
                    if left < 0:
                        return False
        except TimeoutError:
            return False
        except Exception:  # it broke off: the answer was there before
            return True
        return True


class MessageSeen:
    """Whether a body has what every JSON-RPC message has."""

    __slots__ = ("_tail", "is_seen")

    def __init__(self) -> None:
        self.is_seen = False
        self._tail = b""

    def feed(self, part: bytes) -> None:
        """Look at a part."""
        text = self._tail + part
        self._tail = text[-len(_IN_EVERY_MESSAGE) :]
        self.is_seen = self.is_seen or _IN_EVERY_MESSAGE in text


class EventSeen:
    """Whether an event stream has delivered an event; what servers send to keep it open are comments."""

    __slots__ = ("_tail", "is_seen")

    def __init__(self) -> None:
        self.is_seen = False
        self._tail = b"\n"  # the stream begins a line

    def feed(self, part: bytes) -> bool:
        """Look at a part; whether it brought the beginning of some data."""
        text = self._tail + part
        self._tail = text[-_TAIL_BYTES:]
        found = _DATA_LINE.search(text) is not None
        self.is_seen = self.is_seen or found
        return found


class EndpointEvent:
    """Finds the event of an SSE server which says where messages go.

    Args:
        url: of the event stream.
    """

    __slots__ = ("_data", "_is_endpoint", "_left", "_origin", "_rest", "_url", "is_seen")

    def __init__(self, url: str) -> None:
        self._url = url
        self._origin = urllib.parse.urlsplit(url)[:2]
        self._left = _MAX_ENDPOINT_BYTES
        self._rest = b""
        self._data: list[bytes] = []
        self._is_endpoint = False
        self.is_seen = False

    def feed(self, part: bytes) -> bool:
        """Look at a part; True when the event is complete and names a place of another origin."""
        if self.is_seen or self._left <= 0:
            return False
        text = self._rest + part[: self._left]
        self._left -= len(part)
        # The other half of a line end may be in the next part.
        held = b"\r" if text.endswith(b"\r") else b""
        *lines, rest = _LINE_END.split(text.removesuffix(held))
        self._rest = rest + held
        return any(self._line(line) for line in lines)

    def _line(self, line: bytes) -> bool:
        if line:
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"event":
                self._is_endpoint = value == b"endpoint"
            elif name == b"data":
                self._data.append(value)
            return False
        is_endpoint, data = self._is_endpoint, b"\n".join(self._data)
        self._is_endpoint, self._data = False, []
        if not is_endpoint or self.is_seen:
            return False
        self.is_seen = True
        try:
            target = urllib.parse.urljoin(self._url, data.decode("utf-8", "replace"))
            return urllib.parse.urlsplit(target)[:2] != self._origin
        except ValueError:
            return True
