"""Lays out tables: the first line holds the titles of the columns."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"


def plain(lines: Sequence[Sequence[str]]) -> str:
    """In columns, for a terminal."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """For the documentation."""
    rule = ["---"] * len(lines[0])
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:]))


def milliseconds(seconds: float) -> str:
    """As the tables show times."""
    return f"{seconds * 1e3:,.0f} ms"


def section(*parts: str) -> str:
    """Paragraphs and tables of a page."""
    return "\n\n".join(parts)


class Run:
    """The machine and the time that a run of a benchmark takes, from its making on."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._load = os.getloadavg()[0]

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._begin

    def about(self) -> dict[str, Any]:
        """What is kept of it with its figures."""
        return {
            "python": platform.python_version(),
            "processors": os.cpu_count(),
            "load": [round(self._load, 1), round(os.getloadavg()[0], 1)],
            "seconds": round(self.seconds),
        }


def machine(about: Mapping[str, Any]) -> str:
    """What is kept of a run, in words."""
    before, after = about["load"]
    return f"{about['seconds']} s, {about['processors']} processors, load {before} before and {after} after."


def put_into_page(name: str, text: str, page: Path = PAGE) -> None:
    """Replace what stands between the marks of this name in the documentation.

    Raises:
        ValueError: the page has no such marks.
    """
    before, _, after = _split(name, page)
    page.write_text(f"{before}\n{text.strip()}\n{after}", encoding="utf-8")


def text_between(name: str, page: Path = PAGE) -> str:
    """What stands between the marks of this name in the documentation.

    Raises:
        ValueError: the page has no such marks.
    """
    return _split(name, page)[1].strip()


def _split(name: str, page: Path) -> tuple[str, str, str]:
    """What stands before the text between the marks, the text, and what stands after it; with the marks."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    whole = page.read_text(encoding="utf-8")
    before, found_begin, rest = whole.partition(begin)
    text, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise ValueError(f"{page.name} has no marks {begin} and {end}")
    return before + begin, text, end + after
