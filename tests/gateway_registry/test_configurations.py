"""What ``docs/gateway.md`` says each configuration gives, in whole gateways."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.process import ServerProcess
from servers.redis_process import EXECUTABLE, MISSING, RedisProcess
from support.gateway_process import SWITCH
from support.gateway_users import ANN, AUTHENTICATED, AuthenticatingGateway, as_user, gateway_of_users
from support.registered import Registered, registering
from support.release_docs import assert_installed_release_is_as_documented

SETTINGS = {
    **SWITCH,
    **AUTHENTICATED,
    "MCP_CLIENT_CONNECT_MODE": "legacy",
    "HEALTH_CHECK_INTERVAL": "3600",
    "USE_STATEFUL_SESSIONS": "true",
}
TRACING = {"OTEL_ENABLE_OBSERVABILITY": "true", "OTEL_TRACES_EXPORTER": "console"}
INITIALIZE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


def connect(gateway: AuthenticatingGateway) -> str:
    """What a client of ``/mcp`` does first: the session that it gets; empty where it gets none."""
    headers = as_user(ANN, Accept="application/json, text/event-stream")
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": INITIALIZE}
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
    try:
        connection.request(
            "POST", "/mcp/", json.dumps(message), {**headers, "Content-Type": "application/json"}
        )
        response = connection.getresponse()
        content = response.read()
        assert response.status == 200, content
        return response.getheader("mcp-session-id") or ""
    finally:
        connection.close()


class Numbers:
    """Calls that were pooled, and those that were not, since this was made."""

    def __init__(self, registered: Registered) -> None:
        self._registered = registered
        self._before = self._now()

    def _now(self) -> tuple[float, float, float]:
        registered = self._registered
        pooled = registered.count("hits_total") + registered.count("misses_total")
        sessions = registered.server.stats()["initialize"]
        return pooled, registered.count("unpooled_calls_total"), sessions

    def since(self) -> tuple[float, ...]:
        """Calls pooled, calls counted as not pooled, sessions opened at the server."""
        return tuple(now - before for now, before in zip(self._now(), self._before, strict=True))


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    with ServerProcess() as server:
        yield server


def use(registered: Registered) -> dict[str, tuple[float, ...]]:
    """Three calls of each kind."""
    found = {}
    numbers = Numbers(registered)
    for _ in range(3):
        assert registered.whoami()
    found["without"] = numbers.since()
    session = connect(registered.gateway)
    assert session
    numbers = Numbers(registered)
    for _ in range(3):
        assert not registered.call("whoami", ANN, mcp_session_id=session).failed
    found["with"] = numbers.since()
    return found


def test_the_release_is_in_the_table_with_its_pythons_and_its_sdk() -> None:
    assert_installed_release_is_as_documented()


@pytest.mark.long("a gateway to boot for each configuration")
def test_stateful_sessions_in_a_trace(tmp_path: Path, server: ServerProcess) -> None:
    with (
        gateway_of_users(tmp_path, SETTINGS | TRACING) as gateway,
        registering(gateway, server) as registered,
    ):
        assert use(registered) == {"without": (3, 0, 1), "with": (0, 0, 3)}


@pytest.mark.skipif(EXECUTABLE is None, reason=MISSING)
@pytest.mark.long("a gateway to boot for each configuration")
def test_stateful_sessions_with_affinity(tmp_path: Path, server: ServerProcess) -> None:
    with RedisProcess(tmp_path) as redis:
        settings = SETTINGS | {
            "MCPGATEWAY_SESSION_AFFINITY_ENABLED": "true",
            "CACHE_TYPE": "redis",
            "REDIS_URL": redis.url,
        }
        with (
            gateway_of_users(tmp_path / "gateway", settings) as gateway,
            registering(gateway, server) as registered,
        ):
            assert use(registered) == {"without": (3, 0, 1), "with": (3, 0, 1)}
