"""The pool's series on ``prometheus_client``: read from the C counters at scrape time, one call for all rows.

The families are made from the one table of series in the C extension (``_core.SERIES``).
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator

from prometheus_client import REGISTRY, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from . import _core
from .labels import gateway_label
from .processes import live_pools

PREFIX = "mcp_session_pool_"

_LABEL_OVERFLOW = ("label_overflow", "Gateways that were counted in the row __overflow__.")
_LIMITS = (
    ("max_sessions_per_key", "Limit on sessions of one key: the largest of the process's pools."),
    ("max_total_sessions", "Limit on sessions: the sum over the process's pools; 0 is unlimited."),
    ("max_total_keys", "Limit on keys: the sum over the process's pools; 0 is unlimited."),
)

_registered: weakref.WeakKeyDictionary[CollectorRegistry, PoolCollector] = weakref.WeakKeyDictionary()
_forgotten: set[str] = set()
_lock = threading.Lock()


def _families() -> list[Metric]:
    families = [Metric(PREFIX + stem, text, kind) for stem, kind, _, text, _ in _core.SERIES]
    families.append(Metric(PREFIX + _LABEL_OVERFLOW[0], _LABEL_OVERFLOW[1], "counter"))
    families.extend(Metric(PREFIX + stem, text, "gauge") for stem, text in _LIMITS)
    return families


def _limit(name: str) -> float:
    values = [getattr(pool._settings, name) for pool in live_pools()]
    if name == "max_sessions_per_key":
        return float(max(values, default=0))
    return 0.0 if 0 in values else float(sum(values))


class PoolCollector(Collector):
    """Shows every pool of this process, summed by ``gateway_id``.

    ``collect()`` takes one consistent snapshot, does not hold up a pool, and may be called from any thread.
    """

    def describe(self) -> Iterator[Metric]:
        """The families without samples, so that registering does not collect."""
        yield from _families()

    def collect(self) -> Iterator[Metric]:
        """The families with the samples of this moment."""
        _retry_forgotten()
        rows, label_overflow = _core.snapshot()
        families = iter(_families())
        for stem, kind, reasons, _, word in _core.SERIES:
            family = next(families)
            name = PREFIX + stem + ("_total" if kind == "counter" else "")
            for label, words in rows:
                if not reasons:
                    family.add_sample(name, {"gateway_id": label}, words[word])
                for offset, reason in enumerate(reasons):
                    family.add_sample(name, {"gateway_id": label, "reason": reason}, words[word + offset])
            yield family
        family = next(families)
        family.add_sample(family.name + "_total", {}, label_overflow)
        yield family
        for limit, _ in _LIMITS:
            family = next(families)
            family.add_sample(family.name, {}, _limit(limit))
            yield family


def register_collector(registry: CollectorRegistry | None = None) -> PoolCollector:
    """Show the pool's series in a registry, by default ``prometheus_client.REGISTRY``.

    A second call for the same registry changes nothing.

    Returns:
        The registry's collector.
    """
    registry = REGISTRY if registry is None else registry
    with _lock:
        collector = _registered.get(registry)
        if collector is None:
            collector = PoolCollector()
            registry.register(collector)
            _registered[registry] = collector
        return collector


def unregister_collector(registry: CollectorRegistry | None = None) -> None:
    """Undo :func:`register_collector`; harmless where it was not called."""
    registry = REGISTRY if registry is None else registry
    with _lock:
        collector = _registered.pop(registry, None)
        if collector is not None:
            registry.unregister(collector)


def forget_gateway(gateway_id: str | None) -> bool:
    """Drop the series of a gateway that was removed.

    Where a session of it is still open, they are dropped at the first scrape after the last was closed.

    Args:
        gateway_id: as passed to ``acquire()``.

    Returns:
        Whether they are gone now.
    """
    label = gateway_label(gateway_id)
    with _lock:
        if _core.forget_row(label):
            _forgotten.discard(label)
            return True
        _forgotten.add(label)
        return False


def set_max_gateways(count: int) -> None:
    """Bound the gateways with series of their own, default 10,000; further ones share ``__overflow__``.

    Gateways that have series already keep them.

    Raises:
        TypeError, ValueError: not an int, or less than 1.
    """
    _core.set_max_rows(count)


def _after_fork_in_child() -> None:
    """Another thread of the parent may have held the lock, and is not there to let go of it."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _retry_forgotten() -> None:
    with _lock:
        for label in list(_forgotten):
            if _core.forget_row(label):
                _forgotten.discard(label)
