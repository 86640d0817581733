"""Leak detection: which code has had a session for too long, by the stack that acquired it.

A session is acquired by a call that is still under way when the warning comes, in a task that may never end,
or by code that forgot to give it back. Its stack says which.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from . import upkeep

if TYPE_CHECKING:
    from .protocol import Pool

# The innermost frames, at most: a stack is kept for each checkout, as long as that lasts.
MOST_FRAMES = 50

# Where in which code, the innermost first. No frames: these would keep what their variables refer to.
Trace = tuple[tuple[CodeType, int], ...]

_OWN_CODE = str(Path(__file__).parent)


def trace_of_caller() -> Trace:
    """The stack of whoever acquires, without this package's own frames at its inner end."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_OWN_CODE):
        frame = frame.f_back
    trace: list[tuple[CodeType, int]] = []
    while frame is not None and len(trace) < MOST_FRAMES:
        trace.append((frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return tuple(trace)


def shown(trace: Trace) -> str:
    """As in a traceback, the innermost last; without the sources: the event loop reads no files."""
    return "\n".join(
        f'  File "{code.co_filename}", line {line}, in {code.co_qualname}' for code, line in reversed(trace)
    )


def report(pool: Pool, pooled: Any, trace: Trace | None) -> None:
    """Warn of a checkout that lasts for too long.

    Args:
        pool: of the session.
        pooled: the session.
        trace: who acquired it; None where there was no memory to keep that.
    """
    pool._log().warning(
        "pool %s: a session of %s is checked out for more than %g s; it was acquired by:\n%s",
        pool.name,
        upkeep.url_of(pooled),
        pool._settings.leak_detection_seconds,
        shown(trace) if trace is not None else "  not known: there was no memory for it",
    )
