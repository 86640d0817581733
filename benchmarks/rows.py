"""A row of the table: what is measured, compared with what, what is to be reached, and whether it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal

Unit = Literal["s", "B", "times", "sessions"]
Goal = Literal["faster", "slower", "more", "below"]


@dataclass(frozen=True)
class Figure:
    """One number: a function of ``measures.py`` on one side.

    ``is_fresh``: by a process that has measured nothing else, because what is measured is its memory.
    """

    side: Literal["peer", "project", "floor"]
    measure: str
    options: dict[str, Any] = field(default_factory=dict)
    is_fresh: bool = False


@dataclass(frozen=True)
class Outcome:
    """A row as it is shown."""

    project: str
    beside: str
    comparison: str
    spread: str
    target: str
    verdict: str
    is_met: bool


@dataclass(frozen=True)
class Row:
    """A figure of the project compared with another one.

    ``goal`` says how they are compared and what ``target`` means: ``faster`` at least so many times,
    ``slower`` at most so many times, ``more`` at most so much more, ``below`` at most so much, whatever the
    other figure is. Without a target, the figures are there to be known.
    ``is_worst``: each figure is the worst of thousands, which anything else on the machine makes longer and
    nothing shorter; so the best round counts, on both sides.
    """

    what: str
    project: Figure
    beside: Figure
    beside_name: str
    goal: Goal
    target: float | None = None
    rounds: int = 5
    unit: Unit = "s"
    is_worst: bool = False

    def judge(self, project: Sequence[float], beside: Sequence[float]) -> Outcome:
        """What all rounds together say. The n-th figures of both sides belong to one round."""
        compared = [self._compare(ours, theirs) for ours, theirs in zip(project, beside, strict=True)]
        low, high = (self._number_text(value) for value in (min(compared), max(compared)))
        middle = min if self.is_worst else median
        is_met = self._is_met(middle(project) if self.goal == "below" else median(compared))
        return Outcome(
            amount_text(middle(project), self.unit),
            f"{amount_text(middle(beside), self.unit)}  {self.beside_name}",
            f"{self._number_text(median(compared))} {self._word()}".rstrip(),
            "one round" if len(compared) == 1 else f"{low} to {high}",
            self.target_text(),
            "–" if self.target is None else "met" if is_met else "not met",
            is_met,
        )

    def target_text(self) -> str:
        """What is to be reached, in words."""
        if self.target is None:
            return "–"
        if self.goal == "faster":
            return f"at least {self.target:g}x {self._word()}"
        if self.goal == "slower":
            return f"at most {self.target:g}x"
        amount = amount_text(self.target, self.unit)
        return f"at most {amount} more" if self.goal == "more" else f"at most {amount}"

    def _is_met(self, reached: float) -> bool:
        """Whether the target is reached, where there is one."""
        if self.target is None:
            return True
        return reached >= self.target if self.goal == "faster" else reached <= self.target

    def _compare(self, ours: float, theirs: float) -> float:
        if self.goal == "more":
            return ours - theirs
        return ours / theirs if self.goal == "slower" else theirs / ours

    def _number_text(self, compared: float) -> str:
        if self.goal == "more":
            return amount_text(compared, self.unit)
        return f"{compared:.2f}x" if compared < 10 else f"{compared:.1f}x"

    def _word(self) -> str:
        """What comes after the number."""
        return {"slower": "", "more": "more"}.get(self.goal, "faster" if self.unit == "s" else "less")


def amount_text(amount: float, unit: Unit) -> str:
    """An amount with the unit that suits its size."""
    if unit in {"times", "sessions"}:
        return f"{amount:.2f}x" if unit == "times" else f"{amount:g}"
    if unit == "B":
        return f"{amount:,.0f} B" if abs(amount) < 10_000 else f"{amount / 1024:,.1f} KiB"
    if abs(amount) < 100e-9:
        return f"{amount * 1e9:.1f} ns"
    if abs(amount) < 1e-3:
        return f"{amount * 1e6:.2f} µs"
    return f"{amount * 1e3:.2f} ms"
