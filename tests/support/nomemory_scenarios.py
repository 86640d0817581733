"""What is done to a pool while an allocation of it fails; each scenario then shows that nothing was lost.

A scenario is called with a fresh :class:`Fault` for each allocation, uses it once, and leaves no pool open.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

import mcpgateway_pool
from mcpgateway_pool import MCPSessionPool, PoolCollector, PooledSession, _core
from mcpgateway_pool._core import VERDICT_DISCARD, VERDICT_GOOD
from mcpgateway_pool.config import TransportType
from mcpgateway_pool.pool.waiting import time_out
from support.fakes import URL, FakeClock
from support.nomemory import Call, Fault, call, fire_timers, settle, start, stop, turn_under

HTTP = TransportType.STREAMABLE_HTTP
LIMIT = 2
HEADERS = {f"x-header-{number}": "v" * number for number in range(17)}
HEADERS |= {"Authorization": "Bearer " + "t" * 1500, "Cookie": "müsli=1", "x-user-id": "\udc80 lone"}

scenarios: dict[str, Callable[[Fault], None]] = {}


def scenario(function: Callable[[Fault], None]) -> Callable[[Fault], None]:
    scenarios[function.__name__] = function
    return function


class Pool(MCPSessionPool):
    """Opens sessions without a server, and keeps each connection that it opened in ``opened``."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"max_sessions_per_key": LIMIT, "session_ttl_jitter": 0.0, **settings})
        self.opened: list[SimpleNamespace] = []

    async def _create_session(self, url: str, headers: Any, transport_type: Any, *_: Any) -> Any:
        connection = SimpleNamespace(is_open=True)
        pooled = PooledSession(
            session=connection,
            transport_context=None,
            url=url,
            transport_type=transport_type,
            headers={},
            identity_key="",
        )
        self.opened.append(connection)
        return pooled

    async def _close_session(self, pooled: Any) -> None:
        pooled.session.is_open = False

    async def _run_health_check_chain(self, pooled: Any) -> bool:
        return True


def idle_pool(count: int = 1, **settings: Any) -> Pool:
    """A pool with idle sessions."""
    pool = Pool(**settings)
    for pooled in [call(pool.acquire(URL)) for _ in range(count)]:
        call(pool.release(pooled))
    return pool


def full_pool() -> tuple[Pool, list[Any]]:
    """A pool whose one key is full, and its sessions."""
    pool = Pool()
    return pool, [call(pool.acquire(URL)) for _ in range(LIMIT)]


def waiting(pool: Pool) -> Call[Any]:
    """A caller that waits in the queue."""
    caller = Call(pool.acquire(URL))
    caller.step()
    assert pool._counts()["waiters"] == 1
    return caller


def assert_whole(pool: Pool, **arguments: Any) -> None:
    """Every place can be used, the numbers add up, and closing the pool closes what it has opened."""
    gc.collect()  # coroutines that nobody drives any more
    settle()
    counts = pool._counts()
    assert not any(counts[name] for name in ("waiters", "creating", "checking", "closing", "active")), counts
    taken = [call(pool.acquire(URL, **arguments)) for _ in range(LIMIT)]
    assert len({id(pooled) for pooled in taken}) == LIMIT
    extra = Call(pool.acquire(URL, **arguments))
    extra.step()
    assert pool._counts()["waiters"] == 1
    extra.cancel()
    for pooled in taken:
        call(pool.release(pooled))
    totals, counts = pool._totals(), pool._counts()
    numbers = f"{totals} {counts}"
    assert totals["size"] == counts["idle"], numbers
    assert totals["creates"] == totals["size"] + sum(totals["evictions"].values()), numbers
    assert totals["misses"] <= totals["creates"], numbers
    assert totals["active_sessions"] == totals["waiters"] == 0, numbers
    assert totals["session_creations_in_progress"] == 0, numbers
    assert_closes(pool)


def assert_closes(pool: Pool) -> None:
    """Closing it leaves nothing open."""
    call(pool.close_all())
    settle()
    assert sum(count for name, count in pool._counts().items() if "_" not in name) == 0, pool._counts()
    left = [connection for connection in pool.opened if connection.is_open]
    assert not left, f"{len(left)} of {len(pool.opened)} sessions were never closed"


def finish_acquire(pool: Pool, caller: Call[Any], fault: Fault) -> None:
    """An acquire that was hit goes on where it still can, and its session goes back."""
    settle()
    if not fault.has_raised:
        pooled = caller.finish()
        call(pool.release(pooled))


def finish_creation(pool: Pool, caller: Call[Any], fault: Fault) -> None:
    """An acquire whose creation was hit gets its session, which goes back, or its error."""
    with contextlib.suppress(MemoryError, OSError):
        call(pool.release(caller.finish()))


# ---- acquire


@scenario
def acquire_hit(fault: Fault) -> None:
    pool = idle_pool()
    caller = Call(pool.acquire(URL))
    fault(caller.step)
    finish_acquire(pool, caller, fault)
    del caller
    assert_whole(pool)


@scenario
def acquire_with_20_headers(fault: Fault) -> None:
    pool = Pool()
    call(pool.release(call(pool.acquire(URL, HEADERS, user_identity="ü", gateway_id="g"))))
    for _ in range(2):  # the second one finds what the first one allocated
        pooled = fault(_core.acquire, pool, URL, HEADERS, HTTP, "ü", "g")
        if pooled is not None:
            call(pool.release(pooled))
    del pooled
    fault(pool._identity, HEADERS)
    fault(pool._make_pool_key, URL, HEADERS, HTTP, "ü", "g")
    fault(_core.session_header, HEADERS)
    assert_whole(pool, headers=HEADERS, user_identity="ü", gateway_id="g")


@scenario
def acquire_isolated_by_session(fault: Fault) -> None:
    pool = Pool(isolation="session")
    headers = {"X-MCP-Session-Id": "ü"}
    caller = Call(pool.acquire(URL, headers))
    fault(caller.step)
    finish_acquire(pool, caller, fault)
    del caller
    assert_whole(pool, headers=headers)


@scenario
def acquire_begins_a_creation(fault: Fault) -> None:
    pool = Pool()
    caller = Call(pool.acquire(URL, HEADERS, gateway_id="new"))
    fault(caller.step)
    finish_acquire(pool, caller, fault)
    del caller
    assert_whole(pool, headers=HEADERS, gateway_id="new")


@scenario
def creation_runs(fault: Fault) -> None:
    pool = Pool()
    caller = Call(pool.acquire(URL))
    caller.step()
    turn_under(fault)
    settle()
    finish_creation(pool, caller, fault)
    del caller
    assert_whole(pool)


@scenario
def created_session_is_taken(fault: Fault) -> None:
    pool = Pool()
    caller = Call(pool.acquire(URL))
    caller.step()
    settle()
    fault(caller.step)
    finish_acquire(pool, caller, fault)
    del caller
    assert_whole(pool)


@scenario
def creation_fails(fault: Fault) -> None:
    pool = Pool(circuit_breaker_threshold=1, circuit_breaker_reset_seconds=0.0, clock=(clock := FakeClock()))

    async def refuse(*_: Any) -> Any:
        raise OSError

    pool._create_session = refuse  # type: ignore[method-assign]
    caller = Call(pool.acquire(URL))
    caller.step()
    turn_under(fault)
    settle()
    finish_creation(pool, caller, fault)
    del caller, pool._create_session
    clock.advance(1.0)
    assert_whole(pool)


@scenario
def caller_of_a_creation_is_cancelled(fault: Fault) -> None:
    pool = Pool()
    caller = Call(pool.acquire(URL))
    caller.step()
    fault(caller.cancel)
    del caller
    assert_whole(pool)


# ---- waiting


@scenario
def acquire_waits(fault: Fault) -> None:
    pool, held = full_pool()
    caller = Call(pool.acquire(URL))
    fault(caller.step)
    call(pool.release(held.pop()))
    finish_acquire(pool, caller, fault)
    del caller
    call(pool.release(held.pop()))
    assert_whole(pool)


@scenario
def release_grants(fault: Fault) -> None:
    pool, held = full_pool()
    caller = waiting(pool)
    release = Call(pool.release(held[0]))
    fault(release.step)
    settle()
    if fault.has_raised and pool._counts()["active"] == LIMIT:
        call(pool.release(held[0]))  # it was not released
    if caller.future.done():
        call(pool.release(caller.finish()))
    else:  # its wake-up failed: its time-out tells it
        fire_timers()
        with contextlib.suppress(MemoryError):
            caller.finish()
            raise AssertionError("it got a session")
    call(pool.release(held[1]))
    held.clear()
    del caller, release
    assert_whole(pool)


@scenario
def granted_session_is_taken(fault: Fault) -> None:
    pool, held = full_pool()
    caller = waiting(pool)
    for pooled in held:
        call(pool.release(pooled))
    held.clear()
    del pooled
    fault(caller.step)
    finish_acquire(pool, caller, fault)
    del caller
    assert_whole(pool)


@scenario
def granted_place_is_taken(fault: Fault) -> None:
    pool, held = full_pool()
    caller = waiting(pool)
    for pooled in held:
        call(pool.release(pooled, discard=True))
    held.clear()
    del pooled
    fault(caller.step)
    finish_acquire(pool, caller, fault)
    del caller
    assert_whole(pool)


@scenario
def waiter_is_cancelled(fault: Fault) -> None:
    for is_granted in (False, True):
        pool, held = full_pool()
        caller = waiting(pool)
        if is_granted:
            call(pool.release(held.pop()))
        fault(caller.cancel)
        del caller
        for pooled in held:
            call(pool.release(pooled))
        held.clear()
        del pooled
        assert_whole(pool)


@scenario
def waiter_times_out(fault: Fault) -> None:
    pool, held = full_pool()
    caller = waiting(pool)
    pending = caller._coroutine.cr_await.cr_frame.f_locals["pending"]  # type: ignore[attr-defined]
    fault(time_out, pool, pending, SimpleNamespace(url=URL), 30.0)
    settle()
    if fault.has_raised and not caller.future.done():
        time_out(pool, pending, SimpleNamespace(url=URL), 30.0)  # type: ignore[arg-type]
    del pending
    try:
        caller.finish()
        raise AssertionError("it got a session")
    except (MemoryError, TimeoutError, RuntimeError):
        pass
    del caller
    for pooled in held:
        call(pool.release(pooled))
    held.clear()
    del pooled
    assert_whole(pool)


# ---- release


@scenario
def release_to_the_pool(fault: Fault) -> None:
    pool, held = full_pool()
    fault(Call(pool.release(held[0])).step)
    if fault.has_raised and pool._counts()["active"] == LIMIT:
        call(pool.release(held[0]))
    call(pool.release(held[1]))
    held.clear()
    assert_whole(pool)


@scenario
def release_discards(fault: Fault) -> None:
    pool, held = full_pool()
    caller = Call(pool.release(held[0], discard=True))
    fault(caller.step)
    settle()
    if not fault.has_raised:
        caller.finish()
    elif pool._counts()["active"] == LIMIT:
        call(pool.release(held[0]))
    call(pool.release(held[1]))
    held.clear()
    del caller
    assert_whole(pool)


@scenario
def session_block(fault: Fault) -> None:
    pool = idle_pool()

    async def use() -> None:
        async with pool.session(URL):
            pass

    fault(Call(use()).step)
    assert_whole(pool)


@scenario
def close_runs(fault: Fault) -> None:
    pool, held = full_pool()
    caller = Call(pool.release(held[0], discard=True))
    caller.step()
    turn_under(fault)
    settle()
    del caller
    call(pool.release(held[1]))
    held.clear()
    assert_whole(pool)


@scenario
def session_is_dropped(fault: Fault) -> None:
    pool, held = full_pool()
    call(pool.release(held.pop()))
    fault(held.clear)
    settle()
    pool._upkeep()  # where there was no memory to tell the loop
    assert_whole(pool)


@scenario
def dropped_session_is_reclaimed(fault: Fault) -> None:
    pool, held = full_pool()
    held.clear()
    turn_under(fault)
    settle()
    assert_whole(pool)


@scenario
def foreign_session(fault: Fault) -> None:
    pool = Pool()

    async def create(*_: Any) -> Any:
        connection = SimpleNamespace(is_open=True, url=URL, is_closed=False)
        connection.session = connection
        pool.opened.append(connection)
        return connection

    pool._create_session = create  # type: ignore[method-assign]
    caller = Call(pool.acquire(URL))
    caller.step()
    turn_under(fault)
    settle()
    with contextlib.suppress(MemoryError):
        pooled = caller.finish()
        fault(Call(pool.release(pooled)).step)
        if pool._counts()["active"]:
            call(pool.release(pooled))
    pooled = call(pool.acquire(URL))
    caller = Call(pool.release(pooled, discard=True))
    fault(caller.step)
    settle()
    if pool._counts()["active"]:
        call(pool.release(pooled, discard=True))
    del caller, pooled
    for connection in pool.opened:
        del connection.session
        connection.session = SimpleNamespace()
    del pool._create_session
    pool.opened.clear()
    assert_whole(pool)


# ---- upkeep, drain, close


@scenario
def idle_sessions_expire(fault: Fault) -> None:
    pool = idle_pool(LIMIT, clock=(clock := FakeClock()))
    clock.advance(10_000.0)
    fault(pool._upkeep)
    settle()
    while pool._upkeep():
        settle()
    assert_whole(pool)


@scenario
def idle_sessions_are_checked(fault: Fault) -> None:
    pool = idle_pool(clock=(clock := FakeClock()))
    clock.advance(61.0)
    caller = Call(pool.acquire(URL))
    fault(caller.step)
    settle()
    if caller.future is not None and not fault.has_raised:
        call(pool.release(caller.finish()))
    del caller
    clock.advance(61.0)
    caller = Call(pool.acquire(URL))
    caller.step()
    turn_under(fault)
    settle()
    call(pool.release(caller.finish()))
    assert_whole(pool)


@scenario
def pool_is_drained(fault: Fault) -> None:
    pool = idle_pool(LIMIT)
    fault(Call(pool.drain_all()).step)
    settle()
    call(pool.drain_all())
    assert pool._counts()["idle"] == 0
    assert_whole(pool)


@scenario
def pool_is_closed(fault: Fault) -> None:
    pool, held = full_pool()
    caller = waiting(pool)
    creating = Call(pool.acquire(URL + "/creating"))
    creating.step()
    call(pool.release(call(pool.acquire(URL + "/idle"))))
    fault(Call(pool.close_all()).step)
    settle()
    held.clear()
    del caller, creating
    assert_closes(pool)


# ---- reading


@scenario
def views(fault: Fault) -> None:
    pool, held = full_pool()
    for read in (
        pool.get_metrics,
        lambda: dict(pool._pools),
        lambda: dict(pool._active),
        lambda: repr(held[0]),
        lambda: (held[0].created_at, held[0].age_seconds, held[0].is_closed),
        lambda: setattr(held[0], "created_at", held[0].created_at - 1.0),
    ):
        fault(read)
    for pooled in held:
        call(pool.release(pooled))
    held.clear()
    del pooled
    assert_whole(pool)


@scenario
def snapshots(fault: Fault) -> None:
    pool = idle_pool()
    for read in (_core.snapshot, _core.buckets, _core.take_problems):
        before = read()
        fault(read)
        assert read() == before
    fault(_core.fold, ("label",))
    # Not forget_gateway(), for the reason below.
    assert_whole(pool)


@scenario
def own_exposition(fault: Fault) -> None:
    pool = idle_pool()
    registry = CollectorRegistry()
    registry.register(PoolCollector())
    fault(_core.text, b"", b"", True, None, {})
    fault(_core.text, b"", b"", False, ("mcp_session_pool_hits_total",), {})
    fault(_core.text, b"", b"", True, None, dict.fromkeys(_core.row_labels(), "a name"))
    fault(_core.row_labels)
    assert b"mcp_session_pool_misses_total" in mcpgateway_pool.generate_latest(registry)
    assert_closes(pool)


@scenario
def collector(fault: Fault) -> None:
    # Not through a registry: `with lock:` of CPython leaves its lock held where memory fails.
    pool = idle_pool()
    fault(list, PoolCollector().collect())
    registry = CollectorRegistry()
    registry.register(PoolCollector())
    assert b"mcp_session_pool_misses_total" in generate_latest(registry)
    assert_closes(pool)


# ---- sharing


@scenario
def sharing(fault: Fault) -> None:
    pool = Pool()
    fault(pool._share, 2, True)
    pool._share(2, True)

    async def create(*_: Any) -> Any:
        return SimpleNamespace(url=URL, is_closed=False, session=SimpleNamespace())

    pool._create_session = create  # type: ignore[method-assign]
    pooled = call(pool.acquire(URL, user_identity="ü", gateway_id="g"))
    fault(pool._lease_ticket, pooled)
    ticket = pool._lease_ticket(pooled)
    fault(pool._release_lease, ticket, VERDICT_GOOD)
    if pool._counts()["active"]:
        pool._release_lease(ticket, VERDICT_DISCARD)
    fault(_core.acquire, pool, URL, None, HTTP, "ü", "g")
    second = pool._lease_ticket(pooled)
    if second is not None:
        pool._release_lease(second, VERDICT_GOOD)
    fault(pool._retire, pooled)
    fault(pool._evict_group, 0, "ü")
    pool._evict_group(0, "ü")
    settle()
    assert pool._counts()["active"] == 0
    assert_closes(pool)


# ---- beginnings


@scenario
def pool_is_made(fault: Fault) -> None:
    made = fault(Pool)
    del made
    pool = idle_pool()

    def make_again() -> None:
        with contextlib.suppress(RuntimeError):
            pool.__init__()  # type: ignore[misc]

    fault(make_again)
    assert_whole(pool)


@scenario
def module_is_loaded(fault: Fault) -> None:
    spec = importlib.util.find_spec("mcpgateway_pool._core")
    assert spec is not None

    def load() -> Any:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)  # type: ignore[union-attr]
        return module

    module = fault(load)
    assert module is None or module is not _core
    assert_whole(idle_pool())


class _Reached(Fault):
    """Remembers over several calls."""

    has_ever_been_reached = False

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return super().__call__(function, *arguments)
        finally:
            self.has_ever_been_reached |= self.was_reached


def run(name: str, is_short: bool) -> None:
    """One scenario, for each of its allocations; prints how many failed.

    Args:
        name: of the scenario.
        is_short: of a long one, leave out most allocations after the first 100.
    """
    start()
    number = failed = 0
    while True:
        fault = _Reached(number)
        try:
            scenarios[name](fault)
        except BaseException as error:
            error.add_note(f"allocation {number} of {name}")
            raise
        if not fault.has_ever_been_reached:
            break
        failed += 1
        number += 1 if number < 100 or not is_short else 1 + number // 20
    stop()
    print(failed)
