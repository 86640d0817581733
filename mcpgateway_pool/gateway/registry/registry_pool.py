"""The pool behind the registry of 1.0.0 and later: one session for each downstream session and gateway.

The sessions that it holds are the release's own ``UpstreamSession`` objects, opened by the release's own
factory, so that its TLS, authentication and choice of protocol stay.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from mcpgateway_pool import MCPSessionPool, _core, verdict
from mcpgateway_pool._core import Ticket
from mcpgateway_pool.config import TransportType
from mcpgateway_pool.errors import SessionCreateError
from mcpgateway_pool.gateway.settings import GatewaySettings
from mcpgateway_pool.pool import liveness, upkeep
from mcpgateway_pool.pool.checking import standing_stream_ended
from mcpgateway_pool.pool.shutdown import close_bound
from mcpgateway_pool.redact import safe_url
from mcpgateway_pool.tasks import CANCEL_GRACE_SECONDS
from mcpgateway_pool.timers import Timer
from mcpgateway_pool.upstream.http_watch import HttpWatch

from . import default_clients
from .session_watch import SessionWatch

if TYPE_CHECKING:
    from mcpgateway_pool.pool.session_context import AcquireArguments

    from .upstream_registry import UpstreamSessionRegistry


class Whose(NamedTuple):
    """Whose session it is.

    Attributes:
        downstream_session_id: what the client names; others can name it, too.
        gateway_id: the gateway.
        user: who has proved to be it; None where that is not known.
    """

    downstream_session_id: str
    gateway_id: str
    user: str | None


# Whose session is being opened: a creation runs in the context of the acquire that wants it.
opening_for: ContextVar[Whose] = ContextVar("mcpgateway_pool_opening_for")

# How the user comes into the pool's key: as the only header that counts there.
USER = "x-user"

# The groups of keys that are evicted together.
BY_DOWNSTREAM_SESSION, BY_GATEWAY = 0, 1

_FOR_EVER = float("inf")
_UNLIMITED = 2**32 - 1
# The release's factory bounds itself, and then cleans up for at most 5 s. Beyond this, it hangs.
_CREATE_MARGIN_SECONDS = 10.0
_HEALTH_CHECK_METHODS = ("ping", "list_tools", "list_prompts", "list_resources", "skip")
_INTERNAL_HEADERS = frozenset({"x-mcp-session-id", "mcp-session-id"})
_ACCEPT = "application/json, text/event-stream"


@dataclass(slots=True)
class _Open:
    """An open session.

    Attributes:
        upstream: the release's object.
        whose: by whom it was opened.
        generation: see :attr:`RegistryPool.generation`.
        watch: on its requests; None where the registry was given a session factory of its own.
        doubted_for: its ``last_used`` when a check was last asked for.
        end: when it was evicted in use: ends it.
    """

    upstream: Any
    whose: Whose | None
    generation: int
    watch: SessionWatch | None
    doubted_for: float | None = None
    end: Timer | None = None

    @property
    def names(self) -> tuple[str, str]:
        """Of its groups, by their numbers."""
        return self.upstream.downstream_session_id, self.upstream.gateway_id

    @property
    def http(self) -> HttpWatch | None:
        """What sees its HTTP requests; None where nothing does."""
        return None if self.watch is None else self.watch.http


@dataclass(slots=True)
class _Creation:
    """A session that is being opened.

    Attributes:
        generation: see :attr:`RegistryPool.generation`.
        names: of its groups, by their numbers.
        is_evicted: whether one of them was evicted since.
    """

    generation: int
    names: tuple[str, str | None]
    is_evicted: bool = False


class RegistryPool(MCPSessionPool):
    """The pool of one registry.

    Attributes:
        sessions: the newest open session of each owner.
        is_shared: whether several calls may have one session at a time.
        generation: rises with each :meth:`UpstreamSessionRegistry.close_all`; a session is of the one in
            which its creation began.

    Args:
        registry: whose settings and factory are looked up at each use.
        release: the release's module.
        settings: what the environment says.
    """

    def __init__(
        self, registry: UpstreamSessionRegistry, release: ModuleType, settings: GatewaySettings
    ) -> None:
        self.generation = 0
        self._registry = registry
        self._release = release
        self._closes: list[asyncio.Task[None]] | None = None
        super().__init__(**self._limits(settings))
        calls_at_once = self._calls_at_once(settings)
        self.is_shared = calls_at_once > 1
        self._share(calls_at_once, True)

    def _limits(self, settings: GatewaySettings) -> dict[str, Any]:
        """The arguments of the pool's constructor."""
        registry = self._registry
        return {
            "max_sessions_per_key": 1,
            "identity_headers": (USER,),
            "session_ttl_seconds": settings.session_ttl_seconds or _FOR_EVER,
            "health_check_interval_seconds": max(0.0, registry._idle_validation_seconds),
            "acquire_timeout_seconds": settings.acquire_timeout_seconds or _FOR_EVER,
            "session_create_timeout_seconds": registry._session_create_timeout_seconds
            + _CREATE_MARGIN_SECONDS,
            "circuit_breaker_threshold": settings.circuit_breaker_threshold or _UNLIMITED,
            "circuit_breaker_reset_seconds": settings.circuit_breaker_reset_seconds,
            "idle_pool_eviction_seconds": settings.idle_timeout_seconds or _FOR_EVER,
            "health_check_methods": getattr(self._release, "_HEALTH_CHECK_CHAIN", _HEALTH_CHECK_METHODS),
            "health_check_timeout_seconds": registry._health_check_timeout_seconds,
            "max_total_sessions": settings.max_total_sessions,
            "max_total_keys": settings.max_total_keys,
            "max_waiters": settings.max_waiters,
            "network": settings.network,
            "health_checks_per_second": 0,  # the release checks at hand-out only
            "cleanup_timeout_seconds": registry._shutdown_timeout_seconds,
            "replace_sessions": False,  # what a downstream session left in its session is in no other
            "leak_detection_seconds": settings.leak_detection_seconds,
        }

    def _calls_at_once(self, settings: GatewaySettings) -> int:
        """How many calls may have one session at a time."""
        is_shared = settings.concurrency == "shared"
        return settings.max_calls_per_session or _UNLIMITED if is_shared else 1

    def _forget_loop(self) -> None:
        super()._forget_loop()
        self.sessions: dict[Whose, Any] = {}
        self._open: dict[int, _Open] = {}
        self._creating: dict[asyncio.Task[Any], _Creation] = {}

    # ---- what the registry and its leases ask

    # The core's own: a lease costs no frame more.
    ticket_of = MCPSessionPool._lease_ticket
    release_lease = MCPSessionPool._release_lease
    totals = MCPSessionPool._totals

    def doubt_after_error(self, upstream: Any) -> None:
        """After a call that raised: of a session that is watched, everything is known already."""
        record = self._open.get(id(upstream))
        if record is not None and record.http is None:
            liveness.doubt_unwatched(self, upstream)

    def watch_of(self, upstream: Any) -> SessionWatch | None:
        """The watch on an open session's requests; None where the registry was given a session factory of its
        own.
        """
        record = self._open.get(id(upstream))
        return None if record is None else record.watch

    def look_after(self, whose: Whose, arguments: AcquireArguments) -> None:
        """See to it that a session that must not be handed out, or not unchecked, is not; and that a check
        is made with the headers of the call that wants the session.
        """
        upstream = self.sessions.get(whose)
        if upstream is None:
            return
        url, transport = arguments.url, arguments.transport_type
        watch = self.watch_of(upstream)
        if watch is not None and self._lease_ticket(upstream) is None:
            watch.headers.use(arguments.headers)
        if upstream.is_closed:
            self._mark_broken(upstream, True, False)
        elif upstream.url != url or upstream.transport_type.value != transport.value:
            # The gateway was changed, perhaps by another worker: no call may go to the old place.
            self._retire(upstream)
        elif upstream.idle_seconds > self._registry._idle_validation_seconds:
            self._ask_for_check(upstream)

    def _ask_for_check(self, upstream: Any) -> None:
        """Its own clock, which is the wall's and can be set, says that it was idle for long."""
        record = self._open[id(upstream)]
        # Once for each time of idleness: callers who come during the check wait for that one.
        if record.doubted_for != upstream.last_used and self._lease_ticket(upstream) is None:
            record.doubted_for = upstream.last_used
            self._doubt(upstream)

    async def evict(self, group: int, name: str) -> int:
        """Close the sessions of a group: idle ones now, those in use when their calls have ended, or fail
        after the registry's ``shutdown_timeout_seconds``. Meanwhile the next call opens a new session.

        Returns:
            How many these are. The closes of idle ones have ended, or their bound has passed.
        """
        for creation in self._creating.values():
            creation.is_evicted |= creation.names[group] == name
        closes: list[asyncio.Task[None]] = []
        self._closes = closes
        try:
            count = self._evict_group(group, name)
        finally:
            self._closes = None
        if count > len(closes) or group == BY_GATEWAY:  # in use; also those outside of the pool
            self._end_soon([one for one in self._open.values() if one.names[group] == name])
        if closes:
            await asyncio.wait(closes, timeout=close_bound(self))
        return count

    def _end_soon(self, evicted: list[_Open]) -> None:
        """Calls in flight on these have a time to end. A timer that nobody holds does not fire."""
        timer = self._timer(self._cleanup_timeout(), self._end_now, evicted)
        for record in evicted:
            record.end = timer

    def _end_now(self, evicted: list[_Open]) -> None:
        for record in evicted:
            pooled = record.upstream
            if self._open.get(id(pooled)) is record and not pooled._closed:
                self._warn("an evicted session is still in use, its calls fail: %s", safe_url(pooled.url))
                self._spawn(self._close_session(pooled), upkeep.close.__name__)

    async def close_generation(self, timeout: float) -> None:
        """Close every session that was begun by now; calls in flight have ``timeout`` seconds to end."""
        self.generation += 1
        generation = self.generation
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        await self.drain_all()
        while (left := end - loop.time()) > 0:
            busy = self._tasks_before(generation)
            if not busy:
                break
            await asyncio.wait(busy, timeout=left)
        creations = self._creations_before(generation)
        for task in creations:
            task.cancel("the registry was closed")
        if creations:
            await asyncio.wait(creations, timeout=close_bound(self))
        remaining = [
            self._close_session(record.upstream)
            for record in self._open.values()
            if record.generation < generation
        ]
        await asyncio.gather(*remaining, return_exceptions=True)

    def _tasks_before(self, generation: int) -> set[asyncio.Task[Any]]:
        """Those that own a session of an earlier generation, or open one."""
        owners = {
            owner
            for record in self._open.values()
            if record.generation < generation and (owner := _owner_of(record.upstream)) is not None
        }
        return {task for task in owners | self._creations_before(generation) if not task.done()}

    def _creations_before(self, generation: int) -> set[asyncio.Task[Any]]:
        return {task for task, creation in self._creating.items() if creation.generation < generation}

    # ---- hooks

    async def _create_session(
        self,
        url: str,
        headers: dict[str, str] | None,
        transport_type: TransportType,
        httpx_client_factory: Callable[..., Any] | None,
        timeout: float | None = None,
        gateway_id: str | None = None,
    ) -> Any:
        """The release's ``UpstreamSession``, by the release's factory or the one that was injected."""
        task = asyncio.current_task()
        assert task is not None
        creation = _Creation(self.generation, (self._whose_session(), gateway_id))
        self._creating[task] = creation
        try:
            upstream, watch = await self._open_upstream(
                url, headers, transport_type, httpx_client_factory, gateway_id
            )
        except asyncio.CancelledError:
            if self.generation != creation.generation and task.uncancel() == 0:
                raise SessionCreateError(
                    f"Failed to create MCP session for {safe_url(url)}: the registry was closed"
                ) from None
            raise
        finally:
            del self._creating[task]
        record = _Open(upstream, opening_for.get(None), creation.generation, watch)
        self._open[id(upstream)] = record
        self._remember(upstream)
        if creation.is_evicted:
            self._end_soon([record])
        return upstream

    def _remember(self, upstream: Any) -> None:
        self.sessions[opening_for.get()] = upstream

    async def _open_upstream(
        self,
        url: str,
        headers: dict[str, str] | None,
        transport_type: TransportType,
        httpx_client_factory: Callable[..., Any] | None,
        gateway_id: str | None,
    ) -> tuple[Any, SessionWatch | None]:
        """The session, and the watch on its requests."""
        release, registry = self._release, self._registry
        downstream_session_id = self._whose_session()
        transport = release.TransportType(transport_type.value)
        factory = registry._session_factory
        watch: SessionWatch | None = None
        if factory is None:
            factory = release._default_session_factory
            watch = self._make_watch(transport_type, headers or {})
            httpx_client_factory = watch.client_factory(httpx_client_factory, release)
        try:
            request = release.SessionCreateRequest(
                url=url,
                transport_type=transport,
                headers=_headers_for_server(headers),
                gateway_id=gateway_id,
                downstream_session_id=downstream_session_id,
                httpx_client_factory=httpx_client_factory,
                message_handler_factory=self._message_handler_factory(),
                timeout_seconds=registry._session_create_timeout_seconds,
            )
        except ValueError as error:
            verdict.blame(error, verdict.Fault.CALLER)
            raise
        token = default_clients.opening.set(watch)
        try:
            opened = factory(request)
            session, second = await (opened if watch is None else watch.opening(opened))
        except Exception as error:
            fault = None if watch is None else watch.fault(error)
            if fault is not None:
                verdict.blame(error, fault)
            raise
        finally:
            default_clients.opening.reset(token)
        if hasattr(release, "SessionLifecycle"):
            parts = {
                "client": second.client,
                "_owner_task": second.owner_task,
                "_shutdown_event": second.shutdown_event,
            }
        else:  # 1.0: the factory leaves them on the session
            parts = {
                "_owner_task": getattr(session, "_cf_owner_task", None),
                "_shutdown_event": getattr(session, "_cf_shutdown_event", None),
            }
        upstream = release.UpstreamSession(
            downstream_session_id=downstream_session_id,
            gateway_id=gateway_id,
            url=url,
            transport_type=transport,
            session=session,
            **parts,
        )
        if watch is not None:
            self._begin_watch(watch, upstream)
        return upstream, watch

    def _whose_session(self) -> str:
        return opening_for.get().downstream_session_id

    def _make_watch(self, transport_type: TransportType, headers: dict[str, str]) -> SessionWatch:
        return SessionWatch(transport_type.value, headers, self._settings.network)

    def _message_handler_factory(self) -> Callable[..., Any] | None:
        return self._registry._message_handler_factory

    def _begin_watch(self, watch: SessionWatch, upstream: Any) -> None:
        pool_ref = weakref.ref(self)

        def tell(seen: verdict.Verdict) -> None:
            pool = pool_ref()
            if pool is not None:
                liveness.apply(pool, upstream, seen)

        def stream_ended() -> None:
            pool = pool_ref()
            if pool is not None:
                standing_stream_ended(pool, upstream)

        watch.begin(
            upstream.session,
            on_end=upstream._shutdown_event.set,
            on_verdict=tell,
            on_stream_end=stream_ended,
        )
        if self.is_shared:
            watch.headers.follow_requests(upstream.session)
        upstream._owner_task.add_done_callback(lambda _task: watch.end())

    def _refuse_unknown_methods(self, methods: Iterable[str]) -> None:
        """None is refused: they are the release's."""

    def _watch_of(self, pooled: Any) -> HttpWatch | None:
        record = self._open.get(id(pooled))
        return None if record is None else record.http

    def _on_close(self, pooled: Any, ticket: Ticket, reason: str) -> asyncio.Task[None] | None:
        self._forget(pooled)
        task = super()._on_close(pooled, ticket, reason)
        if task is not None and self._closes is not None:
            self._closes.append(task)
        return task

    async def _close_session(self, pooled: Any) -> None:
        """End the owner task: ask it, wait; cancel it, wait a little. Once more is harmless."""
        pooled._closed = True
        event, owner = pooled._shutdown_event, _owner_of(pooled)
        if isinstance(event, asyncio.Event):
            event.set()
        try:
            if owner is None or owner.done():
                return
            await asyncio.wait({owner}, timeout=self._cleanup_timeout())
            if not owner.done():
                self._warn("a session did not end in time, cancelling its task: %s", safe_url(pooled.url))
                owner.cancel()
                await asyncio.wait({owner}, timeout=CANCEL_GRACE_SECONDS)
        finally:
            if owner is not None and owner.done() and not owner.cancelled():
                owner.exception()  # so that nobody is told that it was never retrieved
            self._forget(pooled)
            self._open.pop(id(pooled), None)

    def _forget(self, upstream: Any) -> None:
        record = self._open.get(id(upstream))
        if record is not None and record.whose is not None and self.sessions.get(record.whose) is upstream:
            del self.sessions[record.whose]

    # ---- what is looked up in the release's module

    def _cleanup_timeout(self) -> float:
        return self._registry._shutdown_timeout_seconds

    def _log(self) -> logging.Logger:
        return self._release.logger  # type: ignore[no-any-return]


def _owner_of(upstream: Any) -> asyncio.Task[Any] | None:
    owner = getattr(upstream, "_owner_task", None)
    return owner if isinstance(owner, asyncio.Task) else None


def _headers_for_server(headers: dict[str, str] | None) -> dict[str, str]:
    """The caller's, on top of ``Accept``; what belongs to the downstream session stays here."""
    merged = {"Accept": _ACCEPT, **(headers or {})}
    return {name: value for name, value in merged.items() if name.lower() not in _INTERNAL_HEADERS}


_core.remember_hooks(RegistryPool)
