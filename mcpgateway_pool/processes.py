"""Every pool of this process: for the limits that the Collector shows, and for a forked child, which starts
with empty pools and with counters of its own.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Protocol

from . import _core
from .config import MAX_SECONDS

if TYPE_CHECKING:
    from .config import Settings


class LivePool(Protocol):
    """What is asked of a pool here."""

    @property
    def settings(self) -> Settings:
        """As they are now."""

    @property
    def has_been_used(self) -> bool:
        """Whether anybody has acquired from it."""

    def after_fork(self) -> None:
        """In a forked child: become an empty pool."""


_pools: weakref.WeakSet[LivePool] = weakref.WeakSet()
# Not used by `with`: where memory fails, that leaves a lock held, and every later scrape would hang.
_lock = threading.Lock()

# What a child has of its parent's, kept alive on purpose: dropping it would disturb the parent's event loop.
_parents: list[Any] = []


def add_pool(pool: LivePool) -> None:
    """Remember a pool for as long as it lives."""
    _lock.acquire()
    try:
        _pools.add(pool)
    finally:
        _lock.release()
    publish_limits()


def live_pools() -> list[LivePool]:
    """Every pool of this process that is not garbage yet."""
    _lock.acquire()
    try:
        return list(_pools)
    finally:
        _lock.release()


def publish_limits() -> None:
    """Show what the pools of this process may do together; to be called whenever that may have changed."""
    pools = live_pools()
    settings = [pool.settings for pool in pools]
    # A gateway has pools for calls of other kinds than those that it gets, which say nothing of its waits.
    used = [pool.settings for pool in pools if pool.has_been_used] or settings
    longest = max((one.acquire_timeout_seconds for one in used), default=0.0)

    def total(limits: list[int]) -> int | None:
        return None if 0 in limits else sum(limits)

    _core.publish_limits(
        max((one.max_sessions_per_key for one in settings), default=0),
        total([one.max_total_sessions for one in settings]),
        total([one.max_total_keys for one in settings]),
        round(longest * 1e9) if longest < MAX_SECONDS else 0,
        min(len(pools), 1),
    )


def leave_to_parent(*objects: Any) -> None:
    """Keep what a forked child must never drop."""
    _parents.append(objects)


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()  # another thread of the parent may hold the old one for ever
    _core.after_fork()
    for pool in live_pools():
        try:
            pool.after_fork()
        except MemoryError:  # this one stays unusable, and says so
            continue
    publish_limits()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
