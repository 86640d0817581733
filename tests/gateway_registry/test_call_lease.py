"""One call's use of a pooled session, with sessions that open and close without a server: what is counted of
it, how its errors leave it, and what it does where the pool has no room.
"""

from __future__ import annotations

import asyncio
import importlib
import uuid
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
from prometheus_client import CollectorRegistry

from mcpgateway_pool import register_collector, unregister_collector
from mcpgateway_pool.gateway.registry.calls import callers
from mcpgateway_pool.gateway.registry.calls.callers import Caller
from support.fake_upstreams import FakeUpstream
from support.registry_calls import Call, Make, use

ANN = Caller("tools", ("ann@example.com",), None)
NOBODY = Caller("tools", (), None)
ADMINISTRATOR = Caller("tools", ("admin@example.com", "admin@example.com"), None)


@pytest.fixture
def gateway_id() -> str:
    """Of a gateway that no other test counts for."""
    return uuid.uuid4().hex


@pytest.fixture
def count(gateway_id: str) -> Iterator[Callable[..., float | None]]:
    """The value of a series for that gateway."""
    registry = CollectorRegistry()
    register_collector(registry)

    def count(series: str, **labels: str) -> float | None:
        name = f"mcp_session_pool_{series}"
        return registry.get_sample_value(name, {"gateway_id": gateway_id, **labels})

    yield count
    unregister_collector(registry)


# ---- acquires without an identity


@pytest.mark.parametrize(
    ("caller", "headers", "is_counted"),
    [
        pytest.param(NOBODY, None, True, id="nobody"),
        pytest.param(ADMINISTRATOR, None, True, id="by the administrator's name"),
        pytest.param(NOBODY, {"X-Job": "7", "X-Request-Id": "1"}, True, id="headers that say nothing of it"),
        pytest.param(NOBODY, {"X-API-Key": "k"}, False, id="an identity header"),
        pytest.param(ANN, None, False, id="a user"),
    ],
)
async def test_acquire_without_a_user_and_an_identity_header_is_counted_as_anonymous_each_time(
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    gateway_id: str,
    count: Callable[..., float | None],
    caller: Caller,
    headers: dict[str, str] | None,
    is_counted: bool,
) -> None:
    # Without authentication, some calls of nobody have the administrator's name.
    monkeypatch.setattr(callers.release_settings(), "auth_required", False)
    monkeypatch.setattr(callers.release_settings(), "platform_admin_email", "admin@example.com")
    registry = make()
    for _ in range(3):  # on a session that is new, and on one that is not
        await use(registry, registry._calls.admit(caller, gateway_id), gateway_id, headers=headers)
    assert (count("misses_total"), count("hits_total")) == (1, 2)
    assert count("anonymous_acquires_total") == (3 if is_counted else 0)


# ---- calls that go the gateway's own way


@pytest.mark.parametrize(
    ("switch", "caller", "reason"),
    [
        ("own", ANN, "switched_off"),
        ("stateful,{}", ANN, "excepted"),
        ("pooled", NOBODY, "no_user"),
        ("pooled", None, "no_user"),
        ("pooled", ANN, None),
    ],
)
async def test_call_that_goes_the_gateways_own_way_is_counted_by_its_reason(
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    gateway_id: str,
    count: Callable[..., float | None],
    switch: str,
    caller: Caller | None,
    reason: str | None,
) -> None:
    monkeypatch.setattr(callers.release_settings(), "auth_required", True)
    calls = make({"CALLS_WITHOUT_SESSION": switch.format(gateway_id)})._calls
    admitted = [calls.admit(caller, gateway_id) for _ in range(2)]
    assert [one is not None for one in admitted] == [reason is None] * 2
    for one in ("switched_off", "excepted", "no_user"):
        assert (count("unpooled_calls_total", reason=one) or 0) == (2 if one == reason else 0)


# ---- gateways that were changed


@pytest.mark.parametrize("is_here", [True, False], ids=["here", "another worker"])
async def test_release_says_that_gateways_changed(
    make: Make, release: ModuleType, monkeypatch: pytest.MonkeyPatch, is_here: bool
) -> None:
    importlib.import_module("mcpgateway.services.completion_service")
    told = []
    registry = make()
    monkeypatch.setattr(release, "_registry", registry)
    monkeypatch.setattr(registry._calls, "notice_change", lambda: told.append(True))
    cache = importlib.import_module("mcpgateway.cache.registry_cache")
    if is_here:
        await cache.RegistryCache().invalidate_gateways()
    else:
        subscriber = cache.CacheInvalidationSubscriber()
        await subscriber._process_invalidation("registry:tools")
        await subscriber._process_invalidation("registry:gateways")
    assert told == [True]


async def test_session_that_was_opened_after_the_release_has_closed_all_stays(
    make: Make, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = make()
    changes = registry._calls._changes
    rows = {"g1": ("old",)}
    monkeypatch.setattr(changes, "_read", lambda _identifiers: dict(rows))

    async def call_and_look() -> None:
        await use(registry, registry._calls.admit(ANN, "g1"))
        await changes.look()

    await call_and_look()
    rows["g1"] = ("new",)
    await registry.evict_gateway("g1")
    for _ in range(3):
        await call_and_look()
    assert len(upstream.sessions) == 2
    rows["g1"] = ("newer",)
    await call_and_look()
    await call_and_look()
    assert len(upstream.sessions) == 3


# ---- errors


class ToolError(Exception):
    pass


@pytest.mark.parametrize("error", [TimeoutError(), ToolError("no")], ids=repr)
async def test_error_leaves_a_call_as_it_leaves_the_task_groups_of_a_session_of_its_own(
    make: Make, error: Exception
) -> None:
    registry = make()
    call = Call(registry, registry._calls.admit(ANN, "g1"))
    await call.begun.wait()
    call.fail(error)
    with pytest.raises(ExceptionGroup) as caught:
        await call.task
    assert caught.value.exceptions == (error,)


async def test_cancelled_call_is_cancelled(make: Make) -> None:
    registry = make()
    call = Call(registry, registry._calls.admit(ANN, "g1"))
    await call.begun.wait()
    call.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.task
    assert registry._calls.totals()["active_sessions"] == 0


# ---- no room


async def test_call_that_finds_no_room_in_time_gets_a_session_of_its_own_that_ends_with_it(
    make: Make, upstream: FakeUpstream
) -> None:
    registry = make({"MAX_SESSIONS_PER_KEY": "1", "ACQUIRE_TIMEOUT_SECONDS": "0.05"})
    first, second = (Call(registry, registry._calls.admit(ANN, "g1")) for _ in range(2))
    await first.begun.wait()
    await second.begun.wait()
    assert first.session.session is not second.session.session
    await second.end()
    assert len(upstream.open_now) == 1
    await first.end()
    totals = registry._calls.totals()
    assert (totals["creates"], totals["size"], totals["acquire_timeouts"]) == (1, 1, 1)
