"""The registry with the release's own session factory, over real MCP servers of the release's SDK."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from types import ModuleType
from typing import Any, Literal

import pytest

from servers.process import ServerProcess
from support.release_sessions import client_factory, error_of

Transport = Literal["sse", "streamablehttp"]
Make = Callable[..., Any]
PATIENCE_SECONDS = 30.0


@pytest.fixture(params=["streamablehttp", "sse"])
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    with ServerProcess(request.param) as server:
        yield server


@pytest.fixture
async def make(release: ModuleType, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    """Makes a registry; no owner task must survive its ``close_all()``."""
    before = asyncio.all_tasks()
    made = []

    def make(environment: dict[str, str] | None = None, **settings: Any) -> Any:
        for name, value in (environment or {}).items():
            monkeypatch.setenv(f"MCPGATEWAY_POOL_{name}", value)
        registry = release.UpstreamSessionRegistry(**settings)
        made.append(registry)
        return registry

    yield make
    for registry in made:
        await registry.close_all()
    left = [task for task in asyncio.all_tasks() - before if "upstream-session" in task.get_name()]
    assert left == []


@pytest.fixture
def with_state(release: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions have state on the server: newer protocol revisions, which 1.1.0 prefers, have none."""
    if hasattr(release, "settings"):
        monkeypatch.setattr(release.settings, "mcp_client_connect_mode", "legacy")


class Caller:
    """Calls as the gateway's services do."""

    def __init__(self, registry: Any, release: ModuleType, server: ServerProcess, **more: object) -> None:
        self._registry = registry
        self._arguments = {
            "gateway_id": "g1",
            "url": server.url,
            "headers": {"Authorization": "Bearer t"},
            "transport_type": release.TransportType(server.transport),
            "httpx_client_factory": client_factory,
            **more,
        }

    async def __call__(self, tool: str, downstream: str = "d1", **arguments: Any) -> str:
        async with self._registry.acquire(downstream_session_id=downstream, **self._arguments) as upstream:
            async with asyncio.timeout(PATIENCE_SECONDS):
                result = await upstream.session.call_tool(tool, arguments)
        return str(result.content[0].text)

    async def until_it_works(self) -> int:
        """Calls until one succeeds; how many failed before."""
        for failed in range(5):
            try:
                assert await self("echo", text="back") == "back"
            except Exception as error:
                logging.getLogger(__name__).debug("not yet", exc_info=error)
            else:
                return failed
        raise AssertionError("the server is back, and no call succeeds")


@pytest.mark.usefixtures("with_state")
async def test_downstream_sessions_never_see_each_others_state(
    make: Make, release: ModuleType, server: ServerProcess
) -> None:
    call = Caller(make(), release, server)
    for expected in ("1", "2", "3"):
        for downstream in ("d1", "d2"):
            assert await call("counter", downstream) == expected


@pytest.mark.usefixtures("with_state")
async def test_restarts_of_the_server_are_recovered_from_and_leave_no_owner_task(
    make: Make, release: ModuleType, server: ServerProcess
) -> None:
    registry = make()
    call = Caller(registry, release, server)
    await call("echo", text="first")
    for _ in range(3):
        server.kill()
        server.start()
        assert await call.until_it_works() <= 1
    snapshot = registry.snapshot()
    assert snapshot.active_sessions == 1
    assert snapshot.creates == 4
    await registry.close_all()
    owners = [task for task in asyncio.all_tasks() if "upstream-session" in task.get_name()]
    assert owners == []


@pytest.mark.parametrize("concurrency", ["exclusive", "shared"])
async def test_call_in_flight_fails_when_its_server_dies(
    make: Make, release: ModuleType, server: ServerProcess, concurrency: str
) -> None:
    call = Caller(make({"CONCURRENCY": concurrency}), release, server)
    await call("echo", text="first")
    calls = [
        asyncio.create_task(call("slow", seconds=100)) for _ in range(1 if concurrency == "exclusive" else 3)
    ]
    await asyncio.to_thread(server.wait_for, lambda stats: stats["posts"]["tools/call"] > len(calls))
    server.kill()
    for task in calls:
        assert not isinstance(await error_of(task), TimeoutError), "it hung"
    server.start()
    assert await call.until_it_works() <= 1


@pytest.mark.parametrize("factory", [client_factory, None], ids=["factory", "default"])
async def test_refused_call_fails_at_once_and_its_session_is_kept(
    make: Make, release: ModuleType, server: ServerProcess, factory: object
) -> None:
    registry = make()
    call = Caller(registry, release, server, httpx_client_factory=factory)
    await call("echo", text="first")
    server.fault("status", status=503, method="tools/call")
    assert not isinstance(await error_of(call("echo", text="refused")), TimeoutError), "it hung"
    assert await call("echo", text="again") == "again"
    assert registry.snapshot().creates == 1


async def test_refused_handshake_reads_as_the_release_words_it(
    make: Make, release: ModuleType, server: ServerProcess
) -> None:
    registry = make({"CIRCUIT_BREAKER_THRESHOLD": "1"})
    call = Caller(registry, release, server)
    server.fault("status", status=401, count=10, http="GET" if server.transport == "sse" else "POST")
    for _ in range(2):  # and one caller's bad token opens no breaker
        with pytest.raises(RuntimeError, match="auth_unauthorized"):
            await call("echo", text="no")


async def test_sse_server_that_sends_messages_to_another_origin_is_refused_at_once(
    make: Make, release: ModuleType
) -> None:
    """The release, and the SDK, would wait for as long as a session may take to open."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        writer.write(b"event: endpoint\ndata: http://elsewhere.test/messages\n\n")
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listener:
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/sse"
        registry = make()
        for factory in (client_factory, None):
            with pytest.raises(RuntimeError, match="another origin"):
                async with registry.acquire(
                    downstream_session_id="d1",
                    gateway_id="g1",
                    url=url,
                    headers=None,
                    transport_type=release.TransportType.SSE,
                    httpx_client_factory=factory,
                ):
                    pass


async def test_shared_calls_overtake_each_other_and_exclusive_ones_do_not(
    make: Make, release: ModuleType, server: ServerProcess
) -> None:
    for concurrency, order in (("shared", ["echo", "slow"]), ("exclusive", ["slow", "echo"])):
        registry = make({"CONCURRENCY": concurrency})
        call = Caller(registry, release, server)
        await call("echo", text="first")
        ended = []

        async def note(tool: str, call: Caller = call, ended: list[str] = ended, **arguments: Any) -> None:
            await call(tool, **arguments)
            ended.append(tool)

        slow = asyncio.create_task(note("slow", seconds=1.0))
        while not registry._pool._counts()["active"]:
            await asyncio.sleep(0.01)
        await note("echo", text="quick")
        await slow
        assert ended == order
        assert registry.snapshot().creates == 1


@pytest.mark.parametrize("concurrency", ["exclusive", "shared"])
async def test_call_that_hangs_fails_when_the_time_of_its_eviction_is_over(
    make: Make, release: ModuleType, server: ServerProcess, concurrency: str
) -> None:
    registry = make({"CONCURRENCY": concurrency}, shutdown_timeout_seconds=0.2)
    call = Caller(registry, release, server)
    await call("echo", text="first")
    server.fault("hang", method="tools/call")
    hanging = asyncio.create_task(call("echo", text="never"))
    await asyncio.to_thread(server.wait_for, lambda stats: stats["faults_done"] > 0)
    assert await registry.evict_gateway("g1") == 1
    assert await call("echo", text="next") == "next"
    assert not isinstance(await error_of(hanging), TimeoutError), "it hung"
    assert registry.snapshot().active_sessions == 1


async def test_evictions_of_many_real_sessions_end_their_tasks(
    make: Make, release: ModuleType, server: ServerProcess
) -> None:
    registry = make()
    call = Caller(registry, release, server)
    for number in range(10):
        await call("echo", f"d{number}", text="hello")
    assert await registry.evict_session("d0") == 1
    assert await registry.evict_gateway("g1") == 9
    assert not [task for task in asyncio.all_tasks() if "upstream-session" in task.get_name()]
    assert registry.snapshot().active_sessions == 0
