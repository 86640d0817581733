"""The real gateway of 1.0.0 or later with this registry: MCP servers registered over its API, tool calls of
several downstream sessions, the series from its own endpoint; and the same calls beside them on the gateway's
own registry, and on this one where calls share a session.

Prints a summary, and checks that its numbers add up; the exit code is 0 only then. ``--keep`` goes on
serving, with light traffic, until Ctrl-C. Everything stays on 127.0.0.1 and in a temporary folder.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]
from demo_servers import DemoServer
from gateway_demo import print_registered, print_series, reason_of, until_signal

from support.gateway_process import (
    SWITCH,
    Answer,
    GatewayError,
    GatewayProcess,
    Samples,
    failures,
    sum_samples,
)

DOWNSTREAM_SESSIONS = 6
CALLERS = 12  # on each server
ROUNDS = 2
CALLS_PER_ROUND = 60  # on each server
SLOW_CALLS, SLOW_SECONDS = 5, 0.2
RESTARTS = 3
CALLS_AFTER_RESTART = 12

SETTINGS = {
    "HEALTH_CHECK_INTERVAL": "3600",  # the gateway's own checks of its servers
    "TOOL_TIMEOUT": "5",  # seconds: what would hang for ever fails then
}
STOCK, OURS, SHARED = "the gateway's own", "this one", "this one, shared"


def of(downstream_session: str) -> dict[str, str]:
    """The header by which a client names its session with the gateway."""
    return {"mcp-session-id": downstream_session}


@dataclass
class Run:
    """One gateway, and what its callers saw.

    Attributes:
        name: of its registry.
        gateway: the process.
        ids: of the registered servers, by name: what the series call ``gateway_id``.
        answers: of all calls, by server.
        quick: the answers of the rounds, by which registries are compared.
        slow_seconds: how long the slow calls of one downstream session took together.
        failed_after_restart: calls that failed after servers were restarted.
    """

    name: str
    gateway: GatewayProcess
    ids: dict[str, str] = field(default_factory=dict)
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    quick: list[Answer] = field(default_factory=list)
    slow_seconds: float = 0.0
    failed_after_restart: int = 0

    def prepare(self, servers: Sequence[DemoServer]) -> None:
        """Boot the gateway and register the servers, over its API."""
        self.gateway.start()
        for server in servers:
            self.ids[server.name] = self.gateway.register(server.name, server.url, server.transport.upper())
            self.answers[server.name] = []

    def call(self, server: str, count: int, callers: int) -> list[Answer]:
        """Calls of all downstream sessions on one server."""
        headers = [of(f"chat-{number}") for number in range(DOWNSTREAM_SESSIONS)]
        answers = self.gateway.call_many(count, callers, server, "look_up", headers, word="pool")
        self.answers[server] += answers
        return answers

    def round(self) -> None:
        """Calls on all servers at once."""
        with ThreadPoolExecutor(len(self.ids)) as threads:
            for done in [threads.submit(self.call, server, CALLS_PER_ROUND, CALLERS) for server in self.ids]:
                self.quick += done.result()

    def slow_calls(self, server: str) -> None:
        """Concurrent calls of one downstream session, which has its upstream session already."""
        begin = time.perf_counter()
        answers = self.gateway.call_many(
            SLOW_CALLS, SLOW_CALLS, server, "slow", [of("chat-0")], seconds=SLOW_SECONDS
        )
        self.slow_seconds = time.perf_counter() - begin
        self.answers[server] += answers

    def after_restart(self, server: str) -> None:
        """Calls on a server that was restarted."""
        self.failed_after_restart += len(
            failures(self.call(server, CALLS_AFTER_RESTART, DOWNSTREAM_SESSIONS))
        )


def problems(run: Run, samples: Samples) -> list[str]:
    """What does not add up in ours; empty when all does."""

    def value(stem: str, gateway_id: str) -> float:
        return sum_samples(samples, f"mcp_session_pool_{stem}", gateway_id=gateway_id)

    claims: list[tuple[str, float, float]] = []
    for name, identifier in run.ids.items():
        size, active = value("size", identifier), value("active_sessions", identifier)
        hits, misses = value("hits_total", identifier), value("misses_total", identifier)
        created, evicted = value("creates_total", identifier), value("evictions_total", identifier)
        claims += [
            (f"{name}: hits + misses = calls", hits + misses, len(run.answers[name])),
            (f"{name}: active = 0 at the end", active, 0),
            (f"{name}: size = active + idle", size, active + value("idle_sessions", identifier)),
            (f"{name}: sessions created = open + evicted", created, size + evicted),
            (f"{name}: a session for each downstream session", size, DOWNSTREAM_SESSIONS),
        ]
    claims.append(("calls failed before the restarts", len(failures(run.quick)), 0))
    return [f"{claim}: {left:g} is not {right:g}" for claim, left, right in claims if left != right]


def print_comparison(runs: Sequence[Run]) -> None:
    rows: list[tuple[str, list[str]]] = [("", [run.name for run in runs])]
    rows.append(("calls", [str(len(run.quick)) for run in runs]))
    rows.append(("failed", [str(len(failures(run.quick))) for run in runs]))
    for label, hundredths in (("median", 50), ("p99", 99)):
        cuts = [statistics.quantiles([answer.seconds for answer in run.quick], n=100) for run in runs]
        rows.append((label, [f"{cut[hundredths - 1] * 1000:.0f} ms" for cut in cuts]))
    rows.append((f"{SLOW_CALLS} calls of {SLOW_SECONDS} s", [f"{run.slow_seconds:.2f} s" for run in runs]))
    count = 2 * RESTARTS * CALLS_AFTER_RESTART
    rows.append((f"of {count} after restarts", [f"{run.failed_after_restart} failed" for run in runs]))
    for label, cells in rows:
        print(f"  {label:<22}" + "".join(f"{cell:>20}" for cell in cells))
    for run in runs:
        answers = [answer for answers in run.answers.values() for answer in failures(answers)]
        for answer in answers[:1]:
            print(f"  {run.name}: {reason_of(answer)}")


def keep_serving(run: Run) -> None:
    with until_signal() as stop:
        print("\nGoing on with light traffic until Ctrl-C.")
        print(f"  gateway  {run.gateway.url}")
        print(f"  series   {run.gateway.url}/metrics/prometheus", flush=True)
        answers: list[Answer] = []
        while not stop.is_set():
            for server in run.ids:
                answers += run.call(server, DOWNSTREAM_SESSIONS, DOWNSTREAM_SESSIONS)
            stop.wait(1.0)
    print(f"\n{len(answers)} more calls, {len(failures(answers))} failed")


def demo(runs: Sequence[Run], servers: Sequence[DemoServer], *, keep: bool) -> int:
    ours = runs[1]
    print(
        f"ContextForge {version('mcp-contextforge-gateway')}: with its own session registry, with this one\n"
        f"{len(servers)} MCP servers, {DOWNSTREAM_SESSIONS} downstream sessions, {CALLERS} callers on each\n",
        flush=True,
    )
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda server: server.start(), servers))
        list(threads.map(lambda run: run.prepare(servers), runs))
    print_registered(ours, servers)  # type: ignore[arg-type]

    for _ in range(ROUNDS):
        for run in runs:
            run.round()
    for run in runs:
        run.slow_calls(servers[0].name)
    for _ in range(RESTARTS):
        for server in servers:
            server.kill()
            server.start()
            for run in runs:
                run.after_restart(server.name)
    print("\nthe same calls through POST /rpc, the gateways taking turns; then the servers are restarted:")
    print_comparison(runs)

    samples = ours.gateway.samples()
    print("\nthe six series, as scraped from the gateway's /metrics/prometheus; by gateway_id:")
    print_series(samples, ours.ids)
    wrong = problems(ours, samples)
    for problem in wrong:
        print(f"DOES NOT ADD UP  {problem}")
    if not wrong:
        print("\nEvery number adds up with what the callers saw.")
    for run in runs:
        if run is not ours:
            run.gateway.kill()
    if keep:
        keep_serving(ours)
    else:
        print("KEEP=1 goes on serving. Meaning of the series: docs/metrics.md")
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="go on serving until Ctrl-C")
    keep = parser.parse_args().keep
    servers = [DemoServer("search", "streamablehttp"), DemoServer("weather", "sse")]
    with tempfile.TemporaryDirectory(prefix="mcpgateway-pool-demo-") as folder:
        environments = {
            STOCK: SETTINGS,
            OURS: {**SETTINGS, **SWITCH},
            SHARED: {**SETTINGS, **SWITCH, "MCPGATEWAY_POOL_CONCURRENCY": "shared"},
        }
        runs = [
            Run(name, GatewayProcess(Path(folder, str(number)), environment=environment))
            for number, (name, environment) in enumerate(environments.items())
        ]

        def interrupt(*_: object) -> None:
            for run in runs:
                run.gateway.kill()  # so that callers which wait for an answer end, too
            raise KeyboardInterrupt

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, interrupt)
        try:
            return demo(runs, servers, keep=keep)
        except KeyboardInterrupt:
            return 130
        except (GatewayError, OSError, RuntimeError) as error:
            print(f"the demo failed: {type(error).__name__}: {error}", file=sys.stderr)
            return 1
        finally:
            for run in runs:
                run.gateway.kill()
            for server in servers:
                server.kill()


if __name__ == "__main__":
    sys.exit(main())
