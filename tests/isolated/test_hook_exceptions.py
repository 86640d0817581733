"""Whatever a hook, a callback or the event loop raises: no place, session or count is lost."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from mcpgateway_pool import MCPSessionPool, _core
from support.fakes import (
    URL,
    FakeClock,
    FakePool,
    PlainPool,
    assert_adds_up,
    assert_all_places_usable,
    turns,
    until,
)

LIMIT = 2
ERRORS = [
    ValueError,
    MemoryError,
    RecursionError,
    asyncio.CancelledError,
    GeneratorExit,
    KeyboardInterrupt,
    SystemExit,
    BaseExceptionGroup,
]


def make(error: type[BaseException]) -> BaseException:
    return (
        error("raised by a test", [KeyError()]) if error is BaseExceptionGroup else error("raised by a test")
    )


class Once:
    """Stands before a function: its first call raises."""

    def __init__(self, function: Callable[..., Any], error: type[BaseException]) -> None:
        self._function = function
        self._error = error
        self.has_raised = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.has_raised:
            self.has_raised = True
            raise make(self._error)
        return self._function(*args, **kwargs)


class OnceAwaited(Once):
    """The same for a coroutine function: it raises when it is awaited."""

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return await super().__call__(*args, **kwargs)


@pytest.fixture
def loop(caplog: pytest.LogCaptureFixture) -> Iterator[asyncio.SelectorEventLoop]:
    caplog.set_level(logging.CRITICAL)  # asyncio reports exceptions that nobody fetched
    loop = asyncio.SelectorEventLoop()
    loop.set_exception_handler(lambda *_: None)
    yield loop
    assert not asyncio.all_tasks(loop)
    loop.close()
    gc.collect()  # here, where what it warns of is expected: the next test is not to be blamed


def drive(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run it to its end, also where KeyboardInterrupt and SystemExit leave the loop meanwhile; what it raises
    is not looked at.
    """
    task = loop.create_task(coroutine)
    for _ in range(20):
        try:
            loop.run_until_complete(asyncio.wait({task}, timeout=20))
        except (KeyboardInterrupt, SystemExit):
            continue
        break
    assert task.done()
    if not task.cancelled():
        task.exception()


async def use_everything(pool: FakePool, clock: FakeClock) -> None:  # noqa: C901 - a list of steps
    """Create, hit, wait, check, discard, drop, expire, drain; each step may fail."""

    async def acquire() -> Any:
        return await pool.acquire(URL, {"authorization": "a"}, user_identity="me")

    steps: list[Callable[[], Coroutine[Any, Any, Any]]] = []
    held: list[Any] = []

    async def hold() -> None:
        held.append(await acquire())

    async def give_back() -> None:
        while held:
            await pool.release(held[-1])
            held.pop()

    async def discard() -> None:
        while held:
            await pool.release(held[-1], discard=True)
            held.pop()

    async def wait() -> None:
        waiting = [asyncio.ensure_future(acquire()) for _ in range(LIMIT + 1)]
        await turns(3)
        while waiting:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in waiting if task.done()]:
                waiting.remove(task)
                if not task.cancelled() and task.exception() is None:
                    await pool.release(task.result())

    async def check() -> None:
        clock.advance(61.0)
        async with pool.session(URL, {"authorization": "a"}, user_identity="me"):
            pass

    async def drop() -> None:
        pooled = await acquire()
        pool.checked.clear()  # it refers to the session
        del pooled
        await turns()

    async def expire() -> None:
        clock.advance(1000.0)
        while pool._upkeep():
            pass
        await turns()

    steps = [
        hold,
        give_back,
        hold,
        discard,
        wait,
        check,
        drop,
        wait,
        expire,
        wait,
        pool.drain_all,
        hold,
        give_back,
    ]
    for step in steps:
        task = asyncio.ensure_future(step())
        await asyncio.wait({task})  # not awaited: CancelledError raised by a hook is not ours
        if not task.cancelled():
            task.exception()
        del task
    for pooled in held:
        if pool._lease_of(pooled) is not None:
            await pool.release(pooled)


async def assert_nothing_lost(pool: FakePool) -> None:
    await until(lambda: not any(pool.count(name) for name in ("waiters", "creating", "checking", "closing")))
    await turns()
    taken = [await pool.acquire(URL, {"authorization": "a"}, user_identity="me") for _ in range(LIMIT)]
    assert len({id(pooled) for pooled in taken}) == LIMIT
    for pooled in taken:
        await pool.release(pooled)
    assert_adds_up(pool)
    await pool.close_all()
    await turns()
    assert_adds_up(pool)
    assert sum(count for name, count in pool._counts().items() if "_" not in name) == 0, pool._counts()
    assert asyncio.all_tasks() == {asyncio.current_task()}


AWAITED = [
    "_create_session",
    "_close_session",
    "_validate_session",
    "_run_health_check_chain",
    "_permit_creation",
]
CALLED = [
    "_compute_identity_hash",
    "_make_pool_key",
    "_extract_identity",
    "_cleanup_timeout",
    "_log",
    "_on_close",
    "_on_check",
    "_arm_timer",
    "_reclaim_leaked",
    "_spawn",
    "_timer",
]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("hook", AWAITED + CALLED)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_what_a_hook_raises_loses_nothing(
    loop: asyncio.SelectorEventLoop, hook: str, error: type[BaseException]
):
    clock = FakeClock()
    pool = PlainPool(max_sessions_per_key=LIMIT, clock=clock, identity_extractor=lambda headers: "me")
    kind = OnceAwaited if hook in AWAITED else Once
    once = kind(getattr(pool, hook), error)
    setattr(pool, hook, once)
    drive(loop, use_everything(pool, clock))
    assert once.has_raised
    drive_checked(loop, assert_nothing_lost(pool))


def drive_checked(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any]) -> None:
    loop.run_until_complete(coroutine)


# Not an interrupt: where nobody is there to be told, it comes again a little later, perhaps in the test's own
# code. test_signals.py has those.
@pytest.mark.parametrize("error", [error for error in ERRORS if error is not KeyboardInterrupt])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_the_clock_raises_loses_nothing(loop: asyncio.SelectorEventLoop, error: type[BaseException]):
    """Once, at each of its first calls in turn."""
    number = 0
    while True:
        clock = FailingClock(number, error)
        pool = PlainPool(max_sessions_per_key=LIMIT, clock=clock)
        drive(loop, use_everything(pool, clock))
        clock.fails_no_more()
        drive_checked(loop, assert_nothing_lost(pool))
        if not clock.has_raised:
            break
        number += 1
    assert number > 50


class FailingClock(FakeClock):
    def __init__(self, number: int, error: type[BaseException]) -> None:
        super().__init__()
        self._left = number
        self._error = error
        self.has_raised = False

    def fails_no_more(self) -> None:
        self._left = -1

    def __call__(self) -> float:
        self._left -= 1
        if self._left == -1:
            self.has_raised = True
            raise make(self._error)
        return super().__call__()


@pytest.mark.parametrize("error", [ValueError, MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize(
    "name", ["call_later", "call_at", "create_task", "create_future", "call_soon_threadsafe"]
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_the_event_loop_raises_loses_nothing(
    loop: asyncio.SelectorEventLoop, name: str, error: type[BaseException]
):
    """Once, at each of the pool's calls in turn."""
    # ruff: noqa: B023 - each function below is used up within its round
    number = 0
    while True:
        calls = 0
        original = getattr(type(loop), name)

        def fail(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += is_on
            if is_on and calls == number + 1:
                raise make(error)
            return original(loop, *args, **kwargs)

        is_on = False
        setattr(loop, name, fail)
        pool = PlainPool(max_sessions_per_key=LIMIT)

        async def use() -> None:
            nonlocal is_on
            held = [await pool.acquire(URL) for _ in range(LIMIT)]
            is_on = True
            for step in (
                lambda: pool.release(held[0], discard=True),
                lambda: pool.acquire(URL),
                lambda: pool.acquire(URL + "/other"),
                pool.drain_all,
            ):
                coroutine = step()
                try:
                    first = coroutine.send(None)
                except BaseException:
                    continue
                finally:
                    held.clear()
                is_on = False
                if first is not None:
                    first._asyncio_future_blocking = False
                await turns()
                coroutine.close()
                is_on = True
            is_on = False

        drive(loop, use())
        delattr(loop, name)
        drive(loop, turns())
        drive_checked(loop, reclaim(pool))
        drive_checked(loop, assert_nothing_lost(pool))
        if calls <= number:
            break
        number += 1
    assert number > 0 or name == "call_at"


async def reclaim(pool: MCPSessionPool) -> None:
    pool._upkeep()


async def test_a_future_that_refuses_its_result_is_told_by_its_time_out(monkeypatch: pytest.MonkeyPatch):
    class Refusing(asyncio.Future[Any]):
        refusals = 0

        def set_result(self, result: Any) -> None:
            if not Refusing.refusals:
                Refusing.refusals = 1
                raise MemoryError
            super().set_result(result)

    pool = FakePool(max_sessions_per_key=1, acquire_timeout_seconds=0.05)
    held = await pool.acquire(URL)
    loop = asyncio.get_running_loop()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "create_future", lambda: Refusing(loop=loop), raising=False)
        waiting = asyncio.ensure_future(pool.acquire(URL))
        await until(lambda: pool.count("waiters") == 1)
    await pool.release(held)
    with pytest.raises(MemoryError):
        await waiting
    await assert_all_places_usable(pool)
    await pool.close_all()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_log_that_raises_loses_nothing():
    def refuse(_: object) -> bool:
        raise ValueError("a filter that raises")

    log = logging.getLogger("mcpgateway_pool")
    pool = FakePool(max_sessions_per_key=LIMIT)
    level = log.level
    log.setLevel(logging.DEBUG)
    log.addFilter(refuse)
    try:
        with pytest.raises(ValueError, match="a filter"):
            await pool.acquire(URL)  # it warns that its caller is anonymous
        pooled = await pool.acquire(URL)
        del pooled
        await turns()
    finally:
        log.removeFilter(refuse)
        log.setLevel(level)
    await assert_all_places_usable(pool)
    await pool.close_all()


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("factory", ["client", "handler"])
def test_what_a_factory_raises_loses_nothing(
    loop: asyncio.SelectorEventLoop, factory: str, error: type[BaseException]
):
    def refuse(*_: Any, **__: Any) -> Any:
        raise make(error)

    async def use() -> None:
        pool = MCPSessionPool(
            max_sessions_per_key=1, message_handler_factory=refuse if factory == "handler" else None
        )
        pools.append(pool)
        await pool.acquire(
            "http://127.0.0.1:1/mcp", httpx_client_factory=refuse if factory == "client" else None
        )

    pools: list[MCPSessionPool] = []
    drive(loop, use())
    drive(loop, turns(50))
    (pool,) = pools
    counts = pool._counts()
    assert not any(counts[name] for name in ("creating", "active", "idle", "closing", "waiters")), counts
    drive(loop, pool.close_all())
    assert _core.snapshot()
