"""The numbers of one pool, as a record with types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .protocol import Pool


@dataclass(frozen=True, slots=True)
class PoolStats:
    """The numbers of one pool at one moment. Each has the name of its series, without prefix and ``_total``;
    the counters begin when the pool was made.

    Attributes:
        name: of the pool.
        size: sessions that are open: ``active_sessions`` and ``idle_sessions``.
        active_sessions: checked out.
        idle_sessions: open and not checked out; one under a health check is idle.
        session_creations_in_progress: sessions that are being opened.
        waiters: callers who wait.
        keys: with a session, or with somebody who waits.
        hits: acquires that were answered with a session that was open already.
        misses: acquires that were answered with a new one.
        creates: sessions that were opened.
        create_failures: that could not be opened.
        acquire_timeouts: acquires that waited for too long.
        evictions: sessions that the pool closed, by reason.
        max_sessions_per_key: the limit, as are the next two; 0 is unlimited.
    """

    name: str
    size: int
    active_sessions: int
    idle_sessions: int
    session_creations_in_progress: int
    waiters: int
    keys: int
    hits: int
    misses: int
    creates: int
    create_failures: int
    acquire_timeouts: int
    evictions: Mapping[str, int]
    max_sessions_per_key: int
    max_total_sessions: int
    max_total_keys: int


def read_stats(pool: Pool) -> PoolStats:
    """What ``stats()`` returns."""
    counts, totals, settings = pool._counts(), pool._totals(), pool._settings
    idle = counts["idle"] + counts["checking"]
    return PoolStats(
        name=pool.name,
        size=counts["active"] + idle,
        active_sessions=counts["active"],
        idle_sessions=idle,
        session_creations_in_progress=counts["creating"],
        waiters=counts["waiters"],
        keys=counts["keys"],
        hits=totals["hits"],
        misses=totals["misses"],
        creates=totals["creates"],
        create_failures=totals["create_failures"],
        acquire_timeouts=totals["acquire_timeouts"],
        evictions=MappingProxyType(dict(totals["evictions"])),
        max_sessions_per_key=settings.max_sessions_per_key,
        max_total_sessions=settings.max_total_sessions,
        max_total_keys=settings.max_total_keys,
    )


def describe(pool: Pool) -> str:
    """What ``repr()`` says of a pool."""
    kind = type(pool).__name__
    try:
        name, counts = pool.name, pool._counts()
    except (AttributeError, RuntimeError):  # its constructor failed, or has not run yet
        return f"<{kind}: not initialized>"
    state = "closed" if pool._closed else "not open yet" if pool._loop is None else "open"
    return (
        f"<{kind} {name!r}: {state}, {counts['active']} active, {counts['idle'] + counts['checking']} idle, "
        f"{counts['waiters']} waiting, {counts['keys']} keys>"
    )
