"""Whole gateways: calls that differ in what they authenticate with never meet in one session, whatever way
the gateway came to its credentials.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from servers.oauth_server import OAuthServer
from servers.process import ServerProcess
from support.certificates import Authority
from support.gateway_users import (
    ADMIN,
    ANN,
    BOB,
    OF_USERS,
    AuthenticatingGateway,
    as_user,
    gateway_of_users,
)
from support.registered import Registered, registering

pytestmark = pytest.mark.long(
    "another boot: each way of the gateway to its credentials; keys have unit tests"
)

SETTINGS = {
    **OF_USERS,
    # To all servers; each registered server has a list of its own, empty at first, which wins.
    "DEFAULT_PASSTHROUGH_HEADERS": '["X-Other"]',
    "PASSTHROUGH_HEADERS_SOURCE": "env",
    "INSECURE_ALLOW_QUERYPARAM_AUTH": "true",
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthenticatingGateway]:
    with gateway_of_users(tmp_path_factory.mktemp("gateway"), SETTINGS) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess() as server:
        yield server


@pytest.fixture(scope="module")
def oauth() -> Iterator[OAuthServer]:
    with OAuthServer() as oauth:
        yield oauth


@pytest.fixture
def registered(gateway: AuthenticatingGateway, server: ServerProcess) -> Iterator[Registered]:
    with registering(gateway, server) as registered:
        yield registered


def authorization(seen: dict[str, Any]) -> str:
    return str(seen["headers"]["authorization"])


def consent(registered: Registered, user: str) -> None:
    """The user lets the gateway act in their name: the authorization code flow, without a browser."""
    gateway = registered.gateway
    location = gateway.location(f"/oauth/authorize/{registered.identifier}", as_user(user))
    state = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(location).query))["state"]
    query = urllib.parse.urlencode({"code": user, "state": state})
    status, body = gateway.request("GET", f"/oauth/callback?{query}")
    assert status == 200, body


@pytest.fixture
def consenting(
    gateway: AuthenticatingGateway, server: ServerProcess, oauth: OAuthServer
) -> Iterator[Registered]:
    """A gateway with a token for each user, who gave it their consent."""
    identifier = gateway.add_gateway(
        "consenting", server.url, auth_type="oauth", oauth_config=oauth.config("authorization_code")
    )
    registered = Registered(gateway, server, "consenting", identifier)
    for user in (ANN, BOB):
        consent(registered, user)
    gateway.json("POST", f"/oauth/fetch-tools/{identifier}", headers=as_user(ANN))
    gateway.learn_tools(registered.name, identifier)
    yield registered
    gateway.request("DELETE", f"/gateways/{identifier}")


def calls_in_turn(registered: Registered, *headers: dict[str, str]) -> list[list[dict[str, Any]]]:
    """What the server saw of three calls with each of these headers, by headers, made in turn."""
    seen: list[list[dict[str, Any]]] = [[] for _ in headers]
    for _ in range(3):
        for found, sent in zip(seen, headers, strict=True):
            answer = registered.gateway.call(registered.name, "whoami", sent)
            found.append(json.loads(answer.text))
    return seen


def assert_apart(*seen: list[dict[str, Any]]) -> None:
    """Each of these has one session, and none has that of another."""
    sessions = [{call["session"] for call in calls} for calls in seen]
    assert [len(found) for found in sessions] == [1] * len(seen)
    assert len(set().union(*sessions)) == len(seen)


# ---- OAuth


def test_oauth_tokens_of_two_users_never_meet(consenting: Registered) -> None:
    ann, bob = calls_in_turn(consenting, as_user(ANN), as_user(BOB))
    assert {authorization(call).split("-", 2)[2] for call in ann} == {ANN}
    assert {authorization(call).split("-", 2)[2] for call in bob} == {BOB}
    assert_apart(ann, bob)


def test_renewed_oauth_token_of_a_user_is_used_from_the_next_call_on(consenting: Registered) -> None:
    first = consenting.whoami()
    consent(consenting, ANN)
    second = consenting.whoami()
    assert authorization(first) != authorization(second)
    assert first["session"] != second["session"]


def test_user_without_an_oauth_token_is_refused_though_sessions_of_others_are_open(
    consenting: Registered,
) -> None:
    assert not consenting.call("whoami").failed
    before = consenting.requests()
    assert consenting.call("whoami", ADMIN).failed
    assert consenting.requests() == before


def test_exchanged_tokens_never_meet(
    gateway: AuthenticatingGateway, server: ServerProcess, oauth: OAuthServer
) -> None:
    identifier = gateway.add_gateway(
        "exchanging",
        server.url,
        auth_type="oauth",
        oauth_config=oauth.config("token-exchange", target_audience="server"),
    )
    try:
        # Which of them finds the tools depends on the release.
        for path in (f"/oauth/fetch-tools/{identifier}", f"/gateways/{identifier}/tools/refresh"):
            gateway.request("POST", path, headers=as_user(ANN))
        gateway.learn_tools("exchanging", identifier)
        registered = Registered(gateway, server, "exchanging", identifier)
        ann, bob, again = calls_in_turn(registered, as_user(ANN), as_user(BOB), as_user(ANN))
        assert {authorization(call).split("-", 2)[2] for call in ann + again} == {ANN}
        assert {authorization(call).split("-", 2)[2] for call in bob} == {BOB}
        assert_apart(ann, bob)
        # Whether the second login of one user is exchanged anew depends on the release, too.
        pairs = {(authorization(call), call["session"]) for call in ann + bob + again}
        assert len(pairs) == len({token for token, _ in pairs}) == len({session for _, session in pairs})
    finally:
        gateway.request("DELETE", f"/gateways/{identifier}")


def test_tokens_that_the_gateway_gets_for_itself_arrive_with_their_calls_on_one_session_of_each_user(
    gateway: AuthenticatingGateway, server: ServerProcess, oauth: OAuthServer
) -> None:
    config = oauth.config("client_credentials")
    with registering(gateway, server, "client", auth_type="oauth", oauth_config=config) as registered:
        ann, bob = calls_in_turn(registered, as_user(ANN), as_user(BOB))
        tokens = [authorization(call) for calls in (ann, bob) for call in calls]
        assert len(set(tokens)) == 6, "each call has a token of its own"
        assert_apart(ann, bob)
        theirs = as_user(ANN, **{"X-Upstream-Authorization": "Bearer mine"})
        own, mine = calls_in_turn(registered, as_user(ANN), theirs)
        assert {authorization(call) for call in mine} == {"Bearer mine"}
        assert_apart(own, mine)


# ---- the callers' own


def test_tokens_bound_to_different_teams_never_meet(registered: Registered) -> None:
    red, blue = (registered.gateway.add_team(name, ANN, BOB) for name in ("red", "blue"))
    bounds = [None, [], [red], [blue], [red, blue]]
    assert_apart(*calls_in_turn(registered, *(as_user(ANN, teams) for teams in bounds)))
    both = [registered.whoami(ANN, teams=teams)["session"] for teams in ([red, blue], [blue, red])]
    assert both[0] == both[1]


def test_credentials_that_callers_bring_themselves_never_meet(registered: Registered) -> None:
    name = "X-Upstream-Authorization"
    one, two, none = calls_in_turn(
        registered, as_user(ANN, **{name: "one"}), as_user(ANN, **{name: "two"}), as_user(ANN)
    )
    assert {authorization(call) for call in one} == {"one"}
    assert {authorization(call) for call in two} == {"two"}
    assert {call["headers"].get("authorization") for call in none} == {None}
    assert_apart(one, two, none)


def test_values_of_a_header_that_passes_to_one_server_never_meet(
    gateway: AuthenticatingGateway, server: ServerProcess
) -> None:
    with registering(gateway, server, "passing", passthrough_headers=["X-Own"]) as registered:
        one, two = calls_in_turn(
            registered, *(as_user(ANN, **{"X-Own": value, "X-Other": value}) for value in ("one", "two"))
        )
        assert {call["headers"].get("x-own") for call in one} == {"one"}
        assert {call["headers"].get("x-own") for call in two} == {"two"}
        assert {call["headers"].get("x-other") for call in one + two} == {None}
        assert_apart(one, two)


# ---- those of the gateway's entries


def test_values_of_a_query_parameter_never_meet(
    gateway: AuthenticatingGateway, server: ServerProcess
) -> None:
    def keyed(value: str, **more: object) -> AbstractContextManager[Registered]:
        return registering(
            gateway,
            server,
            f"keyed-{value}",
            auth_type="query_param",
            auth_query_param_key="api_key",
            auth_query_param_value=value,
            **more,
        )

    # The gateway takes one address twice only where not the same people see both.
    team = gateway.add_team("keyed", ANN)
    with keyed("one") as one, keyed("two", visibility="team", team_id=team) as two:
        assert_apart(*([each.whoami(ANN, teams=[team]) for _ in range(3)] for each in (one, two)))


def test_server_with_a_private_authority_is_pooled_and_verified_again_by_each_session(
    gateway: AuthenticatingGateway, tmp_path: Path
) -> None:
    # The gateway calls 127.0.0.1 by its name.
    mine, other = (Authority(tmp_path, name) for name in ("mine", "other"))
    trusted, foreign = (str(one.server_certificate(address="localhost")) for one in (mine, other))
    with (
        ServerProcess("streamablehttp", "--certificate", trusted) as server,
        registering(gateway, server, "private", ca_certificate=mine.pem) as registered,
    ):
        assert_apart([registered.whoami() for _ in range(3)])
        server.kill()
        with ServerProcess("streamablehttp", "--certificate", foreign, port=server.port) as impostor:
            assert registered.call("whoami").failed
            assert impostor.stats()["posts"] == {}
        server.start()
        assert not registered.call("whoami").failed


def fields_of(certificate: Path) -> dict[str, str]:
    """A client certificate as a gateway takes it."""
    key, begin, rest = certificate.read_text().partition("-----BEGIN CERTIFICATE-----")
    return {"client_cert": begin + rest, "client_key": key}


def test_client_certificates_never_meet(gateway: AuthenticatingGateway, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    one, two = (authority.client_certificate(name) for name in ("one", "two"))
    options = {
        "--certificate": authority.server_certificate(address="localhost"),
        "--client-authority": authority.path,
    }
    arguments = [str(part) for option in options.items() for part in option]
    with (
        ServerProcess("streamablehttp", *arguments, client_certificate=one) as server,
        registering(gateway, server, "mutual", ca_certificate=authority.pem, **fields_of(one)) as registered,
    ):
        first = [registered.whoami() for _ in range(3)]
        gateway.json("PUT", f"/gateways/{registered.identifier}", fields_of(two))
        second = [registered.whoami() for _ in range(3)]
        assert [call["peer"] for call in first + second] == ["one"] * 3 + ["two"] * 3
        assert_apart(first, second)
        registered.wait_until(lambda: registered.count("size") == 1)


# ---- rights that are taken away


def assert_refused(registered: Registered, user: str, teams: list[str] | None = None) -> None:
    """The call fails, and the server hears nothing of it."""
    before = registered.requests()
    assert registered.call("whoami", user, teams=teams).failed
    assert registered.requests() == before


def test_user_who_left_the_team_is_refused_though_a_session_is_open(
    gateway: AuthenticatingGateway, server: ServerProcess
) -> None:
    team = gateway.add_team("green", ANN, BOB)
    with registering(gateway, server, "team", team_id=team, visibility="team") as registered:
        for user in (ANN, BOB):
            assert not registered.call("whoami", user, teams=[team]).failed
        gateway.json("DELETE", f"/teams/{team}/members/{BOB}")
        assert_refused(registered, BOB, [team])
        assert not registered.call("whoami", ANN, teams=[team]).failed


def test_user_who_was_deleted_is_refused_though_a_session_is_open(registered: Registered) -> None:
    registered.gateway.add_user("carol@example.com")
    assert not registered.call("whoami", "carol@example.com").failed
    registered.gateway.json("DELETE", "/auth/email/admin/users/carol@example.com")
    assert_refused(registered, "carol@example.com")


def test_tool_that_was_switched_off_is_refused_though_a_session_is_open(registered: Registered) -> None:
    gateway = registered.gateway
    assert not registered.call("whoami").failed
    tools = gateway.json("GET", "/tools?limit=0")
    tool = next(
        one for one in tools if one["gatewayId"] == registered.identifier and one["originalName"] == "whoami"
    )
    gateway.json("POST", f"/tools/{tool['id']}/state?activate=false")
    assert_refused(registered, ANN)


def test_server_that_was_made_private_is_refused_to_others_though_a_session_is_open(
    registered: Registered,
) -> None:
    team = registered.gateway.add_team("yellow", ANN, BOB)
    assert not registered.call("whoami", ANN, teams=[team]).failed
    registered.gateway.json("PUT", f"/gateways/{registered.identifier}", {"visibility": "private"})
    assert_refused(registered, ANN, [team])
