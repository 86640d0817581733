"""Session affinity with a real Redis: a request that another worker executes."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("redis")

import redis

from mcpgateway_pool.affinity import listener as listener_module
from servers.redis_process import EXECUTABLE, MISSING, RedisProcess
from servers.waiting import until
from support.affinity_workers import RPC, Worker, pid_beyond_all, reclaiming_after

pytestmark = pytest.mark.skipif(EXECUTABLE is None, reason=MISSING)

MINE = {"result": {"by": "host-b:1", "id": 7}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with RedisProcess(tmp_path_factory.mktemp("redis")) as process:
        yield process


@pytest.fixture(params=[True, False], ids=["text", "bytes"])
async def two(request: pytest.FixtureRequest, server: RedisProcess) -> AsyncIterator[tuple[Worker, Worker]]:
    """A worker, and the owner of the session ``s-1``, which listens."""
    async with (
        Worker(server.url, "host-a:1", decode_responses=request.param) as one,
        Worker(server.url, "host-b:1", decode_responses=request.param) as owner,
    ):
        await one.client.flushall()
        await owner.affinity.register_pool_session_owner("s-1")
        await owner.listen()
        yield one, owner


def forwarded(worker: Worker) -> tuple[int, int, int]:
    counts = worker.affinity.counts
    return counts.requests, counts.failures, counts.timeouts


async def http(worker: Worker, owner: str = "host-b:1", body: bytes = b"\x00\xff") -> dict[str, Any] | None:
    return await worker.affinity.forward_streamable_http_to_owner(
        owner, "s-1", "POST", "/mcp", {"accept": "application/json"}, body, "a=1"
    )


# --- RPC


async def test_the_owner_executes_a_request_and_its_answer_comes_back(two: tuple[Worker, Worker]) -> None:
    one, owner = two
    assert await one.forward("s-1") == MINE
    assert one.executed == []
    (request,) = owner.executed
    assert request.pop("response_channel").startswith("mcpgw:pool_rpc_response:")
    assert request == {**RPC, "type": "rpc_forward", "mcp_session_id": "s-1"}
    assert forwarded(one) == (1, 0, 0)


async def test_an_operator_can_follow_a_request_from_worker_to_worker(
    two: tuple[Worker, Worker], caplog: pytest.LogCaptureFixture
) -> None:
    one, _ = two

    async def told(request: Awaitable[object], level: int) -> dict[str, list[str]]:
        """The lines, in order for each worker."""
        caplog.clear()
        with caplog.at_level(level):
            assert await request is not None
        lines = [record.message for record in caplog.records if "AFFINITY] Worker host-" in record.message]
        return {
            name: [line for line in lines if f"Worker {name} |" in line] for name in ("host-a:1", "host-b:1")
        }

    begin, end = "[AFFINITY] Worker {} | Session s-1... | ", "Method: tools/call | "
    assert await told(one.forward("s-1"), logging.INFO) == {
        "host-a:1": [
            begin.format("host-a:1") + end + "Owner: host-b:1 → forwarding",
            begin.format("host-a:1") + end + "Published to worker host-b:1",
        ],
        "host-b:1": [
            begin.format("host-b:1") + end + "Received forwarded request, executing locally",
            begin.format("host-b:1") + end + "Forwarded execution completed successfully",
        ],
    }
    begin = begin.replace("AFF", "HTTP_AFF")
    assert await told(http(one), logging.DEBUG) == {
        "host-a:1": [
            begin.format("host-a:1") + "POST /mcp | Owner: host-b:1 → forwarding",
            begin.format("host-a:1") + "POST /mcp | Published to worker host-b:1",
        ],
        "host-b:1": [
            begin.format("host-b:1") + "Received forwarded HTTP request: POST",
            begin.format("host-b:1") + "Executed locally: 202",
        ],
    }


async def test_the_owner_and_a_session_without_one_are_served_locally(two: tuple[Worker, Worker]) -> None:
    one, owner = two
    assert await owner.forward("s-1") is None
    assert await one.forward("s-2") is None
    assert forwarded(one) == forwarded(owner) == (0, 0, 0)
    assert owner.executed == []


async def test_an_error_of_the_owner_comes_back(two: tuple[Worker, Worker]) -> None:
    one, owner = two
    error = {"error": {"code": -32601, "message": "Method not found"}}
    owner.on_rpc = returning(error)
    assert await one.forward("s-1") == error

    async def fail(request: dict[str, Any]) -> dict[str, Any]:
        raise RuntimeError("no luck with http://ann:hunter2@h/x?t=hunter2")

    owner.on_rpc = fail
    answer = await one.forward("s-1")
    assert answer == {"error": {"code": -32603, "message": "RuntimeError: no luck with http://h/x"}}


async def test_what_is_no_json_is_an_error_and_not_a_wait(two: tuple[Worker, Worker]) -> None:
    one, owner = two
    owner.on_rpc = returning({"result": object()})
    answer = await one.forward("s-1")
    assert answer is not None
    assert answer["error"]["code"] == -32603


async def test_a_request_that_is_no_json_is_served_locally(two: tuple[Worker, Worker]) -> None:
    one, _ = two
    assert await one.affinity.forward_request_to_owner("s-1", {"method": "x", "params": object()}) is None
    assert forwarded(one) == (0, 1, 0)


async def test_an_owner_that_is_too_slow_is_a_timeout(two: tuple[Worker, Worker]) -> None:
    one, owner = two
    owner.on_rpc = never
    with pytest.raises(TimeoutError):
        await one.forward("s-1", timeout=0.3)
    assert forwarded(one) == (1, 0, 1)


async def test_the_owner_gives_up_too_after_the_timeout(two: tuple[Worker, Worker]) -> None:
    one, owner = two
    owner.on_rpc = never
    owner.settings = type(owner.settings)(enabled=True, forward_timeout_seconds=0.05)
    answer = await one.forward("s-1")
    assert answer == {"error": {"code": -32603, "message": "Internal request timeout"}}


async def test_serving_refreshes_the_ownership(two: tuple[Worker, Worker]) -> None:
    one, owner = two
    await one.client.expire("mcpgw:pool_owner:s-1", 50)
    assert await one.forward("s-1") == MINE
    await until(lambda: longer_than(owner, 200))
    await one.client.expire("mcpgw:pool_owner:s-1", 50)
    assert await owner.forward("s-1") is None
    assert await longer_than(owner, 200)
    await one.client.expire("mcpgw:pool_owner:s-1", 50)
    await owner.affinity.get_streamable_http_session_owner("s-1")
    assert await longer_than(owner, 200)


# --- HTTP


async def test_the_owner_executes_an_http_request_and_its_answer_comes_back(
    two: tuple[Worker, Worker],
) -> None:
    one, owner = two
    assert await http(one) == {"status": 202, "headers": {"x-by": "host-b:1"}, "body": b"\x00\xff"}
    (request,) = owner.executed
    assert request.pop("response_channel").startswith("mcpgw:pool_http_response:")
    assert abs(request.pop("timestamp") - time.time()) < 60
    assert request == {
        "type": "http_forward",
        "mcp_session_id": "s-1",
        "method": "POST",
        "path": "/mcp",
        "query_string": "a=1",
        "headers": {"accept": "application/json"},
        "body": "00ff",
        "original_worker": "host-a:1",
    }
    assert forwarded(one) == (1, 0, 0)


async def test_an_empty_body_stays_empty(two: tuple[Worker, Worker]) -> None:
    one, owner = two
    answer = await http(one, body=b"")
    assert answer is not None
    assert answer["body"] == b""
    assert owner.executed[0]["body"] == ""


async def test_an_http_request_that_fails_is_answered_500_without_its_reason(
    two: tuple[Worker, Worker],
) -> None:
    one, owner = two

    async def fail(request: dict[str, Any]) -> dict[str, Any]:
        raise RuntimeError("secret")

    owner.on_http = fail
    answer = await http(one)
    assert answer is not None
    assert answer["status"] == 500
    assert json.loads(answer["body"]) == {"error": "Internal forwarding error"}


async def test_an_http_request_that_is_not_answered_in_time_is_answered_504(
    two: tuple[Worker, Worker],
) -> None:
    one, owner = two
    owner.on_http = never
    one.settings = type(one.settings)(enabled=True, forward_timeout_seconds=0.3)
    answer = await http(one)
    assert answer is not None
    assert answer["status"] == 504
    assert "did not answer in time" in json.loads(answer["body"])["error"]
    assert one.executed == []
    assert forwarded(one) == (0, 0, 1)


@pytest.mark.parametrize(
    "answer", ["no JSON", "[]", "7", '{"status": 200}', '{"status": 200, "headers": {}, "body": "no hex"}']
)
async def test_an_answer_that_cannot_be_read_is_an_error_and_nothing_is_executed_twice(
    two: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    one, owner = two

    async def garble(client: Any, request: dict[str, Any], *_: object, **__: object) -> None:
        assert await client.publish(request["response_channel"], answer) == 1

    monkeypatch.setattr(owner.affinity._execution, "answer", garble)
    found = await http(one)
    assert found is not None
    assert found["status"] == 504
    if not answer.startswith("{"):
        found = await one.forward("s-1")
        assert found is not None
        assert "was lost" in found["error"]["message"]
    assert one.executed == []


@pytest.mark.parametrize("is_rpc", [True, False], ids=["rpc", "http"])
async def test_a_request_that_may_have_been_published_is_not_executed_here(
    two: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch, is_rpc: bool
) -> None:
    one, owner = two
    publish = one.client.publish

    async def lose(channel: str, message: bytes) -> int:
        await publish(channel, message)
        raise redis.exceptions.ConnectionError("the reply was lost")

    monkeypatch.setattr(one.client, "publish", lose)
    answer = await (one.forward("s-1") if is_rpc else http(one))
    assert answer is not None
    assert answer["error"]["code"] == -32603 if is_rpc else answer["status"] == 504

    async def is_executed() -> bool:
        return len(owner.executed) == 1

    await until(is_executed)
    assert one.executed == []


async def test_a_request_that_a_client_publishes_twice_is_executed_once(
    two: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway's client tries again what took too long, whether it had arrived or not."""
    one, owner = two
    publish = one.client.publish

    async def twice(channel: str, message: bytes) -> Any:
        await publish(channel, message)
        return await publish(channel, message)

    monkeypatch.setattr(one.client, "publish", twice)
    assert await one.forward("s-1") == MINE
    assert (await http(one) or {})["status"] == 202
    assert len(owner.executed) == 2


@pytest.mark.parametrize("error", [ValueError("no"), TimeoutError()], ids=["error", "timeout"])
async def test_an_http_request_that_fails_here_is_not_executed_once_more(
    two: tuple[Worker, Worker], error: Exception
) -> None:
    one, owner = two
    await owner.stop_listening()

    async def fail(request: dict[str, Any]) -> dict[str, Any]:
        raise error

    one.on_http = fail
    answer = await http(one)
    assert answer is not None
    assert answer["status"] == 500
    assert len(one.executed) == 1


async def test_an_http_request_to_a_dead_owner_is_reclaimed_and_executed_here(
    two: tuple[Worker, Worker],
) -> None:
    """The gateway cannot: it has read the body already, and would wait for another one."""
    one, owner = two
    await owner.stop_listening()
    assert await http(one) == {"status": 202, "headers": {"x-by": "host-a:1"}, "body": b"\x00\xff"}
    assert await one.owner("s-1") == "host-a:1"
    assert len(one.executed) == 1
    assert forwarded(one) == (0, 0, 0)


# --- Dead owners


async def test_the_next_request_reclaims_from_an_owner_that_ended(two: tuple[Worker, Worker]) -> None:
    one, owner = two
    await owner.stop_listening()
    assert await one.forward("s-1") is None
    assert await one.owner("s-1") == "host-a:1"
    assert forwarded(one) == (0, 0, 0)


async def test_the_next_request_reclaims_from_a_killed_owner_of_this_machine(
    two: tuple[Worker, Worker],
) -> None:
    one, _ = two
    killed = f"{socket.gethostname()}:{pid_beyond_all()}"
    await one.client.set("mcpgw:pool_owner:s-1", killed)
    await one.client.set(f"mcpgw:worker_heartbeat:{killed}", "alive")  # it outlives its worker
    assert await one.forward("s-1") is None
    assert await one.owner("s-1") == "host-a:1"


async def test_who_loses_the_race_to_reclaim_forwards_to_the_winner(
    two: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = two
    await one.client.set("mcpgw:pool_owner:s-1", "host-c:1")
    reclaiming_after(monkeypatch, one, "host-c:1", lambda: one.client.set("mcpgw:pool_owner:s-1", "host-b:1"))
    assert await one.forward("s-1") == MINE
    assert await http(one, owner="host-c:1") == {
        "status": 202,
        "headers": {"x-by": "host-b:1"},
        "body": b"\x00\xff",
    }
    assert one.executed == []
    assert await one.owner("s-1") == "host-b:1"


async def test_who_loses_the_race_to_reclaim_to_its_end_executes_itself(
    two: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker reclaimed the session, and has given it up: nobody owns it."""
    one, owner = two
    await one.client.set("mcpgw:pool_owner:s-1", "host-c:1")
    reclaiming_after(monkeypatch, one, "host-c:1", lambda: one.client.delete("mcpgw:pool_owner:s-1"))
    assert await one.forward("s-1") is None
    assert owner.executed == []
    assert await one.owner("s-1") is None


async def test_an_owner_that_lives_and_does_not_listen_yet_gets_the_request_when_it_does(
    two: tuple[Worker, Worker],
) -> None:
    one, owner = two
    await owner.stop_listening()
    await one.client.set("mcpgw:worker_heartbeat:host-b:1", "alive")
    forwarding = asyncio.create_task(one.forward("s-1"))
    await asyncio.sleep(0.2)  # a few attempts; with none the test holds too
    await owner.listen()
    assert await forwarding == MINE


async def test_the_ownership_of_one_that_lives_and_never_listens_is_not_touched(
    two: tuple[Worker, Worker],
) -> None:
    one, _ = two
    await one.client.set("mcpgw:pool_owner:s-1", f"{socket.gethostname()}:{os.getpid()}")
    await one.client.set(f"mcpgw:worker_heartbeat:{socket.gethostname()}:{os.getpid()}", "alive")
    with pytest.raises(TimeoutError):
        await one.forward("s-1", timeout=0.3)
    assert await one.owner("s-1") == f"{socket.gethostname()}:{os.getpid()}"


async def test_a_session_that_moved_meanwhile_is_forwarded_to_its_new_owner(
    two: tuple[Worker, Worker],
) -> None:
    one, owner = two
    await one.client.set("mcpgw:worker_heartbeat:host-c:1", "alive")
    await one.client.set("mcpgw:pool_owner:s-1", "host-c:1")
    forwarding = asyncio.create_task(one.forward("s-1"))
    await asyncio.sleep(0.2)  # as above
    await one.client.set("mcpgw:pool_owner:s-1", "host-b:1")
    assert await forwarding == MINE
    assert len(owner.executed) == 1


# --- Workers with the gateway's own module


async def test_an_owner_with_the_gateways_module_understands_and_is_understood(
    two: tuple[Worker, Worker],
) -> None:
    """It listens, has no heartbeat, and publishes once, with the client, on the channel that it was told."""
    one, _ = two
    await one.client.set("mcpgw:pool_owner:s-1", "stock:1")
    subscription = one.client.pubsub()
    try:
        await subscription.subscribe("mcpgw:pool_rpc:stock:1", "mcpgw:pool_http:stock:1")
        for _ in range(2):
            assert await subscription.get_message(timeout=10.0)
        forwarding = asyncio.create_task(one.forward("s-1"))
        request = json.loads((await next_message(subscription))["data"])
        assert await one.client.publish(request["response_channel"], b'{"result": {"x": 1}}') == 1
        assert await forwarding == {"result": {"x": 1}}
        sending = asyncio.create_task(http(one, "stock:1"))
        request = json.loads((await next_message(subscription))["data"])
        answer = {"status": 200, "headers": {"a": "b"}, "body": ""}
        assert await one.client.publish(request["response_channel"], json.dumps(answer)) == 1
        assert await sending == {"status": 200, "headers": {"a": "b"}, "body": b""}
    finally:
        await subscription.aclose()


async def test_a_requester_with_the_gateways_module_is_answered_once(two: tuple[Worker, Worker]) -> None:
    one, owner = two
    subscription = one.client.pubsub()
    try:
        await subscription.subscribe("mcpgw:pool_rpc_response:u-1")
        assert await subscription.get_message(timeout=10.0)
        message = {
            "type": "rpc_forward",
            **RPC,
            "response_channel": "mcpgw:pool_rpc_response:u-1",
            "mcp_session_id": "s-1",
        }
        assert await one.client.publish("mcpgw:pool_rpc:host-b:1", json.dumps(message)) == 1
        assert json.loads((await next_message(subscription))["data"]) == MINE
        assert await one.forward("s-1") == MINE  # after which a second answer would be there
        assert await subscription.get_message(ignore_subscribe_messages=True, timeout=0.1) is None
    finally:
        await subscription.aclose()
    assert len(owner.executed) == 2


@pytest.mark.parametrize(
    "message",
    ["{", "7", "[]", "null", '{"type": "rpc_forward"}', '{"type": "?", "response_channel": "c"}', ""],
)
async def test_what_is_no_request_does_not_stop_the_listener(
    two: tuple[Worker, Worker], message: str
) -> None:
    one, owner = two
    for channel in ("mcpgw:pool_rpc:host-b:1", "mcpgw:pool_http:host-b:1"):
        assert await one.client.publish(channel, message) == 1
    assert await one.forward("s-1") == MINE
    assert len(owner.executed) == 1


# --- Many at a time


async def test_a_slow_request_does_not_hold_up_the_others(two: tuple[Worker, Worker]) -> None:
    one, owner = two
    go_on = asyncio.Event()

    async def answer(request: dict[str, Any]) -> dict[str, Any]:
        if request["req_id"] == "slow":
            await go_on.wait()
        return {"result": request["req_id"]}

    owner.on_rpc = answer
    slow = asyncio.create_task(one.affinity.forward_request_to_owner("s-1", {**RPC, "req_id": "slow"}, 30.0))
    await until(lambda: has_executed(owner, 1))
    assert await one.forward("s-1") == {"result": 7}
    go_on.set()
    assert await slow == {"result": "slow"}


async def test_a_channel_is_given_up_with_its_answer_while_others_wait(two: tuple[Worker, Worker]) -> None:
    """Or one slow answer would keep the channels of all that came after it."""
    one, owner = two
    go_on = asyncio.Event()

    async def answer(request: dict[str, Any]) -> dict[str, Any]:
        if request["req_id"] == "slow":
            await go_on.wait()
        return {"result": request["req_id"]}

    async def channels() -> int:
        return len(await one.client.pubsub_channels("mcpgw:pool_*_response:*"))

    owner.on_rpc = answer
    slow = asyncio.create_task(one.affinity.forward_request_to_owner("s-1", {**RPC, "req_id": "slow"}, 30.0))
    await until(lambda: has_executed(owner, 1))
    answers = await asyncio.gather(*[one.forward("s-1") for _ in range(10)], http(one))
    assert answers[:10] == [{"result": 7}] * 10
    owner.on_rpc = never
    with pytest.raises(TimeoutError):
        await one.forward("s-1", timeout=0.1)
    assert await channels() == 1
    go_on.set()
    assert await slow == {"result": "slow"}
    await until(lambda: is_none(channels))


async def test_more_requests_than_the_client_has_connections_share_one(server: RedisProcess) -> None:
    async with (
        Worker(server.url, "host-a:2", max_connections=6) as one,
        Worker(server.url, "host-b:2", max_connections=6) as owner,
    ):
        await owner.affinity.register_pool_session_owner("s-many")
        await owner.listen()
        everything = asyncio.Event()

        async def answer(request: dict[str, Any]) -> dict[str, Any]:
            if len(owner.executed) == 3:
                everything.set()
            await everything.wait()
            return {"result": request["req_id"]}

        owner.on_rpc = answer
        requests = [
            one.affinity.forward_request_to_owner("s-many", {**RPC, "req_id": number}, 30.0)
            for number in range(3)
        ]
        assert await asyncio.gather(*requests) == [{"result": number} for number in range(3)]
        for _ in range(20):  # one after the other: each gives its connection back
            assert await one.forward("s-many") == {"result": 7}
        await until(lambda: has_no_reader(one))
        assert len(one.client.connection_pool._in_use_connections) == 0


async def test_many_requests_at_a_time_need_no_more_connections_than_the_client_has(
    server: RedisProcess,
) -> None:
    async with (
        Worker(server.url, "host-a:6", max_connections=20, redis_timeout_seconds=30.0) as one,
        Worker(server.url, "host-b:6", max_connections=20, redis_timeout_seconds=30.0) as owner,
    ):
        await owner.affinity.register_pool_session_owner("s-more")
        await owner.listen()
        answers = await asyncio.gather(*[one.forward("s-more") for _ in range(100)])
        assert answers == [{"result": {"by": "host-b:6", "id": 7}}] * 100


async def test_requests_beyond_the_limit_wait_and_far_beyond_are_refused(
    server: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "_QUEUE_FACTOR", 2)
    go_on = asyncio.Event()
    async with (
        Worker(server.url, "host-a:3") as one,
        Worker(server.url, "host-b:3", max_concurrent_requests=2) as owner,
    ):
        await owner.affinity.register_pool_session_owner("s-full")
        await owner.listen()

        async def answer(request: dict[str, Any]) -> dict[str, Any]:
            await go_on.wait()
            return {"result": "done"}

        owner.on_rpc = answer
        taken = [asyncio.create_task(one.forward("s-full")) for _ in range(6)]
        await until(lambda: has_taken(owner, 6))
        assert len(owner.executed) == 2
        refused = await one.forward("s-full")
        assert refused is not None
        assert "too busy" in refused["error"]["message"]
        go_on.set()
        assert await asyncio.gather(*taken) == [{"result": "done"}] * 6


async def test_a_cancelled_forward_gives_its_connection_back(two: tuple[Worker, Worker]) -> None:
    one, owner = two
    owner.on_rpc = never
    forwarding = asyncio.create_task(one.forward("s-1"))
    await until(lambda: has_executed(owner, 1))
    forwarding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await forwarding
    await until(lambda: has_no_reader(one))
    assert len(one.client.connection_pool._in_use_connections) == 0


async def test_what_is_under_way_when_the_owner_ends_is_answered(two: tuple[Worker, Worker]) -> None:
    one, owner = two
    owner.on_rpc = owner.on_http = never
    waiting = asyncio.gather(one.forward("s-1"), http(one))
    await until(lambda: has_executed(owner, 2))
    await owner.stop_listening()
    rpc, response = await waiting
    assert rpc is not None
    assert "shutting down" in rpc["error"]["message"]
    assert response is not None
    assert response["status"] == 503


# --- The host


class Host:
    """What a pool is to the affinity."""

    def __init__(self) -> None:
        self._closed = False


async def test_replaced_methods_of_the_host_are_called(server: RedisProcess) -> None:
    host = Host()
    async with Worker(server.url, "host-a:4", host=host) as one, Worker(server.url, "host-b:4") as other:
        await one.affinity.register_pool_session_owner("s-host")
        await one.listen()
        host._execute_forwarded_request = returning({"result": "the host's"})  # type: ignore[attr-defined]
        assert await other.forward("s-host") == {"result": "the host's"}
        host._get_pool_session_owner = returning("somebody:1")  # type: ignore[attr-defined]
        await other.client.set("mcpgw:worker_heartbeat:somebody:1", "alive")
        assert await one.affinity.get_streamable_http_session_owner("s-host") == "somebody:1"


async def test_a_closed_host_ends_the_listener(server: RedisProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "_READ_SECONDS", 0.01)
    host = Host()
    async with Worker(server.url, "host-a:5", host=host) as one:
        await one.listen()
        assert one.listener is not None
        host._closed = True
        async with asyncio.timeout(30):
            await one.listener


# --- Helpers


def returning(value: Any) -> Any:
    async def answer(*_: object) -> Any:
        return value

    return answer


async def never(request: dict[str, Any]) -> dict[str, Any]:
    await asyncio.Event().wait()
    raise AssertionError


async def next_message(subscription: Any) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            message: dict[str, Any] | None = await subscription.get_message(timeout=1.0)
            if message and message["type"] == "message":
                return message


async def longer_than(worker: Worker, seconds: int) -> bool:
    left: int = await worker.client.ttl("mcpgw:pool_owner:s-1")
    return left > seconds


async def has_executed(worker: Worker, count: int) -> bool:
    return len(worker.executed) >= count


async def has_taken(worker: Worker, count: int) -> bool:
    return len(worker.affinity._listener._tasks) == count


async def is_none(count: Callable[[], Awaitable[int]]) -> bool:
    return await count() == 0


async def has_no_reader(worker: Worker) -> bool:
    return not worker.affinity._forwarding._replies._readers
