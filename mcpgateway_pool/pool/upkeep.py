"""What a pool does in the background: closing and checking sessions, and what falls due with time.

None of it runs inside a request, and none of it keeps a request's context variables alive.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from mcpgateway_pool import tasks
from mcpgateway_pool._core import Pending, Ticket
from mcpgateway_pool.redact import safe_error, safe_text, safe_url

from .creation import Creation
from .opening import knows_tools

if TYPE_CHECKING:
    from .protocol import Pool
    from .session_context import AcquireArguments


def tick(pool_ref: weakref.ref[Pool]) -> None:
    """The pool's one timer: it does not keep the pool alive."""
    pool = pool_ref()
    if pool is not None:
        pool._upkeep()


def url_of(pooled: Any) -> str:
    """The session's URL, as it may be shown; duck-typed objects may refuse to say it."""
    try:
        return safe_url(getattr(pooled, "url", ""))
    except Exception:
        return "?"


def _gateway_of(pooled: Any) -> str:
    """The session's gateway, as it may be shown."""
    try:
        return safe_text(str(getattr(pooled, "gateway_id", "")), 60) or "none"
    except Exception:
        return "?"


def begin_close(pool: Pool, pooled: Any, ticket: Ticket, reason: str) -> asyncio.Task[None] | None:
    """The machine has decided to close a session. None where there is no loop to do it in."""
    if pool._loop is None or pool._loop.is_closed():
        return None
    task = pool._spawn(close(pool, pooled, ticket), close.__name__)
    task.add_done_callback(partial(_when_done, pool._close_ended, ticket))
    # Last: a log that raises must not keep it from being closed.
    if reason == "leaked":
        pool._warn(
            "a session of gateway %s to %s was dropped without a release, and is closed: release() it, or"
            " take it by async with session()",
            _gateway_of(pooled),
            url_of(pooled),
        )
    pool._log().debug("closing a session of %s: %s", url_of(pooled), reason)
    return task


def begin_check(pool: Pool, pooled: Any, ticket: Ticket) -> asyncio.Task[None] | None:
    """The machine has decided to check a session. None where there is no loop to do it in."""
    if pool._loop is None or pool._loop.is_closed():
        return None
    task = pool._spawn(check(pool, pooled, ticket), check.__name__)
    task.add_done_callback(partial(_when_done, pool._checked, ticket, False))
    return task


def begin_create(
    pool: Pool, pending: Pending, pooled: Any, arguments: AcquireArguments | None, headers: Any
) -> asyncio.Task[None] | None:
    """The machine has decided to open a session ahead of need, like an open one of the same key. None where
    that cannot be.

    Args:
        pool: that is to get it.
        pending: what stands for its acquire.
        pooled: the session that it is to be like.
        arguments: with which that one was opened; None where they are not known.
        headers: those of the newest caller, or None. They are sent if they still make the same key: a
            caller's dict may have become another user's meanwhile.
    """
    if arguments is None or pool._loop is None or pool._loop.is_closed():
        return None
    if isinstance(headers, dict):
        headers = dict(dict.items(headers))
        _, _, transport_type, _, _, user_identity, gateway_id, _ = arguments
        if pool._is_like(pooled, arguments.url, headers, transport_type, user_identity, gateway_id):
            arguments = arguments._replace(headers=headers)
    creation = Creation(
        pool, pending, arguments, pool._context_ahead(pooled), learns_tools=knows_tools(pooled)
    )
    creation.done.add_done_callback(partial(_opened_ahead, pool, pending))
    return creation.task


def _opened_ahead(pool: Pool, pending: Pending, _done: asyncio.Future[None]) -> None:
    if pending.error is not None:
        pool._log().debug("a session could not be opened ahead of need: %s", safe_error(pending.error))
        pending.error = None  # it refers to frames that refer to it


def _when_done(report: Callable[..., object], *arguments: Any) -> None:
    """Done callback of a task, which is the last argument: one that was cancelled before its first step, or
    had no memory for it, never ran, and did not report its end. A second report is harmless.
    """
    *owed, _task = arguments
    report(*owed)


async def close(pool: Pool, pooled: Any, ticket: Ticket | None) -> None:
    """Close a session; its place comes free when this ends, or its bound has passed.

    Args:
        pool: whose hook closes it.
        pooled: the session.
        ticket: the machine's name of this close; None for a session that has no place in the pool.
    """
    timer = None
    has_ended = True
    try:
        try:
            bound = pool._cleanup_timeout() + tasks.CANCEL_GRACE_SECONDS
            timer = pool._timer(bound, overdue, pool, pooled, ticket, asyncio.current_task())
        except Exception:  # noqa: S110 - closed all the same, where a hook or memory fails, and it cannot be bounded
            pass
        try:
            await pool._close_session(pooled)
        except MemoryError:  # it may not have begun: once more
            await pool._close_session(pooled)
    except GeneratorExit:
        has_ended = False  # its loop was closed: the pool has given this up, or is about to
        raise
    except Exception as error:
        pool._log().debug("closing a session failed: %s", safe_error(error))
    finally:
        if timer is not None:
            timer.cancel()
        if has_ended and ticket is not None:
            pool._close_ended(ticket)


def overdue(pool: Pool, pooled: Any, ticket: Ticket | None, task: asyncio.Task[None]) -> None:
    """A close takes too long: give its place away, and end it."""
    pool._warn("closing a session takes too long, its place is free: %s", url_of(pooled))
    task.cancel()
    if ticket is not None:
        pool._close_ended(ticket)


async def check(pool: Pool, pooled: Any, ticket: Ticket) -> None:
    """Check a session for the machine."""
    is_usable = False
    has_ended = True
    try:
        is_usable = bool(await pool._check_session(pooled))
    except GeneratorExit:
        has_ended = False
        raise
    except Exception as error:
        pool._log().debug("a health check failed: %s", safe_error(error))
    finally:
        if has_ended:
            pool._checked(ticket, is_usable)
