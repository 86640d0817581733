"""The stand-in module: what gateway code imports from it, replaces in it, and calls."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import re
import socket
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest

import mcpgateway_pool
from mcpgateway_pool import MCPSessionPool, PooledSession, TransportType

URL = "http://server.test/mcp"
# What the gateway of this release imports from the module, and what later candidates do.
IMPORTED = [
    "MCPSessionPool",
    "PooledSession",
    "TransportType",
    "WORKER_ID",
    "_get_cleanup_timeout",
    "close_mcp_session_pool",
    "drain_mcp_session_pool",
    "get_mcp_session_pool",
    "init_mcp_session_pool",
    "register_gateway_capabilities_for_notifications",
    "start_pool_notification_service",
    "unregister_gateway_from_notifications",
]
# What gateway code and its tests replace.
REPLACED = ["ClientSession", "McpError", "logger", "settings", "sse_client", "streamablehttp_client"]
# What gateway code calls or assigns on a pool.
CALLED = [
    "acquire",
    "cleanup_streamable_http_session_owner",
    "close_all",
    "drain_all",
    "forward_request_to_owner",
    "forward_streamable_http_to_owner",
    "get_metrics",
    "get_streamable_http_session_owner",
    "is_valid_mcp_session_id",
    "register_pool_session_owner",
    "register_session_mapping",
    "release",
    "session",
    "start_heartbeat",
    "start_rpc_listener",
]


class FakeSdk:
    """Stands for the SDK's transports and sessions, with mocks, as gateway tests do.

    Attributes:
        transport, session: the contexts that were entered.
        open_transport, open_session: what the module's names are replaced with.
    """

    def __init__(self) -> None:
        self.transport = MagicMock()
        self.transport.__aenter__ = AsyncMock(return_value=("read", "write", None))
        self.transport.__aexit__ = AsyncMock()
        self.session = MagicMock()
        self.session.__aenter__ = AsyncMock(return_value=self.session)
        self.session.__aexit__ = AsyncMock()
        self.session.initialize = AsyncMock()
        self.session.send_ping = AsyncMock()
        self.open_transport = MagicMock(return_value=self.transport)
        self.open_session = MagicMock(return_value=self.session)


@pytest.fixture
def sdk(stand_in: ModuleType, monkeypatch: pytest.MonkeyPatch) -> FakeSdk:
    fake = FakeSdk()
    monkeypatch.setattr(stand_in, "streamablehttp_client", fake.open_transport)
    monkeypatch.setattr(stand_in, "sse_client", fake.open_transport)
    monkeypatch.setattr(stand_in, "ClientSession", fake.open_session)
    return fake


@pytest.fixture
def settings(stand_in: ModuleType, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Settings that a test changes while the pool runs."""
    changed = SimpleNamespace(
        mcp_session_pool_cleanup_timeout=5.0,
        mcpgateway_session_affinity_enabled=False,
        mcpgateway_session_affinity_ttl=300,
        mcpgateway_pool_rpc_forward_timeout=30,
        port=4444,
    )
    monkeypatch.setattr(stand_in, "settings", changed)
    return changed


@pytest.fixture
def nobodys_pool(stand_in: ModuleType) -> Iterator[None]:
    """No pool before and after the test."""
    stand_in._mcp_session_pool = None
    yield
    stand_in._mcp_session_pool = None


# ---- names


@pytest.mark.parametrize("name", IMPORTED + REPLACED)
def test_module_has_what_is_imported_from_it_and_replaced_in_it(stand_in: ModuleType, name: str) -> None:
    assert hasattr(stand_in, name)


@pytest.mark.parametrize("name", CALLED)
def test_pool_has_what_is_called_on_it(stand_in: ModuleType, name: str) -> None:
    assert callable(getattr(stand_in.MCPSessionPool, name))


def test_names_are_those_of_the_package(stand_in: ModuleType) -> None:
    assert stand_in.__name__ == "mcpgateway_pool.gateway.session_pool"
    assert issubclass(stand_in.MCPSessionPool, MCPSessionPool)
    assert stand_in.TransportType is TransportType
    assert stand_in.PooledSession is PooledSession


def test_every_name_that_the_gateway_imports_from_the_module_is_there(stand_in: ModuleType) -> None:
    """Read out of the installed gateway's source, so that another release cannot import more unnoticed."""
    import mcpgateway

    statement = re.compile(r"from mcpgateway\.services\.mcp_session_pool import ([^#\n]+)")
    found: set[str] = set()
    for folder, _, files in os.walk(os.path.dirname(mcpgateway.__file__)):
        for file in files:
            if file.endswith(".py"):
                with open(os.path.join(folder, file), encoding="utf-8") as source:
                    for names in statement.findall(source.read()):
                        found.update(name.strip() for name in names.split(","))
    assert "get_mcp_session_pool" in found
    assert [name for name in sorted(found) if not hasattr(stand_in, name)] == []


def test_constructor_takes_the_arguments_of_the_plain_class(stand_in: ModuleType) -> None:
    pool = stand_in.MCPSessionPool(3, session_ttl_seconds=7.0, max_total_keys=5)
    assert (pool._max_sessions, pool._session_ttl, pool._max_total_keys) == (3, 7.0, 5)


def test_logger_has_the_name_that_operators_search_for(stand_in: ModuleType) -> None:
    assert stand_in.logger is logging.getLogger("mcpgateway.services.mcp_session_pool")


@pytest.mark.parametrize(
    ("session_id", "is_valid"),
    [
        ("abc_DEF-123", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("", False),
        ("a:b", False),
        ("a\n", False),
        ("ä", False),
        (None, False),
    ],
)
def test_session_ids_are_checked_without_a_pool(
    stand_in: ModuleType, session_id: Any, is_valid: bool
) -> None:
    assert stand_in.MCPSessionPool.is_valid_mcp_session_id(session_id) is is_valid


# ---- the worker's id


def worker_id_in_a_forked_child(stand_in: ModuleType) -> tuple[int, str]:
    """Its pid, and what it reads."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writable, stand_in.WORKER_ID.encode())
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable, "rb") as pipe:
        shown = pipe.read().decode()
    os.waitpid(pid, 0)
    return pid, shown


def test_worker_id_is_host_and_process(stand_in: ModuleType) -> None:
    assert f"{socket.gethostname()}:{os.getpid()}" == stand_in.WORKER_ID


def test_worker_id_after_a_fork_is_the_childs(stand_in: ModuleType) -> None:
    pid, shown = worker_id_in_a_forked_child(stand_in)
    assert shown == f"{socket.gethostname()}:{pid}"
    assert f"{socket.gethostname()}:{os.getpid()}" == stand_in.WORKER_ID


def test_worker_id_that_was_replaced_stays_after_a_fork(
    stand_in: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stand_in, "WORKER_ID", "worker-1")
    assert worker_id_in_a_forked_child(stand_in)[1] == "worker-1"


# ---- globals are looked up at each use


async def test_sessions_are_opened_by_the_modules_names(stand_in: ModuleType, sdk: FakeSdk) -> None:
    def factory(**_: Any) -> None:
        raise AssertionError("a replaced transport decides what to do with the factory")

    pool = stand_in.MCPSessionPool()
    headers = {"Authorization": "Bearer a", "X-Mcp-Session-Id": "s"}
    async with pool.session(URL, headers, httpx_client_factory=factory, timeout=3.0) as pooled:
        assert pooled.session is sdk.session
    sent = {"Accept": "application/json, text/event-stream", "Authorization": "Bearer a"}
    sdk.open_transport.assert_called_once_with(
        url=URL, headers=sent, timeout=3.0, httpx_client_factory=factory
    )
    sdk.open_session.assert_called_once_with("read", "write", message_handler=None)
    await pool.close_all()
    sdk.session.__aexit__.assert_awaited_once()
    sdk.transport.__aexit__.assert_awaited_once()


@pytest.mark.parametrize(
    ("name", "bad"),
    [("timeout", 0)]  # who waits for no time at all is served where a session is idle
    + [(name, bad) for name in ("timeout", "wait_timeout") for bad in ("3", -1.0, float("nan"), b"3", [3])],
)
async def test_a_bad_timeout_is_refused_at_the_call_whether_a_session_is_open_or_not(
    stand_in: ModuleType, sdk: FakeSdk, name: str, bad: Any
) -> None:
    pool = stand_in.MCPSessionPool()
    for _ in range(2):
        with pytest.raises((TypeError, ValueError), match=name):
            await pool.acquire(URL, **{name: bad})
        with pytest.raises((TypeError, ValueError), match=name):
            async with pool.session(URL, **{name: bad}):
                pass
        sdk.open_session.reset_mock()
        await pool.release(await pool.acquire(URL))  # there is an idle one from now on
    assert (pool._hits, pool._misses) == (1, 1)
    await pool.close_all()


async def test_names_replaced_while_the_pool_runs_are_used(stand_in: ModuleType, sdk: FakeSdk) -> None:
    pool = stand_in.MCPSessionPool()
    first = await pool.acquire(URL)
    other = FakeSdk()
    stand_in.ClientSession = other.open_session  # undone by the fixture
    second = await pool.acquire(URL)
    assert first.session is sdk.session
    assert second.session is other.session
    await pool.close_all()


async def test_sse_sessions_use_the_modules_sse_client(
    stand_in: ModuleType, sdk: FakeSdk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stand_in, "streamablehttp_client", None)
    sdk.transport.__aenter__.return_value = ("read", "write")
    pool = stand_in.MCPSessionPool()
    pooled = await pool.acquire(URL, transport_type=TransportType.SSE)
    assert pooled.session is sdk.session
    await pool.close_all()


@pytest.mark.parametrize("step", ["open_transport", "open_session", "initialize"])
async def test_errors_of_replaced_names_become_creation_errors_with_their_cause(
    stand_in: ModuleType, sdk: FakeSdk, step: str
) -> None:
    boom = ValueError("boom")
    (sdk.session.initialize if step == "initialize" else getattr(sdk, step)).side_effect = boom
    pool = stand_in.MCPSessionPool()
    with pytest.raises(RuntimeError, match=f"Failed to create MCP session for {URL}.*boom") as caught:
        await pool.acquire(URL)
    assert caught.value.__cause__ is boom
    await pool.close_all()


async def test_an_mcp_error_of_method_not_found_leaves_the_verdict_to_the_next_method(
    stand_in: ModuleType, sdk: FakeSdk
) -> None:
    from mcp.types import ErrorData

    sdk.session.send_ping.side_effect = stand_in.McpError(ErrorData(code=-32601, message="no ping"))
    sdk.session.list_tools = AsyncMock()
    pool = stand_in.MCPSessionPool(health_check_methods=["ping", "list_tools"])
    async with pool.session(URL) as pooled:
        assert await pool._run_health_check_chain(pooled) is True
    sdk.session.list_tools.assert_awaited_once()
    await pool.close_all()


async def test_messages_of_the_pool_go_to_the_modules_logger(
    stand_in: ModuleType, sdk: FakeSdk, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = MagicMock()
    monkeypatch.setattr(stand_in, "logger", logger)
    pool = stand_in.MCPSessionPool(circuit_breaker_threshold=1)
    pooled = await pool.acquire(URL, user_identity="one")
    logger.info.assert_called_once()
    assert "Created new MCP session" in logger.info.call_args.args[0]
    await pool.release(pooled)
    await pool.release(pooled)
    logger.warning.assert_called_once()
    logger.reset_mock()
    sdk.open_transport.side_effect = OSError("no route")
    with pytest.raises(RuntimeError):
        await pool.acquire(URL, user_identity="other")
    messages = [call.args[0] for call in logger.warning.call_args_list]
    assert [message.split(" for ")[0] for message in messages] == [
        "Failed to create session",
        "Circuit breaker opened",
    ]
    await pool.close_all()


async def test_cleanup_timeout_is_read_at_each_close(
    stand_in: ModuleType, sdk: FakeSdk, settings: SimpleNamespace
) -> None:
    never = asyncio.Event()

    async def hang(*_: Any) -> None:
        await never.wait()

    sdk.session.__aexit__ = AsyncMock(side_effect=hang)
    pool = stand_in.MCPSessionPool()
    pooled = await pool.acquire(URL)
    settings.mcp_session_pool_cleanup_timeout = 0.01
    async with asyncio.timeout(4):  # the default is 5
        await pool.release(pooled, discard=True)
    assert pool._counts()["active"] == 0
    await pool.close_all()


@pytest.mark.parametrize("bad", [None, "soon", -1.0])
async def test_an_unusable_cleanup_timeout_counts_as_5_seconds(
    stand_in: ModuleType, settings: SimpleNamespace, bad: Any
) -> None:
    settings.mcp_session_pool_cleanup_timeout = bad
    assert stand_in.MCPSessionPool()._cleanup_timeout() == 5.0
    del settings.mcp_session_pool_cleanup_timeout
    assert stand_in._get_cleanup_timeout() == 5.0


async def test_affinity_is_read_at_each_acquire_and_makes_the_session_the_identity(
    stand_in: ModuleType, sdk: FakeSdk, settings: SimpleNamespace
) -> None:
    pool = stand_in.MCPSessionPool()

    async def keys_of_two_tokens() -> int:
        for token in ("a", "b"):
            async with pool.session(URL, {"Authorization": token, "x-mcp-session-id": "s-1"}):
                pass
        return len(pool._pools)

    assert await keys_of_two_tokens() == 2
    assert pool.get_metrics()["session_affinity"]["misses"] == 0
    settings.mcpgateway_session_affinity_enabled = True
    assert await keys_of_two_tokens() == 3
    assert pool.get_metrics()["session_affinity"]["misses"] == 2
    settings.mcpgateway_session_affinity_enabled = False
    assert await keys_of_two_tokens() == 3
    await pool.close_all()


def test_affinity_is_read_at_each_identity_hash(stand_in: ModuleType, settings: SimpleNamespace) -> None:
    pool = stand_in.MCPSessionPool()
    headers = [{"Authorization": token, "X-Mcp-Session-Id": "s-1"} for token in ("a", "b")]
    for is_on, identities in ((False, 2), (True, 1), (False, 2)):
        settings.mcpgateway_session_affinity_enabled = is_on
        assert len({pool._compute_identity_hash(given) for given in headers}) == identities


async def test_a_release_without_affinity_and_its_settings_is_served(
    stand_in: ModuleType, sdk: FakeSdk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stand_in, "settings", SimpleNamespace())  # as in 1.0.0b2
    pool = stand_in.MCPSessionPool()
    async with pool.session(URL, {"x-mcp-session-id": "s-1"}):
        pass
    assert await pool.get_streamable_http_session_owner("s-1") is None
    await pool.start_rpc_listener()
    await pool.close_all()
    sdk.session.__aexit__.assert_awaited_once()


async def test_a_mapping_is_counted_and_never_decides_which_session_is_handed_out(
    stand_in: ModuleType, sdk: FakeSdk, settings: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcpgateway.utils.redis_client.get_redis_client", AsyncMock(return_value=None))
    settings.mcpgateway_session_affinity_enabled = True
    pool = stand_in.MCPSessionPool()
    await pool.register_session_mapping("s-1", URL, "g", "streamablehttp", "me@test")
    headers = {"x-mcp-session-id": "s-1"}
    for user, local_hits, misses in (("me@test", 1, 0), ("me@test", 2, 0), ("other@test", 2, 1)):
        async with pool.session(URL, headers, user_identity=user, gateway_id="g"):
            pass
        assert (pool._session_affinity_local_hits, pool._session_affinity_misses) == (local_hits, misses)
    assert len(pool._pools) == 2
    assert (pool._hits, pool._misses) == (1, 2)
    await pool.close_all()


# ---- ownership decides who may create


async def test_no_session_is_created_for_what_another_worker_owns_and_no_breaker_counts_it(
    stand_in: ModuleType, sdk: FakeSdk, settings: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcpgateway.utils.redis_client.get_redis_client", AsyncMock(return_value=None))
    settings.mcpgateway_session_affinity_enabled = True
    pool = stand_in.MCPSessionPool(circuit_breaker_threshold=1)
    pool._get_pool_session_owner = AsyncMock(return_value="host:1")
    with pytest.raises(RuntimeError, match="owned by another worker: host:1"):
        await pool.acquire(URL, {"X-MCP-Session-Id": "s-1"})
    pool._get_pool_session_owner.assert_awaited_once_with("s-1")
    sdk.open_transport.assert_not_called()
    assert pool._circuit_breaker_trips == 0
    pool._get_pool_session_owner.return_value = stand_in.WORKER_ID
    async with pool.session(URL, {"X-MCP-Session-Id": "s-1"}):
        sdk.open_transport.assert_called_once()
    await pool.close_all()


# ---- the pool of the process


async def test_there_is_no_pool_before_init_and_after_close(stand_in: ModuleType, nobodys_pool: None) -> None:
    with pytest.raises(RuntimeError, match="not initialized"):
        stand_in.get_mcp_session_pool()
    pool = stand_in.init_mcp_session_pool(max_sessions_per_key=4, enable_notifications=False)
    assert stand_in.get_mcp_session_pool() is pool
    assert pool._max_sessions == 4
    await stand_in.close_mcp_session_pool()
    assert pool._closed
    with pytest.raises(RuntimeError, match="not initialized"):
        stand_in.get_mcp_session_pool()
    await stand_in.close_mcp_session_pool()


def test_init_takes_what_the_gateways_own_takes_in_its_order(stand_in: ModuleType) -> None:
    arguments = list(inspect.signature(stand_in.init_mcp_session_pool).parameters)
    of_class = list(inspect.signature(MCPSessionPool.__init__).parameters)[1:]
    assert arguments[:14] == of_class[:14]
    assert arguments[14:] == [
        "enable_notifications",
        "notification_debounce_seconds",
        "max_total_keys",
        "max_total_sessions",
    ]


async def test_init_looks_the_class_up_in_the_module(
    stand_in: ModuleType, nobodys_pool: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = MagicMock()
    monkeypatch.setattr(stand_in, "MCPSessionPool", made)
    pool = stand_in.init_mcp_session_pool(session_ttl_seconds=5.0, enable_notifications=False)
    assert pool is made.return_value
    assert made.call_args.kwargs["session_ttl_seconds"] == 5.0
    # Limits that nobody gave are left to the class.
    assert "max_total_sessions" not in made.call_args.kwargs


async def test_limits_come_from_the_arguments_else_from_the_environment(
    stand_in: ModuleType, nobodys_pool: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCPGATEWAY_POOL_MAX_TOTAL_SESSIONS", "7")
    monkeypatch.setenv("MCPGATEWAY_POOL_MAX_TOTAL_KEYS", "8")
    monkeypatch.setenv("MCPGATEWAY_POOL_MAX_WAITERS", "9")
    monkeypatch.setenv("MCPGATEWAY_POOL_ISOLATION", "session")
    pool = stand_in.init_mcp_session_pool(max_total_keys=0, enable_notifications=False)
    assert (pool._max_total_sessions, pool._max_total_keys) == (7, 0)
    assert (pool._settings.max_waiters, pool._settings.isolation) == (9, "session")


async def test_a_breaker_threshold_below_1_counts_as_1_as_in_the_gateways_own_pool(
    stand_in: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger=stand_in.logger.name):
        pool = stand_in.init_mcp_session_pool(circuit_breaker_threshold=0, enable_notifications=False)
    try:
        assert pool._circuit_breaker_threshold == 1
        assert "CIRCUIT_BREAKER_THRESHOLD counts as 1" in caplog.text
    finally:
        await stand_in.close_mcp_session_pool()


async def test_drain_replaces_the_sessions_and_is_harmless_without_a_pool(
    stand_in: ModuleType, sdk: FakeSdk, nobodys_pool: None
) -> None:
    await stand_in.drain_mcp_session_pool()
    pool = stand_in.init_mcp_session_pool(enable_notifications=False)
    async with pool.session(URL):
        pass
    await stand_in.drain_mcp_session_pool()
    sdk.session.__aexit__.assert_awaited_once()
    async with pool.session(URL):
        assert sdk.open_transport.call_count == 2
    await stand_in.close_mcp_session_pool()


# ---- notifications


@pytest.fixture
async def notified(stand_in: ModuleType, nobodys_pool: None) -> Any:
    """A pool whose sessions report to the gateway's notification service."""
    pool = stand_in.init_mcp_session_pool(notification_debounce_seconds=0.5)
    yield pool
    await stand_in.close_mcp_session_pool()


async def test_sessions_get_the_notification_services_handler(
    stand_in: ModuleType, sdk: FakeSdk, notified: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mcpgateway.services.notification_service import get_notification_service

    service = get_notification_service()
    handlers = {}

    def create_message_handler(gateway_id: str, gateway_url: str) -> str:
        handlers[gateway_id] = gateway_url
        return f"handler of {gateway_id}"

    monkeypatch.setattr(service, "create_message_handler", create_message_handler)
    for gateway_id in ("gateway-1", None):
        async with notified.session(URL, gateway_id=gateway_id):
            shown = gateway_id or URL
            assert sdk.open_session.call_args.kwargs["message_handler"] == f"handler of {shown}"
    assert handlers == {"gateway-1": URL, URL: URL}


async def test_a_handler_factory_of_the_callers_own_makes_no_service(
    stand_in: ModuleType, sdk: FakeSdk, nobodys_pool: None
) -> None:
    from mcpgateway.services.notification_service import get_notification_service

    pool = stand_in.init_mcp_session_pool(message_handler_factory=lambda url, gateway_id: (url, gateway_id))
    with pytest.raises(RuntimeError):
        get_notification_service()
    async with pool.session(URL, gateway_id="g"):
        assert sdk.open_session.call_args.kwargs["message_handler"] == (URL, "g")
    await stand_in.close_mcp_session_pool()


async def test_notification_functions_reach_the_service(stand_in: ModuleType, notified: Any) -> None:
    from mcpgateway.services.notification_service import get_notification_service

    service = get_notification_service()
    gateway_service = MagicMock()
    await stand_in.start_pool_notification_service(gateway_service)
    assert service._gateway_service is gateway_service
    capabilities = {"tools": {"listChanged": True}}
    stand_in.register_gateway_capabilities_for_notifications("gateway-1", capabilities)
    assert service.supports_list_changed("gateway-1")
    stand_in.unregister_gateway_from_notifications("gateway-1")
    assert not service.supports_list_changed("gateway-1")


async def test_notification_functions_are_harmless_without_a_service(
    stand_in: ModuleType, nobodys_pool: None
) -> None:
    await stand_in.start_pool_notification_service()
    stand_in.register_gateway_capabilities_for_notifications("gateway-1", {"tools": {}})
    stand_in.unregister_gateway_from_notifications("gateway-1")


def test_the_package_needs_no_gateway_for_the_plain_class() -> None:
    assert mcpgateway_pool.MCPSessionPool.__module__ == "mcpgateway_pool.pool.mcp_session_pool"
