"""The health check chain: is this idle session still usable?"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

from mcpgateway_pool.redact import safe_error, safe_text, safe_url

from . import sdk

logger = logging.getLogger("mcpgateway_pool")

METHOD_NOT_FOUND = -32601
_CALLS = {
    "ping": "send_ping",
    "list_tools": "list_tools",
    "list_prompts": "list_prompts",
    "list_resources": "list_resources",
}


async def run_chain(pooled: Any, methods: Iterable[str], timeout: float, warn: Callable[..., None]) -> bool:
    """Ask the server by each method in turn, until one gives a verdict.

    A method that times out, or that the server does not know, leaves the verdict to the next.

    Args:
        pooled: the session.
        methods: of ``ping``, ``list_tools``, ``list_prompts``, ``list_resources`` and ``skip``, which is a
            success without asking.
        timeout: seconds for each method.
        warn: called as a logger's ``warning`` for what recurs.

    Returns:
        Whether the session is usable; False when no method gave a verdict.
    """
    for method in methods:
        if method == "skip":
            return True
        call = _CALLS.get(method)
        if call is None:
            warn(f"unknown health check method {safe_text(method, 60)!r} is skipped")  # each name once
            continue
        try:
            async with asyncio.timeout(timeout):
                await getattr(pooled.session, call)()
        except TimeoutError:
            logger.debug("health check %s timed out after %s s", method, timeout)
        except Exception as error:
            if sdk.error_code(error) != METHOD_NOT_FOUND:
                logger.debug("health check %s failed: %s", method, safe_error(error))
                return False
            logger.debug("health check %s is unknown to the server", method)
        else:
            return True
    warn("no health check method gave a verdict for %s", safe_url(getattr(pooled, "url", "")))
    return False
