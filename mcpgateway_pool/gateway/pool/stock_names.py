"""Private names of the gateway's own pool that code written for it reads, assigns or calls.

The numbers are kept by the C side. What is assigned to a counter shifts what is shown under that name and in
``get_metrics()``, of this pool alone: the Prometheus series stay what happened. Locks, semaphores and the
times of last use have no counterpart here. The functions below are methods of :class:`GatewayPool`.
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

    def get(self: GatewayPool) -> int:
        return int(read(self)) + self._assigned.get(name, 0)

    def assign(self: GatewayPool, value: int) -> None:
        self._assigned[name] = value - int(read(self))

    return property(get, assign)


# In the gateway's own pool, where ours have tuples.
_SHAPES: dict[str, Callable[[Any], Any]] = {"health_check_methods": list, "identity_headers": frozenset}


def _setting(name: str) -> property:
    """A setting of the pool, which can be assigned; sessions that are open keep their lifetime."""

    def get(self: GatewayPool) -> Any:
        value = getattr(self._settings, name)
        return _SHAPES[name](value) if name in _SHAPES else value

    def assign(self: GatewayPool, value: Any) -> None:
        settings = dataclasses.replace(self._settings, **{name: value})
        core = settings.for_core()
        *_, extractor = core["identity"]
        self._configure(
            limits=core["limits"], times=core["times"], breaker=core["breaker"], extractor=extractor
        )
        self._settings = settings

    # Keys refer to the identity headers by number: those stay as they are.
    return property(get) if name == "identity_headers" else property(get, assign)


def _of_affinity(part: str, name: str) -> property:
    def get(self: GatewayPool) -> int:
        return int(getattr(getattr(self._session_affinity, part), name))

    def assign(self: GatewayPool, value: int) -> None:
        setattr(getattr(self._session_affinity, part), name, value)

    return property(get, assign)


def _mcp_session_mapping(self: GatewayPool) -> dict[tuple[str, str, str, str], tuple[str, ...]]:
    """The mappings of downstream sessions that this worker knows; the dict itself."""
    return self._session_affinity.mappings  # type: ignore[return-value]


def _record_failure(self: GatewayPool, url: str) -> None:
    """Count a failure to open a session to this URL, which may open its circuit breaker."""
    trips = self._circuit_breaker_trips
    self._note_outcome(url, True)
    if self._circuit_breaker_trips != trips:
        self._log().warning("Circuit breaker opened for %s", safe_url(url))


def _record_success(self: GatewayPool, url: str) -> None:
    """Count that a session to this URL was opened: its failures are over."""
    self._note_outcome(url, False)


def _failures(self: GatewayPool) -> dict[str, int]:
    """Consecutive failures by URL, 0 for any other; a copy."""
    return defaultdict(int, {url: failures for url, failures, _ in self._breakers()})


def _circuit_open_until(self: GatewayPool) -> dict[str, float]:
    """Wall-clock time until which creations are refused, by URL; a copy."""
    now = time.time()
    return {url: now + seconds for url, _, seconds in self._breakers() if seconds is not None}


def _is_circuit_open(self: GatewayPool, url: str) -> bool:
    """Whether creations for a URL are refused now."""
    return any(seconds is not None and seconds > 0 for known, _, seconds in self._breakers() if known == url)


async def _maybe_evict_idle_pool_keys(self: GatewayPool) -> None:
    """Do now what upkeep would do in time: close what is over, drop empty keys."""
    while self._upkeep():  # noqa: ASYNC110 - in slices, so that this stops nobody
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
