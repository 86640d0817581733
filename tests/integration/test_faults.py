"""What callers of the pool meet when servers and sessions break: every fault of ``support/fault_cases.py``,
on both transports, on whichever generation of the MCP SDK is installed, against real servers.

After each fault the next call works, the server has no session but those that the pool knows of, the counters
add up, and after ``close_all`` nothing is left.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import uvloop

from mcpgateway_pool import MCPSessionPool, PoolClosedError, SessionCreateError, TransportType
from mcpgateway_pool.upstream import sdk
from servers.process import ServerProcess
from support.fault_cases import FAULTS, CallersOwn, Fault, Hangs, Stage, bounded
from support.leaks import run_clean

if sdk.follows_redirects():
    # An SDK as old as 1.27 leaves two in-memory streams of its own to the collector when it cannot connect
    # over SSE.
    pytestmark = pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning")

SDK_ERROR = type(sdk.make_error(0, ""))
# Between the end of a transport and the error of a call in flight: docs/faults.md has what is measured. Here
# it is a limit for what a busy machine takes, below the 5 s and more of each time-out that could end a hang.
AT_ONCE = 3.0
# And what the server itself takes to end after SIGTERM: uvicorn waits a second for open streams.
WITH_GRACE = AT_ONCE + 1.0
# A call that was not sent yet may open a session first.
WITH_A_CREATION = 10.0
CLEANUP = 0.5


@dataclass(frozen=True)
class Expected:
    """What calls come to.

    Attributes:
        failures: the fewest and the most calls that fail.
        errors: of which classes.
        codes: and, for errors of the SDK, with which codes.
        within: seconds.
    """

    failures: tuple[int, int]
    errors: tuple[type[BaseException], ...] = (SDK_ERROR,)
    codes: frozenset[int] = frozenset({sdk.CONNECTION_CLOSED})
    within: float = AT_ONCE


NONE_FAILS = Expected((0, 0))
ONE_FAILS = Expected((1, 1))
# What the SDK makes of a 404: "Session terminated", 32600 on 1.x, and -32600 on 2.x.
SESSION_TERMINATED = Expected((1, 1), codes=frozenset({32600, -32600, sdk.CONNECTION_CLOSED}))
# SDK 2.x says so itself where it cannot read an answer.
UNREADABLE = Expected((1, 1), codes=frozenset({sdk.CONNECTION_CLOSED, sdk.PARSE_ERROR}))

# The session of these goes on, unchecked: see docs/faults.md.
KEPT = ("401", "429", "error", "callers-exception")

EXPECTED = {
    "idle-kill": Expected((1, 1), (SDK_ERROR, SessionCreateError), within=WITH_A_CREATION),
    "kill-mid-call": ONE_FAILS,
    "sigterm": Expected((1, 1), within=WITH_GRACE),
    "restart-5-idle": NONE_FAILS,
    "restart-5-burst": NONE_FAILS,
    "500": ONE_FAILS,
    "503": ONE_FAILS,
    "401": ONE_FAILS,
    "404": SESSION_TERMINATED,
    "429": ONE_FAILS,
    # Over SSE, the server's own code for a prompt that it does not have.
    "error": Expected((1, 1), codes=frozenset({sdk.CONNECTION_CLOSED, 0, -32603, -32602, -32002})),
    "callers-exception": Expected((1, 1), (CallersOwn,)),
    "cut": ONE_FAILS,
    "garbage": UNREADABLE,
    "garbage-event": UNREADABLE,
    "garbage-open": UNREADABLE,
    "no-answer": ONE_FAILS,
    "freeze-close": ONE_FAILS,
    "close": ONE_FAILS,
    "drain": NONE_FAILS,
    "cancelled-caller": NONE_FAILS,
    "cancelled-owner": ONE_FAILS,
    "30-on-3": NONE_FAILS,
    "30-on-3-restart": Expected((3, 30), (SDK_ERROR, SessionCreateError), within=WITH_A_CREATION),
}
assert EXPECTED.keys() == FAULTS.keys()


# Each fault once in the short run: over streamable HTTP, which servers speak now.
@pytest.fixture(
    scope="module",
    params=[
        "streamablehttp",
        pytest.param("sse", marks=pytest.mark.long("each fault a second time, over the older transport")),
    ],
)
def shared(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """A server for the faults that leave it alive."""
    with ServerProcess(request.param) as server:
        yield server


@pytest.fixture
def server(request: pytest.FixtureRequest, shared: ServerProcess) -> Iterator[ServerProcess]:
    """The shared server, without faults that an earlier test planned; one of its own where it is killed."""
    fault = request.node.callspec.params.get("fault")
    if fault is not None and FAULTS[fault].kills:
        with ServerProcess(shared.transport) as mortal:
            yield mortal
    else:
        shared.fault("clear")
        yield shared


def make_pool(**settings: Any) -> MCPSessionPool:
    """The faults come faster than a breaker likes."""
    return MCPSessionPool(
        **{"circuit_breaker_threshold": 1000, "cleanup_timeout_seconds": CLEANUP, **settings}
    )


def stage_of(server: ServerProcess, pool: MCPSessionPool, style: str = "session") -> Stage:
    return Stage(server, pool, TransportType(server.transport), style)


async def note_lateness(found: list[float]) -> None:
    """How late this loop's own timers are: a busy machine is not the pool's fault."""
    while True:
        begin = time.monotonic()
        await asyncio.sleep(0.05)
        found.append(time.monotonic() - begin - 0.05)


def assert_as_expected(stage: Stage, expected: Expected, late: float) -> None:
    failures = stage.failures
    fewest, most = expected.failures
    assert fewest <= len(failures) <= most, failures
    for call in failures:
        assert isinstance(call.error, expected.errors), call
        if isinstance(call.error, SDK_ERROR):
            assert sdk.error_code(call.error) in expected.codes, call
        assert str(call.error), call
        assert call.seconds <= expected.within + 2 * late, (call, late)


async def assert_next_call_works(stage: Stage) -> None:
    call = await stage.call()
    assert call.error is None, call


def assert_adds_up(stage: Stage) -> None:
    totals, counts = stage.pool._totals(), stage.pool._counts()
    numbers = f"{totals} {counts}"
    assert totals["creates"] == totals["size"] + sum(totals["evictions"].values()), numbers
    assert totals["hits"] + totals["misses"] == stage.acquired, (stage.acquired, numbers)
    assert totals["active_sessions"] == counts["active"] == counts["waiters"] == 0, numbers


async def assert_server_agrees(stage: Stage, sessions: int) -> None:
    """The server has event streams for no more sessions than these: over both transports, each has one. (The
    pool may still hold sessions of a server that is gone: it asks when it is about to hand them out.)
    """
    await stage.threaded(stage.server.wait_for, lambda stats: stats["open_streams"] <= sessions, 10.0)


async def closed(stage: Stage) -> None:
    """Close the pool, and look what is left."""
    await bounded(stage.pool.close_all(), WITH_A_CREATION)
    counts = stage.pool._counts()
    assert not any(counts[name] for name in ("waiters", "creating", "active", "idle", "checking", "closing"))
    assert not stage.pool._tasks
    assert_adds_up(stage)
    await assert_server_agrees(stage, 0)


async def act(stage: Stage, fault: Fault, expected: Expected) -> None:
    late = [0.0]
    watch = asyncio.create_task(note_lateness(late))
    await fault.strike(stage)
    watch.cancel()
    assert_as_expected(stage, expected, max(late))
    if not fault.closes:
        await assert_next_call_works(stage)
        if fault in [FAULTS[name] for name in KEPT]:
            assert stage.pool._totals()["creates"] == 1
        assert_adds_up(stage)
        await assert_server_agrees(stage, stage.pool._counts()["idle"])
    else:
        call = await stage.call()
        assert isinstance(call.error, PoolClosedError)
    await closed(stage)


@pytest.mark.parametrize("fault", FAULTS)
def test_fault(server: ServerProcess, fault: str) -> None:
    async def test() -> None:
        pool = make_pool(max_sessions_per_key=FAULTS[fault].limit)
        await act(stage_of(server, pool), FAULTS[fault], EXPECTED[fault])

    run_clean(test)


@pytest.mark.long("each fault once more, on the event loop that uvicorn takes where it can")
@pytest.mark.parametrize("fault", FAULTS)
def test_fault_on_uvloop(server: ServerProcess, fault: str) -> None:
    async def test() -> None:
        pool = make_pool(max_sessions_per_key=FAULTS[fault].limit)
        await act(stage_of(server, pool), FAULTS[fault], EXPECTED[fault])

    run_clean(test, loop_factory=uvloop.new_event_loop)


# A bare release does not know what came of the call.
@pytest.mark.long("each fault once more, in the gateway's style of calling")
@pytest.mark.parametrize(
    "fault", [name for name, fault in FAULTS.items() if not fault.kills] + ["kill-mid-call"]
)
def test_fault_with_a_bare_release(server: ServerProcess, fault: str) -> None:
    async def test() -> None:
        pool = make_pool(max_sessions_per_key=FAULTS[fault].limit)
        await act(stage_of(server, pool, "bare"), FAULTS[fault], EXPECTED[fault])

    run_clean(test)


def test_a_hang_would_be_seen(server: ServerProcess) -> None:
    """The harness itself: a server that never answers makes a call hang, which only its caller can end."""

    async def test() -> None:
        stage = stage_of(server, make_pool(health_check_timeout_seconds=0.5))
        await stage.call()
        await stage.threaded(server.fault, "hang")
        generous, stage.limit = stage.limit, 0.5
        call = await stage.call()
        # Over SSE the POST itself is not answered, and the client's own time-out is far away.
        assert isinstance(call.error, Hangs)
        stage.limit = generous  # the session is checked before its next use, and may fail that
        await assert_next_call_works(stage)
        await closed(stage)

    run_clean(test)


def test_a_call_that_ends_before_the_server_has_it_is_reported_at_once(server: ServerProcess) -> None:
    """The harness itself: waiting for a call to be under way must not look as if that call hung."""

    async def test() -> None:
        stage = stage_of(server, make_pool())
        server.fault("status", status=500, method="initialize")
        with pytest.raises(RuntimeError, match="did not reach the server"):
            await stage.working()
        (call,) = stage.calls
        assert isinstance(call.error, SessionCreateError)
        await closed(stage)

    run_clean(test)
