"""Loops and threads that a pool lives in, and how it is drained and closed."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mcpgateway_pool import MCPSessionPool, PoolClosedError, tasks
from support.fakes import (
    URL,
    FakeClock,
    FakePool,
    assert_adds_up,
    assert_all_places_usable,
    assert_at_rest,
    cancelled,
    turns,
    until,
    until_timer,
)


@contextmanager
def new_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that is closed at the end, whatever tasks are left."""
    loop = asyncio.new_event_loop()
    try:
        yield loop
    finally:
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()


# ---- loops


def test_sessions_of_a_closed_loop_are_gone_and_count_as_broken():
    pool = FakePool(max_sessions_per_key=2)

    async def use() -> Any:
        first, second = await pool.acquire(URL), await pool.acquire(URL)
        await pool.release(first)
        return first, second

    old = asyncio.run(use())
    new = asyncio.run(use())
    assert not {id(pooled) for pooled in old} & {id(pooled) for pooled in new}
    assert pool.evictions == {"broken": 2}
    assert all(pooled.is_closed for pooled in old)
    assert pool.closed_sessions == []
    assert_adds_up(pool)

    async def rest() -> None:
        await pool.release(old[1])  # of the loop before: it is gone already
        pool.open_now.clear()
        await pool.close_all()

    asyncio.run(rest())
    assert pool.evictions == {"broken": 4}
    assert_adds_up(pool)


def test_waiters_creations_and_closes_of_a_closed_loop_are_forgotten():
    pool = FakePool(max_sessions_per_key=3)

    async def begin() -> list[Any]:
        held, other = await pool.acquire(URL), await pool.acquire(URL)
        pool.holds_creations = pool.holds_closes = True
        tasks = [asyncio.ensure_future(pool.acquire(URL)) for _ in range(2)]
        tasks.append(asyncio.ensure_future(pool.release(other, discard=True)))
        await until(lambda: pool.creations and pool.closes and pool.count("waiters") == 1)
        return [held, *tasks]

    async def use_again() -> None:
        held = await pool.acquire(URL)
        assert_adds_up(pool)
        counts = pool._counts()
        assert [counts[name] for name in ("active", "waiters", "creating", "closing")] == [1, 0, 0, 0]
        assert len(pool._tasks) <= 1
        await pool.release(held)
        await pool.drain_all()
        await pool.close_all()
        assert_adds_up(pool)

    with new_loop() as loop:
        left = loop.run_until_complete(begin())
        for task in pool._tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
    pool.holds_creations = pool.holds_closes = False
    pool.creations.clear()
    pool.closes.clear()
    asyncio.run(use_again())
    for task in left[1:]:
        task.get_coro().close()
    assert pool.evictions == {"broken": 1, "manual": 2}
    assert_adds_up(pool)


def test_upkeep_goes_on_in_the_next_loop():
    clock = FakeClock()
    pool = FakePool(idle_pool_eviction_seconds=100, clock=clock)

    async def use() -> None:
        await pool.release(await pool.acquire(URL))

    async def wait() -> None:
        await use()
        clock.advance(101)
        await until_timer(lambda: pool.closed_sessions)
        await turns()

    asyncio.run(use())
    asyncio.run(wait())
    assert pool.evictions == {"broken": 1, "idle_timeout": 1}
    assert_adds_up(pool)


def test_coroutines_destroyed_after_their_loop_was_closed_are_quiet():
    pool = FakePool(max_sessions_per_key=1)

    async def begin() -> tuple[Any, Coroutine[Any, Any, Any]]:
        held = await pool.acquire(URL)
        waiting = pool.acquire(URL)
        waiting.send(None)
        return held, waiting

    with new_loop() as loop:
        held, waiting = loop.run_until_complete(begin())
    assert pool.count("waiters") == 1
    waiting.close()
    del waiting
    gc.collect()
    assert pool.count("waiters") == 0
    assert not held.is_closed
    assert_adds_up(pool)


def test_session_dropped_after_its_loop_was_closed_is_quiet():
    pool = FakePool(max_sessions_per_key=1)

    async def begin() -> Any:
        return await pool.acquire(URL)

    box = [asyncio.run(begin())]
    box.clear()
    assert pool.count("active") == 1

    async def use() -> None:
        await pool.release(await pool.acquire(URL))

    asyncio.run(use())
    assert sum(pool.evictions.values()) == 1
    assert_adds_up(pool)


def in_thread(make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    result: list[Any] = []

    def run() -> None:
        try:
            result.append(asyncio.run(make()))
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return result[0]


async def test_use_from_a_second_running_loop_is_refused_and_harms_nothing():
    pool = FakePool(max_sessions_per_key=1)
    held = await pool.acquire(URL)
    for use in (
        lambda: pool.acquire(URL),
        lambda: pool.release(held),
        pool.drain_all,
        pool.close_all,
    ):
        error = in_thread(use)
        assert type(error) is RuntimeError
        assert "another event loop" in str(error)
    assert pool.count("active") == 1
    assert not pool._closed
    await pool.release(held)
    await assert_all_places_usable(pool)


async def test_metrics_are_read_in_any_thread_while_the_pool_works():
    pool = FakePool(max_sessions_per_key=2)
    stop = threading.Event()
    errors: list[BaseException] = []
    read = 0

    def scrape() -> None:
        nonlocal read
        try:
            while not stop.is_set():
                metrics = pool.get_metrics()
                for key in metrics["pools"].values():
                    assert key["active"] + key["available"] <= 2
                assert pool._active is not None
                list(pool._pools)
                read += 1
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=scrape)
    thread.start()

    async def work(number: int) -> None:
        for turn in range(50):
            async with pool.session(f"{URL}/{(number + turn) % 7}"):
                await asyncio.sleep(0)

    while read < 20 and not errors:
        await asyncio.gather(*(work(number) for number in range(10)))
    stop.set()
    thread.join()
    assert not errors
    assert read >= 20
    assert_at_rest(pool)


async def test_pool_that_is_dropped_goes_away_with_its_sessions():
    pool = FakePool()
    await pool.release(await pool.acquire(URL))
    held = await pool.acquire(URL)
    held_too = await pool.acquire(URL)
    await turns()
    gone = weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None
    assert held.is_closed
    del held, held_too
    assert len(asyncio.all_tasks()) == 1


async def test_pool_in_a_cycle_with_its_sessions_goes_away():
    pool = FakePool()
    held = await pool.acquire(URL)
    held.pool = pool  # type: ignore[attr-defined]
    pool.held = held  # type: ignore[attr-defined]
    gone = weakref.ref(pool)
    await turns()
    del pool, held
    gc.collect()
    assert gone() is None


async def test_pool_that_holds_its_own_checked_out_session_goes_away():
    pool = FakePool()
    pool.held = await pool.acquire(URL)  # type: ignore[attr-defined]
    gone = weakref.ref(pool)
    await turns()
    del pool
    assert gone() is None
    gc.collect()


async def test_acquire_that_nobody_runs_on_gives_its_place_back_when_it_is_destroyed():
    pool = FakePool(max_sessions_per_key=1)
    held = await pool.acquire(URL)
    waiting = pool.acquire(URL)
    waiting.send(None)
    assert pool.count("waiters") == 1
    await pool.release(held)  # granted
    del waiting
    assert (pool.count("waiters"), pool.count("idle")) == (0, 1)
    await assert_all_places_usable(pool)


async def test_pool_is_initialised_once():
    pool = FakePool()
    with pytest.raises(RuntimeError, match="twice"):
        pool.__init__()  # type: ignore[misc]
    await assert_all_places_usable(pool)


async def test_subclass_that_forgot_to_initialise_is_told_so():
    class Forgetful(MCPSessionPool):
        def __init__(self) -> None:
            pass

    with pytest.raises(RuntimeError, match="__init__"):
        await Forgetful().acquire(URL)


# ---- drain


async def test_drain_with_sessions_in_use_lets_their_callers_finish_and_reuses_none():
    limit = 3
    pool = FakePool(max_sessions_per_key=limit)
    old = [await pool.acquire(URL) for _ in range(limit)]
    await pool.release(old[0])
    await pool.drain_all()
    assert pool.closed_sessions == [old[0]]
    assert pool.evictions == {"manual": 1}
    assert not old[1].is_closed
    new = [await pool.acquire(URL)]
    waiting = [asyncio.ensure_future(pool.acquire(URL)) for _ in range(4)]
    await turns()
    assert not any(task.done() for task in waiting)
    for pooled in old[1:]:
        await pool.release(pooled)
    new.append(await waiting[0])
    new.append(await waiting[1])
    assert not {id(pooled) for pooled in old} & {id(pooled) for pooled in new}
    for pooled in new:
        await pool.release(pooled)
    for task in waiting[2:]:
        await pool.release(await task)
    assert pool.evictions == {"manual": limit}
    await assert_all_places_usable(pool)


async def test_creation_in_flight_at_a_drain_is_used_once_by_its_own_caller():
    pool = FakePool(max_sessions_per_key=1)
    pool.holds_creations = True
    caller = asyncio.ensure_future(pool.acquire(URL))
    await until(lambda: pool.creations)
    await pool.drain_all()
    pool.creations[0].open()
    pool.holds_creations = False
    old = await caller
    waiter = asyncio.ensure_future(pool.acquire(URL))
    await pool.release(old)
    assert pool.closed_sessions == [old]
    assert await waiter is not old
    await pool.release(waiter.result())
    await assert_all_places_usable(pool)


async def test_creation_in_flight_at_a_drain_whose_caller_left_is_closed():
    pool = FakePool(max_sessions_per_key=1)
    pool.holds_creations = True
    caller = asyncio.ensure_future(pool.acquire(URL))
    await until(lambda: pool.creations)
    await cancelled(caller)
    await pool.drain_all()
    pool.creations[0].open()
    pool.holds_creations = False
    await until(lambda: pool.closed_sessions)
    await turns()
    assert pool.evictions == {"manual": 1}
    await assert_all_places_usable(pool)


async def test_drain_waits_for_the_closes_of_idle_sessions_and_not_for_those_in_use():
    pool = FakePool()
    idle, used = await pool.acquire(URL), await pool.acquire(URL)
    await pool.release(idle)
    pool.holds_closes = True
    first, second = (asyncio.ensure_future(pool.drain_all()) for _ in range(2))
    await until(lambda: pool.closes)
    await turns()
    assert not first.done()
    assert not second.done()
    pool.closes[0].open()
    await asyncio.gather(first, second)
    assert pool.closed_sessions == [idle]
    pool.holds_closes = False
    await pool.release(used)
    assert pool.closed_sessions == [idle, used]
    await turns()
    assert_at_rest(pool)


async def test_drain_closes_thousands_of_idle_sessions():
    pool = FakePool(max_sessions_per_key=1)
    for number in range(2000):
        await pool.release(await pool.acquire(f"{URL}/{number}"))
    await pool.drain_all()
    await turns()
    assert len(pool.closed_sessions) == 2000
    assert pool.count("keys") == 0
    assert_at_rest(pool)


async def test_drain_twice_drops_what_was_made_between():
    pool = FakePool()
    await pool.drain_all()
    await pool.release(await pool.acquire(URL))
    await pool.drain_all()
    await pool.drain_all()
    assert len(pool.closed_sessions) == 1
    await turns()
    assert_at_rest(pool)


# ---- close


async def test_close_wakes_waiters_with_pool_closed_error():
    pool = FakePool(max_sessions_per_key=1)
    await pool.acquire(URL)
    waiters = [asyncio.ensure_future(pool.acquire(URL)) for _ in range(3)]
    await until(lambda: pool.count("waiters") == 3)
    await pool.close_all()
    for waiter in waiters:
        with pytest.raises(PoolClosedError, match="closed"):
            await waiter
    with pytest.raises(PoolClosedError, match="closed"):
        await pool.acquire(URL)
    with pytest.raises(PoolClosedError, match="closed"):
        async with pool.session(URL):
            pass
    assert len(pool.closed_sessions) == 1
    assert_at_rest(pool)


async def test_waiter_granted_a_session_just_before_the_close_gets_pool_closed_error():
    pool = FakePool(max_sessions_per_key=1)
    held = await pool.acquire(URL)
    waiter = asyncio.ensure_future(pool.acquire(URL))
    await until(lambda: pool.count("waiters") == 1)
    closing = asyncio.ensure_future(pool.close_all())  # begins before the waiter runs
    await pool.release(held)
    assert pool.count("waiters") == 0
    with pytest.raises(PoolClosedError):
        await waiter
    await closing
    await turns()
    assert len(pool.closed_sessions) == 1
    assert_at_rest(pool)


async def test_creation_in_flight_at_close_gives_pool_closed_error():
    pool = FakePool()
    pool.holds_creations = True
    caller = asyncio.ensure_future(pool.acquire(URL))
    await until(lambda: pool.creations)
    await pool.close_all()
    with pytest.raises(PoolClosedError):
        await caller
    await turns()
    assert_at_rest(pool)


async def test_creation_not_yet_begun_at_close_gives_pool_closed_error():
    pool = FakePool()
    caller = asyncio.ensure_future(pool.acquire(URL))
    await until(lambda: pool._tasks)
    assert pool.attempts == 0
    await pool.close_all()
    with pytest.raises(PoolClosedError):
        await asyncio.wait_for(caller, 5)
    await turns()
    assert_at_rest(pool)


async def test_creation_that_ignores_the_close_is_closed_when_it_comes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tasks, "CANCEL_GRACE_SECONDS", 0.01)
    pool = FakePool(cleanup_timeout_seconds=0.02)
    pool.holds_creations = pool.ignores_cancellation = True
    caller = asyncio.ensure_future(pool.acquire(URL))
    await until(lambda: pool.creations)
    gate = pool.creations[0]
    await pool.close_all()
    assert gate.cancellations >= 1
    gate.open()
    with pytest.raises(PoolClosedError):
        await caller
    await until(lambda: pool.closed_sessions)
    await turns()
    assert_at_rest(pool)


async def test_close_closes_everything_in_parallel_and_waits_for_it():
    pool = FakePool(max_sessions_per_key=5)
    taken = [await pool.acquire(URL) for _ in range(5)]
    for pooled in taken[:3]:
        await pool.release(pooled)
    pool.holds_closes = True
    first, second = (asyncio.ensure_future(pool.close_all()) for _ in range(2))
    await until(lambda: len(pool.closes) == 5)
    for gate in pool.closes[:4]:
        gate.open()
    await turns()
    assert not first.done()
    assert not second.done()
    pool.closes[0].open()
    await asyncio.gather(first, second)
    await pool.close_all()
    assert len(pool.closed_sessions) == 5
    assert pool.evictions == {"manual": 5}
    assert_at_rest(pool)


async def test_close_that_hangs_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tasks, "CANCEL_GRACE_SECONDS", 0.01)
    pool = FakePool(cleanup_timeout_seconds=0.02)
    pool.holds_closes = pool.ignores_cancellation = True
    taken = [await pool.acquire(URL) for _ in range(3)]
    async with asyncio.timeout(10):
        await pool.close_all()
    assert pool.count("closing") == 0
    for gate in list(pool.closes):
        gate.open()
    await turns()
    assert len(pool.closed_sessions) == len(taken)
    assert_at_rest(pool)


async def test_close_may_be_called_by_a_close_hook():
    class Own(FakePool):
        async def _close_session(self, pooled: Any) -> None:
            await self.close_all()
            await super()._close_session(pooled)

    pool = Own(cleanup_timeout_seconds=0.05)
    await pool.acquire(URL)
    async with asyncio.timeout(10):
        await pool.close_all()
    assert len(pool.closed_sessions) == 1
    assert_at_rest(pool)


async def test_pool_as_context_manager_closes_itself():
    async with FakePool() as pool:
        await pool.release(await pool.acquire(URL))
    assert pool._closed
    assert len(pool.closed_sessions) == 1
    assert_at_rest(pool)


async def test_close_of_a_pool_that_was_never_used():
    pool = FakePool()
    await pool.close_all()
    assert pool._closed
    assert_at_rest(pool)


async def test_close_ends_the_listener_task_that_was_set():
    pool = FakePool()
    listener = asyncio.ensure_future(asyncio.Event().wait())
    pool._rpc_listener_task = listener  # type: ignore[assignment]
    await asyncio.sleep(0)
    await pool.close_all()
    assert listener.cancelled()
    assert pool._rpc_listener_task is None
    assert_at_rest(pool)


async def test_closed_flag_is_writable():
    pool = FakePool(max_sessions_per_key=1)
    pooled = await pool.acquire(URL)
    pool._closed = True
    with pytest.raises(PoolClosedError):
        await pool.acquire(URL)
    pool._closed = False
    await pool.release(pooled)
    assert await pool.acquire(URL) is pooled
    pool._closed = True
    await pool.release(pooled)
    assert pool.closed_sessions == [pooled]
    pool._closed = False
    await turns()
    await assert_all_places_usable(pool)


async def test_pool_opened_again_after_its_close_goes_on_with_its_upkeep():
    clock = FakeClock()
    pool = FakePool(idle_pool_eviction_seconds=100, session_ttl_seconds=1000, clock=clock)
    await pool.release(await pool.acquire(URL))
    await pool.close_all()
    pool._closed = False
    await pool.release(await pool.acquire(URL))
    clock.advance(101)
    await until_timer(lambda: len(pool.closed_sessions) == 2)
    await turns()
    assert pool.evictions == {"manual": 1, "idle_timeout": 1}
    await assert_all_places_usable(pool)


async def test_closed_pool_leaves_no_timer():
    pool = FakePool()
    await pool.release(await pool.acquire(URL))
    assert pool._upkeep_timer is not None
    await pool.close_all()
    assert pool._upkeep_timer is None
