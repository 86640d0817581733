"""Upstream sessions for the gateway's registry, opened without a server when the test says so."""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any

URL = "http://server.test/mcp"


class FakeSession:
    """What stands for the SDK's ``ClientSession``.

    Attributes:
        request: with which it was asked for.
        pings: how often it was asked whether it lives.
        ping_error: raised by each ping, if set.
        holds_pings: whether each ping waits for ``pong``.
        owner: its owner task; None where it has none.
    """

    def __init__(self, request: Any) -> None:
        self.request = request
        self.pings = 0
        self.ping_error: Exception | None = None
        self.holds_pings = False
        self.pong = asyncio.Event()
        self.owner: asyncio.Task[None] | None = None

    async def send_ping(self) -> None:
        self.pings += 1
        if self.holds_pings:
            await self.pong.wait()
        if self.ping_error is not None:
            raise self.ping_error


class FakeUpstream:
    """A server; :meth:`open` is the session factory to inject.

    Attributes:
        sessions: all that were opened, in order.
        attempts: how often one was asked for.
        error: raised by each attempt, if set.
        holds: whether each attempt waits for ``gate``.
        ignores_shutdown: whether owner tasks end only when they are cancelled.
    """

    def __init__(self, release: ModuleType) -> None:
        self._release = release
        self.sessions: list[FakeSession] = []
        self.attempts = 0
        self.error: Exception | None = None
        self.holds = False
        self.gate = asyncio.Event()
        self.ignores_shutdown = False

    async def open(self, request: Any) -> tuple[Any, Any]:
        """The session factory, in the shape that the release has it."""
        self.attempts += 1
        if self.holds:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        session = FakeSession(request)
        shutdown = asyncio.Event()
        never = asyncio.Event()
        session.owner = asyncio.create_task((never if self.ignores_shutdown else shutdown).wait())  # type: ignore[arg-type]
        self.sessions.append(session)
        if hasattr(self._release, "SessionLifecycle"):
            return session, self._release.SessionLifecycle(session.owner, shutdown, client=None)
        session._cf_owner_task = session.owner  # type: ignore[attr-defined]
        session._cf_shutdown_event = shutdown  # type: ignore[attr-defined]
        return session, None

    @property
    def open_now(self) -> list[FakeSession]:
        """Those whose owner tasks live."""
        return [session for session in self.sessions if session.owner and not session.owner.done()]
