"""README, docs/performance.md and the figures of benchmarks/figures say the same."""

from __future__ import annotations

import importlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/performance.md")
MARKED = re.compile(r"<!-- ([\w-]+): begin -->\n(.*?)\n<!-- \1: end -->", re.DOTALL)


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@pytest.fixture
def documents(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The module, with copies of the pages and the figures."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    module = importlib.import_module("documents")
    shutil.copytree(ROOT / "benchmarks" / "figures", tmp_path / "figures")
    for page in PAGES:
        shutil.copy(ROOT / page, tmp_path)
    monkeypatch.setattr(module, "FIGURES", tmp_path / "figures")
    places = tuple(
        module.Place(tmp_path / place.page.name, place.figures, place.text) for place in module.PLACES
    )
    monkeypatch.setattr(module, "PLACES", places)
    return module


@pytest.mark.parametrize("page", PAGES)
def test_each_table_says_what_the_figures_say(documents: Any, page: str) -> None:
    places = [place for place in documents.PLACES if place.page.name == Path(page).name]
    assert [place.figures for place in places if not place.is_true()] == []
    # Instructions are counted, not timed: their table is all that is kept of them.
    marked = {name for name, _ in MARKED.findall(text_of(page))} - {"instructions"}
    assert marked == {place.figures for place in places}


@pytest.mark.parametrize("page", PAGES)
def test_a_figure_that_was_changed_by_hand_is_seen(documents: Any, page: str) -> None:
    [place] = [
        place
        for place in documents.PLACES
        if place.page.name == Path(page).name and place.figures == "gateway-calls"
    ]
    text = place.page.read_text(encoding="utf-8")
    figure = re.compile(r"\d+ ms").search(text, text.index("<!-- gateway-calls: begin"))
    assert figure is not None
    changed = f"{text[: figure.start()]}9{text[figure.start() :]}"
    place.page.write_text(changed, encoding="utf-8")
    assert not place.is_true()
    documents.write("gateway-calls")
    assert place.is_true()
    assert place.page.read_text(encoding="utf-8") == text


def test_new_figures_are_kept_and_reach_every_page(documents: Any) -> None:
    figures = documents.load("gateway")
    figures["levels"]["64"]["our pool"]["failed"] = 7
    documents.save("gateway", figures)
    assert json.loads((documents.FIGURES / "gateway.json").read_text(encoding="utf-8")) == figures
    for place in documents.PLACES:
        assert place.is_true()
        assert ("| 7 |" in place.expected()) is (place.figures == "gateway")


def test_the_readme_has_no_figure_but_those_of_its_tables() -> None:
    text = MARKED.sub("", text_of("README.md"))
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    found = re.findall(r"\d[\d,.]*\s*(?:%|×|x faster|times\b|ns\b|µs\b|ms\b|s\b|seconds\b|[KMG]i?B\b)", text)
    assert found == []


def test_a_target_that_is_not_met_leads_to_what_limits_it() -> None:
    text = text_of("docs/performance.md")
    headings = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
                for title in re.findall(r"(?m)^#+ (.*)$", text)}  # fmt: skip
    [table] = [table for name, table in MARKED.findall(text) if name == "bench"]
    results = [line.rsplit("|", 2)[1].strip() for line in table.splitlines() if line.startswith("| ")][2:]
    links = [re.fullmatch(r"\[not met\]\(#(.*)\)", result) for result in results]
    others = [result for result, link in zip(results, links, strict=True) if link is None]
    assert set(others) <= {"met", "–"}
    assert {link[1] for link in links if link} <= headings
