"""Real upstream sessions: each is owned by one task, which enters and leaves its transport and its
``ClientSession``.

anyio's cancel scopes must be left in the task that entered them; so nobody but the owner's task touches the
contexts. Others ask by an event, and cancel the task when that takes too long. Nothing that goes on inside
may leave a caller waiting: as soon as the transport or the owner ends, every request in flight fails with
code -32000 and a message that says what happened.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from mcpgateway_pool import verdict
from mcpgateway_pool.config import DEFAULT_NETWORK, NetworkSettings
from mcpgateway_pool.redact import safe_repr, safe_url
from mcpgateway_pool.tasks import CANCEL_GRACE_SECONDS, keep
from mcpgateway_pool.verdict import Verdict

from . import http_client, http_watch, sdk
from .client_view import check_client
from .log_filter import no_secrets_logged
from .request_headers import Cleaner, are_unusually_long, upstream_headers
from .streams import WatchedReadStream, WatchedWriteStream

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True, repr=False)
class _Target:
    """What an owner connects to. No repr(): URL and headers hold credentials."""

    url: str
    headers: dict[str, str]
    transport: sdk.TransportName
    client_factory: sdk.ClientFactory | None
    timeout: float
    message_handler: Any
    namespace: object | None


class SessionOwner:
    """Owns one upstream session. Made by :func:`open_session`; belongs to the event loop that it was made in.

    Attributes:
        session: the ``ClientSession``; None until it is connected.
        task: the owner's task; done if and only if nothing of the session is open any more. It raises
            nothing.
        shutdown_event: set it, and the task leaves the contexts.
        broken: the session is lost; see :mod:`mcpgateway_pool.verdict`.
        problem: what happened, once broken; safe to show.
    """

    def __init__(self, target: _Target) -> None:
        loop = asyncio.get_running_loop()
        self.session: Any = None
        self.shutdown_event = asyncio.Event()
        self.broken = False
        self.problem = ""
        self._target = target
        self._loop = loop
        self._clean = Cleaner(target.headers)
        self._watch = http_watch.HttpWatch(target.transport, self, self._clean)
        self._is_native = sdk.is_native(target.transport, target.namespace)
        self._hint = ""
        self._error: BaseException | None = None
        self._is_unanswered = False
        self._initialized = False
        self._leaving = False
        self._gravest = verdict.KEPT
        self._on_verdict: Callable[[Verdict], None] | None = None
        self._on_stream_end: Callable[[], None] | None = None
        self._closer: asyncio.Task[bool] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._ready: asyncio.Future[bool] = loop.create_future()
        # An empty context: a session outlives the request that opened it, and must not keep its variables.
        self.task: asyncio.Task[None] = loop.create_task(
            self._run(), name=f"mcp session {safe_url(target.url)}", context=contextvars.Context()
        )

        # A task that is cancelled before its first step never runs at all.
        self.task.add_done_callback(self._not_ready)

    def __repr__(self) -> str:
        state = "ended" if self.task.done() else "broken" if self.broken else "open"
        return f"<SessionOwner {safe_url(self._target.url)} {state}>"

    @property
    def is_watched(self) -> bool:
        """Whether what becomes of its requests is seen. Not where a namespace has replaced the transport."""
        return self._is_native

    @property
    def watch(self) -> http_watch.HttpWatch:
        """What sees its HTTP requests."""
        return self._watch

    def on_stream_end(self, callback: Callable[[], None]) -> None:
        """Have a function called, in the loop, whenever the stream beside all requests has ended; one
        function, which must not raise.
        """
        self._on_stream_end = callback

    def on_verdict(self, callback: Callable[[Verdict], None]) -> None:
        """Have a function called, in the loop, with whatever is seen that says more about the session than
        that it is well; soon with the gravest that was seen already. The last call is that it is lost.

        One function. A session that ends because it was asked to is not lost. What the function raises goes
        to the loop's handler.
        """
        self._on_verdict = callback
        if self._gravest is not verdict.KEPT:
            self._loop.call_soon(self._tell, self._gravest)

    async def close(self, timeout: float = CLOSE_TIMEOUT_SECONDS) -> bool:
        """End the session: ask its task, wait; cancel it, wait a little; at most ``timeout`` plus 1 s.

        May be called twice, concurrently, and from any task of the loop (the timeout of the first call
        counts). Never raises for an error of the session. When the call is cancelled, the closing goes on.

        Returns:
            True if the task ended by itself, False if it had to be cancelled.
        """
        if self._closer is None:
            self._closer = _spawn(self._close(timeout), f"close {self.task.get_name()}")
        return await asyncio.shield(self._closer)

    async def _close(self, timeout: float) -> bool:
        by_itself = self._initialized or self.task.done()
        self._leaving = True
        self.shutdown_event.set()
        if not by_itself:
            # It is connecting, and does not look at the event. A server that has not answered the handshake
            # in time would not answer a goodbye either.
            self._watch.forsake()
            self.task.cancel()
        if await self._ends_within(timeout):
            return by_itself
        self.task.cancel()
        if not await self._ends_within(CANCEL_GRACE_SECONDS):
            logger.warning("the task of a session ignores its cancellation: %s", self)
            keep(self.task)
        return False

    async def _ends_within(self, seconds: float) -> bool:
        if not self.task.done():
            await asyncio.wait({self.task}, timeout=seconds)
        return self.task.done()

    # ---- what HttpWatch reports: see mcpgateway_pool.upstream.http_watch.HttpListener

    def judged(self, seen: Verdict, problem: str) -> None:
        if self._leaving:
            return
        if seen.session is not verdict.State.LOST:
            self._doubt(seen, problem)
        elif self._target.transport == "sse" and self.session is not None:
            self._transport_ended(problem)
        else:
            self._break(problem)

    def request_over(self, request_id: http_watch.RequestId, problem: str) -> bool:
        has_waited = self.session is not None and sdk.fail_request(self.session, request_id, problem)
        self._is_unanswered = self._is_unanswered or has_waited
        return has_waited

    def request_refused(self, request_id: http_watch.RequestId, error: dict[str, Any]) -> None:
        if self.session is not None:
            sdk.fail_request(self.session, request_id, "", error)

    def cannot_begin(self, error: Exception) -> None:
        if self.session is None and not self.task.done():
            self._error = error
            self.task.cancel()

    def standing_stream_over(self) -> None:
        if self._on_stream_end is not None and not self.broken and not self._leaving:
            self._on_stream_end()

    # ---- what the read stream reports

    def _received(self, item: object) -> None:
        if not isinstance(item, Exception):
            return
        # pydantic's ValidationError is a ValueError: something that is no message. Others are of the
        # connection.
        garbage = isinstance(item, ValueError)
        self._hint = (
            "the server sent something that is no JSON-RPC message"
            if garbage
            else f"the connection to the server failed ({verdict.describe(item, self._clean)})"
        )
        if self._target.transport == "sse":
            # It may have been anybody's answer.
            self._transport_ended(self._hint)
        elif garbage and sdk.generation() == 1:
            # SDK 2.x fails the request by itself; here it would wait until its stream ends.
            for request_id in self._watch.possible_victims():
                self.request_over(request_id, self._hint)

    def _stream_ended(self) -> None:
        self._transport_ended(self._hint or "the server ended the connection")

    # ---- states

    def _transport_ended(self, problem: str) -> None:
        """No answer can come any more: fail what waits for one, and leave the contexts."""
        if self._leaving:
            return
        self._is_unanswered = True
        self._break(problem)
        sdk.fail_requests(self.session, problem)
        self._leaving = True
        self.shutdown_event.set()

    def _break(self, problem: str) -> None:
        if self.broken:
            return
        self.broken = True
        self.problem = problem
        logger.debug("lost session: %s: %s", safe_url(self._target.url), problem)
        self._gravest = verdict.LOST
        self._tell(verdict.LOST)
        self._on_verdict = None

    def _doubt(self, seen: Verdict, problem: str) -> None:
        if self.broken:
            return
        logger.debug("doubtful session: %s: %s", safe_url(self._target.url), problem)
        if self._gravest is not verdict.FAILING:
            self._gravest = seen
        self._tell(seen)

    def _given_up(self) -> None:
        """A caller was cancelled, or its time was up, before the answer came."""
        if not self._leaving:
            self._doubt(verdict.DOUBTFUL, "a request was given up before its answer came")

    def _tell(self, seen: Verdict) -> None:
        if self._on_verdict is None:
            return
        try:
            self._on_verdict(seen)
        except Exception as error:
            self._loop.call_exception_handler({"message": "on_verdict callback failed", "exception": error})

    # ---- the task

    async def _run(self) -> None:
        try:
            with no_secrets_logged(self._clean):
                await self._serve()
        except BaseException as error:
            cause = verdict.real_cause(error)
            if isinstance(cause, (KeyboardInterrupt, SystemExit, GeneratorExit)):
                # GeneratorExit: the loop is gone, and this may be any thread.
                raise
            if self._error is None or not isinstance(cause, asyncio.CancelledError):
                self._error = cause
            if not isinstance(cause, asyncio.CancelledError):
                shown = verdict.describe(cause, self._clean)
                self._hint = self._hint or f"the session's transport failed ({shown})"
        self._ended()

    async def _serve(self) -> None:
        target = self._target
        native = self._is_native
        factory = (
            self._watch.factory(target.client_factory)
            if native and target.client_factory
            else target.client_factory
        )
        if native:
            http_client.check_url(target.url)
        async with sdk.open_streams(
            target.transport, target.url, target.headers, target.timeout, factory, target.namespace
        ) as (incoming, outgoing):
            read = WatchedReadStream(incoming, self._received, self._stream_ended) if native else incoming
            # SDK 2.x says itself that a transport has ended.
            failure = self._gone_error if sdk.generation() == 1 else None
            write = WatchedWriteStream(outgoing, self._clean, failure) if native else outgoing
            session = sdk.new_session(read, write, target.message_handler, target.namespace)
            if native:
                sdk.on_given_up(session, self._given_up)
            try:
                async with session:
                    self.session = session
                    await self._live(session)
            finally:
                # Once more: the session took requests until it had closed its own side.
                self._fail_requests(session)

    async def _live(self, session: Any) -> None:
        try:
            await session.initialize()
            self._initialized = True
            self._ready.set_result(True)
            await self.shutdown_event.wait()
        except GeneratorExit:
            raise
        except BaseException as error:
            # Noted here too: the contexts around this may swallow it.
            self._error = error
            if isinstance(error, asyncio.CancelledError):
                # anyio says so when it cancels: then a task of the transport has failed.
                by_scope = "cancel scope" in str(error)
                self._is_unanswered = self._is_unanswered or by_scope
                self._hint = self._hint or (
                    "the session's transport failed" if by_scope else "the session's task was cancelled"
                )
            self._leave(session)
            raise
        else:
            self._leave(session)

    def _leave(self, session: Any) -> None:
        """Before the contexts are left, which may take a while."""
        self._leaving = True
        if not self.shutdown_event.is_set():
            self._break(self._farewell())
        self._fail_requests(session)
        if self._closer is None:
            # Nobody else bounds the goodbye, and a server that is gone may not answer it.
            self._deadline = self._loop.call_later(CLOSE_TIMEOUT_SECONDS, self.task.cancel)

    def _fail_requests(self, session: Any) -> None:
        if not self._loop.is_closed():
            sdk.fail_requests(session, self._farewell())

    def _farewell(self) -> str:
        """Why requests fail that are in flight when the session ends."""
        if self.broken or not self.shutdown_event.is_set():
            return self.problem or self._hint or "the session ended by itself"
        return "the session was closed"

    def _gone_error(self) -> Exception:
        return sdk.make_error(sdk.CONNECTION_CLOSED, self._farewell(), self._target.namespace)

    def _ended(self) -> None:
        """Nothing is open any more."""
        if self._deadline is not None:
            self._deadline.cancel()
        if self.session is not None:
            self._fail_requests(self.session)
        if not self.shutdown_event.is_set():
            self._break(self._farewell())
        self._not_ready()
        self._on_verdict = self._on_stream_end = None
        self._watch.detach()

    def _not_ready(self, _task: object = None) -> None:
        if not self._ready.done():
            self._ready.set_result(False)

    def _creation_error(self) -> BaseException:
        """Why there is no session, and whose fault that is."""
        error = self._plain_creation_error()
        if verdict.fault_of(error) is verdict.Fault.SERVER and are_unusually_long(self._target.headers):
            # Many servers end the connection where they do not say HTTP 431.
            verdict.blame(error, verdict.Fault.CALLER)
        return self._without_secrets(error)

    def _plain_creation_error(self) -> BaseException:
        if self._watch.failure is not None:
            return self._watch.failure
        error = verdict.real_cause(self._error) if self._error is not None else None
        if error is None or isinstance(error, asyncio.CancelledError):
            failure = sdk.make_error(
                sdk.CONNECTION_CLOSED, self._hint or "the session ended", self._target.namespace
            )
            # Without a sign of the server's, its task was cancelled by somebody else.
            fault = verdict.Fault.SERVER if self._is_silent() else verdict.Fault.UNKNOWN
            verdict.blame(failure, fault)
            return failure
        if self._is_native and isinstance(error, sdk.error_class()):
            if self._is_silent() or not sdk.is_answer(error) or not self._is_answered():
                # No server has sent this: the SDK, or this class, made it up.
                verdict.blame(error, verdict.Fault.SERVER)
        elif self._is_native and verdict.fault_of(error) is None and self._watch.is_mcp:
            verdict.blame(error, verdict.Fault.REFUSAL)  # such as another version of the protocol
        response = getattr(error, "response", None)
        if isinstance(error, sdk.http_library().HTTPStatusError) and response is not None:
            # The library's message shows the whole URL.
            return http_watch.status_error(response)
        return error

    def _is_silent(self) -> bool:
        return self._is_unanswered or self._watch.silences > 0

    def _is_answered(self) -> bool:
        """Whether a message answered ``initialize``; over SSE, whatever is no message ends the session."""
        return self._watch.is_mcp or self._target.transport == "sse"

    def _without_secrets(self, error: BaseException) -> BaseException:
        """The same, or one like it where a library or the server echoes what must not be shown."""
        if not any(self._clean.finds_in(text) for text in verdict.texts_of(error)):
            return error
        message = self._clean(str(error))
        clean = sdk.make_error(
            sdk.error_code(error) or sdk.CONNECTION_CLOSED, message, self._target.namespace
        )
        fault = verdict.fault_of(error)
        if fault is not None:
            verdict.blame(clean, fault)
        return clean


async def open_session(
    url: str,
    headers: Mapping[str, str] | None,
    transport_type_value: sdk.TransportName,
    *,
    httpx_client_factory: sdk.ClientFactory | None = None,
    timeout: float = 30.0,
    message_handler: Any = None,
    namespace: object | None = None,
    verify: http_client.Verify = True,
    cert: http_client.Cert = None,
    network: NetworkSettings = DEFAULT_NETWORK,
    close_timeout: float = CLOSE_TIMEOUT_SECONDS,
) -> SessionOwner:
    """Open a session and initialize it.

    Args:
        url: the MCP endpoint.
        headers: the caller's; see :func:`upstream_headers`.
        transport_type_value: ``"sse"`` or ``"streamablehttp"``.
        httpx_client_factory: makes the HTTP client, called with ``headers``, ``timeout`` and ``auth``.
            Default: clients that share a TLS context.
        timeout: seconds, the transport's; default 30. The whole of the creation is for the caller to bound.
        message_handler: given to the ``ClientSession``.
        namespace: see :mod:`mcpgateway_pool.upstream.sdk`.
        verify: TLS trust of the default factory, see ``http_client.tls_context``.
        cert: client certificate of the default factory.
        network: of the default factory's connections.
        close_timeout: seconds to bound the cleaning up after a failure or a cancellation; default 5.

    Returns:
        The owner; its session is initialized.

    Raises:
        ImportError: the MCP SDK is not installed.
        TypeError, ValueError: bad headers; see :func:`upstream_headers`.
        asyncio.CancelledError: cancelled; nothing is left behind.
        Exception: why connecting or initializing failed, taken out of exception groups; its message shows no
            credentials. See :mod:`mcpgateway_pool.verdict`.
    """
    if transport_type_value not in ("sse", "streamablehttp"):
        raise ValueError(
            f"the transport must be 'sse' or 'streamablehttp', not {safe_repr(transport_type_value)}"
        )
    try:
        sent = upstream_headers(headers)
    except (TypeError, ValueError) as error:
        verdict.blame(error, verdict.Fault.CALLER)
        raise
    factory: sdk.ClientFactory | None
    if not sdk.is_native(transport_type_value, namespace):
        factory = httpx_client_factory
    elif httpx_client_factory is None:
        await http_client.build_tls_context_aside(verify, cert)
        factory = http_client.default_client_factory(verify, cert, network)
    else:
        factory = _callers_factory(httpx_client_factory)
    owner = SessionOwner(
        _Target(url, sent, transport_type_value, factory, timeout, message_handler, namespace)
    )
    try:
        # Shielded only so that the future survives a cancellation of this call.
        ready = await asyncio.shield(owner._ready)
    except BaseException:
        await owner.close(close_timeout)
        raise
    if ready:
        return owner
    # The task has left its contexts, and ends in this very turn of the loop.
    await asyncio.wait({owner.task})
    failure = owner._creation_error()
    raise failure from failure.__cause__


def _callers_factory(factory: sdk.ClientFactory) -> sdk.ClientFactory:
    """The caller's factory; what it raises is marked as the caller's."""

    def marked(headers: dict[str, str] | None = None, timeout: Any = None, auth: Any = None) -> Any:
        try:
            return check_client(factory(headers=headers, timeout=timeout, auth=auth))
        except Exception as error:
            verdict.blame(error, verdict.Fault.CALLER)
            raise

    return marked


def _spawn(coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
    task = asyncio.get_running_loop().create_task(coroutine, name=name, context=contextvars.Context())
    keep(task)
    return task


__all__ = ["SessionOwner", "open_session", "upstream_headers"]
