"""The MCP servers of the demos, as processes of their own. Standard library only."""

from __future__ import annotations

import http.client
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent / "demo_server.py"


class DemoServer:
    """One MCP server in a process of its own.

    Args:
        name: by which the demo calls it.
        transport: ``"streamablehttp"`` or ``"sse"``.
        away_seconds: how long each request waits, as if the server were far away.
        is_old: whether it knows only revisions of the protocol before 2026-07-28.
    """

    def __init__(self, name: str, transport: str, away_seconds: float = 0.0, *, is_old: bool = False) -> None:
        self.name = name
        self.transport = transport
        self.port = 0
        self._arguments = [str(away_seconds), *(["old"] if is_old else [])]
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """The MCP endpoint."""
        path = "sse" if self.transport == "sse" else "mcp"
        return f"http://127.0.0.1:{self.port}/{path}"

    def start(self) -> None:
        """Start it, on the port that it had before; returns when it listens."""
        # A process group of its own: Ctrl-C is for the demo, which then ends the servers.
        process = self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT), self.transport, str(self.port), *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{SCRIPT.name} did not start")
        self.port = int(line)

    def requests(self) -> int:
        """How many it got since it was started."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", "/requests")
            return int(connection.getresponse().read())
        finally:
            connection.close()

    def kill(self) -> None:
        """End it at once; harmless when it does not run."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()
