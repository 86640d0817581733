"""One creation of a session, from the decision to make it to its end.

It runs in a task of its own, so that it goes on when its caller is cancelled: it then finishes into the pool.
Its caller, if still there, gets its session or its error. It is bounded in time, even where an overridden
``_create_session`` ignores its cancellation: what comes after that is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from mcpgateway_pool import verdict
from mcpgateway_pool._core import Pending, PooledSession
from mcpgateway_pool.errors import PoolClosedError, SessionCreateTimeoutError
from mcpgateway_pool.redact import safe_url
from mcpgateway_pool.standstill import Standstill

from .liveness import watch
from .opening import learn_tools
from .release import begin_close
from .views import identity_digest

if TYPE_CHECKING:
    from .protocol import Pool
    from .session_context import AcquireArguments


class Creation:
    """Opens a session for a pending acquire.

    Args:
        pool: that is to get it.
        pending: the acquire, or what stands for one where nobody waits for the session.
        arguments: of the acquire.
        context: to run in; None: in the caller's.
        learns_tools: have the session ask for the tools of its server before anybody gets it.

    Attributes:
        task: its task.
        done: done when it has told the pool how it ended.
    """

    __slots__ = (
        "_arguments",
        "_has_answered",
        "_has_timed_out",
        "_headers",
        "_is_permitted",
        "_learns_tools",
        "_pending",
        "_pool",
        "_span",
        "_timer",
        "done",
        "task",
    )

    def __init__(
        self,
        pool: Pool,
        pending: Pending,
        arguments: AcquireArguments,
        context: contextvars.Context | None = None,
        *,
        learns_tools: bool = False,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._pool = pool
        self._pending = pending
        self._arguments = arguments
        self._headers = cast("dict[str, str] | None", arguments.headers)  # a copy: see AcquireArguments
        self._learns_tools = learns_tools
        self._has_timed_out = False
        self._has_answered = False
        self._is_permitted = False
        self.done: asyncio.Future[None] = loop.create_future()
        if pool._standstill is None:
            pool._standstill = Standstill(loop)
        self._span = pool._standstill.begin()
        timer = None
        try:
            timer = self._timer = pool._timer(pool._settings.session_create_timeout_seconds, self._time_out)
            if context is None:
                self.task = pool._spawn(self._run(), "create", in_context=True)
            else:
                self.task = context.run(partial(pool._spawn, self._run(), "create", in_context=True))
            self.task.add_done_callback(self._ended)
        except BaseException:
            self._span.end()
            if timer is not None:
                timer.cancel()
            raise

    async def _run(self) -> None:
        pool = self._pool
        url, _, transport_type, factory, timeout, _, gateway_id, _ = self._arguments
        if timeout is None:
            timeout = pool._settings.default_transport_timeout_seconds
        has_ended = True
        pooled: Any = None
        try:
            await self._permit()
            pooled = await pool._create_session(
                url, self._headers, transport_type, factory, timeout, gateway_id
            )
            if self._learns_tools:
                await learn_tools(pooled, pool._settings.health_check_timeout_seconds)
        except asyncio.CancelledError:
            self._fail(None)
            if pooled is not None:  # it was learning; close_all() waits for this task, so for its close, too
                await asyncio.wait({begin_close(pool, pooled)})
            raise
        except Exception as error:
            self._fail(error)
        except GeneratorExit:
            has_ended = False  # its loop was closed: the pool has given this up, or is about to
            raise
        except BaseException as error:
            self._fail(error)
            raise
        else:
            try:
                is_taken = self._give_to_pool(pooled)
            except Exception as error:
                self._fail(error)
                is_taken = False
            if not is_taken:
                pool._log().debug("a session came that cannot be used any more: closing it")
                begin_close(pool, pooled)
        finally:
            self._timer.cancel()
            if has_ended:
                self._answer()

    async def _permit(self) -> None:
        try:
            await self._pool._permit_creation(self._headers)
        except Exception as error:
            verdict.blame(error, verdict.Fault.CALLER)
            raise
        self._is_permitted = True

    def _give_to_pool(self, pooled: Any) -> bool:
        """Whether the pool took the session; not when its creation was given up before."""
        pool = self._pool
        user_identity, gateway_id = self._arguments.user_identity, self._arguments.gateway_id
        identity = None
        # Duck-typed objects may refuse; the pool's own key does not depend on these.
        with contextlib.suppress(Exception):
            identity = self._pending.identity
            if identity is None:
                pooled.identity_key = pool._identity_key(self._headers)
            elif not isinstance(pooled, PooledSession):  # else it is made of the key when it is read
                pooled.identity_key = identity_digest(identity)
            pooled.user_identity = user_identity or "anonymous"
            pooled.gateway_id = gateway_id or ""
        is_taken = pool._created(self._pending, pooled, self._arguments)
        if is_taken:
            if identity is not None and isinstance(pooled, PooledSession) and pooled._pool is not pool:
                pooled.identity_key = identity_digest(identity)  # it is held as a foreign object is
            with contextlib.suppress(MemoryError):  # its death would be noticed at its next use only
                watch(pool, pooled)
        return is_taken

    def _fail(self, error: BaseException | None) -> None:
        """Tell the pool that the creation has failed.

        Args:
            error: why; None where the task was cancelled. A cancellation has a reason, which its caller gets:
                the time-out, the close of the pool, or somebody outside.
        """
        pending = self._pending
        if self._has_timed_out:
            error = self._timeout_error(error)
        if error is None and self._pool._closed:
            error = PoolClosedError("Session pool is closed")
        if error is None:
            error = asyncio.CancelledError("the creation of the session was cancelled")
        if pending.error is None:
            pending.error = error
        pool = self._pool
        trips = pool._circuit_breaker_trips
        pool._create_failed(pending, self._is_evidence(error))
        if pool._circuit_breaker_trips != trips:
            url = self._arguments[0]
            pool._log().warning(
                "Circuit breaker opened for %s: %s", safe_url(url), pool._opened_by.note(url, error)
            )

    def _is_evidence(self, error: BaseException) -> bool:
        """Whether this failure shows that the server is down."""
        if not self._is_permitted or isinstance(error, PoolClosedError):
            return False  # it was not even asked
        if self._span.stood_still():
            self._pool._log().debug("this process stood still: a failure to open a session does not count")
            return False
        return verdict.counts_for_breaker(error)

    def _timeout_error(self, cause: BaseException | None) -> SessionCreateTimeoutError:
        limit = self._pool._settings.session_create_timeout_seconds
        error = SessionCreateTimeoutError(
            f"Failed to create MCP session for {safe_url(self._arguments[0])}: not ready after {limit:g} s"
        )
        error.__cause__ = cause
        return error

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Done callback of the task. A task that was cancelled before its first step, or had no memory for
        it, has never run. The pool then learns the failure from here, and so does the caller, who waits for
        ``done``.
        """
        if not self._has_answered:
            self._fail(None if task.cancelled() else task.exception())
            self._timer.cancel()
            self._answer()

    def _answer(self) -> None:
        if not self.done.done() and not self.done.get_loop().is_closed():
            self.done.set_result(None)
        self._has_answered = True
        self._span.end()

    def _time_out(self) -> None:
        self._has_timed_out = True
        self.task.cancel()
        self._timer = self._pool._timer(self._pool._cleanup_timeout(), self._give_up)

    def _give_up(self) -> None:
        """It ignores its cancellation: its caller and its place wait no longer."""
        self._pool._log().warning(
            "the creation of a session ignores its cancellation: %s", safe_url(self._arguments[0])
        )
        self._fail(None)
        self._answer()


async def create(pool: Pool, pending: Pending, arguments: AcquireArguments) -> PooledSession:
    """Create a session for a caller that has a place for it.

    Raises:
        SessionCreateTimeoutError: it took longer than ``session_create_timeout_seconds``.
        PoolClosedError: the pool was closed meanwhile.
        Exception: whatever ``_create_session`` raised.
    """
    try:
        if pending.is_anonymous:
            pool._warn_once(
                "callers without an identity share sessions: neither a user nor an identity header was given;"
                " pass user_identity, or a header that identity_headers names"
            )
        creation = Creation(pool, pending, arguments)
    except BaseException:
        pool._create_failed(pending, False)  # nobody else will report its end
        raise
    try:
        await creation.done
    except BaseException:
        pool._cancel(pending)
        raise
    try:
        return pool._take(pending, arguments[0])  # type: ignore[no-any-return]
    finally:
        pending.error = None  # it refers to this frame


__all__ = ["Creation", "create"]
