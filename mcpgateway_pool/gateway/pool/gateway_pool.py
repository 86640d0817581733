"""The pool as the gateway knows it: what it looks up in the stand-in module, and session affinity.

Whatever concerns Redis is in :class:`mcpgateway_pool.affinity.SessionAffinity`; the methods here have the
names and arguments that gateway code calls.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from types import ModuleType
from typing import Any, ClassVar

from mcpgateway_pool import MCPSessionPool as BasePool
from mcpgateway_pool import config
from mcpgateway_pool._core import Pending
from mcpgateway_pool._core import acquire as _acquire
from mcpgateway_pool._core import session_header as _session_header
from mcpgateway_pool.affinity import AffinitySettings, SessionAffinity, is_valid_mcp_session_id, keys
from mcpgateway_pool.config import TransportType
from mcpgateway_pool.gateway import settings as own_settings
from mcpgateway_pool.gateway import tls
from mcpgateway_pool.pool.session_context import AcquireArguments, PooledSession
from mcpgateway_pool.pool.waiting import acquire_slowly
from mcpgateway_pool.redact import safe_error, safe_text, safe_url
from mcpgateway_pool.upstream import sdk
from mcpgateway_pool.upstream.network import preparing

from . import executors
from .stock_names import add_stock_names

# Whether a health check is one that the pool makes and counts, rather than a direct call.
_is_counted: ContextVar[bool] = ContextVar("mcpgateway_pool_is_counted", default=False)
_DEFAULT_CLEANUP_SECONDS = 5.0


class GatewayPool(BasePool):
    """:class:`mcpgateway_pool.MCPSessionPool` for the gateway; takes the same arguments.

    The stand-in module makes a subclass of it, whose ``_gateway`` is that module: settings, the SDK's names,
    the logger and the worker's id are looked up there at each use.

    Raises:
        SettingError: the environment variable MCPGATEWAY_POOL_SHARED_TLS has a value that it cannot have.
    """

    __slots__ = ("_assigned", "_session_affinity", "_shares_tls")

    _gateway: ClassVar[ModuleType]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._assigned: dict[str, int] = {}
        self._shares_tls: bool = own_settings.read("shared_tls")
        gateway = self._gateway
        # No reference back to the pool, which would outlive its last user.
        self._session_affinity = SessionAffinity(
            redis=_redis_client,
            worker_id=lambda: gateway.WORKER_ID,
            settings=lambda: _affinity_settings(gateway.settings),
            execute_rpc=executors.executor_of_rpc(gateway),
            execute_http=executors.executor_of_http(gateway),
            logger=lambda: gateway.logger,
            host=weakref.proxy(self),
        )

    # ---- what is looked up in the stand-in module

    def _sdk_namespace(self) -> object:
        return self._gateway

    def _log(self) -> logging.Logger:
        return self._gateway.logger  # type: ignore[no-any-return]

    def _cleanup_timeout(self) -> float:
        try:
            return config.seconds("the cleanup timeout", self._gateway._get_cleanup_timeout())
        except (TypeError, ValueError):
            return _DEFAULT_CLEANUP_SECONDS

    def _refuse_unknown_methods(self, methods: Iterable[str]) -> None:
        """None is refused: the gateway's own pool skips what it does not know, and a start must not fail for
        it. Each is warned of when its turn comes.
        """

    # ---- acquire, create, close

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
        """See :meth:`mcpgateway_pool.MCPSessionPool.acquire`.

        With session affinity on, the header ``x-mcp-session-id`` alone is the header identity. A mapping of
        that session is looked up and counted; it never decides which session is handed out.

        Raises:
            RuntimeError: also when another worker owns the downstream session, and lives.
        """
        if timeout is not None:
            config.duration("timeout", timeout)
        if wait_timeout is not None:
            config.seconds("wait_timeout", wait_timeout)
        if headers is not None and not isinstance(headers, dict):
            headers = config.copied_headers(headers)
        session_id = _session_header(headers)
        if (
            session_id is not None
            and self._read_affinity()
            and not self._closed
            and isinstance(transport_type, TransportType)  # anything else is refused below
        ):
            await self._session_affinity.look_up_session_mapping(
                session_id, url, gateway_id, transport_type.value, user_identity or "anonymous"
            )
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

    def _read_affinity(self) -> bool:
        """Whether session affinity is on, as the setting says now."""
        is_on = _is_affinity_on(self._gateway.settings)
        if is_on is not self._affinity:
            self._affinity = is_on
        return is_on

    def _identity_key(self, headers: dict[str, str] | None) -> str:
        self._read_affinity()
        return super()._identity_key(headers)

    async def _permit_creation(self, headers: dict[str, str] | None) -> None:
        session_id = _session_header(headers)
        if session_id is None or not self._read_affinity():
            return
        owner = await self._session_affinity.may_create_session(session_id)
        if owner is not None:
            worker, owner = self._gateway.WORKER_ID, safe_text(owner)  # Redis says it
            self._log().warning(
                "Session %s... owned by worker %s, not us (%s)", session_id[:8], owner, worker
            )
            raise RuntimeError(f"Session owned by another worker: {owner}")

    async def _create_session(
        self,
        url: str,
        headers: dict[str, str] | None,
        transport_type: TransportType,
        httpx_client_factory: Callable[..., Any] | None,
        timeout: float | None = None,
        gateway_id: str | None = None,
    ) -> PooledSession:
        if httpx_client_factory is not None:
            if sdk.is_native(transport_type.value, self._gateway):
                httpx_client_factory = preparing(httpx_client_factory, self._settings.network)
            if self._shares_tls:
                httpx_client_factory = tls.sharing(httpx_client_factory, transport_type.value, self._gateway)
        try:
            pooled = await super()._create_session(
                url, headers, transport_type, httpx_client_factory, timeout, gateway_id
            )
        except Exception as error:
            self._log().warning("Failed to create session for %s: %s", safe_url(url), safe_error(error))
            raise
        self._log().info("Created new MCP session for %s (transport=%s)", safe_url(url), transport_type.value)
        return pooled

    async def _close_session(self, pooled: Any) -> None:
        was_closed = getattr(pooled, "_closed", False) is True
        await super()._close_session(pooled)
        # Headers kept with a session do not hold the downstream session's id, unless it was made elsewhere.
        session_id = None if was_closed else _session_header(getattr(pooled, "headers", None))
        if session_id is not None and self._read_affinity() and is_valid_mcp_session_id(session_id):
            await self._cleanup_pool_session_owner(session_id)

    async def _check_session(self, pooled: Any) -> bool:
        token = _is_counted.set(True)
        try:
            return await super()._check_session(pooled)
        finally:
            _is_counted.reset(token)

    async def _run_health_check_chain(self, pooled: Any) -> bool:
        is_usable = await super()._run_health_check_chain(pooled)
        if not is_usable and not _is_counted.get():
            self._health_check_failures += 1
        return is_usable

    async def close_all(self) -> None:
        """See :meth:`mcpgateway_pool.MCPSessionPool.close_all`; stops the heartbeat and the listener, too."""
        self._log().info("Closing all pooled sessions...")
        try:
            await super().close_all()
        finally:
            await self._session_affinity.stop()
        self._log().info("All sessions closed")

    # ---- session affinity: see SessionAffinity for each

    def _affinity_metrics(self) -> dict[str, Any]:
        return self._session_affinity.get_metrics()

    @staticmethod
    def is_valid_mcp_session_id(session_id: str) -> bool:
        """Whether this can be the id of a downstream session."""
        return is_valid_mcp_session_id(session_id)

    async def register_session_mapping(
        self,
        mcp_session_id: str,
        url: str,
        gateway_id: str,
        transport_type: str,
        user_email: str | None = None,
    ) -> None:
        """Note which user uses a downstream session for a server, and claim the session for this worker."""
        await self._session_affinity.register_session_mapping(
            mcp_session_id, url, gateway_id, transport_type, user_email
        )

    async def register_pool_session_owner(self, mcp_session_id: str) -> None:
        """Claim a downstream session that nobody owns, or refresh this worker's ownership."""
        await self._session_affinity.register_pool_session_owner(mcp_session_id)

    async def _get_pool_session_owner(self, mcp_session_id: str) -> str | None:
        return await self._session_affinity.get_pool_session_owner(mcp_session_id)

    async def get_streamable_http_session_owner(self, mcp_session_id: str) -> str | None:
        """The worker that owns a downstream session, or None."""
        return await self._session_affinity.get_streamable_http_session_owner(mcp_session_id)

    async def _cleanup_pool_session_owner(self, mcp_session_id: str) -> None:
        await self._session_affinity.cleanup_pool_session_owner(mcp_session_id)

    async def cleanup_streamable_http_session_owner(self, mcp_session_id: str) -> None:
        """Give up this worker's ownership of a downstream session that has ended."""
        await self._cleanup_pool_session_owner(mcp_session_id)

    async def forward_request_to_owner(
        self, mcp_session_id: str, request_data: dict[str, Any], timeout: float | None = None
    ) -> dict[str, Any] | None:
        """Let the owner of a downstream session execute an RPC request; None: to be executed here."""
        return await self._session_affinity.forward_request_to_owner(mcp_session_id, request_data, timeout)

    async def forward_streamable_http_to_owner(
        self,
        owner_worker_id: str,
        mcp_session_id: str,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes,
        query_string: str = "",
    ) -> dict[str, Any] | None:
        """Let the owner of a downstream session execute an HTTP request; None: to be executed here."""
        return await self._session_affinity.forward_streamable_http_to_owner(
            owner_worker_id, mcp_session_id, method, path, headers, body, query_string
        )

    async def start_rpc_listener(self) -> None:
        """Execute what other workers forward to this one, until cancelled or the pool is closed."""
        await self._session_affinity.start_rpc_listener()

    def start_heartbeat(self) -> None:
        """Tell the other workers that this one lives, from now on."""
        self._session_affinity.start_heartbeat()

    async def _execute_forwarded_request(self, request: dict[str, Any]) -> dict[str, Any]:
        return await self._session_affinity.execute_forwarded_request(request)

    async def _execute_forwarded_http_request(self, request: dict[str, Any], redis: Any) -> None:
        await self._session_affinity.execute_forwarded_http_request(request, redis)

    # Names of Redis keys.

    _pool_owner_key = staticmethod(keys.pool_owner_key)
    _sanitize_redis_key_component = staticmethod(keys.sanitize_key_component)
    _session_mapping_redis_key = staticmethod(keys.session_mapping_key)


async def _redis_client() -> Any:
    from mcpgateway.utils.redis_client import get_redis_client

    return await get_redis_client()


def _is_affinity_on(settings: Any) -> bool:
    # 1.0.0b2 has no such setting.
    return bool(getattr(settings, "mcpgateway_session_affinity_enabled", False))


def _affinity_settings(settings: Any) -> AffinitySettings:
    if not _is_affinity_on(settings):
        return AffinitySettings()
    return AffinitySettings(
        enabled=True,
        ttl_seconds=int(settings.mcpgateway_session_affinity_ttl),
        forward_timeout_seconds=float(settings.mcpgateway_pool_rpc_forward_timeout),
    )


GatewayPool._OWN_CHAINS = BasePool._OWN_CHAINS | {GatewayPool._run_health_check_chain}

add_stock_names(GatewayPool)
