"""Health checks: is this idle session still usable?

The pool's own check (:func:`is_alive`) goes by answers: any answer of the server shows that it lives and
knows the session, an error answer too; no answer is a failure. What the gateway's code asks by the hook
``_run_health_check_chain`` (:func:`run_gateways_chain`) answers as the gateway's own pool does.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Callable, Iterable
from typing import Any

from mcpgateway_pool.redact import safe_error, safe_text, safe_url

from . import sdk
from .http_watch import HttpWatch

logger = logging.getLogger("mcpgateway_pool")

METHOD_NOT_FOUND = -32601
SKIP = "skip"
_CALLS = {
    "ping": "send_ping",
    "list_tools": "list_tools",
    "list_prompts": "list_prompts",
    "list_resources": "list_resources",
}
METHODS = (*_CALLS, SKIP)


class _Reply(enum.Enum):
    """What asking came to."""

    RESULT = enum.auto()
    ERROR = enum.auto()
    """An answer all the same."""
    NONE = enum.auto()
    """No answer: a time-out, a lost connection, HTTP 404 to the session, 5xx."""


def is_known(method: str) -> bool:
    """Whether this names a method of the chain."""
    return method in METHODS


def _known(methods: Iterable[str], warn: Callable[..., None]) -> Iterable[str]:
    for method in methods:
        if is_known(method):
            yield method
        else:
            warn(f"unknown health check method {safe_text(method, 60)!r} is skipped")  # each name once


async def is_alive(
    pooled: Any, watch: HttpWatch | None, methods: Iterable[str], timeout: float, warn: Callable[..., None]
) -> bool:
    """Ask the server by each method in turn, until one brings a result, or no answer comes.

    Where every method was answered by an error, or ``skip`` follows these, the session lives. ``skip`` stands
    for servers that cannot be asked; it never makes up for an answer that did not come.

    Args:
        pooled: the session; nobody else uses it meanwhile.
        watch: what sees the session's HTTP requests; None where nothing does.
        methods: of ``ping``, ``list_tools``, ``list_prompts``, ``list_resources`` and ``skip``.
        timeout: seconds for each method.
        warn: called as a logger's ``warning`` for what recurs.
    """
    for method in _known(methods, warn):
        if method == SKIP:
            return True
        reply = await _ask(pooled, watch, method, timeout)
        if reply is _Reply.NONE:
            if watch is not None:
                watch.forsake()
            return False
        if reply is _Reply.RESULT:
            return True
    return True


async def _ask(pooled: Any, watch: HttpWatch | None, method: str, timeout: float) -> _Reply:
    silences = 0 if watch is None else watch.silences
    try:
        async with asyncio.timeout(timeout):
            await getattr(pooled.session, _CALLS[method])()
    except TimeoutError:
        logger.debug("health check %s was not answered within %s s", method, timeout)
        return _Reply.NONE
    except Exception as error:
        if watch is None:
            is_answer = sdk.is_surely_answer(error)
        else:
            is_answer = sdk.is_answer(error) and watch.silences == silences
        logger.debug("health check %s: %s", method, safe_error(error))
        return _Reply.ERROR if is_answer else _Reply.NONE
    return _Reply.RESULT


async def run_gateways_chain(
    pooled: Any, methods: Iterable[str], timeout: float, warn: Callable[..., None]
) -> bool:
    """Ask the server by each method in turn, until one gives a verdict, as the gateway's own pool does.

    A method that times out, or that the server does not know, leaves the verdict to the next; another error
    is a failure, and ``skip`` a success. Arguments as of :func:`is_alive`.

    Returns:
        Whether the session is usable; False when no method gave a verdict.
    """
    for method in _known(methods, warn):
        if method == SKIP:
            return True
        try:
            async with asyncio.timeout(timeout):
                await getattr(pooled.session, _CALLS[method])()
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
