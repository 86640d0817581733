"""The pool at work: two real MCP servers, a few hundred tool calls, the series as Prometheus would see them.

Prints a summary, and checks that every number in it adds up; the exit code is 0 only then. ``--keep`` goes
on serving ``/metrics``, with light traffic, until Ctrl-C. Everything stays on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import statistics
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcp import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from prometheus_client import start_http_server
from prometheus_client.parser import text_string_to_metric_families

from mcpgateway_pool import MCPSessionPool, TransportType, register_collector

sys.path.insert(0, str(Path(__file__).resolve().parent))
from demo_servers import DemoServer

USERS = ("alice", "bob", "carol")
SESSIONS_PER_KEY = 3
CALLERS_PER_KEY = 8
CALLS_PER_CALLER = 6
DISCARD_EVERY = 30
COMPARED_CALLERS = 4
CALLS_WITHOUT_POOL = 6  # for each of these callers
CALLS_WITH_POOL = 16

THE_SIX = (
    "mcp_session_pool_hits_total",
    "mcp_session_pool_misses_total",
    "mcp_session_pool_evictions_total",
    "mcp_session_pool_health_check_failures_total",
    "mcp_session_pool_active_sessions",
    "mcp_session_pool_size",
)

Samples = dict[tuple[str, str, str], float]  # by name, gateway id, reason


class Server(DemoServer):
    """A server, and the gateway id under which it is called: its name."""

    def __init__(self, gateway_id: str, transport_type: TransportType) -> None:
        super().__init__(gateway_id, transport_type.value)
        self.gateway_id = gateway_id
        self.transport_type = transport_type


@dataclass
class Traffic:
    """What the callers saw, to be compared with what the pool counted."""

    sent: int = 0
    answered: int = 0
    discarded: int = 0
    failures: list[str] = field(default_factory=list)
    acquired: Counter[str] = field(default_factory=Counter)  # by gateway id
    seconds: list[float] = field(default_factory=list)

    async def call(
        self,
        pool: MCPSessionPool,
        server: Server,
        user: str,
        tool: str = "look_up",
        arguments: dict[str, Any] | None = None,
    ) -> None:
        """One tool call through the pool."""
        self.sent += 1
        discard = tool == "look_up" and self.sent % DISCARD_EVERY == 0
        start = time.perf_counter()
        try:
            async with pool.session(
                server.url,
                {"Authorization": f"Bearer token-of-{user}"},
                server.transport_type,
                user_identity=user,
                gateway_id=server.gateway_id,
            ) as pooled:
                self.acquired[server.gateway_id] += 1
                await pooled.session.call_tool(tool, arguments or {"word": "pool"})
                if discard:
                    self.discarded += 1
                    await pool.release(pooled, discard=True)
        except Exception as error:  # whatever it is, the summary shows it
            self.failures.append(f"{type(error).__name__}: {error}")
        else:
            self.answered += 1
            self.seconds.append(time.perf_counter() - start)


async def main_traffic(pool: MCPSessionPool, servers: list[Server], traffic: Traffic, rounds: int) -> None:
    """Every user on every gateway, with more callers than there may be sessions."""

    async def caller(server: Server, user: str) -> None:
        for _ in range(rounds):
            await traffic.call(pool, server, user)

    async with asyncio.TaskGroup() as group:
        for server in servers:
            for user in USERS:
                for _ in range(CALLERS_PER_KEY):
                    group.create_task(caller(server, user))


async def restart(pool: MCPSessionPool, server: Server, traffic: Traffic) -> float:
    """Kill the server while each user has one call in flight, and start it again.

    Returns:
        How long after the kill the last of these calls had failed, in seconds.
    """
    slow = [
        asyncio.create_task(traffic.call(pool, server, user, "slow", {"seconds": 30.0})) for user in USERS
    ]
    await asyncio.sleep(0.3)
    killed = time.perf_counter()
    server.kill()
    await asyncio.wait(slow)
    failed_after = time.perf_counter() - killed
    await asyncio.to_thread(server.start)
    return failed_after


@contextlib.asynccontextmanager
async def new_session(server: Server, user: str) -> AsyncIterator[ClientSession]:
    """A session for one call, without the pool: as the SDK's documentation does it."""
    headers = {"Authorization": f"Bearer token-of-{user}"}
    if server.transport_type is TransportType.SSE:
        async with (
            sse_client(server.url, headers=headers) as (read, write),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            yield session
        return
    from mcp.shared._httpx_utils import create_mcp_http_client

    async with (
        create_mcp_http_client(headers=headers) as client,
        streamable_http_client(server.url, http_client=client) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        yield session


async def without_pool(server: Server) -> list[float]:
    """The latencies of calls that open a session each."""
    seconds: list[float] = []

    async def caller(user: str) -> None:
        for _ in range(CALLS_WITHOUT_POOL):
            start = time.perf_counter()
            async with new_session(server, user) as session:
                await session.call_tool("look_up", {"word": "pool"})
            seconds.append(time.perf_counter() - start)

    async with asyncio.TaskGroup() as group:
        for index in range(COMPARED_CALLERS):
            group.create_task(caller(USERS[index % len(USERS)]))
    return seconds


async def with_pool(pool: MCPSessionPool, server: Server, traffic: Traffic) -> list[float]:
    """The latencies of the same calls through the pool."""
    before = len(traffic.seconds)

    async def caller(user: str) -> None:
        for _ in range(CALLS_WITH_POOL):
            await traffic.call(pool, server, user)

    async with asyncio.TaskGroup() as group:
        for index in range(COMPARED_CALLERS):
            group.create_task(caller(USERS[index % len(USERS)]))
    return traffic.seconds[before:]


# ---- the series, as Prometheus would get them


def scrape(url: str) -> Samples:
    # No proxies: the environment may name one, and this is 127.0.0.1.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as response:
        text = response.read().decode()
    return {
        (sample.name, sample.labels.get("gateway_id", ""), sample.labels.get("reason", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("mcp_session_pool_")
    }


def problems(samples: Samples, traffic: Traffic, servers: list[Server]) -> list[str]:
    """What does not add up; empty when all does."""

    def value(stem: str, gateway_id: str, reason: str = "") -> float:
        return samples[f"mcp_session_pool_{stem}", gateway_id, reason]

    def evictions(gateway_id: str, *reasons: str) -> float:
        return sum(
            number
            for (name, gateway, reason), number in samples.items()
            if name == "mcp_session_pool_evictions_total"
            and gateway == gateway_id
            and (not reasons or reason in reasons)
        )

    gateways = [server.gateway_id for server in servers]
    claims = [
        ("calls sent = answered + failed", traffic.sent, traffic.answered + len(traffic.failures)),
        ("failures = calls in flight at the restart", len(traffic.failures), len(USERS)),
        (
            "evictions as manual = discards",
            sum(evictions(name, "manual") for name in gateways),
            traffic.discarded,
        ),
        (
            "evictions as broken = failures",
            sum(evictions(name, "broken") for name in gateways),
            len(traffic.failures),
        ),
    ]
    for name in gateways:
        claims += [
            (
                f"{name}: hits + misses = acquires answered",
                value("hits_total", name) + value("misses_total", name),
                traffic.acquired[name],
            ),
            (f"{name}: active = 0 at the end", value("active_sessions", name), 0),
            (
                f"{name}: size = active + idle",
                value("size", name),
                value("active_sessions", name) + value("idle_sessions", name),
            ),
            (
                f"{name}: sessions created = open + evicted",
                value("creates_total", name),
                value("size", name) + evictions(name),
            ),
        ]
    return [f"{claim}: {left:g} is not {right:g}" for claim, left, right in claims if left != right]


# ---- what is printed


def milliseconds(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    return f"{statistics.median(ordered) * 1000:8.1f} ms {p99 * 1000:8.1f} ms"


def print_series(samples: Samples, servers: list[Server]) -> None:
    names = [server.gateway_id for server in servers]
    rows: list[list[str]] = []
    for series in THE_SIX:
        reasons = sorted({reason for name, _, reason in samples if name == series})
        for reason in reasons:
            label = f'{series}{{reason="{reason}"}}' if reason else series
            rows.append([label, *(f"{samples[series, name, reason]:g}" for name in names)])
    width = max(len(row[0]) for row in rows)
    for label, *numbers in [["", *names], *rows]:
        print(f"  {label:<{width}}" + "".join(f"{number:>10}" for number in numbers))


def print_summary(
    traffic: Traffic,
    failed_after: float,
    busy: Samples,
    latencies: dict[str, tuple[list[float], list[float]]],
) -> None:
    failures = Counter(traffic.failures)
    print(
        f"calls            {traffic.sent} sent, {traffic.answered} answered, {len(traffic.failures)} failed"
    )
    for failure, count in failures.items():
        print(f"  {count} x {failure}")
    print(
        f"  These were in flight when their server was killed; all had failed {failed_after * 1000:.0f} ms "
        "later.\n  It was started again, and no other call failed."
    )
    active = sum(
        number for (name, _, _), number in busy.items() if name == "mcp_session_pool_active_sessions"
    )
    waiting = sum(number for (name, _, _), number in busy.items() if name == "mcp_session_pool_waiters")
    print(f"in the middle    {active:g} sessions in use, {waiting:g} callers waiting for one\n")
    print(f"latency of a call, {COMPARED_CALLERS} callers                     median         p99")
    for name, (alone, pooled) in latencies.items():
        print(f"  {name:<9} a session for each call  {milliseconds(alone)}  ({len(alone)} calls)")
        print(f"  {name:<9} through the pool         {milliseconds(pooled)}  ({len(pooled)} calls)")


# ---- the whole


async def keep_serving(pool: MCPSessionPool, servers: list[Server], url: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    # Printed last: who reads it may send the signal at once.
    print("\nGoing on with light traffic until Ctrl-C.")
    for server in servers:
        print(f"  server  {server.url}  ({server.transport})")
    print(f"  series  {url}", flush=True)
    traffic = Traffic()
    while not stop.is_set():
        await main_traffic(pool, servers, traffic, rounds=1)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 1.0)
    print(f"\n{traffic.sent} more calls, {len(traffic.failures)} failed")
    for failure, count in Counter(traffic.failures).items():
        print(f"  {count} x {failure}")


async def demo(metrics_url: str, servers: list[Server], *, keep: bool) -> int:
    await asyncio.gather(*(asyncio.to_thread(server.start) for server in servers))
    traffic = Traffic()
    async with MCPSessionPool(max_sessions_per_key=SESSIONS_PER_KEY) as pool:
        print(
            f"{len(USERS)} users on {len(servers)} gateways, {CALLERS_PER_KEY} callers for each pair, "
            f"at most {SESSIONS_PER_KEY} sessions for each\n"
        )
        half = CALLS_PER_CALLER // 2
        first_half = asyncio.create_task(main_traffic(pool, servers, traffic, half))
        while traffic.answered < CALLERS_PER_KEY * len(USERS) and not first_half.done():
            await asyncio.sleep(0.001)
        busy = await asyncio.to_thread(scrape, metrics_url)
        await first_half
        failed_after = await restart(pool, servers[0], traffic)
        await main_traffic(pool, servers, traffic, CALLS_PER_CALLER - half)
        latencies = {
            server.gateway_id: (await without_pool(server), await with_pool(pool, server, traffic))
            for server in servers
        }
        samples = await asyncio.to_thread(scrape, metrics_url)

        print_summary(traffic, failed_after, busy, latencies)
        print("\nthe six series, as scraped over HTTP; by gateway_id:")
        print_series(samples, servers)
        wrong = problems(samples, traffic, servers)
        for problem in wrong:
            print(f"DOES NOT ADD UP  {problem}")
        if not wrong:
            print("\nEvery number adds up: with what the callers saw, and with each other.")
        if keep:
            await keep_serving(pool, servers, metrics_url)
        else:
            print(
                f"They were at {metrics_url}; `make demo-lite KEEP=1` goes on serving. "
                "Meaning: docs/metrics.md"
            )
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="go on serving until Ctrl-C")
    keep = parser.parse_args().keep
    # The SDK logs the killed server's connections with tracebacks; the summary says what happened.
    logging.getLogger("mcp").setLevel(logging.CRITICAL)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    servers = [
        Server("search", TransportType.STREAMABLE_HTTP),
        Server("weather", TransportType.SSE),
    ]
    register_collector()
    endpoint, thread = start_http_server(0, addr="127.0.0.1")
    try:
        return asyncio.run(demo(f"http://127.0.0.1:{endpoint.server_port}/metrics", servers, keep=keep))
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        print(f"the demo failed: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    finally:
        for server in servers:
            server.kill()
        endpoint.shutdown()
        thread.join()
        endpoint.server_close()


if __name__ == "__main__":
    sys.exit(main())
