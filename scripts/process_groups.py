"""Ends what a driver has started, with all that it has started in its turn."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path


def end_group(process: subprocess.Popen[bytes], grace_seconds: float) -> None:
    """End a process that leads a group, and its group, also where the process itself has ended.

    Politely (SIGINT), and after ``grace_seconds`` not (SIGKILL).
    """
    for number in (signal.SIGINT, signal.SIGKILL):
        if not group_lives(process.pid):
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        end = time.monotonic() + grace_seconds
        while time.monotonic() < end and group_lives(process.pid):
            time.sleep(0.05)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace_seconds)


def group_lives(group: int) -> bool:
    """Whether a process of a group runs; dead ones may lie there where nobody waits for them."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                return True
    return False
