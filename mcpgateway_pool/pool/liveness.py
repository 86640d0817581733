"""What is seen of a session reaches its pool at once, instead of at the session's next use."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from typing import TYPE_CHECKING, Any

from mcpgateway_pool import verdict
from mcpgateway_pool._core import PooledSession
from mcpgateway_pool.upstream import sdk
from mcpgateway_pool.upstream.session_owner import SessionOwner
from mcpgateway_pool.verdict import State, Verdict

from .checking import standing_stream_ended

if TYPE_CHECKING:
    from .protocol import Pool


def apply(pool: Pool, pooled: Any, seen: Verdict) -> None:
    """Tell the pool what a verdict says of one of its sessions."""
    if seen.session is State.LOST or seen.is_url_suspect:
        # A session is older than the suspicion that it raises, so it is among those that are checked.
        pool._mark_broken(pooled, seen.session is State.LOST, seen.is_url_suspect)
    elif seen.session is State.DOUBTFUL:
        pool._doubt(pooled)


class _Watch:
    """Tells the pool what becomes of one of its sessions, and keeps neither alive.

    A class, not functions made for each session: those cost more memory, and CPython 3.12 and 3.13 crash
    where there is none for a function.
    """

    __slots__ = ("_foreign", "_pool", "_pooled")

    def __init__(self, pool: Pool, pooled: Any) -> None:
        self._pool = weakref.ref(pool)
        is_ours = isinstance(pooled, PooledSession)
        self._pooled = weakref.ref(pooled) if is_ours else None
        self._foreign = None if is_ours else pooled  # it may refuse weak references

    def tell(self, seen: Verdict) -> None:
        pool, session = self._both()
        if pool is not None and session is not None:
            apply(pool, session, seen)

    def stream_ended(self) -> None:
        pool, session = self._both()
        if pool is not None and session is not None:
            standing_stream_ended(pool, session)

    def task_ended(self, _: asyncio.Future[Any]) -> None:
        self.tell(verdict.LOST)

    def _both(self) -> tuple[Pool | None, Any]:
        """Pool and session, where both live and this is the pool's loop."""
        pool = self._pool()
        if pool is None or pool._loop is not asyncio.get_running_loop():
            return None, None
        return pool, self._foreign if self._pooled is None else self._pooled()


def watch(pool: Pool, pooled: Any) -> None:
    """Have the pool told whatever the session's owner sees, or that its owner task has ended.

    Neither the pool nor its session is kept alive by that. Sessions that have neither are not watched.
    """
    owner = task = None
    with contextlib.suppress(Exception):  # duck-typed objects may refuse
        owner = getattr(pooled, "transport_context", None)
        task = getattr(pooled, "_owner_task", None)
    made = _Watch(pool, pooled)
    if isinstance(owner, SessionOwner):
        owner.on_verdict(made.tell)
        owner.on_stream_end(made.stream_ended)
    elif isinstance(task, asyncio.Future):
        task.add_done_callback(made.task_ended)


def doubt_unwatched(pool: Pool, pooled: Any) -> None:
    """After a block that raised: look at a session that nobody watches, and have it checked before its next
    hand-out. Of one that is watched, everything is known already.
    """
    owner = session = None
    with contextlib.suppress(Exception):
        owner = getattr(pooled, "transport_context", None)
        session = getattr(pooled, "session", None)
    if not (isinstance(owner, SessionOwner) and owner.is_watched):
        is_lost = sdk.is_known_to_be_closed(session)
        apply(pool, pooled, verdict.LOST if is_lost else verdict.DOUBTFUL)
