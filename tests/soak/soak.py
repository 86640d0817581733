"""A soak test: 50 tasks call through one pool while two servers (streamable HTTP and SSE) are killed, stopped
and restarted at random. `make soak`; not part of `make test`.

Nothing may hang; tasks, descriptors and memory may not grow; the counters must add up. Prints a summary, and
ends with 1 where one of these does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import gc
import importlib.metadata
import logging
import random
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mcpgateway_pool import CircuitOpenError, MCPSessionPool, TransportType
from servers.process import ServerProcess
from support.leaks import descriptors, resident_mib, settle, where_is
from support.memory_trend import MemoryTrend

CALLERS = 50
USERS = 8
# The longest a call may take: an acquire (10 s), a creation (10 s), the transport (30 s), a server that
# stands still (3 s), and a machine that is very busy: what really hangs never ends.
HANG_SECONDS = 60.0
# Before a caller tries again that has met an open circuit breaker.
REFUSED_PAUSE_SECONDS = 1.0
# Quiet time of a server between two troubles.
QUIET_SECONDS = (0.5, 5.0)
# The rest are calls that a trouble or an open breaker has failed: were they more, the run would show little.
ANSWERED_SHARE = 0.5
# For a server to start, on a machine that is busy.
START_SECONDS = 120.0


class Soak:
    """One run.

    Args:
        seconds: how long.
        seed: of what happens.
    """

    def __init__(self, seconds: float, seed: int) -> None:
        self._end = time.monotonic() + seconds
        self._random = random.Random(seed)
        self._results: collections.Counter[str] = collections.Counter()
        self._events: collections.Counter[str] = collections.Counter()
        self._hanging = ""
        self._unhandled: list[dict[str, Any]] = []
        self._acquired = 0
        self._slowest = 0.0
        self._memory = MemoryTrend()
        self._most_tasks = 0

    @property
    def _goes_on(self) -> bool:
        return time.monotonic() < self._end

    async def run(self) -> list[str]:
        """Returns what is wrong."""
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self._unhandled.append(context))
        await asyncio.to_thread(int)
        start, first_descriptors = time.monotonic(), descriptors()
        with (
            ServerProcess("streamablehttp", start_timeout=START_SECONDS) as streamable,
            ServerProcess("sse", start_timeout=START_SECONDS) as sse,
        ):
            servers = (streamable, sse)
            piped = descriptors()
            pool = MCPSessionPool(
                max_sessions_per_key=3,
                session_ttl_seconds=15,
                health_check_interval_seconds=3,
                acquire_timeout_seconds=10,
                session_create_timeout_seconds=10,
                circuit_breaker_reset_seconds=0.5,
                cleanup_timeout_seconds=1,
            )
            callers = [asyncio.create_task(self._call(pool, servers, number)) for number in range(CALLERS)]
            watcher = asyncio.create_task(self._watch(start))
            troublers = [asyncio.create_task(self._trouble(server)) for server in servers]
            await asyncio.gather(*callers, *troublers)
            await watcher
            problems = await self._finish(pool, piped)
        if descriptors() > first_descriptors:
            problems.append(f"{descriptors() - first_descriptors} descriptors are left")
        self._report(time.monotonic() - start)
        return problems

    async def _call(self, pool: MCPSessionPool, servers: tuple[ServerProcess, ...], number: int) -> None:
        chance = random.Random(number)
        while self._goes_on:
            server = chance.choice(servers)
            working = asyncio.create_task(self._one_call(pool, server, chance))
            begin = time.monotonic()
            if chance.random() < 0.05:
                await asyncio.wait({working}, timeout=chance.random() * 0.2)
                working.cancel()
            done, _ = await asyncio.wait({working}, timeout=HANG_SECONDS)
            self._slowest = max(self._slowest, time.monotonic() - begin)
            if not done:
                self._results["HANGS"] += 1
                self._hanging = where_is(working)
                working.cancel()
            elif working.cancelled():
                self._results["cancelled"] += 1
            else:
                error = working.exception()
                self._results["answered" if error is None else type(error).__name__] += 1
                if error is not None:
                    # As a client that tries again would; or most calls would be refused at once, for nothing.
                    await asyncio.sleep(REFUSED_PAUSE_SECONDS if isinstance(error, CircuitOpenError) else 0.1)

    async def _one_call(self, pool: MCPSessionPool, server: ServerProcess, chance: random.Random) -> None:
        user = f"user {chance.randrange(USERS)}"
        where = (server.url, {"Authorization": user}, TransportType(server.transport))
        tool, arguments = chance.choice(
            [
                ("echo", {"text": "x"}),
                ("slow", {"seconds": chance.random() * 0.5}),
                ("fail", {}),
                ("notify", {}),
            ]
        )
        if chance.random() < 0.5:
            async with pool.session(*where, user_identity=user, gateway_id=server.transport) as pooled:
                self._acquired += 1
                await pooled.session.call_tool(tool, arguments)
            return
        pooled = await pool.acquire(*where, user_identity=user, gateway_id=server.transport)
        self._acquired += 1
        if chance.random() < 0.02:
            return  # never given back: the pool must notice
        try:
            await pooled.session.call_tool(tool, arguments)
        finally:
            await pool.release(pooled)

    async def _trouble(self, server: ServerProcess) -> None:
        while self._goes_on:
            await asyncio.sleep(self._random.uniform(*QUIET_SECONDS))
            event = self._random.choice(["kill", "stop", "freeze", "500", "garbage", "cut", "end"])
            self._events[event] += 1
            if event == "kill":
                await asyncio.to_thread(server.restart)
            elif event == "stop":
                await asyncio.to_thread(server.stop)
                await asyncio.to_thread(server.start)
            elif event == "freeze":
                server.freeze()
                await asyncio.sleep(self._random.uniform(0.1, 3.0))
                server.thaw()
            else:
                fault: dict[str, Any] = {"kind": event, "method": "tools/call", "count": 3}
                if event == "500":
                    fault.update(kind="status", status=500)
                elif server.transport == "sse":
                    fault = {"kind": "stream-cut" if event == "cut" else "stream-garbage"}
                with contextlib.suppress(OSError):
                    await asyncio.to_thread(server.fault, **fault)

    async def _watch(self, start: float) -> None:
        while self._goes_on:
            await asyncio.sleep(1.0)
            self._most_tasks = max(self._most_tasks, len(asyncio.all_tasks()))
            if len(self._memory) < 10 or len(self._memory) % 5 == 0:
                gc.collect()
            self._memory.add(time.monotonic() - start, resident_mib())

    async def _finish(self, pool: MCPSessionPool, piped: int) -> list[str]:
        """Close the pool; what is wrong."""
        problems = []
        await asyncio.wait({asyncio.create_task(pool.close_all())}, timeout=20)
        gc.collect()
        await settle(5.0)
        counts, totals = pool._counts(), pool._totals()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            problems.append(f"{len(others)} tasks are left, such as {next(iter(others))!r}")
        if descriptors() > piped:
            problems.append(f"{descriptors() - piped} connections are left")
        left = {
            name: counts[name] for name in ("waiters", "creating", "active", "idle", "checking", "closing")
        }
        if any(left.values()):
            problems.append(f"the pool still counts {left}")
        if totals["creates"] != totals["size"] + sum(totals["evictions"].values()):
            problems.append(f"creates are not size + evictions: {totals}")
        if totals["hits"] + totals["misses"] != self._acquired:
            problems.append(f"hits + misses are not the {self._acquired} answers: {totals}")
        if self._results["HANGS"]:
            problems.append(f"{self._results['HANGS']} calls hang, the last in {self._hanging}")
        share = self._results["answered"] / max(1, self._results.total() - self._results["cancelled"])
        if share < ANSWERED_SHARE:
            problems.append(f"only {100 * share:.0f} % of the calls were answered")
        if self._unhandled:
            problems.append(f"{len(self._unhandled)} exceptions nobody handled, such as {self._unhandled[0]}")
        if self._memory.excess() > 0:
            problems.append(f"memory grew by {self._memory.excess():.1f} MiB more than it may")
        self._totals = totals
        return problems

    def _report(self, seconds: float) -> None:
        totals = self._totals
        evictions = {reason: count for reason, count in totals["evictions"].items() if count}
        print(f"{seconds:.0f} s on mcp {importlib.metadata.version('mcp')}, {CALLERS} callers, two servers")
        print("trouble:   ", dict(sorted(self._events.items())))
        print("calls:     ", dict(self._results.most_common()))
        print(f"slowest:    {self._slowest:.1f} s; most tasks at once: {self._most_tasks}")
        print(f"sessions:   {totals['creates']} opened, {totals['hits']} hits, closed: {evictions}")
        print(f"memory:     {self._memory}")


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long, default 600")
    parser.add_argument("--seed", type=int, default=1, help="of what happens, default 1")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)  # the SDK logs each fault at length
    problems = asyncio.run(Soak(arguments.seconds, arguments.seed).run())
    for problem in problems:
        print("PROBLEM:", problem)
    print("failed" if problems else "passed: nothing hangs, nothing grows, the counters add up")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
