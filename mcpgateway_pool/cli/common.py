"""What the commands share."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

OK, PROBLEM, USAGE, INTERRUPTED = 0, 1, 2, 130  # exit codes; 128 and more: ended by that signal
BY_SIGNAL = 128


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


class OutputError(Exception):
    """The standard output takes no more: its reader has gone, or the disk is full."""


def say(text: str = "") -> None:
    """One line, or several, on the standard output.

    Raises:
        OutputError: it takes no more.
    """
    with _writing():
        sys.stdout.write(text + "\n")


def flush() -> None:
    """Write out what was said.

    Raises:
        OutputError: the standard output takes no more.
    """
    with _writing():
        sys.stdout.flush()


@contextlib.contextmanager
def _writing() -> Any:
    if sys.stdout is None:  # closed when the command was started
        raise OutputError("Bad file descriptor")
    try:
        yield
    except OSError as error:
        raise OutputError(error.strerror or type(error).__name__) from None


def drop_output() -> None:
    """Forget what could not be written, so that it does not fail once more when Python ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def complain(text: str) -> None:
    """One line, or several, on the standard error output, where that takes them."""
    with contextlib.suppress(OSError, AttributeError):
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
