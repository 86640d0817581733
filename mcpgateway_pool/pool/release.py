"""What ``release()`` does when the session did not just go back, and closing what is not in the pool."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from mcpgateway_pool._core import PooledSession
from mcpgateway_pool.tasks import GOODBYE_SECONDS

from . import upkeep

if TYPE_CHECKING:
    from .protocol import Pool


async def finish_release(pool: Pool, pooled: Any, closing: Any) -> None:
    """Finish a release. A close has begun when this returns; it is waited for shortly.

    Args:
        pool: to which the session was released.
        pooled: the session.
        closing: what ``_core.release()`` returned: the task that closes the session; False when it was not
            checked out; NotImplemented when it is not of this pool.
    """
    if closing is False:
        pool._warn("ignored the release of a session that is not checked out")
    elif closing is NotImplemented:
        owner: Pool | None = pooled._pool if isinstance(pooled, PooledSession) else None
        if owner is not None:
            pool._warn("a session was released to a pool that it does not come from: closing it")
            await owner.release(pooled, discard=True)
        elif getattr(pooled, "is_closed", False) is True:
            pool._warn("ignored the release of a session that is closed already")
        else:
            pool._warn("a session was released that no pool gave out: closing it")
            await wait_for_goodbye(begin_close(pool, pooled))
    elif isinstance(closing, asyncio.Task):
        await wait_for_goodbye(closing)


async def wait_for_goodbye(closing: asyncio.Task[None]) -> None:
    """Wait for a close that a caller caused, shortly: where the server answers, the next caller of a full key
    then finds the place free.
    """
    # Not shielded by hand: wait() never cancels what it waits for.
    await asyncio.wait({closing}, timeout=GOODBYE_SECONDS)


def begin_close(pool: Pool, pooled: Any) -> asyncio.Task[None]:
    """Close a session that is not in the pool, in the background, bounded as every close is."""
    return pool._spawn(upkeep.close(pool, pooled, None), upkeep.close.__name__)
