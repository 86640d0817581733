"""A gateway that is started, and looked at, by the lines that README and docs have their readers type."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from servers.process import ServerProcess
from servers.program import free_port

from .doc_commands import block_with
from .gateway_users import ADMIN, DefaultGateway, as_user

_STARTING = ("mcpgateway ", "uvicorn ")


class TypedGateway(DefaultGateway):
    """In its default configuration, but for what the lines say; the last one starts it. Ports, and what lies
    outside the test's folder, are others than in the documentation.
    """

    def __init__(self, folder: Path, lines: Sequence[str]) -> None:
        super().__init__(folder, port=free_port(), environment={"HEALTH_CHECK_INTERVAL": "3600"})
        assert lines[-1].startswith(_STARTING), lines
        self._lines = [line for line in lines if not line.startswith("pip install ")]

    def _typed(self, line: str) -> str:
        line = line.replace("0.0.0.0", "127.0.0.1").replace("4444", str(self.port))
        return line.replace("/run/", f"{self.folder.resolve()}/")

    def _variables(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        return {**super()._variables(), "PATH": path}

    def _command(self) -> list[str]:
        *before, last = (self._typed(line) for line in self._lines)
        return ["bash", "-c", "\n".join([*before, f"exec {last}"])]

    def run(self, line: str) -> str:
        """What a line prints that is typed into a shell beside it, in the same folder; it must succeed."""
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", self._typed(line)],
            cwd=self.folder, env=self._variables(), capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout


README, DOCS = "README.md", "docs/gateway.md"
STARTING = block_with(README, "mcpgateway --host")
STARTING_WITH_VARIABLE = block_with(DOCS, "mcpgateway --host")
STARTING_OUR_APP = block_with(DOCS, "uvicorn mcpgateway_pool.gateway.asgi:app")
SETTINGS = [
    *block_with(DOCS, "export MCP_SESSION_POOL_ENABLED"),
    *block_with(DOCS, "export MCPGATEWAY_POOL_CALLS_WITHOUT_SESSION"),
    *block_with(DOCS, "export MCPGATEWAY_POOL_METRICS_DIR"),
]
SCRAPING = block_with(DOCS, "create_jwt_token")
CHECKING = block_with(DOCS, "doctor --url")
WATCHING = block_with(README, "mcpgateway-pool top")


def assert_documented_commands_work(folder: Path, *, is_pooled_by_default: bool) -> None:
    """Start the gateway as README and docs/gateway.md say, call a tool, and look at it as they say."""
    assert STARTING_WITH_VARIABLE[-1].replace("0.0.0.0", "127.0.0.1") == STARTING[-1]
    for number, lines in enumerate((STARTING, [*SETTINGS, *STARTING_WITH_VARIABLE[:-1], *STARTING_OUR_APP])):
        with TypedGateway(folder / str(number), lines) as gateway, ServerProcess() as server:
            identifier = gateway.register("server", server.url)
            assert gateway.call("server", "echo", as_user(ADMIN), text="hello").text == "hello"
            has_settings = number > 0
            _look_at(gateway, identifier if is_pooled_by_default or has_settings else None)
            assert ("shared counters in" in gateway.output) is has_settings
            assert gateway.stop() in {0, -signal.SIGTERM}


def _look_at(gateway: TypedGateway, identifier: str | None) -> None:
    """By the commands of both pages; ``identifier``: the gateway whose calls were pooled, if any."""
    *before, scrape = SCRAPING
    for line in before:
        gateway.run(line)
    series = gateway.run(scrape)
    assert "mcp_session_pool_max_sessions_per_key" in series or identifier is None
    assert identifier is None or f'gateway_id="{identifier}"' in series
    for line in CHECKING:
        assert "shows the pool" in gateway.run(line)
    for line in WATCHING:
        if not line.startswith("pip "):
            # The live view wants a terminal; tests/integration/test_cli.py has one.
            said = gateway.run(line + " --once" * (" top " in line))
            assert "hit rate" in said or " top " not in line
    assert (gateway.folder / "mcpgateway-pool.rules.yaml").exists()
