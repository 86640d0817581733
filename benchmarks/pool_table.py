"""How the figures of ``gateway.py`` are shown: tool calls through the last gateway with a pool of its own, by
calls at a time and side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tables import machine, milliseconds, section

NAME = "gateway"
TITLES = ["at a time", "pool", "calls", "failed", "p50", "p95", "p99", "max", "p50 ratio", "p99 ratio"]
TITLES += ["answered/s", "CPU/call"]
README_TITLES = ["calls at a time", "pool", "calls", "failed", "median", "p99", "calls a second"]
README_LEVELS = ("1", "16", "64")
README_SIDES = {"own pool": "the gateway's own", "our pool": "this one"}

Figures = Mapping[str, float]


def lines(concurrency: str, found: Mapping[str, Figures]) -> list[list[str]]:
    """One for each side; ratios are to the first."""
    first = next(iter(found.values()))
    return [
        [
            concurrency,
            side,
            f"{level['calls']:.0f}",
            f"{level['failed']:.0f}",
            *(milliseconds(level[name]) for name in ("p50", "p95", "p99", "max")),
            *(f"{level[name] / first[name]:.2f}" for name in ("p50", "p99")),
            f"{level['answered_per_second']:.1f}",
            milliseconds(level["cpu_seconds_per_call"]),
        ]
        for side, level in found.items()
    ]


def readme_lines(levels: Mapping[str, Mapping[str, Figures]]) -> list[list[str]]:
    """One for each pool and level of the README."""
    return [
        [
            concurrency,
            name,
            f"{level['calls']:.0f}",
            f"{level['failed']:.0f}",
            *(milliseconds(level[figure]) for figure in ("p50", "p99")),
            f"{level['answered_per_second']:.1f}",
        ]
        for concurrency in README_LEVELS
        for side, name in README_SIDES.items()
        if (level := levels.get(concurrency, {}).get(side)) is not None
    ]


def page(figures: Mapping[str, Any], show: Callable[[list[list[str]]], str]) -> str:
    """All of it, as docs/performance.md and the terminal have it."""
    about = figures["about"]
    head = (
        f"ContextForge {about['gateway']}, Python {about['python']}, {about['transport']}; "
        "the pools' limit is 10 sessions; "
        f"rounds: {about['rounds']}, taken together; ratios to the first side."
    )
    rows = [line for concurrency, found in figures["levels"].items() for line in lines(concurrency, found)]
    return section(head, show([TITLES, *rows]), machine(about))


def readme(figures: Mapping[str, Any], show: Callable[[list[list[str]]], str]) -> str:
    """What the README has of it."""
    about = figures["about"]
    foot = f"ContextForge {about['gateway']}, Python {about['python']}, on {about['processors']} processors."
    return section(show([README_TITLES, *readme_lines(figures["levels"])]), foot)
