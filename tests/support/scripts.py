"""Programs that tests run in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

_TESTS = str(Path(__file__).resolve().parent.parent)

PRELUDE = """
import asyncio, gc, os, sys
from support.fakes import *
"""


def run_script(
    body: str, *arguments: str, timeout: float = 110, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a program with the installed package and these helpers; its output is captured.

    Args:
        variables: more of its environment.
    """
    environment = {**os.environ, "PYTHONPATH": _TESTS, **variables}
    return subprocess.run(
        [sys.executable, "-P", "-X", "faulthandler", "-c", PRELUDE + dedent(body), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def assert_runs_quietly(body: str, *arguments: str, **variables: str) -> str:
    """Run it; exit code 0, and nothing on the standard error output.

    Args:
        variables: more of its environment.

    Returns:
        The standard output.
    """
    done = run_script(body, *arguments, **variables)
    __tracebackhide__ = True
    if done.returncode or done.stderr:
        raise AssertionError(f"exit code {done.returncode}\n{done.stderr}")
    return done.stdout
