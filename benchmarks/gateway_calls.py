"""Tool calls through a gateway of 1.0.0 or later in its default configuration, without this package and with
it, in one run and in turns: calls at a time by how far away the server is.

One command, one table. The server knows revisions of the protocol before 2026-07-28, as most do; those have
sessions. Times hold for this machine and this moment only: quote ratios.

    python -P benchmarks/gateway_calls.py --concurrency 1 8 --away 0 50 --seconds 5
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests"), str(HERE.parent / "examples")]

import gateway_runs
import tables
from demo_servers import DemoServer
from gateway_runs import Level, Run, milliseconds

from support.gateway_process import SWITCH, Answer
from support.gateway_users import ADMIN, AuthenticatingGateway, as_user

SIDES = {"without": {}, "with": SWITCH}
# Its health checks are requests, too, and would count as those of calls.
SETTINGS = {"HEALTH_CHECK_INTERVAL": "3600"}
# What our tests set: here the release's own defaults hold.
LEFT_AT_DEFAULT = frozenset(
    {
        "ALLOW_UNAUTHENTICATED_ADMIN",
        "AUTH_REQUIRED",
        "CACHE_TYPE",
        "ENABLE_METRICS",
        "MCPGATEWAY_ADMIN_API_ENABLED",
        "MCP_SESSION_POOL_ENABLED",
    }
)
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
    "calls/s ratio",
    "CPU ratio",
    "to reach",
]
README = HERE.parent / "README.md"
README_TITLES = ["server", "at a time", "requests a call", "median", "CPU a call", "calls a second", "times"]
# What is to be reached: times the calls a second, by milliseconds away and calls at a time; share of the CPU.
TIMES_THE_CALLS = {(0, 1): 4.0, (0, 8): 4.0, (50, 1): 5.0, (50, 8): 5.0}
SHARE_OF_CPU = 0.45

Figures = dict[str, float]
Results = dict[str, dict[str, dict[str, Figures]]]
"""Figures by milliseconds away, calls at a time, and side."""


class Gateway(AuthenticatingGateway, gateway_runs.Gateway):
    """One that knows its callers, who are all one user with one token."""

    def __init__(self, folder: Path, switch: Mapping[str, str]) -> None:
        super().__init__(folder, environment={**SETTINGS, **switch})
        self._user = as_user(ADMIN)

    def _variables(self) -> dict[str, str]:
        variables = super()._variables()
        return {name: value for name, value in variables.items() if name not in LEFT_AT_DEFAULT}

    def look_up(self, server: str) -> Answer:
        """Call the server's tool."""
        return self.call(server, "look_up", headers=self._user, word="pool")

    def ping(self) -> Answer:
        """What reaches no server."""
        message = {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {}}
        begin = time.perf_counter()
        status, content = self.request("POST", "/rpc", message, self._user)
        return Answer(status, json.loads(content), time.perf_counter() - begin)


@dataclass
class CallLevel(Level):
    """With what the server got."""

    requests: int = 0

    def add_calls(self, gateway: Gateway, server: DemoServer, seconds: float, concurrency: int) -> None:
        """Make calls for a while, so many at a time."""
        requests = server.requests()
        call = partial(gateway.look_up, server.name)
        self.add(gateway, partial(gateway.call_for, seconds, concurrency, call))
        self.requests += server.requests() - requests

    def summary(self) -> Figures:
        """See :meth:`Level.summary`."""
        return {**super().summary(), "requests_per_call": self.requests / len(self.seconds)}


@dataclass
class Measured:
    """What a run has found.

    Attributes:
        levels: the calls.
        pings: seconds of CPU of a request that reaches no server, by side.
    """

    levels: Results = field(default_factory=dict)
    pings: dict[str, float] = field(default_factory=dict)


def ratio(sides: Mapping[str, Figures], name: str) -> float:
    """With this package to without; not a number where nothing was answered without."""
    without = sides["without"][name]
    return sides["with"][name] / without if without else math.nan


def verdict(away: str, concurrency: str, sides: Mapping[str, Figures]) -> str:
    """What was to be reached there, and whether it was."""
    target = TIMES_THE_CALLS.get((int(away), int(concurrency)))
    if target is None:
        return ""
    is_met = (
        ratio(sides, "answered_per_second") >= target
        and ratio(sides, "cpu_seconds_per_call") <= SHARE_OF_CPU
        and not sides["with"]["failed"]
    )
    return f"{target:g} and {SHARE_OF_CPU:g}: {'met' if is_met else 'MISSED'}"


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
            milliseconds(level["p50"]),
            milliseconds(level["p99"]),
            f"{level['answered_per_second']:.1f}",
            f"{level['cpu_seconds_per_call'] * 1e3:.1f} ms",
            *(
                [f"{ratio(sides, name):.2f}" for name in ("answered_per_second", "cpu_seconds_per_call")]
                if side == "with"
                else ["", ""]
            ),
            verdict(away, concurrency, sides) if side == "with" else "",
        ]
        for away, levels in results.items()
        for concurrency, sides in levels.items()
        for side, level in sides.items()
    ]


def readme_lines(results: Results) -> list[list[str]]:
    """One for each level of which something was to be reached: from without to with."""

    def both(sides: Mapping[str, Figures], name: str, shown: Callable[[float], str]) -> str:
        return f"{shown(sides['without'][name])} → {shown(sides['with'][name])}"

    return [
        [
            f"{away} ms away" if int(away) else "near",
            concurrency,
            both(sides, "requests_per_call", "{:.1f}".format),
            both(sides, "p50", milliseconds),
            both(sides, "cpu_seconds_per_call", milliseconds),
            both(sides, "answered_per_second", "{:.0f}".format),
            f"{ratio(sides, 'answered_per_second'):.1f} ×",
        ]
        for away, levels in results.items()
        for concurrency, sides in levels.items()
        if (int(away), int(concurrency)) in TIMES_THE_CALLS
    ]


def ping_note(pings: Mapping[str, float]) -> str:
    """What no call can do without."""
    without, with_it = (f"{pings[side] * 1e3:.1f} ms" for side in SIDES)
    return (
        f"A `ping`, which reaches no server, takes the gateway {without} of CPU without this package, "
        f"{with_it} with it."
    )


def measure(arguments: argparse.Namespace, run: Run) -> Measured:
    """Start everything, measure every level, stop everything."""
    found = Measured()
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
            gateways[side] = running.enter_context(Gateway(folder / side, switch))
            for server in servers.values():
                gateways[side].register(server.name, server.url, arguments.transport.upper())
        pings = {side: Level() for side in gateways}
        for _ in range(arguments.rounds):
            for side, gateway in gateways.items():
                pings[side].add(gateway, partial(gateway.call_for, arguments.seconds, 1, gateway.ping))
        found.pings = {side: level.summary()["cpu_seconds_per_call"] for side, level in pings.items()}
        measure_calls(arguments, run, servers, gateways, found)
    return found


def measure_calls(
    arguments: argparse.Namespace,
    run: Run,
    servers: Mapping[int, DemoServer],
    gateways: Mapping[str, Gateway],
    found: Measured,
) -> None:
    """Every level; each of them once at least, and again as long as there is time for all."""
    begin = run.seconds
    ahead = len(servers) * len(arguments.concurrency)
    for away, server in servers.items():
        for gateway in gateways.values():  # so many at a time open sessions of their own first
            gateway.call_for(0, max(arguments.concurrency), partial(gateway.look_up, server.name))
        for concurrency in arguments.concurrency:
            levels = {side: CallLevel() for side in gateways}
            end = run.seconds + (begin + arguments.minutes * 60 - run.seconds) / ahead
            longest = 0.0
            for number in range(arguments.rounds):
                round_begin = run.seconds
                if number > 0 and round_begin + longest > end:
                    break
                for side, gateway in gateways.items():
                    levels[side].add_calls(gateway, server, arguments.seconds, concurrency)
                longest = max(longest, run.seconds - round_begin)
                print(
                    f"... {away} ms away, {concurrency} at a time, round {number + 1}, {run.seconds:.0f} s",
                    file=sys.stderr,
                )
            ahead -= 1
            summaries = {side: level.summary() for side, level in levels.items()}
            found.levels.setdefault(str(away), {})[str(concurrency)] = summaries


def parse_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    levels = [1, 4, 8, 16, 64]
    parser.add_argument("--concurrency", type=int, nargs="+", default=levels, help="calls at a time")
    parser.add_argument("--away", type=int, nargs="+", default=[0, 50, 200], help="milliseconds")
    parser.add_argument(
        "--seconds", type=float, default=2.5, help="of calls per side, level and round, default 2.5"
    )
    parser.add_argument("--rounds", type=int, default=3, help="default 3, or fewer where time is short")
    parser.add_argument(
        "--minutes", type=float, default=4.5, help="for all rounds together, default 4.5; one is always made"
    )
    Run.add_arguments(parser)
    return parser.parse_args(given)


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments()
    run = Run(arguments)
    found = measure(arguments, run)
    how = "default configuration; without this package and with it, by turns."
    rows: list[list[str]] = [TITLES, *lines(found.levels)]
    levels: dict[str, Any] = {**found.levels}
    run.report("gateway-calls", how, rows, levels, [ping_note(found.pings)])
    if arguments.docs:
        table = tables.markdown([README_TITLES, *readme_lines(found.levels)])
        tables.put_into_page("gateway-calls", table, README)


if __name__ == "__main__":
    main()
