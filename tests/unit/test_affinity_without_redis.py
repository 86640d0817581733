"""Session affinity without a Redis: one event loop after another in a process, and what is logged."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest

from mcpgateway_pool import MCPSessionPool
from mcpgateway_pool.affinity import AffinitySettings, SessionAffinity
from support.fakes import FakeClock


def new_affinity(client: Any) -> SessionAffinity:
    async def execute(_request: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError("nothing is forwarded here")

    return SessionAffinity(
        redis=AsyncMock(return_value=client),
        worker_id=lambda: "host:1",
        settings=lambda: AffinitySettings(enabled=True),
        execute_rpc=execute,
        execute_http=execute,
        logger=lambda: logging.getLogger(__name__),
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
