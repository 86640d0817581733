"""Who can write to Redis is trusted with requests, not with sessions: what hostile contents do to a worker.

Forged mappings and ids of sessions: tests/integration/test_affinity.py. Whom a forwarded request may reach:
tests/integration/test_affinity_execution.py.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import AsyncIterator, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("redis")

from mcpgateway_pool.affinity.keys import session_mapping_key
from mcpgateway_pool.gateway.pool.gateway_pool import GatewayPool
from servers.redis_process import EXECUTABLE, MISSING, RedisProcess
from servers.waiting import until
from support.affinity_workers import LOGGER, RPC, Worker

pytestmark = [
    pytest.mark.skipif(EXECUTABLE is None, reason=MISSING),
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]

CANARY = "c4n4ry-t0ken"
EVIL = "\r\nPUBLISH x \x1b[2J\u2028*?[a]"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with RedisProcess(tmp_path_factory.mktemp("redis")) as process:
        yield process


@pytest.fixture
async def two(server: RedisProcess, caplog: pytest.LogCaptureFixture) -> AsyncIterator[tuple[Worker, Worker]]:
    """Two workers, the second of which listens; afterwards no log line has obeyed Redis or shown a secret."""
    caplog.set_level(logging.DEBUG)
    async with (
        Worker(server.url, "host-a:1", decode_responses=True) as one,
        Worker(server.url, "host-b:1", decode_responses=True) as owner,
    ):
        await one.client.flushall()
        await owner.affinity.register_pool_session_owner("s-1")
        await owner.listen()
        yield one, owner
    ours = [record.getMessage() for record in caplog.records if "mcpgateway" in record.name]
    assert ours
    assert [text for text in ours if not text.isprintable()] == []
    assert [text for text in ours if CANARY in text] == []


async def assert_listens(one: Worker, owner: Worker) -> None:
    executed = len(owner.executed)
    assert await one.forward("s-1") == {"result": {"by": "host-b:1", "id": 7}}
    assert len(owner.executed) == executed + 1


@pytest.mark.parametrize("name", ["", EVIL, "*", "host-b:1" + EVIL, "x" * 1_000_000, "\x00", "host-b:1\n"])
async def test_owner_that_is_no_worker_is_not_obeyed(two: tuple[Worker, Worker], name: str) -> None:
    """Its name is a part of a key and of a channel, exactly as it is: no pattern, no line of a protocol."""
    one, owner = two
    await one.client.set("mcpgw:pool_owner:s-2", name)
    assert await one.forward("s-2", timeout=5.0) is None  # executed here
    assert owner.executed == []
    assert await one.owner("s-2") in {"host-a:1", None}
    await one.affinity.register_pool_session_owner("s-2")
    assert await one.owner("s-2") == "host-a:1"
    await assert_listens(one, owner)


@pytest.mark.parametrize("decodes", [True, False])
@pytest.mark.parametrize(
    "value", [b"\xff\xfe", b"host\x80:1", b"\xc3", b"\xed\xa0\x80:1", b"a b:1", b"h:1\r\n"]
)
async def test_owner_entry_that_does_not_decode_is_no_owner(
    server: RedisProcess, value: bytes, decodes: bool
) -> None:
    async with Worker(server.url, "host-a:1", decode_responses=decodes) as one:
        await one.client.set("mcpgw:pool_owner:s-3", value)
        assert await one.affinity.get_pool_session_owner("s-3") is None
        await one.client.set("mcpgw:pool_owner:s-3", value)
        assert await one.affinity.get_streamable_http_session_owner("s-3") is None
        await one.client.set("mcpgw:pool_owner:s-3", value)
        assert await one.forward("s-3", timeout=5.0) is None
        await one.affinity.register_pool_session_owner("s-3")
        assert await one.affinity.get_pool_session_owner("s-3") == "host-a:1"


async def test_owner_whose_name_is_not_ascii_is_one(server: RedisProcess) -> None:
    async with Worker(server.url, "hôst-ä:1") as one:
        await one.affinity.register_pool_session_owner("s-4")
        assert await one.affinity.get_pool_session_owner("s-4") == "hôst-ä:1"


@pytest.mark.parametrize(
    "forged",
    [
        {"method": EVIL, "params": EVIL, "req_id": {"a": [EVIL]}, "mcp_session_id": EVIL, "headers": [EVIL]},
        {"method": None, "params": None, "req_id": None, "mcp_session_id": None, "headers": 7},
        {"method": ["x"], "mcp_session_id": {"a": 1}, "headers": {"authorization": {"a": CANARY}}},
        {"params": "x" * 8_000_000, "mcp_session_id": "s-1"},
        {"params": {"token": CANARY}, "mcp_session_id": CANARY * 50},
    ],
)
@pytest.mark.parametrize("kind", ["rpc_forward", "http_forward"])
async def test_forged_request_gets_one_answer_at_most_and_stops_nobody(
    two: tuple[Worker, Worker], kind: str, forged: dict[str, Any]
) -> None:
    one, owner = two
    message = {"type": kind, "response_channel": f"answers{EVIL}", **forged}
    for channel in ("mcpgw:pool_rpc:host-b:1", "mcpgw:pool_http:host-b:1"):
        assert await one.client.publish(channel, json.dumps(message)) == 1

    async def has_executed() -> bool:
        return len(owner.executed) == 2

    await until(has_executed)
    await assert_listens(one, owner)


async def test_answer_sent_to_a_workers_own_channel_is_no_request(two: tuple[Worker, Worker]) -> None:
    """Else a forged request would go round for ever."""
    one, owner = two
    channel = "mcpgw:pool_rpc:host-b:1"

    async def answer(request: dict[str, Any]) -> dict[str, Any]:
        return {"result": {"type": "rpc_forward", "response_channel": channel}}

    owner.on_rpc = answer
    message = {**RPC, "type": "rpc_forward", "mcp_session_id": "s-1", "response_channel": channel}
    assert await one.client.publish(channel, json.dumps(message)) == 1

    async def has_executed() -> bool:
        return bool(owner.executed)

    await until(has_executed)
    assert await one.forward("s-1") == await answer({})
    assert len(owner.executed) == 2


@pytest.mark.parametrize(
    "value",
    [
        b"\xff\xfe" * 100,
        b"[" * 100_000,
        json.dumps({"user_hash": "x" * 8_000_000}).encode(),
        json.dumps({"user_hash": "anonymous"}).encode(),
        json.dumps({"user_hash": [hashlib.sha256(b"ann").hexdigest()]}).encode(),
        json.dumps({"USER_HASH": hashlib.sha256(b"ann").hexdigest()}).encode(),
    ],
    ids=["no text", "deep", "large", "anonymous", "list", "another name"],
)
async def test_poisoned_mapping_is_none(two: tuple[Worker, Worker], value: bytes) -> None:
    one, owner = two
    arguments = ("s-1", "http://tools.example/mcp", "gw-1", "streamablehttp")
    await one.client.set(session_mapping_key(arguments[0], arguments[1], arguments[3], arguments[2]), value)
    assert not await one.affinity.look_up_session_mapping(*arguments, "ann")
    assert one.affinity.mappings == {}
    await assert_listens(one, owner)


async def test_refusal_that_names_the_owner_is_one_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the gateway, a session of another worker that lives is refused: its name is what Redis says."""
    gateway: Any = ModuleType("stand_in")
    gateway.logger = LOGGER
    gateway.WORKER_ID = "host-a:1"
    gateway.settings = SimpleNamespace(mcpgateway_session_affinity_enabled=True)

    class Pool(GatewayPool):
        _gateway = gateway

    async def owner_is(_: str) -> str:
        return EVIL

    pool = Pool()
    monkeypatch.setattr(pool._session_affinity, "may_create_session", owner_is)
    with pytest.raises(RuntimeError, match="owned by another worker") as refused:
        await pool._permit_creation({"x-mcp-session-id": "s-1"})
    assert str(refused.value).isprintable()
    assert all(record.getMessage().isprintable() for record in caplog.records)


async def test_hostile_parts_of_a_mapping_stay_in_its_key(two: tuple[Worker, Worker]) -> None:
    """A URL or a gateway id cannot make the key of another session."""
    one, _ = two
    seen = set()
    for url in ("http://a/", "http://a/:x", "http://a/*", f"http://a/{EVIL}"):
        for gateway in ("g", "g:h", "*"):
            await one.affinity.register_session_mapping("s-9", url, gateway, "streamablehttp", "ann")
            seen.add((url, gateway))
    keys = await one.client.keys("mcpgw:session_mapping:s-9:*")
    assert len(keys) == len(seen)
    assert all(key.startswith("mcpgw:session_mapping:s-9:") for key in keys)
