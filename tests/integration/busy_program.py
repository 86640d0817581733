"""A pool in which all happens that its series can tell, served at ``/metrics``; for test_prometheus.py.

It prints its port when every row is there, with counters that have hardly counted. At a line on its standard
input it does all the rest, prints ``done``, and stays as it is until its standard input ends. Sessions are
fakes, and time is what the program says.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from prometheus_client import start_http_server

from mcpgateway_pool import PoolError, _core, register_collector, set_max_gateways
from mcpgateway_pool.prometheus.gateway_names import NAMES
from support.fakes import FakeClock, FakePool, turns, until_timer, upkeep

URL = "http://{}.test/mcp"
GATEWAYS = ("calm", "busy", "down", "sick")
HEALTH_INTERVAL = 60.0


async def use(pool: FakePool, gateway: str, *, discard: bool = False) -> None:
    pooled = await pool.acquire(URL.format(gateway), gateway_id=gateway)
    await pool.release(pooled, discard=discard)


async def fail(pool: FakePool, gateway: str, **arguments: Any) -> None:
    try:
        await pool.acquire(URL.format(gateway), gateway_id=gateway, **arguments)
    except (PoolError, ConnectionError):
        return
    raise AssertionError(f"{gateway}: this acquire should have failed")


async def wait_in_vain(pool: FakePool, clock: FakeClock) -> list[Any]:
    """All sessions of ``busy`` stay in use, with callers waiting; of those before, one each was granted late,
    timed out, was cancelled and was refused.

    Returns:
        What must be held to keep it so.
    """
    held = [await pool.acquire(URL.format("busy"), gateway_id="busy") for _ in range(2)]

    def wait() -> asyncio.Task[Any]:
        return asyncio.create_task(pool.acquire(URL.format("busy"), gateway_id="busy"))

    granted, cancelled = wait(), wait()
    await turns()
    clock.advance(25.0)
    await pool.release(held.pop())
    held.append(await granted)
    cancelled.cancel()
    await asyncio.wait({cancelled})
    late = wait()
    await turns()
    clock.advance(31.0)
    await asyncio.wait({late})
    assert isinstance(late.exception(), TimeoutError)
    waiters = [wait(), wait()]
    await turns()
    await fail(pool, "busy")  # queue_full
    clock.advance(10.0)
    return [*held, *waiters]


async def everything(pool: FakePool, clock: FakeClock) -> list[Any]:
    for _ in range(60):
        await use(pool, "calm")
        await use(pool, "busy", discard=True)
    pool.is_healthy = False
    await use(pool, "sick")
    clock.advance(HEALTH_INTERVAL + 1)
    await upkeep(pool)
    await until_timer(lambda: pool.count("health_check_failures"))
    pool.is_healthy = True
    # What only the gateway's calls count.
    _core.count_replay("calm")
    _core.count_unpooled("calm", "no_user")
    pool.create_error = ConnectionError("down")
    for _ in range(3):
        await fail(pool, "down", user_identity="new")
    await fail(pool, "down", user_identity="new")  # circuit_open
    pool.create_error = None
    await pool.acquire(URL.format("calm"), gateway_id="calm")  # and never released
    pool.checked.clear()  # which may hold it
    gc.collect()
    await until_timer(lambda: pool.evictions.get("leaked"))
    set_max_gateways(len(GATEWAYS))
    await use(pool, "one too many")
    return await wait_in_vain(pool, clock)


async def main() -> None:
    logging.getLogger("mcpgateway_pool").setLevel(logging.CRITICAL)
    clock = FakeClock()
    pool = FakePool(
        max_sessions_per_key=2,
        max_total_sessions=100,
        max_total_keys=100,
        max_waiters=2,
        acquire_timeout_seconds=30.0,
        health_check_interval_seconds=HEALTH_INTERVAL,
        leak_detection_seconds=20.0,
        circuit_breaker_threshold=3,
        clock=clock,
    )
    for gateway in GATEWAYS:
        await use(pool, gateway)
    register_collector()
    NAMES.use(lambda ids: {"busy": "Busy server"})
    endpoint, _ = start_http_server(0, addr="127.0.0.1")
    print(endpoint.server_port, flush=True)
    if await asyncio.to_thread(sys.stdin.readline):
        held = await everything(pool, clock)
        print("done", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        del held


asyncio.run(main())
