"""Checking sessions: whether the server still knows one, and what the end of its standing stream means."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mcpgateway_pool.redact import safe_text
from mcpgateway_pool.upstream import health

if TYPE_CHECKING:
    from .protocol import Pool


def refuse_unknown(methods: Iterable[str]) -> None:
    """Refuse health check methods that do not exist.

    Raises:
        ValueError: one of them.
    """
    for method in methods:
        if not health.is_known(method):
            known = ", ".join(health.METHODS)
            raise ValueError(f"health_check_methods: {safe_text(method, 60)!r} is none of {known}")


async def is_alive(pool: Pool, pooled: Any) -> bool:
    """The pool's own check of a session, by answers; see :func:`mcpgateway_pool.upstream.health.is_alive`."""
    settings = pool._settings
    watch = pool._watch_of(pooled)
    lost_streams = 0 if watch is None else watch.lost_streams
    is_alive = await health.is_alive(
        pooled, watch, settings.health_check_methods or (), settings.health_check_timeout_seconds, pool._warn
    )
    if is_alive and lost_streams:
        pool._streamless[pooled.url] = None
    return is_alive


def standing_stream_ended(pool: Pool, pooled: Any) -> None:
    """Doubt a session whose stream beside the requests has ended: its server may have ended, too."""
    if pooled.url not in pool._streamless:
        pool._doubt(pooled)
