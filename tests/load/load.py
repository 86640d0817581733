"""Load: 10,000 callers on 100 keys of one pool whose sessions, made up, fail in every way. `make load`.

No place may be lost, every counter must be what the callers and the servers counted for themselves, memory
and tasks must stay flat, nothing may be left. Prints a summary, and ends with 1 where one of these does not
hold. Beside it, `tests/soak` does the like with real servers.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from callers import Callers
from faulty_pool import FaultyPool, Key
from judge import lost_places, wrong_counters
from samples import Samples, draw
from scrapes import Scraper, answered, evictions_of

from support.leaks import settle, where_is

URLS, USERS, GATEWAYS = 20, 5, 10
LIMIT_PER_KEY = 10
LIMIT_TOTAL = 700
SETTINGS: dict[str, Any] = {
    "max_sessions_per_key": LIMIT_PER_KEY,
    "max_total_sessions": LIMIT_TOTAL,
    "max_waiters": 400,
    "session_ttl_seconds": 6,
    "idle_pool_eviction_seconds": 2,
    "health_check_interval_seconds": 0.5,
    "health_checks_per_second": 50,
    "health_check_methods": ["ping"],
    "health_check_timeout_seconds": 0.3,
    "acquire_timeout_seconds": 4,
    "session_create_timeout_seconds": 2,
    "cleanup_timeout_seconds": 0.3,
    "circuit_breaker_threshold": 5,
    "circuit_breaker_reset_seconds": 0.3,
}
# For all to come to rest at the end: the longest time-outs of all kinds, on a machine that is very busy.
REST_SECONDS = 60.0
# The loop is busy when it is behind by so much; how much more seldom callers then call, at most.
BUSY_SECONDS = 0.15
MOST_SLOWNESS = 8.0
# At the end of each part, callers rest and the books are compared with the series.
PARTS = 4
# Were fewer acquires answered, the run would show nothing. On a quiet machine it is nine in ten.
ANSWERED_SHARE = 0.05


class Load:
    """One run.

    Args:
        seconds: how long, in four parts; after each, the callers rest.
        seed: of what happens.
        callers: how many.
        pause: mean time between two calls of a caller.
        make_pool: makes the pool under test.
        rest_seconds: for all to come to rest.
    """

    def __init__(
        self,
        seconds: float,
        seed: int,
        callers: int,
        pause: float,
        *,
        make_pool: Callable[..., FaultyPool] = FaultyPool,
        rest_seconds: float = REST_SECONDS,
    ) -> None:
        self._seconds = seconds
        self._rest_seconds = rest_seconds
        # Every caller is to call some times in each part.
        self._most_slowness = min(MOST_SLOWNESS, max(seconds / PARTS / pause / 3, 1.0))
        self._is_over = False
        self._chance = random.Random(seed)
        self._count = callers
        self._pool = make_pool(seed, **SETTINGS)
        self._keys = [
            Key(f"http://server-{url}.test/mcp", f"user-{user}", f"gateway-{url % GATEWAYS}")
            for url in range(URLS)
            for user in range(USERS)
        ]
        self._chance.shuffle(self._keys)
        self._callers = Callers(self._pool, self._keys, seed, pause)
        self._scraper = Scraper(LIMIT_TOTAL)
        self._events: Counter[str] = Counter()
        self._unhandled: list[dict[str, Any]] = []
        self._problems: list[str] = []
        self._evictions: Counter[str] = Counter()
        self.samples = Samples()

    async def run(self) -> list[str]:
        """Returns what is wrong."""
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self._unhandled.append(context))
        callers = self._callers.start(self._count)
        troubles = [
            asyncio.create_task(trouble())
            for trouble in (self._outages, self._deaths, self._drains, self._scrapes, self._watch)
        ]
        self._callers.slowness = self._most_slowness  # until it is known how busy the machine is
        start = time.monotonic()
        for part in range(1, PARTS + 1):
            await asyncio.sleep(start + self._seconds * part / PARTS - time.monotonic())
            self._callers.rest()
            await self._come_to_rest(callers)
            # Here, not in a thread: nothing happens between the scrape and the look into the books.
            self._problems += wrong_counters(self._scraper.scrape(), self._callers, self._pool)
            if part < PARTS:
                self._callers.go_on()
        self._is_over = True
        self._callers.end()
        await asyncio.gather(*troubles)
        await self._end(callers)
        del callers, troubles
        self._pool.heal()
        self._problems += await lost_places(self._pool, self._keys, self._rest_seconds)
        await self._finish()
        self._problems += self._pool.problems | self._scraper.problems
        self._problems += self.samples.problems()
        return self._problems

    # ---- trouble

    async def _outages(self) -> None:
        """Servers go down for a while; most of their sessions die, and breakers open."""
        while not self._is_over:
            await asyncio.sleep(self._chance.uniform(0.2, 2))
            url = self._chance.choice(self._keys).url
            self._events["outages"] += 1
            self._pool.down.add(url)
            for session in list(self._pool.sessions.values()):
                if session.key.url == url and self._chance.random() < 0.8:
                    session.die()
            await asyncio.sleep(self._chance.uniform(0.1, 1))
            self._pool.down.discard(url)

    async def _deaths(self) -> None:
        """Single sessions die, in use or idle."""
        while not self._is_over:
            await asyncio.sleep(self._chance.uniform(0, 0.05))
            if self._pool.sessions:
                session = self._chance.choice(list(self._pool.sessions.values()))
                self._events["deaths in use" if session.in_use else "deaths of others"] += 1
                session.die()

    async def _drains(self) -> None:
        while not self._is_over:
            await asyncio.sleep(self._chance.uniform(1, 8))
            self._events["drains"] += 1
            await self._pool.drain()

    async def _scrapes(self) -> None:
        """Another thread scrapes, as an exporter does: what it sees lies between what is known around it."""
        while not self._is_over:
            await asyncio.sleep(0.3)
            before = Counter(self._callers.ended)
            scrape = await asyncio.to_thread(self._scraper.scrape)
            for gateway, values in scrape.items():
                least, most = before[gateway, "answered"], self._callers.ended[gateway, "answered"]
                if not least <= answered(values) <= most:
                    self._problems.append(f"a scrape shows {answered(values)} answers, not {least} to {most}")

    async def _watch(self) -> None:
        while not self._is_over:
            counts = self._pool._counts()
            opened = sum(counts[name] for name in ("creating", "active", "idle", "checking", "closing"))
            if opened > min(LIMIT_TOTAL, counts["keys"] * LIMIT_PER_KEY):
                self._problems.append(f"more sessions than the limits allow: {counts}")
            self._sample()
            interval = min(1.0, self._seconds / 40)
            begin = time.monotonic()
            await asyncio.sleep(interval)
            # On a machine that is busy, callers call less often: else all there is to see is time-outs.
            lag = time.monotonic() - begin - interval
            slowness = self._callers.slowness * (1.3 if lag > BUSY_SECONDS else 0.85)
            self._callers.slowness = min(max(slowness, 1.0), self._most_slowness)

    def _sample(self, *, is_rest: bool = False) -> None:
        self.samples.take(
            waiters=self._pool._counts()["waiters"],
            sessions=len(self._pool.sessions),
            answered=self._callers.total("answered"),
            is_rest=is_rest,
        )

    # ---- the ends

    async def _come_to_rest(self, callers: list[asyncio.Task[None]]) -> None:
        """Wait until nobody calls and nothing is under way, and empty the pool."""
        end = time.monotonic() + self._rest_seconds
        while self._callers.resting < self._count and time.monotonic() < end:
            await asyncio.sleep(0.05)
        gc.collect()  # what callers dropped
        await self._pool.drain()
        while self._busy() and time.monotonic() < end:
            await asyncio.sleep(0.05)
        if self._callers.resting < self._count:
            hanging = [place for place in map(where_is, callers) if "Event.wait" not in place]
            self._problems.append(f"{len(hanging)} callers hang, such as in {hanging[:1]}")
        if self._busy():
            self._problems.append(f"nobody calls, and the pool counts {self._pool._counts()}")
        self._sample(is_rest=True)

    def _busy(self) -> int:
        counts = self._pool._counts()
        states = ("waiters", "creating", "active", "idle", "checking", "closing")
        return sum(counts[state] for state in states) + self._pool.deaf

    async def _end(self, callers: list[asyncio.Task[None]]) -> None:
        _, hanging = await asyncio.wait(callers, timeout=self._rest_seconds)
        for task in hanging:
            task.cancel()
        for task in callers:
            if task.done() and not task.cancelled():
                task.result()

    async def _finish(self) -> None:
        """Close the pool: nothing may be left of it."""
        pool = self._pool
        opened = pool.creations.total() - sum(n for (_, how), n in pool.creations.items() if how == "failed")
        await pool.end()
        await settle(5.0)
        gc.collect()
        scrape = await asyncio.to_thread(self._scraper.scrape)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        evictions = self._evictions = sum(
            (evictions_of(values) for values in scrape.values()), Counter[str]()
        )
        wrong = {
            "tasks": len(left),
            "sessions that were never closed": len(pool.sessions),
            "sessions that something refers to": len(pool.alive),
            "open sessions in the series": sum(values["size", ""] for values in scrape.values()),
        }
        self._problems += [f"left after the end: {count} {what}" for what, count in wrong.items() if count]
        late = sum(count for (_, how), count in pool.creations.items() if how == "late")
        if evictions.total() + late != opened:
            self._problems.append(f"{opened} sessions were opened, {evictions.total()} + {late} closed")
        if self._unhandled:
            self._problems.append(f"{len(self._unhandled)} unhandled exceptions, as {self._unhandled[0]}")
        share = self._callers.total("answered") / max(1, self._callers.ended.total())
        if share < ANSWERED_SHARE:
            self._problems.append(f"only {100 * share:.0f} % of the acquires were answered")
        if pool.most > LIMIT_TOTAL or pool.most_by_key > LIMIT_PER_KEY:
            self._problems.append(f"the limits were exceeded: {pool.most}, {pool.most_by_key}")

    # ---- reporting

    def report(self) -> None:
        """Prints what happened."""
        endings: Counter[str] = Counter()
        for (_, how), count in self._callers.ended.items():
            endings[how] += count
        outcomes: Counter[str] = Counter()
        for (_, how), count in self._pool.creations.items():
            outcomes[how] += count
        print("trouble:  ", dict(sorted(self._events.items())))
        print("acquires: ", dict(endings.most_common()), f"slowest {self._callers.slowest:.1f} s")
        print("creations:", dict(outcomes.most_common()))
        print("closes:   ", dict(self._evictions.most_common()))
        for name in ("resident", "blocks", "objects", "tasks"):
            print(f"{name + ':':10}", "{:,.0f}, then {:,.0f}".format(*self.samples.growth(name)))

    def summary(self) -> str:
        """One line."""
        before, after = self.samples.growth("resident")
        return (
            f"{self._count:,} tasks, {len(self._keys)} keys, {self._seconds:.0f} s, "
            f"{self._callers.ended.total():,} acquires, {self._callers.total('answered'):,} answered, "
            f"{self._evictions.total():,} sessions, "
            f"{self._scraper.count} scrapes, {len(self._problems)} problems, RSS {after - before:+.1f} MiB"
        )


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="how long, default 120")
    parser.add_argument("--callers", type=int, default=10_000, help="how many, default 10,000")
    parser.add_argument("--pause", type=float, default=3, help="mean seconds between calls, default 3")
    parser.add_argument("--seed", type=int, help="of what happens, default another one each time")
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="draw into this folder")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if arguments.seed is None else arguments.seed
    print(f"--seed {seed}", flush=True)
    logging.disable(logging.CRITICAL)  # the pool warns of what is done to it
    load = Load(arguments.seconds, seed, arguments.callers, arguments.pause)
    problems = asyncio.run(load.run())
    load.report()
    if arguments.plot:
        for path in draw(load.samples.rows, arguments.plot, load.summary()):
            print("drawn:", path)
    for problem in problems:
        print("PROBLEM:", problem)
    print(load.summary())
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
