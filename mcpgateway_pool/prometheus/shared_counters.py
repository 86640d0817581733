"""Counters shared between processes: one file for each process in a directory, read by all.

Without a directory, each process shows its own counters only.
"""

from __future__ import annotations

import atexit
import logging
import os
import stat
from collections.abc import Collection

from mcpgateway_pool import _core
from mcpgateway_pool.redact import safe_text

logger = logging.getLogger("mcpgateway_pool")

DIRECTORY_VARIABLES = ("MCPGATEWAY_POOL_METRICS_DIR", "PROMETHEUS_MULTIPROC_DIR")

_MAX_REMEMBERED = 1000
_MAX_SHOWN = 4096  # characters of a path

_directory: str | None = None
_reported: set[tuple[str, str]] = set()


def directory() -> str | None:
    """Where this process shares its counters (an absolute path), or None."""
    return _directory


def wanted_directory() -> str | None:
    """Where the environment says that counters are shared (an absolute path), or None."""
    path = next((value for name in DIRECTORY_VARIABLES if (value := os.environ.get(name))), None)
    return None if path is None else os.path.abspath(path)  # a server may change its directory later


def why_unusable(path: str) -> str | None:
    """Why processes of this user cannot share counters in a directory; None where nothing looks wrong.

    It is only looked at, and not made.

    Args:
        path: an absolute path.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        parent = os.path.dirname(path)
        if not os.path.isdir(parent):
            return "it cannot be made, because its parent directory is missing"
        if not os.access(parent, os.W_OK | os.X_OK):
            return "it cannot be made, because its parent directory cannot be written"
        return None
    except OSError as error:
        return f"it cannot be looked at: {error.strerror}"
    if not stat.S_ISDIR(mode):
        return "it is not a directory"
    return None if os.access(path, os.R_OK | os.W_OK | os.X_OK) else "it cannot be read and written"


def use_environment() -> None:
    """Share counters where the environment names a directory; called once, when the package is imported.

    Where it is missing, the first pool of a process makes it (mode 0700): who only looks, perhaps as another
    user, leaves nothing behind. Where it cannot be used, that is logged as an error, which the gateway shows
    at its default level, and each process shows its own counters.
    """
    global _directory  # noqa: PLW0603
    path = wanted_directory()
    if path is None:
        return
    problem = None
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = stat.S_IFDIR | 0o700
    except OSError as error:
        mode, problem = 0, error.strerror
    if problem is None and not stat.S_ISDIR(mode):
        problem = "it is not a directory"
    if problem is not None:
        logger.error("counters are not shared: %s: %s", safe_text(path, _MAX_SHOWN), problem)
        return
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        logger.warning("shared counters: everybody may remove files of %s; its mode should be 0700", path)
    _core.use_directory(path)
    _directory = path
    atexit.register(_core.share_rest)  # the last chance of what found no room until now


def open_file() -> None:
    """Open this process's file, where that is not done yet; called for each pool that is made."""
    _core.open_file()
    report()


def forget(labels: Collection[str]) -> int | None:
    """Have all processes forget gateway labels that nothing of this process is open for.

    Returns:
        How many of them others count for still: they forget them by themselves, once nothing is open there.
        None when all is to be tried again.
    """
    pending = _core.fold(tuple(labels))
    report()
    return pending


def tidy() -> None:
    """After each scrape: fold what there is to fold into the archive, and report."""
    if _directory is None:
        return
    if _core.has_finished():
        _core.fold(())
    report()


def report() -> None:
    """Log what is new and wrong, each problem once."""
    for name, what, error in _core.take_problems():
        if (name, what) in _reported:
            continue
        if len(_reported) >= _MAX_REMEMBERED:
            _reported.clear()
        _reported.add((name, what))
        # Whoever can put files there chooses their names.
        path = safe_text(os.path.join(_directory or "", name), _MAX_SHOWN)
        logger.error("shared counters: %s: %s%s", path, what, f" ({os.strerror(error)})" if error else "")


use_environment()
