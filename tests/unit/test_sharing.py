"""What a registry of sessions needs beyond a pool: sessions that several callers use at once, keys that are
evicted together, sessions that are retired.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from mcpgateway_pool import MCPSessionPool
from mcpgateway_pool._core import VERDICT_BROKEN, VERDICT_DISCARD, VERDICT_GOOD
from support.fakes import URL, FakeClock, FakePool, assert_at_rest, cancelled, turns, until

USER, GATEWAY = 0, 1


def duck(*_: Any) -> Any:
    return SimpleNamespace(url=URL, is_closed=False)


def shared_pool(max_leases: int = 3, **settings: Any) -> FakePool:
    pool = FakePool(max_sessions_per_key=1, **settings)
    pool._share(max_leases, True)
    pool.make_session = duck  # type: ignore[method-assign]
    return pool


async def lease(pool: FakePool, user: str | None = "u1", gateway: str | None = "g1") -> tuple[Any, Any]:
    """A session and the ticket of this checkout."""
    pooled = await pool.acquire(URL, user_identity=user, gateway_id=gateway)
    return pooled, pool._lease_ticket(pooled)


async def use(pool: FakePool, user: str | None = "u1", gateway: str | None = "g1") -> Any:
    pooled, ticket = await lease(pool, user, gateway)
    assert pool._release_lease(ticket, VERDICT_GOOD) is None
    return pooled


# ---- leases


async def test_callers_share_one_session_up_to_the_limit() -> None:
    pool = shared_pool(2)
    (first, one), (second, two) = await lease(pool), await lease(pool)
    assert first is second
    assert (pool.attempts, pool.count("active"), pool.count("hits"), pool.count("misses")) == (1, 1, 1, 1)
    waiting = asyncio.ensure_future(lease(pool))
    await until(lambda: pool.count("waiters") == 1)
    assert pool._release_lease(one, VERDICT_GOOD) is None
    third, three = await waiting
    assert third is first
    for ticket in (two, three):
        assert pool.count("active") == 1
        assert pool._release_lease(ticket, VERDICT_GOOD) is None
    assert pool.count("active") == 0
    assert pool._lease_ticket(first) is None
    assert_at_rest(pool)
    await pool.close_all()


async def test_callers_who_wait_for_a_creation_share_its_session() -> None:
    pool = shared_pool(3)
    pool.holds_creations = True
    callers = [asyncio.ensure_future(lease(pool)) for _ in range(3)]
    await until(lambda: pool.creations)
    pool.creations[0].open()
    leases = await asyncio.gather(*callers)
    assert pool.attempts == 1
    for _, ticket in leases:
        pool._release_lease(ticket, VERDICT_GOOD)
    assert_at_rest(pool)
    await pool.close_all()


async def test_lease_ends_once() -> None:
    pool = shared_pool()
    _, one = await lease(pool)
    _, two = await lease(pool)
    assert pool._release_lease(one, VERDICT_GOOD) is None
    assert pool._release_lease(one, VERDICT_GOOD) is False
    assert pool.count("active") == 1
    assert pool._release_lease(two, VERDICT_GOOD) is None
    await pool.close_all()


@pytest.mark.parametrize(("verdict", "reason"), [(VERDICT_BROKEN, "broken"), (VERDICT_DISCARD, "manual")])
async def test_session_given_up_by_one_caller_closes_after_the_last(verdict: int, reason: str) -> None:
    pool = shared_pool()
    pooled, one = await lease(pool)
    _, two = await lease(pool)
    assert pool._release_lease(one, verdict) is None
    waiting = asyncio.ensure_future(lease(pool))
    await turns()
    assert not waiting.done()
    closing = pool._release_lease(two, VERDICT_GOOD)
    assert isinstance(closing, asyncio.Task)
    await closing
    assert pool.closed_sessions == [pooled]
    assert pool.evictions == {reason: 1}
    other, three = await waiting
    assert other is not pooled
    pool._release_lease(three, VERDICT_GOOD)
    await pool.close_all()


async def test_session_that_says_it_is_closed_is_not_kept() -> None:
    pool = shared_pool()
    pooled, ticket = await lease(pool)
    pooled.is_closed = True
    await pool._release_lease(ticket, VERDICT_GOOD)  # type: ignore[misc]
    assert pool.evictions == {"broken": 1}
    await pool.close_all()


async def test_cancelled_waiter_loses_no_lease() -> None:
    pool = shared_pool(1)
    _, ticket = await lease(pool)
    waiting = asyncio.ensure_future(lease(pool))
    await until(lambda: pool.count("waiters") == 1)
    pool._release_lease(ticket, VERDICT_GOOD)
    await cancelled(waiting)
    await use(pool)
    assert_at_rest(pool)
    await pool.close_all()


async def test_close_all_ends_every_lease() -> None:
    pool = shared_pool()
    tickets = [(await lease(pool))[1] for _ in range(3)]
    await pool.close_all()
    assert [pool._release_lease(ticket, VERDICT_GOOD) for ticket in tickets] == [False] * 3
    assert_at_rest(pool)


async def test_pooled_session_is_refused_where_it_is_not_shared() -> None:
    pool = FakePool()
    pooled = await pool.acquire(URL)
    with pytest.raises(TypeError, match="release"):
        pool._release_lease(pool._lease_ticket(pooled), VERDICT_GOOD)
    await pool.release(pooled)
    await pool.close_all()


# ---- groups


async def test_group_evicts_exactly_its_keys() -> None:
    pool = shared_pool()
    sessions = {(user, gateway): await use(pool, user, gateway) for user in "ab" for gateway in "xyé"}
    assert pool._evict_group(USER, "a") == 3
    assert pool._evict_group(GATEWAY, "é") == 1
    assert pool._evict_group(GATEWAY, "nobody") == 0
    assert pool._evict_group(USER, "") == 0
    await turns()
    kept = [sessions["b", "x"], sessions["b", "y"]]
    assert [session for session in sessions.values() if session not in pool.closed_sessions] == kept
    assert pool.evictions == {"manual": 4}
    assert pool.count("keys") == 2
    await pool.close_all()


async def test_sessions_without_a_user_or_a_gateway_are_in_no_group() -> None:
    pool = shared_pool()
    for user, gateway in ((None, "g1"), ("u1", None), ("", "")):
        await use(pool, user, gateway)
    for group in (USER, GATEWAY):
        for name in ("", "\0", "None"):
            assert pool._evict_group(group, name) == 0
    assert pool.closed_sessions == []
    assert pool._evict_group(USER, "u1") == pool._evict_group(GATEWAY, "g1") == 1
    await pool.close_all()


async def test_evicted_session_in_use_is_counted_and_closes_when_it_comes_back() -> None:
    pool = shared_pool()
    pooled, one = await lease(pool)
    _, two = await lease(pool)
    assert pool._evict_group(USER, "u1") == 1
    assert pool._release_lease(one, VERDICT_GOOD) is None
    await pool._release_lease(two, VERDICT_GOOD)  # type: ignore[misc]
    assert pool.closed_sessions == [pooled]
    await pool.close_all()


async def test_without_groups_nothing_is_evicted() -> None:
    pool = FakePool()
    pool._share(1, False)
    await pool.release(await pool.acquire(URL, user_identity="u1", gateway_id="g1"))
    assert pool._evict_group(USER, "u1") == 0
    await pool.close_all()


# ---- retiring


async def test_retired_session_is_closed_now_or_when_it_comes_back() -> None:
    pool = shared_pool()
    idle = await use(pool, "u1")
    assert pool._retire(idle) is True
    await turns()
    assert pool.closed_sessions == [idle]
    busy, ticket = await lease(pool, "u2")
    assert pool._retire(busy) is True
    await turns()
    assert pool.closed_sessions == [idle]
    await pool._release_lease(ticket, VERDICT_GOOD)  # type: ignore[misc]
    assert pool.closed_sessions == [idle, busy]
    assert pool.evictions == {"manual": 2}
    assert pool._retire(idle) is False
    assert pool._retire(object()) is False
    await pool.close_all()


# ---- checks at hand-out only


async def test_without_background_checks_an_idle_session_is_checked_at_hand_out() -> None:
    clock = FakeClock()
    pool = FakePool(health_checks_per_second=0, health_check_interval_seconds=50, clock=clock)
    pooled = await pool.acquire(URL)
    await pool.release(pooled)
    clock.advance(51)
    pool._upkeep()
    await turns()
    assert pool.checked == []
    assert await pool.acquire(URL) is pooled
    assert pool.checked == [pooled]
    await pool.release(pooled)
    await pool.close_all()


# ---- arguments


@pytest.mark.parametrize("bad", [0, -1, 2**32])
def test_leases_must_be_in_range(bad: int) -> None:
    with pytest.raises((ValueError, OverflowError)):
        MCPSessionPool()._share(bad, True)


async def test_bad_arguments_are_refused() -> None:
    pool = shared_pool()
    _, ticket = await lease(pool)
    for arguments in ((), (ticket,), ("no ticket", VERDICT_GOOD), (ticket, "good")):
        with pytest.raises(TypeError):
            pool._release_lease(*arguments)
    with pytest.raises(ValueError, match="verdict"):
        pool._release_lease(ticket, 99)
    for arguments in ((), (USER,), (USER, b"u1")):
        with pytest.raises(TypeError):
            pool._evict_group(*arguments)
    with pytest.raises(ValueError, match="group"):
        pool._evict_group(2, "u1")
    for arguments in ((), (1,), ("1", True)):
        with pytest.raises(TypeError):
            pool._share(*arguments)
    pool._release_lease(ticket, VERDICT_GOOD)
    await pool.close_all()


@pytest.mark.parametrize(
    ("verdict", "error"),
    [(-1, ValueError), (99, ValueError), (2**80, OverflowError), ("good", TypeError), (None, TypeError)],
)
async def test_what_is_no_verdict_is_refused_and_ends_no_lease(verdict: Any, error: type[Exception]):
    pool = shared_pool()
    pooled, ticket = await lease(pool)
    with pytest.raises(error):
        pool._release_lease(ticket, verdict)
    assert pool.count("active") == 1
    assert pool._release_lease(ticket, VERDICT_GOOD) is None
    assert pool.count("active") == 0
    assert not pooled.is_closed
    await pool.close_all()
    assert_at_rest(pool)
