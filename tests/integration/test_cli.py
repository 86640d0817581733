"""The command line against a pool at work: its own demo, with real MCP servers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcpgateway_pool.cli.scrape import parse
from servers.waiting import wait_until
from support.examples import processes_left

COMMAND = [sys.executable, "-P", "-m", "mcpgateway_pool.cli"]

pytestmark = pytest.mark.timeout(120)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], env={**os.environ, **environment}, capture_output=True, text=True, timeout=90,
        check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a demo serves its series. It must end by itself when asked to, quietly, with its servers."""
    folder = tmp_path_factory.mktemp("demo")
    # A process group of its own, as a shell would give it.
    with subprocess.Popen(
        [*COMMAND, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0,
        env={**os.environ, "TMPDIR": str(folder)},
    ) as demo:  # fmt: skip
        try:
            assert demo.stdout is not None
            lines = [demo.stdout.readline() for _ in range(4)]
            found = re.fullmatch(r"series  (http://127\.0\.0\.1:\d+/metrics)\n", lines[0])
            assert found is not None, lines
            for line, path, gateway in ((lines[1], "mcp", "search"), (lines[2], "sse", "weather")):
                shown = rf"server  http://127\.0\.0\.1:[1-9]\d*/{path}  \(gateway {gateway}\)\n"
                assert re.fullmatch(shown, line), lines
            yield found.group(1)
            assert demo.poll() is None
            demo.send_signal(signal.SIGINT)
            _, errors = demo.communicate(timeout=60)
        finally:
            demo.kill()
    assert (demo.returncode, errors) == (0, "")
    assert processes_left(folder) == []


def test_top_once_shows_both_gateways_of_the_demo(url: str) -> None:
    done = run("top", url, "--once", "--interval", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert {"search", "weather", "all"} <= {
        line.split()[0] for line in done.stdout.splitlines() if line.split()
    }


def test_both_servers_of_the_demo_answer_calls(url: str) -> None:
    def hits() -> set[str]:
        with urllib.request.urlopen(url, timeout=30) as answer:
            scrape = parse("text/plain", [answer.read()])
        return {gateway for gateway in scrape.gateways if scrape.get("hits_total", gateway) > 0}

    assert wait_until(lambda: hits() >= {"search", "weather"}, 60)


def test_top_json_goes_on_until_it_is_stopped(url: str) -> None:
    with subprocess.Popen(
        [*COMMAND, "top", url, "--json", "--interval", "0.3"],
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as top:
        assert top.stdout is not None
        seen = [json.loads(top.stdout.readline()) for _ in range(2)]
        top.send_signal(signal.SIGINT)
        top.communicate(timeout=30)
    assert top.returncode == 130
    assert [{row["gateway_id"] for row in one["gateways"]} for one in seen] == [{"search", "weather"}] * 2
    assert all(one["window_seconds"] > 0 for one in seen)


def test_top_draws_on_a_terminal_until_it_is_stopped(url: str) -> None:
    main, terminal = os.openpty()
    with subprocess.Popen(
        [*COMMAND, "top", url, "--interval", "0.3"], stdin=terminal, stdout=terminal, stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "170", "LINES": "24"}, process_group=0,
    ) as top:  # fmt: skip
        os.close(terminal)
        seen = b""
        while seen.count(b"search") < 2 or "▁".encode() not in seen:
            seen += os.read(main, 65536)
        top.send_signal(signal.SIGINT)
        while True:  # what it still writes must be read, or it would not end
            try:
                if not os.read(main, 65536):
                    break
            except OSError:
                break
        _, errors = top.communicate(timeout=30)
    os.close(main)
    assert (top.returncode, errors) == (0, b"")


def test_doctor_finds_the_demo_in_order(url: str) -> None:
    done = run("doctor", "--url", url, MCPGATEWAY_POOL_METRICS_DIR="", PROMETHEUS_MULTIPROC_DIR="")
    assert done.stderr == ""
    assert f"{url} shows the pool; gateways: 2" in done.stdout
    assert done.returncode == 0, done.stdout


@pytest.mark.long("a second demo, for its end; the other tests are shown one that runs")
def test_the_demo_ends_after_its_time_and_does_not_count_where_others_share_counters(tmp_path: Path) -> None:
    done = run("demo", "--seconds", "2", MCPGATEWAY_POOL_METRICS_DIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_the_demo_says_what_to_install_without_the_sdk() -> None:
    code = """
import sys
sys.modules["mcp"] = None
from mcpgateway_pool.cli import main
sys.exit(main(["demo"]))
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 2
    assert "pip install 'mcpgateway-pool[mcp]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_demo_says_when_its_port_is_taken(url: str) -> None:
    port = str(urllib.parse.urlsplit(url).port)
    done = run("demo", "--port", port)
    assert done.returncode == 1
    assert f"port {port}: Address already in use" in done.stderr
    assert "Traceback" not in done.stderr
