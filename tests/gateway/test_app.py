"""The gateway's real application in this process, over this pool, with real MCP servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import httpx
import pytest
import pytest_asyncio

from mcpgateway_pool.gateway.gateway_rows import read_gateway_names
from mcpgateway_pool.prometheus.gateway_names import NAMES
from servers.process import ServerProcess

# One application, and so one event loop, for all tests of this file: it starts once per process.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

CALLS = 64


class Gateway:
    """The application, and a client of it.

    Attributes:
        pool: the pool of the application.
        client: makes requests to the application.
    """

    def __init__(self, stand_in: ModuleType, client: httpx.AsyncClient) -> None:
        self.pool = stand_in.get_mcp_session_pool()
        self.client = client

    async def register(self, server: ServerProcess, name: str) -> str:
        """Register a server; its id."""
        transport = {"sse": "SSE", "streamablehttp": "STREAMABLEHTTP"}[server.transport]
        answer = await self.client.post(
            "/gateways", json={"name": name, "url": server.url, "transport": transport}
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    async def call(self, tool: str, **arguments: Any) -> str:
        """Call a tool; its text."""
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
        answer = await self.client.post(
            "/rpc", json={**message, "params": {"name": tool, "arguments": arguments}}
        )
        assert "result" in answer.json(), answer.text
        return str(answer.json()["result"]["content"][0]["text"])

    async def metrics(self) -> dict[str, Any]:
        """What the admin endpoint says."""
        answer = await self.client.get("/admin/mcp-pool/metrics")
        assert answer.status_code == 200, answer.text
        metrics: dict[str, Any] = answer.json()
        return metrics

    async def series(self, gateway_id: str) -> dict[str, float]:
        """Hits, misses, evictions, active sessions and size at the Prometheus endpoint."""
        answer = await self.client.get("/metrics/prometheus")
        assert answer.status_code == 200, answer.text
        found: dict[str, float] = {}
        for line in answer.text.splitlines():
            if line.startswith("mcp_session_pool_") and f'gateway_id="{gateway_id}"' in line:
                name, value = line.partition("{")[0], float(line.rpartition(" ")[2])
                found[name] = found.get(name, 0.0) + value
        return found


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(stand_in: ModuleType) -> AsyncIterator[Gateway]:
    from mcpgateway.main import app

    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://gateway.test", timeout=120) as client,
    ):
        yield Gateway(stand_in, client)
    with pytest.raises(RuntimeError, match="not initialized"):
        stand_in.get_mcp_session_pool()


@pytest.mark.parametrize("transport", ["streamablehttp", "sse"])
async def test_tool_calls_share_sessions_and_every_view_says_what_they_did(
    gateway: Gateway, transport: Any
) -> None:
    before = await gateway.metrics()
    with ServerProcess(transport) as server:
        gateway_id = await gateway.register(server, f"counted-{transport}")
        for number in range(5):
            assert await gateway.call(f"counted-{transport}-echo", text=str(number)) == str(number)
        series = await gateway.series(gateway_id)
        after = await gateway.metrics()
    assert {key: after[key] - before[key] for key in ("hits", "misses", "evictions")} == {
        "hits": 4,
        "misses": 1,
        "evictions": 0,
    }
    assert series["mcp_session_pool_hits_total"] == 4
    assert series["mcp_session_pool_misses_total"] == series["mcp_session_pool_size"] == 1
    assert series["mcp_session_pool_active_sessions"] == series["mcp_session_pool_evictions_total"] == 0


async def test_the_series_name_the_gateway_as_the_database_does(gateway: Gateway) -> None:
    with ServerProcess("streamablehttp") as server:
        gateway_id = await gateway.register(server, "named")
        await gateway.call("named-echo", text="hello")
    NAMES.use(read_gateway_names)  # those that other tests had read are forgotten
    line = f'mcp_session_pool_gateway_info{{gateway_id="{gateway_id}",name="named"}} 1.0'
    async with asyncio.timeout(30):
        while line not in (await gateway.client.get("/metrics/prometheus")).text.splitlines():
            await asyncio.sleep(0.02)


async def test_more_calls_than_sessions_at_once_all_succeed(gateway: Gateway) -> None:
    with ServerProcess("streamablehttp") as server:
        gateway_id = await gateway.register(server, "crowded")
        calls = [gateway.call("crowded-slow", seconds=0.05) for _ in range(CALLS)]
        assert set(await asyncio.gather(*calls)) == {"slept 0.05"}
        series = await gateway.series(gateway_id)
    assert series["mcp_session_pool_misses_total"] <= gateway.pool._max_sessions
    assert series["mcp_session_pool_hits_total"] + series["mcp_session_pool_misses_total"] == CALLS


async def test_admin_endpoint_has_the_keys_that_the_gateways_own_pool_shows(gateway: Gateway) -> None:
    """The list is that of the endpoint's own description, and what it passes on beside it."""
    metrics = await gateway.metrics()
    assert metrics["enabled"] is True
    assert metrics.keys() - {"max_total_keys", "max_total_sessions", "total_active_sessions"} == {
        "anonymous_identity_count",
        "circuit_breaker_trips",
        "circuit_breakers",
        "enabled",
        "evictions",
        "health_check_failures",
        "hit_rate",
        "hits",
        "misses",
        "pool_key_count",
        "pool_keys_evicted",
        "pools",
        "session_affinity",
        "sessions_reaped",
    }
    assert metrics["session_affinity"].keys() == {
        "forwarded_failures",
        "forwarded_requests",
        "forwarded_timeouts",
        "hit_rate",
        "local_hits",
        "misses",
        "redis_hits",
    }
    for entry in metrics["pools"].values():
        assert entry.keys() == {"active", "available", "max"}
    for entry in metrics["circuit_breakers"].values():
        assert entry.keys() == {"failures", "open_until"}


async def test_admin_endpoint_says_so_when_there_is_no_pool(
    gateway: Gateway, stand_in: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stand_in, "_mcp_session_pool", None)
    metrics = await gateway.metrics()
    assert metrics["enabled"] is True
    assert "not initialized" in metrics["error"]
