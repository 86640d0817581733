"""The short form of the load test; `make lab` runs the long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LOAD = Path(__file__).resolve().parent / "load.py"


@pytest.mark.timeout(320)
def test_a_thousand_callers_lose_no_place_and_no_count() -> None:
    done = subprocess.run(
        [sys.executable, "-P", str(LOAD), "--seconds", "4", "--callers", "1000", "--pause", "0.5"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert " 0 problems" in done.stdout.splitlines()[-1]
