"""What callers meet when servers break: this package's pool on both generations of the MCP SDK compared with
the gateway's own pool, and what opening and keeping a session costs. Prints tables in Markdown.

Every fault of ``tests/support/fault_cases.py`` runs in a process of its own, so that what hangs there
disturbs nothing else. A call that has no end in ``LIMIT_SECONDS`` counts as hanging. Takes some minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.metadata
import json
import logging
import statistics
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# Not the checkout itself, which would come before the installed package.
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

import peer
import sides
from real import open_sessions

from servers.process import ServerProcess
from support.fault_cases import FAULTS, Hangs, Stage, bounded

LIMIT_SECONDS = 10.0
WORKER_SECONDS = 240.0
TRANSPORTS = ("streamablehttp", "sse")


# ---- in the process of one fault


def pool_of(side: str, **settings: Any) -> tuple[Any, Any]:
    """A pool of that side, and its class of transports."""
    if side == "peer":
        from mcpgateway.services.mcp_session_pool import MCPSessionPool, TransportType
    else:
        from mcpgateway_pool import MCPSessionPool, TransportType
        from mcpgateway_pool.upstream import sdk

        sdk.generation()  # imports the SDK, as the peer has done by now
    return MCPSessionPool(**settings), TransportType


async def one_fault(side: str, transport: Any, name: str) -> dict[str, Any]:
    """Run a fault and say what came of it."""
    fault = FAULTS[name]
    with ServerProcess(transport) as server:
        pool, transports = pool_of(
            side, max_sessions_per_key=fault.limit, circuit_breaker_threshold=1000, acquire_timeout_seconds=5
        )
        stage = Stage(server, pool, transports(transport), "bare" if side == "peer" else "session")
        stage.limit = LIMIT_SECONDS
        result: dict[str, Any] = {"sdk": importlib.metadata.version("mcp"), "hangs": 0}
        try:
            await fault.strike(stage)
        except (AttributeError, RuntimeError) as error:
            missing = error.__cause__ or error
            if not isinstance(missing, AttributeError):
                raise
            return {**result, "missing": str(missing)}
        except Hangs as error:
            result["close"] = str(error)
        calls = list(stage.calls)
        failures = [call for call in calls if call.error is not None]
        result["calls"], result["failed"] = len(calls), len(failures)
        result["hangs"] = sum(isinstance(call.error, Hangs) for call in failures)
        result["errors"] = Counter(type(call.error).__name__ for call in failures)
        result["seconds"] = max((call.seconds for call in failures), default=0.0)
        if not fault.closes:
            result["next"] = (await stage.call()).error is None
        if not fault.kills:
            result["sessions"] = (await stage.threaded(server.stats))["sessions_opened"]
        try:
            await bounded(pool.close_all(), 30)
        except Hangs as error:
            result["close"] = str(error)
        gc.collect()
        result["left"] = await streams_left(stage)
    return result


async def streams_left(stage: Stage) -> int:
    """Sessions that the server still has after the pool was closed."""
    try:
        await stage.threaded(stage.server.wait_for, lambda stats: stats["open_streams"] == 0, 3.0)
    except (TimeoutError, OSError):
        stats = await stage.threaded(stage.server.stats)
        return int(stats["open_streams"])
    return 0


async def cost(is_shared: bool, count: int) -> dict[str, Any]:
    """Milliseconds to open a session, those of them that this process computed, and KiB that an idle one
    takes, with the default client factory or with one that leaves TLS to each client.
    """
    from mcpgateway_pool.upstream import sdk

    def own_context(headers: Any = None, timeout: Any = None, auth: Any = None) -> Any:
        return sdk.http_library().AsyncClient(
            headers=headers, timeout=timeout, auth=auth, follow_redirects=sdk.follows_redirects()
        )

    found = await open_sessions(sides.load("project"), count, None if is_shared else own_context)
    return {
        "sdk": importlib.metadata.version("mcp"),
        "ms": 1000 * found.seconds,
        "cpu_ms": 1000 * found.cpu_seconds,
        "kib": found.resident / 1024,
    }


# ---- the table


def worker(python: str, *arguments: str) -> dict[str, Any]:
    """What a process of its own says."""
    command = [python, "-P", str(HERE / "faults.py"), "--worker", *arguments]
    try:
        finished = subprocess.run(
            command, capture_output=True, text=True, timeout=WORKER_SECONDS, check=False, cwd=HERE
        )
        result: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {"broken": f"its process did not end in {WORKER_SECONDS:g} s"}
    except (ValueError, IndexError):
        return {"broken": finished.stderr.strip()[-200:]}
    return result


def cell(result: dict[str, Any]) -> str:
    """A result in a few words."""
    if "broken" in result:
        return f"? ({result['broken']})"
    if "missing" in result:
        return "–"
    parts = []
    if result["hangs"]:
        parts.append(f"**{result['hangs']} of {result['calls']} hang**")
    failed = result["failed"] - result["hangs"]
    if failed:
        named = ", ".join(name for name in result["errors"] if name != "Hangs")
        seconds = "" if result["hangs"] else f" in {result['seconds']:.2f} s"
        parts.append(f"{failed} of {result['calls']} failed{seconds} ({named})")
    if not result["failed"]:
        parts.append("none failed")
    if "close" in result:
        parts.append(f"**close: {result['close']}**")
    parts.append(f"**{result['left']} open**" if result["left"] else "0 open")
    if "next" in result:
        parts.append("next works" if result["next"] else "**next fails**")
    if "sessions" in result:
        parts.append(f"{result['sessions']} opened in all")
    return "; ".join(parts)


def fault_table(sides: list[tuple[str, str, str]], only: str, jobs: int) -> None:
    """Sides are (title, side, interpreter)."""
    names = [name for name in FAULTS if only in name]
    with ThreadPoolExecutor(jobs) as executor:
        results = {
            (title, transport, name): executor.submit(worker, python, side, transport, name)
            for transport in TRANSPORTS
            for name in names
            for title, side, python in sides
        }
        for transport in TRANSPORTS:
            print(f"\n**{'Streamable HTTP' if transport == 'streamablehttp' else 'SSE'}**\n")
            print("| what happens | " + " | ".join(title for title, _, _ in sides) + " |")
            print("|---" * (len(sides) + 1) + "|")
            for name in names:
                cells = [cell(results[title, transport, name].result()) for title, _, _ in sides]
                print(f"| {FAULTS[name].title} | " + " | ".join(cells) + " |", flush=True)


def cost_table(pythons: list[str], rounds: int, count: int) -> None:
    """Shared TLS contexts compared with one per session, taking turns."""
    print("\n| SDK | | shared TLS context | one per session | ratio |\n|---|---|---|---|---|")
    for python in pythons:
        both: dict[str, list[dict[str, Any]]] = {"shared": [], "own": []}
        for _ in range(rounds):
            for kind, results in both.items():
                results.append(worker(python, "cost", kind, str(count)))
        for unit, what in (
            ("ms", "opening, ms"),
            ("cpu_ms", "opening, ms of CPU in the client"),
            ("kib", "idle session, KiB"),
        ):
            shared, own = (statistics.median(result[unit] for result in both[kind]) for kind in both)
            version = both["shared"][0]["sdk"]
            print(f"| {version} | {what} | {shared:.1f} | {own:.1f} | {own / shared:.1f} |", flush=True)


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", help="an interpreter that has the peer, instead of .venv-peer")
    parser.add_argument("--sdk2-python", help="one that has this package and the MCP SDK 2.x")
    parser.add_argument("--only", default="", help="only the faults whose name contains this")
    parser.add_argument("--what", choices=("all", "faults", "cost"), default="all")
    parser.add_argument("--jobs", type=int, default=1, help="faults at once, default 1")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        logging.disable(logging.CRITICAL)
        first, second, third = arguments.worker
        work = cost(second == "shared", int(third)) if first == "cost" else one_fault(first, second, third)
        print(json.dumps(asyncio.run(work)), flush=True)
        return 0
    pythons = [sys.executable]
    if arguments.sdk2_python:
        # Absolute, because workers run in another folder; not resolved, or it would leave its environment.
        pythons.append(str(Path(arguments.sdk2_python).absolute()))
    if arguments.what != "cost":
        try:
            peer_python = arguments.peer_python or str(peer.ensure_environment(HERE.parent / ".venv-peer"))
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
        sides = [(f"project, SDK {number}.x", "project", python) for number, python in enumerate(pythons, 1)]
        sides.append(("stock pool of 1.0.0rc1", "peer", peer_python))
        fault_table(sides, arguments.only, arguments.jobs)
    if arguments.what != "faults":
        cost_table(pythons, rounds=5, count=40)
    return 0


if __name__ == "__main__":
    sys.exit(main())
