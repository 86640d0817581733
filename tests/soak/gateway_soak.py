"""A soak test of a whole gateway in its default configuration. Users call tools, resources and prompts,
without a downstream session. Meanwhile two servers (streamable HTTP and SSE) are killed, stand still, forget
sessions and are changed at the gateway. `make soak-gateway`; not part of `make test`.

No call may fail but one that a server took with it when it was killed. No answer may be another user's, or
another call's. Memory may not grow, and the counters must add up. Prints a summary, and ends with 1 where one
of these does not hold. Runs in the gateway's environment.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import importlib.metadata
import itertools
import json
import random
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from servers.process import ServerProcess
from servers.waiting import wait_until
from support.gateway_process import SWITCH, sum_samples
from support.gateway_users import ANN, AUTHENTICATED, BOB, AuthenticatingGateway, as_user
from support.leaks import resident_mib
from support.memory_trend import MemoryTrend
from support.registered import PREFIX, Registered, register

USERS = (ANN, BOB, "carol@example.com")
CALLERS = 6
SETTINGS = {
    **SWITCH,
    **AUTHENTICATED,
    "MCP_CLIENT_CONNECT_MODE": "legacy",  # sessions have an id then, so that crossed ones are seen
    "HEALTH_CHECK_INTERVAL": "3600",
    "ENABLE_HEADER_PASSTHROUGH": "true",
    "MCPGATEWAY_POOL_MAX_SESSIONS_PER_KEY": "2",
    "MCPGATEWAY_POOL_SESSION_TTL_SECONDS": "20",
}
# Quiet time of a server between two troubles.
QUIET_SECONDS = (1.0, 6.0)
# The gateway's own caches and logs.
MEMORY_MIB_SLACK = 40.0
COMPLAINTS = ("Task was destroyed", "never awaited", "never retrieved")


class Subject:
    """One server at the gateway, and what is done to it.

    Attributes:
        killed: when it was killed, and when it was back; the last one may still be open.
    """

    def __init__(self, registered: Registered, prompt: str, resource: str) -> None:
        self.registered = registered
        self.prompt = prompt
        self.resource = resource
        self.killed: list[list[float]] = []

    def was_killed(self, begin: float, end: float) -> bool:
        """Whether it was away at some time between these two."""
        return any(down < end and up > begin for down, up in self.killed[-3:])

    def kill(self) -> None:
        """Kill it, and start it anew."""
        self.killed.append([time.monotonic(), float("inf")])
        self.registered.server.restart()
        self.killed[-1][1] = time.monotonic()

    def freeze(self, seconds: float) -> None:
        """It stands still."""
        self.registered.server.freeze()
        time.sleep(seconds)
        self.registered.server.thaw()

    def forget(self) -> None:
        """It does not know the next session that is used again. (One that it has forgotten at its first call
        fails that call, with a pool and without.)
        """
        self.registered.server.fault("status", status=404, method="tools/call", again=1)

    def change(self, number: int) -> None:
        """The gateway authenticates with another header from now on."""
        self.registered.gateway.json(
            "PUT",
            f"/gateways/{self.registered.identifier}",
            {
                "name": self.registered.name,
                "url": self.registered.server.url,
                "auth_type": "authheaders",
                "auth_headers": [{"key": "X-Key", "value": str(number)}],
            },
        )


class Soak:
    """One run.

    Args:
        seconds: how long.
        seed: of what happens.
    """

    def __init__(self, seconds: float, seed: int) -> None:
        self._seconds = seconds
        self._random = random.Random(seed)
        self._numbers = itertools.count(1)
        self._end = 0.0
        self._lock = threading.Lock()
        self._calls: collections.Counter[str] = collections.Counter()
        self._events: collections.Counter[str] = collections.Counter()
        self._problems: list[str] = []
        self._user_of: dict[str, str] = {}
        self._slowest = 0.0
        self._memory = MemoryTrend(MEMORY_MIB_SLACK)

    @property
    def _goes_on(self) -> bool:
        return time.monotonic() < self._end and len(self._problems) < 20

    def run(self, folder: Path) -> list[str]:
        """Returns what is wrong."""
        with (
            AuthenticatingGateway(folder, environment=SETTINGS) as gateway,
            ServerProcess("streamablehttp") as streamable,
            ServerProcess("sse") as sse,
        ):
            for user in USERS:
                gateway.add_user(user)
            subjects = [self._add(gateway, server) for server in (streamable, sse)]
            begin = time.monotonic()
            self._end = begin + self._seconds
            with ThreadPoolExecutor(CALLERS + len(subjects) + 1) as threads:
                working = [threads.submit(self._call, subjects, number) for number in range(CALLERS)]
                working += [threads.submit(self._trouble, subject) for subject in subjects]
                working.append(threads.submit(self._watch, gateway.pid, begin))
                for done in working:
                    done.result()
            self._took = time.monotonic() - begin
            self._finish(gateway, subjects)
        return self._problems

    def _add(self, gateway: AuthenticatingGateway, server: ServerProcess) -> Subject:
        registered = register(gateway, server, passthrough_headers=["X-User", "X-Request-Id"])
        names = [
            next(
                item[key] for item in gateway.json("GET", path) if item["gatewayId"] == registered.identifier
            )
            for path, key in (("/prompts", "id"), ("/resources", "id"))
        ]
        return Subject(registered, *map(str, names))

    def _wrong(self, problem: str) -> None:
        with self._lock:
            self._problems.append(problem)

    # ---- callers

    def _call(self, subjects: list[Subject], number: int) -> None:
        chance = random.Random(number)
        user = USERS[number % len(USERS)]
        signed = as_user(user, **{"X-User": user})
        while self._goes_on:
            subject = chance.choice(subjects)
            headers = {**signed, "X-Request-Id": f"request-{next(self._numbers)}"}
            kind = chance.choice(["whoami"] * 4 + ["echo", "slow", "fail", "resource", "prompt"])
            begin = time.monotonic()
            try:
                problem = self._one_call(subject.registered, kind, user, headers, subject)
            except (OSError, ValueError, KeyError) as error:
                problem = repr(error)
            end = time.monotonic()
            with self._lock:
                self._slowest = max(self._slowest, end - begin)
                was_killed = subject.was_killed(begin, end)
                taken = problem and problem.startswith("failed") and was_killed
                self._calls["answered" if not problem else "taken along" if taken else "WRONG"] += 1
            if problem and not taken:
                self._wrong(f"{subject.registered.server.transport} {kind} of {user}: {problem}")

    def _one_call(
        self, registered: Registered, kind: str, user: str, headers: dict[str, str], subject: Subject
    ) -> str:
        """What is wrong with the answer; nothing: it is right."""
        gateway = registered.gateway
        if kind in ("resource", "prompt"):
            method, path, body = ("GET", f"/resources/{subject.resource}", None)
            if kind == "prompt":
                method, path, body = ("POST", f"/prompts/{subject.prompt}", {"name": user})
            status, content = gateway.request(method, path, body, headers)
            if status != 200:
                return f"failed: HTTP {status} {content[:200]!r}"
            wanted = f"a note for {user if kind == 'prompt' else 'all'}"
            return "" if wanted.encode() in content else f"another answer: {content[:200]!r}"
        arguments: dict[str, Any] = {"echo": {"text": headers["X-Request-Id"]}, "slow": {"seconds": 0.2}}.get(
            kind, {}
        )
        answer = gateway.call(registered.name, kind, headers, **arguments)
        said = json.dumps(answer.body)
        if kind == "fail":
            return "" if "Error executing tool fail" in said else f"failed: {said[:300]}"
        if answer.failed:
            return f"failed: HTTP {answer.status} {said[:300]}"
        if kind == "whoami":
            return self._who(user, headers, json.loads(answer.text))
        wanted = headers["X-Request-Id"] if kind == "echo" else "slept 0.2"
        return "" if answer.text == wanted else f"another answer: {answer.text}"

    def _who(self, user: str, headers: dict[str, str], seen: dict[str, Any]) -> str:
        got = seen["headers"]
        if got.get("x-user") != user or got.get("x-request-id") != headers["X-Request-Id"]:
            return f"crossed: {got}"
        with self._lock:
            owner = self._user_of.setdefault(seen["session"], user)
        return "" if owner == user else f"crossed: a session of {owner}"

    # ---- trouble

    def _trouble(self, subject: Subject) -> None:
        while self._goes_on:
            time.sleep(self._random.uniform(*QUIET_SECONDS))
            event = self._random.choice(["kill", "freeze", "forget", "change"])
            self._events[event] += 1
            try:
                if event == "change":
                    subject.change(next(self._numbers))
                elif event == "freeze":
                    subject.freeze(self._random.uniform(0.1, 2.0))
                else:
                    getattr(subject, event)()
            except Exception as error:
                self._wrong(f"{event}: {error!r}")

    def _watch(self, pid: int, begin: float) -> None:
        while self._goes_on:
            time.sleep(1.0)
            self._memory.add(time.monotonic() - begin, resident_mib(pid))

    # ---- the end

    def _finish(self, gateway: AuthenticatingGateway, subjects: list[Subject]) -> None:
        self._series: collections.Counter[str] = collections.Counter()
        for subject in subjects:
            self._add_up(subject.registered)
        if self._memory.excess() > 0:
            self._wrong(f"memory grew by {self._memory.excess():.1f} MiB more than it may")
        with contextlib.suppress(Exception):
            gateway.stop()
        for complaint in COMPLAINTS:
            if complaint in gateway.output:
                self._wrong(f"the gateway's log says {complaint!r}")

    def _add_up(self, registered: Registered) -> None:
        try:
            wait_until(lambda: registered.count("active_sessions") == 0, 30)
        except TimeoutError:
            self._wrong("sessions are still checked out")
        samples = registered.gateway.samples()

        def count(name: str) -> int:
            with contextlib.suppress(KeyError):
                return int(sum_samples(samples, PREFIX + name, gateway_id=registered.identifier))
            return 0

        names = ("creates_total", "evictions_total", "size", "hits_total", "misses_total", "replays_total")
        found = {name: count(name) for name in (*names, "unpooled_calls_total")}
        self._series.update(found)
        if found["creates_total"] != found["size"] + found["evictions_total"]:
            self._wrong(f"creates are not size + evictions: {found}")
        if found["unpooled_calls_total"]:
            self._wrong(f"calls went past the pool: {found}")

    def report(self) -> None:
        """Print what happened."""
        series = self._series
        release = importlib.metadata.version("mcp-contextforge-gateway")
        total = self._calls.total()
        print(f"{self._took:.0f} s on ContextForge {release}, {CALLERS} callers, {len(USERS)} users")
        print("trouble:   ", dict(sorted(self._events.items())))
        print(f"calls:      {total} ({total / self._took:.1f} a second): {dict(self._calls.most_common())}")
        print(f"slowest:    {self._slowest:.1f} s")
        print(
            f"sessions:   {series['creates_total']} opened, {series['hits_total']} hits,"
            f" {series['evictions_total']} closed, {series['size']} open;"
            f" {series['replays_total']} calls sent once more;"
            f" {len(self._user_of)} sessions told of themselves, each to one user"
        )
        print(f"memory:     {self._memory}")


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long, default 600")
    parser.add_argument("--seed", type=int, default=1, help="of what happens, default 1")
    arguments = parser.parse_args()
    soak = Soak(arguments.seconds, arguments.seed)
    with tempfile.TemporaryDirectory(prefix="mcpgateway-pool-soak-") as folder:
        problems = soak.run(Path(folder))
    soak.report()
    for problem in problems:
        print("PROBLEM:", problem)
    print("failed" if problems else "passed: nothing is lost, nothing crossed, nothing grows")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
