"""A session or a pool whose last reference is gone still runs code: callbacks of weak references, finalizers
of what it holds. That code may call the pool, and finds no object that is going away.
"""

from __future__ import annotations

import pytest

from support.scripts import assert_runs_quietly

# Whatever of a pool leads to a session or to the pool, and whatever ends a session.
LOOKS = {
    "numbers": "pool.get_metrics(), pool._counts()",
    "sessions": "kept.append((dict(pool._active), dict(pool._pools), repr(pool._active)))",
    "records": "kept.append(pool._keys())",
    "close": "kept.append(first_step(pool.close_all()))",
    "upkeep": "pool._reap_leaks(), pool._upkeep()",
    "drain": "kept.append(first_step(pool.drain_all()))",
    "acquire": "give_back(pool)",
}

# How code comes to run while a session that is in use goes away.
DROPS = {
    "callback of a weak reference": """
    reference = weakref.ref(pooled, lambda _: look(pool))
""",
    "weakref.finalize": """
    weakref.finalize(pooled, look, pool)
""",
    "slot of a subclass": """
    pooled.slot = Finalized(lambda: look(pool))
""",
    "attribute": """
    pooled.attribute = Finalized(lambda: look(pool))
""",
    "finalizer of a subclass": """
    pooled.at_end = lambda: look(pool)
""",
    "what it holds": """
    pooled.session = Finalized(lambda: look(pool))
""",
}

PRELUDE = """
import logging, weakref
logging.disable()
from mcpgateway_pool import _core
from mcpgateway_pool.config import TransportType
kept = []
class Finalized:
    def __init__(self, call): self.call = call
    def __del__(self): self.call()
class Session(PooledSession):
    __slots__ = ("slot",)
    def __del__(self):
        if "at_end" in self.__dict__: self.at_end()
def first_step(coroutine):
    try: coroutine.send(None)
    except StopIteration: pass
    return coroutine
def give_back(pool):
    got = _core.acquire(pool, URL + "/other", None, TransportType.SSE, None, None)
    if isinstance(got, _core.Pending):
        pool._create_failed(got, False)
    else:
        _core.release(pool, got, 0)
class SomePool(PlainPool):
    def make_session(self, url, headers, transport_type):
        return Session(object(), None, url, transport_type, {}, "")
"""


@pytest.mark.parametrize("drop", DROPS)
def test_what_runs_while_a_session_goes_away_finds_no_dying_session(drop: str):
    assert_runs_quietly(
        PRELUDE
        + f"""
LOOKS = {LOOKS!r}
looks = []
def look(pool):
    looks.append(1)
    try:
        exec(LOOKS[name], globals() | {{"pool": pool}})
    except PoolClosedError:
        pass
async def use(pool):
    pooled = await pool.acquire(URL)
    other = await pool.acquire(URL)
    await pool.release(other)
    del other
{DROPS[drop]}
    del pooled
from mcpgateway_pool import PoolClosedError
async def main():
    global name
    for name in LOOKS:
        for _ in range(3):
            pool = SomePool(max_sessions_per_key=2)
            await use(pool)
            await turns(20)
            kept.clear()
            pool.closed_sessions.clear()
            gc.collect()
            await turns(20)
            assert looks, "nothing ran"
            looks.clear()
            assert pool.count("active") == 0, (name, pool._counts())
            await pool.close_all()
            assert pool._counts()["closing"] == 0
asyncio.run(main())
""",
    )


ASKS = [
    "kept.append(pooled._pool)",
    "pooled.last_used = 0.0; pooled.created_at = 0.0",
    "kept.append((pooled.age_seconds, pooled.idle_seconds, pooled.created_at, repr(pooled)))",
    "pooled.mark_closed()",
    "kept.append(pooled._pool); pooled._pool is None or kept.append(pooled._pool._counts())",
    "pooled._pool is None or give_back(pooled._pool)",
]


@pytest.mark.parametrize("by", ["weak reference", "slot", "attribute", "cycle", "idle session"])
def test_what_runs_while_a_pool_goes_away_finds_no_dying_pool(by: str):
    assert_runs_quietly(
        PRELUDE
        + f"""
asked = []
def ask(*_):
    asked.append(1)
    for pooled in held:
        try:
            exec(what, globals() | {{"pooled": pooled}})
        except RuntimeError:
            pass  # there is no machine left
class SlotPool(PlainPool):
    __slots__ = ("slot",)
class Bare:
    def __del__(self): ask()
async def main(clock):
    global held
    pool = SlotPool(max_sessions_per_key=3, clock=clock)
    held = [await pool.acquire(URL), await pool.acquire(URL)]
    idle = await pool.acquire(URL)
    idle.session = Bare() if {by!r} in ("cycle", "idle session") else None
    await pool.release(idle)
    if {by!r} == "weak reference": held[0].reference = weakref.ref(pool, ask)
    if {by!r} == "slot": pool.slot = Finalized(ask)
    if {by!r} == "attribute": pool.attribute = Finalized(ask)
    if {by!r} == "cycle": pool.me = pool
    pool._tasks.clear()
for what in {ASKS!r}:
    for clock in (None, lambda: 1000.0):
        asyncio.run(main(clock))
        gc.collect()
        assert asked, "nothing ran"
        asked.clear()
        kept.clear()  # a finalizer that the collector calls may have kept the whole pool, which lived on
        gc.collect()
        assert [pooled._pool for pooled in held] == [None, None]
        held.clear()
        gc.collect()
"""
    )


def test_a_session_whose_gateway_changes_while_it_is_shown_is_shown():
    assert_runs_quietly(
        """
class Name:
    def __repr__(self):
        pooled.gateway_id = "other"
        gc.collect()
        return self.text
pooled = PooledSession(None, None, URL, None, {}, "", gateway_id=Name())
pooled.gateway_id.text = "one" * 100
assert "oneone" in repr(pooled)
assert pooled.gateway_id == "other"
"""
    )


def test_a_pool_that_was_cleared_by_the_collector_refuses_and_breaks_nothing():
    assert_runs_quietly(
        PRELUDE
        + """
async def main():
    pool = PlainPool()
    pool.me = pool
    pooled = await pool.acquire(URL)
    return pooled
pooled = asyncio.run(main())
gc.collect()
assert pooled._pool is None
assert pooled.is_closed
pooled.last_used = 5.0
assert pooled.last_used == 5.0
"""
    )
