"""The registry behind the release's surface, with sessions that open and close without a server."""

from __future__ import annotations

import asyncio
import time
from types import ModuleType, SimpleNamespace
from typing import Any

import anyio
import pytest

from mcpgateway_pool import CircuitOpenError, PoolExhaustedError
from mcpgateway_pool.gateway.settings import SettingError
from support.fake_upstreams import URL, FakeUpstream
from support.fakes import turns
from support.registry_calls import Call, Make, acquire, evictions, in_use, use

# ---- the surface


def test_the_class_in_the_releases_module_is_ours(release: ModuleType) -> None:
    assert release.UpstreamSessionRegistry.__module__ == "mcpgateway_pool.gateway.registry.upstream_registry"
    assert release.__name__ == "mcpgateway.services.upstream_session_registry"


async def test_init_get_and_shutdown_of_the_release_use_ours(release: ModuleType) -> None:
    upstream = FakeUpstream(release)
    with pytest.raises(release.RegistryNotInitializedError):
        release.get_upstream_session_registry()
    registry = release.init_upstream_session_registry(session_factory=upstream.open)
    assert release.get_upstream_session_registry() is registry
    await use(registry)
    await release.shutdown_upstream_session_registry()
    assert upstream.open_now == []
    with pytest.raises(release.RegistryNotInitializedError):
        release.get_upstream_session_registry()


async def test_session_is_the_releases_own_and_comes_back(
    make: Make, upstream: FakeUpstream, release: ModuleType
) -> None:
    registry = make()
    first = await use(registry)
    assert isinstance(first, release.UpstreamSession)
    assert (first.downstream_session_id, first.gateway_id, first.url) == ("d1", "g1", URL)
    assert first.session is upstream.sessions[0]
    assert first.use_count == 1
    assert await use(registry) is first
    assert first.use_count == 2
    assert registry._sessions == {("d1", "g1"): first}
    assert registry.snapshot() == release.RegistrySnapshot(1, 1, 1, 0, 0, 0)


@pytest.mark.parametrize("key", [("", "g1"), ("d1", "")])
async def test_both_ids_are_required(make: Make, upstream: FakeUpstream, key: tuple[str, str]) -> None:
    registry = make()
    with pytest.raises(ValueError, match=r"^(downstream_session_id|gateway_id) is required"):
        await use(registry, *key)
    assert upstream.attempts == 0


async def test_factory_gets_the_headers_without_those_of_the_downstream_session(
    make: Make, upstream: FakeUpstream
) -> None:
    def handlers(*_: Any, **__: Any) -> None: ...

    def clients(*_: Any, **__: Any) -> None: ...

    registry = make(message_handler_factory=handlers, session_create_timeout_seconds=7)
    headers = {"Authorization": "Bearer t", "Mcp-Session-Id": "d1", "X-MCP-Session-Id": "d1"}
    await use(registry, headers=headers, httpx_client_factory=clients)
    request = upstream.sessions[0].request
    assert dict(request.headers) == {
        "Accept": "application/json, text/event-stream",
        "Authorization": "Bearer t",
    }
    assert (request.downstream_session_id, request.gateway_id, request.url) == ("d1", "g1", URL)
    assert request.httpx_client_factory is clients
    assert request.message_handler_factory is handlers
    assert request.timeout_seconds == 7


async def test_error_of_the_factory_passes_unchanged(make: Make, upstream: FakeUpstream) -> None:
    registry = make()
    upstream.error = RuntimeError("no way")
    with pytest.raises(RuntimeError) as caught:
        await use(registry)
    assert caught.value is upstream.error
    upstream.error = None
    await use(registry)


# ---- isolation


async def test_downstream_sessions_and_gateways_never_share(make: Make, upstream: FakeUpstream) -> None:
    registry = make()
    keys = [("d1", "g1"), ("d2", "g1"), ("d1", "g2"), ("d", "1g1")]
    sessions = [await use(registry, *key, headers={"Authorization": "Bearer same"}) for key in keys]
    assert len({id(session) for session in sessions}) == 4
    for key, session in zip(keys, sessions, strict=True):
        assert await use(registry, *key) is session
        assert session.session.request.downstream_session_id == key[0]


async def test_concurrent_first_calls_open_one_session_for_each_key(
    make: Make, upstream: FakeUpstream
) -> None:
    registry = make()
    upstream.holds = True
    calls = [asyncio.create_task(use(registry, f"d{n % 3}")) for n in range(12)]
    await turns()
    upstream.gate.set()
    sessions = await asyncio.gather(*calls)
    assert upstream.attempts == 3
    for number, session in enumerate(sessions):
        assert session.downstream_session_id == f"d{number % 3}"
        assert session.session.request.downstream_session_id == f"d{number % 3}"


async def test_session_to_another_url_is_replaced(
    make: Make, upstream: FakeUpstream, release: ModuleType
) -> None:
    registry = make()
    first = await use(registry)
    second = await use(registry, url="http://other.test/mcp")
    assert second.url == "http://other.test/mcp"
    third = await use(registry, url=second.url, transport_type=release.TransportType.SSE)
    assert third.transport_type is release.TransportType.SSE
    await turns()
    assert upstream.open_now == [third.session]
    assert first.is_closed
    assert evictions(registry) == {"manual": 2}
    assert registry._sessions == {("d1", "g1"): third}


# ---- concurrency


async def test_exclusive_calls_come_one_after_the_other_in_their_order(make: Make) -> None:
    registry = make()
    first = Call(registry)
    await first.begun.wait()
    others = [Call(registry) for _ in range(3)]
    await turns()
    assert [call.begun.is_set() for call in others] == [False] * 3
    await first.end()
    for number, call in enumerate(others):
        await call.begun.wait()
        assert [later.begun.is_set() for later in others[number + 1 :]] == [False] * (2 - number)
        await call.end()
    assert registry.snapshot().creates == 1


async def test_shared_calls_run_at_once_up_to_the_limit(make: Make, upstream: FakeUpstream) -> None:
    registry = make({"CONCURRENCY": "shared", "MAX_CALLS_PER_SESSION": "3"})
    calls = [Call(registry) for _ in range(5)]
    await turns()
    assert [call.begun.is_set() for call in calls] == [True, True, True, False, False]
    assert len({id(call.session) for call in calls[:3]}) == 1
    assert in_use(registry) == 1
    for call in calls:
        await call.begun.wait()
        await call.end()
    assert upstream.attempts == 1
    assert in_use(registry) == 0


async def test_downstream_sessions_do_not_wait_for_each_other(make: Make) -> None:
    registry = make()
    calls = [Call(registry, f"d{number}") for number in range(5)]
    for call in calls:
        await call.begun.wait()
    assert in_use(registry) == 5
    for call in calls:
        await call.end()


@pytest.mark.parametrize(
    "error", [ValueError("a tool's"), asyncio.CancelledError()], ids=["tool", "cancelled"]
)
async def test_errors_that_say_nothing_of_the_session_leave_it(make: Make, error: BaseException) -> None:
    registry = make()
    with pytest.raises(type(error)):
        async with acquire(registry) as session:
            raise error
    assert await use(registry) is session
    assert evictions(registry) == {}


@pytest.mark.parametrize(
    "error",
    [OSError("reset"), anyio.ClosedResourceError(), anyio.BrokenResourceError(), TimeoutError()],
    ids=lambda error: type(error).__name__,
)
async def test_no_exception_of_a_call_closes_a_session_unasked(
    make: Make, upstream: FakeUpstream, error: Exception
) -> None:
    registry = make()
    with pytest.raises(type(error)):
        async with acquire(registry):
            raise error
    assert evictions(registry) == {}
    await use(registry)
    assert registry._pool._totals()["health_checks"] == 1  # nobody watches the factory's session
    assert upstream.attempts == 1


async def test_failing_call_does_not_disturb_its_neighbours(make: Make, upstream: FakeUpstream) -> None:
    registry = make({"CONCURRENCY": "shared"})
    calls = [Call(registry) for _ in range(3)]
    for call in calls:
        await call.begun.wait()
    await calls[0].end(ValueError("a tool's"))
    await calls[1].end(OSError("reset"))
    assert len(upstream.open_now) == 1
    later = Call(registry)
    await calls[2].end()
    await later.begun.wait()
    await later.end()
    assert upstream.attempts == 1
    assert evictions(registry) == {}


async def test_cancelled_first_caller_leaves_its_session_to_the_next(
    make: Make, upstream: FakeUpstream
) -> None:
    registry = make()
    upstream.holds = True
    call = asyncio.create_task(use(registry))
    await turns()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    upstream.gate.set()
    assert (await use(registry)).downstream_session_id == "d1"
    assert upstream.attempts == 1


async def test_cancelled_waiter_does_not_keep_the_session(make: Make) -> None:
    registry = make()
    first, second, third = Call(registry), Call(registry), Call(registry)
    await first.begun.wait()
    second.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second.task
    await first.end()
    await third.begun.wait()
    await third.end()


# ---- health


async def test_session_idle_by_its_own_clock_is_checked_once_before_hand_out(
    make: Make, upstream: FakeUpstream
) -> None:
    registry = make({"CONCURRENCY": "shared"})
    session = await use(registry)
    await use(registry)
    assert upstream.sessions[0].pings == 0
    session.last_used = time.time() - 61
    upstream.sessions[0].holds_pings = True
    calls = [asyncio.create_task(use(registry)) for _ in range(4)]
    await turns()
    upstream.sessions[0].pong.set()
    assert {id(found) for found in await asyncio.gather(*calls)} == {id(session)}
    await use(registry)
    assert upstream.sessions[0].pings == 1


async def test_session_that_fails_its_check_is_replaced(make: Make, upstream: FakeUpstream) -> None:
    registry = make(idle_validation_seconds=0)
    first = await use(registry)
    upstream.sessions[0].ping_error = OSError("gone")
    second = await use(registry)
    assert second is not first
    assert upstream.open_now == [second.session]
    snapshot = registry.snapshot()
    assert (snapshot.health_check_failures, snapshot.health_check_recreates) == (1, 1)
    assert evictions(registry) == {"health_check": 1}


async def test_session_found_closed_is_closed_properly_before_it_is_replaced(
    make: Make, upstream: FakeUpstream
) -> None:
    """The release overwrites it, and its owner task stays for ever."""
    registry = make()
    first = await use(registry)
    first._closed = True  # its transport has ended: the release's probe says so in is_closed
    second = await use(registry)
    assert second is not first
    assert upstream.open_now == [second.session]
    assert evictions(registry) == {"broken": 1}


async def test_session_whose_owner_has_ended_is_noticed_at_once(make: Make, upstream: FakeUpstream) -> None:
    registry = make()
    await use(registry)
    owner = upstream.sessions[0].owner
    assert owner is not None
    owner.cancel()
    await turns()
    assert registry._sessions == {}
    assert registry.snapshot().active_sessions == 0


# ---- close_all


async def test_close_all_leaves_the_registry_usable(make: Make, upstream: FakeUpstream) -> None:
    registry = make()
    for downstream in ("d1", "d2"):
        await use(registry, downstream)
    await registry.close_all()
    assert upstream.open_now == []
    await use(registry)
    assert len(upstream.open_now) == 1
    assert evictions(registry) == {"manual": 2}


async def test_close_all_lets_a_call_end_and_hands_its_session_to_nobody(
    make: Make, upstream: FakeUpstream
) -> None:
    registry = make(shutdown_timeout_seconds=30)
    call = Call(registry)
    await call.begun.wait()
    closing = asyncio.create_task(registry.close_all())
    await turns()
    assert len(upstream.open_now) == 1
    later = Call(registry)
    await call.end()
    await closing
    await later.begun.wait()
    assert later.session is not call.session
    await later.end()


async def test_close_all_ends_what_does_not_end_by_itself(make: Make, upstream: FakeUpstream) -> None:
    registry = make(shutdown_timeout_seconds=0.05)
    call = Call(registry)
    await call.begun.wait()
    await registry.close_all()
    assert upstream.open_now == []
    await call.end()
    assert registry.snapshot().active_sessions == 0


async def test_close_all_ends_a_creation_that_hangs(make: Make, upstream: FakeUpstream) -> None:
    registry = make(shutdown_timeout_seconds=0.05)
    upstream.holds = True
    call = asyncio.create_task(use(registry))
    await turns()
    await registry.close_all()
    with pytest.raises(RuntimeError, match="the registry was closed"):
        await call
    upstream.gate.set()
    await use(registry)


async def test_owner_that_ignores_the_event_is_cancelled(make: Make, upstream: FakeUpstream) -> None:
    registry = make(shutdown_timeout_seconds=0.05)
    upstream.ignores_shutdown = True
    await use(registry)
    assert await registry.evict_session("d1") == 1
    assert upstream.open_now == []


# ---- what the release lacks, by setting


async def test_lifetime_and_idle_timeout_close_sessions(make: Make, upstream: FakeUpstream) -> None:
    registry = make({"SESSION_TTL_SECONDS": "0.05"})
    first = await use(registry)
    await asyncio.wait_for(asyncio.shield(first.session.owner), 20)
    assert evictions(registry) == {"ttl_expired": 1}
    registry = make({"SESSION_TTL_SECONDS": "0", "IDLE_TIMEOUT_SECONDS": "0.05"})
    second = await use(registry)
    await asyncio.wait_for(asyncio.shield(second.session.owner), 20)
    assert evictions(registry) == {"idle_timeout": 1}


async def test_total_limit_closes_the_least_recently_used(make: Make, upstream: FakeUpstream) -> None:
    registry = make({"MAX_TOTAL_SESSIONS": "2"})
    await use(registry, "d1")
    second = Call(registry, "d2")
    await second.begun.wait()
    await use(registry, "d3")
    assert set(registry._sessions) == {("d2", "g1"), ("d3", "g1")}
    assert evictions(registry) == {"capacity": 1}
    third = Call(registry, "d3")
    await third.begun.wait()
    with pytest.raises(PoolExhaustedError):
        await use(registry, "d4")
    await second.end()
    await third.end()


async def test_breaker_opens_for_a_server_but_not_for_a_refused_caller(
    make: Make, upstream: FakeUpstream
) -> None:
    registry = make({"CIRCUIT_BREAKER_THRESHOLD": "2"})
    upstream.error = RuntimeError("Failed to create …: [auth_unauthorized] HTTPStatusError: 401")
    upstream.error.__cause__ = refusal = OSError("refused")
    refusal.response = SimpleNamespace(status_code=401)  # type: ignore[attr-defined]
    for _ in range(4):
        with pytest.raises(RuntimeError, match="auth_unauthorized"):
            await use(registry)
    # What a server writes into its message neither keeps it out of the breaker nor takes any time.
    words = "[url_policy] [auth_forbidden] [http_error] x: " + "4" * 125_000
    upstream.error = RuntimeError(f"Failed to create …: [connection_refused] ConnectError: no {words}")
    upstream.error.__cause__ = ConnectionRefusedError()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="connection_refused"):
            await use(registry)
    with pytest.raises(CircuitOpenError):
        await use(registry)
    assert upstream.attempts == 6


async def test_wait_for_a_session_is_bounded_where_that_is_set(make: Make) -> None:
    registry = make({"ACQUIRE_TIMEOUT_SECONDS": "0.05"})
    call = Call(registry)
    await call.begun.wait()
    with pytest.raises(TimeoutError):
        await use(registry)
    await call.end()


@pytest.mark.parametrize(
    ("name", "value"),
    [("CONCURRENCY", "both"), ("SESSION_TTL_SECONDS", "-1"), ("MAX_CALLS_PER_SESSION", "many")],
)
def test_bad_setting_names_its_variable(
    release: ModuleType, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"MCPGATEWAY_POOL_{name}", value)
    with pytest.raises(SettingError, match=f"MCPGATEWAY_POOL_{name}"):
        release.UpstreamSessionRegistry()
