"""Session affinity while a real Redis is gone, does not answer, or comes back empty."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("redis")

from mcpgateway_pool.affinity import context as context_module
from mcpgateway_pool.affinity import heartbeat
from mcpgateway_pool.affinity import listener as listener_module
from servers.redis_process import EXECUTABLE, MISSING, RedisProcess
from servers.waiting import until
from support.affinity_workers import LOGGER, RPC, Worker

pytestmark = [
    pytest.mark.skipif(EXECUTABLE is None, reason=MISSING),
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]

URL = "http://tools.example/mcp"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisProcess]:
    with RedisProcess(tmp_path / "r") as process:
        yield process


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Come back sooner than in production, so that the tests need not wait so long."""
    monkeypatch.setattr(listener_module, "_LAST_RETRY_SECONDS", 0.2)
    monkeypatch.setattr(heartbeat, "RETRY_SECONDS", 0.1)


async def everything(worker: Worker) -> list[Any]:
    """What each method answers."""
    affinity = worker.affinity
    await affinity.register_session_mapping("s-1", URL, "gw-1", "sse", "ann@example.com")
    await affinity.register_pool_session_owner("s-1")
    await affinity.cleanup_pool_session_owner("s-1")
    return [
        await affinity.get_pool_session_owner("s-1"),
        await affinity.get_streamable_http_session_owner("s-1"),
        await affinity.may_create_session("s-1"),
        await worker.forward("s-1"),
        await affinity.forward_streamable_http_to_owner("host-b:1", "s-1", "POST", "/mcp", {}, b""),
        await affinity.look_up_session_mapping("s-1", URL, "gw-1", "sse", "ann@example.com"),
    ]


# Over HTTP "here" is this worker's own answer: the gateway cannot serve what it has read already.
HERE = {"status": 202, "headers": {"x-by": "host-a:1"}, "body": b""}
LOCAL = [None, None, None, None, HERE, True]


async def test_without_redis_everything_is_local_and_the_listener_does_not_start(
    server: RedisProcess,
) -> None:
    async with Worker(server.url, "host-a:1") as one:
        one.has_redis = False
        assert await everything(one) == LOCAL
        async with asyncio.timeout(30):
            await one.affinity.start_rpc_listener()


async def test_with_redis_gone_everything_is_local(server: RedisProcess) -> None:
    async with Worker(server.url, "host-a:1") as one:
        assert await one.client.ping()
        server.kill()
        async with asyncio.timeout(30):
            assert await everything(one) == LOCAL


async def test_a_redis_that_does_not_answer_is_waited_for_once(
    server: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context_module, "PAUSE_SECONDS", 60.0)
    async with Worker(server.url, "host-a:1", redis_timeout_seconds=1.0) as one:
        assert await one.client.ping()
        server.freeze()
        try:
            begin = time.monotonic()
            async with asyncio.timeout(30):
                assert await everything(one) == LOCAL
            # Ten methods, of which one waited: all of them would have taken 10 s at least.
            assert time.monotonic() - begin < 9
        finally:
            server.thaw()


async def test_a_loop_that_stood_still_does_not_take_redis_for_dead(server: RedisProcess) -> None:
    """Its time is over, and the answer lies unread."""
    async with Worker(server.url, "host-a:1", redis_timeout_seconds=0.3) as one:
        await one.affinity.register_pool_session_owner("s-1")
        asking = asyncio.create_task(one.affinity.get_pool_session_owner("s-1"))
        await asyncio.sleep(0)
        time.sleep(1.0)  # noqa: ASYNC251 - the loop stands still
        assert await asking == "host-a:1"
        assert await one.affinity.get_pool_session_owner("s-1") == "host-a:1"


async def test_who_gets_no_turn_in_time_waits_no_longer_and_blames_nobody(server: RedisProcess) -> None:
    async with Worker(server.url, "host-a:1", redis_timeout_seconds=60.0) as one:
        context = one.affinity._context
        end = asyncio.Event()

        async def hold() -> None:
            async with context.bounded():
                await end.wait()

        holding = [asyncio.create_task(hold()) for _ in range(context_module.MAX_CONNECTIONS)]
        await asyncio.sleep(0)
        one.settings = type(one.settings)(enabled=True, redis_timeout_seconds=0.05)
        async with asyncio.timeout(30):
            with pytest.raises(ConnectionError, match="in time"):
                async with context.bounded():
                    pass
        end.set()
        await asyncio.gather(*holding)
        assert await one.affinity.get_pool_session_owner("s-1") is None
        async with context.redis() as client:
            assert client is not None, "it was taken for dead"


async def test_after_the_pause_a_redis_that_answers_again_is_used_again(
    server: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context_module, "PAUSE_SECONDS", 0.1)
    async with Worker(server.url, "host-a:1", redis_timeout_seconds=0.5) as one:
        await one.affinity.register_pool_session_owner("s-1")
        server.freeze()
        assert await one.affinity.get_pool_session_owner("s-1") is None
        server.thaw()

        async def owned() -> bool:
            return await one.affinity.get_pool_session_owner("s-1") == "host-a:1"

        await until(owned)


async def test_the_heartbeat_finds_out_for_the_requests_that_redis_answers_again(
    server: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context_module, "PAUSE_SECONDS", 60.0)
    monkeypatch.setattr(heartbeat, "INTERVAL_SECONDS", 0.1)
    async with Worker(server.url, "host-a:1", redis_timeout_seconds=0.5) as one:
        await one.affinity.register_pool_session_owner("s-1")
        server.freeze()
        assert await one.affinity.get_pool_session_owner("s-1") is None
        one.affinity.start_heartbeat()
        server.thaw()

        async def owned() -> bool:
            return await one.affinity.get_pool_session_owner("s-1") == "host-a:1"

        await until(owned)


async def test_a_forward_that_loses_redis_when_the_owner_has_it_is_an_error(server: RedisProcess) -> None:
    """Executed here, it would be executed twice."""
    async with Worker(server.url, "host-a:1") as one, Worker(server.url, "host-b:1") as owner:
        await owner.affinity.register_pool_session_owner("s-1")
        await owner.listen()
        began = asyncio.Event()

        async def never(request: dict[str, Any]) -> dict[str, Any]:
            began.set()
            await asyncio.Event().wait()
            raise AssertionError

        owner.on_rpc = never
        forwarding = asyncio.create_task(one.forward("s-1"))
        await began.wait()
        server.kill()
        async with asyncio.timeout(30):
            answer = await forwarding
        assert answer is not None
        assert answer["error"]["code"] == -32603
        assert "was lost" in answer["error"]["message"]
        assert one.affinity.counts.failures == 1
        assert one.executed == []


async def test_listener_and_heartbeat_come_back_with_an_empty_redis(
    server: RedisProcess, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        Worker(server.url, "host-a:1", redis_timeout_seconds=1.0) as one,
        Worker(server.url, "host-b:1", redis_timeout_seconds=1.0) as owner,
    ):
        await owner.listen()
        with caplog.at_level(logging.WARNING, LOGGER.name):
            server.kill()
            await until(lambda: is_logged(caplog, "listener failed"))
            assert await one.forward("s-1") is None
            server.start()
            await owner.wait_until_listening()
        # However many attempts it took.
        assert len([message for message in caplog.messages if "listener failed" in message]) == 1
        # At once, not with the next one in 10 s: the others would take it for dead.
        await until(lambda: owner.client.exists("mcpgw:worker_heartbeat:host-b:1"), seconds=8.0)
        await owner.affinity.register_pool_session_owner("s-1")
        assert await one.forward("s-1") == {"result": {"by": "host-b:1", "id": 7}}


async def test_a_listener_that_begins_while_redis_is_gone_listens_when_it_is_there(
    server: RedisProcess,
) -> None:
    async with Worker(server.url, "host-a:1") as one:
        server.kill()
        one.listener = asyncio.create_task(one.affinity.start_rpc_listener())
        await asyncio.sleep(0.1)  # an attempt or two; with none the test holds too
        server.start()
        await one.wait_until_listening()


async def test_a_listener_that_hears_nothing_asks_whether_it_is_still_connected(
    server: RedisProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener_module, "_READ_SECONDS", 0.05)
    monkeypatch.setattr(listener_module, "_SILENCE_SECONDS", 0.3)
    async with (
        Worker(server.url, "host-a:1", redis_timeout_seconds=0.5) as one,
        Worker(server.url, "host-b:1") as other,
    ):
        heard = other.client.pubsub()
        try:
            await one.listen()
            before = await subscribers(other)
            await heard.subscribe("mcpgw:pool_rpc:host-a:1")
            for _ in range(3):
                assert (await next_message(heard))["data"] == "{}"
            assert before < await subscribers(other)
            server.freeze()
            with caplog.at_level(logging.WARNING, LOGGER.name):  # it asks in vain
                await until(lambda: is_logged(caplog, "listener failed"))
            server.thaw()

            async def has_a_new_connection() -> bool:
                now = await subscribers(other)
                return len(now) == 2 and not before <= now

            await until(has_a_new_connection)
        finally:
            await heard.aclose()


def test_a_connection_on_which_ones_own_message_does_not_arrive_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(listener_module.time, "monotonic", lambda: now)
    silence = listener_module._Silence()

    def read_until(end: float) -> bool:
        """Reads of 1 s that bring nothing; whether the last one means that it is to be broken."""
        nonlocal now
        while end - now > 1.5:
            now += 1
            assert not silence.is_to_be_broken(is_heard=False)
        now = end
        return silence.is_to_be_broken(is_heard=False)

    assert not read_until(14.9)
    assert read_until(15.0)
    assert not read_until(29.9)
    assert not silence.is_to_be_broken(is_heard=True)
    assert read_until(44.9)
    with pytest.raises(ConnectionError, match="silent"):
        read_until(59.9)


def test_a_process_that_stood_still_does_not_take_its_connection_for_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What came meanwhile, its own message too, lies unread."""
    now = 0.0
    monkeypatch.setattr(listener_module.time, "monotonic", lambda: now)
    silence = listener_module._Silence()
    asked = []
    while now < 15:
        now += 1.0
        asked.append(silence.is_to_be_broken(is_heard=False))
    assert asked == [False] * 14 + [True]
    now = 1000.0
    assert not silence.is_to_be_broken(is_heard=False)
    assert not silence.is_to_be_broken(is_heard=True)


def test_as_many_reads_bring_nothing_after_a_message_as_at_the_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(listener_module.time, "monotonic", lambda: now)

    def silent_reads(silence: listener_module._Silence) -> int:
        """How many it takes after a process stood still."""
        nonlocal now
        now += 1000.0
        count = 1
        while not silence.is_to_be_broken(is_heard=False):
            count += 1
        return count

    silence = listener_module._Silence()
    at_first = silent_reads(silence)
    assert not silence.is_to_be_broken(is_heard=True)
    assert silent_reads(silence) == at_first > 1


async def test_an_answer_that_reaches_nobody_is_published_again(server: RedisProcess) -> None:
    """The connection of the one who waits may be lost, and come back, between request and answer."""
    async with Worker(server.url, "host-a:1") as one, Worker(server.url, "host-b:1") as owner:
        request = {**RPC, "response_channel": "mcpgw:pool_rpc_response:u-1", "type": "rpc_forward"}
        answering = asyncio.create_task(
            owner.affinity._execution.answer(owner.client, request, {"result": 1}, attempts=1000)
        )
        await asyncio.sleep(0.1)  # published once, to nobody; with none the test holds too
        subscription = one.client.pubsub()
        try:
            await subscription.subscribe("mcpgw:pool_rpc_response:u-1")
            message = await next_message(subscription)
            assert json.loads(message["data"]) == {"result": 1}
            await answering
        finally:
            await subscription.aclose()


async def test_a_cancellation_that_the_client_swallows_ends_the_task_all_the_same(
    server: RedisProcess,
) -> None:
    asked = asyncio.Event()

    class Swallowing:
        async def get(self, key: str) -> None:
            asked.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    async with Worker(server.url, "host-a:1") as one:
        client, one.client = one.client, Swallowing()
        try:
            reading = asyncio.create_task(one.affinity.get_pool_session_owner("s-1"))
            await asked.wait()
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            # A time-out is a cancellation, too.
            with pytest.raises(TimeoutError):
                await one.forward("s-1", timeout=0.05)
        finally:
            one.client = client


async def is_logged(caplog: pytest.LogCaptureFixture, text: str) -> bool:
    return any(text in message for message in caplog.messages)


async def subscribers(worker: Worker) -> set[str]:
    """The connections that subscribe to something, by their ids."""
    return {client["id"] for client in await worker.client.client_list() if client["sub"] != "0"}


async def next_message(subscription: Any) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            message: dict[str, Any] | None = await subscription.get_message(timeout=1.0)
            if message and message["type"] == "message":
                return message
