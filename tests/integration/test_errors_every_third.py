"""The short form of `make soak-errors`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[1] / "soak" / "errors.py"


@pytest.mark.long("ten seconds of calls; what each error does to its session has tests of its own")
@pytest.mark.timeout(150)
def test_servers_that_answer_an_error_to_every_third_call_cost_no_session() -> None:
    done = subprocess.run(
        [sys.executable, "-P", str(PROGRAM), "--seconds", "10"],
        capture_output=True,
        text=True,
        timeout=140,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert " 0 misses)" in done.stdout
