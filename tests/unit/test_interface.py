"""The names that users of other pools expect: open, close, closed, name, repr, stats, server, wait_timeout;
what errors say; and what a caller is told who uses a session, or drops a pool, in the wrong way.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import gc
import pickle
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from mcpgateway_pool import (
    AcquireTimeoutError,
    CircuitOpenError,
    MCPSessionPool,
    PoolClosedError,
    PooledSession,
    PoolStats,
    TransportType,
)
from mcpgateway_pool.upstream import sdk
from support.fakes import URL, FakeClock, FakePool, PlainPool, turns, until

SECRET_URL = "http://user:s3cret@server.test/mcp?token=s3cret"


# ---- open, close, closed, name, repr


async def test_open_adopts_the_loop_and_opens_nothing() -> None:
    pool = FakePool(name="tools")
    assert pool._loop is None
    assert repr(pool) == "<FakePool 'tools': not open yet, 0 active, 0 idle, 0 waiting, 0 keys>"
    await pool.open()
    await pool.open()
    assert pool._loop is asyncio.get_running_loop()
    assert pool.attempts == 0
    await pool.release(await pool.acquire(URL))
    held = await pool.acquire(URL, user_identity="a")
    assert repr(pool) == "<FakePool 'tools': open, 1 active, 1 idle, 0 waiting, 2 keys>"
    assert not pool.closed
    await pool.release(held)
    await pool.close()
    assert pool.closed
    assert repr(pool) == "<FakePool 'tools': closed, 0 active, 0 idle, 0 waiting, 0 keys>"
    assert pool.open_now["total"] == 0


async def test_close_is_close_all_also_where_that_is_overridden() -> None:
    class Closing(FakePool):
        closes_all = 0

        async def close_all(self) -> None:
            self.closes_all += 1
            await super().close_all()

    pool = Closing()
    await pool.close()
    await pool.close()
    assert pool.closes_all == 2


async def test_a_closed_pool_cannot_be_opened_again() -> None:
    pool = FakePool()
    await pool.close()
    with pytest.raises(PoolClosedError):
        await pool.open()
    with pytest.raises(PoolClosedError):
        async with pool:
            pass


async def test_open_says_that_the_sdk_is_missing_and_async_with_leaves_that_to_the_first_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def missing() -> None:
        raise ImportError("opening MCP sessions needs the MCP SDK")

    monkeypatch.setattr(sdk, "load_aside", missing)
    pool = MCPSessionPool()
    with pytest.raises(ImportError, match="needs the MCP SDK"):
        await pool.open()
    async with pool:
        pass
    await FakePool().open()  # which opens no session by it


async def test_what_a_pool_knows_is_in_slots_which_makes_its_methods_quicker() -> None:
    pool = MCPSessionPool()
    await pool.open()
    with pytest.raises(Exception, match=r"127\.0\.0\.1"):
        await pool.acquire("http://127.0.0.1:9/mcp", user_identity="u")
    await pool.close()
    assert vars(pool) == {}


def test_each_pool_has_a_name_of_its_own() -> None:
    names = [MCPSessionPool().name for _ in range(3)]
    assert len(set(names)) == 3
    assert all(re.fullmatch(r"pool-\d+", name) for name in names)
    assert MCPSessionPool(name="pool-x").name == "pool-x"


@pytest.mark.parametrize(("bad", "kind"), [(7, TypeError), (b"x", TypeError), ("", ValueError)])
def test_a_name_is_a_str_that_is_not_empty(bad: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"^name must"):
        MCPSessionPool(name=bad)


def test_a_pool_whose_constructor_failed_has_a_repr() -> None:
    pool = MCPSessionPool.__new__(MCPSessionPool)
    assert repr(pool) == "<MCPSessionPool: not initialized>"


# ---- stats


async def test_stats_are_a_frozen_record_of_what_the_series_show() -> None:
    pool = FakePool(max_sessions_per_key=2, max_total_sessions=9, max_total_keys=5, name="s")
    held = await pool.acquire(URL)
    await pool.release(await pool.acquire(URL))
    await pool.release(await pool.acquire(URL), discard=True)
    await turns()
    stats = pool.stats()
    assert stats == PoolStats(
        name="s",
        size=1,
        active_sessions=1,
        idle_sessions=0,
        session_creations_in_progress=0,
        waiters=0,
        keys=1,
        hits=1,
        misses=2,
        creates=2,
        create_failures=0,
        acquire_timeouts=0,
        evictions={reason: int(reason == "manual") for reason in stats.evictions},
        max_sessions_per_key=2,
        max_total_sessions=9,
        max_total_keys=5,
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.size = 0  # type: ignore[misc]
    with pytest.raises(TypeError):
        stats.evictions["manual"] = 0  # type: ignore[index]
    await pool.release(held)
    assert (stats.idle_sessions, pool.stats().idle_sessions) == (0, 1)
    await pool.close()


# ---- wait_timeout


@pytest.mark.parametrize("kind", [FakePool, PlainPool])
async def test_each_caller_waits_for_as_long_as_it_says(kind: type[FakePool]) -> None:
    clock = FakeClock()
    pool = kind(max_sessions_per_key=1, acquire_timeout_seconds=30.0, clock=clock)
    held = await pool.acquire(URL)

    async def enter() -> None:
        async with pool.session(URL, wait_timeout=2.0):
            raise AssertionError

    short, patient = asyncio.ensure_future(enter()), asyncio.ensure_future(pool.acquire(URL, wait_timeout=90))
    await until(lambda: pool.count("waiters") == 2)
    clock.advance(3.0)
    with pytest.raises(AcquireTimeoutError, match="after 2 s") as caught:
        await short
    error = caught.value
    assert (error.wait_timeout, error.max_sessions_per_key) == (2.0, 1)
    assert (error.active, error.idle, error.creating, error.closing, error.waiting) == (1, 0, 0, 0, 2)
    clock.advance(60.0)  # beyond acquire_timeout_seconds
    await turns()
    await pool.release(held)
    assert await patient is held
    await pool.release(held)
    await pool.close()


@pytest.mark.parametrize(("bad", "kind"), [("1", TypeError), (True, TypeError), (-1, ValueError)])
async def test_a_bad_wait_timeout_is_refused_at_the_call(bad: Any, kind: type[Exception]) -> None:
    pool = FakePool()
    with pytest.raises(kind, match="wait_timeout"):
        await pool.acquire(URL, wait_timeout=bad)
    with pytest.raises(kind, match="wait_timeout"):
        pool.session(URL, wait_timeout=bad)
    assert pool.attempts == 0


async def test_an_acquire_of_a_subclass_that_knows_no_wait_timeout_is_called_without() -> None:
    class Older(MCPSessionPool):
        async def acquire(
            self, url: str, headers: Any = None, *args: Any, timeout: Any = None, **more: Any
        ) -> Any:
            assert "wait_timeout" not in more
            return SimpleNamespace(url=url)

        async def release(self, pooled: Any, *, discard: bool = False) -> None:
            pass

    async with Older().session(URL) as pooled:
        assert pooled.url == URL


# ---- one server


async def test_a_server_acquires_with_the_arguments_that_it_was_made_with() -> None:
    pool = FakePool()
    headers = {"Authorization": "a"}
    server = pool.server(
        URL, headers=headers, transport_type=TransportType.SSE, user_identity="u", gateway_id="g"
    )
    headers["Authorization"] = "b"
    assert server.url == URL
    async with server.session() as pooled:
        assert (pooled.user_identity, pooled.gateway_id) == ("u", "g")
        assert (pooled.transport_type, pooled.headers) == (TransportType.SSE, {"Authorization": "a"})
    again = await server.acquire()
    assert again is pooled
    await server.release(again, discard=True)
    await pool.close()


async def test_a_servers_callers_wait_for_as_long_as_they_say() -> None:
    pool = FakePool(max_sessions_per_key=1)
    server = pool.server(URL)
    async with server.session():
        with pytest.raises(AcquireTimeoutError):
            await server.acquire(wait_timeout=0)
        with pytest.raises(AcquireTimeoutError):
            async with server.session(wait_timeout=0):
                pass
    await pool.close()


def test_a_server_shows_no_secret_and_refuses_bad_arguments() -> None:
    pool = MCPSessionPool()
    assert "s3cret" not in repr(pool.server(SECRET_URL, headers={"authorization": "s3cret"}))
    with pytest.raises(TypeError, match="headers must be a mapping or None, not str"):
        pool.server(URL, headers="s3cret")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="timeout"):
        pool.server(URL, timeout=0)


# ---- headers


class Tokens(Mapping[str, str]):
    """Says another token each time it is read."""

    def __init__(self) -> None:
        self.reads = 0

    def __getitem__(self, name: str) -> str:
        self.reads += 1
        return f"token {self.reads}"

    def __iter__(self) -> Iterator[str]:
        return iter(["Authorization"])

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize("kind", [FakePool, PlainPool])
async def test_headers_of_any_mapping_are_read_once(kind: type[FakePool]) -> None:
    """What decides the key is what is sent: a second reading could be another user's."""
    pool = kind()
    tokens = Tokens()
    first = await pool.acquire(URL, tokens)
    assert (tokens.reads, first.headers) == (1, {"Authorization": "token 1"})
    await pool.release(first)
    async with pool.session(URL, {"authorization": "token 1"}) as pooled:
        assert pooled is first
    async with pool.session(URL, tokens) as pooled:
        assert (tokens.reads, pooled.headers) == (2, {"Authorization": "token 2"})
    await pool.close()


async def test_headers_of_the_http_library_share_sessions_with_those_of_a_dict() -> None:
    pool = FakePool()
    given = {"Authorization": "Bearer x", "X-Other": "1"}
    first = await pool.acquire(URL, given)
    await pool.release(first)
    assert await pool.acquire(URL, sdk.http_library().Headers(given)) is first
    await pool.release(first)
    await pool.close()


async def test_what_a_mapping_raises_reaches_the_caller_and_nothing_is_lost() -> None:
    class Broken(Tokens):
        def __getitem__(self, name: str) -> str:
            raise LookupError("no token now")

    pool = FakePool(max_sessions_per_key=1)
    with pytest.raises(LookupError, match="no token now"):
        await pool.acquire(URL, Broken())
    assert (pool.attempts, pool.count("keys")) == (0, 0)


# ---- errors


async def test_an_open_circuit_says_when_to_try_again_and_what_opened_it() -> None:
    clock = FakeClock()
    pool = FakePool(circuit_breaker_threshold=1, circuit_breaker_reset_seconds=60.0, clock=clock)
    pool.create_error = ConnectionRefusedError(111, "Connection refused")
    with pytest.raises(ConnectionRefusedError):
        await pool.acquire(SECRET_URL)
    clock.advance(15.0)
    with pytest.raises(CircuitOpenError, match="Circuit breaker open for") as caught:
        await pool.acquire(SECRET_URL)
    error = caught.value
    assert error.retry_after == pytest.approx(45.0)
    assert error.last_cause is not None
    assert "refused" in error.last_cause
    assert error.last_cause in str(error)
    assert str(error).endswith("; try again in 45.0 s")
    assert "s3cret" not in f"{error} {error.last_cause}"
    for same in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (str(same), same.retry_after) == (str(error), error.retry_after)
        assert same.last_cause == error.last_cause


async def test_while_a_probe_is_under_way_there_is_nothing_to_wait_for() -> None:
    clock = FakeClock()
    pool = FakePool(circuit_breaker_threshold=1, circuit_breaker_reset_seconds=60.0, clock=clock)
    pool.create_error = ConnectionRefusedError(111, "Connection refused")
    with pytest.raises(ConnectionRefusedError):
        await pool.acquire(URL)
    pool.create_error = None
    pool.holds_creations = True
    clock.advance(61.0)
    probe = asyncio.ensure_future(pool.acquire(URL))
    await until(lambda: pool.creations)
    with pytest.raises(CircuitOpenError) as caught:
        await pool.acquire(URL, user_identity="other")
    assert caught.value.retry_after == 0.0
    assert str(caught.value).endswith("; another caller is trying now")
    pool.creations[0].open()
    await pool.release(await probe)
    await pool.close()


def test_an_error_of_an_acquire_survives_copy_and_pickle() -> None:
    error = AcquireTimeoutError("late", wait_timeout=1.5, active=3, waiting=2, max_sessions_per_key=3)
    same = pickle.loads(pickle.dumps(error))
    assert (str(same), vars(same)) == ("late", vars(error))


# ---- sessions: what they are, and what a caller is told


async def test_a_closed_transport_that_nobody_reported_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    sdk.load()
    if sdk.generation() == 1:
        stream = SimpleNamespace(_closed=False)
        session: Any = SimpleNamespace(_write_stream=stream)
    else:
        stream = SimpleNamespace(_closed=False, _running=True)
        session = SimpleNamespace(_dispatcher=stream)
    pooled = PooledSession(session, None, URL, TransportType.STREAMABLE_HTTP, {}, "")
    assert pooled.is_closed is False
    stream._closed = True
    assert pooled.is_closed is True
    monkeypatch.setattr(sdk._sdk, "cache_info", lambda: SimpleNamespace(currsize=0))
    assert pooled.is_closed is False  # without an SDK there is no session of its


@pytest.mark.parametrize("kind", [FakePool, PlainPool])
async def test_who_goes_on_using_a_session_after_its_release_is_told(kind: type[FakePool]) -> None:
    pool = kind(max_sessions_per_key=1)
    async with pool.session(URL) as pooled:
        session = pooled.session
    with pytest.warns(RuntimeWarning, match="this session was released"):
        assert pooled.session is session
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with pool.session(URL):
            assert pooled.session is session  # it cannot be told from its holder's own
        await pool.close()
        assert pooled.session is session  # of a closed session its own errors tell


async def test_hooks_that_check_or_close_a_session_are_told_nothing() -> None:
    class Asking(FakePool):
        async def _run_health_check_chain(self, pooled: Any) -> bool:
            self.asked = pooled.session
            return True

        async def _close_session(self, pooled: Any) -> None:
            self.asked = pooled.session
            await super()._close_session(pooled)

    pool = Asking(health_check_interval_seconds=0)
    await pool.release(await pool.acquire(URL))
    await pool.release(await pool.acquire(URL))
    assert pool.asked is not None
    await pool.close()


# ---- a pool that is dropped


async def test_a_pool_that_is_dropped_while_a_session_is_open_warns() -> None:
    pool: FakePool | None = FakePool(name="forgotten")
    assert pool is not None
    await pool.release(await pool.acquire(URL))
    await turns()  # its creation ends
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del pool
        gc.collect()
    [warning] = [each for each in caught if issubclass(each.category, ResourceWarning)]
    assert "'forgotten': open, 0 active, 1 idle" in str(warning.message)
    assert "pool.close()" in str(warning.message)


async def test_a_pool_that_is_closed_or_was_never_used_is_dropped_in_silence() -> None:
    closed, empty = FakePool(), FakePool()
    await closed.release(await closed.acquire(URL))
    await closed.close()
    await empty.open()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del closed, empty
        gc.collect()


async def test_a_warning_that_is_an_error_disturbs_nothing() -> None:
    pool: FakePool | None = FakePool()
    assert pool is not None
    await pool.release(await pool.acquire(URL))
    await turns()
    unraisable: list[Any] = []
    hook, sys.unraisablehook = sys.unraisablehook, unraisable.append
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            del pool
            gc.collect()
    finally:
        sys.unraisablehook = hook
    assert [type(each.exc_value) for each in unraisable] == [ResourceWarning]
