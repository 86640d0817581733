"""One place that a program talks to again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcpgateway_pool.redact import safe_url

if TYPE_CHECKING:
    from mcpgateway_pool._core import PooledSession

    from .protocol import Pool
    from .session_context import AcquireArguments, SessionContext


class Server:
    """A pool, and the arguments of the acquires of one server and one user; what
    :meth:`MCPSessionPool.server` returns.
    """

    __slots__ = ("_arguments", "_pool")

    def __init__(self, pool: Pool, arguments: AcquireArguments) -> None:
        self._pool = pool
        self._arguments = arguments

    @property
    def url(self) -> str:
        """Of the server."""
        return self._arguments.url

    def session(self, *, wait_timeout: float | None = None) -> SessionContext:
        """Check out a session for the length of an ``async with`` block; see :meth:`MCPSessionPool.session`.

        Args:
            wait_timeout: how long to wait for it, in seconds; default ``acquire_timeout_seconds``.
        """
        return self._pool.session(*self._arguments[:-1], wait_timeout=wait_timeout)

    async def acquire(self, *, wait_timeout: float | None = None) -> PooledSession:
        """Check out a session, to be given back by :meth:`release`; see :meth:`MCPSessionPool.acquire`.

        Args:
            wait_timeout: how long to wait for it, in seconds; default ``acquire_timeout_seconds``.
        """
        return await self._pool.acquire(*self._arguments[:-1], wait_timeout=wait_timeout)

    async def release(self, pooled: PooledSession, *, discard: bool = False) -> None:
        """Give a session back; see :meth:`MCPSessionPool.release`."""
        await self._pool.release(pooled, discard=discard)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {safe_url(self.url)} of {self._pool!r}>"
