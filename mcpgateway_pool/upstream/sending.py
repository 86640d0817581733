"""Sending the HTTP requests of one session, on connections that may have died unnoticed.

- A connection that was kept open may be closed by the server, or forgotten by the network, at the moment in
  which it is used again. A request that changes nothing at the server is then sent once more, on a fresh one.
- Where the connection to the server failed last, or nobody answers, no goodbye is sent.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from . import sdk

# What health checks ask. They change nothing at the server, so that asking twice is harmless.
_HARMLESS_METHODS = frozenset({"ping", "tools/list", "prompts/list", "resources/list"})


class Sender:
    """Sends the requests of one session; whoever watches them calls it in place of the client's own."""

    def __init__(self) -> None:
        self._is_reachable = True
        self._is_forsaken = False

    def forsake(self) -> None:
        """Say no goodbye to the server: it does not answer."""
        self._is_forsaken = True

    async def send(
        self, inner: Callable[..., Any], request: Any, options: dict[str, Any], method: str | None = None
    ) -> Any:
        """The response to a request.

        Args:
            inner: the client's own ``send``.
            request: the HTTP library's.
            options: of ``inner``.
            method: of the JSON-RPC message in it; None without one.
        """
        if request.method == "DELETE" and (self._is_forsaken or not self._is_reachable):
            return sdk.http_library().Response(HTTPStatus.NO_CONTENT, request=request)
        try:
            if method in _HARMLESS_METHODS:
                response = await _send_harmless(inner, request, options)
            else:
                response = await inner(request, **options)
        except _connection_errors():
            self._is_reachable = False
            raise
        self._is_reachable = True
        return response

    def broke_off(self, error: Exception) -> None:
        """A response has ended by an error."""
        if isinstance(error, _connection_errors()):
            self._is_reachable = False


async def _send_harmless(inner: Callable[..., Any], request: Any, options: dict[str, Any]) -> Any:
    """Send until there is an answer or a fresh connection has failed: each failure costs a kept one.

    A client that does not tell which connections it uses is asked twice at most.
    """
    is_second = False
    while True:
        trace = _Trace(request.extensions.get("trace"))
        request.extensions = {**request.extensions, "trace": trace}
        try:
            return await inner(request, **options)
        except _died_in_use():
            if trace.is_fresh or (is_second and not trace.is_told):
                raise
        finally:
            request.extensions = {**request.extensions, "trace": trace.inner}
            if trace.inner is None:
                del request.extensions["trace"]
        is_second = True


class _Trace:
    """Notes whether a request opened a connection. Called by the HTTP library with what it does."""

    __slots__ = ("inner", "is_fresh", "is_told")

    def __init__(self, inner: Callable[..., Any] | None) -> None:
        self.inner = inner
        self.is_told = False
        self.is_fresh = False

    async def __call__(self, event: str, info: dict[str, Any]) -> None:
        self.is_told = True
        if event.startswith("connection.connect_"):
            self.is_fresh = True
        if self.inner is not None:
            await self.inner(event, info)


@functools.cache
def _died_in_use() -> tuple[type[Exception], ...]:
    """What the HTTP library raises where an open connection turned out to be none."""
    http = sdk.http_library()
    return (http.ReadError, http.WriteError, http.CloseError, http.RemoteProtocolError)


@functools.cache
def _connection_errors() -> tuple[type[Exception], ...]:
    """What it raises where a connection could not be made, or was lost."""
    http = sdk.http_library()
    return (*_died_in_use(), http.ConnectError, http.ConnectTimeout, http.WriteTimeout, http.ProxyError)
