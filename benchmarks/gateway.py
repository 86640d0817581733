"""Tool calls through the real gateway: its own pool, ours, and no pool, in one run and in turns.

Needs an environment with the gateway and this package installed; one command, one table. A call that fails
counts with the time until its error. The gateway's own pool lets callers wait 30 s for nothing where there
are more of them than sessions, so those levels take minutes: all of the default ones about ten. Times hold
for this machine and this moment only: quote ratios.

    python -P benchmarks/gateway.py --concurrency 1 16 --calls 100
"""

from __future__ import annotations

import argparse
import http.client
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

import tables

from servers.process import ServerProcess
from support.gateway_process import SWITCH, Answer, GatewayProcess, failures

SIDES = {
    "own pool": {},
    "our pool": SWITCH,
    "no pool": {"MCP_SESSION_POOL_ENABLED": "false"},
}
WARM_UP_CALLS = 40
TITLES = ["at a time", "pool", "calls", "failed", "p50", "p95", "p99", "max", "p50 ratio", "p99 ratio"]
TITLES += ["answered/s", "CPU/call"]


class Gateway(GatewayProcess):
    """A gateway whose connections may break under load: such a call has failed, too."""

    def call(
        self, server: str, tool: str, /, headers: Mapping[str, str] | None = None, **arguments: object
    ) -> Answer:
        """Call a tool of a registered server."""
        begin = time.perf_counter()
        try:
            return super().call(server, tool, headers=headers, **arguments)
        except (OSError, http.client.HTTPException) as error:
            return Answer(0, {"connection": repr(error)}, time.perf_counter() - begin)


@dataclass
class Level:
    """What one side did with one concurrency, all rounds together."""

    seconds: list[float] = field(default_factory=list)  # of each call, sorted
    failed: int = 0
    elapsed_seconds: float = 0.0
    cpu_seconds: float = 0.0  # of the gateway's process

    def percentile(self, percent: float) -> float:
        """The time that so many per cent of the calls do not exceed."""
        return self.seconds[min(len(self.seconds) - 1, int(len(self.seconds) * percent / 100))]

    def add(self, gateway: GatewayProcess, calls: int, concurrency: int) -> None:
        """Make the calls, as many at a time."""
        cpu = cpu_seconds(gateway.pid)
        begin = time.perf_counter()
        answers = gateway.call_many(calls, concurrency, "server", "echo", text="hello")
        self.elapsed_seconds += time.perf_counter() - begin
        self.cpu_seconds += cpu_seconds(gateway.pid) - cpu
        self.seconds = sorted([*self.seconds, *(answer.seconds for answer in answers)])
        self.failed += len(failures(answers))

    def summary(self) -> dict[str, float]:
        """Its figures; times in seconds."""
        calls = len(self.seconds)
        return {
            "calls": calls,
            "failed": self.failed,
            **{f"p{percent}": self.percentile(percent) for percent in (50, 95, 99)},
            "max": self.seconds[-1],
            "answered_per_second": (calls - self.failed) / self.elapsed_seconds,
            "cpu_seconds_per_call": self.cpu_seconds / calls,
        }


def cpu_seconds(pid: int) -> float:
    """What a process has used of the processors so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def lines(concurrency: int, found: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """One for each side; ratios are to the first."""
    first = next(iter(found.values()))
    return [
        [
            str(concurrency),
            side,
            f"{level['calls']:.0f}",
            f"{level['failed']:.0f}",
            *(f"{level[name] * 1e3:,.0f} ms" for name in ("p50", "p95", "p99", "max")),
            *(f"{level[name] / first[name]:.2f}" for name in ("p50", "p99")),
            f"{level['answered_per_second']:.1f}",
            f"{level['cpu_seconds_per_call'] * 1e3:.0f} ms",
        ]
        for side, level in found.items()
    ]


def measure(arguments: argparse.Namespace) -> dict[int, dict[str, dict[str, float]]]:
    """Start everything, measure every level, stop everything; figures by concurrency and side."""
    results: dict[int, dict[str, dict[str, float]]] = {}
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="bench-gateway-")))
        server = running.enter_context(ServerProcess(arguments.transport))
        gateways: dict[str, GatewayProcess] = {}
        for side in arguments.sides:
            gateway = Gateway(folder / side.replace(" ", "-"), environment=SIDES[side])
            gateways[side] = running.enter_context(gateway)
            gateway.register("server", server.url, arguments.transport.upper())
            Level().add(gateway, WARM_UP_CALLS, 4)
        for concurrency in arguments.concurrency:
            levels = {side: Level() for side in gateways}
            calls = max(arguments.calls, 2 * concurrency)
            for number in range(arguments.rounds):
                for side, gateway in gateways.items():
                    begin = time.monotonic()
                    levels[side].add(gateway, calls, concurrency)
                    print(
                        f"... {concurrency} at a time, {side}, round {number + 1}: {calls} calls in "
                        f"{time.monotonic() - begin:.0f} s",
                        file=sys.stderr,
                        flush=True,
                    )
            results[concurrency] = {side: level.summary() for side, level in levels.items()}
    return results


def parse_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    levels = [1, 4, 16, 64, 256]
    parser.add_argument("--concurrency", type=int, nargs="+", default=levels, help="calls at a time")
    parser.add_argument(
        "--calls",
        type=int,
        default=200,
        help="calls per side, concurrency and round, default 200; at least twice the concurrency",
    )
    parser.add_argument("--rounds", type=int, default=2, help="default 2")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--transport", choices=("streamablehttp", "sse"), default="streamablehttp")
    parser.add_argument("--markdown", action="store_true", help="print the table in Markdown")
    parser.add_argument("--docs", action="store_true", help="put it into docs/performance.md, too")
    parser.add_argument("--json", type=Path, help="write the figures into this file, for plots.py")
    return parser.parse_args(given)


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments()
    begin, load = time.monotonic(), os.getloadavg()[0]
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
        f"ContextForge {about['gateway']}, Python {about['python']}, {arguments.transport}; the pools' limit "
        f"is 10 sessions; rounds: {arguments.rounds}, taken together; ratios to the first side."
    )
    foot = (
        f"{time.monotonic() - begin:.0f} s, {about['processors']} processors, "
        f"load {about['load'][0]} before and {about['load'][1]} after."
    )
    rows = [TITLES, *(line for concurrency, found in results.items() for line in lines(concurrency, found))]
    show = tables.markdown if arguments.markdown else tables.plain
    print(f"{head}\n\n{show(rows)}\n\n{foot}")
    if arguments.docs:
        tables.put_into_page("gateway", f"{head}\n\n{tables.markdown(rows)}\n\n{foot}")


if __name__ == "__main__":
    main()
