"""The circuit breaker of a URL."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from mcpgateway_pool import CircuitOpenError, PoolClosedError, SessionCreateTimeoutError
from mcpgateway_pool.verdict import Fault, blame
from support.fakes import URL, FakeClock, FakePool, assert_adds_up, assert_at_rest, turns, until, until_timer

pytestmark = pytest.mark.both_loops

OTHER = "http://other.test/mcp"


def with_status(status: int) -> Exception:
    error = RuntimeError(f"HTTP {status}")
    error.response = SimpleNamespace(status_code=status)  # type: ignore[attr-defined]
    return error


async def fail(pool: FakePool, times: int = 1, error: Exception | None = None, url: str = URL) -> None:
    error = error or OSError("refused")
    pool.create_error = error
    for _ in range(times):
        with pytest.raises(type(error)) as caught:
            await pool.acquire(url)
        assert caught.value is error
    pool.create_error = None
    error.__traceback__ = None  # where it is a parameter, it would keep the pool for as long as the tests run
    await turns()


async def assert_open(pool: FakePool, url: str = URL) -> None:
    attempts = pool.attempts
    with pytest.raises(CircuitOpenError, match="Circuit breaker open for"):
        await pool.acquire(url)
    assert pool.attempts == attempts


async def assert_closed(pool: FakePool, url: str = URL) -> None:
    await pool.release(await pool.acquire(url))
    await turns()


async def test_circuit_opens_at_the_threshold_and_refuses_without_trying():
    pool = FakePool(circuit_breaker_threshold=3)
    await fail(pool, 3)
    await assert_open(pool)
    await assert_open(pool)
    assert pool.count("circuit_breaker_trips") == 1
    assert pool.rejections == {"circuit_open": 2}
    assert_at_rest(pool)


async def test_success_in_between_starts_the_count_anew():
    pool = FakePool(circuit_breaker_threshold=3)
    for _ in range(3):
        await fail(pool, 2)
        pooled = await pool.acquire(URL)
        await pool.release(pooled, discard=True)
        await turns()
    await assert_closed(pool)
    assert_at_rest(pool)


async def test_circuit_of_one_url_is_no_other_urls():
    pool = FakePool(circuit_breaker_threshold=1)
    kept = await pool.acquire(OTHER)
    await pool.release(kept)
    await fail(pool)
    await assert_open(pool)
    assert await pool.acquire(OTHER) is kept
    await pool.release(kept)
    await turns()
    assert_at_rest(pool)


async def test_circuit_is_of_the_url_for_every_user_and_gateway():
    pool = FakePool(circuit_breaker_threshold=2)
    pool.create_error = OSError()
    for user in ("ann", "bob"):
        with pytest.raises(OSError):  # noqa: PT011
            await pool.acquire(URL, user_identity=user)
    with pytest.raises(CircuitOpenError):
        await pool.acquire(URL, user_identity="eve", gateway_id="g")
    await turns()
    assert_at_rest(pool)


async def pool_with_idle_sessions(**settings: Any) -> tuple[FakePool, list[Any], Any]:
    """A pool whose circuit to URL has just opened; the sessions idle there then, and one of OTHER."""
    pool = FakePool(circuit_breaker_threshold=1, health_checks_per_second=1000, **settings)
    sessions = [
        await pool.acquire(URL),
        await pool.acquire(URL, user_identity="ann"),
        await pool.acquire(OTHER),
    ]
    for pooled in sessions:
        await pool.release(pooled)
    pool.create_error = OSError()
    with pytest.raises(OSError):  # noqa: PT011
        await pool.acquire(URL, user_identity="bob")
    return pool, sessions[:2], sessions[2]


async def test_opening_closes_the_idle_sessions_of_that_url_that_fail_their_check():
    pool, idle, elsewhere = await pool_with_idle_sessions()
    pool.is_healthy = False
    await until_timer(lambda: len(pool.closed_sessions) == 2)
    await turns()
    assert {id(pooled) for pooled in pool.closed_sessions} == {id(pooled) for pooled in idle}
    assert elsewhere not in pool.checked
    assert pool.evictions == {"circuit_breaker": 2}
    assert pool.count("health_check_failures") == 2
    assert_at_rest(pool)


async def test_sessions_that_answer_serve_on_while_the_circuit_is_open():
    pool, idle, _ = await pool_with_idle_sessions()
    await until_timer(lambda: len(pool.checked) == 2)
    await until(lambda: pool.count("checking") == 0)
    assert pool.evictions == {}
    pooled = await pool.acquire(URL)
    assert pooled is idle[0]
    with pytest.raises(CircuitOpenError):
        await pool.acquire(URL, user_identity="bob")
    waiter = asyncio.ensure_future(pool.acquire(URL))  # one is in use, and will come back
    await turns()
    assert not waiter.done()
    await pool.release(pooled)
    assert await waiter is pooled
    await pool.release(pooled)
    await turns()
    assert_at_rest(pool)


async def test_caller_gets_a_suspect_as_soon_as_it_was_checked():
    pool, idle, _ = await pool_with_idle_sessions(acquire_timeout_seconds=5)
    assert await pool.acquire(URL) is idle[0]
    assert idle[0] in pool.checked
    await pool.release(idle[0])
    await until_timer(lambda: pool.count("checking") == 0 and len(pool.checked) >= 2)
    assert_at_rest(pool)


async def test_caller_whose_suspects_fail_their_checks_is_refused():
    pool, _idle, _ = await pool_with_idle_sessions()
    pool.is_healthy = False
    with pytest.raises(CircuitOpenError):
        await pool.acquire(URL)
    await until_timer(lambda: len(pool.closed_sessions) == 2)
    await turns()
    assert pool.evictions == {"circuit_breaker": 2}
    assert_at_rest(pool)


async def test_success_of_a_creation_that_began_before_closes_the_circuit():
    pool = FakePool(circuit_breaker_threshold=1)
    pool.holds_creations = True
    early, failing, late = (
        asyncio.ensure_future(pool.acquire(URL, user_identity=name)) for name in ("a", "b", "c")
    )
    await until(lambda: len(pool.creations) == 3)
    gates = list(pool.creations)
    gates[1].fail(OSError())
    with pytest.raises(OSError):  # noqa: PT011
        await failing
    await assert_open(pool)
    gates[0].open()
    await pool.release(await early)
    gates[2].fail(OSError())  # it began before that success
    with pytest.raises(OSError):  # noqa: PT011
        await late
    pool.holds_creations = False
    await assert_closed(pool)
    assert_at_rest(pool)


async def test_releases_go_to_waiters_while_the_circuit_is_open():
    pool = FakePool(circuit_breaker_threshold=1, max_sessions_per_key=1)
    held = await pool.acquire(URL)
    waiter = asyncio.ensure_future(pool.acquire(URL))
    await until(lambda: pool.count("waiters") == 1)
    pool.create_error = OSError()
    with pytest.raises(OSError):  # noqa: PT011
        await pool.acquire(URL, user_identity="ann")
    await turns()
    assert not waiter.done()
    await pool.release(held)
    assert await waiter is held
    await pool.release(held)
    await turns()
    assert_at_rest(pool)


async def test_waiters_whose_key_has_nothing_active_fail_at_once():
    pool = FakePool(circuit_breaker_threshold=1, max_sessions_per_key=1)
    pool.holds_creations = True
    creator = asyncio.ensure_future(pool.acquire(URL))
    waiters = [asyncio.ensure_future(pool.acquire(URL)) for _ in range(3)]
    await until(lambda: pool.creations and pool.count("waiters") == 3)
    pool.creations[0].fail(OSError("refused"))
    with pytest.raises(OSError, match="refused"):
        await creator
    for waiter in waiters:
        with pytest.raises(CircuitOpenError):
            await waiter
    assert pool.attempts == 1
    await turns()
    assert_at_rest(pool)


async def test_last_holder_who_discards_while_the_circuit_is_open_fails_the_waiters():
    pool = FakePool(circuit_breaker_threshold=1, max_sessions_per_key=1)
    held = await pool.acquire(URL)
    waiter = asyncio.ensure_future(pool.acquire(URL))
    await until(lambda: pool.count("waiters") == 1)
    pool.create_error = OSError()
    with pytest.raises(OSError):  # noqa: PT011
        await pool.acquire(URL, user_identity="ann")
    await pool.release(held, discard=True)
    with pytest.raises(CircuitOpenError):
        await asyncio.wait_for(waiter, 5)
    await turns()
    assert_at_rest(pool)


async def test_half_open_with_20_callers_makes_exactly_one_attempt():
    clock = FakeClock()
    pool = FakePool(circuit_breaker_threshold=1, circuit_breaker_reset_seconds=10, clock=clock)
    await fail(pool)
    clock.advance(9.9)
    await assert_open(pool)
    clock.advance(0.2)
    pool.holds_creations = True
    before = pool.attempts
    callers = [asyncio.ensure_future(pool.acquire(URL, user_identity=f"u{n % 7}")) for n in range(20)]
    await until(lambda: pool.creations)
    await turns()
    assert pool.attempts == before + 1
    refused = [task for task in callers if task.done()]
    assert all(isinstance(task.exception(), CircuitOpenError) for task in refused)
    pool.creations[0].open()
    pool.holds_creations = False
    results = await asyncio.gather(*callers, return_exceptions=True)
    sessions = [result for result in results if not isinstance(result, BaseException)]
    assert len(sessions) + len(refused) == 20
    assert len(refused) == 19
    assert pool.attempts == before + 1
    await pool.release(sessions[0])
    await assert_closed(pool)
    assert_at_rest(pool)


async def test_failed_probe_reopens_for_twice_as_long_up_to_ten_times():
    clock = FakeClock()
    pool = FakePool(circuit_breaker_threshold=1, circuit_breaker_reset_seconds=10, clock=clock)
    await fail(pool)
    clock.advance(10)
    for times in (2, 4, 8, 10, 10):
        await fail(pool)
        clock.advance(10 * times * 0.9 - 0.1)  # up to a tenth of jitter
        await assert_open(pool)
        clock.advance(10 * times * 0.1 + 0.2)
    await assert_closed(pool)
    assert pool.count("circuit_breaker_trips") == 6
    await fail(pool, url=URL + "/elsewhere")
    assert_adds_up(pool)


async def test_success_closes_the_circuit_and_forgets_how_long_it_was_open():
    clock = FakeClock()
    pool = FakePool(circuit_breaker_threshold=2, circuit_breaker_reset_seconds=10, clock=clock)
    await fail(pool, 2)
    clock.advance(11)
    await fail(pool)
    clock.advance(21)
    pooled = await pool.acquire(URL)
    await pool.release(pooled, discard=True)
    await turns()
    await fail(pool)
    await assert_closed(pool)
    assert_at_rest(pool)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 429, 431])
async def test_refusal_of_the_caller_does_not_count(status: int):
    pool = FakePool(circuit_breaker_threshold=2)
    await fail(pool, 5, with_status(status))
    await fail(pool, 5, ExceptionGroup("in a group", [with_status(status)]))
    caused = RuntimeError("wrapped")
    caused.__cause__ = with_status(status)
    await fail(pool, 5, caused)
    await assert_closed(pool)
    assert_at_rest(pool)


@pytest.mark.parametrize(
    "error", [with_status(500), with_status(503), ConnectionResetError(), ValueError("any"), TimeoutError()]
)
async def test_server_that_is_down_and_what_shows_nothing_count(error: Exception):
    pool = FakePool(circuit_breaker_threshold=2)
    await fail(pool, 2, error)
    await assert_open(pool)
    assert_at_rest(pool)


async def test_callers_own_mistake_does_not_count():
    pool = FakePool(circuit_breaker_threshold=1)
    error = ValueError("my client factory is broken")
    blame(error, Fault.CALLER)
    await fail(pool, 3, error)
    await assert_closed(pool)
    assert_at_rest(pool)


async def test_creation_timeout_counts():
    clock = FakeClock()
    pool = FakePool(circuit_breaker_threshold=1, session_create_timeout_seconds=5, clock=clock)
    pool.holds_creations = True
    caller = asyncio.ensure_future(pool.acquire(URL))
    await until(lambda: pool.creations)
    clock.advance(6)
    with pytest.raises(SessionCreateTimeoutError):
        await caller
    await turns()
    await assert_open(pool)
    assert_at_rest(pool)


async def test_cancellation_does_not_count():
    pool = FakePool(circuit_breaker_threshold=1)
    pool.holds_creations = True
    for _ in range(3):
        caller = asyncio.ensure_future(pool.acquire(URL))
        await until(lambda: pool.creations)
        (task,) = [task for task in pool._tasks if not task.done()]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        await turns()
    pool.holds_creations = False
    await assert_closed(pool)
    assert_at_rest(pool)


async def test_probe_that_was_the_callers_own_mistake_lets_the_next_try_at_once():
    clock = FakeClock()
    pool = FakePool(circuit_breaker_threshold=1, circuit_breaker_reset_seconds=10, clock=clock)
    await fail(pool)
    clock.advance(11)
    await fail(pool, 3, with_status(401))
    await assert_closed(pool)
    assert_at_rest(pool)


async def test_metrics_show_the_circuit_without_credentials():
    clock = FakeClock()
    pool = FakePool(circuit_breaker_threshold=2, circuit_breaker_reset_seconds=60, clock=clock)
    url = "http://user:s3cret@server.test/mcp?k=s3cret"
    await fail(pool, 1, url=url)
    ((name, circuit),) = pool.get_metrics()["circuit_breakers"].items()
    assert circuit == {"failures": 1, "open_until": None}
    await fail(pool, 1, url=url)
    ((name, circuit),) = pool.get_metrics()["circuit_breakers"].items()
    assert circuit["failures"] == 2
    assert circuit["open_until"] is not None
    assert name.startswith("http://server.test/mcp")
    assert "s3cret" not in name
    with pytest.raises(CircuitOpenError) as caught:
        await pool.acquire(url)
    assert "s3cret" not in str(caught.value)
    assert pool.get_metrics()["circuit_breaker_trips"] == 1
    assert_at_rest(pool)


async def test_remembered_urls_are_bounded():
    pool = FakePool(circuit_breaker_threshold=10, max_tracked_urls=50)
    pool.create_error = OSError()
    for number in range(200):
        with pytest.raises(OSError):  # noqa: PT011
            await pool.acquire(f"{URL}/{number}")
    assert len(pool.get_metrics()["circuit_breakers"]) <= 50
    assert pool.count("endpoints") <= 51
    await turns()
    assert_at_rest(pool)


async def test_failure_that_is_long_past_is_forgotten():
    clock = FakeClock()
    pool = FakePool(circuit_breaker_threshold=2, circuit_breaker_reset_seconds=10, clock=clock)
    await fail(pool)
    clock.advance(100_000)
    await until_timer(lambda: not pool.get_metrics()["circuit_breakers"])
    assert pool.count("endpoints") == 0
    assert_at_rest(pool)


async def test_creation_that_close_all_ends_is_no_failure_of_the_server():
    pool = FakePool(circuit_breaker_threshold=1)
    pool.holds_creations = True
    caller = asyncio.ensure_future(pool.acquire(URL))
    await until(lambda: pool.creations)
    await pool.close_all()
    with pytest.raises(PoolClosedError):
        await caller
    assert pool.count("circuit_breaker_trips") == 0
    assert pool.get_metrics()["circuit_breakers"] == {}


# ---- what opened it


async def test_refusal_names_what_opened_the_circuit(caplog: pytest.LogCaptureFixture):
    pool = FakePool(circuit_breaker_threshold=2)
    error = RuntimeError("Failed to create")
    error.__cause__ = ConnectionRefusedError(111, "Connect call failed")
    await fail(pool, 2, error)
    why = r"opened by ConnectionRefusedError: \[Errno 111\] Connect call failed"
    with pytest.raises(
        CircuitOpenError, match=rf"Circuit breaker open for {URL}, {why}; try again in [\d.]+ s$"
    ):
        await pool.acquire(URL)
    assert f"Circuit breaker opened for {URL}: ConnectionRefusedError: [Errno 111]" in caplog.text
    await turns()
    assert_at_rest(pool)


async def test_what_opened_circuits_is_remembered_of_the_newest_of_many():
    pool = FakePool(circuit_breaker_threshold=1, max_tracked_urls=2)
    for number in range(5):
        await fail(pool, 1, OSError(f"refused {number}"), url=f"{URL}/{number}")
    assert pool._opened_by.urls() == [f"{URL}/3", f"{URL}/4"]
    assert_at_rest(pool)


async def test_time_out_before_the_server_was_asked_does_not_count():
    """A gateway asks Redis first."""

    class Asking(FakePool):
        async def _permit_creation(self, _headers: dict[str, str] | None) -> None:
            await asyncio.Event().wait()

    clock = FakeClock()
    pool = Asking(circuit_breaker_threshold=1, session_create_timeout_seconds=5, clock=clock)
    acquiring = asyncio.ensure_future(pool.acquire(URL))
    await turns()
    clock.advance(6)
    with pytest.raises(SessionCreateTimeoutError):
        await acquiring
    assert pool.count("circuit_breaker_trips") == 0
    await turns()
    assert_at_rest(pool)
