"""What ``release()`` does when the session did not just go back, and closing what is not in the pool."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from mcpgateway_pool._core import PooledSession
from mcpgateway_pool.redact import safe_error

from . import upkeep

if TYPE_CHECKING:
    from .mcp_session_pool import MCPSessionPool


async def finish_release(pool: MCPSessionPool, pooled: Any, closing: Any) -> None:
    """Finish a release.

    Args:
        pool: to which the session was released.
        pooled: the session.
        closing: what ``_core.release()`` returned: the task that closes the session; False when it was not
            checked out; NotImplemented when it is not of this pool.
    """
    if closing is False:
        pool._warn("ignored the release of a session that is not checked out")
    elif closing is NotImplemented:
        owner = pooled._pool if isinstance(pooled, PooledSession) else None
        if owner is not None:
            pool._warn("a session was released to a pool that it does not come from: closing it")
            await cast("MCPSessionPool", owner).release(pooled, discard=True)
        elif getattr(pooled, "is_closed", False) is True:
            pool._warn("ignored the release of a session that is closed already")
        else:
            pool._warn("a session was released that no pool gave out: closing it")
            await close_bounded(pool, pooled)
    elif isinstance(closing, asyncio.Task):
        # Not shielded by hand: wait() never cancels what it waits for.
        await asyncio.wait({closing}, timeout=pool._close_bound())


async def close_bounded(pool: MCPSessionPool, pooled: Any) -> None:
    """Close a session that is not in the pool."""
    task = pool._spawn(_close_quietly(pool, pooled), upkeep.close.__name__)
    _, late = await asyncio.wait({task}, timeout=pool._close_bound())
    for closing in late:
        closing.cancel()


async def _close_quietly(pool: MCPSessionPool, pooled: Any) -> None:
    try:
        await pool._close_session(pooled)
    except Exception as error:
        pool._log().debug("closing a session failed: %s", safe_error(error))
