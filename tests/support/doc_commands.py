"""The commands that README and docs tell their readers to type."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))


def blocks(page: str) -> list[list[str]]:
    """The commands of each console block of a page, without their comments."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"(?m)^ *```console\n(.*?)^ *```$", text, re.DOTALL)
    return [[_bare(line) for line in block.splitlines() if line.lstrip().startswith("$ ")] for block in found]


def block_with(page: str, words: str) -> list[str]:
    """The only block of a page that has these words in it."""
    [block] = [block for block in blocks(page) if any(words in line for line in block)]
    return block


def indented(page: str) -> list[str]:
    """The commands that stand in indented lines of their own."""
    text = (ROOT / page).read_text(encoding="utf-8")
    text = re.sub(r"(?ms)^ *```.*?^ *```$", "", text)
    return [_bare(line) for line in re.findall(r"(?m)^    (?:make|python|bash|pip) .*$", text)]


def all_commands() -> dict[str, set[str]]:
    """Every command, and the pages that have it."""
    found: dict[str, set[str]] = {}
    for page in PAGES:
        for block in [*blocks(page), indented(page)]:
            for command in block:
                found.setdefault(command, set()).add(page)
    return found


def _bare(line: str) -> str:
    return re.sub(r"\s+#\s.*$", "", line.strip().removeprefix("$ ")).strip()
