"""Session affinity: real gateways, a real Redis, and requests that land on the wrong worker."""

from __future__ import annotations

import socket
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from servers.process import ServerProcess
from servers.program import free_port
from servers.redis_process import EXECUTABLE, MISSING, RedisProcess
from servers.waiting import wait_until
from support.gateway_process import SWITCH, GatewayProcess

pytest.importorskip("redis")

pytestmark = [pytest.mark.timeout(300), pytest.mark.skipif(EXECUTABLE is None, reason=MISSING)]

INITIALIZE = {
    "protocolVersion": "2025-03-26",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


@dataclass(frozen=True)
class Site:
    """What the gateways of these tests share: Redis, a database, and the names of the tools."""

    redis: RedisProcess
    folder: Path
    tools: dict[str, str]

    def gateway(self, name: str, environment: dict[str, str], workers: int = 1) -> GatewayProcess:
        """One more gateway, not started yet."""
        port = free_port()
        shared = {
            "DATABASE_URL": f"sqlite:///{self.folder / 'shared.db'}",
            "CACHE_TYPE": "redis",
            "REDIS_URL": self.redis.url,
            "MCPGATEWAY_SESSION_AFFINITY_ENABLED": "true",
            "USE_STATEFUL_SESSIONS": "true",
            "HEALTH_CHECK_INTERVAL": "3600",
            "PORT": str(port),  # the gateway's own module calls itself there
            "LOG_LEVEL": "INFO",
        }
        return GatewayProcess(
            self.folder / name, environment={**shared, **environment}, port=port, workers=workers
        )


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess() as server:
        yield server


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("affinity")
    with RedisProcess(folder / "r") as redis:
        yield Site(redis, folder, {})


@pytest.fixture(scope="module")
def ours(site: Site, server: ServerProcess) -> Iterator[GatewayProcess]:
    """A gateway with our pool, with which the tools' server is registered."""
    with site.gateway("ours", SWITCH) as gateway:
        assert is_ours(gateway)
        identifier = gateway.register("tools", server.url)
        listed = gateway.json("GET", "/tools?limit=0")
        site.tools.update(
            {tool["originalName"]: tool["name"] for tool in listed if tool["gatewayId"] == identifier}
        )
        yield gateway


@pytest.fixture(scope="module")
def second(site: Site, ours: GatewayProcess) -> Iterator[GatewayProcess]:
    """Another one with our pool."""
    with site.gateway("second", SWITCH) as gateway:
        assert is_ours(gateway)
        yield gateway


@pytest.fixture(scope="module")
def stock(site: Site, ours: GatewayProcess) -> Iterator[GatewayProcess]:
    """One with the gateway's own pool, as before an upgrade."""
    with site.gateway("stock", {}) as gateway:
        assert not is_ours(gateway)
        yield gateway


def is_ours(gateway: GatewayProcess) -> bool:
    """Whether it said that our pool is on."""
    return any("mcpgateway-pool" in line and " is on: " in line for line in gateway.output.splitlines())


def rpc(gateway: GatewayProcess, session: str, method: str, params: dict[str, Any]) -> dict[str, Any]:
    """One request of a session."""
    # With blanks in it, so that its length is not what another program would make of it.
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    gateway._close_connection()  # the gateway closes it after 5 s, another one's start takes longer
    answer: dict[str, Any] = gateway.json("POST", "/rpc", message, {"mcp-session-id": session})
    return answer


def begin(gateway: GatewayProcess) -> str:
    """A new session, which this gateway owns."""
    session = uuid.uuid4().hex
    assert "result" in rpc(gateway, session, "initialize", INITIALIZE)
    return session


def count(site: Site, gateway: GatewayProcess, session: str) -> int:
    """How many calls the upstream session has seen that this call reaches."""
    answer = rpc(gateway, session, "tools/call", {"name": site.tools["counter"], "arguments": {}})
    assert "result" in answer, answer
    return int(answer["result"]["content"][0]["text"])


def redis(site: Site, *command: str) -> str:
    """What Redis says, past everything that is tested."""
    line = ["redis-cli", "-s", str(site.redis.socket_path), *command]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()


def owner(site: Site, session: str) -> str:
    """The process id of the owner."""
    return redis(site, "get", f"mcpgw:pool_owner:{session}").rpartition(":")[2]


def wait_until_back(site: Site, gateway: GatewayProcess) -> None:
    """Wait until a gateway uses a Redis that was restarted."""
    worker = f"{socket.gethostname()}:{gateway.pid}"

    def is_back() -> bool:
        listens = redis(site, "pubsub", "numsub", f"mcpgw:pool_rpc:{worker}").split()[-1:] == ["1"]
        return listens and redis(site, "exists", f"mcpgw:worker_heartbeat:{worker}") == "1"

    wait_until(is_back, 60, every=0.1)


def assert_executed_by(site: Site, first: GatewayProcess, other: GatewayProcess) -> None:
    """A session of the first is executed by the first, whichever of the two its requests reach."""
    session = begin(first)
    assert owner(site, session) == str(first.pid)
    turns = [first, other, other, first, other]
    assert [count(site, gateway, session) for gateway in turns] == [1, 2, 3, 4, 5]
    assert owner(site, session) == str(first.pid)


def test_a_request_on_the_wrong_worker_is_executed_by_the_owner(
    site: Site, ours: GatewayProcess, second: GatewayProcess
) -> None:
    assert_executed_by(site, ours, second)
    assert_executed_by(site, second, ours)


def test_a_worker_with_the_gateways_own_pool_serves_and_is_served(
    site: Site, ours: GatewayProcess, stock: GatewayProcess
) -> None:
    assert_executed_by(site, ours, stock)
    assert_executed_by(site, stock, ours)


def test_each_session_has_an_upstream_session_of_its_own(
    site: Site, ours: GatewayProcess, second: GatewayProcess
) -> None:
    one, other = begin(ours), begin(second)
    assert [count(site, ours, one), count(site, ours, other)] == [1, 1]
    assert [count(site, second, one), count(site, second, other)] == [2, 2]


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param(SWITCH, id="ours"),
        pytest.param({}, id="stock", marks=pytest.mark.long("one more boot, for an owner without us")),
    ],
)
def test_the_next_request_reclaims_from_a_killed_owner(
    site: Site, ours: GatewayProcess, environment: dict[str, str]
) -> None:
    with site.gateway(f"victim{len(environment)}", environment) as victim:
        session = begin(victim)
        assert [count(site, ours, session), count(site, victim, session)] == [1, 2]
        victim.kill()
        # Its upstream session went with it.
        assert [count(site, ours, session), count(site, ours, session)] == [1, 2]
        assert owner(site, session) == str(ours.pid)


@pytest.mark.long("one more boot, for one more way in which an owner goes")
def test_the_next_request_reclaims_from_an_owner_that_was_stopped(site: Site, ours: GatewayProcess) -> None:
    with site.gateway("stopped", SWITCH) as leaving:
        session = begin(leaving)
        assert count(site, ours, session) == 1
        leaving.stop()
        assert count(site, ours, session) == 1
        assert owner(site, session) == str(ours.pid)


@pytest.mark.long("two more workers to boot; two gateways that share Redis are short")
def test_workers_that_share_a_port_keep_a_session_together(site: Site, ours: GatewayProcess) -> None:
    """The gateway's own module hands a forwarded request to the port, which any of them may answer."""
    with site.gateway("pair", SWITCH, workers=2) as pair:
        sessions = [begin(pair) for _ in range(4)]
        for number in range(1, 7):
            assert [count(site, pair, session) for session in sessions] == [number] * 4
        pair.stop()


def test_redis_that_comes_back_empty_costs_a_session_and_no_request(
    site: Site, ours: GatewayProcess, second: GatewayProcess
) -> None:
    session = begin(ours)
    assert count(site, second, session) == 1
    site.redis.kill()
    assert count(site, ours, session) == 2
    assert count(site, second, session) >= 1  # served here, with an upstream session of its own
    site.redis.start()
    wait_until_back(site, ours)
    wait_until_back(site, second)
    session = begin(ours)
    assert [count(site, gateway, session) for gateway in (ours, second, second)] == [1, 2, 3]


# --- Streamable HTTP: the gateway's /mcp


def mcp(
    gateway: GatewayProcess, method: str, params: dict[str, Any], session: str | None = None
) -> httpx.Response:
    headers = {"accept": "application/json, text/event-stream"}
    if session is not None:
        headers["mcp-session-id"] = session
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    with httpx.Client(trust_env=False, timeout=90.0, follow_redirects=True) as client:
        response = client.post(f"{gateway.url}/mcp/", json=message, headers=headers)
    assert response.status_code == 200, response.text
    return response


def mcp_count(site: Site, gateway: GatewayProcess, session: str) -> int:
    response = mcp(gateway, "tools/call", {"name": site.tools["counter"], "arguments": {}}, session)
    answer = response.json()
    assert "result" in answer, answer
    return int(answer["result"]["content"][0]["text"])


def test_a_streamable_http_session_is_executed_by_its_owner(
    site: Site, ours: GatewayProcess, second: GatewayProcess
) -> None:
    session = mcp(ours, "initialize", INITIALIZE).headers["mcp-session-id"]
    assert owner(site, session) == str(ours.pid)
    turns = [ours, second, second, ours]
    assert [mcp_count(site, gateway, session) for gateway in turns] == [1, 2, 3, 4]
    assert owner(site, session) == str(ours.pid)


@pytest.mark.long("one more boot, for one more way in which an owner goes")
def test_a_streamable_http_session_of_a_killed_owner_is_reclaimed(site: Site, ours: GatewayProcess) -> None:
    with site.gateway("mcp-victim", SWITCH) as victim:
        session = mcp(victim, "initialize", INITIALIZE).headers["mcp-session-id"]
        assert mcp_count(site, ours, session) == 1
        victim.kill()
        assert mcp_count(site, ours, session) == 1
        assert owner(site, session) == str(ours.pid)
