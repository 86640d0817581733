"""The module that stands in for ``mcpgateway.services.mcp_session_pool``, under that name in ``sys.modules``.

Gateway code, and its tests, replace names in this module: ``settings``, ``ClientSession``, ``sse_client``,
``streamablehttp_client``, ``McpError``, ``logger``, ``WORKER_ID`` and others. So they are looked up here
whenever they are used, by the functions below and by the pool.
"""

from __future__ import annotations

# Modules and names that nothing below uses are here for whoever reaches for them through this module.
import asyncio  # noqa: F401
import hashlib  # noqa: F401
import logging
import os
import re  # noqa: F401
import socket
import sys
import time  # noqa: F401
import uuid  # noqa: F401
from collections.abc import Callable, Iterable
from typing import Any

import anyio  # noqa: F401
import httpx
import mcp.types as mcp_types  # noqa: F401
from mcp import ClientSession, McpError  # noqa: F401
from mcp.client.sse import sse_client  # noqa: F401
from mcp.client.streamable_http import streamablehttp_client  # noqa: F401
from mcp.shared.session import RequestResponder  # noqa: F401
from mcpgateway.config import settings
from mcpgateway.utils.url_auth import sanitize_url_for_logging  # noqa: F401

from mcpgateway_pool.affinity.keys import _SESSION_ID as _MCP_SESSION_ID_PATTERN  # noqa: F401
from mcpgateway_pool.config import IdentityExtractor, MessageHandlerFactory, TransportType
from mcpgateway_pool.pool.session_context import PooledSession
from mcpgateway_pool.pool.views import PoolKey
from mcpgateway_pool.upstream.health import METHOD_NOT_FOUND

from . import settings as own_settings
from .pool.gateway_pool import GatewayPool

__all__ = [
    "METHOD_NOT_FOUND",
    "WORKER_ID",
    "HttpxClientFactory",
    "IdentityExtractor",
    "MCPSessionPool",
    "MessageHandlerFactory",
    "PoolKey",
    "PooledSession",
    "SessionMappingKey",
    "TransportType",
    "close_mcp_session_pool",
    "drain_mcp_session_pool",
    "get_mcp_session_pool",
    "init_mcp_session_pool",
    "register_gateway_capabilities_for_notifications",
    "start_pool_notification_service",
    "unregister_gateway_from_notifications",
]

# (downstream session id, url, transport, gateway id)
SessionMappingKey = tuple[str, str, str, str]
HttpxClientFactory = Callable[
    [dict[str, str] | None, httpx.Timeout | None, httpx.Auth | None], httpx.AsyncClient
]

# Operators search the log for this name.
logger = logging.getLogger("mcpgateway.services.mcp_session_pool")


def _worker_id() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


# Which worker process this is, in Redis: unique across the hosts and processes of one deployment.
WORKER_ID = _worker_id()
_computed_worker_id = WORKER_ID


def _after_fork() -> None:
    """A worker that a master has forked after importing this (gunicorn --preload) is another one.

    An id that somebody has put in its place stays.
    """
    global WORKER_ID, _computed_worker_id  # noqa: PLW0603 - read, and replaced, as names of this module
    if _computed_worker_id == WORKER_ID:
        WORKER_ID = _computed_worker_id = _worker_id()


os.register_at_fork(after_in_child=_after_fork)


def _get_cleanup_timeout() -> float:
    """The gateway's bound on closing a session, in seconds; 5 where it has none."""
    try:
        return settings.mcp_session_pool_cleanup_timeout  # type: ignore[no-any-return]
    except Exception:
        return 5.0


class MCPSessionPool(GatewayPool):
    """:class:`mcpgateway_pool.MCPSessionPool` inside the gateway; takes the same arguments."""

    __slots__ = ()

    _gateway = sys.modules[__name__]


_mcp_session_pool: MCPSessionPool | None = None


def get_mcp_session_pool() -> MCPSessionPool:
    """The pool of this process.

    Raises:
        RuntimeError: there is none: it was not initialised, or is closed.
    """
    if _mcp_session_pool is None:
        raise RuntimeError("MCP session pool not initialized: init_mcp_session_pool() was not called")
    return _mcp_session_pool


def init_mcp_session_pool(
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
    enable_notifications: bool = True,
    notification_debounce_seconds: float = 5.0,
    *,
    max_total_keys: int | None = None,
    max_total_sessions: int | None = None,
) -> MCPSessionPool:
    """Make the pool of this process; the gateway does so when it starts.

    Args:
        enable_notifications: have sessions report changed tools, prompts and resources to the gateway's
            notification service, unless ``message_handler_factory`` is given; default true.
        notification_debounce_seconds: of that service, default 5.
        max_total_keys, max_total_sessions: default: what the environment variables say
            (:mod:`mcpgateway_pool.gateway.settings`), else unlimited.

    The other arguments are those of :class:`MCPSessionPool`.

    Raises:
        TypeError, ValueError: a bad setting.
    """
    global _mcp_session_pool  # noqa: PLW0603 - as above
    environment = own_settings.read_all()
    environment.use_retention()
    environment.check_min_idle(max_sessions_per_key, "MCP_SESSION_POOL_MAX_PER_KEY")
    options = environment.of_pool()
    if max_total_keys is not None:
        options["max_total_keys"] = max_total_keys
    if max_total_sessions is not None:
        options["max_total_sessions"] = max_total_sessions
    if circuit_breaker_threshold < 1:
        # As in the gateway's own pool, where none and one are the same.
        logger.warning("MCP_SESSION_POOL_CIRCUIT_BREAKER_THRESHOLD counts as 1: it must be at least 1")
        circuit_breaker_threshold = 1
    if enable_notifications and message_handler_factory is None:
        message_handler_factory = _notifying_handlers(notification_debounce_seconds)
    _mcp_session_pool = MCPSessionPool(
        max_sessions_per_key=max_sessions_per_key,
        session_ttl_seconds=session_ttl_seconds,
        health_check_interval_seconds=health_check_interval_seconds,
        acquire_timeout_seconds=acquire_timeout_seconds,
        session_create_timeout_seconds=session_create_timeout_seconds,
        circuit_breaker_threshold=circuit_breaker_threshold,
        circuit_breaker_reset_seconds=circuit_breaker_reset_seconds,
        identity_headers=identity_headers,
        identity_extractor=identity_extractor,
        idle_pool_eviction_seconds=idle_pool_eviction_seconds,
        default_transport_timeout_seconds=default_transport_timeout_seconds,
        health_check_methods=health_check_methods,
        health_check_timeout_seconds=health_check_timeout_seconds,
        message_handler_factory=message_handler_factory,
        **options,
    )
    logger.info("MCP session pool initialized")
    return _mcp_session_pool


def _notifying_handlers(debounce_seconds: float) -> MessageHandlerFactory:
    """Message handlers that report to the gateway's notification service, which this makes."""
    from mcpgateway.services.notification_service import init_notification_service

    service = init_notification_service(debounce_seconds=debounce_seconds)
    logger.info("MCP notification service created (debounce=%ss)", debounce_seconds)
    return lambda url, gateway_id: service.create_message_handler(gateway_id or url, url)


async def close_mcp_session_pool() -> None:
    """Close the pool of this process, and the gateway's notification service."""
    global _mcp_session_pool  # noqa: PLW0603 - as above
    if _mcp_session_pool is not None:
        try:
            await _mcp_session_pool.close_all()
        finally:
            _mcp_session_pool = None
        logger.info("MCP session pool closed")
    try:
        from mcpgateway.services.notification_service import close_notification_service

        await close_notification_service()
    except (ImportError, RuntimeError):
        logger.debug("there is no notification service to close")


async def drain_mcp_session_pool() -> None:
    """Replace every session of the pool, as after certificates were rotated; does nothing without a pool."""
    if _mcp_session_pool is None:
        logger.debug("there is no MCP session pool to drain")
        return
    await _mcp_session_pool.drain_all()
    logger.info("MCP session pool drained")


async def start_pool_notification_service(gateway_service: Any = None) -> None:
    """Start the gateway's notification service; does nothing where there is none.

    Args:
        gateway_service: what refreshes a gateway's tools when it says that they have changed.
    """
    from mcpgateway.services.notification_service import get_notification_service

    try:
        await get_notification_service().initialize(gateway_service)
    except RuntimeError:
        logger.debug("there is no notification service to start")
    else:
        logger.info("MCP notification service started")


def register_gateway_capabilities_for_notifications(gateway_id: str, capabilities: dict[str, Any]) -> None:
    """Tell the notification service which changes a gateway's server reports; does nothing without one.

    Args:
        gateway_id: the gateway.
        capabilities: what its server said when it was initialised.
    """
    from mcpgateway.services.notification_service import get_notification_service

    try:
        get_notification_service().register_gateway_capabilities(gateway_id, capabilities)
    except RuntimeError:
        logger.debug("there is no notification service to register a gateway with")


def unregister_gateway_from_notifications(gateway_id: str) -> None:
    """Have the notification service forget a gateway that was removed; does nothing without one."""
    from mcpgateway.services.notification_service import get_notification_service

    try:
        get_notification_service().unregister_gateway(gateway_id)
    except RuntimeError:
        logger.debug("there is no notification service to unregister a gateway from")
