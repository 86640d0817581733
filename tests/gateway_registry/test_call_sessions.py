"""Calls without a downstream session, with the release's own session factory: to servers that do what they
like, and by more users than there is room for.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Iterable
from types import ModuleType
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from mcpgateway_pool import _core
from mcpgateway_pool.gateway.registry.calls.callers import Caller, CallWithoutSession
from mcpgateway_pool.upstream import sdk
from servers.scripted import Message, ScriptedServer, result, status
from servers.waiting import until
from support.leaks import resident_mib
from support.release_sessions import client_factory, error_of

pytestmark = pytest.mark.long("another import of the release; what is certain of a request has short tests")

PATIENCE_SECONDS = 30.0


class Users:
    """Calls of users as the gateway's services make them, to servers by their number."""

    def __init__(self, release: ModuleType, *urls: str) -> None:
        self._release = release
        self._urls = urls
        self.registry = release.UpstreamSessionRegistry()

    async def call(
        self,
        user: str,
        tool: str = "echo",
        *,
        server: int = 0,
        seconds: float = PATIENCE_SECONDS,
        **arguments: Any,
    ) -> str:
        """The text of a tool's result."""
        acquired = self.registry.acquire(
            downstream_session_id=CallWithoutSession(Caller("tools", (user,), None)),
            gateway_id=f"gateway-{server}",
            url=self._urls[server],
            headers={"X-User": user},
            transport_type=self._release.TransportType.STREAMABLE_HTTP,
            httpx_client_factory=client_factory,
        )
        async with acquired as upstream, asyncio.timeout(seconds):
            answer = await upstream.session.call_tool(tool, arguments)
        return str(answer.content[0].text)

    def totals(self) -> dict[str, Any]:
        totals: dict[str, Any] = self.registry._calls.totals()
        return totals


@pytest.fixture(autouse=True)
def with_sessions(release: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Newer revisions of the protocol, which 1.1 prefers, have none."""
    if hasattr(release, "settings"):
        monkeypatch.setattr(release.settings, "mcp_client_connect_mode", "legacy")


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    """Echoes what it is sent."""
    async with ScriptedServer() as server:
        server.answers["tools/call"] = echo
        yield server


@pytest.fixture
async def users(release: ModuleType, server: ScriptedServer) -> AsyncIterator[Users]:
    users = Users(release, server.url)
    yield users
    await users.registry.close_all()


async def echo(request: Request, message: Message) -> Response | None:
    if request.headers.get("mcp-session-id") is None:
        return None
    return result(message, content(message))


def content(message: Message) -> Message:
    text = message["params"]["arguments"].get("text", "")
    return {"content": [{"type": "text", "text": text}], "isError": False}


# ---- servers that do what they like


async def test_server_that_ends_sessions_at_random_fails_no_call_and_gives_none_anothers_answer(
    users: Users, server: ScriptedServer
) -> None:
    chance = random.Random(7)
    used: set[str] = set()

    async def forgetful(request: Request, message: Message) -> Response | None:
        # Never a new one: a call that finds it ended fails without a pool as well.
        if used and chance.random() < 0.3:
            ended = chance.choice(sorted(used))
            used.discard(ended)
            server.sessions.discard(ended)
        session = request.headers["mcp-session-id"]
        if session not in server.sessions:
            return Response(status_code=404)
        used.add(session)
        return await echo(request, message)

    server.answers["tools/call"] = forgetful
    texts = [f"call {number}" for number in range(40)]
    for number, text in enumerate(texts):
        assert await users.call(f"user {number % 3}", text=text) == text
    totals = users.totals()
    assert totals["creates"] > 3
    assert totals["creates"] == totals["size"] + sum(totals["evictions"].values())


async def test_server_that_knows_no_session_is_asked_twice_and_no_more(
    users: Users, server: ScriptedServer
) -> None:
    assert await users.call("ann", text="1") == "1"
    server.answers["tools/call"] = status(404)
    before = server.seen["tools/call"]
    assert not isinstance(await error_of(users.call("ann", text="2")), TimeoutError)
    assert server.seen["tools/call"] - before == 2


async def test_server_that_names_another_session_with_each_answer_is_called_as_agreed(
    users: Users, server: ScriptedServer
) -> None:
    numbers = itertools.count()
    named: list[str] = []

    async def renaming(request: Request, message: Message) -> Response:
        named.append(request.headers["mcp-session-id"])
        return result(message, content(message), {"mcp-session-id": f"other-{next(numbers)}"})

    server.answers["tools/call"] = renaming
    assert [await users.call("ann", text=text) for text in "abc"] == list("abc")
    assert len(set(named)) == 1
    assert named[0] in server.sessions


async def test_answer_to_a_request_that_nobody_made_reaches_nobody(
    users: Users, server: ScriptedServer
) -> None:
    assert await users.call("ann", text="1") == "1"

    async def for_another(_request: Request, message: Message) -> Response:
        return result({**message, "id": message["id"] + 1}, content(message))

    server.answers["tools/call"] = for_another
    error = await error_of(users.call("ann", text="secret", seconds=0.5))
    assert "secret" not in str(error)
    server.answers["tools/call"] = echo
    assert [await users.call("ann", text=text) for text in "abc"] == list("abc")
    assert users.totals()["active_sessions"] == 0


async def test_callers_of_a_server_that_is_slow_to_open_share_its_sessions_and_wait_their_turn(
    users: Users, server: ScriptedServer
) -> None:
    may_open = asyncio.Event()

    async def slow(_request: Request, _message: Message) -> None:
        await may_open.wait()

    server.answers["initialize"] = slow
    calls = [asyncio.create_task(users.call("ann", text=str(number))) for number in range(30)]
    await until(lambda: server.seen["initialize"] == 10)
    calls[0].cancel()  # its session is opened all the same
    may_open.set()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1:] == [str(number) for number in range(1, 30)]
    assert server.seen["initialize"] == 10
    assert users.totals()["creates"] == 10


# ---- many users


@pytest.mark.skipif(sdk.generation() == 1, reason="tried on the newest release alone, as it takes a minute")
@pytest.mark.timeout(400)
async def test_thousand_users_at_twenty_servers_stay_within_the_limits(
    release: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    most_sessions, slack_mib = 100, 15.0
    monkeypatch.setenv("MCPGATEWAY_POOL_MAX_TOTAL_SESSIONS", str(most_sessions))
    async with contextlib.AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(ScriptedServer()) for _ in range(20)]
        for one in servers:
            one.answers["tools/call"] = echo
            one.get = "405"
        users = Users(release, *(one.url for one in servers))
        stack.push_async_callback(users.registry.close_all)
        sizes = [0]

        async def work(numbers: Iterable[int]) -> None:
            for number in numbers:
                text = f"user {number}"
                assert await users.call(text, server=number % 20, text=text) == text
                sizes.append(users.totals()["size"])

        async def work_together(numbers: range) -> None:
            await asyncio.gather(*(work(numbers[first::8]) for first in range(8)))

        await work_together(range(500))  # by now all places have been taken many times
        before = resident_mib()
        await work_together(range(500, 1000))
        grown = resident_mib() - before
        totals = users.totals()
        print(f"{totals}; most open: {max(sizes)}; grown by {grown:.1f} MiB")
        assert totals["hits"] + totals["misses"] == 1000
        assert max(sizes) <= most_sessions
        assert totals["creates"] == 1000
        assert totals["evictions"]["capacity"] == totals["creates"] - totals["size"]
        assert grown < slack_mib
        # A row for each gateway, whoever calls.
        rows = [label for label, _ in _core.snapshot()[0] if label.startswith("gateway-")]
        assert len(rows) == 20
        await users.registry.close_all()
        assert users.totals()["size"] == 0
        await until(lambda: not any(one.sessions for one in servers))
