"""What a subclass for a gateway builds on: settings changed in use, permission to create, its messages."""

from __future__ import annotations

import dataclasses
import logging
import weakref
from typing import Any

import pytest

from mcpgateway_pool import MCPSessionPool, _core
from support.fakes import URL, FakeClock, FakePool


def core_settings(pool: MCPSessionPool, **changes: Any) -> dict[str, Any]:
    """The arguments of ``_configure()``."""
    changed = dataclasses.replace(pool._settings, **changes).for_core()
    return {
        "limits": changed["limits"],
        "times": changed["times"],
        "breaker": changed["breaker"],
        "extractor": changed["identity"][2],
    }


# ---- settings changed in use


async def test_a_raised_limit_lets_more_sessions_in():
    pool = FakePool(max_sessions_per_key=1, max_waiters=1, acquire_timeout_seconds=0.0)
    held = [await pool.acquire(URL)]
    with pytest.raises(TimeoutError):
        await pool.acquire(URL)
    pool._configure(**core_settings(pool, max_sessions_per_key=2))
    held.append(await pool.acquire(URL))
    pool._configure(**core_settings(pool, max_sessions_per_key=1))
    for pooled in held:
        await pool.release(pooled)
    await pool.close_all()


async def test_a_new_lifetime_holds_for_sessions_opened_later():
    clock = FakeClock()
    pool = FakePool(session_ttl_seconds=100.0, clock=clock)
    async with pool.session(URL) as first:
        pool._configure(**core_settings(pool, session_ttl_seconds=10.0))
        async with pool.session(URL) as second:
            pass
    clock.advance(50.0)
    while pool._upkeep():
        pass
    (idle,) = (idle for _, idle, _ in pool._keys())
    assert idle == [first]
    assert second is not first
    await pool.close_all()


async def test_an_extractor_given_later_decides_the_identity():
    pool = FakePool()
    seen: list[dict[str, str]] = []

    def extractor(headers: dict[str, str]) -> str:
        seen.append(headers)
        return "same"

    pool._settings = dataclasses.replace(pool._settings, identity_extractor=extractor)
    pool._configure(**core_settings(pool))
    for token in ("a", "b"):
        async with pool.session(URL, {"Authorization": token}):
            pass
    assert seen
    assert len(pool._keys()) == 1
    await pool.close_all()


class SomeHeaders(dict[str, str]):
    """Something whose end a weak reference tells."""


@pytest.mark.parametrize("is_changed", [False, True])
@pytest.mark.parametrize(
    "ahead", [{}, {"min_idle": 1}, {"replace_sessions": True}], ids=["none", "idle", "replaced"]
)
async def test_headers_of_a_caller_are_kept_only_where_sessions_are_opened_ahead(
    ahead: dict[str, Any], is_changed: bool
):
    pool = FakePool() if is_changed else FakePool(**ahead)
    if is_changed:
        pool._configure(**core_settings(pool, **ahead))
    await pool.release(await pool.acquire(URL, {"authorization": "a", "x-trace": "0"}))
    headers = SomeHeaders({"authorization": "a", "x-trace": "1"})
    gone = weakref.ref(headers)
    await pool.release(await pool.acquire(URL, headers))
    del headers
    assert (gone() is None) == (not ahead)
    await pool.close_all()


async def test_an_overridden_validation_is_still_asked_at_each_hand_out_after_a_change():
    pool = FakePool()
    asked: list[Any] = []

    async def validate(pooled: Any) -> bool:
        asked.append(pooled)
        return True

    pool._validate_session = validate  # type: ignore[method-assign]
    for hand_outs in range(3):
        assert len(asked) == max(hand_outs - 1, 0)
        async with pool.session(URL):
            pool._configure(**core_settings(pool, max_sessions_per_key=3))
    assert len(asked) == 2
    await pool.close_all()


@pytest.mark.parametrize(
    "changes",
    [{"limits": (1, 2)}, {"times": (1, 2, 3, "jitter", 4)}, {"breaker": ()}, {"limits": [1, 2, 3, 4, 5]}],
)
def test_settings_of_another_shape_are_refused_and_change_nothing(changes: dict[str, Any]):
    pool = FakePool(max_sessions_per_key=1)
    with pytest.raises(TypeError):
        pool._configure(**{**core_settings(pool, max_sessions_per_key=5), **changes})


def test_a_pool_that_was_not_initialised_cannot_be_changed():
    pool = MCPSessionPool.__new__(MCPSessionPool)
    with pytest.raises(RuntimeError, match="__init__"):
        pool._configure(**core_settings(MCPSessionPool()))


# ---- permission to create


async def test_what_may_not_be_created_here_fails_its_caller_and_counts_for_no_breaker():
    class Forbidding(FakePool):
        async def _permit_creation(self, headers: dict[str, str] | None) -> None:
            if headers is not None:
                raise PermissionError(headers["reason"])

    pool = Forbidding(circuit_breaker_threshold=1)
    with pytest.raises(PermissionError, match="not here"):
        await pool.acquire(URL, {"reason": "not here"})
    assert pool.attempts == 0
    assert pool._circuit_breaker_trips == 0
    async with pool.session(URL):
        pass
    await pool.close_all()


# ---- messages


async def test_an_opened_breaker_is_logged_once_without_credentials(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.WARNING, logger="mcpgateway_pool")
    pool = FakePool(circuit_breaker_threshold=2)
    url = "http://u:s3cret@server.test/mcp?key=s3cret"
    pool.create_error = OSError(f"no route to {url}")
    for _ in range(2):
        with pytest.raises(OSError, match="no route"):
            await pool.acquire(url, user_identity="me")
    opened = [record.getMessage() for record in caplog.records if "opened" in record.getMessage()]
    where = "http://server.test/mcp"
    assert opened == [f"Circuit breaker opened for {where}: OSError: no route to {where}"]
    await pool.close_all()


async def test_messages_go_to_the_logger_that_a_subclass_names(caplog: pytest.LogCaptureFixture):
    class Logging(FakePool):
        def _log(self) -> logging.Logger:
            return logging.getLogger("elsewhere")

    pool = Logging()
    pooled = await pool.acquire(URL, user_identity="me")
    await pool.release(pooled)
    await pool.release(pooled)
    assert [record.name for record in caplog.records] == ["elsewhere"]
    await pool.close_all()


# ---- the header of the downstream session


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        ({"x-mcp-session-id": "s"}, "s"),
        ({"a": "b", "X-MCP-Session-ID": "s"}, "s"),
        ({"x-mcp-session-id": "z", "X-Mcp-Session-Id": "a"}, "a"),
        ({"x-mcp-session-id": ""}, None),
        ({"mcp-session-id": "s"}, None),
        ({"x-mcp-session-id": 1, 2: "x"}, None),
        ({}, None),
        (None, None),
        ([("x-mcp-session-id", "s")], None),
    ],
)
def test_session_header_is_found_in_any_case(headers: Any, value: str | None):
    assert _core.session_header(headers) == value
