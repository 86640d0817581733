"""The examples do what the documentation says, as processes of their own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from mcpgateway_pool import sdk
from servers.process import ServerProcess

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def example(name: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / name), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def test_the_first_program_sends_three_calls_over_one_session() -> None:
    with ServerProcess() as server:
        with example("first_program.py", server.url) as process:
            output, errors = process.communicate(timeout=30)
        assert errors == ""
        assert output == "one\ntwo\nthree\nhit rate: 0.6666666666666666\n"
        assert server.stats()["initialize"] == 1


@pytest.mark.timeout(120)
@pytest.mark.skipif(
    sdk.generation() == 2,
    reason="the demo's servers are written for the MCP SDK 1.x, which make demo installs",
)
def test_the_demo_adds_up_serves_its_series_and_leaves_nothing_behind() -> None:
    with example("demo.py", "--keep") as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.rstrip().endswith("(sse)"):
                break
        summary = "".join(lines)
        assert "Every number adds up" in summary
        url = re.search(r"series\s+(http://\S+)", summary)
        assert url is not None, summary
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url.group(1), timeout=10) as response:
            assert b"mcp_session_pool_hits_total" in response.read()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert "more calls, 0 failed" in output
    assert servers_left() == []


def servers_left() -> list[str]:
    """Command lines of demo servers, once those that are ending have had time to."""
    end = time.monotonic() + 3
    while True:
        left = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    command = Path("/proc", entry, "cmdline").read_bytes()
                except OSError:
                    continue
                if b"demo_server.py" in command:
                    left.append(command.decode())
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.05)
