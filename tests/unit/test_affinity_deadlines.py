"""Session affinity with a Redis client that takes a command and never answers: what waits for it is bounded.

These are the bounds of farewells, which nobody needs while Redis answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mcpgateway_pool.affinity import AffinitySettings, SessionAffinity, listener, replies

# What ends a test that would hang for ever.
FOR_EVER = 20.0


class SilentRedis:
    """A client, and its subscription: the named commands are never answered."""

    def __init__(self, *silent: str) -> None:
        self._silent = silent
        self.begun: list[str] = []
        self.read_bounds: list[float] = []
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def pubsub(self) -> SilentRedis:
        return self

    async def _command(self, name: str) -> None:
        self.begun.append(name)
        if name in self._silent:
            await asyncio.Event().wait()

    async def subscribe(self, *channels: str) -> None:
        await self._command("subscribe")
        for channel in channels:
            self._messages.put_nowait({"type": "subscribe", "channel": channel})

    async def unsubscribe(self, *_: str) -> None:
        await self._command("unsubscribe")

    async def aclose(self) -> None:
        await self._command("aclose")

    async def publish(self, *_: object) -> int:
        await self._command("publish")
        return 1

    async def get_message(self, *, timeout: float, **_: object) -> dict[str, Any]:
        self.read_bounds.append(timeout)
        return await self._messages.get()


def affinity_with(client: SilentRedis) -> SessionAffinity:
    async def execute(request: dict[str, Any]) -> dict[str, Any]:
        return {"result": request}

    async def redis() -> SilentRedis:
        return client

    return SessionAffinity(
        redis=redis,
        worker_id=lambda: "host-a:1",
        settings=lambda: AffinitySettings(enabled=True, redis_timeout_seconds=10 * FOR_EVER),
        execute_rpc=execute,
        execute_http=execute,
        logger=lambda: logging.getLogger("test"),
    )


async def ends(waiting: Awaitable[None]) -> None:
    async with asyncio.timeout(FOR_EVER):
        await waiting


async def test_channel_that_is_never_unsubscribed_from_is_left_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replies, "_CLOSE_SECONDS", 0.01)
    client = SilentRedis("unsubscribe")
    expected = affinity_with(client)._forwarding._replies

    async def leave_one_of_two() -> None:
        async with expected.expect(client, "one"):
            async with expected.expect(client, "two"):
                pass
            assert client.begun == ["subscribe", "subscribe", "unsubscribe"]

    await ends(leave_one_of_two())
    readers = set(expected._readers)
    await ends(wait_for(lambda: all(reader.done() for reader in readers)))


@pytest.mark.parametrize("silent", [["unsubscribe"], ["aclose"], ["unsubscribe", "aclose"]])
async def test_connection_is_given_back_whatever_of_it_is_never_answered(
    monkeypatch: pytest.MonkeyPatch, silent: list[str]
) -> None:
    monkeypatch.setattr(replies, "_CLOSE_SECONDS", 0.01)
    client = SilentRedis(*silent)
    await ends(replies.close_pubsub(client))
    assert client.begun == ["unsubscribe", "aclose"]


@pytest.mark.parametrize("kind", ["rpc_forward", "http_forward"])
async def test_refusal_that_is_never_published_ends_in_time(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(listener, "_GOODBYE_SECONDS", 0.01)
    client = SilentRedis("publish")
    request = {"type": kind, "response_channel": "c", "req_id": 1}
    await ends(affinity_with(client)._listener._refuse(client, request, "shutting down"))
    assert client.begun == ["publish"]


@pytest.mark.parametrize("who", ["listens", "waits for an answer"])
async def test_who_reads_looks_up_each_second_whether_it_is_to_end(who: str) -> None:
    client = SilentRedis()
    affinity = affinity_with(client)

    async def wait_for_an_answer() -> None:
        async with affinity._forwarding._replies.expect(client, "one") as answer:
            await answer

    reading = affinity.start_rpc_listener() if who == "listens" else wait_for_an_answer()
    task = asyncio.create_task(reading)
    await ends(wait_for(lambda: len(client.read_bounds) > 0))
    task.cancel()
    await ends(asyncio.wait({task}))  # type: ignore[arg-type]
    assert all(0 < bound <= 1 for bound in client.read_bounds)


async def wait_for(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)
