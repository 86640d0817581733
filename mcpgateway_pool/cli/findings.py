"""What ``doctor`` finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "hint", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: a problem makes the exit code 1.
        what: one or two words.
        text: what was found.
        advice: what to do; may be empty.
    """

    level: Level
    what: str
    text: str
    advice: str = ""

    def as_text(self) -> str:
        """One line, and one for the advice."""
        first = f"{self.level:<8} {self.what:<10} {self.text}"
        return f"{first}\n{'':<19} > {self.advice}" if self.advice else first


def fine(what: str, text: str) -> Finding:
    """Nothing to do."""
    return Finding("ok", what, text)


def hint(what: str, text: str, advice: str = "") -> Finding:
    """Worth knowing."""
    return Finding("hint", what, text, advice)


def warning(what: str, text: str, advice: str) -> Finding:
    """It may be meant."""
    return Finding("warning", what, text, advice)


def problem(what: str, text: str, advice: str) -> Finding:
    """It cannot be meant."""
    return Finding("problem", what, text, advice)
