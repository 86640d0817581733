"""Sessions that are ready before they are needed: replacements, a reserve (min_idle), warm()."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import weakref
from contextvars import ContextVar
from typing import Any

import pytest

from mcpgateway_pool import (
    CircuitOpenError,
    MCPSessionPool,
    PoolClosedError,
    PooledSession,
    PoolExhaustedError,
    TransportType,
)
from support.fakes import (
    URL,
    FakeClock,
    FakePool,
    PlainPool,
    assert_all_places_usable,
    cancelled,
    turns,
    until,
    upkeep,
)

caller: ContextVar[str] = ContextVar("caller", default="nobody")


class SeenPool(PlainPool):
    """Remembers with what each session was opened, and in which context."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("session_ttl_seconds", 100.0)
        settings.setdefault("replace_sessions", True)
        settings.setdefault("clock", FakeClock())
        super().__init__(**settings)
        self.seen: list[tuple[Any, ...]] = []

    @property
    def clock(self) -> FakeClock:
        assert isinstance(self.settings.clock, FakeClock)
        return self.settings.clock

    async def _create_session(
        self,
        url: str,
        headers: Any,
        transport_type: TransportType,
        httpx_client_factory: Any,
        timeout: float | None = None,
        gateway_id: str | None = None,
    ) -> Any:
        self.seen.append((url, headers, transport_type, httpx_client_factory, timeout, gateway_id))
        self.last_caller = caller.get()
        return await super()._create_session(
            url, headers, transport_type, httpx_client_factory, timeout, gateway_id
        )

    async def use(self, *arguments: Any, **options: Any) -> Any:
        """One checkout."""
        async with self.session(URL, *arguments, **options) as pooled:
            return pooled

    async def near_the_end(self, seconds: float = 96.0) -> None:
        """So many seconds later, and whatever is due then. The last twentieth of a lifetime is for this."""
        self.clock.advance(seconds)
        await upkeep(self)


# ---- replacement


async def test_a_session_in_use_is_replaced_before_its_end_and_no_caller_pays_for_that() -> None:
    pool = SeenPool()
    first = await pool.use()
    await pool.near_the_end(94.0)
    assert pool.attempts == 1
    await pool.near_the_end(1.0)
    assert (pool.attempts, pool.count("idle"), pool.count("replacements")) == (2, 2, 1)
    second = await pool.use()
    assert second is not first
    await pool.near_the_end(6.0)
    assert pool.evictions == {"ttl_expired": 1}
    assert pool.closed_sessions == [first]
    assert await pool.use() is second
    assert (pool.count("misses"), pool.count("hits")) == (1, 2)
    await pool.close()


async def test_what_takes_long_to_open_is_replaced_so_much_earlier() -> None:
    pool = SeenPool()
    pool.holds_creations = True
    opening = asyncio.ensure_future(pool.acquire(URL))
    await until(lambda: pool.creations)
    pool.clock.advance(10.0)
    pool.creations[0].open()
    await pool.release(await opening)
    await pool.near_the_end(74.0)
    assert pool.attempts == 1
    await pool.near_the_end(1.0)  # a twentieth, and twice 10 s, before the end
    assert pool.attempts == 2
    pool.creations[0].open()
    await turns()
    assert pool.count("idle") == 2
    await pool.close()


async def test_it_is_opened_with_the_headers_of_the_newest_caller_and_in_nobodys_context() -> None:
    def factory(**_: Any) -> None: ...

    pool = SeenPool()
    caller.set("first")
    arguments: dict[str, Any] = {"transport_type": TransportType.SSE, "user_identity": "u", "gateway_id": "g"}
    await pool.use(
        {"Authorization": "a", "X-Other": "1"}, httpx_client_factory=factory, timeout=7.0, **arguments
    )
    caller.set("second")
    await pool.use({"authorization": "a", "X-Other": "2"}, **arguments)
    await pool.near_the_end()
    assert pool.seen[1] == (URL, {"authorization": "a", "X-Other": "2"}, TransportType.SSE, factory, 7.0, "g")
    assert pool.last_caller == "nobody"
    await pool.close()


@pytest.mark.parametrize("kind", ["changed", "cleared"])
async def test_headers_that_became_another_users_meanwhile_are_not_sent(kind: str) -> None:
    pool = SeenPool()
    headers = {"Authorization": "a"}
    await pool.use(headers)
    await pool.use(headers)
    if kind == "changed":
        headers["Authorization"] = "b"
    else:
        headers.clear()
    await pool.near_the_end()
    assert [each[1] for each in pool.seen] == [{"Authorization": "a"}] * 2
    await pool.close()


async def test_a_caller_who_waited_is_the_newest_too() -> None:
    pool = SeenPool(max_sessions_per_key=2)
    one, two = [await pool.acquire(URL, {"Authorization": "a", "X": "1"}) for _ in range(2)]
    waiting = asyncio.ensure_future(pool.acquire(URL, {"Authorization": "a", "X": "2"}))
    await until(lambda: pool.count("waiters"))
    await pool.release(one)
    assert await waiting is one
    await pool.release(two, discard=True)
    await turns()
    await pool.near_the_end()
    assert pool.seen[-1][1] == {"Authorization": "a", "X": "2"}
    await pool.release(one)
    await pool.close()


async def test_a_session_in_the_middle_of_a_long_call_is_replaced_too() -> None:
    pool = SeenPool()
    held = await pool.acquire(URL)
    await pool.near_the_end()
    assert (pool.attempts, pool.count("active"), pool.count("idle")) == (2, 1, 1)
    await pool.release(held)
    await pool.close()


async def test_what_nobody_uses_is_not_replaced() -> None:
    """A burst left three sessions open. Each is replaced once, as it was used; these never are."""
    pool = SeenPool(idle_pool_eviction_seconds=1000.0)
    for pooled in [await pool.acquire(URL) for _ in range(3)]:
        await pool.release(pooled)
    for _ in range(20):
        await pool.near_the_end(5.0)
        await pool.use()
    assert pool.count("replacements") == 3
    for _ in range(40):
        await pool.near_the_end(5.0)
        await pool.use()
    assert pool.count("idle") <= 2  # the one in use, and perhaps its replacement
    assert pool.count("misses") == 3
    await pool.close()


async def test_a_key_that_was_not_used_for_a_lifetime_is_left_to_end() -> None:
    pool = SeenPool(session_ttl_jitter=0.0)
    held = await pool.acquire(URL)
    await pool.release(held)
    pool.clock.advance(1.0)
    await upkeep(pool)
    held.created_at += 50.0  # it lives for longer than it was not used
    pool.clock.advance(145.0)
    await upkeep(pool)
    assert pool.attempts == 1
    await pool.close()


@pytest.mark.parametrize(
    "settings",
    [
        {"replace_sessions": False},
        {"max_sessions_per_key": 1},
        {"max_total_sessions": 1},
        {"max_creating_per_url": 1},
        {"isolation": "session"},
        {"session_ttl_seconds": float("inf")},
    ],
)
async def test_without_room_or_where_it_is_off_nothing_is_opened(settings: dict[str, Any]) -> None:
    pool = SeenPool(**settings)
    await pool.use()
    for _ in range(8):
        await pool.near_the_end(12.4)
    assert pool.attempts == 1
    assert pool.most_open["total"] == 1
    await pool.close()


async def test_no_replacement_where_the_breaker_is_open_somebody_waits_or_the_pool_drains() -> None:
    pool = SeenPool(circuit_breaker_threshold=1, circuit_breaker_reset_seconds=1000.0)
    await pool.use()
    pool.create_error = ConnectionRefusedError()
    with pytest.raises(ConnectionRefusedError):
        await pool.acquire(URL, user_identity="other")
    attempts = pool.attempts
    await pool.near_the_end()
    assert pool.attempts == attempts
    pool = SeenPool()
    held = await pool.acquire(URL)
    await pool.drain_all()
    await pool.near_the_end()
    assert pool.attempts == 1
    await pool.release(held)


async def test_a_failed_replacement_bothers_nobody() -> None:
    pool = SeenPool(circuit_breaker_threshold=1)
    first = await pool.use()
    pool.create_error = ConnectionRefusedError()
    await pool.near_the_end()
    assert (pool.attempts, pool.count("replacements"), pool.count("circuit_breaker_trips")) == (2, 0, 0)
    assert await pool.use() is first
    pool.create_error = None
    await pool.near_the_end(5.0)
    assert await pool.use() is not first  # as if there were no replacements
    await assert_all_places_usable(pool)


async def test_many_sessions_of_one_url_are_replaced_a_few_at_a_time() -> None:
    pool = SeenPool(max_creating_per_url=8)
    for user in range(20):
        await pool.use(user_identity=str(user))
    pool.holds_creations = True
    await pool.near_the_end()
    assert len(pool.creations) == 2  # a quarter of what may be opened at once
    for gate in pool.creations:
        gate.open()
    await turns()
    await pool.close()


async def test_a_caller_of_another_key_is_not_refused_for_the_sake_of_a_replacement() -> None:
    pool = SeenPool(max_total_sessions=2)
    held = await pool.acquire(URL)
    pool.holds_creations = True
    await pool.near_the_end()
    assert pool.count("creating") == 1
    other = asyncio.ensure_future(pool.acquire(URL, user_identity="other"))
    await until(lambda: pool.count("waiters"))
    pool.creations[0].open()  # it comes, and goes again: its place is wanted
    await until(lambda: len(pool.seen) == 3)
    pool.creations[0].open()
    await pool.release(await other)
    assert pool.most_open["total"] == 2
    assert pool.rejections == {}
    await pool.release(held)
    await pool.close()


async def test_a_caller_of_another_key_gets_the_place_of_a_replacement_that_fails() -> None:
    pool = SeenPool(max_total_sessions=2)
    held = await pool.acquire(URL)
    pool.holds_creations = True
    await pool.near_the_end()
    other = asyncio.ensure_future(pool.acquire(URL, user_identity="other"))
    await until(lambda: pool.count("waiters"))
    pool.creations[0].fail(ConnectionRefusedError())
    await until(lambda: len(pool.seen) == 3)
    pool.creations[0].open()
    await pool.release(await other)
    await pool.release(held)
    await pool.close()


async def test_a_new_key_is_not_refused_for_the_sake_of_a_replacement() -> None:
    pool = SeenPool(max_total_keys=1)
    await pool.use()
    pool.holds_creations = True
    await pool.near_the_end()
    other = asyncio.ensure_future(pool.acquire(URL, user_identity="other"))
    await until(lambda: len(pool.creations) == 2)
    for gate in list(pool.creations):
        gate.open()
    await pool.release(await other)
    await turns()
    assert pool.count("idle") == 1  # the replacement was for a key that is gone
    await pool.close()


async def test_who_waits_for_a_place_of_the_key_gets_the_replacement() -> None:
    pool = SeenPool(max_sessions_per_key=2)
    held = await pool.acquire(URL)
    pool.holds_creations = True
    await pool.near_the_end()
    waiting = asyncio.ensure_future(pool.acquire(URL))
    await until(lambda: pool.count("waiters"))
    pool.creations[0].open()
    replacement = await waiting
    assert replacement is not held
    assert pool.attempts == 2
    await pool.release(replacement)
    await pool.release(held)
    await pool.close()


async def test_a_pool_that_is_closed_ends_its_replacements() -> None:
    pool = SeenPool()
    await pool.use()
    pool.holds_creations = True
    await pool.near_the_end()
    assert pool.count("creating") == 1
    await pool.close()
    assert (pool.count("creating"), pool.open_now["total"]) == (0, 0)


async def test_nothing_of_a_caller_is_kept_when_its_sessions_are_gone() -> None:
    class Headers(dict[str, str]):
        pass

    pool = SeenPool()
    headers = Headers(Authorization="a")
    gone = weakref.ref(headers)
    await pool.use(headers)
    await pool.use(headers)
    del headers
    assert gone() is not None
    await pool.drain_all()
    await turns()
    gc.collect()
    assert gone() is None
    await pool.close()


# ---- min_idle


async def test_a_key_in_use_has_idle_sessions_in_reserve() -> None:
    pool = SeenPool(min_idle=2, max_sessions_per_key=4, replace_sessions=False)
    held = await pool.acquire(URL)
    await upkeep(pool)
    assert (pool.count("active"), pool.count("idle")) == (1, 2)
    more = [await pool.acquire(URL) for _ in range(2)]
    assert pool.count("misses") == 1
    await upkeep(pool)
    assert (pool.count("active"), pool.count("idle")) == (3, 1)  # as the limit allows
    for pooled in [held, *more]:
        await pool.release(pooled)
    assert pool.count("replacements") == 0
    await pool.close()


async def test_a_reserve_that_cannot_be_opened_is_tried_again_later() -> None:
    pool = SeenPool(min_idle=1, replace_sessions=False, circuit_breaker_threshold=2)
    held = await pool.acquire(URL)
    pool.create_error = ConnectionRefusedError()
    await upkeep(pool)
    attempts = pool.attempts
    await pool.near_the_end(1.0)
    assert pool.attempts == attempts == 2
    for _ in range(3):
        await pool.near_the_end(6.0)
    assert pool.attempts == 5
    assert pool.count("circuit_breaker_trips") == 0
    pool.create_error = None
    await pool.near_the_end(6.0)
    assert pool.count("idle") == 1
    await pool.release(held)
    await pool.close()


async def test_a_session_that_could_not_be_opened_ahead_is_logged_and_its_error_let_go(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Refused(ConnectionRefusedError): ...

    caplog.set_level(logging.DEBUG)
    pool = SeenPool(min_idle=1, replace_sessions=False)
    held = await pool.acquire(URL)
    gc.collect()
    gc.disable()  # nothing may wait for it
    try:
        pool.create_error = Refused("closed by the test")
        error = weakref.ref(pool.create_error)
        await upkeep(pool)
        pool.create_error = None
        await turns()
        assert error() is None
    finally:
        gc.enable()

    def said() -> list[str]:
        return [record.message for record in caplog.records if "ahead of need" in record.message]

    assert said() == ["a session could not be opened ahead of need: Refused: closed by the test"]
    await pool.near_the_end(6.0)
    assert pool.count("idle") == 1
    assert len(said()) == 1
    await pool.release(held)
    await pool.close()


async def test_the_reserve_of_a_key_that_nobody_uses_ends_with_it() -> None:
    pool = SeenPool(min_idle=2)
    await pool.use()
    await upkeep(pool)
    assert pool.count("idle") == 2
    for _ in range(30):
        await pool.near_the_end(10.0)
    assert (pool.count("keys"), pool.count("idle")) == (0, 0)


@pytest.mark.parametrize("error", [ValueError, MemoryError, RecursionError])
async def test_a_reserve_whose_opening_cannot_begin_is_told_and_keeps_no_place(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda each: told.append(each.exc_type))

    def fails(*_: Any) -> Any:
        raise error

    pool = FakePool(max_sessions_per_key=2, min_idle=1)
    pool._on_create = fails  # type: ignore[method-assign]
    held = await pool.acquire(URL)
    await upkeep(pool)
    # A want of memory, or of stack, is over a little later: that is nobody's fault.
    assert set(told) == ({ValueError} if error is ValueError else set())
    assert pool.count("creating") == 0
    second = await pool.acquire(URL)
    for pooled in (held, second):
        await pool.release(pooled)
    await pool.close()


async def test_the_pools_timer_opens_the_reserve() -> None:
    pool = FakePool(min_idle=1)
    held = await pool.acquire(URL)
    await until(lambda: pool.count("idle") == 1)
    await pool.release(held)
    await pool.close()


def test_min_idle_is_within_the_limit_of_a_key() -> None:
    with pytest.raises(ValueError, match=r"min_idle must be at most max_sessions_per_key, which is 2, not 3"):
        MCPSessionPool(max_sessions_per_key=2, min_idle=3)
    with pytest.raises(TypeError, match="replace_sessions"):
        MCPSessionPool(replace_sessions=1)  # type: ignore[arg-type]


# ---- sessions that are asked for


async def test_warm_opens_sessions_ahead_and_says_how_many_there_are() -> None:
    pool = SeenPool(max_sessions_per_key=5)
    assert await pool.warm(URL, {"Authorization": "a"}, sessions=3) == 3
    assert await pool.warm(URL, {"Authorization": "a"}, sessions=2) == 3
    assert (pool.attempts, pool.count("idle"), pool.count("misses")) == (3, 3, 0)
    held = [await pool.acquire(URL, {"Authorization": "a"}) for _ in range(3)]
    assert pool.count("hits") == 3
    assert await pool.warm(URL, {"Authorization": "a"}, sessions=9) == 2
    assert pool.most_open["total"] == 5
    for pooled in held:
        await pool.release(pooled)
    assert await pool.warm(URL, sessions=0) == 0
    await pool.close()
    with pytest.raises(PoolClosedError):
        await pool.warm(URL)


async def test_warm_opens_no_more_at_once_than_may_be() -> None:
    pool = SeenPool(max_creating_per_url=2)
    pool.holds_creations = True
    warming = asyncio.ensure_future(pool.warm(URL, sessions=5))
    for _ in range(5):
        await until(lambda: pool.creations)
        assert len(pool.creations) <= 2
        pool.creations[0].open()
        await turns()
    assert await warming == 5
    await pool.close()


@pytest.mark.parametrize("limit", ["max_total_sessions", "max_total_keys"])
async def test_warm_takes_nobodys_place(limit: str) -> None:
    pool = SeenPool(**{limit: 1})
    other = await pool.use(user_identity="other")
    assert await pool.warm(URL) == 0
    assert await pool.use(user_identity="other") is other
    assert pool.rejections == {}
    await pool.close()


async def test_warm_raises_what_kept_it_from_opening_any() -> None:
    pool = SeenPool(circuit_breaker_threshold=1)
    pool.create_error = LookupError("no")
    with pytest.raises(LookupError, match="no"):
        await pool.warm(URL, sessions=2)
    with pytest.raises(ValueError, match="sessions"):
        await pool.warm(URL, sessions=-1)
    with pytest.raises(TypeError, match="headers"):
        await pool.warm(URL, "s3cret")  # type: ignore[arg-type]
    pool.create_error = ConnectionRefusedError()
    with pytest.raises(ConnectionRefusedError):
        await pool.acquire(URL)
    with pytest.raises(CircuitOpenError):
        await pool.warm(URL)
    await assert_nothing_open(pool)


async def assert_nothing_open(pool: FakePool) -> None:
    assert (pool.count("creating"), pool.count("idle"), pool.count("keys")) == (0, 0, 0)
    await pool.close()


async def test_a_cancelled_warm_loses_nothing() -> None:
    pool = SeenPool(max_creating_per_url=2)
    pool.holds_creations = True
    warming = asyncio.ensure_future(pool.warm(URL, sessions=5))
    await until(lambda: len(pool.creations) == 2)
    await cancelled(warming)
    for gate in list(pool.creations):
        gate.open()
    await turns()
    assert (pool.count("idle"), pool.attempts) == (2, 2)
    pool.holds_creations = False
    await assert_all_places_usable(pool)


async def test_who_comes_while_a_key_is_warmed_shares_in_it() -> None:
    pool = SeenPool(max_sessions_per_key=2)
    pool.holds_creations = True
    warming = asyncio.ensure_future(pool.warm(URL, sessions=2))
    await until(lambda: len(pool.creations) == 2)
    waiting = asyncio.ensure_future(pool.acquire(URL))
    await until(lambda: pool.count("waiters"))
    for gate in list(pool.creations):
        gate.open()
    pooled: PooledSession = await waiting
    assert await warming == 1
    await pool.release(pooled)
    assert pool.attempts == 2
    await pool.close()


async def test_a_foreign_session_is_replaced_like_any_other() -> None:
    pool = SeenPool()
    pool.make_session = lambda url, headers, transport_type: type("Duck", (), {"is_closed": False})()  # type: ignore[method-assign]
    await pool.use({"Authorization": "a"})
    await pool.use({"authorization": "a"})
    await pool.near_the_end()
    assert pool.seen[1][1] == {"authorization": "a"}
    await pool.close()


async def test_an_acquire_beyond_all_limits_is_still_refused() -> None:
    pool = SeenPool(max_total_sessions=1)
    held = await pool.acquire(URL)
    with pytest.raises(PoolExhaustedError):
        await pool.acquire(URL, user_identity="other")
    await pool.release(held)
    await pool.close()
