"""After a fork the child's pools are empty, and the parent goes on unharmed."""

from __future__ import annotations

import os

import pytest

from support.scripts import assert_runs_quietly

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

FORK = """
import logging, warnings
from prometheus_client import CollectorRegistry
from mcpgateway_pool import register_collector
logging.disable(logging.WARNING)
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: forking while threads run
registry = CollectorRegistry()
register_collector(registry)

def rows():
    return {
        (s.name, *s.labels.values()): s.value
        for family in registry.collect() for s in family.samples if s.labels and s.value
    }

def in_child(check):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            check()
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
"""


def test_childs_pool_is_empty_and_its_rows_are_zero():
    assert_runs_quietly(
        FORK
        + """
async def main():
    pool = FakePool(max_sessions_per_key=2)
    held, idle = await pool.acquire(URL, gateway_id="g"), await pool.acquire(URL, gateway_id="g")
    waiter = asyncio.ensure_future(pool.acquire(URL, gateway_id="g"))
    await until(lambda: pool.count("waiters") == 1)
    await pool.release(idle)
    assert await waiter is idle
    await pool.release(idle)
    before = rows()
    assert before

    def check():
        assert rows() == {}
        assert sum(pool._counts().values()) == 0
        assert pool.get_metrics()["hits"] == 0
        assert held.is_closed and idle.is_closed

        async def use():
            pool.attempts = pool.returned = pool.answered = 0
            pool.open_now.clear()
            fresh = await pool.acquire(URL, gateway_id="h")
            assert fresh is not held and fresh is not idle
            await pool.release(fresh)
            await pool.release(held)  # the parent's: left alone
            await turns()
            assert pool.closed_sessions == []
            assert_at_rest(pool)
            assert rows()["mcp_session_pool_misses_total", "h"] == 1
            await pool.close_all()
            assert pool.closed_sessions == [fresh]
        asyncio.run(use())

    in_child(check)
    assert rows() == before
    assert pool.closed_sessions == []
    assert await pool.acquire(URL, gateway_id="g") is idle
    await pool.release(idle)
    await pool.release(held)
    await turns()
    assert_at_rest(pool)
    await pool.close_all()
asyncio.run(main())
"""
    )


def test_child_of_a_child_starts_empty_too():
    assert_runs_quietly(
        FORK
        + """
pool = FakePool()
async def use(gateway):
    await pool.release(await pool.acquire(URL, gateway_id=gateway))
asyncio.run(use("one"))
def check():
    assert rows() == {}
    asyncio.run(use("two"))
    assert rows()["mcp_session_pool_misses_total", "two"] == 1
    def again():
        assert rows() == {}
        asyncio.run(use("three"))
        assert set(key[1] for key in rows()) == {"three"}
    in_child(again)
    assert set(key[1] for key in rows()) == {"two"}
in_child(check)
assert set(key[1] for key in rows()) == {"one"}
"""
    )


def test_closed_pool_stays_closed_in_a_child():
    assert_runs_quietly(
        FORK
        + """
from mcpgateway_pool import PoolClosedError
pool = FakePool()
async def use():
    await pool.release(await pool.acquire(URL))
asyncio.run(pool.close_all())
def check():
    try:
        asyncio.run(use())
    except PoolClosedError:
        return
    raise AssertionError("it opened a session")
in_child(check)
"""
    )


def test_child_that_leaves_by_the_ordinary_way_is_quiet():
    assert_runs_quietly(
        FORK
        + """
async def main():
    pool = FakePool()
    held = await pool.acquire(URL)
    await pool.release(await pool.acquire(URL))
    return pool, held
pool, held = asyncio.run(main())
pid = os.fork()
if pid == 0:
    async def use():
        await pool.release(await pool.acquire(URL))
    asyncio.run(use())
    del pool, held
    gc.collect()
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
""",
        # What the child has of its parent's is left alone for ever, on purpose.
        ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0",
    )


def test_fork_while_another_thread_scrapes_does_not_hang_the_child():
    assert_runs_quietly(
        FORK
        + """
import threading
from mcpgateway_pool import forget_gateway
pool = FakePool()
async def use():
    await pool.release(await pool.acquire(URL, gateway_id="g"))
asyncio.run(use())
from mcpgateway_pool import PoolCollector
def rows():  # the registry has a lock of its own, which is not ours to free
    return sum(len(family.samples) for family in PoolCollector().collect())
stop = threading.Event()
def scrape():
    while not stop.is_set():
        rows()
        forget_gateway("g")
thread = threading.Thread(target=scrape)
thread.start()
sys.setswitchinterval(1e-5)
for _ in range(20):
    def check():
        import faulthandler
        faulthandler.dump_traceback_later(20, exit=True)
        rows()
        forget_gateway("other")
        asyncio.run(use())
    in_child(check)
stop.set()
thread.join()
"""
    )


def test_no_lock_that_a_thread_of_the_parent_holds_is_held_in_the_child():
    """That thread is not there to let go of it. All locks of the package's modules, whichever they are."""
    assert_runs_quietly(
        FORK
        + """
import importlib, pkgutil, threading, types
import mcpgateway_pool
from mcpgateway_pool.prometheus.collector import forget_gateway

for module in pkgutil.walk_packages(mcpgateway_pool.__path__, "mcpgateway_pool."):
    if not module.name.endswith(("__main__", ".asgi")):  # which begin to do something
        try:
            importlib.import_module(module.name)
        except ImportError:
            pass  # of the gateway's, which is not here

LOCKS = type(threading.Lock()), type(threading.RLock())

def locks():
    return {
        (module.__name__, name): value
        for module in list(sys.modules.values())
        if isinstance(module, types.ModuleType) and module.__name__.startswith("mcpgateway_pool")
        for name, value in vars(module).items() if isinstance(value, LOCKS)
    }

async def use():
    pool = FakePool()
    await pool.release(await pool.acquire(URL, gateway_id="g"))
    await pool.close_all()

before = locks()
assert len(before) >= 3, before
asyncio.run(use())
ready, done = threading.Event(), threading.Event()

def hold():
    for lock in before.values():
        lock.acquire()
    ready.set()
    done.wait()
    for lock in before.values():
        lock.release()

holder = threading.Thread(target=hold, daemon=True)
holder.start()
ready.wait()

def check():
    for name, lock in locks().items():
        assert lock.acquire(timeout=5), name
        lock.release()
    asyncio.run(use())
    assert rows()["mcp_session_pool_misses_total", "g"] == 1
    assert forget_gateway("g")
    assert rows() == {}

in_child(check)
done.set()
holder.join()
"""
    )
