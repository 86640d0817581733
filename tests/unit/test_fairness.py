"""Whose turn it is, and how many there may be."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from mcpgateway_pool import AcquireTimeoutError, PoolExhaustedError
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


def asking(pool: FakePool, url: str = URL, **arguments: Any) -> asyncio.Task[Any]:
    return asyncio.ensure_future(pool.acquire(url, **arguments))


async def idle(pool: FakePool, *urls: str) -> list[Any]:
    """An idle session for each, in order of use."""
    sessions = [await pool.acquire(url) for url in urls]
    for pooled in sessions:
        await pool.release(pooled)
    return sessions


# ---- the queue of a key


@pytest.mark.parametrize("pool_class", [FakePool, PlainPool])
@pytest.mark.parametrize("dies", [False, True])
async def test_30_tasks_on_a_pool_of_2_all_succeed_in_the_order_of_asking(
    pool_class: type[FakePool], dies: bool
):
    pool = pool_class(max_sessions_per_key=2)
    order: list[int] = []

    async def use(number: int) -> None:
        async with pool.session(URL) as pooled:
            order.append(number)
            await turns(3)
            if dies and number % 3 == 0:
                pooled.mark_closed()

    await asyncio.gather(*(use(number) for number in range(30)))
    # Whoever gets a dead session's place has to open one first, and others pass meanwhile.
    assert (sorted(order) if dies else order) == list(range(30))
    assert pool.most_open[URL] == 2
    await turns()
    await assert_all_places_usable(pool)


async def test_waiter_has_its_session_within_one_loop_turn_of_the_release():
    pool = FakePool(max_sessions_per_key=1)
    held = await pool.acquire(URL)
    waiter = asking(pool)
    await until(lambda: pool.count("waiters") == 1)
    await pool.release(held)
    await asyncio.sleep(0)
    assert waiter.done()
    assert waiter.result() is held
    await pool.release(held)
    await assert_all_places_usable(pool)


async def test_newcomer_never_overtakes_a_waiter():
    pool = FakePool(max_sessions_per_key=1)
    held = await pool.acquire(URL)
    waiter = asking(pool)
    await until(lambda: pool.count("waiters") == 1)
    await pool.release(held)
    newcomer = pool.acquire(URL)
    assert newcomer.send(None) is not None  # suspended, although the waiter did not run yet
    assert (await waiter) is held
    newcomer.close()
    await pool.release(held)
    await assert_all_places_usable(pool)


async def test_newcomer_does_not_take_the_place_that_a_close_frees_from_a_waiter():
    pool = FakePool(max_sessions_per_key=1)
    pool.holds_closes = True
    releasing = asyncio.ensure_future(pool.release(await pool.acquire(URL), discard=True))
    await until(lambda: pool.closes)
    waiter = asking(pool)
    await until(lambda: pool.count("waiters") == 1)
    pool.closes[0].open()
    pool.holds_closes = False
    await until(lambda: pool.count("closing") == 0)
    newcomer = asking(pool)
    got = await waiter
    assert not newcomer.done()
    await pool.release(got)
    await pool.release(await newcomer)
    await releasing
    await assert_all_places_usable(pool)


async def test_waiter_takes_the_place_of_a_failed_creation_and_the_creator_gets_the_error():
    pool = FakePool(max_sessions_per_key=1)
    pool.holds_creations = True
    creator, waiter = asking(pool), asking(pool)
    await until(lambda: pool.creations and pool.count("waiters") == 1)
    pool.creations[0].fail(OSError("refused"))
    with pytest.raises(OSError, match="refused"):
        await creator
    await until(lambda: pool.creations)
    pool.creations[0].open()
    pool.holds_creations = False
    await pool.release(await waiter)
    await assert_all_places_usable(pool)


async def test_creator_gets_its_own_creation_even_when_a_session_comes_back_first():
    pool = FakePool(max_sessions_per_key=2)
    held = await pool.acquire(URL)
    pool.holds_creations = True
    creator = asking(pool)
    await until(lambda: pool.creations)
    await pool.release(held)
    await turns()
    assert not creator.done()
    pool.creations[0].open()
    fresh = await creator
    assert fresh is not held
    pool.holds_creations = False
    await pool.release(fresh)
    await assert_all_places_usable(pool)


async def test_keys_do_not_wait_for_each_other():
    pool = FakePool(max_sessions_per_key=1)
    held = await pool.acquire(URL)
    waiter = asking(pool)
    await turns()
    await pool.release(await pool.acquire(URL + "/other"))
    await pool.release(await pool.acquire(URL, user_identity="ann"))
    assert not waiter.done()
    await pool.release(held)
    await pool.release(await waiter)
    assert_at_rest(pool)


# ---- time-outs


async def test_timeout_says_how_many_are_active_idle_waiting_and_the_limit():
    clock = FakeClock()
    pool = FakePool(max_sessions_per_key=3, acquire_timeout_seconds=7, clock=clock)
    held = [await pool.acquire(URL) for _ in range(2)]
    pool.holds_creations = True
    creating = asking(pool)
    await until(lambda: pool.creations)
    first, second = asking(pool, "http://user:s3cret@server.test/mcp"), asking(pool)
    await until(lambda: pool.count("waiters") == 1)
    clock.advance(1)  # so that the others go on waiting when the second gives up
    other = [asking(pool), asking(pool)]
    await until(lambda: pool.count("waiters") == 3)
    first.cancel()
    clock.advance(5.9)
    await asyncio.sleep(0.05)
    assert not second.done()
    clock.advance(0.2)
    with pytest.raises(AcquireTimeoutError, match="Timeout waiting for available session for http") as caught:
        await second
    text = str(caught.value)
    for part in ("after 7 s", "2 active", "0 idle", "1 being created", "3 waiting", "limit 3"):
        assert part in text
    clock.advance(1)
    await asyncio.wait({first, *other})
    assert first.cancelled()
    assert all(isinstance(task.exception(), AcquireTimeoutError) for task in other)
    assert pool.count("acquire_timeouts") == 3
    for gate in list(pool.creations):
        gate.open()
    pool.holds_creations = False
    await pool.release(await creating)
    for pooled in held:
        await pool.release(pooled)
    await turns()
    await assert_all_places_usable(pool)


async def test_timeout_of_zero_still_gives_what_is_there():
    pool = FakePool(max_sessions_per_key=1, acquire_timeout_seconds=0)
    held = await pool.acquire(URL)
    with pytest.raises(AcquireTimeoutError):
        await pool.acquire(URL)
    await pool.release(held)
    assert await pool.acquire(URL) is held
    await pool.release(held)
    assert_at_rest(pool)


async def test_session_granted_in_the_moment_of_the_timeout_is_not_lost():
    clock = FakeClock()
    pool = FakePool(max_sessions_per_key=1, acquire_timeout_seconds=7, clock=clock)
    held = await pool.acquire(URL)
    waiter = asking(pool)
    await until(lambda: pool.count("waiters") == 1)
    clock.advance(8)
    await pool.release(held)
    assert await waiter is held
    assert pool.count("acquire_timeouts") == 0
    await pool.release(held)
    await assert_all_places_usable(pool)


async def test_creation_has_its_own_bound_after_the_waiting():
    clock = FakeClock()
    pool = FakePool(
        max_sessions_per_key=1, acquire_timeout_seconds=7, session_create_timeout_seconds=7, clock=clock
    )
    held = await pool.acquire(URL)
    waiter = asking(pool)
    await until(lambda: pool.count("waiters") == 1)
    clock.advance(6)
    pool.holds_creations = True
    await pool.release(held, discard=True)
    await until(lambda: pool.creations)
    clock.advance(6)
    await asyncio.sleep(0.05)
    assert not waiter.done()
    pool.creations[0].open()
    pool.holds_creations = False
    await pool.release(await waiter)
    await assert_all_places_usable(pool)


async def test_transport_timeout_does_not_bound_the_waiting():
    pool = FakePool(max_sessions_per_key=1)
    held = await pool.acquire(URL, timeout=0.001)
    waiter = asking(pool, timeout=0.001)
    await asyncio.sleep(0.05)
    assert not waiter.done()
    await pool.release(held)
    await pool.release(await waiter)
    await assert_all_places_usable(pool)


# ---- max_waiters


async def test_waiters_beyond_the_limit_are_refused_at_once():
    pool = FakePool(max_sessions_per_key=1, max_waiters=2)
    held = await pool.acquire(URL)
    waiters = [asking(pool) for _ in range(2)]
    await until(lambda: pool.count("waiters") == 2)
    refused = pool.acquire(URL)
    with pytest.raises(PoolExhaustedError, match="max_waiters is 2"):
        refused.send(None)
    assert pool.rejections == {"queue_full": 1}
    await cancelled(waiters[0])
    waiters.append(asking(pool))
    await pool.release(held)
    for waiter in waiters[1:]:
        await pool.release(await waiter)
    await turns()
    assert_at_rest(pool)


# ---- limits of the whole pool


async def test_never_a_sixth_session_with_20_urls_at_once():
    pool = FakePool(max_total_sessions=5)
    rng = random.Random(1)
    refused = 0

    async def use(number: int) -> None:
        nonlocal refused
        for _ in range(20):
            try:
                async with pool.session(f"{URL}/{number}"):
                    assert pool.open_now["total"] <= 5
                    await turns(rng.randrange(3))
            except PoolExhaustedError:
                refused += 1
            await turns(rng.randrange(3))

    await asyncio.gather(*(use(number) for number in range(20)))
    await turns()
    assert pool.most_open["total"] == 5
    assert pool.rejections == {"exhausted": refused}
    assert pool.answered == 400 - refused
    assert pool.answered > 50
    assert_at_rest(pool)


async def test_total_limit_closes_the_least_recently_used_idle_session_of_any_key():
    pool = FakePool(max_total_sessions=3)
    a, b, c = await idle(pool, URL + "/a", URL + "/b", URL + "/c")
    await idle(pool, URL + "/a")
    fresh = await pool.acquire(URL + "/d")
    assert pool.closed_sessions == [b]
    assert pool.evictions == {"capacity": 1}
    await idle(pool, URL + "/a", URL + "/c")
    assert pool.closed_sessions == [b]
    assert (a.is_closed, c.is_closed) == (False, False)
    await pool.release(fresh)
    await turns()
    assert_at_rest(pool)


async def test_place_of_a_victim_is_used_when_its_close_has_ended():
    pool = FakePool(max_total_sessions=1)
    await idle(pool, URL + "/a")
    pool.holds_closes = True
    caller = asking(pool, URL + "/b")
    await until(lambda: pool.closes)
    await turns()
    assert pool.attempts == 1
    assert not caller.done()
    pool.closes[0].open()
    pool.holds_closes = False
    await pool.release(await caller)
    await turns()
    assert pool.most_open["total"] == 1
    assert_at_rest(pool)


async def test_waiting_for_a_victims_close_is_bounded_by_the_acquire_timeout():
    clock = FakeClock()
    pool = FakePool(max_total_sessions=1, acquire_timeout_seconds=2, cleanup_timeout_seconds=100, clock=clock)
    await idle(pool, URL + "/a")
    pool.holds_closes = True
    caller = asking(pool, URL + "/b")
    await until(lambda: pool.closes)
    clock.advance(3)
    with pytest.raises(AcquireTimeoutError):
        await caller
    pool.closes[0].open()
    pool.holds_closes = False
    await until(lambda: pool.count("closing") == 0)
    await idle(pool, URL + "/b")
    await turns()
    assert_at_rest(pool)


async def test_caller_who_needs_a_new_session_where_nothing_idle_is_left_is_refused_at_once():
    pool = FakePool(max_total_sessions=1)
    held = await pool.acquire(URL + "/a")
    refused = pool.acquire("http://user:s3cret@server.test/b")
    with pytest.raises(PoolExhaustedError, match="max_total_sessions is 1") as caught:
        refused.send(None)
    assert "s3cret" not in str(caught.value)
    waiter = asking(pool, URL + "/a")  # this one has something to wait for
    await turns()
    assert not waiter.done()
    await pool.release(held)
    await pool.release(await waiter)
    assert pool.rejections == {"exhausted": 1}
    await turns()
    assert_at_rest(pool)


async def test_total_limit_is_no_bar_to_a_session_that_is_open():
    pool = FakePool(max_total_sessions=2)
    first, second = await idle(pool, URL + "/a", URL + "/b")
    assert await pool.acquire(URL + "/a") is first
    assert await pool.acquire(URL + "/b") is second
    await pool.release(first)
    await pool.release(second)
    assert pool.evictions == {}
    assert_at_rest(pool)


async def test_busy_key_that_closes_its_sessions_starves_no_other_key():
    pool = FakePool(max_sessions_per_key=2, max_total_sessions=3)
    busy = [await pool.acquire(URL + "/a") for _ in range(2)]
    (spare,) = await idle(pool, URL + "/c")
    waiters = [asking(pool, URL + "/a") for _ in range(2)]
    await until(lambda: pool.count("waiters") == 2)
    pool.holds_closes = True
    releasing = [asyncio.ensure_future(pool.release(pooled, discard=True)) for pooled in busy]
    await until(lambda: len(pool.closes) == 2)
    caller = asking(pool, URL + "/b")
    await until(lambda: len(pool.closes) == 3)  # none of the two is closed for it
    assert pool.evictions == {"manual": 2, "capacity": 1}
    pool.closes[2].open()
    got = await asyncio.wait_for(caller, 5)
    assert spare.is_closed
    pool.holds_closes = False
    for gate in list(pool.closes):
        gate.open()
    await pool.release(got)
    for waiter in waiters:
        await pool.release(await waiter)
    await asyncio.gather(*releasing)
    await turns()
    assert_at_rest(pool)


async def test_session_of_a_busy_key_makes_place_for_who_came_before_its_waiters():
    pool = FakePool(max_sessions_per_key=2, max_total_sessions=3)
    busy = [await pool.acquire(URL + "/a") for _ in range(2)]
    long_held = await pool.acquire(URL + "/b")
    first = asking(pool, URL + "/b")
    await until(lambda: pool.count("waiters") == 1)
    later = [asking(pool, URL + "/a") for _ in range(2)]
    await until(lambda: pool.count("waiters") == 3)
    await pool.release(busy[0])
    got = await asyncio.wait_for(first, 5)
    assert pool.evictions == {"capacity": 1}
    assert not any(waiter.done() for waiter in later)
    await pool.release(busy[1])
    for waiter in later:
        await pool.release(await asyncio.wait_for(waiter, 5))
    await pool.release(got)
    await pool.release(long_held)
    await turns()
    assert_at_rest(pool)


async def test_key_limit_drops_the_least_recently_used_key_that_nobody_uses():
    pool = FakePool(max_total_keys=2)
    held = await pool.acquire(URL + "/a")
    (victim,) = await idle(pool, URL + "/b")
    await idle(pool, URL + "/c")
    assert pool.closed_sessions == [victim]
    assert pool.evictions == {"capacity": 1}
    await until(lambda: pool.count("keys") == 2)
    other = await pool.acquire(URL + "/c")
    refused = pool.acquire(URL + "/d")
    with pytest.raises(PoolExhaustedError, match="max_total_keys is 2"):
        refused.send(None)
    await pool.release(held)
    fresh = await pool.acquire(URL + "/d")
    await pool.release(fresh)
    await pool.release(other)
    await turns()
    assert pool.count("keys") == 2
    assert pool.get_metrics()["pool_keys_evicted"] == 2
    assert_at_rest(pool)


async def test_creations_to_one_url_are_bounded_and_the_rest_wait_in_order():
    pool = FakePool(max_creating_per_url=2)
    pool.holds_creations = True
    callers = [asking(pool, user_identity=f"user {number}") for number in range(5)]
    await until(lambda: len(pool.creations) == 2)
    elsewhere = asking(pool, URL + "/elsewhere")
    await until(lambda: len(pool.creations) == 3)
    await turns()
    assert len(pool.creations) == 3
    order = []
    for number in range(5):
        gate = next(gate for gate in pool.creations if gate.url == URL)
        gate.open()
        done = await asyncio.wait_for(callers[number], 5)
        order.append(done.user_identity)
        await turns()
    assert order == [f"user {number}" for number in range(5)]
    pool.creations[0].open()
    for caller in [*callers, elsewhere]:
        await pool.release(await caller)
    assert_at_rest(pool)


async def test_waiting_for_the_creation_limit_is_bounded_by_the_acquire_timeout():
    clock = FakeClock()
    pool = FakePool(
        max_creating_per_url=1, acquire_timeout_seconds=2, session_create_timeout_seconds=100, clock=clock
    )
    pool.holds_creations = True
    first, second = asking(pool, user_identity="a"), asking(pool, user_identity="b")
    await until(lambda: pool.creations and pool.count("waiters") == 1)
    clock.advance(3)
    with pytest.raises(AcquireTimeoutError):
        await second
    pool.creations[0].open()
    await pool.release(await first)
    await turns()
    assert_at_rest(pool)


@pytest.mark.parametrize("seed", range(3))
async def test_limits_hold_and_everything_adds_up_under_random_use(seed: int):
    rng = random.Random(seed)
    pool = FakePool(
        max_sessions_per_key=2,
        max_total_sessions=6,
        max_total_keys=5,
        max_waiters=4,
        max_creating_per_url=2,
        circuit_breaker_threshold=10**6,
    )

    class Refused(Exception):
        pass

    async def use() -> None:
        url = f"{URL}/{rng.randrange(7)}"
        try:
            async with pool.session(url, user_identity=rng.choice(["ann", "bob"])) as pooled:
                await turns(rng.randrange(4))
                if rng.random() < 0.2:
                    pooled.mark_closed()
                if rng.random() < 0.1:
                    raise Refused  # noqa: TRY301
        except (PoolExhaustedError, Refused, OSError):
            pass

    tasks: set[asyncio.Task[None]] = set()
    for number in range(600):
        tasks.add(asyncio.ensure_future(use()))
        pool.create_error = OSError("refused") if rng.random() < 0.1 else None
        await turns(rng.randrange(3))
        if rng.random() < 0.2:
            rng.choice(list(tasks)).cancel()
        if rng.random() < 0.02:
            await pool.drain_all()
        if number % 20 == 0:
            assert_adds_up(pool)
            assert pool.count("keys") <= 5 + pool.count("closing")
    await asyncio.wait(tasks)
    await until_timer(lambda: all(task.done() for task in pool._tasks))
    assert pool.most_open["total"] <= 6
    assert_at_rest(pool)
