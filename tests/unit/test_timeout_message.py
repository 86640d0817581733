"""What the message of an acquire that timed out says of the sessions of its key."""

from __future__ import annotations

import asyncio

import pytest

from mcpgateway_pool import AcquireTimeoutError
from support.fakes import URL, FakeClock, PlainPool, turns, until


class CheckedPool(PlainPool):
    """Its health checks wait until the test is over."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        self.over = asyncio.Event()

    async def _run_health_check_chain(self, pooled: object) -> bool:
        await self.over.wait()
        return True


async def test_a_session_under_a_check_is_an_idle_one():
    clock = FakeClock()
    pool = CheckedPool(
        max_sessions_per_key=2, acquire_timeout_seconds=5.0, health_check_interval_seconds=60.0, clock=clock
    )
    held, idle = await pool.acquire(URL), await pool.acquire(URL)
    await pool.release(idle)
    clock.advance(61.0)
    waiter = asyncio.ensure_future(pool.acquire(URL))
    await until(lambda: pool.count("checking") == 1)
    assert pool.count("idle") == 0
    clock.advance(6.0)
    with pytest.raises(
        AcquireTimeoutError, match="1 active, 1 idle, 0 being created, 0 being closed, 1 waiting"
    ):
        await waiter
    pool.over.set()
    await turns(20)
    await pool.release(held)
    await pool.close_all()
