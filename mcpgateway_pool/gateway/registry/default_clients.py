"""Watching the HTTP client that the release makes by itself, where a service (prompts, completion) gives no
client factory.

From SDK 2.x on, that client dials an address that the release has checked, and nobody else could make it so:
the function that makes its factory is replaced by one that has it watched.
"""

from __future__ import annotations

import functools
from contextvars import ContextVar
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .session_watch import SessionWatch

_NAME = "_build_pinned_httpx_client_factory"
_MARK = "_mcpgateway_pool_replaces"

# The watch on the session that is being opened in this context.
opening: ContextVar[SessionWatch | None] = ContextVar("mcpgateway_pool_opening_watch", default=None)


def are_made_by(release: ModuleType) -> bool:
    """Whether the release makes its default clients by itself; else the SDK does."""
    return hasattr(release, _NAME)


def replace(release: ModuleType) -> None:
    """Have default clients watched from now on; twice is harmless."""
    stock = getattr(release, _NAME, None)
    if stock is None or hasattr(stock, _MARK):
        return

    @functools.wraps(stock)
    def build(*args: Any, **kwargs: Any) -> Any:
        factory = stock(*args, **kwargs)
        watch = opening.get()
        return factory if watch is None else watch.watched(factory)

    setattr(build, _MARK, stock)
    setattr(release, _NAME, build)


def restore(release: ModuleType) -> None:
    """Undo :func:`replace`."""
    stock = getattr(getattr(release, _NAME, None), _MARK, None)
    if stock is not None:
        setattr(release, _NAME, stock)
