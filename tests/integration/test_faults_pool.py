"""What the pool does about sessions that broke, and about servers that are slow to open or to close them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcpgateway_pool import MCPSessionPool, SessionCreateTimeoutError, TransportType
from mcpgateway_pool.upstream import http_client, sdk
from servers.process import ServerProcess
from servers.waiting import AT_ONCE, until
from support.fake_clients import client_factory_that_clings
from support.fault_cases import HEADERS, Stage, bounded
from support.leaks import run_clean

if sdk.follows_redirects():
    pytestmark = pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning")

BOTH: tuple[sdk.TransportName, ...] = ("sse", "streamablehttp")


@pytest.fixture
def mortal(shared: ServerProcess) -> Iterator[ServerProcess]:
    """A server for one test, to be frozen."""
    with ServerProcess(shared.transport) as server:
        yield server


def stage_of(server: ServerProcess, **settings: Any) -> Stage:
    pool = MCPSessionPool(**{"cleanup_timeout_seconds": 0.5, **settings})
    return Stage(server, pool, TransportType(server.transport))


async def posts(stage: Stage, method: str) -> int:
    count: int = (await stage.threaded(stage.server.stats))["posts"].get(method, 0)
    return count


# ---- suspicion


def test_a_server_error_makes_each_older_session_be_pinged_once_and_closes_none(
    server: ServerProcess,
) -> None:
    async def test() -> None:
        stage = stage_of(server)
        await stage.idle(5)
        opened, pings = await posts(stage, "initialize"), await posts(stage, "ping")
        server.fault("status", status=500, method="tools/call")
        assert (await stage.call()).error is not None
        for _ in range(2):
            for call in await stage.working(4, 0.3):
                assert (await call).error is None
            assert await posts(stage, "ping") - pings == 4
        # None was closed unchecked.
        assert await posts(stage, "initialize") == opened
        evictions = stage.pool._totals()["evictions"]
        assert not any(evictions.values())
        await stage.pool.close_all()

    run_clean(test)


@pytest.mark.parametrize("style", ["session", "bare"])
def test_tool_errors_and_cancellation_raise_no_suspicion(server: ServerProcess, style: str) -> None:
    async def test() -> None:
        stage = stage_of(server)
        stage.style = style
        await stage.idle(3)
        pings = await posts(stage, "ping")
        async with stage.session() as pooled:
            result = await pooled.session.call_tool("fail", {})
            assert getattr(result, "is_error", None) or getattr(result, "isError", None)
        (call,) = await stage.working()
        call.cancel()
        await asyncio.wait({call})
        for call in await stage.working(2, 0.2):
            assert (await call).error is None
        assert await posts(stage, "ping") == pings
        await stage.pool.close_all()

    run_clean(test)


def test_an_exception_of_the_callers_own_says_nothing_about_a_session(
    server: ServerProcess,
) -> None:
    async def test() -> None:
        stage = stage_of(server)
        await stage.idle(2)
        pings = await posts(stage, "ping")
        with pytest.raises(ZeroDivisionError):
            async with stage.session():
                raise ZeroDivisionError
        opened = await posts(stage, "initialize")
        assert (await stage.call()).error is None
        assert not any(stage.pool._totals()["evictions"].values())
        assert await posts(stage, "ping") == pings
        assert await posts(stage, "initialize") == opened
        await stage.pool.close_all()

    run_clean(test)


def test_a_session_whose_standing_stream_ended_is_pinged_once_and_kept(server: ServerProcess) -> None:
    """Servers and proxies may end these streams at will; they also end when the server does."""
    if server.transport == "sse":
        pytest.skip("over SSE there is one stream for everything: its end is the session's")

    async def test() -> None:
        stage = stage_of(server)
        await stage.call()
        await stage.settled()
        pings, opened = await posts(stage, "ping"), await posts(stage, "initialize")
        streams = server.stats()["get_streams"]
        server.fault("stream-cut")
        await stage.call("notify", kind="tools")
        await stage.threaded(server.wait_for, lambda stats: stats["get_streams"] > streams)
        for _ in range(3):
            assert (await stage.call()).error is None
        assert await posts(stage, "ping") - pings == 1
        assert await posts(stage, "initialize") == opened
        await stage.pool.close_all()

    run_clean(test)


# ---- creation


@pytest.mark.long("200 callers with real sessions each; a burst after a restart is in test_faults.py")
@pytest.mark.timeout(150)
def test_a_reconnect_of_200_callers_is_no_stampede(mortal: ServerProcess) -> None:
    """On one transport, because it takes a while."""
    server = mortal
    if server.transport == "sse":
        pytest.skip("shown over streamable HTTP")

    async def test() -> None:
        at_once = most = 0

        class Counting(MCPSessionPool):
            async def _create_session(self, *arguments: Any, **options: Any) -> Any:
                nonlocal at_once, most
                at_once += 1
                most = max(most, at_once)
                try:
                    return await super()._create_session(*arguments, **options)
                finally:
                    at_once -= 1

        pool = Counting(acquire_timeout_seconds=120)
        assert pool._settings.max_creating_per_url == 32

        async def user(number: int) -> str:
            async with pool.session(
                server.url, HEADERS, TransportType(server.transport), user_identity=f"user {number}"
            ) as pooled:
                result = await pooled.session.call_tool("echo", {"text": str(number)})
                return str(result.content[0].text)

        answers = await asyncio.gather(*(user(number) for number in range(200)))
        assert answers == [str(number) for number in range(200)]
        assert most == 32
        assert server.stats()["sessions_opened"] == 200
        await pool.close_all()
        await asyncio.to_thread(server.wait_for, lambda stats: stats["open_streams"] == 0, 20.0)

    run_clean(test, limit=120)


def test_a_creation_whose_caller_was_cancelled_finishes_into_the_pool(server: ServerProcess) -> None:
    async def test() -> None:
        has_begun, may_go_on = asyncio.Event(), asyncio.Event()

        class Held(MCPSessionPool):
            async def _create_session(self, *arguments: Any, **options: Any) -> Any:
                has_begun.set()
                await may_go_on.wait()
                return await super()._create_session(*arguments, **options)

        stage = Stage(server, Held(), TransportType(server.transport))
        opened = server.stats()["sessions_opened"]
        acquiring = asyncio.ensure_future(stage.call())
        await asyncio.wait_for(has_begun.wait(), 30)
        acquiring.cancel()
        await asyncio.wait({acquiring})
        assert stage.pool._counts()["creating"] == 1
        may_go_on.set()
        await until(lambda: stage.pool._counts()["idle"] == 1)
        assert (await stage.call()).error is None
        assert stage.pool._totals()["hits"] == 1
        assert server.stats()["sessions_opened"] - opened == 1
        await stage.pool.close_all()

    run_clean(test)


def test_opening_a_session_of_a_frozen_server_ends_in_time(mortal: ServerProcess) -> None:
    async def test() -> None:
        stage = stage_of(mortal, session_create_timeout_seconds=0.5)
        mortal.freeze()
        call = await stage.call()
        assert isinstance(call.error, SessionCreateTimeoutError)
        mortal.thaw()
        await stage.pool.close_all()
        assert stage.pool._counts()["creating"] == 0

    run_clean(test)


def test_tls_contexts_are_dropped_by_a_drain(server: ServerProcess) -> None:
    async def test() -> None:
        stage = stage_of(server)
        await stage.call()
        before = http_client.tls_context()
        assert http_client.tls_context() is before
        await stage.pool.drain_all()
        assert http_client.tls_context() is not before
        assert stage.pool._counts()["idle"] == 0
        assert (await stage.call()).error is None
        await stage.pool.close_all()

    run_clean(test)


# ---- close


def test_closing_sessions_whose_goodbye_is_never_answered_is_bounded() -> None:
    async def test() -> None:
        with ServerProcess("streamablehttp") as server:
            stage = stage_of(server)
            await stage.idle(3)
            server.fault("hang", http="DELETE", count=3)
            await bounded(stage.pool.close_all(), AT_ONCE)
            assert not any(stage.pool._counts()[name] for name in ("idle", "closing"))
            assert not stage.pool._tasks

    run_clean(test)


def test_releasing_a_session_of_a_frozen_server_waits_for_no_goodbye(mortal: ServerProcess) -> None:
    """It goes on in the background, and keeps the session's place until it has ended."""

    async def test() -> None:
        stage = stage_of(mortal, max_sessions_per_key=1, cleanup_timeout_seconds=300)
        where = (mortal.url, HEADERS, stage.transport_type)
        pooled = await stage.pool.acquire(*where)
        mortal.freeze()
        await bounded(stage.pool.release(pooled, discard=True), AT_ONCE)
        if not stage.is_sse:  # which says no goodbye
            assert stage.pool._counts()["closing"] == 1
        mortal.thaw()
        await until(lambda: stage.pool._counts()["closing"] == 0)
        pooled = await stage.pool.acquire(*where)
        await stage.pool.release(pooled)
        await stage.pool.close_all()

    run_clean(test)


def test_an_owner_that_ignores_its_cancellation_keeps_no_place(server: ServerProcess) -> None:
    async def test() -> None:
        stage = stage_of(server, max_sessions_per_key=1)
        let_go = asyncio.Event()
        where = (server.url, HEADERS, stage.transport_type)
        pooled = await stage.pool.acquire(*where, httpx_client_factory=client_factory_that_clings(let_go))
        task = pooled.owner_task
        try:
            await bounded(stage.pool.release(pooled, discard=True), AT_ONCE)
            await until(lambda: stage.pool._counts()["closing"] == 0)
            assert not task.done()
            assert (await stage.call()).error is None
            await bounded(stage.pool.close_all(), AT_ONCE)
        finally:
            let_go.set()
        await asyncio.wait({task}, timeout=5)
        assert task.done()

    run_clean(test)


# ---- messages from the server


def test_messages_reach_the_handler_of_the_right_gateway(server: ServerProcess) -> None:
    async def test() -> None:
        came: asyncio.Queue[tuple[str, str | None, str]] = asyncio.Queue()

        def factory(url: str, gateway_id: str | None) -> Any:
            async def handler(message: Any) -> None:
                came.put_nowait((url, gateway_id, type(getattr(message, "root", message)).__name__))

            return handler

        pool = MCPSessionPool(message_handler_factory=factory)
        gateways: tuple[str | None, ...] = ("one", "two", None)
        for kind, expected in (
            ("log", "LoggingMessageNotification"),
            ("tools", "ToolListChangedNotification"),
        ):
            for number, gateway in enumerate(gateways):
                async with pool.session(
                    server.url, HEADERS, TransportType(server.transport), gateway_id=gateway
                ) as pooled:
                    if server.transport == "streamablehttp":
                        streams = number + 1 if kind == "log" else len(gateways)
                        await asyncio.to_thread(
                            server.wait_for, lambda stats, n=streams: stats["open_streams"] == n, 10.0
                        )
                    await pooled.session.call_tool("notify", {"kind": kind})
                    assert await asyncio.wait_for(came.get(), AT_ONCE) == (server.url, gateway, expected)
        assert came.empty()
        assert pool._totals()["creates"] == len(gateways)
        await pool.close_all()

    run_clean(test)


# ---- a whole program


@pytest.mark.long("all faults once more, one after the other in one program")
@pytest.mark.parametrize("transport", BOTH)
def test_a_program_that_meets_every_fault_leaves_no_complaint(transport: str) -> None:
    """In development mode, with asyncio's debug mode: no "Task was destroyed", no "never retrieved", no
    resource that was not closed.
    """
    program = Path(__file__).resolve().parent / "quiet_program.py"
    finished = subprocess.run(
        [sys.executable, "-P", "-X", "dev", str(program), transport],
        env={**os.environ, "PYTHONASYNCIODEBUG": "1"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert finished.stderr == ""
    assert finished.returncode == 0
    assert finished.stdout.endswith("done\n")
