"""What becomes of the HTTP requests of a session that the release's own factory has opened.

The release makes transport, session and owner task; here its HTTP client is watched, on top of whatever TLS,
authentication or pinned address that client has. So a call in flight fails when its server dies, where the
SDK would let it wait for ever, and the session is not used again; and each request has the headers of its own
call. Requests of the handshake pass as they are:
what the release makes of a refusal there stays as it is; only what was seen of them is remembered.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from types import ModuleType
from typing import Any, TypeVar

from mcpgateway_pool import verdict
from mcpgateway_pool.config import DEFAULT_NETWORK, NetworkSettings
from mcpgateway_pool.upstream import http_client, http_watch, sdk
from mcpgateway_pool.upstream.client_view import check_client
from mcpgateway_pool.upstream.network import prepare
from mcpgateway_pool.upstream.request_headers import Cleaner
from mcpgateway_pool.upstream.watched_body import MessageSeen, watch_body
from mcpgateway_pool.verdict import Fault, Verdict

from . import default_clients
from .session_headers import SessionHeaders

ClientFactory = Callable[..., Any]
Opened = TypeVar("Opened")

_CLOSED = "the session was closed"
_NO_BEGINNING = "the event stream failed before it said where messages go"


class SessionWatch:
    """Watches one session; see :class:`mcpgateway_pool.upstream.http_watch.HttpListener` for what it is told.

    Args:
        transport: ``"sse"`` or ``"streamablehttp"``.
        headers: those with which it is opened; no message shows their values.
        network: of the connections of its clients.

    Attributes:
        headers: those of its requests.
    """

    def __init__(
        self,
        transport: sdk.TransportName,
        headers: Mapping[str, str],
        network: NetworkSettings = DEFAULT_NETWORK,
    ) -> None:
        self._is_sse = transport == "sse"
        self._network = network
        clean = Cleaner(headers)
        self.headers = SessionHeaders(headers, clean)
        self._http = http_watch.HttpWatch(transport, self, clean)
        self._session: Any = None
        self._on_end: Callable[[], None] | None = None
        self._on_verdict: Callable[[Verdict], None] | None = None
        self._on_stream_end: Callable[[], None] | None = None
        self._on_no_beginning: Callable[[], object] | None = None
        self._handshake = _Handshake()

    @property
    def http(self) -> http_watch.HttpWatch | None:
        """What sees the requests; None where the release has made its client by itself."""
        return self._http if self._http.is_attached else None

    def fault(self, error: BaseException) -> Fault | None:
        """Whose fault it is that the release's factory raised this, from what was seen of the handshake."""
        return self._handshake.fault(error) if self._http.is_attached else verdict.fault_of(error)

    async def opening(self, opened: Awaitable[Opened]) -> Opened:
        """Wait for the release's factory, but not where a session certainly cannot begin any more: the
        release itself would wait for as long as a session may take to open.

        Raises:
            RuntimeError: the event stream has failed before it said where messages go.
        """
        task = asyncio.current_task()
        assert task is not None
        self._on_no_beginning = functools.partial(task.cancel, _NO_BEGINNING)
        try:
            return await opened
        except asyncio.CancelledError as error:
            failure = self._handshake.error
            if error.args != (_NO_BEGINNING,) or task.uncancel() > 0 or failure is None:
                raise
            raise RuntimeError(f"{_NO_BEGINNING}: {verdict.describe(failure)}") from failure
        finally:
            self._on_no_beginning = None

    def client_factory(self, callers: ClientFactory | None, release: ModuleType) -> ClientFactory | None:
        """What to give to the release's factory in place of the caller's.

        Args:
            callers: the caller's own; None for the default.
            release: its module. Where that makes the default itself, None stays None; see
                :mod:`.default_clients`.
        """
        if callers is None and default_clients.are_made_by(release):
            return None
        return self.watched(callers or http_client.default_client_factory())

    def watched(self, make: ClientFactory) -> ClientFactory:
        """The same factory; its clients are watched, and notice a silent network."""

        def watched(*args: Any, **kwargs: Any) -> Any:
            try:
                client = check_client(make(*args, **kwargs))
            except Exception as error:
                verdict.blame(error, Fault.CALLER)
                raise
            prepare(client, self._network)
            return self._http.watch(client, self._send)

        return watched

    def begin(
        self,
        session: Any,
        *,
        on_end: Callable[[], None],
        on_verdict: Callable[[Verdict], None],
        on_stream_end: Callable[[], None],
    ) -> None:
        """The handshake is over: watch from now on.

        Args:
            session: the SDK's.
            on_end: asks the owner task to end.
            on_verdict: called with what is seen that says more about the session than that it is well.
            on_stream_end: called when the stream beside all requests has ended.
        """
        self._session = session
        self._on_end = on_end
        self._on_verdict = on_verdict
        self._on_stream_end = on_stream_end
        sdk.on_given_up(session, self._given_up)

    def end(self) -> None:
        """The session is over: fail what still waits for an answer, and let go."""
        session, self._session = self._session, None
        if session is not None:
            sdk.fail_requests(session, _CLOSED)
        self._on_end = self._on_verdict = self._on_stream_end = None
        self._http.detach()

    def _given_up(self) -> None:
        self.judged(verdict.DOUBTFUL, "")

    async def _send(self, plain: Callable[..., Any], request: Any, **options: Any) -> Any:
        self.headers.put_on(request)
        # The stream beside all requests may begin within the handshake.
        if self._session is not None or request.method == "GET":
            return await self._http.send(plain, request, **options)
        try:
            response = await plain(request, **options)
        except Exception as error:
            self._handshake.error = error
            raise
        self._handshake.answered(response)
        return response

    # ---- what HttpWatch reports: see mcpgateway_pool.upstream.http_watch.HttpListener

    def judged(self, seen: Verdict, problem: str) -> None:
        if self._on_verdict is not None:
            self._on_verdict(seen)
        if self._is_sse and seen is verdict.LOST and self._session is not None:
            # Answers come on another stream: none can be told from one that will never come.
            sdk.fail_requests(self._session, problem)
            if self._on_end is not None:
                self._on_end()

    def request_over(self, request_id: http_watch.RequestId, problem: str) -> bool:
        return self._session is not None and sdk.fail_request(self._session, request_id, problem)

    def request_refused(self, request_id: http_watch.RequestId, error: dict[str, Any]) -> None:
        if self._session is not None:
            sdk.fail_request(self._session, request_id, "", error)

    def cannot_begin(self, error: Exception) -> None:
        self._handshake.error = error
        if self._on_no_beginning is not None:
            self._on_no_beginning()

    def standing_stream_over(self) -> None:
        if self._on_stream_end is not None:
            self._on_stream_end()


class _Handshake:
    """What was seen of the requests that open a session; the latest counts."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self._message = MessageSeen()

    def answered(self, response: Any) -> None:
        """A response has begun."""
        is_refused = response.status_code >= HTTPStatus.BAD_REQUEST
        self.error = http_watch.status_error(response) if is_refused else None
        if not is_refused:
            watch_body(response, self)

    def body_part(self, part: bytes) -> None:
        """See :class:`mcpgateway_pool.upstream.watched_body.BodyWatcher`."""
        self._message.feed(part)

    def body_over(self, error: Exception | None) -> None:
        """See :class:`mcpgateway_pool.upstream.watched_body.BodyWatcher`."""
        self.error = error or self.error

    def fault(self, error: BaseException) -> Fault:
        """Whose fault the end of this handshake by an exception is."""
        shown = verdict.fault_of(error)
        if shown in (Fault.CALLER, Fault.MACHINE):
            return shown
        if self.error is not None:
            return verdict.fault_of(self.error) or Fault.SERVER
        if self._message.is_seen:
            return Fault.REFUSAL
        # Nothing was sent, or nothing came. The release's own rules (addresses that it may not connect to,
        # for one) refuse before a request; what it met on the network hangs on its exception.
        return shown or Fault.CALLER
