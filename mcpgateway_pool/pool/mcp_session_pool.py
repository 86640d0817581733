"""MCPSessionPool: the C side decides; this side awaits what it decided.

The common path of :meth:`MCPSessionPool.acquire` and :meth:`MCPSessionPool.release` is one call into C each.
Everything else (waiting, creating, closing, checking) is a future or a task. Each has a file of its own;
:class:`.protocol.Pool` says what these need of the pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import logging
import weakref
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import fields
from types import TracebackType
from typing import Any, Self

from mcpgateway_pool import _core, config
from mcpgateway_pool._core import Pending, PoolCore, PooledSession, Ticket
from mcpgateway_pool._core import acquire as _acquire
from mcpgateway_pool._core import make_context as _make_context
from mcpgateway_pool._core import release as _release
from mcpgateway_pool.config import (
    IdentityExtractor,
    Isolation,
    MessageHandlerFactory,
    NetworkSettings,
    Settings,
    TransportType,
)
from mcpgateway_pool.errors import CircuitOpenError, PoolClosedError
from mcpgateway_pool.processes import add_pool, leave_to_parent
from mcpgateway_pool.prometheus import shared_counters
from mcpgateway_pool.standstill import Standstill
from mcpgateway_pool.timers import Timer
from mcpgateway_pool.upstream import health, http_client, sdk, session_owner
from mcpgateway_pool.upstream.http_watch import HttpWatch

from . import checking, identity, long_checkouts, shutdown, upkeep, views
from .breaker_causes import BreakerCauses
from .closing import close_session
from .newest import Newest
from .opening import open_session
from .recurring import RecurringWarnings
from .release import finish_release
from .server import Server
from .session_context import AcquireArguments, SessionContext
from .stats import PoolStats, describe, read_stats
from .waiting import acquire_slowly
from .warming import warm

logger = logging.getLogger("mcpgateway_pool")

_numbers = itertools.count(1)  # of pools without a name


class MCPSessionPool(PoolCore):
    """A pool of open MCP sessions, kept apart by user, URL, header identity, transport and gateway.

    One pool belongs to one event loop, the one in which it is first used. Times are in seconds, and are
    measured on a monotonic clock. A limit of 0 means unlimited where it says so.

    Args:
        max_sessions_per_key: sessions of one key, in whatever state, default 10; at least 1. Further callers
            wait, first come, first served.
        session_ttl_seconds: lifetime of a session, default 300.
        health_check_interval_seconds: an idle session unused for so long is checked, default 60.
        acquire_timeout_seconds: bound on waiting in ``acquire()``, default 30.
        session_create_timeout_seconds: bound on opening a session, after any waiting, default 30.
        circuit_breaker_threshold: consecutive failures to open a session that stop further attempts to its
            URL, default 5.
        circuit_breaker_reset_seconds: for how long, default 60; a failing probe doubles it, up to ten times.
        identity_headers: names of the headers that make an identity, in any case; default authorization,
            x-tenant-id, x-user-id, x-api-key, cookie, x-mcp-session-id.
        identity_extractor: function of the headers; returns the identity, or None: the headers decide.
        idle_pool_eviction_seconds: an idle session unused for so long is closed, default 600.
        default_transport_timeout_seconds: the transport's, where ``acquire()`` gives none, default 30.
        health_check_methods: asked in turn: ``ping``, ``list_tools``, ``list_prompts``, ``list_resources``,
            ``skip``; default ping, skip. An error answer asks the next; no answer is a failure. ``skip`` ends
            the chain well, for servers that cannot be asked.
        health_check_timeout_seconds: for each of these, default 5.
        message_handler_factory: function of (url, gateway id) that returns the session's message handler.
        max_total_keys: default 0, unlimited; beyond, the least recently used key that nobody uses goes.
        max_total_sessions: default 0, unlimited; beyond, the least recently used idle session goes.
        max_waiters: callers waiting for one key, default 0, unlimited; further ones are refused at once.
        max_creating_per_url: sessions being opened to one URL at once, default 32, so that many callers who
            reconnect at once are no stampede; further ones wait their turn. 0: unlimited.
        max_tracked_urls: URLs remembered for their failures alone, default 10,000.
        isolation: ``"identity"``, the default, or ``"session"``: a session is then never reused for another
            downstream session (header x-mcp-session-id), and used once where that header is missing.
        session_ttl_jitter: each lifetime is shortened by a random part of up to this, 0 to 1, default 0.1.
        health_checks_per_second: bound on checks in the background, default 10; 0: at hand-out alone.
        cleanup_timeout_seconds: bound on closing a session, default 5.
        clock: function that returns monotonic seconds, instead of the system's; for tests.
        name: of the pool, in its ``repr()`` and in warnings; default ``pool-1``, ``pool-2``, …
        network: how connections to servers notice that nobody is there any more; for clients that no
            ``httpx_client_factory`` has made.
        min_idle: sessions that are kept ready, idle, for each key that was used within the last
            ``session_ttl_seconds``, as far as the limits allow; default 0, at most ``max_sessions_per_key``.
        replace_sessions: open another session in the background before the lifetime of one in use ends, as
            far as the limits allow, so that no caller pays for that; default True.
        leak_detection_seconds: of a session that is checked out for longer, warn once, with the stack that
            acquired it; default 0, never. It costs some microseconds an acquire.

    Raises:
        TypeError, ValueError: a setting of the wrong type, or out of its range.
    """

    # Slots for what is its own: an instance whose __dict__ is not used has its methods called faster.
    __slots__ = (
        "__dict__",
        "__weakref__",
        "_direct_anonymous_count",
        "_name",
        "_opened_by",
        "_rpc_listener_task",
        "_settings",
        "_standstill",
        "_streamless",
        "_tasks",
        "_upkeep_timer",
        "_warnings",
    )

    DEFAULT_IDENTITY_HEADERS = frozenset(config.DEFAULT_IDENTITY_HEADERS)

    # The hook `_run_health_check_chain` where nobody has overridden it.
    _OWN_CHAINS: frozenset[Any]

    # Properties that views.add_read_views() makes.
    _hits: int
    _misses: int
    _health_check_failures: int
    _circuit_breaker_trips: int
    _pool_keys_evicted: int
    _sessions_reaped: int
    _evictions: int
    _anonymous_identity_count: int
    _pools: views.KeysView
    _active: views.KeysView

    def __init__(
        self,
        max_sessions_per_key: int = 10,
        session_ttl_seconds: float = 300.0,
        health_check_interval_seconds: float = 60.0,
        acquire_timeout_seconds: float = 30.0,
        session_create_timeout_seconds: float = 30.0,
        circuit_breaker_threshold: int = 5,
        circuit_breaker_reset_seconds: float = 60.0,
        identity_headers: Iterable[str] | None = None,
        identity_extractor: IdentityExtractor | None = None,
        idle_pool_eviction_seconds: float = 600.0,
        default_transport_timeout_seconds: float = 30.0,
        health_check_methods: Iterable[str] | None = None,
        health_check_timeout_seconds: float = 5.0,
        message_handler_factory: MessageHandlerFactory | None = None,
        max_total_keys: int = 0,
        max_total_sessions: int = 0,
        *,
        max_waiters: int = 0,
        max_creating_per_url: int = 32,
        max_tracked_urls: int = 10_000,
        isolation: Isolation = "identity",
        session_ttl_jitter: float = 0.1,
        health_checks_per_second: int = 10,
        cleanup_timeout_seconds: float = session_owner.CLOSE_TIMEOUT_SECONDS,
        clock: Callable[[], float] | None = None,
        name: str | None = None,
        network: NetworkSettings = config.DEFAULT_NETWORK,
        min_idle: int = 0,
        replace_sessions: bool = True,
        leak_detection_seconds: float = 0.0,
    ) -> None:
        given = locals()  # these arguments, which are the settings
        settings = Settings(**{field.name: given[field.name] for field in fields(Settings)})
        self._refuse_unknown_methods(settings.health_check_methods or ())
        self._setup(**settings.for_core())
        self._settings = settings
        self._name = settings.name or f"pool-{next(_numbers)}"
        self._rpc_listener_task: asyncio.Task[None] | None = None
        self._direct_anonymous_count = 0
        self._warnings = RecurringWarnings()
        self._opened_by = BreakerCauses(max_tracked_urls)
        self._streamless: Newest[str, None] = Newest(max_tracked_urls)
        self._forget_loop()
        if type(self)._create_session is _CREATE_SESSION and not _is_loop_running():
            with contextlib.suppress(ImportError):  # said by the first creation
                sdk.load()
        add_pool(self)
        shared_counters.open_file()

    # What :mod:`mcpgateway_pool.processes` asks.

    after_fork = PoolCore._after_fork

    @property
    def name(self) -> str:
        """Of the pool, as it was given, or made."""
        return self._name

    @property
    def closed(self) -> bool:
        """Whether the pool refuses acquires."""
        return self._closed

    @property
    def settings(self) -> Settings:
        """The settings, checked, as they are now."""
        return self._settings

    @property
    def has_been_used(self) -> bool:
        """Whether an acquire was answered."""
        totals = self._totals()  # not by names that a subclass may have made its own, and not be ready for
        return bool(totals.get("hits") or totals.get("misses"))

    def _forget_loop(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._upkeep_timer: Timer | None = None
        self._standstill: Standstill | None = None

    def _leave_to_parent(self) -> None:
        """In a forked child: what the parent has under way is not the child's to end."""
        leave_to_parent(self._tasks, self._upkeep_timer)
        self._forget_loop()

    # ---- acquire and release

    async def acquire(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        transport_type: TransportType = TransportType.STREAMABLE_HTTP,
        httpx_client_factory: Callable[..., Any] | None = None,
        timeout: float | None = None,
        user_identity: str | None = None,
        gateway_id: str | None = None,
        wait_timeout: float | None = None,
    ) -> PooledSession:
        """Check out a session, to be given back by :meth:`release`; :meth:`session` does both.

        An idle session is returned without suspending. Otherwise one is opened, or the caller waits its turn.
        A cancelled acquire loses nothing.

        Args:
            url: of the MCP server.
            headers: of the request; they decide the identity, and go to the server with a new session.
            transport_type: how to talk to the server.
            httpx_client_factory: makes the HTTP client of a new session, called with ``headers``, ``timeout``
                and ``auth``.
            timeout: the transport's, in seconds; default ``default_transport_timeout_seconds``.
            user_identity: the user; default ``"anonymous"``.
            gateway_id: the gateway; the label of the series, and part of the key.
            wait_timeout: how long this caller waits for a session, in seconds; default
                ``acquire_timeout_seconds``. Opening one, after that, is bounded by
                ``session_create_timeout_seconds``.

        Returns:
            The session. It is the same object at each of its checkouts.

        Raises:
            TypeError, ValueError: a bad argument.
            PoolClosedError: the pool is closed.
            CircuitOpenError: the URL's circuit breaker is open.
            AcquireTimeoutError: no session in ``wait_timeout``.
            PoolExhaustedError: a total limit or ``max_waiters`` is reached, and waiting would not help.
            SessionCreateError: a session could not be opened (SessionCreateTimeoutError: not in time).
            RuntimeError: the pool belongs to another event loop.
        """
        if timeout is not None:
            config.duration("timeout", timeout)
        if wait_timeout is not None:
            config.seconds("wait_timeout", wait_timeout)
        pooled = _acquire(self, url, headers, transport_type, user_identity, gateway_id)
        if pooled.__class__ is not Pending:
            return pooled  # type: ignore[no-any-return]
        return await acquire_slowly(
            self,
            pooled,
            AcquireArguments(
                url,
                headers,
                transport_type,
                httpx_client_factory,
                timeout,
                user_identity,
                gateway_id,
                wait_timeout,
            ),
        )

    async def release(self, pooled: PooledSession, *, discard: bool = False) -> None:
        """Give a session back. Returns at once, unless it has to be closed: the close has begun then, is
        waited for 0.1 s at most, and goes on in the background, bounded by ``cleanup_timeout_seconds``.

        A session that is not checked out is left alone, which is logged. One that was lent again meanwhile
        cannot be told from its new holder's: :meth:`session` releases exactly its own checkout, prefer that.
        A session that this pool never gave out is closed.

        Args:
            pooled: what :meth:`acquire` returned.
            discard: close it instead of pooling it.
        """
        closing = _release(self, pooled, discard)
        if closing is not None:
            await finish_release(self, pooled, closing)

    def session(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        transport_type: TransportType = TransportType.STREAMABLE_HTTP,
        httpx_client_factory: Callable[..., Any] | None = None,
        timeout: float | None = None,
        user_identity: str | None = None,
        gateway_id: str | None = None,
        wait_timeout: float | None = None,
    ) -> SessionContext:
        """Check out a session for the length of an ``async with`` block; arguments as of :meth:`acquire`.

        When the block raises, the exception goes on, and the session is pooled again, unless it is lost: its
        connection has failed, or its server knows it no more.
        """
        if timeout is not None:
            config.duration("timeout", timeout)
        if wait_timeout is not None:
            config.seconds("wait_timeout", wait_timeout)
        return _make_context(
            SessionContext,
            self,
            url,
            headers,
            transport_type,
            httpx_client_factory,
            timeout,
            user_identity,
            gateway_id,
            wait_timeout,
        )

    def server(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        transport_type: TransportType = TransportType.STREAMABLE_HTTP,
        httpx_client_factory: Callable[..., Any] | None = None,
        timeout: float | None = None,
        user_identity: str | None = None,
        gateway_id: str | None = None,
    ) -> Server:
        """For programs that talk to the same place again and again: ``async with server.session()``.

        Arguments as of :meth:`acquire`. The headers are copied now.
        """
        arguments = AcquireArguments.to_keep(
            url, headers, transport_type, httpx_client_factory, timeout, user_identity, gateway_id
        )
        return Server(self, arguments)

    async def warm(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        transport_type: TransportType = TransportType.STREAMABLE_HTTP,
        httpx_client_factory: Callable[..., Any] | None = None,
        timeout: float | None = None,
        user_identity: str | None = None,
        gateway_id: str | None = None,
        *,
        sessions: int = 1,
    ) -> int:
        """Open sessions now for callers to come, within all limits, and in places that nobody else wants.

        Arguments as of :meth:`acquire`; ``sessions`` is how many idle ones there are to be, default 1.
        Cancelled, it begins no further ones, and those under way finish into the pool.

        Returns:
            How many idle ones there are now, which is fewer where a limit is reached, or where one failed.

        Raises:
            TypeError, ValueError: a bad argument.
            PoolClosedError, CircuitOpenError: as of :meth:`acquire`.
            Exception: why the first one could not be opened, where there is none now.
        """
        arguments = AcquireArguments.to_keep(
            url, headers, transport_type, httpx_client_factory, timeout, user_identity, gateway_id
        )
        return await warm(self, arguments, config.count("sessions", sessions))

    # ---- open, drain and close

    async def open(self) -> None:
        """Make ready: import the SDK in a thread, and belong to the event loop that runs. Opens no session.

        Not required: the first acquire does the same. Opening twice is harmless.

        Raises:
            ImportError: the MCP SDK is not installed, and the pool is to open sessions by it.
            PoolClosedError: the pool is closed.
            RuntimeError: the pool belongs to another event loop.
        """
        if self._closed:
            raise PoolClosedError("Session pool is closed")
        self._run_effects()  # adopts the loop
        if type(self)._create_session is _CREATE_SESSION:
            await sdk.load_aside()

    async def close(self) -> None:
        """The same as :meth:`close_all`."""
        await self.close_all()

    async def drain_all(self) -> None:
        """Replace every session, as after certificates were rotated.

        Idle sessions are closed now, and that is waited for, bounded. Those in use finish their call, and are
        closed when released. None opened before is handed out again. Shared TLS contexts are dropped.
        """
        http_client.drop_tls_contexts()
        await shutdown.drain(self)

    async def close_all(self) -> None:
        """Close the pool: refuse acquires, wake everyone who waits with PoolClosedError, close every session.

        Sessions are closed in parallel, each bounded by ``cleanup_timeout_seconds``; calls in flight fail.
        Calling it again, also at the same time, waits for the same end.
        """
        await shutdown.close(self)

    async def __aenter__(self) -> Self:
        with contextlib.suppress(ImportError):  # said by the first creation
            await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close_all()

    # ---- hooks: may be overridden on a subclass, on the class or on one instance

    async def _create_session(
        self,
        url: str,
        headers: dict[str, str] | None,
        transport_type: TransportType,
        httpx_client_factory: Callable[..., Any] | None,
        timeout: float | None = None,
        gateway_id: str | None = None,
    ) -> PooledSession:
        """Open a session.

        Raises:
            SessionCreateError: with the cause chained; its message shows no credentials.
        """
        return await open_session(
            self, url, headers, transport_type, httpx_client_factory, timeout, gateway_id
        )

    async def _close_session(self, pooled: Any) -> None:
        """Close a session and its transport, bounded by ``cleanup_timeout_seconds``."""
        await close_session(pooled, self._cleanup_timeout())

    async def _validate_session(self, pooled: Any) -> bool:
        """Whether an idle session can be handed out: open, within its lifetime, checked where that is due.

        Overridden, it is asked at each hand-out of an idle session. By default the pool knows by itself, and
        only calls :meth:`_run_health_check_chain`.
        """
        settings = self._settings
        if pooled.is_closed or pooled.age_seconds > settings.session_ttl_seconds:
            return False
        if pooled.idle_seconds > settings.health_check_interval_seconds:
            return await self._run_health_check_chain(pooled)
        return True

    async def _run_health_check_chain(self, pooled: Any) -> bool:
        """Whether the server still answers on this session, as the gateway's own pool tells it: a time-out or
        an unknown method asks the next of ``health_check_methods``, another error is a failure, ``skip`` a
        success.

        Overridden, it is asked at each check; by default the pool's own checks go by answers instead.
        """
        settings = self._settings
        return await health.run_gateways_chain(
            pooled, settings.health_check_methods or (), settings.health_check_timeout_seconds, self._warn
        )

    def _compute_identity_hash(self, headers: dict[str, str] | None) -> str:
        """How the header identity is shown: SHA-256 in hex, or ``"anonymous"``.

        Overridden, its result takes the place of the header identity in the key.
        """
        identity_key = self._identity_key(headers)
        if identity_key == "anonymous" and not self._note_anonymous():
            self._direct_anonymous_count += 1
        return identity_key

    def _make_pool_key(
        self,
        url: str,
        headers: dict[str, str] | None,
        transport_type: TransportType,
        user_identity: str,
        gateway_id: str | None = None,
    ) -> views.PoolKey:
        """How a key is shown: (user, url, header identity, transport, gateway id), identities as digests.

        Overridden, its result is the key.
        """
        shown = self._compute_identity_hash(headers)
        return (views.shown_user(user_identity), url, shown, transport_type.value, gateway_id or "")

    # ---- what subclasses for a gateway replace

    def _refuse_unknown_methods(self, methods: Iterable[str]) -> None:
        """Refuses health check methods that do not exist."""
        checking.refuse_unknown(methods)

    def _sdk_namespace(self) -> object | None:
        """Where the SDK's names are looked up at each use; None for the SDK itself."""
        return None

    def _log(self) -> logging.Logger:
        """Where this pool's own messages go."""
        return logger

    def _cleanup_timeout(self) -> float:
        """Bound on closing a session, in seconds; asked at each close."""
        return self._settings.cleanup_timeout_seconds

    def _context_ahead(self, pooled: Any) -> contextvars.Context:
        """What to open a session in that nobody waits for, and that is to be like this one."""
        return contextvars.Context()

    async def _permit_creation(self, headers: dict[str, str] | None) -> None:
        """Raises, before a session is created, what forbids it here; that is no failure of the server."""

    def _affinity_metrics(self) -> dict[str, Any]:
        """The part ``session_affinity`` of :meth:`get_metrics`."""
        return dict(views.NO_AFFINITY)

    # ---- called by the C side

    def _circuit_open_error(self, url: str, retry_after: float) -> CircuitOpenError:
        return self._opened_by.refusal(url, retry_after)

    def _extract_identity(self, headers: dict[str, str]) -> str | None:
        """What the identity extractor says; None when the headers are to decide."""
        return identity.extract(self, headers)

    def _on_close(self, pooled: Any, ticket: Ticket, reason: str) -> asyncio.Task[None] | None:
        return upkeep.begin_close(self, pooled, ticket, reason)

    def _on_check(self, pooled: Any, ticket: Ticket) -> asyncio.Task[None] | None:
        return upkeep.begin_check(self, pooled, ticket)

    def _on_create(
        self, pending: Pending, pooled: Any, arguments: AcquireArguments | None, headers: Any
    ) -> asyncio.Task[None] | None:
        return upkeep.begin_create(self, pending, pooled, arguments, headers)

    _trace_of_caller = staticmethod(long_checkouts.trace_of_caller)

    def _on_long_checkout(self, pooled: Any, trace: long_checkouts.Trace | None) -> None:
        long_checkouts.report(self, pooled, trace)

    def _arm_timer(self, seconds: float) -> None:
        if self._loop is None or self._loop.is_closed():
            return
        if self._upkeep_timer is not None:
            self._upkeep_timer.cancel()
        self._upkeep_timer = self._timer(seconds, upkeep.tick, weakref.ref(self))

    def _reclaim_leaked(self) -> None:
        self._reap_leaks()

    # ---- small services

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        """The pool's; in a forked child that has not used it yet, the one that runs here."""
        return self._loop or asyncio.get_running_loop()

    def _timer(self, seconds: float, callback: Callable[..., object], *arguments: Any) -> Timer:
        return Timer(self._own_loop(), self._settings.clock, seconds, callback, *arguments)

    def _spawn(
        self, coroutine: Coroutine[Any, Any, None], name: str, *, in_context: bool = False
    ) -> asyncio.Task[None]:
        """A task of the pool; in an empty context, or it would keep a request's variables."""
        loop = self._own_loop()
        context = None if in_context else contextvars.Context()
        try:
            task = loop.create_task(coroutine, name=name, context=context)
        except BaseException:
            coroutine.close()  # else it would warn that nobody awaited it
            raise
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _check_session(self, pooled: Any) -> bool:
        hook = self._validate_session
        if getattr(hook, "__func__", None) is _VALIDATE_SESSION:
            # Why it is checked, and that it is within its lifetime, is known already.
            if getattr(self._run_health_check_chain, "__func__", None) in self._OWN_CHAINS:
                return await checking.is_alive(self, pooled)
            return await self._run_health_check_chain(pooled)
        return await hook(pooled)

    def _watch_of(self, pooled: Any) -> HttpWatch | None:
        """What sees the HTTP requests of a session, where something does."""
        owner = getattr(pooled, "transport_context", None)
        return owner.watch if isinstance(owner, session_owner.SessionOwner) else None

    def _identity_key(self, headers: dict[str, str] | None) -> str:
        found = self._identity(headers)
        return "anonymous" if found is None else views.identity_digest(found)

    def _warn(self, message: str, *arguments: object) -> None:
        """A warning that may recur: logged at most once a minute."""
        if self._warnings.is_due(message):
            self._log().warning(message, *arguments)

    def _warn_once(self, message: str, *arguments: object) -> None:
        if self._warnings.is_due(message, once=True):
            self._log().warning(message, *arguments)

    # ---- reading

    def get_metrics(self) -> dict[str, Any]:
        """Numbers of this pool since it was made, in the shape of the gateway's admin endpoint.

        Callable from any thread. No token, and no user other than as SHA-256, is in it.
        """
        return views.read_metrics(self)

    def stats(self) -> PoolStats:
        """The numbers of this pool now. Callable from any thread."""
        return read_stats(self)

    def __repr__(self) -> str:
        return describe(self)


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


_CREATE_SESSION = MCPSessionPool._create_session
_VALIDATE_SESSION = MCPSessionPool._validate_session
MCPSessionPool._OWN_CHAINS = frozenset({MCPSessionPool._run_health_check_chain})

views.add_read_views(MCPSessionPool)
_core.remember_hooks(MCPSessionPool)
