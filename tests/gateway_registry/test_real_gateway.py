"""Whole gateways with the registry: calls with an ``mcp-session-id``, and the series at their endpoint."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from servers.process import ServerProcess
from support.gateway_process import OUR_APP, STOCK_APP, SWITCH, GatewayProcess, failures, sum_samples

PREFIX = "mcp_session_pool_"
PATIENCE_SECONDS = 30.0
# Sessions have state on the server: newer protocol revisions, which 1.1.0 prefers, have none.
WITH_STATE = {**SWITCH, "MCP_CLIENT_CONNECT_MODE": "legacy", "HEALTH_CHECK_INTERVAL": "3600"}


def of(downstream: str) -> dict[str, str]:
    return {"mcp-session-id": downstream}


def over_mcp(gateway: GatewayProcess, method: str, **params: object) -> bytes:
    """A request to the gateway's own MCP endpoint: for prompts and resources, ``/rpc`` has no downstream
    session.
    """
    headers = {**of("d1"), "Accept": "application/json, text/event-stream"}
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return gateway.request("POST", "/mcp/", message, headers)[1]


class Series:
    """The series of one gateway id, as changes since this was made."""

    def __init__(self, gateway: GatewayProcess, gateway_id: str) -> None:
        self._gateway = gateway
        self._id = gateway_id
        self._before: dict[str, float] = {}
        self._before = self.now()

    def now(self) -> dict[str, float]:
        samples = self._gateway.samples()
        found: dict[str, float] = {}
        for name in (
            "hits_total",
            "misses_total",
            "creates_total",
            "evictions_total",
            "size",
            "active_sessions",
        ):
            try:
                value = sum_samples(samples, PREFIX + name, gateway_id=self._id)
            except KeyError:  # it has no row yet
                value = 0.0
            found[name] = value - self._before.get(name, 0.0) if name.endswith("_total") else value
        return found

    def wait_for(self, condition: Callable[[dict[str, float]], bool]) -> dict[str, float]:
        end = time.monotonic() + PATIENCE_SECONDS
        while not condition(found := self.now()):
            assert time.monotonic() < end, found
            time.sleep(0.05)
        return found


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path_factory.mktemp("gateway"), environment=WITH_STATE) as gateway:
        yield gateway
        assert gateway.stop() in (0, -signal.SIGTERM)
        assert "Task was destroyed" not in gateway.output


@pytest.fixture(params=["streamablehttp", "sse"])
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    with ServerProcess(request.param) as server:
        yield server


@pytest.fixture
def registered(gateway: GatewayProcess, server: ServerProcess) -> Iterator[tuple[str, str]]:
    """The name and the id of the server at the gateway."""
    name = f"server{server.port}"
    transport = {"sse": "SSE", "streamablehttp": "STREAMABLEHTTP"}[server.transport]
    identifier = gateway.register(name, server.url, transport)
    yield name, identifier
    gateway.request("DELETE", f"/gateways/{identifier}")


def test_it_says_at_its_start_what_is_replaced(gateway: GatewayProcess) -> None:
    lines = [line for line in gateway.output.splitlines() if "mcpgateway-pool" in line]
    assert len(lines) == 2
    assert "is on: session registry of ContextForge" in lines[0]
    assert "calls without a downstream session are pooled" in lines[1]


def test_tool_prompt_and_resource_calls_share_a_session_and_the_series_are_exact(
    gateway: GatewayProcess, registered: tuple[str, str]
) -> None:
    name, identifier = registered
    series = Series(gateway, identifier)
    prompts = {
        item["originalName"]: item["name"] for item in gateway.json("GET", "/prompts") if name in item["name"]
    }
    for _ in range(3):
        assert gateway.call(name, "echo", of("d1"), text="hello").text == "hello"
    assert b"a note for you" in over_mcp(
        gateway, "prompts/get", name=prompts["note"], arguments={"name": "you"}
    )
    assert b"a note for all" in over_mcp(gateway, "resources/read", uri="note://all")
    assert series.now() == {
        "hits_total": 4,
        "misses_total": 1,
        "creates_total": 1,
        "evictions_total": 0,
        "size": 1,
        "active_sessions": 0,
    }


def test_downstream_sessions_of_one_user_never_see_each_others_state(
    gateway: GatewayProcess, registered: tuple[str, str]
) -> None:
    name, identifier = registered
    series = Series(gateway, identifier)
    for expected in ("1", "2", "3"):
        for downstream in ("d1", "d2"):
            assert gateway.call(name, "counter", of(downstream)).text == expected
    assert series.now()["creates_total"] == 2


def test_concurrent_calls_of_many_downstream_sessions_succeed_and_add_up(
    gateway: GatewayProcess, registered: tuple[str, str]
) -> None:
    name, identifier = registered
    series = Series(gateway, identifier)
    answers = gateway.call_many(60, 8, name, "echo", [of(f"d{n}") for n in range(5)], text="hello")
    assert failures(answers) == []
    found = series.now()
    assert found["hits_total"] + found["misses_total"] == 60
    assert found["creates_total"] == found["misses_total"] == found["size"] == 5


def test_restarted_server_is_recovered_from(
    gateway: GatewayProcess, server: ServerProcess, registered: tuple[str, str]
) -> None:
    name, identifier = registered
    series = Series(gateway, identifier)
    assert not gateway.call(name, "echo", of("d1"), text="hello").failed
    for _ in range(3):
        server.kill()
        server.start()
        answers = [gateway.call(name, "echo", of("d1"), text="hello") for _ in range(3)]
        assert len(failures(answers)) <= 1
    found = series.now()
    assert found["size"] == 1
    assert found["creates_total"] == 4
    assert found["evictions_total"] == 3


def test_sighup_replaces_every_session(gateway: GatewayProcess, registered: tuple[str, str]) -> None:
    name, identifier = registered
    series = Series(gateway, identifier)
    for downstream in ("d1", "d2"):
        assert not gateway.call(name, "echo", of(downstream), text="hello").failed
    os.kill(gateway.pid, signal.SIGHUP)
    found = series.wait_for(lambda found: found["size"] == 0)
    assert found["evictions_total"] == 2
    assert not gateway.call(name, "echo", of("d1"), text="hello").failed
    assert series.now()["size"] == 1


def test_deleted_gateway_keeps_no_session(gateway: GatewayProcess, registered: tuple[str, str]) -> None:
    name, identifier = registered
    series = Series(gateway, identifier)
    for downstream in ("d1", "d2"):
        assert not gateway.call(name, "echo", of(downstream), text="hello").failed
    assert gateway.request("DELETE", f"/gateways/{identifier}")[0] == 200
    series.wait_for(lambda found: found["size"] == 0 and found["evictions_total"] == 2)


@pytest.mark.long("three workers to boot; three processes that share counters have tests without a gateway")
@pytest.mark.parametrize("app", [STOCK_APP, OUR_APP])
def test_three_workers_show_the_sum_of_their_series(tmp_path: Path, app: str) -> None:
    environment = {**WITH_STATE, "MCPGATEWAY_POOL_METRICS_DIR": str(tmp_path / "counters")}
    if app == OUR_APP:
        environment.pop("MCPGATEWAY_POOL_ENABLED")
    with (
        GatewayProcess(
            tmp_path / "gateway", workers=3, launcher="gunicorn", app=app, environment=environment
        ) as gateway,
        ServerProcess() as server,
    ):
        identifier = gateway.register("server", server.url)
        answers = gateway.call_many(60, 6, "server", "echo", [of(f"d{n}") for n in range(6)], text="hello")
        assert failures(answers) == []
        scrapes = gateway.scrape_each_worker()
        for name in ("hits_total", "misses_total", "size"):
            shown = {sum_samples(scrape, PREFIX + name, gateway_id=identifier) for scrape in scrapes}
            assert len(shown) == 1, f"workers do not agree on {name}"
        samples = gateway.samples()
        hits = sum_samples(samples, PREFIX + "hits_total", gateway_id=identifier)
        misses = sum_samples(samples, PREFIX + "misses_total", gateway_id=identifier)
        assert hits + misses == 60
        assert misses == sum_samples(samples, PREFIX + "size", gateway_id=identifier)
        assert gateway.stop() in (0, -signal.SIGTERM)


@pytest.mark.long("a gateway to boot; what is logged has tests without one")
def test_counters_that_cannot_be_shared_are_said_at_the_default_log_level(tmp_path: Path) -> None:
    directory = tmp_path / "missing" / "counters"
    environment = {**WITH_STATE, "MCPGATEWAY_POOL_METRICS_DIR": str(directory)}
    environment.pop("LOG_LEVEL", None)
    with GatewayProcess(tmp_path / "gateway", environment=environment) as gateway, ServerProcess() as server:
        gateway.register("server", server.url)
        assert not gateway.call("server", "echo", of("d1"), text="hello").failed
        output = gateway.output
    assert f"the workers do not share their counters: {directory}: it cannot be made" in output
    assert "cannot make its counters file" in output  # by the first pool


def test_doctor_says_which_gateway_this_is_and_what_is_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    from mcpgateway_pool.cli import main

    main(["doctor"])
    said = capsys.readouterr().out
    assert f"ContextForge {version('mcp-contextforge-gateway')}" in said
    assert "upstream_session_registry.UpstreamSessionRegistry" in said
    assert "calls without a downstream session are pooled" in said
