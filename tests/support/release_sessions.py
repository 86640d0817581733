"""Sessions by the release's own factory, in the test's process."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any


def client_factory(headers: Any = None, timeout: Any = None, auth: Any = None) -> Any:
    """What the gateway's services pass."""
    from mcpgateway_pool.upstream import sdk

    http = sdk.http_library()
    return http.AsyncClient(headers=headers, timeout=timeout or http.Timeout(30.0), auth=auth)


async def error_of(call: Awaitable[object]) -> Exception:
    """What a call raises, of whatever class the SDK has for it; it must raise."""
    try:
        await call
    except Exception as error:
        return error
    raise AssertionError("it succeeded")
