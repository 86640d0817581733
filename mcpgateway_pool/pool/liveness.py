"""Learning at once when a session of a pool dies, instead of finding out at its next use."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from typing import TYPE_CHECKING, Any

from mcpgateway_pool._core import PooledSession
from mcpgateway_pool.upstream import session_owner

from .checking import standing_stream_ended

if TYPE_CHECKING:
    from .mcp_session_pool import MCPSessionPool


def watch(pool: MCPSessionPool, pooled: Any) -> None:
    """Have the pool told when the session's owner, or its owner task, says that it is over.

    Neither the pool nor its session is kept alive by that. Sessions that have neither are not watched.
    """
    owner = task = None
    with contextlib.suppress(Exception):  # duck-typed objects may refuse
        owner = getattr(pooled, "transport_context", None)
        task = getattr(pooled, "_owner_task", None)
    if not isinstance(owner, session_owner.SessionOwner) and not isinstance(task, asyncio.Future):
        return
    pool_ref = weakref.ref(pool)
    pooled_ref = weakref.ref(pooled) if isinstance(pooled, PooledSession) else lambda: pooled

    def broken(_: object = None) -> None:
        pool, dead = pool_ref(), pooled_ref()
        if pool is not None and dead is not None and pool._loop is asyncio.get_running_loop():
            is_suspect = isinstance(owner, session_owner.SessionOwner) and owner.broken
            pool._mark_broken(dead, True, is_suspect)

    def doubtful() -> None:
        pool, idle = pool_ref(), pooled_ref()
        if pool is not None and idle is not None and pool._loop is asyncio.get_running_loop():
            standing_stream_ended(pool, idle)

    if isinstance(owner, session_owner.SessionOwner):
        owner.on_broken(broken)
        owner.on_doubt(doubtful)
    else:
        assert isinstance(task, asyncio.Future)
        task.add_done_callback(broken)
