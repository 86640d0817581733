"""The table: what is measured, beside what, and what is to be reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal


@dataclass(frozen=True)
class Figure:
    """One number: a function of ``measures.py`` on one side."""

    side: Literal["peer", "project", "floor"]
    measure: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A figure of the project beside another one.

    ``goal`` says what ``target`` means: ``faster`` at least so many times, ``slower`` at most so many times,
    ``more`` at most so many seconds, ``below`` so many seconds, whatever the other figure is.
    """

    what: str
    project: Figure
    beside: Figure
    beside_name: str
    goal: Literal["faster", "slower", "more", "below"]
    target: float
    rounds: int = 5

    def compare(self, project: Sequence[float], beside: Sequence[float]) -> tuple[str, bool]:
        """The comparison over all rounds, in words, and whether the target is met."""
        pairs = list(zip(project, beside, strict=True))
        if self.goal == "slower":
            ratio = median(ours / theirs for ours, theirs in pairs)
            return f"{ratio:.2f}x", ratio <= self.target
        if self.goal == "more":
            extra = median(ours - theirs for ours, theirs in pairs)
            return f"{seconds_text(extra)} more", extra <= self.target
        ratio = median(theirs / ours for ours, theirs in pairs)
        is_met = ratio >= self.target if self.goal == "faster" else median(project) <= self.target
        return f"{ratio:.1f}x faster", is_met

    def target_text(self) -> str:
        """What is to be reached, in words."""
        if self.goal == "faster":
            return f"{self.target:g}x faster"
        if self.goal == "slower":
            return f"at most {self.target:g}x"
        return f"at most {seconds_text(self.target)}" + (" more" if self.goal == "more" else "")


def seconds_text(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.2f} µs"
    return f"{seconds * 1e3:.2f} ms"


# Both by prometheus_client.generate_latest() but where C writes the text. Those of 10,000 take half a minute.
SCRAPES: Sequence[tuple[str, str, int, Literal["faster", "slower"], float, int]] = (
    ("the pool's collector", "collector", 1_000, "slower", 0.6, 3),
    ("text by C", "c", 1_000, "faster", 50, 3),
    ("text by C", "c", 10_000, "faster", 50, 1),
)


def table(many_keys: int) -> Sequence[Row]:
    """The rows, those that fill a process's memory last."""
    hit = Figure("project", "hit")
    limited = {"keys": 10_000, "max_total_sessions": 20_000}
    rows = [
        Row("hit, 2 headers", hit, Figure("peer", "hit"), "peer", "faster", 40),
        Row("hit, 2 headers", hit, Figure("floor", "hit"), "doing nothing", "slower", 2),
        Row(
            "async with session()",
            Figure("project", "hit_by_session"),
            Figure("peer", "hit_by_session"),
            "peer",
            "faster",
            35,
        ),
        Row(
            "hit, 1.5 KB token, 20 headers",
            Figure("project", "hit", {"headers": "twenty"}),
            Figure("peer", "hit", {"headers": "twenty"}),
            "peer",
            "faster",
            40,
        ),
        Row(
            "hit, 1.5 KB token, 20 headers",
            Figure("project", "hit", {"headers": "twenty"}),
            hit,
            "2 headers",
            "more",
            1e-6,
        ),
        # The released peer has no such limit.
        Row(
            "hit, 10,000 keys, max_total_sessions set",
            Figure("project", "hit", limited),
            Figure("project", "hit", {"keys": 10_000}),
            "the same, not set",
            "slower",
            1.1,
        ),
        # The peer never hands over: a release wakes nobody.
        Row(
            "hand-off to 1 of 10,000 waiters",
            Figure("project", "hand_off", {"waiters": 10_000}),
            Figure("project", "hand_off", {"waiters": 10}),
            "1 of 10",
            "slower",
            1.5,
        ),
    ]
    rows += [
        Row(
            f"longest pause, {keys:,} idle keys evicted",
            Figure("project", "eviction_pause", {"keys": keys}),
            Figure("peer", "eviction_pause", {"keys": keys}),
            "peer",
            "below",
            1e-3,
            rounds=rounds,
        )
        for keys, rounds in ((20_000, 3), (100_000, 1))
    ]
    rows += [
        Row(
            f"scrape, {gateways:,} gateways, {what}",
            Figure("project", "scrape", {"writer": writer, "gateways": gateways}),
            Figure("project", "scrape", {"writer": "native", "gateways": gateways}),
            "the same series as native metrics",
            goal,
            target,
            rounds=rounds,
        )
        for what, writer, gateways, goal, target, rounds in SCRAPES
    ]
    workers = {"workers": 16, "gateways": 1_000}
    rows.append(
        Row(
            "scrape, 16 workers, 1,000 gateways each",
            Figure("project", "scrape_workers", {"writer": "c", **workers}),
            Figure("project", "scrape_workers", {"writer": "native", **workers}),
            "MultiProcessCollector, same series",
            "faster",
            80,
            rounds=1,
        )
    )
    rows.append(
        Row(
            f"hit, {many_keys:,} keys",
            Figure("project", "hit", {"keys": many_keys}),
            hit,
            "1 key",
            "slower",
            2,
        )
    )
    return rows
