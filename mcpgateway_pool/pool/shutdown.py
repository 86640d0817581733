"""Draining and closing a whole pool."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mcpgateway_pool import tasks

from . import upkeep

if TYPE_CHECKING:
    from .protocol import Pool


def close_bound(pool: Pool) -> float:
    """For how long closes that were begun are waited for, in seconds."""
    return pool._cleanup_timeout() + 2 * tasks.CANCEL_GRACE_SECONDS


async def drain(pool: Pool) -> None:
    """See :meth:`MCPSessionPool.drain_all`."""
    pool._drain()
    while pool._upkeep():  # noqa: ASYNC110 - in slices, so that a drain of any size stops nobody
        await asyncio.sleep(0)
    closing = {task for task in pool._tasks if task.get_name() == upkeep.close.__name__}
    if closing:
        await asyncio.wait(closing, timeout=close_bound(pool))


async def close(pool: Pool) -> None:
    """See :meth:`MCPSessionPool.close_all`."""
    pool._close()
    for task in pool._tasks:
        if task.get_name() != upkeep.close.__name__:
            task.cancel()
    current = asyncio.current_task()
    await tasks.wait_until_done({task for task in pool._tasks if task is not current}, close_bound(pool))
    if pool._upkeep_timer is not None:
        pool._upkeep_timer.cancel()
        pool._upkeep_timer = None
    listener, pool._rpc_listener_task = pool._rpc_listener_task, None
    if listener is not None and listener.get_loop() is asyncio.get_running_loop():  # else out of reach
        listener.cancel()
        await asyncio.wait({listener}, timeout=tasks.CANCEL_GRACE_SECONDS)
