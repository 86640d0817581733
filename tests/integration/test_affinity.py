"""Session affinity with a real Redis: who owns a session, and whose mapping counts."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("redis")

from mcpgateway_pool.affinity import heartbeat
from servers.redis_process import EXECUTABLE, MISSING, RedisProcess
from servers.waiting import until
from support.affinity_workers import LOGGER, Worker, pid_beyond_all, reclaiming_after

pytestmark = [
    pytest.mark.skipif(EXECUTABLE is None, reason=MISSING),
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]

URL = "http://tools.example/mcp"
URL_HASH = hashlib.sha256(URL.encode()).hexdigest()[:16]
MAPPING = f"mcpgw:session_mapping:s-1:{URL_HASH}:streamablehttp:gw-1"


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with RedisProcess(tmp_path_factory.mktemp("redis")) as process:
        yield process


@pytest.fixture(params=[True, False], ids=["text", "bytes"])
async def two(request: pytest.FixtureRequest, server: RedisProcess) -> AsyncIterator[tuple[Worker, Worker]]:
    """Two workers of different machines, with an empty Redis."""
    async with (
        Worker(server.url, "host-a:1", decode_responses=request.param) as one,
        Worker(server.url, "host-b:1", decode_responses=request.param) as other,
    ):
        await one.client.flushall()
        yield one, other


# --- Ownership


async def test_the_first_worker_that_registers_a_session_owns_it(two: tuple[Worker, Worker]) -> None:
    one, other = two
    await one.affinity.register_pool_session_owner("s-1")
    await other.affinity.register_pool_session_owner("s-1")
    assert await one.owner("s-1") == "host-a:1"
    assert await other.affinity.get_pool_session_owner("s-1") == "host-a:1"
    assert 0 < await one.client.ttl("mcpgw:pool_owner:s-1") <= 300


async def test_registering_again_refreshes_only_ones_own_ownership(two: tuple[Worker, Worker]) -> None:
    one, other = two
    await one.affinity.register_pool_session_owner("s-1")
    await one.client.expire("mcpgw:pool_owner:s-1", 50)
    await other.affinity.register_pool_session_owner("s-1")
    assert await one.client.ttl("mcpgw:pool_owner:s-1") <= 50
    await one.affinity.register_pool_session_owner("s-1")
    assert await one.client.ttl("mcpgw:pool_owner:s-1") > 200


async def test_only_the_owner_gives_a_session_up(two: tuple[Worker, Worker]) -> None:
    one, other = two
    await one.affinity.register_pool_session_owner("s-1")
    await other.affinity.cleanup_pool_session_owner("s-1")
    assert await one.owner("s-1") == "host-a:1"
    await one.affinity.cleanup_pool_session_owner("s-1")
    assert await one.owner("s-1") is None


async def test_the_owner_is_none_where_nobody_registered(two: tuple[Worker, Worker]) -> None:
    one, _ = two
    assert await one.affinity.get_pool_session_owner("s-1") is None
    assert await one.affinity.get_streamable_http_session_owner("s-1") is None
    assert await one.affinity.may_create_session("s-1") is None


async def test_a_session_of_a_dead_worker_is_reclaimed(two: tuple[Worker, Worker]) -> None:
    one, other = two
    await other.affinity.register_pool_session_owner("s-1")  # it has no heartbeat, and does not listen
    assert await one.affinity.get_streamable_http_session_owner("s-1") == "host-a:1"
    assert await one.owner("s-1") == "host-a:1"
    assert await one.client.ttl("mcpgw:pool_owner:s-1") > 200


async def test_a_worker_with_a_heartbeat_keeps_its_sessions(two: tuple[Worker, Worker]) -> None:
    one, other = two
    await other.affinity.register_pool_session_owner("s-1")
    await one.client.set("mcpgw:worker_heartbeat:host-b:1", "alive", ex=30)
    assert await one.affinity.get_streamable_http_session_owner("s-1") == "host-b:1"
    assert await one.affinity.may_create_session("s-1") == "host-b:1"
    assert await one.owner("s-1") == "host-b:1"


async def test_a_worker_that_listens_lives_without_a_heartbeat_as_the_gateways_own_do(
    two: tuple[Worker, Worker],
) -> None:
    one, other = two
    await other.affinity.register_pool_session_owner("s-1")
    subscription = other.client.pubsub()
    try:
        await subscription.subscribe("mcpgw:pool_rpc:host-b:1")
        assert await subscription.get_message(timeout=10.0)
        assert await one.affinity.may_create_session("s-1") == "host-b:1"
    finally:
        await subscription.aclose()
    assert await one.affinity.may_create_session("s-1") is None


async def test_a_worker_that_had_a_heartbeat_and_has_none_is_dead_even_if_it_is_connected(
    two: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two
    monkeypatch.setattr(heartbeat, "RETRY_SECONDS", 60.0)  # one beat, also where its answer comes late
    await other.affinity.register_pool_session_owner("s-1")
    await other.listen()
    await until(lambda: one.client.exists("mcpgw:worker_heartbeat:host-b:1"))
    assert await one.affinity.may_create_session("s-1") == "host-b:1"
    await one.client.delete("mcpgw:worker_heartbeat:host-b:1")  # as when the process is stopped
    assert await one.affinity.may_create_session("s-1") == "host-b:1"  # or as when Redis came back empty
    monkeypatch.setattr(heartbeat, "MISSING_SECONDS", 0.0)
    assert await one.affinity.may_create_session("s-1") is None
    assert await one.owner("s-1") == "host-a:1"


async def test_of_two_that_reclaim_one_gets_it(two: tuple[Worker, Worker]) -> None:
    one, other = two
    await one.client.set("mcpgw:pool_owner:s-1", "host-c:1")
    ownership = one.affinity._ownership
    assert await ownership.reclaim(one.client, "s-1", "host-c:1")
    assert not await other.affinity._ownership.reclaim(other.client, "s-1", "host-c:1")
    assert await one.owner("s-1") == "host-a:1"


@pytest.mark.parametrize("winner", ["host-c:1", "host-a:1", None])
async def test_who_loses_the_race_to_reclaim_names_the_winner(
    two: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch, winner: str | None
) -> None:
    """The winner is another worker, another task of this one, or has given the session up already."""
    one, other = two
    redis = one.client

    async def somebody_is_quicker() -> None:
        await (redis.set("mcpgw:pool_owner:s-1", winner) if winner else redis.delete("mcpgw:pool_owner:s-1"))

    reclaiming_after(monkeypatch, one, "host-b:1", somebody_is_quicker)
    await other.affinity.register_pool_session_owner("s-1")
    assert await one.affinity.get_streamable_http_session_owner("s-1") == winner
    assert await one.owner("s-1") == winner
    await redis.set("mcpgw:pool_owner:s-1", "host-b:1")
    assert await one.affinity.may_create_session("s-1") == (None if winner == "host-a:1" else winner)


async def test_who_loses_the_race_to_claim_takes_nothing(
    two: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at a free session and its claim, another worker claims it."""
    one, other = two
    claim = one.affinity._ownership.claim

    async def late(*arguments: Any) -> None:
        await other.affinity.register_pool_session_owner("s-1")
        await one.client.expire("mcpgw:pool_owner:s-1", 50)
        await claim(*arguments)

    monkeypatch.setattr(one.affinity._ownership, "claim", late)
    await one.affinity.register_session_mapping("s-1", URL, "gw-1", "streamablehttp", "ann@example.com")
    assert await one.owner("s-1") == "host-b:1"
    assert await one.client.ttl("mcpgw:pool_owner:s-1") <= 50
    await one.affinity.cleanup_pool_session_owner("s-1")
    assert await one.owner("s-1") == "host-b:1"


async def test_a_listener_shows_a_heartbeat_and_takes_it_away_at_its_end(two: tuple[Worker, Worker]) -> None:
    one, _ = two
    await one.listen()
    await until(lambda: one.client.exists("mcpgw:worker_heartbeat:host-a:1"))
    assert await one.client.get("mcpgw:worker_heartbeat:host-a:1") in ("alive", b"alive")
    assert 0 < await one.client.ttl("mcpgw:worker_heartbeat:host-a:1") <= 30
    await one.stop_listening()
    assert await one.client.exists("mcpgw:worker_heartbeat:host-a:1") == 0
    assert not await one.is_listening()


async def test_a_heartbeat_is_written_again_and_again(
    two: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = two
    monkeypatch.setattr(heartbeat, "INTERVAL_SECONDS", 0.01)
    one.affinity.start_heartbeat()
    one.affinity.start_heartbeat()
    for _ in range(3):
        await one.client.delete("mcpgw:worker_heartbeat:host-a:1")
        await until(lambda: one.client.exists("mcpgw:worker_heartbeat:host-a:1"))


def test_a_process_is_gone_only_when_it_is_known_to_be_one_of_this_machine() -> None:
    here, beyond = socket.gethostname(), pid_beyond_all()
    assert heartbeat.process_is_gone(f"{here}:{beyond}")
    assert not heartbeat.process_is_gone(f"{here}:{os.getpid()}")
    for unknown in (
        f"elsewhere.example:{beyond}",
        here,
        f"{here}:",
        f"{here}:-1",
        f"{here}:0",
        f"{here}:x",
        "",
    ):
        assert not heartbeat.process_is_gone(unknown), unknown


async def test_a_killed_worker_of_this_machine_is_dead_before_its_heartbeat_ends(
    two: tuple[Worker, Worker],
) -> None:
    one, other = two
    killed = f"{socket.gethostname()}:{pid_beyond_all()}"
    await one.client.set("mcpgw:pool_owner:s-1", killed)
    await one.client.set(f"mcpgw:worker_heartbeat:{killed}", "alive")
    other.name = killed
    await other.listen()  # as in a container that shares only the name of the machine
    assert await one.affinity.get_streamable_http_session_owner("s-1") == killed
    await other.stop_listening()
    await one.client.set(f"mcpgw:worker_heartbeat:{killed}", "alive")
    assert await one.affinity.get_streamable_http_session_owner("s-1") == "host-a:1"


# --- Session ids


@pytest.mark.parametrize("bad", ["", "a b", "a\n", "a:b", "*", "é", "x" * 129])
async def test_an_invalid_session_id_never_reaches_redis(two: tuple[Worker, Worker], bad: str) -> None:
    one, _ = two
    affinity = one.affinity
    await affinity.register_session_mapping(bad, URL, "gw-1", "streamablehttp", "ann@example.com")
    await affinity.register_pool_session_owner(bad)
    await affinity.cleanup_pool_session_owner(bad)
    assert await affinity.get_pool_session_owner(bad) is None
    assert await affinity.get_streamable_http_session_owner(bad) is None
    assert await one.forward(bad) is None
    assert await affinity.forward_streamable_http_to_owner("w", bad, "POST", "/mcp", {}, b"") is None
    assert not await affinity.look_up_session_mapping(bad, URL, "gw-1", "streamablehttp", "ann@example.com")
    assert await one.client.keys("*") == []


async def test_with_affinity_off_nothing_is_done(two: tuple[Worker, Worker]) -> None:
    one, _ = two
    one.settings = type(one.settings)(enabled=False)
    affinity = one.affinity
    await affinity.register_session_mapping("s-1", URL, "gw-1", "streamablehttp", "ann@example.com")
    await affinity.register_pool_session_owner("s-1")
    await affinity.start_rpc_listener()
    affinity.start_heartbeat()
    assert await affinity.get_pool_session_owner("s-1") is None
    assert await one.forward("s-1") is None
    assert await one.client.keys("*") == []
    assert affinity.mappings == {}


# --- Mappings


async def test_a_mapping_is_stored_as_the_gateways_module_does(two: tuple[Worker, Worker]) -> None:
    one, _ = two
    await one.affinity.register_session_mapping("s-1", URL, "gw-1", "streamablehttp", "ann@example.com")
    assert json.loads(await one.client.get(MAPPING)) == {
        "user_hash": sha256("ann@example.com"),
        "url": URL,
        "identity_hash": sha256("s-1"),
        "transport_type": "streamablehttp",
        "gateway_id": "gw-1",
    }
    assert 0 < await one.client.ttl(MAPPING) <= 300
    assert await one.owner("s-1") == "host-a:1"
    assert one.affinity.mappings == {
        ("s-1", URL, "streamablehttp", "gw-1"): (
            sha256("ann@example.com"),
            URL,
            sha256("s-1"),
            "streamablehttp",
            "gw-1",
        )
    }


@pytest.mark.parametrize("nobody", [None, "", "anonymous"])
async def test_a_mapping_without_a_user_is_anonymous(two: tuple[Worker, Worker], nobody: str | None) -> None:
    one, _ = two
    await one.affinity.register_session_mapping("s-1", URL, "gw-1", "streamablehttp", nobody)
    assert json.loads(await one.client.get(MAPPING))["user_hash"] == "anonymous"


async def test_registering_a_mapping_neither_steals_nor_lets_lapse(two: tuple[Worker, Worker]) -> None:
    one, other = two
    await one.affinity.register_session_mapping("s-1", URL, "gw-1", "streamablehttp", "ann@example.com")
    await one.client.expire("mcpgw:pool_owner:s-1", 50)
    await other.affinity.register_session_mapping("s-1", URL, "gw-1", "streamablehttp", "ann@example.com")
    assert await one.owner("s-1") == "host-a:1"
    assert await one.client.ttl("mcpgw:pool_owner:s-1") <= 50
    await one.affinity.register_session_mapping("s-1", URL, "gw-1", "streamablehttp", "ann@example.com")
    assert await one.client.ttl("mcpgw:pool_owner:s-1") > 200


async def look_up(worker: Worker, user: str, transport: str = "streamablehttp") -> bool:
    return await worker.affinity.look_up_session_mapping("s-1", URL, "gw-1", transport, user)


def counted(worker: Worker) -> tuple[int, int, int]:
    metrics = worker.affinity.get_metrics()
    return metrics["local_hits"], metrics["redis_hits"], metrics["misses"]


async def test_look_ups_are_counted_by_where_the_mapping_was(two: tuple[Worker, Worker]) -> None:
    one, other = two
    assert not await look_up(other, "ann@example.com")
    await one.affinity.register_session_mapping("s-1", URL, "gw-1", "streamablehttp", "ann@example.com")
    assert await look_up(one, "ann@example.com")
    assert await look_up(other, "ann@example.com")
    assert await look_up(other, "ann@example.com")
    assert counted(one) == (1, 0, 0)
    assert counted(other) == (1, 1, 1)
    assert other.affinity.get_metrics()["hit_rate"] == pytest.approx(2 / 3)


async def test_the_capitals_of_the_gateways_database_do_not_hide_a_mapping(
    two: tuple[Worker, Worker],
) -> None:
    one, other = two
    await one.affinity.register_session_mapping("s-1", URL, "gw-1", "STREAMABLEHTTP", "ann@example.com")
    assert await look_up(one, "ann@example.com")
    assert await look_up(other, "ann@example.com")
    assert await look_up(other, "ann@example.com")
    assert counted(one) == (1, 0, 0)
    assert counted(other) == (1, 1, 0)


async def test_another_users_mapping_is_a_miss_and_is_logged(
    two: tuple[Worker, Worker], caplog: pytest.LogCaptureFixture
) -> None:
    one, other = two
    await one.affinity.register_session_mapping("s-1", URL, "gw-1", "streamablehttp", "ann@example.com")
    with caplog.at_level(logging.WARNING, LOGGER.name):
        assert not await look_up(one, "bob@example.com")
        assert not await look_up(other, "bob@example.com")
        assert not await look_up(other, "anonymous")
    assert counted(one) == (0, 0, 1)
    assert counted(other) == (0, 0, 2)
    assert other.affinity.mappings == {}
    assert len(caplog.messages) == 2  # once a minute by each worker
    assert all("of another user ignored" in message for message in caplog.messages)


@pytest.mark.parametrize(
    "forged", ["{", "[]", "7", '"text"', "{}", '{"user_hash": null}', '{"user_hash": {"a": 1}}', "\x00"]
)
async def test_what_is_no_mapping_is_a_miss(two: tuple[Worker, Worker], forged: str) -> None:
    one, _ = two
    await one.client.set(MAPPING, forged)
    assert not await look_up(one, "ann@example.com")
    assert counted(one) == (0, 0, 1)
    assert one.affinity.mappings == {}


async def test_a_forged_mapping_contributes_nothing_but_its_user(two: tuple[Worker, Worker]) -> None:
    one, _ = two
    forged = {
        "user_hash": sha256("ann@example.com"),
        "url": "http://evil.example/",
        "identity_hash": "0" * 64,
    }
    await one.client.set(MAPPING, json.dumps(forged))
    assert await look_up(one, "ann@example.com")
    assert list(one.affinity.mappings.values()) == [
        (sha256("ann@example.com"), URL, sha256("s-1"), "streamablehttp", "gw-1")
    ]


async def test_the_mappings_of_a_worker_are_bounded(
    two: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = two
    monkeypatch.setattr("mcpgateway_pool.affinity.mapping.MAX_KNOWN", 3)
    for number in (1, 2, 3, 1, 4):
        await one.affinity.register_session_mapping(f"s-{number}", URL, "gw-1", "sse", None)
    assert [key[0] for key in one.affinity.mappings] == ["s-3", "s-1", "s-4"]


async def test_a_log_never_shows_a_whole_session_id_or_a_urls_secrets(
    two: tuple[Worker, Worker], caplog: pytest.LogCaptureFixture
) -> None:
    one, other = two
    session = "abcdefgh-the-rest-is-secret"
    url = "http://ann:hunter2@tools.example/mcp?token=hunter2"
    with caplog.at_level(logging.DEBUG, LOGGER.name):
        await other.affinity.register_session_mapping(session, url, "gw-1", "sse", "ann@example.com")
        await one.affinity.register_session_mapping(session, url, "gw-1", "sse", "ann@example.com")
        await one.forward(session)
        await one.affinity.cleanup_pool_session_owner(session)
    text = "\n".join(caplog.messages)
    assert "abcdefgh..." in text
    assert "the-rest-is-secret" not in text
    assert "hunter2" not in text
    assert "ann@example.com" not in text


def test_the_redis_process_leaves_nothing_behind(tmp_path: Path) -> None:
    with RedisProcess(tmp_path) as process:
        assert process.socket_path.is_socket()
        process.restart()
        assert process._process is not None
        pid = process._process.pid
    assert not Path(f"/proc/{pid}").exists()
