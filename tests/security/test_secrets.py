"""No secret comes out: not in a log, an error, a traceback, a repr, a task's name, a number or a page.

Every failure that a real server, or a bad argument, can cause is caused with a secret in each header, in the
URL and in the user's name; then everything that was emitted is searched for it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client import generate_latest as their_generate_latest

from mcpgateway_pool import (
    MCPSessionPool,
    SessionCreateError,
    TransportType,
    generate_latest,
    register_collector,
)
from mcpgateway_pool.redact import safe_error
from servers.process import ServerProcess
from support.canary import CANARY, HEADERS, Listener, shown_by, with_secrets

ANSWER_SECONDS = 20.0


@pytest.fixture(scope="module", params=["streamablehttp", "sse"])
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    with ServerProcess(request.param) as process:
        yield process


@asynccontextmanager
async def talkative_pool(*, debug: bool = False, **settings: Any) -> AsyncIterator[MCPSessionPool]:
    """A pool of which every log is searched; with ``debug``, the event loop logs every callback, with its
    arguments.
    """
    loop = asyncio.get_running_loop()
    loop.set_debug(debug)
    loop.slow_callback_duration = 0.0
    with Listener() as listener, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        async with MCPSessionPool(**settings) as pool:
            yield pool
            await asyncio.sleep(0)
            assert_shows_nothing(pool)
        gc.collect()
        await asyncio.sleep(0)
    assert listener.inexcusable() == []
    assert not [warning for warning in warned if CANARY in str(warning)]


def assert_shows_nothing(pool: MCPSessionPool) -> None:
    registry = CollectorRegistry()
    register_collector(registry)
    shown = [
        json.dumps(pool.get_metrics()),
        generate_latest(registry).decode(),
        their_generate_latest(registry).decode(),
        repr(pool),
        str(pool._pools),
        *(repr(thing) for thing in (*pool._tasks, *asyncio.all_tasks(), pool._upkeep_timer)),
        *(repr(pooled) + repr(pooled.transport_context) for one in pool._active.values() for pooled in one),
    ]
    assert not [text for text in shown if CANARY in text]


async def use(
    pool: MCPSessionPool, server: ServerProcess, tool: str = "whoami", url: str = "", **arguments: Any
) -> BaseException | None:
    """One call with secrets everywhere; the error, if any, which shows none."""
    raised: BaseException | None = None
    try:
        async with pool.session(
            url or with_secrets(server.url),
            dict(HEADERS),
            TransportType(server.transport),
            user_identity=CANARY,
            gateway_id="g",
            **arguments,
        ) as pooled:
            assert CANARY not in repr(pooled)
            await asyncio.wait_for(pooled.session.call_tool(tool, {}), ANSWER_SECONDS)
    except Exception as error:
        raised = error
    assert raised is None or CANARY not in shown_by(raised)
    return raised


async def test_refused_creation_and_refused_call_show_nothing(server: ServerProcess) -> None:
    for status in (302, 307, 400, 401, 404, 500, 503):
        async with talkative_pool() as pool:  # a refused call keeps its session
            server.fault("status", status=status, method="initialize", body=CANARY)
            assert isinstance(await use(pool, server), SessionCreateError)
            server.fault("status", status=status, method="tools/call", body=CANARY)
            error = await use(pool, server)
            assert error is not None
            assert not isinstance(error, TimeoutError)  # whatever the status, its caller is not left waiting


BAD_URLS = [
    "http://U:S@127.0.0.1:1/mcp?k=S",
    "https://U:S@127.0.0.1:PORT/mcp?k=S",
    "ftp://U:S@127.0.0.1:PORT/mcp?k=S",
    "http://U:S@host.invalid/mcp?k=S",
    "http://U:S@127.0.0.1:PORT/mcp?k=S\r\nX: S",
    "http://U:S@127.0.0.1:S/mcp",
    "http://U:S@127.0.0.1:99999/mcp?k=S",
    "http://U:S@[::/mcp?k=S",
    "http://U:S@xn--\u2603/mcp?k=S",
    "http://U:S@ho\u2100st/mcp?k=S",
    "http://U:S@127.0.0.1:PORT/nothing?k=S",
    "http://U:S@/mcp?k=S",
    "//U:S@127.0.0.1:PORT/mcp?k=S",
]


async def test_url_that_leads_nowhere_shows_nothing(server: ServerProcess) -> None:
    async with talkative_pool() as pool:
        for url in BAD_URLS:
            given = url.replace("S", CANARY).replace("U", CANARY).replace("PORT", str(server.port))
            assert await use(pool, server, url=given), url


async def test_failing_tools_and_broken_connections_show_nothing(server: ServerProcess) -> None:
    is_sse = server.transport == "sse"
    where = {"http": "GET"} if is_sse else {"method": "tools/call"}
    async with talkative_pool() as pool:
        assert await use(pool, server) is None
        await use(pool, server, "fail")
        await use(pool, server, "no such tool")
        for kind in ("cut", "garbage"):
            server.fault(f"stream-{kind}" if is_sse else kind, **where)
            assert await use(pool, server), kind
        server.fault("clear")
        assert await use(pool, server) is None


async def test_waiting_timing_out_and_being_cancelled_show_nothing(server: ServerProcess) -> None:
    settings = {"max_sessions_per_key": 1, "max_waiters": 1, "acquire_timeout_seconds": 0.1}
    async with talkative_pool(debug=True, **settings) as pool:
        arguments: Any = (with_secrets(server.url), dict(HEADERS), TransportType(server.transport))
        held = await pool.acquire(*arguments, user_identity=CANARY)

        async def wait() -> None:
            await pool.acquire(*arguments, user_identity=CANARY)

        results = await asyncio.gather(wait(), wait(), return_exceptions=True)
        for error in results:
            assert isinstance(error, TimeoutError)
            assert CANARY not in shown_by(error)
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await waiting
        assert CANARY not in shown_by(cancelled.value)
        opening = asyncio.create_task(pool.acquire(*arguments, user_identity="bob"))
        await asyncio.sleep(0.01)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await opening
        assert CANARY not in shown_by(cancelled.value)
        await pool.release(held)
        await pool.release(held)  # one too many, which is logged
        del held
        leaked = await pool.acquire(*arguments, user_identity=CANARY)
        del leaked
        gc.collect()
        await pool.drain_all()


async def test_time_out_of_a_creation_and_an_open_circuit_show_nothing(server: ServerProcess) -> None:
    async with talkative_pool(session_create_timeout_seconds=0.2, circuit_breaker_threshold=1) as pool:
        server.freeze()
        try:
            assert isinstance(await use(pool, server), TimeoutError)
            assert "Circuit breaker open" in str(await use(pool, server))
        finally:
            server.thaw()


Hook = Callable[..., Awaitable[Any]]


def failing_factory(**_: Any) -> Any:
    raise LookupError(f"no client for http://user:{CANARY}@127.0.0.1/?key={CANARY}")


def bad_value_factory(headers: Any = None, timeout: Any = None, auth: Any = None) -> Any:
    """A client that adds a header which its library refuses, quoting the value."""
    from mcpgateway_pool.upstream import sdk

    return sdk.http_library().AsyncClient(
        headers={**headers, "X-Of-The-Factory": f"{CANARY}\x0b"}, timeout=timeout
    )


@pytest.mark.parametrize("factory", [failing_factory, bad_value_factory])
async def test_message_of_a_creation_that_the_callers_factory_spoils_shows_nothing(
    server: ServerProcess, factory: Any
) -> None:
    """The chained cause is the caller's own exception, and stays as it is: the message is what is ours."""
    async with talkative_pool() as pool:
        with pytest.raises(SessionCreateError) as caught:
            await pool.acquire(server.url, {}, TransportType(server.transport), factory)
        assert CANARY not in str(caught.value)


def test_value_that_a_library_quotes_is_cut_out_of_its_message() -> None:
    for text in (
        f"Illegal header value b'Bearer {CANARY}'",
        f"Invalid header value b'{CANARY}\\n it\\'s {CANARY}'",
        f'illegal header value b"it\'s {CANARY}" and more of {CANARY}',
        f"Illegal header value '{CANARY}\n{CANARY}'",
    ):
        assert safe_error(ValueError(text)).endswith("header value …")
    assert safe_error(ValueError("a header value was missing")) == "ValueError: a header value was missing"


# ---- log forging


async def test_hostile_text_makes_no_second_line_in_a_log(caplog: pytest.LogCaptureFixture) -> None:
    """Nor anything that a terminal obeys."""
    evil = "\r\n\x1b[2K\u2028\x85CRITICAL forged"

    class Failing(MCPSessionPool):
        async def _create_session(self, *_: Any, **__: Any) -> Any:
            raise OSError(evil)

    def extract(headers: dict[str, str]) -> str:
        raise ValueError(evil)

    caplog.set_level(logging.DEBUG)
    with pytest.raises(ValueError, match="health_check_methods") as refused:
        Failing(health_check_methods=[evil])
    assert str(refused.value).isprintable()
    async with Failing(identity_extractor=extract, circuit_breaker_threshold=1) as pool:
        for headers in ({"x": evil}, {evil: "x"}):
            with pytest.raises((OSError, RuntimeError)):
                await pool.acquire(
                    f"http://host/{evil}", headers, user_identity=evil, gateway_id=evil, timeout=1
                )
    texts = [message for record in caplog.records if (message := record.getMessage())]
    assert any("Circuit breaker opened" in text for text in texts)
    assert any("extractor failed" in text for text in texts)
    assert not [text for text in texts if not text.isprintable()]
