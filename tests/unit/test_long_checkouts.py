"""Leak detection: a session that is checked out for long is warned of, with the stack that acquired it."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mcpgateway_pool import MCPSessionPool, PooledSession
from mcpgateway_pool.pool import long_checkouts
from support.fakes import URL, FakeClock, FakePool, PlainPool, turns, upkeep

LIMIT = 30.0

Acquire = Callable[[MCPSessionPool], Awaitable[Any]]


class TrackedPool(PlainPool):
    """One with leak detection, on a clock of its own."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("leak_detection_seconds", LIMIT)
        settings.setdefault("clock", FakeClock())
        super().__init__(**settings)

    async def later(self, seconds: float = LIMIT) -> None:
        """So many seconds later, and whatever is due then."""
        assert isinstance(self.settings.clock, FakeClock)
        self.settings.clock.advance(seconds)
        await upkeep(self)


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The warnings of a test, so far."""
    caplog.set_level(logging.WARNING, logger="mcpgateway_pool")
    return lambda: [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def the_code_that_forgets(pool: MCPSessionPool) -> Any:
    return await pool.acquire(URL, user_identity="u", gateway_id="g")


async def the_block_that_lasts(pool: MCPSessionPool) -> Any:
    context = pool.session(URL, user_identity="u", gateway_id="g")
    pool.contexts = [*getattr(pool, "contexts", []), context]  # type: ignore[attr-defined]
    return await context.__aenter__()


async def the_server_that_is_asked(pool: MCPSessionPool) -> Any:
    return await pool.server(URL, user_identity="u", gateway_id="g").acquire()


# ---- one checkout


async def test_it_is_warned_of_once_with_the_stack_that_acquired_it(warnings: Callable[[], list[str]]):
    pool = TrackedPool(name="of the test")
    pooled = await the_code_that_forgets(pool)
    await pool.later(LIMIT - 0.001)
    assert (warnings(), pool.count("long_checkouts")) == ([], 0)
    await pool.later(0.001)
    [warning] = warnings()
    first, *frames = warning.splitlines()
    assert first == (
        f"pool of the test: a session of {URL} is checked out for more than 30 s; it was acquired by:"
    )
    assert frames[-1].startswith(f'  File "{__file__}", line ')
    assert frames[-1].endswith(", in the_code_that_forgets")
    assert frames[-2].endswith(f", in {test_it_is_warned_of_once_with_the_stack_that_acquired_it.__name__}")
    assert pool.count("long_checkouts") == 1
    await pool.later(2 * LIMIT)
    await pool.release(pooled)
    await turns()
    assert (len(warnings()), pool.count("long_checkouts")) == (1, 1)
    assert pool.count("idle") == 1  # its session goes on
    await pool.close()


@pytest.mark.parametrize("acquire", [the_code_that_forgets, the_block_that_lasts, the_server_that_is_asked])
@pytest.mark.parametrize("way", ["hit", "creation", "wait for a session", "wait for a place"])
async def test_whatever_way_it_came_the_stack_is_of_who_acquired_it(
    way: str, acquire: Acquire, warnings: Callable[[], list[str]]
):
    pool = TrackedPool(max_sessions_per_key=1)
    if way != "creation":
        pooled = await pool.acquire(URL, user_identity="u", gateway_id="g")
    if way == "hit":
        await pool.release(pooled)
    acquiring = asyncio.ensure_future(acquire(pool))
    await turns()
    if way.startswith("wait"):
        await pool.later(LIMIT - 1)  # which is none of the checkout to come
        await pool.release(pooled, discard=way == "wait for a place")
    held = await acquiring
    await pool.later(LIMIT - 1)
    assert warnings() == []
    await pool.later(1)
    [warning] = warnings()
    assert warning.endswith(f", in {acquire.__name__}")
    assert pool.count("long_checkouts") == 1
    await pool.release(held)
    await pool.close()


async def test_a_checkout_that_ends_in_time_leaves_nothing_behind(warnings: Callable[[], list[str]]):
    pool = TrackedPool()
    kept: list[weakref.ref[Any]] = []
    plain = pool._trace_of_caller

    class Trace:
        """What a weak reference can be made to."""

        def __init__(self) -> None:
            self.frames = plain()
            kept.append(weakref.ref(self))

    pool._trace_of_caller = Trace  # type: ignore[assignment]
    for _ in range(3):
        async with pool.session(URL, user_identity="u", gateway_id="g"):
            assert kept[-1]() is not None
            await pool.later(LIMIT / 4)
        assert kept[-1]() is None
    await pool.later(LIMIT)
    assert (warnings(), pool.count("long_checkouts")) == ([], 0)
    await pool.close()


async def test_one_that_ends_too_late_is_reported_also_where_the_timer_did_not_come(
    warnings: Callable[[], list[str]],
):
    pool = TrackedPool()
    pooled = await the_code_that_forgets(pool)
    pool.settings.clock.advance(LIMIT)  # type: ignore[union-attr]
    await pool.release(pooled)
    assert len(warnings()) == pool.count("long_checkouts") == 1
    await pool.close()


async def test_the_pools_own_timer_comes_in_time(monkeypatch: pytest.MonkeyPatch):
    pool = TrackedPool(health_check_interval_seconds=1e6)
    armed: list[float] = []
    monkeypatch.setattr(pool, "_arm_timer", armed.append)
    pooled = await the_code_that_forgets(pool)  # a creation
    assert min(armed) == LIMIT
    await pool.release(pooled)
    await pool.later(LIMIT)  # nothing is tracked any more, and no timer is armed for that
    armed.clear()
    pooled = await the_code_that_forgets(pool)  # a hit
    assert armed == [LIMIT]
    await pool.release(pooled)
    await pool.close()


async def test_each_checkout_is_warned_of_by_itself(warnings: Callable[[], list[str]]):
    pool = TrackedPool()
    for turn in (1, 2):
        held = [await the_code_that_forgets(pool) for _ in range(3)]
        await pool.later()
        assert len(warnings()) == pool.count("long_checkouts") == 3 * turn
        for pooled in held:
            await pool.release(pooled)
    await pool.close()


# ---- what else may happen to a checkout


async def test_a_session_that_is_dropped_is_taken_back_as_ever(warnings: Callable[[], list[str]]):
    pool = TrackedPool()
    await the_code_that_forgets(pool)
    gc.collect()
    await turns()
    assert pool.evictions == {"leaked": 1}
    await pool.later(10 * LIMIT)
    assert pool.count("long_checkouts") == 0
    [warning] = warnings()
    assert "was dropped without a release" in warning
    await pool.close()


async def test_closing_the_pool_ends_what_is_tracked(warnings: Callable[[], list[str]]):
    pool = TrackedPool()
    pooled = await the_code_that_forgets(pool)
    await pool.close()
    assert pooled.is_closed
    assert (warnings(), pool.count("long_checkouts")) == ([], 0)


def test_a_loop_that_is_closed_takes_the_traces_along(warnings: Callable[[], list[str]]):
    pool = TrackedPool()
    pooled = asyncio.run(the_code_that_forgets(pool))

    async def use_again() -> None:
        async with pool.session(URL, user_identity="u", gateway_id="g"):
            pass
        await pool.close()

    asyncio.run(use_again())
    assert pooled.is_closed
    assert pool.evictions == {"broken": 1, "manual": 1}
    assert warnings() == []


async def test_duck_typed_sessions_are_warned_of_too(warnings: Callable[[], list[str]]):
    class Silent:
        @property
        def url(self) -> str:
            raise RuntimeError("not said")

    pool = TrackedPool()
    pool.make_session = lambda *_: Silent()  # type: ignore[method-assign]
    pooled = await the_code_that_forgets(pool)
    await pool.later()
    [warning] = warnings()
    assert "a session of ? is checked out" in warning
    await pool.release(pooled)
    await pool.close()


async def test_shared_sessions_are_tracked_lease_by_lease(warnings: Callable[[], list[str]]):
    pool = TrackedPool(max_sessions_per_key=1)
    pool._share(2, False)
    first = await the_code_that_forgets(pool)
    ticket = pool._lease_ticket(first)
    await pool.later(1)
    second = await the_server_that_is_asked(pool)
    assert second is first
    await pool.later(LIMIT - 1)
    [warning] = warnings()
    assert warning.endswith("in the_code_that_forgets")
    assert ticket is not None
    pool._release_lease(ticket, 0)
    await pool.later(1)
    assert warnings()[1].endswith("in the_server_that_is_asked")
    assert pool.count("long_checkouts") == 2
    await pool.close()


async def test_nothing_is_shown_of_a_url_that_must_not_be(warnings: Callable[[], list[str]]):
    pool = TrackedPool()
    pooled = await pool.acquire("http://ann:secret@server.test/mcp?token=secret", {"Authorization": "secret"})
    await pool.later()
    [warning] = warnings()
    assert "http://server.test/mcp" in warning
    assert "secret" not in warning
    await pool.release(pooled)
    await pool.close()


# ---- the trace


async def test_a_trace_keeps_no_variable_of_its_frames():
    class Large:
        pass

    async def acquire(pool: MCPSessionPool) -> Any:
        large = Large()
        seen.append(weakref.ref(large))
        return await pool.acquire(URL)

    seen: list[weakref.ref[Any]] = []
    pool = TrackedPool()
    pooled = await acquire(pool)
    gc.collect()
    assert seen[0]() is None
    await pool.release(pooled)
    await pool.close()


async def test_a_deep_stack_is_cut_at_its_outer_end(warnings: Callable[[], list[str]]):
    async def deep(depth: int) -> Any:
        return await (deep(depth - 1) if depth else the_code_that_forgets(pool))

    pool = TrackedPool()
    pooled = await deep(200)
    await pool.later()
    [warning] = warnings()
    frames = warning.splitlines()[1:]
    assert len(frames) == long_checkouts.MOST_FRAMES
    assert frames[-1].endswith("in the_code_that_forgets")
    await pool.release(pooled)
    await pool.close()


@pytest.mark.parametrize("raised", [MemoryError, RuntimeError])
async def test_an_acquire_does_not_fail_for_want_of_its_trace(
    raised: type[Exception], warnings: Callable[[], list[str]]
):
    def fails() -> Any:
        raise raised

    pool = TrackedPool()
    pool._trace_of_caller = fails  # type: ignore[method-assign]
    pooled = await the_code_that_forgets(pool)
    await pool.later()
    [warning] = warnings()
    assert warning.endswith("it was acquired by:\n  not known: there was no memory for it")
    await pool.release(pooled)
    await pool.close()


async def test_a_report_that_raises_harms_nobody(monkeypatch: pytest.MonkeyPatch):
    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    pool = TrackedPool()
    pool._on_long_checkout = lambda *_: 1 / 0  # type: ignore[method-assign, assignment]
    pooled = await the_code_that_forgets(pool)
    await pool.later()
    assert [type(each.exc_value) for each in seen] == [ZeroDivisionError]
    assert pool.count("long_checkouts") == 1
    await pool.release(pooled)
    async with pool.session(URL, user_identity="u", gateway_id="g") as again:
        assert again is pooled
    await pool.close()


# ---- the setting


class KeyOfItsOwn(PlainPool):
    def _make_pool_key(self, *args: Any) -> Any:
        return super()._make_pool_key(*args)


@pytest.mark.parametrize("pool_class", [PlainPool, KeyOfItsOwn])
async def test_it_is_off_by_default_and_asks_for_no_stack(pool_class: type[PlainPool]):
    pool = pool_class(clock=FakeClock())
    asked: list[None] = []  # an exception would be dropped: no acquire fails for want of its stack
    pool._trace_of_caller = lambda: asked.append(None)  # type: ignore[assignment,method-assign]
    pooled = await the_code_that_forgets(pool)
    pool.settings.clock.advance(1e6)  # type: ignore[union-attr]
    await upkeep(pool)
    assert pool.settings.leak_detection_seconds == 0
    assert pool.count("long_checkouts") == 0
    assert asked == []
    assert isinstance(pooled, PooledSession)
    await pool.release(pooled)
    await pool.close()


async def test_with_overridden_hooks_it_is_the_same(warnings: Callable[[], list[str]]):
    class Overridden(TrackedPool):
        def _compute_identity_hash(self, headers: Any) -> str:
            return "all the same"

    class WithAcquire(FakePool):
        pass

    for pool in (Overridden(), WithAcquire(leak_detection_seconds=LIMIT, clock=FakeClock())):
        pooled = await the_code_that_forgets(pool)
        pool.settings.clock.advance(LIMIT)  # type: ignore[union-attr]
        await upkeep(pool)
        assert pool.count("long_checkouts") == 1
        await pool.release(pooled)
        await pool.close()
    assert len(warnings()) == 2


@pytest.mark.parametrize("value", [-1, float("nan")])
def test_a_bad_number_of_seconds_is_refused(value: float):
    with pytest.raises(ValueError, match="leak_detection_seconds must not be negative or NaN"):
        MCPSessionPool(leak_detection_seconds=value)


def test_what_is_no_number_is_refused():
    with pytest.raises(TypeError, match="leak_detection_seconds must be a number of seconds"):
        MCPSessionPool(leak_detection_seconds="60")  # type: ignore[arg-type]


async def test_for_ever_is_long_enough_for_no_warning():
    pool = TrackedPool(leak_detection_seconds=float("inf"))
    pooled = await the_code_that_forgets(pool)
    await pool.later(1e7)
    assert pool.count("long_checkouts") == 0
    await pool.release(pooled)
    await pool.close()
