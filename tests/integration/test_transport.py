"""Sessions over the real SDK against real servers, and everything that can go wrong with them.

Runs on whichever generation of the MCP SDK is installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from unittest import mock

import pytest

from mcpgateway_pool.upstream import sdk, session_owner
from mcpgateway_pool.upstream.session_owner import SessionOwner, open_session
from mcpgateway_pool.verdict import DOUBTFUL, FAILING, LOST, Fault, Verdict, fault_of
from servers.process import ServerProcess
from servers.proxy import BreakingProxy
from servers.waiting import AT_ONCE
from support.leaks import settle

if sdk.follows_redirects():
    # An SDK as old as 1.27 leaves two in-memory streams of its own to the collector when it cannot connect
    # over SSE.
    pytestmark = pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning")

BOTH = ("sse", "streamablehttp")
SECRET = "s3cr3t-t0ken"
HEADERS = {"Authorization": f"Bearer {SECRET}", "X-MCP-Session-Id": "down", "mcp-SESSION-id": "stream"}


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test in a loop of its own, and fail if it leaves a task or an unhandled exception behind."""
    unhandled: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        async with asyncio.timeout(40):
            await test()
        # The SDK leaves async generators half-way; when they are collected, asyncio ends each in a short
        # task.
        gc.collect()
        await settle()
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    asyncio.run(main())
    gc.collect()
    assert unhandled == []


@pytest.fixture(scope="module")
def shared_streamable() -> Iterator[ServerProcess]:
    with ServerProcess("streamablehttp") as server:
        yield server


@pytest.fixture
def streamable(shared_streamable: ServerProcess) -> ServerProcess:
    shared_streamable.fault("clear")
    return shared_streamable


@pytest.fixture(scope="module")
def shared_sse() -> Iterator[ServerProcess]:
    with ServerProcess("sse") as server:
        yield server


@pytest.fixture
def sse(shared_sse: ServerProcess) -> ServerProcess:
    shared_sse.fault("clear")
    return shared_sse


@contextlib.asynccontextmanager
async def opened(server: ServerProcess, url: str = "", **options: Any) -> AsyncIterator[SessionOwner]:
    """A session with its tools listed, so that a call is one request."""
    owner = await open_session(url or server.url, HEADERS, server.transport, **options)
    try:
        await owner.session.list_tools()
        yield owner
    finally:
        await owner.close(2)
        assert owner.task.done()


def text_of(result: Any) -> str:
    return str(result.content[0].text)


async def tool(owner: SessionOwner, name: str, **arguments: Any) -> str:
    return text_of(await owner.session.call_tool(name, arguments))


async def failure_of(call: Awaitable[Any], within: float = AT_ONCE) -> BaseException:
    """What a call raises, which it must do in time."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        await asyncio.wait_for(call, within)
    assert not isinstance(caught.value, TimeoutError), "it hangs"
    return caught.value


async def running_call(server: ServerProcess, owner: SessionOwner, seconds: float = 20) -> asyncio.Task[str]:
    """A call that the server has taken and is working on."""
    before = server.stats()["posts"].get("tools/call", 0)
    call = asyncio.create_task(tool(owner, "slow", seconds=seconds))
    await asyncio.to_thread(server.wait_for, lambda stats: stats["posts"].get("tools/call", 0) > before)
    return call


async def broken(owner: SessionOwner, within: float = AT_ONCE) -> None:
    """Wait for the session's own word that it is broken."""
    event = asyncio.Event()
    owner.on_verdict(lambda seen: event.set() if seen is LOST else None)
    await asyncio.wait_for(event.wait(), within)
    assert owner.broken
    assert owner.problem


def assert_sdk_error(error: BaseException, *words: str) -> None:
    assert isinstance(error, type(sdk.make_error(0, "")))
    assert sdk.error_code(error) == -32000
    for word in words:
        assert word in str(error)
    assert SECRET not in str(error)


# ---- a session that works


def test_a_session_keeps_its_state_and_ends_at_the_server_when_closed(mortal: ServerProcess) -> None:
    async def test() -> None:
        async with opened(mortal) as owner:
            assert [await tool(owner, "counter") for _ in range(3)] == ["1", "2", "3"]
            assert not owner.broken
            assert not sdk.is_transport_closed(owner.session)
            assert await owner.close(2) is True
            assert sdk.is_transport_closed(owner.session)
            assert not owner.broken
        mortal.wait_for(lambda stats: stats["open_streams"] == 0)
        if mortal.transport == "streamablehttp":
            assert mortal.stats()["sessions_deleted"] == 1

    run(test)


def test_headers_of_the_downstream_session_do_not_go_upstream(server: ServerProcess) -> None:
    async def test() -> None:
        async with opened(server) as owner:
            sent = json.loads(await tool(owner, "whoami"))["headers"]
            assert sent["authorization"] == f"Bearer {SECRET}"
            assert "x-mcp-session-id" not in sent
            assert sent.get("mcp-session-id") != "stream"
            initialize = server.stats()["initialize_headers"]
            assert not any(header.startswith(("x-mcp-session-id", "mcp-session-id")) for header in initialize)
            assert "accept: application/json, text/event-stream" in initialize

    run(test)


@pytest.mark.parametrize("kind", ["log", "tools"])
def test_notifications_reach_the_message_handler(server: ServerProcess, kind: str) -> None:
    async def test() -> None:
        came: asyncio.Queue[str] = asyncio.Queue()

        async def handler(message: Any) -> None:
            came.put_nowait(type(getattr(message, "root", message)).__name__)

        async with opened(server, message_handler=handler) as owner:
            if server.transport == "streamablehttp":
                await asyncio.to_thread(server.wait_for, lambda stats: stats["open_streams"] > 0)
            await tool(owner, "notify", kind=kind)
            expected = "ToolListChangedNotification" if kind == "tools" else "LoggingMessageNotification"
            assert await asyncio.wait_for(came.get(), 5) == expected

    run(test)


def test_the_owner_keeps_no_context_of_the_request_that_opened_it(server: ServerProcess) -> None:
    import contextvars

    variable = contextvars.ContextVar("variable", default="empty")

    async def test() -> None:
        seen: asyncio.Queue[str] = asyncio.Queue()

        async def handler(_message: Any) -> None:
            seen.put_nowait(variable.get())

        token = variable.set("of a request")
        async with opened(server, message_handler=handler) as owner:
            variable.reset(token)
            if server.transport == "streamablehttp":
                await asyncio.to_thread(server.wait_for, lambda stats: stats["open_streams"] > 0)
            await tool(owner, "notify", kind="tools")
            assert await asyncio.wait_for(seen.get(), 5) == "empty"

    run(test)


def test_many_sessions_leave_no_task_and_no_descriptor(server: ServerProcess) -> None:
    async def test() -> None:
        async with opened(server):
            pass
        before = len(os.listdir("/proc/self/fd"))
        owners = await asyncio.gather(
            *(open_session(server.url, HEADERS, server.transport) for _ in range(20))
        )
        assert [await tool(owner, "add", a=1, b=2) for owner in owners] == ["3"] * 20
        assert await asyncio.gather(*(owner.close(5) for owner in owners)) == [True] * 20
        await settle()
        assert len(os.listdir("/proc/self/fd")) <= before + 1

    run(test)


def test_a_redirect_within_the_server_is_followed(streamable: ServerProcess) -> None:
    async def test() -> None:
        async with opened(streamable, streamable.url + "/") as owner:
            assert await tool(owner, "echo", text="x") == "x"
            assert not owner.broken

    run(test)


@pytest.mark.parametrize("option", ["--json", "--stateless"])
def test_servers_that_answer_in_json_or_keep_no_session_fail_their_calls_too(option: str) -> None:
    async def test() -> None:
        with ServerProcess("streamablehttp", option) as server:
            async with opened(server) as owner:
                assert await tool(owner, "echo", text="x") == "x"
                call = await running_call(server, owner)
                server.kill()
                assert_sdk_error(await failure_of(call))
                await broken(owner)

    run(test)


# ---- the server dies


def test_an_idle_sse_session_is_broken_as_soon_as_its_server_dies() -> None:
    async def test() -> None:
        with ServerProcess("sse") as server:
            async with opened(server) as owner:
                server.kill()
                await broken(owner)
                await asyncio.wait_for(asyncio.wait({owner.task}), AT_ONCE)
                assert sdk.is_transport_closed(owner.session)
                assert_sdk_error(await failure_of(tool(owner, "echo", text="x")))

    run(test)


def test_an_idle_streamable_session_fails_its_next_call_when_its_server_died() -> None:
    async def test() -> None:
        with ServerProcess("streamablehttp") as server:
            async with opened(server) as owner:
                server.kill()
                assert_sdk_error(await failure_of(tool(owner, "echo", text="x")), "connection")
                assert owner.broken

    run(test)


def test_a_call_fails_at_once_when_the_server_is_killed(mortal: ServerProcess) -> None:
    async def test() -> None:
        async with opened(mortal) as owner:
            call = await running_call(mortal, owner)
            mortal.kill()
            assert_sdk_error(await failure_of(call))
            await broken(owner)

    run(test)


def test_a_call_fails_at_once_when_the_server_process_exits_in_it(mortal: ServerProcess) -> None:
    async def test() -> None:
        async with opened(mortal) as owner:
            assert_sdk_error(await failure_of(tool(owner, "die")))
            await broken(owner)

    run(test)


def test_a_call_fails_within_a_second_of_the_end_of_a_terminated_server(mortal: ServerProcess) -> None:
    async def test() -> None:
        async with opened(mortal) as owner:
            call = await running_call(mortal, owner)
            await asyncio.to_thread(mortal.stop, 5)
            assert_sdk_error(await failure_of(call))
            await broken(owner)

    run(test)


@pytest.mark.parametrize("how", ["reset", "half_close"])
def test_a_call_fails_at_once_when_its_connection_breaks(server: ServerProcess, how: str) -> None:
    async def test() -> None:
        async with BreakingProxy(server.port) as proxy:
            url = f"http://127.0.0.1:{proxy.port}{server.path}"
            async with opened(server, url) as owner:
                call = await running_call(server, owner)
                getattr(proxy, how)()
                assert_sdk_error(await failure_of(call))
                await broken(owner)

    run(test)


def test_a_session_of_a_restarted_server_is_found_dead_by_its_first_call(mortal: ServerProcess) -> None:
    async def test() -> None:
        async with opened(mortal) as owner:
            await asyncio.to_thread(mortal.restart)
            await failure_of(tool(owner, "echo", text="x"))
            await broken(owner)
        async with opened(mortal) as owner:
            assert await tool(owner, "echo", text="again") == "again"

    run(test)


# ---- the server answers wrongly


@pytest.mark.parametrize(
    ("status", "expected"),
    [*((status, []) for status in (400, 401, 403, 413, 422, 429)), (500, [FAILING]), (503, [FAILING])],
)
def test_a_refused_call_fails_at_once_and_its_session_lives(
    server: ServerProcess, status: int, expected: list[Verdict]
) -> None:
    async def test() -> None:
        async with opened(server, f"{server.url}?key={SECRET}") as owner:
            told: list[Verdict] = []
            owner.on_verdict(told.append)
            server.fault("status", status=status, method="tools/call", body=SECRET)
            assert_sdk_error(await failure_of(tool(owner, "echo", text="x")), f"HTTP {status}")
            assert told == expected
            assert await tool(owner, "echo", text="works") == "works"
            assert not owner.broken

    run(test)


@pytest.mark.parametrize("code", [-32000, -32600, 32600, -32601, -32001, -1])
def test_no_code_of_an_answer_says_anything_about_its_session(streamable: ServerProcess, code: int) -> None:
    async def test() -> None:
        async with opened(streamable) as owner:
            told: list[Verdict] = []
            owner.on_verdict(told.append)
            before = await tool(owner, "counter")
            streamable.fault("error", code=code, method="tools/call")
            assert sdk.error_code(await failure_of(tool(owner, "echo", text="x"))) == code
            assert int(await tool(owner, "counter")) == int(before) + 1
            assert told == []

    run(test)


def test_a_refused_call_does_not_fail_a_call_beside_it(streamable: ServerProcess) -> None:
    async def test() -> None:
        async with opened(streamable) as owner:
            other = await running_call(streamable, owner, seconds=0.3)
            streamable.fault("status", status=503, method="tools/call")
            assert_sdk_error(await failure_of(tool(owner, "echo", text="x")))
            assert await other == "slept 0.3"

    run(test)


def test_a_call_that_cannot_be_sent_does_not_fail_a_call_beside_it(streamable: ServerProcess) -> None:
    async def test() -> None:
        class Failing(sdk.http_library().AsyncBaseTransport):  # type: ignore[misc]
            def __init__(self) -> None:
                self.inner = sdk.http_library().AsyncHTTPTransport()

            async def handle_async_request(self, request: Any) -> Any:
                if b"cannot be sent" in await request.aread():
                    raise sdk.http_library().ReadError("in vain")
                return await self.inner.handle_async_request(request)

            async def aclose(self) -> None:
                await self.inner.aclose()

        def factory(headers: Any = None, timeout: Any = None, auth: Any = None) -> Any:
            return sdk.http_library().AsyncClient(headers=headers, timeout=timeout, transport=Failing())

        async with opened(streamable, httpx_client_factory=factory) as owner:
            other = await running_call(streamable, owner, seconds=0.3)
            error = await failure_of(tool(owner, "echo", text="cannot be sent"))
            assert_sdk_error(error, "ReadError: in vain")
            assert owner.broken
            assert await other == "slept 0.3"

    run(test)


def test_a_json_rpc_error_in_a_refusal_reaches_the_caller_unchanged(streamable: ServerProcess) -> None:
    async def test() -> None:
        async with opened(streamable) as owner:
            error_data = {"code": -32602, "message": "bad params"}
            body = json.dumps({"jsonrpc": "2.0", "id": None, "error": error_data})
            streamable.fault("status", status=400, method="tools/call", body=body, type="application/json")
            error = await failure_of(tool(owner, "echo", text="x"))
            assert sdk.error_code(error) == -32602
            assert "bad params" in str(error)

    run(test)


@pytest.mark.parametrize("code", [None, -32001, -32600, -32601])
def test_a_session_that_its_server_has_forgotten_is_lost_whatever_code_it_names(
    streamable: ServerProcess, code: int | None
) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": "Session not found"}})

    async def test() -> None:
        async with opened(streamable) as owner:
            answer = {} if code is None else {"type": "application/json", "body": body}
            streamable.fault("status", status=404, method="tools/call", **answer)
            await failure_of(tool(owner, "echo", text="x"))
            assert owner.broken

    run(test)


@pytest.mark.parametrize(
    ("fault", "is_lost"),
    [
        ({"kind": "garbage"}, False),
        ({"kind": "garbage-sse"}, None),
        ({"kind": "cut"}, True),
        ({"kind": "end"}, True),
        ({"kind": "status", "status": 202}, False),
        ({"kind": "status", "status": 200, "type": "text/html", "body": "<html>"}, False),
        (
            {
                "kind": "status",
                "status": 200,
                "type": "application/json",
                "body": '{"jsonrpc":"2.0","id":987,"result":{}}',
            },
            False,
        ),
    ],
    ids=["garbage", "garbage-event", "cut", "end", "202", "html", "foreign-id"],
)
def test_a_call_whose_answer_never_comes_fails_and_loses_its_session_where_its_stream_ended(
    streamable: ServerProcess, fault: dict[str, Any], is_lost: bool | None
) -> None:
    async def test() -> None:
        async with opened(streamable) as owner:
            streamable.fault(**fault, method="tools/call")
            error = await failure_of(tool(owner, "echo", text="x"))
            assert isinstance(error, type(sdk.make_error(0, "")))
            assert str(error)
            assert "not sent" not in str(error)
            await settle()
            assert is_lost is None or owner.broken is is_lost

    run(test)


def test_a_resumable_stream_that_ends_is_resumed_and_the_session_lives(streamable: ServerProcess) -> None:
    async def test() -> None:
        async with opened(streamable) as owner:
            streamable.fault("resumable", method="tools/call")
            result = await asyncio.wait_for(owner.session.call_tool("notify", {}), 5)
            assert text_of(result) == "resumed"
            assert not owner.broken
            assert await tool(owner, "echo", text="x") == "x"

    run(test)


def test_a_call_fails_when_resuming_it_has_been_given_up(streamable: ServerProcess) -> None:
    async def test() -> None:
        async with opened(streamable) as owner:
            before = streamable.stats()["resumptions"]
            streamable.fault("resumable", method="tools/call", resume=503)
            assert_sdk_error(await failure_of(tool(owner, "echo", text="x")))
            assert streamable.stats()["resumptions"] == before + 2
            assert owner.broken

    run(test)


def test_a_call_fails_whose_stream_is_resumed_to_no_effect_again_and_again(streamable: ServerProcess) -> None:
    async def test() -> None:
        async with opened(streamable) as owner:
            before = streamable.stats()["resumptions"]
            streamable.fault("resumable", method="tools/call", resume="end")
            error = await failure_of(tool(owner, "echo", text="x"))
            assert_sdk_error(error)
            assert streamable.stats()["resumptions"] == before + 10
            assert owner.broken

    run(test)


def test_a_stream_that_brings_an_event_each_time_is_resumed_as_often_as_the_server_likes(
    streamable: ServerProcess,
) -> None:
    async def test() -> None:
        async with opened(streamable) as owner:
            before = streamable.stats()["resumptions"]
            streamable.fault("resumable", method="tools/call", resume="poll")
            assert await asyncio.wait_for(tool(owner, "echo", text="x"), 10) == "resumed"
            assert streamable.stats()["resumptions"] > before + 10
            assert not owner.broken

    run(test)


def test_the_end_of_the_standing_stream_does_not_break_a_session(streamable: ServerProcess) -> None:
    async def test() -> None:
        async with opened(streamable) as owner:
            before = streamable.wait_for(lambda stats: stats["open_streams"] == 1)["get_streams"]
            streamable.fault("stream-cut")
            await tool(owner, "notify", kind="tools")
            await asyncio.to_thread(streamable.wait_for, lambda stats: stats["get_streams"] > before)
            assert not owner.broken
            assert await tool(owner, "echo", text="x") == "x"

    run(test)


@pytest.mark.parametrize("kind", ["stream-cut", "stream-garbage"])
def test_a_spoilt_event_stream_fails_the_call_and_ends_the_session(sse: ServerProcess, kind: str) -> None:
    async def test() -> None:
        async with opened(sse) as owner:
            sse.fault(kind)
            assert_sdk_error(await failure_of(tool(owner, "echo", text="x")))
            await broken(owner)
            await asyncio.wait_for(asyncio.wait({owner.task}), AT_ONCE)

    run(test)


def test_a_tool_error_leaves_a_session_alone_and_a_cancelled_call_raises_a_doubt(
    server: ServerProcess,
) -> None:
    async def test() -> None:
        async with opened(server) as owner:
            assert "fail" in await tool(owner, "fail")
            call = await running_call(server, owner)
            call.cancel()
            told: list[Verdict] = []
            owner.on_verdict(told.append)
            with pytest.raises(asyncio.CancelledError):
                await call
            assert told == [DOUBTFUL]
            assert await tool(owner, "echo", text="x") == "x"
            assert not owner.broken

    run(test)


# ---- closing


def test_closing_fails_the_calls_in_flight_at_once(mortal: ServerProcess) -> None:
    async def test() -> None:
        async with opened(mortal) as owner:
            calls = [await running_call(mortal, owner) for _ in range(3)]
            mortal.freeze()
            closing = asyncio.create_task(owner.close(300))
            for call in calls:
                assert_sdk_error(await failure_of(call), "closed")
            if mortal.transport == "streamablehttp":
                assert not closing.done(), "the goodbye was answered"
            mortal.thaw()
            assert await closing is True
            assert not owner.broken

    run(test)


def test_closing_a_session_of_a_frozen_server_is_bounded(mortal: ServerProcess) -> None:
    async def test() -> None:
        async with opened(mortal) as owner:
            call = await running_call(mortal, owner)
            mortal.freeze()
            closing = asyncio.create_task(owner.close(0.3))
            assert_sdk_error(await failure_of(call))
            await asyncio.wait_for(closing, AT_ONCE)
            assert owner.task.done()

    run(test)


def test_a_caller_whose_time_is_up_waits_for_no_transport_that_takes_nothing_more(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SDK 2.x tells the server that a request was given up. Over SSE one message is sent after the other:
    where a POST gets no answer, that one waits, and its caller would with it.
    """
    if sdk.generation() == 2:
        monkeypatch.setattr("mcp.shared.jsonrpc_dispatcher._ABANDON_WRITE_TIMEOUT", 300)

    async def test() -> None:
        async with opened(server) as owner:
            server.fault("hang", method="tools/call", count=2)
            for _ in range(2):  # over SSE, the second is not even sent
                call = asyncio.create_task(tool(owner, "echo", text="x"))
                await asyncio.to_thread(server.wait_for, lambda stats: stats["pending_posts"] > 0)
                call.cancel()
                await asyncio.wait({call}, timeout=AT_ONCE)
                assert call.cancelled()
            if server.transport == "sse":
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await owner.session.send_ping()

    run(test)


def test_the_server_learns_that_a_caller_has_given_up(server: ServerProcess) -> None:
    if sdk.generation() == 1:
        pytest.skip("SDK 1.x does not say so")

    async def test() -> None:
        async with opened(server) as owner:
            call = await running_call(server, owner)
            before = server.stats()["posts"].get("notifications/cancelled", 0)
            call.cancel()
            await asyncio.wait({call}, timeout=AT_ONCE)
            await asyncio.to_thread(
                server.wait_for,
                lambda stats: stats["posts"].get("notifications/cancelled", 0) == before + 1,
                AT_ONCE,
            )
            assert await tool(owner, "echo", text="x") == "x"

    run(test)


def test_a_session_can_be_closed_twice_concurrently_and_from_its_own_message_handler(
    server: ServerProcess,
) -> None:
    async def test() -> None:
        closed: list[bool] = []

        async def handler(_message: Any) -> None:
            closed.append(await owner.close(5))

        async with opened(server, message_handler=handler) as owner:
            call = asyncio.create_task(tool(owner, "notify"))
            await asyncio.wait({owner.task}, timeout=5)
            assert owner.task.done()
            assert await asyncio.gather(owner.close(5), owner.close(1)) == [True, True]
            assert await owner.close(0) is True
            call.cancel()
            await asyncio.wait({call})

    run(test)


def test_a_cancelled_close_goes_on(mortal: ServerProcess) -> None:
    async def test() -> None:
        async with opened(mortal) as owner:
            mortal.freeze()
            closing = asyncio.create_task(owner.close(0.2))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            await asyncio.wait({owner.task}, timeout=5)
            assert owner.task.done()

    run(test)


def test_setting_the_shutdown_event_ends_the_session_without_breaking_it(server: ServerProcess) -> None:
    async def test() -> None:
        async with opened(server) as owner:
            owner.shutdown_event.set()
            await asyncio.wait({owner.task}, timeout=5)
            assert owner.task.done()
            assert not owner.broken
            assert await owner.close(1) is True

    run(test)


def test_cancelling_the_owner_fails_its_calls_and_breaks_the_session(server: ServerProcess) -> None:
    async def test() -> None:
        async with opened(server) as owner:
            call = await running_call(server, owner)
            owner.task.cancel()
            assert_sdk_error(await failure_of(call), "cancelled")
            await broken(owner)

    run(test)


@pytest.mark.parametrize("end", ["cancelled", "shut down", "failed"])
def test_goodbye_that_is_never_answered_is_bounded_where_nobody_closes(
    monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """A session that ends by itself: its pool may notice much later, or never."""
    monkeypatch.setattr(session_owner, "CLOSE_TIMEOUT_SECONDS", 0.2)

    async def test() -> None:
        with ServerProcess("streamablehttp") as server:
            owner = await open_session(server.url, HEADERS, server.transport)
            await owner.session.list_tools()
            server.fault("hang", http="DELETE", count=1)
            if end == "cancelled":
                owner.task.cancel()
            elif end == "shut down":
                owner.shutdown_event.set()
            else:
                owner._transport_ended("the transport has failed")
            await asyncio.wait({owner.task}, timeout=20)
            assert owner.task.done()
            assert await owner.close(1) is True

    run(test)


def test_what_is_seen_is_told_once_and_survives_what_the_listener_raises() -> None:
    async def test() -> None:
        with ServerProcess("sse") as server:
            owner = await open_session(server.url, None, "sse")
            told: list[Verdict] = []
            unhandled: list[dict[str, Any]] = []
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: unhandled.append(context))

            def listener(seen: Verdict) -> None:
                told.append(seen)
                raise ZeroDivisionError

            owner.on_verdict(listener)
            server.kill()
            await asyncio.wait_for(asyncio.wait({owner.task}), AT_ONCE)
            assert await owner.close(1) is True
            assert told == [LOST]
            assert [type(context["exception"]) for context in unhandled] == [ZeroDivisionError]
            late: list[Verdict] = []
            owner.on_verdict(late.append)
            assert late == []
            await asyncio.sleep(0)
            assert late == [LOST]

    run(test)


@pytest.mark.parametrize(
    ("before", "told"),
    [
        ([], []),
        ([DOUBTFUL], [DOUBTFUL]),
        ([DOUBTFUL, FAILING], [FAILING]),
        ([FAILING, DOUBTFUL], [FAILING]),
        ([FAILING, LOST, DOUBTFUL], [LOST]),
    ],
    ids=str,
)
def test_who_listens_late_is_told_the_gravest_that_was_seen(
    streamable: ServerProcess, before: list[Verdict], told: list[Verdict]
) -> None:
    async def test() -> None:
        async with opened(streamable) as owner:
            for seen in before:
                owner.judged(seen, "said by the test")
            late: list[Verdict] = []
            owner.on_verdict(late.append)
            assert late == []
            await asyncio.sleep(0)
            assert late == told

    run(test)


# ---- a creation that fails


async def refused_creation(url: str, server: ServerProcess, **options: Any) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        await asyncio.wait_for(open_session(url, HEADERS, server.transport, **options), 10)
    shown = "".join(traceback.format_exception(caught.value))
    assert SECRET not in shown.replace("SECRET", "")
    return caught.value


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500, 503])
def test_a_refused_initialize_raises_its_http_status_without_secrets(
    server: ServerProcess, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        server.fault("status", status=status, method="initialize", body=SECRET)
        error = await refused_creation(f"{server.url}?key={SECRET}", server)
        assert error.response.status_code == status
        assert f"HTTP {status}" in str(error)
        # The HTTP library logs whole URLs itself, at INFO.
        records = [record for record in caplog.records if not record.name.startswith("httpx")]
        assert SECRET not in "".join(record.getMessage() + (record.exc_text or "") for record in records)

    run(test)


def test_a_refused_event_stream_raises_its_http_status_without_secrets(sse: ServerProcess) -> None:
    async def test() -> None:
        sse.fault("status", status=401, http="GET")
        error = await refused_creation(f"{sse.url}?key={SECRET}", sse)
        assert error.response.status_code == 401

    run(test)


def test_a_json_rpc_error_at_initialize_is_raised_as_it_is(streamable: ServerProcess) -> None:
    async def test() -> None:
        body = '{"jsonrpc":"2.0","id":0,"error":{"code":-32603,"message":"not today"}}'
        streamable.fault("status", status=200, method="initialize", body=body, type="application/json")
        streamable.fault("status", status=200, method="initialize", body=body, type="application/json")
        error = await refused_creation(streamable.url, streamable)
        assert isinstance(error, Exception)
        assert not hasattr(error, "response")

    run(test)


@pytest.mark.parametrize("kind", BOTH)
def test_a_refused_connection_raises_the_http_librarys_error(kind: sdk.TransportName) -> None:
    async def test() -> None:
        with ServerProcess(kind) as server:
            url = server.url
        with pytest.raises(sdk.http_library().ConnectError) as caught:
            await open_session(url, HEADERS, kind)
        assert fault_of(caught.value) is Fault.SERVER

    run(test)


def test_a_failing_client_factory_is_the_callers_mistake(server: ServerProcess) -> None:
    async def test() -> None:
        def factory(**_: Any) -> Any:
            raise LookupError("no client")

        with pytest.raises(LookupError, match="no client") as caught:
            await open_session(server.url, None, server.transport, httpx_client_factory=factory)
        assert fault_of(caught.value) is Fault.CALLER

    run(test)


def test_a_callers_client_factory_is_used_and_watched(server: ServerProcess) -> None:
    async def test() -> None:
        made: list[Any] = []

        def factory(headers: Any = None, timeout: Any = None, auth: Any = None) -> Any:
            made.append((headers, timeout, auth))
            merged = {**headers, "x-user-id": "me"}
            return sdk.http_library().AsyncClient(headers=merged, timeout=timeout, auth=auth)

        async with opened(server, httpx_client_factory=factory, timeout=7.0) as owner:
            assert json.loads(await tool(owner, "whoami"))["user"] == "me"
            ((headers, timeout, auth),) = made
            assert headers["Authorization"] == f"Bearer {SECRET}"
            assert (timeout.connect, timeout.read, auth) == (7.0, 300.0, None)
            server.fault("status", status=503, method="tools/call")
            assert_sdk_error(await failure_of(tool(owner, "echo", text="x")), "HTTP 503")

    run(test)


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ("Authorization: x", TypeError),
        ({"Authorization": 7}, TypeError),
        ({"Authorization": SECRET.encode()}, TypeError),
        ({7: "x"}, TypeError),
        ({"Authorization": f"{SECRET}\r\nX-Evil: 1"}, ValueError),
        ({"Authorization": f"{SECRET}\udc80"}, ValueError),
        ({"Authorization": f" {SECRET}"}, ValueError),
        ({"Bad Name": SECRET}, ValueError),
        ({"": SECRET}, ValueError),
    ],
)
def test_bad_headers_are_the_callers_mistake_and_are_not_shown(headers: Any, error: type[Exception]) -> None:
    async def test() -> None:
        with pytest.raises(error) as caught:
            await open_session("http://127.0.0.1:1/mcp", headers, "streamablehttp")
        assert fault_of(caught.value) is Fault.CALLER
        assert SECRET not in str(caught.value)

    run(test)


@pytest.mark.parametrize(
    "url", ["", "no url", "ftp://127.0.0.1/x", f"http://user:{SECRET}/x@127.0.0.1:1/mcp"]
)
@pytest.mark.parametrize("kind", BOTH)
def test_a_bad_url_raises_and_shows_no_password(url: str, kind: sdk.TransportName) -> None:
    async def test() -> None:
        with pytest.raises(Exception) as caught:  # noqa: PT011
            await open_session(url, None, kind)
        assert SECRET not in str(caught.value)

    run(test)


def test_an_unknown_transport_is_refused() -> None:
    with pytest.raises(ValueError, match="'sse' or 'streamablehttp'"):
        asyncio.run(open_session("http://127.0.0.1/", None, "stdio"))  # type: ignore[arg-type]


def test_a_creation_cancelled_at_any_point_leaves_nothing_behind(server: ServerProcess) -> None:
    """Cancelled after each number of turns of the loop, from none to all that a creation takes."""

    async def cancelled_after(turns: int) -> bool:
        opening = asyncio.create_task(open_session(server.url, HEADERS, server.transport))
        for _ in range(turns):
            await asyncio.sleep(0)
            # Holds the loop on purpose: what the server has to say is there at the next turn, so that each
            # counts.
            time.sleep(0.0005)  # noqa: ASYNC251
        opening.cancel()
        try:
            owner = await asyncio.wait_for(opening, AT_ONCE)
        except asyncio.CancelledError:
            await settle()
            assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
            return True
        await owner.close(2)
        return False

    async def test() -> None:
        turns = 0
        while await cancelled_after(turns):
            turns += 1
        assert turns > 15
        await asyncio.to_thread(server.wait_for, lambda stats: stats["open_streams"] == 0)

    run(test)


def test_a_cancelled_creation_at_a_frozen_server_ends_in_time(mortal: ServerProcess) -> None:
    async def test() -> None:
        mortal.freeze()
        opening = asyncio.create_task(open_session(mortal.url, None, mortal.transport, close_timeout=0.3))
        await asyncio.wait({opening}, timeout=0.1)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(opening, AT_ONCE)

    run(test)


# ---- names replaced by a namespace


def replaced_names() -> Any:
    """What the gateway's tests put in place of the SDK's names."""
    names = mock.MagicMock(name="namespace")
    read, write = mock.MagicMock(name="read"), mock.MagicMock(name="write")
    names.read, names.write = read, write
    three = (read, write, lambda: "id")
    names.streamablehttp_client.return_value.__aenter__ = mock.AsyncMock(return_value=three)
    names.sse_client.return_value.__aenter__ = mock.AsyncMock(return_value=(read, write))
    session = names.ClientSession.return_value
    session.__aenter__ = mock.AsyncMock(return_value=session)
    session.__aexit__ = mock.AsyncMock(return_value=None)
    session.initialize = mock.AsyncMock()
    return names


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("factory", [None, lambda **_: None])
def test_replaced_names_are_called_as_the_sdk_1_would_be(kind: sdk.TransportName, factory: Any) -> None:
    async def test() -> None:
        names = replaced_names()
        handler = object()
        owner = await open_session(
            "http://host/mcp", {"a": "b"}, kind, namespace=names, timeout=9.0, message_handler=handler,
            httpx_client_factory=factory,
        )  # fmt: skip
        used = names.sse_client if kind == "sse" else names.streamablehttp_client
        options = {} if factory is None else {"httpx_client_factory": factory}
        headers = {"Accept": "application/json, text/event-stream", "a": "b"}
        used.assert_called_once_with(url="http://host/mcp", headers=headers, timeout=9.0, **options)
        names.ClientSession.assert_called_once_with(names.read, names.write, message_handler=handler)
        names.ClientSession.return_value.initialize.assert_awaited_once_with()
        assert owner.session is names.ClientSession.return_value
        assert await owner.close(1) is True
        used.return_value.__aexit__.assert_awaited_once()

    run(test)


def test_a_replaced_transport_that_swallows_errors_does_not_hide_a_failed_initialize() -> None:
    async def test() -> None:
        names = replaced_names()
        names.streamablehttp_client.return_value.__aexit__ = mock.AsyncMock(return_value=True)
        names.ClientSession.return_value.initialize = mock.AsyncMock(side_effect=LookupError("no"))
        with pytest.raises(LookupError, match="no"):
            await open_session("http://host/mcp", None, "streamablehttp", namespace=names)

    run(test)


def test_the_sdks_own_names_in_a_namespace_are_as_good_as_none(server: ServerProcess) -> None:
    from mcp import ClientSession
    from mcp.client import streamable_http
    from mcp.client.sse import sse_client

    if not hasattr(streamable_http, "streamablehttp_client"):
        pytest.skip("SDK 2.x has no streamablehttp_client")

    class Names:
        pass

    names: Any = Names()
    names.ClientSession, names.sse_client = ClientSession, sse_client
    names.streamablehttp_client = streamable_http.streamablehttp_client
    names.McpError = type(sdk.make_error(0, ""))

    async def test() -> None:
        async with opened(server, namespace=names) as owner:
            server.fault("status", status=503, method="tools/call")
            assert_sdk_error(await failure_of(tool(owner, "echo", text="x")), "HTTP 503")

    run(test)
