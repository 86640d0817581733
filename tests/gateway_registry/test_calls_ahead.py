"""Sessions for calls without a downstream session that are opened before a call needs them: whose they are,
and what the environment says of them.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import pytest

from mcpgateway_pool.gateway.registry.calls.callers import Caller
from mcpgateway_pool.gateway.settings import SettingError
from support.fake_upstreams import FakeUpstream
from support.fakes import until
from support.registry_calls import Call, Make, use

ANN = Caller("tools", ("ann@example.com",), None)
BOB = Caller("tools", ("bob@example.com",), None)

of_request: ContextVar[str] = ContextVar("of_request", default="nobody's")


@pytest.fixture
def contexts(upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """In whose context each session was opened."""
    seen: list[str] = []
    plain = upstream.open

    async def open_(request: Any) -> Any:
        seen.append(of_request.get())
        return await plain(request)

    monkeypatch.setattr(upstream, "open", open_)
    return seen


async def test_a_session_that_is_opened_ahead_is_of_its_user_and_of_no_call(
    make: Make, upstream: FakeUpstream, contexts: list[str]
) -> None:
    registry = make({"MIN_IDLE": "1"})
    pool = registry._calls.pool
    of_request.set("ann's")
    call = Call(registry, registry._calls.admit(ANN, "g1"), "g1")
    await call.begun.wait()
    await until(lambda: len(upstream.sessions) == 2)
    await until(lambda: pool._counts()["idle"] == 1)
    assert contexts == ["nobody's", "nobody's"]
    first, ahead = pool._openings.values()
    assert (ahead.key, ahead.owner) == (first.key, first.owner)
    assert first.requests is ahead.requests is None
    assert pool._keys_of_owner == {first.owner: {first.key: 2}}

    await use(registry, registry._calls.admit(ANN, "g1"), "g1")  # while the first one is in use
    assert (pool._totals()["misses"], pool._totals()["hits"]) == (1, 1)
    await use(registry, registry._calls.admit(BOB, "g1"), "g1")
    assert (pool._totals()["misses"], pool._totals()["hits"]) == (2, 1)
    await call.end()


async def test_what_the_environment_says_is_of_the_calls_without_a_downstream_session(make: Make) -> None:
    registry = make(
        {"MIN_IDLE": "2", "REPLACE_SESSIONS": "false", "LEAK_DETECTION_SECONDS": "7"},
    )
    of_calls, of_downstream = registry._calls.pool.settings, registry._pool.settings
    assert (of_calls.min_idle, of_downstream.min_idle) == (2, 0)
    assert not of_calls.replace_sessions
    assert not of_downstream.replace_sessions
    assert of_calls.leak_detection_seconds == of_downstream.leak_detection_seconds == 7


async def test_unset_sessions_are_replaced_and_none_is_kept_ready(make: Make) -> None:
    registry = make()
    settings = registry._calls.pool.settings
    assert (settings.min_idle, settings.leak_detection_seconds) == (0, 0)
    assert settings.replace_sessions
    assert not registry._pool.settings.replace_sessions  # what is in such a session is in no other


async def test_more_than_a_key_may_have_cannot_be_kept_ready(make: Make) -> None:
    with pytest.raises(SettingError, match=r"MIN_IDLE must be at most .*MAX_SESSIONS_PER_KEY, which is 2"):
        make({"MIN_IDLE": "3", "MAX_SESSIONS_PER_KEY": "2"})
