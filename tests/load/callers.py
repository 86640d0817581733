"""The callers of the load test, and the books that they keep: nothing in them is read from the pool."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate

from faulty_pool import Call, FakeSession, FaultyPool, Key, current_call

from mcpgateway_pool import AcquireTimeoutError, CircuitOpenError, PoolExhaustedError

# How calls are disturbed from outside, and what callers do with a session instead of giving it back; shares.
CANCELLED_AFTER_TURNS = 0.03
CANCELLED_AFTER_TIME = 0.03
TIMED_OUT = 0.02
RAISES = 0.01
DISCARDS = 0.01
DROPS = 0.002
# How long a call lasts at most before it is cancelled, and how long a session is used.
PATIENCE_SECONDS = 0.05
USE_SECONDS = 0.02


class RefusedError(Exception):
    """An acquire failed."""


class BlockError(Exception):
    """What a caller raises while it has a session."""


class Callers:
    """Tasks that call through the pool, rest when they are told to, and end when they are told to.

    Args:
        pool: to call through.
        keys: where to; the first ones much more often than the last.
        seed: of what they do.
        pause: mean time between two calls of one caller, in seconds.

    Attributes:
        ended: how acquires ended, by (gateway, how): ``"answered"``, ``"cancelled"``, ``"timed out"``,
            ``"circuit_open"``, ``"exhausted"``, ``"queue_full"`` or ``"not created"``.
        dropped: sessions that were let go without a release, by gateway.
        slowest: the longest acquire, in seconds.
        resting: callers that rest now.
        slowness: what their pauses are multiplied by.
    """

    def __init__(self, pool: FaultyPool, keys: Sequence[Key], seed: int, pause: float) -> None:
        self._pool = pool
        self._keys = keys
        self._weights = list(accumulate(1 / (rank + 5) for rank in range(len(keys))))
        self._seed = seed
        self._pause = pause
        self._may_call = asyncio.Event()
        self._may_call.set()
        self._is_over = False
        self.ended: Counter[tuple[str, str]] = Counter()
        self.dropped: Counter[str] = Counter()
        self.slowest = 0.0
        self.resting = 0
        self.slowness = 1.0

    def start(self, count: int) -> list[asyncio.Task[None]]:
        """The tasks of so many callers."""
        return [
            asyncio.create_task(self._call_again_and_again(random.Random(f"{self._seed} {number}")))
            for number in range(count)
        ]

    def rest(self) -> None:
        """Have every caller begin no other call, from the end of its pause on."""
        self._may_call.clear()

    def go_on(self) -> None:
        """Have all of them call again."""
        self._may_call.set()

    def end(self) -> None:
        """Have all of them end."""
        self._is_over = True
        self._may_call.set()

    def total(self, how: str) -> int:
        """Acquires of all gateways that ended thus."""
        return sum(count for (_, ended), count in self.ended.items() if ended == how)

    async def _call_again_and_again(self, chance: random.Random) -> None:
        while not self._is_over:
            await self._sleep(chance)
            if not self._may_call.is_set():
                self.resting += 1
                await self._may_call.wait()
                self.resting -= 1
                continue  # after a pause, or all would call at once
            [key] = chance.choices(self._keys, cum_weights=self._weights)
            try:
                await self._disturbed_call(key, chance)
            except RefusedError:
                await self._sleep(chance)  # as a client that tries again should
            except (BlockError, ConnectionError, TimeoutError):
                pass

    async def _sleep(self, chance: random.Random) -> None:
        await asyncio.sleep(chance.uniform(0.5, 1.5) * self._pause * self.slowness)

    async def _disturbed_call(self, key: Key, chance: random.Random) -> None:
        number = chance.random()
        if number < TIMED_OUT:
            async with asyncio.timeout(chance.uniform(0, PATIENCE_SECONDS)):
                await self._call(key, chance)
        elif number < TIMED_OUT + CANCELLED_AFTER_TIME:
            call = asyncio.create_task(self._call(key, chance))
            await asyncio.wait({call}, timeout=chance.uniform(0, PATIENCE_SECONDS))
            await _cancel(call)
        elif number < TIMED_OUT + CANCELLED_AFTER_TIME + CANCELLED_AFTER_TURNS:
            call = asyncio.create_task(self._call(key, chance))
            for _ in range(chance.randrange(8)):
                await asyncio.sleep(0)
            await _cancel(call)
        else:
            await self._call(key, chance)

    async def _call(self, key: Key, chance: random.Random) -> None:
        if chance.random() < 0.5:
            await self._call_in_a_block(key, chance)
        else:
            await self._call_by_hand(key, chance)

    async def _call_in_a_block(self, key: Key, chance: random.Random) -> None:
        async with contextlib.AsyncExitStack() as stack:
            with self._acquiring(key):
                pooled = await stack.enter_async_context(self._pool.session(**key.arguments))
            session = self._pool.hand_out(pooled, key)
            try:
                await _use(session, chance)
            finally:
                self._pool.give_back(session)

    async def _call_by_hand(self, key: Key, chance: random.Random) -> None:
        with self._acquiring(key):
            pooled = await self._pool.acquire(**key.arguments)
        session = self._pool.hand_out(pooled, key)
        number = chance.random()
        if number < DROPS:
            session.marks.add("dropped")
            self.dropped[key.gateway] += 1
            self._pool.give_back(session)
            return
        discards = number < DROPS + DISCARDS
        try:
            await _use(session, chance)
        finally:
            if discards:
                session.marks.add("discarded")
            self._pool.give_back(session)
            await self._pool.release(pooled, discard=discards)

    @contextlib.contextmanager
    def _acquiring(self, key: Key) -> Iterator[None]:
        """Note how an acquire ends.

        Raises:
            RefusedError: it failed.
        """
        begin = time.monotonic()
        call = Call()
        token = current_call.set(call)
        how = ""
        try:
            yield
            how = "answered"
        except asyncio.CancelledError:
            # Cancelled after its creation had failed, but before it could take notice: that comes first.
            how = "not created" if call.has_failed else "cancelled"
            raise
        except Exception as error:
            how = _kind_of(error)
            raise RefusedError from error
        finally:
            current_call.reset(token)
            self.ended[key.gateway, how] += 1
            self.slowest = max(self.slowest, time.monotonic() - begin)


async def _use(session: FakeSession, chance: random.Random) -> None:
    await asyncio.sleep(chance.uniform(0, 2 * USE_SECONDS))
    if session.is_dead:
        raise ConnectionResetError("the connection was lost in a call")
    if chance.random() < RAISES:
        raise BlockError


async def _cancel(call: asyncio.Task[None]) -> None:
    """The CancelledError is not passed on; an error of the call is."""
    call.cancel()
    await asyncio.wait({call})
    if not call.cancelled():
        call.result()


def _kind_of(error: Exception) -> str:
    if isinstance(error, CircuitOpenError):
        return "circuit_open"
    if isinstance(error, PoolExhaustedError):
        return "queue_full" if "Too many callers" in str(error) else "exhausted"
    if isinstance(error, AcquireTimeoutError):
        return "timed out"
    if isinstance(error, (ConnectionError, TimeoutError)):
        return "not created"
    raise error
