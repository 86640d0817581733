"""Python code that runs inside the pool's own operations may call the pool: finalizers, the collector,
weak references, callbacks, hooks, the clock, other threads.
"""

from __future__ import annotations

import pytest

from support.scripts import assert_runs_quietly

# What may be called from anywhere in the loop's thread; what is refused there is no matter.
CALL = """
import logging, weakref
logging.disable()
import mcpgateway_pool
from mcpgateway_pool import _core
from mcpgateway_pool.config import TransportType

def call_everything(pool):
    for call in (
        pool.get_metrics, mcpgateway_pool.generate_latest, _core.snapshot, lambda: dict(pool._pools),
        lambda: dict(pool._active), pool._upkeep, pool._drain, pool._reap_leaks, pool._run_effects,
        lambda: _core.release(pool, _core.acquire(pool, URL, None, TransportType.SSE, None, None), 1),
    ):
        try:
            call()
        except Exception:
            pass

async def use(pool, rounds=3):
    async def one(number):
        try:
            async with pool.session(URL, {"authorization": str(number % 2)}, user_identity="u"):
                await asyncio.sleep(0)
                if number % 5 == 4:
                    raise ConnectionError
        except ConnectionError:
            pass
    for _ in range(rounds):
        tasks = [asyncio.ensure_future(one(number)) for number in range(12)]
        await turns(2)
        tasks[-1].cancel()
        await asyncio.wait(tasks)
        await pool.drain_all()
    await turns(20)

async def finish(pool):
    await until(lambda: not any(pool.count(name) for name in ("waiters", "creating", "checking", "closing")))
    for value in "01":
        taken = [await pool.acquire(URL, {"authorization": value}, user_identity="u") for _ in range(2)]
        for pooled in taken:
            await pool.release(pooled)
    assert_adds_up(pool)
    await pool.close_all()
    await turns(20)
    assert sum(count for name, count in pool._counts().items() if "_" not in name) == 0
"""

SCENARIOS = {
    "finalizers of sessions": """
class Session:
    def __init__(self, pool): self.pool = weakref.ref(pool)
    def __del__(self):
        if self.pool() is not None: call_everything(self.pool())
make = pool.make_session
def made(*args):
    pooled = make(*args)
    pooled.session = Session(pool)
    return pooled
pool.make_session = made
pool._close_session = forget
""",
    "weak references to sessions": """
refs = []
make = pool.make_session
def made(*args):
    pooled = make(*args)
    refs.append(weakref.ref(pooled, lambda _: call_everything(pool)))
    return pooled
pool.make_session = made
""",
    "creation hook": """
inner = pool._create_session
async def create(*args):
    call_everything(pool)
    pooled = await inner(*args)
    call_everything(pool)
    return pooled
pool._create_session = create
""",
    "close hook": """
inner = pool._close_session
async def close(pooled):
    call_everything(pool)
    await pool.drain_all() if len(pool._tasks) < 2 else None
    await inner(pooled)
    call_everything(pool)
pool._close_session = close
""",
    "validation hook": """
async def validate(pooled):
    call_everything(pool)
    return True
pool._validate_session = validate
""",
    "key hook": """
inner = pool._make_pool_key
def key(*args):
    if not pool.__dict__.get("inside"):
        pool.inside = True
        call_everything(pool)
        pool.inside = False
    return inner(*args)
pool._make_pool_key = key
""",
    "clock": """
inside = False
def now(inner=pool._settings.clock):
    global inside
    if not inside:
        inside = True
        call_everything(pool)
        inside = False
    return 1000.0
hook.now = now
""",
    "tasks and futures": """
loop = asyncio.get_running_loop()
inner = loop.create_task
def create_task(*args, **kwargs):
    call_everything(pool)
    return inner(*args, **kwargs)
loop.create_task = create_task
class Future(asyncio.Future):
    def done(self):
        call_everything(pool)
        return super().done()
    def set_result(self, result):
        call_everything(pool)
        super().set_result(result)
        call_everything(pool)
create_future = loop.create_future
loop.create_future = lambda: Future(loop=loop)
""",
    "collection at every allocation": """
class Cycle:
    def __init__(self): self.me = self
    def __del__(self):
        call_everything(pool)
        if alive: Cycle()
alive = True
Cycle()
gc.set_threshold(1)
""",
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_what_runs_inside_may_call_the_pool(scenario: str):
    body = "".join(f"    {line}\n" for line in SCENARIOS[scenario].splitlines())
    assert_runs_quietly(
        CALL
        + """
class Hook:
    def now(self): return 1000.0
hook = Hook()
async def main():
    global pool, inside, alive
    pool = PlainPool(max_sessions_per_key=2, clock=lambda: hook.now())
    async def forget(pooled):
        pooled.session = None
"""
        + body
        + """
    await use(pool)
    gc.set_threshold(700)
    alive = False
    for name in ("_create_session", "_close_session", "_validate_session", "_make_pool_key", "make_session"):
        pool.__dict__.pop(name, None)
    pool.changed = True
    for name in ("create_task", "create_future"):
        asyncio.get_running_loop().__dict__.pop(name, None)
    await finish(pool)
asyncio.run(main())
"""
    )


def test_close_all_from_within_a_close_ends():
    assert_runs_quietly(
        """
import logging
logging.disable()  # closes that wait for each other end by their bound
async def main():
    pool = PlainPool(max_sessions_per_key=3, cleanup_timeout_seconds=0.1)
    held = [await pool.acquire(URL) for _ in range(3)]
    inner = pool._close_session
    async def close(pooled):
        await inner(pooled)
        await pool.close_all()
    pool._close_session = close
    for pooled in held[1:]:
        await pool.release(pooled)
    await asyncio.wait_for(pool.release(held[0], discard=True), 20)
    await asyncio.wait_for(pool.close_all(), 20)
    await turns()
    assert sum(count for name, count in pool._counts().items() if "_" not in name) == 0
    assert len(pool.closed) == 3
asyncio.run(main())
"""
    )


def test_header_strings_with_code_of_their_own_are_compared_as_text():
    assert_runs_quietly(
        """
class Evil(str):
    def refuse(self, *args): raise AssertionError("code of a header ran")
    __eq__ = __ne__ = __lt__ = __gt__ = lower = upper = encode = __len__ = __iter__ = __getitem__ = refuse
    __hash__ = str.__hash__
async def main():
    pool = PlainPool()
    async def key(headers, **more):
        async with pool.session(URL, headers, **more):
            return len(pool._keys())
    plain = {"authorization": "a", "x-user-id": "b"}
    assert await key(plain) == 1
    assert await key({Evil(name): Evil(value) for name, value in plain.items()}) == 1
    assert await key({"Authorization": Evil("A"), "authorization": Evil("a")}) == 2
    assert await key({}, user_identity=Evil("u"), gateway_id="g") == 3
    assert await key({}, user_identity="u", gateway_id="g") == 3
    await pool.close_all()
asyncio.run(main())
"""
    )


def test_a_collection_that_changes_the_headers_while_their_key_is_made_harms_nothing():
    assert_runs_quietly(
        """
class Cycle:
    def __init__(self): self.me = self
    def __del__(self):
        for headers in used: headers.clear()
used = []
async def main():
    pool = PlainPool(max_sessions_per_key=100)
    for size in range(40):
        headers = {"authorization": "\\udc80" + "a" * size, "cookie": "\\udc80" + "b" * size,
                   "x-user-id": "ü" * (size + 1), "x-api-key": "é" + "c" * 5000}
        used[:] = [headers]
        gc.set_threshold(1)
        Cycle()
        try:
            pooled = await pool.acquire(URL, headers, user_identity="u")
        finally:
            gc.set_threshold(700)
        await pool.release(pooled)
        gc.collect()
    await pool.close_all()
asyncio.run(main())
"""
    )


def test_other_threads_read_while_the_loop_works():
    assert_runs_quietly(
        CALL
        + """
import threading
from prometheus_client import CollectorRegistry
from mcpgateway_pool import PoolCollector
sys.setswitchinterval(1e-5)
async def main():
    pool = PlainPool(max_sessions_per_key=2)
    registry = CollectorRegistry()
    registry.register(PoolCollector())
    stop, errors = threading.Event(), []
    def read():
        try:
            while not stop.is_set():
                mcpgateway_pool.generate_latest(registry)
                pool.get_metrics()
                repr(pool._active)
                _core.snapshot()
        except BaseException as error:
            errors.append(error)
    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads: thread.start()
    await use(pool, rounds=10)
    stop.set()
    for thread in threads: thread.join()
    assert not errors, errors
    await finish(pool)
asyncio.run(main())
"""
    )
