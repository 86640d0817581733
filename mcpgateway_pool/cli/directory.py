"""Whether the directory of shared counters is one that the pool will use; it is only looked at."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from mcpgateway_pool.prometheus.shared_counters import DIRECTORY_VARIABLES, why_unusable
from mcpgateway_pool.redact import safe_text

from .findings import Finding, fine, hint, problem, warning

_WHAT = "counters"
_LEAST_FREE = 16 * 1024 * 1024
_SHOWN = 3  # names in a finding
_PREFIX = "mcpgateway_pool"  # of the names of the pool's files
_READ_SECONDS = 30
_READ = """
import json
from mcpgateway_pool import _core
rows, _ = _core.snapshot()
print(json.dumps([_core.take_problems(), len(rows)]))
"""


def chosen_directory(argument: str | None) -> tuple[str | None, str]:
    """The directory that the pool would use, and who says so."""
    if argument:
        return argument, "--metrics-dir"
    for variable in DIRECTORY_VARIABLES:
        if os.environ.get(variable):
            return os.environ[variable], variable
    return None, ""


def check_directory(directory: str | None, origin: str) -> Iterator[Finding]:
    """Look at it and at what lies in it."""
    if directory is None:
        yield hint(
            _WHAT,
            "no directory of shared counters in this environment: each process shows its own counters",
            f"with several workers, set {DIRECTORY_VARIABLES[0]} to a directory of their own (mode 0700)",
        )
        return
    shown = safe_text(directory)
    path = Path(os.path.abspath(directory))
    try:
        status = path.stat()
    except FileNotFoundError:
        yield _missing(path, f"{shown} ({origin}) is not there")
        return
    except OSError as error:
        yield problem(_WHAT, f"{shown} ({origin}): {error.strerror}", "check the path, its owners and modes")
        return
    if not stat.S_ISDIR(status.st_mode):
        yield problem(_WHAT, f"{shown} ({origin}) is no directory", "name a directory")
        return
    trouble = list(_check_itself(path, shown, status))
    yield from trouble
    if not trouble:
        yield fine(_WHAT, f"{shown} ({origin}), mode {stat.S_IMODE(status.st_mode):04o}")
    if os.access(path, os.R_OK | os.X_OK):
        yield from _check_names(path, shown)
        yield from _check_contents(path, shown)


def _missing(path: Path, text: str) -> Finding:
    reason = why_unusable(str(path))
    if reason is None:
        return hint(_WHAT, text, "the first process of the gateway makes it")
    advice = f"make it as the gateway's user: mkdir -p -m 700 {safe_text(str(path))}"
    return problem(_WHAT, f"{text}: {reason}; no counters are shared", advice)


def _check_itself(path: Path, shown: str, status: os.stat_result) -> Iterator[Finding]:
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.geteuid():
        yield problem(
            _WHAT,
            f"{shown} belongs to user {status.st_uid}, this is user {os.geteuid()}",
            "run doctor as the gateway's user; the directory must be that user's",
        )
    if mode & 0o022:
        yield problem(_WHAT, f"{shown} has mode {mode:04o}: others can put files there", f"chmod 700 {shown}")
    elif mode & 0o055:
        yield warning(_WHAT, f"{shown} has mode {mode:04o}: others can look into it", f"chmod 700 {shown}")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        yield problem(_WHAT, f"{shown} cannot be written by this user", "check its owner, mode and mount")
    space = os.statvfs(path)
    if space.f_bavail * space.f_frsize < _LEAST_FREE:
        yield warning(
            _WHAT, f"{shown} has less than 16 MiB free", "make room: new rows are not shared without"
        )


def _check_names(path: Path, shown: str) -> Iterator[Finding]:
    names = os.listdir(path)
    # prometheus_client keeps files of its own in PROMETHEUS_MULTIPROC_DIR.
    foreign = [name for name in names if not name.startswith(_PREFIX) and not name.endswith(".db")]
    if foreign:
        text = f"{shown} holds other files: {_listed(foreign)}"
        yield warning(_WHAT, text, "give the counters a directory of their own")
    if not any(name.startswith(_PREFIX) for name in names):
        yield hint(_WHAT, f"{shown} holds no counters yet", "the first process that uses a pool writes some")


def _check_contents(path: Path, shown: str) -> Iterator[Finding]:
    """What the pool's own reader leaves out, and why.

    In a process of its own: one process reads one directory, and this one may have been told another.
    """
    environment = {**os.environ, DIRECTORY_VARIABLES[0]: str(path)}
    try:
        done = subprocess.run(  # noqa: S603  (our own interpreter and program)
            [sys.executable, "-P", "-c", _READ],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_READ_SECONDS,
            check=True,
        )
        problems, gateways = json.loads(done.stdout)
    except (subprocess.SubprocessError, ValueError):
        yield problem(_WHAT, f"{shown} cannot be read", "see whether a scrape logs why")
        return
    for name, what, error in problems:
        reason = f"{what} ({os.strerror(error)})" if error else what
        yield problem(
            _WHAT,
            f"left out: {safe_text(name, 80)}: {reason}",
            "what it counted is missing in the totals; remove it while the gateway is stopped",
        )
    if not problems and gateways:
        yield fine(_WHAT, f"{shown} can be read; gateways: {gateways}")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(safe_text(name, 60) for name in sorted(names)[:_SHOWN]) + more
