"""Whole gateways in their default configuration: calls without a downstream session are pooled, and nobody
meets another's session.
"""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.process import ServerProcess
from support.gateway_process import GatewayProcess, failures
from support.gateway_users import (
    ADMIN,
    ANN,
    BOB,
    OF_USERS,
    AuthenticatingGateway,
    as_user,
    gateway_of_users,
)
from support.registered import PREFIX, Registered, register

SETTINGS = {
    **OF_USERS,
    "INSECURE_ALLOW_QUERYPARAM_AUTH": "true",
    "MCPGATEWAY_POOL_CALLS_WITHOUT_SESSION": "stateful",
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthenticatingGateway]:
    with gateway_of_users(tmp_path_factory.mktemp("gateway"), SETTINGS) as gateway:
        yield gateway
    for complaint in ("Task was destroyed", "never awaited", "never retrieved"):
        assert complaint not in gateway.output


@pytest.fixture(scope="module", params=["streamablehttp", "sse"])
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    with ServerProcess(request.param) as server:
        yield server


@pytest.fixture
def registered(gateway: AuthenticatingGateway, server: ServerProcess) -> Iterator[Registered]:
    registered = register(gateway, server, passthrough_headers=["X-Tenant-Id", "X-Request-Id"])
    yield registered
    gateway.request("DELETE", f"/gateways/{registered.identifier}")


def test_calls_of_one_user_are_one_request_each(registered: Registered) -> None:
    before = registered.requests()
    answers = [registered.call("whoami") for _ in range(60)]
    assert failures(answers) == []
    assert 60 <= registered.requests() - before <= 66
    assert registered.count("creates_total") == 1
    assert registered.count("hits_total") == 59
    assert registered.count("unpooled_calls_total") == 0


def test_calls_of_two_users_never_share_a_session(registered: Registered) -> None:
    users = [ANN, BOB] * 8
    headers = [as_user(ANN), as_user(BOB)]
    answers = registered.gateway.call_many(len(users), 4, registered.name, "whoami", headers)
    seen = [json.loads(answer.text) for answer in answers]
    sessions = {
        user: {one["session"] for one, who in zip(seen, users, strict=True) if who == user}
        for user in (ANN, BOB)
    }
    assert sessions[ANN].isdisjoint(sessions[BOB])
    assert all(1 <= len(found) <= 4 for found in sessions.values())
    created = registered.count("creates_total")
    assert created == registered.count("size") + registered.count("evictions_total")


def test_calls_of_two_users_in_turn_have_one_session_each(registered: Registered) -> None:
    sessions = [registered.whoami(user)["session"] for user in [ANN, BOB] * 8]
    assert len(set(sessions[::2])) == len(set(sessions[1::2])) == 1
    assert sessions[0] != sessions[1]


def test_tenants_of_one_user_never_share_a_session(registered: Registered) -> None:
    seen = [registered.whoami(X_Tenant_Id=tenant) for tenant in ["red", "blue"] * 4]
    assert [one["headers"]["x-tenant-id"] for one in seen] == ["red", "blue"] * 4
    assert len({one["session"] for one in seen[::2]}) == 1
    assert {one["session"] for one in seen[::2]}.isdisjoint(one["session"] for one in seen[1::2])


def test_tokens_of_one_user_bound_to_different_teams_never_share_a_session(registered: Registered) -> None:
    free, bound = registered.whoami()["session"], registered.whoami(teams=[])["session"]
    assert free != bound
    assert registered.whoami()["session"] == free


def test_gateways_with_one_server_and_different_query_parameters_never_share_a_session(
    gateway: AuthenticatingGateway, server: ServerProcess
) -> None:
    registered = register(
        gateway,
        server,
        f"keyed{server.port}",
        auth_type="query_param",
        auth_query_param_key="api_key",
        auth_query_param_value="one",
    )
    try:
        first = registered.whoami()
        gateway.json(
            "PUT",
            f"/gateways/{registered.identifier}",
            {"auth_type": "query_param", "auth_query_param_key": "api_key", "auth_query_param_value": "two"},
        )
        assert registered.whoami()["session"] != first["session"]
    finally:
        gateway.request("DELETE", f"/gateways/{registered.identifier}")


def test_headers_of_a_call_arrive_with_it_and_with_no_other(registered: Registered) -> None:
    first = registered.whoami(X_Request_Id="first", X_Correlation_ID="c-1")
    second = registered.whoami(X_Correlation_ID="c-2")
    third = registered.whoami(X_Request_Id="third", X_Correlation_ID="c-3")
    assert len({one["session"] for one in (first, second, third)}) == 1
    assert [one["headers"].get("x-correlation-id") for one in (first, second, third)] == ["c-1", "c-2", "c-3"]
    assert first["headers"]["x-request-id"] == "first"
    assert second["headers"].get("x-request-id") not in ("first", "third")
    assert third["headers"]["x-request-id"] == "third"


def test_restarted_server_fails_no_call(registered: Registered) -> None:
    assert not registered.call("whoami").failed
    for _ in range(3):
        registered.server.kill()
        registered.server.start()
        assert failures([registered.call("whoami") for _ in range(5)]) == []
    created = registered.count("creates_total")
    assert created == registered.count("size") + registered.count("evictions_total")
    assert registered.count("size") == 1


def test_changed_gateway_gets_new_sessions_with_its_new_headers(registered: Registered) -> None:
    first = registered.whoami()
    registered.gateway.json(
        "PUT",
        f"/gateways/{registered.identifier}",
        {
            "name": registered.name,
            "url": registered.server.url,
            "auth_type": "authheaders",
            "auth_headers": [{"key": "X-Key", "value": "new"}],
        },
    )
    second = registered.whoami()
    assert "x-key" not in first["headers"]
    assert second["headers"]["x-key"] == "new"
    assert second["session"] != first["session"]
    registered.wait_until(lambda: registered.count("size") == 1)


def test_gateway_that_is_switched_off_loses_its_sessions(registered: Registered) -> None:
    assert not registered.call("whoami").failed
    status, body = registered.gateway.request(
        "POST", f"/gateways/{registered.identifier}/state?activate=false"
    )
    assert status == 200, body
    registered.wait_until(lambda: registered.count("size") == 0)


def test_deleted_gateway_loses_its_sessions(registered: Registered) -> None:
    assert not registered.call("whoami").failed
    assert registered.gateway.request("DELETE", f"/gateways/{registered.identifier}")[0] == 200
    registered.wait_until(lambda: registered.count("size") == 0)


def test_gateway_changed_by_another_worker_loses_its_sessions(
    registered: Registered, gateway: AuthenticatingGateway
) -> None:
    if registered.server.transport == "sse":
        pytest.skip("the gateway's table is looked at every five seconds, whatever the transport")
    assert not registered.call("whoami").failed
    assert registered.count("size") == 1
    connection = sqlite3.connect(gateway.folder / "gateway.db", timeout=30)
    try:
        with connection:
            connection.execute("UPDATE gateways SET enabled = 0 WHERE id = ?", (registered.identifier,))
    finally:
        connection.close()
    registered.wait_until(lambda: registered.count("size") == 0)


def test_tools_prompts_and_resources_over_mcp_without_a_session_are_pooled(registered: Registered) -> None:
    gateway, name = registered.gateway, registered.name
    prompts = gateway.json("GET", "/prompts")
    prompt = next(one["name"] for one in prompts if one["originalName"] == "note" and name in one["name"])
    for user in (ANN, ADMIN, ANN):
        called = gateway.over_mcp("tools/call", as_user(user), name=f"{name}-echo", arguments={"text": "hi"})
        assert called.text == "hi"
        read = gateway.over_mcp("resources/read", as_user(user), uri="note://all")
        assert read.body["result"]["contents"][0]["text"] == "a note for all"
        got = gateway.over_mcp("prompts/get", as_user(user), name=prompt, arguments={"name": "you"})
        assert "a note for you" in json.dumps(got.body)
    assert registered.count("misses_total") == 6
    assert registered.count("hits_total") == 3
    status, body = gateway.request("GET", "/admin/resources/test/note://all", headers=as_user(ANN))
    assert (status, b"a note for all" in body) == (200, True)
    assert registered.count("hits_total") == 4
    assert registered.count("unpooled_calls_total") == 0


def test_calls_to_an_excepted_gateway_go_the_gateways_own_way(
    gateway: AuthenticatingGateway, server: ServerProcess
) -> None:
    registered = register(gateway, server, "stateful")
    try:
        sessions = [registered.whoami()["session"] for _ in range(3)]
        assert len(set(sessions)) == 3
        assert registered.count("creates_total") == 0
        assert registered.count("unpooled_calls_total", reason="excepted") == 3
    finally:
        gateway.request("DELETE", f"/gateways/{registered.identifier}")


def test_it_says_at_its_start_that_calls_are_pooled_and_which_are_not(gateway: AuthenticatingGateway) -> None:
    lines = [line for line in gateway.output.splitlines() if "calls without a downstream session" in line]
    assert len(lines) == 1
    assert "are pooled, but for those to stateful: calls of one user share sessions" in lines[0]


def test_slow_tools_and_tool_errors_leave_the_session_as_it_is(registered: Registered) -> None:
    gateway, name = registered.gateway, registered.name
    session = registered.whoami()["session"]
    assert gateway.call(name, "fail", as_user(ANN)).failed
    assert not gateway.call(name, "slow", as_user(ANN), seconds=0.5).failed
    assert registered.whoami()["session"] == session


def test_call_on_a_session_that_the_server_has_lost_is_sent_once_more(registered: Registered) -> None:
    assert not registered.call("whoami").failed
    before = registered.server.stats()["posts"]["tools/call"]
    registered.server.fault("status", status=404, method="tools/call", body="Session not found")
    assert not registered.call("whoami").failed
    assert registered.server.stats()["posts"]["tools/call"] - before == 2
    assert registered.count("replays_total") == 1
    assert registered.count("creates_total") == 2


@pytest.mark.parametrize("fault", ["status", "cut", "end"])
def test_call_that_the_server_may_have_executed_is_not_sent_again(registered: Registered, fault: str) -> None:
    if registered.server.transport == "sse" and fault != "status":
        pytest.skip("over SSE, answers come on another stream")
    assert not registered.call("whoami").failed
    before = registered.server.stats()["posts"]["tools/call"]
    registered.server.fault(fault, method="tools/call", **({"status": 500} if fault == "status" else {}))
    assert registered.call("whoami").failed
    assert registered.server.stats()["posts"]["tools/call"] - before == 1
    assert registered.count("replays_total") == 0
    assert not registered.call("whoami").failed
    assert registered.count("active_sessions") == 0


def test_call_whose_server_refuses_the_connection_fails_as_without_a_pool(
    gateway: AuthenticatingGateway,
) -> None:
    with ServerProcess() as server:
        registered = register(gateway, server)
        try:
            assert not registered.call("whoami").failed
            server.kill()
            assert registered.call("whoami").failed
            server.start()
            assert not registered.call("whoami").failed
            assert registered.count("active_sessions") == 0
        finally:
            gateway.request("DELETE", f"/gateways/{registered.identifier}")


@pytest.mark.long("another boot: a switch for all calls; its count has short tests")
def test_own_is_the_gateways_own_way_and_is_counted(tmp_path: Path) -> None:
    settings = {**SETTINGS, "MCPGATEWAY_POOL_CALLS_WITHOUT_SESSION": "own"}
    with AuthenticatingGateway(tmp_path, environment=settings) as gateway, ServerProcess() as server:
        registered = register(gateway, server)
        sessions = [registered.whoami(ADMIN)["session"] for _ in range(3)]
        assert len(set(sessions)) == 3
        assert registered.count("creates_total") == 0
        assert registered.count("unpooled_calls_total", reason="switched_off") == 3
        assert "are not pooled" in gateway.output


@pytest.mark.long("another boot: limits of its own; without a server it has a short test")
def test_call_that_finds_no_room_in_time_gets_a_session_of_its_own(tmp_path: Path) -> None:
    settings = {
        **SETTINGS,
        "AUTH_REQUIRED": "false",
        "MCPGATEWAY_POOL_MAX_SESSIONS_PER_KEY": "1",
        "MCPGATEWAY_POOL_ACQUIRE_TIMEOUT_SECONDS": "0.2",
    }
    with GatewayProcess(tmp_path, environment=settings) as gateway, ServerProcess() as server:
        identifier = gateway.register("server", server.url)
        answers = gateway.call_many(3, 3, "server", "slow", seconds=3.0)
        assert failures(answers) == []
        assert gateway.sum(PREFIX + "acquire_timeouts_total", gateway_id=identifier) == 2
        assert gateway.sum(PREFIX + "creates_total", gateway_id=identifier) == 1
        server.wait_for(lambda stats: stats["sessions_deleted"] == stats["sessions_opened"] - 1)
        assert gateway.stop() in (0, -signal.SIGTERM)


@pytest.mark.long("two more boots: who is known, and how that is counted, has short tests")
def test_callers_that_nobody_knows_are_pooled_only_where_nobody_is_authenticated(tmp_path: Path) -> None:
    with (
        AuthenticatingGateway(
            tmp_path / "public", environment={**SETTINGS, "MCP_REQUIRE_AUTH": "false"}
        ) as public,
        GatewayProcess(tmp_path / "open", environment={**SETTINGS, "AUTH_REQUIRED": "false"}) as unprotected,
        ServerProcess() as server,
    ):
        registered = register(public, server, visibility="public")
        called = {"name": f"{registered.name}-whoami", "arguments": {}}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": called}
        accepted = {"Accept": "application/json, text/event-stream", "Authorization": ""}
        for _ in range(2):
            status, body = GatewayProcess.request(public, "POST", "/mcp/", message, accepted)
            assert status == 200, body
            assert b"session" in body
        assert registered.count("creates_total") == 0
        assert registered.count("unpooled_calls_total", reason="no_user") == 2

        identifier = unprotected.register(registered.name, server.url)
        seen = [json.loads(unprotected.call(registered.name, "whoami").text)["session"] for _ in range(3)]
        assert len(set(seen)) == 1
        assert unprotected.sum(PREFIX + "hits_total", gateway_id=identifier) == 2
        assert unprotected.sum(PREFIX + "anonymous_acquires_total", gateway_id=identifier) == 3
        assert unprotected.output.count("all callers share sessions") <= 1
