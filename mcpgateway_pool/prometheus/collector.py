"""The pool's series on ``prometheus_client``: read from the C counters at scrape time, one call for all rows.

The families are made from the one table of series in the C extension (``_core.SERIES``).
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import accumulate
from typing import TypeVar

from prometheus_client import REGISTRY, Metric
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.samples import Sample

from mcpgateway_pool import _core, config
from mcpgateway_pool.labels import gateway_label
from mcpgateway_pool.processes import publish_limits

from . import shared_counters
from .gateway_names import NAMES
from .marking import Mark, current_mark

PREFIX = "mcp_session_pool_"
DEFAULT_RETENTION_SECONDS = 86_400.0

T = TypeVar("T")

_forgotten: set[str] = set()
_lock = threading.Lock()


# What a kind of series is to Prometheus: an age is a moment in C, a duration is nanoseconds there; both are
# gauges in seconds here.
_TYPES = {
    "counter": "counter",
    "gauge": "gauge",
    "age": "gauge",
    "duration": "gauge",
    "histogram": "histogram",
}


def _families() -> list[Metric]:
    families = [Metric(PREFIX + stem, text, _TYPES[kind]) for stem, kind, _, text, _ in _core.SERIES]
    others = (*_core.PROCESS_SERIES, _core.GATEWAY_INFO_SERIES)
    families.extend(Metric(PREFIX + stem, text, _TYPES[kind]) for stem, kind, text in others)
    return families


def _seconds(duration_ns: int) -> float:
    """Whole microseconds, as the text that C writes."""
    return max(duration_ns, 0) // 1000 / 1e6


def _histogram(
    name: str, bounds: tuple[str, ...], word: int, by_gateway: list[tuple[dict[str, str], tuple[int, ...]]]
) -> Iterator[Sample]:
    """Its samples: cumulative buckets, which in C each count for themselves, their number, and the sum."""
    in_bucket, of_all, in_all = name + "_bucket", name + "_count", name + "_sum"
    bounds = (*bounds, "+Inf")
    end, sum_word = word + len(bounds), word + _core.BUCKETS_MAX + 1
    for labels, words in by_gateway:
        for bound, count in zip(bounds, accumulate(words[word:end]), strict=True):
            yield Sample(in_bucket, {**labels, "le": bound}, count)
        yield Sample(of_all, labels, count)
        yield Sample(in_all, labels, _seconds(words[sum_word]))


def read_counters(read: Callable[[], T]) -> T:
    """What ``read`` gives, with what comes before and after every look at the counters."""
    _retry_forgotten()
    publish_limits()
    result = read()
    shared_counters.tidy()
    return result


class PoolCollector(Collector):
    """Shows every pool of this process, summed by ``gateway_id``; with shared counters, of all processes.

    ``collect()`` takes one consistent snapshot, does not hold up a pool, and may be called from any thread.
    """

    def describe(self) -> Iterator[Metric]:
        """The families without samples, so that registering does not collect."""
        yield from _families()

    def collect(self) -> Iterator[Metric]:
        """The families with the samples of this moment."""
        mark = current_mark.get()
        if mark is not None:
            mark.collector = self
            yield mark
            return
        rows, process = read_counters(_core.snapshot)
        families = iter(_families())
        now_ns = time.monotonic_ns()
        by_gateway = [({"gateway_id": label}, words) for label, words in rows]
        buckets = _core.buckets()
        for stem, kind, reasons, _, word in _core.SERIES:
            family = next(families)
            if kind == "histogram":
                family.samples = list(_histogram(PREFIX + stem, buckets[stem], word, by_gateway))
            elif kind == "age":
                family.samples = [
                    Sample(PREFIX + stem, labels, _seconds(now_ns - words[word]) if words[word] else 0.0)
                    for labels, words in by_gateway
                ]
            elif reasons:
                name = PREFIX + stem + "_total"
                family.samples = [
                    Sample(name, {**labels, "reason": reason}, words[word + offset])
                    for labels, words in by_gateway
                    for offset, reason in enumerate(reasons)
                ]
            else:
                name = PREFIX + stem + ("_total" if kind == "counter" else "")
                family.samples = [Sample(name, labels, words[word]) for labels, words in by_gateway]
            yield family
        for word, (_, kind, _) in zip(process, _core.PROCESS_SERIES, strict=True):
            family = next(families)
            value = _seconds(word) if kind == "duration" else word
            family.add_sample(family.name + ("_total" if family.type == "counter" else ""), {}, value)
            yield family
        family, names = next(families), NAMES.known()
        family.samples = [
            Sample(family.name, {**labels, "name": names[labels["gateway_id"]]}, 1)
            for labels, _ in by_gateway
            if labels["gateway_id"] in names
        ]
        yield family


def register_collector(registry: CollectorRegistry | None = None) -> PoolCollector:
    """Show the pool's series in a registry, by default ``prometheus_client.REGISTRY``.

    Where the registry shows them already, this changes nothing. Where somebody has unregistered the
    collector since, this registers it again.

    Returns:
        The registry's collector.

    Raises:
        ValueError: the registry has series of these names from elsewhere.
    """
    registry = REGISTRY if registry is None else registry
    with _lock:
        collector = _collector_of(registry)
        if collector is None:
            collector = PoolCollector()
            registry.register(collector)
        return collector


def unregister_collector(registry: CollectorRegistry | None = None) -> None:
    """Undo :func:`register_collector`; harmless where the pool's series are not shown."""
    registry = REGISTRY if registry is None else registry
    with _lock:
        collector = _collector_of(registry)
        if collector is not None:
            with suppress(KeyError):  # somebody else has unregistered it in this moment
                registry.unregister(collector)


def _collector_of(registry: CollectorRegistry) -> PoolCollector | None:
    """The pool's collector. Only the registry knows: anybody may have unregistered it meanwhile."""
    mark = Mark()
    token = current_mark.set(mark)
    try:
        for _ in registry.restricted_registry([f"{PREFIX}hits_total"]).collect():
            pass
    finally:
        current_mark.reset(token)
    return mark.collector


def forget_gateway(gateway_id: str | None) -> bool:
    """Drop the series of a gateway that was removed: in all processes that share counters, at one moment.

    That is at a scrape after the last of its sessions was closed, in whatever process. A gateway that is used
    again before goes on counting; one that is used afterwards begins at zero.

    Args:
        gateway_id: as passed to ``acquire()``.

    Returns:
        Whether they are gone now.
    """
    label = gateway_label(gateway_id)
    with _lock:
        _forgotten.add(label)
        return _forget((label,)) == 0


def set_metrics_retention(seconds: float) -> None:
    """Drop the series of gateways that nobody used for so long, and that nothing is open of; default a day.

    As :func:`forget_gateway` does: in all processes that share counters, at one moment. They must have the
    same value.

    Args:
        seconds: 0: the series stay for ever. Parts of a second count as one.

    Raises:
        TypeError, ValueError: not a number, or negative.
    """
    _core.set_retention(math.ceil(config.seconds("seconds", seconds)))


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
    if _forgotten:
        with _lock:
            _forget(tuple(_forgotten))


def _forget(labels: tuple[str, ...]) -> int:
    """How many of them are there still. Those that others have to forget are theirs from now on."""
    closed = [label for label in labels if _core.forget_row(label)]
    left = len(labels) - len(closed)
    if not closed:
        return left
    pending = shared_counters.forget(closed)
    if pending is None:
        return len(labels)
    _forgotten.difference_update(closed)
    return left + pending


set_metrics_retention(DEFAULT_RETENTION_SECONDS)
