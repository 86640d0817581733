"""Header and URL injection: what a hostile value makes of the bytes that reach an upstream server."""

from __future__ import annotations

import enum
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpgateway_pool import MCPSessionPool, SessionCreateError, TransportType
from mcpgateway_pool.upstream.session_owner import upstream_headers
from support.recording_server import RecordingServer, Sent

CANARY = "c4n4ry"
EVIL = "X-Evil: 1"
TRANSPORTS = list(TransportType)
# Whatever some server takes for the end of a line, and what a terminal or a log takes for a command.
CONTROLS = [
    "\r",
    "\n",
    "\r\n",
    "\0",
    "\x0b",
    "\x0c",
    "\x1b",
    "\x01",
    "\x08",
    "\x7f",
    "\x85",
    "\xa0",
    "\u2028",
]


class Name(str):
    """A str that says it is another one."""

    __slots__ = ()

    def lower(self) -> str:
        return "harmless"

    def encode(self, *_: Any) -> bytes:
        return b"X-Evil"

    def __str__(self) -> str:
        return "x-evil"


class Member(enum.StrEnum):
    AUTHORIZATION = "Authorization"


@asynccontextmanager
async def pool_and_server() -> AsyncIterator[tuple[MCPSessionPool, RecordingServer]]:
    async with RecordingServer() as server, MCPSessionPool(circuit_breaker_threshold=2) as pool:
        yield pool, server


async def fail(pool: MCPSessionPool, url: str, headers: Any = None, **arguments: Any) -> str:
    """Try to open a session; the error's message."""
    with pytest.raises(SessionCreateError) as caught:
        await pool.acquire(url, headers, **arguments)
    assert CANARY not in str(caught.value)
    assert str(caught.value).isprintable()
    return str(caught.value)


def assert_harmless(sent: Sent) -> None:
    assert sent.has_one_request
    assert b"x-evil" not in sent.names
    assert sent.lines[0].split(b" ")[0] in (b"GET", b"POST")
    assert sent.names.count(b"host") == 1


# ---- headers


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("place", ["{}" + EVIL, CANARY + "{}" + EVIL, CANARY + "{}"])
async def test_value_with_a_control_character_is_never_sent_nor_shown(
    transport: TransportType, place: str
) -> None:
    async with pool_and_server() as (pool, server):
        for control in CONTROLS:
            message = await fail(
                pool, server.url, {"X-Token": place.format(control)}, transport_type=transport
            )
            assert "'X-Token' cannot be sent" in message
        assert server.sent == []
        assert pool._breakers() == []  # the caller's mistake says nothing about the server


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_name_that_is_no_token_is_never_sent(transport: TransportType) -> None:
    async with pool_and_server() as (pool, server):
        bad = [
            "",
            "X-A: 1\r\nX-Evil",
            "X-A\nX-Evil",
            "X-A:",
            " X-A",
            "X-A ",
            "X A",
            "X\0A",
            "X-\u212aey",
            "X(A",
        ]
        for name in [*bad, *(f"X-A{control}X-Evil" for control in CONTROLS)]:
            assert "is no header name" in await fail(
                pool, server.url, {name: CANARY}, transport_type=transport
            )
        assert server.sent == []


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_is_sent_is_what_was_given(transport: TransportType) -> None:
    async with pool_and_server() as (pool, server):
        headers = {
            "Authorization": "Bearer a: b, c",
            "X-Tab": "a\tb",
            "X-Empty": "",
            "X-Same": "1",
            "x-same": "2",
        }
        await fail(pool, server.url, headers, transport_type=transport)
        await server.all_read()
        (sent,) = server.sent
        assert_harmless(sent)
        assert b"Authorization: Bearer a: b, c" in sent.lines
        assert b"X-Tab: a\tb" in sent.lines
        assert sent.names.count(b"x-empty") == 1


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_str_subclass_is_sent_as_the_characters_it_has(transport: TransportType) -> None:
    async with pool_and_server() as (pool, server):
        headers = {
            Name("X-MCP-Session-Id"): "downstream",
            Name("X-Api-Key"): Name("key"),
            Member.AUTHORIZATION: "Bearer b",
        }
        await fail(pool, server.url, headers, transport_type=transport)
        await server.all_read()
        (sent,) = server.sent
        assert_harmless(sent)
        assert b"X-Api-Key: key" in sent.lines
        assert b"Authorization: Bearer b" in sent.lines
        assert b"downstream" not in sent.raw


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_ids_of_the_downstream_side_never_go_upstream(transport: TransportType) -> None:
    async with pool_and_server() as (pool, server):
        headers = {"X-MCP-SESSION-ID": CANARY, "mcp-Session-id": CANARY, "X-Mcp-Session-Id": CANARY}
        await fail(
            pool,
            server.url,
            headers,
            transport_type=transport,
            user_identity=CANARY + "\r\n" + EVIL,
            gateway_id=CANARY + "\r\n" + EVIL,
        )
        await server.all_read()
        (sent,) = server.sent
        assert_harmless(sent)
        assert CANARY.encode() not in sent.raw


HOSTILE_TEXT = st.lists(
    st.sampled_from(["a", "B", ":", " ", "\t", "-", "é", "\ud800", "\u212a", "{", *CONTROLS, EVIL]),
    max_size=5,
).map("".join)


@given(st.dictionaries(HOSTILE_TEXT, HOSTILE_TEXT, max_size=3))
def test_headers_are_refused_or_are_tokens_and_visible_text(headers: dict[str, str]) -> None:
    try:
        sent = upstream_headers(headers)
    except ValueError:
        return
    for name, value in sent.items():
        assert re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name)
        assert re.fullmatch(r"[\t -~]*", value)


# ---- URLs


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_url_with_a_control_character_makes_no_second_line(transport: TransportType) -> None:
    async with pool_and_server() as (pool, server):
        for control in [*CONTROLS, "%0d%0a", "%00", " ", " HTTP/1.1\r\n"]:
            for url in (f"{server.url}{control}{EVIL}", f"{server.url}?key={CANARY}{control}{EVIL}"):
                await fail(pool, url, transport_type=transport)
        await server.all_read()
        assert server.sent  # those that a URL may have, percent-encoded
        for sent in server.sent:
            assert_harmless(sent)
            assert sent.lines[0].count(b" ") == 2


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_userinfo_of_a_url_is_sent_as_basic_and_not_shown(transport: TransportType) -> None:
    async with pool_and_server() as (pool, server):
        url = server.url.replace("//", f"//user:{CANARY}@") + f"?key={CANARY}#{CANARY}"
        await fail(pool, url, transport_type=transport)
        await server.all_read()
        (sent,) = server.sent
        assert_harmless(sent)
        assert b"authorization" in sent.names
        assert f"Host: 127.0.0.1:{server.port}".encode() in sent.lines


# ---- sizes


async def test_many_and_large_headers_are_sent_whole() -> None:
    headers = {f"X-Number-{number}": "v" for number in range(1000)} | {"Authorization": "a" * 1_000_000}
    async with pool_and_server() as (pool, server):
        await fail(pool, server.url, headers)
        await server.all_read()
        (sent,) = server.sent
        assert_harmless(sent)
        assert sum(name.startswith(b"x-number-") for name in sent.names) == 1000
        assert b"a" * 1_000_000 in sent.raw
