"""A pool whose sessions open, close and answer checks when the test says so, and that tells an observer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Any, Protocol

from mcpgateway_pool import MCPSessionPool, PooledSession, TransportType

# Who acquires: set by a caller's task, and seen in the creation that it begins, which has its context.
current_caller: ContextVar[Any] = ContextVar("current_caller")


class Connection:
    """What a session is made of, and what stays when its PooledSession is dropped.

    Attributes:
        number: of the connection, from 1.
        creator: the caller for whom it was opened; None where no pool opened it.
        owner: done when the connection has died.
    """

    def __init__(self, number: int, creator: Any) -> None:
        self.number = number
        self.creator = creator
        self.owner: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"connection {self.number}"


class Operation:
    """A creation, a close or a check that waits for the test.

    Attributes:
        kind: ``"create"``, ``"close"`` or ``"check"``.
        connection: that is created, closed or checked.
        ignores_cancellation: whether it goes on when it is cancelled.
    """

    def __init__(self, kind: str, connection: Any) -> None:
        self.kind = kind
        self.connection = connection
        self.ignores_cancellation = False
        self.outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def end(self, result: Any = None) -> None:
        """Let it go on: with this result, or raising it where it is an exception."""
        if isinstance(result, asyncio.CancelledError):
            self.outcome.cancel()
        elif isinstance(result, BaseException):
            self.outcome.set_exception(result)
        else:
            self.outcome.set_result(result)

    async def wait(self) -> Any:
        while self.ignores_cancellation and not self.outcome.done():
            try:
                await asyncio.wait({self.outcome})
            except asyncio.CancelledError:
                continue
        return await self.outcome

    def __repr__(self) -> str:
        return f"<{self.kind} of {self.connection}>"


class Observer(Protocol):
    """Is told what the pool does, at the moment at which it does it."""

    def nobody(self, like: Any) -> Any:
        """Who has a session opened for nobody, like this connection."""

    def creation_begun(self, connection: Any) -> None: ...
    def creation_ended(self, connection: Any, error: BaseException | None) -> None: ...
    def close_decided(self, connection: Any, reason: str) -> None: ...
    def close_begun(self, connection: Any) -> None: ...
    def close_ended(self, connection: Any) -> None: ...
    def check_decided(self, connection: Any) -> None: ...
    def checkout_reported(self, connection: Any) -> None: ...
    def check_ended(self, connection: Any, is_usable: bool) -> None: ...


class ControlledPool(MCPSessionPool):
    """Reports to an observer, and holds what the test wants held.

    Attributes:
        held: kinds of operations that wait for the test; the others succeed at once.
        is_healthy: what a check says that does not wait.
        operations: those that wait.
        violations: what the observer found wrong; the pool may swallow what a hook raises.
    """

    def __init__(self, observer: Observer, **settings: Any) -> None:
        super().__init__(**settings)
        self.observer = observer
        self.held: set[str] = set()
        self.is_healthy = True
        self.operations: list[Operation] = []
        self.violations: list[AssertionError] = []
        self.connections = 0

    def tell(self, report: Callable[..., None], *arguments: Any) -> None:
        """Report something to the observer."""
        try:
            report(*arguments)
        except AssertionError as error:
            self.violations.append(error)
            raise

    def connect(self, creator: Any) -> Connection:
        """A new connection; no pool knows it."""
        self.connections += 1
        return Connection(self.connections, creator)

    def wrap(self, connection: Any, url: str) -> PooledSession:
        return PooledSession(
            session=connection,
            transport_context=None,
            url=url,
            transport_type=TransportType.STREAMABLE_HTTP,
            headers={},
            identity_key="",
            _owner_task=connection.owner,
        )

    async def _create_session(
        self,
        url: str,
        headers: Any,
        transport_type: TransportType,
        httpx_client_factory: Any,
        timeout: float | None = None,
        gateway_id: str | None = None,
    ) -> PooledSession:
        connection = self.connect(current_caller.get())
        self.tell(self.observer.creation_begun, connection)
        try:
            await self._hold(Operation("create", connection))
            pooled = self.wrap(connection, url)
        except BaseException as error:
            self.tell(self.observer.creation_ended, connection, error)
            raise
        self.tell(self.observer.creation_ended, connection, None)
        return pooled

    async def _close_session(self, pooled: Any) -> None:
        connection = pooled.session
        del pooled
        self.tell(self.observer.close_begun, connection)
        try:
            await self._hold(Operation("close", connection))
        finally:
            self.tell(self.observer.close_ended, connection)

    async def _run_health_check_chain(self, pooled: Any) -> bool:
        connection = pooled.session
        del pooled
        is_usable = False
        try:
            result = await self._hold(Operation("check", connection))
            is_usable = self.is_healthy if result is None else result
        finally:
            self.tell(self.observer.check_ended, connection, is_usable)
        return is_usable

    async def _hold(self, operation: Operation) -> Any:
        if operation.kind not in self.held:
            return None
        self.operations.append(operation)
        try:
            return await operation.wait()
        finally:
            self.operations.remove(operation)

    def _context_ahead(self, pooled: Any) -> Context:
        context = super()._context_ahead(pooled)
        context.run(current_caller.set, self.observer.nobody(pooled.session))
        return context

    # What the C side decides, told before anything is done about it.

    def _on_close(self, pooled: Any, ticket: Any, reason: str) -> asyncio.Task[None] | None:
        self.tell(self.observer.close_decided, pooled.session, reason)
        return super()._on_close(pooled, ticket, reason)

    def _on_check(self, pooled: Any, ticket: Any) -> asyncio.Task[None] | None:
        self.tell(self.observer.check_decided, pooled.session)
        return super()._on_check(pooled, ticket)

    def _on_long_checkout(self, pooled: Any, trace: Any) -> None:
        self.tell(self.observer.checkout_reported, pooled.session)
