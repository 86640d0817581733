"""Ends what a driver has started, with all that it has started in its turn."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path


def end_session(process: subprocess.Popen[bytes], grace_seconds: float) -> None:
    """End a process that leads a session (``start_new_session``), and all of the session, also where the
    process itself has ended.

    Politely (SIGINT), and after ``grace_seconds`` not (SIGKILL).
    """
    for number in (signal.SIGINT, signal.SIGKILL):
        members = session_members(process.pid)
        if not members:
            break
        for member in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member, number)
        end = time.monotonic() + grace_seconds
        while time.monotonic() < end and session_members(process.pid):
            time.sleep(0.05)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace_seconds)


def session_members(session: int) -> list[int]:
    """The processes of a session that run, of all its groups; dead ones may lie where nobody waits."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, its_session = stat.read_text().rpartition(")")[2].split()[:4]
            if int(its_session) == session and state not in "ZX":
                found.append(int(stat.parent.name))
    return found
