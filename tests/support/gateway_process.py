"""Boot a real ContextForge gateway as a process of its own, use it over HTTP, and stop it.

Standard library and ``prometheus_client`` only. The interpreter (default: the running one) must have
``mcp-contextforge-gateway`` installed; without the switch it runs the gateway's own pool.

    with GatewayProcess(tmp_path, environment=SWITCH) as gateway, ServerProcess() as server:
        gateway.register("weather", server.url)
        assert gateway.call("weather", "echo", text="hello").text == "hello"
        assert gateway.sum("mcp_session_pool_misses_total") == 1
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from prometheus_client.parser import text_string_to_metric_families

from servers.program import Program, free_port
from servers.waiting import wait_until

SWITCH = {"MCPGATEWAY_POOL_ENABLED": "true"}
STOCK_APP = "mcpgateway.main:app"
OUR_APP = "mcpgateway_pool.gateway.asgi:app"

Launcher = Literal["uvicorn", "gunicorn", "gunicorn-preload", "granian", "mcpgateway"]
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

# Servers close a connection that was idle for 5 s; a request sent at that very moment would be lost.
_KEEPALIVE_SECONDS = 2.0

# Not secrets: made for this process, and strong enough for the gateway to accept them.
_SECRET = secrets.token_urlsafe(32) + "Aa1!"


class GatewayError(RuntimeError):
    """The gateway did not do what the test needs; with what it wrote."""


@dataclass(frozen=True)
class Answer:
    """What a tool call got: the HTTP status, the JSON-RPC answer, and how long it took."""

    status: int
    body: dict[str, Any] = field(repr=False)
    seconds: float

    @property
    def failed(self) -> bool:
        """Whether it is anything but a tool's result."""
        return self.status != 200 or "result" not in self.body or bool(self.body["result"].get("isError"))

    @property
    def text(self) -> str:
        """The text of the result; GatewayError when the call failed."""
        if self.failed:
            raise GatewayError(f"the call failed: HTTP {self.status}, {self.body}")
        return str(self.body["result"]["content"][0]["text"])


def parse_samples(exposition: str) -> Samples:
    """Every sample of a scrape by name and labels; AssertionError when one is there twice."""
    samples: Samples = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in samples, f"{sample.name} {sample.labels} is there twice"
            samples[key] = sample.value
    return samples


def sum_samples(samples: Samples, name: str, **labels: str) -> float:
    """The sum over a series' samples that have these labels; KeyError when there is none."""
    found = [
        value
        for (series, have), value in samples.items()
        if series == name and labels.items() <= dict(have).items()
    ]
    if not found:
        raise KeyError(f"no sample of {name} with {labels}")
    return sum(found)


class GatewayProcess(Program):
    """One gateway, with SQLite in a folder of its own.

    Args:
        folder: where database, log file and working directory are; made when it does not exist.
        launcher: how it is started. ``mcpgateway`` is the gateway's own command.
        workers: worker processes; more than one has a parent process that only supervises.
        app: the ASGI application, ``STOCK_APP`` or ``OUR_APP``.
        environment: variables beside those that every gateway here gets; ``SWITCH`` turns our pool on.
        python: the interpreter, default the running one.
        port: 0 for a free one.
        start_timeout: seconds until it must answer. Booting takes about 7 s of CPU time per worker.
    """

    def __init__(
        self,
        folder: Path,
        *,
        launcher: Launcher = "uvicorn",
        workers: int = 1,
        app: str = STOCK_APP,
        environment: Mapping[str, str] | None = None,
        python: str = sys.executable,
        port: int = 0,
        start_timeout: float = 240.0,
    ) -> None:
        self.folder = folder
        self.launcher: Launcher = launcher
        self.workers = workers
        self.app = app
        self.port = port
        self._environment = dict(environment or {})
        self._python = python
        self._start_timeout = start_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._tools: dict[tuple[str, str], str] = {}
        self._local = threading.local()

    # ------------------------------------------------------------ the process

    @property
    def url(self) -> str:
        """Its base URL, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process that was started: the only worker, or the supervisor. GatewayError without one."""
        if self._process is None:
            raise GatewayError("the gateway is not running")
        return self._process.pid

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal; GatewayError when it does not run."""
        os.kill(self.pid, number)

    @property
    def output(self) -> str:
        """Everything that it and its workers wrote so far, standard output and error together."""
        path = self.folder / "gateway.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def worker_pids(self) -> list[int]:
        """The processes that serve: the only one, or the supervisor's worker processes."""
        if self.workers == 1 and not self.launcher.startswith("gunicorn"):
            return [self.pid]
        # uvicorn's children include Python's resource tracker, which serves nothing.
        return [pid for pid in _children(self.pid) if b"resource_tracker" not in _command_line(pid)]

    def helper_pids(self, worker: int) -> list[int]:
        """The processes that a worker has started: in 1.1, they evaluate its users' expressions."""
        return _children(worker)

    def start(self) -> None:
        """Start it and wait until every worker answers; GatewayError when it does not in time."""
        if self._process is not None:
            raise GatewayError("the gateway runs already")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._make_database()
        self.port = self.port or free_port()
        with (self.folder / "gateway.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self.folder,  # where the gateway looks for a .env file: there is none
                env=self._variables(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that kill() finds all of its processes
            )
        try:
            self._wait_until_healthy()
        except BaseException:
            self.kill()
            raise

    @property
    def _database(self) -> Path:
        return self.folder.resolve() / "gateway.db"

    def _make_database(self) -> None:
        # In WAL mode from the start: the gateway sets it on each connection before it sets a busy timeout,
        # and where several workers begin on a new file together, that fails with "database is locked".
        connection = sqlite3.connect(self._database)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        finally:
            connection.close()

    def _command(self) -> list[str]:
        address = ["--host", "127.0.0.1", "--port", str(self.port)]
        workers = ["--workers", str(self.workers)]
        if self.launcher == "uvicorn":
            # Its supervisor replaces a worker that does not answer in 5 s: on a busy machine, or in only().
            patience = ["--timeout-worker-healthcheck", "120"]
            return [self._python, "-m", "uvicorn", self.app, *address, *workers, *patience]
        if self.launcher == "granian":
            options = ["--interface", "asgi", "--respawn-failed-workers", "--workers-kill-timeout", "10"]
            return [self._python, "-m", "granian", *options, *address, *workers, self.app]
        if self.launcher == "mcpgateway":
            app = [] if self.app == STOCK_APP else [self.app]
            return [str(Path(self._python).with_name("mcpgateway")), *app, *address, *workers]
        command = [self._python, "-m", "gunicorn", self.app, "--bind", f"127.0.0.1:{self.port}", *workers]
        command += ["--worker-class", "uvicorn.workers.UvicornWorker", "--timeout", "120"]
        return [*command, "--preload"] if self.launcher == "gunicorn-preload" else command

    def _variables(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return {
            **kept,
            "TMPDIR": str(self.folder.resolve()),  # the gateway's lock files
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "NO_PROXY": "127.0.0.1",
            "DATABASE_URL": f"sqlite:///{self._database}",
            "CACHE_TYPE": "memory",
            "AUTH_REQUIRED": "false",
            "MCP_SESSION_POOL_ENABLED": "true",
            "MCPGATEWAY_ADMIN_API_ENABLED": "true",
            # Later releases need to be told so; those before do not know these.
            "ALLOW_UNAUTHENTICATED_ADMIN": "true",
            "ENABLE_METRICS": "true",
            "RATE_LIMITING_ENABLED": "false",  # tests ask more than a hundred times a minute
            "SSRF_ALLOW_LOCALHOST": "true",
            "SSRF_ALLOW_PRIVATE_NETWORKS": "true",
            "JWT_SECRET_KEY": _SECRET,
            "AUTH_ENCRYPTION_SECRET": _SECRET[::-1],
            "BASIC_AUTH_PASSWORD": _SECRET,
            "PLATFORM_ADMIN_PASSWORD": _SECRET,
            "DEFAULT_USER_PASSWORD": _SECRET,
            # The default, ERROR, hides what says that a worker has started.
            **({"LOG_LEVEL": "INFO"} if self.workers > 1 else {}),
            **self._environment,
        }

    def _wait_until_healthy(self) -> None:
        process = self._process
        assert process is not None

        def is_up() -> bool:
            if process.poll() is not None:
                raise GatewayError(f"the gateway ended with {process.returncode}\n{self.output[-6000:]}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                return len(self.worker_pids()) == self.workers and self._all_workers_healthy()
            return False

        try:
            wait_until(is_up, self._start_timeout, every=0.1)
        except TimeoutError as error:
            raise GatewayError(f"no answer in {self._start_timeout:g} s\n{self.output[-6000:]}") from error

    def _all_workers_healthy(self) -> bool:
        if self.workers == 1:
            return self.request("GET", "/health")[0] == 200
        # Each worker says so when its application has started; before that it does not accept.
        said = "Started worker-" if self.launcher == "granian" else "Application startup complete"
        return self.output.count(said) >= self.workers

    def stop(self, timeout: float = 30.0, *, orphans: Collection[int] = ()) -> int:
        """Ask it to end (SIGTERM) and wait.

        Args:
            timeout: seconds.
            orphans: processes that it may leave behind: the helpers of a worker that was killed.

        Returns:
            Its exit code, negative for a signal.

        Raises:
            GatewayError: it did not end in ``timeout`` seconds, or left a process behind. Everything is
                killed then.
        """
        process = self._process
        if process is None:
            raise GatewayError("the gateway is not running")
        self._close_connection()
        process.terminate()
        try:
            code = process.wait(timeout)
            # Helpers of the interpreter (its resource tracker) end just after their parent.
            with contextlib.suppress(TimeoutError):
                wait_until(lambda: not _group_members(process.pid, orphans), 5)
            left = _group_members(process.pid, orphans)
        except subprocess.TimeoutExpired as error:
            raise GatewayError(f"the gateway did not end in {timeout:g} s\n{self.output[-6000:]}") from error
        finally:
            self.kill()
        if left:
            raise GatewayError(f"the gateway left processes behind: {left}")
        return code

    def kill(self) -> None:
        """End all of its processes at once (SIGKILL). Harmless when they are gone."""
        self._close_connection()
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    @contextlib.contextmanager
    def only(self, pid: int) -> Iterator[None]:
        """Requests reach this worker alone: the others are stopped (SIGSTOP) meanwhile. Supervisors here wait
        for two minutes before they replace a worker that is silent.
        """
        others = [other for other in self.worker_pids() if other != pid]
        self._close_connection()  # it may lead to one of them
        for other in others:
            os.kill(other, signal.SIGSTOP)
        try:
            yield
        finally:
            for other in others:
                os.kill(other, signal.SIGCONT)
            self._close_connection()

    # ------------------------------------------------------------ requests

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 90.0,
    ) -> tuple[int, bytes]:
        """One HTTP request on a connection that this thread keeps.

        Args:
            method, path: of the request.
            body: sent as JSON unless None.
            headers: more headers.
            timeout: seconds.

        Returns:
            The status and the body, unpacked.
        """
        if time.monotonic() - getattr(self._local, "used", 0.0) > _KEEPALIVE_SECONDS:
            self._close_connection()
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
            self._local.connection = connection
        sent = {"Accept": "application/json", **(headers or {})}
        content = None
        if body is not None:
            content = json.dumps(body)
            sent["Content-Type"] = "application/json"
        try:
            connection.request(method, path, content, sent)
            response = connection.getresponse()
            received = response.read()
            self._local.used = time.monotonic()
        except BaseException:
            self._close_connection()
            raise
        if response.getheader("Content-Encoding") == "gzip":
            received = gzip.decompress(received)
        return response.status, received

    def _close_connection(self) -> None:
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def json(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        """A request that must succeed; its JSON. GatewayError with the answer when it does not."""
        status, content = self.request(method, path, body, headers)
        if not 200 <= status < 300:
            raise GatewayError(f"{method} {path}: HTTP {status}: {content[:2000].decode(errors='replace')}")
        return json.loads(content)

    # ------------------------------------------------------------ the gateway's own REST API

    def register(self, name: str, url: str, transport: str = "STREAMABLEHTTP", **more: object) -> str:
        """Register an MCP server (``POST /gateways``); its tools can be called from then on.

        Args:
            name: any, unique.
            url: its MCP endpoint.
            transport: ``STREAMABLEHTTP`` or ``SSE``.
            more: further fields of the request, such as ``passthrough_headers=["X-User-Id"]``.

        Returns:
            The gateway id that the series show.
        """
        identifier = self.add_gateway(name, url, transport, **more)
        self.learn_tools(name, identifier)
        return identifier

    def add_gateway(self, name: str, url: str, transport: str = "STREAMABLEHTTP", **more: object) -> str:
        """Register an MCP server whose tools the gateway does not ask for yet; see :meth:`register`."""
        made = self.json("POST", "/gateways", {"name": name, "url": url, "transport": transport, **more})
        return str(made["id"])

    def learn_tools(self, name: str, identifier: str) -> None:
        """Wait until the gateway shows the tools of a server, which can be called from then on."""

        def tools() -> list[dict[str, Any]]:
            return [
                tool for tool in self.json("GET", "/tools?limit=0") if tool.get("gatewayId") == identifier
            ]

        for tool in wait_until(tools, 30, every=0.1):  # the gateway may show an older list for a moment
            self._tools[name, str(tool["originalName"])] = str(tool["name"])

    def call(
        self, server: str, tool: str, /, headers: Mapping[str, str] | None = None, **arguments: object
    ) -> Answer:
        """Call a tool of a registered server (``POST /rpc``, ``tools/call``)."""
        message = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": self._tools[server, tool], "arguments": arguments},
        }
        begin = time.perf_counter()
        status, content = self.request("POST", "/rpc", message, headers)
        seconds = time.perf_counter() - begin
        try:
            body = json.loads(content)
        except ValueError:
            body = {"not JSON": content[:2000].decode(errors="replace")}
        return Answer(status, body if isinstance(body, dict) else {"answer": body}, seconds)

    def call_many(
        self,
        count: int,
        concurrency: int,
        server: str,
        tool: str,
        /,
        headers: Sequence[Mapping[str, str]] = ({},),
        **arguments: object,
    ) -> list[Answer]:
        """Call a tool ``count`` times from ``concurrency`` threads, each with a connection of its own.

        Args:
            headers: of the calls, taken in turn: one per user, for instance.
        """

        answers: dict[int, Answer] = {}
        numbers = iter(range(count))

        def caller() -> None:
            try:
                for number in numbers:
                    sent = headers[number % len(headers)]
                    answers[number] = self.call(server, tool, headers=sent, **arguments)
            finally:
                self._close_connection()  # it is this thread's

        with ThreadPoolExecutor(concurrency) as threads:
            for done in [threads.submit(caller) for _ in range(concurrency)]:
                done.result()
        return [answers[number] for number in range(count)]

    # ------------------------------------------------------------ the endpoint

    def scrape(self, headers: Mapping[str, str] | None = None) -> str:
        """What ``/metrics/prometheus`` shows, from one worker; on a new connection, so from any."""
        self._close_connection()
        sent = {"Accept": "*/*", **(headers or {})}
        status, content = self.request("GET", "/metrics/prometheus", headers=sent)
        if status != 200:
            raise GatewayError(f"/metrics/prometheus: HTTP {status}")
        return content.decode()

    def samples(self) -> Samples:
        """The samples of one scrape."""
        return parse_samples(self.scrape())

    def sum(self, name: str, **labels: str) -> float:
        """The sum over the samples of a series in one scrape; KeyError when there is none."""
        return sum_samples(self.samples(), name, **labels)

    def scrape_each_worker(self) -> list[Samples]:
        """One scrape from every worker."""
        scrapes = []
        for pid in self.worker_pids():
            with self.only(pid):
                scrapes.append(self.samples())
        return scrapes


def failures(answers: Iterable[Answer]) -> list[Answer]:
    """The answers of calls that failed."""
    return [answer for answer in answers if answer.failed]


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _group_members(group: int, but: Collection[int] = ()) -> list[str]:
    """The processes of a process group that still run, but for some, as text for a reader."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # pid (name) state ppid pgrp …: the name may contain anything, so count from its last bracket.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z" and int(folder.name) not in but:
            command = _command_line(int(folder.name)).replace(b"\0", b" ").decode(errors="replace")
            found.append(f"{folder.name} {command}")
    return found
