"""How the figures of ``run.py`` are shown: every target, and whether it is met."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tables import machine, section

NAME = "bench"
TITLES = ["what", "project", "compared with", "ratio", "spread", "target", "result"]
NOT_MET = "not met"
# The headings of docs/performance.md that say what limits a row, by how the name of the row begins.
LIMITS = {
    "hit, 2 headers": "a-hit-compared-with-doing-nothing",
    "longest pause, 100,000": "the-longest-pause",
    "the pool's share of it, in a loop": "the-share-of-a-real-call",
    "the pool's share of it, between calls": "the-share-of-a-real-call",
    "steady caller, p99 divided by p50": "a-steady-caller",
    "session creation": "session-creation",
    "idle key": "an-idle-key",
    "scrape, 1,000 gateways, the pool's collector": "the-scrape-by-the-collector",
    "hit, 1,000,000 keys": "a-million-keys",
}
README_TITLES = ["what", "this package", "compared with", "ratio"]
# Rows of the README, by their first cell and by how the third begins, as each is called there.
README_ROWS = {
    ("hit, 2 headers", "peer"): "acquire and release of an open session",
    ("async with session()", "peer"): "the same by `async with pool.session()`",
    ("longest pause, 20,000 idle keys evicted", "peer"): "longest pause while 20,000 idle keys are evicted",
    ("memory of an open session, streamable HTTP", "peer"): "memory of an open session",
    ("scrape, 1,000 gateways, text by C", "the same series as native metrics"): "a scrape of 1,000 gateways",
    (
        "scrape, 16 workers, 1,000 gateways each",
        "MultiProcessCollector, same series",
    ): "a scrape over 16 workers with 1,000 gateways each",
}
PEER = "the pool of 1.0.0rc1"


def explained(cells: list[str]) -> list[str]:
    """A row whose result, where its target is not met, leads to what limits it."""
    heading = next((name for begin, name in LIMITS.items() if cells[0].startswith(begin)), None)
    if cells[-1] != NOT_MET or heading is None:
        return cells
    return [*cells[:-1], f"[{NOT_MET}](#{heading})"]


def page(figures: Mapping[str, Any], show: Callable[[list[list[str]]], str]) -> str:
    """All of it, as the terminal has it."""
    about, rows = figures["about"], figures["rows"]
    head = f"Python {about['python']}, peer: the pool of {about['peer']}."
    not_met = sum(row[-1] == NOT_MET for row in rows)
    not_measured = sum(row[-1].startswith("not measured") for row in rows)
    foot = f"{len(rows)} rows, {not_met} not met, {not_measured} not measured; {machine(about)}"
    return section(head, show([TITLES, *rows]), foot)


def documented(figures: Mapping[str, Any], show: Callable[[list[list[str]]], str]) -> str:
    """The same as docs/performance.md has it."""
    return page({**figures, "rows": [explained(row) for row in figures["rows"]]}, show)


def readme(figures: Mapping[str, Any], show: Callable[[list[list[str]]], str]) -> str:
    """What the README has of it."""
    by_row = {(row[0], row[2].partition("  ")[2]): row for row in figures["rows"]}
    lines = []
    for key, name in README_ROWS.items():
        _, project, compared, ratio, *_ = by_row[key]
        amount, _, what = compared.partition("  ")
        lines.append([name, project, f"{amount}, {PEER if what == 'peer' else what}", ratio])
    return show([README_TITLES, *lines])
