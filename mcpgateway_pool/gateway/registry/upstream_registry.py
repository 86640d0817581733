"""The registry of ContextForge 1.0.0 and later, on this pool's core.

It stands in the release's own module under the release's own name; everything else there (the session
factory, ``UpstreamSession``, ``init_upstream_session_registry()`` …) stays, and is used from there.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from mcpgateway_pool._core import VERDICT_GOOD, Pending, Ticket
from mcpgateway_pool._core import acquire as _acquire
from mcpgateway_pool.config import TransportType
from mcpgateway_pool.gateway import settings as own_settings
from mcpgateway_pool.pool.release import wait_for_goodbye
from mcpgateway_pool.pool.session_context import AcquireArguments
from mcpgateway_pool.pool.waiting import acquire_slowly

from . import default_clients
from .calls import Calls
from .calls.call_lease import CallLease
from .calls.callers import CallWithoutSession, authenticated_user
from .calls.entrances import open_entrances
from .registry_pool import BY_DOWNSTREAM_SESSION, BY_GATEWAY, USER, RegistryPool, Whose, opening_for
from .session_headers import Use

MODULE = "mcpgateway.services.upstream_session_registry"
NAME = "UpstreamSessionRegistry"

_TRANSPORTS = {transport.value: transport for transport in TransportType}


class UpstreamSessionRegistry:
    """One upstream session for each downstream session, gateway and user; nothing is shared between
    downstream sessions, nor between users of whom one names the other's downstream session.

    Args:
        session_factory: opens a session, as the release's own does; for tests.
        message_handler_factory: as the release's.
        idle_validation_seconds: a session unused for longer is checked before it is handed out, default 60.
        health_check_timeout_seconds: for each request of a check, default 5.
        session_create_timeout_seconds: to open a session, default 30.
        shutdown_timeout_seconds: to end a session before its task is cancelled, default 5.

    Raises:
        SettingError: one of our environment variables has a value that it cannot have.
        TypeError, ValueError: a setting of the wrong type, or out of its range.
    """

    def __init__(
        self,
        *,
        session_factory: Callable[..., Any] | None = None,
        message_handler_factory: Callable[..., Any] | None = None,
        idle_validation_seconds: float = 60.0,
        health_check_timeout_seconds: float = 5.0,
        session_create_timeout_seconds: float = 30.0,
        shutdown_timeout_seconds: float = 5.0,
    ) -> None:
        self._session_factory = session_factory
        self._message_handler_factory = message_handler_factory
        self._idle_validation_seconds = idle_validation_seconds
        self._health_check_timeout_seconds = health_check_timeout_seconds
        self._session_create_timeout_seconds = session_create_timeout_seconds
        self._shutdown_timeout_seconds = shutdown_timeout_seconds
        self._release = importlib.import_module(MODULE)
        settings = own_settings.read_all()
        settings.use_retention()
        self._pool = RegistryPool(self, self._release, settings)
        self._calls = Calls(self, self._release, settings)
        open_entrances(self._release.logger)
        default_clients.replace(self._release)

    @property
    def _sessions(self) -> dict[tuple[str, str], Any]:
        """By downstream session and gateway; of several users of one downstream session, the newest."""
        found = self._pool.sessions
        return {(whose.downstream_session_id, whose.gateway_id): found[whose] for whose in found}

    def acquire(
        self,
        *,
        downstream_session_id: str,
        gateway_id: str,
        url: str,
        headers: dict[str, str] | None,
        transport_type: Any,
        httpx_client_factory: Callable[..., Any] | None = None,
    ) -> UpstreamSessionLease | CallLease:
        """The session of a downstream session at a gateway, for the length of an ``async with`` block; opened
        where there is none. Whose it is, is also who calls, as the release has authenticated it.

        Args:
            downstream_session_id: whose it is.
            gateway_id: the gateway, and the label of the series.
            url: of the MCP server; a session to another one is closed, and a new one opened.
            headers: sent with the requests of this block, also on a session that is open already.
            transport_type: of the release's ``TransportType``.
            httpx_client_factory: makes the HTTP client of a new session; None for the release's default.

        Raises:
            ValueError: on entry, where an id is empty.
            CircuitOpenError, AcquireTimeoutError, PoolExhaustedError: on entry, where such a limit is set.
            Exception: on entry, what the factory raised.
        """
        arguments = AcquireArguments(
            url,
            headers,
            _TRANSPORTS[getattr(transport_type, "value", transport_type)],
            httpx_client_factory,
            None,
            downstream_session_id,
            gateway_id,
        )
        if isinstance(downstream_session_id, CallWithoutSession):
            return self._calls.lease(downstream_session_id, arguments)
        whose = Whose(downstream_session_id, gateway_id, authenticated_user())
        return UpstreamSessionLease(self._pool, whose, arguments)

    async def evict_session(self, downstream_session_id: str) -> int:
        """Close every session of a downstream session, whoever its users are: idle ones now, those in use
        when their calls have ended, or fail after ``shutdown_timeout_seconds``. It waits for the idle ones
        only, and no new call waits for any of them.

        Returns:
            How many.
        """
        return await self._pool.evict(BY_DOWNSTREAM_SESSION, downstream_session_id)

    async def evict_gateway(self, gateway_id: str) -> int:
        """Close every session to a gateway; see :meth:`evict_session`.

        Returns:
            How many.
        """
        counts = await asyncio.gather(
            self._pool.evict(BY_GATEWAY, gateway_id), self._calls.evict_gateway(gateway_id)
        )
        return sum(counts)

    async def close_all(self) -> None:
        """Close every session: idle ones now, those in use when their calls have ended, at the latest after
        ``shutdown_timeout_seconds``. The registry stays usable: the next call opens a new session.
        """
        timeout = self._shutdown_timeout_seconds
        await asyncio.gather(self._pool.close_generation(timeout), self._calls.close(timeout))

    def snapshot(self) -> Any:
        """The release's ``RegistrySnapshot``. Its ``evictions`` are all sessions closed, for whatever reason,
        but for those that failed a health check.
        """
        totals = [self._pool.totals(), self._calls.totals()]

        def total(name: str) -> int:
            return sum(found[name] for found in totals)

        recreates = sum(found["evictions"]["health_check"] for found in totals)
        return self._release.RegistrySnapshot(
            active_sessions=total("size"),
            creates=total("creates"),
            reuses=total("hits"),
            health_check_failures=total("health_check_failures"),
            health_check_recreates=recreates,
            evictions=sum(sum(found["evictions"].values()) for found in totals) - recreates,
        )


class UpstreamSessionLease:
    """One call's use of a session; what :meth:`UpstreamSessionRegistry.acquire` returns. Use it once."""

    __slots__ = ("_arguments", "_pool", "_ticket", "_upstream", "_use", "_whose")

    def __init__(self, pool: RegistryPool, whose: Whose, arguments: AcquireArguments) -> None:
        self._pool = pool
        self._whose = whose
        self._arguments = arguments
        self._upstream: Any = None
        self._ticket: Ticket | None = None
        self._use: Use | None = None

    async def __aenter__(self) -> Any:
        pool, whose, arguments = self._pool, self._whose, self._arguments
        downstream, gateway_id, user = whose
        if not downstream:
            raise ValueError("downstream_session_id is required: it says whose session this is")
        if not gateway_id:
            raise ValueError("gateway_id is required")
        pool.look_after(whose, arguments)
        # The call's headers are no part of the key: they go to the server with the call.
        identity = None if user is None else {USER: user}
        upstream = _acquire(pool, arguments.url, identity, arguments.transport_type, downstream, gateway_id)
        if upstream.__class__ is Pending:
            token = opening_for.set(whose)
            try:
                upstream = await acquire_slowly(pool, upstream, arguments)
            finally:
                opening_for.reset(token)
        self._ticket = pool.ticket_of(upstream)
        self._upstream = upstream
        watch = pool.watch_of(upstream)
        if watch is not None:
            headers = watch.headers.use(arguments.headers)
            if pool.is_shared:
                self._use = watch.headers.begin_use(headers)
        upstream.last_used = time.time()
        upstream.use_count += 1
        return upstream

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pool, upstream, ticket, use = self._pool, self._upstream, self._ticket, self._use
        self._upstream = self._ticket = self._use = None
        if use is not None:
            use.session.end_use(use)
        if ticket is None:
            return
        if error is not None:
            pool.doubt_after_error(upstream)
        closing = pool.release_lease(ticket, VERDICT_GOOD)
        if isinstance(closing, asyncio.Task):
            await wait_for_goodbye(closing)
