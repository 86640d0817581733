"""What somebody outside can send a lot of does not fill memory or logs.

Elsewhere: gateway labels (tests/unit/test_collector.py), waiters (test_fairness.py), remembered URLs
(test_circuit.py), mappings and forwarded requests of other workers (tests/integration/test_affinity*.py).
"""

from __future__ import annotations

import gc
import logging
from typing import Any

import pytest

from mcpgateway_pool import PooledSession
from support.fakes import URL, FakePool, PlainPool, assert_at_rest, until, upkeep


async def test_warning_that_callers_can_cause_is_logged_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gc.collect()  # pools of other tests that die from here on would warn of their own leaks
    pool = PlainPool(max_sessions_per_key=500)
    caplog.set_level(logging.WARNING)
    for number in range(200):
        pooled = await pool.acquire(URL, user_identity=f"user {number}")
        await pool.release(pooled)
        await pool.release(pooled)  # one too many
        await pool.release(pool.make_session(URL, {}, pooled.transport_type))  # nobody's
        foreign: Any = PooledSession(
            session=None, transport_context=None, url=URL, transport_type=pooled.transport_type, headers={},
            identity_key="",
        )  # fmt: skip
        foreign.mark_closed()
        await pool.release(foreign)
        await pool.acquire(f"{URL}/{number}")  # by nobody, and never given back
    gc.collect()
    await upkeep(pool)
    await until(lambda: pool._counts()["closing"] == 0)
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == len({record.msg for record in caplog.records}) >= 4, texts
    await pool.close_all()


async def test_failing_extractor_is_logged_once_however_often_and_variously_it_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def extract(headers: dict[str, str]) -> str:
        raise ValueError(headers["who"])

    pool = FakePool(identity_extractor=extract)
    for number in range(200):
        await pool.release(await pool.acquire(URL, {"who": f"{number}"}))
    assert len([record for record in caplog.records if "extractor" in record.msg]) == 1
    assert_at_rest(pool)


async def test_sessions_of_the_longest_values_are_kept_apart_by_their_last_character() -> None:
    pool = FakePool()
    many = [{"headers": {"Authorization": "a" * size + end}} for size in (10**6, 10**6 + 1) for end in "ab"]
    many += [{"user_identity": "a" * 10**6 + end} for end in "ab"]
    many += [{"url": URL + "a" * 10**6 + end} for end in "ab"]
    sessions = []
    for arguments in many:
        sessions.append(await pool.acquire(**{"url": URL, **arguments}))
        await pool.release(sessions[-1])
    assert len({id(session) for session in sessions}) == len(many)
    for session, arguments in zip(sessions, many, strict=True):
        assert await pool.acquire(**{"url": URL, **arguments}) is session
        await pool.release(session)
    assert_at_rest(pool)


async def test_headers_that_are_no_identity_take_no_room_in_a_key() -> None:
    pool = FakePool()
    headers = {f"X-{number}": "v" * 100 for number in range(10_000)}
    one = await pool.acquire(URL, {**headers, "Authorization": "a"})
    await pool.release(one)
    assert await pool.acquire(URL, {"Authorization": "a"}) is one
    await pool.release(one)
    assert pool.count("keys") == 1
    assert_at_rest(pool)


async def test_spellings_of_one_header_are_bounded() -> None:
    """Anything that a caller can make quadratic is refused first."""
    pool = FakePool()
    spellings = {
        "".join(char.upper() if number >> place & 1 else char for place, char in enumerate("cookie")): "v"
        for number in range(64)
    }
    with pytest.raises(ValueError, match="more than 16 spellings"):
        await pool.acquire(URL, spellings)
    assert_at_rest(pool)
