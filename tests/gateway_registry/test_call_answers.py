"""Whole gateways: a call that is pooled is answered as a call that is not, whatever is called, by whatever
way, and whatever the server does.

Each test asks twice: a server whose calls are pooled, and its twin, whose calls go the gateway's own way.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from servers.process import ServerProcess
from servers.waiting import until
from support.gateway_process import SWITCH, Answer
from support.gateway_users import ADMIN, ANN, AUTHENTICATED, AuthenticatingGateway, as_user
from support.registered import Registered, registering

pytestmark = pytest.mark.long("another boot: the gateway's own answers, beside those of pooled calls")

SDK_VERSION = importlib.metadata.version("mcp")
OWN = "own"
SETTINGS = {
    **SWITCH,
    **AUTHENTICATED,
    "HEALTH_CHECK_INTERVAL": "3600",
    "TOOL_TIMEOUT": "10",
    "JSON_RESPONSE_ENABLED": "false",  # or it passes no progress on
    "MCPGATEWAY_POOL_CALLS_WITHOUT_SESSION": f"{OWN}-sse,{OWN}-streamablehttp",
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthenticatingGateway]:
    with AuthenticatingGateway(tmp_path_factory.mktemp("gateway"), environment=SETTINGS) as gateway:
        gateway.add_user(ANN)
        yield gateway
        assert gateway.stop() in (0, -signal.SIGTERM)


@dataclass
class Twins:
    """Two servers alike.

    Attributes:
        pooled: its calls are pooled.
        own: its calls go the gateway's own way.
    """

    pooled: Registered
    own: Registered

    def answers(self, ask: Callable[[Registered], Any]) -> tuple[Any, Any]:
        """What the two get, but for what must differ."""
        unpooled = self.own.count("unpooled_calls_total", reason="excepted")
        answered = self.pooled.count("hits_total") + self.pooled.count("misses_total")
        pair = comparable(self.pooled, ask(self.pooled)), comparable(self.own, ask(self.own))
        assert self.pooled.count("unpooled_calls_total") == 0
        assert self.own.count("creates_total") == 0
        assert (
            self.pooled.count("hits_total") + self.pooled.count("misses_total") - answered
            == self.own.count("unpooled_calls_total", reason="excepted") - unpooled
        ), "as many calls were pooled as went the gateway's own way"
        return pair


def comparable(registered: Registered, answer: Any) -> Any:
    """An answer without what only says which of the two it is from."""
    text = json.dumps(answer.body if isinstance(answer, Answer) else answer)
    text = text.replace(registered.name, "NAME").replace(str(registered.server.port), "PORT")
    text = text.replace(registered.identifier, "ID")
    return json.loads(text)


@pytest.fixture(scope="module", params=["streamablehttp", "sse"])
def twins(request: pytest.FixtureRequest, gateway: AuthenticatingGateway) -> Iterator[Twins]:
    transport = request.param
    with (
        ServerProcess(transport) as one,
        ServerProcess(transport) as other,
        registering(gateway, one, f"pooled-{transport}") as pooled,
        registering(gateway, other, f"{OWN}-{transport}") as own,
    ):
        yield Twins(pooled, own)


def calling(tool: str, **arguments: object) -> Callable[[Registered], Answer]:
    return lambda one: one.gateway.call(one.name, tool, as_user(ANN), **arguments)


# ---- tools


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("add", {"a": 1, "b": 2}),
        ("fail", {}),
        ("echo", {}),
        ("notify", {"kind": "log"}),
        ("notify", {"kind": "tools"}),
        ("elicit", {}),
    ],
)
def test_tool_answers_as_without_a_pool(twins: Twins, tool: str, arguments: dict[str, Any]) -> None:
    for _ in range(2):  # on a session that is new, and on one that is not
        pooled, own = twins.answers(calling(tool, **arguments))
        assert pooled == own


def over_mcp(method: str, **params: object) -> Callable[[Registered], list[Any]]:
    """All messages that a request to the gateway's MCP endpoint brings; NAME is that of the server."""

    def ask(one: Registered) -> list[Any]:
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        message = json.loads(json.dumps(message).replace("NAME", one.name))
        accepted = {"Accept": "application/json, text/event-stream"}
        status, content = one.gateway.request("POST", "/mcp/", message, {**as_user(ANN), **accepted})
        assert status == 200, content
        lines = content.decode().splitlines()
        events = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
        return [json.loads(event) for event in events or lines]

    return ask


def test_meta_of_a_call_arrives(twins: Twins) -> None:
    pooled, own = twins.answers(
        over_mcp("tools/call", name="NAME-meta", arguments={}, _meta={"one": 1, "example.com/two": "2"})
    )
    assert pooled == own
    assert '\\"one\\": 1' in json.dumps(pooled[-1])


def test_call_that_wants_progress_is_answered(twins: Twins) -> None:
    pooled, own = twins.answers(
        over_mcp("tools/call", name="NAME-progress", arguments={}, _meta={"progressToken": "token"})
    )
    # How many steps overtake the answer is chance: the SDK tells of each in a task of its own.
    assert pooled[-1] == own[-1]
    assert "done" in json.dumps(pooled[-1])


# ---- resources, prompts, completion


def find(one: Registered, path: str) -> str:
    """The id of the server's resource or prompt."""
    listed = one.gateway.json("GET", path)
    key = "gatewayId" if any("gatewayId" in item for item in listed) else "gateway_id"
    return str(next(item["id"] for item in listed if item.get(key) == one.identifier))


PROMPT: dict[str, Any] = {"name": "NAME-note", "arguments": {"name": "you"}}
COMPLETION = {"ref": {"type": "ref/prompt", "name": "NAME-note"}, "argument": {"name": "name", "value": "a"}}


def read(one: Registered) -> Any:
    """The server's resource, over REST."""
    identifier = find(one, "/resources")
    status, body = one.gateway.request("GET", f"/resources/{identifier}", headers=as_user(ANN))
    return [status, json.loads(body.decode().replace(identifier, "RESOURCE"))]


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("prompts/get", PROMPT),
        ("prompts/get", {"name": "NAME-none"}),
        ("completion/complete", COMPLETION),
    ],
)
def test_prompt_and_completion_answer_as_without_a_pool(
    twins: Twins, method: str, params: dict[str, Any]
) -> None:
    for _ in range(2):
        pooled, own = twins.answers(over_mcp(method, **params))
        assert pooled == own


def test_resource_over_rest_is_read_as_without_a_pool(twins: Twins) -> None:
    for _ in range(2):
        pooled, own = twins.answers(read)
        assert pooled == own
        assert "a note for all" in json.dumps(pooled)


def test_prompt_over_rest_is_got_as_without_a_pool(twins: Twins) -> None:
    def get(one: Registered) -> Any:
        path = f"/prompts/{find(one, '/prompts')}"
        status, body = one.gateway.request("POST", path, {"name": "you"}, as_user(ANN))
        return [status, json.loads(body)]

    for _ in range(2):
        pooled, own = twins.answers(get)
        assert pooled == own
        assert "a note for you" in json.dumps(pooled)


# ---- servers in trouble


HTTP_ERRORS = [{"kind": "status", "status": code, "body": "no"} for code in (400, 401, 403, 429, 500, 503)]
FAULTS = [
    *({"kind": "error", "code": code, "body": "no"} for code in (-32000, -32001, -32600, -32602, 7)),
    *({"kind": kind} for kind in ("garbage", "garbage-sse", "cut", "end", "resumable")),
    *HTTP_ERRORS,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: "-".join(map(str, fault.values())))
def test_failed_call_is_told_as_without_a_pool(twins: Twins, fault: dict[str, Any]) -> None:
    if twins.pooled.server.transport == "sse":
        pytest.skip("over SSE, answers come on another stream")
    if SDK_VERSION.startswith("1.") and (fault in HTTP_ERRORS or fault["kind"] not in ("error", "resumable")):
        pytest.skip("on the SDK 1.x, the gateway waits for an answer until the call's time is over")

    def fail(one: Registered) -> Answer:
        assert not calling("echo", text="before")(one).failed  # so that there is a session
        one.server.fault(method="tools/call", **fault)
        return calling("echo", text="failed")(one)

    pooled, own = twins.answers(fail)
    assert pooled == own
    assert not calling("echo", text="after")(twins.pooled).failed
    assert twins.pooled.count("active_sessions") == 0


@pytest.mark.parametrize("code", [401, 404, 500])
def test_refused_opening_is_told_as_without_a_pool(twins: Twins, code: int) -> None:
    if SDK_VERSION.startswith("1."):
        pytest.skip("on the SDK 1.x, the gateway waits for a server until its time is over")
    method = "GET" if twins.pooled.server.transport == "sse" else "POST"

    def refuse(one: Registered) -> Any:
        one.server.fault(kind="status", status=code, body="no", count=1000, http=method)
        try:  # a user who has no session yet
            return comparable(one, one.gateway.call(one.name, "echo", as_user(ADMIN), text="refused"))
        finally:
            one.server.fault(kind="clear")

    failures = twins.pooled.count("create_failures_total")
    told = refuse(twins.pooled)
    assert told == refuse(twins.own)
    assert str(code) in json.dumps(told)
    assert twins.pooled.count("create_failures_total") == failures + 1


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(calling("echo", text="hi"), id="tool"),
        pytest.param(over_mcp("prompts/get", **PROMPT), id="prompt"),
        pytest.param(over_mcp("completion/complete", **COMPLETION), id="completion"),
        pytest.param(read, id="resource"),
    ],
)
@pytest.mark.parametrize("is_open", [True, False], ids=["known", "new"])
def test_server_that_is_gone_is_told_of_as_without_a_pool(
    twins: Twins, ask: Callable[[Registered], Any], is_open: bool
) -> None:
    if SDK_VERSION.startswith("1."):
        pytest.skip("on the SDK 1.x, the gateway waits for a server until its time is over")

    def ask_the_dead(one: Registered) -> Any:
        if is_open:
            ask(one)
        one.server.kill()
        try:
            return ask(one)
        finally:
            one.server.start()

    pooled, own = ask_the_dead(twins.pooled), ask_the_dead(twins.own)
    assert comparable(twins.pooled, pooled) == comparable(twins.own, own)
    assert not calling("echo", text="after")(twins.pooled).failed


def test_server_that_dies_in_a_call_is_told_of_as_without_a_pool(twins: Twins) -> None:
    if SDK_VERSION.startswith("1.") or twins.pooled.server.transport == "sse":
        pytest.skip("on the SDK 1.x, and over SSE, the gateway waits for an answer until the time is over")

    def die(one: Registered) -> Answer:
        assert not calling("echo", text="before")(one).failed
        try:
            return calling("die")(one)
        finally:
            one.server.restart()

    pooled, own = twins.answers(die)
    assert pooled == own
    assert not calling("echo", text="after")(twins.pooled).failed


def test_tool_that_takes_longer_than_its_time_fails_and_leaves_the_session_in_order(twins: Twins) -> None:
    pooled, own = twins.answers(calling("slow", seconds=30))
    assert pooled == own
    assert Answer(200, pooled, 0).failed
    assert not calling("echo", text="after")(twins.pooled).failed
    assert twins.pooled.count("active_sessions") == 0
    assert twins.pooled.count("waiters") == 0


# ---- the revision 2026-07-28 of the protocol, which has no sessions


@pytest.fixture
def modern(twins: Twins) -> Twins:
    if SDK_VERSION.startswith("1.") or twins.pooled.server.transport == "sse":
        pytest.skip("the SDK 1.x, and SSE, know no revision without sessions")
    return twins


def test_server_without_sessions_gets_one_request_a_call_in_the_version_agreed_on(modern: Twins) -> None:
    with ServerProcess() as server, registering(modern.pooled.gateway, server, "modern") as registered:
        before = server.stats()["posts"]
        seen = [registered.whoami()["headers"] for _ in range(20)]
        after = server.stats()["posts"]
        assert {headers["mcp-protocol-version"] for headers in seen} == {"2026-07-28"}
        assert not any("mcp-session-id" in headers for headers in seen)
        sent = {method: after[method] - before.get(method, 0) for method in after}
        assert {method: count for method, count in sent.items() if count} == {
            "server/discover": 1,
            "tools/list": 1,  # the SDK asks for the schema of the tool's results
            "tools/call": 20,
        }
        assert registered.count("creates_total") == 1
        assert registered.count("hits_total") == 19


def test_server_without_sessions_that_was_restarted_fails_no_call(modern: Twins) -> None:
    with ServerProcess() as server, registering(modern.pooled.gateway, server, "restarted") as registered:
        for _ in range(3):
            assert not any(registered.call("whoami").failed for _ in range(3))
            server.kill()
            server.start()
        assert not registered.call("whoami").failed


async def test_result_that_wants_input_is_answered_by_the_callers_client(modern: Twins) -> None:
    import httpx2
    import mcp_types
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    async def answer(_context: Any, _params: Any) -> mcp_types.ElicitResult:
        return mcp_types.ElicitResult(action="accept", content={"name": "ann"})

    gateway = modern.pooled.gateway
    for one in (modern.pooled, modern.own):
        async with (
            httpx2.AsyncClient(headers=as_user(ANN), timeout=60) as http,
            Client(
                streamable_http_client(f"{gateway.url}/mcp/", http_client=http), elicitation_callback=answer
            ) as client,
        ):
            result = await client.call_tool(f"{one.name}-ask", {})
            assert result.content[0].text == "hello ann, asked"
    assert modern.pooled.count("unpooled_calls_total") == 0


async def test_progress_reaches_the_callers_client(modern: Twins) -> None:
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    gateway = modern.pooled.gateway
    told: list[list[float]] = []
    for one in (modern.pooled, modern.own):
        steps: list[float] = []

        async def note(progress: float, _total: float | None, _message: str | None, steps=steps) -> None:
            steps.append(progress)

        async with (
            httpx2.AsyncClient(headers=as_user(ANN), timeout=60) as http,
            Client(streamable_http_client(f"{gateway.url}/mcp/", http_client=http)) as client,
        ):
            # The gateway tells of each step in a task of its own, and of none after the answer.
            call = asyncio.create_task(
                client.call_tool(f"{one.name}-progress", {"hold": True}, progress_callback=note)
            )
            await until(lambda steps=steps: len(steps) == 3)
            assert not call.done()
            await client.call_tool(f"{one.name}-proceed", {})
            await call
        told.append(sorted(steps))
    assert told == [[1, 2, 3]] * 2
