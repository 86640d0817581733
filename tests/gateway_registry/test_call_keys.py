"""Who shares a session with whom: what the key is made of, and what the switch says."""

from __future__ import annotations

import base64
import itertools
import json
import logging
import ssl
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from mcpgateway_pool.gateway import calls_without_session, settings
from mcpgateway_pool.gateway.registry.calls import calls as calls_module
from mcpgateway_pool.gateway.registry.calls import machine_tokens
from mcpgateway_pool.gateway.registry.calls.callers import Caller, caller_of
from mcpgateway_pool.gateway.registry.calls.gateways import (
    NAMES_LAST_SECONDS,
    ExceptedGateways,
    read_unmatched,
)
from mcpgateway_pool.gateway.registry.calls.keys import CALL_HEADERS, key_of, split_headers

ANN = Caller("tools", ("ann@example.com",), None)
TOKEN = {"Authorization": "Bearer of ann"}


def factory_of(ca: str | None, cert: str | None = None, context: object = None) -> Callable[..., Any]:
    """A client factory as the release makes them: it encloses what decides the TLS."""

    def factory() -> tuple[Any, ...]:
        return ca, cert, context

    return factory


def key(caller: Caller = ANN, headers: dict[str, str] = TOKEN, factory: Any = None) -> str:
    return key_of(caller, split_headers(headers, frozenset())[0], factory)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(key(Caller("tools", ("bob@example.com",), None)), id="another user"),
        pytest.param(key(Caller("tools", ("ann@example.com", "bob@example.com"), None)), id="on behalf of"),
        pytest.param(key(Caller("prompts", ("ann@example.com",), None)), id="another service"),
        pytest.param(key(Caller("tools", ("ann@example.com",), ())), id="a token without teams"),
        pytest.param(key(Caller("tools", ("ann@example.com",), ("red",))), id="a token of a team"),
        pytest.param(key(headers={"Authorization": "Bearer of bob"}), id="another OAuth token"),
        pytest.param(key(headers={"Authorization": "Bearer exchanged"}), id="an exchanged token"),
        pytest.param(key(headers={}), id="no token"),
        pytest.param(key(headers={**TOKEN, "X-Tenant-Id": "red"}), id="a tenant"),
        pytest.param(key(headers={**TOKEN, "X-Anything": ""}), id="a header that is empty"),
        pytest.param(key(factory=factory_of("CA of one")), id="a CA"),
        pytest.param(key(factory=factory_of(None, "certificate")), id="a client certificate"),
        pytest.param(key(factory=factory_of(None, None, ssl.create_default_context())), id="a TLS context"),
    ],
)
def test_what_differs_keeps_calls_apart(other: str) -> None:
    assert other != key()


def test_all_of_these_keep_calls_apart_from_each_other() -> None:
    one, two = ssl.create_default_context(), ssl.create_default_context()
    keys = [
        key(Caller("tools", ("a", "b"), None)),
        key(Caller("tools", ("ab",), None)),
        key(Caller("tools", ("a",), ("b",))),
        key(Caller("tools", ("a",), ("b", "c"))),
        key(Caller("tools", ("a",), ("bc",))),
        key(headers={"a": "b", "c": "d"}),
        key(headers={"a": "b:c", "d": ""}),
        key(headers={"ab": "c"}),
        key(headers={"a": "bc"}),
        key(headers={"a": "1:b"}),
        key(factory=factory_of("x", "y")),
        key(factory=factory_of("y", "x")),
        key(factory=factory_of(None, None, one)),
        key(factory=factory_of(None, None, two)),
    ]
    assert len(set(keys)) == len(keys)
    assert key(factory=factory_of(None, None, one)) == keys[-2]


def test_order_and_case_of_header_names_and_order_of_teams_do_not_matter() -> None:
    assert key(headers={"A": "1", "b": "2"}) == key(headers={"B": "2", "a": "1"})
    teams = {"token_teams": ["red", "blue"], "user_email": "ann"}
    turned = {"token_teams": ["blue", "red"], "user_email": "ann"}
    assert caller_of("tools", teams, ["user_email"], "token_teams") == caller_of(
        "tools", turned, ["user_email"], "token_teams"
    )


@pytest.mark.parametrize("name", sorted(CALL_HEADERS))
def test_header_that_changes_with_each_call_is_the_calls_own(name: str) -> None:
    pinned, own = split_headers({name.title(): "1", **TOKEN}, frozenset())
    assert pinned == TOKEN
    assert own == {name.title(): "1"}


def test_named_headers_are_the_calls_own_and_those_of_the_downstream_session_go_nowhere() -> None:
    headers = {"X-Job": "7", "Mcp-Session-Id": "d1", "x-mcp-session-id": "d1", **TOKEN}
    assert split_headers(headers, frozenset({"x-job"})) == (TOKEN, {"X-Job": "7"})


# ---- tokens that the release gets for itself


class Manager:
    """Gets these tokens, one after the other."""

    def __init__(self, *tokens: str) -> None:
        self._tokens = iter(tokens)

    @machine_tokens.noting_token
    async def get_access_token(self, _credentials: dict[str, Any], _ca: str | None = None) -> str:
        return next(self._tokens)


numbers = itertools.count()


async def client_after(
    credentials: dict[str, Any], header: str | None = None, token: str = ""
) -> tuple[str, str] | None:
    """What a call's token stands for, where the call sends it, or another header. By default each token is
    another.
    """
    machine_tokens.of_call.set(None)
    token = await Manager(token or f"token {next(numbers)}").get_access_token(credentials)
    return machine_tokens.client_of({"authorization": header or f"Bearer {token}"})


async def test_tokens_of_one_client_stand_for_the_same_and_those_of_others_do_not() -> None:
    client = {"grant_type": "client_credentials", "client_id": "a", "token_url": "http://example.com"}
    turned = dict(reversed(client.items()))
    found = await client_after(client)
    assert found is not None
    assert found[0] == "authorization"
    assert found == await client_after(turned)
    for other in ({**client, "client_id": "b"}, {**client, "scopes": ["x"]}):
        assert found != await client_after(other)


def jwt(**claims: object) -> str:
    payload = json.dumps({"iat": next(numbers), "jti": f"{next(numbers)}", **claims}).encode()
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (b"{}", payload, b"s"))


async def test_tokens_of_one_client_that_say_different_things_do_not_stand_for_the_same() -> None:
    client = {"grant_type": "client_credentials", "client_id": "a", "token_url": "http://example.com"}
    said: list[dict[str, object]] = [{}, {"sub": "a"}, {"sub": "b"}, {"sub": "a", "scope": "read"}]
    found = [[await client_after(client, token=jwt(**claims)) for claims in said] for _ in range(2)]
    assert found[0] == found[1]
    assert len(set(found[0])) == len(said)


@pytest.mark.parametrize(
    "token", ["", ".", "a.b.c", "a..c", "a.e30", "a.W10.c", "a.é.c", "." + "W1tb" * 50_000], ids=range(8)
)
def test_token_that_is_no_jwt_says_nothing(token: str) -> None:
    assert machine_tokens.claims_of(token) in ("", "{}")


@pytest.mark.parametrize("grant", ["token-exchange", "authorization_code", None])
async def test_token_of_a_user_is_no_token_of_the_release(grant: str | None) -> None:
    assert await client_after({"grant_type": grant}) is None


async def test_token_that_the_call_does_not_send_counts_for_nothing() -> None:
    assert await client_after({"grant_type": "client_credentials"}, "Bearer mine") is None


@pytest.mark.parametrize("nobody", [None, "", "unknown", "anonymous", {}, {"email": None}, 7])
def test_nobody_is_nobody(nobody: object) -> None:
    assert caller_of("tools", {"user": nobody, "token_teams": []}, ["user"], "token_teams").users == ()


def test_user_may_be_a_mapping() -> None:
    found = caller_of("tools", {"user": {"email": "ann"}, "token_teams": []}, ["user"], "token_teams")
    assert found.users == ("ann",)


# ---- the switch


@pytest.mark.parametrize(
    ("text", "are_pooled", "excepted"),
    [
        ("pooled", True, set()),
        (" Own ", False, set()),
        ("files", True, {"files"}),
        ("files, 8f4909f8c95142bfb2b6006de787e643", True, {"files", "8f4909f8c95142bfb2b6006de787e643"}),
    ],
)
def test_switch_is_read(text: str, are_pooled: bool, excepted: set[str]) -> None:
    found = settings.read("calls_without_session", {"MCPGATEWAY_POOL_CALLS_WITHOUT_SESSION": text})
    assert found == calls_without_session.CallsWithoutSession(are_pooled, frozenset(excepted))


@pytest.mark.parametrize("text", ["poled", "ownn", "true", "off", "0", "files,", "files,own", "*", ","])
def test_switch_that_is_likely_a_mistake_stops_the_start(text: str) -> None:
    with pytest.raises(settings.SettingError, match="MCPGATEWAY_POOL_CALLS_WITHOUT_SESSION"):
        settings.read("calls_without_session", {"MCPGATEWAY_POOL_CALLS_WITHOUT_SESSION": text})


@pytest.mark.parametrize("text", ["x y", "a,", "Authorization", "X-Job, cookie", "a:b"])
def test_call_header_that_is_none_or_says_who_calls_stops_the_start(text: str) -> None:
    with pytest.raises(settings.SettingError, match="MCPGATEWAY_POOL_CALL_HEADERS"):
        settings.read("call_headers", {"MCPGATEWAY_POOL_CALL_HEADERS": text})


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5"])
def test_limit_that_is_none_stops_the_start(text: str) -> None:
    with pytest.raises(settings.SettingError, match="MCPGATEWAY_POOL_MAX_SESSIONS_PER_KEY"):
        settings.read("max_sessions_per_key", {"MCPGATEWAY_POOL_MAX_SESSIONS_PER_KEY": text})


# ---- exceptions by name


class Names:
    def __init__(self) -> None:
        self.now = 0.0
        self.asked = 0
        self.names: dict[str, tuple[str, ...]] = {}

    def read(self, identifier: str) -> tuple[str, ...]:
        self.asked += 1
        return (identifier, *self.names[identifier])

    def excepted(self, *listed: str) -> ExceptedGateways:
        return ExceptedGateways(frozenset(listed), read=self.read, clock=lambda: self.now)


def test_gateway_is_excepted_by_id_or_name_and_asked_for_once() -> None:
    names = Names()
    names.names = {"id-1": ("files", "files-slug"), "id-2": ("other",)}
    excepted = names.excepted("files-slug", "id-3")
    found = [excepted.has(one) for one in ("id-1", "id-2", "id-3", "id-1", "id-2")]
    assert found == [True, False, True, True, False]
    assert names.asked == 2


def test_renamed_gateway_is_noticed_with_the_change_or_after_a_while() -> None:
    names = Names()
    names.names = {"id-1": ("other",)}
    excepted = names.excepted("files")
    assert not excepted.has("id-1")
    names.names = {"id-1": ("files",)}
    assert not excepted.has("id-1")
    names.now += NAMES_LAST_SECONDS
    assert excepted.has("id-1")
    names.names = {"id-1": ("other",)}
    excepted.forget()
    assert not excepted.has("id-1")


def test_database_that_does_not_answer_makes_an_exception() -> None:
    names = Names()  # knows no gateway: KeyError
    assert names.excepted("files").has("id-1")
    assert not names.excepted().has("id-1")


# ---- names that mean no gateway


async def test_a_listed_name_that_means_no_gateway_is_warned_of_once(
    release: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MCPGATEWAY_POOL_CALLS_WITHOUT_SESSION", "known, mistyped, 7f3a")
    asked = []

    def read(listed: frozenset[str]) -> list[str]:
        asked.append(listed)
        return sorted(listed - {"known"})

    monkeypatch.setattr(calls_module, "read_unmatched", read)
    registry = release.UpstreamSessionRegistry()
    with caplog.at_level(logging.WARNING, registry._calls._log.name):
        for _ in range(3):
            registry._calls.admit(None, "g1")
            await registry._calls._looking
    await registry.close_all()
    assert asked == [{"known", "mistyped", "7f3a"}]
    [line] = [record.getMessage() for record in caplog.records if "no gateway's" in record.getMessage()]
    assert line.endswith(": 7f3a, mistyped")
    assert "MCPGATEWAY_POOL_CALLS_WITHOUT_SESSION" in line


def test_ids_and_names_of_the_database_are_known(release: ModuleType) -> None:
    from mcpgateway import db

    db.Base.metadata.create_all(db.engine)
    with db.SessionLocal() as session:
        gateway = db.Gateway(name="A Name", slug="a-name", url="http://server.test/mcp", capabilities={})
        session.add(gateway)
        session.commit()
        identifier = str(gateway.id)
    try:
        listed = frozenset({"A Name", "a-name", identifier, "a name", "other"})
        assert read_unmatched(listed) == ["a name", "other"]
        assert read_unmatched(frozenset()) == []
    finally:  # in an empty database, all gateways of other tests would be deleted ones
        db.Base.metadata.drop_all(db.engine)


# ---- a release that authenticates nobody


@pytest.mark.parametrize("is_on", [False, True])
async def test_without_authentication_all_callers_are_one_which_is_warned_of_once(
    release: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_on: bool
) -> None:
    from mcpgateway.config import settings as release_settings

    monkeypatch.setattr(release_settings, "auth_required", is_on)
    registry = release.UpstreamSessionRegistry()
    with caplog.at_level(logging.WARNING, registry._calls._log.name):
        nobody = [registry._calls.admit(Caller("tools", (), teams), "g1") for teams in (None, ("red",), None)]
        ann = registry._calls.admit(ANN, "g1")
    await registry.close_all()
    warned = [record for record in caplog.records if "AUTH_REQUIRED=false" in record.getMessage()]
    assert ann.caller == ANN
    if is_on:
        assert nobody == [None] * 3
        assert warned == []
    else:
        assert [call.caller.is_anonymous for call in nobody] == [True] * 3
        assert [call.caller.teams for call in nobody] == [None, ("red",), None]
        assert [record.levelname for record in warned] == ["WARNING"]
