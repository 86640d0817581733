"""Growth curves: the same figure at several sizes, for several sides."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rows import Figure
from workers import Workers

FOLDER = Path(__file__).resolve().parent / "figures"

OURS, PEER, NOTHING = "this pool", "the gateway's own pool", "doing nothing"


@dataclass(frozen=True)
class Line:
    """One line of a curve: a figure for each size."""

    name: str
    figure: Callable[[int], Figure]
    sizes: Sequence[int]


@dataclass(frozen=True)
class Curve:
    """What is drawn in one picture."""

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    rounds: int = 3

    def measure(self, workers: Workers, largest: int | None = None) -> dict[str, dict[int, float]]:
        """Seconds by line and size: medians of rounds in which the lines take turns."""
        found: dict[str, dict[int, float]] = {line.name: {} for line in self.lines}
        for size in sorted({size for line in self.lines for size in line.sizes}):
            if largest is not None and size > largest:
                break
            print(f"... {self.title}: {size:,}", file=sys.stderr, flush=True)
            here = [line for line in self.lines if size in line.sizes]
            rounds: dict[str, list[float]] = {line.name: [] for line in here}
            for _ in range(self.rounds):
                for line in here:
                    rounds[line.name].append(workers.measure(line.figure(size)))
            for name, seconds in rounds.items():
                found[name][size] = statistics.median(seconds)
        return {name: points for name, points in found.items() if points}


def hit(side: str, used: int = 5_000) -> Callable[[int], Figure]:
    """acquire and release, of so many keys taken at random."""
    return lambda keys: Figure(side, "hit", {"keys": keys, "used": used})  # type: ignore[arg-type]


def scrape(writer: str) -> Callable[[int], Figure]:
    """One page of one process."""
    return lambda gateways: Figure("project", "scrape", {"writer": writer, "gateways": gateways})


def scrape_workers(writer: str) -> Callable[[int], Figure]:
    """One page over several processes."""
    return lambda workers: Figure(
        "project", "scrape_workers", {"writer": writer, "workers": workers, "gateways": 1_000}
    )


KEYS = (100, 1_000, 10_000, 100_000, 1_000_000)
GATEWAYS = (10, 100, 1_000, 10_000)
WORKERS = (1, 2, 4, 8, 16, 32)

CURVES = {
    "keys": Curve(
        "A hit, by keys in the pool",
        "keys",
        "acquire + release, µs",
        (
            Line(PEER, hit("peer"), KEYS[:-1]),
            Line(f"{OURS}, 200,000 random keys in use", hit("project", 200_000), KEYS[3:]),
            Line(f"{OURS}, 5,000 random keys in use", hit("project"), KEYS),
            Line(NOTHING, hit("floor"), KEYS[:1]),
        ),
    ),
    "waiters": Curve(
        "A hand-off, by callers that wait for one key",
        "waiters",
        "release until the oldest waiter runs, µs",
        (
            Line(
                OURS,
                lambda waiters: Figure("project", "hand_off", {"waiters": waiters}),
                (10, 100, 1_000, 10_000, 100_000),
            ),
        ),
    ),
    "gateways": Curve(
        "A scrape, by gateways",
        "gateways",
        "one page, ms",
        (
            Line("the same series as native metrics", scrape("native"), GATEWAYS),
            Line(f"{OURS}, by prometheus_client", scrape("collector"), GATEWAYS),
            Line(f"{OURS}, text by C", scrape("c"), GATEWAYS),
        ),
        rounds=1,
    ),
    "workers": Curve(
        "A scrape, by worker processes with 1,000 gateways each",
        "worker processes",
        "one page, ms",
        (
            Line("MultiProcessCollector, the same series", scrape_workers("native"), WORKERS[:-1]),
            Line(f"{OURS}, text by C", scrape_workers("c"), WORKERS),
        ),
        rounds=1,
    ),
}


def save(name: str, found: dict[str, dict[int, float]]) -> None:
    """Keep the figures of a curve, in seconds."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


def load(name: str) -> dict[str, dict[int, float]] | None:
    """What was kept, None when nothing was."""
    file = FOLDER / f"{name}.json"
    if not file.exists():
        return None
    return {
        line: {int(size): seconds for size, seconds in points.items()}
        for line, points in json.loads(file.read_text()).items()
    }
