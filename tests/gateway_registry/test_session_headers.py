"""Whose headers a request of a session has: those of its call, but for what each request decides itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from mcpgateway_pool.gateway.registry.session_headers import SessionHeaders, Use
from mcpgateway_pool.upstream import sdk
from mcpgateway_pool.upstream.request_headers import Cleaner

URL = "http://server.test/mcp"
OPENED_WITH = {"Authorization": "Bearer of the opening", "X-Tenant": "red"}


def headers_of(opened_with: dict[str, str] = OPENED_WITH) -> SessionHeaders:
    return SessionHeaders(opened_with, Cleaner(opened_with))


def request_of(request_id: int | None = 1, **headers: str) -> Any:
    """As the SDK makes it: with the headers of the opening, beside its own."""
    body = {"jsonrpc": "2.0", "id": request_id, "method": "tools/call"}
    return sdk.http_library().Request("POST", URL, json=body, headers={**OPENED_WITH, **headers})


def sent(headers: SessionHeaders, request: Any) -> dict[str, str]:
    """The headers with which the request goes."""
    headers.put_on(request)
    return dict(request.headers)


# ---- a call's headers


def test_call_has_its_own_headers_and_those_of_the_opening_that_it_lacks_are_gone() -> None:
    headers = headers_of()
    headers.use({"authorization": "Bearer of the call", "X-Job": "7"})
    found = sent(headers, request_of())
    assert found["authorization"] == "Bearer of the call"
    assert found["x-job"] == "7"
    assert "x-tenant" not in found


@pytest.mark.parametrize("none", [None, {}])
def test_call_without_headers_has_none_of_the_opening(none: dict[str, str] | None) -> None:
    headers = headers_of()
    headers.use(none)
    assert {"authorization", "x-tenant"}.isdisjoint(sent(headers, request_of()))


def test_call_with_the_headers_of_the_opening_changes_nothing_whoever_called_before() -> None:
    headers = headers_of()
    plain = dict(request_of().headers)
    assert sent(headers, request_of()) == plain
    headers.use({"X-Job": "7"})
    headers.use({name.upper(): value for name, value in OPENED_WITH.items()})
    assert sent(headers, request_of()) == plain


def test_what_somebody_else_has_put_in_the_place_of_an_opening_header_stays() -> None:
    """Such as the HTTP library's authentication, which gets tokens of its own."""
    headers = headers_of()
    headers.use({})
    assert sent(headers, request_of(Authorization="Bearer renewed"))["authorization"] == "Bearer renewed"


# RFC 9110 and 9112: about one message, its body and its connection.
OF_HTTP = ["Host", "Connection", "Content-Length", "Transfer-Encoding", "Content-Type"]
# What the client can read is for the client to say.
NEGOTIATED = ["Accept", "Accept-Encoding"]
# MCP: the session, the version that was agreed on, where a stream is resumed, and what a request repeats of
# its body for those who do not read that.
OF_MCP = ["Mcp-Session-Id", "X-Mcp-Session-Id", "MCP-Protocol-Version", "Last-Event-ID"]
REPEATED = ["Mcp-Method", "Mcp-Name", "Mcp-Param-Region", "Mcp-Param-Anything-Else"]


@pytest.mark.parametrize("name", [*OF_HTTP, *NEGOTIATED, *OF_MCP, *REPEATED])
def test_what_each_request_decides_for_itself_is_taken_from_no_call(name: str) -> None:
    headers = headers_of({**OPENED_WITH, name: "of the opening"})
    headers.use({name: "of a call", "X-Job": "7"})
    for own in ("of the request", "of the opening"):
        found = sent(headers, request_of(**{name: own}))
        assert found[name.lower()] == own
        assert found["x-job"] == "7"
    without = request_of()
    before = without.headers.get(name)
    assert sent(headers, without).get(name.lower()) == before


# ---- several calls at once


class Session:
    """An SDK session's requests in flight, made and answered by hand."""

    def __init__(self, headers: SessionHeaders, monkeypatch: pytest.MonkeyPatch) -> None:
        def on_requests(
            session: object, *, begun: Callable[[int], None], ended: Callable[[int], None]
        ) -> None:
            assert session is self
            self.begun, self.ended = begun, ended

        monkeypatch.setattr(sdk, "on_requests", on_requests)
        headers.follow_requests(self)


def test_requests_of_calls_at_once_have_the_headers_of_their_own_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    headers = headers_of()
    session = Session(headers, monkeypatch)

    async def call(request_id: int, job: str) -> None:
        headers.begin_use(headers.use({"X-Job": job}))
        session.begun(request_id)

    async def run() -> None:
        await asyncio.gather(call(1, "one"), call(2, "two"))

    asyncio.run(run())
    assert [sent(headers, request_of(number))["x-job"] for number in (1, 2, 3)] == ["one", "two", "two"]
    session.ended(1)
    assert sent(headers, request_of(1))["x-job"] == "two"  # of nobody: of the newest
    assert sent(headers, request_of(2))["x-job"] == "two"
    headers.use({"X-Job": "three"})
    assert sent(headers, request_of(2))["x-job"] == "two"
    session.ended(2)
    session.ended(2)
    assert sent(headers, request_of(2))["x-job"] == "three"


async def test_requests_of_no_call_have_the_headers_of_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    headers = headers_of()
    session = Session(headers, monkeypatch)
    headers.begin_use(headers.use({"X-Job": "one"}))
    session.begun(1)
    headers.use({"X-Job": "two"})
    http = sdk.http_library()

    async def body() -> Any:
        yield json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()

    for request in (
        http.Request("GET", URL),
        http.Request("DELETE", URL),
        http.Request("POST", URL, data={"grant_type": "client_credentials"}),
        http.Request("POST", URL, content=body()),  # nobody may read it but the transport
        http.Request("POST", URL, json={"jsonrpc": "2.0", "method": "notifications/initialized"}),
    ):
        assert sent(headers, request)["x-job"] == "two"
    assert sent(headers, request_of(1))["x-job"] == "one"


async def test_request_belongs_to_the_innermost_use_of_its_session_that_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    headers, others = headers_of(), headers_of()
    session = Session(headers, monkeypatch)
    numbers = iter(range(100))

    def job() -> str | None:
        number = next(numbers)
        session.begun(number)
        return sent(headers, request_of(number)).get("x-job")

    def begin(job: str, of: SessionHeaders = headers) -> Use:
        return of.begin_use(of.use({"X-Job": job}))

    outer = begin("outer")
    inner = begin("inner")
    begin("of another session", others)
    headers.use({"X-Job": "newest"})
    assert job() == "inner"
    headers.end_use(inner)  # not the last that began
    assert job() == "outer"
    headers.end_use(outer)
    assert job() == "newest"


async def test_after_a_use_the_one_around_it_counts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    headers = headers_of()
    session = Session(headers, monkeypatch)
    outer = headers.begin_use(headers.use({"X-Job": "outer"}))
    inner = headers.begin_use(headers.use({"X-Job": "inner"}))
    headers.end_use(inner)
    again = headers.begin_use(headers.use({"X-Job": "again"}))
    assert again.outer is outer
    headers.end_use(again)
    session.begun(1)
    assert sent(headers, request_of(1))["x-job"] == "outer"


# ---- what must not be shown


def test_values_of_calls_are_not_shown_either() -> None:
    clean = Cleaner(OPENED_WITH)
    headers = SessionHeaders(OPENED_WITH, clean)
    for number in range(3):
        headers.use({"Authorization": f"Bearer secret-{number}"})
    for secret in ("of the opening", "secret-0", "secret-2"):
        assert secret not in clean(f"the server says: {secret}")
