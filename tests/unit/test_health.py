"""The chain of health check methods."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest
from pydantic import BaseModel, ValidationError

from mcpgateway_pool import MCPSessionPool, PooledSession, TransportType
from mcpgateway_pool.pool.newest import Newest
from mcpgateway_pool.upstream.sdk import make_error
from support.fakes import URL

# ---- the chain of methods, as the gateway's code asks it


def session_that(**methods: Any) -> Any:
    """A session whose methods give a value, or raise it."""
    session = MagicMock()
    for name in ("send_ping", "list_tools", "list_prompts", "list_resources"):
        setattr(session, name, AsyncMock(side_effect=methods.get(name)))
    return session


async def run_chain(session: Any, methods: list[str] | None, **settings: Any) -> bool:
    pool = MCPSessionPool(health_check_methods=methods, **settings)
    pooled = PooledSession(session, None, URL, TransportType.SSE, {}, "")
    return await pool._run_health_check_chain(pooled)


def asked(session: Any) -> list[str]:
    return [call[0] for call in session.method_calls]


NOT_FOUND = make_error(-32601, "Method not found", None)
BROKEN = make_error(-32000, "Connection closed", None)


async def test_first_method_that_answers_is_a_success():
    session = session_that()
    assert await run_chain(session, ["ping", "list_tools", "list_prompts", "list_resources"])
    assert asked(session) == ["send_ping"]


@pytest.mark.parametrize("error", [NOT_FOUND, TimeoutError()])
async def test_method_that_times_out_or_is_unknown_to_the_server_leaves_it_to_the_next(error: Exception):
    session = session_that(send_ping=error, list_tools=error, list_prompts=error)
    assert await run_chain(session, ["ping", "list_tools", "list_prompts", "list_resources"])
    assert asked(session) == ["send_ping", "list_tools", "list_prompts", "list_resources"]
    assert not await run_chain(session, ["ping", "list_tools"])
    assert await run_chain(session, ["ping", "list_tools", "skip"])
    assert await run_chain(session, None)


async def test_method_that_hangs_is_bounded_and_leaves_it_to_the_next():
    session = session_that()

    async def hang() -> None:
        await asyncio.Event().wait()

    session.send_ping = hang
    assert await run_chain(session, ["ping", "list_tools"], health_check_timeout_seconds=0.01)
    assert asked(session) == ["list_tools"]


@pytest.mark.parametrize("error", [BROKEN, ConnectionError(), ValueError(), make_error(-32602, "bad", None)])
async def test_another_error_is_a_failure(error: Exception):
    session = session_that(send_ping=error)
    assert not await run_chain(session, ["ping", "list_tools", "skip"])
    assert asked(session) == ["send_ping"]


async def test_skip_is_a_success_without_asking():
    session = session_that()
    assert await run_chain(session, ["skip", "ping"])
    assert asked(session) == []


@pytest.mark.parametrize("methods", [["pong"], ["ping", "pong"], ["skip", ""]])
def test_unknown_names_are_refused(methods: list[str]):
    with pytest.raises(ValueError, match=r"health_check_methods: .* is none of ping, list_tools"):
        MCPSessionPool(health_check_methods=methods)


# ---- the pool's own check, by answers, of a session whose requests nobody sees


class Gateways(MCPSessionPool):
    """As the gateway's: it refuses no name."""

    def _refuse_unknown_methods(self, methods: Iterable[str]) -> None:
        pass


async def is_alive(session: Any, methods: list[str], **settings: Any) -> bool:
    pool = Gateways(health_check_methods=methods, **settings)
    pooled = PooledSession(session, None, URL, TransportType.SSE, {}, "")
    return await pool._check_session(pooled)


CHAIN = ["ping", "list_tools", "list_prompts"]


async def test_error_answers_ask_the_next_and_the_session_lives_where_the_chain_ends_so():
    session = session_that(send_ping=NOT_FOUND, list_tools=make_error(-32603, "internal", None))
    assert await is_alive(session, CHAIN)
    assert asked(session) == ["send_ping", "list_tools", "list_prompts"]
    session = session_that(send_ping=NOT_FOUND, list_tools=NOT_FOUND, list_prompts=NOT_FOUND)
    assert await is_alive(session, CHAIN)
    assert await is_alive(session, ["ping", "skip", "list_tools"])


# What an SDK raises by itself may look like an answer: where nobody sees the requests, it is taken for none.
@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        ConnectionError(),
        ValueError("surprise"),
        BROKEN,
        make_error(32600, "Session terminated", None),
        make_error(-32600, "Session terminated", None),
        make_error(408, "Timed out while waiting for response to PingRequest", None),
        make_error(-32001, "Request 'ping' timed out", None),
        make_error(-32700, "Failed to parse JSON response: x", None),
    ],
)
@pytest.mark.parametrize("methods", [["ping"], ["ping", "skip"], ["ping", "list_tools"]])
async def test_no_answer_is_a_failure_whatever_follows(error: Exception, methods: list[str]):
    session = session_that(send_ping=error)
    assert not await is_alive(session, methods)
    assert asked(session) == ["send_ping"]


async def test_ping_that_hangs_is_no_health_because_skip_follows_it():
    session = session_that()

    async def hang() -> None:
        await asyncio.Event().wait()

    session.send_ping = hang
    assert not await is_alive(session, ["ping", "skip"], health_check_timeout_seconds=0.01)


async def test_answer_of_another_shape_is_an_answer():
    class Shape(BaseModel):
        size: int

    with pytest.raises(ValidationError) as caught:
        Shape.model_validate({})
    assert await is_alive(session_that(list_tools=caught.value), ["list_tools"])


async def test_skip_first_asks_nobody():
    session = session_that()
    assert await is_alive(session, ["skip", "ping"])
    assert asked(session) == []


async def test_names_that_a_gateway_sets_and_nobody_knows_are_warned_of_and_passed_over(
    caplog: pytest.LogCaptureFixture,
):
    session = session_that()
    assert await is_alive(session, ["pong", "pang", "ping"])
    assert asked(session) == ["send_ping"]
    assert "pong" in caplog.text
    assert "pang" in caplog.text
    assert await is_alive(session, ["pong"])  # nothing speaks against it


@pytest.mark.parametrize("where", ["subclass", "instance"])
async def test_overridden_chain_is_asked_instead(where: str):
    async def says_no(*_: Any) -> bool:
        return False

    class Overriding(MCPSessionPool):
        _run_health_check_chain = says_no

    pool = Overriding() if where == "subclass" else MCPSessionPool()
    if where == "instance":
        pool._run_health_check_chain = says_no  # type: ignore[method-assign]
    session = session_that()
    assert not await pool._check_session(PooledSession(session, None, URL, TransportType.SSE, {}, ""))
    assert asked(session) == []


# ---- tables of URLs


def test_a_table_of_bounded_size_keeps_what_was_set_last():
    table: Newest[str, int] = Newest(2)
    for number, url in enumerate(("a", "b", "a", "c")):
        table[url] = number
    assert list(table.items()) == [("a", 2), ("c", 3)]
    none: Newest[str, None] = Newest(0)
    none["a"] = None
    assert not none
