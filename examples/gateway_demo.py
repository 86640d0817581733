"""The real gateway with this pool: MCP servers registered over its API, tool calls of several users through
``POST /rpc``, the series from its own endpoint, and the same calls on the gateway's own pool beside them.

Prints a summary, and checks that its numbers add up; the exit code is 0 only then. ``--keep`` goes on
serving, with light traffic, until Ctrl-C. Everything stays on 127.0.0.1 and in a temporary folder.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]
from demo_servers import DemoServer
from gateway_demos import all_ended, exit_code_of, print_registered, print_series, reason_of, until_signal

from support.gateway_process import (
    SWITCH,
    Answer,
    GatewayProcess,
    Samples,
    failures,
    sum_samples,
)

USERS = ("alice", "bob", "carol")
SESSIONS_PER_KEY = 2
ACQUIRE_TIMEOUT_SECONDS = 5
CALLERS_PER_SERVER = 18
ROUNDS = 2
CALLS_PER_ROUND = 50  # on each server
CALLS_AFTER_RESTART = 12

SETTINGS = {
    "MCP_SESSION_POOL_MAX_PER_KEY": str(SESSIONS_PER_KEY),
    "MCP_SESSION_POOL_ACQUIRE_TIMEOUT": str(ACQUIRE_TIMEOUT_SECONDS),
    "HEALTH_CHECK_INTERVAL": "3600",  # the gateway's own checks take sessions, too
}
STOCK, OURS = "the gateway's own pool", "this pool"


@dataclass
class Run:
    """One gateway, and what its callers saw.

    Attributes:
        name: of its pool.
        gateway: the process.
        ids: of the registered servers, by name: what the series call ``gateway_id``.
        tokens: the users' authorization, as headers.
        answers: of all calls, by server.
        seconds: how long the rounds took together.
    """

    name: str
    gateway: GatewayProcess
    ids: dict[str, str] = field(default_factory=dict)
    tokens: list[dict[str, str]] = field(default_factory=list)
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    seconds: float = 0.0

    def prepare(self, servers: Sequence[DemoServer]) -> None:
        """Boot the gateway, register the servers, make the users and log them in: all over its API."""
        gateway = self.gateway
        gateway.start()
        for server in servers:
            self.ids[server.name] = gateway.register(server.name, server.url, server.transport.upper())
            self.answers[server.name] = []
        for user in USERS:
            # Administrators, or they would see no tool without a team.
            account = {"email": f"{user}@example.com", "password": f"A-demo-passw0rd-of-{user}!"}
            gateway.json("POST", "/auth/email/admin/users", {**account, "full_name": user, "is_admin": True})
            token = gateway.json("POST", "/auth/email/login", account)["access_token"]
            self.tokens.append({"Authorization": f"Bearer {token}"})

    def call(self, server: str, count: int, concurrency: int) -> None:
        """Tool calls of all users on one server."""
        self.answers[server] += self.gateway.call_many(
            count, concurrency, server, "look_up", headers=self.tokens, word="pool"
        )

    def round(self) -> None:
        """Calls on all servers at once, from more callers than there may be sessions."""
        begin = time.perf_counter()
        with ThreadPoolExecutor(len(self.ids)) as threads:
            for done in [
                threads.submit(self.call, server, CALLS_PER_ROUND, CALLERS_PER_SERVER) for server in self.ids
            ]:
                done.result()
        self.seconds += time.perf_counter() - begin

    @property
    def all_answers(self) -> list[Answer]:
        """Of all servers."""
        return [answer for answers in self.answers.values() for answer in answers]


# ---- the numbers


def watched_round(run: Run) -> tuple[float, float]:
    """A round, scraped all the time; sessions in use and callers waiting when there were most of both."""
    over = threading.Event()
    most = (0.0, 0.0)

    def watch() -> None:
        nonlocal most
        while not over.wait(0.2):
            samples = run.gateway.samples()
            with contextlib.suppress(KeyError):  # before the first call there is no sample
                active = sum_samples(samples, "mcp_session_pool_active_sessions")
                most = max(most, (active, sum_samples(samples, "mcp_session_pool_waiters")), key=sum)

    with ThreadPoolExecutor(1) as threads:
        watching = threads.submit(watch)
        try:
            run.round()
        finally:
            over.set()
        watching.result()
    return most


def problems(run: Run, samples: Samples, metrics: dict[str, Any]) -> list[str]:
    """What does not add up; empty when all does.

    Args:
        run: ours.
        samples: scraped after its last call.
        metrics: what the gateway's admin API says of the pool, at the same time.
    """

    def value(stem: str, **labels: str) -> float:
        return sum_samples(samples, f"mcp_session_pool_{stem}", **labels)

    claims: list[tuple[str, float, float]] = [
        ("calls failed", len(failures(run.all_answers)), 0),
        ("hits, as the admin API says", metrics["hits"], value("hits_total")),
        ("misses, as the admin API says", metrics["misses"], value("misses_total")),
        ("evictions, as the admin API says", metrics["evictions"], value("evictions_total")),
        ("sessions in use, as the admin API says", metrics["total_active_sessions"], 0),
        ("health check failures", value("health_check_failures_total"), 0),
    ]
    for name, gateway_id in run.ids.items():
        size, active = (value(stem, gateway_id=gateway_id) for stem in ("size", "active_sessions"))
        hits, misses = (value(stem, gateway_id=gateway_id) for stem in ("hits_total", "misses_total"))
        created, evicted = (
            value(stem, gateway_id=gateway_id) for stem in ("creates_total", "evictions_total")
        )
        claims += [
            (f"{name}: hits + misses = calls", hits + misses, len(run.answers[name])),
            (f"{name}: active = 0 at the end", active, 0),
            (f"{name}: size = active + idle", size, active + value("idle_sessions", gateway_id=gateway_id)),
            (f"{name}: sessions created = open + evicted", created, size + evicted),
            (f"{name}: a key for each user", value("keys", gateway_id=gateway_id), len(USERS)),
            (
                f"{name}: sessions beyond the limit of its keys",
                max(0.0, size - len(USERS) * SESSIONS_PER_KEY),
                0,
            ),
        ]
    return [f"{claim}: {left:g} is not {right:g}" for claim, left, right in claims if left != right]


# ---- what is printed


def print_comparison(runs: Sequence[Run]) -> None:
    rows: list[tuple[str, list[str]]] = [("", [run.name for run in runs])]
    calls = [run.all_answers for run in runs]
    rows.append(("calls", [str(len(answers)) for answers in calls]))
    rows.append(("failed", [str(len(failures(answers))) for answers in calls]))
    for label, hundredths in (("median", 50), ("p99", 99)):
        cells = []
        for answers in calls:
            ordered = sorted(answer.seconds for answer in answers)
            cells.append(f"{statistics.quantiles(ordered, n=100)[hundredths - 1] * 1000:.0f} ms")
        rows.append((label, cells))
    rows.append(("all of them took", [f"{run.seconds:.1f} s" for run in runs]))
    for label, cells in rows:
        print(f"  {label:<18}" + "".join(f"{cell:>26}" for cell in cells))
    for run, answers in zip(runs, calls, strict=True):
        for reason, count in Counter(map(reason_of, failures(answers))).most_common(3):
            print(f"  {run.name}: {count} x {reason}")


# ---- the whole


def keep_serving(run: Run) -> None:
    with until_signal() as stop:
        print("\nGoing on with light traffic until Ctrl-C.")
        print(f"  gateway  {run.gateway.url}")
        print(f"  series   {run.gateway.url}/metrics/prometheus", flush=True)
        answers: list[Answer] = []
        while not stop.is_set():
            for server in run.ids:
                answers += run.gateway.call_many(
                    len(USERS), len(USERS), server, "look_up", headers=run.tokens, word="pool"
                )
            stop.wait(1.0)
    print(f"\n{len(answers)} more calls, {len(failures(answers))} failed")
    for reason, count in Counter(map(reason_of, failures(answers))).items():
        print(f"  {count} x {reason}")


def demo(runs: Sequence[Run], servers: Sequence[DemoServer], *, keep: bool) -> int:
    stock, ours = runs
    print(
        f"ContextForge {version('mcp-contextforge-gateway')}: one with its own pool, one with this one\n"
        f"{len(USERS)} users, {len(servers)} MCP servers, {CALLERS_PER_SERVER} callers on each\n"
        f"at most {SESSIONS_PER_KEY} sessions for a user on a server, "
        f"and {ACQUIRE_TIMEOUT_SECONDS} s to wait for one\n",
        flush=True,
    )
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda server: server.start(), servers))
        list(threads.map(lambda run: run.prepare(servers), runs))
    print_registered(ours.ids, servers)

    busy = (0.0, 0.0)
    for _ in range(ROUNDS):
        stock.round()
        busy = max(busy, watched_round(ours), key=sum)
    print(f"\nin the middle    {busy[0]:g} sessions in use, {busy[1]:g} callers waiting for one")
    print("\nthe same calls through POST /rpc, the gateways taking turns; failed calls are among the times:")
    print_comparison(runs)

    restarted = servers[-1]
    restarted.kill()
    restarted.start()
    before = len(failures(ours.all_answers))
    ours.call(restarted.name, CALLS_AFTER_RESTART, len(USERS))
    failed = len(failures(ours.all_answers)) - before
    print(
        f"\nthen {restarted.name} was killed and started again: {CALLS_AFTER_RESTART} calls, {failed} failed"
    )

    samples = ours.gateway.samples()
    metrics = ours.gateway.json("GET", "/admin/mcp-pool/metrics")
    print("\nthe six series, as scraped from the gateway's /metrics/prometheus; by gateway_id:")
    print_series(samples, ours.ids)
    wrong = problems(ours, samples, metrics)
    for problem in wrong:
        print(f"DOES NOT ADD UP  {problem}")
    if not wrong:
        print("\nEvery number adds up: with what the callers saw, and with what the admin API says.")
    stock.gateway.kill()
    if keep:
        keep_serving(ours)
    else:
        print("`make demo KEEP=1` goes on serving. Meaning of the series: docs/metrics.md")
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="go on serving until Ctrl-C")
    keep = parser.parse_args().keep
    servers = [DemoServer("search", "streamablehttp"), DemoServer("weather", "sse")]
    with tempfile.TemporaryDirectory(prefix="mcpgateway-pool-demo-") as folder:
        runs = [
            Run(STOCK, GatewayProcess(Path(folder, "stock"), environment=SETTINGS)),
            Run(OURS, GatewayProcess(Path(folder, "ours"), environment={**SETTINGS, **SWITCH})),
        ]
        with all_ended([run.gateway for run in runs], servers):
            return exit_code_of(lambda: demo(runs, servers, keep=keep))


if __name__ == "__main__":
    sys.exit(main())
