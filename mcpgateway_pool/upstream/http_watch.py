"""A watch on what becomes of each HTTP request of an MCP transport.

The SDK's transports let a request wait for ever in several cases (SDK 1.x: the answer's stream
ends without an answer, or resuming it is given up; both generations, over SSE: the POST is refused).
:class:`HttpWatch` sits on the ``send`` method of a session's client, above authentication and redirects,
which therefore work as ever.

- Streamable HTTP: the SDK runs each request in a task of its own, which ends when the request was answered or
  never will be (reconnecting with Last-Event-ID included). When it ends, the request is reported as over;
  whoever listens fails it if it is still waiting. A request that is refused with a status, or cannot be
  sent, gets an error as its answer: left alone, the SDK would end the session under the requests beside it.
- SSE: answers come on another stream, so a refused or failed POST leaves its caller without one: the session
  is over.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import Any, NoReturn, Protocol

from mcpgateway_pool.redact import safe_text, safe_url

from . import sdk
from .sending import Sender

RequestId = int | str

_MAX_ERROR_BODY_BYTES = 1 << 20
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

    def request_over(self, request_id: RequestId, problem: str) -> bool:
        """A streamable HTTP request will get no answer any more, unless it had one already: whether it still
        waited for one.
        """

    def refused(self, status: int) -> None:
        """A request was answered with an HTTP status of 400 or more, or redirected where nobody follows."""

    def connection_failed(self, problem: str) -> None:
        """A POST failed, or one that is no request was refused. On SSE, the listener ends the session."""

    def standing_stream_over(self) -> None:
        """The event stream that a streamable HTTP session keeps open beside its requests has ended. Servers
        may end it at will, and do when they end themselves.
        """


class HttpWatch:
    """Watches the POSTs of one session.

    Args:
        transport: whose rules apply.
        listener: gets what was seen; held strongly.
    """

    def __init__(self, transport: sdk.TransportName, listener: HttpListener) -> None:
        self._sse = transport == "sse"
        self._listener: HttpListener | None = listener
        self._clients: list[Any] = []
        self._exchanges: dict[RequestId, _Exchange] = {}
        self._tasks: dict[asyncio.Task[Any], _Exchange] = {}
        self._sender = Sender()
        self.silences = 0
        """How often a request got no answer: lost connections, and HTTP statuses 404 and from 500 on."""
        self.lost_streams = 0
        """How often the stream beside all requests has ended."""
        self.refusal: Exception | None = None
        """The latest refusal of ``initialize``: an ``HTTPStatusError`` whose message is safe to show."""

    def factory(self, inner: sdk.ClientFactory) -> sdk.ClientFactory:
        """The same factory, its clients watched."""

        def watched(headers: dict[str, str] | None = None, timeout: Any = None, auth: Any = None) -> Any:
            client = inner(headers=headers, timeout=timeout, auth=auth)
            self.attach(client)
            return client

        return watched

    def attach(self, client: Any) -> None:
        """Watch a client."""
        # Above authentication and redirects; and whatever class of client a caller's factory makes.
        client.send = functools.partial(self._send, client.send)
        self._clients.append(client)

    @property
    def is_attached(self) -> bool:
        """Whether it watches a client."""
        return bool(self._clients)

    def detach(self) -> None:
        """Leave the clients and the listener, so that no cycle holds them for the collector."""
        for client in self._clients:
            client.__dict__.pop("send", None)
        self._clients.clear()
        self._listener = None

    def forsake(self) -> None:
        """Say no goodbye to the server: it does not answer."""
        self._sender.forsake()

    def possible_victims(self) -> list[RequestId]:
        """The requests that an event which the SDK could not read may have been for: those whose own event
        stream has delivered something.
        """
        return [request_id for request_id, exchange in self._exchanges.items() if exchange.has_data]

    async def _send(self, inner: Callable[..., Any], request: Any, **options: Any) -> Any:
        if request.method == "GET" and not self._sse:
            return await self._stream(inner, request, options)
        message = sdk.request_of(_body_of(request)) if request.method == "POST" else None
        if message is None:
            return await self._sender.send(inner, request, options)
        method, request_id = message
        exchange = None if self._sse or request_id is None else self._exchange(request_id)
        try:
            response = await self._sender.send(inner, request, options, method)
        except Exception as error:
            self.silences += 1
            problem = f"the connection to the server failed ({type(error).__name__})"
            self._tell_failure(problem)
            if exchange is None or request_id is None or method == "initialize":
                raise
            return _error_response(request, request_id, None, problem)
        if response.status_code < HTTPStatus.BAD_REQUEST:
            if exchange is not None:
                exchange.answered(response)
            elif self._sse and response.status_code >= HTTPStatus.MULTIPLE_CHOICES:
                # Only the SDK knows whether it follows. Where not, it asks this, and logs what is raised.
                response.raise_for_status = functools.partial(self._give_up, response, method)
            return response
        return await self._refused(response, method, request_id)

    async def _stream(self, inner: Callable[..., Any], request: Any, options: dict[str, Any]) -> Any:
        """The response to a GET: a request's stream resumed, or the standing stream."""
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
                response.stream = _watched_stream_class()(response.stream, _StandingStream(self._stream_over))
        return response

    def _stream_over(self, error: Exception | None) -> None:
        if error is not None:
            self._sender.broke_off(error)
        self.lost_streams += 1
        if self._listener is not None:
            self._listener.standing_stream_over()

    def _no_answer(self, error: Exception | None) -> None:
        """A response is none, or has ended by an error."""
        self.silences += 1
        if error is not None:
            self._sender.broke_off(error)

    def _tell_failure(self, problem: str) -> None:
        if self._listener is not None:
            self._listener.connection_failed(problem)

    def _tell_refusal(self, status: int) -> None:
        if self._listener is not None:
            self._listener.refused(status)

    async def _refused(self, response: Any, method: str, request_id: RequestId | None) -> Any:
        """What the transport gets in place of a response of status 400 or more."""
        if self._sse:
            await response.aclose()
            self._give_up(response, method)
        error = status_error(response)
        if method == "initialize":
            self.refusal = error
        if (
            response.status_code == HTTPStatus.NOT_FOUND
            or response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
        ):
            self.silences += 1
        if response.status_code == HTTPStatus.NOT_FOUND:
            return response  # the SDK's business: it means that the session has expired
        if request_id is not None:
            body = await self._body(response)
            await response.aclose()
            self._tell_refusal(response.status_code)
            return _error_response(
                response.request, request_id, body, f"the server answered {status_text(response)}"
            )
        if sdk.generation() == 1:
            # As the transport would; but its exception, which it logs, would show the URL's query.
            await response.aclose()
            self._tell_failure(f"the server refused a message: {status_text(response)}")
            raise error
        return response

    def _give_up(self, response: Any, method: str) -> NoReturn:
        """A message was refused over SSE: no answer to it can come, on whichever stream."""
        error = status_error(response)
        if method == "initialize":
            self.refusal = error
        self._tell_refusal(response.status_code)
        self._tell_failure(f"the server refused a message: {status_text(response)}")
        raise error

    async def _body(self, response: Any) -> bytes | None:
        """A JSON body; None for others, for one beyond 1 MiB, and when it cannot be read."""
        if not response.headers.get("content-type", "").lower().startswith("application/json"):
            return None
        parts: list[bytes] = []
        size = 0
        try:
            async for part in response.aiter_bytes():
                parts.append(part)
                size += len(part)
                if size > _MAX_ERROR_BODY_BYTES:
                    return None
        except (sdk.http_library().HTTPError, sdk.http_library().StreamError):
            return None
        return b"".join(parts)

    def _exchange(self, request_id: RequestId) -> _Exchange:
        """The exchange of a request; a redirected request comes by here twice."""
        exchange = self._exchanges.get(request_id)
        if exchange is None:
            exchange = self._exchanges[request_id] = _Exchange(self._no_answer)
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
        if (
            exchange is not None
            and self._listener is not None
            and self._listener.request_over(request_id, exchange.problem)
        ):
            self.silences += 1


def _error_response(request: Any, request_id: RequestId, body: bytes | None, problem: str) -> Any:
    """A response that fails one request, with the server's own JSON-RPC error where ``body`` is one."""
    return sdk.http_library().Response(
        HTTPStatus.OK,
        headers={"content-type": "application/json"},
        content=sdk.error_answer(request_id, body, sdk.CONNECTION_CLOSED, problem),
        request=request,
    )


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
        "_has_event",
        "_no_answer",
        "fruitless_resumptions",
        "has_data",
        "problem",
    )

    def __init__(self, no_answer: Callable[[Exception | None], None]) -> None:
        self._no_answer = no_answer
        self.problem = "the request was not sent"
        self.has_data = False
        self.fruitless_resumptions = 0
        self._begin = 0.0
        self._has_event = False

    def answered(self, response: Any) -> None:
        """The response has begun."""
        content_type = response.headers.get("content-type", "").lower()
        if response.status_code == HTTPStatus.ACCEPTED:
            self.problem = "the server accepted the request without an answer (HTTP 202)"
            self._no_answer(None)
        elif content_type.startswith("application/json"):
            self.problem = "the server's answer is not an answer to this request"
        elif content_type.startswith("text/event-stream"):
            self.problem = "the server ended its event stream without an answer"
            self._begin = asyncio.get_running_loop().time()
            self._has_event = False
            response.stream = _watched_stream_class()(response.stream, self)
        elif response.status_code >= HTTPStatus.MULTIPLE_CHOICES:
            self.problem = f"the server answered {status_text(response)}"
        else:
            self.problem = f"the server's answer has content type {safe_text(content_type, 60)!r}"
            self._no_answer(None)

    def stream_delivered(self, chunk: bytes) -> None:
        """See :class:`_StreamWatcher`."""
        # Not what servers send to keep a stream open: comments.
        if b"data" in chunk:
            self.has_data = self._has_event = True

    def stream_over(self, error: Exception | None) -> None:
        """See :class:`_StreamWatcher`."""
        if error is not None or not self.has_data:
            self._no_answer(error)
        if error is not None:
            self.problem = f"the server's event stream broke off ({type(error).__name__})"
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

    def stream_delivered(self, chunk: bytes) -> None:
        """See :class:`_StreamWatcher`."""

    def stream_over(self, error: Exception | None) -> None:
        """See :class:`_StreamWatcher`."""
        self._over(error)


class _StreamWatcher(Protocol):
    """Who wants to know what becomes of a stream."""

    def stream_delivered(self, chunk: bytes) -> None:
        """Something came."""

    def stream_over(self, error: Exception | None) -> None:
        """The server has ended it, or it broke off. Not when the client closes it."""


@functools.cache
def _watched_stream_class() -> Any:
    """A stream class of the HTTP library that tells a watcher what becomes of it. (The library insists on its
    own base class.)
    """

    class WatchedStream(sdk.http_library().AsyncByteStream):  # type: ignore[misc]
        def __init__(self, inner: Any, watcher: _StreamWatcher) -> None:
            self._inner = inner
            self._watcher = watcher
            self._chunks: AsyncIterator[bytes] | None = None

        # Not an async generator: one that is left half-way is finalized by a task of its own, later.
        def __aiter__(self) -> AsyncIterator[bytes]:
            self._chunks = aiter(self._inner)
            return self

        async def __anext__(self) -> bytes:
            assert self._chunks is not None
            try:
                chunk = await anext(self._chunks)
            except StopAsyncIteration:
                self._watcher.stream_over(None)
                raise
            except Exception as error:
                self._watcher.stream_over(error)
                raise
            self._watcher.stream_delivered(chunk)
            return chunk

        async def aclose(self) -> None:
            await self._inner.aclose()

    return WatchedStream
