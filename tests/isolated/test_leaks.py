"""Whatever is done again and again leaves no objects and no memory behind."""

from __future__ import annotations

import sys

import pytest

from support.scripts import assert_runs_quietly

MEASURE = """
import logging
logging.disable(logging.WARNING)

def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

async def measure(once, rounds=14, times=60):
    # The first rounds warm up: caches, arenas, tables, specialised code; the last four are compared.
    numbers = []
    for number in range(rounds):
        for _ in range(times):
            await once()
        await turns(20)
        gc.collect()
        numbers.append((len(gc.get_objects()), sys.getallocatedblocks(), rss()))
    objects, blocks, memory = zip(*numbers[-4:])
    # One object left by each would be three times this many.
    assert objects[-1] - objects[0] < times, numbers
    assert blocks[-1] - blocks[0] < 2 * times, numbers
    assert memory[-1] - memory[0] < 2_000_000, numbers

def fresh(**settings):
    pool = FakePool(max_sessions_per_key=2, circuit_breaker_threshold=10**6, **settings)
    forget(pool)
    return pool

def forget(pool):
    for what in (pool.closed, pool.checked, pool.open_now, pool.most_open):
        what.clear()
"""

SCENARIOS = {
    "acquire and release": """
        await pool.release(await pool.acquire(URL, {"authorization": "a" * 2000}))
    """,
    "create and discard": """
        await pool.release(await pool.acquire(URL), discard=True)
    """,
    "session that raises": """
        try:
            async with pool.session(URL):
                raise ConnectionError
        except ConnectionError:
            pass
    """,
    "new keys": """
        pool.number = getattr(pool, "number", 0) + 1
        await pool.release(await pool.acquire(f"{URL}/{pool.number}", user_identity="u"), discard=True)
    """,
    "waiters": """
        async def use():
            async with pool.session(URL):
                await asyncio.sleep(0)
        await asyncio.gather(*(use() for _ in range(8)))
    """,
    "cancelled waiters": """
        held = [await pool.acquire(URL) for _ in range(2)]
        tasks = [asyncio.ensure_future(pool.acquire(URL)) for _ in range(4)]
        await turns(2)
        for task in tasks[:3]:
            task.cancel()
        for pooled in held:
            await pool.release(pooled)
        tasks[0].cancel()
        await asyncio.wait(tasks)
        await pool.release(tasks[3].result())
    """,
    "cancelled creations": """
        task = asyncio.ensure_future(pool.acquire(URL))
        await turns(1)
        task.cancel()
        await asyncio.wait({task})
        await turns(3)
        await pool.release(await pool.acquire(URL), discard=True)
    """,
    "failed creations": """
        pool.create_error = OSError()
        try:
            await pool.acquire(URL, user_identity="ann")
        except OSError:
            pass
        pool.create_error = None
    """,
    "leaked sessions": """
        pooled = await pool.acquire(URL)
        pooled.me = pooled
        del pooled
        gc.collect(0)
        await turns(5)
    """,
    "duck-typed sessions": """
        class Foreign: pass
        pool.make_session = lambda *_: Foreign()
        await pool.release(await pool.acquire(URL), discard=True)
    """,
    "drained": """
        await pool.release(await pool.acquire(URL))
        await pool.drain_all()
    """,
    "pools made and closed": """
        own = FakePool()
        await own.release(await own.acquire(URL))
        held = await own.acquire(URL)
        await own.close_all()
    """,
    "pools made and dropped": """
        own = FakePool()
        await own.release(await own.acquire(URL))
        held = await own.acquire(URL)
    """,
    "overridden hooks": """
        pool._make_pool_key = lambda *args: ("key", "of", "mine")
        await pool.release(await pool.acquire(URL))
        del pool._make_pool_key
        pool._compute_identity_hash = lambda headers: "mine"
        await pool.release(await pool.acquire(URL))
        del pool._compute_identity_hash
    """,
    "refused arguments": """
        for bad in ((b"url",), (URL, {"a": 1}), (URL, None, "sse"), (URL, [])):
            try:
                await pool.acquire(*bad)
            except TypeError:
                pass
    """,
    "views and metrics": """
        held = await pool.acquire(URL, {"authorization": "a"})
        pool.get_metrics(); dict(pool._pools); dict(pool._active); repr(held)
        held.created_at -= 1; held.last_used -= 1
        await pool.release(held)
        pool.get_metrics()
    """,
}


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
    await measure(once, times=30)
asyncio.run(main())
"""
    )
