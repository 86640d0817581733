"""Drivers of other programs: how these end, with all that they have started in their turn."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn


@contextlib.contextmanager
def session(
    command: Sequence[str], grace_seconds: float, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that leads a session, all of which ends with the block. Of the main thread.

    An interrupt that comes while the process starts is put off until it can be ended.
    """
    came: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        process = subprocess.Popen(command, start_new_session=True, **options)
    except BaseException:
        _put_back(handlers, came)
        raise
    try:
        _put_back(handlers, came)
        yield process
    finally:
        end_session(process, grace_seconds)


def _put_back(handlers: Mapping[int, Any], came: Sequence[int]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
    for number in came:
        signal.raise_signal(number)


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


def run_interruptibly(main: Callable[[], int]) -> NoReturn:
    """Run a program; SIGTERM ends it as Ctrl-C does, together with what it has started."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
