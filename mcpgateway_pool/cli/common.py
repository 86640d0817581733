"""What the commands share."""

from __future__ import annotations

import sys
from typing import Any

OK, PROBLEM, USAGE, INTERRUPTED = 0, 1, 2, 130  # exit codes


class CommandError(Exception):
    """Ends the command with a message on the standard error output and no traceback.

    Args:
        message: what is wrong; it holds no secret.
        advice: what to do about it; may be empty.
        code: the exit code, default 1.
    """

    def __init__(self, message: str, advice: str = "", code: int = PROBLEM) -> None:
        super().__init__(message)
        self.advice = advice
        self.code = code


def say(text: str = "") -> None:
    """One line, or several, on the standard output."""
    sys.stdout.write(text + "\n")


def complain(text: str) -> None:
    """The same on the standard error output."""
    sys.stderr.write(text + "\n")


def missing_extra(package: str, extra: str, error: ImportError) -> CommandError:
    """What to raise where an optional package is absent."""
    return CommandError(
        f"this needs the package {package}: {error}", f"pip install 'mcpgateway-pool[{extra}]'", code=USAGE
    )


def plain(value: Any) -> Any:
    """A value as JSON can have it: no infinity and no NaN."""
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):  # noqa: PLR0124
        return None
    return value
