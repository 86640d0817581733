"""Session affinity without a Redis: one event loop after another in a process, and what is logged."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest

from mcpgateway_pool import MCPSessionPool
from mcpgateway_pool.affinity import AffinitySettings, SessionAffinity, execution, listener
from support.fakes import FakeClock


def new_affinity(client: Any, host: object | None = None) -> SessionAffinity:
    async def execute(_request: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError("nothing is forwarded here")

    return SessionAffinity(
        redis=AsyncMock(return_value=client),
        worker_id=lambda: "host:1",
        settings=lambda: AffinitySettings(enabled=True),
        execute_rpc=execute,
        execute_http=execute,
        logger=lambda: logging.getLogger(__name__),
        host=host,
    )


def abandon(loop: asyncio.AbstractEventLoop) -> None:
    """Close a loop without ending its tasks, and without what asyncio says of that when they go."""
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()


def test_a_heartbeat_whose_loop_was_closed_is_started_again_in_the_next_and_ends_there() -> None:
    client = AsyncMock()
    affinity = new_affinity(client)

    async def beat() -> None:
        before = client.set.await_count
        affinity.start_heartbeat()
        while client.set.await_count == before:
            await asyncio.sleep(0)

    first = asyncio.new_event_loop()
    first.run_until_complete(asyncio.wait_for(beat(), 10))
    abandon(first)

    async def again() -> None:
        await beat()
        await affinity.stop()

    asyncio.run(asyncio.wait_for(again(), 10))
    client.delete.assert_awaited_once_with("mcpgw:worker_heartbeat:host:1")


def test_stopping_does_not_wait_for_a_heartbeat_whose_loop_was_closed() -> None:
    affinity = new_affinity(AsyncMock())

    async def start() -> None:
        affinity.start_heartbeat()

    first = asyncio.new_event_loop()
    first.run_until_complete(start())
    abandon(first)
    asyncio.run(asyncio.wait_for(affinity.stop(), 10))


def test_a_pool_is_closed_in_the_next_loop_though_its_listener_was_of_the_last() -> None:
    pool = MCPSessionPool()

    async def listen() -> None:
        pool._rpc_listener_task = asyncio.create_task(asyncio.Event().wait())  # type: ignore[arg-type]
        await asyncio.sleep(0)

    first = asyncio.new_event_loop()
    first.run_until_complete(listen())
    abandon(first)
    asyncio.run(asyncio.wait_for(pool.close_all(), 10))
    assert pool._rpc_listener_task is None


async def test_a_mapping_of_another_user_is_warned_of_once_a_minute_and_counted_each_time(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    monkeypatch.setattr("mcpgateway_pool.affinity.mapping.time", SimpleNamespace(monotonic=clock))
    affinity = new_affinity(None)
    where = ("session-1", "http://server.test/mcp", "gw-1", "sse")
    await affinity.register_session_mapping(*where, "one@users.test")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert not await affinity.look_up_session_mapping(*where, "other@users.test")
            clock.advance(30.0)
    assert [record.message for record in caplog.records] == [
        "Session mapping (local) of another user ignored: session-..."
    ] * 2
    assert affinity.get_metrics()["misses"] == 3


def test_metrics_of_a_pool_without_affinity_have_the_same_names_and_are_zero() -> None:
    shown = MCPSessionPool().get_metrics()["session_affinity"]
    assert shown == new_affinity(None).get_metrics()
    assert set(shown.values()) == {0}
    assert len(shown) == 7


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was slept. Nothing takes longer than a turn of the loop."""
    slept: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        if seconds:
            slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", note)
    return slept


@pytest.mark.parametrize(("part", "first", "last"), [(0.5, 0.05, 2.5), (1.0, 0.1, 5.0)])
async def test_a_listener_that_lost_redis_tries_again_ever_later_and_warns_once_each_time(
    pauses: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    part: float, first: float, last: float,
) -> None:  # fmt: skip
    monkeypatch.setattr("random.uniform", lambda low, high: {0.5: low, 1.0: high}[part])
    host = SimpleNamespace(_closed=False)
    client = AsyncMock()
    client.pubsub = lambda: pubsub
    pubsub = AsyncMock()
    failures = iter([*[ConnectionError("lost")] * 9, None, *[ConnectionError("lost")] * 2])

    async def subscribe(*_: str) -> None:
        error = next(failures, StopAsyncIteration)
        if error is StopAsyncIteration:
            host._closed = True
        if error is not None:
            raise ConnectionError("lost")

    pubsub.subscribe = subscribe
    pubsub.get_message.side_effect = ConnectionError("lost while it listened")
    affinity = new_affinity(client, host)
    with caplog.at_level(logging.DEBUG):
        await asyncio.wait_for(affinity.start_rpc_listener(), 20)
    doubled = [first * 2**number for number in range(6)]
    assert pauses[:9] == pytest.approx([*doubled, last, last, last])
    assert pauses[9:12] == pytest.approx(doubled[:3]), "once it has listened, it begins anew"
    failed = [record.levelname for record in caplog.records if "listener failed" in record.message]
    assert failed == ["WARNING", *["DEBUG"] * 8, "WARNING", *["DEBUG"] * 3]


async def test_as_many_requests_are_remembered_as_is_said_and_the_oldest_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listener, "_MAX_SEEN", 3)
    listening = new_affinity(None)._listener
    requests = [("channel", f"answer-{number}") for number in range(4)]
    assert not any(map(listening._was_seen, requests[:3]))
    assert all(map(listening._was_seen, requests[:3]))
    assert not listening._was_seen(requests[3])
    assert all(map(listening._was_seen, requests[1:]))
    assert not listening._was_seen(requests[0])
    assert not listening._was_seen(("another channel", requests[3][1]))


@pytest.mark.parametrize("attempts", [1, 2, 5])
async def test_an_answer_that_nobody_gets_is_published_as_often_as_is_said_with_pauses_between(
    pauses: list[float], attempts: int
) -> None:
    client = AsyncMock()
    client.publish.side_effect = [0, ConnectionError("lost"), *[0] * 9]
    answering = new_affinity(client)._execution
    await answering.answer(client, {"response_channel": "c"}, {"result": 1}, attempts=attempts)
    assert client.publish.await_count == attempts
    assert pauses == pytest.approx([execution._FIRST_PAUSE_SECONDS * 2**n for n in range(attempts - 1)])


async def test_an_answer_that_somebody_gets_is_published_no_more(pauses: list[float]) -> None:
    client = AsyncMock()
    client.publish.side_effect = [0, 1, 1]
    await new_affinity(client)._execution.answer(client, {"response_channel": "c"}, {"result": 1})
    assert client.publish.await_count == 2
    assert len(pauses) == 1
