"""How the figures of ``gateway_calls.py`` are shown: tool calls through a gateway without this package and
with it, by milliseconds away, calls at a time, and side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from tables import machine, milliseconds, section

NAME = "gateway-calls"
SIDES = ("without", "with")
TITLES = [
    "server away",
    "at a time",
    "",
    "calls",
    "failed",
    "requests/call",
    "p50",
    "p99",
    "calls/s",
    "CPU/call",
    "calls/s ratio",
    "CPU ratio",
    "to reach",
]
README_TITLES = [
    "server",
    "calls at a time",
    "requests a call",
    "median",
    "CPU a call",
    "calls a second",
    "times",
]
# What is to be reached: times the calls a second, by milliseconds away and calls at a time; share of the CPU.
TIMES_THE_CALLS = {(0, 1): 4.0, (0, 8): 4.0, (50, 1): 5.0, (50, 8): 5.0}
SHARE_OF_CPU = 0.45
# What the README shows.
README_LEVELS = tuple((away, at_a_time) for away in (0, 50) for at_a_time in (1, 8, 64))

Figures = dict[str, float]
Levels = dict[str, dict[str, dict[str, Figures]]]
"""Figures by milliseconds away, calls at a time, and side."""


def ratio(sides: Mapping[str, Figures], name: str) -> float:
    """With this package to without; not a number where nothing was answered without."""
    without = sides["without"][name]
    return sides["with"][name] / without if without else math.nan


def verdict(away: str, concurrency: str, sides: Mapping[str, Figures]) -> str:
    """What was to be reached there, and whether it was."""
    target = TIMES_THE_CALLS.get((int(away), int(concurrency)))
    if target is None:
        return ""
    is_met = (
        ratio(sides, "answered_per_second") >= target
        and ratio(sides, "cpu_seconds_per_call") <= SHARE_OF_CPU
        and not sides["with"]["failed"]
    )
    return f"{target:g} and {SHARE_OF_CPU:g}: {'met' if is_met else 'not met'}"


def lines(levels: Levels) -> list[list[str]]:
    """One for each side."""
    return [
        [
            f"{away} ms",
            concurrency,
            side,
            f"{level['calls']:.0f}",
            f"{level['failed']:.0f}",
            f"{level['requests_per_call']:.1f}",
            milliseconds(level["p50"]),
            milliseconds(level["p99"]),
            f"{level['answered_per_second']:.1f}",
            f"{level['cpu_seconds_per_call'] * 1e3:.1f} ms",
            *(
                [f"{ratio(sides, name):.2f}" for name in ("answered_per_second", "cpu_seconds_per_call")]
                if side == "with"
                else ["", ""]
            ),
            verdict(away, concurrency, sides) if side == "with" else "",
        ]
        for away, found in levels.items()
        for concurrency, sides in found.items()
        for side, level in sides.items()
    ]


def readme_lines(levels: Levels) -> list[list[str]]:
    """One for each level of the README: from without to with."""

    def both(sides: Mapping[str, Figures], name: str, shown: Callable[[float], str]) -> str:
        return f"{shown(sides['without'][name])} → {shown(sides['with'][name])}"

    return [
        [
            f"{away} ms away" if int(away) else "near",
            concurrency,
            both(sides, "requests_per_call", "{:.0f}".format),
            both(sides, "p50", milliseconds),
            both(sides, "cpu_seconds_per_call", milliseconds),
            both(sides, "answered_per_second", "{:.0f}".format),
            f"{ratio(sides, 'answered_per_second'):.1f} ×",
        ]
        for away, found in levels.items()
        for concurrency, sides in found.items()
        if (int(away), int(concurrency)) in README_LEVELS
    ]


def page(figures: Mapping[str, Any], show: Callable[[list[list[str]]], str]) -> str:
    """All of it, as docs/performance.md and the terminal have it."""
    about = figures["about"]
    head = (
        f"ContextForge {about['gateway']}, Python {about['python']}, {about['transport']}; "
        "default configuration; without this package and with it, by turns."
    )
    without, with_it = (f"{figures['ping_cpu_seconds'][side] * 1e3:.1f} ms" for side in SIDES)
    ping = (
        f"A `ping`, which reaches no server, takes the gateway {without} of CPU without this package, "
        f"{with_it} with it."
    )
    return section(head, show([TITLES, *lines(figures["levels"])]), f"{ping}\n{machine(about)}")


def readme(figures: Mapping[str, Any], show: Callable[[list[list[str]]], str]) -> str:
    """What the README has of it."""
    about = figures["about"]
    foot = (
        f"ContextForge {about['gateway']}, Python {about['python']}; gateways, server and callers share "
        f"{about['processors']} processors."
    )
    return section(show([README_TITLES, *readme_lines(figures["levels"])]), foot)
