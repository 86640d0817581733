"""The pool of sessions for calls without a downstream session."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mcpgateway_pool import _core, config
from mcpgateway_pool.config import TransportType
from mcpgateway_pool.gateway.registry.registry_pool import BY_DOWNSTREAM_SESSION, RegistryPool
from mcpgateway_pool.gateway.registry.session_watch import SessionWatch
from mcpgateway_pool.gateway.settings import GatewaySettings, variable_of

from .call_watch import CallRequests, CallWatch
from .schemas import forgive_old_schemas

if TYPE_CHECKING:
    from mcpgateway_pool.pool.session_context import AcquireArguments

# Defaults of the pool that the gateway had before 1.0.0.
MAX_SESSIONS_PER_KEY = 10
SESSION_TTL_SECONDS = 300.0
IDLE_TIMEOUT_SECONDS = 600.0
ACQUIRE_TIMEOUT_SECONDS = 30.0

# A header that changes with each call, and that nobody has named, makes a key of each call. So many keys of
# one user at one gateway have sessions open; the one that was opened first goes.
MAX_KEYS_OF_USER = 32

_UNLIMITED = 2**32 - 1
_WHOSE = "(shared by the calls of one user)"


@dataclass(slots=True)
class Opening:
    """For whom a session is being opened.

    Attributes:
        key: of the pool.
        owner: user and gateway.
        requests: of the call that opens it; its headers go with the handshake.
        watch: on the session.
        failure: what would leave a session of the call's own that could not be opened; None: what the
            release has raised.
    """

    key: str
    owner: tuple[object, ...]
    requests: CallRequests | None
    watch: CallWatch | None = None
    failure: Exception | None = None


# A creation runs in the context of the acquire that wants it.
opening: ContextVar[Opening] = ContextVar("mcpgateway_pool_opening")


class CallPool(RegistryPool):
    """Up to ``max_sessions_per_key`` sessions for each key, each with one call at a time. The key that
    :func:`.keys.key_of` makes stands where the registry has the downstream session id.

    Attributes:
        on_opened: called with the gateway id of each new session.
    """

    on_opened: Callable[[str], None] | None = None

    def _limits(self, settings: GatewaySettings) -> dict[str, Any]:
        settings.check_min_idle(settings.max_sessions_per_key, variable_of("max_sessions_per_key"))
        limits = super()._limits(settings)
        limits.update(
            max_sessions_per_key=settings.max_sessions_per_key,
            health_check_interval_seconds=max(1.0, self._registry._idle_validation_seconds),
            health_checks_per_second=10,
            min_idle=settings.min_idle,
            replace_sessions=settings.replace_sessions,
        )
        for name, setting, default in (
            ("session_ttl_seconds", settings.session_ttl_seconds, SESSION_TTL_SECONDS),
            ("idle_pool_eviction_seconds", settings.idle_timeout_seconds, IDLE_TIMEOUT_SECONDS),
            ("acquire_timeout_seconds", settings.acquire_timeout_seconds, ACQUIRE_TIMEOUT_SECONDS),
        ):
            if setting is None:
                limits[name] = default
        return limits

    def _calls_at_once(self, settings: GatewaySettings) -> int:
        return 1

    def _forget_loop(self) -> None:
        super()._forget_loop()
        self._watches: dict[int, CallWatch] = {}
        self._openings: dict[int, Opening] = {}
        # Keys with open sessions, and how many, by user and gateway; the key that was opened first comes
        # first.
        self._keys_of_owner: dict[tuple[object, ...], dict[str, int]] = {}

    def watch_of(self, upstream: Any) -> CallWatch | None:
        """See :meth:`RegistryPool.watch_of`."""
        return self._watches.get(id(upstream))

    def gateways(self) -> set[str]:
        """Those that have an open session."""
        return {record.upstream.gateway_id for record in self._open.values()}

    def suspect(self, upstream: Any) -> None:
        """What happened to this session may have happened to all sessions of its URL."""
        self._mark_broken(upstream, False, True)

    # ---- opening

    async def open_unpooled(self, arguments: AcquireArguments, why: Exception) -> Any:
        """A session that has no place in the pool; end it by :meth:`close_unpooled`.

        Args:
            arguments: of the acquire.
            why: the pool has none to give.

        Raises:
            Exception: what the factory raised.
        """
        self._warn("a call gets a session of its own: %s", why)
        return await self._create_session(
            arguments.url,
            config.copied_headers(arguments.headers),
            arguments.transport_type,
            arguments.httpx_client_factory,
            None,
            arguments.gateway_id,
        )

    async def close_unpooled(self, upstream: Any) -> None:
        """Close a session that has no place in the pool."""
        await self._close_session(upstream)

    async def _open_upstream(
        self,
        url: str,
        headers: dict[str, str] | None,
        transport_type: TransportType,
        httpx_client_factory: Callable[..., Any] | None,
        gateway_id: str | None,
    ) -> tuple[Any, SessionWatch | None]:
        wanted = opening.get()
        # In an empty context: the session outlives this call, whose user and trace must not stay with it.
        context = contextvars.Context()
        context.run(opening.set, wanted)
        inside = super()._open_upstream(url, headers, transport_type, httpx_client_factory, gateway_id)
        try:
            upstream, watched = await asyncio.get_running_loop().create_task(inside, context=context)
        except Exception:
            if wanted.watch is not None:
                wanted.failure = wanted.watch.opening_error()
            raise
        finally:
            requests, wanted.requests = wanted.requests, None
            wanted.watch = None
        watch = self.watch_of(upstream)
        if watch is not None and watch.requests is requests:
            watch.requests = None
        self._openings[id(upstream)] = wanted
        forgive_old_schemas(upstream.session)
        return upstream, watched

    def _context_ahead(self, pooled: Any) -> contextvars.Context:
        """Nobody's: for the owner of the session that the new one is to be like."""
        context = super()._context_ahead(pooled)
        like = self._openings.get(id(pooled))
        if like is not None:
            context.run(opening.set, Opening(like.key, like.owner, None))
        return context

    def _whose_session(self) -> str:
        return _WHOSE

    def _message_handler_factory(self) -> Callable[..., Any] | None:
        return None  # nobody listens: the release has none for such calls either

    def _make_watch(self, transport_type: TransportType, headers: dict[str, str]) -> SessionWatch:
        watch = CallWatch(transport_type.value, headers, self._settings.network)
        wanted = opening.get()
        watch.requests, wanted.watch = wanted.requests, watch
        return watch

    def _begin_watch(self, watch: SessionWatch, upstream: Any) -> None:
        assert isinstance(watch, CallWatch)
        self._watches[id(upstream)] = watch
        super()._begin_watch(watch, upstream)

    # ---- keeping the keys of one user few

    def _remember(self, upstream: Any) -> None:
        wanted = self._openings[id(upstream)]
        keys = self._keys_of_owner.setdefault(wanted.owner, {})
        keys[wanted.key] = keys.get(wanted.key, 0) + 1
        if len(keys) > MAX_KEYS_OF_USER:
            self._warn(
                "one user has sessions with more than %d sets of headers at gateway %s: where one of them"
                " changes with each call, name it in MCPGATEWAY_POOL_CALL_HEADERS",
                MAX_KEYS_OF_USER,
                upstream.gateway_id,
            )
            self._evict_group(BY_DOWNSTREAM_SESSION, next(iter(keys)))
        if self.on_opened is not None:
            self.on_opened(upstream.gateway_id)

    def _forget(self, upstream: Any) -> None:
        wanted = self._openings.pop(id(upstream), None)
        if wanted is None:
            return
        keys = self._keys_of_owner.get(wanted.owner, {})
        left = keys.pop(wanted.key, 0) - 1
        if left > 0:
            keys[wanted.key] = left
        elif not keys:
            self._keys_of_owner.pop(wanted.owner, None)

    async def _close_session(self, pooled: Any) -> None:
        await super()._close_session(pooled)
        self._watches.pop(id(pooled), None)


_core.remember_hooks(CallPool)
