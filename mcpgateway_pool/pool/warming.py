"""Opening sessions before anybody asks for one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mcpgateway_pool._core import Pending

from .creation import Creation

if TYPE_CHECKING:
    from .protocol import Pool
    from .session_context import AcquireArguments


async def warm(pool: Pool, arguments: AcquireArguments, sessions: int) -> int:
    """See :meth:`MCPSessionPool.warm`. Cancelled, it begins no further ones; those under way finish into the
    pool.
    """
    url, headers, transport_type, _, _, user_identity, gateway_id, _ = arguments
    under_way: dict[asyncio.Future[None], Pending] = {}
    failure: BaseException | None = None

    def begin(wanted: int) -> Pending | int:
        return pool._warm(url, headers, transport_type, user_identity, gateway_id, wanted)

    try:
        while True:
            while failure is None and isinstance(pending := begin(sessions), Pending):
                try:
                    creation = Creation(pool, pending, arguments.copy(pending))
                except BaseException:
                    pool._create_failed(pending, False)  # nobody else will report its end
                    raise
                under_way[creation.done] = pending
            if not under_way:
                break
            done, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                pending = under_way.pop(ended)
                failure, pending.error = failure or pending.error, None
        count = begin(0)
        assert isinstance(count, int)
        if count == 0 and failure is not None:
            raise failure
        return count
    finally:
        failure = None  # it refers to this frame
