"""Opening a session the package's own way: what ``_create_session()`` does where nobody has overridden it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mcpgateway_pool import verdict
from mcpgateway_pool._core import PooledSession
from mcpgateway_pool.errors import SessionCreateError
from mcpgateway_pool.redact import safe_error, safe_url
from mcpgateway_pool.upstream import sdk, session_owner

if TYPE_CHECKING:
    from mcpgateway_pool.config import TransportType

    from .protocol import Pool


async def open_session(
    pool: Pool,
    url: str,
    headers: dict[str, str] | None,
    transport_type: TransportType,
    httpx_client_factory: Callable[..., Any] | None,
    timeout: float | None,
    gateway_id: str | None,
) -> PooledSession:
    """Open a session; the arguments are those of the hook.

    Raises:
        ImportError: the package ``mcp`` is missing.
        SessionCreateError: with the cause chained; its message shows no credentials.
    """
    if timeout is None:
        timeout = pool._settings.default_transport_timeout_seconds
    await sdk.load_aside()
    try:
        owner = await session_owner.open_session(
            url,
            headers,
            transport_type.value,
            httpx_client_factory=httpx_client_factory,
            timeout=timeout,
            message_handler=_message_handler(pool, url, gateway_id),
            namespace=pool._sdk_namespace(),
            network=pool._settings.network,
            close_timeout=pool._cleanup_timeout(),
        )
    except ImportError:
        raise
    except Exception as cause:
        error = SessionCreateError(
            f"Failed to create MCP session for {safe_url(url)}: {verdict.describe(cause)}"
        )
        if verdict.fault_of(cause) is None:
            verdict.blame(error, verdict.Fault.UNKNOWN)
        raise error from cause
    return PooledSession(
        session=owner.session,
        transport_context=owner,
        url=url,
        transport_type=transport_type,
        headers=session_owner.upstream_headers(headers),
        identity_key="",  # the pool's key says it
        gateway_id=gateway_id or "",
        _owner_task=owner.task,
        _shutdown_event=owner.shutdown_event,
    )


def knows_tools(pooled: Any) -> bool:
    """Whether a session that was opened so has asked for the tools of its server."""
    owner = getattr(pooled, "transport_context", None)
    return isinstance(owner, session_owner.SessionOwner) and sdk.knows_tools(owner.session)


async def learn_tools(pooled: Any, timeout: float) -> None:
    """Have a session that nobody waits for ask for the tools of its server. The SDK checks results by their
    schemas; where a session has none yet, its first tool call waits for a second request.

    Args:
        pooled: the session; one that was opened in another way is left as it is.
        timeout: in seconds. A failure is nobody's: that first call asks again.
    """
    owner = getattr(pooled, "transport_context", None)
    if isinstance(owner, session_owner.SessionOwner):
        with contextlib.suppress(Exception):
            async with asyncio.timeout(timeout):
                await owner.session.list_tools()


def _message_handler(pool: Pool, url: str, gateway_id: str | None) -> Any:
    factory = pool._settings.message_handler_factory
    if factory is None:
        return None
    try:
        return factory(url, gateway_id)
    except Exception as error:
        pool._warn("the message handler factory failed, there is no handler: %s", safe_error(error))
        return None
