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
    assert len(pool.closed_sessions) == 3
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


def test_a_collection_that_closes_the_pool_while_a_waiter_times_out_harms_nothing():
    assert_runs_quietly(
        CALL
        + """
class Trash:
    def __init__(self, pool): self.me, self.pool = self, pool
    def __del__(self):
        closing = self.pool.close_all()
        kept.append(closing)
        try: closing.send(None)
        except StopIteration: pass
kept = []
async def main():
    pool = FakePool(max_sessions_per_key=1)
    held = await pool.acquire(URL)
    pending = _core.acquire(pool, URL, None, TransportType.SSE, None, None)
    waiting = _core.acquire(pool, URL, None, TransportType.STREAMABLE_HTTP, None, None)
    assert pool.count("waiters") == 1 and isinstance(pending, _core.Pending)
    gc.collect(); gc.disable()
    Trash(pool)
    junk = [[] for _ in range(1000)]
    fives = [(i, i, i, i, i) for i in range(5000)]  # no tuple of five is left over
    gc.enable()
    assert pool._time_out(waiting) in (None, (1, 0, 0, 0, 1))
    assert pool.count("waiters") == 0
asyncio.run(main())
"""
    )


def test_a_session_that_comes_back_while_an_acquire_makes_its_future_is_had_at_once():
    assert_runs_quietly(
        CALL
        + """
async def main():
    loop = asyncio.get_running_loop()
    pool = PlainPool(max_sessions_per_key=1)
    held = await pool.acquire(URL)
    create = loop.create_future
    def create_future():
        loop.create_future = create
        try: pool.release(held).send(None)
        except StopIteration: pass
        return create()
    loop.create_future = create_future
    acquiring = pool.acquire(URL)
    try: acquiring.send(None)
    except StopIteration as done: assert done.value is held
    else: raise AssertionError("it waits beside an idle session")
    assert pool.count("waiters") == 0 and pool._totals()["acquire_cancellations"] == 0
    await pool.release(held)
    await pool.close_all()
asyncio.run(main())
"""
    )


def test_a_collection_while_leaks_are_reclaimed_may_reclaim_them_too():
    assert_runs_quietly(
        CALL
        + """
class Cycle:
    def __init__(self): self.me = self
    def __del__(self):
        call_everything(pool)
        if alive: Cycle()
async def main():
    global pool, alive
    pool = PlainPool(max_sessions_per_key=20)
    for _ in range(5):
        held = [await pool.acquire(URL) for _ in range(10)]
        pool.closed_sessions.clear()
        alive = True
        gc.set_threshold(1)
        Cycle()
        held.clear()
        pool._reclaim_leaked()
        await turns(20)
        alive = False
        gc.set_threshold(700)
        gc.collect()
        await turns(50)
        assert pool.count("active") == 0, pool._counts()
    await pool.close_all()
asyncio.run(main())
"""
    )


def test_a_duck_typed_session_that_the_pool_refuses_is_forgotten():
    assert_runs_quietly(
        CALL
        + """
class Duck: is_closed = False
async def main():
    pool = PlainPool(max_sessions_per_key=1)
    pending = _core.acquire(pool, URL, None, TransportType.SSE, None, None)
    duck = Duck()
    references = sys.getrefcount(duck)
    pool._create_failed(pending, False)
    for _ in range(100):
        assert pool._created(pending, duck) is False
    assert sys.getrefcount(duck) == references
    assert _core.release(pool, duck, 0) is NotImplemented
    pooled = pool.make_session(URL, None, TransportType.SSE)
    assert pool._created(pending, pooled) is False and not pooled.is_closed and pooled._pool is None
    await pool.close_all()
asyncio.run(main())
"""
    )


def test_a_clock_that_runs_while_a_waiter_is_dropped_does_not_serve_it():
    assert_runs_quietly(
        CALL
        + """
held, now = [], [1000.0]
def clock():
    now[0] += 1.0
    if held and not inside:
        inside.append(1)
        _core.release(pool, held.pop(), 0)  # the oldest waiter's turn: the one that is going away
    return now[0]
inside = []
async def main():
    global pool
    pool = PlainPool(max_sessions_per_key=1, clock=clock)
    pooled = await pool.acquire(URL)
    pending = _core.acquire(pool, URL, None, TransportType.STREAMABLE_HTTP, None, None)
    held.append(pooled)
    del pending
    if held: _core.release(pool, held.pop(), 0)
    await turns()
    assert await pool.acquire(URL) is pooled
    await pool.release(pooled)
    await pool.close_all()
asyncio.run(main())
"""
    )


def test_a_checkout_ends_its_own_lease_whatever_ran_while_it_began():
    """Tasks that begin at once (eager tasks) run within the acquire that starts them."""
    assert_runs_quietly(
        CALL
        + """
async def main():
    pool = PlainPool(max_sessions_per_key=2, session_ttl_seconds=10.0, clock=lambda: now[0])
    first, second = await pool.acquire(URL), await pool.acquire(URL)
    await pool.release(second); await pool.release(first)
    first.created_at = __import__("time").time() - 9.9
    second.created_at = __import__("time").time()
    now[0] += 1.0  # `first` has expired, and is the next: it is closed by the acquire that gets `second`
    lent = []
    on_close = pool._on_close
    def eager(*args):  # the close begins at once, and what it runs gives the session back, and takes it
        if not lent:
            lent.append(None)
            _core.release(pool, second, 0)
            lent[0] = _core.acquire(pool, URL, None, TransportType.STREAMABLE_HTTP, None, None)
        return on_close(*args)
    pool._on_close = eager
    async with pool.session(URL) as pooled:
        assert lent and lent[0] is second, lent
    assert pool._lease_of(second) is not None, "the block ended a checkout that was not its own"
    await pool.release(second)
    await pool.close_all()
now = [1000.0]
asyncio.run(main())
"""
    )
