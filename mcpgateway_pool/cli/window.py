"""What happened between two scrapes of one endpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mcpgateway_pool.prometheus.collector import PREFIX

from .common import plain
from .scrape import ALL, EVER, Scrape

Order = Literal["acquires", "waiters", "wait", "failures", "name"]


@dataclass(frozen=True)
class Figures:
    """One gateway, or all of them: gauges of now, and what happened in the window before.

    Attributes:
        gateway_id: the label; empty for all gateways.
        name: of the gateway; None where it is not known.
        acquires_per_second, acquires: answered with a session.
        hit_rate: None without acquires; so are the p99 without events, and saturation without keys.
        acquire_failures: timed out or refused.
        replays: requests sent once more.
        unpooled_calls: calls that went the gateway's own way.
    """

    gateway_id: str
    name: str | None
    acquires: float
    acquires_per_second: float | None
    hit_rate: float | None
    active: float
    size: float
    keys: float
    saturation: float | None
    waiters: float
    oldest_waiter_seconds: float
    wait_p99_seconds: float | None
    create_p99_seconds: float | None
    acquire_failures: float
    create_failures: float
    health_check_failures: float
    breakers_open: float
    replays: float
    unpooled_calls: float

    def as_json(self) -> dict[str, Any]:
        """For ``json.dumps``."""
        return {name: plain(value) for name, value in asdict(self).items()}


class Window:
    """Two scrapes of one endpoint, and what happened between them.

    Args:
        old: the older one, or ``EVER``.
        new: the newer one.
    """

    def __init__(self, old: Scrape, new: Scrape) -> None:
        self.old, self.new = old, new
        self.seconds = None if old is EVER else new.at - old.at

    def increase(self, name: str, gateway: str, value: str | None = None) -> float:
        """Of a counter; one that went back was started anew. The arguments are those of ``Scrape.get``."""
        new, old = self.new.get(name, gateway, value), self.old.get(name, gateway, value)
        return new - old if new >= old else new

    def went_back(self) -> str | None:
        """A counter that went back, if any: a restart, or workers that count each for themselves."""
        for name in self.new.names:
            if name.endswith("_total") and any(
                self.new.get(name, row) < self.old.get(name, row) for row in self.new.gateways
            ):
                return PREFIX + name
        return None

    def quantile(self, which: float, stem: str, gateway: str) -> float | None:
        """Of a histogram, estimated as Prometheus does: linear within the bucket; None without events.

        Beyond the largest bound it is that bound.
        """
        series = stem + "_bucket"
        new = [(bound, self.new.get(series, gateway, text)) for bound, text in self.new.bounds(stem)]
        old = {bound: self.old.get(series, gateway, text) for bound, text in self.old.bounds(stem)}
        if any(count < old.get(bound, 0.0) for bound, count in new):
            old = {}
        counts = [(bound, count - old.get(bound, 0.0)) for bound, count in new]
        if not counts or counts[-1][1] <= 0:
            return None
        rank = which * counts[-1][1]
        lower = below = 0.0
        for bound, count in counts:
            if count >= rank and bound != float("inf"):
                return lower + (bound - lower) * ((rank - below) / (count - below) if count > below else 1.0)
            if bound == float("inf"):
                break
            lower, below = bound, count
        return lower

    def figures(self, gateway: str) -> Figures:
        """Of a gateway, or of ``ALL``."""
        now = self.new.get
        hits, acquires = self.increase("hits_total", gateway), self.acquires(gateway)
        places = now("keys", gateway) * now("max_sessions_per_key", ALL)
        return Figures(
            gateway_id=gateway,
            name=self.new.gateway_name(gateway),
            acquires=acquires,
            acquires_per_second=acquires / self.seconds if self.seconds else None,
            hit_rate=hits / acquires if acquires else None,
            active=now("active_sessions", gateway),
            size=now("size", gateway),
            keys=now("keys", gateway),
            saturation=now("active_sessions", gateway) / places if places else None,
            waiters=now("waiters", gateway),
            oldest_waiter_seconds=now("oldest_waiter_seconds", gateway),
            wait_p99_seconds=self.quantile(0.99, "acquire_wait_seconds", gateway),
            create_p99_seconds=self.quantile(0.99, "create_seconds", gateway),
            acquire_failures=self.acquire_failures(gateway),
            create_failures=self.increase("create_failures_total", gateway),
            health_check_failures=self.increase("health_check_failures_total", gateway),
            breakers_open=now("circuit_breakers_open", gateway),
            replays=self.increase("replays_total", gateway),
            unpooled_calls=self.increase("unpooled_calls_total", gateway),
        )

    def gateways(self, order: Order = "acquires", having: str = "") -> list[str]:
        """Ids of gateways, those first that are to be looked at first.

        Args:
            order: by what; where that is the same, by name.
            having: only those whose name or id contains this, whatever the case.
        """
        of = _ORDERS[order]
        having = having.casefold()
        shown = self.new.shown
        found = [
            gateway
            for gateway in self.new.gateways
            if having in gateway.casefold() or having in shown(gateway).casefold()
        ]
        return sorted(found, key=lambda gateway: (-of(self, gateway), shown(gateway)))

    def acquires(self, gateway: str) -> float:
        """Answered with a session."""
        return self.increase("hits_total", gateway) + self.increase("misses_total", gateway)

    def acquire_failures(self, gateway: str) -> float:
        """Timed out or refused."""
        return self.increase("acquire_timeouts_total", gateway) + self.increase(
            "acquire_rejections_total", gateway
        )

    def failures(self, gateway: str) -> float:
        """Of acquires, creations and health checks."""
        return (
            self.acquire_failures(gateway)
            + self.increase("create_failures_total", gateway)
            + self.increase("health_check_failures_total", gateway)
        )


_ORDERS: dict[Order, Callable[[Window, str], float]] = {
    "acquires": Window.acquires,
    "waiters": lambda window, gateway: window.new.get("waiters", gateway),
    "wait": lambda window, gateway: window.quantile(0.99, "acquire_wait_seconds", gateway) or 0.0,
    "failures": Window.failures,
    "name": lambda window, gateway: 0.0,
}
ORDERS = tuple(_ORDERS)
