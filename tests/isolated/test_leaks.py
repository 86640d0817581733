"""Whatever is done again and again leaves no objects and no memory behind."""

from __future__ import annotations

import sys

import pytest

from support.leak_scenarios import SCENARIOS
from support.scripts import assert_runs_quietly

MEASURE = """
import itertools
import logging
logging.disable(logging.WARNING)

def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

async def measure(once, rounds=14, times=60):
    # The first rounds warm up: caches, arenas, tables, specialised code; the later half is compared.
    numbers = []
    for number in range(rounds):
        for _ in range(times):
            await once()
        await turns(20)
        gc.collect()
        numbers.append((len(gc.get_objects()), sys.getallocatedblocks(), rss()))
    # What leaks grows in every round; caches of the interpreter and the allocator take a step in some.
    objects, blocks, memory = (
        min(later - earlier for earlier, later in itertools.pairwise(row))
        for row in zip(*numbers[rounds // 2 :])
    )
    assert objects < times / 3, numbers
    assert blocks < times / 2, numbers
    # No block of Python's: under a sanitizer, which keeps freed memory, and looks for leaks itself.
    assert memory < 600_000 or not numbers[-1][1], numbers

def fresh(**settings):
    pool = FakePool(max_sessions_per_key=2, circuit_breaker_threshold=10**6, **settings)
    forget(pool)
    return pool

def forget(pool):
    for what in (pool.closed_sessions, pool.checked, pool.open_now, pool.most_open):
        what.clear()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_again_and_again_leaves_nothing(scenario: str):
    assert_runs_quietly(
        MEASURE
        + "\nasync def main():\n    pool = fresh()\n    async def once():\n"
        + SCENARIOS[scenario]
        + "\n        forget(pool)\n    await measure(once)\n    await pool.close_all()\nasyncio.run(main())\n"
    )


def test_collecting_leaves_nothing():
    assert_runs_quietly(
        MEASURE
        + """
from prometheus_client import CollectorRegistry, generate_latest
from mcpgateway_pool import forget_gateway, register_collector, unregister_collector
async def main():
    number = 0
    pool = fresh()
    async def once():
        nonlocal number
        number += 1
        registry = CollectorRegistry()
        register_collector(registry)
        await pool.release(await pool.acquire(URL, gateway_id=f"g {number}"), discard=True)
        await turns(2)
        generate_latest(registry)
        assert forget_gateway(f"g {number}")
        unregister_collector(registry)
        forget(pool)
    await measure(once, rounds=28, times=30)  # whose caches warm up slowly
asyncio.run(main())
"""
    )
