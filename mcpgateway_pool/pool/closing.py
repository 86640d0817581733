"""Closing a session: one that this package opened, or whatever an overridden ``_create_session`` returned."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from mcpgateway_pool._core import PooledSession
from mcpgateway_pool.redact import safe_error
from mcpgateway_pool.upstream.session_owner import SessionOwner

logger = logging.getLogger("mcpgateway_pool")


async def close_session(pooled: Any, timeout: float) -> None:
    """Close a session and its transport; what ``_close_session()`` does where nobody has overridden it.

    Args:
        pooled: a PooledSession, or whatever has some of its attributes.
        timeout: seconds to bound each step.
    """
    owner = getattr(pooled, "transport_context", None)
    was_closed = getattr(pooled, "_closed", False) is True
    if isinstance(pooled, PooledSession):
        pooled.mark_closed()
    if isinstance(owner, SessionOwner):
        await owner.close(timeout)
    elif not was_closed:
        await close_contexts(pooled, timeout)


async def close_contexts(pooled: Any, timeout: float) -> None:
    """Close by the owner task where there is one, else by leaving the session's and the transport's contexts.

    Args:
        pooled: a PooledSession, or whatever has some of its attributes.
        timeout: seconds to bound each step.
    """
    task = getattr(pooled, "owner_task", None)
    if isinstance(task, asyncio.Task):
        event = getattr(pooled, "shutdown_event", None)
        if isinstance(event, asyncio.Event):
            event.set()
        await asyncio.wait({task}, timeout=timeout)
        task.cancel()  # harmless once it is done
        return
    for name in ("session", "transport_context"):
        leave = getattr(getattr(pooled, name, None), "__aexit__", None)
        if leave is None:
            continue
        try:
            async with asyncio.timeout(timeout):
                await leave(None, None, None)
        except Exception as error:
            logger.debug("closing the %s of a session failed: %s", name, safe_error(error))
