"""``pool.session()``: one checkout of a session, as an async context manager."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from ._core import VERDICT_BROKEN, VERDICT_GOOD, Pending, PooledSession
from ._core import acquire as _acquire
from ._core import release as _release
from .config import TransportType
from .failures import is_session_fatal
from .releasing import finish_release

if TYPE_CHECKING:
    from .pool import MCPSessionPool

logger = logging.getLogger("mcpgateway_pool")

__all__ = ["PooledSession", "SessionContext"]


class AcquireArguments(NamedTuple):
    """The arguments of one ``acquire()``."""

    url: str
    headers: dict[str, str] | None
    transport_type: TransportType
    httpx_client_factory: Callable[..., Any] | None
    timeout: float | None
    user_identity: str | None
    gateway_id: str | None


class SessionContext:
    """Acquires on entry, releases exactly that checkout on exit; what :meth:`MCPSessionPool.session` returns.

    When the block raises, the session is closed instead of being pooled, and the exception goes on. Use it
    once.
    """

    __slots__ = ("_arguments", "_lease", "_pool", "_pooled")

    # A plain tuple of the arguments: a NamedTuple takes longer to make than the rest of the common path.
    def __init__(self, pool: MCPSessionPool, arguments: tuple[Any, ...]) -> None:
        self._pool = pool
        self._arguments = arguments
        self._pooled: PooledSession | None = None
        self._lease: int | None = None

    async def __aenter__(self) -> PooledSession:
        pool = self._pool
        if pool._is_plain:
            url, headers, transport_type, _, _, user_identity, gateway_id = self._arguments
            pooled = _acquire(pool, url, headers, transport_type, user_identity, gateway_id)
            if pooled.__class__ is Pending:
                pooled = await pool._acquire_slowly(pooled, AcquireArguments(*self._arguments))
        else:
            url, headers, transport_type, factory, timeout, user_identity, gateway_id = self._arguments
            pooled = await pool.acquire(
                url,
                headers,
                transport_type,
                httpx_client_factory=factory,
                timeout=timeout,
                user_identity=user_identity,
                gateway_id=gateway_id,
            )
        self._pooled = pooled
        self._lease = pool._lease_of(pooled)
        return pooled  # type: ignore[no-any-return]

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pool = self._pool
        pooled: Any = self._pooled
        self._pooled = None
        if not pool._holds(pooled, self._lease):
            logger.debug("a session was released inside its own session() block")
            return
        if error is not None:
            is_fatal = not isinstance(error, asyncio.CancelledError) and is_session_fatal(error)
            pool._mark_broken(pooled, True, is_fatal)
        if pool._is_plain:
            closing = _release(pool, pooled, VERDICT_GOOD if error is None else VERDICT_BROKEN)
            if closing is not None:
                await finish_release(pool, pooled, closing)
        else:
            await pool.release(pooled, discard=error is not None)
