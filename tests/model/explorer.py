"""Every order in which things can happen: a depth-first walk over the decisions of a scheduler, with replay.

A *world* is made anew for each run and is deterministic: the same decisions lead to the same state. Two runs
that have come to the same state have the same future, so the walk takes it once and counts it for both. What
a state is, the world says; ``merges=False`` walks all the same futures again, as a check of that.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Protocol

# A longer run than any of the worlds of these tests has means that something goes round in circles.
MOST_DECISIONS = 300


class World(Protocol):
    def options(self) -> int:
        """How many things can happen next; 0 at the end."""

    def take(self, option: int) -> None:
        """Let one of them happen."""

    def state(self) -> Hashable:
        """Everything that the future depends on."""

    def finish(self) -> None:
        """Judge the end."""

    def dispose(self) -> None:
        """Let go of everything, also in the middle of a run."""


@dataclass
class Explored:
    """Figures of a walk.

    Attributes:
        schedules: different orders from the begin to the end.
        states: states that were told apart.
        longest: decisions of the longest schedule.
    """

    schedules: int = 0
    states: int = 0
    longest: int = 0


@dataclass
class _Decision:
    state: Hashable
    options: int
    taken: int = 0
    schedules: int = 0


@dataclass
class ScheduleError(Exception):
    """A schedule went wrong; its decisions replay it."""

    decisions: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        return f"by the decisions {self.decisions}"


def explore(make: Callable[[], World], *, merges: bool = True) -> Explored:
    """Walk every schedule.

    Raises:
        ScheduleError: chained to what went wrong.
    """
    explored = Explored()
    known: dict[Hashable, int] = {}
    path: list[_Decision] = []
    while True:
        world = make()
        try:
            schedules = _run(world, path, known if merges else None, explored)
        except Exception as error:
            raise ScheduleError([decision.taken for decision in path]) from error
        finally:
            world.dispose()
        while path:
            decision = path[-1]
            decision.schedules += schedules
            decision.taken += 1
            if decision.taken < decision.options:
                break
            path.pop()
            schedules = decision.schedules
            if merges:
                known[decision.state] = schedules
        else:
            explored.schedules = schedules
            explored.states = len(known)
            return explored


def _run(world: World, path: list[_Decision], known: dict[Hashable, int] | None, explored: Explored) -> int:
    """One run along the path and on from its end; how many schedules that end stands for."""
    for decision in path:
        world.take(decision.taken)
    while options := world.options():
        state = None if known is None else world.state()
        if known is not None and state in known:
            return known[state]
        assert len(path) < MOST_DECISIONS, "there is no end to this"
        path.append(_Decision(state, options))
        explored.longest = max(explored.longest, len(path))
        world.take(0)
    world.finish()
    return 1


def replay(make: Callable[[], World], decisions: list[int]) -> None:
    """One schedule alone, to look into a ScheduleError."""
    world = make()
    try:
        for decision in decisions:
            world.take(decision)
        while world.options():
            world.take(0)
        world.finish()
    finally:
        world.dispose()
