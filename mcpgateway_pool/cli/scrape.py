"""From the text of a scrape to numbers by gateway, and from two scrapes to what happened between them."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_classic

from mcpgateway_pool.prometheus.collector import PREFIX

from .common import CommandError, plain
from .fetch import Page, Source

ALL = ""  # the row of all gateways together; no label is empty

_parse_openmetrics: Any = parse_openmetrics  # it has no types

_SAMPLE = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\s*(\{.*\})?\s+[-+]?(\d|\.\d|Inf|NaN)")


@dataclass
class Scrape:
    """The pool's samples of one moment.

    Attributes:
        at: monotonic seconds.
        values: by the series' name without its prefix, then by gateway; reasons are added up. A series
            without a gateway is at ``ALL``.
        buckets: of histograms, by stem, gateway and upper bound; cumulative.
    """

    at: float = 0.0
    values: dict[str, dict[str, float]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(float))
    )
    buckets: dict[str, dict[str, dict[float, float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(lambda: defaultdict(float)))
    )

    @property
    def gateways(self) -> list[str]:
        """Every gateway that has a row."""
        return [name for name in self.values.get("size", {}) if name != ALL]

    def get(self, name: str, gateway: str) -> float:
        """A value; 0 where there is none."""
        return self.values.get(name, {}).get(gateway, 0.0)


def read(source: Source) -> Scrape:
    """Scrape a URL.

    Raises:
        CommandError: it cannot be read, is no Prometheus text, or shows no series of the pool.
    """
    page = source.get()
    scrape = parse(page, source.shown)
    if not scrape.values:
        raise CommandError(
            f"{source.shown} shows no series of the session pool ({PREFIX}…)",
            "mcpgateway-pool doctor --url URL says what may be missing",
        )
    return scrape


def parse(page: Page, shown: str = "the page") -> Scrape:
    """The pool's samples of a page; none is no error here.

    Raises:
        CommandError: the page is no Prometheus text.
    """
    scrape = Scrape(time.monotonic())
    try:
        for family in _families(page):
            for sample in family.samples:
                _add(scrape, sample.name.removeprefix(PREFIX), sample.labels, sample.value)
    except (ValueError, KeyError, IndexError):  # what the parsers raise for bad text
        raise _no_metrics(page, shown) from None
    if not scrape.values and not _looks_like_metrics(page.text):
        raise _no_metrics(page, shown)
    return scrape


def _add(scrape: Scrape, name: str, labels: dict[str, str], value: float) -> None:
    if name.endswith("_created"):
        return
    gateway = labels.get("gateway_id", ALL)
    if name.endswith("_bucket"):
        buckets = scrape.buckets[name.removesuffix("_bucket")]
        for row in {gateway, ALL}:
            buckets[row][float(labels["le"])] += value
        return
    for row in {gateway, ALL}:
        if name == "oldest_waiter_seconds":
            scrape.values[name][row] = max(scrape.values[name][row], value)
        else:
            scrape.values[name][row] += value


def _families(page: Page) -> Iterable[Metric]:
    """Only the pool's families are parsed: an endpoint may show much else."""
    # Not splitlines(): a label may hold other characters that end a line for it.
    text = "".join(line + "\n" for line in page.text.split("\n") if _is_ours(line))
    if "openmetrics" not in page.content_type:
        return parse_classic(text)
    families: Iterable[Metric] = _parse_openmetrics(text + "# EOF\n")
    return families


def _is_ours(line: str) -> bool:
    return line.startswith((PREFIX, f"# HELP {PREFIX}", f"# TYPE {PREFIX}"))


def _looks_like_metrics(text: str) -> bool:
    """Whether the first line that is no comment is a sample; an empty page is that of an empty registry."""
    lines = (line for line in text.split("\n") if line.strip() and not line.startswith("#"))
    first = next(lines, None)
    return first is None or _SAMPLE.match(first) is not None


def _no_metrics(page: Page, shown: str) -> CommandError:
    kind = page.content_type.partition(";")[0] or "no content type"
    return CommandError(
        f"{shown} did not answer with Prometheus text ({kind})",
        "is the path right? A web page or a log-in is no metrics endpoint",
    )


# ---- what happened between two scrapes


@dataclass(frozen=True)
class Figures:
    """One gateway, or all of them: gauges of now, and what happened in the window before.

    Attributes:
        gateway_id: the label; empty for all gateways.
        acquires_per_second, acquires: answered with a session.
        hit_rate: None without acquires; so are the p99 without events, and saturation without keys.
        acquire_failures: timed out or refused.
    """

    gateway_id: str
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

    def as_json(self) -> dict[str, Any]:
        """For ``json.dumps``."""
        return {name: plain(value) for name, value in asdict(self).items()}


EVER = Scrape()  # as an older scrape: everything since the processes started


class Window:
    """Two scrapes of one endpoint, and what happened between them.

    Args:
        old: the older one, or ``EVER``.
        new: the newer one.
    """

    def __init__(self, old: Scrape, new: Scrape) -> None:
        self.old, self.new = old, new
        self.seconds = None if old is EVER else new.at - old.at

    def increase(self, name: str, gateway: str) -> float:
        """Of a counter; one that went back was started anew."""
        new, old = self.new.get(name, gateway), self.old.get(name, gateway)
        return new - old if new >= old else new

    def went_back(self) -> str | None:
        """A counter that went back, if any: a restart, or workers that count each for themselves."""
        for name, rows in self.new.values.items():
            if name.endswith("_total") and any(
                value < self.old.get(name, row) for row, value in rows.items() if row != ALL
            ):
                return PREFIX + name
        return None

    def quantile(self, which: float, stem: str, gateway: str) -> float | None:
        """Of a histogram, estimated as Prometheus does: linear within the bucket; None without events.

        Beyond the largest bound it is that bound.
        """
        new = self.new.buckets.get(stem, {}).get(gateway, {})
        old = self.old.buckets.get(stem, {}).get(gateway, {})
        if any(new[bound] < old.get(bound, 0.0) for bound in new):
            old = {}
        counts = sorted((bound, count - old.get(bound, 0.0)) for bound, count in new.items())
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
        hits, misses = self.increase("hits_total", gateway), self.increase("misses_total", gateway)
        acquires = hits + misses
        places = now("keys", gateway) * now("max_sessions_per_key", ALL)
        return Figures(
            gateway_id=gateway,
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
            acquire_failures=self.increase("acquire_timeouts_total", gateway)
            + self.increase("acquire_rejections_total", gateway),
            create_failures=self.increase("create_failures_total", gateway),
            health_check_failures=self.increase("health_check_failures_total", gateway),
            breakers_open=now("circuit_breakers_open", gateway),
        )

    def rows(self) -> Iterator[Figures]:
        """Of each gateway, the busiest first."""
        every = (self.figures(gateway) for gateway in self.new.gateways)
        yield from sorted(every, key=lambda row: (-row.acquires, row.gateway_id))
