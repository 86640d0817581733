"""Tool calls through the real gateway: its own pool, ours, and no pool, in one run and in turns.

Needs an environment with the gateway and this package installed; one command, one table. A call that fails
counts with the time until its error. The gateway's own pool lets callers wait 30 s for nothing where there
are more of them than sessions, so those levels take minutes: all of the default ones about ten. Times hold
for this machine and this moment only: quote ratios.

    python -P benchmarks/gateway.py --concurrency 1 16 --calls 100
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

import pool_table
from gateway_runs import Gateway, Level, Run

from servers.process import ServerProcess
from support.gateway_process import SWITCH

SIDES = {
    "own pool": {},
    "our pool": SWITCH,
    "no pool": {"MCP_SESSION_POOL_ENABLED": "false"},
}
WARM_UP_CALLS = 40


def measure(arguments: argparse.Namespace) -> dict[str, dict[str, dict[str, float]]]:
    """Start everything, measure every level, stop everything; figures by concurrency and side."""
    results: dict[str, dict[str, dict[str, float]]] = {}
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="bench-gateway-")))
        server = running.enter_context(ServerProcess(arguments.transport))
        gateways: dict[str, Gateway] = {}
        for side in arguments.sides:
            gateway = Gateway(folder / side.replace(" ", "-"), environment=SIDES[side])
            gateways[side] = running.enter_context(gateway)
            gateway.register("server", server.url, arguments.transport.upper())
            gateway.call_many(WARM_UP_CALLS, 4, "server", "echo", text="hello")
        for concurrency in arguments.concurrency:
            levels = {side: Level() for side in gateways}
            calls = max(arguments.calls, 2 * concurrency)
            for number in range(arguments.rounds):
                for side, gateway in gateways.items():
                    begin = time.monotonic()
                    make = partial(gateway.call_many, calls, concurrency, "server", "echo", text="hello")
                    levels[side].add(gateway, make)
                    print(
                        f"... {concurrency} at a time, {side}, round {number + 1}: {calls} calls in "
                        f"{time.monotonic() - begin:.0f} s",
                        file=sys.stderr,
                        flush=True,
                    )
            results[str(concurrency)] = {side: level.summary() for side, level in levels.items()}
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
    Run.add_arguments(parser)
    return parser.parse_args(given)


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments()
    run = Run(arguments)
    levels = measure(arguments)
    run.report(pool_table, {"about": {**run.about(), "rounds": arguments.rounds}, "levels": levels})


if __name__ == "__main__":
    main()
