"""A watch on what becomes of each HTTP request of an MCP transport.

The SDK's transports let a request wait for ever in several cases (SDK 1.x: the answer's stream ends without
an answer, or resuming it is given up; both generations, over SSE: the POST is refused), and say little of
what they saw. :class:`HttpWatch` sits on the ``send`` method of a session's client, above authentication and
redirects, which therefore work as ever.

- Streamable HTTP: the SDK runs each request in a task of its own, which ends when the request was answered or
  never will be (reconnecting with Last-Event-ID included). When it ends, the request is reported as over;
  whoever listens fails it if it is still waiting. A request that is refused with a status, or cannot be
  sent, gets an error as its answer: left alone, the SDK would end the session under the requests beside it.
- SSE: answers come on another stream. A POST that is refused fails its request; one that cannot be sent ends
  the session, because nobody knows what the server still has of it.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Protocol

from mcpgateway_pool import verdict
from mcpgateway_pool.redact import safe_text, safe_url
from mcpgateway_pool.verdict import Verdict

from . import sdk
from .client_view import restore, view_of
from .sending import Sender
from .watched_body import Endings, EndpointEvent, EventSeen, MessageSeen, watch_body

RequestId = int | str

# Text from a server is cut first, and not waited for long: what matters, the status, is there.
_MAX_ERROR_BODY_BYTES = 1 << 20
_ERROR_BODY_SECONDS = 1.5
# Servers may end a request's stream on purpose and have it resumed, as often as they like; the SDK follows
# them for ever. But one that has lost the request can do the same: so there is an end after that many resumed
# streams in a row that came to nothing at once. A stream that brought an event, or was kept open for a while,
# is a sign that the server still works on the request.
_MAX_FRUITLESS_RESUMPTIONS = 10
_AT_ONCE_SECONDS = 1.0


def status_error(response: Any) -> Exception:
    """The HTTP library's ``HTTPStatusError`` for a response, with a message that holds no credentials and no
    query.
    """
    message = f"{status_text(response)} from {safe_url(str(response.request.url))}"
    error: Exception = sdk.http_library().HTTPStatusError(
        message, request=response.request, response=response
    )
    return error


def status_text(response: Any) -> str:
    """Such as ``HTTP 503 Service Unavailable``; the server's own wording is not repeated."""
    try:
        return f"HTTP {response.status_code} {HTTPStatus(response.status_code).phrase}"
    except ValueError:
        return f"HTTP {response.status_code}"


class HttpListener(Protocol):
    """Who wants to know what the watch sees. All calls come in the event loop, and must not raise."""

    def judged(self, seen: Verdict, problem: str) -> None:
        """Something was seen that says more about the session than that it is well."""

    def request_over(self, request_id: RequestId, problem: str) -> bool:
        """A streamable HTTP request will get no answer any more, unless it had one already: whether it still
        waited for one.
        """

    def request_refused(self, request_id: RequestId, error: dict[str, Any]) -> None:
        """A request was refused over SSE, where no answer to it will come; with the error for its caller."""

    def cannot_begin(self, error: Exception) -> None:
        """The event stream of an SSE session failed before it said where messages go."""

    def standing_stream_over(self) -> None:
        """The event stream that a streamable HTTP session keeps open beside its requests has ended. Servers
        may end it at will, and do when they end themselves.
        """


class HttpWatch:
    """Watches the requests of one session.

    Args:
        transport: whose rules apply.
        listener: gets what was seen; held strongly.
        clean: takes out of a text from outside what must not be shown.

    Attributes:
        failure: why ``initialize`` got no answer: an ``HTTPStatusError`` whose message is safe to show, or
            what the HTTP library raised.
        silences: how often a request got no answer: a lost connection, a session that the server has
            forgotten, HTTP 5xx, something else than an answer.
        lost_streams: how often the stream beside all requests has ended.
    """

    def __init__(
        self,
        transport: sdk.TransportName,
        listener: HttpListener,
        clean: Callable[[str], str] = str,
    ) -> None:
        self._sse = transport == "sse"
        self._listener: HttpListener | None = listener
        self._clean = clean
        self._views: list[Any] = []
        self._exchanges: dict[RequestId, _Exchange] = {}
        self._tasks: dict[asyncio.Task[Any], _Exchange] = {}
        self.failure: Exception | None = None
        self.silences = 0
        self.lost_streams = 0
        self._sender = Sender()
        self._endings = Endings()
        self._answer = MessageSeen()

    @property
    def is_mcp(self) -> bool:
        """Whether what answered ``initialize`` over streamable HTTP looks like a JSON-RPC message."""
        return self._answer.is_seen

    @property
    def is_attached(self) -> bool:
        """Whether it watches a client."""
        return bool(self._views)

    def factory(self, inner: sdk.ClientFactory) -> sdk.ClientFactory:
        """The same factory, its clients watched."""

        def watched(*arguments: Any, **options: Any) -> Any:
            return self.watch(inner(*arguments, **options))

        return watched

    def watch(self, client: Any, send: Callable[..., Any] | None = None) -> Any:
        """This session's view of a client: what is sent through it is watched.

        Args:
            client: any client of the HTTP library.
            send: what to watch by in place of :meth:`send`; called as that is.
        """
        # Above authentication and redirects; and whatever class of client a caller's factory makes.
        view = view_of(client, functools.partial(send or self.send, client.send))
        self._views.append(view)
        return view

    def detach(self) -> None:
        """Leave the clients and the listener, so that no cycle holds them for the collector."""
        for view in self._views:
            restore(view)
        self._views.clear()
        self._listener = None

    def forsake(self) -> None:
        """Say no goodbye to the server: it does not answer."""
        self._sender.forsake()

    def possible_victims(self) -> list[RequestId]:
        """The requests that an event which the SDK could not read may have been for: those whose own event
        stream has delivered something.
        """
        return [request_id for request_id, exchange in self._exchanges.items() if exchange.has_data]

    async def send(self, inner: Callable[..., Any], request: Any, **options: Any) -> Any:
        """Send a request by ``inner``, and see what becomes of it."""
        if request.method == "GET":
            stream = self._message_stream if self._sse else self._event_stream
            return await stream(inner, request, options)
        message = sdk.request_of(_body_of(request)) if request.method == "POST" else None
        if message is None:
            return await self._sender.send(inner, request, options)
        method, request_id = message
        exchange = None if self._sse or request_id is None else self._exchange(request_id)
        try:
            response = await self._sender.send(inner, request, options, method)
        except Exception as error:
            return self._failed(request, method, request_id, error)
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            return await self._refused(response, method, request_id)
        if exchange is not None:
            exchange.answered(response, self._answer if method == "initialize" else None)
        elif self._sse and response.status_code >= HTTPStatus.MULTIPLE_CHOICES:
            # Only the SDK knows whether it follows. Where not, it asks this, and logs what is raised.
            response.raise_for_status = functools.partial(self._redirected, response, method, request_id)
        return response

    # ---- event streams

    async def _event_stream(self, inner: Callable[..., Any], request: Any, options: dict[str, Any]) -> Any:
        """The response to a GET over streamable HTTP: a request's stream resumed, or the standing stream."""
        task = asyncio.current_task()
        exchange = None if task is None else self._tasks.get(task)
        if exchange is not None and exchange.fruitless_resumptions >= _MAX_FRUITLESS_RESUMPTIONS:
            exchange.problem = "the server kept ending the request's event stream without an answer"
            # The SDK gives up when this has happened to it twice.
            raise sdk.http_library().RemoteProtocolError(exchange.problem, request=request)
        response = await self._sender.send(inner, request, options)
        if _is_event_stream(response):
            if exchange is not None:
                exchange.answered(response)
            else:
                watch_body(response, _StandingStream(self._standing_stream_over))
        return response

    async def _message_stream(self, inner: Callable[..., Any], request: Any, options: dict[str, Any]) -> Any:
        """The response to a GET over SSE: the stream of all messages."""
        response = await self._sender.send(inner, request, options)
        if _is_event_stream(response):
            watch_body(response, _MessageStream(str(request.url), self._tell_no_beginning))
        return response

    # ---- requests that got no answer

    def _failed(self, request: Any, method: str, request_id: RequestId | None, error: Exception) -> Any:
        """What the transport gets where the HTTP library raised an error in place of a response."""
        seen = verdict.of_request_error(error)
        what = (
            "the request could not be sent" if seen is verdict.KEPT else "the connection to the server failed"
        )
        problem = f"{what} ({verdict.describe(error, self._clean)})"
        if method == "initialize":
            self.failure = error
        self._tell(seen, problem)
        if seen is verdict.LOST if self._sse else method == "initialize":
            raise error
        return self._refusal(request, request_id, None, problem)

    async def _refused(self, response: Any, method: str, request_id: RequestId | None) -> Any:
        """What the transport gets in place of a response of status 400 or more."""
        request, problem = response.request, f"the server answered {status_text(response)}"
        body = await self._body(response)
        names_session = self._sse or "mcp-session-id" in request.headers
        if method == "initialize":
            self.failure = status_error(response)
        self._tell(verdict.of_status(response.status_code, names_session=names_session), problem)
        if response.status_code == HTTPStatus.NOT_FOUND and names_session and not self._sse:
            # The SDK's own business: it means that the session has expired.
            headers = {"content-type": "application/json"} if body is not None else None
            return sdk.http_library().Response(404, headers=headers, content=body or b"", request=request)
        return self._refusal(request, request_id, body, problem)

    def _refusal(self, request: Any, request_id: RequestId | None, body: bytes | None, problem: str) -> Any:
        """A response that fails one request, and leaves the transport as it is."""
        if request_id is None:
            return sdk.http_library().Response(HTTPStatus.ACCEPTED, request=request)
        if self._sse:
            if self._listener is not None:
                error = sdk.error_of(body, problem, self._clean)
                self._listener.request_refused(request_id, error)
            return sdk.http_library().Response(HTTPStatus.ACCEPTED, request=request)
        content = sdk.error_answer(request_id, sdk.error_of(body, problem, self._clean))
        return sdk.http_library().Response(
            HTTPStatus.OK, headers={"content-type": "application/json"}, content=content, request=request
        )

    def _redirected(self, response: Any, method: str, request_id: RequestId | None) -> Any:
        """A message was redirected over SSE where nobody follows."""
        if method == "initialize":
            self.failure = status_error(response)
        self._refusal(response.request, request_id, None, f"the server answered {status_text(response)}")
        return response

    async def _body(self, response: Any) -> bytes | None:
        """A JSON body, and the end of the response; None for others, for one beyond 1 MiB, and when it cannot
        be read in time.
        """
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(_ERROR_BODY_SECONDS):
                if not response.headers.get("content-type", "").lower().startswith("application/json"):
                    return None
                async for part in response.aiter_bytes():
                    parts.append(part)
                    size += len(part)
                    if size > _MAX_ERROR_BODY_BYTES:
                        return None
                return b"".join(parts)
        except (TimeoutError, sdk.http_library().HTTPError, sdk.http_library().StreamError):
            return None
        finally:
            await response.aclose()

    # ---- exchanges

    def _exchange(self, request_id: RequestId) -> _Exchange:
        """The exchange of a request; a redirected request comes by here twice."""
        exchange = self._exchanges.get(request_id)
        if exchange is None:
            exchange = self._exchanges[request_id] = _Exchange(self._clean, self._no_answer, self._endings)
            task = asyncio.current_task()
            assert task is not None
            self._tasks[task] = exchange
            task.add_done_callback(functools.partial(self._task_done, request_id))
        return exchange

    def _task_done(self, request_id: RequestId, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        # The answer may have been handed to the session's receiving task without having reached the caller's
        # yet. Both are scheduled by now, so they run before this comes round again.
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._over, request_id)

    def _over(self, request_id: RequestId) -> None:
        exchange = self._exchanges.pop(request_id, None)
        if exchange is None:
            return
        self._tell(exchange.seen, exchange.problem)
        if self._listener is not None and self._listener.request_over(request_id, exchange.problem):
            self.silences += 1

    # ---- telling

    def _tell(self, seen: Verdict, problem: str) -> None:
        if seen is verdict.KEPT:
            return
        self.silences += 1
        if self._listener is not None:
            self._listener.judged(seen, problem)

    def _no_answer(self, error: Exception | None) -> None:
        """A response is none, or has ended by an error."""
        self.silences += 1
        if error is not None:
            self._sender.broke_off(error)

    def _standing_stream_over(self, error: Exception | None) -> None:
        if error is not None:
            self._sender.broke_off(error)
        self.lost_streams += 1
        if self._listener is not None:
            self._listener.standing_stream_over()

    def _tell_no_beginning(self, error: Exception) -> None:
        if self._listener is not None:
            self._listener.cannot_begin(error)


def _body_of(request: Any) -> bytes:
    try:
        body: bytes = request.content
    except sdk.http_library().StreamError:  # not in memory: none of the SDK's
        return b""
    return body


def _is_event_stream(response: Any) -> bool:
    content_type: str = response.headers.get("content-type", "")
    return response.status_code < HTTPStatus.MULTIPLE_CHOICES and content_type.lower().startswith(
        "text/event-stream"
    )


class _Exchange:
    """One request over streamable HTTP, and why it would be without an answer if it ended now."""

    __slots__ = (
        "_begin",
        "_clean",
        "_endings",
        "_events",
        "_has_event",
        "_message",
        "_no_answer",
        "fruitless_resumptions",
        "has_data",
        "problem",
        "seen",
    )

    def __init__(
        self,
        clean: Callable[[str], str],
        no_answer: Callable[[Exception | None], None],
        endings: Endings,
    ) -> None:
        self._no_answer = no_answer
        self._endings = endings
        self.problem = "the request ended before an answer came"
        self.seen = verdict.KEPT
        self.has_data = False
        self.fruitless_resumptions = 0
        self._clean = clean
        self._begin = 0.0
        self._has_event = False
        self._events: EventSeen | None = None
        self._message: MessageSeen | None = None

    def answered(self, response: Any, message: MessageSeen | None = None) -> None:
        """The response has begun; ``message`` looks at its body, too."""
        content_type = response.headers.get("content-type", "").lower()
        self.seen = verdict.KEPT
        self._events = None
        self._message = message
        if response.status_code == HTTPStatus.ACCEPTED:
            self.problem = "the server accepted the request without an answer (HTTP 202)"
            self._no_answer(None)
        elif response.status_code >= HTTPStatus.MULTIPLE_CHOICES:
            self.problem = f"the server answered {status_text(response)}"
        elif content_type.startswith("application/json"):
            self.problem = "the server's answer is not an answer to this request"
            watch_body(response, self)
        elif content_type.startswith("text/event-stream"):
            self.problem = "the server ended its event stream without an answer"
            self._begin = asyncio.get_running_loop().time()
            self._has_event = False
            self._events = EventSeen()
            watch_body(response, self, self._endings)
        else:
            self._no_answer(None)
            shown = safe_text(self._clean(content_type), 60)
            self.problem = f"the server's answer has content type {shown!r}"

    def body_part(self, part: bytes) -> None:
        """See :class:`mcpgateway_pool.upstream.watched_body.BodyWatcher`."""
        if self._events is not None and self._events.feed(part):
            self.has_data = self._has_event = True
        if self._message is not None:
            self._message.feed(part)

    def body_over(self, error: Exception | None) -> None:
        """See :class:`mcpgateway_pool.upstream.watched_body.BodyWatcher`."""
        if error is not None:
            self._no_answer(error)
            self.seen = verdict.of_request_error(error)
            self.problem = f"the server's answer broke off ({verdict.describe(error, self._clean)})"
        elif self._events is not None:
            # The SDK reads no further than the answer. Another stream may go on from here.
            self._no_answer(None)
            self.seen = verdict.LOST
        if self._events is None:
            return
        lasted = asyncio.get_running_loop().time() - self._begin
        if self._has_event or lasted > _AT_ONCE_SECONDS:
            self.fruitless_resumptions = 0
        else:
            self.fruitless_resumptions += 1


class _StandingStream:
    """The stream beside all requests."""

    __slots__ = ("_over",)

    def __init__(self, over: Callable[[Exception | None], None]) -> None:
        self._over = over

    def body_part(self, part: bytes) -> None:
        """See :class:`mcpgateway_pool.upstream.watched_body.BodyWatcher`."""

    def body_over(self, error: Exception | None) -> None:
        """See :class:`mcpgateway_pool.upstream.watched_body.BodyWatcher`."""
        self._over(error)


class _MessageStream:
    """The stream of all messages over SSE, of interest until it has said where messages go: what goes wrong
    before, the SDK keeps to itself, and its caller waits.
    """

    __slots__ = ("_endpoint", "_fail", "_url")

    def __init__(self, url: str, fail: Callable[[Exception], None]) -> None:
        self._url = url
        self._endpoint = EndpointEvent(url)
        self._fail = fail

    def body_part(self, part: bytes) -> None:
        """See :class:`mcpgateway_pool.upstream.watched_body.BodyWatcher`."""
        if self._endpoint.feed(part):
            self._fail(
                sdk.http_library().RemoteProtocolError(
                    f"the server of {safe_url(self._url)} wants messages to be sent to another origin"
                )
            )

    def body_over(self, error: Exception | None) -> None:
        """See :class:`mcpgateway_pool.upstream.watched_body.BodyWatcher`."""
        if not self._endpoint.is_seen:
            self._fail(
                error
                or sdk.http_library().RemoteProtocolError(
                    f"the server of {safe_url(self._url)} did not say where messages go"
                )
            )
