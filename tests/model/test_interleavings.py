"""Every schedule of a few callers of one pool, not a sample of them: nobody hangs, everyone gets a session or
a documented error, first come is first served, and no place is lost.

Scenarios that take longer are long: not part of `make test`.
"""

from __future__ import annotations

from dataclasses import fields
from functools import partial

import pytest

from model import figures
from model.explorer import Explored, ScheduleError, explore, replay
from model.interleaving import PoolWorld, Scenario

SHORT = [
    Scenario("aa"),
    Scenario("aa", cancels=1),
    Scenario("aa", failures=1),
    Scenario("aa", cancels=1, failures=1),
    Scenario("aa", jumps=1),
    Scenario("aa", event="close"),
    Scenario("aa", limit=2, cancels=1),
    Scenario("ab", total=1, cancels=1),
    Scenario("aaa", cancels=1),
    Scenario("aa", warms=1),
    Scenario("a", limit=2, min_idle=1, jumps=1),
    Scenario("aa", leak=5.0, jumps=1),
]
LONG = [
    Scenario("aa", cancels=2),
    Scenario("aa", cancels=1, jumps=1),
    Scenario("aa", failures=2, jumps=1),
    Scenario("aa", cancels=1, discards=True),
    Scenario("aa", event="drain"),
    Scenario("aa", cancels=1, event="close"),
    Scenario("aa", limit=2, failures=1),
    Scenario("aa", limit=2, event="close"),
    Scenario("ab", total=1, failures=1),
    Scenario("ab", total=1, jumps=1),
    Scenario("aaa", failures=1),
    Scenario("aaa", jumps=1),
    Scenario("aaa", cancels=1, failures=1),
    Scenario("aaa", event="close"),
    Scenario("aaa", limit=2, cancels=1),
    Scenario("aaa", limit=2, failures=1),
    Scenario("aab", total=1, cancels=1),
    Scenario("a", limit=2, warms=2, cancels=1, failures=1),
    Scenario("a", limit=2, warms=1, event="close"),
    Scenario("a", limit=2, ttl=4.0, jumps=2, failures=1),
    Scenario("ab", total=2, limit=2, min_idle=1, jumps=1),
    Scenario("aa", leak=5.0, jumps=1, cancels=1),
]
SCENARIOS = [
    *SHORT,
    *(pytest.param(scenario, marks=pytest.mark.long("more than a few events at once")) for scenario in LONG),
]

pytestmark = pytest.mark.timeout(1800)


def named(scenario: Scenario) -> str:
    """Its keys, and what differs from the default."""
    changed = [
        f"{field.name}={getattr(scenario, field.name)}"
        for field in fields(scenario)[1:]
        if getattr(scenario, field.name) != field.default
    ]
    return " ".join([scenario.keys, *changed])


@pytest.mark.parametrize("scenario", SCENARIOS, ids=named)
def test_every_schedule_ends_well(scenario: Scenario):
    explored = explore(partial(PoolWorld, scenario))
    numbers = f"{explored.schedules:,} schedules through {explored.states:,} states"
    figures.lines.append(f"{named(scenario)}: {numbers}, all end well")


@pytest.mark.parametrize("scenario", [Scenario("aa", cancels=1), Scenario("aa", failures=1)], ids=named)
def test_merged_states_stand_for_the_same_schedules(scenario: Scenario):
    merged = explore(partial(PoolWorld, scenario))
    each = explore(partial(PoolWorld, scenario), merges=False)
    assert merged.schedules == each.schedules > 1000
    assert merged.longest == each.longest


class Counters:
    """Two that count to three, in any order; together they fail at a place where a test wants it."""

    def __init__(self, failing: tuple[int, int] | None = None) -> None:
        self.counts = [0, 0]
        self.failing = failing

    def _open(self) -> list[int]:
        return [i for i in (0, 1) if self.counts[i] < 3]

    def options(self) -> int:
        return len(self._open())

    def take(self, option: int) -> None:
        self.counts[self._open()[option]] += 1
        assert tuple(self.counts) != self.failing

    def state(self) -> tuple[int, ...]:
        return tuple(self.counts)

    def finish(self) -> None:
        assert self.counts == [3, 3]

    def dispose(self) -> None:
        pass


@pytest.mark.parametrize("merges", [True, False])
def test_explorer_takes_every_order_once(merges: bool):
    explored = explore(Counters, merges=merges)
    assert explored == Explored(schedules=20, states=15 if merges else 0, longest=6)


def test_explorer_says_which_decisions_failed():
    with pytest.raises(ScheduleError) as failed:
        explore(partial(Counters, failing=(1, 3)))
    replay(Counters, failed.value.decisions)
    with pytest.raises(AssertionError):
        replay(partial(Counters, failing=(1, 3)), failed.value.decisions)
