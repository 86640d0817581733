"""What the contract says of fairness between keys; a part of the oracle.

Whatever comes free goes to whoever has waited longest among those whom it would help. Seen from outside, the
moment of a decision is not known; so this judges what happened between two audits, when nothing is under way,
and only for callers of whom it is certain that a place would have helped them all the time.
"""

from __future__ import annotations

from typing import Any


def wanted_places(oracle: Any, key: Any) -> int:
    """How many more sessions the key's waiters could use, and its limit allows."""
    wanted = len(oracle.waiting(key)) - len(oracle.checking(key))
    return max(0, min(wanted, oracle.settings["max_sessions_per_key"] - len(oracle.places(key))))


def permitted(oracle: Any, url: str) -> int:
    """How many creations may begin at the URL now; 0 where its breaker is not closed for certain."""
    limit = oracle.settings["max_creating_per_url"]
    if oracle.breaker(url).is_open:
        return 0
    return max(0, limit - len(oracle.creating(url))) if limit else len(oracle.callers)


def total_is_full(oracle: Any) -> bool:
    total = oracle.settings["max_total_sessions"]
    return bool(total) and len(oracle.places()) >= total


def starving(oracle: Any) -> list[Any]:
    """The oldest callers of their keys whom only the limit in total keeps waiting."""
    if not total_is_full(oracle):
        return []
    oldest: dict[Any, Any] = {}
    for caller in oracle.waiting():
        oldest.setdefault(caller.key, caller)
    return [
        caller
        for key, caller in oldest.items()
        if wanted_places(oracle, key) and permitted(oracle, key.url) and not oracle.idle(key)
    ]


class Fairness:
    """Remembers from one audit to the next who starved."""

    def __init__(self) -> None:
        self._starved: list[Any] = []
        self._was_supplied = False

    def judge(self, oracle: Any) -> None:
        """Raises AssertionError when somebody was served what would have helped one who came before."""
        supplied = self._was_supplied or oracle.has_supplied
        still = [caller for caller in starving(oracle) if caller in self._starved]
        for caller in still:
            if any(one.key == caller.key for one in oracle.served):
                continue
            for one in oracle.served:
                is_creation = one.own is not None
                is_free = not oracle.settings["max_creating_per_url"] or one.key.url == caller.key.url
                assert one.order < caller.order or (not is_free if is_creation else supplied), (
                    f"{one} got what {caller} waits for, who came before"
                )
        self._starved = starving(oracle)
        self._was_supplied = bool(oracle.supply())
        oracle.has_supplied = False


def audit_demand(oracle: Any) -> None:
    """Where the total limit starves a key, nothing is idle but what is being closed for it."""
    demand = 0
    for url in {caller.key.url for caller in oracle.waiting()}:
        keys = {caller.key for caller in oracle.waiting() if caller.key.url == url}
        demand += min(permitted(oracle, url), sum(wanted_places(oracle, key) for key in keys))
    idle, supply = oracle.idle(), oracle.supply()
    assert not (total_is_full(oracle) and idle and len(supply) < demand), (
        f"{idle} could make room for {demand}, {supply} does"
    )
