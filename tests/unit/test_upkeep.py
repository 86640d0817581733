"""What a pool does with no traffic."""

from __future__ import annotations

import asyncio
import contextvars
import time
from typing import Any

import pytest

from support.fakes import (
    URL,
    FakeClock,
    FakePool,
    assert_adds_up,
    assert_all_places_usable,
    assert_at_rest,
    turns,
    until,
    until_timer,
    upkeep,
)


async def idle(pool: FakePool, *urls: str) -> list[Any]:
    sessions = [await pool.acquire(url) for url in urls]
    for pooled in sessions:
        await pool.release(pooled)
    return sessions


# ---- lifetimes and idle time-outs


async def test_expired_sessions_close_with_no_traffic():
    clock = FakeClock()
    pool = FakePool(session_ttl_seconds=100, idle_pool_eviction_seconds=10_000, clock=clock)
    first, second = await idle(pool, URL, URL + "/b")
    clock.advance(99)
    await asyncio.sleep(0.05)
    assert pool.closed_sessions == []
    clock.advance(2)
    await until_timer(lambda: len(pool.closed_sessions) == 2)
    await turns()
    assert {id(s) for s in pool.closed_sessions} == {id(first), id(second)}
    assert pool.evictions == {"ttl_expired": 2}
    assert pool.get_metrics()["sessions_reaped"] == 2
    assert pool.count("keys") == 0
    assert pool.get_metrics()["pool_keys_evicted"] == 2
    assert_at_rest(pool)


async def test_idle_sessions_close_with_no_traffic():
    clock = FakeClock()
    pool = FakePool(idle_pool_eviction_seconds=100, session_ttl_seconds=10_000, clock=clock)
    first, second = await idle(pool, URL, URL)
    clock.advance(60)
    await pool.release(await pool.acquire(URL))  # the most recently used one
    clock.advance(60)
    await until_timer(lambda: pool.closed_sessions)
    await turns()
    assert pool.closed_sessions == [first]
    clock.advance(60)
    await until_timer(lambda: len(pool.closed_sessions) == 2)
    await turns()
    assert pool.closed_sessions == [first, second]
    assert pool.evictions == {"idle_timeout": 2}
    assert_at_rest(pool)


async def test_timer_of_the_real_clock_closes_an_idle_session():
    pool = FakePool(idle_pool_eviction_seconds=0.02)
    await idle(pool, URL)
    await until_timer(lambda: pool.closed_sessions)
    await turns()
    assert pool.evictions == {"idle_timeout": 1}
    assert_at_rest(pool)


async def test_session_in_use_is_never_closed_by_time():
    clock = FakeClock()
    pool = FakePool(session_ttl_seconds=100, idle_pool_eviction_seconds=10, clock=clock)
    pooled = await pool.acquire(URL)
    clock.advance(1000)
    await upkeep(pool)
    assert pool.closed_sessions == []
    await pool.release(pooled)
    assert pool.closed_sessions == [pooled]
    assert pool.evictions == {"ttl_expired": 1}
    await turns()
    assert_at_rest(pool)


async def test_expired_session_is_not_handed_out_even_before_upkeep_ran():
    clock = FakeClock()
    pool = FakePool(session_ttl_seconds=100, max_sessions_per_key=1, clock=clock)
    (old,) = await idle(pool, URL)
    clock.advance(101)
    fresh = await pool.acquire(URL)
    assert fresh is not old
    assert pool.closed_sessions == [old]
    await pool.release(fresh)
    await turns()
    await assert_all_places_usable(pool)


async def test_lifetimes_are_shortened_by_a_random_part_of_up_to_the_jitter():
    clock = FakeClock()
    pool = FakePool(session_ttl_seconds=100, session_ttl_jitter=0.2, max_sessions_per_key=100, clock=clock)
    await idle(pool, *[URL] * 100)
    clock.advance(79.9)
    await upkeep(pool)
    assert pool.closed_sessions == []
    clock.advance(10)
    await upkeep(pool)
    assert 20 < len(pool.closed_sessions) < 80
    clock.advance(10.2)
    await upkeep(pool)
    assert len(pool.closed_sessions) == 100
    assert_at_rest(pool)


async def test_wall_clock_stepped_by_an_hour_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    pool = FakePool(max_sessions_per_key=2, acquire_timeout_seconds=30)
    idle_one, held = await pool.acquire(URL), await pool.acquire(URL)
    waiter = asyncio.ensure_future(pool.acquire(URL))
    await turns()
    real = time.time
    for step in (3600, -3600):
        monkeypatch.setattr(time, "time", lambda step=step: real() + step)
        await upkeep(pool)
        assert pool.closed_sessions == []
        assert not waiter.done()
        assert 0 <= held.age_seconds < 60
    monkeypatch.undo()
    await pool.release(idle_one)
    assert await waiter is idle_one
    await pool.release(idle_one)
    await pool.release(held)
    assert pool.evictions == {}
    await assert_all_places_usable(pool)


async def test_clock_that_runs_backwards_harms_nothing():
    clock = FakeClock()
    pool = FakePool(session_ttl_seconds=100, clock=clock)
    (pooled,) = await idle(pool, URL)
    clock.advance(-500)
    assert await pool.acquire(URL) is pooled
    await pool.release(pooled)
    clock.advance(599)
    assert await pool.acquire(URL) is pooled
    await pool.release(pooled)
    await turns()
    assert_at_rest(pool)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), "soon", None])
async def test_clock_that_gives_rubbish_is_an_error_for_its_caller_alone(bad: Any):
    clock = FakeClock()
    pool = FakePool(clock=clock, max_sessions_per_key=1)
    pooled = await pool.acquire(URL)
    good = clock.now
    clock.now = bad
    with pytest.raises((TypeError, ValueError)):
        await pool.acquire(URL)
    clock.now = good
    await pool.release(pooled)
    await assert_all_places_usable(pool)


async def test_assigned_times_move_a_session_in_the_orders():
    pool = FakePool(idle_pool_eviction_seconds=100, session_ttl_seconds=1000)
    first, second, third = await idle(pool, URL, URL, URL)
    second.last_used -= 101
    third.created_at -= 1001
    await until_timer(lambda: len(pool.closed_sessions) == 2)
    await turns()
    assert {id(s) for s in pool.closed_sessions} == {id(second), id(third)}
    assert pool.evictions == {"idle_timeout": 1, "ttl_expired": 1}
    assert await pool.acquire(URL) is first
    await pool.release(first)
    assert_at_rest(pool)


async def test_settings_of_zero_seconds_use_each_session_once():
    for setting in ("session_ttl_seconds", "idle_pool_eviction_seconds"):
        pool = FakePool(**{setting: 0})
        await pool.release(await pool.acquire(URL))
        await until_timer(lambda pool=pool: pool.closed_sessions)
        await turns()
        assert_at_rest(pool)


# ---- health checks


async def test_idle_session_is_checked_in_the_background_when_its_key_was_used_lately():
    clock = FakeClock()
    pool = FakePool(health_check_interval_seconds=50, clock=clock)
    (pooled,) = await idle(pool, URL)
    clock.advance(51)
    await until_timer(lambda: pool.checked)
    await turns()
    assert pool.checked == [pooled]
    assert pool.count("health_checks") == 1
    assert pooled.use_count == 0
    assert pooled.idle_seconds == pytest.approx(51)
    clock.advance(60)
    await asyncio.sleep(0.05)
    await upkeep(pool)
    assert len(pool.checked) == 1  # nobody used the key for two intervals
    assert await pool.acquire(URL) is pooled
    assert len(pool.checked) == 2  # so it is checked now
    await pool.release(pooled)
    assert_at_rest(pool)


async def test_session_that_fails_its_check_is_closed_and_counted():
    clock = FakeClock()
    pool = FakePool(health_check_interval_seconds=50, clock=clock)
    (pooled,) = await idle(pool, URL)
    pool.is_healthy = False
    clock.advance(51)
    await until_timer(lambda: pool.closed_sessions)
    await turns()
    assert pool.closed_sessions == [pooled]
    assert pool.count("health_check_failures") == 1
    assert pool.evictions == {"health_check": 1}
    assert_at_rest(pool)


async def test_checks_are_limited_in_rate():
    clock = FakeClock()
    pool = FakePool(health_check_interval_seconds=50, health_checks_per_second=2, clock=clock)
    await idle(pool, *(f"{URL}/{number}" for number in range(10)))
    clock.advance(51)
    await upkeep(pool)
    assert len(pool.checked) == 1
    for expected in (2, 3, 4):
        clock.advance(0.49)
        await upkeep(pool)
        assert len(pool.checked) == expected - 1
        clock.advance(0.02)
        await upkeep(pool)
        assert len(pool.checked) == expected
    await turns()
    assert_at_rest(pool)


class HeldCheck(FakePool):
    """A check that waits for the test."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.verdict: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def _run_health_check_chain(self, pooled: Any) -> bool:
        self.checked.append(pooled)
        return await asyncio.shield(self.verdict)


@pytest.mark.parametrize("is_healthy", [True, False])
async def test_session_under_check_counts_as_taken_and_goes_to_the_oldest_waiter(is_healthy: bool):
    clock = FakeClock()
    pool = HeldCheck(health_check_interval_seconds=50, max_sessions_per_key=1, clock=clock)
    (pooled,) = await idle(pool, URL)
    clock.advance(51)
    await until_timer(lambda: pool.checked)
    assert pool.count("size") == 1
    first, second = asyncio.ensure_future(pool.acquire(URL)), asyncio.ensure_future(pool.acquire(URL))
    await turns()
    assert pool.attempts == 1
    assert_adds_up(pool)
    pool.verdict.set_result(is_healthy)
    got = await first
    assert (got is pooled) == is_healthy
    await pool.release(got)
    assert await second is got
    await pool.release(got)
    await turns()
    assert_at_rest(pool)


async def test_one_failing_check_does_not_make_a_request_try_all_idle_sessions_in_turn():
    clock = FakeClock()
    pool = FakePool(health_check_interval_seconds=50, max_sessions_per_key=5, clock=clock)
    await idle(pool, *[URL] * 5)
    pool.is_healthy = False
    clock.advance(101)
    got = await pool.acquire(URL)
    assert len(pool.checked) == 1
    assert pool.attempts == 6
    await pool.release(got)
    await turns()
    assert_at_rest(pool)


async def test_waiting_for_a_check_is_bounded_by_the_acquire_timeout():
    clock = FakeClock()
    pool = HeldCheck(
        health_check_interval_seconds=50, acquire_timeout_seconds=5, max_sessions_per_key=1, clock=clock
    )
    (pooled,) = await idle(pool, URL)
    clock.advance(101)
    caller = asyncio.ensure_future(pool.acquire(URL))
    await until(lambda: pool.checked)
    clock.advance(6)
    with pytest.raises(TimeoutError):
        await caller
    pool.verdict.set_result(True)
    await until(lambda: pool.count("idle") == 1)
    assert await pool.acquire(URL) is pooled
    await pool.release(pooled)
    await turns()
    await assert_all_places_usable(pool)


# ---- slices


async def test_20000_idle_keys_are_evicted_in_slices_while_acquires_go_on():
    clock = FakeClock()
    count = 20_000
    pool = FakePool(idle_pool_eviction_seconds=100, session_ttl_seconds=10_000, clock=clock)
    for number in range(count):
        await pool.release(await pool.acquire(f"{URL}/{number}"))
    assert pool.count("keys") == count
    clock.advance(101)
    slices: list[int] = []
    loop_turns = 0
    while pool.count("idle") > 0 and loop_turns < 10 * count:
        before = pool.count("idle")
        if not loop_turns % 100:
            fresh = await asyncio.wait_for(pool.acquire(URL), 5)
            await pool.release(fresh, discard=True)
            before = min(before, pool.count("idle"))
        pool._upkeep()
        slices.append(before - pool.count("idle"))
        await asyncio.sleep(0)
        loop_turns += 1
    assert max(slices) <= 64
    assert sum(slices) > count // 2
    await until(lambda: pool.count("closing") == 0)
    await turns()
    assert pool.count("keys") == 0
    assert pool.evictions["idle_timeout"] == count
    assert_at_rest(pool)


async def test_upkeep_goes_on_by_itself_slice_by_slice():
    clock = FakeClock()
    pool = FakePool(idle_pool_eviction_seconds=100, clock=clock)
    for number in range(2000):
        await pool.release(await pool.acquire(f"{URL}/{number}"))
    clock.advance(101)
    await until_timer(lambda: pool.count("keys") == 0, seconds=30)
    assert len(pool.closed_sessions) == 2000
    await turns()
    assert_at_rest(pool)


# ---- context variables

REQUEST: contextvars.ContextVar[Any] = contextvars.ContextVar("request", default=None)


async def test_background_work_never_sees_a_requests_variables():
    seen: list[Any] = []

    class Watching(FakePool):
        async def _close_session(self, pooled: Any) -> None:
            seen.append(("close", REQUEST.get()))
            await super()._close_session(pooled)

        async def _run_health_check_chain(self, pooled: Any) -> bool:
            seen.append(("check", REQUEST.get()))
            return await super()._run_health_check_chain(pooled)

    clock = FakeClock()
    pool = Watching(health_check_interval_seconds=50, idle_pool_eviction_seconds=200, clock=clock)
    token = REQUEST.set("a request's")
    await pool.release(await pool.acquire(URL))
    clock.advance(51)
    await until_timer(lambda: len(seen) == 1)
    clock.advance(50)
    await pool.release(await pool.acquire(URL), discard=True)
    await pool.release(await pool.acquire(URL))
    clock.advance(201)
    await until_timer(lambda: len(pool.closed_sessions) == 2)
    await pool.close_all()
    REQUEST.reset(token)
    assert {kind for kind, _ in seen} == {"close", "check"}
    assert all(value is None for _, value in seen)
    assert_at_rest(pool)


async def test_creation_sees_its_callers_variables():
    seen: list[Any] = []

    class Watching(FakePool):
        async def _create_session(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(REQUEST.get())
            return await super()._create_session(*args, **kwargs)

    pool = Watching()
    token = REQUEST.set("mine")
    await pool.release(await pool.acquire(URL))
    REQUEST.reset(token)
    assert seen == ["mine"]
    await turns()
    assert_at_rest(pool)
