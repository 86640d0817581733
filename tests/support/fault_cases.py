"""What can happen to a server and its sessions, one function per fault, for any pool with the gateway's
surface.

The tests run these on this package's pool and say what must come out; ``benchmarks/faults.py`` runs the same
on the gateway's own pool too, and writes both down. So nothing here imports either.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from servers.process import ServerProcess

HEADERS = {"Authorization": "Bearer of-a-test"}


class Hangs(Exception):
    """A call that had no end within the stage's limit."""


@dataclass
class Call:
    """One call through the pool.

    Attributes:
        error: what it raised; None for an answer, :class:`Hangs` for neither in time.
        seconds: from the fault, or from its own begin if that was later, to its end.
    """

    error: BaseException | None = None
    seconds: float = 0.0


@dataclass
class Stage:
    """One pool over one server.

    Attributes:
        pool: any pool with ``acquire``, ``release``, ``session``, ``drain_all`` and ``close_all``.
        transport_type: the pool's own value for the transport.
        style: ``session`` calls inside ``pool.session()``; ``bare`` acquires and releases, whatever came of
            the call, as the gateway does.
        limit: seconds after which a call counts as hanging.
        calls: every call, in order of their ends.
        acquired: how many acquires returned a session.
    """

    server: ServerProcess
    pool: Any
    transport_type: Any
    style: str = "session"
    limit: float = 10.0
    calls: list[Call] = field(default_factory=list)
    acquired: int = 0
    struck: float = 0.0

    @property
    def is_sse(self) -> bool:
        return self.server.transport == "sse"

    @property
    def failures(self) -> list[Call]:
        return [call for call in self.calls if call.error is not None]

    def strike(self) -> None:
        """The fault happens now: calls are timed from here. To be said before it happens, because a call may
        have failed by the time that whoever made it happen comes back.
        """
        self.struck = time.monotonic()

    async def threaded(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What blocks, such as starting a server, beside the event loop."""
        return await asyncio.to_thread(function, *arguments)

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Any]:
        """A checked out session."""
        where = (self.server.url, HEADERS, self.transport_type)
        if self.style == "session":
            async with self.pool.session(*where, user_identity="u", gateway_id="g") as pooled:
                self.acquired += 1
                yield pooled
            return
        pooled = await self.pool.acquire(*where, user_identity="u", gateway_id="g")
        self.acquired += 1
        try:
            yield pooled
        finally:
            await self.pool.release(pooled)

    async def call(self, tool: str = "echo", **arguments: Any) -> Call:
        """One tool call; it never raises, but for the cancellation of its caller."""
        call = Call()
        begin = time.monotonic()
        working = asyncio.ensure_future(self._call(tool, arguments or {"text": "x"}))
        try:
            done, _ = await asyncio.wait({working}, timeout=self.limit)
            if not done:
                call.error = Hangs(f"no end in {self.limit:g} s")
        finally:
            if not working.done():
                working.cancel()
                # Bounded, because a pool may swallow cancellation, too.
                await asyncio.wait({working}, timeout=5)
        if call.error is None and working.cancelled():
            call.error = asyncio.CancelledError()
        elif call.error is None:
            call.error = working.exception()
        call.seconds = time.monotonic() - max(begin, self.struck)
        self.calls.append(call)
        return call

    async def _call(self, tool: str, arguments: dict[str, Any]) -> None:
        async with self.session() as pooled:
            await pooled.session.call_tool(tool, arguments)

    async def working(self, count: int = 1, seconds: float = 30.0) -> list[asyncio.Task[Call]]:
        """Calls that the server has taken and is working on.

        Raises:
            RuntimeError: one of them ended without having reached the server.
        """

        def posts(stats: dict[str, Any]) -> int:
            number: int = stats["posts"].get("tools/call", 0)
            return number

        goal = posts(await self.threaded(self.server.stats)) + count
        calls = [asyncio.create_task(self.call("slow", seconds=seconds)) for _ in range(count)]
        await self.threaded(
            self.server.wait_for,
            lambda stats: posts(stats) >= goal or all(call.done() for call in calls),
            self.limit + 10,  # each call ends within the limit
        )
        # Asked again, because a call may have reached the server and ended after the last answer.
        missing = goal - posts(await self.threaded(self.server.stats))
        if missing > 0:
            cause = calls[-1].result().error
            raise RuntimeError(f"{missing} of {count} calls did not reach the server") from cause
        return calls

    async def idle(self, count: int) -> None:
        """Leave that many sessions idle in the pool."""
        for call in await self.working(count, 0.3):
            assert (await call).error is None

    async def settled(self) -> None:
        """Until the event streams of streamable HTTP sessions, opened in the background, are there."""
        if not self.is_sse:
            await self.threaded(self.server.wait_for, lambda stats: stats["open_streams"] > 0)


# ---- the faults; each leaves the server able to answer


async def idle_kill(stage: Stage) -> None:
    """The server dies while its session is idle; a call finds nobody there."""
    await stage.call()
    await stage.settled()
    await stage.threaded(stage.server.kill)
    stage.strike()
    await stage.call()
    await stage.threaded(stage.server.start)


async def kill_mid_call(stage: Stage) -> None:
    """The server dies while it works on a call."""
    (call,) = await stage.working()
    stage.strike()
    await stage.threaded(stage.server.kill)
    await call
    await stage.threaded(stage.server.start)


async def sigterm_mid_call(stage: Stage) -> None:
    """The server is asked to end, and ends within a second or two, while it works on a call."""
    (call,) = await stage.working()
    stage.strike()
    await stage.threaded(stage.server.stop, 10.0)
    await call
    await stage.threaded(stage.server.start)


async def restart_with_5_idle(stage: Stage) -> None:
    """The server is started anew while 5 sessions are idle; then 10 calls, one after the other."""
    await stage.idle(5)
    await stage.settled()
    await stage.threaded(stage.server.restart)
    stage.strike()
    for _ in range(10):
        await stage.call()


async def restart_with_5_idle_and_a_burst(stage: Stage) -> None:
    """The same, but then 5 calls at once."""
    await stage.idle(5)
    await stage.settled()
    await stage.threaded(stage.server.restart)
    stage.strike()
    await asyncio.gather(*(stage.call() for _ in range(5)))


def _answered_with(status: int) -> Callable[[Stage], Awaitable[None]]:
    async def fault(stage: Stage) -> None:
        await stage.call()
        await stage.threaded(_plan, stage.server, {"kind": "status", "status": status})
        stage.strike()
        await stage.call()

    return fault


async def error_answer(stage: Stage) -> None:
    """A call is answered with a JSON-RPC error: over SSE the server's own, for an unknown prompt."""
    await stage.call()
    if stage.is_sse:
        plain, stage._call = stage._call, lambda _tool, _arguments: prompt()  # type: ignore[method-assign]
    else:
        await stage.threaded(_plan, stage.server, {"kind": "error", "code": -32000})

    async def prompt() -> None:
        async with stage.session() as pooled:
            await pooled.session.get_prompt("unknown")

    stage.strike()
    await stage.call()
    if stage.is_sse:
        stage._call = plain  # type: ignore[method-assign]


class CallersOwn(Exception):
    """What a caller's block raises."""


async def callers_exception(stage: Stage) -> None:
    """The call is answered, and its caller's block raises."""

    async def call() -> None:
        async with stage.session() as pooled:
            await pooled.session.call_tool("echo", {"text": "x"})
            raise CallersOwn("of the caller")

    await stage.call()
    plain, stage._call = stage._call, lambda _tool, _arguments: call()  # type: ignore[method-assign]
    stage.strike()
    await stage.call()
    stage._call = plain  # type: ignore[method-assign]


def _plan(server: ServerProcess, fault: dict[str, Any]) -> None:
    server.fault(**{"method": "tools/call", **fault} if fault["kind"][:7] != "stream-" else fault)


def _spoilt(streamable: str, sse: str) -> Callable[[Stage], Awaitable[None]]:
    async def fault(stage: Stage) -> None:
        await stage.call()
        await stage.threaded(_plan, stage.server, {"kind": sse if stage.is_sse else streamable})
        stage.strike()
        await stage.call()

    return fault


async def freeze_and_close(stage: Stage) -> None:
    """The server stands still (SIGSTOP) with one call under way and one session idle; the pool is closed."""
    await stage.idle(2)
    (call,) = await stage.working()
    stage.server.freeze()
    stage.strike()
    await bounded(stage.pool.close_all(), 30)
    await call
    stage.server.thaw()


async def close_during_a_call(stage: Stage) -> None:
    """The pool is closed under a call."""
    (call,) = await stage.working()
    stage.strike()
    await bounded(stage.pool.close_all(), 30)
    await call


async def drain_during_a_call(stage: Stage) -> None:
    """The pool is drained under a call, which goes on to its end."""
    (call,) = await stage.working(seconds=0.5)
    stage.strike()
    await bounded(stage.pool.drain_all(), 30)
    await call


async def cancelled_caller(stage: Stage) -> None:
    """The caller is cancelled in a call."""
    (call,) = await stage.working()
    stage.strike()
    call.cancel()
    await asyncio.wait({call})


async def cancelled_owner(stage: Stage) -> None:
    """The task that owns the session is cancelled, as by a careless clean-up of all tasks."""
    owners: list[Any] = []

    async def call() -> None:
        async with stage.session() as pooled:
            owners.append(pooled._owner_task)
            await pooled.session.call_tool("slow", {"seconds": 30.0})

    plain, stage._call = stage._call, lambda _tool, _arguments: call()  # type: ignore[method-assign, assignment]
    (working,) = await stage.working()
    stage._call = plain  # type: ignore[method-assign]
    stage.strike()
    owners[0].cancel()
    await working


async def thirty_callers_on_3_sessions(stage: Stage) -> None:
    """Many more callers than sessions; all are served. The pool's limit is 3."""
    stage.strike()
    await asyncio.gather(*(stage.call("slow", seconds=0.02) for _ in range(30)))


async def thirty_callers_on_3_sessions_and_a_restart(stage: Stage) -> None:
    """The same, and the server is started anew under three of them."""
    calls = await stage.working(3)
    calls += [asyncio.create_task(stage.call()) for _ in range(27)]
    stage.strike()
    await stage.threaded(stage.server.kill)
    await asyncio.gather(*calls[:3])
    await stage.threaded(stage.server.start)
    await asyncio.gather(*calls[3:])


async def bounded(work: Awaitable[Any], seconds: float) -> None:
    """Wait for something that must end; what does not is cancelled, and is a hang."""
    task = asyncio.ensure_future(work)
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        task.cancel()
        await asyncio.wait({task}, timeout=5)
        raise Hangs(f"no end in {seconds:g} s")
    with contextlib.suppress(asyncio.CancelledError):
        await task


@dataclass(frozen=True)
class Fault:
    """One row of the table.

    Attributes:
        title: as it is shown.
        strike: makes it happen, with its calls.
        kills: it ends or stops the server, which therefore is its own.
        closes: the pool is closed afterwards.
        limit: sessions per key.
    """

    title: str
    strike: Callable[[Stage], Awaitable[None]]
    kills: bool = False
    closes: bool = False
    limit: int = 10


FAULTS = {
    "idle-kill": Fault("server killed, session idle", idle_kill, kills=True),
    "kill-mid-call": Fault("server killed in a call", kill_mid_call, kills=True),
    "sigterm": Fault("server terminated in a call", sigterm_mid_call, kills=True),
    "restart-5-idle": Fault("restart with 5 idle sessions, 10 calls", restart_with_5_idle, kills=True),
    "restart-5-burst": Fault(
        "restart with 5 idle sessions, 5 calls at once", restart_with_5_idle_and_a_burst, kills=True
    ),
    "500": Fault("HTTP 500 to a call", _answered_with(500)),
    "503": Fault("HTTP 503 to a call", _answered_with(503)),
    "401": Fault("HTTP 401 to a call", _answered_with(401)),
    "404": Fault("HTTP 404 to a call", _answered_with(404)),
    "429": Fault("HTTP 429 to a call", _answered_with(429)),
    "error": Fault("a JSON-RPC error (-32000) to a call", error_answer),
    "callers-exception": Fault("the caller's block raises", callers_exception),
    "cut": Fault("stream cut in an event", _spoilt("cut", "stream-cut")),
    "garbage": Fault("garbage instead of JSON", _spoilt("garbage", "stream-garbage")),
    "garbage-event": Fault("an unreadable event, stream ends", _spoilt("garbage-sse", "stream-garbage")),
    "garbage-open": Fault(
        "an unreadable event, stream stays open", _spoilt("garbage-open", "stream-garbage")
    ),
    "no-answer": Fault("stream ends without an answer", _spoilt("end", "stream-cut")),
    "freeze-close": Fault("server stopped (SIGSTOP), pool closed", freeze_and_close, kills=True, closes=True),
    "close": Fault("pool closed in a call", close_during_a_call, closes=True),
    "drain": Fault("pool drained in a call", drain_during_a_call),
    "cancelled-caller": Fault("caller cancelled in a call", cancelled_caller),
    "cancelled-owner": Fault("owner task cancelled in a call", cancelled_owner),
    "30-on-3": Fault("30 callers on 3 sessions", thirty_callers_on_3_sessions, limit=3),
    "30-on-3-restart": Fault(
        "30 callers on 3 sessions, restart", thirty_callers_on_3_sessions_and_a_restart, kills=True, limit=3
    ),
}
