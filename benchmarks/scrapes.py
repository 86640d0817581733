"""Scrapes of many gateways: the series as native metrics of prometheus_client, and the pool's own."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, disable_created_metrics
from prometheus_client import generate_latest as by_prometheus_client
from prometheus_client.registry import Collector
from sides import Side

URL = "http://127.0.0.1:9000/mcp"
CALLS = 3  # of each gateway

Writer = Literal["native", "collector", "ready", "c"]


def gateway_ids(gateways: int) -> list[str]:
    """Labels as the gateway has them: a UUID each."""
    return [f"6f1f7a52-64e9-4f8d-9d7d-{number:012d}" for number in range(gateways)]


async def scrape(side: Side, writer: Writer, gateways: int) -> float:
    """One page, in seconds of this thread's processor time: other processes on the machine do not count.

    ``native``: the same series as metrics of prometheus_client; ``collector``: those of the pool, written by
    prometheus_client, too; ``ready``: the same without the pool's part, of samples made before; ``c``: those
    of the pool, written by the package.
    """
    if writer == "native":
        native = make_native(gateways)
        return best_of(lambda: by_prometheus_client(native), 2)
    from mcpgateway_pool import forget_gateway, generate_latest, register_collector, set_max_gateways

    set_max_gateways(2 * gateways)
    registry = CollectorRegistry()
    register_collector(registry)
    pool = await use_gateways(side, gateways)
    await pool.close_all()
    try:
        if writer == "c":
            return best_of(lambda: generate_latest(registry), 10)
        if writer == "ready":
            registry = registry_of(list(registry.collect()))
        return best_of(lambda: by_prometheus_client(registry), 2)
    finally:
        for gateway_id in gateway_ids(gateways):
            forget_gateway(gateway_id)


def best_of(write: Callable[[], bytes], times: int) -> float:
    """The shortest of so many pages, in seconds of this thread's processor time."""
    best = float("inf")
    gc.collect()
    gc.freeze()
    try:
        for _ in range(times):
            start = time.thread_time()
            write()
            best = min(best, time.thread_time() - start)
    finally:
        gc.unfreeze()
    return best


def registry_of(families: list[Metric]) -> CollectorRegistry:
    """A registry whose samples were made before."""

    class Ready(Collector):
        def collect(self) -> list[Metric]:
            return families

    registry = CollectorRegistry()
    registry.register(Ready())
    return registry


async def use_gateways(side: Side, gateways: int) -> Any:
    """A pool that has counted for so many gateways."""
    pool = side.make_pool()
    for gateway_id in gateway_ids(gateways):
        for _ in range(CALLS):
            pooled = await pool.acquire(URL, {}, side.transport, user_identity="user", gateway_id=gateway_id)
            await pool.release(pooled)
    return pool


def make_native(gateways: int) -> CollectorRegistry:
    """The same series for so many gateways, as a program without the pool would have them."""
    from mcpgateway_pool import _core

    disable_created_metrics()
    registry = CollectorRegistry()
    ids = gateway_ids(gateways)
    for stem, kind, reasons, text, _ in _core.SERIES:
        name = f"mcp_session_pool_{stem}"
        labels = ["gateway_id", "reason"] if reasons else ["gateway_id"]
        values = [(gateway_id, *reason) for gateway_id in ids for reason in ([(r,) for r in reasons] or [()])]
        if kind == "counter":
            counter = Counter(name, text, labels, registry=registry)
            for value in values:
                counter.labels(*value).inc(CALLS)
        elif kind == "histogram":
            bounds = [float(bound) for bound in _core.buckets()[stem]]
            histogram = Histogram(name, text, labels, registry=registry, buckets=bounds)
            for value in values:
                histogram.labels(*value).observe(0.02)
        else:
            gauge = Gauge(name, text, labels, registry=registry, multiprocess_mode="livesum")
            for value in values:
                gauge.labels(*value).set(1)
    return registry
