"""Private names of the gateway's own pool that code written for it reads, assigns or calls.

The numbers are kept by the C side. What is assigned to a counter shifts what is shown under that name and in
``get_metrics()``, of this pool alone: the Prometheus series stay what happened. Locks, semaphores and the
times of last use have no counterpart here.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mcpgateway_pool.pool.views import SETTINGS
from mcpgateway_pool.redact import safe_url

if TYPE_CHECKING:
    from .gateway_pool import GatewayPool

_COUNTERS = (
    "_hits",
    "_misses",
    "_evictions",
    "_health_check_failures",
    "_circuit_breaker_trips",
    "_pool_keys_evicted",
    "_sessions_reaped",
    "_anonymous_identity_count",
)
# Name in the gateway's own pool -> where SessionAffinity keeps it.
_OF_AFFINITY = {
    "_session_affinity_local_hits": ("_mapping", "local_hits"),
    "_session_affinity_redis_hits": ("_mapping", "redis_hits"),
    "_session_affinity_misses": ("_mapping", "misses"),
    "_forwarded_requests": ("counts", "requests"),
    "_forwarded_request_failures": ("counts", "failures"),
    "_forwarded_request_timeouts": ("counts", "timeouts"),
}


def _counter(name: str, counted: property) -> property:
    """The property ``counted``, which can be assigned."""
    assert counted.fget is not None
    read = counted.fget

    def get(pool: GatewayPool) -> int:
        return int(read(pool)) + pool._assigned.get(name, 0)

    def assign(pool: GatewayPool, value: int) -> None:
        pool._assigned[name] = value - int(read(pool))

    return property(get, assign)


# In the gateway's own pool, where ours have tuples.
_SHAPES: dict[str, Callable[[Any], Any]] = {"health_check_methods": list, "identity_headers": frozenset}


def _setting(name: str) -> property:
    """A setting of the pool, which can be assigned; sessions that are open keep their lifetime."""

    def get(pool: GatewayPool) -> Any:
        value = getattr(pool._settings, name)
        return _SHAPES[name](value) if name in _SHAPES else value

    def assign(pool: GatewayPool, value: Any) -> None:
        settings = dataclasses.replace(pool._settings, **{name: value})
        core = settings.for_core()
        *_, extractor = core["identity"]
        pool._configure(
            limits=core["limits"], times=core["times"], breaker=core["breaker"], extractor=extractor
        )
        pool._settings = settings

    # Keys refer to the identity headers by number: those stay as they are.
    return property(get) if name == "identity_headers" else property(get, assign)


def _of_affinity(part: str, name: str) -> property:
    def get(pool: GatewayPool) -> int:
        return int(getattr(getattr(pool._session_affinity, part), name))

    def assign(pool: GatewayPool, value: int) -> None:
        setattr(getattr(pool._session_affinity, part), name, value)

    return property(get, assign)


def _mcp_session_mapping(pool: GatewayPool) -> dict[tuple[str, str, str, str], tuple[str, ...]]:
    """The mappings of downstream sessions that this worker knows; the dict itself."""
    return pool._session_affinity.mappings  # type: ignore[return-value]


def _record_failure(pool: GatewayPool, url: str) -> None:
    """Count a failure to open a session to this URL, which may open its circuit breaker."""
    trips = pool._circuit_breaker_trips
    pool._note_outcome(url, True)
    if pool._circuit_breaker_trips != trips:
        pool._log().warning("Circuit breaker opened for %s", safe_url(url))


def _record_success(pool: GatewayPool, url: str) -> None:
    """Count that a session to this URL was opened: its failures are over."""
    pool._note_outcome(url, False)


def _failures(pool: GatewayPool) -> dict[str, int]:
    """Consecutive failures by URL, 0 for any other; a copy."""
    return defaultdict(int, {url: failures for url, failures, _ in pool._breakers()})


def _circuit_open_until(pool: GatewayPool) -> dict[str, float]:
    """Wall-clock time until which creations are refused, by URL; a copy."""
    now = time.time()
    return {url: now + seconds for url, _, seconds in pool._breakers() if seconds is not None}


def _is_circuit_open(pool: GatewayPool, url: str) -> bool:
    """Whether creations for a URL are refused now."""
    return any(seconds is not None and seconds > 0 for known, _, seconds in pool._breakers() if known == url)


async def _maybe_evict_idle_pool_keys(pool: GatewayPool) -> None:
    """Do now what upkeep would do in time: close what is over, drop empty keys."""
    while pool._upkeep():  # noqa: ASYNC110 - in slices, so that this stops nobody
        await asyncio.sleep(0)


def add_stock_names(cls: type[GatewayPool]) -> None:
    """Give the class these names."""
    for name in _COUNTERS:
        setattr(cls, name, _counter(name, getattr(cls, name)))
    for name, setting in SETTINGS.items():
        setattr(cls, name, _setting(setting))
    for name, (part, number) in _OF_AFFINITY.items():
        setattr(cls, name, _of_affinity(part, number))
    properties = {
        "_circuit_open_until": _circuit_open_until,
        "_failures": _failures,
        "_mcp_session_mapping": _mcp_session_mapping,
    }
    for name, read in properties.items():
        setattr(cls, name, property(read))
    for method in (_is_circuit_open, _maybe_evict_idle_pool_keys, _record_failure, _record_success):
        setattr(cls, method.__name__, method)
