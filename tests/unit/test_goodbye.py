"""Nobody waits for a goodbye: a close that a caller causes begins before ``release()`` returns, is waited for
shortly, and goes on in the background.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mcpgateway_pool import tasks
from mcpgateway_pool.pool import release
from support.fakes import (
    URL,
    FakeClock,
    FakePool,
    assert_all_places_usable,
    assert_at_rest,
    turns,
    until_timer,
)
from support.fakes import until as until_turned

pytestmark = pytest.mark.both_loops


async def discard(pool: FakePool, pooled: Any) -> None:
    await pool.release(pooled, discard=True)


async def release_broken(pool: FakePool, pooled: Any) -> None:
    pooled.mark_closed()
    await pool.release(pooled)


@pytest.fixture(params=[discard, release_broken])
def give_back(request: pytest.FixtureRequest) -> Callable[[FakePool, Any], Awaitable[None]]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> float:
    """How long a release waits here, instead of 0.1 s."""
    monkeypatch.setattr(release, "GOODBYE_SECONDS", 0.005)
    return 0.005


@pytest.fixture
async def hanging(patience: float) -> AsyncIterator[FakePool]:
    """A pool whose closes hang until the test lets them end; its clock stands still, so no bound passes."""
    pool = FakePool(max_sessions_per_key=1, clock=FakeClock())
    pool.holds_closes = True
    yield pool
    pool.holds_closes = False
    for gate in list(pool.closes):
        gate.open()
    await turns()
    await assert_all_places_usable(pool)


def test_a_release_waits_a_tenth_of_a_second_at_most():
    assert release.GOODBYE_SECONDS == 0.1


async def test_release_waits_for_a_close_that_ends_soon(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(release, "GOODBYE_SECONDS", 60)
    pool = FakePool(max_sessions_per_key=1)
    pool.holds_closes = True
    pooled = await pool.acquire(URL)
    releasing = asyncio.ensure_future(pool.release(pooled, discard=True))
    waiter = asyncio.ensure_future(pool.acquire(URL))
    await until_turned(lambda: pool.closes)
    await turns()
    assert not releasing.done()
    assert not waiter.done()
    pool.closes[0].open()
    await releasing
    fresh = await waiter
    assert fresh is not pooled
    pool.holds_closes = False
    await pool.release(fresh)
    await assert_all_places_usable(pool)


async def test_release_returns_while_the_close_that_it_caused_goes_on(
    hanging: FakePool, give_back: Callable[[FakePool, Any], Awaitable[None]]
):
    pooled = await hanging.acquire(URL)
    await give_back(hanging, pooled)
    (gate,) = hanging.closes
    assert gate.pooled is pooled
    assert gate.cancellations == 0
    assert hanging.count("closing") == 1


async def test_block_that_ends_with_a_broken_session_is_not_held_by_its_close(hanging: FakePool):
    async with hanging.session(URL) as pooled:
        pooled.mark_closed()
    (gate,) = hanging.closes
    assert gate.pooled is pooled
    assert gate.cancellations == 0


async def test_place_counts_until_the_close_has_ended(hanging: FakePool):
    await discard(hanging, await hanging.acquire(URL))
    waiter = asyncio.ensure_future(hanging.acquire(URL))
    await turns()
    assert not waiter.done()
    assert hanging.attempts == 1
    hanging.holds_closes = False
    hanging.closes[0].open()
    await hanging.release(await waiter)


async def test_close_has_begun_also_when_its_caller_is_cancelled_at_once(hanging: FakePool):
    pooled = await hanging.acquire(URL)

    async def release_cancelled() -> None:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        await hanging.release(pooled, discard=True)

    releasing = asyncio.ensure_future(release_cancelled())
    await asyncio.wait({releasing})
    assert releasing.cancelled()
    (gate,) = hanging.closes
    assert gate.cancellations == 0


async def test_close_of_a_session_that_no_pool_gave_out_goes_on_and_is_bounded(
    monkeypatch: pytest.MonkeyPatch, patience: float
):
    monkeypatch.setattr(tasks, "CANCEL_GRACE_SECONDS", 0.01)
    clock = FakeClock()
    pool = FakePool(cleanup_timeout_seconds=1, clock=clock)
    pool.holds_closes = True
    stranger = SimpleNamespace(url=URL)
    pool.open_now["total"] += 1
    pool.open_now[URL] += 1
    await pool.release(stranger)
    (gate,) = pool.closes
    assert gate.cancellations == 0
    clock.advance(0.9)
    await turns()
    assert gate.cancellations == 0
    clock.advance(0.2)
    await until_timer(lambda: pool.closed_sessions == [stranger])
    await until_timer(lambda: gate.cancellations == 1)
    await turns()
    assert_at_rest(pool)


async def test_caller_whose_session_came_too_late_does_not_wait_for_its_close(hanging: FakePool):
    """The pool was closed while the session was being opened."""

    class Late(FakePool):
        async def _create_session(self, *args: Any, **kwargs: Any) -> Any:
            pooled = await super()._create_session(*args, **kwargs)
            self._give = self._created
            self._created = self._refuse  # type: ignore[method-assign]
            return pooled

        def _refuse(self, *_: Any) -> bool:
            self._created = self._give  # type: ignore[method-assign]
            raise MemoryError("no record for it")

    pool = Late(max_sessions_per_key=1, clock=FakeClock())
    pool.holds_closes = True
    with pytest.raises(MemoryError):
        await pool.acquire(URL)
    await until_turned(lambda: pool.closes)
    pool.holds_closes = False
    pool.closes[0].open()
    await turns()
    assert_at_rest(pool)
