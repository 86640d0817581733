"""What a pool does in the background: closing and checking sessions, and what falls due with time.

None of it runs inside a request, and none of it keeps a request's context variables alive.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Any

from mcpgateway_pool import tasks
from mcpgateway_pool._core import Ticket
from mcpgateway_pool.redact import safe_error, safe_url

if TYPE_CHECKING:
    from .mcp_session_pool import MCPSessionPool


def tick(pool_ref: weakref.ref[MCPSessionPool]) -> None:
    """The pool's one timer: it does not keep the pool alive."""
    pool = pool_ref()
    if pool is not None:
        pool._upkeep()


async def close(pool: MCPSessionPool, pooled: Any, ticket: Ticket | None) -> None:
    """Close a session; its place comes free when this ends, or its bound has passed.

    Args:
        pool: whose hook closes it.
        pooled: the session.
        ticket: the machine's name of this close; None for a session that has no place in the pool.
    """
    timer = None
    has_ended = True
    try:
        try:
            bound = pool._cleanup_timeout() + tasks.CANCEL_GRACE_SECONDS
            timer = pool._timer(bound, overdue, pool, pooled, ticket, asyncio.current_task())
        except Exception:  # noqa: S110 - closed all the same, where a hook or memory fails, and it cannot be bounded
            pass
        try:
            await pool._close_session(pooled)
        except MemoryError:  # it may not have begun: once more
            await pool._close_session(pooled)
    except GeneratorExit:
        has_ended = False  # its loop was closed: the pool has given this up, or is about to
        raise
    except Exception as error:
        pool._log().debug("closing a session failed: %s", safe_error(error))
    finally:
        if timer is not None:
            timer.cancel()
        if has_ended and ticket is not None:
            pool._close_ended(ticket)


def overdue(pool: MCPSessionPool, pooled: Any, ticket: Ticket | None, task: asyncio.Task[None]) -> None:
    """A close takes too long: give its place away, and end it."""
    pool._warn(
        "closing a session takes too long, its place is free: %s", safe_url(getattr(pooled, "url", ""))
    )
    task.cancel()
    if ticket is not None:
        pool._close_ended(ticket)


async def check(pool: MCPSessionPool, pooled: Any, ticket: Ticket) -> None:
    """Check a session for the machine."""
    is_usable = False
    has_ended = True
    try:
        is_usable = bool(await pool._check_session(pooled))
    except GeneratorExit:
        has_ended = False
        raise
    except Exception as error:
        pool._log().debug("a health check failed: %s", safe_error(error))
    finally:
        if has_ended:
            pool._checked(ticket, is_usable)
