"""The pool over real servers, both transports: sessions kept, shared out, replaced, closed, and counted."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import logging
import os
import shutil
import subprocess
import traceback
import urllib.request
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_classic

from mcpgateway_pool import (
    AcquireTimeoutError,
    CircuitOpenError,
    MCPSessionPool,
    PooledSession,
    SessionCreateError,
    TransportType,
    register_collector,
    unregister_collector,
)
from mcpgateway_pool.upstream import sdk
from servers.process import ServerProcess
from servers.waiting import AT_ONCE, until
from support.fakes import FakeClock, upkeep

if sdk.follows_redirects():
    # An SDK as old as 1.27 leaves two in-memory streams of its own to the collector when it cannot connect
    # over SSE.
    pytestmark = pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning")

BOTH = ("sse", "streamablehttp")
SECRET = "s3cr3t-t0ken"
HEADERS = {"Authorization": f"Bearer {SECRET}"}

_numbers = itertools.count()


@pytest.fixture
def gateway() -> str:
    """A gateway id of this test alone: counters are the process's."""
    return f"gateway-{next(_numbers)}"


class Client:
    """A pool, and how these tests use it."""

    def __init__(self, pool: MCPSessionPool, server: ServerProcess, gateway: str) -> None:
        self.pool = pool
        self.server = server
        self.gateway = gateway

    def arguments(self, **changes: Any) -> dict[str, Any]:
        return {
            "url": self.server.url,
            "headers": HEADERS,
            "transport_type": TransportType(self.server.transport),
            "user_identity": "alice",
            "gateway_id": self.gateway,
            **changes,
        }

    async def acquire(self, **changes: Any) -> PooledSession:
        return await self.pool.acquire(**self.arguments(**changes))

    def session(self, **changes: Any) -> Any:
        return self.pool.session(**self.arguments(**changes))

    async def tool(self, name: str, **arguments: Any) -> str:
        """One call in a checkout of its own."""
        async with self.session() as pooled:
            return await call(pooled, name, **arguments)

    async def calling(self, seconds: float = 20.0) -> asyncio.Task[str]:
        """A call that the server has taken and is working on."""
        before = self.server.stats()["posts"].get("tools/call", 0)
        task = asyncio.create_task(self.tool("slow", seconds=seconds))
        await asyncio.to_thread(
            self.server.wait_for, lambda stats: stats["posts"].get("tools/call", 0) > before
        )
        return task

    def counts(self) -> dict[str, Any]:
        """What the pool has counted since it was made."""
        return self.pool._totals()

    def states(self) -> dict[str, int]:
        """Open sessions by their state."""
        now = self.pool._counts()
        return {"active": now["active"], "idle": now["idle"]}

    def evictions(self) -> dict[str, int]:
        return {reason: number for reason, number in self.counts()["evictions"].items() if number}

    def initialized(self) -> int:
        """Sessions that the server was asked to open."""
        number: int = self.server.stats()["initialize"]
        return number


async def call(pooled: PooledSession, name: str, **arguments: Any) -> str:
    result = await pooled.session.call_tool(name, arguments)
    return str(result.content[0].text)


@contextlib.asynccontextmanager
async def opened(server: ServerProcess, gateway: str, **settings: Any) -> AsyncIterator[Client]:
    """A pool that is closed in the end, and must then have left nothing behind."""
    async with MCPSessionPool(**settings) as pool:
        yield Client(pool, server, gateway)
    # The SDK leaves async generators half-way; when they are collected, asyncio ends each in a short task.
    gc.collect()
    await until(lambda: len(asyncio.all_tasks()) == 1, AT_ONCE)
    assert pool._counts()["active"] == pool._counts()["idle"] == pool._counts()["closing"] == 0


def open_sockets() -> int:
    count = 0
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            count += os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:")
    return count


def refuse_initialize(server: ServerProcess, status: int, count: int = 1) -> None:
    """Have the server refuse the next sessions: over SSE the stream, else the request ``initialize``."""
    if server.transport == "sse":
        server.fault("status", status=status, http="GET", count=count)
    else:
        server.fault("status", status=status, method="initialize", count=count)


# ---- sessions are kept, and shared out


async def test_one_session_carries_many_calls(server: ServerProcess, gateway: str) -> None:
    async with opened(server, gateway) as client:
        before = client.initialized()
        answers = [await client.tool("counter") for _ in range(10)]
        assert answers == [str(number) for number in range(1, 11)], "they were of different sessions"
        assert client.initialized() - before == 1
        assert (client.counts()["misses"], client.counts()["hits"]) == (1, 9)


async def test_users_headers_and_gateways_never_share_a_session(server: ServerProcess, gateway: str) -> None:
    async with opened(server, gateway) as client:
        different: list[dict[str, Any]] = [
            {},
            {"user_identity": "bob"},
            {"headers": {"Authorization": "Bearer other"}},
            {"gateway_id": f"{gateway}-other"},
        ]
        for changes in different * 2:
            async with client.session(**changes) as pooled:
                seen = json.loads(await call(pooled, "whoami"))
                token = changes.get("headers", HEADERS)["Authorization"]
                assert seen["headers"]["authorization"] == token
        assert (client.counts()["misses"], client.counts()["hits"]) == (4, 4)


async def test_more_callers_than_sessions_are_all_served(server: ServerProcess, gateway: str) -> None:
    async with opened(server, gateway, max_sessions_per_key=3) as client:
        before = client.initialized()
        texts = [f"text {number}" for number in range(40)]
        answers = await asyncio.gather(*(client.tool("echo", text=text) for text in texts))
        assert answers == texts
        assert client.initialized() - before == 3
        assert (client.counts()["misses"], client.counts()["hits"]) == (3, 37)
        assert client.states() == {"active": 0, "idle": 3}


async def test_a_discarded_session_is_closed_and_replaced(server: ServerProcess, gateway: str) -> None:
    async with opened(server, gateway) as client:
        before = client.initialized()
        pooled = await client.acquire()
        assert await call(pooled, "counter") == "1"
        await client.pool.release(pooled, discard=True)
        assert pooled.is_closed
        assert await client.tool("counter") == "1"
        assert client.initialized() - before == 2
        assert client.evictions() == {"manual": 1}


async def test_a_block_that_raises_keeps_its_session(server: ServerProcess, gateway: str) -> None:
    async with opened(server, gateway) as client:
        async with client.session() as other:
            with pytest.raises(ZeroDivisionError):
                async with client.session():
                    raise ZeroDivisionError
            assert await call(other, "counter") == "1"
        assert client.evictions() == {}
        assert await client.tool("counter") == "2"


async def test_a_tool_that_reports_an_error_does_not_cost_its_session(
    server: ServerProcess, gateway: str
) -> None:
    async with opened(server, gateway) as client:
        async with client.session() as pooled:
            result = await pooled.session.call_tool("fail", {})
            assert result.isError if hasattr(result, "isError") else result.is_error
        await client.tool("echo", text="again")
        assert (client.counts()["misses"], client.counts()["hits"]) == (1, 1)


async def test_headers_of_the_downstream_session_do_not_go_upstream(
    server: ServerProcess, gateway: str
) -> None:
    headers = {**HEADERS, "X-MCP-Session-Id": "down-1", "mcp-SESSION-id": "down-2", "X-Trace": "kept"}
    async with opened(server, gateway) as client, client.session(headers=headers) as pooled:
        sent = json.loads(await call(pooled, "whoami"))["headers"]
        assert sent["authorization"] == HEADERS["Authorization"]
        assert sent["x-trace"] == "kept"
        assert "x-mcp-session-id" not in sent
        assert sent.get("mcp-session-id") != "down-2"
        assert not {"x-mcp-session-id", "mcp-session-id"} & {name.lower() for name in pooled.headers}
        assert not any("down-" in line for line in server.stats()["initialize_headers"])


async def test_notifications_reach_the_handler_of_their_gateway(server: ServerProcess, gateway: str) -> None:
    came: asyncio.Queue[tuple[str | None, str]] = asyncio.Queue()

    def factory(url: str, gateway_id: str | None) -> Any:
        assert url == server.url

        async def handler(message: Any) -> None:
            came.put_nowait((gateway_id, type(getattr(message, "root", message)).__name__))

        return handler

    async with opened(server, gateway, message_handler_factory=factory) as client:
        for gateway_id in (gateway, f"{gateway}-other"):
            async with client.session(gateway_id=gateway_id) as pooled:
                await call(pooled, "notify", kind="log")
            expected = (gateway_id, "LoggingMessageNotification")
            assert await asyncio.wait_for(came.get(), AT_ONCE) == expected


async def test_a_message_handler_factory_that_raises_costs_only_the_handler(
    server: ServerProcess, gateway: str, caplog: pytest.LogCaptureFixture
) -> None:
    def factory(url: str, gateway_id: str | None) -> Any:
        raise LookupError(f"no handler at http://user:{SECRET}@127.0.0.1/?key={SECRET}")

    async with opened(server, gateway, message_handler_factory=factory) as client:
        assert await client.tool("echo", text="works") == "works"
    assert "the message handler factory failed" in caplog.text
    assert SECRET not in caplog.text


# ---- servers that go away


async def test_a_restart_costs_the_call_in_flight_and_no_other(mortal: ServerProcess, gateway: str) -> None:
    async with opened(mortal, gateway, max_sessions_per_key=5) as client:
        await asyncio.gather(*(client.tool("slow", seconds=0.2) for _ in range(5)))
        assert client.states() == {"active": 0, "idle": 5}
        in_flight = await client.calling()
        await asyncio.to_thread(mortal.kill)
        with pytest.raises(Exception, match=r".") as caught:
            await asyncio.wait_for(in_flight, AT_ONCE)
        assert isinstance(caught.value, type(sdk.make_error(0, "")))
        await asyncio.to_thread(mortal.start)
        texts = [f"text {number}" for number in range(20)]
        assert await asyncio.gather(*(client.tool("echo", text=text) for text in texts)) == texts
        counts = client.counts()
        assert counts["creates"] == counts["size"] + sum(client.evictions().values())
        assert set(client.evictions()) <= {"broken", "health_check"}


async def test_a_dead_idle_sse_session_is_closed_at_once_without_traffic(gateway: str) -> None:
    with ServerProcess("sse") as server:
        async with opened(server, gateway) as client:
            await client.tool("echo", text="hello")
            assert client.counts()["size"] == 1
            await asyncio.to_thread(server.kill)
            await until(lambda: client.counts()["size"] == 0, AT_ONCE)
            assert client.evictions() == {"broken": 1}
            await until(lambda: client.pool._counts()["closing"] == 0, AT_ONCE)


async def test_a_health_check_replaces_a_dead_idle_session_before_its_hand_out(gateway: str) -> None:
    with ServerProcess("streamablehttp") as server:
        # Each hand-out finds its check due.
        async with opened(server, gateway, health_check_interval_seconds=0.0) as client:
            assert await client.tool("counter") == "1"
            assert await client.tool("counter") == "2"
            await asyncio.to_thread(server.restart)
            assert await client.tool("counter") == "1"
            assert client.counts()["health_check_failures"] == 1
            assert client.evictions() == {"health_check": 1}


async def test_a_refusal_of_the_caller_does_not_count_for_the_breaker(
    server: ServerProcess, gateway: str
) -> None:
    async with opened(server, gateway, circuit_breaker_threshold=1) as client:
        for status in (400, 401, 403):
            refuse_initialize(server, status)
            with pytest.raises(
                SessionCreateError, match=r"^Failed to create MCP session for http://127"
            ) as caught:
                await client.acquire()
            assert str(status) in str(caught.value)
            cause: Any = caught.value.__cause__
            assert cause.response.status_code == status
        assert await client.tool("echo", text="works") == "works"
        assert client.counts()["create_failures"] == 3
        assert client.counts()["circuit_breaker_trips"] == 0


async def test_server_errors_at_creation_open_the_breaker(server: ServerProcess, gateway: str) -> None:
    clock = FakeClock()
    async with opened(server, gateway, circuit_breaker_threshold=2, clock=clock) as client:
        refuse_initialize(server, 503, count=2)
        for _ in range(2):
            with pytest.raises(SessionCreateError, match="503"):
                await client.acquire()
        with pytest.raises(CircuitOpenError):
            await client.acquire()
        clock.advance(61)
        assert await client.tool("echo", text="probe") == "probe"
        assert client.counts()["circuit_breaker_trips"] == 1
        assert client.counts()["circuit_breakers_open"] == 0


async def test_a_refused_connection_counts_for_the_breaker(mortal: ServerProcess, gateway: str) -> None:
    async with opened(mortal, gateway, circuit_breaker_threshold=2) as client:
        url = mortal.url
        await asyncio.to_thread(mortal.kill)
        for _ in range(2):
            with pytest.raises(SessionCreateError) as caught:
                await client.acquire(url=url)
            assert caught.value.__cause__ is not None
        with pytest.raises(CircuitOpenError, match="Circuit breaker open for "):
            await client.acquire(url=url)
        assert client.counts()["circuit_breaker_trips"] == 1
        assert client.counts()["acquire_rejections"]["circuit_open"] == 1


async def test_errors_and_logs_show_no_credentials_and_no_query(
    mortal: ServerProcess, gateway: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "mcpgateway_pool")
    secret_url = f"http://user:{SECRET}@127.0.0.1:{mortal.port}{mortal.path}?key={SECRET}"
    shown: list[str] = []
    settings = {"max_sessions_per_key": 1, "acquire_timeout_seconds": 0.05, "circuit_breaker_threshold": 1}
    async with opened(mortal, gateway, **settings) as client:
        pooled = await client.acquire(url=secret_url)
        with pytest.raises(AcquireTimeoutError) as late:
            await client.acquire(url=secret_url)
        refuse_initialize(mortal, 401)
        with pytest.raises(SessionCreateError) as refused:
            await client.acquire(url=secret_url, user_identity="bob")
        shown.append(json.dumps(client.pool.get_metrics()))
        await client.pool.release(pooled)
        await asyncio.to_thread(mortal.kill)
        with pytest.raises(SessionCreateError) as failed:
            await client.acquire(url=secret_url, user_identity="carol")
        with pytest.raises(CircuitOpenError) as barred:
            await client.acquire(url=secret_url, user_identity="carol")
        shown.append(json.dumps(client.pool.get_metrics()))
    for caught in (late, refused, failed, barred):
        assert f"http://127.0.0.1:{mortal.port}{mortal.path}" in str(caught.value)
        shown.append(str(caught.value))
        # With its causes, as it would be logged.
        shown.extend(str(error) for error in causes(caught.value))
        shown.append("".join(traceback.format_exception(caught.value)))
    shown.append(caplog.text)
    for text in shown:
        assert SECRET not in text


def causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


# ---- drain and close


async def test_a_drain_lets_calls_in_flight_finish_and_reuses_no_session(
    server: ServerProcess, gateway: str
) -> None:
    async with opened(server, gateway) as client:
        before = client.initialized()
        async with client.session():
            await client.tool("echo", text="a second session")
        async with client.session() as pooled:
            assert client.states() == {"active": 1, "idle": 1}
            await asyncio.wait_for(client.pool.drain_all(), AT_ONCE)  # it waits for no session in use
            assert client.states() == {"active": 1, "idle": 0}
            assert await call(pooled, "echo", text="still there") == "still there"
        await until(lambda: client.counts()["size"] == 0, AT_ONCE)
        assert client.evictions() == {"manual": 2}
        assert await client.tool("counter") == "1"
        assert client.initialized() - before == 3


async def test_close_all_leaves_no_task_and_no_socket(server: ServerProcess, gateway: str) -> None:
    sockets = open_sockets()
    tasks = asyncio.all_tasks()
    pool = MCPSessionPool(max_sessions_per_key=4)
    client = Client(pool, server, gateway)
    await asyncio.gather(*(client.tool("slow", seconds=0.1) for _ in range(8)))
    in_flight = await client.calling()
    assert open_sockets() > sockets
    await pool.close_all()
    assert asyncio.all_tasks() - tasks <= {in_flight}
    with pytest.raises(Exception, match=r"."):
        await asyncio.wait_for(in_flight, AT_ONCE)
    gc.collect()
    await until(lambda: asyncio.all_tasks() == tasks, AT_ONCE)
    await until(lambda: open_sockets() == sockets, AT_ONCE)
    assert client.counts()["size"] == client.counts()["active_sessions"] == 0
    assert client.evictions() == {"manual": 4}
    await asyncio.to_thread(server.wait_for, lambda stats: stats["open_streams"] == 0)


async def test_a_dropped_session_is_closed_and_counted_as_leaked(server: ServerProcess, gateway: str) -> None:
    async with opened(server, gateway, max_sessions_per_key=1) as client:
        await client.acquire()  # and the result dropped
        gc.collect()
        # The place comes back: else this would wait for ever.
        assert await asyncio.wait_for(client.tool("counter"), AT_ONCE) == "1"
        assert client.evictions() == {"leaked": 1}


# ---- what Prometheus gets


@pytest.fixture
def metrics_url() -> Iterator[str]:
    """An ordinary endpoint of ``prometheus_client``, on a registry with the pool's collector."""
    registry = CollectorRegistry()
    register_collector(registry)
    endpoint, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    yield f"http://127.0.0.1:{endpoint.server_port}/metrics"
    endpoint.shutdown()
    thread.join()
    endpoint.server_close()
    unregister_collector(registry)


def fetch(url: str, accept: str = "text/plain") -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, headers={"Accept": accept}), timeout=10) as response:
        text: str = response.read().decode()
    return text


def samples_of(families: Any, gateway: str) -> dict[str, float]:
    """One gateway's samples, by name and, where there is one, reason."""
    return {
        f"{sample.name}:{sample.labels['reason']}" if "reason" in sample.labels else sample.name: sample.value
        for family in families
        for sample in family.samples
        if sample.labels.get("gateway_id") == gateway
    }


async def test_a_scrape_shows_exactly_what_happened(
    server: ServerProcess, gateway: str, metrics_url: str
) -> None:
    async with opened(server, gateway) as client:
        for _ in range(4):
            await client.tool("echo", text="1 miss, 3 hits")
        pooled = await client.acquire()
        await client.pool.release(pooled, discard=True)
        with pytest.raises(ZeroDivisionError):
            async with client.session():
                raise ZeroDivisionError
        held = await client.acquire()
        await client.tool("echo", text="beside it")
        classic = await asyncio.to_thread(fetch, metrics_url)
        open_metrics = await asyncio.to_thread(fetch, metrics_url, "application/openmetrics-text")
        await client.pool.release(held)

    expected = dict.fromkeys(
        (
            "circuit_breaker",
            "capacity",
            "health_check",
            "idle_timeout",
            "leaked",
            "ttl_expired",
            "broken",
            "manual",
            "process_ended",
        ),
        0.0,
    )
    expected.update(manual=1.0)
    six = {
        "mcp_session_pool_hits_total": 5.0,  # three, the one discarded, and the one whose block raised
        "mcp_session_pool_misses_total": 3.0,
        "mcp_session_pool_health_check_failures_total": 0.0,
        "mcp_session_pool_active_sessions": 1.0,
        "mcp_session_pool_size": 2.0,
        **{f"mcp_session_pool_evictions_total:{reason}": count for reason, count in expected.items()},
    }
    for parse, text in ((parse_classic, classic), (parse_openmetrics, open_metrics)):
        samples = samples_of(parse(text), gateway)
        assert {name: samples[name] for name in six} == six
        assert {name for name in samples if "evictions" in name} == {
            name for name in six if "evictions" in name
        }
        assert samples["mcp_session_pool_creates_total"] == 3
    assert open_metrics.endswith("# EOF\n")
    assert SECRET not in classic
    assert "127.0.0.1" not in classic


HOSTILE_GATEWAYS = (
    'quotes "inside"',
    "a\nnewline",
    "a \\ backslash\\",
    "a\0NUL",
    "an emoji \N{GRINNING FACE}",
    "a lone surrogate \ud800",
    'injected"} 1\nmcp_session_pool_hits_total{gateway_id="x',
    "long " * 200_000,
    "{}",
    " ",
)


@pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not on PATH (Debian package prometheus): `promtool check metrics` was NOT run",
)
async def test_promtool_accepts_the_exposition_with_hostile_gateway_ids(
    gateway: str, metrics_url: str
) -> None:
    class Faked(MCPSessionPool):
        async def _create_session(
            self, url: str, headers: Any, transport_type: Any, *_: Any
        ) -> PooledSession:
            return PooledSession(object(), None, url, transport_type, {}, "")

    async with Faked() as pool:
        for hostile in HOSTILE_GATEWAYS:
            async with pool.session("http://127.0.0.1:1/mcp", gateway_id=f"{gateway}{hostile}"):
                pass
        text = await asyncio.to_thread(fetch, metrics_url)
    labels = {
        sample.labels["gateway_id"]
        for family in parse_classic(text)
        for sample in family.samples
        if sample.labels.get("gateway_id", "").startswith(gateway)
    }
    assert len(labels) == len(HOSTILE_GATEWAYS)
    for readable in HOSTILE_GATEWAYS[:3]:
        assert f"{gateway}{readable}" in labels
    checked = await asyncio.to_thread(
        subprocess.run,
        ["promtool", "check", "metrics"],
        input=text.encode(),
        capture_output=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


class Ahead:
    """A pool with an old session, and what its server was asked since."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._before = server.stats()
        self._clock = FakeClock()
        self.pool = MCPSessionPool(
            clock=self._clock,
            session_ttl_seconds=100.0,
            session_ttl_jitter=0.0,
            health_check_interval_seconds=1000.0,
        )
        self._place = self.pool.server(
            server.url, user_identity="user", transport_type=TransportType(server.transport)
        )

    def posts(self, method: str) -> int:
        return int(self._server.stats()["posts"].get(method, 0) - self._before["posts"].get(method, 0))

    async def call(self) -> PooledSession:
        async with self._place.session() as pooled:
            await pooled.session.call_tool("echo", {"text": "hello"})
            return pooled

    async def ping(self) -> PooledSession:
        async with self._place.session() as pooled:
            await pooled.session.send_ping()
            return pooled

    async def pass_time(self, seconds: float) -> None:
        self._clock.advance(seconds)
        await upkeep(self.pool)


async def test_no_caller_pays_for_the_tools_of_a_session_that_was_opened_ahead(server: ServerProcess) -> None:
    ahead = Ahead(server)
    async with ahead.pool as pool:
        first = await ahead.call()
        assert ahead.posts("tools/list") == 1  # the SDK checks the result by the tool's schema
        await ahead.pass_time(97.0)
        await until(lambda: pool.stats().idle_sessions == 2)
        assert ahead.posts("tools/list") == 2
        await ahead.pass_time(5.0)
        assert await ahead.call() is not first
        assert ahead.posts("tools/call") == 2
        assert ahead.posts("tools/list") == 2


async def test_a_session_like_one_that_called_no_tools_asks_for_none(server: ServerProcess) -> None:
    ahead = Ahead(server)
    async with ahead.pool as pool:
        first = await ahead.ping()
        await ahead.pass_time(97.0)
        await until(lambda: pool.stats().idle_sessions == 2)
        await ahead.pass_time(5.0)
        assert await ahead.ping() is not first
        assert ahead.posts("tools/list") == 0


async def test_a_session_opened_ahead_is_kept_where_its_server_does_not_tell_its_tools() -> None:
    with ServerProcess() as server:
        ahead = Ahead(server)
        async with ahead.pool as pool:
            first = await ahead.call()
            server.fault("error", method="tools/list", code=-32603)
            await ahead.pass_time(97.0)
            await until(lambda: pool.stats().idle_sessions == 2)
            assert pool.stats().create_failures == 0
            await ahead.pass_time(5.0)
            assert await ahead.call() is not first


async def test_a_pool_that_closes_while_a_session_learns_its_tools_closes_it_too(
    server: ServerProcess,
) -> None:
    ahead = Ahead(server)
    async with ahead.pool:
        await ahead.call()
        server.fault("hang", method="tools/list")
        await ahead.pass_time(97.0)
        await until(lambda: ahead.posts("tools/list") == 2)
    assert ahead.posts("initialize") == 2
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
