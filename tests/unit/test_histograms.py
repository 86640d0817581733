"""The series that tell how long things take: waits, creations, checkouts, and the oldest waiter."""

from __future__ import annotations

import asyncio
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from mcpgateway_pool import AcquireTimeoutError, _core, generate_latest, register_collector, set_buckets
from support.fakes import URL, FakeClock, FakePool, assert_at_rest, turns, until
from support.scripts import assert_runs_quietly

PREFIX = "mcp_session_pool_"
HISTOGRAMS = ("acquire_wait_seconds", "create_seconds", "use_seconds")
_numbers = count()


@pytest.fixture
def gateway() -> str:
    """A gateway id that no other test counts in."""
    return f"histograms {next(_numbers)}"


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    register_collector(registry)
    return registry


class Read:
    """What a registry shows of one gateway now."""

    def __init__(self, registry: CollectorRegistry, gateway: str) -> None:
        self._samples = [
            sample
            for family in registry.collect()
            for sample in family.samples
            if sample.labels.get("gateway_id") == gateway
        ]

    def __getitem__(self, stem: str) -> float:
        """The value of the only sample of that name."""
        (value,) = (sample.value for sample in self._samples if sample.name == PREFIX + stem)
        return value

    def buckets(self, stem: str) -> dict[str, float]:
        """The cumulative count of each bound, in order."""
        name = PREFIX + stem + "_bucket"
        return {sample.labels["le"]: sample.value for sample in self._samples if sample.name == name}

    def first_bucket(self, stem: str) -> str:
        """The lowest bound that anything is below."""
        return next(bound for bound, value in self.buckets(stem).items() if value)


# ---- what is measured


async def test_waits_creations_and_checkouts_are_measured(registry: CollectorRegistry, gateway: str):
    clock = FakeClock()
    pool = FakePool(max_sessions_per_key=1, clock=clock)
    pool.holds_creations = True
    first = asyncio.ensure_future(pool.acquire(URL, gateway_id=gateway))
    await until(lambda: pool.creations)
    clock.advance(0.2)
    pool.creations.pop().open()
    session = await first
    waiting = asyncio.ensure_future(pool.acquire(URL, gateway_id=gateway))
    await until(lambda: pool.count("waiters") == 1)
    clock.advance(3)
    await pool.release(session)
    assert await waiting is session
    clock.advance(0.004)
    await pool.release(session)

    now = Read(registry, gateway)
    assert (now["create_seconds_count"], now["create_seconds_sum"]) == (1, 0.2)
    assert (now["acquire_wait_seconds_count"], now["acquire_wait_seconds_sum"]) == (1, 3.0)
    assert (now["use_seconds_count"], now["use_seconds_sum"]) == (2, pytest.approx(3.004))
    assert now.first_bucket("create_seconds") == "0.25"
    assert now.first_bucket("acquire_wait_seconds") == "5.0"
    buckets = now.buckets("use_seconds")
    assert [buckets[bound] for bound in ("0.001", "0.005", "2.5", "5.0", "300.0", "+Inf")] == [
        0,
        1,
        1,
        2,
        2,
        2,
    ]
    await pool.close_all()
    assert_at_rest(pool)


async def test_hit_and_miss_that_need_not_wait_count_no_wait(registry: CollectorRegistry, gateway: str):
    pool = FakePool(clock=FakeClock())
    for _ in range(3):
        await pool.release(await pool.acquire(URL, gateway_id=gateway))
    now = Read(registry, gateway)
    assert now["acquire_wait_seconds_count"] == 0
    assert (now["create_seconds_count"], now["use_seconds_count"]) == (1, 3)
    assert set(now.buckets("use_seconds").values()) == {3}
    await pool.close_all()


async def test_waiter_that_is_told_to_create_counts_its_wait_and_its_creation(
    registry: CollectorRegistry, gateway: str
):
    clock = FakeClock()
    pool = FakePool(max_sessions_per_key=1, clock=clock)
    session = await pool.acquire(URL, gateway_id=gateway)
    waiting = asyncio.ensure_future(pool.acquire(URL, gateway_id=gateway))
    await until(lambda: pool.count("waiters") == 1)
    pool.holds_creations = True
    clock.advance(40)
    await pool.release(session, discard=True)
    await until(lambda: pool.creations)
    clock.advance(7)
    pool.creations.pop().open()
    await pool.release(await waiting)
    now = Read(registry, gateway)
    assert (now["acquire_wait_seconds_count"], now["acquire_wait_seconds_sum"]) == (1, 40)
    assert (now["create_seconds_count"], now["create_seconds_sum"]) == (2, 7)
    await pool.close_all()


async def test_what_fails_is_not_measured(registry: CollectorRegistry, gateway: str):
    pool = FakePool(max_sessions_per_key=1, acquire_timeout_seconds=0.01)
    pool.create_error = OSError("refused")
    with pytest.raises(OSError, match="refused"):
        await pool.acquire(URL, gateway_id=gateway)
    pool.create_error = None
    session = await pool.acquire(URL, gateway_id=gateway)
    with pytest.raises(AcquireTimeoutError):
        await pool.acquire(URL, gateway_id=gateway)
    cancelled = asyncio.ensure_future(pool.acquire(URL, gateway_id=gateway))
    await until(lambda: pool.count("waiters") == 1)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    now = Read(registry, gateway)
    assert (now["create_seconds_count"], now["create_failures_total"]) == (1, 1)
    assert now["acquire_wait_seconds_count"] == now["acquire_wait_seconds_sum"] == 0
    assert now["use_seconds_count"] == 0
    await pool.release(session)
    await pool.close_all()


async def test_checkouts_that_the_pool_ends_are_measured_until_then(
    registry: CollectorRegistry, gateway: str
):
    clock = FakeClock()
    pool = FakePool(clock=clock)
    leaked = await pool.acquire(URL, gateway_id=gateway)
    held = await pool.acquire(URL, gateway_id=gateway)
    clock.advance(2)
    del leaked
    await until(lambda: len(pool.closed_sessions) == 1)
    assert (Read(registry, gateway)["use_seconds_count"], pool.count("active")) == (1, 1)
    clock.advance(3)
    await pool.close_all()
    now = Read(registry, gateway)
    assert (now["use_seconds_count"], now["use_seconds_sum"]) == (2, 2 + 5)
    await pool.release(held)  # too late to count again
    assert Read(registry, gateway)["use_seconds_count"] == 2


async def test_counts_agree_with_the_counters(registry: CollectorRegistry, gateway: str):
    clock = FakeClock()
    pool = FakePool(max_sessions_per_key=2, clock=clock)

    async def use(number: int) -> None:
        async with pool.session(URL, gateway_id=gateway):
            clock.advance(0.3 * number)
            await turns(number % 4)

    await asyncio.gather(*(use(number) for number in range(20)))
    held = await pool.acquire(URL, gateway_id=gateway)
    now = Read(registry, gateway)
    assert now["create_seconds_count"] == now["creates_total"]
    assert now["use_seconds_count"] + now["active_sessions"] == now["hits_total"] + now["misses_total"] == 21
    for stem in HISTOGRAMS:
        values = list(now.buckets(stem).values())
        assert values == sorted(values)
        assert values[-1] == now[stem + "_count"]
    assert now["acquire_wait_seconds_count"] == 18
    await pool.release(held)
    await pool.close_all()


# ---- the oldest waiter


@pytest.mark.parametrize("clock", [None, FakeClock(5.0), FakeClock(1e8)])
async def test_oldest_waiter_is_shown_in_real_time_whatever_the_clock(
    registry: CollectorRegistry, gateway: str, clock: Any
):
    pools = [FakePool(max_sessions_per_key=1, clock=clock) for _ in range(2)]
    held = [await pool.acquire(URL, gateway_id=gateway) for pool in pools]
    assert Read(registry, gateway)["oldest_waiter_seconds"] == 0
    tasks, times = [], [time.monotonic()]
    for pool in pools:
        tasks.append(asyncio.ensure_future(pool.acquire(URL, gateway_id=gateway)))
        await until(lambda pool=pool: pool.count("waiters") == 1)
        times.append(time.monotonic())
    for first in range(2):
        at_least = time.monotonic() - times[first + 1]
        shown = Read(registry, gateway)["oldest_waiter_seconds"]
        assert at_least - 1e-5 <= shown <= time.monotonic() - times[first]
        await pools[first].release(held[first])
        assert await tasks[first] is held[first]
    assert Read(registry, gateway)["oldest_waiter_seconds"] == 0
    for pool in pools:
        await pool.close_all()


async def test_oldest_waiter_is_the_next_one_when_the_first_gives_up(
    registry: CollectorRegistry, gateway: str
):
    pool = FakePool(max_sessions_per_key=1)
    held = await pool.acquire(URL, gateway_id=gateway)
    first = asyncio.ensure_future(pool.acquire(URL, gateway_id=gateway))
    await until(lambda: pool.count("waiters") == 1)
    between = time.monotonic()
    second = asyncio.ensure_future(pool.acquire(URL, gateway_id=gateway))
    await until(lambda: pool.count("waiters") == 2)
    at_least = time.monotonic() - between
    assert Read(registry, gateway)["oldest_waiter_seconds"] >= at_least - 1e-5
    first.cancel()
    await asyncio.wait([first])
    assert Read(registry, gateway)["oldest_waiter_seconds"] <= time.monotonic() - between
    await pool.release(held)
    await pool.release(await second)
    assert Read(registry, gateway)["oldest_waiter_seconds"] == 0
    await pool.close_all()


# ---- buckets


def test_buckets_can_be_chosen_before_the_first_pool_is_made():
    output = assert_runs_quietly("""
        from mcpgateway_pool import generate_latest, register_collector, set_buckets
        register_collector()
        set_buckets("use_seconds", [0.5, 2, float("inf")])
        set_buckets("create_seconds", (1e-9,))
        async def main():
            clock = FakeClock()
            pool = FakePool(clock=clock)
            for seconds in (0.5, 0.6, 3):
                async with pool.session(URL, user_identity="ann", gateway_id="g"):
                    clock.advance(seconds)
            await pool.close_all()
        asyncio.run(main())
        print(generate_latest().decode())
        try:
            set_buckets("use_seconds", [1])
        except RuntimeError as error:
            print(error)
    """)
    lines = [line for line in output.splitlines() if line.startswith(PREFIX + "use_seconds")]
    assert [line.removeprefix(PREFIX + "use_seconds_") for line in lines] == [
        'bucket{gateway_id="g",le="0.5"} 1.0',
        'bucket{gateway_id="g",le="2.0"} 2.0',
        'bucket{gateway_id="g",le="+Inf"} 3.0',
        'count{gateway_id="g"} 3.0',
        'sum{gateway_id="g"} 4.1',
    ]
    assert f'{PREFIX}create_seconds_bucket{{gateway_id="g",le="1e-09"}} 1.0' in output
    assert output.splitlines()[-1] == "buckets must be set before the first pool of the process is made"


def test_buckets_cannot_be_chosen_once_the_file_of_shared_counters_is_made(tmp_path: Path):
    output = assert_runs_quietly(
        """
        os.environ["MCPGATEWAY_POOL_METRICS_DIR"] = sys.argv[1]
        from mcpgateway_pool import set_buckets
        from mcpgateway_pool.prometheus import shared_counters
        shared_counters.use_environment()
        set_buckets("use_seconds", [1])
        pool = FakePool()
        try:
            set_buckets("use_seconds", [2])
        except RuntimeError as error:
            print(error)
        """,
        str(tmp_path),
    )
    assert output == "buckets must be set before the first pool of the process is made\n"


LEAP_YEAR = 366 * 86_400


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ([], "1 to 16"),
        ([float("inf")], "1 to 16"),
        (range(1, 18), "1 to 16"),
        ([0, 1], "more than 0"),
        ([-1], "more than 0"),
        ([float("nan")], "more than 0"),
        ([1, float("inf"), 2], "more than 0"),
        ([1e9], "at most a year"),
        ([LEAP_YEAR + 1], "at most a year"),
        ([1, 1], "ascend"),
        ([2, 1], "ascend"),
        ([1e-10], "ascend"),
        ([1, 1 + 1e-10], "ascend"),
        ([LEAP_YEAR, 1], "ascend"),  # the first is one
    ],
)
def test_bounds_that_make_no_histogram_are_refused(bounds: Any, message: str):
    before = _core.buckets()
    with pytest.raises(ValueError, match=message):
        set_buckets("use_seconds", bounds)
    assert _core.buckets() == before


def test_bounds_must_be_numbers_of_a_histogram_that_there_is():
    for bad in (["a"], [None]):
        with pytest.raises((TypeError, ValueError)):
            set_buckets("use_seconds", bad)  # type: ignore[list-item]
    with pytest.raises(TypeError):
        set_buckets("use_seconds", 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no such histogram: 'hits'; there are acquire_wait_seconds"):
        set_buckets("hits", [1])  # type: ignore[arg-type]


def test_default_buckets_reach_from_milliseconds_to_minutes(registry: CollectorRegistry):
    assert generate_latest(registry).decode().count(" histogram\n") == 3
    ranges = {stem: (bounds[0], bounds[-1]) for stem, bounds in _core.buckets().items()}
    assert ranges == {
        "acquire_wait_seconds": ("0.001", "60.0"),
        "create_seconds": ("0.005", "60.0"),
        "use_seconds": ("0.001", "300.0"),
    }
