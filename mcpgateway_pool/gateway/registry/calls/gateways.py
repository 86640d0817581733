"""What the release's database says of its gateways: their names, and whether they were changed, switched off
or deleted, by whatever worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import importlib
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from mcpgateway_pool.gateway.gateway_rows import read_rows

# What a session to a gateway depends on, as far as a release has it.
_CONNECTION_COLUMNS = (
    "url",
    "transport",
    "enabled",
    "auth_type",
    "auth_value",
    "auth_query_params",
    "oauth_config",
    "passthrough_headers",
    "ca_certificate",
    "client_cert",
    "client_key",
)
_NAME_COLUMNS = ("name", "slug")
NAMES_LAST_SECONDS = 30.0
LOOK_EVERY_SECONDS = 5.0


def read_connections(identifiers: Collection[str]) -> dict[str, tuple[Any, ...]]:
    """What sessions to these gateways depend on, by id; those that were deleted are missing."""
    rows = read_rows(_CONNECTION_COLUMNS, lambda model: model.id.in_(list(identifiers)))
    return {str(identifier): tuple(map(repr, values)) for identifier, *values in rows}


def read_names(identifier: str) -> tuple[str, ...]:
    """The names by which an operator may know a gateway, its id first; the id alone where it was deleted."""
    rows = read_rows(_NAME_COLUMNS, lambda model: model.id == identifier)
    return (identifier, *(str(name) for row in rows for name in row[1:] if name))


def read_unmatched(listed: frozenset[str]) -> list[str]:
    """Those of these ids and names that mean no gateway."""
    sqlalchemy = importlib.import_module("sqlalchemy")

    def is_meant(model: Any) -> Any:
        columns = (getattr(model, name) for name in ("id", *_NAME_COLUMNS) if hasattr(model, name))
        return sqlalchemy.or_(*(column.in_(list(listed)) for column in columns))

    known = {str(value) for row in read_rows(_NAME_COLUMNS, is_meant) for value in row}
    return sorted(listed - known)


class ExceptedGateways:
    """Which gateways a list of ids and names means. A database that does not answer makes an exception of
    all: nobody is to share a session that must not be shared.

    Args:
        listed: the ids and names.
        read: the names of a gateway.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        listed: frozenset[str],
        *,
        read: Callable[[str], tuple[str, ...]] = read_names,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listed = listed
        self._read = read
        self._clock = clock
        self._known: dict[str, tuple[float, bool]] = {}

    def has(self, identifier: str) -> bool:
        """Whether the list means this gateway."""
        if not self._listed or identifier in self._listed:
            return bool(self._listed)
        now = self._clock()
        known = self._known.get(identifier)
        if known is not None and now - known[0] < NAMES_LAST_SECONDS:
            return known[1]
        try:
            is_listed = not self._listed.isdisjoint(self._read(identifier))
        except Exception:
            return True
        self._known[identifier] = (now, is_listed)
        return is_listed

    def forget(self) -> None:
        """Some gateway was changed, perhaps renamed."""
        self._known.clear()


class GatewayChanges:
    """Notices that a gateway was changed while sessions to it are open.

    A look is taken when the release says that gateways changed, and every five seconds, because another
    worker need not say so here.

    Args:
        open_gateways: those that have open sessions.
        lose: closes the sessions of one.
        read: see :func:`read_connections`; runs in a thread.
    """

    def __init__(
        self,
        open_gateways: Callable[[], set[str]],
        lose: Callable[[str], Any],
        *,
        read: Callable[[Collection[str]], Mapping[str, tuple[Any, ...]]] = read_connections,
    ) -> None:
        self._open_gateways = open_gateways
        self._lose = lose
        self._read = read
        self._seen: dict[str, tuple[Any, ...]] = {}
        self._task: asyncio.Task[None] | None = None
        self._wake: asyncio.Event | None = None

    def opened(self, gateway_id: str) -> None:
        """A session to this gateway was opened: what the database says of it now is what it depends on."""
        if self._task is None or self._task.done():
            self._seen.clear()  # nobody has looked for a while, because nothing was open
            self._wake = asyncio.Event()
            self._task = asyncio.get_running_loop().create_task(
                self._run(), name="mcpgateway-pool-changes", context=contextvars.Context()
            )
        elif gateway_id not in self._seen:
            self.notice()

    def notice(self) -> None:
        """The release says that a gateway was changed: look now."""
        if self._wake is not None:
            self._wake.set()

    def forget(self, gateway_id: str) -> None:
        """All sessions to this gateway were closed: what came before is no change for those that follow."""
        self._seen.pop(gateway_id, None)

    async def end(self) -> None:
        """Look no more."""
        task, self._task = self._task, None
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            task.cancel()
            await asyncio.wait({task})

    async def _run(self) -> None:
        assert self._wake is not None
        while self._open_gateways():
            self._wake.clear()
            await self.look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_SECONDS):
                    await self._wake.wait()

    async def look(self) -> None:
        """Compare what the database says with what it said; the sessions of gateways that differ are lost."""
        identifiers = self._open_gateways()
        for gone in self._seen.keys() - identifiers:
            del self._seen[gone]
        if not identifiers:
            return
        try:
            rows = await asyncio.to_thread(self._read, identifiers)
        except Exception:  # the database does not answer: nothing is known to have changed
            return
        for identifier in identifiers:
            before, now = self._seen.get(identifier), rows.get(identifier)
            if now is None or (before is not None and before != now):
                self._seen.pop(identifier, None)
                await self._lose(identifier)
            if now is not None:
                self._seen[identifier] = now
