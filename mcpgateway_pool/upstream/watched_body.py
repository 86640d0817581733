"""A look at the body of an HTTP response while the SDK reads it, after content decoding."""

from __future__ import annotations

import functools
import re
import urllib.parse
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

_DATA_LINE = re.compile(rb"[\r\n]data(?=[:\r\n])")
_IN_EVERY_MESSAGE = b'"jsonrpc"'
_LINE_END = re.compile(rb"\r\n|\r|\n")
# As long as a match, so that none is missed between two parts, and none is found twice.
_TAIL_BYTES = len(b"\ndata")
# How far the first event of an SSE server is looked for.
_MAX_ENDPOINT_BYTES = 1 << 16


class BodyWatcher(Protocol):
    """Who wants to know what becomes of a body."""

    def body_part(self, part: bytes) -> None:
        """A part of it came."""

    def body_over(self, error: Exception | None) -> None:
        """The server has ended it, or it broke off. Not when the client stops reading."""


def watch_body(response: Any, watcher: BodyWatcher) -> None:
    """Have a watcher told what becomes of a response's body, however it is read."""
    # All other ways of reading come by here; and below it, bodies are still compressed.
    response.aiter_bytes = functools.partial(_watched, response.aiter_bytes, watcher)


def _watched(aiter_bytes: Callable[..., Any], watcher: BodyWatcher, *arguments: Any) -> AsyncIterator[bytes]:
    return _WatchedBody(aiter_bytes(*arguments), watcher)


class _WatchedBody:
    # Not an async generator: one that is left half-way is finalized by a task of its own, later.
    __slots__ = ("_parts", "_watcher")

    def __init__(self, parts: Any, watcher: BodyWatcher) -> None:
        self._parts = parts
        self._watcher = watcher

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            part: bytes = await anext(self._parts)
        except StopAsyncIteration:
            self._watcher.body_over(None)
            raise
        except Exception as error:
            self._watcher.body_over(error)
            raise
        self._watcher.body_part(part)
        return part

    async def aclose(self) -> None:
        await self._parts.aclose()


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
