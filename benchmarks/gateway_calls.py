"""Tool calls through a gateway of 1.0.0 or later in its default configuration, without this package and with
it, in one run and in turns: calls at a time by how far away the server is.

One command, one table. The server knows revisions of the protocol before 2026-07-28, as most do; those have
sessions. Times hold for this machine and this moment only: quote ratios.

    python -P benchmarks/gateway_calls.py --concurrency 1 8 --away 0 50 --calls 60
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests"), str(HERE.parent / "examples")]

import tables
from demo_servers import DemoServer

from gateway import Gateway, cpu_seconds
from support.gateway_process import SWITCH, GatewayProcess, failures

SIDES = {"without": {}, "with": SWITCH}
SETTINGS = {"HEALTH_CHECK_INTERVAL": "3600"}
WARM_UP_CALLS = 16
TITLES = [
    "server away",
    "at a time",
    "",
    "calls",
    "failed",
    "requests/call",
    "p50",
    "p99",
    "calls/s",
    "CPU/call",
]
TITLES += ["calls/s ratio", "CPU ratio"]


@dataclass
class Level:
    """What one side did with one server and one concurrency, all rounds together."""

    seconds: list[float] = field(default_factory=list)
    failed: int = 0
    elapsed_seconds: float = 0.0
    cpu_seconds: float = 0.0
    requests: int = 0

    def add(self, gateway: GatewayProcess, server: DemoServer, calls: int, concurrency: int) -> None:
        """Make the calls, as many at a time."""
        requests, cpu, begin = server.requests(), cpu_seconds(gateway.pid), time.perf_counter()
        answers = gateway.call_many(calls, concurrency, server.name, "look_up", word="pool")
        self.elapsed_seconds += time.perf_counter() - begin
        self.cpu_seconds += cpu_seconds(gateway.pid) - cpu
        self.requests += server.requests() - requests
        self.seconds = sorted([*self.seconds, *(answer.seconds for answer in answers)])
        self.failed += len(failures(answers))

    def summary(self) -> dict[str, float]:
        """Its figures; times in seconds."""
        calls = len(self.seconds)
        return {
            "calls": calls,
            "failed": self.failed,
            "requests_per_call": self.requests / calls,
            "p50": self.seconds[calls // 2],
            "p99": self.seconds[min(calls - 1, calls * 99 // 100)],
            "calls_per_second": (calls - self.failed) / self.elapsed_seconds,
            "cpu_seconds_per_call": self.cpu_seconds / calls,
        }


Results = dict[str, dict[str, dict[str, dict[str, float]]]]
"""Figures by milliseconds away, calls at a time, and side."""


def lines(results: Results) -> list[list[str]]:
    """One for each side."""
    return [
        [
            f"{away} ms",
            concurrency,
            side,
            f"{level['calls']:.0f}",
            f"{level['failed']:.0f}",
            f"{level['requests_per_call']:.1f}",
            f"{level['p50'] * 1e3:,.0f} ms",
            f"{level['p99'] * 1e3:,.0f} ms",
            f"{level['calls_per_second']:.1f}",
            f"{level['cpu_seconds_per_call'] * 1e3:.0f} ms",
            f"{level['calls_per_second'] / sides['without']['calls_per_second']:.2f}",
            f"{level['cpu_seconds_per_call'] / sides['without']['cpu_seconds_per_call']:.2f}",
        ]
        for away, levels in results.items()
        for concurrency, sides in levels.items()
        for side, level in sides.items()
    ]


def measure(arguments: argparse.Namespace) -> Results:
    """Start everything, measure every level, stop everything."""
    results: Results = {}
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="bench-gateway-")))
        servers = {
            away: DemoServer(f"away-{away}", arguments.transport, away / 1000, is_old=True)
            for away in arguments.away
        }
        for server in servers.values():
            running.callback(server.kill)
            server.start()
        gateways: dict[str, Gateway] = {}
        for side, switch in SIDES.items():
            gateway = Gateway(folder / side, environment={**SETTINGS, **switch})
            gateways[side] = running.enter_context(gateway)
            for server in servers.values():
                gateway.register(server.name, server.url, arguments.transport.upper())
        for away, server in servers.items():
            for concurrency in arguments.concurrency:
                levels = {side: Level() for side in gateways}
                for gateway in gateways.values():  # so many at a time open sessions of their own first
                    Level().add(gateway, server, max(WARM_UP_CALLS, 2 * concurrency), concurrency)
                for number in range(arguments.rounds):
                    for side, gateway in gateways.items():
                        calls = max(arguments.calls, 2 * concurrency)
                        levels[side].add(gateway, server, calls, concurrency)
                    print(f"... {away} ms away, {concurrency} at a time, round {number + 1}", file=sys.stderr)
                found = {side: level.summary() for side, level in levels.items()}
                results.setdefault(str(away), {})[str(concurrency)] = found
    return results


def parse_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 64], help="calls at a time")
    parser.add_argument("--away", type=int, nargs="+", default=[0, 50, 200], help="milliseconds")
    parser.add_argument("--calls", type=int, default=80, help="calls per side, level and round, default 80")
    parser.add_argument("--rounds", type=int, default=3, help="default 3")
    parser.add_argument("--transport", choices=("streamablehttp", "sse"), default="streamablehttp")
    parser.add_argument("--docs", action="store_true", help="put the table into docs/performance.md, too")
    parser.add_argument("--json", type=Path, help="write the figures into this file, for plots.py")
    return parser.parse_args(given)


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments()
    load = os.getloadavg()[0]
    results = measure(arguments)
    about: dict[str, Any] = {
        "gateway": importlib.metadata.version("mcp-contextforge-gateway"),
        "python": platform.python_version(),
        "transport": arguments.transport,
        "rounds": arguments.rounds,
        "processors": os.cpu_count(),
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
    }
    if arguments.json:
        arguments.json.parent.mkdir(exist_ok=True)
        arguments.json.write_text(json.dumps({"about": about, "levels": results}, indent=1) + "\n")
    head = (
        f"ContextForge {about['gateway']}, Python {about['python']}, {about['transport']}, default"
        f" configuration, {about['processors']} processors; without this package and with it, by turns,"
        f" rounds: {about['rounds']}."
    )
    rows = [TITLES, *lines(results)]
    print(f"{head}\n\n{tables.plain(rows)}\n\nload {load:.1f} before, {about['load'][1]} after")
    if arguments.docs:
        tables.put_into_page("gateway-calls", f"{head}\n\n{tables.markdown(rows)}")


if __name__ == "__main__":
    main()
