"""What fails after this process stood still does not count for the circuit breaker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mcpgateway_pool.standstill import TICK_SECONDS, Standstill
from support.fakes import URL, FakeClock, FakePool, assert_at_rest, turns, until


class FakeLoop:
    """Timers that come when the test says so."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.timers: list[Any] = []

    def time(self) -> float:
        return self.clock()

    def call_later(self, seconds: float, callback: Any) -> Any:
        timer = FakeTimer(callback)
        self.timers.append(timer)
        assert seconds == TICK_SECONDS
        return timer

    def pass_time(self, seconds: float, late: float = 0.0) -> None:
        """Time in which the timer comes round as it should; ``late``: its last turn is late by that."""
        for _ in range(round(seconds / TICK_SECONDS)):
            self.clock.advance(TICK_SECONDS)
            self.turn()
        if late:
            self.clock.advance(TICK_SECONDS + late)
            self.turn()

    def turn(self) -> None:
        (timer,) = [timer for timer in self.timers if not timer.is_cancelled]
        self.timers.clear()
        timer.callback()


class FakeTimer:
    def __init__(self, callback: Any) -> None:
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


def watching(loop: FakeLoop) -> Standstill:
    return Standstill(loop)  # type: ignore[arg-type]


def test_time_in_which_the_loop_turned_is_no_standstill(loop: FakeLoop):
    span = watching(loop).begin()
    loop.pass_time(30)
    assert not span.stood_still()


def test_busy_loop_is_no_standstill(loop: FakeLoop):
    span = watching(loop).begin()
    for _ in range(20):
        loop.pass_time(0, late=0.4)
    assert not span.stood_still()


def test_timer_that_came_late_shows_a_standstill(loop: FakeLoop):
    span = watching(loop).begin()
    loop.pass_time(5)
    loop.pass_time(0, late=20)
    loop.pass_time(5)
    assert span.stood_still()


def test_standstill_is_seen_before_the_timer_comes_round(loop: FakeLoop):
    span = watching(loop).begin()
    loop.pass_time(5)
    loop.clock.advance(20)
    assert span.stood_still()


def test_standstill_that_left_the_server_time_enough_does_not_matter(loop: FakeLoop):
    span = watching(loop).begin()
    loop.pass_time(0, late=2)
    assert span.stood_still()
    loop.pass_time(17)
    assert span.stood_still()
    loop.pass_time(3)
    assert not span.stood_still()


def test_what_began_after_a_standstill_saw_none(loop: FakeLoop):
    standstill = watching(loop)
    first = standstill.begin()
    loop.pass_time(0, late=20)
    second = standstill.begin()
    loop.pass_time(1)
    assert first.stood_still()
    assert not second.stood_still()


def test_nothing_is_watched_once_every_span_has_ended(loop: FakeLoop):
    standstill = watching(loop)
    first, second = standstill.begin(), standstill.begin()
    assert len(loop.timers) == 1
    first.end()
    first.end()
    assert not loop.timers[0].is_cancelled
    second.end()
    assert loop.timers[0].is_cancelled
    loop.timers.clear()
    loop.clock.advance(1000)  # nobody watched
    third = standstill.begin()
    assert not third.stood_still()
    assert len(loop.timers) == 1


async def fail_after(pool: FakePool, clock: FakeClock, seconds: float, error: BaseException | None) -> None:
    """A creation that fails when the loop's clock has gone by that much at once."""
    acquiring = asyncio.ensure_future(pool.acquire(URL))
    await until(lambda: pool.creations)
    clock.advance(seconds)
    if error is not None:
        pool.creations[0].fail(error)
        with pytest.raises(type(error)):
            await acquiring
        error.__traceback__ = None  # a parameter lives on, and would keep the pool
    else:
        pool.creations[0].open()
        await pool.release(await acquiring)
    await turns()


@pytest.mark.parametrize("error", [TimeoutError("no answer"), ConnectionResetError("reset")])
async def test_failures_after_a_standstill_do_not_count(error: BaseException):
    clock = FakeClock()
    pool = FakePool(circuit_breaker_threshold=2)
    pool._standstill = Standstill(asyncio.get_running_loop(), now=clock)
    pool.holds_creations = True
    for _ in range(3):
        await fail_after(pool, clock, 20, error)
    assert pool.count("circuit_breaker_trips") == 0
    for _ in range(2):
        await fail_after(pool, clock, 0.1, error)
    assert pool.count("circuit_breaker_trips") == 1
    assert_at_rest(pool)


async def test_creations_leave_no_timer_behind():
    pool = FakePool()
    await pool.release(await pool.acquire(URL))
    pool.create_error = OSError()
    with pytest.raises(OSError):  # noqa: PT011
        await pool.acquire(URL, user_identity="ann")
    assert pool._standstill is not None
    assert pool._standstill._timer is None
    await turns()
    assert_at_rest(pool)
