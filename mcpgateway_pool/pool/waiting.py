"""An acquire that was not answered at once: it waits for its turn, and creates a session where it may."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcpgateway_pool.errors import AcquireTimeoutError
from mcpgateway_pool.redact import safe_url

from .creation import create

if TYPE_CHECKING:
    from mcpgateway_pool._core import Pending, PooledSession

    from .protocol import Pool
    from .session_context import AcquireArguments


async def acquire_slowly(pool: Pool, pending: Pending, arguments: AcquireArguments) -> PooledSession:
    """Finish an acquire.

    Args:
        pool: that was asked.
        pending: what ``_core.acquire()`` returned.
        arguments: with which it was asked.

    Raises:
        Exception: see :meth:`MCPSessionPool.acquire`.
    """
    try:
        arguments = arguments.copy(pending)
        if pending.future is not None:
            limit = arguments.wait_timeout
            if limit is None:
                limit = pool._settings.acquire_timeout_seconds
            timer = pool._timer(limit, time_out, pool, pending, arguments, limit)
            try:
                await pending.future
            finally:
                timer.cancel()  # may find no memory: what was granted goes back then, too
    except BaseException:
        if pending.future is None:
            pool._create_failed(pending, False)  # it has its place, which nobody will use
        pool._cancel(pending)
        raise
    if pending.future is not None:
        pooled = pool._take(pending, arguments.url)
        if pooled is not pending:
            return pooled  # type: ignore[no-any-return]
    return await create(pool, pending, arguments)


def time_out(pool: Pool, pending: Pending, arguments: AcquireArguments, limit: float) -> None:
    """It has waited for as long as it may."""
    numbers = pool._time_out(pending)
    if numbers is not None:
        active, idle, creating, closing, waiting = numbers
        most = pool._settings.max_sessions_per_key
        pending.error = AcquireTimeoutError(
            f"Timeout waiting for available session for {safe_url(arguments.url)} after {limit:g} s: "
            f"{active} active, {idle} idle, {creating} being created, {closing} being closed, "
            f"{waiting} waiting, limit {most}",
            wait_timeout=limit,
            active=active,
            idle=idle,
            creating=creating,
            closing=closing,
            waiting=waiting,
            max_sessions_per_key=most,
        )
    # Also where it waits no longer, but there was no memory to wake it.
    if pending.future is not None and not pending.future.done():
        pending.future.set_result(None)
