"""The HTTP requests of one call on a pooled session: its headers on them, and what is certain about their
fate.

A request has certainly not been executed where the server does not know the session (404), where no
connection was made, or where the connection broke before the head of the request was out. Of anything else
nobody knows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from mcpgateway_pool.config import DEFAULT_NETWORK, NetworkSettings
from mcpgateway_pool.gateway.registry.session_watch import ClientFactory, SessionWatch
from mcpgateway_pool.upstream import sdk
from mcpgateway_pool.upstream.client_view import check_client, view_of

from .keys import Headers
from .release_errors import ReleaseErrors

_NEVER_CONNECTED = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout"})
_SESSION_HEADER = "mcp-session-id"


class CallRequests:
    """What became of the requests that one call has made.

    Attributes:
        headers: set on each of them.
        read_seconds: the caller waits for so long, however long the client would; None: the client decides.
        count: how many JSON-RPC requests went to the HTTP client.
        may_be_executed: whether the server may have executed one of them.
        was_unknown: whether the server answered that it does not know the session.
    """

    __slots__ = ("count", "headers", "may_be_executed", "read_seconds", "was_unknown")

    def __init__(self, headers: Headers) -> None:
        self.headers = headers
        self.read_seconds: float | None = None
        self.count = 0
        self.may_be_executed = False
        self.was_unknown = False

    def begin(self, read_seconds: float | None) -> None:
        """A new request of the caller's."""
        self.read_seconds = read_seconds
        self.count = 0
        self.may_be_executed = self.was_unknown = False


class CallWatch(SessionWatch):
    """Watches a pooled session.

    Attributes:
        requests: of the call that has the session now; None between two calls.
    """

    def __init__(
        self,
        transport: sdk.TransportName,
        headers: Mapping[str, str],
        network: NetworkSettings = DEFAULT_NETWORK,
    ) -> None:
        super().__init__(transport, headers, network)
        self.requests: CallRequests | None = None
        self._errors: ReleaseErrors | None = None

    def watched(self, make: ClientFactory) -> ClientFactory:
        """See :meth:`SessionWatch.watched`."""

        def observed(*args: Any, **kwargs: Any) -> Any:
            client = check_client(make(*args, **kwargs))
            self._errors = ReleaseErrors(None if self._is_sse else client)
            # A view: what several sessions share must not set the headers of one on the requests of another.
            return view_of(client, functools.partial(self._observe, client.send))

        return super().watched(observed)

    def release_error(self, error: Exception) -> Exception | None:
        """What the release would raise instead of an error of the SDK's; None: the error itself."""
        return None if self._errors is None else self._errors.of(error)

    def opening_error(self) -> Exception | None:
        """What the release would raise where this session could not be opened; None: what it has raised."""
        return None if self._errors is None else self._errors.of_opening(self._handshake.error)

    async def _observe(self, inner: Callable[..., Any], request: Any, **options: Any) -> Any:
        call = self.requests
        if call is None:
            return await inner(request, **options)
        for name, value in call.headers.items():
            request.headers[name] = value
        if request.method == "GET" and self._is_sse:
            response = await self._noting_failure(inner, request, **options)
            if self._errors is not None:
                self._errors.answered_stream(response)
            return response
        if request.method != "POST" or not _is_request(request):
            return await inner(request, **options)
        _extend_read_timeout(request, call.read_seconds)
        if self._errors is not None:
            self._errors.begin()
        progress = _Progress(request)
        call.count += 1
        try:
            response = await self._noting_failure(inner, request, **options)
        except BaseException as error:
            if not progress.cannot_be_out(error):
                call.may_be_executed = True
            raise
        if response.status_code == HTTPStatus.NOT_FOUND and (
            self._is_sse or _SESSION_HEADER in request.headers
        ):
            call.was_unknown = True
        else:
            call.may_be_executed = True
        return response

    async def _noting_failure(self, inner: Callable[..., Any], request: Any, **options: Any) -> Any:
        try:
            return await inner(request, **options)
        except Exception as error:
            if self._errors is not None:
                self._errors.failed(error)
            raise


class _Progress:
    """How far a request came, as the HTTP library's own trace tells."""

    def __init__(self, request: Any) -> None:
        self._has_begun = self._is_out = False
        self._chained = request.extensions.get("trace")
        request.extensions = {**request.extensions, "trace": self._trace}

    async def _trace(self, event: str, info: Any) -> None:
        if event.endswith("send_request_headers.started"):
            self._has_begun = True
        elif event.endswith("send_request_headers.complete"):
            self._is_out = True
        if self._chained is not None:
            await self._chained(event, info)

    def cannot_be_out(self, error: BaseException) -> bool:
        """Whether it is certain that the server has not got the request. A transport that tells nothing of
        itself leaves that open, unless it could not connect.
        """
        if self._is_out or not isinstance(error, Exception):
            return False
        return self._has_begun or type(error).__name__ in _NEVER_CONNECTED


def _is_request(request: Any) -> bool:
    try:
        message = sdk.request_of(request.content)
    except sdk.http_library().StreamError:
        return False
    return message is not None and message[1] is not None


def _extend_read_timeout(request: Any, seconds: float | None) -> None:
    """A session's client has the time-outs of the call that opened it; this caller may wait for longer."""
    timeouts = request.extensions.get("timeout")
    if seconds is None or not isinstance(timeouts, dict):
        return
    read = timeouts.get("read")
    if read is not None and read < seconds:
        request.extensions = {**request.extensions, "timeout": {**timeouts, "read": seconds}}
