"""One call's use of a pooled session; sent once more where the server certainly did not execute it."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
import time
from collections.abc import Iterator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import anyio

from mcpgateway_pool import _core
from mcpgateway_pool._core import VERDICT_BROKEN, VERDICT_GOOD, Pending, Ticket
from mcpgateway_pool._core import acquire as _acquire
from mcpgateway_pool.errors import AcquireTimeoutError, CircuitOpenError, PoolExhaustedError
from mcpgateway_pool.labels import gateway_label
from mcpgateway_pool.pool.release import wait_for_goodbye
from mcpgateway_pool.pool.waiting import acquire_slowly

from . import tracing
from .call_pool import CallPool, Opening, opening
from .call_watch import CallRequests
from .callers import release_settings
from .release_errors import grouped

if TYPE_CHECKING:
    from mcpgateway_pool.pool.session_context import AcquireArguments

_NO_ROOM = (AcquireTimeoutError, PoolExhaustedError, CircuitOpenError)


class CallLease:
    """What the release enters in place of the registry's own lease. Use it once.

    Args:
        pool: of the calls.
        arguments: of the acquire; the user identity is the key, the headers are those of the session.
        owner: user and gateway.
        own_headers: those of this call alone.
        is_anonymous: whether its acquires are counted as such.
    """

    def __init__(
        self,
        pool: CallPool,
        arguments: AcquireArguments,
        owner: tuple[object, ...],
        own_headers: dict[str, str],
        *,
        is_anonymous: bool = False,
    ) -> None:
        self._pool = pool
        self._arguments = arguments
        self._owner = owner
        self._headers = own_headers
        self._is_anonymous = is_anonymous
        self._is_traced = False
        self._span = contextlib.ExitStack()
        self._upstream: Any = None
        self._ticket: Ticket | None = None
        self._requests: CallRequests | None = None
        self._shown: Exception | None = None

    async def __aenter__(self) -> PooledUpstream:
        arguments = self._arguments
        headers = {**self._headers, **tracing.correlation_headers()}
        self._is_traced = tracing.is_traced()
        if self._is_traced:
            made = tracing.span(arguments.gateway_id or "", arguments.url, arguments.transport_type.value)
            self._span.enter_context(made)
            headers |= tracing.trace_headers()
        self._headers = headers
        try:
            await self._begin()
        except BaseException as error:
            self._span.__exit__(type(error), error, error.__traceback__)
            raise
        return PooledUpstream(self)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._end(error)
        finally:
            self._span.__exit__(kind, error, trace)
        if isinstance(error, Exception) and error is not self._shown:
            # So the release expects it: it answers otherwise to a TimeoutError that comes alone.
            raise grouped(error)

    async def _begin(self) -> None:
        """Get a session: one of the pool's; where it has no room, one of this call's own."""
        pool, arguments = self._pool, self._arguments
        requests = CallRequests(self._headers)
        try:
            upstream = await self._acquire(requests)
            self._ticket = pool.ticket_of(upstream)
        except _NO_ROOM as error:
            with self._opening(requests):
                upstream = await pool.open_unpooled(arguments, error)
        self._upstream, self._requests = upstream, requests
        upstream.last_used = time.time()
        upstream.use_count += 1
        watch = pool.watch_of(upstream)
        if watch is not None:
            watch.requests = requests

    async def _acquire(self, requests: CallRequests) -> Any:
        pool, arguments = self._pool, self._arguments
        upstream = _acquire(
            pool,
            arguments.url,
            None,
            arguments.transport_type,
            arguments.user_identity,
            arguments.gateway_id,
            self._is_anonymous,
        )
        while upstream.__class__ is Pending:
            with self._opening(requests):
                upstream = await acquire_slowly(pool, upstream, arguments)
        return upstream

    @contextlib.contextmanager
    def _opening(self, requests: CallRequests) -> Iterator[None]:
        """A session that is opened in this block is for this call."""
        wanted = Opening(self._arguments.user_identity or "", self._owner, requests)
        token = opening.set(wanted)
        try:
            yield
        except Exception as error:
            if wanted.failure is None:
                raise
            raise wanted.failure from error
        finally:
            opening.reset(token)

    async def _end(self, error: BaseException | None) -> None:
        """Give the session back."""
        pool, upstream, ticket = self._pool, self._upstream, self._ticket
        self._upstream = self._ticket = None
        if upstream is None:
            return
        watch = pool.watch_of(upstream)
        if watch is not None:
            watch.requests = None
        if ticket is None:
            await pool.close_unpooled(upstream)
            return
        if error is not None:
            pool.doubt_after_error(upstream)
        closing = pool.release_lease(ticket, VERDICT_GOOD)
        if isinstance(closing, asyncio.Task):
            await wait_for_goodbye(closing)

    # ---- the call itself

    @property
    def upstream(self) -> Any:
        """The release's session object that the call has now."""
        return self._upstream

    async def request(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """A request on the session, by that method of the SDK's; on another session where the first has lost
        it unexecuted.
        """
        if self._is_traced and name == "call_tool":
            kwargs["meta"] = tracing.meta_of_call(kwargs.get("meta"), self._headers)
        while True:
            if isinstance(self._shown, ExceptionGroup):
                raise self._shown  # with a session of its own, the call would have none any more
            requests, upstream = self._requests, self._upstream
            assert requests is not None
            requests.begin(_patience_seconds())
            try:
                return await getattr(upstream.session, name)(*args, **kwargs)
            except Exception as error:
                # On a fresh session it would have failed all the same.
                if upstream.use_count <= 1 or not self._was_not_executed(error):
                    watch = self._pool.watch_of(upstream)
                    shown = None if watch is None else watch.release_error(error)
                    if shown is None:
                        raise
                    self._shown = shown
                    raise shown from error
                lost = error
            _core.count_replay(gateway_label(self._arguments.gateway_id))
            await self._change_session(lost)

    def _was_not_executed(self, error: Exception) -> bool:
        requests = self._requests
        if requests is None or requests.may_be_executed or isinstance(error, TimeoutError):
            return False
        return requests.was_unknown or requests.count > 0 or self._upstream.is_closed

    async def _change_session(self, error: Exception) -> None:
        lost = self._upstream.session
        self._pool.suspect(self._upstream)
        ticket, self._ticket = self._ticket, None
        watch = self._pool.watch_of(self._upstream)
        if watch is not None:
            watch.requests = None
        if ticket is None:
            await self._pool.close_unpooled(self._upstream)
        else:
            self._pool.release_lease(ticket, VERDICT_BROKEN)
        self._upstream = None
        try:
            await self._begin()
        except Exception as failure:
            self._shown = failure if isinstance(failure, ExceptionGroup) else grouped(failure)
            raise self._shown from failure
        # 1.1 leaves there, before a call, which arguments of the tool are sent as headers, too.
        maps = getattr(lost, "_x_mcp_header_maps", None)
        if isinstance(maps, dict):
            self._upstream.session._x_mcp_header_maps.update(maps)


class PooledUpstream:
    """What the release gets: its own session object, but for :attr:`session`."""

    def __init__(self, lease: CallLease) -> None:
        self._lease = lease
        self.session = PooledSession(lease)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lease.upstream, name)


class PooledSession:
    """The SDK's session that the call has now; requests go through the lease."""

    __slots__ = ("_lease",)

    def __init__(self, lease: CallLease) -> None:
        self._lease = lease

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._lease.upstream.session, name)
        return partial(self._lease.request, name) if inspect.iscoroutinefunction(value) else value


def _patience_seconds() -> float | None:
    """How long the caller waits at most; None where neither it nor the release says."""
    left = anyio.current_effective_deadline() - anyio.current_time()
    if math.isfinite(left):
        return left
    # Services that set no deadline give this time to the client of a session of the call's own.
    return getattr(release_settings(), "health_check_timeout", None)
