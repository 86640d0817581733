"""Tool calls through a gateway of 1.0.0 or later in its default configuration, without this package and with
it, in one run and in turns: calls at a time by how far away the server is.

One command, one table. The server knows revisions of the protocol before 2026-07-28, as most do; those have
sessions. Times hold for this machine and this moment only: quote ratios.

    python -P benchmarks/gateway_calls.py --concurrency 1 8 --away 0 50 --seconds 5
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests"), str(HERE.parent / "examples")]

import calls_table
import gateway_runs
from calls_table import Figures, Levels
from demo_servers import DemoServer
from gateway_runs import Level, Run

from support.gateway_process import SWITCH, Answer
from support.gateway_users import ADMIN, DefaultGateway, as_user

SIDES = {"without": {}, "with": SWITCH}
# Its health checks are requests, too, and would count as those of calls.
SETTINGS = {"HEALTH_CHECK_INTERVAL": "3600"}


class Gateway(DefaultGateway, gateway_runs.Gateway):
    """One that knows its callers, who are all one user with one token."""

    def __init__(self, folder: Path, switch: Mapping[str, str]) -> None:
        super().__init__(folder, environment={**SETTINGS, **switch})
        self._user = as_user(ADMIN)

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

    levels: Levels = field(default_factory=dict)
    pings: dict[str, float] = field(default_factory=dict)


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
    figures = {"about": run.about(), "ping_cpu_seconds": found.pings, "levels": found.levels}
    run.report(calls_table, figures)


if __name__ == "__main__":
    main()
