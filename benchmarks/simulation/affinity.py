"""What session affinity asks of Redis, call by call: commands, round trips in time, and bytes it keeps there.

    .venv/bin/python -P benchmarks/simulation/affinity.py

Two workers, without a gateway, share a real Redis on a Unix socket; the owner executes at once. Commands are
what Redis itself counted. Times hold for this machine and moment; quote
their ratio to a PING by the same client. Needs redis-server and the package `redis`.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from servers import redis_process
from support.affinity_workers import Worker

CALLS = 320
AT_ONCE = 16
URL = "https://server-1.example.com/mcp"

Operation = Callable[[str], Awaitable[Any]]


async def commands_of(worker: Worker) -> dict[str, int]:
    """How often Redis has executed each command, those inside its scripts included."""
    statistics = await worker.client.info("commandstats")
    counts = {name.removeprefix("cmdstat_"): int(of["calls"]) for name, of in statistics.items()}
    return {name: count for name, count in counts.items() if name not in ("info", "ping", "client|setinfo")}


async def measure(
    worker: Worker, sessions: list[str], operation: Operation, at_once: int
) -> tuple[dict[str, float], float]:
    """Commands for one call, by name, and the median of its seconds: its share of those at once."""
    before = await commands_of(worker)
    seconds = []
    for first in range(0, len(sessions), at_once):
        start = time.perf_counter()
        await asyncio.gather(*(operation(session) for session in sessions[first : first + at_once]))
        seconds.append((time.perf_counter() - start) / at_once)
    after = await commands_of(worker)
    counts = {name: round((count - before.get(name, 0)) / len(sessions), 1) for name, count in after.items()}
    return {name: count for name, count in counts.items() if count > 0}, median(seconds)


async def bytes_of(worker: Worker, session: str) -> int:
    """What Redis keeps for one session: the keys of its mapping and of its owner."""
    keys = [key async for key in worker.client.scan_iter(f"*{session}*")]
    sizes = [await worker.client.memory_usage(key) for key in keys]
    return sum(int(size) for size in sizes)


async def run(url: str) -> None:
    sessions = [f"session-{number:024d}" for number in range(CALLS)]
    async with Worker(url, "host:1") as owner, Worker(url, "host:2") as other:
        await owner.listen()
        await other.listen()

        async def register(session: str) -> None:
            await owner.affinity.register_session_mapping(
                session, URL, "gateway-1", "streamablehttp", "user@example.com"
            )

        async def look_up(session: str) -> None:
            await owner.affinity.look_up_session_mapping(
                session, URL, "gateway-1", "streamablehttp", "user@example.com"
            )

        async def look_up_elsewhere(session: str) -> None:
            await other.affinity.look_up_session_mapping(
                session, URL, "gateway-1", "streamablehttp", "user@example.com"
            )

        async def ping(_: str) -> None:
            await owner.client.ping()

        rows: list[tuple[str, Worker, Operation]] = [
            ("PING, for comparison", owner, ping),
            ("first call of a session: mapping written, session claimed", owner, register),
            ("a later call: the same, refreshed", owner, register),
            ("look up a mapping that this worker knows", owner, look_up),
            ("look up one that another worker wrote, first time", other, look_up_elsewhere),
            ("find the owner, who asks", owner, owner.affinity.get_streamable_http_session_owner),
            ("find the owner, another worker", other, other.affinity.get_streamable_http_session_owner),
            ("may this worker create a session", owner, owner.affinity.may_create_session),
            ("keep the ownership after a call", owner, owner.affinity.register_pool_session_owner),
            ("route a call, by the owner: executed here", owner, owner.forward),
            ("route a call, by another worker: there and back", other, other.forward),
            (f"the same, {AT_ONCE} at once, for each", other, other.forward),
        ]
        print("| what | commands | which | times a PING |\n| --- | --: | --- | --: |")
        ping_seconds = 0.0
        for what, worker, operation in rows:
            counts, seconds = await measure(worker, sessions, operation, AT_ONCE if "at once" in what else 1)
            ping_seconds = ping_seconds or seconds
            # A script is one command of the client, what it calls another one of the server.
            which = ", ".join(f"{name} {count:g}" for name, count in sorted(counts.items()))
            print(f"| {what} | {sum(counts.values()):g} | {which} | {seconds / ping_seconds:.1f} |")
        print(f"\nRedis keeps {await bytes_of(owner, sessions[0])} bytes for a session, in two keys.")
        print(f"A PING took {ping_seconds * 1e6:.0f} µs.")


def main() -> int:
    if redis_process.EXECUTABLE is None:
        print("redis-server is not on PATH: what affinity asks of Redis was NOT measured", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder, redis_process.RedisProcess(Path(folder)) as server:
        asyncio.run(run(server.url))
    return 0


if __name__ == "__main__":
    sys.exit(main())
