"""What must hold of each case, whichever transport and SDK. Times are bounds on a busy machine, by the
default settings and by the fast ones; a network of the SDK's own time-outs exceeds them by far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Expected:
    """Attributes:
    seconds: until the last caller knows, at most.
    fast_seconds: the same with the fast settings.
    failed: calls that fail at most; None: as many as there are.
    others_seconds: the longest call to a healthy host, at most.
    note: what the note says.
    runs_alone: it needs the processors for itself: beside others of its kind it meets time-outs of its own.
    title: the case in a few words.
    """

    title: str
    seconds: float
    fast_seconds: float
    failed: int | None = 0
    others_seconds: float = 10.0
    note: str = ""
    runs_alone: bool = False


EXPECTED = {
    "vanished_while_idle": Expected("a host vanishes while its session is idle", 45, 20, None),
    "vanished_in_a_call": Expected("… in 5 calls", 45, 20, None),
    "vanished_before_a_creation": Expected("… before 3 sessions are opened", 25, 20, None),
    "vanished_at_close": Expected("… before the pool is closed", 12, 12),
    "power_loss": Expected("power loss and a new start, then 5 calls, one after the other", 15, 15, 2),
    "vanished_for_a_while": Expected(
        "a host is away for 20 s, under 40 callers", 150, 60, None, note="all served"
    ),
    "firewall_forgets": Expected("a firewall forgets the idle session after 5 s, a call after 40 s", 20, 20),
    "loss_and_latency": Expected("3 % of packets lost, 60 ms there and back", 60, 60),
    "names_hang": Expected("20 names hang, one does not", 45, 30, None),
    "name_moves": Expected("a name moves, its old address is dead: until a call succeeds", 45, 20, None),
    "name_has_a_dead_address": Expected("a name with a dead address and a good one", 15, 15),
    "many_sessions_and_a_restart": Expected(
        "500 idle sessions and a restart: a call on each", 120, 60, None, runs_alone=True
    ),
    "paused_server": Expected("a server's process is stopped for 15 s, in a call", 60, 40),
    "hasty_server": Expected("a server closes connections after 2 s, calls come every 2 s", 20, 20),
    "few_descriptors": Expected("64 descriptors, 60 callers", 45, 45, None, note="then 0 of 60 refused"),
}


def wrong_with(outcome: dict[str, Any], *, is_fast: bool) -> list[str]:
    """What does not hold; empty when all does."""
    if "error" in outcome:
        return [outcome["error"]]
    expected = EXPECTED[outcome["case"]]
    most = {
        "seconds": expected.fast_seconds if is_fast else expected.seconds,
        "failed": outcome["calls"] if expected.failed is None else expected.failed,
        "others_seconds": expected.others_seconds,
        "places_lost": 0,
        "descriptors_left": 0,
    }
    wrong = [
        f"{name}: {outcome[name]}, at most {limit}" for name, limit in most.items() if outcome[name] > limit
    ]
    if not outcome["note"].startswith(expected.note):
        wrong.append(f"{outcome['note']!r} should begin with {expected.note!r}")
    return [*wrong, *outcome["errors"]] if wrong else []
