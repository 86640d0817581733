"""Evictions of the registry: bounded, of exactly what they name, and in nobody's way."""

from __future__ import annotations

import asyncio
import gc

import pytest

from support.fake_upstreams import FakeUpstream
from support.fakes import turns
from support.registry_calls import Call, Make, evictions, use


async def test_evictions_close_exactly_what_they_name(make: Make, upstream: FakeUpstream) -> None:
    registry = make()
    for downstream in ("d1", "d2", "d3"):
        for gateway in ("g1", "g2"):
            await use(registry, downstream, gateway)
    assert await registry.evict_session("d1") == 2
    assert set(registry._sessions) == {("d2", "g1"), ("d2", "g2"), ("d3", "g1"), ("d3", "g2")}
    assert await registry.evict_gateway("g2") == 2
    assert set(registry._sessions) == {("d2", "g1"), ("d3", "g1")}
    assert len(upstream.open_now) == 2
    assert await registry.evict_session("d1") == 0
    assert await registry.evict_gateway("nobody") == 0
    assert evictions(registry) == {"manual": 4}
    assert registry.snapshot().evictions == 4


async def test_evicted_session_in_use_ends_with_its_call(make: Make, upstream: FakeUpstream) -> None:
    registry = make()
    call = Call(registry)
    await call.begun.wait()
    assert await registry.evict_session("d1") == 1
    assert len(upstream.open_now) == 1
    await call.end()
    assert upstream.open_now == []


async def test_calls_after_an_eviction_and_those_that_wait_need_not_wait_for_the_old_session(
    make: Make, upstream: FakeUpstream
) -> None:
    registry = make()
    old, waiting = Call(registry), Call(registry)
    await old.begun.wait()
    await turns()
    assert not waiting.begun.is_set()
    assert await registry.evict_gateway("g1") == 1
    await waiting.begun.wait()
    assert waiting.session is not old.session
    later = Call(registry)  # one session for each key still: it waits for the new one
    await turns()
    assert not later.begun.is_set()
    await waiting.end()
    await later.begun.wait()
    assert later.session is waiting.session
    for call in (later, old):
        await call.end()
    assert upstream.open_now == [waiting.session.session]


async def test_session_that_does_not_end_keeps_nobody_waiting_once_it_is_evicted(
    make: Make, upstream: FakeUpstream
) -> None:
    registry = make(shutdown_timeout_seconds=600)
    upstream.ignores_shutdown = True
    first = await use(registry)
    eviction = asyncio.create_task(registry.evict_session("d1"))
    await turns()
    second = Call(registry)
    await second.begun.wait()
    assert not eviction.done()
    told = first.is_closed, second.session.is_closed
    await second.end()
    for session in (first, second.session):
        session.session.owner.cancel()
    assert await eviction == 1
    assert told == (True, False)  # whoever still had the old one could know


@pytest.mark.parametrize("is_open", [True, False], ids=["open", "being opened"])
async def test_calls_in_flight_on_an_evicted_session_have_a_bounded_time(
    make: Make, upstream: FakeUpstream, is_open: bool
) -> None:
    registry = make(shutdown_timeout_seconds=0.05)
    upstream.holds = not is_open
    call = Call(registry)
    await (call.begun.wait() if is_open else turns())
    assert await registry.evict_session("d1") == is_open
    upstream.gate.set()
    await call.begun.wait()
    await asyncio.wait_for(asyncio.shield(call.session.session.owner), 20)
    assert call.session.is_closed
    await call.end()
    assert registry.snapshot().active_sessions == 0


async def test_session_being_opened_while_it_is_evicted_serves_its_caller_only(
    make: Make, upstream: FakeUpstream
) -> None:
    registry = make()
    upstream.holds = True
    call = Call(registry)
    await turns()
    await registry.evict_session("d1")
    upstream.gate.set()
    await call.begun.wait()
    await call.end()
    assert upstream.open_now == []


async def test_thousand_downstream_sessions_opened_and_evicted_leave_nothing(
    make: Make, upstream: FakeUpstream
) -> None:
    registry = make()
    for number in range(1000):
        await use(registry, f"one of many {number}")
    for number in range(1000):
        assert await registry.evict_session(f"one of many {number}") == 1
    assert upstream.open_now == []
    counts = registry._pool._counts()
    assert counts["keys"] == counts["endpoints"] == 0
    assert not registry._sessions
    assert not registry._pool._open
    assert not registry._pool._tasks
    gc.collect()
    found = [thing for thing in gc.get_objects() if type(thing).__name__ == "UpstreamSession"]
    assert not [session for session in found if session.downstream_session_id.startswith("one of many")]
