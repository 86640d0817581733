"""What comes back, what does not, and what comes back that should not."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest

import mcpgateway_pool
from mcpgateway_pool import (
    AcquireTimeoutError,
    CircuitOpenError,
    MCPSessionPool,
    PoolClosedError,
    PooledSession,
    PoolError,
    PoolExhaustedError,
    SessionCreateError,
    SessionCreateTimeoutError,
    TransportType,
    tasks,
    verdict,
)
from mcpgateway_pool.pool import liveness
from support.fakes import (
    URL,
    FakeClock,
    FakePool,
    PlainPool,
    assert_adds_up,
    assert_all_places_usable,
    assert_at_rest,
    turns,
    until,
    until_timer,
    upkeep,
)


def by_hand(url: str = URL, **fields: Any) -> PooledSession:
    return PooledSession(
        session=object(),
        transport_context=None,
        url=url,
        transport_type=TransportType.STREAMABLE_HTTP,
        headers={},
        identity_key="",
        **fields,
    )


# ---- the ordinary ways


async def test_released_session_is_the_same_object_at_its_next_checkout():
    pool = FakePool()
    pooled = await pool.acquire(URL)
    await pool.release(pooled)
    assert await pool.acquire(URL) is pooled
    assert pooled.use_count == 1
    await pool.release(pooled)
    assert (pool.count("hits"), pool.count("misses")) == (1, 1)
    assert_at_rest(pool)


async def test_hit_and_release_do_not_suspend():
    pool = PlainPool()
    await pool.release(await pool.acquire(URL))
    acquiring = pool.acquire(URL)
    with pytest.raises(StopIteration) as answer:
        acquiring.send(None)
    releasing = pool.release(answer.value.value)
    with pytest.raises(StopIteration):
        releasing.send(None)
    assert_at_rest(pool)


async def test_most_recently_used_session_is_handed_out_first():
    pool = FakePool()
    first, second = await pool.acquire(URL), await pool.acquire(URL)
    await pool.release(first)
    await pool.release(second)
    assert await pool.acquire(URL) is second
    assert await pool.acquire(URL) is first
    await pool.release(second)
    await pool.release(first)
    assert await pool.acquire(URL) is first
    await pool.release(first)
    assert_at_rest(pool)


async def test_discarded_session_is_closed_as_manual():
    pool = FakePool(max_sessions_per_key=1)
    pooled = await pool.acquire(URL)
    await pool.release(pooled, discard=True)
    assert pool.closed_sessions == [pooled]
    assert pool.evictions == {"manual": 1}
    await turns()
    await assert_all_places_usable(pool)


@pytest.mark.parametrize("how", ["mark_closed", "_closed", "owner_task"])
async def test_session_that_died_in_use_is_closed_as_broken(how: str):
    pool = FakePool(max_sessions_per_key=1)
    ending: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def own() -> None:
        await ending

    pool.make_session = lambda url, headers, transport: by_hand(  # type: ignore[method-assign]
        _owner_task=asyncio.ensure_future(own())
    )
    pooled = await pool.acquire(URL)
    if how == "mark_closed":
        pooled.mark_closed()
    elif how == "_closed":
        pooled._closed = True
    else:
        ending.set_result(None)
        await until(lambda: pooled.is_closed)
        await turns()
    assert pool.count("active") == 1
    await pool.release(pooled)
    assert pool.evictions == {"broken": 1}
    assert pool.closed_sessions == [pooled]
    if not ending.done():
        ending.set_result(None)
    await turns()
    assert_at_rest(pool)


async def test_session_that_is_said_to_be_open_is_kept():
    pool = FakePool()
    pooled = await pool.acquire(URL)
    pooled._closed = False
    assert not pooled.is_closed
    await pool.release(pooled)
    assert await pool.acquire(URL) is pooled
    await pool.release(pooled)
    assert pool.closed_sessions == []


async def test_idle_session_whose_owner_ends_is_closed_with_no_traffic():
    pool = FakePool()
    ending: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def own() -> None:
        await ending

    pool.make_session = lambda url, headers, transport: by_hand(  # type: ignore[method-assign]
        _owner_task=asyncio.ensure_future(own())
    )
    await pool.release(await pool.acquire(URL))
    ending.set_result(None)
    await until(lambda: pool.closed_sessions)
    await turns()
    assert pool.evictions == {"broken": 1}
    assert_at_rest(pool)


async def test_session_past_its_lifetime_is_closed_when_it_comes_back():
    clock = FakeClock()
    pool = FakePool(session_ttl_seconds=100, clock=clock)
    pooled = await pool.acquire(URL)
    clock.advance(101)
    await pool.release(pooled)
    assert pool.evictions == {"ttl_expired": 1}
    await turns()
    assert_at_rest(pool)


async def test_session_made_older_by_its_attribute_is_closed_when_it_comes_back():
    pool = FakePool(session_ttl_seconds=100)
    pooled = await pool.acquire(URL)
    pooled.created_at -= 101
    assert 101 <= pooled.age_seconds < 102
    await pool.release(pooled)
    assert pool.evictions == {"ttl_expired": 1}
    await turns()
    assert_at_rest(pool)


@pytest.mark.parametrize("ignores_cancellation", [False, True])
async def test_close_that_hangs_gives_its_place_away_when_its_bound_has_passed(
    monkeypatch: pytest.MonkeyPatch, ignores_cancellation: bool
):
    monkeypatch.setattr(tasks, "CANCEL_GRACE_SECONDS", 0.01)
    clock = FakeClock()
    pool = FakePool(max_sessions_per_key=1, cleanup_timeout_seconds=0.02, clock=clock)
    pool.holds_closes = True
    pool.ignores_cancellation = ignores_cancellation
    pooled = await pool.acquire(URL)
    await pool.release(pooled, discard=True)
    assert pool.count("closing") == 1
    gate = pool.closes[0]
    clock.advance(1)
    await until_timer(lambda: pool.count("closing") == 0)
    await until_timer(lambda: gate.cancellations == 1)
    if ignores_cancellation:
        gate.open()
    await turns()
    pool.holds_closes = False
    pool.most_open.clear()
    await assert_all_places_usable(pool)


async def test_close_that_hangs_on_an_object_without_a_url_gives_its_place_away(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(tasks, "CANCEL_GRACE_SECONDS", 0.01)
    clock = FakeClock()
    pool = FakePool(max_sessions_per_key=1, cleanup_timeout_seconds=0.02, clock=clock)
    pool.make_session = lambda *_: SimpleNamespace()  # type: ignore[method-assign]
    pool.holds_closes = True
    await pool.release(await pool.acquire(URL), discard=True)
    clock.advance(1)
    await until_timer(lambda: pool.count("closing") == 0)
    await turns()
    pool.holds_closes = False
    await assert_all_places_usable(pool)


# ---- what should not come back


async def test_second_release_is_ignored_and_logged(caplog: pytest.LogCaptureFixture):
    pool = FakePool(max_sessions_per_key=1)
    pooled = await pool.acquire(URL)
    await pool.release(pooled)
    await pool.release(pooled)
    await pool.release(pooled, discard=True)
    assert pool.closed_sessions == []
    assert "not checked out" in caplog.text
    await assert_all_places_usable(pool)


async def test_release_after_a_discard_is_ignored():
    pool = FakePool(max_sessions_per_key=1)
    pooled = await pool.acquire(URL)
    await pool.release(pooled, discard=True)
    await turns()
    await pool.release(pooled)
    assert pool.closed_sessions == [pooled]
    await assert_all_places_usable(pool)


async def test_release_of_a_waiting_session_by_its_former_holder_is_ignored():
    # Granted to a waiter that did not run yet: it is checked out, but not by this caller.
    pool = FakePool(max_sessions_per_key=1)
    pooled = await pool.acquire(URL)
    waiter = asyncio.ensure_future(pool.acquire(URL))
    await until(lambda: pool.count("waiters") == 1)
    await pool.release(pooled)
    await pool.release(pooled)
    assert await waiter is pooled
    assert pool.count("active") == 1
    await pool.release(pooled)
    await assert_all_places_usable(pool)


async def test_session_released_to_another_pool_is_closed_by_its_own():
    own, other = FakePool(max_sessions_per_key=1), FakePool(max_sessions_per_key=1)
    pooled = await own.acquire(URL)
    await other.release(pooled)
    assert own.closed_sessions == [pooled]
    assert other.closed_sessions == []
    assert own.evictions == {"manual": 1}
    await turns()
    await assert_all_places_usable(own)
    await assert_all_places_usable(other)


async def test_idle_session_released_to_another_pool_stays_where_it_is():
    own, other = FakePool(), FakePool()
    pooled = await own.acquire(URL)
    await own.release(pooled)
    await other.release(pooled)
    assert await own.acquire(URL) is pooled
    await own.release(pooled)
    assert_at_rest(own)
    assert_at_rest(other)


async def test_session_that_no_pool_gave_out_is_closed_not_pooled():
    pool = FakePool()
    pooled = by_hand()
    pool._count_open(URL, 1)
    await pool.release(pooled)
    assert pool.closed_sessions == [pooled]
    await pool.release(MagicMock(url=URL, is_closed=True))
    assert pool.closed_sessions == [pooled]
    assert pool.evictions == {}
    await turns()
    assert_at_rest(pool)


@pytest.mark.parametrize("rubbish", [None, 7, "text", object(), PooledSession])
async def test_release_of_rubbish_harms_nothing(rubbish: Any):
    pool = MCPSessionPool()
    await pool.release(rubbish)
    assert pool._counts()["active"] == 0
    await pool.close_all()


async def test_session_released_after_close_all_was_closed_once():
    pool = FakePool()
    pooled = await pool.acquire(URL)
    await pool.close_all()
    await pool.release(pooled)
    assert pool.closed_sessions == [pooled]
    assert pool.evictions == {"manual": 1}
    assert_at_rest(pool)


# ---- foreign objects


async def test_duck_typed_session_is_pooled_and_gets_its_identity_written():
    pool = FakePool(max_sessions_per_key=1)
    foreign = MagicMock(url=URL)
    pool.make_session = lambda *_: foreign  # type: ignore[method-assign]
    got = await pool.acquire(URL, {"Authorization": "t"}, user_identity="ann", gateway_id="g")
    assert got is foreign
    assert (foreign.user_identity, foreign.gateway_id) == ("ann", "g")
    assert len(foreign.identity_key) == 64
    await pool.release(foreign)
    again = await pool.acquire(URL, {"authorization": "t"}, user_identity="ann", gateway_id="g")
    assert again is foreign
    await pool.release(foreign)
    await pool.release(foreign)
    assert (pool.count("hits"), pool.count("misses")) == (1, 1)
    assert_at_rest(pool)


class Slotted:
    """Without attributes, and not weakly referable."""

    __slots__ = ()


class Hostile:
    @property
    def is_closed(self) -> bool:
        raise ValueError

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __setattr__(self, name: str, value: object) -> None:
        raise RuntimeError(name)

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    __hash__ = None  # type: ignore[assignment]


class OwnClose(FakePool):
    """Closes whatever it is given without looking at it."""

    async def _close_session(self, pooled: Any) -> None:
        self.closed_sessions.append(pooled)
        self._count_open(URL, -1)


@pytest.mark.parametrize("made", [None, 0, (), "text", Slotted(), SimpleNamespace(), 10**30])
async def test_creation_may_return_any_object(made: Any):
    pool = OwnClose(max_sessions_per_key=2)
    pool.make_session = lambda *_: made  # type: ignore[method-assign]
    first, second = await pool.acquire(URL), await pool.acquire(URL)
    assert first is made
    assert second is made
    await pool.release(first)
    assert pool.count("active") == 1
    await pool.release(second)
    assert pool.count("active") == 0
    await pool.release(second)
    await turns()
    assert_at_rest(pool)
    await pool.close_all()
    assert len(pool.closed_sessions) == 2
    assert_at_rest(pool)


async def test_hostile_object_is_closed_when_it_comes_back():
    pool = OwnClose(max_sessions_per_key=1)
    pool.make_session = lambda *_: Hostile()  # type: ignore[method-assign]
    made = await pool.acquire(URL)
    await pool.release(made)
    await turns()
    assert pool.evictions == {"broken": 1}
    assert_at_rest(pool)
    await pool.close_all()


async def test_same_object_returned_for_two_creations_is_two_sessions():
    pool = FakePool(max_sessions_per_key=2)
    foreign = MagicMock(url=URL)
    pool.make_session = lambda *_: foreign  # type: ignore[method-assign]
    assert await pool.acquire(URL) is await pool.acquire(URL)
    assert pool.count("active") == 2
    await pool.release(foreign)
    await pool.release(foreign)
    await pool.release(foreign)
    assert (pool.count("active"), pool.count("idle")) == (0, 2)
    assert_at_rest(pool)
    await pool.close_all()
    assert pool.closed_sessions == [foreign, foreign]
    assert_at_rest(pool)


async def test_same_pooled_session_returned_for_two_creations_is_two_sessions():
    pool = FakePool(max_sessions_per_key=2)
    once = by_hand()
    pool.make_session = lambda *_: once  # type: ignore[method-assign]
    assert await pool.acquire(URL) is await pool.acquire(URL)
    await pool.release(once)
    await pool.release(once, discard=True)
    await turns()
    assert (pool.count("active"), pool.count("idle")) == (0, 1)
    assert_adds_up(pool)
    await pool.close_all()
    assert_adds_up(pool)
    assert pool.count("size") == 0


async def test_new_session_is_not_refused_for_a_truthy_is_closed():
    pool = FakePool()
    foreign = MagicMock(url=URL)  # is_closed is a MagicMock, which is true
    pool.make_session = lambda *_: foreign  # type: ignore[method-assign]
    assert await pool.acquire(URL) is foreign
    await pool.release(foreign)
    assert pool.count("idle") == 1
    assert_at_rest(pool)


async def test_foreign_session_that_says_it_is_closed_is_not_pooled():
    pool = FakePool()
    foreign = MagicMock(url=URL, is_closed=True)
    pool.make_session = lambda *_: foreign  # type: ignore[method-assign]
    await pool.acquire(URL)
    await pool.release(foreign)
    assert pool.evictions == {"broken": 1}
    await turns()
    assert_at_rest(pool)


async def test_foreign_session_is_held_and_not_reclaimed():
    pool = FakePool()
    pool.make_session = lambda *_: MagicMock(url=URL)  # type: ignore[method-assign]
    await pool.acquire(URL)
    gc.collect()
    await turns()
    assert pool.count("active") == 1
    assert pool.evictions == {}
    await pool.close_all()
    assert_at_rest(pool)


# ---- the session block

both_ways = pytest.mark.parametrize("pool_class", [FakePool, PlainPool])


@both_ways
@pytest.mark.parametrize(
    "make_error",
    [
        lambda: ValueError("mine"),
        ConnectionError,
        lambda: KeyError(1),
        lambda: BaseExceptionGroup("g", [OSError()]),
    ],
    ids=["ValueError", "ConnectionError", "KeyError", "BaseExceptionGroup"],
)
async def test_block_that_raises_keeps_its_session_and_passes_the_exception(
    pool_class: type[FakePool], make_error: Callable[[], BaseException]
):
    pool = pool_class(max_sessions_per_key=1)
    error = make_error()  # here: its traceback holds the pool, and parameters live as long as the session
    with pytest.raises(type(error)) as caught:
        async with pool.session(URL):
            raise error
    assert caught.value is error
    assert pool.evictions == {}
    assert pool.checked == []
    pooled = await pool.acquire(URL)
    assert pool.checked == [pooled]  # nobody watches it, so it is asked whether it is well
    await pool.release(pooled)
    await assert_all_places_usable(pool)


@both_ways
async def test_block_that_raises_over_a_lost_session_closes_it(pool_class: type[FakePool]):
    pool = pool_class(max_sessions_per_key=1)
    with pytest.raises(ValueError, match="mine"):  # noqa: PT012
        async with pool.session(URL) as pooled:
            liveness.apply(pool, pooled, verdict.LOST)
            raise ValueError("mine")
    assert pool.evictions == {"broken": 1}
    await turns()
    await assert_all_places_usable(pool)


@both_ways
async def test_what_stood_in_the_context_of_an_exception_says_nothing(pool_class: type[FakePool]):
    pool = pool_class(max_sessions_per_key=1)
    with pytest.raises(KeyError):  # noqa: PT012
        async with pool.session(URL):
            try:
                raise ConnectionResetError
            except OSError:
                raise KeyError("mine")  # noqa: B904
    assert pool.evictions == {}
    await assert_all_places_usable(pool)


@both_ways
async def test_block_that_ends_well_releases_to_the_pool(pool_class: type[FakePool]):
    pool = pool_class(max_sessions_per_key=1)
    async with pool.session(URL) as pooled:
        assert pool.count("active") == 1
    async with pool.session(URL) as again:
        assert again is pooled
    assert pool.evictions == {}
    await assert_all_places_usable(pool)


@both_ways
async def test_blocks_that_share_one_object_release_one_checkout_each(pool_class: type[FakePool]):
    pool = pool_class(max_sessions_per_key=2)
    foreign = MagicMock(url=URL)
    pool.make_session = lambda *_: foreign  # type: ignore[method-assign]
    async with pool.session(URL):
        async with pool.session(URL):
            assert pool.count("active") == 2
        assert pool.count("active") == 1
    assert (pool.count("active"), pool.count("idle")) == (0, 2)
    first, second = pool.session(URL), pool.session(URL)
    await first.__aenter__()
    await second.__aenter__()
    await first.__aexit__(None, None, None)
    await second.__aexit__(None, None, None)
    assert (pool.count("active"), pool.count("idle")) == (0, 2)
    assert_at_rest(pool)


@both_ways
async def test_block_whose_acquire_was_overridden_to_give_a_foreign_object_releases_it(
    pool_class: type[FakePool],
):
    pool = pool_class()
    pool.acquire = AsyncMock(return_value="made elsewhere")  # type: ignore[method-assign]
    pool.release = AsyncMock()  # type: ignore[method-assign]
    async with pool.session(URL) as made:
        assert made == "made elsewhere"
    pool.release.assert_awaited_once_with("made elsewhere", discard=False)


class CountsReleases(PlainPool):
    """Its release() is a subclass's own, and its acquire() gives what ``given`` is, if anything."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.released: list[tuple[Any, bool]] = []
        self.given: Any = None

    async def acquire(self, *args: Any, **kwargs: Any) -> Any:
        return self.given or await super().acquire(*args, **kwargs)

    async def release(self, pooled: Any, *, discard: bool = False) -> None:
        self.released.append((pooled, discard))
        await super().release(pooled, discard=discard)


@pytest.mark.parametrize("discard", [False, True])
async def test_block_does_not_release_again_what_was_released_inside_it(discard: bool):
    pool = CountsReleases()
    async with pool.session(URL) as pooled:
        await pool.release(pooled, discard=discard)
        await turns()
    assert pool.released == [(pooled, discard)]
    assert pool.closed_sessions == ([pooled] if discard else [])
    await turns()
    assert_at_rest(pool)


@pytest.mark.parametrize("is_taken", [False, True])
async def test_block_whose_acquire_was_overridden_to_give_an_idle_session_takes_it_from_nobody(
    is_taken: bool,
):
    pool = CountsReleases(max_sessions_per_key=1)
    idle = await pool.acquire(URL)
    await pool.release(idle)
    pool.released.clear()
    pool.given = idle
    async with pool.session(URL):
        pool.given = None
        if is_taken:
            assert await pool.acquire(URL) is idle
    assert pool.released == ([] if is_taken else [(idle, False)])
    assert pool.count("active") == is_taken
    if is_taken:
        await pool.release(idle)
    await turns()
    assert_at_rest(pool)


@both_ways
async def test_session_releases_only_its_own_checkout(pool_class: type[FakePool]):
    pool = pool_class(max_sessions_per_key=1)
    async with pool.session(URL) as pooled:
        await pool.release(pooled)
        assert await pool.acquire(URL) is pooled
    assert pool.count("active") == 1
    await pool.release(pooled)
    await assert_all_places_usable(pool)


@both_ways
async def test_session_whose_checkout_ended_inside_leaves_the_new_holder_alone_even_when_its_block_raises(
    pool_class: type[FakePool],
):
    pool = pool_class(max_sessions_per_key=1)
    with pytest.raises(ConnectionError):  # noqa: PT012
        async with pool.session(URL) as pooled:
            await pool.release(pooled)
            assert await pool.acquire(URL) is pooled
            raise ConnectionError
    assert pool.count("active") == 1
    assert pool.evictions == {}
    assert not pooled.is_closed
    await pool.release(pooled)
    await assert_all_places_usable(pool)


@both_ways
async def test_lost_session_makes_the_other_idle_sessions_of_its_url_suspects(pool_class: type[FakePool]):
    pool = pool_class()
    others = [await pool.acquire(URL) for _ in range(2)]
    elsewhere = await pool.acquire(URL + "/other")
    with pytest.raises(ConnectionError):  # noqa: PT012
        async with pool.session(URL) as lost:
            for pooled in [*others, elsewhere]:
                await pool.release(pooled)
            liveness.apply(pool, lost, verdict.LOST)
            raise ConnectionError
    assert pool.checked == []
    assert await pool.acquire(URL + "/other") is elsewhere
    assert pool.checked == []
    got = await pool.acquire(URL)
    assert pool.checked == [got]
    await pool.release(got)
    assert await pool.acquire(URL) is got
    assert pool.checked == [got]
    assert pool.evictions == {"broken": 1}
    await pool.release(got)
    await pool.release(elsewhere)
    await turns()
    assert_at_rest(pool)


@both_ways
async def test_tool_error_makes_no_session_suspect(pool_class: type[FakePool]):
    pool = pool_class()
    other = await pool.acquire(URL)
    with pytest.raises(ValueError, match="tool"):
        async with pool.session(URL):
            raise ValueError("tool")
    await pool.release(other)
    assert await pool.acquire(URL) is other
    assert pool.checked == []
    await pool.release(other)
    await turns()
    assert_at_rest(pool)


@pytest.mark.parametrize("where", ["subclass", "class", "instance"])
async def test_session_calls_an_overridden_acquire_and_release(where: str, monkeypatch: pytest.MonkeyPatch):
    calls: list[Any] = []

    async def acquire(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(("acquire", args[0]))
        return await original_acquire(self, *args, **kwargs)

    async def release(self: Any, pooled: Any, *, discard: bool = False) -> None:
        calls.append(("release", discard))
        await original_release(self, pooled, discard=discard)

    original_acquire, original_release = MCPSessionPool.acquire, MCPSessionPool.release
    if where == "subclass":
        pool: FakePool = type("Own", (PlainPool,), {"acquire": acquire, "release": release})()
    else:
        pool = PlainPool()
        async with pool.session(URL):
            pass
        assert calls == []
        if where == "class":
            monkeypatch.setattr(PlainPool, "acquire", acquire)
            monkeypatch.setattr(MCPSessionPool, "release", release)
        else:
            pool.acquire = acquire.__get__(pool)  # type: ignore[method-assign]
            pool.release = release.__get__(pool)  # type: ignore[method-assign]
    async with pool.session(URL):
        pass
    with pytest.raises(ValueError, match="mine"):
        async with pool.session(URL):
            raise ValueError("mine")
    assert calls == [("acquire", URL), ("release", False), ("acquire", URL), ("release", False)]
    await turns()
    assert_at_rest(pool)


# ---- leaks


async def test_dropped_session_is_reclaimed(caplog: pytest.LogCaptureFixture):
    pool = FakePool(max_sessions_per_key=1)
    pooled = await pool.acquire(URL, user_identity="ann@example.com", gateway_id="weather")
    session = pooled.session
    del pooled
    await until(lambda: pool.closed_sessions)
    await turns()
    assert pool.evictions == {"leaked": 1}
    assert pool.closed_sessions[0].session is session
    assert f"a session of gateway weather to {URL} was dropped without a release" in caplog.text
    assert "ann@" not in caplog.text
    await assert_all_places_usable(pool)


async def test_place_of_a_dropped_session_goes_to_the_waiter():
    pool = FakePool(max_sessions_per_key=1)
    pooled = await pool.acquire(URL)
    waiter = asyncio.ensure_future(pool.acquire(URL))
    await until(lambda: pool.count("waiters") == 1)
    del pooled
    await pool.release(await waiter)
    assert pool.evictions == {"leaked": 1}
    await turns()
    await assert_all_places_usable(pool)


async def test_session_dropped_in_a_reference_cycle_is_reclaimed():
    pool = FakePool(max_sessions_per_key=1)
    pooled = await pool.acquire(URL)
    pooled.me = [pooled]  # type: ignore[attr-defined]
    del pooled
    await turns()
    assert pool.count("active") == 1
    gc.collect()
    await until(lambda: pool.closed_sessions)
    await turns()
    assert pool.evictions == {"leaked": 1}
    await assert_all_places_usable(pool)


async def test_session_collected_in_another_thread_is_reclaimed():
    pool = FakePool(max_sessions_per_key=1)
    pooled = await pool.acquire(URL)
    pooled.me = pooled  # type: ignore[attr-defined]
    del pooled
    await asyncio.to_thread(gc.collect)
    await until(lambda: pool.closed_sessions)
    await turns()
    assert pool.evictions == {"leaked": 1}
    await assert_all_places_usable(pool)


async def test_last_reference_dropped_in_another_thread_is_reclaimed():
    pool = FakePool(max_sessions_per_key=1)
    box = [await pool.acquire(URL)]
    await asyncio.to_thread(box.clear)
    await until(lambda: pool.closed_sessions)
    await turns()
    assert pool.evictions == {"leaked": 1}
    await assert_all_places_usable(pool)


async def test_close_hook_that_releases_a_reclaimed_session_releases_nothing():
    pool = FakePool(max_sessions_per_key=1)
    close = pool._close_session

    async def release_and_close(pooled: Any) -> None:
        await pool.release(pooled)
        await close(pooled)

    pool._close_session = release_and_close  # type: ignore[method-assign]
    pooled = await pool.acquire(URL)
    del pooled
    await until(lambda: pool.closed_sessions)
    await turns()
    assert pool.evictions == {"leaked": 1}
    assert pool.count("closing") == 0
    await assert_all_places_usable(pool)


async def test_many_sessions_dropped_at_once_are_all_reclaimed():
    pool = FakePool(max_sessions_per_key=50)
    taken = [await pool.acquire(URL) for _ in range(50)]
    kept = taken.pop()
    taken.clear()
    await until(lambda: len(pool.closed_sessions) == 49)
    await turns()
    assert pool.evictions == {"leaked": 49}
    await pool.release(kept)
    await assert_all_places_usable(pool)


async def test_dropped_session_of_a_closing_pool_is_closed_once():
    pool = FakePool()
    pooled = await pool.acquire(URL)
    del pooled
    await pool.close_all()
    await turns()
    assert len(pool.closed_sessions) == 1
    assert_at_rest(pool)


async def test_session_object_kept_past_its_close_harms_nothing():
    pool = FakePool()
    pooled = await pool.acquire(URL)
    await pool.close_all()
    del pool
    gc.collect()
    assert pooled.is_closed
    assert pooled._pool is None
    assert pooled.url == URL
    pooled.mark_closed()


# ---- hooks that raise


async def test_exception_of_an_overridden_creation_passes_unchanged():
    pool = FakePool(max_sessions_per_key=1, circuit_breaker_threshold=100)
    for error in (OSError("mine"), ValueError(), TimeoutError(), ExceptionGroup("g", [OSError()])):
        pool.create_error = error
        with pytest.raises(type(error)) as caught:
            await pool.acquire(URL)
        assert caught.value is error
        await turns()
        assert_at_rest(pool)
    assert pool.count("create_failures") == 4
    pool.create_error = None
    await assert_all_places_usable(pool)


async def test_creation_hook_that_is_no_coroutine_function_is_a_clear_error():
    pool = FakePool(max_sessions_per_key=1)
    pool._create_session = lambda *args: 7  # type: ignore[assignment,method-assign]
    with pytest.raises(TypeError, match="await"):
        await pool.acquire(URL)
    del pool._create_session
    await turns()
    await assert_all_places_usable(pool)


async def test_close_that_raises_gives_its_place_back():
    pool = FakePool(max_sessions_per_key=1)
    pool.close_error = OSError("cannot")
    await pool.release(await pool.acquire(URL), discard=True)
    await turns()
    await assert_all_places_usable(pool)
    await pool.close_all()
    assert_at_rest(pool)


async def test_health_check_that_raises_is_a_failed_check():
    clock = FakeClock()
    pool = FakePool(max_sessions_per_key=1, health_check_interval_seconds=10, clock=clock)
    pooled = await pool.acquire(URL)
    await pool.release(pooled)
    clock.advance(11)
    pool.is_healthy = OSError("gone")
    fresh = await pool.acquire(URL)
    assert fresh is not pooled
    assert pool.count("health_check_failures") == 1
    assert pool.evictions == {"health_check": 1}
    await pool.release(fresh)
    await turns()
    await assert_all_places_usable(pool)


@pytest.mark.parametrize("where", ["subclass", "instance"])
async def test_overridden_validation_is_asked_at_each_hand_out(where: str):
    verdicts: list[Any] = [True, False, OSError("gone"), True]
    asked: list[Any] = []

    async def validate(pooled: Any) -> bool:
        asked.append(pooled)
        verdict = verdicts[len(asked) - 1]
        if isinstance(verdict, Exception):
            raise verdict
        return bool(verdict)

    class Own(FakePool):
        async def _validate_session(self, pooled: Any) -> bool:
            return await validate(pooled)

    pool = Own(max_sessions_per_key=1) if where == "subclass" else FakePool(max_sessions_per_key=1)
    if where == "instance":
        pool._validate_session = validate  # type: ignore[method-assign]
    first = await pool.acquire(URL)
    assert asked == []
    await pool.release(first)
    assert await pool.acquire(URL) is first
    await pool.release(first)
    second = await pool.acquire(URL)
    assert second is not first
    await pool.release(second)
    third = await pool.acquire(URL)
    assert third is not second
    await pool.release(third)
    assert await pool.acquire(URL) is third
    await pool.release(third)
    assert asked == [first, first, second, third]
    assert pool.evictions == {"health_check": 2}
    assert (pool.count("hits"), pool.count("misses")) == (2, 3)
    await turns()
    assert_at_rest(pool)


async def test_validation_hook_removed_from_an_instance_is_asked_no_more():
    pool = FakePool()
    hook = AsyncMock(return_value=True)
    pool._validate_session = hook  # type: ignore[method-assign]
    await pool.release(await pool.acquire(URL))
    await pool.release(await pool.acquire(URL))
    assert hook.await_count == 1
    del pool._validate_session
    await pool.release(await pool.acquire(URL))
    await upkeep(pool)
    assert hook.await_count == 1
    assert_at_rest(pool)


# ---- the classes of errors


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        (PoolClosedError, (PoolError, RuntimeError)),
        (CircuitOpenError, (PoolError, RuntimeError)),
        (AcquireTimeoutError, (PoolError, TimeoutError)),
        (PoolExhaustedError, (PoolError, TimeoutError)),
        (SessionCreateError, (PoolError, RuntimeError)),
        (SessionCreateTimeoutError, (SessionCreateError, TimeoutError)),
    ],
)
def test_each_error_is_also_of_the_class_that_gateways_catch(error: type, bases: tuple[type, ...]):
    assert issubclass(error, bases[0])
    assert issubclass(error, bases[1])
    assert error.__name__ in mcpgateway_pool.__all__


async def test_default_creation_raises_session_create_error_with_its_cause_and_without_credentials(
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level(logging.DEBUG, "mcpgateway_pool")
    pool = MCPSessionPool()
    url = "http://user:s3cret@127.0.0.1:1/mcp?token=s3cret"
    with pytest.raises(SessionCreateError, match=r"Failed to create MCP session for http://127") as caught:
        await pool.acquire(url, {"Authorization": "Bearer s3cret"})
    assert caught.value.__cause__ is not None
    assert not isinstance(caught.value, TimeoutError)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in caplog.text
    assert "s3cret" not in str(pool.get_metrics())
    await pool.close_all()


async def test_creation_that_takes_too_long_raises_its_own_error():
    clock = FakeClock()
    pool = FakePool(max_sessions_per_key=1, session_create_timeout_seconds=7, clock=clock)
    pool.holds_creations = True
    acquiring = asyncio.ensure_future(pool.acquire("http://user:s3cret@server/mcp?s3cret"))
    await until(lambda: pool.creations)
    clock.advance(6.9)
    await asyncio.sleep(0.05)
    assert not acquiring.done()
    clock.advance(0.2)
    with pytest.raises(SessionCreateTimeoutError, match=r"http://server/mcp.*7 s") as caught:
        await acquiring
    assert "s3cret" not in str(caught.value)
    assert pool.count("create_failures") == 1
    await turns()
    pool.holds_creations = False
    await assert_all_places_usable(pool)


async def test_report_says_whether_it_was_the_first():
    """A close or a check that is reported twice, as when its bound has passed: the second is no news."""
    reports: list[tuple[str, bool]] = []

    class Reporting(FakePool):
        def _close_ended(self, ticket: Any) -> bool:
            reports.extend(("close", super(Reporting, self)._close_ended(ticket)) for _ in range(2))
            return True

        def _checked(self, ticket: Any, is_usable: bool) -> bool:
            reports.extend(("check", super(Reporting, self)._checked(ticket, is_usable)) for _ in range(2))
            return True

    clock = FakeClock()
    pool = Reporting(clock=clock, health_check_interval_seconds=10)
    await pool.release(await pool.acquire(URL))
    clock.advance(11)
    pooled = await pool.acquire(URL)
    await pool.release(pooled, discard=True)
    await turns()
    for name in ("check", "close"):
        news = [first for what, first in reports if what == name]
        assert news[:2] == [True, False]
        assert not any(news[2:])
    assert_at_rest(pool)
