"""A caller may be cancelled wherever it waits: nothing gets lost, and it always learns of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mcpgateway_pool import CircuitOpenError, PoolClosedError, SessionCreateTimeoutError
from support.fakes import (
    URL,
    FakeClock,
    FakePool,
    PlainPool,
    assert_adds_up,
    assert_all_places_usable,
    assert_at_rest,
    cancelled,
    turns,
    until,
    until_timer,
)

pytestmark = pytest.mark.both_loops


def asking(pool: FakePool, url: str = URL) -> asyncio.Task[Any]:
    return asyncio.ensure_future(pool.acquire(url))


async def test_cancelled_waiter_leaves_the_queue():
    pool = FakePool(max_sessions_per_key=1)
    held = await pool.acquire(URL)
    first, second = asking(pool), asking(pool)
    await until(lambda: pool.count("waiters") == 2)
    await cancelled(first)
    assert pool.count("waiters") == 1
    assert pool.count("acquire_cancellations") == 1
    await pool.release(held)
    assert await second is held
    await pool.release(held)
    await assert_all_places_usable(pool)


async def test_cancelled_waiter_returns_its_granted_session():
    pool = FakePool(max_sessions_per_key=1)
    held = await pool.acquire(URL)
    waiter = asking(pool)
    await until(lambda: pool.count("waiters") == 1)
    await pool.release(held)
    assert pool.count("waiters") == 0  # granted
    await cancelled(waiter)
    assert pool.count("idle") == 1
    assert pool.count("hits") == 0
    assert await pool.acquire(URL) is held
    await pool.release(held)
    await assert_all_places_usable(pool)


async def test_granted_session_of_a_cancelled_waiter_goes_to_the_next():
    pool = FakePool(max_sessions_per_key=1)
    held = await pool.acquire(URL)
    first, second = asking(pool), asking(pool)
    await until(lambda: pool.count("waiters") == 2)
    await pool.release(held)
    first.cancel()
    assert await second is held
    assert first.cancelled()
    await pool.release(held)
    await assert_all_places_usable(pool)


async def test_granted_place_of_a_cancelled_waiter_goes_to_the_next():
    pool = FakePool(max_sessions_per_key=1)
    pool.holds_closes = True
    held = await pool.acquire(URL)
    first, second = asking(pool), asking(pool)
    releasing = asyncio.ensure_future(pool.release(held, discard=True))
    await until(lambda: pool.closes)
    pool.closes[0].open()
    await until(lambda: pool.count("waiters") == 1)
    assert not first.done()
    first.cancel()
    fresh = await second
    assert first.cancelled()
    assert fresh is not held
    await releasing
    pool.holds_closes = False
    await pool.release(fresh)
    await assert_all_places_usable(pool)


async def test_creation_of_a_cancelled_caller_finishes_into_the_pool():
    pool = FakePool(max_sessions_per_key=1)
    pool.holds_creations = True
    caller = asking(pool)
    await until(lambda: pool.creations)
    await cancelled(caller)
    assert pool.creations[0].cancellations == 0
    assert pool.count("creating") == 1
    pool.creations[0].open()
    await until(lambda: pool.count("idle") == 1)
    assert (pool.count("creates"), pool.count("misses"), pool.count("hits")) == (1, 0, 0)
    pool.holds_creations = False
    await pool.release(await pool.acquire(URL))
    assert (pool.count("creates"), pool.count("misses"), pool.count("hits")) == (1, 0, 1)
    await assert_all_places_usable(pool)


async def test_creation_of_a_cancelled_caller_goes_to_the_oldest_waiter():
    pool = FakePool(max_sessions_per_key=1)
    pool.holds_creations = True
    caller, first, second = asking(pool), asking(pool), asking(pool)
    await until(lambda: pool.count("waiters") == 2)
    await cancelled(caller)
    pool.creations[0].open()
    pooled = await first
    assert not second.done()
    await pool.release(pooled)
    assert await second is pooled
    assert (pool.count("creates"), pool.count("misses"), pool.count("hits")) == (1, 0, 2)
    await pool.release(pooled)
    pool.holds_creations = False
    await assert_all_places_usable(pool)


async def test_failed_creation_of_a_cancelled_caller_passes_its_place_on():
    pool = FakePool(max_sessions_per_key=1)
    pool.holds_creations = True
    caller, waiter = asking(pool), asking(pool)
    await until(lambda: pool.count("waiters") == 1)
    await cancelled(caller)
    pool.creations[0].fail(OSError("refused"))
    await until(lambda: pool.attempts == 2)
    await until(lambda: pool.creations)
    pool.creations[0].open()
    await pool.release(await waiter)
    pool.holds_creations = False
    await assert_all_places_usable(pool)


async def test_session_created_but_not_yet_taken_by_its_cancelled_caller_is_pooled():
    pool = FakePool(max_sessions_per_key=1)
    pool.holds_creations = True
    caller = asking(pool)
    await until(lambda: pool.creations)
    pool.creations[0].open()
    await until(lambda: pool.count("active") == 1)
    assert not caller.done()
    await cancelled(caller)
    assert (pool.count("idle"), pool.count("misses"), pool.count("creates")) == (1, 0, 1)
    pool.holds_creations = False
    await assert_all_places_usable(pool)


async def test_error_of_a_creation_that_its_cancelled_caller_did_not_see_is_dropped():
    pool = FakePool(max_sessions_per_key=1)
    pool.holds_creations = True
    caller = asking(pool)
    await until(lambda: pool.creations)
    pool.creations[0].fail(OSError("refused"))
    await until(lambda: pool.count("creating") == 0)
    assert not caller.done()
    await cancelled(caller)
    pool.holds_creations = False
    await assert_all_places_usable(pool)


async def test_creation_of_a_cancelled_caller_is_still_bounded_in_time():
    clock = FakeClock()
    pool = FakePool(max_sessions_per_key=1, session_create_timeout_seconds=7, clock=clock)
    pool.holds_creations = True
    caller = asking(pool)
    await until(lambda: pool.creations)
    await cancelled(caller)
    clock.advance(8)
    await until_timer(lambda: pool.count("creating") == 0)
    assert pool.count("create_failures") == 1
    pool.holds_creations = False
    await assert_all_places_usable(pool)


async def test_creation_that_ignores_its_cancellation_gives_its_place_back_and_is_closed_when_it_comes():
    clock = FakeClock()
    pool = FakePool(
        max_sessions_per_key=1, session_create_timeout_seconds=7, cleanup_timeout_seconds=3, clock=clock
    )
    pool.holds_creations = pool.ignores_cancellation = True
    caller = asking(pool)
    await until(lambda: pool.creations)
    gate = pool.creations[0]
    clock.advance(8)
    await until_timer(lambda: gate.cancellations == 1)
    assert not caller.done()
    clock.advance(4)
    with pytest.raises(SessionCreateTimeoutError):
        await caller
    assert pool.count("creating") == 0
    gate.open()
    await until(lambda: len(pool.closed_sessions) == 1)
    await turns()
    pool.holds_creations = False
    pool.most_open.clear()  # the late one was beyond the limit, which nobody could help
    await assert_all_places_usable(pool)


async def test_creation_task_cancelled_before_its_first_step_gives_its_place_back():
    pool = FakePool(max_sessions_per_key=1)
    caller = asking(pool)
    await until(lambda: pool._tasks)
    (creation,) = pool._tasks
    assert pool.attempts == 0
    creation.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(caller, 5)
    await turns()
    assert pool.attempts == 0
    await assert_all_places_usable(pool)


async def test_creation_that_has_ended_is_not_timed_out_later(caplog: pytest.LogCaptureFixture) -> None:
    """However it ended: its timer has ended with it."""
    clock = FakeClock()
    pool = FakePool(clock=clock, session_create_timeout_seconds=4, max_sessions_per_key=5)

    async def never_ran() -> None:
        caller = asking(pool)
        await until(lambda: pool._tasks)
        (creation,) = pool._tasks
        creation.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller

    async def cancelled_in_the_middle() -> None:
        pool.holds_creations = True
        caller = asking(pool)
        await until(lambda: pool.creations)
        (creation,) = pool._tasks
        creation.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        pool.holds_creations = False

    async def failed() -> None:
        pool.create_error = OSError("no luck")
        with pytest.raises(OSError, match="no luck"):
            await pool.acquire(URL)
        pool.create_error = None

    for end in (never_ran, cancelled_in_the_middle, failed):
        await end()
    held = await pool.acquire(URL)
    totals = pool._totals()
    with caplog.at_level("DEBUG"):
        for _ in range(3):  # the time-out, and the wait for what ignores its cancellation
            fired = asyncio.Event()
            timer = pool._timer(1, fired.set)  # made last, it asks the clock last
            clock.advance(60)
            await fired.wait()
            timer.cancel()
    assert "ignores its cancellation" not in caplog.text
    assert pool._totals() == totals
    await pool.release(held)
    await assert_all_places_usable(pool)


async def test_creation_task_cancelled_from_outside_ends_its_caller():
    pool = FakePool(max_sessions_per_key=1)
    pool.holds_creations = True
    caller = asking(pool)
    await until(lambda: pool.creations)
    (creation,) = pool._tasks
    creation.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(caller, 5)
    await turns()
    pool.holds_creations = False
    await assert_all_places_usable(pool)


async def test_creation_task_without_a_first_step_gives_its_place_back_after_its_caller_was_cancelled():
    pool = FakePool(max_sessions_per_key=1)
    caller = pool.acquire(URL)  # driven by hand: a task would let the creation begin before it is cancelled
    future = caller.send(None)
    waiter = asyncio.ensure_future(pool.acquire(URL))
    future.cancel()
    with pytest.raises(asyncio.CancelledError):
        caller.throw(asyncio.CancelledError())
    [creation] = [task for task in pool._tasks if task.get_name() == "create"]
    creation.cancel()
    await pool.release(await waiter)
    await assert_all_places_usable(pool)
    assert_adds_up(pool)


async def test_close_task_cancelled_before_its_first_step_gives_its_place_back():
    pool = FakePool(max_sessions_per_key=1)
    held = await pool.acquire(URL)
    spawn = pool._spawn

    def spawn_and_cancel(*args: Any, **kwargs: Any) -> asyncio.Task[None]:
        task = spawn(*args, **kwargs)
        task.cancel()
        return task

    pool._spawn = spawn_and_cancel  # type: ignore[method-assign]
    await pool.release(held, discard=True)
    pool._spawn = spawn  # type: ignore[method-assign]
    await until(lambda: pool.count("closing") == 0)
    assert pool.closed_sessions == []
    pool.open_now.clear()  # nobody closed it: whoever cancelled has to
    await assert_all_places_usable(pool)


async def test_check_task_cancelled_before_its_first_step_is_a_failed_check():
    clock = FakeClock()
    pool = FakePool(max_sessions_per_key=1, health_check_interval_seconds=10, clock=clock)
    await pool.release(await pool.acquire(URL))
    clock.advance(11)
    caller = asking(pool)
    await until(lambda: pool.count("checking") == 1)
    (checking,) = pool._tasks
    checking.cancel()
    await pool.release(await asyncio.wait_for(caller, 5))
    assert pool.evictions == {"health_check": 1}
    await assert_all_places_usable(pool)


async def test_cancelled_release_leaves_the_close_going_on():
    pool = FakePool(max_sessions_per_key=1)
    pool.holds_closes = True
    held = await pool.acquire(URL)
    releasing = asyncio.ensure_future(pool.release(held, discard=True))
    await until(lambda: pool.closes)
    await cancelled(releasing)
    assert pool.closes[0].cancellations == 0
    assert pool.count("closing") == 1
    waiter = asking(pool)
    await turns()
    assert not waiter.done()
    pool.closes[0].open()
    await pool.release(await waiter)
    pool.holds_closes = False
    await assert_all_places_usable(pool)


async def test_block_that_is_cancelled_keeps_its_session_and_passes_the_cancellation():
    pool = FakePool(max_sessions_per_key=1)
    inside = asyncio.Event()

    async def use() -> None:
        async with pool.session(URL):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(use())
    await inside.wait()
    await cancelled(task)
    assert pool.evictions == {}
    assert pool.checked == []
    pooled = await pool.acquire(URL)
    assert pool.checked == [pooled]  # nobody watches it: it may have had a request in flight
    await pool.release(pooled)
    await assert_all_places_usable(pool)


async def test_session_block_cancelled_while_it_waits_has_taken_nothing():
    pool = FakePool(max_sessions_per_key=1)
    held = await pool.acquire(URL)

    async def use() -> None:
        async with pool.session(URL):
            raise AssertionError("not reached")

    task = asyncio.ensure_future(use())
    await until(lambda: pool.count("waiters") == 1)
    await pool.release(held)
    await cancelled(task)
    await assert_all_places_usable(pool)


async def test_session_block_cancelled_while_it_closes_leaves_the_close_going_on():
    pool = FakePool(max_sessions_per_key=1)
    pool.holds_closes = True

    async def use() -> None:
        async with pool.session(URL) as pooled:
            pooled.mark_closed()

    task = asyncio.ensure_future(use())
    await until(lambda: pool.closes)
    await cancelled(task)
    pool.closes[0].open()
    await until(lambda: pool.count("closing") == 0)
    pool.holds_closes = False
    await assert_all_places_usable(pool)


@pytest.mark.parametrize("whole", ["close_all", "drain_all"])
async def test_cancelled_close_or_drain_leaves_the_closes_going_on(whole: str):
    pool = FakePool(max_sessions_per_key=3)
    pool.holds_closes = True
    taken = [await pool.acquire(URL) for _ in range(3)]
    for pooled in taken:
        await pool.release(pooled)
    task = asyncio.ensure_future(getattr(pool, whole)())
    await until(lambda: len(pool.closes) == 3)
    await cancelled(task)
    assert [gate.cancellations for gate in pool.closes] == [0, 0, 0]
    for gate in list(pool.closes):
        gate.open()
    await until(lambda: pool.count("closing") == 0)
    await turns()
    assert len(pool.closed_sessions) == 3
    assert_at_rest(pool)
    await getattr(pool, whole)()
    assert_at_rest(pool)


async def test_own_deadline_of_a_caller_is_not_mistaken_for_the_pools():
    pool = FakePool(max_sessions_per_key=1)
    held = await pool.acquire(URL)
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.01):
            await pool.acquire(URL)
    assert type(caught.value) is TimeoutError
    assert pool.count("acquire_timeouts") == 0
    assert pool.count("acquire_cancellations") == 1
    await pool.release(held)
    await assert_all_places_usable(pool)


async def test_cancelled_twice_loses_nothing():
    pool = FakePool(max_sessions_per_key=1)
    pool.holds_creations = True
    caller = asking(pool)
    await until(lambda: pool.creations)
    caller.cancel()
    caller.cancel()
    await asyncio.wait({caller})
    assert caller.cancelled()
    pool.creations[0].open()
    await until(lambda: pool.count("idle") == 1)
    pool.holds_creations = False
    await assert_all_places_usable(pool)


# ---- at every turn of the loop: whatever awaits there are, each is met by one of these


async def _acquire(pool: FakePool) -> None:
    await pool.release(await pool.acquire(URL))


async def _acquire_and_discard(pool: FakePool) -> None:
    await pool.release(await pool.acquire(URL), discard=True)


async def _session(pool: FakePool) -> None:
    async with pool.session(URL):
        await asyncio.sleep(0)


async def _session_that_raises(pool: FakePool) -> None:
    async with pool.session(URL):
        await asyncio.sleep(0)
        raise ConnectionError


async def _drain(pool: FakePool) -> None:
    await pool.drain_all()


async def _idle_session(pool: FakePool) -> Callable[[], Awaitable[None]] | None:
    await pool.release(await pool.acquire(URL))
    return None


async def _full(pool: FakePool) -> Callable[[], Awaitable[None]] | None:
    held = [await pool.acquire(URL) for _ in range(2)]

    async def give_back() -> None:
        for pooled in held:
            await asyncio.sleep(0)
            await pool.release(pooled, discard=True)

    return give_back


async def _empty(pool: FakePool) -> Callable[[], Awaitable[None]] | None:
    return None


async def _due_for_a_check(pool: FakePool) -> Callable[[], Awaitable[None]] | None:
    await pool.release(await pool.acquire(URL))
    clock = pool._settings.clock
    assert isinstance(clock, FakeClock)
    clock.advance(61)
    return None


class SlowPool(FakePool):
    """Every hook takes a few turns of the loop."""

    async def _create_session(self, *args: Any, **kwargs: Any) -> Any:
        await turns(2)
        pooled = await super()._create_session(*args, **kwargs)
        await turns(1)
        return pooled

    async def _close_session(self, pooled: Any) -> None:
        await turns(2)
        await super()._close_session(pooled)

    async def _run_health_check_chain(self, pooled: Any) -> bool:
        await turns(2)
        return await super()._run_health_check_chain(pooled)


class PlainSlowPool(PlainPool, SlowPool):
    pass


@pytest.mark.parametrize("turn", range(14))
@pytest.mark.parametrize("prepare", [_empty, _idle_session, _full, _due_for_a_check])
@pytest.mark.parametrize(
    "operation", [_acquire, _acquire_and_discard, _session, _session_that_raises, _drain]
)
async def test_cancellation_at_any_turn_of_the_loop_loses_nothing(operation, prepare, turn):
    pool_class = PlainSlowPool if turn % 2 and operation is not _acquire else SlowPool
    pool = pool_class(max_sessions_per_key=2, clock=FakeClock())
    give_back = await prepare(pool)
    task = asyncio.ensure_future(operation(pool))
    others = [] if give_back is None else [asyncio.ensure_future(give_back())]
    for _ in range(turn):
        await asyncio.sleep(0)
    was_done = task.done()
    task.cancel()
    await asyncio.wait({task, *others})
    if was_done:
        assert task.exception() is None or isinstance(task.exception(), ConnectionError)
    else:
        assert task.cancelled()
    await until(lambda: not pool._tasks)
    assert_at_rest(pool)
    await assert_all_places_usable(pool)


@pytest.mark.parametrize("turn", range(10))
@pytest.mark.parametrize("prepare", [_empty, _idle_session, _full])
async def test_close_all_cancelled_at_any_turn_closes_all_the_same(prepare, turn):
    pool = SlowPool(max_sessions_per_key=2)
    give_back = await prepare(pool)
    task = asyncio.ensure_future(pool.close_all())
    for _ in range(turn):
        await asyncio.sleep(0)
    was_done = task.done()
    task.cancel()
    await asyncio.wait({task})
    assert was_done or task.cancelled()
    if turn == 0:
        await pool.close_all()  # the task had not begun
    await until(lambda: not pool._tasks)
    assert_at_rest(pool)
    assert pool.count("size") == 0
    assert len(pool.closed_sessions) == pool.returned
    if give_back is not None:
        await give_back()
    assert_at_rest(pool)


@pytest.mark.parametrize("seed", range(3))
async def test_after_700_of_1000_tasks_were_cancelled_at_random_moments_all_places_are_usable(seed: int):
    rng = random.Random(seed)
    limit = 5
    pool = (PlainSlowPool if seed else SlowPool)(max_sessions_per_key=limit, circuit_breaker_threshold=10**6)

    async def use() -> None:
        async with pool.session(URL) as pooled:
            assert pool.open_now[URL] <= limit
            await turns(rng.randrange(4))
            if rng.random() < 0.1:
                pooled.mark_closed()
            if rng.random() < 0.1:
                raise ConnectionError

    tasks: list[asyncio.Task[None]] = []
    victims: list[asyncio.Task[None]] = []
    ended_first = 0
    for number in range(1000):
        tasks.append(asyncio.ensure_future(use()))
        if number % 10 < 7:
            victims.append(tasks[-1])
        pool.create_error = OSError("refused") if rng.random() < 0.05 else None
        await turns(rng.randrange(3))
        if victims and rng.random() < 0.9:
            victim = victims.pop(rng.randrange(len(victims)))
            ended_first += victim.done()
            victim.cancel()
        if number % 50 == 0:
            assert_adds_up(pool)
    pool.create_error = None
    for victim in victims:
        ended_first += victim.done()
        victim.cancel()
        await turns(rng.randrange(2))
    await asyncio.wait(tasks)
    was_cancelled = sum(task.cancelled() for task in tasks)
    assert was_cancelled == 700 - ended_first
    assert was_cancelled > 400
    for task in tasks:
        assert task.cancelled() or isinstance(task.exception(), OSError | None)
    await until(lambda: not pool._tasks)
    assert_at_rest(pool)
    assert pool.most_open[URL] == limit
    await assert_all_places_usable(pool)


async def test_waiters_cancelled_at_once_with_a_closing_pool_still_get_their_cancellation():
    pool = FakePool(max_sessions_per_key=1)
    await pool.acquire(URL)
    first, second = asking(pool), asking(pool)
    await until(lambda: pool.count("waiters") == 2)
    closing = asyncio.ensure_future(pool.close_all())
    await asyncio.sleep(0)
    first.cancel()
    await closing
    await asyncio.wait({first, second})
    assert first.cancelled()
    assert isinstance(second.exception(), PoolClosedError)
    assert_at_rest(pool)


async def test_cancelled_probe_of_a_half_open_circuit_lets_the_next_caller_try():
    clock = FakeClock()
    pool = FakePool(circuit_breaker_threshold=1, circuit_breaker_reset_seconds=10, clock=clock)
    pool.create_error = OSError("refused")
    with pytest.raises(OSError, match="refused"):
        await pool.acquire(URL)
    with pytest.raises(CircuitOpenError):
        await pool.acquire(URL)
    pool.create_error = None
    pool.holds_creations = True
    clock.advance(100)
    probe = asking(pool)
    await until(lambda: pool.creations)
    await cancelled(probe)
    pool.creations[0].open()
    await until(lambda: pool.count("idle") == 1)
    await pool.release(await pool.acquire(URL))
    assert pool.count("creates") == 1
    await turns()
    assert_at_rest(pool)
