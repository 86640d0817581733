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

from .calls import Calls
from .calls.call_lease import CallLease
from .calls.callers import CallWithoutSession
from .calls.entrances import open_entrances
from .registry_pool import BY_DOWNSTREAM_SESSION, BY_GATEWAY, RegistryPool, downstream_session

MODULE = "mcpgateway.services.upstream_session_registry"
NAME = "UpstreamSessionRegistry"

_TRANSPORTS = {transport.value: transport for transport in TransportType}


class UpstreamSessionRegistry:
    """One upstream session for each downstream session and gateway; nothing is shared between downstream
    sessions.

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
        self._pool = RegistryPool(self, self._release, settings)
        self._calls = Calls(self, self._release, settings)
        open_entrances(self._release.logger)

    @property
    def _sessions(self) -> dict[tuple[str, str], Any]:
        return self._pool.sessions

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
        where there is none.

        Args:
            downstream_session_id: whose it is.
            gateway_id: the gateway, and the label of the series.
            url: of the MCP server; a session to another one is closed, and a new one opened.
            headers: sent with a new session.
            transport_type: of the release's ``TransportType``.
            httpx_client_factory: makes the HTTP client of a new session.

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
        return UpstreamSessionLease(self._pool, downstream_session_id, arguments)

    async def evict_session(self, downstream_session_id: str) -> int:
        """Close every session of a downstream session; those in use when their calls have ended.

        Returns:
            How many.
        """
        return await self._pool.evict(BY_DOWNSTREAM_SESSION, downstream_session_id)

    async def evict_gateway(self, gateway_id: str) -> int:
        """Close every session to a gateway; those in use when their calls have ended.

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

    __slots__ = ("_arguments", "_downstream_session_id", "_pool", "_ticket", "_upstream")

    def __init__(self, pool: RegistryPool, downstream_session_id: str, arguments: AcquireArguments) -> None:
        self._pool = pool
        self._downstream_session_id = downstream_session_id
        self._arguments = arguments
        self._upstream: Any = None
        self._ticket: Ticket | None = None

    async def __aenter__(self) -> Any:
        pool, downstream, arguments = self._pool, self._downstream_session_id, self._arguments
        url, transport, gateway_id = arguments.url, arguments.transport_type, arguments.gateway_id
        if not downstream:
            raise ValueError("downstream_session_id must not be empty: it is whose session this is")
        if not gateway_id:
            raise ValueError("gateway_id must not be empty")
        pool.look_after((downstream, gateway_id), url, transport)
        # Without headers: they are no part of the key, and go to the server with a new session only.
        upstream = _acquire(pool, url, None, transport, downstream, gateway_id)
        if upstream.__class__ is Pending:
            token = downstream_session.set(downstream)
            try:
                upstream = await acquire_slowly(pool, upstream, arguments)
            finally:
                downstream_session.reset(token)
        self._ticket = pool.ticket_of(upstream)
        self._upstream = upstream
        upstream.last_used = time.time()
        upstream.use_count += 1
        return upstream

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pool, upstream, ticket = self._pool, self._upstream, self._ticket
        self._upstream = self._ticket = None
        if ticket is None:
            return
        if error is not None:
            pool.doubt_after_error(upstream)
        closing = pool.release_lease(ticket, VERDICT_GOOD)
        if isinstance(closing, asyncio.Task):
            await wait_for_goodbye(closing)
