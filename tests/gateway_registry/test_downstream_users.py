"""Whole gateways that authenticate: who names another user's downstream session gets a session of their own,
by whatever way the name comes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from servers.process import ServerProcess
from support.gateway_process import sum_samples
from support.gateway_users import ANN, BOB, OF_USERS, AuthenticatingGateway, as_user, gateway_of_users

pytestmark = pytest.mark.long("boots a gateway")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthenticatingGateway]:
    with gateway_of_users(tmp_path_factory.mktemp("gateway"), OF_USERS) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def identifier(gateway: AuthenticatingGateway) -> Iterator[str]:
    """Of a registered server, named ``server``."""
    with ServerProcess() as server:
        yield gateway.register("server", server.url, passthrough_headers=["X-Tenant-Id"])


Seen = dict[str, str]


def seen_of(gateway: AuthenticatingGateway, user: str, tenant: str, way: str) -> Seen:
    """Session and headers of a call that names the downstream session ``d1``."""
    header, _, path = way.partition(" ")
    headers = as_user(user, **{"X-Tenant-Id": tenant, header: "d1"})
    if path == "/rpc":
        answer = gateway.call("server", "whoami", headers)
    else:
        answer = gateway.over_mcp("tools/call", headers, name="server-whoami", arguments={})
    seen = json.loads(answer.text)
    return {"session": seen["session"], "tenant": seen["headers"].get("x-tenant-id")}


@pytest.mark.parametrize("way", ["mcp-session-id /rpc", "x-mcp-session-id /rpc", "mcp-session-id /mcp"])
def test_forged_downstream_id_reaches_no_session_of_another_user(
    gateway: AuthenticatingGateway, identifier: str, way: str
) -> None:
    anns = seen_of(gateway, ANN, "anns", "mcp-session-id /rpc")
    bobs = seen_of(gateway, BOB, "bobs", way)
    assert (anns["tenant"], bobs["tenant"]) == ("anns", "bobs")
    assert anns["session"] != bobs["session"]


def test_all_ways_of_one_user_lead_to_one_session_with_the_headers_of_the_call(
    gateway: AuthenticatingGateway, identifier: str
) -> None:
    ways = ("mcp-session-id /rpc", "x-mcp-session-id /rpc", "mcp-session-id /mcp")
    seen = [seen_of(gateway, ANN, f"tenant{number}", way) for number, way in enumerate(ways)]
    assert [call["tenant"] for call in seen] == ["tenant0", "tenant1", "tenant2"]
    assert len({call["session"] for call in seen}) == 1


def test_tools_prompts_and_resources_of_one_user_share_a_session(
    gateway: AuthenticatingGateway, identifier: str
) -> None:
    def misses() -> float:
        return sum_samples(gateway.samples(), "mcp_session_pool_misses_total", gateway_id=identifier)

    assert seen_of(gateway, ANN, "t", "mcp-session-id /rpc")["session"]
    before = misses()
    headers = as_user(ANN, **{"mcp-session-id": "d1"})
    prompt = next(item["name"] for item in gateway.json("GET", "/prompts") if "server" in item["name"])
    gateway.over_mcp("prompts/get", headers, name=prompt, arguments={"name": "you"})
    gateway.over_mcp("resources/read", headers, uri="note://all")
    assert misses() == before
