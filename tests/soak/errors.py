"""Calls through one pool to two servers (streamable HTTP and SSE) which answer an error to every third call.
`make soak-errors`; not part of `make test`.

An error answer is an answer. Sessions stay: after the first call of each caller, 99 of 100 acquires or more
are hits. And none is closed without evidence: for each session that is closed as lost, or because a check
failed, the log at debug level says what was seen. Prints a summary, and ends with 1 where one of these does
not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import importlib.metadata
import itertools
import logging
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mcpgateway_pool import MCPSessionPool, TransportType
from servers.process import ServerProcess

USERS = 4
# As many callers as sessions: after the first calls, one is opened only where one is lost.
SESSIONS = 3
CALLERS_PER_SERVER = USERS * SESSIONS
# None ends by its age.
LIFETIME_SECONDS = 100_000
HIT_RATE = 0.99
# Between two calls of a caller.
PAUSE_SECONDS = 0.02
# Every third call is answered by the next of these. HTTP 404 is left out: it says that a session is gone.
STATUSES = (400, 401, 403, 405, 413, 422, 429, 500, 503)
CODES = (-32700, -32603, -32602, -32601, -32600, -32001, -32000, 32600, 408, 7)
# The reasons of evictions that are verdicts; the others are the pool's settings.
BROKEN, FAILED_CHECK = "broken", "health_check"
START_SECONDS = 120.0


class Evidence(logging.Handler):
    """What the log at debug level says of closed sessions, and why.

    Attributes:
        closed: sessions closed, by reason.
        lost: what was seen of sessions that are lost.
        unanswered: health checks without an answer.
    """

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.closed: collections.Counter[str] = collections.Counter()
        self.lost: list[str] = []
        self.unanswered: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Note one record."""
        message = record.getMessage()
        if message.startswith("closing a session of "):
            self.closed[message.rpartition(": ")[2]] += 1
        elif message.startswith("lost session: "):
            self.lost.append(message)
        elif message.startswith("health check "):
            self.unanswered.append(message)


class CallersOwn(Exception):
    """What a caller's block raises by itself."""


class Run:
    """One run of so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = 0.0
        self._results: collections.Counter[str] = collections.Counter()
        self._evidence = Evidence()

    async def run(self) -> list[str]:
        """Returns what is wrong."""
        logger = logging.getLogger("mcpgateway_pool")
        logger.addHandler(self._evidence)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        with (
            ServerProcess("streamablehttp", start_timeout=START_SECONDS) as streamable,
            ServerProcess("sse", start_timeout=START_SECONDS) as sse,
        ):
            pool = MCPSessionPool(max_sessions_per_key=SESSIONS, session_ttl_seconds=LIFETIME_SECONDS)
            callers = [
                Caller(self._results, pool, server, number)
                for server in (streamable, sse)
                for number in range(CALLERS_PER_SERVER)
            ]
            await asyncio.gather(*(caller.call() for caller in callers))
            before = pool._totals()
            for server in (streamable, sse):
                await asyncio.to_thread(plan_errors, server)
            self._end = time.monotonic() + self._seconds
            await asyncio.gather(*(self._call(caller) for caller in callers))
            after = pool._totals()
            closed = self._evidence.closed.copy()
            await pool.close_all()
        return self._judge(before, after, closed)

    async def _call(self, caller: Caller) -> None:
        while time.monotonic() < self._end:
            await caller.call()
            await asyncio.sleep(PAUSE_SECONDS)

    def _judge(
        self, before: dict[str, Any], after: dict[str, Any], closed: collections.Counter[str]
    ) -> list[str]:
        hits, misses = (after[name] - before[name] for name in ("hits", "misses"))
        rate = hits / max(1, hits + misses)
        evictions = collections.Counter(
            {reason: count for reason, count in after["evictions"].items() if count}
        )
        share = 1 - self._results["answered"] / max(1, self._results.total())
        print(f"{self._seconds:.0f} s on mcp {importlib.metadata.version('mcp')}, ", end="")
        print(f"{2 * CALLERS_PER_SERVER} callers, two servers, {self._results.total()} calls")
        print("calls:     ", dict(self._results.most_common()))
        print(f"hit rate:   {100 * rate:.2f} % ({hits} hits, {misses} misses)")
        print(f"closed:     {dict(evictions)}, {len(self._evidence.lost)} seen to be lost")
        problems = []
        if rate < HIT_RATE:
            problems.append(f"only {100 * rate:.2f} % of the acquires were hits")
        if share < 0.25:
            problems.append(f"only {100 * share:.0f} % of the calls were answered with an error")
        if closed != evictions:
            problems.append(f"the log tells of {dict(closed)}")
        for reason, evidence in (
            (BROKEN, self._evidence.lost),
            (FAILED_CHECK, self._evidence.unanswered),
        ):
            if evictions[reason] > len(evidence):
                problems.append(f"{evictions[reason]} sessions were closed as {reason}: {evidence}")
        if after["create_failures"]:
            problems.append(f"{after['create_failures']} sessions could not be opened")
        return problems


class Caller:
    """Calls one server as one user, in every way in turn."""

    def __init__(
        self, results: collections.Counter[str], pool: MCPSessionPool, server: ServerProcess, number: int
    ) -> None:
        user = f"user {number % USERS}"
        self._results = results
        self._pool = pool
        self._where = (server.url, {"Authorization": user}, TransportType(server.transport))
        self._whose = {"user_identity": user, "gateway_id": server.transport}
        self._ways = itertools.cycle((self._session, self._bare, self._session, self._raising))

    async def call(self) -> None:
        """Make one call, and count what comes of it."""
        try:
            await next(self._ways)()
        except Exception as error:
            self._results[type(error).__name__] += 1
        else:
            self._results["answered"] += 1

    async def _session(self) -> None:
        async with self._pool.session(*self._where, **self._whose) as pooled:
            await pooled.session.call_tool("echo", {"text": "x"})

    async def _bare(self) -> None:
        pooled = await self._pool.acquire(*self._where, **self._whose)
        try:
            await pooled.session.call_tool("echo", {"text": "x"})
        finally:
            await self._pool.release(pooled)

    async def _raising(self) -> None:
        async with self._pool.session(*self._where, **self._whose) as pooled:
            await pooled.session.call_tool("fail", {})
            raise CallersOwn


def plan_errors(server: ServerProcess) -> None:
    """Have every third call answered with an error, each time with another one."""
    faults: list[dict[str, Any]] = [{"kind": "status", "status": status} for status in STATUSES]
    if server.transport == "streamablehttp":  # over SSE, an answer is no answer to its POST
        faults += [{"kind": "error", "code": code} for code in CODES]
    for number, fault in enumerate(faults):
        server.fault(method="tools/call", every=3 * len(faults), first=3 * number, **fault)


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long, default 600")
    arguments = parser.parse_args()
    for noisy in ("mcp", "httpx", "httpx2"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    problems = asyncio.run(Run(arguments.seconds).run())
    for problem in problems:
        print("PROBLEM:", problem)
    print("failed" if problems else "passed: errors cost no session, and none is closed without evidence")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
