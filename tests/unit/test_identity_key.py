"""``PooledSession.identity_key``: made of the pool's key when it is read, and kept when that key goes."""

from __future__ import annotations

import asyncio
import gc
import hashlib

from mcpgateway_pool import PooledSession
from support.fakes import URL, PlainPool, turns

HEADERS = {"authorization": "Bearer abc"}


def shown(pool: PlainPool) -> str:
    return pool._identity_key(HEADERS)


async def test_it_is_shown_in_every_state_of_the_session():
    pool = PlainPool()
    pooled = await pool.acquire(URL, HEADERS)
    expected = shown(pool)
    assert len(expected) == 64
    assert pooled.identity_key == expected
    await pool.release(pooled)
    assert pooled.identity_key == expected  # idle
    again = await pool.acquire(URL, HEADERS)
    pool.holds_closes = True
    closing = asyncio.ensure_future(pool.release(again, discard=True))
    await turns()
    assert pooled.identity_key == expected  # closing
    pool.closes[0].open()
    await closing
    await turns()
    assert pool._counts()["keys"] == 0
    assert pooled.identity_key == expected  # gone, and its key with it
    await pool.close_all()


async def test_what_a_hook_or_an_extractor_says_is_shown_as_the_pool_shows_it():
    pool = PlainPool(identity_extractor=lambda headers: "me")
    pooled = await pool.acquire(URL, HEADERS)
    assert pooled.identity_key == hashlib.sha256(b"me").hexdigest()
    await pool.release(pooled)
    await pool.close_all()
    hooked = PlainPool()
    hooked._compute_identity_hash = lambda headers: "mine"  # type: ignore[method-assign]
    pooled = await hooked.acquire(URL, HEADERS)
    assert pooled.identity_key == "mine"
    await hooked.release(pooled)
    await hooked.close_all()
    keyed = PlainPool()
    keyed._make_pool_key = lambda *args: ("a", "b")  # type: ignore[method-assign]
    pooled = await keyed.acquire(URL, HEADERS)
    assert pooled.identity_key == shown(keyed)
    await keyed.release(pooled)
    await keyed.close_all()


async def test_without_an_identity_it_is_anonymous_and_what_is_assigned_stays():
    pool = PlainPool()
    pooled = await pool.acquire(URL, user_identity="u")
    assert pooled.identity_key == "anonymous"
    pooled.identity_key = "other"
    await pool.release(pooled)
    assert pooled.identity_key == "other"
    await pool.close_all()
    assert PooledSession(None, None, URL, None, {}, "given").identity_key == "given"


async def test_one_of_a_pool_that_shares_its_sessions_is_shown_too():
    pool = PlainPool()
    pool._share(2, False)
    pooled = await pool.acquire(URL, HEADERS)
    assert pooled.identity_key == shown(pool)
    ticket = pool._lease_ticket(pooled)
    assert ticket is not None
    pool._release_lease(ticket, 0)
    await pool.close_all()


def test_it_outlives_a_loop_that_was_closed_and_a_pool_that_was_dropped():
    pool = PlainPool()

    expected = shown(pool)
    first = asyncio.run(pool.acquire(URL, HEADERS))
    second = asyncio.run(pool.acquire(URL, HEADERS))  # another loop: what the first one had is gone
    assert first._pool is None
    assert first.identity_key == expected
    pool._tasks.clear()
    del pool
    gc.collect()
    assert second._pool is None
    assert second.identity_key == expected
