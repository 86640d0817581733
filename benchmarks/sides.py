"""The pools that are compared, behind one surface; sessions are instant fakes on both sides.

``project`` is this package, ``peer`` the gateway's own pool, ``floor`` a pool that does nothing: what two
calls of coroutines with these arguments cost in themselves.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any


class Side:
    """A pool class, with instant fakes and without, the class of its sessions, and its transport type."""

    def __init__(
        self,
        pool_class: Callable[..., Any],
        real_class: Callable[..., Any],
        session_class: Callable[..., Any],
        transport: Any,
    ) -> None:
        self.pool_class = pool_class
        self.real_class = real_class
        self.session_class = session_class
        self.transport = transport

    def make_pool(self, **settings: Any) -> Any:
        """A pool whose sessions are instant fakes."""
        return self.pool_class(**settings)

    def make_real_pool(self, **settings: Any) -> Any:
        """A pool that opens sessions to servers."""
        return self.real_class(**settings)

    def make_session(self, url: str, headers: dict[str, str], user_identity: str) -> Any:
        """A session object without a connection, as a pool makes it."""
        return self.session_class(
            FAKE_SESSION, None, url, self.transport, headers, "", user_identity=user_identity
        )

    def key_count(self, pool: Any) -> int:
        """How many keys the pool holds."""
        return len(pool._pools)

    def make_everything_due(self, pool: Any, clock: Clock) -> None:
        """Make every session that is idle now be idle for too long."""
        clock.seconds += 2 * clock.IDLE_SECONDS

    def clocked_pool(self, clock: Clock) -> Any:
        """A pool whose sessions are closed when they were idle for ``clock.IDLE_SECONDS``."""
        return self.make_pool(
            idle_pool_eviction_seconds=clock.IDLE_SECONDS,
            session_ttl_seconds=100 * clock.IDLE_SECONDS,
            health_check_interval_seconds=100 * clock.IDLE_SECONDS,
            clock=clock,
        )


class Clock:
    """A clock that is set by hand."""

    IDLE_SECONDS = 1000.0

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class FakeSession:
    """In place of a ``ClientSession``."""


# One for all: a connection is no part of what is measured.
FAKE_SESSION = FakeSession()


def users(count: int) -> list[str]:
    """So many names."""
    return [f"user-{number}@example.com" for number in range(count)]


async def fill(side: Side, pool: Any, url: str, names: Sequence[str], headers: dict[str, str]) -> None:
    """One idle session for each of these users. Each call has headers of its own, as a request has."""
    gc.disable()
    try:
        for user in names:
            pooled = await pool.acquire(
                url, dict(headers), side.transport, user_identity=user, gateway_id="gateway-1"
            )
            await pool.release(pooled)
    finally:
        gc.enable()


def _load_project() -> Side:
    from mcpgateway_pool import MCPSessionPool, PooledSession, TransportType

    class FakedPool(MCPSessionPool):
        async def _create_session(
            self, url: str, headers: Any, transport_type: Any, *_: Any
        ) -> PooledSession:
            return PooledSession(FAKE_SESSION, None, url, transport_type, headers or {}, "")

        async def _close_session(self, pooled: PooledSession) -> None:
            pooled.mark_closed()

    class Project(Side):
        def key_count(self, pool: Any) -> int:
            count: int = pool._counts()["keys"]
            return count

    return Project(FakedPool, MCPSessionPool, PooledSession, TransportType.STREAMABLE_HTTP)


def _load_peer() -> Side:
    from mcpgateway.services import mcp_session_pool as module

    class FakedPool(module.MCPSessionPool):
        async def _create_session(
            self,
            url: str,
            headers: Any,
            transport_type: Any,
            factory: Any,
            timeout: Any = None,
            gateway_id: Any = None,
        ) -> Any:
            return module.PooledSession(
                FAKE_SESSION, None, url, transport_type, headers or {}, "", gateway_id=gateway_id or ""
            )

        async def _close_session(self, pooled: Any) -> None:
            pooled.mark_closed()

    class Peer(Side):
        def clocked_pool(self, clock: Clock) -> Any:
            return self.make_pool(health_check_interval_seconds=100 * clock.IDLE_SECONDS)

        def make_everything_due(self, pool: Any, clock: Clock) -> None:
            # It has no clock to replace; this is what its eviction compares the time with.
            time.sleep(0.01)
            pool._idle_pool_eviction = 0.005
            pool._last_eviction_run = 0.0

    return Peer(FakedPool, module.MCPSessionPool, module.PooledSession, module.TransportType.STREAMABLE_HTTP)


def _load_floor() -> Side:
    pooled = FakeSession()

    class Floor:
        def __init__(self, **_: Any) -> None:
            pass

        async def acquire(
            self,
            url: str,
            headers: Any = None,
            transport_type: Any = None,
            httpx_client_factory: Any = None,
            timeout: Any = None,
            user_identity: Any = None,
            gateway_id: Any = None,
        ) -> Any:
            return pooled

        async def release(self, pooled: Any, *, discard: bool = False) -> None:
            return None

        @contextlib.asynccontextmanager
        async def session(self, *arguments: Any, **options: Any) -> AsyncIterator[Any]:
            yield pooled

    return Side(Floor, Floor, FakeSession, None)


def load(name: str) -> Side:
    """The side of that name; its packages must be installed."""
    return {"project": _load_project, "peer": _load_peer, "floor": _load_floor}[name]()
