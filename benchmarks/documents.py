"""Which tables of the documentation show which figures of ``benchmarks/figures``.

A benchmark that is told so (``--docs``) saves its figures there, and writes every table of them anew.

    python -P benchmarks/documents.py           writes all of them
    python -P benchmarks/documents.py --check   says which differ from the figures; exit code 1
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import calls_table
import pool_table
import tables
import targets_table

FIGURES = HERE / "figures"
README = HERE.parent / "README.md"


@dataclass(frozen=True)
class Place:
    """A table in a page, between the marks of the name of its figures."""

    page: Path
    figures: str
    text: Callable[[Mapping[str, Any], Callable[[list[list[str]]], str]], str]

    def expected(self) -> str:
        """What the figures say."""
        return self.text(load(self.figures), tables.markdown)

    def is_true(self) -> bool:
        """Whether the page says it."""
        return tables.text_between(self.figures, self.page) == self.expected()


PLACES = (
    Place(README, calls_table.NAME, calls_table.readme),
    Place(README, pool_table.NAME, pool_table.readme),
    Place(README, targets_table.NAME, targets_table.readme),
    Place(tables.PAGE, calls_table.NAME, calls_table.page),
    Place(tables.PAGE, pool_table.NAME, pool_table.page),
    Place(tables.PAGE, targets_table.NAME, targets_table.documented),
)


def load(name: str) -> dict[str, Any]:
    """The figures of a name."""
    figures: dict[str, Any] = json.loads((FIGURES / f"{name}.json").read_text(encoding="utf-8"))
    return figures


def save(name: str, figures: Mapping[str, Any]) -> None:
    """Keep figures, and write every table of them."""
    text = json.dumps(figures, indent=1, ensure_ascii=False) + "\n"
    (FIGURES / f"{name}.json").write_text(text, encoding="utf-8")
    write(name)


def write(name: str | None = None) -> None:
    """Write the tables of these figures, or of all."""
    for place in PLACES:
        if name in {None, place.figures}:
            tables.put_into_page(place.figures, place.expected(), place.page)


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    if not parser.parse_args().check:
        write()
        return 0
    wrong = [place for place in PLACES if not place.is_true()]
    for place in wrong:
        print(f"{place.page.name}: {place.figures} differs from benchmarks/figures/{place.figures}.json")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
