"""The series as a scrape shows them, and what must hold between them."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from mcpgateway_pool import generate_latest, register_collector

PREFIX = "mcp_session_pool_"
# How acquires may end, as the callers call it, and the series of each; those with a reason are named by it.
SERIES_OF = {
    "timed out": ("acquire_timeouts_total", ""),
    "cancelled": ("acquire_cancellations_total", ""),
    "circuit_open": ("acquire_rejections_total", "circuit_open"),
    "exhausted": ("acquire_rejections_total", "exhausted"),
    "queue_full": ("acquire_rejections_total", "queue_full"),
}

# Series without their prefix, reason or "", by gateway.
Scrape = dict[str, Counter[tuple[str, str]]]


class Scraper:
    """Scrapes the process, from any thread, and judges each scrape by itself and by the one before.

    Attributes:
        count: scrapes so far.
        problems: what did not hold, each once.
    """

    def __init__(self, max_total_sessions: int) -> None:
        self._registry = CollectorRegistry()
        register_collector(self._registry)
        self._max_total_sessions = max_total_sessions
        self._last: Scrape = {}
        self._lock = threading.Lock()
        self.count = 0
        self.problems: set[str] = set()

    def scrape(self) -> Scrape:
        """The page that an exporter would show, read back."""
        with self._lock:
            now: Scrape = defaultdict(Counter)
            for family in text_string_to_metric_families(generate_latest(self._registry).decode()):
                for sample in family.samples:
                    labels = sample.labels
                    if "gateway_id" in labels and "le" not in labels:
                        name = sample.name.removeprefix(PREFIX)
                        now[labels["gateway_id"]][name, labels.get("reason", "")] = sample.value  # type: ignore[assignment]
            self._judge(now)
            self._last = now
            self.count += 1
            return now

    def _judge(self, now: Scrape) -> None:
        open_or_opening = 0
        for gateway, values in now.items():
            size, creates = values["size", ""], values["creates_total", ""]
            open_or_opening += size + values["session_creations_in_progress", ""]
            evictions = evictions_of(values).total()
            self._hold(size == values["active_sessions", ""] + values["idle_sessions", ""], "size", values)
            self._hold(creates == size + evictions, "creates = size + evictions", values)
            self._hold(creates == values["create_seconds_count", ""], "creates = create_seconds", values)
            self._hold(values["misses_total", ""] <= creates, "misses <= creates", values)
            for (name, reason), value in self._last.get(gateway, Counter()).items():
                if name.endswith(("_total", "_count", "_sum")):
                    self._hold(values[name, reason] >= value, f"{name} {reason} never falls", values)
        self._hold(open_or_opening <= self._max_total_sessions, "max_total_sessions", Counter())

    def _hold(self, holds: bool, what: str, values: Mapping[tuple[str, str], float]) -> None:
        if not holds:
            self.problems.add(f"in a scrape, this does not hold: {what}: {dict(values)}")


def answered(values: Mapping[tuple[str, str], float]) -> float:
    """The acquires that were answered."""
    return values["hits_total", ""] + values["misses_total", ""]


def evictions_of(values: Counter[tuple[str, str]]) -> Counter[str]:
    """Evictions by reason."""
    return Counter(
        {reason: int(count) for (name, reason), count in values.items() if name == "evictions_total"}
    )
