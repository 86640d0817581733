"""Calls through the gateway's registry, as the gateway's services make them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from support.fake_upstreams import URL

Make = Callable[..., Any]


def acquire(registry: Any, downstream: str = "d1", gateway: str = "g1", **more: Any) -> Any:
    from mcpgateway.services.upstream_session_registry import TransportType

    arguments = {"url": URL, "headers": None, "transport_type": TransportType.STREAMABLE_HTTP, **more}
    return registry.acquire(downstream_session_id=downstream, gateway_id=gateway, **arguments)


async def use(registry: Any, downstream: str = "d1", gateway: str = "g1", **more: Any) -> Any:
    """One call; the session that it had."""
    async with acquire(registry, downstream, gateway, **more) as session:
        await asyncio.sleep(0)
        return session


def in_use(registry: Any) -> int:
    return int(registry._pool._counts()["active"])


def evictions(registry: Any) -> dict[str, int]:
    return {reason: count for reason, count in registry._pool._totals()["evictions"].items() if count}


class Call:
    """A call that goes on until the test ends it."""

    def __init__(self, registry: Any, *key: str, **more: Any) -> None:
        self.session: Any = None
        self.begun = asyncio.Event()
        self._end = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._run(registry, key, more))

    async def _run(self, registry: Any, key: tuple[str, ...], more: dict[str, Any]) -> None:
        async with acquire(registry, *key, **more) as self.session:
            self.begun.set()
            await self._end

    def fail(self, error: Exception) -> None:
        """The block of the call raises."""
        self._end.set_exception(error)

    async def end(self, error: Exception | None = None) -> None:
        if error is None:
            self._end.set_result(None)
            await self.task
        else:
            self.fail(error)
            with pytest.raises(type(error)):
                await self.task
