"""The loop of a pool may be run by another thread than before; from a thread that does not run it, nothing
but ``call_soon_threadsafe`` reaches it.
"""

from __future__ import annotations

import pytest

from support.scripts import assert_runs_quietly

LOOP = """
import logging, threading
logging.disable()
from mcpgateway_pool import _core
from mcpgateway_pool.config import TransportType
HTTP = TransportType.STREAMABLE_HTTP

class Guarded(asyncio.SelectorEventLoop):
    '''Refuses every other call that does not come from the thread that runs it.'''
    strays = []
    def _note(self, what):
        if asyncio._get_running_loop() is not self and self.guards:
            self.strays.append((what, threading.current_thread().name))
    guards = False
    def call_soon(self, *args, **kwargs):
        self._note("call_soon")
        return super().call_soon(*args, **kwargs)
    def call_later(self, *args, **kwargs):
        self._note("call_later")
        return super().call_later(*args, **kwargs)
    def call_at(self, *args, **kwargs):
        self._note("call_at")
        return super().call_at(*args, **kwargs)
    def create_task(self, *args, **kwargs): self._note("task"); return super().create_task(*args, **kwargs)
    def create_future(self): self._note("create_future"); return super().create_future()
    def _timer_handle_cancelled(self, handle):
        self._note("cancel"); super()._timer_handle_cancelled(handle)

def elsewhere(call):
    errors = []
    def run():
        try: call()
        except BaseException as error: errors.append(error)
    thread = threading.Thread(target=run)
    thread.start(); thread.join()
    assert not errors, errors
"""

# What a finalizer on another thread may be the last to hold.
DROPPED = {
    "a session in use": "held.pop()",
    "a waiter": "pendings.pop(0)",
    "a creation": "pendings.pop(1)",
    "a created session": "pendings.pop(2)",
    "a creation with a waiter behind it": "pendings.pop(3)",
    "times": "setattr(idle, 'created_at', 0.0)",
    "last use": "setattr(idle, 'last_used', 0.0)",
    "outcomes": "[pool._note_outcome(URL + '/x', True) for _ in range(9)] if pool._loop is None else None",
    "broken": "idle.mark_closed()",
    "numbers": "pool.get_metrics()",
    "coroutine": "coroutines.pop().close()",
}


@pytest.mark.parametrize("dropped", DROPPED)
def test_what_is_dropped_on_another_thread_reaches_the_loop_by_call_soon_threadsafe_alone(dropped: str):
    assert_runs_quietly(
        LOOP
        + f"""
async def main(debug):
    loop = asyncio.get_running_loop()
    loop.set_debug(debug)
    pool = PlainPool(max_sessions_per_key=1, idle_pool_eviction_seconds=1000.0)
    idle = await pool.acquire(URL + "/idle")
    await pool.release(idle)
    held = [await pool.acquire(URL)]
    pendings = [
        _core.acquire(pool, URL, None, HTTP, None, None),
        _core.acquire(pool, URL + "/1", None, HTTP, None, None),
        _core.acquire(pool, URL + "/2", None, HTTP, None, None),
        _core.acquire(pool, URL + "/3", None, HTTP, None, None),
    ]
    assert pool._created(pendings[2], pool.make_session(URL, None, HTTP))
    behind = asyncio.ensure_future(pool.acquire(URL + "/3"))
    coroutines = [pool.acquire(URL)]
    coroutines[0].send(None)  # it waits, with a timer
    await turns()
    waiting = pool.count("waiters")
    loop.guards = True
    elsewhere(lambda: {DROPPED[dropped]})
    loop.guards = False
    assert not loop.strays, loop.strays
    if {dropped!r} == "a creation with a waiter behind it":
        await pool.release(await behind)
    await turns(20)
    assert pool.count("waiters") == waiting - ({dropped!r} in ("a waiter", "coroutine",
        "a creation with a waiter behind it")) - ({dropped!r} == "a session in use"), pool._counts()
    pendings.clear(); coroutines.clear(); held.clear()
    gc.collect()
    await turns(20)
    behind.cancel()
    await asyncio.wait([behind])
    if not behind.cancelled() and pool._lease_of(behind.result()):
        await pool.release(behind.result())
    await turns(20)
    assert not any(pool.count(n) for n in ("waiters", "creating", "closing", "active")), pool._counts()
    await pool.close_all()
for debug in (False, True):
    with asyncio.Runner(loop_factory=Guarded) as runner:
        runner.run(main(debug))
"""
    )


def test_the_timer_that_another_threads_release_needs_is_armed_on_the_loops_thread():
    assert_runs_quietly(
        LOOP
        + """
async def main():
    pool = PlainPool(idle_pool_eviction_seconds=0.05)
    pending = [_core.acquire(pool, URL, None, HTTP, None, None)]
    assert pool._created(pending[0], pool.make_session(URL, None, HTTP))
    armed = []
    arm = pool._arm_timer
    pool._arm_timer = lambda seconds: armed.append(threading.current_thread()) or arm(seconds)
    elsewhere(pending.clear)  # the session goes back, and is due soon
    await until_timer(lambda: pool.closed_sessions)
    assert set(armed) == {threading.main_thread()}, armed
    await pool.close_all()
asyncio.run(main())
"""
    )


@pytest.mark.parametrize("factory", ["asyncio.new_event_loop", "uvloop"])
def test_the_pool_follows_its_loop_to_another_thread_and_back(factory: str):
    if factory == "uvloop":
        pytest.importorskip("uvloop")
        factory = "__import__('uvloop').new_event_loop"
    assert_runs_quietly(
        LOOP
        + f"""
import time
loop = {factory}()
async def setup():
    pool = PlainPool(max_sessions_per_key=1, acquire_timeout_seconds=20)
    await pool.release(await pool.acquire(URL))
    return pool
async def use(pool):
    pooled = await pool.acquire(URL)
    waiter = asyncio.ensure_future(pool.acquire(URL))
    await turns()
    assert pool.count("waiters") == 1
    await pool.release(pooled, discard=True)
    await pool.release(await waiter)
    pool.closed_sessions.clear()
    dropped = await pool.acquire(URL)
    del dropped, waiter, pooled
    await until(lambda: not pool.count("closing") and not pool.count("active"))
    begun = calls[0]
    await asyncio.sleep(0.05)
    assert calls[0] - begun <= 2, "it spins"
    await pool.release(await pool.acquire(URL))
    return threading.current_thread()
calls = [0]
pool = loop.run_until_complete(setup())
run = pool._run_effects
def counted():
    calls[0] += 1
    return run()
pool._run_effects = counted
for _ in range(3):
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    assert asyncio.run_coroutine_threadsafe(use(pool), loop).result(30) is thread
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    assert loop.run_until_complete(use(pool)) is threading.main_thread()
loop.run_until_complete(pool.close_all())
assert sum(n for name, n in pool._counts().items() if "_" not in name) == 0, pool._counts()
loop.close()
"""
    )
