"""Private names of the gateway's own pool, and mocks in the places where its tests put them."""

from __future__ import annotations

import asyncio
import hashlib
import time
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, MagicMock, patch

import pytest

from mcpgateway_pool import PooledSession, TransportType

URL = "http://server.test/mcp"
HTTP = TransportType.STREAMABLE_HTTP


def new_session(**changes: Any) -> PooledSession:
    arguments: dict[str, Any] = {
        "session": MagicMock(send_ping=AsyncMock(), __aexit__=AsyncMock()),
        "transport_context": MagicMock(__aexit__=AsyncMock()),
        "url": URL,
        "transport_type": HTTP,
        "headers": {},
        "identity_key": "anonymous",
    }
    return PooledSession(**{**arguments, **changes})


def new_pool(stand_in: ModuleType, **settings: Any) -> Any:
    """A pool whose sessions are mocks; ``_create_session`` is a mock as well."""
    pool = stand_in.MCPSessionPool(**settings)
    pool._create_session = AsyncMock(side_effect=lambda *_: new_session())
    return pool


# ---- settings


@pytest.mark.parametrize(
    ("name", "default", "other"),
    [
        ("_max_sessions", 10, 2),
        ("_session_ttl", 300.0, 5.0),
        ("_health_check_interval", 60.0, 1.0),
        ("_acquire_timeout", 30.0, 0.5),
        ("_session_create_timeout", 30.0, 0.5),
        ("_circuit_breaker_threshold", 5, 1),
        ("_circuit_breaker_reset", 60.0, 1.0),
        ("_idle_pool_eviction", 600.0, 1.0),
        ("_default_transport_timeout", 30.0, 3.0),
        ("_health_check_methods", ["ping", "skip"], ["list_tools"]),
        ("_health_check_timeout", 5.0, 1.0),
        ("_message_handler_factory", None, print),
        ("_identity_extractor", None, len),
        ("_max_total_keys", 0, 3),
        ("_max_total_sessions", 0, 3),
    ],
)
def test_settings_are_read_and_assigned(stand_in: ModuleType, name: str, default: Any, other: Any) -> None:
    pool = stand_in.MCPSessionPool()
    assert getattr(pool, name) == default
    setattr(pool, name, other)
    assert getattr(pool, name) == other


def test_identity_headers_are_a_set_and_stay(stand_in: ModuleType) -> None:
    pool = stand_in.MCPSessionPool(identity_headers=["X-Who"])
    assert pool._identity_headers == frozenset({"x-who"})
    assert stand_in.MCPSessionPool()._identity_headers == stand_in.MCPSessionPool.DEFAULT_IDENTITY_HEADERS
    with pytest.raises(AttributeError):
        pool._identity_headers = frozenset({"x-other"})


def test_a_bad_value_is_refused_and_changes_nothing(stand_in: ModuleType) -> None:
    pool = stand_in.MCPSessionPool()
    with pytest.raises(ValueError, match="max_sessions_per_key"):
        pool._max_sessions = 0
    assert pool._max_sessions == 10


async def test_assigned_settings_take_effect(stand_in: ModuleType) -> None:
    pool = new_pool(stand_in)
    pool._max_sessions = 1
    pool._acquire_timeout = 0.01
    held = await pool.acquire(URL)
    with pytest.raises(TimeoutError, match="Timeout waiting for available session"):
        await pool.acquire(URL)
    await pool.release(held)

    pool._health_check_interval = 0.0
    with patch.object(pool, "_run_health_check_chain", AsyncMock(return_value=True)) as check:
        async with pool.session(URL) as again:
            assert again is held
    check.assert_awaited_once()

    pool._circuit_breaker_threshold = 1
    pool._create_session = AsyncMock(side_effect=OSError("down"))
    with pytest.raises(OSError, match="down"):
        await pool.acquire(URL, user_identity="other")
    assert pool._circuit_breaker_trips == 1
    await pool.close_all()


async def test_an_assigned_extractor_decides_the_identity(stand_in: ModuleType) -> None:
    pool = new_pool(stand_in)
    pool._identity_extractor = lambda headers: headers["who"]
    for token in ("a", "b"):
        async with pool.session(URL, {"Authorization": token, "who": "same"}):
            pass
    assert pool._create_session.await_count == 1
    await pool.close_all()


# ---- counters


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("_hits", "hits"),
        ("_misses", "misses"),
        ("_evictions", "evictions"),
        ("_health_check_failures", "health_check_failures"),
        ("_circuit_breaker_trips", "circuit_breaker_trips"),
        ("_pool_keys_evicted", "pool_keys_evicted"),
        ("_sessions_reaped", "sessions_reaped"),
        ("_anonymous_identity_count", "anonymous_identity_count"),
    ],
)
def test_counters_are_read_assigned_and_shown(stand_in: ModuleType, name: str, key: str) -> None:
    pool = stand_in.MCPSessionPool()
    assert getattr(pool, name) == pool.get_metrics()[key] == 0
    setattr(pool, name, 7)
    setattr(pool, name, getattr(pool, name) + 1)
    assert getattr(pool, name) == pool.get_metrics()[key] == 8


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("_session_affinity_local_hits", "local_hits"),
        ("_session_affinity_redis_hits", "redis_hits"),
        ("_session_affinity_misses", "misses"),
        ("_forwarded_requests", "forwarded_requests"),
        ("_forwarded_request_failures", "forwarded_failures"),
        ("_forwarded_request_timeouts", "forwarded_timeouts"),
    ],
)
def test_counters_of_affinity_are_read_assigned_and_shown(stand_in: ModuleType, name: str, key: str) -> None:
    pool = stand_in.MCPSessionPool()
    assert getattr(pool, name) == 0
    setattr(pool, name, 3)
    assert getattr(pool, name) == pool.get_metrics()["session_affinity"][key] == 3


async def test_assigned_counters_go_on_counting_and_make_the_hit_rate(stand_in: ModuleType) -> None:
    pool = new_pool(stand_in)
    pool._hits, pool._misses = 79, 19
    for _ in range(2):
        async with pool.session(URL):
            pass
    assert (pool._hits, pool._misses) == (80, 20)
    assert pool.get_metrics()["hit_rate"] == 0.8
    await pool.close_all()


# ---- keys and identities


def test_identity_hash_of_an_extractor_and_of_affinity_is_that_of_the_gateways_own_pool(
    stand_in: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = stand_in.MCPSessionPool(identity_extractor=lambda headers: headers.get("who"))
    assert pool._compute_identity_hash({"who": "me"}) == hashlib.sha256(b"me").hexdigest()
    settings = SimpleNamespace(mcpgateway_session_affinity_enabled=True)
    monkeypatch.setattr(stand_in, "settings", settings)
    pool = stand_in.MCPSessionPool()
    assert pool._compute_identity_hash({"X-Mcp-Session-Id": "s-1"}) == hashlib.sha256(b"s-1").hexdigest()


def test_pool_key_has_the_five_parts(stand_in: ModuleType) -> None:
    pool = stand_in.MCPSessionPool()
    user = hashlib.sha256(b"me").hexdigest()
    assert pool._make_pool_key(URL, None, HTTP, "me", "g") == (user, URL, "anonymous", "streamablehttp", "g")
    assert pool._make_pool_key(URL, None, HTTP, "anonymous", None)[0] == "anonymous"
    assert pool._make_pool_key(URL, None, HTTP, "anonymous", None)[4] == ""


async def test_sessions_are_found_by_key(stand_in: ModuleType) -> None:
    pool = new_pool(stand_in)
    key = pool._make_pool_key(URL, None, HTTP, "me", "g")
    held = await pool.acquire(URL, user_identity="me", gateway_id="g")
    assert held in pool._active[key]
    assert pool._pools[key].empty()
    await pool.release(held)
    assert pool._active[key] == set()
    assert pool._pools[key].qsize() == 1
    await pool.close_all()
    assert pool._pools == {}
    assert pool._active == {}


# ---- circuit breaker


async def test_circuit_breaker_is_readable_by_url(stand_in: ModuleType) -> None:
    pool = new_pool(stand_in, circuit_breaker_threshold=2, circuit_breaker_reset_seconds=60.0)
    pool._create_session = AsyncMock(side_effect=OSError("down"))
    assert pool._failures[URL] == 0
    assert not pool._is_circuit_open(URL)
    for count in (1, 2):
        with pytest.raises(OSError, match="down"):
            await pool.acquire(URL)
        assert pool._failures[URL] == count
    assert pool._is_circuit_open(URL)
    assert not pool._is_circuit_open("http://other.test/mcp")
    assert 50 < pool._circuit_open_until[URL] - time.time() <= 60
    with pytest.raises(RuntimeError, match="Circuit breaker open"):
        await pool.acquire(URL)
    await pool.close_all()


def test_the_circuit_breaker_counts_what_is_recorded_by_hand_without_a_loop(stand_in: ModuleType) -> None:
    pool = stand_in.MCPSessionPool(circuit_breaker_threshold=2)
    pool._record_success(URL)
    pool._record_failure(URL)
    assert pool._failures[URL] == 1
    assert not pool._is_circuit_open(URL)
    pool._record_success(URL)
    assert pool._failures[URL] == 0
    pool._record_failure(URL)
    pool._record_failure(URL)
    assert pool._is_circuit_open(URL)
    assert pool._circuit_breaker_trips == 1
    assert pool.get_metrics()["circuit_breakers"][URL]["failures"] == 2


async def test_what_is_recorded_by_hand_bars_creations_and_leaves_sessions_that_answer(
    stand_in: ModuleType,
) -> None:
    pool = new_pool(stand_in, circuit_breaker_threshold=2)
    async with pool.session(URL) as kept:
        pass
    pool._record_failure(URL)
    pool._record_failure(URL)
    with pytest.raises(RuntimeError, match="Circuit breaker open"):
        await pool.acquire(URL, user_identity="other")
    async with pool.session(URL) as pooled:
        assert pooled is kept
    assert pool._evictions == 0
    await pool.close_all()


@pytest.mark.parametrize("arguments", [(), (URL,), (URL, True, True), (7, True)])
def test_what_is_recorded_by_hand_is_checked(stand_in: ModuleType, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        stand_in.MCPSessionPool()._note_outcome(*arguments)


# ---- upkeep and checks


async def test_maybe_evict_closes_what_is_over_and_drops_empty_keys(stand_in: ModuleType) -> None:
    pool = new_pool(stand_in)
    async with pool.session(URL) as pooled:
        pass
    await pool._maybe_evict_idle_pool_keys()
    assert len(pool._pools) == 1
    pooled.created_at = time.time() - 1000
    await pool._maybe_evict_idle_pool_keys()
    await asyncio.wait(pool._tasks)
    pooled.session.__aexit__.assert_awaited_once_with(None, None, None)
    assert pool._sessions_reaped == 1
    await pool._maybe_evict_idle_pool_keys()
    assert len(pool._pools) == 0
    await pool.close_all()


async def test_a_failed_check_is_counted_once_called_directly_or_by_the_pool(stand_in: ModuleType) -> None:
    pool = new_pool(stand_in, health_check_methods=["ping"])
    bad = new_session()
    bad.session.send_ping.side_effect = OSError("gone")
    assert await pool._run_health_check_chain(bad) is False
    assert pool._health_check_failures == 1

    pool._create_session = AsyncMock(side_effect=[bad, new_session()])
    async with pool.session(URL):
        pass
    pool._health_check_interval = 0.0
    async with pool.session(URL) as pooled:
        assert pooled is not bad
    assert pool._health_check_failures == 2
    await pool.close_all()


async def test_validation_by_hand_looks_at_closed_expired_and_stale(stand_in: ModuleType) -> None:
    pool = stand_in.MCPSessionPool()
    with patch.object(pool, "_run_health_check_chain", AsyncMock(return_value=True)) as check:
        assert await pool._validate_session(new_session()) is True
        assert await pool._validate_session(new_session(_closed=True)) is False
        assert await pool._validate_session(new_session(created_at=time.time() - 301)) is False
        check.assert_not_awaited()
        assert await pool._validate_session(new_session(last_used=time.time() - 61)) is True
        check.assert_awaited_once()


async def test_closing_by_hand_leaves_both_contexts_once(stand_in: ModuleType) -> None:
    pool = stand_in.MCPSessionPool()
    pooled = new_session()
    await pool._close_session(pooled)
    await pool._close_session(pooled)
    assert pooled.is_closed
    pooled.session.__aexit__.assert_awaited_once_with(None, None, None)
    pooled.transport_context.__aexit__.assert_awaited_once_with(None, None, None)


# ---- mocks in place of methods


async def test_sessions_that_are_plain_mocks_are_pooled(stand_in: ModuleType) -> None:
    pool = stand_in.MCPSessionPool()
    mock = MagicMock()
    with patch.object(pool, "_create_session", AsyncMock(return_value=mock)):
        async with pool.session(URL, user_identity="me", gateway_id="g") as first:
            pass
        async with pool.session(URL, user_identity="me", gateway_id="g") as second:
            pass
    assert first is second is mock
    assert (mock.user_identity, mock.gateway_id) == ("me", "g")
    assert (pool._hits, pool._misses) == (1, 1)
    with patch.object(pool, "_close_session", AsyncMock()) as close:
        await pool.close_all()
    close.assert_awaited_once_with(mock)


async def test_session_uses_replaced_acquire_and_release(stand_in: ModuleType) -> None:
    pool = stand_in.MCPSessionPool()
    pooled = new_session()
    pool.acquire = AsyncMock(return_value=pooled)
    pool.release = AsyncMock()
    async with pool.session(URL, {"a": "b"}, HTTP, user_identity="me") as got:
        assert got is pooled
    pool.release.assert_awaited_once_with(pooled, discard=False)
    with pytest.raises(ValueError, match="boom"):
        async with pool.session(URL):
            raise ValueError("boom")
    pool.release.assert_awaited_with(pooled, discard=False)  # nothing speaks against the session


async def test_writing_closed_refuses_acquires_until_it_is_taken_back(stand_in: ModuleType) -> None:
    pool = new_pool(stand_in)
    pool._closed = True
    with pytest.raises(RuntimeError, match="closed"):
        await pool.acquire(URL)
    pool._closed = False
    async with pool.session(URL):
        pass
    await pool.close_all()


async def test_close_all_ends_a_listener_that_was_assigned(stand_in: ModuleType) -> None:
    pool = stand_in.MCPSessionPool()
    pool._rpc_listener_task = listener = asyncio.create_task(asyncio.Event().wait())
    await asyncio.sleep(0)
    await pool.close_all()
    assert listener.cancelled()
    assert pool._rpc_listener_task is None


# ---- what tests put in the place of the gateway's settings and of its other workers


def mocked_settings(**values: Any) -> MagicMock:
    """As a mock of the gateway's settings has them: numbers that nobody gave are mocks."""
    return MagicMock(mcpgateway_session_affinity_enabled=True, port=4444, **values)


async def test_settings_that_are_mocks_forward_a_request(stand_in: ModuleType) -> None:
    answers = MagicMock(
        subscribe=AsyncMock(),
        unsubscribe=AsyncMock(),
        aclose=AsyncMock(),
        get_message=AsyncMock(return_value={"type": "message", "data": b'{"result": 1}'}),
    )
    client = AsyncMock(get=AsyncMock(return_value=b"other:1"), pubsub=MagicMock(return_value=answers))
    pool = new_pool(stand_in)
    with (
        patch.object(stand_in, "settings", mocked_settings()),
        patch("mcpgateway.utils.redis_client.get_redis_client", AsyncMock(return_value=client)),
    ):
        assert await pool.forward_request_to_owner("session-1", {"method": "ping"}) == {"result": 1}
    client.publish.assert_awaited_once()
    assert pool._forwarded_requests == 1
    await pool.close_all()


@pytest.mark.parametrize(
    ("answered", "expected"),
    [
        ({"result": {"n": 1}}, {"result": {"n": 1}}),
        ({"result": {"n": 1}, "error": None}, {"result": {"n": 1}}),
        ({"error": {"code": -1, "message": "no"}}, {"error": {"code": -1, "message": "no"}}),
        ({"error": "too many"}, {"error": {"code": -32603, "message": "too many"}}),
        ({"error": ["?"]}, {"error": {"code": -32603, "message": "HTTP 200"}}),
    ],
)
async def test_settings_and_a_client_that_are_mocks_execute_a_request(
    stand_in: ModuleType, answered: dict[str, Any], expected: dict[str, Any]
) -> None:
    client = MagicMock(post=AsyncMock(return_value=MagicMock(json=MagicMock(return_value=answered))))
    client.__aenter__ = AsyncMock(return_value=client)
    client.__aexit__ = AsyncMock(return_value=None)
    pool = new_pool(stand_in)
    with (
        patch.object(stand_in, "settings", mocked_settings()),
        patch("httpx.AsyncClient", return_value=client),
    ):
        assert await pool._execute_forwarded_request({"method": "ping"}) == expected
    await pool.close_all()


async def test_another_transport_is_refused_with_affinity_as_without(stand_in: ModuleType) -> None:
    pool = new_pool(stand_in)
    with (
        patch.object(stand_in, "settings", mocked_settings()),
        pytest.raises(TypeError, match="TransportType"),
    ):
        await pool.acquire(URL, {"x-mcp-session-id": "session-1"}, "sse")
    await pool.close_all()
