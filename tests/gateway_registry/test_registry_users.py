"""The registry and who calls: nobody reaches another user's session by naming it, and each request has the
headers of its own call.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any

import pytest

from mcpgateway_pool.gateway.registry.calls.callers import Caller, current
from servers.process import ServerProcess
from support.fake_upstreams import URL, FakeUpstream

ANN, BOB = "ann@example.com", "bob@example.com"
PATIENCE_SECONDS = 30.0


def calls_of(user: str | None) -> contextvars.Context:
    """A context in which the release has authenticated this user; None: nobody."""
    context = contextvars.copy_context()
    context.run(current.set, Caller("tools", () if user is None else (user,), None))
    return context


async def as_user(user: str | None, call: Any) -> Any:
    return await asyncio.get_running_loop().create_task(call, context=calls_of(user))


def bearer(token: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", **more}


# ---- whose session it is


@pytest.fixture
async def registry(release: ModuleType, upstream: FakeUpstream) -> AsyncIterator[Any]:
    registry = release.UpstreamSessionRegistry(session_factory=upstream.open)
    yield registry
    await registry.close_all()
    assert upstream.open_now == []


async def use(registry: Any, downstream: str = "d1", gateway: str = "g1") -> Any:
    from mcpgateway.services.upstream_session_registry import TransportType

    async with registry.acquire(
        downstream_session_id=downstream,
        gateway_id=gateway,
        url=URL,
        headers=None,
        transport_type=TransportType.STREAMABLE_HTTP,
    ) as session:
        return session


async def test_who_names_the_session_of_another_user_gets_one_of_their_own(
    registry: Any, upstream: FakeUpstream
) -> None:
    anns = await as_user(ANN, use(registry))
    for intruder in (BOB, None, ANN.upper(), ANN + " "):
        assert await as_user(intruder, use(registry)) is not anns
    assert await as_user(ANN, use(registry)) is anns
    assert upstream.attempts == 5
    assert {session.request.downstream_session_id for session in upstream.sessions} == {"d1"}


async def test_no_name_of_a_user_imitates_another_split(registry: Any, upstream: FakeUpstream) -> None:
    for user, downstream in (
        ("ab", "c"),
        ("a", "bc"),
        ("abc", "d"),
        (None, "abc"),
        ("a\0b", "c"),
        ("ä", "c"),
    ):
        await as_user(user, use(registry, downstream))
    assert upstream.attempts == 6


async def test_a_user_keeps_the_session_whatever_service_is_called(
    registry: Any, upstream: FakeUpstream
) -> None:
    tools = Caller("tools", (ANN, ANN), None)
    prompts = Caller("prompts", (ANN,), ("team",))
    for caller in (tools, prompts, tools):
        context = contextvars.copy_context()
        context.run(current.set, caller)
        await asyncio.get_running_loop().create_task(use(registry), context=context)
    assert upstream.attempts == 1


async def test_without_authentication_the_administrators_name_is_nobodys(
    registry: Any, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Releases give it to the tool calls of nobody, and none to their prompts."""
    from mcpgateway.config import settings

    administrator = settings.platform_admin_email
    monkeypatch.setattr(settings, "auth_required", False)
    for user in (administrator, None, administrator):
        await as_user(user, use(registry))
    assert upstream.attempts == 1
    await as_user(ANN, use(registry))  # by a token, which is looked at all the same
    assert upstream.attempts == 2
    monkeypatch.setattr(settings, "auth_required", True)
    await as_user(administrator, use(registry))
    assert upstream.attempts == 3


async def test_evicting_a_downstream_session_ends_the_sessions_of_all_its_users(
    registry: Any, upstream: FakeUpstream
) -> None:
    for user in (ANN, BOB, None):
        await as_user(user, use(registry))
        await as_user(user, use(registry, "d2"))
    assert await registry.evict_session("d1") == 3
    assert len(upstream.open_now) == 3
    assert await registry.evict_gateway("g1") == 3
    assert registry._sessions == {}


# ---- what is sent


@pytest.fixture(scope="module", params=["streamablehttp", "sse"])
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    with ServerProcess(request.param) as server:
        yield server


@pytest.fixture(params=["exclusive", "shared"])
async def calls(
    request: pytest.FixtureRequest,
    release: ModuleType,
    server: ServerProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Calls]:
    monkeypatch.setenv("MCPGATEWAY_POOL_CONCURRENCY", request.param)
    if hasattr(release, "settings"):  # newer revisions of the protocol have no sessions
        monkeypatch.setattr(release.settings, "mcp_client_connect_mode", "legacy")
    calls = Calls(release, server)
    yield calls
    server.fault("clear")
    await calls.registry.close_all()


class Calls:
    """Calls to a real server, through a registry with the release's own session factory."""

    def __init__(self, release: ModuleType, server: ServerProcess) -> None:
        self.registry = release.UpstreamSessionRegistry(idle_validation_seconds=3600)
        self._release = release
        self._server = server

    def acquire(self, headers: dict[str, str] | None, **more: Any) -> Any:
        arguments = {
            "downstream_session_id": "d1",
            "gateway_id": "g1",
            "url": self._server.url,
            "headers": headers,
            "transport_type": self._release.TransportType(self._server.transport),
        }
        return self.registry.acquire(**{**arguments, **more})

    async def seen_of(self, headers: dict[str, str] | None, **more: Any) -> dict[str, Any]:
        """The headers that the server saw of a call."""
        async with self.acquire(headers, **more) as upstream:
            return await self.seen_on(upstream)

    @staticmethod
    async def seen_on(upstream: Any) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            result = await upstream.session.call_tool("whoami", {})
        seen: dict[str, Any] = json.loads(result.content[0].text)
        return {**seen["headers"], "session": seen["session"]}


async def test_renewed_token_is_used_from_its_first_call_on_without_a_new_session(calls: Calls) -> None:
    first = await calls.seen_of(bearer("old-token", **{"X-Tenant": "t1", "X-Gone": "soon"}))
    second = await calls.seen_of(bearer("new-token", **{"X-Tenant": "t2", "X-Came": "late"}))
    third = await calls.seen_of(None)
    assert [seen.get("authorization") for seen in (first, second, third)] == [
        "Bearer old-token",
        "Bearer new-token",
        None,
    ]
    assert [seen.get("x-tenant") for seen in (first, second, third)] == ["t1", "t2", None]
    assert "x-gone" not in second
    assert second["x-came"] == "late"
    assert first["session"] == second["session"] == third["session"]
    assert calls.registry.snapshot().creates == 1


async def test_calls_headers_leave_those_of_the_transport_alone(calls: Calls) -> None:
    first = await calls.seen_of(bearer("one"))
    second = await calls.seen_of(
        bearer("two", **{"Content-Type": "text/plain", "Accept": "no/thing", "Mcp-Session-Id": "forged"})
    )
    assert second["session"] == first["session"]
    for name in ("content-type", "accept", "host", "mcp-protocol-version"):
        assert second.get(name) == first.get(name)
    assert calls.registry.snapshot().creates == 1


async def test_check_before_hand_out_has_the_headers_of_the_call_that_wants_the_session(
    calls: Calls, server: ServerProcess
) -> None:
    """With the old token, which has expired meanwhile, the session would be lost with all its state."""
    first = await calls.seen_of(bearer("expired"))
    server.fault("status", status=401, authorization="Bearer expired", count=1000)
    for upstream in calls.registry._sessions.values():
        upstream.last_used = 0.0  # long ago
    second = await calls.seen_of(bearer("renewed"))
    assert second["session"] == first["session"]
    assert calls.registry.snapshot().health_check_failures == 0


async def test_token_of_one_user_is_never_sent_for_another_who_names_the_session(calls: Calls) -> None:
    anns = await as_user(ANN, calls.seen_of(bearer("anns")))
    bobs = await as_user(BOB, calls.seen_of(bearer("bobs")))
    assert (anns["authorization"], bobs["authorization"]) == ("Bearer anns", "Bearer bobs")
    assert anns["session"] != bobs["session"]


async def test_calls_at_once_on_one_session_have_each_their_own_headers(
    release: ModuleType, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCPGATEWAY_POOL_CONCURRENCY", "shared")
    calls = Calls(release, server)
    try:
        async with calls.acquire(bearer("outer")) as outer:
            async with calls.acquire(bearer("inner")) as inner:
                assert inner is outer
                assert (await calls.seen_on(inner))["authorization"] == "Bearer inner"
                # Another task, begun within this use.
                seen = await asyncio.create_task(calls.seen_on(inner))
                assert seen["authorization"] == "Bearer inner"
            assert (await calls.seen_on(outer))["authorization"] == "Bearer outer"

        async def one(token: str) -> list[Any]:
            async with calls.acquire(bearer(token)) as upstream:
                return [(await calls.seen_on(upstream))["authorization"] for _ in range(3)]

        tokens = [f"token-{number}" for number in range(8)]
        for token, seen in zip(tokens, await asyncio.gather(*map(one, tokens)), strict=True):
            assert seen == [f"Bearer {token}"] * 3
        assert calls.registry.snapshot().creates == 1
    finally:
        await calls.registry.close_all()


async def test_tokens_that_a_server_echoes_are_not_shown(calls: Calls, server: ServerProcess) -> None:
    await calls.seen_of(bearer("old-token"))
    echo = json.dumps({"error": {"code": 1, "message": "not old-token, not new-token"}})
    server.fault("status", status=400, method="tools/call", body=echo, type="application/json")
    with pytest.raises(Exception, match=r"^not …, not …$"):
        await calls.seen_of(bearer("new-token"))
