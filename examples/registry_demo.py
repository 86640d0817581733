"""A gateway of 1.0.0 or later in its default configuration, as most people run it, without this package and
with it: the same tool calls of two users to two MCP servers, one of them 50 ms away; one server is restarted
in the middle.

Prints what both did, and the series from the gateway's own endpoint, and checks that its numbers add up; the
exit code is 0 only then. ``--keep`` goes on serving, with light traffic, until Ctrl-C. Everything stays on
127.0.0.1 and in a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]
from demo_servers import DemoServer
from gateway_demos import all_ended, exit_code_of, print_series, reason_of, until_signal

from support.gateway_process import SWITCH, Answer, Samples, failures, sum_samples
from support.gateway_users import AUTHENTICATED, AuthenticatingGateway, as_user

USERS = ("ann@example.com", "bob@example.com")
AWAY_SECONDS = 0.05
CALLERS = 4
ROUNDS = 4
CALLS_PER_ROUND = 40  # on each server
WARM_UP_CALLS = 8

SETTINGS = {**AUTHENTICATED, "HEALTH_CHECK_INTERVAL": "3600"}  # the gateway's own checks of its servers
STOCK, OURS = "without", "with"


@dataclass
class Done:
    """What the calls to one server were, and what they cost."""

    answers: list[Answer] = field(default_factory=list)
    seconds: float = 0.0
    requests: int = 0
    cpu_seconds: float = 0.0

    def percentile(self, percent: int) -> float:
        """Milliseconds that so many per cent of the calls took at most."""
        times = [answer.seconds for answer in self.answers]
        return statistics.quantiles(times, n=100)[percent - 1] * 1000


@dataclass
class Run:
    """One gateway, and what its callers saw.

    Attributes:
        name: for the table.
        gateway: the process.
        ids: of the registered servers, by name: what the series call ``gateway_id``.
        users: the users' authorization, as headers.
        done: the calls, by server.
        more: calls beside those that are compared.
    """

    name: str
    gateway: AuthenticatingGateway
    ids: dict[str, str] = field(default_factory=dict)
    users: list[dict[str, str]] = field(default_factory=list)
    done: dict[str, Done] = field(default_factory=dict)
    more: dict[str, int] = field(default_factory=dict)

    def prepare(self, servers: Sequence[DemoServer]) -> None:
        """Boot the gateway, make the users and register the servers, over its API."""
        self.gateway.start()
        for user in USERS:
            self.gateway.add_user(user)
            self.users.append(as_user(user))
        for server in servers:
            self.ids[server.name] = self.gateway.register(server.name, server.url, server.transport.upper())
            self.done[server.name] = Done()
            self.more[server.name] = 0

    def call(self, server: DemoServer, count: int) -> list[Answer]:
        """Calls of both users, in turn."""
        return self.gateway.call_many(count, CALLERS, server.name, "look_up", self.users, word="pool")

    def round(self, server: DemoServer) -> None:
        """Calls that are compared."""
        done = self.done[server.name]
        requests, cpu, begin = server.requests(), self._cpu_seconds(), time.perf_counter()
        done.answers += self.call(server, CALLS_PER_ROUND)
        done.seconds += time.perf_counter() - begin
        done.cpu_seconds += self._cpu_seconds() - cpu
        done.requests += server.requests() - requests

    def warm_up(self, server: DemoServer) -> None:
        """Calls that are not."""
        self.more[server.name] += len(self.call(server, WARM_UP_CALLS))

    def _cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.gateway.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def problems(run: Run, samples: Samples) -> list[str]:
    """What does not add up in ours; empty when all does."""

    def value(stem: str, gateway_id: str) -> float:
        return sum_samples(samples, f"mcp_session_pool_{stem}", gateway_id=gateway_id)

    claims: list[tuple[str, float, float]] = []
    for name, identifier in run.ids.items():
        done = run.done[name]
        size, active = value("size", identifier), value("active_sessions", identifier)
        calls = len(done.answers) + run.more[name] + value("replays_total", identifier)
        claims += [
            (f"{name}: calls that failed", len(failures(done.answers)), 0),
            (
                f"{name}: hits + misses = calls + replays",
                value("hits_total", identifier) + value("misses_total", identifier),
                calls,
            ),
            (f"{name}: calls past the pool", value("unpooled_calls_total", identifier), 0),
            (f"{name}: active = 0 at the end", active, 0),
            (f"{name}: size = active + idle", size, active + value("idle_sessions", identifier)),
            (
                f"{name}: sessions created = open + evicted",
                value("creates_total", identifier),
                size + value("evictions_total", identifier),
            ),
        ]
    return [f"{claim}: {left:g} is not {right:g}" for claim, left, right in claims if left != right]


ROWS: tuple[tuple[str, Callable[[Done], float], str], ...] = (
    ("calls", lambda done: len(done.answers), "{:.0f}"),
    ("failed", lambda done: len(failures(done.answers)), "{:.0f}"),
    ("requests to the server a call", lambda done: done.requests / len(done.answers), "{:.1f}"),
    ("calls a second", lambda done: len(done.answers) / done.seconds, "{:.1f}"),
    ("median", lambda done: done.percentile(50), "{:.0f} ms"),
    ("p99", lambda done: done.percentile(99), "{:.0f} ms"),
    (
        "CPU of the gateway a call",
        lambda done: done.cpu_seconds / len(done.answers) * 1000,
        "{:.0f} ms",
    ),
)


def print_comparison(runs: Sequence[Run], servers: Sequence[DemoServer]) -> None:
    for server in servers:
        columns = [run.done[server.name] for run in runs]
        print(f"  {server.name:<32}" + "".join(f"{run.name:>12}" for run in runs) + f"{'ratio':>10}")
        for label, value, form in ROWS:
            stock, ours = (value(done) for done in columns)
            ratio = f"{ours / stock:>10.2f}" if stock and label not in ("calls", "failed") else ""
            print(f"  {label:<32}{form.format(stock):>12}{form.format(ours):>12}{ratio}")
        print()
    for run in runs:
        answers = [answer for done in run.done.values() for answer in failures(done.answers)]
        for answer in answers[:1]:
            print(f"  {run.name}: {reason_of(answer)}")


def keep_serving(run: Run, servers: Sequence[DemoServer]) -> None:
    with until_signal() as stop:
        print("\nGoing on with light traffic until Ctrl-C.")
        print(f"  gateway  {run.gateway.url}")
        print(f"  series   {run.gateway.url}/metrics/prometheus")
        print(f"  token    {run.users[0]['Authorization']}", flush=True)
        answers: list[Answer] = []
        while not stop.is_set():
            for server in servers:
                answers += run.call(server, CALLERS)
            stop.wait(1.0)
    print(f"\n{len(answers)} more calls, {len(failures(answers))} failed")


def demo(runs: Sequence[Run], servers: Sequence[DemoServer], *, keep: bool) -> int:
    ours = runs[1]
    print(
        f"ContextForge {version('mcp-contextforge-gateway')} in its default configuration, without this"
        f" package and with it\n{len(servers)} MCP servers, one {AWAY_SECONDS * 1000:.0f} ms away;"
        f" {len(USERS)} users, {CALLERS} calls at a time\n",
        flush=True,
    )
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda server: server.start(), servers))
        list(threads.map(lambda run: run.prepare(servers), runs))
    for run in runs:
        for server in servers:
            run.warm_up(server)
    for number in range(ROUNDS):
        if number == ROUNDS // 2:
            servers[0].kill()
            servers[0].start()
        for server in servers:
            for run in runs:
                run.round(server)
    print("the same calls through POST /rpc, the gateways taking turns; the first server restarts once:\n")
    print_comparison(runs, servers)

    samples = ours.gateway.samples()
    print("the six series, as scraped from the gateway's /metrics/prometheus; by gateway_id:")
    print_series(samples, ours.ids)
    wrong = problems(ours, samples)
    for problem in wrong:
        print(f"DOES NOT ADD UP  {problem}")
    if not wrong:
        print("\nEvery number adds up with what the callers saw.")
    runs[0].gateway.kill()
    if keep:
        keep_serving(ours, servers)
    else:
        print("KEEP=1 goes on serving. Meaning of the series: docs/metrics.md")
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="go on serving until Ctrl-C")
    keep = parser.parse_args().keep
    servers = [
        DemoServer("near", "streamablehttp", is_old=True),
        DemoServer("far", "streamablehttp", AWAY_SECONDS, is_old=True),
    ]
    with tempfile.TemporaryDirectory(prefix="mcpgateway-pool-demo-") as folder:
        environments = {STOCK: SETTINGS, OURS: {**SETTINGS, **SWITCH}}
        runs = [
            Run(name, AuthenticatingGateway(Path(folder, name), environment=environment))
            for name, environment in environments.items()
        ]
        with all_ended([run.gateway for run in runs], servers):
            return exit_code_of(lambda: demo(runs, servers, keep=keep))


if __name__ == "__main__":
    sys.exit(main())
