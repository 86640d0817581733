"""Does operations of one side an exact number of times, for a profiler that counts instructions.

A program of its own, which ``instructions.py`` runs under valgrind: ``counted.py SIDE TIMES OPERATION ...``.
Each operation is done a few times first, because the interpreter adapts its bytecode, then ``TIMES``, then
twice as often. It calls :func:`mark` before and after each of the three, and the profiler writes there what
it counted since the mark before.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sys
from collections.abc import Awaitable, Callable

import measures
import sides

# Of the C library, and called by nothing else here: where it is called, the profiler cuts.
MARK_FUNCTION = "getpgid"
WARM_UP = 300
MANY_KEYS = 1_000


def mark() -> None:
    """End a stage."""
    os.getpgid(0)


async def hit(side: sides.Side, times: int, headers: str = "two", keys: int = 1) -> None:
    """acquire() and release() of an idle session."""
    pool = await measures.filled_pool(side, keys, headers, {})
    users = random.Random(1).choices(sides.users(keys), k=times)
    given, transport = measures.HEADERS[headers], side.transport
    acquire, release = pool.acquire, pool.release
    mark()
    for user in users:
        pooled = await acquire(measures.URL, given, transport, user_identity=user, gateway_id="gateway-1")
        await release(pooled)
    mark()


async def hit_many_headers(side: sides.Side, times: int) -> None:
    """The same with a long token and twenty headers."""
    await hit(side, times, headers="twenty")


async def hit_many_keys(side: sides.Side, times: int) -> None:
    """The same in a pool of many keys, a random one each time."""
    await hit(side, times, keys=MANY_KEYS)


async def session(side: sides.Side, times: int) -> None:
    """``async with pool.session()`` of an idle session."""
    pool = await measures.filled_pool(side, 1, "two", {})
    given, transport, make = measures.TWO_HEADERS, side.transport, pool.session
    mark()
    for _ in range(times):
        async with make(
            measures.URL, given, transport, user_identity="user-0@example.com", gateway_id="gateway-1"
        ):
            pass
    mark()


async def hand_off(side: sides.Side, times: int) -> None:
    """release() that hands its session to the oldest of ten waiters, until that one runs and waits again."""
    pool = side.make_pool(max_sessions_per_key=1, acquire_timeout_seconds=1e6)
    left = times

    async def caller() -> None:
        nonlocal left
        while left > 0:
            pooled = await pool.acquire(
                measures.URL, measures.TWO_HEADERS, side.transport, user_identity="user", gateway_id="gateway"
            )
            left -= 1
            await pool.release(pooled)

    mark()
    await asyncio.gather(*(caller() for _ in range(11)))
    mark()


async def miss(side: sides.Side, times: int) -> None:
    """acquire() that creates a session, an instant fake, and release() that closes it."""
    pool = side.make_pool()
    acquire, release, transport = pool.acquire, pool.release, side.transport
    mark()
    for _ in range(times):
        pooled = await acquire(
            measures.URL, measures.TWO_HEADERS, transport, user_identity="user", gateway_id="gateway"
        )
        await release(pooled, discard=True)
    mark()


OPERATIONS: dict[str, Callable[[sides.Side, int], Awaitable[None]]] = {
    operation.__name__: operation
    for operation in (hit, hit_many_headers, hit_many_keys, session, hand_off, miss)
}


async def run(side: sides.Side, times: int, names: list[str]) -> None:
    """All operations of these names."""
    for name in names:
        for count in (WARM_UP, times, 2 * times):
            await OPERATIONS[name](side, count)


def main() -> None:
    """Do what the command line says."""
    gc.disable()
    asyncio.run(run(sides.load(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))


if __name__ == "__main__":
    main()
