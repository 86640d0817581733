"""The course of the demo, by a clock that the test moves: waves of calls, a server that goes and comes back,
and callers that forget to release.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mcpgateway_pool import TransportType
from mcpgateway_pool.cli import demo
from support.fakes import FakeClock, turns

PERIOD = 20.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """Of the demo. Its pauses take a turn of the event loop each."""

    async def pause(_stop: asyncio.Event, _seconds: float) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(demo, "_pause", pause)
    monkeypatch.setattr(demo, "time", SimpleNamespace(monotonic=FakeClock()))
    clock: FakeClock = demo.time.monotonic  # type: ignore[assignment]
    return clock


def test_waves_are_alike_and_each_goes_from_calm_to_busy_and_back(clock: FakeClock) -> None:
    wave = demo._Wave()
    for _ in range(3):
        seen = []
        for _ in range(4):
            seen.append((wave.phase, wave.calm))
            clock.advance(PERIOD / 4)
        assert seen == [pytest.approx(pair) for pair in ((0.0, 1.0), (0.25, 0.5), (0.5, 0.0), (0.75, 0.5))]


class Server:
    """A server that is up or not."""

    gateway_id, url, transport = "g", "http://server.test/mcp", TransportType.STREAMABLE_HTTP

    def __init__(self) -> None:
        self.is_up = True
        self.events: list[str] = []

    async def start(self) -> None:
        assert not self.is_up
        self.is_up = True
        self.events.append("start")

    def kill(self) -> None:
        assert self.is_up
        self.is_up = False
        self.events.append("kill")


async def test_a_server_is_gone_for_a_short_while_of_each_wave(clock: FakeClock) -> None:
    server: Any = Server()
    stop = asyncio.Event()
    task = asyncio.create_task(demo._come_and_go(server, demo._Wave(), stop))
    down = [0, 0, 0]
    for number in range(3 * int(PERIOD)):
        await turns()
        wave, second = divmod(number, int(PERIOD))
        down[wave] += not server.is_up
        assert server.is_up or second > PERIOD / 2, "it goes after the height of the wave"
        clock.advance(1.0)
    stop.set()
    await task
    assert server.events == ["kill", "start"] * 3
    assert down == [down[0]] * 3
    assert 1 <= down[0] <= PERIOD / 4


class Pool:
    """Notes who calls what."""

    def __init__(self) -> None:
        self.calls: Counter[int] = Counter()
        self.asked: list[tuple[Any, ...]] = []
        self.forgotten: list[str] = []
        self.is_broken = False

    def of(self, number: int) -> Any:
        """The same, as the caller of that number sees it."""

        @contextlib.asynccontextmanager
        async def session(*where: Any, user_identity: str, gateway_id: str) -> AsyncIterator[Any]:
            self.calls[number] += 1
            if self.is_broken:
                raise ConnectionRefusedError
            self.asked.append((*where, user_identity, gateway_id))
            yield SimpleNamespace(session=SimpleNamespace(call_tool=self.call_tool))

        async def acquire(*_where: Any, user_identity: str, gateway_id: str) -> None:
            assert gateway_id == "g"
            self.forgotten.append(user_identity)

        return SimpleNamespace(session=session, acquire=acquire)

    async def call_tool(self, tool: str, arguments: dict[str, Any]) -> None:
        self.asked.append((tool, *arguments))
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def calling(pool: Pool, *callers: tuple[str, int]) -> AsyncIterator[None]:
    """Callers, by user and number, at work."""
    server: Any = Server()
    stop = asyncio.Event()
    wave = demo._Wave()
    tasks = [
        asyncio.create_task(demo._caller(pool.of(number), server, user, number, wave, stop))
        for user, number in callers
    ]
    yield
    stop.set()
    await asyncio.gather(*tasks)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)


async def test_at_the_height_of_a_wave_more_call_than_there_are_sessions(clock: FakeClock) -> None:
    pool = Pool()
    async with calling(pool, *(("alice", number) for number in range(demo._CALLERS_PER_KEY))):
        seen = []
        for _ in range(4):
            before = Counter(pool.calls)
            await turns(20)
            seen.append(len(pool.calls - before))
            clock.advance(PERIOD / 4)
    calm, rising, busy, falling = seen
    assert 0 < calm < demo._SESSIONS_PER_KEY < busy == demo._CALLERS_PER_KEY
    assert calm < rising == falling < busy


async def test_a_call_asks_the_server_as_its_user_and_uses_a_tool(clock: FakeClock) -> None:
    pool = Pool()
    async with calling(pool, ("bob", 0)):
        await until(lambda: len(pool.asked) > 1)
    where = (Server.url, {"Authorization": "Bearer token-of-bob"}, Server.transport, "bob", "g")
    assert pool.asked[:2] == [where, ("look_up", "word", "seconds")]


async def test_a_caller_goes_on_after_a_failure(clock: FakeClock) -> None:
    pool = Pool()
    pool.is_broken = True
    async with calling(pool, ("bob", 0)):
        await until(lambda: pool.calls[0] > 2)
        assert pool.asked == []
        pool.is_broken = False
        await until(lambda: len(pool.asked) > 0)


async def test_one_caller_forgets_to_release_now_and_then(clock: FakeClock) -> None:
    pool = Pool()
    async with calling(pool, ("alice", 0), ("alice", 1), ("bob", 0)):
        await until(lambda: len(pool.forgotten) == 3)
    assert pool.forgotten == ["alice"] * 3
    assert pool.calls[0] > 1000, "two callers of that number, and one of 200 calls of one of them"
