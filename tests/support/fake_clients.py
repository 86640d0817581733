"""HTTP clients that misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from mcpgateway_pool.upstream import sdk


def client_factory_that_clings(let_go: asyncio.Event) -> Callable[..., Any]:
    """A factory of clients whose end ignores cancellation until ``let_go`` is set."""
    base: Any = sdk.http_library().AsyncClient

    class Clinging(base):  # type: ignore[misc]
        async def __aexit__(self, *error: object) -> None:
            while not let_go.is_set():
                try:
                    await let_go.wait()
                except asyncio.CancelledError:
                    continue
            await super().__aexit__(*error)

    def factory(headers: Any = None, timeout: Any = None, auth: Any = None) -> Any:
        return Clinging(headers=headers, timeout=timeout, auth=auth)

    return factory
