"""A fork with everything under way: callers wait, sessions are created, checked, closed, in use. For the
child all that has ended: whatever it cancels, drops or exits with, the numbers of its parent do not change.
"""

from __future__ import annotations

import os

import pytest

from support.scripts import assert_runs_quietly

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

UNDER_WAY = """
import logging, warnings, weakref
logging.disable()
warnings.simplefilter("ignore", DeprecationWarning)
from mcpgateway_pool import _core
from mcpgateway_pool.config import TransportType
HTTP = TransportType.STREAMABLE_HTTP
def numbers():
    rows = [row for row in _core.snapshot()[0] if row[0] != "child"]  # of all that share them
    return rows, pool._counts(), pool._totals()
async def begin(pool):
    global held, idle, waiting, creating, closing, checking, pendings
    held = [await pool.acquire(URL, gateway_id="g") for _ in range(2)]
    waiting = [asyncio.ensure_future(pool.acquire(URL, gateway_id="g")) for _ in range(3)]
    one = await pool.acquire(URL + "/check", gateway_id="g")
    other = await pool.acquire(URL + "/close", gateway_id="g")
    pool.holds_creations = pool.holds_closes = pool.holds_checks = True
    creating = asyncio.ensure_future(pool.acquire(URL + "/new", gateway_id="g"))
    pendings = [  # without a coroutine that would report their end
        _core.acquire(pool, URL, None, HTTP, None, "g"),
        _core.acquire(pool, URL + "/bare", None, HTTP, None, "g"),
        _core.acquire(pool, URL + "/made", None, HTTP, None, "g"),
    ]
    assert pool._created(pendings[2], pool.make_session(URL, None, HTTP))
    closing = asyncio.ensure_future(pool.release(other, discard=True))
    await pool.release(one)
    clock.advance(70.0)
    checking = asyncio.ensure_future(pool.acquire(URL + "/check", gateway_id="g"))
    await until(lambda: pool.creations and pool.closes and pool.count("checking") == 1)
    await turns(5)
class Pool(PlainPool):
    holds_checks = False
    async def _run_health_check_chain(self, pooled):
        while self.holds_checks:
            await asyncio.sleep(0)
        return True
async def finish(pool):
    pool.holds_creations = pool.holds_closes = pool.holds_checks = False
    pendings.clear()
    for gate in [*pool.creations, *pool.closes]: gate.open()
    for pooled in held: await pool.release(pooled)
    for task in [*waiting, creating, checking]: await pool.release(await task)
    await closing
    await turns(20)
    assert not any(pool.count(n) for n in ("waiters", "creating", "checking", "closing")), pool._counts()
    await pool.close_all()
    await turns(20)
    assert pool.count("active") == 0
async def use_own(pool):
    pool.holds_creations = pool.holds_closes = pool.holds_checks = False
    taken = [await pool.acquire(URL + str(i), gateway_id="child") for i in range(20)]
    for one in taken: await pool.release(one)
    for ticket in list(kept_tickets): pool._close_ended(ticket), pool._checked(ticket, True)
    assert pool.count("idle") == 20, pool._counts()
    assert pool._totals()["hits"] == 0 and pool._totals()["misses"] == 20
kept_tickets = []
"""

# What the child does; then it is over, one way or another.
CHILDREN = {
    "exits": "sys.exit(0)",
    "cancels": """
asyncio._set_running_loop(loop)
for task in [*waiting, creating, checking, closing]: task.cancel()
await turns(10)
os._exit(0)""",
    "collects": """
pendings.clear(); held.clear(); waiting.clear()
globals().update(creating=None, checking=None, closing=None)
gc.collect()
os._exit(0)""",
    "reports": """
asyncio._set_running_loop(loop)
assert pool._take is not None
for pending in pendings:
    assert pool._time_out(pending) is None
    pool._create_failed(pending, True)
    assert pool._created(pending, pool.make_session(URL, None, HTTP)) is False
    pool._cancel(pending)
    try:
        pool._take(pending, URL)
    except mcpgateway_pool.PoolClosedError:
        pass
    else:
        raise AssertionError
for ticket in kept_tickets:
    assert pool._close_ended(ticket) is False
    assert pool._checked(ticket, True) is False
    assert pool._release_lease(ticket, 0) is False
for pooled in held:
    assert pool._lease_of(pooled) is None and pooled._pool is None
    assert pooled.identity_key == "anonymous"
    assert _core.release(pool, pooled, 0) is NotImplemented
    assert pool._mark_broken(pooled, True, True) is False
    pooled.mark_closed(); pooled.last_used = 0.0; pooled.created_at = 0.0
os._exit(0)""",
    "uses its own, then drops": """
asyncio._set_running_loop(loop)
await use_own(pool)
before = pool._counts(), pool._totals()
for task in [*waiting, creating, checking, closing]: task.cancel()
await turns(10)
pendings.clear(); held.clear()
gc.collect()
await turns(10)
assert (pool._counts(), pool._totals()) == before, (pool._counts(), before)
os._exit(0)""",
    "uses its own on a new loop": """
asyncio._set_running_loop(None)
asyncio.run(use_own(pool))
pendings.clear(); held.clear(); waiting.clear()
gc.collect()
os._exit(0)""",
    "drops the pool": """
for name in ("pool", "held", "pendings", "waiting", "creating", "checking", "closing"): globals()[name] = None
gc.collect()
os._exit(0)""",
}


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("child", CHILDREN)
def test_child_changes_nothing_of_its_parents(child: str, shared: bool, tmp_path: object):
    body = "".join(f"            {line}\n" for line in CHILDREN[child].strip().splitlines())
    assert_runs_quietly(
        UNDER_WAY
        + f"""
import mcpgateway_pool
async def main():
    global pool, clock, loop
    loop = asyncio.get_running_loop()
    clock = FakeClock()
    pool = Pool(max_sessions_per_key=2, clock=clock, acquire_timeout_seconds=1e6)
    on_close, on_check = pool._on_close, pool._on_check
    pool._on_close = lambda pooled, ticket, why: kept_tickets.append(ticket) or on_close(pooled, ticket, why)
    pool._on_check = lambda pooled, ticket: kept_tickets.append(ticket) or on_check(pooled, ticket)
    await begin(pool)
    before = numbers()
    pid = os.fork()
    if pid == 0:
        import faulthandler
        faulthandler.dump_traceback_later(30, exit=True)
        try:
{body}
        except BaseException as error:
            if not isinstance(error, SystemExit):
                import traceback; traceback.print_exc(); os._exit(1)
            raise
    status = os.waitpid(pid, 0)[1]
    assert status == 0, status
    assert numbers() == before, (numbers(), before)
    del pool._on_close, pool._on_check
    await finish(pool)
asyncio.run(main())
""",
        **({"MCPGATEWAY_POOL_METRICS_DIR": f"{tmp_path}/metrics"} if shared else {}),
        # What a child has of its parent's is left alone for ever, on purpose.
        ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0",
    )


@pytest.mark.parametrize("where", ["_on_close", "create_future", "_make_pool_key", "clock", "is_closed"])
def test_a_fork_from_within_an_operation_leaves_the_parent_unharmed(where: str):
    """The child goes on in the middle of an operation that its parent began."""
    assert_runs_quietly(
        UNDER_WAY
        + """
class Foreign:
    @property
    def is_closed(self):
        hook("is_closed")
        return False
armed, pids = "", []
def hook(name):
    global armed
    if name == armed:
        armed = ""
        pids.append(os.fork())
async def main():
    global armed
    where = sys.argv[1]
    class Clocked(PlainPool):
        def _on_close(self, *args):
            hook("_on_close")
            return super()._on_close(*args)
        def make_session(self, *args):
            return Foreign() if where == "is_closed" else super().make_session(*args)
    def clock():
        hook("clock")
        return 1000.0
    pool = Clocked(max_sessions_per_key=1, clock=clock)
    loop = asyncio.get_running_loop()
    if where == "create_future":
        make = loop.create_future
        loop.create_future = lambda: hook("create_future") or make()
    if where == "_make_pool_key":
        pool._make_pool_key = lambda *args: hook("_make_pool_key") or (args[0],)
    pooled = await pool.acquire(URL, gateway_id="g")
    waiter = asyncio.ensure_future(pool.acquire(URL, gateway_id="g"))
    await turns()
    before = _core.snapshot()[0]
    armed = where
    try:
        if where in ("_on_close", "is_closed"):
            result = _core.release(pool, pooled, 1 if where == "_on_close" else 0)
        else:
            result = _core.acquire(pool, URL + "/2", None, HTTP, None, "g")
    except RuntimeError:
        if pids != [0]: raise
    assert pids
    if pids == [0]:
        waiter.cancel()
        result = pooled = None
        gc.collect()
        os._exit(0)
    assert os.waitpid(pids[0], 0)[1] == 0
    if where not in ("_on_close", "is_closed"):
        assert isinstance(result, _core.Pending)
        pool._create_failed(result, False)
        await pool.release(pooled)
    await pool.release(await waiter)
    await turns()
    assert not any(pool.count(n) for n in ("waiters", "creating", "closing", "active")), pool._counts()
    await pool.close_all()
asyncio.run(main())
""",
        where,
        ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0",
    )
