"""Servers that echo a token: no log line holds it, neither of this package nor of the SDK and the HTTP
library, whatever their loggers' levels.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import importlib
import inspect
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from mcpgateway_pool import MCPSessionPool, TransportType
from mcpgateway_pool.upstream import log_filter
from servers import scripted
from servers.process import ServerProcess
from servers.scripted import Answer, ScriptedServer
from servers.waiting import AT_ONCE

TOKEN = "s3cr3t-t\"0'k\\en"
HEADERS = {"Authorization": f"Bearer {TOKEN}", "X-Plain": "word-of-its-own"}
SHOWN = ("s3cr3t", "word-of-its-own")
LOGGERS = [logging.getLogger(name) for name in log_filter._LOGGERS]


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", True)
    for logger in (*LOGGERS, logging.getLogger("mcp"), logging.getLogger("mcpgateway_pool")):
        caplog.set_level(logging.DEBUG, logger.name)


def assert_shows_nothing(caplog: pytest.LogCaptureFixture, *loggers: str) -> None:
    formatter = logging.Formatter("%(name)s %(message)s")
    lines = [formatter.format(record) for record in caplog.records]
    assert not [line for line in lines if any(secret in line for secret in SHOWN)]
    for name in loggers:  # it would have shown something
        assert any(line.startswith(name) and "…" in line for line in lines), name


def assert_no_filter_is_left() -> None:
    assert not [logger.name for logger in LOGGERS if log_filter._FILTER in logger.filters]


async def test_what_a_real_server_echoes_is_in_no_log_line(
    server: ServerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    async def call(pool: MCPSessionPool, tool: str, **arguments: Any) -> str:
        where = (server.url, HEADERS, TransportType(server.transport))
        async with pool.session(*where) as pooled:
            return str((await pooled.session.call_tool(tool, arguments)).content[0].text)

    async with MCPSessionPool() as pool:
        assert "s3cr3t" in await call(pool, "whoami")
        assert "s3cr3t" in await call(pool, "echo", text=TOKEN)
        for kind, options in (("status", {"status": 403}), ("error", {"code": -32000})):
            if server.transport == "sse" and kind == "error":
                continue  # there, an answer is no answer to its POST
            server.fault(kind, method="tools/call", body=TOKEN, **options)
            with pytest.raises(Exception, match=r"."):
                await call(pool, "echo", text="x")
    assert_shows_nothing(caplog, f"mcp.client.{'sse' if server.transport == 'sse' else 'streamable_http'}")
    assert_no_filter_is_left()


def event(text: str) -> Answer:
    async def answer(_request: Request, _message: Any) -> Response:
        async def events() -> AsyncIterator[bytes]:
            yield text.encode()

        return StreamingResponse(events(), media_type="text/event-stream")

    return answer


async def in_a_header(_request: Request, message: Any) -> Response:
    return scripted.result(message, {"content": []}, {"x-echo": HEADERS["Authorization"]})


@pytest.mark.parametrize(
    ("answer", "logger"),
    [
        (scripted.text(f'{{"{TOKEN}', "application/json"), "mcp.client.streamable_http"),
        (
            scripted.text(f'{{"jsonrpc": "2.0", "{TOKEN}": 1}}', "application/json"),
            "mcp.client.streamable_http",
        ),
        (scripted.text("x", f"text/{SHOWN[1]}"), "mcp.client.streamable_http"),
        (event(f"data: {{{TOKEN}\n\n"), "mcp.client.streamable_http"),
        (event(f"event: {SHOWN[1]}\ndata: x\n\n"), "mcp.client.streamable_http"),
        (in_a_header, "httpcore"),
    ],
    ids=["no json", "no message", "content type", "no event", "event", "header"],
)
async def test_whatever_holds_it(answer: Answer, logger: str, caplog: pytest.LogCaptureFixture) -> None:
    async with ScriptedServer() as server, MCPSessionPool() as pool:
        server.answers["tools/call"] = answer
        async with pool.session(server.url, HEADERS) as pooled:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(pooled.session.call_tool("echo", {}), AT_ONCE)
    assert_shows_nothing(caplog, logger)


def sdk_modules(*names: str) -> Iterator[str]:
    """These modules of the SDK, and those of its client's and shared ones that they import."""
    seen: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name in seen or not name.startswith(("mcp.client.", "mcp.shared.")):
            continue
        seen.add(name)
        with contextlib.suppress(ModuleNotFoundError):  # a name of a module, not a module
            code = inspect.getsource(importlib.import_module(name))
            yield name
            for node in ast.walk(ast.parse(code)):
                if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    left += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                elif isinstance(node, ast.Import):
                    left += [alias.name for alias in node.names]


def test_each_logger_of_what_the_transports_import_has_the_filter() -> None:
    modules = list(sdk_modules("mcp.client.session", "mcp.client.sse", "mcp.client.streamable_http"))
    loggers = {
        value.name
        for name in modules
        for value in vars(importlib.import_module(name)).values()
        if isinstance(value, logging.Logger)
    }
    assert {"client", "mcp.client.sse", "mcp.client.streamable_http"} <= loggers
    assert loggers <= set(log_filter._LOGGERS)


async def test_records_of_others_pass_as_they_are_and_nothing_stays_behind(
    server: ServerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = logging.Filter("mcp")
    logger = logging.getLogger("mcp.client.sse")
    logger.addFilter(theirs)
    try:
        async with MCPSessionPool() as pool:
            held = [
                await pool.acquire(server.url, HEADERS, TransportType(server.transport), user_identity=user)
                for user in "ab"
            ]
            assert logger.filters == [theirs, log_filter._FILTER]
            logger.warning("of somebody else: %s", TOKEN)
            assert caplog.messages[-1] == f"of somebody else: {TOKEN}"
            await pool.release(held.pop(), discard=True)
            assert log_filter._FILTER in logger.filters
            await pool.release(held.pop())
        assert logger.filters == [theirs]
    finally:
        logger.removeFilter(theirs)
    assert_no_filter_is_left()


def test_a_loop_that_is_closed_under_its_sessions_leaves_no_filter(server: ServerProcess) -> None:
    async def abandon() -> MCPSessionPool:
        pool = MCPSessionPool()
        await pool.release(await pool.acquire(server.url, HEADERS, TransportType(server.transport)))
        return pool

    pool = asyncio.run(abandon())  # which cancels what is left
    assert_no_filter_is_left()
    del pool
