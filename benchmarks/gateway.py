"""Tool calls through the real gateway: its own pool, ours, and no pool, in one run and in turns.

Needs an environment with the gateway and this package installed; one command, one table. A failed call counts
with the time until its error. Each figure is the median over the rounds, and holds for this machine and this
moment only: quote ratios.

    python benchmarks/gateway.py --concurrency 1 10 16 64
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from servers.process import ServerProcess
from support.gateway_process import SWITCH, GatewayProcess, failures

SIDES = {
    "own pool": {},
    "our pool": SWITCH,
    "no pool": {"MCP_SESSION_POOL_ENABLED": "false"},
}
WARM_UP_CALLS = 40


@dataclass(frozen=True)
class Round:
    """What one side did with one concurrency, once."""

    failed: int
    p50_seconds: float
    p99_seconds: float
    calls_per_second: float
    cpu_seconds: float  # of the gateway's process, per call


def cpu_seconds(pid: int) -> float:
    """What a process has used of the processors so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(gateway: GatewayProcess, calls: int, concurrency: int) -> Round:
    """Make the calls, as many at a time."""
    cpu = cpu_seconds(gateway.pid)
    begin = time.perf_counter()
    answers = gateway.call_many(calls, concurrency, "server", "echo", text="hello")
    elapsed = time.perf_counter() - begin
    times = sorted(answer.seconds for answer in answers)
    return Round(
        failed=len(failures(answers)),
        p50_seconds=times[len(times) // 2],
        p99_seconds=times[min(len(times) - 1, len(times) * 99 // 100)],
        calls_per_second=calls / elapsed,
        cpu_seconds=(cpu_seconds(gateway.pid) - cpu) / calls,
    )


def print_rows(concurrency: int, calls: int, results: dict[str, list[Round]]) -> None:
    """One row for each side; ratios are to the first."""
    first = next(iter(results.values()))
    for side, rounds in results.items():
        p50 = median(one.p50_seconds for one in rounds)
        p99 = median(one.p99_seconds for one in rounds)
        p50_ratio = median(a.p50_seconds / b.p50_seconds for a, b in zip(rounds, first, strict=True))
        p99_ratio = median(a.p99_seconds / b.p99_seconds for a, b in zip(rounds, first, strict=True))
        failed = "+".join(str(one.failed) for one in rounds)
        rate = median(one.calls_per_second for one in rounds)
        cpu = median(one.cpu_seconds for one in rounds)
        print(
            f"{concurrency:>11}  {side:<9} {failed:>9} of {calls:<5} {p50 * 1e3:>8.1f} {p50_ratio:>6.2f}"
            f" {p99 * 1e3:>9.1f} {p99_ratio:>6.2f} {rate:>8.1f} {cpu * 1e3:>8.1f}",
            flush=True,
        )


def main() -> None:
    """Parse the arguments, start everything, measure, print, stop everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 10, 16, 64], help="calls at a time")
    parser.add_argument("--calls", type=int, default=300, help="calls per side, concurrency and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--transport", choices=("streamablehttp", "sse"), default="streamablehttp")
    args = parser.parse_args()

    version = importlib.metadata.version("mcp-contextforge-gateway")
    print(f"ContextForge {version}, Python {platform.python_version()}, {args.transport};", end=" ")
    print("the pool's limit is 10 sessions; times in ms, ratios to the first side")
    print(
        "concurrency  side                 failed      p50  ratio       p99  ratio  calls/s  CPU/call",
        flush=True,
    )
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="bench-gateway-")))
        server = running.enter_context(ServerProcess(args.transport))
        gateways: dict[str, GatewayProcess] = {}
        for side in args.sides:
            gateway = GatewayProcess(folder / side.replace(" ", "-"), environment=SIDES[side])
            gateways[side] = running.enter_context(gateway)
            gateway.register("server", server.url, args.transport.upper())
            measure(gateway, WARM_UP_CALLS, 4)
        for concurrency in args.concurrency:
            results: dict[str, list[Round]] = {side: [] for side in args.sides}
            for _ in range(args.rounds):
                for side, gateway in gateways.items():
                    results[side].append(measure(gateway, args.calls, concurrency))
            print_rows(concurrency, args.calls, results)


if __name__ == "__main__":
    main()
