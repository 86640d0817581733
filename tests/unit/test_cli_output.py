"""An output that takes no more: one line, and an exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.command import exposition
from support.endpoint import serving

COMMANDS = [
    ["--help"],
    ["--version"],
    ["rules"],
    ["dashboards"],
    ["doctor"],
    ["top", "--once", "--totals"],
    ["top", "--once", "--totals", "--json"],
    ["top", "--json", "--interval", "0.01"],
]

BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def run(command: list[str], url: str, stdout: int, **options: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [
            sys.executable,
            "-P",
            "-m",
            "mcpgateway_pool.cli",
            *command,
            *([url] if command[0] == "top" else []),
        ],
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=110,
        check=False,
        **options,  # type: ignore[call-overload]
    )


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_pipe_that_nobody_reads_is_one_line_and_an_exit_code(command: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with serving(exposition(hits=1)) as endpoint:
            done = run(command, endpoint.url, writing, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (
        1,
        b"mcpgateway-pool: the output cannot be written: Broken pipe\n",
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("command", COMMANDS[::2], ids=" ".join)
def test_a_full_disk_is_one_line_and_an_exit_code(command: list[str]) -> None:
    with serving(exposition(hits=1)) as endpoint, Path("/dev/full").open("wb") as full:
        done = run(command, endpoint.url, full.fileno(), env=BUFFERED)
    assert (done.returncode, done.stderr) == (
        1,
        b"mcpgateway-pool: the output cannot be written: No space left on device\n",
    )


def test_an_output_that_was_never_open_is_one_line_and_an_exit_code() -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -P -m mcpgateway_pool.cli rules >&-', sys.executable],
        stderr=subprocess.PIPE, timeout=110, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        1,
        b"mcpgateway-pool: the output cannot be written: Bad file descriptor\n",
    )


def test_errors_that_cannot_be_written_keep_the_exit_code() -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -P -m mcpgateway_pool.cli top --once 127.0.0.1:1 2>&-', sys.executable],
        stdout=subprocess.PIPE, timeout=110, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, b"")


def test_characters_that_the_output_does_not_have_are_escaped() -> None:
    with serving(exposition(gateway="größe")) as endpoint:
        done = run(
            ["top", "--once", "--totals"], endpoint.url, subprocess.PIPE,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )  # fmt: skip
    assert done.returncode == 0
    assert b"gr\\xf6\\xdfe" in done.stdout
