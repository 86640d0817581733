"""A session that the release opens: whose fault a failed opening is, and who is told when it cannot begin."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from mcpgateway_pool.gateway.registry.session_watch import SessionWatch
from mcpgateway_pool.upstream import http_client, sdk
from mcpgateway_pool.verdict import Fault, fault_of

URL = "http://server.test/mcp"
INITIALIZE = {"jsonrpc": "2.0", "id": 0, "method": "initialize"}
ANSWER = b'{"jsonrpc": "2.0", "id": 0, "result": {}}'
Answer = Callable[[Any], Any]


class Opening:
    """A session that is being opened, with a server that does what the test says."""

    def __init__(self, answer: Answer | None = None, transport: Any = "streamablehttp") -> None:
        self.watch = SessionWatch(transport, {})
        self.http = self.watch.watched(http_client.default_client_factory())()

        async def send(request: Any, **_options: Any) -> Any:
            assert answer is not None
            return answer(request)

        self.http._transport.handle_async_request = send

    async def handshake(self) -> None:
        with contextlib.suppress(sdk.http_library().HTTPError):
            async with self.http.stream("POST", URL, json=INITIALIZE) as response:  # as the SDK does
                await response.aread()

    def fault(self, error: BaseException) -> Fault | None:
        return self.watch.fault(error)


async def parts(body: bytes) -> AsyncIterator[bytes]:
    yield body


def answering(status: int, body: bytes = b"") -> Answer:
    return lambda request: sdk.http_library().Response(status, content=parts(body), request=request)


def failing(name: str) -> Answer:
    def fail(request: Any) -> Any:
        raise getattr(sdk.http_library(), name)("it failed", request=request)

    return fail


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        pytest.param(answering(401), Fault.REFUSAL, id="it wants another token"),
        pytest.param(answering(503), Fault.SERVER, id="it cannot serve"),
        pytest.param(answering(200, ANSWER), Fault.REFUSAL, id="it speaks MCP, but not as the release wants"),
        pytest.param(answering(200, b"<html>"), Fault.CALLER, id="something that is no MCP, and the release"),
        pytest.param(failing("ConnectError"), Fault.SERVER, id="it cannot be reached"),
        pytest.param(failing("ReadTimeout"), Fault.SERVER, id="it does not answer"),
    ],
)
async def test_what_was_seen_of_the_handshake_says_whose_fault_it_is(answer: Answer, fault: Fault) -> None:
    opening = Opening(answer)
    await opening.handshake()
    assert opening.fault(RuntimeError("the release's words, which say nothing")) is fault
    await opening.http.aclose()


async def test_the_latest_request_of_the_handshake_counts() -> None:
    answers = [answering(503), answering(200, ANSWER)]

    def answer(request: Any) -> Any:
        return answers.pop(0)(request)

    opening = Opening(answer)
    for _ in range(2):
        await opening.handshake()
    assert opening.fault(RuntimeError()) is Fault.REFUSAL
    await opening.http.aclose()


async def test_the_releases_own_refusal_before_any_request_is_the_callers_fault() -> None:
    """Such as an address to which it may not connect: it says nothing against the server."""
    opening = Opening()
    assert opening.fault(ValueError("not this address")) is Fault.CALLER
    assert opening.fault(ConnectionRefusedError(111, "refused")) is Fault.SERVER
    assert opening.fault(OSError(24, "Too many open files")) is Fault.MACHINE
    await opening.http.aclose()


async def test_shortage_of_this_machine_outweighs_what_was_seen() -> None:
    opening = Opening(answering(503))
    await opening.handshake()
    assert opening.fault(OSError(24, "Too many open files")) is Fault.MACHINE
    await opening.http.aclose()


def test_without_a_client_that_is_watched_only_the_exception_speaks() -> None:
    watch = SessionWatch("streamablehttp", {})
    assert watch.http is None
    for error in (RuntimeError(), ValueError(), ConnectionRefusedError(111, "refused")):
        assert watch.fault(error) is fault_of(error)


def test_factory_of_the_caller_that_fails_is_the_callers_fault() -> None:
    def factory() -> Any:
        raise OSError("no such certificate")

    with pytest.raises(OSError, match="certificate") as caught:
        SessionWatch("streamablehttp", {}).watched(factory)()
    assert fault_of(caught.value) is Fault.CALLER


# ---- the event stream that fails before it said where messages go


async def test_opening_that_cannot_succeed_any_more_ends_at_once_with_what_was_seen() -> None:
    watch = SessionWatch("sse", {})
    failure = sdk.http_library().ReadError("connection reset")

    async def release() -> None:
        asyncio.get_running_loop().call_soon(watch.cannot_begin, failure)
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="before it said where messages go") as caught:
        await watch.opening(release())
    assert caught.value.__cause__ is failure
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_caller_who_gives_the_opening_up_is_cancelled_whatever_else_has_happened() -> None:
    watch = SessionWatch("sse", {})

    async def run() -> None:
        await watch.opening(asyncio.Event().wait())

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    watch.cannot_begin(sdk.http_library().ReadError("connection reset"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    given_up = asyncio.create_task(run())
    await asyncio.sleep(0)
    given_up.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await given_up


async def test_stream_that_fails_when_nobody_opens_a_session_disturbs_nobody() -> None:
    watch = SessionWatch("sse", {})
    failure = sdk.http_library().ReadError("connection reset")
    watch.cannot_begin(failure)

    async def release() -> str:
        return "session"

    assert await watch.opening(release()) == "session"
    watch.cannot_begin(failure)
    await asyncio.sleep(0)  # where a cancellation would arrive
    with pytest.raises(OSError, match="refused"):
        await watch.opening(fail())
    watch.cannot_begin(failure)
    await asyncio.sleep(0)


async def fail() -> None:
    raise OSError("refused")
