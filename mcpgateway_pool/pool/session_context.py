"""``pool.session()``: one checkout of a session, as an async context manager."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from mcpgateway_pool import config
from mcpgateway_pool._core import VERDICT_GOOD, Pending, PooledSession, SessionContextCore
from mcpgateway_pool._core import enter as _enter
from mcpgateway_pool._core import leave as _leave
from mcpgateway_pool._core import release as _release
from mcpgateway_pool.config import TransportType
from mcpgateway_pool.redact import safe_url

from .liveness import doubt_unwatched
from .release import finish_release
from .waiting import acquire_slowly

if TYPE_CHECKING:
    from .protocol import Pool

logger = logging.getLogger("mcpgateway_pool")

__all__ = ["PooledSession", "SessionContext"]


class AcquireArguments(NamedTuple):
    """The arguments of one ``acquire()``. Its repr(), which event loops in debug mode log with a timer, shows
    no secrets.
    """

    url: str
    headers: Mapping[str, str] | None
    transport_type: TransportType
    httpx_client_factory: Callable[..., Any] | None
    timeout: float | None
    user_identity: str | None
    gateway_id: str | None
    wait_timeout: float | None = None

    @classmethod
    def to_keep(
        cls,
        url: str,
        headers: Mapping[str, str] | None,
        transport_type: TransportType,
        httpx_client_factory: Callable[..., Any] | None,
        timeout: float | None,
        user_identity: str | None,
        gateway_id: str | None,
    ) -> AcquireArguments:
        """For acquires to come, with a copy of the headers.

        Raises:
            TypeError, ValueError: a bad time-out, or headers that are no mapping.
        """
        if timeout is not None:
            config.duration("timeout", timeout)
        copied = config.copied_headers(headers)
        return cls(url, copied, transport_type, httpx_client_factory, timeout, user_identity, gateway_id)

    def copy(self, pending: Pending) -> AcquireArguments:
        """The same with headers of its own: those that decided the key, whatever becomes of the caller's
        while this waits.
        """
        headers = self.headers if isinstance(self.headers, dict) else pending.headers
        # dict.items(): what it holds, as the key saw it, whatever a subclass makes of that.
        return self if not isinstance(headers, dict) else self._replace(headers=dict(dict.items(headers)))

    def __repr__(self) -> str:
        return f"<AcquireArguments {safe_url(self.url)}>"


class SessionContext(SessionContextCore):
    """Acquires on entry, releases exactly that checkout on exit; what :meth:`MCPSessionPool.session` returns.

    When the block raises, the exception goes on, and the session is pooled again unless it is lost: see
    ``mcpgateway_pool.verdict``. Use it once.
    """

    __slots__ = ()

    async def __aenter__(self) -> PooledSession:
        pooled = _enter(self)
        if pooled.__class__ is Pending:
            pool: Pool = self._pool
            # No local variable refers to the session: a traceback may keep this frame.
            self._pooled = await acquire_slowly(pool, pooled, AcquireArguments(*self._arguments))
            self._lease = pooled.lease
            return self._pooled  # type: ignore[no-any-return]
        if pooled is NotImplemented:
            return await self._acquire()
        return pooled  # type: ignore[no-any-return]

    async def _acquire(self) -> PooledSession:
        """Acquire where a subclass or an instance has an ``acquire()`` or ``release()`` of its own."""
        pool: Pool = self._pool
        arguments = AcquireArguments(*self._arguments)
        options: dict[str, Any] = {
            "httpx_client_factory": arguments.httpx_client_factory,
            "timeout": arguments.timeout,
            "user_identity": arguments.user_identity,
            "gateway_id": arguments.gateway_id,
        }
        if arguments.wait_timeout is not None:  # an override may be older than this argument
            options["wait_timeout"] = arguments.wait_timeout
        pooled: PooledSession = await pool.acquire(
            arguments.url, arguments.headers, arguments.transport_type, **options
        )
        self._pooled = pooled
        self._lease = pool._lease_of(pooled) or 0
        return pooled

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pool: Pool = self._pool
        if error is not None and self._pooled is not None:
            doubt_unwatched(pool, self._pooled)
        closing = _leave(self)
        if closing is None:
            return
        pooled: Any = self._pooled
        self._pooled = None
        if closing is NotImplemented:
            if not pool._holds(pooled, self._lease or None):
                logger.debug("a session was released inside its own session() block")
                return
            if not pool._is_plain:
                await pool.release(pooled, discard=False)
                return
            closing = _release(self._pool, pooled, VERDICT_GOOD)
        if closing is not None:
            await finish_release(pool, pooled, closing)
