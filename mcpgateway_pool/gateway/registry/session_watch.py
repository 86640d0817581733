"""What becomes of the HTTP requests of a session that the release's own factory has opened.

The release makes transport, session and owner task; here its HTTP client is watched, on top of whatever TLS,
authentication or pinned address that client has. So a call in flight fails when its server dies, where the
SDK would let it wait for ever, and the session is not used again. Requests of the handshake pass unwatched:
what the release makes of a refusal there stays as it is.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

from mcpgateway_pool.upstream import http_watch, sdk

ClientFactory = Callable[..., Any]

_CLOSED = "the session was closed"


class SessionWatch:
    """Watches one session; see :class:`mcpgateway_pool.upstream.http_watch.HttpListener` for what it is told.

    Args:
        transport: ``"sse"`` or ``"streamablehttp"``.
    """

    def __init__(self, transport: sdk.TransportName) -> None:
        self._is_sse = transport == "sse"
        self._http = http_watch.HttpWatch(transport, self)
        self._session: Any = None
        self._on_end: Callable[[], None] | None = None
        self._on_broken: Callable[[], None] | None = None
        self._on_doubt: Callable[[], None] | None = None

    @property
    def http(self) -> http_watch.HttpWatch | None:
        """What sees the requests; None where the release has made its client by itself."""
        return self._http if self._http.is_attached else None

    def client_factory(self, callers: ClientFactory | None) -> ClientFactory | None:
        """What to give to the release's factory in place of the caller's.

        Args:
            callers: the caller's own; None for the default. On SDK 2.x the release makes its default client
                by itself, on a pinned address, so None stays None there.
        """
        inner = callers
        if inner is None:
            if sdk.generation() != 1:
                return None
            utils = importlib.import_module("mcp.shared._httpx_utils")
            inner = utils.create_mcp_http_client
        make = inner

        def watched(*args: Any, **kwargs: Any) -> Any:
            client = make(*args, **kwargs)
            plain = client.send
            self._http.attach(client)
            client.send = functools.partial(self._send, plain, client.send)
            return client

        return watched

    def begin(
        self,
        session: Any,
        *,
        on_end: Callable[[], None],
        on_broken: Callable[[], None],
        on_doubt: Callable[[], None],
    ) -> None:
        """The handshake is over: watch from now on.

        Args:
            session: the SDK's.
            on_end: asks the owner task to end.
            on_broken: the session must not be used again.
            on_doubt: the server may have lost the session.
        """
        self._session = session
        self._on_end = on_end
        self._on_broken = on_broken
        self._on_doubt = on_doubt

    def end(self) -> None:
        """The session is over: fail what still waits for an answer, and let go."""
        session, self._session = self._session, None
        if session is not None:
            sdk.fail_requests(session, _CLOSED)
        self._on_end = self._on_broken = self._on_doubt = None
        self._http.detach()

    async def _send(
        self, plain: Callable[..., Any], watched: Callable[..., Any], request: Any, **options: Any
    ) -> Any:
        # The stream beside all requests may begin within the handshake.
        send = plain if self._session is None and request.method != "GET" else watched
        return await send(request, **options)

    # ---- what HttpWatch reports

    def request_over(self, request_id: http_watch.RequestId, problem: str) -> bool:
        """See :class:`mcpgateway_pool.upstream.http_watch.HttpListener`."""
        has_waited = self._session is not None and sdk.fail_request(self._session, request_id, problem)
        if has_waited:
            self._broken()
        return has_waited

    def refused(self, _status: int) -> None:
        """See :class:`mcpgateway_pool.upstream.http_watch.HttpListener`."""
        self._broken()

    def connection_failed(self, problem: str) -> None:
        """See :class:`mcpgateway_pool.upstream.http_watch.HttpListener`."""
        self._broken()
        if self._is_sse and self._session is not None:
            # Answers come on another stream: none can be told from one that will never come.
            sdk.fail_requests(self._session, problem)
            if self._on_end is not None:
                self._on_end()

    def standing_stream_over(self) -> None:
        """See :class:`mcpgateway_pool.upstream.http_watch.HttpListener`."""
        if self._on_doubt is not None:
            self._on_doubt()

    def _broken(self) -> None:
        if self._on_broken is not None:
            self._on_broken()
