"""The examples do what the documentation says, as processes of their own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mcpgateway_pool.upstream import sdk
from servers.process import ServerProcess
from servers.program import free_port
from support.doc_commands import ROOT, block_with
from support.examples import fetch, processes_left, read_until, start_example


def test_the_first_program_sends_three_calls_over_one_session(tmp_path: Path) -> None:
    with ServerProcess() as server:
        with start_example(tmp_path, "first_program.py", server.url) as process:
            output, errors = process.communicate(timeout=30)
        assert errors == ""
        assert output == "one\ntwo\nthree\nhit rate: 0.6666666666666666\n"
        assert server.stats()["initialize"] == 1


def test_the_server_and_the_first_program_of_the_readme_as_they_are_typed(tmp_path: Path) -> None:
    """In a shell at a terminal, but for the port."""
    [start] = [line for line in block_with("README.md", "demo_server") if line.startswith("python ")]
    [run] = block_with("README.md", "first_program")
    shutil.copy(ROOT / "examples" / "first_program.py", tmp_path)
    port = str(free_port())
    typed: dict[str, Any] = {
        "cwd": tmp_path,
        "env": {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        "text": True,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    }
    keyboard, terminal = os.openpty()
    command = ["bash", "-c", "exec " + start.replace("8000", port)]
    with subprocess.Popen(command, stdin=terminal, process_group=0, **typed) as server:
        os.close(terminal)
        assert server.stdout is not None
        assert server.stdout.readline() == f"{port}\n"
        done = subprocess.run(["bash", "-c", run.replace("8000", port)], timeout=60, check=False, **typed)
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=60)
    os.close(keyboard)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "one\ntwo\nthree\nhit rate: 0.6666666666666666\n"
    assert (server.returncode, errors) == (0, "")


@pytest.mark.long("hundreds of calls for its figures; what it shows has tests of its own")
@pytest.mark.timeout(240)
@pytest.mark.skipif(
    sdk.generation() == 2,
    reason="the demo's servers are written for the MCP SDK 1.x, which make demo-lite installs",
)
def test_the_demo_adds_up_serves_its_series_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with start_example(tmp_path, "demo.py", "--keep") as process:
        summary = read_until(process, "series  http")
        assert "Every number adds up" in summary
        url = re.search(r"series\s+(http://\S+)", summary)
        assert url is not None, summary
        assert "mcp_session_pool_hits_total" in fetch(url.group(1))
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    assert "more calls, 0 failed" in output
    assert processes_left(tmp_path) == []
