"""MCPGATEWAY_POOL_CALLS_WITHOUT_SESSION: which calls are pooled, and why the others are not."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from mcpgateway_pool.redact import safe_text

Reason = Literal["switched_off", "no_user", "excepted"]

VARIABLE = "MCPGATEWAY_POOL_CALLS_WITHOUT_SESSION"
POOLED, OWN = "pooled", "own"
# What looks like one of the two words, or like a switch, is more likely a mistake than a gateway's name.
_WORDS = (POOLED, OWN)
_SWITCHES = frozenset({"0", "1", "true", "false", "yes", "no", "on", "off", "none", "all", "*"})


@dataclass(frozen=True, slots=True)
class CallsWithoutSession:
    """The switch.

    Attributes:
        are_pooled: whether any of these calls are.
        excepted: ids and names of gateways whose calls are not.
    """

    are_pooled: bool = True
    excepted: frozenset[str] = frozenset()

    def described(self) -> str:
        """What is pooled and what that means, for a log line and for ``doctor``."""
        if not self.are_pooled:
            return f"calls without a downstream session are not pooled ({VARIABLE}=own)"
        names = ", ".join(safe_text(name, 60) for name in sorted(self.excepted))
        but = f", but for those to {names}" if names else ""
        return (
            f"calls without a downstream session are pooled{but}: calls of one user share sessions. Where a"
            f" server must not remember one call at the next: {VARIABLE}=<ids or names of such gateways>"
        )


def parse(text: str) -> CallsWithoutSession:
    """The switch, from the text of its variable: ``pooled``, ``own``, or a list, by commas, of the ids or
    names of gateways whose calls go their own way.

    Raises:
        ValueError: it is none of these; the message says why.
    """
    word = text.strip().lower()
    if word in _WORDS:
        return CallsWithoutSession(are_pooled=word == POOLED)
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if not name:
            raise ValueError("there is an empty name in the list")
        lower = name.lower()
        if lower in _SWITCHES or lower in _WORDS or difflib.get_close_matches(lower, _WORDS, 1, 0.8):
            raise ValueError(f"{safe_text(name, 60)!r} is neither of the words, and hardly a gateway")
    return CallsWithoutSession(excepted=frozenset(names))
