"""Start, stop, kill and freeze the test server as a process of its own. Standard library only."""

from __future__ import annotations

import json
import os
import select
import signal
import ssl
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Literal

from .nursery import ForkedServer, nursery
from .program import Program
from .waiting import wait_until


class ServerProcess(Program):
    """One MCP test server in its own process.

    Args:
        transport: ``"streamablehttp"`` or ``"sse"``.
        port: 0 for any free one; it is kept by :meth:`restart`.
        args: more arguments of ``mcp_server.py``, such as ``"--json"``.
        start_timeout: seconds to wait for it to listen.
        python: the interpreter, default the running one.
        client_certificate: the file with the certificate and key with which its counters are asked for, where
            it wants one.
    """

    def __init__(
        self,
        transport: Literal["sse", "streamablehttp"] = "streamablehttp",
        *args: str,
        port: int = 0,
        start_timeout: float = 60.0,
        python: str = sys.executable,
        client_certificate: Path | None = None,
    ) -> None:
        self.transport: Literal["sse", "streamablehttp"] = transport
        self.port = port
        self.path = ""
        self.sdk = ""
        self._args = args
        self._start_timeout = start_timeout
        self._python = python
        self._client_certificate = client_certificate
        self._process: ForkedServer | None = None
        self._stdin = self._stdout = -1
        self._stderr: IO[str] | None = None

    @property
    def url(self) -> str:
        """The MCP endpoint."""
        return self._origin + self.path

    @property
    def _origin(self) -> str:
        return f"{'https' if '--certificate' in self._args else 'http'}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process id; RuntimeError when it does not run."""
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and wait until it listens.

        Raises:
            RuntimeError: it ended, or did not listen in time; with what it wrote to its standard error.
        """
        if self.running:
            raise RuntimeError("the server runs already")
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed by kill)
        arguments = ["--transport", self.transport, "--port", str(self.port), *self._args]
        its_input, self._stdin = os.pipe()
        self._stdout, its_output = os.pipe()
        try:
            self._process = nursery(self._python).start(
                arguments, its_input, its_output, self._stderr.fileno()
            )
        finally:
            os.close(its_input)
            os.close(its_output)
        try:
            line = self._first_line()
            announced = json.loads(line)
        except BaseException as error:
            said = self._said()
            self.kill()
            if not isinstance(error, (ValueError, TimeoutError)):
                raise
            raise RuntimeError(f"the test server did not start: {error}\n{said}") from error
        self.port, self.path, self.sdk = announced["port"], announced["path"], announced["sdk"]

    def _first_line(self) -> str:
        if not select.select([self._stdout], [], [], self._start_timeout)[0]:
            raise TimeoutError(f"nothing on its standard output in {self._start_timeout:g} s")
        return os.read(self._stdout, 4096).decode()  # printed at once, or not at all

    def _said(self) -> str:
        if self._stderr is None:
            return ""
        self._stderr.seek(0)
        return self._stderr.read()[-4000:]

    def kill(self) -> None:
        """End it at once (SIGKILL) and wait until it is gone. Harmless when it is gone already."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
        pipes, self._stdin, self._stdout = {self._stdin, self._stdout} - {-1}, -1, -1
        for pipe in pipes:
            os.close(pipe)
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None

    def stop(self, timeout: float = 5.0) -> int | None:
        """Ask it to end (SIGTERM), wait at most ``timeout`` seconds, then kill it. Its exit code, None if
        killed.
        """
        code: int | None = None
        if self._process is not None:
            self._process.terminate()
            try:
                code = self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                code = None
        self.kill()
        return code

    def terminate(self) -> None:
        """Send SIGTERM and do not wait."""
        self.send_signal(signal.SIGTERM)

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal; RuntimeError when it was not started, or was killed."""
        if self._process is None:
            raise RuntimeError("the server is not running")
        self._process.send_signal(number)

    def stats(self) -> dict[str, Any]:
        """The counters of ``faults.py``."""
        return self._get("/stats")

    def fault(self, kind: str = "status", **options: object) -> None:
        """Plan a fault: see ``faults.py``."""
        query = urllib.parse.urlencode({"kind": kind, **options})
        self._get(f"/fault?{query}")

    def wait_for(self, condition: Callable[[dict[str, Any]], bool], timeout: float = 30.0) -> dict[str, Any]:
        """The first counters that satisfy the condition; TimeoutError when none do in ``timeout`` seconds."""
        stats: dict[str, Any] = {}

        def ask() -> bool:
            stats.clear()
            stats.update(self.stats())
            return condition(stats)

        try:
            wait_until(ask, timeout, every=0.01)
        except TimeoutError as error:
            raise TimeoutError(f"the server's counters did not get there: {stats}") from error
        return stats

    def _get(self, path: str) -> dict[str, Any]:
        # No proxies: the environment may name one, and this is 127.0.0.1, whose certificate is a test's.
        context = ssl._create_unverified_context()
        if self._client_certificate is not None:
            context.load_cert_chain(self._client_certificate)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        with opener.open(self._origin + path, timeout=5.0) as response:
            result: dict[str, Any] = json.load(response)
        return result
