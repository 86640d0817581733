"""Lays out tables: the first line holds the titles of the columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
