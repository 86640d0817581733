"""A pool whose sessions, made up, fail in every way that real ones do, and that keeps books of its own.

The books are the oracle of the load test: nothing in them is read from the pool. A session carries what
happened to it, so that each reason for which the pool closes it can be judged.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import random
import time
import weakref
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

from mcpgateway_pool import MCPSessionPool, PooledSession, TransportType

# Clocks are read at different moments here and in the pool.
EPSILON_SECONDS = 0.005
# Shares. What is slow is in time; what hangs ends when it is cancelled; what is deaf ignores that for longer
# than the pool waits for it.
CREATIONS = {"fails": 0.02, "slow": 0.05, "hangs": 0.003, "deaf": 0.001}
CLOSES = {"fails": 0.02, "slow": 0.05, "hangs": 0.003, "deaf": 0.001}
CHECKS = {"fails": 0.05, "slow": 0.05, "hangs": 0.02}
SLOW_SECONDS = 0.1
QUICK_SECONDS = 0.005


class Call:
    """What a caller wants to know of its call; the creation of its session runs in its context.

    Attributes:
        has_failed: whether its creation has failed.
    """

    def __init__(self) -> None:
        self.has_failed = False


current_call: ContextVar[Call] = ContextVar("current_call")


class Key(NamedTuple):
    """What decides where a call goes; each is a key of the pool."""

    url: str
    user: str
    gateway: str

    @property
    def arguments(self) -> dict[str, Any]:
        """Of ``acquire()``."""
        return {
            "url": self.url,
            "headers": {"Authorization": self.user},
            "user_identity": self.user,
            "gateway_id": self.gateway,
        }


class FakeSession:
    """One made-up connection.

    Attributes:
        key: whose it is.
        begun: when its creation began, by the pool's clock.
        idle_since: when it was last given back, or made.
        uses: how often it was handed out.
        marks: what happened to it: ``discarded``, ``dropped``, ``dead``, ``failed check``.
        in_use: whether a caller holds it.
        is_closing: whether the pool has begun to close it.
        is_dead: whether its owner task has ended.
        is_long_dead: the same, and whoever was granted it before that has it.
        is_extra: whether the pool had given up its creation: it takes no place.
        owner: that task.
    """

    def __init__(self, key: Key, begun: float, down: set[str], chance: random.Random) -> None:
        self.key = key
        self.begun = begun
        self.idle_since = time.monotonic()
        self.uses = 0
        self.marks: set[str] = set()
        self.in_use = False
        self.is_closing = False
        self.is_dead = False
        self.is_long_dead = False
        self.is_extra = False
        self.shutdown = asyncio.Event()
        self.owner = asyncio.create_task(_own(self.shutdown), name="owner")
        self.owner.add_done_callback(self._note_death)
        self._down = down
        self._chance = chance

    def die(self) -> None:
        """As when its connection is lost."""
        self.marks.add("dead")
        self.owner.cancel()

    def _note_death(self, _: asyncio.Task[None]) -> None:
        self.is_dead = True
        _after_turns(3, self._note_long_death)

    def _note_long_death(self) -> None:
        self.is_long_dead = True

    async def send_ping(self) -> None:
        """Its health check."""
        how = _choose(CHECKS, self._chance)
        try:
            if how == "hangs":
                await asyncio.get_running_loop().create_future()
            await asyncio.sleep(SLOW_SECONDS if how == "slow" else QUICK_SECONDS)
            if self.key.url in self._down:
                raise ConnectionRefusedError("the server is down")  # noqa: TRY301
            if how == "fails":
                raise ConnectionError("the server does not know this session any more")  # noqa: TRY301
        except BaseException:  # cancelled: it took too long
            self.marks.add("failed check")
            raise


def _after_turns(turns: int, callback: Callable[[], object]) -> None:
    """Call a function when the loop has turned so often."""
    if turns == 0:
        callback()
    else:
        asyncio.get_running_loop().call_soon(_after_turns, turns - 1, callback)


async def _own(shutdown: asyncio.Event) -> None:
    await shutdown.wait()


def _choose(shares: dict[str, float], chance: random.Random) -> str | None:
    number = chance.random()
    for name, share in shares.items():
        number -= share
        if number < 0:
            return name
    return None


class FaultyPool(MCPSessionPool):
    """The pool under test; its hooks are the servers.

    Attributes:
        is_healed: no more faults.
        down: URLs whose server is down: creations and checks fail.
        creations: how creations ended, by (gateway, ``"in time"``, ``"failed"`` or ``"late"``).
        closes: closes that the pool began, by (gateway, reason).
        deaf: creations and closes that ignore their cancellation now.
        sessions: open sessions, by number.
        alive: every session that something still refers to.
        most_by_key: the most connections of one key at a time, those opening and closing included.
        most: the same of all keys.
        drained_before: sessions whose creation began before this must not be handed out again.
        problems: promises that the pool broke, each once.
    """

    def __init__(self, seed: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.chance = random.Random(seed)
        self.is_healed = False
        self.down: set[str] = set()
        self.creations: Counter[tuple[str, str]] = Counter()
        self.closes: Counter[tuple[str, str]] = Counter()
        self.deaf = 0
        self.sessions: dict[int, FakeSession] = {}
        self.alive: weakref.WeakSet[FakeSession] = weakref.WeakSet()
        self.most_by_key = 0
        self.most = 0
        self.drained_before = 0.0
        self.problems: set[str] = set()
        self._numbers = itertools.count()
        self._last_failure: dict[str, float] = {}
        self._last_drain = 0.0
        self._is_ending = False
        self._open: Counter[Key] = Counter()

    # ---- what callers and troublers tell

    def hand_out(self, pooled: Any, key: Key) -> FakeSession:
        """Judge the answer of an acquire; the caller has the session from here on."""
        session = pooled.session
        if session.key != key:
            self.problems.add("a session was handed to a caller of another key")
        if session.in_use:
            self.problems.add("a session was handed to two callers at a time")
        if session.is_closing:
            self.problems.add("a session was handed out after its close had begun")
        if session.is_long_dead or session.marks & {"discarded", "failed check"}:
            self.problems.add(f"a session was handed out again after it was {sorted(session.marks)}")
        if session.uses and session.begun < self.drained_before:
            self.problems.add("a session older than a drain was handed out again")
        session.uses += 1
        session.in_use = True
        return session  # type: ignore[no-any-return]

    def give_back(self, session: FakeSession) -> None:
        """The caller is about to release it."""
        session.in_use = False
        session.idle_since = time.monotonic()

    async def drain(self) -> None:
        """``drain_all()``, and remember which sessions it concerns."""
        begin, self._last_drain = time.monotonic(), math.inf
        draining = asyncio.create_task(self.drain_all())
        # Who was granted a session or a place just before the drain takes it.
        for _ in range(4):
            await asyncio.sleep(0)
        self.drained_before, self._last_drain = begin, time.monotonic()
        await draining

    def heal(self) -> None:
        """No more faults."""
        self.is_healed = True
        self.down.clear()

    async def end(self) -> None:
        """``close_all()``."""
        self._is_ending = True
        await self.close_all()

    # ---- hooks

    async def _create_session(
        self,
        url: str,
        headers: Any,
        transport_type: TransportType,
        httpx_client_factory: Any,
        timeout: float | None = None,
        gateway_id: str | None = None,
    ) -> Any:
        key = Key(url, headers["Authorization"], gateway_id or "")
        begun = time.monotonic()
        self._count_open(key, 1)
        how = _choose(CREATIONS, self.chance)
        if how == "deaf":  # the pool gives it up long before it comes to its end here
            limits = (self._settings.session_create_timeout_seconds, self._settings.cleanup_timeout_seconds)
            self._last_failure[url] = begun + sum(limits) + 1
        try:
            if url in self.down and not self.is_healed:
                raise ConnectionRefusedError("the server is down")  # noqa: TRY301
            is_late = await self._misbehave(how, key)
        except BaseException:
            self._count_open(key, -1)
            self._fail(key, "failed")
            current_call.get().has_failed = True
            raise
        if is_late:
            self._fail(key, "late")
        else:
            self.creations[key.gateway, "in time"] += 1
        session = FakeSession(key, begun, self.down, self.chance)
        session.is_extra = is_late
        self.sessions[id(session)] = session
        self.alive.add(session)
        return PooledSession(
            session=session,
            transport_context=None,
            url=url,
            transport_type=transport_type,
            headers={},
            identity_key="",
            _owner_task=session.owner,
            _shutdown_event=session.shutdown,
        )

    async def _close_session(self, pooled: Any) -> None:
        session: FakeSession = pooled.session
        if self.sessions.pop(id(session), None) is None:
            self.problems.add("a session was closed twice")
        is_late = session.is_extra
        try:
            # One that takes no place has none to give up.
            how = None if is_late else _choose(CLOSES, self.chance)
            is_late |= await self._misbehave(how, session.key)
        finally:
            session.shutdown.set()
            session.owner.cancel()
            if not is_late:
                self._count_open(session.key, -1)

    def _on_close(self, pooled: Any, ticket: Any, reason: str) -> asyncio.Task[None] | None:
        session: FakeSession = pooled.session
        if session.is_closing:
            self.problems.add("a close began twice")
        if not self._explains(session, reason):
            self.problems.add(f"a session was closed as {reason}: {session.marks}, in use {session.in_use}")
        session.is_closing = True
        self.closes[session.key.gateway, reason] += 1
        return super()._on_close(pooled, ticket, reason)

    # ---- books

    def _explains(self, session: FakeSession, reason: str) -> bool:
        """Whether what happened to the session is a reason to close it thus. That a caller's block raised is
        none; nor that its server's breaker opened, before a check has shown what it is worth.
        """
        settings, now = self._settings, time.monotonic() + EPSILON_SECONDS
        if session.in_use and not self._is_ending:
            return False
        shortest_life = settings.session_ttl_seconds * (1 - settings.session_ttl_jitter)
        last_failure = self._last_failure.get(session.key.url, 0.0)
        is_drained = session.begun <= self._last_drain + EPSILON_SECONDS
        explanations = {
            "broken": "dead" in session.marks,
            "capacity": settings.max_total_sessions > 0,
            "circuit_breaker": "failed check" in session.marks
            and last_failure >= session.idle_since - EPSILON_SECONDS,
            "health_check": "failed check" in session.marks,
            "idle_timeout": now - session.idle_since >= settings.idle_pool_eviction_seconds,
            "leaked": "dropped" in session.marks,
            "manual": "discarded" in session.marks or is_drained or self._is_ending,
            "ttl_expired": now - session.begun >= shortest_life,
        }
        return explanations[reason]

    async def _misbehave(self, how: str | None, key: Key) -> bool:
        """Take the time that it takes, or fail. Returns whether the pool has given up waiting by then: the
        place is no longer counted here either.
        """
        if how is None or self.is_healed:
            await asyncio.sleep(QUICK_SECONDS)
        elif how == "slow":
            await asyncio.sleep(SLOW_SECONDS)
        elif how == "fails":
            await asyncio.sleep(QUICK_SECONDS)
            raise ConnectionResetError("the connection was reset")
        else:
            never = asyncio.get_running_loop().create_future()
            try:
                await never
            except asyncio.CancelledError:
                if how == "hangs":
                    raise
            self._count_open(key, -1)
            # Deaf: longer than the pool waits after it has cancelled.
            self.deaf += 1
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(self._settings.cleanup_timeout_seconds + 1)
            self.deaf -= 1
            return True
        return False

    def _fail(self, key: Key, how: str) -> None:
        self.creations[key.gateway, how] += 1
        self._last_failure[key.url] = max(self._last_failure.get(key.url, 0.0), time.monotonic())

    def _count_open(self, key: Key, change: int) -> None:
        self._open[key] += change
        self.most_by_key = max(self.most_by_key, self._open[key])
        self.most = max(self.most, self._open.total())
