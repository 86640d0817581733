"""Run the programs of ``examples/`` as processes of their own, and see what they leave behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from servers.waiting import wait_until

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def start_example(folder: Path, name: str, *arguments: str) -> subprocess.Popen[str]:
    """Start one; its outputs are captured.

    Args:
        folder: for its temporary files. All of its processes have it in their environment.
        name: of the program.
    """
    return subprocess.Popen(
        [sys.executable, "-P", str(EXAMPLES / name), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        env={**os.environ, "TMPDIR": str(folder)},
    )


def read_until(process: subprocess.Popen[str], start: str) -> str:
    """Its output up to the line that begins so, or to its end."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.strip().startswith(start):
            break
    return "".join(lines)


def assert_gateway_demo_adds_up(folder: Path, name: str, last_line: str) -> None:
    """A demo of the real gateway: its summary, its series while it goes on, and that it leaves nothing.

    Args:
        last_line: how the line begins after which it goes on.
    """
    with start_example(folder, name, "--keep") as process:
        summary = read_until(process, last_line)
        assert "Every number adds up" in summary, summary
        url = re.search(r"series\s+(http://\S+)", summary)
        assert url is not None, summary
        if last_line.startswith("series"):  # else the endpoint wants a token
            assert 'mcp_session_pool_hits_total{gateway_id="' in fetch(url.group(1))
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    assert re.search(r"\d more calls, 0 failed", output), output
    assert processes_left(folder) == []
    assert list(folder.iterdir()) == []


def fetch(url: str) -> str:
    """A page of 127.0.0.1, whatever proxies the environment names."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=30) as response:
        content: bytes = response.read()
    return content.decode()


def processes_left(folder: Path) -> list[str]:
    """Command lines of the processes of a folder's examples, once those that are ending have had time to."""
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: not _processes_of(folder), 10)
    return _processes_of(folder)


def _processes_of(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_text().replace("\0", " "))
    return found
